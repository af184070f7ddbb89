"""Arrow files of packed rows, readable by `datasets.load_from_disk`.

Knows nothing of how rows are made. One file is one record batch, so that a column of a file is one array.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.files import sha256_json, whole_file
from data_prep.rows.pack import PackedRows


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
    with whole_file(path) as file, pa.ipc.new_stream(pa.PythonFile(file, "wb"), schema) as writer:
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


def _features(row_length: int, dtype: np.dtype) -> dict[str, object]:
    return {
        "input_ids": {"feature": {"dtype": dtype.name, "_type": "Value"}, "length": row_length, "_type": "List"},
        "lengths": {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "List"},
    }
