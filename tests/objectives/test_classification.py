"""Batches of a classifier: special tokens, truncation, padding, order and sharding."""

import json
import math
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import BertNormalizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_prep.errors import UserError
from data_prep.tokenization.vocabulary import bert_tokenizer, word_piece
from pipeline.objectives.classification import (
    ClassificationLoader,
    DevEvaluation,
    Encoded,
    EvaluationBatches,
    Inputs,
    collate,
    encode,
    read_tokenizer,
)
from pipeline.objectives.glue import TASKS
from pipeline.objectives.tasks import Example
from pipeline.training.ranks import Ranks
from tests.data_prep.vocabularies import BERT_SPECIALS
from tests.objectives.material import SHAPE, WORDS, tokenizer

INPUTS = Inputs(pad_id=0, max_length=16, with_types=True)


def rows_of(encoded: Encoded) -> list[list[int]]:
    return [part.tolist() for part in np.split(encoded.input_ids, encoded.offsets[1:-1])]


def test_texts_and_pairs_by_hand() -> None:
    examples = [Example("the film was good", None, 1), Example("good film", "bad plot", 0), Example("", "a", 1)]
    encoded = encode(examples, tokenizer(), 16, is_regression=False)
    assert rows_of(encoded) == [[2, 7, 6, 9, 4, 3], [2, 4, 6, 3, 5, 10, 3], [2, 3, 8, 3]]
    assert encoded.type_ids.tolist() == [0] * 6 + [0, 0, 0, 0, 1, 1, 1] + [0, 0, 1, 1]
    assert encoded.labels.tolist() == [1, 0, 1]
    assert encoded.labels.dtype == np.int64
    assert encode(examples, tokenizer(), 16, is_regression=True).labels.dtype == np.float32


def test_the_longer_text_is_cut_first() -> None:
    # 8 tokens less 3 special ones leave 5: the first text's 6 are cut to 3, the second keeps its 2.
    pair = Example("good bad film the a was", "plot and", 0)
    assert rows_of(encode([pair], tokenizer(), 8, False)) == [[2, 4, 5, 6, 3, 10, 11, 3]]
    assert rows_of(encode([Example("good bad film the a was", None, 0)], tokenizer(), 5, False)) == [[2, 4, 5, 6, 3]]


sentences = st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=5), st.integers(5, 40))
def test_pairs_equal_the_transformers_tokenizer(pairs: list[tuple[str, str]], max_length: int) -> None:
    reference = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    )
    first, second = (list(texts) for texts in zip(*pairs, strict=True))
    expected = reference(first, second, truncation="longest_first", max_length=max_length)
    encoded = encode([Example(*pair, 0) for pair in pairs], tokenizer(), max_length, False)
    assert rows_of(encoded) == expected["input_ids"]
    assert encoded.type_ids.tolist() == [value for row in expected["token_type_ids"] for value in row]
    assert encoded.lengths.max() <= max_length


def test_encoding_leaves_the_given_tokenizer_as_it_was() -> None:
    given_tokenizer = tokenizer()
    given_tokenizer.enable_padding(length=30)
    before = given_tokenizer.to_str()
    assert rows_of(encode([Example("good", None, 0)], given_tokenizer, 8, False)) == [[2, 4, 3]]
    assert given_tokenizer.to_str() == before


def test_a_batch_is_padded_to_its_longest_row() -> None:
    examples = [Example("good", None, 1), Example("good film", "the bad plot was bad", 0)]
    encoded = encode(examples, tokenizer(), 30, False)
    batch = collate(encoded, np.array([1, 0]), Inputs(0, 30, True))
    assert batch["input_ids"].tolist() == [
        [2, 4, 6, 3, 7, 5, 10, 9, 5, 3, 0, 0, 0, 0, 0, 0],
        [2, 4, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["attention_mask"].sum(1).tolist() == [10, 3]
    assert batch["token_type_ids"][0].tolist() == [0] * 4 + [1] * 6 + [0] * 6
    assert batch["labels"].tolist() == [0, 1]
    assert collate(encoded, np.array([0]), Inputs(0, 30, True))["input_ids"].shape == (1, 8)
    # No position of the model lies beyond its longest row.
    assert collate(encoded, np.array([1]), Inputs(9, 12, False))["input_ids"].tolist()[0][-3:] == [3, 9, 9]
    assert "token_type_ids" not in collate(encoded, np.array([1]), Inputs(0, 12, False))


def some_rows(count: int) -> Encoded:
    """Row i is i + 2 tokens long at most 14, its label i."""
    lengths = np.array([2 + i % 13 for i in range(count)])
    return Encoded(
        np.arange(lengths.sum(), dtype=np.int32),
        np.zeros(lengths.sum(), np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.arange(count),
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(0, 2**31), st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (4, 1)]))
def test_every_world_size_sees_the_same_stream(count: int, seed: int, layout: tuple[int, int]) -> None:
    world_size, accumulation = layout
    encoded, global_rows = some_rows(count), 8
    alone = ClassificationLoader(encoded, INPUTS, seed, global_rows, global_rows)
    micro_rows = global_rows // world_size // accumulation
    together = [
        ClassificationLoader(encoded, INPUTS, seed, global_rows, micro_rows, rank, world_size)
        for rank in range(world_size)
    ]
    steps = 2 * math.ceil(count / global_rows)
    stream: list[int] = []
    tokens = 0
    for step in range(steps):
        whole = alone.micro_batch(step, 0)
        parts = [loader.micro_batch(step, micro)["labels"] for micro in range(accumulation) for loader in together]
        assert all(len(part) == micro_rows for part in parts)
        assert torch.cat(parts).tolist() == whole["labels"].tolist()
        stream += whole["labels"].tolist()
        tokens += int(whole["attention_mask"].sum())
        assert alone.tokens(step + 1) == together[0].tokens(step + 1) == tokens
    # Each epoch of the stream is a permutation of all rows.
    assert sorted(stream[:count]) == sorted(stream[count : 2 * count]) == list(range(count))


def test_any_step_can_be_asked_for_in_any_order() -> None:
    loader = ClassificationLoader(some_rows(50), INPUTS, 3, 8, 4)
    wanted = [(step, micro) for step in range(12) for micro in range(2)]
    forward = {key: loader.micro_batch(*key) for key in wanted}
    for key in reversed(wanted):
        again = ClassificationLoader(some_rows(50), INPUTS, 3, 8, 4).micro_batch(*key)
        assert all(torch.equal(again[name], forward[key][name]) for name in again)
    other = ClassificationLoader(some_rows(50), INPUTS, 4, 8, 4).micro_batch(0, 0)
    assert other["labels"].tolist() != forward[0, 0]["labels"].tolist()
    assert loader.tokens(5) < loader.tokens(40)
    assert loader.tokens(5) == sum(int(forward[s, m]["attention_mask"].sum()) for s in range(5) for m in range(2))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4))
def test_evaluation_counts_every_row_once(count: int, batch_rows: int, world_size: int) -> None:
    encoded = some_rows(count)
    ranks = [EvaluationBatches(encoded, INPUTS, batch_rows, rank, world_size) for rank in range(world_size)]
    seen: list[int] = []
    for batches in ranks:
        assert len(batches) == len(ranks[0])
        for index in range(len(batches)):
            rows, batch = batches.batch(index)
            assert len(batch["labels"]) == batch_rows
            assert batch["labels"][: len(rows)].tolist() == rows.tolist()
            seen += rows.tolist()
    assert sorted(seen) == list(range(count))


def test_tokenizers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer(tmp_path, SHAPE.vocab_size).get_vocab_size() == SHAPE.vocab_size
    with pytest.raises(UserError, match=r"ids up to 13, but the model beside it has 13 embeddings"):
        read_tokenizer(tmp_path, SHAPE.vocab_size - 1)
    tokenizer(pairs=False).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"adds no special tokens to a pair, so that nothing would tell"):
        read_tokenizer(tmp_path, SHAPE.vocab_size)
    assert read_tokenizer(tmp_path, SHAPE.vocab_size, with_pairs=False).encode("good").ids == [2, 4, 3]
    bare = tokenizer()
    bare.post_processor = TemplateProcessing(single="$A", pair="$A [SEP] $B", special_tokens=[("[SEP]", 3)])
    bare.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"adds no special token to a text; the classifier of an encoder looks at one"):
        read_tokenizer(tmp_path, SHAPE.vocab_size)
    assert read_tokenizer(tmp_path, SHAPE.vocab_size, causal=True).encode("good", "bad").ids == [4, 3, 5]


@pytest.mark.parametrize(
    ("config", "model_type"),
    [
        ({"tokenizer_class": "BertTokenizer", "do_lower_case": False}, None),
        ({"do_lower_case": True, "strip_accents": False}, "bert"),
        (
            {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True, "extra_special_tokens": ["[URL]"]},
            "bert",
        ),
        ({"tokenizer_class": "BertTokenizerFast", "split_special_tokens": True}, None),
        (None, "slim_bert"),
    ],
)
def test_a_tokenizer_is_what_transformers_makes_of_its_folder(tmp_path: Path, config, model_type) -> None:
    """Whatever tokenizer.json and tokenizer_config.json say against each other."""
    words = [*BERT_SPECIALS, "good", "Good", "m\u00f6chte", "mochte", "M\u00f6chte", "url", "URL", "[", "]", "\u4eba"]
    made = bert_tokenizer(word_piece({word: n for n, word in enumerate(words)}), BertNormalizer(lowercase=False))
    made.save(str(tmp_path / "tokenizer.json"))
    for name, content in (("tokenizer_config", config), ("config", model_type and {"model_type": model_type})):
        if content:
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["Good good M\u00f6chte", "m\u00f6chte [URL]\u4eba\u4eba", "[SEP] GOOD [MASK]"]
    examples = [Example(text, second, 0) for text in texts for second in (None, "Good url")]
    found = rows_of(encode(examples, read_tokenizer(tmp_path, len(theirs)), 64, False))
    assert found == [theirs(*filter(None, (example.first, example.second))).input_ids for example in examples]


def test_a_tokenizer_that_transformers_cannot_read_is_one_line(tmp_path: Path) -> None:
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["x.T", null]}}')
    with pytest.raises(UserError, match=r"transformers cannot read the tokenizer in .*: ") as caught:
        read_tokenizer(tmp_path, 100)
    assert "\n" not in str(caught.value)


class EngineStandIn:
    """Answers every row with logits that say its number of tokens."""

    ranks = Ranks(0, 0, 1, torch.device("cpu"))

    @contextmanager
    def evaluating(self):
        yield

    def forward(self, batch: dict[str, torch.Tensor]) -> SimpleNamespace:
        assert "labels" not in batch
        lengths = batch["attention_mask"].sum(1).float()
        return SimpleNamespace(logits=torch.stack([lengths, torch.full_like(lengths, 4.5)], 1))


def test_dev_evaluation_puts_every_prediction_in_its_row() -> None:
    # Lengths with [CLS] and [SEP]: 5, 3, 4, 6, 3; the prediction is 0 above 4.5 tokens, else 1.
    texts = ["a a a", "a", "a a", "a a a a", "a"]
    labels = [0, 1, 1, 1, 0]
    examples = [Example(text, None, label) for text, label in zip(texts, labels, strict=True)]
    rows = encode(examples, tokenizer(), 16, False)
    evaluation = DevEvaluation(TASKS["SST-2"], EvaluationBatches(rows, Inputs(0, 16, False), 2), rows.labels)
    found = evaluation(EngineStandIn())
    assert evaluation.predictions.tolist() == [0, 1, 1, 0, 1]
    assert found["accuracy"] == found["headline"] == pytest.approx(60.0)
    # Cross entropy of (length, 4.5): log(1 + exp(wrong - right)).
    gaps = np.array([4.5 - 5, 3 - 4.5, 4 - 4.5, 6 - 4.5, 4.5 - 3])
    assert found["loss"] == pytest.approx(float(np.log1p(np.exp(gaps)).mean()))
