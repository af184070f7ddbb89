from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.families.hf import build_model
from pipeline.families.shape import EncoderShape, LayerShape

LAYERS = st.lists(st.builds(LayerShape, st.integers(1, 4), st.integers(1, 40)), min_size=1, max_size=3)
SHAPES = st.builds(
    EncoderShape,
    vocab_size=st.integers(8, 50),
    hidden_size=st.sampled_from([8, 12, 20]),
    head_size=st.sampled_from([4, 6]),
    layers=LAYERS.map(tuple),
    max_positions=st.integers(12, 20),
    type_vocab_size=st.integers(0, 2),
    norm=st.sampled_from(["post", "pre"]),
    position_offset=st.integers(0, 2),
    sentence_head=st.booleans(),
)


@given(SHAPES)
@settings(max_examples=25, deadline=None)
def test_num_parameters_is_what_torch_counts(shape: EncoderShape) -> None:
    model = build_model(shape, seed=0)
    assert shape.num_parameters() == sum(p.numel() for p in model.parameters())


@given(SHAPES)
@settings(max_examples=25, deadline=None)
def test_dict_round_trip(shape: EncoderShape) -> None:
    assert EncoderShape.from_dict(shape.to_dict()) == shape


def test_parameters_of_a_shape_counted_by_hand() -> None:
    shape = EncoderShape(vocab_size=10, hidden_size=4, head_size=2, layers=(LayerShape(1, 3),), max_positions=5)
    embeddings = 10 * 4 + 5 * 4 + 8
    attention = (4 * 6 + 6) + (2 * 4 + 4)
    feed_forward = (4 * 3 + 3) + (3 * 4 + 4)
    head = (4 * 4 + 4) + 8 + 10
    assert shape.num_parameters() == embeddings + attention + feed_forward + 16 + head
    sentence_head = (4 * 4 + 4) + (4 * 2 + 2)
    assert replace(shape, sentence_head=True).num_parameters() == shape.num_parameters() + sentence_head


@pytest.mark.parametrize("sentence_head", [False, True])
@pytest.mark.parametrize("num_masked", [3, 24])
def test_flops_formula_is_what_torch_counts(num_masked: int, sentence_head: bool) -> None:
    shape = EncoderShape(
        vocab_size=40,
        hidden_size=16,
        head_size=4,
        layers=(LayerShape(4, 64), LayerShape(1, 24), LayerShape(3, 8)),
        max_positions=12,
        dropout=0.0,
        attention_dropout=0.0,
        sentence_head=sentence_head,
    )
    model = build_model(shape, seed=0)
    ids = torch.randint(0, 40, (2, 12))
    positions = torch.arange(num_masked)
    labels = {"labels": ids.view(-1)[positions]} | ({"sentence_targets": torch.tensor([0, 1])} if sentence_head else {})
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = model(ids, masked_positions=positions, **labels).loss
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    fraction = num_masked / ids.numel()
    assert forward.get_total_flops() == pytest.approx(24 * shape.forward_flops_per_token(12, fraction))
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == pytest.approx(24 * shape.train_flops_per_token(12, fraction))
    encoder_only = replace(shape, sentence_head=False).forward_flops_per_token(12, 0.0)
    assert encoder_only == shape.encoder_flops_per_token(12)


def test_uniform_divides_the_hidden_size() -> None:
    shape = EncoderShape.uniform(
        num_layers=2, num_heads=4, ffn=64, hidden_size=32, vocab_size=99, max_positions=16, norm="pre"
    )
    assert shape.head_size == 8
    assert shape.layers == (LayerShape(4, 64), LayerShape(4, 64))
    assert shape.is_uniform
    assert shape.max_row_length == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "hidden_size 32 is not a multiple of num_heads 5"),
        ({"norm": "sandwich"}, "'sandwich'"),
        ({"ffn": 0}, "got heads=4, ffn=0"),
        ({"num_layers": 0}, "at least one layer"),
        ({"position_offset": 16}, r"position_offset 16 must lie in 0\.\.15"),
        ({"pad_token_id": 99}, "pad_token_id 99 is not in a vocabulary of 99"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict, message: str) -> None:
    good = {"num_layers": 2, "num_heads": 4, "ffn": 64, "hidden_size": 32, "vocab_size": 99, "max_positions": 16}
    with pytest.raises(ValueError, match=message):
        EncoderShape.uniform(**(good | changes))


def test_from_dict_names_unknown_and_missing_keys() -> None:
    values = EncoderShape.uniform(
        num_layers=1, num_heads=1, ffn=8, hidden_size=8, vocab_size=9, max_positions=4
    ).to_dict()
    with pytest.raises(ValueError, match="unknown keys in an encoder shape: hiden"):
        EncoderShape.from_dict({**values, "hiden": 3})
    del values["hidden_size"]
    with pytest.raises(ValueError, match="lacks: hidden_size"):
        EncoderShape.from_dict(values)
