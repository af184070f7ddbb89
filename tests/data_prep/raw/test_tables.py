"""Data sets by name: through the real `datasets` library, from a folder and from a hub of our own on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.errors import UserError
from data_prep.raw import tables
from data_prep.raw.formats import read_documents
from data_prep.raw.sources import RawFile, Source, find_files, parse_source, plan_units
from data_prep.raw.streams import BadInput
from tests.data_prep.hub_server import SHA, serve

SHOW = """
import sys
from data_prep.raw.formats import read_documents
from data_prep.manifest import UserError
from data_prep.raw.sources import find_files, parse_source, plan_units
try:
    files, _ = find_files([parse_source(sys.argv[1])])
    for unit in plan_units(files):
        print([document.id for document in read_documents(unit, print, lambda _: None)])
    print(files[0].path, files[0].size)
except UserError as error:
    print("error:", error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of five rows each, laid out as a data set of the hub."""
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    for number in range(3):
        rows = [f"text {number} {row}" for row in range(5)]
        table = pa.table({"id": [f"{number}-{row}" for row in range(5)], "text": rows})
        pq.write_table(table, folder / "data" / f"train-{number:05d}-of-00003.parquet", row_group_size=2)
    return folder


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps locks in its cache folder; builders are kept for a process."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    tables._builder.cache_clear()


def hub_file(folder: Path, options: str = "") -> RawFile:
    (file,), _ = find_files([parse_source(f"hub:{folder}{options}")])
    return file


def read(file: RawFile) -> tuple[list[list[str]], list[str]]:
    problems: list[BadInput] = []
    told: list[int] = []
    units = plan_units([file])
    documents = [list(read_documents(unit, problems.append, told.append)) for unit in units]
    assert sum(told) == file.size
    assert {document.kind for found in documents for document in found} <= {"hub", "lines"}
    return [[document.id for document in found] for found in documents], [str(problem) for problem in problems]


def test_folder_as_a_data_set_has_one_unit_a_shard(folder: Path) -> None:
    file = hub_file(folder)
    assert (file.format, file.parts, file.name, file.source) == ("hub", 3, str(folder), str(folder))
    assert file.size == sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    documents, problems = read(file)
    assert documents == [[f"{number}-{row}" for row in range(5)] for number in range(3)]
    assert problems == []


def test_fingerprint_goes_by_the_files_and_the_split(folder: Path) -> None:
    first = hub_file(folder).fingerprint
    assert hub_file(folder).fingerprint == first
    pq.write_table(pa.table({"text": ["x"]}), folder / "data" / "test-00000-of-00001.parquet")
    tables._builder.cache_clear()
    assert hub_file(folder).fingerprint == first
    assert hub_file(folder, "?split=test").fingerprint != first
    path = folder / "data" / "train-00000-of-00003.parquet"
    os.utime(path, (0, 0))
    tables._builder.cache_clear()
    assert hub_file(folder).fingerprint != first


def test_joined_splits_have_all_their_bytes(folder: Path) -> None:
    pq.write_table(pa.table({"id": ["x"], "text": ["x"]}), folder / "data" / "test-00000-of-00001.parquet")
    file = hub_file(folder, "?split=train+test")
    assert file.parts == 4
    assert file.size == sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    assert read(file)[0][3] == ["x"]


def test_rows_that_are_lines_are_joined(folder: Path) -> None:
    assert read(hub_file(folder, "?format=lines"))[0] == [["0-0"], ["1-0"], ["2-0"]]


def test_other_column_of_texts(folder: Path) -> None:
    documents = [
        document.paragraphs
        for unit in plan_units([hub_file(folder, "?text=id")])
        for document in read_documents(unit, pytest.fail, lambda _: None)
    ]
    assert documents[:2] == [["0-0"], ["0-1"]]


def test_missing_column_is_said_once_a_shard(folder: Path) -> None:
    documents, problems = read(hub_file(folder, "?text=body"))
    assert documents == [[], [], []]
    assert problems == [f"hub:{folder} has no column 'body', it has id, text; name one with ?text=COLUMN"] * 3


def test_rows_without_text_cost_those_rows(folder: Path) -> None:
    table = pa.table({"id": ["a", "b"], "text": [None, "x"]})
    pq.write_table(table, folder / "data" / "train-00001-of-00003.parquet")
    documents, problems = read(hub_file(folder))
    assert documents[1] == ["b"]
    assert problems == [
        f"hub:{folder}: row 0 of shard 1 has nothing in column 'text', wanted a string; mend it or take it out"
    ]


def test_damaged_shard_costs_that_shard(folder: Path) -> None:
    file = hub_file(folder)
    path = folder / "data" / "train-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    documents, problems = read(file)
    assert [len(found) for found in documents] == [5, 0, 5]
    (problem,) = problems
    assert problem.startswith(f"hub:{folder}: shard 1 of train is damaged (")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("?split=nope", r"\(Bad split: nope. Available splits: \['train'\]\); check the name, config=None, split=nope"),
        ("?config=nope", r"\(BuilderConfig 'nope' not found. Available: \['default'\]\); check the name, config=nope"),
    ],
)
def test_what_the_library_refuses_is_one_line(folder: Path, options: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"^hub:{folder} cannot be used {reason}"):
        hub_file(folder, options)


def test_script_data_sets_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "old.py").write_text("raise SystemExit('a loading script ran')\n")
    with pytest.raises(UserError, match=r"^hub:.*old cannot be used \(Dataset scripts are no longer supported"):
        find_files([Source(str(tmp_path / "old"), "old", is_hub=True)])


def show(spec: str, tmp_path: Path, endpoint: str) -> list[str]:
    """What a process of its own prints, that takes `endpoint` for the hub."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", SHOW, spec]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_without_a_network_there_is_one_clear_line(tmp_path: Path) -> None:
    (line,) = show("hub:wikimedia/wikipedia?config=20231101.en", tmp_path, "http://127.0.0.1:9")
    assert line == (
        "error: hub:wikimedia/wikipedia cannot be reached ([Errno 111] Connection refused); without a network, first "
        "run `hf download wikimedia/wikipedia --repo-type dataset --local-dir FOLDER` where there is one, and name the "
        "folder of the parquet files as the source"
    )


def test_data_set_of_a_hub_is_streamed_at_the_revision_found_first(folder: Path, tmp_path: Path) -> None:
    with serve(folder, "me/texts") as (endpoint, requests):
        *documents, last = show("hub:me/texts", tmp_path, endpoint)
        assert documents == [str([f"{number}-{row}" for row in range(5)]) for number in range(3)]
        size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
        assert last == f"hub:me/texts?config=None&split=train&revision={SHA} {size}"
        assert not [request for request in requests if "/main/" in request]
        (line,) = show("hub:me/other", tmp_path, endpoint)
        assert line.startswith("error: hub:me/other cannot be used (404 Client Error. Repository Not Found for url:")
