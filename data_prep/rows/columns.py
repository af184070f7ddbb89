"""Where the columns of a shard's Arrow file lie, and bytes from there. Knows nothing of index.json or of rows' meaning.

Files are read, not mapped: memory does not grow with what was read, and a disk that fails gives an error, not a signal
that kills the process.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.errors import UserError

REMEDY = "copy the corpus again or run `python -m data_prep shard` with --force"
_MAX_OPEN_FILES = 256


@dataclass(frozen=True)
class Columns:
    """Where the columns of one file begin, in bytes; `pieces` is how many lengths it holds in all."""

    path: Path
    dtype: np.dtype
    rows: int
    pieces: int
    ids_at: int
    offsets_at: int
    lengths_at: int


def locate_columns(path: Path, row_length: int) -> Columns:
    """Where the columns of a file lie that `arrow_files.write_file` wrote; UserError where it is no such file.

    Only the heads of the file are looked at, and no value is trusted that points outside it.
    """
    try:
        with pa.memory_map(str(path)) as source:
            whole = source.read_buffer()
            batches = list(pa.ipc.open_stream(whole))
            for batch in batches:
                batch.validate()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} is no readable Arrow stream ({str(error).split(chr(10))[0]}); {REMEDY}") from error
    problem = f"{path} holds other columns than rows of length {row_length} in one batch; {REMEDY}"
    if len(batches) != 1:
        raise UserError(problem)
    batch = batches[0]
    for dtype in (np.dtype(np.uint16), np.dtype(np.int32)):
        ids = pa.list_(pa.from_numpy_dtype(dtype), row_length)
        if batch.schema.equals(pa.schema({"input_ids": ids, "lengths": pa.list_(pa.int32())})):
            break
    else:
        raise UserError(problem)
    ids_valid, inner_valid, ids = batch.column(0).buffers()
    lengths_valid, offsets, piece_valid, lengths = batch.column(1).buffers()
    rows, pieces = batch.num_rows, len(batch.column(1).values)
    needed = (rows * row_length * dtype.itemsize, 4 * (rows + 1), 4 * pieces)
    places = []
    for buffer, size in zip((ids, offsets, lengths), needed, strict=True):
        place = -1 if buffer is None else buffer.address - whole.address
        if not 0 <= place <= whole.size - size or buffer.size < size:
            raise UserError(f"{path} is damaged: a column does not hold {rows} rows; {REMEDY}")
        places.append(place)
    if any(buffer is not None for buffer in (ids_valid, inner_valid, lengths_valid, piece_valid)):
        raise UserError(f"{path} is damaged: it has empty values; {REMEDY}")
    return Columns(path, dtype, rows, pieces, *places)


class _Descriptor:
    """An open file, closed when the last one who uses it lets go."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class Files:
    """Bytes of many files by their number; some stay open, the others are opened again when they are asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open: dict[int, _Descriptor] = {}
        self._lock = threading.Lock()

    def read(self, number: int, start: int, size: int) -> bytes:
        """`size` bytes from `start`. Raises UserError where the file does not give them."""
        try:
            descriptor = self._open.get(number) or self._opened(number)
            content = os.pread(descriptor.number, size, start)
            while 0 < len(content) < size:  # more than the system hands out at once, or near the end
                more = os.pread(descriptor.number, size - len(content), start + len(content))
                if not more:
                    break
                content += more
        except OSError as error:
            raise UserError(f"{self._paths[number]} cannot be read ({error.strerror}); {REMEDY}") from error
        if len(content) != size:
            raise UserError(f"{self._paths[number]} became shorter while it was in use; {REMEDY}")
        return content

    def _opened(self, number: int) -> _Descriptor:
        with self._lock:
            while len(self._open) >= _MAX_OPEN_FILES:
                del self._open[next(iter(self._open))]
            return self._open.setdefault(number, _Descriptor(self._paths[number]))
