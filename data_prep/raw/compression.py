"""gzip, bz2 and zstd: how a file is packed, and one stream of each unpacked in pieces of bounded size.

Knows nothing of files. An unpacker is fed the bytes of one stream (gzip: member, zstd: frame) until `eof`; `rest` is
what it was fed behind that. The three libraries differ in everything but that.
"""

import bz2
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Literal

import zstandard

Compression = Literal["none", "gzip", "bz2", "zstd"]

MAGIC_BYTES = 10
_MAGIC: dict[Compression, re.Pattern[bytes]] = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
}
_PIECE = 1 << 20
# A zstd block of 4 bytes unpacks to 128 KiB, and that library cannot stop in between.
_ZSTD_SLICE = 1 << 8


def compression_of(start: bytes) -> Compression:
    """How a file is packed, by its first bytes and whatever its name."""
    for name, magic in _MAGIC.items():
        if magic.match(start):
            return name
    return "none"


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


class _Bz2:
    def __init__(self) -> None:
        self._stream = bz2.BZ2Decompressor()

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
        self._stream = zstandard.ZstdDecompressor().decompressobj()
        self.rest = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for begin in range(0, len(data), _ZSTD_SLICE):
            yield self._stream.decompress(data[begin : begin + _ZSTD_SLICE])
            if self._stream.eof:
                self.rest = self._stream.unused_data + data[begin + _ZSTD_SLICE :]
                return

    @property
    def eof(self) -> bool:
        return self._stream.eof


UNPACKERS: dict[Compression, Callable[[], _Gzip | _Bz2 | _Zstd]] = {"gzip": _Gzip, "bz2": _Bz2, "zstd": _Zstd}
UNPACK_ERRORS = (zlib.error, zstandard.ZstdError, OSError)
