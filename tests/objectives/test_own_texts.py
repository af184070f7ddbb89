"""People's own texts: csv, tsv and JSON as they come, data sets of the hub, and which classes or scores they make."""

import csv
import gzip
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from pipeline.objectives.own_texts import read_own
from pipeline.objectives.tasks import Example, Task
from tests.data_prep.hub_server import serve

Read = tuple[Task, list[Example], list[Example]]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode("utf-8")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(source: Path | str, **options: Any) -> Read:
    return read_own(**{"name": "mine", "source": str(source), "text": (), "label": "label", "metrics": (), "dev": None}
                    | options)  # fmt: skip


def pairs(examples: list[Example]) -> list[tuple[str, float]]:
    assert all(example.second is None for example in examples)
    return [(example.first, example.label) for example in examples]


def refused(source: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Files

CSV = (
    'text,label\n"He said ""no"",\nand left",neg\r\n007,pos\nNA,neg\nnull,pos\nnext\u0085line\u2028here,pos\n\n'
    '5" disk,neg\n'
)
TSV = (
    'text\tlabel\n"He said ""no"",\nand left"\tneg\n007\tpos\nNA\tneg\nnull\tpos\nnext\u0085line\u2028here\tpos\n'
    '5" disk\tneg\n'
)
TEXTS = ['He said "no",\nand left', "007", "NA", "null", "next\u0085line\u2028here", '5" disk']
WORDS = ["neg", "pos", "neg", "pos", "pos", "neg"]
OBJECTS = [{"text": text, "label": label} for text, label in zip(TEXTS, WORDS, strict=True)]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in OBJECTS)


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("csv", CSV),
        ("csv", "\ufeff" + CSV),
        ("tsv", TSV),
        ("jsonl", LINES + "\n\n"),
        ("json", LINES),
        ("json", json.dumps(OBJECTS, indent=1)),
    ],
    ids=["csv", "csv with a mark", "tsv", "jsonl", "json of lines", "json array"],
)
def test_files_hold_what_was_written(ending: str, content: str, packed: str, tmp_path: Path) -> None:
    for stem in ("train", "dev"):
        write(tmp_path / f"{stem}.{ending}{packed}", content)
    task, train, dev = read(tmp_path)
    assert pairs(train) == pairs(dev) == list(zip(TEXTS, [0, 1, 0, 1, 1, 0], strict=True))
    assert task == Task("mine", ("text",), "label", ("neg", "pos"), ("neg", "pos"), ("accuracy", "f1"))


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1).filter(str.strip)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(texts, min_size=1), st.sampled_from(["csv", "tsv"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
)
def test_what_pythons_writer_writes_is_read(tmp_path_factory, rows: list[str], ending: str, quoting: int) -> None:
    folder = tmp_path_factory.mktemp("own")
    for stem in ("train", "dev"):
        with (folder / f"{stem}.{ending}").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="," if ending == "csv" else "\t", quoting=quoting)
            writer.writerows(
                [["text", "label"], *([text, number % 2] for number, text in enumerate(["a", "b", *rows]))]
            )
    assert [example.first for example in read(folder)[1]] == ["a", "b", *rows]


def test_quotes_of_a_tsv_without_quoting_are_text(tmp_path: Path) -> None:
    for stem in ("train", "dev"):
        write(tmp_path / f"{stem}.tsv", 'text\tlabel\n"No, he said.\t0\n"Yes" and "no"\t1\nhe: "so"\t1\n')
    assert pairs(read(tmp_path)[1]) == [('"No, he said.', 0), ('"Yes" and "no"', 1), ('he: "so"', 1)]


def test_a_long_text_is_whole(tmp_path: Path) -> None:
    for stem in ("train", "dev"):
        write(tmp_path / f"{stem}.csv", f"text,label\n{'long ' * 60_000},1\nb,0\n")
    assert len(read(tmp_path)[1][0].first) == 300_000


def test_a_changed_file_is_read_anew_and_nothing_is_left_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for word in ("old", "new"):
        write(tmp_path / "set" / "train.csv", f"text,label\n{word},1\nb,0\n")
        write(tmp_path / "set" / "dev.csv", f"text,label\n{word},1\n")
        for path in (tmp_path / "set").iterdir():
            os.utime(path, (1, 1))
        for source in (tmp_path / "set", f"hub:{tmp_path / 'set'}"):
            assert pairs(read(source)[1]) == [(word, 1), ("b", 0)]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["dev.csv", "set", "temporary", "train.csv"]


@pytest.mark.parametrize(
    ("there", "dev", "taken"),
    [
        (["dev", "validation", "test"], None, "dev"),
        (["test", "valid", "validation"], None, "validation"),
        (["test", "valid"], None, "valid"),
        (["test", "other"], None, "test"),
        (["dev", "dev_mismatched"], "dev_mismatched", "dev_mismatched"),
    ],
)
def test_which_file_is_scored_on(there: list[str], dev: str | None, taken: str, tmp_path: Path, caplog) -> None:
    for stem in ("train", *there):
        write(tmp_path / f"{stem}.csv", f"text,label\n{stem},0\nx,1\n")
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, dev=dev)[2][0].first == taken
    assert (f"has no dev; scores are of its {taken}" in caplog.text) == (taken not in ("dev", dev))


def test_what_is_missing_or_twice_is_said(tmp_path: Path) -> None:
    assert "is not there; name a folder" in refused(tmp_path / "nowhere")
    assert "is a file; name a folder" in refused(write(tmp_path / "one.csv", "text,label\n"))
    write(tmp_path / "set" / "README.md", "texts")
    assert f"parquet files for instance, is hub:{tmp_path / 'set'}" in refused(tmp_path / "set")
    write(tmp_path / "set" / "train.csv", "text,label\na,0\nb,1\n")
    assert "no table called dev or validation or valid or test; it has train" in refused(tmp_path / "set")
    assert "no table called held; it has train" in refused(tmp_path / "set", dev="held")
    assert "those to train on" in refused(tmp_path / "set", dev="train")
    empty = write(tmp_path / "set" / "dev.csv", "")
    assert refused(tmp_path / "set") == f"{empty} is empty"
    write(empty, "text,label\n")
    assert refused(tmp_path / "set") == f"{empty} has no rows"
    write(tmp_path / "set" / "dev.jsonl.gz", "{}")
    assert "has dev.csv and dev.jsonl.gz; leave one" in refused(tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "content", "place", "words"),
    [
        ("dev.csv", "text,label\na,0\n,1\n", "line 3, column text", "the text is missing"),
        ("dev.csv", "text,label\na,0\n  ,1\n", "line 3, column text", "the text is missing"),
        ("dev.csv", 'text,label\n"a\nb",0\nc,\n', "line 4, column label", "the label is missing"),
        ("dev.csv", "text,label\na,0\nb,1,2\n", "line 3", "3 columns, expected 2 (text, label)"),
        ("dev.csv", 'text,label\na,0\n"b,1\nc,1\n', "line 3", "unexpected end of data"),
        ("dev.csv", 'text,label\n"a" b,0\n', "line 2", "those inside it are doubled"),
        ("dev.csv", "text,label,text\na,0,b\n", "line 1", "two columns are called 'text'"),
        ("dev.csv", "text,label\na,0\nb,9\n", "line 3, column label", "label '9' is none of those of"),
        ("dev.csv", "text,label\na,0\nb,-1\n", "line 3, column label", "hidden or missing one"),
        ("dev.tsv", 'text\tlabel\n"a\t0\nb\n', "line 3", "1 columns, expected 2"),
        ("dev.jsonl", '{"text": "a", "label": 0}\n{"text": null, "label": 1}\n', "line 2, column text", "is missing"),
        ("dev.jsonl", '{"text": "a", "label": 0}\n{"text": "b"}\n', "line 2, column label", "the label is missing"),
        ("dev.jsonl", '{"text": "a", "label": NaN}\n', "line 1, column label", "the label is missing"),
        ("dev.jsonl", '{"text": 7, "label": 1}\n', "line 1, column text", "found int, wanted a text"),
        ("dev.jsonl", '{"text": "a", "label": [1]}\n', "line 1, column label", "[1] is no word or number"),
        ("dev.jsonl", '{"text": "\\ud800", "label": 1}\n', "line 1, column text", "half a character"),
        ("dev.jsonl", '{"text": "a", "label": 0}\n{"text"\n', "line 2", "not valid JSON"),
        ("dev.jsonl", '"a"\n', "line 1", "str, wanted an object"),
        ("dev.json", '[{"text": "a", "label": 0}, {"text": "", "label": 0}]', "index 1, column text", "is missing"),
    ],
)
def test_a_bad_row_is_named_by_file_and_place(name: str, content: str, place: str, words: str, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\na,0\nb,1\n")
    path = write(tmp_path / name, content)
    message = refused(tmp_path)
    assert message.startswith(f"{path}, {place}: ")
    assert words in message


def test_bytes_that_are_no_text_or_no_gzip_are_named(tmp_path: Path) -> None:
    write(tmp_path / "dev.csv", "text,label\na,0\n")
    path = tmp_path / "train.csv"
    path.write_bytes(b"text,label\ncaf\xe9,1\n")
    assert refused(tmp_path).startswith(f"{path}, line 2: not UTF-8")
    path.unlink()
    packed = write(tmp_path / "train.csv.gz", CSV)
    packed.write_bytes(packed.read_bytes()[:12] + b"\xff" * 20)
    assert refused(tmp_path).startswith(f"{packed} cannot be read")


# Columns


def both(folder: Path, header: str, *rows: str) -> Path:
    for stem in ("train", "dev"):
        write(folder / f"{stem}.csv", "\n".join([header, *rows]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Text,Label,id", ("Text",)),
        ("id,label,sentence", ("sentence",)),
        ("label,hypothesis,premise", ("premise", "hypothesis")),
        ("sentence1,sentence2,label", ("sentence1", "sentence2")),
        ("question,sentence,label", ("question", "sentence")),
        ("label,answer,question", ("question", "answer")),
    ],
)
def test_columns_of_common_names_are_found(header: str, found: tuple[str, ...], tmp_path: Path) -> None:
    cells = [name if name.lower() != "label" else "{}" for name in header.split(",")]
    task, train, _ = read(both(tmp_path, header, *(",".join(cells).format(label) for label in (0, 1))))
    assert task.columns == found
    assert train[1] == Example(found[0], found[1] if len(found) == 2 else None, 1)


def test_columns_that_are_not_clear_are_listed(tmp_path: Path) -> None:
    folder = both(tmp_path, "title,body,stars", "a,b,1", "c,d,2")
    assert refused(folder).endswith("has no column 'label'; it has title, body, stars")
    assert refused(folder, label="stars").endswith("is not clear; name one or two of title, body, stars")
    assert refused(folder, label="stars", text=["head"]).endswith("has no column 'head'; it has title, body, stars")
    for wrong in (["title", "title"], ["stars"], ["title", "body", "stars"]):
        assert "each in a column of its own" in refused(folder, label="stars", text=wrong)
    task, train, _ = read(folder, label="stars", text=["body", "title"])
    assert (task.columns, task.label_column, train[0]) == (("body", "title"), "stars", Example("b", "a", 0))
    folder = both(tmp_path / "two", "text,review,label", "a,b,1", "c,d,2")
    assert "not clear (text or review)" in refused(folder)
    write(folder / "dev.csv", "body,label\na,1\n")
    assert refused(folder, text=["text"]) == f"{folder / 'dev.csv'} has no column 'text'; it has body, label"


# Labels


@pytest.mark.parametrize(
    ("labels", "classes", "metrics"),
    [
        ("10 2 1 2", "1 2 10", ("accuracy", "f1_macro")),
        ("1.0 0 +1 0.0", "0 1", ("accuracy", "f1")),
        ("-1 1 1 -1", "-1 1", ("accuracy", "f1")),
        ("b a B a", "B a b", ("accuracy", "f1_macro")),
        ("10 9 many 9", "10 9 many", ("accuracy", "f1_macro")),
        ("01 1 10 1", "01 1 10", ("accuracy", "f1_macro")),
        ("True False NA True", "False NA True", ("accuracy", "f1_macro")),
    ],
)
def test_words_and_integers_are_classes(labels: str, classes: str, metrics: tuple[str, ...], tmp_path: Path) -> None:
    task, train, dev = read(both(tmp_path, "text,label", *(f"x, {label} " for label in labels.split())))
    assert task.labels == task.label_names == tuple(classes.split())
    assert task.metrics == metrics
    same = {"+1": "1", "1.0": "1", "0.0": "0"} if "1.0" in labels else {}
    assert [task.labels[int(example.label)] for example in train] == [same.get(x, x) for x in labels.split()]
    assert train == dev


def test_json_labels_are_read_as_their_words(tmp_path: Path) -> None:
    for stem in ("train", "dev"):
        write(tmp_path / f"{stem}.jsonl", "\n".join(f'{{"text": "a", "label": {x}}}' for x in ("true", "false")))
    assert read(tmp_path)[0].labels == ("false", "true")


def test_numbers_with_fractions_are_scores(tmp_path: Path) -> None:
    task, train, _ = read(both(tmp_path, "text,label", "a,1", "b,2.5", "c,-1e-3"))
    assert (task.labels, task.num_outputs, task.metrics) == ((), 1, ("pearson", "spearman"))
    assert [example.label for example in train] == [1, 2.5, -0.001]
    path = write(tmp_path / "dev.csv", "text,label\na,1\nb,high\n")
    assert refused(tmp_path).startswith(f"{path}, line 3, column label: label 'high' is not a finite number")
    write(path, "text,label\na,nan\n")
    assert "'nan' is not a finite number" in refused(tmp_path)
    write(path, "text,label\na,-1.0\nb,-1.0\n")
    assert "hidden or missing" in refused(tmp_path)
    write(tmp_path / "train.csv", "text,label\na,1\nb,2\n")
    write(path, "text,label\na,1.5\nb,2\n")
    assert read(tmp_path)[0].is_regression


def test_metrics_fit_the_labels(tmp_path: Path) -> None:
    numbers = both(tmp_path / "numbers", "text,label", "a,1", "b,2", "c,3")
    assert read(numbers, metrics=["spearman"])[0].is_regression
    assert read(numbers, metrics=["matthews", "accuracy", "matthews"])[0].metrics == ("matthews", "accuracy")
    assert "known are accuracy, f1, f1_macro, matthews, pearson, spearman" in refused(numbers, metrics=["bleu"])
    assert "f1 is of two classes" in refused(numbers, metrics=["f1"])
    assert "accuracy is no metric of scores" in refused(numbers, metrics=["pearson", "accuracy"])
    words = both(tmp_path / "words", "text,label", "a,x", "b,y")
    assert "pearson is no metric of classes (x, y)" in refused(words, metrics=["pearson"])
    assert "every label is 'x'" in refused(both(tmp_path / "one", "text,label", "a,x"))
    assert "hidden or missing" in refused(both(tmp_path / "hidden", "text,label", "a,-1", "b,-1"))
    assert "a task cannot be called '../x'" in refused(numbers, name="../x")


# The hub


def write_set(folder: Path, splits: dict[str, list[Any]], kind: Any) -> Path:
    folder.mkdir()
    for split, labels in splits.items():
        columns = {"text": [f"{split} {number}" for number in range(len(labels))], "label": labels}
        rows = datasets.Dataset.from_dict(
            columns, features=datasets.Features({"text": datasets.Value("string"), "label": kind})
        )
        pq.write_table(rows.data.table, folder / f"{split}-00000-of-00001.parquet")
    return folder


CLASSES = datasets.ClassLabel(names=["World", "Sports", "Arts"])


def test_the_hubs_class_names_are_the_labels_in_their_order(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", {"train": [1, 0, 1], "test": [2, 0]}, CLASSES)
    task, train, dev = read(f"hub:{folder}")
    assert task.labels == task.label_names == ("World", "Sports", "Arts")
    assert pairs(train) == [("train 0", 1), ("train 1", 0), ("train 2", 1)]
    assert pairs(dev) == [("test 0", 2), ("test 1", 0)]
    assert "pearson is no metric of classes" in refused(f"hub:{folder}", metrics=["pearson"])


def test_splits_of_the_hub(tmp_path: Path) -> None:
    splits = {"train": [0, 1], "test": [-1, -1], "validation": [1, 1], "unsupervised": [-1]}
    source = f"hub:{write_set(tmp_path / 'set', splits, CLASSES)}"
    assert pairs(read(source)[2]) == [("validation 0", 1), ("validation 1", 1)]
    assert refused(source, dev="test").startswith(
        f"{source}, split test, index 0, column label: label '-1' stands for a hidden or missing one"
    )
    assert "has no split called matched; it has " in refused(source, dev="matched")
    for source in ("hub:", f"hub:{tmp_path}?colour=red", f"hub:{tmp_path}?config=a&config=b"):
        assert source in refused(source)


def test_scores_and_missing_values_of_the_hub(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", {"train": [0.25, 3.5], "validation": [1.0]}, datasets.Value("float64"))
    task, train, _ = read(f"hub:{folder}")
    assert (task.is_regression, [example.label for example in train]) == (True, [0.25, 3.5])
    for text, what in ((None, "the text is missing"), (b"a", "found bytes, wanted a text")):
        for split in ("train", "validation"):
            rows = pa.table({"text": pa.array([text], pa.binary() if text else pa.string()), "label": [1.5]})
            pq.write_table(rows, folder / f"{split}-00000-of-00001.parquet")
        assert refused(f"hub:{folder}").startswith(f"hub:{folder}, split train, index 0, column text: {what}")


SHOW = """
import sys
from pipeline.objectives.own_texts import read_own
task, train, dev = read_own("mine", sys.argv[1], (), "label", (), None)
print(task.labels, [example.first for example in dev])
"""


def test_a_data_set_of_a_hub(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", {"train": [1, 0, 1], "validation": [2], "test": [0, 1]}, CLASSES)
    with serve(folder, "me/news") as (endpoint, _):
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-c", SHOW, "hub:me/news"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "('World', 'Sports', 'Arts') ['validation 0']\n"


def test_without_a_network_the_way_out_is_said() -> None:
    message = refused("hub:me/nowhere?config=a")
    assert message.startswith("hub:me/nowhere?config=a cannot be read (")
    assert "where there is no network, name a folder of train and dev files (.csv, .tsv, .jsonl, .json)" in message
