"""Command `preview`: packed rows in the terminal as a model meets them, decoded, with masks and boundaries.

Knows nothing of training; the masks are those that training makes of the same seed, epoch and rules.
"""

import shutil
from collections.abc import Iterator
from typing import Literal

import numpy as np

from data_prep.corpus import Corpus
from data_prep.errors import UserError
from data_prep.row_text import MASK, RowText, Span, painted
from data_prep.rows.masking import IntArray, MaskRules, hash_chain, mask_rows
from data_prep.rows.pack import Packing
from data_prep.rows.sentence_pairs import SentencePairs, SentenceTask, check_task, sentence_pairs
from data_prep.rows.shards import INDEX_NAME, ShardReader
from data_prep.terminal import show
from data_prep.tokenization.vocabulary import CONTINUATION
from data_prep.tokenizer import finished_tokenizer

_MOST_COLUMNS, _COLUMNS = 120, 100


def preview(
    corpus: Corpus,
    row_length: int | None,
    packing: Packing | None,
    split: str,
    rows: int,
    seed: int,
    epoch: int,
    rules: MaskRules,
    sentence: Literal["none"] | SentenceTask,
    color: bool,
) -> None:
    """Print `rows` rows of one split, spread over it, masked as training with this seed does in this epoch.

    row_length and packing may be None where the corpus has only one that fits. rules.rate 0 shows bare rows.
    Raises UserError where there are no such rows, and for rules that cannot be.
    """
    _check(rows, epoch, rules)
    tokenizer, made = finished_tokenizer(corpus)
    reader = _open(corpus, row_length, packing, split, made["sha256"])
    if rows > reader.num_rows:
        raise UserError(f"--rows is {rows}, but {reader.folder / split} has {reader.num_rows} rows")
    if sentence != "none":
        check_task(reader, sentence)
    columns = min(_MOST_COLUMNS, shutil.get_terminal_size((_COLUMNS, 24)).columns)
    text = RowText(reader, tokenizer, made["special_token_texts"])
    picked, epochs = _spread(reader.num_rows, rows, seed), np.full(rows, epoch, np.int64)
    pairs = None if sentence == "none" else sentence_pairs(reader, picked, epochs, seed, sentence)
    ids, lengths = reader.rows(picked) if pairs is None else (pairs.input_ids, pairs.lengths)
    seen, predicted = _masked(reader, ids, picked, epochs, seed, rules)

    lines = list(_legend(reader, text, epoch, seed, rules))
    for n in range(rows):
        lines += [
            [],
            [Span(f"row {picked[n]:,}: {_summary(reader, lengths[n], seen[n], ids[n], predicted[n])}", "title")],
        ]
        if pairs is not None:
            lines.append([Span(f"sentence task: {_fate(pairs, n, sentence)}")])
        lines += text.lines(seen[n], ids[n], predicted[n], lengths[n], columns)
    for line in lines:
        show("".join(painted(span) if color else span.text for span in line).rstrip())


def _check(rows: int, epoch: int, rules: MaskRules) -> None:
    if rows < 1:
        raise UserError(f"--rows is {rows}, wanted 1 or more")
    if epoch < 0:
        raise UserError(f"--epoch is {epoch}, wanted 0 or more")
    if not 0 <= rules.rate < 1:
        raise UserError(f"--mask-rate is {rules.rate}, wanted a share from 0 up to but not including 1")
    if min(rules.mask_token, rules.random_token) < 0 or rules.mask_token + rules.random_token > 1:
        raise UserError(
            f"--mask-token {rules.mask_token} and --random-token {rules.random_token} are shares of what is masked: "
            "wanted two numbers from 0 to 1 whose sum is at most 1"
        )


def _open(
    corpus: Corpus, row_length: int | None, packing: Packing | None, split: str, tokenizer_sha256: str
) -> ShardReader:
    """The one shards folder that is meant; UserError naming all that there are where it is none or several."""
    present = sorted(path.parent.name for path in corpus.root.glob(f"shards/[!.]*/{INDEX_NAME}"))
    if not present:
        raise UserError(f"{corpus.root / 'shards'} holds no shards; run `python -m data_prep shard` first")
    fitting = [
        name
        for name in present
        if (packing is None or name.startswith(f"{packing}-"))
        and (row_length is None or name.endswith(f"-{row_length}"))
    ]
    if len(fitting) != 1:
        raise UserError(
            f"{corpus.root / 'shards'} has {', '.join(present)}: {len(fitting) or 'none'} of these with --packing "
            f"{packing or 'any'} and --row-length {row_length or 'any'}, wanted one"
        )
    reader = ShardReader(corpus.root / "shards" / fitting[0], split, verify="size")
    if reader.index["tokenizer_sha256"] != tokenizer_sha256:
        raise UserError(
            f"{reader.folder} was made with another tokenizer: sha256 {reader.index['tokenizer_sha256']}, "
            f"now {tokenizer_sha256}; run shard again with --force"
        )
    return reader


def _spread(num_rows: int, count: int, seed: int) -> IntArray:
    """`count` different rows, one from each of as many equal parts of a split, in order."""
    bounds = np.arange(count + 1) * num_rows // count
    draws = hash_chain(seed, np.arange(count)) % np.diff(bounds).astype(np.uint64)
    return bounds[:-1] + draws.astype(np.int64)


def _masked(
    reader: ShardReader, ids: IntArray, row_ids: IntArray, epochs: IntArray, seed: int, rules: MaskRules
) -> tuple[IntArray, np.ndarray]:
    """What a model sees (n, L) and where it predicts (n, L)."""
    predicted = np.zeros(ids.shape, bool)
    if rules.rate == 0:
        return ids, predicted
    masked = mask_rows(
        ids, row_ids, epochs, seed, rules, reader.special_tokens, len(reader.continues), reader.continues
    )
    predicted.reshape(-1)[masked.positions] = True
    return masked.input_ids, predicted


def _legend(reader: ShardReader, text: RowText, epoch: int, seed: int, rules: MaskRules) -> Iterator[list[Span]]:
    yield [
        Span(f"{reader.folder.name}, {reader.split}: {_some(reader.num_rows, 'row')} of {reader.row_length}", "title")
    ]
    if rules.rate:
        yield [
            Span(
                f"masked as in epoch {epoch} of seed {seed}: {100 * rules.rate:g} % of the tokens, by {rules.unit}; "
                f"of these {100 * rules.mask_token:g} % hidden, {100 * rules.random_token:g} % replaced"
            )
        ]
        yield [
            Span(f"[{MASK}=word]", "masked"),
            Span(f" hidden behind {text.special('mask')}   "),
            Span("[other=word]", "random"),
            Span(" replaced at random   "),
            Span("[=word]", "kept"),
            Span(" left as it is; the model predicts word"),
        ]
        yield [Span(f"{CONTINUATION} in front of a random token: it goes on with the word before it")]
    first, second = "AB" if reader.packing == "pairs" else "12"
    bars = {"documents": "pieces of documents", "sentences": "parts of documents", "pairs": "sentences"}
    yield [
        Span(f"{first} |", "odd"),
        Span(" "),
        Span(f"{second} |", "even"),
        Span(f" {bars[reader.packing]}   "),
        Span(f"{text.special('cls')} {text.special('sep')} {text.special('pad')}", "boundary"),
        Span(" boundaries and padding   "),
        Span(text.special("unk"), "unknown"),
        Span(" not in the vocabulary"),
    ]


def _summary(reader: ShardReader, lengths: np.ndarray, seen: IntArray, ids: IntArray, predicted: np.ndarray) -> str:
    pieces = lengths[lengths > 0].tolist()
    tokens = sum(pieces)
    if reader.packing == "pairs":
        of = f"A {pieces[0]} + B {pieces[1]}"
    elif reader.packing == "sentences":
        ends = np.flatnonzero(ids[:tokens] == reader.special_tokens["sep"]) + 1
        pieces = np.diff(ends, prepend=0).tolist()
        of = f"{_some(len(pieces), 'part')} of {' + '.join(map(str, pieces))}"
    else:
        of = f"{_some(len(pieces), 'piece')} of {' + '.join(map(str, pieces))}"
    words = [f"{tokens} tokens, {of}"]
    if len(ids) > tokens:
        words.append(f"{len(ids) - tokens} padding")
    if predicted.any():
        hidden = int((predicted & (seen == reader.special_tokens["mask"])).sum())
        kept = int((predicted & (seen == ids)).sum())
        total = int(predicted.sum())
        words.append(f"{total} to predict: {hidden} hidden, {total - hidden - kept} replaced, {kept} kept")
    return "; ".join(words)


def _fate(pairs: SentencePairs, row: int, task: str) -> str:
    if not pairs.labels[row]:
        return "label 0, B follows A in the text"
    return "label 1, B is of another document" if task == "nsp" else "label 1, A and B have changed places"


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
