"""Sorting more lines than fit into memory: runs of lines by bucket on disk, read back one bucket at a time.

Knows nothing of what the lines hold. A run is a file of zstd frames, one a bucket, behind a table of offsets.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zstandard

from data_prep.errors import UserError
from data_prep.files import whole_file

_RUN_BYTES = 32 << 20
_ZSTD_LEVEL = 1


class RunWriter:
    """Takes (bucket, line) pairs and writes them as runs `<stem>-<number>.run`, holding one run in memory."""

    def __init__(self, stem: Path, num_buckets: int) -> None:
        self._stem, self._num_buckets = stem, num_buckets
        self._lines: defaultdict[int, list[bytes]] = defaultdict(list)
        self._bytes = 0
        self._paths: list[Path] = []

    def add(self, bucket: int, line: bytes) -> None:
        """Keep one line, which ends with "\\n" and holds no other."""
        self._lines[bucket].append(line)
        self._bytes += len(line)
        if self._bytes >= _RUN_BYTES:
            self._flush()

    def close(self) -> list[Path]:
        """Write what is left; the paths of all runs."""
        if self._lines:
            self._flush()
        return self._paths

    def _flush(self) -> None:
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        frames = [
            compressor.compress(b"".join(self._lines[bucket])) if bucket in self._lines else b""
            for bucket in range(self._num_buckets)
        ]
        offsets = np.cumsum([8 * (self._num_buckets + 1), *map(len, frames)], dtype="<u8")
        path = self._stem.with_name(f"{self._stem.name}-{len(self._paths):04d}.run")
        with whole_file(path) as file:
            file.write(offsets.tobytes())
            for frame in frames:
                file.write(frame)
        self._paths.append(path)
        self._lines.clear()
        self._bytes = 0


def read_bucket(runs: Sequence[Path], bucket: int) -> list[bytes]:
    """All lines of one bucket, run after run, without their line ends."""
    lines: list[bytes] = []
    for path in runs:
        with path.open("rb") as file:
            file.seek(8 * bucket)
            start, end = np.frombuffer(file.read(16), "<u8")
            if start == end:
                continue
            file.seek(int(start))
            frame = file.read(int(end - start))
        try:
            lines += zstandard.ZstdDecompressor().decompress(frame).split(b"\n")[:-1]
        except zstandard.ZstdError as error:
            raise UserError(f"{path} is corrupt ({error}); delete the folder around it and run again") from error
    return lines
