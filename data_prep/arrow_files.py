"""Arrow files of packed rows: written here, mapped into memory here, readable by `datasets.load_from_disk`.

Knows nothing of how rows are made. One file is one record batch, so that a column of a file is one array.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.manifest import UserError, sha256_json
from data_prep.pack import PackedRows


@dataclass(frozen=True)
class MappedFile:
    """One file's rows as views of mapped memory: `ids` (n, row_length), the rest as in PackedRows."""

    ids: NDArray[np.integer]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int32]


def row_schema(row_length: int, dtype: np.dtype) -> pa.Schema:
    """The columns of a row, with the note in which `datasets` keeps its feature types."""
    note = json.dumps({"info": {"features": _features(row_length, dtype)}})
    return pa.schema(
        {
            "input_ids": pa.list_(pa.from_numpy_dtype(dtype), row_length),
            "lengths": pa.list_(pa.int32()),
        },
        metadata={"huggingface": note},
    )


def write_file(path: Path, rows: PackedRows) -> None:
    """One block of rows as an Arrow IPC stream of a single record batch."""
    schema = row_schema(rows.ids.shape[1], rows.ids.dtype)
    ids = pa.FixedSizeListArray.from_arrays(pa.array(rows.ids.reshape(-1)), type=schema.field("input_ids").type)
    lengths = pa.ListArray.from_arrays(pa.array(rows.offsets), pa.array(rows.lengths))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch([ids, lengths], schema=schema))


def write_dataset_files(folder: Path, names: list[str], row_length: int, dtype: np.dtype, content: str) -> None:
    """What `datasets.load_from_disk` wants beside the Arrow files; `content` identifies what they hold."""
    state: dict[str, object] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": sha256_json(content)[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": folder.name,
    }
    info: dict[str, object] = {
        "citation": "",
        "description": "",
        "features": _features(row_length, dtype),
        "homepage": "",
        "license": "",
    }
    for name, value in (("state.json", state), ("dataset_info.json", info)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def map_file(path: Path, row_length: int) -> MappedFile:
    """Views of a file written by `write_file`; UserError where it is not such a file of such rows."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is no readable Arrow stream ({error}); run shard again with --force") from error
    expected = row_schema(row_length, np.dtype(table.schema.field("input_ids").type.value_type.to_pandas_dtype()))
    if not table.schema.equals(expected) or any(column.num_chunks != 1 for column in table.columns):
        raise UserError(
            f"{path} holds other columns than rows of length {row_length} in one batch: "
            f"{table.schema.to_string(show_schema_metadata=False)!r}; run shard again with --force"
        )
    ids, lengths = table.column("input_ids").chunk(0), table.column("lengths").chunk(0)
    return MappedFile(
        ids.values.to_numpy(zero_copy_only=True).reshape(-1, row_length),
        lengths.values.to_numpy(zero_copy_only=True),
        lengths.offsets.to_numpy(zero_copy_only=True),
    )


def _features(row_length: int, dtype: np.dtype) -> dict[str, object]:
    return {
        "input_ids": {"feature": {"dtype": dtype.name, "_type": "Value"}, "length": row_length, "_type": "List"},
        "lengths": {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "List"},
    }
