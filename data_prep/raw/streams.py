"""The bytes of raw files: unpacked block by block from any place on, and their lines, all in bounded memory.

Knows nothing of formats or documents.
"""

import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from data_prep.manifest import UserError
from data_prep.raw.compression import MAGIC_BYTES, UNPACK_ERRORS, UNPACKERS, Compression, compression_of

MAX_RECORD_BYTES = 32 << 20
# A file that unpacks to more than both is taken for one made to fill memory or disk.
BOMB_BYTES, BOMB_RATIO = 256 << 20, 200
BOM = b"\xef\xbb\xbf"

_BLOCK, _PACKED_BLOCK = 1 << 20, 1 << 18
_BZ2_STREAM = re.compile(rb"BZh[1-9]1AY&SY")
_LONE_RETURNS = re.compile(rb"(?<!\r)\r++(?!\n)")
_UTF16_BYTES = 4
_UTF16 = re.compile(rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", re.DOTALL)


class BadInput(UserError):  # noqa: N818
    """Input that cannot be used: one line that names the file, the place and what to do."""


class Damaged(BadInput):
    """Input behind which nothing more can be read: the rest of the file, or of its span, is lost."""


Complain = Callable[[BadInput], None]
Progress = Callable[[int], None]


def is_utf16(start: bytes) -> bool:
    """True where unpacked text begins as UTF-16 (or UTF-32) does, with or without a byte order mark."""
    return _UTF16.match(start) is not None


class Stream:
    """The unpacked bytes of a file from byte `start` on disk on, read past `end` as long as somebody asks.

    Iterate once. A record belongs to the span [start, end) when it starts before `limit`, an offset like those of
    `base` and `where`: in the file where it is not packed, else in what is unpacked. Only multistream bz2 can be
    entered at a `start` other than 0: the streams that start in the span are unpacked, and those behind it as long
    as the last record goes on; `limit` is known once one of those begins.
    Raises Damaged, at most once for all spans of a file, for what cannot be read, is UTF-16 (unless not `text`),
    or unpacks to more than `most` bytes and BOMB_RATIO times its size.
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
    ) -> None:
        self.path, self.compression = path, compression
        self._start, self._end = start, math.inf if end is None else end
        self._progress, self._most, self._is_text = progress, most, text
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
            with Path(self.path).open("rb", buffering=0) as file:
                if self.compression == "none":
                    yield from self._plain(file)
                else:
                    yield from self._checked(self._unpack(file))
        except OSError as error:
            raise Damaged(
                f"cannot read {self.path}: {error.strerror or error}; mend that or move the file out of the source"
            ) from error

    def _plain(self, file: BinaryIO) -> Iterator[bytes]:
        if self._start:
            # A UTF-16 file is refused in its first span, once.
            if is_utf16(file.read(_UTF16_BYTES)):
                return
            file.seek(self._start)
            yield from self._blocks(file, _BLOCK)
        else:
            yield from self._checked(self._blocks(file, _BLOCK))

    def _checked(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        first = b""
        while len(first) < _UTF16_BYTES and (block := next(blocks, b"")):
            first += block
        if self._is_text and self._first == 0 and is_utf16(first):
            raise Damaged(
                f"{self.path} is UTF-16, wanted UTF-8; convert it (for instance iconv -f utf-16 -t utf-8) "
                "or move it out of the source"
            )
        yield first
        yield from blocks

    def _blocks(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        while block := file.read(size):
            self._position += len(block)
            self._progress(self._position)
            yield block

    def _unpack(self, file: BinaryIO) -> Iterator[bytes]:
        packed = self._blocks(file, _PACKED_BLOCK)
        data = self._first_stream(file, packed) if self._start else b""
        if data is None:
            return
        while True:
            data = self._next_header(data, packed)
            if not data:
                return
            header = self._position - len(data)
            beyond = self.limit < math.inf
            if compression_of(data) != self.compression:
                if beyond:
                    return
                raise Damaged(
                    f"{self.path}: no {self.compression} data but something else goes on at its byte {header:,}; "
                    "fetch it again or move it out of the source"
                )
            if header >= self._end and not beyond:
                self.limit, beyond = self._unpacked, True
            try:
                data = yield from self._unpack_stream(data, packed)
            except Damaged:
                # What lies behind the span is refused by the span it belongs to.
                if beyond:
                    return
                raise

    def _first_stream(self, file: BinaryIO, packed: Iterator[bytes]) -> bytes | None:
        """The bytes from the first header in the span on, None where none is in it."""
        file.seek(self._start)
        window = b""
        for block in packed:
            window = window[-(MAGIC_BYTES - 1) :] + block
            found = _BZ2_STREAM.search(window)
            first = self._position - len(window)
            if found is not None:
                self._first = first + found.start()
                return window[found.start() :] if self._first < self._end else None
            if self._position - MAGIC_BYTES >= self._end:
                break
        return None

    def _next_header(self, data: bytes, packed: Iterator[bytes]) -> bytes:
        """At least the bytes of a header, or all that are left; gzip may be padded with zeros between members."""
        at_start = self._position == len(data) + self._start
        while True:
            if self.compression == "gzip" and not at_start:
                data = data.lstrip(b"\0")
            if len(data) >= MAGIC_BYTES or not (block := next(packed, b"")):
                return data
            data += block

    def _unpack_stream(self, data: bytes, packed: Iterator[bytes]) -> Generator[bytes, None, bytes]:
        """Yields what one stream (member, frame) unpacks to, returns the bytes read behind it."""
        begin = self._position - len(data)
        unpacker = UNPACKERS[self.compression]()
        try:
            while True:
                for piece in unpacker.pieces(data):
                    if piece:
                        self._unpacked += len(piece)
                        self._check_ratio()
                        yield piece
                if unpacker.eof:
                    return unpacker.rest
                if not (data := next(packed, b"")):
                    raise Damaged(
                        f"{self.path} ends in the middle of the {self.compression} data that begin at its byte "
                        f"{begin:,}: it is truncated; fetch it again or move it out of the source"
                    )
        except UNPACK_ERRORS as error:
            # The system's own errors have a number, bz2's have none.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise Damaged(
                f"{self.path}: the {self.compression} data that begin at its byte {begin:,} are corrupt ({error}); "
                "fetch the file again or move it out of the source"
            ) from error

    def _check_ratio(self) -> None:
        read = self._position - self._first
        if self._unpacked > self._most and self._unpacked > BOMB_RATIO * read:
            raise Damaged(
                f"{self.path}: {read:,} bytes of it unpack to more than {self._most >> 20:,} MiB, as only a "
                "decompression bomb does; move it out of the source, or unpack it yourself if you trust it"
            )


def own_lines(stream: Stream, complain: Complain, inside: bool = False) -> Iterator[tuple[int, str]]:
    """(offset, line) of the lines that start before the stream's limit, as `read_lines` has them.

    Lines that are too long are left out with a complaint. Raises Damaged.
    """
    for offset, line in read_lines(stream, inside):
        if offset >= stream.limit:
            return
        if isinstance(line, str):
            yield offset, line
        elif isinstance(line, Damaged):
            raise line
        else:
            complain(line)


def read_lines(stream: Stream, inside: bool = False) -> Iterator[tuple[int, str | BadInput]]:
    """(offset, line without its line end), or what is bad about it, for all lines of a stream.

    Lines end at "\n", "\r\n" or "\r" only: U+2028 and U+0085 occur inside real texts. `inside`: the stream may begin in
    the middle of a line, and what comes before the first line end is left out; nothing comes where that lies behind
    the limit.
    Bad are lines over MAX_RECORD_BYTES, of which no more than that is held, NUL bytes, and what is not UTF-8.
    """
    offset = stream.base
    pending: list[bytes] = []
    length = 0
    for block in _with_line_feeds(stream):
        for number, part in enumerate(block.split(b"\n")):
            if number:
                if not inside:
                    yield offset, _line(stream, offset, pending, length)
                inside = False
                offset += length + 1
                pending, length = [], 0
            length += len(part)
            if inside:
                if offset + length >= stream.limit:
                    return
            elif length <= MAX_RECORD_BYTES:
                pending.append(part)
            else:
                pending.clear()
    if length and not inside:
        yield offset, _line(stream, offset, pending, length)


def _with_line_feeds(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes with "\n" for every "\r" that ends a line by itself; "\r\n" and "\r\r\n" stay."""
    held = b""
    for block in blocks:
        block = held + block
        # What follows the last ones is not known yet.
        held = block[len(block.rstrip(b"\r")) :]
        block = block[: len(block) - len(held)]
        yield _LONE_RETURNS.sub(lambda found: b"\n" * len(found[0]), block) if b"\r" in block else block
    if held:
        yield b"\n" * len(held)


def _line(stream: Stream, offset: int, parts: list[bytes], length: int) -> str | BadInput:
    if length > MAX_RECORD_BYTES:
        return BadInput(
            f"{stream.path}: the line {stream.where(offset)} is {length:,} bytes long, at most {MAX_RECORD_BYTES:,} "
            "are read; break it up or take it out"
        )
    line = parts[0] if len(parts) == 1 else b"".join(parts)
    if b"\0" in line:
        return Damaged(
            f"{stream.path} is not a text file: NUL byte {stream.where(offset + line.index(0))}; "
            "move it out of the source, or convert it if it is not UTF-8"
        )
    begin = len(BOM) if offset == 0 and line.startswith(BOM) else 0
    try:
        return line[begin:].decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        place = begin + error.start
        return Damaged(
            f"{stream.path} is not UTF-8: byte 0x{line[place]:02x} {stream.where(offset + place)}; "
            "convert it (for instance iconv -f latin1 -t utf-8) or move it out of the source"
        )
