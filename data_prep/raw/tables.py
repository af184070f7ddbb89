"""Tables with a column of text: parquet files by row groups, and data sets streamed from the hub by shards.

Knows nothing of what becomes of a text.
"""

import io
import logging
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.errors import UserError
from data_prep.files import sha256_json
from data_prep.formatting import kind_of
from data_prep.raw.streams import BadInput, Damaged, Progress
from data_prep.terminal import escaped

_ID = "id"
_BATCH_BYTES, _MOST_ROWS = 4 << 20, 4096
_READ_AHEAD = 1 << 20
_SECONDS_TO_ANSWER = 20
_COLUMNS_SHOWN = 20
_LONGEST_REASON = 300
_PARQUET_ERRORS = (OSError, ValueError, pa.ArrowException)


@dataclass(frozen=True)
class Hub:
    """A data set's address: `dataset` is its name on the hub, or a local folder that is laid out like one."""

    dataset: str
    config: str | None
    split: str
    revision: str | None


@dataclass(frozen=True)
class HubFacts:
    """What is known before reading; `hub` has the exact revision, `fingerprint` changes with the data."""

    hub: Hub
    shards: int
    size: int
    fingerprint: str


class Row(NamedTuple):
    """One row: the row group or shard it is in, its id, and its text or what is bad about that."""

    part: int
    id: str
    text: str | BadInput


def num_row_groups(path: str) -> int:
    """Row groups of a parquet file; 1 for a file that cannot be read, which reading it complains of."""
    try:
        with _parquet_file(path) as file:
            return max(file.num_row_groups, 1)
    except _PARQUET_ERRORS:
        return 1


def read_parquet(path: str, text: str, start: int, end: int, report: Progress) -> Iterator[Row]:
    """The rows of the row groups start to end.

    Ids are those of a column `id`, else the row's place. `report` is told the row groups done. Raises Damaged for
    what is no parquet file or damaged, and where the column of texts is missing or of another type.
    """
    try:
        with _parquet_file(path, pre_buffer=False, buffer_size=_READ_AHEAD, page_checksum_verification=True) as file:
            _check_columns(path, text, file.schema_arrow)
            columns = [text, _ID] if _ID in file.schema_arrow.names and text != _ID else [text]
            for group in range(start, min(end, file.num_row_groups)):
                row = 0
                for batch in file.iter_batches(_batch_rows(file, group), [group], columns, use_threads=False):
                    for value, identifier in _rows(batch, text):
                        place = f"{group}/{row}" if identifier is None else str(identifier)
                        if not isinstance(value, str):
                            value = _bad(value, f"{path}: row {row} of row group {group}", text)
                        yield Row(group, place, value)
                        row += 1
                report(group + 1 - start)
    except _PARQUET_ERRORS as error:
        # The system's own errors have a number, those of the unpackers in pyarrow have none.
        if isinstance(error, OSError) and error.errno is not None:
            problem = f"cannot read {path}: {os.strerror(error.errno)}; mend that or move the file out of the source"
        else:
            reason = _one_line(error)
            problem = f"{path} is no whole parquet file ({reason}); fetch it again or move it out of the source"
        raise Damaged(problem) from error


@contextmanager
def _parquet_file(path: str, **options: Any) -> Iterator[pq.ParquetFile]:
    """The file, whatever its name: pyarrow takes names for UTF-8."""
    named = io.FileIO(path) if escaped(path) != path else nullcontext(path)
    with named as opened, pq.ParquetFile(opened, **options) as file:
        yield file


def _check_columns(path: str, text: str, schema: pa.Schema) -> None:
    if schema.names.count(text) != 1:
        raise Damaged(f"{path} has no column {text!r}, {_has(schema.names)}; name one with ?text=COLUMN")
    kind = schema.field(text).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise Damaged(f"{path}: column {text!r} holds {kind}, wanted strings; name another one with ?text=COLUMN")


def _has(names: list[str]) -> str:
    return f"it has {', '.join(names[:_COLUMNS_SHOWN])}" + (", ..." if len(names) > _COLUMNS_SHOWN else "")


def _batch_rows(file: pq.ParquetFile, group: int) -> int:
    """So many rows that a batch of average ones holds a few MiB.

    By the size of all columns: to ask for one column's ends the process where the file's metadata are damaged.
    """
    facts = file.metadata.row_group(group)
    return max(1, min(_MOST_ROWS, _BATCH_BYTES * max(facts.num_rows, 1) // max(facts.total_byte_size, 1)))


def _rows(batch: pa.RecordBatch, text: str) -> Iterator[tuple[Any, Any]]:
    """(text, id) of every row; a text that is not UTF-8 is the error that says so."""
    identifiers = (
        batch.column(_ID).to_pylist() if _ID in batch.schema.names and text != _ID else repeat(None, batch.num_rows)
    )
    try:
        texts = batch.column(text).to_pylist()
    except UnicodeDecodeError:
        texts = [_as_text(scalar) for scalar in batch.column(text)]
    return zip(texts, identifiers, strict=True)


def _as_text(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error


def _bad(value: Any, where: str, text: str) -> BadInput:
    if isinstance(value, UnicodeDecodeError):
        return BadInput(f"{where} is not UTF-8 ({value.reason}); mend it or take it out")
    found = "nothing" if value is None else kind_of(value)
    return BadInput(f"{where} has {found} in column {text!r}, wanted a string; mend it or take it out")


def hub_facts(hub: Hub) -> HubFacts:
    """Asks the hub, or looks at the folder. Raises UserError, in one line, where neither answers."""
    from datasets.utils.file_utils import xgetsize
    from huggingface_hub import HfApi

    with _plainly(hub):
        if not Path(hub.dataset).is_dir():
            found = HfApi().dataset_info(hub.dataset, revision=hub.revision, timeout=_SECONDS_TO_ANSWER)
            hub = Hub(hub.dataset, hub.config, hub.split, found.sha)
        builder = _builder(hub)
        shards = builder.as_streaming_dataset(split=hub.split).num_shards
        by_split = builder.config.data_files or {}
        # A split such as train+test has no entry of its own.
        lists = [by_split[hub.split]] if hub.split in by_split else list(by_split.values())
        size = sum(xgetsize(file) for files in lists for file in files)
        origin = [[list(files), files.origin_metadata] for files in lists]
    return HubFacts(hub, shards, size, sha256_json([builder.config.name, hub.split, hub.revision, origin]))


def read_hub(hub: Hub, text: str, start: int, end: int, report: Progress) -> Iterator[Row]:
    """The rows of the shards start to end.

    As `read_parquet`; but a data set that cannot be reached any more raises UserError, which no policy skips: it is
    not the input that is bad.
    """
    name = f"hub:{hub.dataset}"
    with _plainly(hub):
        data = _builder(hub).as_streaming_dataset(split=hub.split)
        for shard in range(start, end):
            try:
                for row, record in enumerate(data.shard(data.num_shards, shard)):
                    if text not in record:
                        raise Damaged(
                            f"{name} has no column {text!r}, {_has(list(record))}; name one with ?text=COLUMN"
                        )
                    value, identifier = record[text], record.get(_ID) if text != _ID else None
                    if not isinstance(value, str):
                        value = _bad(value, f"{name}: row {row} of shard {shard}", text)
                    yield Row(shard, f"{shard}/{row}" if identifier is None else str(identifier), value)
            except (pa.ArrowException, UnicodeDecodeError) as error:
                raise Damaged(f"{name}: shard {shard} of {hub.split} is damaged ({_one_line(error)})") from error
            report(shard + 1 - start)


@lru_cache(maxsize=4)
def _builder(hub: Hub) -> Any:
    from datasets import load_dataset_builder

    return load_dataset_builder(hub.dataset, hub.config, revision=hub.revision)


@contextmanager
def _plainly(hub: Hub) -> Iterator[None]:
    """The many errors of the hub's libraries as one line, without their log of repeated attempts."""
    import httpx
    from datasets.exceptions import DatasetsError

    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (httpx.TransportError, ConnectionError) as error:
        raise UserError(
            f"hub:{hub.dataset} cannot be reached ({_one_line(error)}); without a network, first run "
            f"`hf download {hub.dataset} --repo-type dataset --local-dir FOLDER` where there is one, and name the "
            "folder of the parquet files as the source"
        ) from error
    except (httpx.HTTPError, DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"hub:{hub.dataset} cannot be used ({_one_line(error)}); check the name, config={hub.config}, "
            f"split={hub.split} and revision={hub.revision}"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), _LONGEST_REASON, placeholder=" ...")
