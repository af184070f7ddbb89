"""People's own tables, a train and a dev one: a folder of csv, tsv or JSON files, or a data set of the hub.

Nothing is guessed: what a file says is text unless JSON says otherwise. Knows nothing of labels or tasks.
"""

import csv
import json
import logging
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from data_prep.errors import UserError
from pipeline.objectives.text_lines import read_lines

# Names of the table to score on, the first that is there.
_DEV_FILES = ("dev", "validation", "valid", "test")
_DEV_SPLITS = ("validation", "dev", "test")
_HUB = "hub:"
_OPTIONS = ("config", "revision")
_MOST_SHOWN = 20
_LONGEST_REASON = 300
_QUOTED = re.compile(r'"(?:[^"]|"")*"')

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """Columns of equal length. `origin` says where they are from, `numbers` which `unit` there each row is.

    `class_names` are the hub's words for the integers in a column of classes.
    """

    origin: str
    unit: str
    numbers: Sequence[int]
    columns: Mapping[str, Sequence[Any] | pa.ChunkedArray]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, row: int) -> str:
        """Where a row is from, for messages."""
        return f"{self.origin}, {self.unit} {self.numbers[row]}"

    def column(self, name: str) -> Sequence[Any]:
        """The values of a column. Raises UserError listing the columns where there is none of that name."""
        if name not in self.columns:
            raise UserError(f"{self.origin} has no column {name!r}; it has {listed(self.columns)}")
        found = self.columns[name]
        return found.to_pylist() if isinstance(found, pa.ChunkedArray) else found


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Names for a message, not more than fit into it."""
    return ", ".join([*names][:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")


def read_tables(source: str, dev: str | None) -> tuple[Table, Table]:
    """The train and the dev table of a folder or of `hub:NAME?config=..&revision=..`.

    A folder has train.* and dev.*, else validation.*, valid.* or test.*, of .csv, .tsv, .jsonl or .json, plain or with
    .gz behind that; a hub's data set splits train and validation, else dev or test. `dev` names another file (without
    its endings) or split. NAME may be a folder that is laid out like a data set of the hub. Raises UserError for what
    is not there, cannot be read, or has no rows.
    """
    if dev == "train":
        raise UserError(f"{source}: the rows to score on are those to train on; name another table than train for dev")
    train, held_out = _read_hub(source, dev) if source.startswith(_HUB) else _read_folder(Path(source), dev)
    for table in (train, held_out):
        if not len(table):
            raise UserError(f"{table.origin} has no rows")
    return train, held_out


def _taken(wanted: tuple[str, ...], known: Mapping[str, Any], where: str, kind: str) -> str:
    for name in wanted:
        if name in known:
            if name != wanted[0]:
                _log.warning("%s has no %s; scores are of its %s", where, wanted[0], name)
            return name
    raise UserError(f"{where} has no {kind} called {' or '.join(wanted)}; it has {listed(known)}")


# Files


def _read_folder(folder: Path, dev: str | None) -> tuple[Table, Table]:
    if not folder.is_dir():
        raise UserError(
            f"{folder} is {'a file' if folder.exists() else 'not there'}; name a folder that has train and dev files "
            f"({', '.join(_READERS)}), or a data set of the hub as hub:NAME"
        )
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem, ending = _parts(path)
        if ending in _READERS and path.is_file():
            found.setdefault(stem, []).append(path)
    if not found:
        raise UserError(
            f"{folder} has no {', '.join(_READERS)} files; a folder that is laid out like a data set of the hub, of "
            f"parquet files for instance, is hub:{folder}"
        )
    wanted = _DEV_FILES if dev is None else (dev,)
    names = [_taken(names, found, str(folder), "table") for names in (("train",), wanted)]
    for name in names:
        if len(found[name]) > 1:
            raise UserError(f"{folder} has {' and '.join(path.name for path in found[name])}; leave one of them there")
    train, held_out = (_read_file(found[name][0]) for name in names)
    return train, held_out


def _parts(path: Path) -> tuple[str, str]:
    """(stem, ending) of a file's name, without its .gz."""
    plain = Path(path.name.removesuffix(".gz"))
    return plain.stem, plain.suffix


def _read_file(path: Path) -> Table:
    return _READERS[_parts(path)[1]](path)


def _read_csv(path: Path) -> Table:
    return _table(path, list(_quoted_rows(path, ",")))


def _read_tsv(path: Path) -> Table:
    """Quotes are marks of the format where every cell that begins with one is a quoted cell, else text as GLUE's.

    A cell may hold line ends and tabs only if it is quoted.
    """
    plain = [(number, line.split("\t")) for number, line in read_lines(path) if line]
    short = next(((number, row) for number, row in plain if len(row) != len(plain[0][1])), None)
    if short is None:
        if all(_QUOTED.fullmatch(cell) for _, row in plain for cell in row if cell.startswith('"')):
            plain = [(number, [_unquoted(cell) for cell in row]) for number, row in plain]
        return _table(path, plain)
    try:
        return _table(path, list(_quoted_rows(path, "\t")))
    except UserError as error:
        raise UserError(
            f"{path}, line {short[0]}: {len(short[1])} columns, expected {len(plain[0][1])}; read as if cells were in "
            f"quotes: {error}"
        ) from error


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _quoted_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line it begins on, cells) of every row but blank lines."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader((line + "\n" for _, line in read_lines(path)), delimiter=delimiter, strict=True)
    begin = 1
    try:
        for row in reader:
            if row:
                yield begin, row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {begin}: {error}; a cell that begins with a quotation mark ends with one, and those inside "
            "it are doubled"
        ) from error


def _table(path: Path, rows: list[tuple[int, list[str]]]) -> Table:
    """The rows below the first, which names the columns."""
    if not rows:
        raise UserError(f"{path} is empty")
    header = [name.strip() for name in rows[0][1]]
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise UserError(f"{path}, line {rows[0][0]}: two columns are called {twice[0]!r}")
    for number, row in rows[1:]:
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: {len(row)} columns, expected {len(header)} ({listed(header)})")
    columns = zip(*(row for _, row in rows[1:]), strict=True) if len(rows) > 1 else [()] * len(header)
    return Table(str(path), "line", [number for number, _ in rows[1:]], dict(zip(header, columns, strict=True)))


def _read_json(path: Path) -> Table:
    """An array of objects, or an object a line, whatever the file is called. A key that an object lacks is null."""
    lines = [(number, line) for number, line in read_lines(path) if line.strip()]
    is_array = bool(lines) and lines[0][1].lstrip().startswith("[")
    rows: list[tuple[int, Any]]
    if is_array:
        rows = list(enumerate(_parsed(str(path), "\n".join(line for _, line in lines))))
    else:
        rows = [(number, _parsed(f"{path}, line {number}", line)) for number, line in lines]
    unit = "index" if is_array else "line"
    for number, row in rows:
        if not isinstance(row, dict):
            raise UserError(f'{path}, {unit} {number}: {type(row).__name__}, wanted an object, as {{"text": ..}}')
    names = dict.fromkeys(name for _, row in rows for name in row)
    columns = {name: [row.get(name) for _, row in rows] for name in names}
    return Table(str(path), unit, [number for number, _ in rows], columns)


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}); wanted an object a line, or one array of them") from error


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json,
    ".json": _read_json,
}


# The hub


def _read_hub(source: str, dev: str | None) -> tuple[Table, Table]:
    import datasets
    import httpx
    from datasets.exceptions import DatasetsError

    name, options = _address(source)
    # What is cached of a folder would be taken for a later one of the same times and sizes, and nobody would miss it.
    is_folder = Path(name).is_dir()
    with TemporaryDirectory() if is_folder else nullcontext() as cache:
        try:
            splits = datasets.load_dataset(
                name,
                options.get("config"),
                revision=options.get("revision"),
                cache_dir=cache,
                keep_in_memory=is_folder,
            )
        except (httpx.HTTPError, DatasetsError, OSError, ValueError, RuntimeError) as error:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST_REASON, placeholder=" ...")
            raise UserError(
                f"{source} cannot be read ({reason}); check the name, config=.. and revision=..; where there is no "
                f"network, name a folder of train and dev files ({', '.join(_READERS)})"
            ) from error
    wanted = _DEV_SPLITS if dev is None else (dev,)
    train, held_out = (_taken(names, splits, source, "split") for names in (("train",), wanted))
    return _split(source, train, splits[train]), _split(source, held_out, splits[held_out])


def _address(source: str) -> tuple[str, dict[str, str]]:
    name, _, rest = source.removeprefix(_HUB).partition("?")
    options: dict[str, str] = {}
    for option in rest.split("&") if rest else []:
        key, _, value = option.partition("=")
        if key not in _OPTIONS or not value or key in options:
            raise UserError(
                f"{source}: {option!r} is not understood; options are "
                f"{', '.join(f'{name}=..' for name in _OPTIONS)}, each once, joined with &"
            )
        options[key] = value
    if not name:
        raise UserError(f"{source!r} names no data set; write hub:NAME, as in hub:stanfordnlp/imdb")
    return name, options


def _split(source: str, name: str, rows: Any) -> Table:
    return Table(
        f"{source}, split {name}",
        "index",
        range(len(rows)),
        {column: rows.data.column(column) for column in rows.column_names},
        {column: tuple(kind.names) for column, kind in rows.features.items() if hasattr(kind, "names")},
    )
