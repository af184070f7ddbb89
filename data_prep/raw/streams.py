"""The bytes of raw files: unpacked block by block from any place on, in bounded memory.

Knows nothing of formats or documents.
"""

import math
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from data_prep.errors import UserError
from data_prep.raw.compression import MAGIC_BYTES, UNPACK_ERRORS, UNPACKERS, Compression, compression_of, find_stream

# A file that unpacks to more than both is taken for one made to fill memory or disk.
BOMB_BYTES, BOMB_RATIO = 256 << 20, 200
BOM = b"\xef\xbb\xbf"

_BLOCK, _PACKED_BLOCK = 1 << 20, 1 << 18
# A damaged stream that unpacks to no more than this comes not at all: only its end tells that it is sound.
_HELD_BYTES = 4 << 20
# No unpacker goes on for longer behind damage: a block of bz2, the largest there is, has less than 2.3 MB.
_OVERRUN = 4 << 20
_WIDE_BYTES = 8
_WIDE = {
    "UTF-32": re.compile(
        rb"\xff\xfe\0\0|\0\0\xfe\xff|(?:(?!\0\0)..[\0-\3]\0){2}|(?:\0[\0-\3](?!\0\0)..){2}", re.DOTALL
    ),
    "UTF-16": re.compile(rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", re.DOTALL),
}


class BadInput(UserError):  # noqa: N818
    """Input that cannot be used: one line that names the file, the place and what to do."""


class Damaged(BadInput):
    """Input behind which nothing more can be read: the rest of the file, or of its span, is lost."""


Complain = Callable[[BadInput], None]
Progress = Callable[[int], None]


class _Broken(Exception):  # noqa: N818
    """A stream (member, frame) that cannot be unpacked; the next one, if any, begins at or behind byte `behind`."""

    def __init__(self, problem: str, behind: int) -> None:
        super().__init__(problem)
        self.behind = behind


def wide_encoding(start: bytes) -> str | None:
    """UTF-16 or UTF-32 where unpacked text begins as these do, with or without a byte order mark, else None."""
    return next((name for name, begins in _WIDE.items() if begins.match(start)), None)


class Stream:
    """The unpacked bytes of a file from byte `start` on disk on, read past `end` as long as somebody asks.

    Iterate once. A record belongs to the span [start, end) when it starts before `limit`, an offset like those of
    `base` and `where`: in the file where it is not packed, else in what is unpacked. Only multistream bz2 can be
    entered at a `start` other than 0: the streams that start in the span are unpacked, and those behind it as long
    as the last record goes on; `limit` is known once one of those begins.
    Raises Damaged, at most once for all spans of a file, for what cannot be read, is UTF-16 or UTF-32 (unless not
    `text`), or unpacks to more than `most` bytes and BOMB_RATIO times its size; and for a damaged stream (member,
    frame), unless `complain` is given. Then that is told, and where it returns, reading goes on at the next stream:
    an empty block says that what follows, from offset `resumed` on, does not go on with what came before.
    `opened` gives the bytes of what is no file of its own.
    """

    def __init__(
        self,
        path: str,
        compression: Compression,
        start: int = 0,
        end: int | None = None,
        progress: Progress = lambda _: None,
        most: int = BOMB_BYTES,
        text: bool = True,
        complain: Complain | None = None,
        opened: Callable[[], BinaryIO] | None = None,
    ) -> None:
        self.path, self.compression = path, compression
        self._start, self._end = start, math.inf if end is None else end
        self._progress, self._most, self._is_text = progress, most, text
        self._complain, self._opened = complain, opened or self._from_disk
        self.resumed = -1
        self._position = self._first = start
        self._unpacked = 0
        self.base = start if compression == "none" else 0
        self.limit = self._end if compression == "none" else math.inf

    def where(self, offset: int) -> str:
        """An offset in words, for messages."""
        if self.compression == "none":
            return f"at byte {offset:,}"
        if self._first == 0:
            return f"at byte {offset:,} of its unpacked text"
        return f"at byte {offset:,} of the text unpacked from its byte {self._first:,} on"

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self._opened() as file:
                if self.compression == "none":
                    yield from self._plain(file)
                else:
                    yield from self._checked(self._unpack(file))
        except OSError as error:
            raise Damaged(
                f"cannot read {self.path}: {error.strerror or error}; mend that or move the file out of the source"
            ) from error

    def _from_disk(self) -> BinaryIO:
        return Path(self.path).open("rb", buffering=0)

    def _plain(self, file: BinaryIO) -> Iterator[bytes]:
        if self._start:
            # Such a file is refused in its first span, once.
            if wide_encoding(file.read(_WIDE_BYTES)):
                return
            file.seek(self._start)
            yield from self._blocks(file, _BLOCK)
        else:
            yield from self._checked(self._blocks(file, _BLOCK))

    def _checked(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        first = b""
        for block in blocks:
            first += block
            if not block or len(first) >= _WIDE_BYTES:
                break
        encoding = wide_encoding(first) if self._is_text and self._first == 0 else None
        if encoding:
            raise Damaged(
                f"{self.path} is {encoding}, wanted UTF-8; convert it (for instance "
                f"iconv -f {encoding.lower()} -t utf-8) or move it out of the source"
            )
        if first:
            yield first
        if self.resumed >= 0:
            yield b""
        yield from blocks

    def _blocks(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        while block := file.read(size):
            self._position += len(block)
            self._progress(self._position)
            yield block

    def _unpack(self, file: BinaryIO) -> Iterator[bytes]:
        packed = self._blocks(file, _PACKED_BLOCK)
        if self._start:
            place = find_stream(file, self.compression, self._start, self._end)
            if place is None:
                return
            self._first = self._go_to(file, place)
        data = b""
        while True:
            data = self._next_header(data, packed)
            if not data:
                return
            header = self._position - len(data)
            beyond = self.limit < math.inf
            try:
                if compression_of(data) != self.compression:
                    raise _Broken(
                        f"{self.path}: no {self.compression} data but something else goes on at its byte {header:,}; "
                        "fetch it again or move it out of the source",
                        header + 1,
                    )
                if header >= self._end and not beyond:
                    self.limit, beyond = self._unpacked, True
                data = yield from self._unpack_stream(data, packed, file)
            except _Broken as broken:
                # What lies behind the span is refused by the span it belongs to.
                if not beyond:
                    self._refuse(Damaged(str(broken)), broken)
                self.resumed = self._unpacked
                yield b""
                place = None if beyond else self._next_stream(file, broken.behind, self._end)
                if place is None:
                    return
                self._go_to(file, place)
                packed, data = self._blocks(file, _PACKED_BLOCK), b""

    def _refuse(self, problem: Damaged, reason: Exception) -> None:
        if self._complain is None:
            raise problem from reason
        self._complain(problem)

    def _next_stream(self, file: BinaryIO, behind: int, end: float = math.inf) -> int | None:
        return find_stream(file, self.compression, behind, end) if file.seekable() else None

    def _go_to(self, file: BinaryIO, place: int) -> int:
        self._position = file.seek(place)
        return place

    def _next_header(self, data: bytes, packed: Iterator[bytes]) -> bytes:
        """At least the bytes of a header, or all that are left; gzip and xz may be padded with zeros in between."""
        at_start = self._position == len(data) + self._start
        while True:
            if self.compression in ("gzip", "xz") and not at_start:
                data = data.lstrip(b"\0")
            if len(data) >= MAGIC_BYTES or not (block := next(packed, b"")):
                return data
            data += block

    def _unpack_stream(self, data: bytes, packed: Iterator[bytes], file: BinaryIO) -> Generator[bytes, None, bytes]:
        """Yields what one stream (member, frame) unpacks to, returns the bytes read behind it."""
        begin = fed = self._position - len(data)
        before = self._unpacked
        unpacker = UNPACKERS[self.compression]()
        held: list[bytes] = []
        size, most_held = 0, 0 if self._complain is None else _HELD_BYTES
        try:
            while not unpacker.eof:
                # Portions are counted from the stream's own beginning: what comes before damage is found must not
                # depend on where reading began.
                while len(data) < _PACKED_BLOCK and (block := next(packed, b"")):
                    data += block
                if not data:
                    following = self._next_stream(file, max(begin + 1, fed - _OVERRUN))
                    if following is not None:
                        raise _Broken(self._corrupt(begin, "they have no end"), following)
                    yield from self._passed(held)
                    raise _Broken(
                        f"{self.path} ends in the middle of the {self.compression} data that begin at its byte "
                        f"{begin:,}: it is truncated; fetch it again or move it out of the source",
                        fed,
                    )
                portion, data = data[:_PACKED_BLOCK], data[_PACKED_BLOCK:]
                fed += len(portion)
                for piece in unpacker.pieces(portion):
                    held.append(piece)
                    size += len(piece)
                    self._check_ratio(before + size)
                    if size > most_held:
                        yield from self._passed(held)
        except MemoryError as error:
            raise UserError(
                f"{self.path}: there is not enough memory to unpack it; what `zstd --long` wrote takes up to 2 GiB in "
                "every worker: give fewer --workers, or pack it again without --long"
            ) from error
        except UNPACK_ERRORS as error:
            # The system's own errors have a number, bz2's have none.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise _Broken(self._corrupt(begin, str(error)), max(begin + 1, fed - _OVERRUN)) from error
        yield from self._passed(held)
        return unpacker.rest + data

    def _passed(self, held: list[bytes]) -> Iterator[bytes]:
        for piece in filter(None, held):
            self._unpacked += len(piece)
            yield piece
        held.clear()

    def _corrupt(self, begin: int, reason: str) -> str:
        return (
            f"{self.path}: the {self.compression} data that begin at its byte {begin:,} are corrupt ({reason}); "
            "fetch the file again or move it out of the source"
        )

    def _check_ratio(self, unpacked: int) -> None:
        read = self._position - self._first
        if unpacked > self._most and unpacked > BOMB_RATIO * read:
            raise Damaged(
                f"{self.path}: {read:,} bytes of it unpack to more than {self._most >> 20:,} MiB, as only a "
                "decompression bomb does; move it out of the source, or unpack it yourself if you trust it"
            )
