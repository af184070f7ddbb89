"""Every figure of `stats` against a slow count of its own, and the page: whole, self-contained, the same every time."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.__main__ import main
from data_prep.corpus import Corpus
from data_prep.documents import read_documents
from data_prep.errors import UserError
from data_prep.formatting import size
from data_prep.manifest import read_manifest
from data_prep.rows.shards import ShardReader
from data_prep.stats import figures as stats_figures
from data_prep.stats import row_tables, stats, tables
from data_prep.stats.figures import Figures, gather, spread_rows
from data_prep.stats.page import page
from data_prep.stats.text import Table, text_of
from data_prep.tokenizer import finished_tokenizer
from tests.data_prep.conftest import story

Output = pytest.CaptureFixture[str]
SETS = ("documents-32", "pairs-64", "sentences-32")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources with copies and short texts among them, three shards folders, one with weights."""
    root = tmp_path_factory.mktemp("rich")
    make = np.random.default_rng(3)
    lines = [
        " ".join(
            make.choice(
                ["the", "sea", "was", "calm", "ship.", "storm", "Night", "upon", "whale."], make.integers(30, 90)
            )
        )
        for _ in range(150)
    ]
    lines += lines[:7] + ["<tiny> text & more, </tiny>"] * 3
    (root / "web.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    (root / "novel.txt").write_text(story(9, 80), encoding="utf-8")
    corpus = root / "corpus"
    sources = [f"{root / 'web.jsonl'}?name=web", f"{root / 'novel.txt'}?name=books"]
    rules = ["--filters", "none", "--dedup", "exact", "--val-fraction", "0.2"]
    ingest = ["ingest", "--out", str(corpus), *rules, "--workers", "1"]
    assert main([*ingest, *(word for source in sources for word in ("--source", source))]) == 0
    assert main(["tokenizer", "--corpus", str(corpus), "--vocab-size", "90"]) == 0
    for name in SETS:
        packing, length = name.split("-")
        more = ["--weight", "books=2", "--weight", "web=0.5"] if packing == "pairs" else []
        shard = ["shard", "--corpus", str(corpus), "--packing", packing, "--row-length", length, "--workers", "1"]
        assert main([*shard, *more]) == 0
    return corpus


@pytest.fixture(scope="module")
def found(rich: Path) -> Figures:
    return gather(Corpus(rich))


def cells(table: Table) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The numbers of each row by its labels."""
    return {row[: table.labels]: row[table.labels :] for row in table.rows}


def test_sources_and_splits_are_counted_right(rich: Path, found: Figures) -> None:
    documents: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    for split in ("train", "val"):
        mine = list(read_documents(rich / "clean", split))  # type: ignore[arg-type]
        disk = sum(path.stat().st_size for path in (rich / "clean").glob(f"{split}-*.zst"))
        files = len(list((rich / "clean").glob(f"{split}-*.zst")))
        wanted = (f"{len(mine):,}", f"{sum(len(d.text) for d in mine):,}", f"{files:,}", size(disk))
        assert cells(tables.split_table(found))[(split,)] == wanted
        for document in mine:
            documents[document.source] += 1
            characters[document.source] += len(document.text)
    shown = cells(tables.source_table(found))
    assert set(shown) == {("web",), ("books",), ("all",)}
    for name in ("web", "books"):
        share = f"{characters[name] / characters.total():.2%}"
        assert shown[(name,)] == (f"{documents[name]:,}", f"{characters[name]:,}", share)
    assert shown[("all",)] == (f"{documents.total():,}", f"{characters.total():,}", "100.00%")


def test_drops_duplicates_and_samples(found: Figures) -> None:
    kept = sum(entry["characters"] for entry in found.clean["results"]["tally"]["kept"].values())
    dropped = cells(tables.rule_table(found))
    short_ones = dropped[("documents shorter than the least length",)]
    copies = dropped[("copies of another document",)]
    assert short_ones[:2] == ("3", str(3 * len("<tiny> text & more, </tiny>")))
    assert copies[0] == "7"
    total = kept + int(short_ones[1]) + int(copies[1].replace(",", ""))
    assert short_ones[2] == f"{int(short_ones[1]) / total:.2%}"
    duplicates = tables.duplicate_table(found)
    assert cells(duplicates)[("exact",)][0] == "7"
    assert cells(duplicates)[("near",)] == ("0", "0.00%", "0", "0.00%")
    assert duplicates.note.startswith("Only exact duplicates were looked for.")
    samples = tables.drop_samples(found)
    assert set(samples) == {"documents shorter than the least length", "copies of another document"}
    assert [text for _, text in samples["documents shorter than the least length"]] == ["<tiny> text & more, </tiny>"]
    assert all(len(text) <= 100 and "\n" not in text for group in samples.values() for _, text in group)


def test_lengths_are_quantiles_of_all_documents(rich: Path, found: Figures) -> None:
    tokenizer, _ = finished_tokenizer(Corpus(rich))
    texts = [document.text for document in read_documents(rich / "clean", "train")]
    shown = cells(tables.length_table(found))
    for unit, lengths in (
        ("characters", [len(text) for text in texts]),
        ("words", [len(text.split()) for text in texts]),
        ("tokens", [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]),
    ):
        lengths.sort()
        places = [max(0, -(-len(lengths) * q // 100) - 1) for q in (0, 5, 25, 50, 75, 95, 99, 100)]
        wanted = [f"{lengths[place]:,}" for place in places]
        assert shown[(unit,)] == (*wanted, f"{sum(lengths) / len(lengths):,.0f}")
    assert tables.sampled_documents(found) == f"All {len(texts):,} train documents."


@pytest.mark.parametrize("name", SETS)
def test_rows_are_counted_right(rich: Path, found: Figures, name: str) -> None:
    folder = rich / "shards" / name
    index = json.loads((folder / "index.json").read_text())
    counts: Counter[int] = Counter()
    pieces: list[int] = []
    for split in ("train", "val"):
        reader = ShardReader(folder, split)
        ids, lengths = reader.rows(np.arange(reader.num_rows))
        tokens = int(lengths.sum())
        row = cells(row_tables.row_table(found))[(name, split)]
        padding = f"{(ids == reader.special_tokens['pad']).sum() / ids.size:.2%}"
        files = [path.stat().st_size for path in (folder / split).glob("*.arrow")]
        assert row[:3] == (f"{reader.num_rows:,}", f"{tokens:,}", padding)
        sizes = [size(number) for number in (sum(files), min(files), max(files))]
        assert row[4:] == (f"{reader.longest_document:,}", f"{len(files):,}", *sizes)
        if split == "train":
            counts.update(ids.reshape(-1).tolist())
            sep = reader.special_tokens["sep"]
            pieces = [
                (row == sep).sum() if name.startswith("sentences") else (mine > 0).sum()
                for row, mine in zip(ids, lengths, strict=True)
            ]
    special = index["special_tokens"]
    places = sum(counts.values())
    boundaries = counts[special["cls"]] + counts[special["sep"]]
    text = places - boundaries - counts[special["pad"]]
    assert cells(row_tables.fill_table(found))[(name,)] == (
        f"{text / places:.2%}", f"{boundaries / places:.2%}", f"{counts[special['pad']] / places:.2%}",
        f"{np.mean(pieces):.2f}", f"{np.median(pieces):g}", f"{max(pieces):,}",
    )  # fmt: skip
    ordinary = {number: counts[number] for number in range(index["tokenizer_vocab_size"])}
    for number in special.values():
        del ordinary[number]
    ranked = sorted(ordinary.values(), reverse=True)
    used = sum(count > 0 for count in ranked)
    half, most = (
        next(n for n in range(1, len(ranked) + 1) if sum(ranked[:n]) >= part * sum(ranked)) for part in (0.5, 0.9)
    )
    assert cells(row_tables.vocabulary_table(found))[(name,)] == (
        f"{sum(ranked):,}", f"{used:,}", f"{used / len(ranked):.2%}", f"{sum(n >= 100 for n in ranked):,}",
        f"{half:,}", f"{most:,}", f"{counts[special['unk']] / (sum(ranked) + counts[special['unk']]):.4%}",
    )  # fmt: skip


def test_mixture_says_weights_and_tokens_by_source(rich: Path, found: Figures) -> None:
    shown = cells(row_tables.mixture_table(found))
    assert set(shown) == {(name, source) for name in SETS for source in ("web", "books")}
    for name in SETS:
        manifest = read_manifest(rich / "shards" / name)
        assert manifest
        tokens = manifest["results"]["tokens_by_source"]["train"]
        weights = {"books": "2", "web": "0.5"} if name == "pairs-64" else {"books": "1", "web": "1"}
        for source in ("web", "books"):
            share = f"{tokens[source] / sum(tokens.values()):.2%}"
            assert shown[(name, source)] == (weights[source], f"{tokens[source]:,}", share)


def test_stages_that_have_not_finished_are_left_out(rich: Path, tmp_path: Path, capsys: Output) -> None:
    with pytest.raises(UserError, match=r"clean is missing or unfinished; run `python -m data_prep ingest` first"):
        stats(Corpus(tmp_path / "none"))
    copy = shutil.copytree(rich, tmp_path / "copy")
    shutil.rmtree(copy / "shards")
    (copy / "shards" / ".documents-32.partial").mkdir(parents=True)
    capsys.readouterr()
    stats(Corpus(copy))
    printed = capsys.readouterr().out
    assert "Tokenizer\n" in printed
    assert "Use of the vocabulary" not in printed
    assert re.search(r"shard documents-32 +begun, goes on behind what is done", printed)
    assert "<h2>Rows</h2>" not in (copy / "stats.html").read_text()
    shutil.rmtree(copy / "tokenizer")
    shutil.rmtree(copy / "shards")
    stats(Corpus(copy))
    printed = capsys.readouterr().out
    assert re.search(r"tokenizer +not made yet", printed)
    assert re.search(r"shard +not made yet", printed)
    assert not re.search(r"^  tokens ", printed, re.MULTILINE)


def test_stages_made_from_something_else_are_named(rich: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(rich, tmp_path / "copy")
    assert main(["tokenizer", "--corpus", str(copy), "--vocab-size", "80", "--force"]) == 0
    states = cells(tables.stage_table(gather(Corpus(copy))))
    assert ("tokenizer", "done") in states
    assert {("shard documents-32", "done, with another tokenizer")} <= set(states)
    manifest = json.loads((copy / "tokenizer" / "manifest.json").read_text())
    manifest["inputs"]["clean_sha256"] = "0" * 64
    (copy / "tokenizer" / "manifest.json").write_text(json.dumps(manifest))
    assert ("tokenizer", "done, from other documents") in cells(tables.stage_table(gather(Corpus(copy))))


def test_samples_are_bounded_and_the_page_says_so(
    rich: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    copy = shutil.copytree(rich, tmp_path / "copy")
    monkeypatch.setattr(stats_figures, "SAMPLE_DOCUMENTS", 20)
    monkeypatch.setattr(stats_figures, "SAMPLE_TOKENS", 64 * 32)
    figures = gather(Corpus(copy))
    assert figures.lengths.documents == 20
    first = [len(document.text) for document in read_documents(copy / "clean", "train")][:20]
    assert figures.lengths.characters.tolist() == first
    assert [one.sample.rows for one in figures.sets if one.name == "documents-32"] == [64]
    stats(Corpus(copy))
    page = (copy / "stats.html").read_text()
    for words in (f"The first 20 of {figures.lengths.of:,} train documents", "Looked at, spread evenly: 64 of the "):
        assert words in page
        assert words in capsys.readouterr().out or words.startswith("Looked")
    monkeypatch.setattr(stats_figures, "SAMPLE_CHARACTERS", sum(first[:4]) + 1)
    assert gather(Corpus(copy)).lengths.documents == 5


@given(st.integers(1, 5000), st.integers(0, 3000))
def test_rows_are_spread_without_repetition(num_rows: int, wanted: int) -> None:
    picked = spread_rows(num_rows, wanted)
    assert len(np.unique(picked)) == len(picked)
    assert (np.diff(picked) > 0).all()
    assert picked[0] >= 0
    assert picked[-1] < num_rows
    assert len(picked) == min(num_rows, max(64, wanted // 64 * 64))
    if len(picked) < num_rows:
        starts = picked[::64]
        assert np.ptp(np.diff(np.append(starts, num_rows))) <= 1


class Page(HTMLParser):
    """What stands in a page: open elements, ids, references, text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "path", "use", "rect", "br"):
            self.open.append(tag)
        self._look(attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._look(attributes)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "use", "rect", "br"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def _look(self, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            assert value is not None
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href", "src"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value)


def test_page_is_whole_and_needs_nothing_else(rich: Path, capsys: Output) -> None:
    stats(Corpus(rich))
    printed = capsys.readouterr().out
    path = rich / "stats.html"
    assert printed.endswith(f"stats: the same with pictures is in {path}\n")
    content = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(content)
    page.close()
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {reference.removeprefix("#") for reference in page.references} <= set(page.ids)
    assert set(re.findall(r"https?://[^\s\"<]*", content)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "<script" not in content
    assert content.count("<svg") == 5
    assert "@media (prefers-color-scheme: dark)" in content
    drawn = "".join(re.findall(r"<svg.*?</svg>", content, re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawn)) <= {"#000000", "#ffffff"}
    stats(Corpus(rich))
    assert path.read_text(encoding="utf-8") == content
    everything = " ".join(page.words)
    assert "<tiny> text & more, </tiny>" in everything
    figures = gather(Corpus(rich))
    for table in (
        tables.source_table,
        tables.rule_table,
        tables.length_table,
        row_tables.row_table,
        row_tables.vocabulary_table,
    ):
        for row in table(figures).rows:
            assert all(cell in everything and cell in printed for cell in row)


def test_damaged_files_are_named(rich: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(rich, tmp_path / "copy")
    path = next((copy / "shards" / "pairs-64" / "train").glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=path.name):
        stats(Corpus(copy))
    (copy / "shards" / "pairs-64" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"pairs-64 has no manifest\.json"):
        stats(Corpus(copy))
    assert not (copy / "stats.html").exists() or (copy / "stats.html").read_text().endswith("</html>")


def test_tables_stand_in_columns() -> None:
    table = Table("T", ("name", "n", "share"), [("a", "1", "2.00%"), ("long name", "1,000", "3.00%")], note="So.")
    assert text_of(table) == (
        "T\n  name           n  share\n  a              1  2.00%\n  long name  1,000  3.00%\n  So."
    )


def test_rows_of_unknown_tokens_have_no_curve_and_say_so(found: Figures) -> None:
    lost = []
    for one in found.sets:
        by_token = np.zeros_like(one.sample.by_token)
        by_token[one.index["special_tokens"]["unk"]] = 70
        lost.append(replace(one, sample=replace(one.sample, by_token=by_token)))
    figures = replace(found, sets=lost)
    for row in row_tables.vocabulary_table(figures).rows:
        assert row[1:4] == ("0", "0", "0.00%")
        assert row[5:] == ("-", "-", "100.0000%")
    content = page(figures, "lost")
    assert f"All tokens of {', '.join(SETS)} are unknown or special: there is nothing to learn." in content
    assert content.count("<svg") == page(found, "found").count("<svg") - 1


def test_what_a_tokenizer_loses_and_changes_is_shown(found: Figures) -> None:
    assert found.tokenizer is not None
    results = found.tokenizer["results"] | {
        "lost_rate": 0.0123, "lost_words": [["\u4eba\u6c11", 1200], ["\x1b[2J", 3]],
        "letters": 400, "changed_letters": 6, "letter_changes": [["\u00f6", "o", 4], ["\u0301", "", 2]],
    }  # fmt: skip
    rows = dict(tables.tokenizer_table(replace(found, tokenizer=found.tokenizer | {"results": results})).rows)
    assert rows["characters lost"] == "1.2300%"
    assert rows["most lost"] == "\u4eba\u6c11 x 1,200, \\x1b[2J x 3"
    assert rows["letters changed, apart from case"] == "1.50%"
    assert rows["most changed"] == "\u00f6 to o x 4, \u0301 to nothing x 2"
