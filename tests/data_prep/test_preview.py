"""What `preview` prints: to the letter for a small row, and for all rows of real corpora that it hides nothing."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_prep.__main__ import main
from data_prep.corpus import Corpus
from data_prep.errors import UserError
from data_prep.preview import preview
from data_prep.row_text import RowText, Span, wrapped
from data_prep.rows.masking import MaskRules, mask_rows
from data_prep.rows.sentence_pairs import sentence_pairs
from data_prep.rows.shards import ShardReader
from data_prep.terminal import columns_of, escaped, visible, wants_color
from data_prep.tokenizer import finished_tokenizer

Output = pytest.CaptureFixture[str]
ANSI = re.compile("\x1b\\[[0-9;]*m")
MARKER = re.compile(r"\[(MASK|[^\[\]= ]*)=([^\[\]= ]*)\]")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "sea", "was", "calm", "and", "ship", "sailed", "un", "##harm", "##ed", "night", "."]
USUAL = MaskRules()


def made(root: Path, lines: list[str], tokenizer: list[str], *shards: list[str]) -> Path:
    """A corpus of these texts, a document each, through all stages."""
    raw = root / "raw.jsonl"
    raw.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    corpus = root / "corpus"
    rules = ["--filters", "none", "--dedup", "none", "--min-characters", "1", "--val-fraction", "0.3"]
    one = ["--workers", "1"]
    assert main(["ingest", "--source", str(raw), "--out", str(corpus), *rules, *one]) == 0
    assert main(["tokenizer", "--corpus", str(corpus), *tokenizer]) == 0
    for arguments in shards:
        assert main(["shard", "--corpus", str(corpus), *arguments, *one]) == 0
    return corpus


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sentences, one a document."""
    root = tmp_path_factory.mktemp("small")
    (root / "vocab.txt").write_text("\n".join(SPECIALS + WORDS) + "\n", encoding="utf-8")
    texts = ["The sea was calm.", "The ship sailed unharmed and the zyx was calm.", "Night. And the sea."]
    return made(root, texts, ["--load", str(root / "vocab.txt")], ["--row-length", "16"])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words, accents, ideographs and emoji as pieces of bytes; several sentences a document, in all three packings."""
    make = np.random.default_rng(5)
    words = [
        "the",
        "sea",
        "ship",
        "caf\u00e9",
        "na\u00efve",
        "\u65e5\u672c\u8a9e",
        "\U0001f600",
        "storm",
        "d\u00e9j\u00e0",
    ]

    def sentence() -> str:
        return " ".join(make.choice(words, make.integers(4, 12))).capitalize() + ". "

    texts = ["".join(sentence() for _ in range(make.integers(2, 9))).strip() for _ in range(120)]
    lengths = [["--row-length", "48", "--packing", packing] for packing in ("documents", "sentences", "pairs")]
    return made(tmp_path_factory.mktemp("mixed"), texts, ["--vocab-size", "300", "--kind", "bpe"], *lengths)


def shown(
    capsys: Output,
    corpus: Path,
    packing: Any = None,
    rows: int = 1,
    rules: MaskRules = USUAL,
    split: str = "train",
    length: int | None = None,
    sentence: Any = "none",
    color: bool = False,
    epoch: int = 0,
) -> str:
    capsys.readouterr()
    preview(Corpus(corpus), length, packing, split, rows, 42, epoch, rules, sentence, color)
    return capsys.readouterr().out


def row_text(corpus: Path, name: str, split: str = "train") -> tuple[ShardReader, Tokenizer, RowText]:
    tokenizer, results = finished_tokenizer(Corpus(corpus))
    reader = ShardReader(corpus / "shards" / name, split)
    return reader, tokenizer, RowText(reader, tokenizer, results["special_token_texts"])


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


LEGEND = """\
masked as in epoch {epoch} of seed 42: 40 % of the tokens, by token; of these 40 % hidden, 30 % replaced
[MASK=word] hidden behind [MASK]   [other=word] replaced at random   [=word] left as it is; the model predicts word
## in front of a random token: it goes on with the word before it
1 | 2 | pieces of documents   [CLS] [SEP] [PAD] boundaries and padding   [UNK] not in the vocabulary
"""
PIECES = """
row 0: 15 tokens, 2 pieces of 8 + 7; 1 padding; 4 to predict: 2 hidden, 1 replaced, 1 kept
  1 | [CLS] night. and the sea[##harm=.] [SEP]
  2 | [CLS] [MASK=the] sea was [=calm][MASK=.] [SEP]
    | [PAD] x 1
"""
WORD_PARTS = """
row 0: 14 tokens, 1 piece of 14; 2 padding; 4 to predict: 1 hidden, 1 replaced, 2 kept
  1 | [CLS] the ship sailed [=un][MASK=harm][.=ed] and
    | [=the] [UNK] was calm. [SEP]
    | [PAD] x 2
"""


@pytest.mark.parametrize(("split", "epoch", "row"), [("train", 0, PIECES), ("val", 1, WORD_PARTS)])
def test_a_small_row_to_the_letter(
    small: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch, split: str, epoch: int, row: str
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    wanted = f"documents-16, {split}: 1 row of 16\n" + LEGEND.format(epoch=epoch) + row
    assert shown(capsys, small, rules=MaskRules(0.4, "token", 0.4, 0.3), split=split, epoch=epoch) == wanted


def test_bare_rows(small: Path, capsys: Output) -> None:
    printed = shown(capsys, small, rules=MaskRules(0.0))
    assert "predict" not in printed
    assert "=" not in printed


@pytest.mark.parametrize("name", ["documents-48", "sentences-48", "pairs-48"])
@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_every_masked_position_is_shown_as_it_is(mixed: Path, name: str, unit: Any) -> None:
    reader, _, text = row_text(mixed, name)
    row_ids = np.arange(reader.num_rows)
    ids, lengths = reader.rows(row_ids)
    rules = MaskRules(0.25, unit, 0.4, 0.3)
    masked = mask_rows(
        ids, row_ids, 0 * row_ids, 7, rules, reader.special_tokens, len(reader.continues), reader.continues
    )
    predicted = np.zeros(ids.shape, bool)
    predicted.reshape(-1)[masked.positions] = True
    wanted = {"masked": 0, "random": 0, "kept": 0}
    for now, before in zip(masked.input_ids.reshape(-1)[masked.positions], masked.labels, strict=True):
        wanted["kept" if now == before else "masked" if now == reader.special_tokens["mask"] else "random"] += 1
    found = dict.fromkeys(wanted, 0)
    for n in row_ids:
        for line in text.lines(masked.input_ids[n], ids[n], predicted[n], lengths[n], 80):
            for span in line:
                if span.style in found:
                    found[span.style] += 1
                    assert span.text[0] + span.text[-1] == "[]"
                    assert span.text.startswith({"masked": "[MASK=", "kept": "[=", "random": "["}[span.style])
    assert found == wanted
    assert min(wanted.values()) > 0


@pytest.mark.parametrize("name", ["documents-48", "sentences-48", "pairs-48"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_text_without_markers_is_what_the_tokenizer_decodes(mixed: Path, name: str, split: str) -> None:
    reader, tokenizer, text = row_text(mixed, name, split)
    ids, lengths = reader.rows(np.arange(reader.num_rows))
    nothing = np.zeros(reader.row_length, bool)
    for row, pieces in zip(ids, lengths, strict=True):
        start = 0
        for end in text.ends(row, pieces):
            spans = text.spans(row[start:end], row[start:end], nothing[start:end])
            plain = "".join(span.text for span in spans if span.style == "text").strip()
            assert plain == tokenizer.decode(row[start:end].tolist()).strip()
            assert [span.text for span in spans if span.style == "boundary"][-1] == "</s>"
            start = end
        assert start == pieces.sum()


@given(
    st.lists(st.sampled_from(["the", "sea", "unharmed", ".", "zyx", "and", "sailed"]), min_size=1, max_size=30),
    st.data(),
)
def test_masking_changes_no_other_character(small: Path, words: list[str], data: st.DataObject) -> None:
    _, tokenizer, text = row_text(small, "documents-16")
    ids = np.array(tokenizer.encode(" ".join(words)).ids)
    predicted = np.array([i not in (1, 2, 3) and data.draw(st.booleans()) for i in ids])
    hidden = np.where(predicted & np.array([data.draw(st.booleans()) for _ in ids]), 4, ids)
    spans = text.spans(hidden, ids, predicted)
    plain = "".join(
        span.text.removeprefix("[MASK=").removeprefix("[=").removesuffix("]")
        if span.style in ("masked", "kept")
        else span.text
        for span in spans
        if span.style != "boundary"
    )
    assert plain.strip() == tokenizer.decode(ids.tolist()[1:-1], skip_special_tokens=False)


@given(st.text(max_size=40))
def test_nothing_that_a_terminal_obeys_is_printed(mixed: Path, text_of_any_kind: str) -> None:
    reader, tokenizer, text = row_text(mixed, "documents-48")
    ids = np.array(tokenizer.encode(text_of_any_kind, add_special_tokens=False).ids, np.int64)
    for predicted in (np.zeros(len(ids), bool), np.ones(len(ids), bool)):
        for seen in (ids, np.full_like(ids, reader.special_tokens["mask"]), ids[::-1]):
            for span in text.spans(seen, ids, predicted):
                assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", span.text)
                assert span.style == "text" or "\n" not in span.text
    plain = "".join(span.text for span in text.spans(ids, ids, np.zeros(len(ids), bool)))
    if not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", text_of_any_kind):
        assert plain == text_of_any_kind


def test_torn_characters_are_bytes(mixed: Path) -> None:
    _, tokenizer, text = row_text(mixed, "documents-48")
    ids = [tokenizer.token_to_id(symbol) for symbol in ("\u00c3", "\u00a9", "a")]
    assert text.text(ids, True) == "\u00e9a"
    assert text.text(ids[:1], True) == "\\xc3"
    assert text.text(ids[1:], False) == "\\xa9a"


def test_documents_sentences_and_pairs_have_their_own_blocks(mixed: Path, capsys: Output) -> None:
    documents = shown(capsys, mixed, "documents", 3)
    assert documents.startswith("documents-48, train: ")
    assert re.search(r"row \d+: \d+ tokens, 1 piece of \d+|\d pieces of \d+ \+ \d+", documents)
    assert "  1 | <s> " in documents
    sentences = shown(capsys, mixed, "sentences", 3)
    blocks = sum(int(number) for number in re.findall(r"(\d+) parts? of", sentences))
    assert len(re.findall(r"^ {1,2}\d+ \| ", sentences, re.MULTILINE)) == blocks == sentences.count("</s>") - 1
    pairs = shown(capsys, mixed, "pairs", 3)
    for label, start in (("A", "<s> "), ("B", "")):
        assert len(re.findall(rf"^  {label} \| {start}", pairs, re.MULTILINE)) == 3
    assert all(int(a) + int(b) <= 48 for a, b in re.findall(r"A (\d+) \+ B (\d+)", pairs))


def test_padding_is_shortened_and_counted(mixed: Path, capsys: Output) -> None:
    printed = shown(capsys, mixed, "sentences", 40)
    for block in printed.split("\nrow ")[1:]:
        found = re.search(r"; (\d+) padding", block)
        shortened = re.search(r"^    \| <pad> x (\d+)$", block, re.MULTILINE)
        tokens = re.match(r"[\d,]+: (\d+) tokens", block)
        assert tokens
        missing = 48 - int(tokens[1])
        assert (found and int(found[1])) == (shortened and int(shortened[1])) == (missing or None)


@pytest.mark.parametrize("task", ["nsp", "sop"])
def test_sentence_tasks_are_those_of_training(mixed: Path, capsys: Output, task: Any) -> None:
    reader, tokenizer, _ = row_text(mixed, "pairs-48")
    words = {"nsp": "label 1, B is of another document", "sop": "label 1, A and B have changed places"}[task]
    printed = shown(capsys, mixed, "pairs", 12, MaskRules(0.0), sentence=task, epoch=3)
    picked = np.array([int(number) for number in re.findall(r"^row (\d+):", printed, re.MULTILINE)])
    pairs = sentence_pairs(reader, picked, np.full(12, 3), 42, task)
    labels = re.findall(r"^sentence task: (.*)$", printed, re.MULTILINE)
    assert labels == [words if label else "label 0, B follows A in the text" for label in pairs.labels]
    assert len(set(labels)) == 2
    assert re.findall(r"A (\d+) \+ B (\d+)", printed) == [(str(a), str(b)) for a, b in pairs.lengths]
    squeezed = "".join(printed.split()).replace("|", "")
    for row, (a, b) in zip(pairs.input_ids, pairs.lengths, strict=True):
        for part in (row[:a], row[a : a + b]):
            assert "".join(tokenizer.decode(part.tolist()).split()) in squeezed


def test_rows_are_different_and_stay_while_epochs_change_the_masks(mixed: Path, capsys: Output) -> None:
    total = ShardReader(mixed / "shards" / "documents-48", "val").num_rows
    one, other = (shown(capsys, mixed, "documents", total, split="val", epoch=epoch) for epoch in (0, 1))
    for printed in (one, other):
        assert [int(n) for n in re.findall(r"^row (\d+):", printed, re.MULTILINE)] == list(range(total))
    assert one != other
    assert MARKER.sub(r"\2", one).split()[20:] != one.split()[20:]
    assert shown(capsys, mixed, "documents", total, split="val") == one


def test_colour_adds_nothing_but_colour(mixed: Path, capsys: Output) -> None:
    for packing in ("documents", "pairs"):
        plain, painted = (
            shown(capsys, mixed, packing, 5, MaskRules(0.3, "word", 0.4, 0.3), color=c) for c in (False, True)
        )
        assert "\x1b" not in plain
        assert re.sub(" +$", "", ANSI.sub("", painted), flags=re.MULTILINE) == plain
        for code in ("30;43", "30;46", "30;48;5;210", "2", "1;36", "1;35"):
            assert f"\x1b[{code}m" in painted
        assert painted.count("\x1b[") == 2 * painted.count("\x1b[0m")


def test_who_wants_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    class Pipe:
        def isatty(self) -> bool:
            return False

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(Terminal())  # type: ignore[arg-type]
    assert not wants_color(Pipe())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "")
    assert wants_color(Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_color(Terminal())  # type: ignore[arg-type]


texts = st.text(st.sampled_from("ab \n\u65e5"), max_size=60)


@given(st.lists(st.tuples(texts, st.sampled_from(["text", "masked"])), max_size=8), st.integers(5, 30))
def test_lines_keep_all_words_and_fit(parts: list[tuple[str, Any]], columns: int) -> None:
    spans = [Span(text if style == "text" else re.sub(r"\s", "", text), style) for text, style in parts]
    lines = wrapped(spans, columns)
    found = ["".join(span.text for span in line) for line in lines]
    whole = "".join(span.text for span in spans)
    assert "\n".join(found).split() == whole.split()
    assert [line.split() for line in whole.split("\n")] == [
        line.split() for line in "\n".join(found).split("\n")
    ] or len(found) > whole.count("\n") + 1
    for line in found:
        assert line == line.strip()
        assert sum(2 if char == "\u65e5" else 1 for char in line) <= columns or " " not in line
    assert [s.text for line in lines for s in line if s.style == "masked"] == [
        s.text for s in spans if s.style == "masked" and s.text
    ]


def problem(*args: Any) -> str:
    with pytest.raises(UserError) as caught:
        preview(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_missing_is_said_in_one_line(mixed: Path, small: Path, tmp_path: Path) -> None:
    def ask(
        corpus: Path, length: Any = None, packing: Any = None, split: str = "train", rows: int = 1, **more: Any
    ) -> str:
        rules = more.get("rules", MaskRules())
        return problem(
            Corpus(corpus),
            length,
            packing,
            split,
            rows,
            42,
            more.get("epoch", 0),
            rules,
            more.get("sentence", "none"),
            False,
        )

    assert "run `python -m data_prep tokenizer" in ask(tmp_path)
    names = "documents-48, pairs-48, sentences-48"
    assert f"has {names}: 3 of these with --packing any and --row-length any, wanted one" in ask(mixed)
    assert f"has {names}: none of these with --packing any and --row-length 64" in ask(mixed, 64)
    assert f"has {names}: none of these with --packing pairs and --row-length 8" in ask(mixed, 8, "pairs")
    assert "has no split 'test', only train, val" in ask(small, split="test")
    total = ShardReader(small / "shards" / "documents-16", "train").num_rows
    assert f"--rows is 99, but {small / 'shards' / 'documents-16' / 'train'} has {total} rows" in ask(small, rows=99)
    assert "--rows is 0" in ask(small, rows=0)
    assert "--epoch is -1" in ask(small, epoch=-1)
    for rate in (-0.1, 1, float("nan")):
        assert f"--mask-rate is {rate}" in ask(small, rules=MaskRules(rate))
    assert "--mask-token 0.8 and --random-token 0.3" in ask(small, rules=MaskRules(0.15, "token", 0.8, 0.3))
    assert "has packing 'documents'" in ask(small, sentence="sop")
    copy = shutil.copytree(small, tmp_path / "copy")
    shutil.rmtree(copy / "shards")
    assert "holds no shards; run `python -m data_prep shard` first" in ask(copy)


def test_rows_of_another_tokenizer_are_refused(small: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(small, tmp_path / "copy")
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(SPECIALS + WORDS[::-1]) + "\n", encoding="utf-8")
    assert main(["tokenizer", "--corpus", str(copy), "--load", str(vocab), "--force"]) == 0
    line = problem(Corpus(copy), None, None, "train", 1, 42, 0, MaskRules(), "none", False)
    assert "was made with another tokenizer" in line
    assert "run shard again with --force" in line


def test_streams_that_cannot_show_a_character(mixed: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    preview(Corpus(mixed), None, "documents", "train", 20, 42, 0, MaskRules(0.0), "none", False)
    ascii_only.flush()
    printed = ascii_only.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "caf\\xe9" in printed
    assert "\\u65e5" in printed


def test_steering_characters_become_visible() -> None:
    assert visible("a\x1b[2J\tb\nc\u202ed") == "a\\x1b[2J\\tb\nc\\u202ed"
    assert escaped("a\nb\x7f") == "a\\nb\\x7f"
    assert columns_of("a\u65e5e\u0301") == 4
