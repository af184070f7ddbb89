"""gzip, bz2, xz and zstd: how a file is packed, and one stream of each unpacked in pieces of bounded size.

Knows nothing of files on disk. An unpacker is fed the bytes of one stream (gzip: member, zstd: frame) until `eof`;
`rest` is what it was fed behind that. The four libraries differ in everything but that.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

import zstandard

Compression = Literal["none", "gzip", "bz2", "xz", "zstd"]

MAGIC_BYTES = 10
_MAGIC: dict[Compression, re.Pattern[bytes]] = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
}
# Headers of streams that hold something, with what the formats fix in them: packed bytes look like zstd's by chance
# once in 2**32 places, like the others' less often.
_HEADERS: dict[Compression, re.Pattern[bytes]] = {
    "gzip": re.compile(rb"\x1f\x8b\x08[\0-\x1f].{4}[\0\x02\x04][\0-\x0d\xff]", re.DOTALL),
    "bz2": re.compile(rb"BZh[1-9]1AY&SY"),
    "xz": re.compile(rb"\xfd7zXZ\0\0[\0\x01\x04\x0a]"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}
_PIECE = 1 << 20
# A zstd block of 4 bytes unpacks to 128 KiB, and that library cannot stop in between.
_ZSTD_SLICE = 1 << 8
# What `zstd --long=31` writes; a frame's window is memory that its reader needs, if the text is as long.
_ZSTD_WINDOW = 1 << 31
_SEARCHED = 1 << 18


def compression_of(start: bytes) -> Compression:
    """How a file is packed, by its first bytes and whatever its name."""
    for name, magic in _MAGIC.items():
        if magic.match(start):
            return name
    return "none"


def find_stream(file: BinaryIO, compression: Compression, start: int, end: float) -> int | None:
    """Where the first header of a stream (member, frame) begins in bytes [start, end) of a file, None for nowhere."""
    file.seek(start)
    window, position = b"", start
    while position - MAGIC_BYTES < end and (block := file.read(_SEARCHED)):
        window = window[1 - MAGIC_BYTES :] + block
        position += len(block)
        if found := _HEADERS[compression].search(window):
            place = position - len(window) + found.start()
            return place if place < end else None
    return None


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data and not self._stream.eof:
            yield self._stream.decompress(data, _PIECE)
            data = self._stream.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def rest(self) -> bytes:
        return self._stream.unused_data


class _SelfFeeding:
    """bz2 and xz: what does not come out at once is kept inside."""

    def __init__(self, stream: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._stream = stream

    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield self._stream.decompress(data, _PIECE)
        while not self._stream.needs_input and not self._stream.eof:
            yield self._stream.decompress(b"", _PIECE)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def rest(self) -> bytes:
        return self._stream.unused_data


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self.rest = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for begin in range(0, len(data), _ZSTD_SLICE):
            try:
                yield self._stream.decompress(data[begin : begin + _ZSTD_SLICE])
            except zstandard.ZstdError as error:
                if "not enough memory" in str(error):
                    raise MemoryError from error
                raise
            if self._stream.eof:
                self.rest = self._stream.unused_data + data[begin + _ZSTD_SLICE :]
                return

    @property
    def eof(self) -> bool:
        return self._stream.eof


UNPACKERS: dict[Compression, Callable[[], _Gzip | _SelfFeeding | _Zstd]] = {
    "gzip": _Gzip,
    "bz2": lambda: _SelfFeeding(bz2.BZ2Decompressor()),
    "xz": lambda: _SelfFeeding(lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    "zstd": _Zstd,
}
UNPACK_ERRORS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError)
