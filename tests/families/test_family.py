"""The table finds each family's tensors under any prefix and refuses what is not of that family."""

import pytest
import torch

from pipeline.families.hf import state_to_hf
from pipeline.families.table import FAMILIES
from tests.tickets.make import random_state, small_shape


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({}, "bert"), ({"position_offset": 1}, "roberta"), ({"norm": "pre"}, "roberta-prelayernorm")],
)
def test_every_tensor_with_units_is_found(changes, kind):
    """The sizes that differ between two widths of a model are those the table names, and no others."""
    small, wide = small_shape(**changes), small_shape(layers=((5, 40),) * 3, **changes)
    assert state_to_hf(random_state(small), small)[1].model_type == kind
    for family, of in (("slim_bert", lambda shape: random_state(shape)), (kind, lambda shape: hf_layout(shape, kind))):
        states = of(small), of(wide)
        found = FAMILIES[family].find(states[0], small)
        for key in states[0]:
            axes = [
                axis
                for axis, (a, b) in enumerate(zip(states[0][key].shape, states[1][key].shape, strict=True))
                if a != b
            ]
            assert axes == ([found[key][0].axis] if key in found else []), key


def hf_layout(shape, kind):
    """Shapes of the Hugging Face tensors, for widths that no stock model has."""
    state = random_state(shape)
    parts = {}
    for key, tensor in state.items():
        if ".attention.qkv." in key:
            layer, kind_of = key.split(".")[2], key.split(".")[-1]
            for name, block in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                parts[f"bert.encoder.layer.{layer}.attention.self.{name}.{kind_of}"] = block
        else:
            key = key.replace("encoder.layers", "bert.encoder.layer").replace(
                "attention.output", "attention.output.dense"
            )
            parts[key.replace("ffn.up", "intermediate.dense").replace("ffn.down", "output.dense")] = tensor
    return parts


@pytest.mark.parametrize("prefix", ["", "module.", "bert.of.mine."])
def test_prefixes_do_not_matter(prefix):
    shape = small_shape()
    state = {prefix + name: tensor for name, tensor in random_state(shape).items()}
    bare = {name.removeprefix("encoder."): tensor for name, tensor in random_state(shape).items()}
    assert len(FAMILIES["slim_bert"].find(state, shape)) == 18
    assert len(FAMILIES["slim_bert"].find(bare, shape)) == 18


def test_a_missing_tensor_is_named():
    shape = small_shape()
    state = random_state(shape)
    del state["encoder.layers.1.ffn.up.bias"]
    with pytest.raises(ValueError, match=r"for 3 layers lacks layers\.1\.ffn\.up\.bias"):
        FAMILIES["slim_bert"].find(state, shape)


def test_a_layer_too_many_is_named():
    state = random_state(small_shape())
    with pytest.raises(ValueError, match=r"for 2 layers has layers\.2\.attention\.output\.weight"):
        FAMILIES["slim_bert"].find(state, small_shape(layers=((4, 32),) * 2))


def test_a_tensor_of_another_size_is_named():
    shape = small_shape()
    state = random_state(shape)
    state["encoder.layers.2.attention.qkv.weight"] = torch.zeros(45, 16)
    with pytest.raises(ValueError, match=r"qkv\.weight has shape \(45, 16\), but axis 0 must be 48 for 4 heads"):
        FAMILIES["slim_bert"].find(state, shape)


def test_a_tensor_that_is_there_twice_is_named():
    shape = small_shape()
    state = random_state(shape)
    state["copy.layers.0.ffn.up.bias"] = state["encoder.layers.0.ffn.up.bias"]
    with pytest.raises(ValueError, match=r"both .* and copy\.layers\.0\.ffn\.up\.bias"):
        FAMILIES["slim_bert"].find(state, shape)


def test_another_family_is_refused():
    shape = small_shape()
    with pytest.raises(ValueError, match="family 'bert'"):
        FAMILIES["bert"].find(random_state(shape), shape)
