"""GLUE's files as GLUE ships them, and its labels."""

import gzip
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep.errors import UserError
from pipeline.objectives.glue import TASKS, find_task, parse_label, read_task
from pipeline.objectives.tasks import Example


def write(path: Path, text: str, bom: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"\xef\xbb\xbf" * bom + text.encode("utf-8")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


ROWS = {
    "SST-2": ("dev.tsv", "sentence\tlabel\nfine \t1\ndull\t0\n", [("fine ", None, 1), ("dull", None, 0)]),
    "CoLA": ("dev.tsv", "gj04\t1\t\tHe ran.\ngj04\t0\t*\tRan he.", [("He ran.", None, 1), ("Ran he.", None, 0)]),
    "MRPC": (
        "dev.tsv",
        'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t3\t4\tHe said "no\t"No, he said.\n',
        [('He said "no', '"No, he said.', 1)],
    ),
    "RTE": ("dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tp\th\tnot_entailment\n", [("p", "h", 1)]),
    "STS-B": (
        "dev.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tg\tf\ty\t1\tnone\tnone\ta\tb\t3.750\n",
        [("a", "b", 3.75)],
    ),
    "QNLI": ("dev.tsv.gz", "index\tquestion\tsentence\tlabel\n0\tq?\ts.\tentailment\n", [("q?", "s.", 0)]),
    "QQP": ("dev.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tx?\ty?\t1\n", [("x?", "y?", 1)]),
    "MNLI": (
        "dev_matched.tsv",
        "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tp\th\tneutral\tcontradiction\n",
        [("p", "h", 2)],
    ),
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("inside", [True, False], ids=["glue folder", "task folder"])
def test_reads_a_file_as_glue_ships_it(name: str, inside: bool, tmp_path: Path) -> None:
    file, text, expected = ROWS[name]
    write(tmp_path / (name if inside else "") / file, text, bom=name == "MRPC")
    assert read_task(TASKS[name], "dev", tmp_path) == [Example(*row) for row in expected]


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", "sentence\tlabel\nnext\u0085line and\u2028separator\x0c\t1\r\ntwo\t0\r\n")
    found = read_task(TASKS["SST-2"], "dev", tmp_path)
    assert [(e.first, e.label) for e in found] == [("next\u0085line and\u2028separator\x0c", 1), ("two", 0)]


def test_matched_comes_before_a_plain_dev_file(tmp_path: Path) -> None:
    header = "sentence1\tsentence2\tgold_label\n"
    write(tmp_path / "dev.tsv", header + "a\tb\tneutral\n")
    assert read_task(TASKS["MNLI"], "dev", tmp_path)[0].first == "a"
    write(tmp_path / "dev_matched.tsv", header + "c\td\tneutral\n")
    assert read_task(TASKS["MNLI"], "dev", tmp_path)[0].first == "c"


@pytest.mark.parametrize(
    ("name", "text", "line", "words"),
    [
        ("SST-2", "sentence\tlabel\nfine\t1\nodd\t2\n", 3, ["'2'", "0, 1", "label"]),
        ("SST-2", "sentence\tlabel\nfine\n", 2, ["1 columns", "expected 2"]),
        ("SST-2", "sentence\tlabel\nfine\t1\n\ndull\t0\n", 3, ["1 columns"]),
        ("SST-2", "text\tlabel\nfine\t1\n", 1, ["sentence", "text"]),
        ("CoLA", "gj04\t1\tHe ran.\n", 1, ["3 columns", "expected 4"]),
        ("QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tx\ty\t1\tz\n", 2, ["7 columns"]),
        ("STS-B", "sentence1\tsentence2\tscore\na\tb\t5.1\n", 2, ["5.1", "between 0 and 5"]),
        ("STS-B", "sentence1\tsentence2\tscore\na\tb\tnan\n", 2, ["nan"]),
        ("STS-B", "sentence1\tsentence2\tscore\na\tb\thigh\n", 2, ["'high'", "not a number"]),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(name: str, text: str, line: int, words: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "dev.tsv", text)
    with pytest.raises(UserError) as caught:
        read_task(TASKS[name], "dev", tmp_path)
    assert str(caught.value).startswith(f"{path}, line {line}")
    assert all(word in str(caught.value) for word in words)


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_bytes(b"sentence\tlabel\ncaf\xe9\t1\n")
    with pytest.raises(UserError, match=r"dev\.tsv, line 2: not UTF-8"):
        read_task(TASKS["SST-2"], "dev", tmp_path)


def test_a_truncated_gzip_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.tsv.gz", "sentence\tlabel\nfine\t1\n")
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(UserError, match=r"dev\.tsv\.gz cannot be read"):
        read_task(TASKS["SST-2"], "dev", tmp_path)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"looked for train\.tsv\[\.gz\] in .*SST-2 and "):
        read_task(TASKS["SST-2"], "train", tmp_path)
    write(tmp_path / "train.tsv", "sentence\tlabel\n")
    with pytest.raises(UserError, match="no train rows"):
        read_task(TASKS["SST-2"], "train", tmp_path)


def test_only_qqp_drops_rows_cut_short_and_says_how_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    write(tmp_path / "dev.tsv", header + "1\t2\t3\tx\n and more\t0\n1\t2\t3\tx\ty\t0\n")
    with caplog.at_level(logging.WARNING):
        assert read_task(TASKS["QQP"], "dev", tmp_path) == [Example("x", "y", 0)]
    assert "2 rows with too few columns" in caplog.text
    assert [task.name for task in TASKS.values() if task.drops_short_rows] == ["QQP"]


def test_task_names() -> None:
    assert find_task("sst2") is find_task("SST-2") is TASKS["SST-2"]
    with pytest.raises(UserError, match=r"'WNLI'; known are SST-2, CoLA, MRPC, RTE, STS-B, QNLI, QQP, MNLI"):
        find_task("WNLI")


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_the_table_is_whole(task) -> None:
    assert len(task.labels) == len(task.label_names)
    assert len(task.columns) == len(task.hub_columns) in (1, 2)
    assert [parse_label(task, label) for label in task.labels] == list(range(len(task.labels)))
    assert task.num_outputs == (1 if task.name == "STS-B" else 3 if task.name == "MNLI" else 2)


def test_the_hub_gives_the_same_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Rows(dict):
        def __len__(self) -> int:
            return len(self["label"])

    def load_dataset(*args: str, split: str) -> Rows:
        asked.append((*args, split))
        return Rows(premise=["p"], hypothesis=["h"], sentence1=["a"], sentence2=["b"], label=[np.float32(3.8).item()])

    monkeypatch.setitem(__import__("sys").modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert read_task(TASKS["STS-B"], "dev", None) == [Example("a", "b", 3.8)]
    read_task(TASKS["MNLI"], "dev", None)
    read_task(TASKS["MNLI"], "train", None)
    assert asked == [
        ("nyu-mll/glue", "stsb", "validation"),
        ("nyu-mll/glue", "mnli", "validation_matched"),
        ("nyu-mll/glue", "mnli", "train"),
    ]


def test_without_network_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: str, split: str) -> None:
        raise ConnectionError("no route")

    monkeypatch.setitem(__import__("sys").modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(UserError, match=r"nyu-mll/glue \(ConnectionError: no route\); .* pass --data FOLDER"):
        read_task(TASKS["RTE"], "dev", None)


@pytest.mark.parametrize(
    ("name", "split", "rows", "labels"),
    [
        ("SST-2", "train", 67349, None),
        ("SST-2", "dev", 872, [428, 444]),
        ("CoLA", "train", 8551, None),
        ("CoLA", "dev", 1043, [322, 721]),
        ("MRPC", "train", 3668, None),
        ("MRPC", "dev", 408, [129, 279]),
        ("RTE", "train", 2490, None),
        ("RTE", "dev", 277, [146, 131]),
        ("STS-B", "train", 5749, None),
        ("STS-B", "dev", 1500, None),
        ("QNLI", "dev", 5463, [2702, 2761]),
        ("MNLI", "dev", 9815, [3479, 3123, 3213]),
    ],
)
def test_counts_of_the_real_files(name: str, split, rows: int, labels: list[int] | None, real_data: Path) -> None:
    if not (real_data / "glue").exists():
        pytest.skip(f"left out: no GLUE in {real_data}")
    found = read_task(TASKS[name], split, real_data / "glue")
    assert len(found) == rows
    assert all(example.first.strip() for example in found)
    if labels:
        assert np.bincount([int(example.label) for example in found]).tolist() == labels
