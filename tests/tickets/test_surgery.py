"""Surgery: the slim model computes what the masked dense one does, and nothing is lost on the way."""

import pytest
import torch
from transformers import BertForMaskedLM, BertForPreTraining, RobertaForMaskedLM, RobertaPreLayerNormForMaskedLM

from data_prep.errors import UserError
from pipeline.families.hf import load_state, state_to_hf
from pipeline.tickets import surgery
from pipeline.tickets.gates import GateSet, GateTensors
from pipeline.tickets.surgery import (
    check_surgery,
    differences,
    expand_state,
    fold_gates,
    largest_difference,
    mask_gates,
    slice_state,
)
from tests.tickets.make import model_with, packed_batch, random_state, random_ticket, small_shape

UNEVEN = ((4, 24), (1, 7), (3, 16))
EVEN = ((4, 32),) * 3


def random_gates(shape, seed=0, low=0.5):
    gates = GateSet(shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for gate in gates.named().values():
            gate.copy_(low + torch.rand(gate.shape, generator=generator))
    return gates.tensors


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("layers", [EVEN, UNEVEN])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sliced_equals_masked_dense_on_every_layer(norm, layers, seed):
    shape = small_shape(norm, layers=layers, type_vocab_size=2)
    state, ticket = random_state(shape, seed), random_ticket(shape, seed)
    slim = model_with(ticket.slim_shape(), slice_state(state, shape, ticket))
    found = differences(model_with(shape, state), slim, ticket, packed_batch(shape))
    assert list(found) == ["embeddings", "layer 0", "layer 1", "layer 2", "logits"]
    assert max(found.values()) <= 1e-5
    assert check_surgery(state, shape, ticket, packed_batch(shape)) == max(found.values())


def test_rotary_heads_keep_their_pattern():
    for seed in range(3):
        shape = small_shape("pre", layers=UNEVEN, positions="rotary")
        found = check_surgery(
            random_state(shape, seed), shape, random_ticket(shape, seed), packed_batch(shape), random_gates(shape)
        )
        assert found <= 1e-5


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_sliced_with_folded_gates_equals_masked_gated_dense(norm):
    shape = small_shape(norm, layers=UNEVEN)
    assert (
        check_surgery(random_state(shape), shape, random_ticket(shape), packed_batch(shape), random_gates(shape))
        <= 1e-5
    )


def test_the_slim_model_is_another_one_than_the_unmasked():
    shape = small_shape()
    state, ticket = random_state(shape), random_ticket(shape)
    slim = model_with(ticket.slim_shape(), slice_state(state, shape, ticket))
    batch = packed_batch(shape)
    with torch.no_grad():
        assert (model_with(shape, state)(**batch).logits - slim(**batch).logits).abs().max() > 0.1


def test_a_wrong_cut_is_caught(monkeypatch):
    right = surgery._places

    def off_by_one_head(slot, layer, shape, ticket):
        places = right(slot, layer, shape, ticket)
        return (places + shape.head_size) % (places.max() + 1 + shape.head_size) if slot.blocks == 3 else places

    shape = small_shape()
    ticket = random_ticket(shape, heads=((0, 2),) * 3)
    monkeypatch.setattr(surgery, "_places", off_by_one_head)
    with pytest.raises(RuntimeError, match="masked dense and slim differ by"):
        check_surgery(random_state(shape), shape, ticket, packed_batch(shape))


def test_a_difference_that_is_not_a_number_is_caught():
    shape = small_shape()
    state = random_state(shape)
    state["encoder.layers.1.ffn.down.bias"][0] = float("nan")
    with pytest.raises(RuntimeError, match="differ by nan"):
        check_surgery(state, shape, random_ticket(shape), packed_batch(shape))


def test_a_ticket_for_another_model_is_refused():
    shape = small_shape()
    ticket = random_ticket(small_shape(layers=((4, 32), (4, 24), (4, 32))))
    for act in (lambda: slice_state(random_state(shape), shape, ticket), lambda: mask_gates(shape, ticket)):
        with pytest.raises(UserError, match="a ticket for another model"):
            act()


def test_slices_written_out_by_hand():
    shape = small_shape()
    state = random_state(shape)
    ticket = random_ticket(shape, heads=((1, 3), (0,), (0, 1, 2, 3)), neurons=((2, 5, 31), (7,), tuple(range(32))))
    slim = slice_state(state, shape, ticket)
    rows = [4, 5, 6, 7, 12, 13, 14, 15]
    qkv = rows + [16 + row for row in rows] + [32 + row for row in rows]
    at = "encoder.layers.0"
    assert torch.equal(slim[f"{at}.attention.qkv.weight"], state[f"{at}.attention.qkv.weight"][qkv])
    assert torch.equal(slim[f"{at}.attention.qkv.bias"], state[f"{at}.attention.qkv.bias"][qkv])
    assert torch.equal(slim[f"{at}.attention.output.weight"], state[f"{at}.attention.output.weight"][:, rows])
    assert torch.equal(slim[f"{at}.ffn.up.weight"], state[f"{at}.ffn.up.weight"][[2, 5, 31]])
    assert torch.equal(slim[f"{at}.ffn.up.bias"], state[f"{at}.ffn.up.bias"][[2, 5, 31]])
    assert torch.equal(slim[f"{at}.ffn.down.weight"], state[f"{at}.ffn.down.weight"][:, [2, 5, 31]])
    for name in state:
        if "layers.2." in name or "layers" not in name or name.endswith(("down.bias", "output.bias", "norm.weight")):
            assert torch.equal(slim[name], state[name]), name


@pytest.mark.parametrize("layers", [EVEN, UNEVEN])
def test_expanded_units_return_to_their_own_places(layers):
    shape = small_shape(layers=layers)
    state, ticket = random_state(shape), random_ticket(shape)
    slim = slice_state(state, shape, ticket)
    dense = expand_state(slim, ticket)
    assert {name: tensor.shape for name, tensor in dense.items()} == {n: t.shape for n, t in state.items()}
    again = slice_state(dense, shape, ticket)
    assert all(torch.equal(again[name], slim[name]) for name in slim)
    gates = mask_gates(shape, ticket)
    for layer, (heads, neurons) in enumerate(zip(gates.heads, gates.neurons, strict=True)):
        at = f"encoder.layers.{layer}"
        rows = heads.repeat_interleave(shape.head_size).repeat(3)
        expected = {
            "attention.qkv.weight": state[f"{at}.attention.qkv.weight"] * rows[:, None],
            "attention.qkv.bias": state[f"{at}.attention.qkv.bias"] * rows,
            "attention.output.weight": state[f"{at}.attention.output.weight"] * rows[: len(rows) // 3],
            "ffn.up.weight": state[f"{at}.ffn.up.weight"] * neurons[:, None],
            "ffn.up.bias": state[f"{at}.ffn.up.bias"] * neurons,
            "ffn.down.weight": state[f"{at}.ffn.down.weight"] * neurons,
        }
        for name, tensor in expected.items():
            assert torch.equal(dense[f"{at}.{name}"], tensor), name


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_expanded_model_computes_what_the_slim_one_does(norm):
    shape = small_shape(norm, layers=UNEVEN)
    ticket = random_ticket(shape)
    slim_state = slice_state(random_state(shape), shape, ticket)
    expanded = model_with(shape, expand_state(slim_state, ticket))
    slim = model_with(ticket.slim_shape(), slim_state)
    assert largest_difference(expanded, slim, ticket, packed_batch(shape)) <= 1e-5
    batch = packed_batch(shape)
    with torch.no_grad():
        assert (expanded(**batch).logits - slim(**batch).logits).abs().max() <= 1e-5


HF = [
    ({}, "bert", BertForMaskedLM),
    ({"position_offset": 1}, "roberta", RobertaForMaskedLM),
    ({"norm": "pre"}, "roberta-prelayernorm", RobertaPreLayerNormForMaskedLM),
]


@pytest.mark.parametrize(("changes", "family", "stock"), HF)
def test_hugging_face_layouts_are_cut_at_the_same_places(changes, family, stock):
    shape = small_shape(**changes)
    state, ticket = random_state(shape), random_ticket(shape)
    hf_state, config = state_to_hf(state, shape)
    assert config.model_type == family
    model = stock(config)
    assert set(hf_state) <= set(model.state_dict())
    prefix = f"{family.replace('-', '_')}."
    ours = slice_state(state, shape, ticket)
    theirs = slice_state(hf_state, shape, ticket, family=family)
    for layer in range(3):
        mine, at = f"encoder.layers.{layer}", f"{prefix}encoder.layer.{layer}"
        for kind in ("weight", "bias"):
            parts = [theirs[f"{at}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            assert torch.equal(torch.cat(parts), ours[f"{mine}.attention.qkv.{kind}"])
            assert torch.equal(theirs[f"{at}.attention.output.dense.{kind}"], ours[f"{mine}.attention.output.{kind}"])
            assert torch.equal(theirs[f"{at}.intermediate.dense.{kind}"], ours[f"{mine}.ffn.up.{kind}"])
            assert torch.equal(theirs[f"{at}.output.dense.{kind}"], ours[f"{mine}.ffn.down.{kind}"])
    expanded = expand_state(theirs, ticket, family=family)
    mapped, _ = state_to_hf(expand_state(ours, ticket), shape)
    assert all(torch.equal(expanded[name], mapped[name]) for name in mapped)


@pytest.mark.parametrize(("changes", "family", "stock"), HF)
def test_a_stock_model_of_the_expanded_state_computes_what_the_slim_one_does(changes, family, stock):
    shape = small_shape(**changes)
    ticket = random_ticket(shape)
    slim_state = slice_state(random_state(shape), shape, ticket)
    hf_state, config = state_to_hf(expand_state(slim_state, ticket), shape)
    model = stock(config).eval()
    load_state(model, hf_state)
    ids = packed_batch(shape)["input_ids"][:, :10]
    with torch.no_grad():
        slim = model_with(ticket.slim_shape(), slim_state)(ids, attention_mask=torch.ones_like(ids))
        theirs = model(ids, attention_mask=torch.ones_like(ids))
    assert (theirs.logits - slim.logits).abs().max() <= 2e-5


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_folding_gates(norm):
    shape = small_shape(norm, layers=UNEVEN)
    state, gates, batch = random_state(shape), random_gates(shape), packed_batch(shape)
    folded = model_with(shape, fold_gates(state, shape, gates))
    gated = model_with(shape, state)
    with torch.no_grad():
        assert (folded(**batch).logits - gated(**batch, gates=gates).logits).abs().max() <= 1e-5


def test_folding_powers_of_two_is_exact():
    shape = small_shape(layers=UNEVEN)
    state, batch = random_state(shape), packed_batch(shape)
    gates = GateTensors(*(tuple(2.0 ** (gate * 3).round() for gate in group) for group in random_gates(shape, low=-1)))
    assert len(torch.cat([*gates.heads, *gates.neurons]).unique()) > 2
    folded = model_with(shape, fold_gates(state, shape, gates))
    with torch.no_grad():
        assert torch.equal(folded(**batch).logits, model_with(shape, state)(**batch, gates=gates).logits)


def test_folding_leaves_the_given_state_alone():
    shape = small_shape()
    state = random_state(shape)
    before = {name: tensor.clone() for name, tensor in state.items()}
    fold_gates(state, shape, random_gates(shape))
    slice_state(state, shape, random_ticket(shape))
    assert all(torch.equal(state[name], before[name]) for name in before)


@pytest.mark.parametrize(("changes", "family", "stock"), HF)
def test_folding_on_hugging_face_layouts(changes, family, stock):
    shape = small_shape(**changes)
    state, gates = random_state(shape), random_gates(shape)
    mapped, _ = state_to_hf(fold_gates(state, shape, gates), shape)
    folded = fold_gates(state_to_hf(state, shape)[0], shape, gates, family=family)
    assert all(torch.equal(folded[name], mapped[name]) for name in mapped)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_optimiser_moments_go_along(norm):
    """Slice, then one Adam step == one Adam step on the masked dense model, then slice."""
    shape = small_shape(norm, layers=UNEVEN)
    ticket, batch = random_ticket(shape, 1), packed_batch(shape)
    labels = torch.arange(batch["input_ids"].numel()).reshape(batch["input_ids"].shape) % 50
    # In fp64: a key bias has no gradient but rounding noise, which Adam blows up to whole steps in fp32.
    dense = model_with(shape, random_state(shape)).double()
    names = [name for name, _ in dense.named_parameters()]
    adam = torch.optim.Adam(dense.parameters(), lr=0.01)

    def step(model, optimizer, gates):
        optimizer.zero_grad()
        model(**batch, labels=labels, gates=gates).loss.backward()
        optimizer.step()

    def current(model, optimizer):
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        moments = {
            key: {name: optimizer.state[p][key].clone() for name, p in model.named_parameters()}
            for key in ("exp_avg", "exp_avg_sq")
        }
        return weights, moments

    for _ in range(3):
        step(dense, adam, mask_gates(shape, ticket))
    weights, moments = current(dense, adam)
    slim = model_with(ticket.slim_shape(), slice_state(random_state(shape), shape, ticket)).double()
    load_state(slim, slice_state(weights, shape, ticket))
    slim_adam = torch.optim.Adam(slim.parameters(), lr=0.01)
    sliced = {key: slice_state(values, shape, ticket) for key, values in moments.items()}
    for name, parameter in zip(names, slim.parameters(), strict=True):
        slim_adam.state[parameter] = {
            "step": torch.tensor(3.0), **{key: values[name].clone() for key, values in sliced.items()}
        }  # fmt: skip
    step(dense, adam, mask_gates(shape, ticket))
    step(slim, slim_adam, None)
    weights, moments = current(dense, adam)
    slim_weights, slim_moments = current(slim, slim_adam)
    for wanted, got in ((weights, slim_weights), *((moments[key], slim_moments[key]) for key in moments)):
        for name, tensor in slice_state(wanted, shape, ticket).items():
            assert torch.allclose(got[name], tensor, rtol=0, atol=1e-9), name


def test_mask_gates():
    shape = small_shape(layers=((4, 8),))
    gates = mask_gates(shape, random_ticket(shape, heads=((1, 3),), neurons=((0, 7),)))
    assert gates.heads[0].tolist() == [0, 1, 0, 1]
    assert gates.neurons[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 1]


def test_partial_states_are_cut_like_whole_ones():
    shape = small_shape(layers=UNEVEN)
    state, ticket = random_state(shape), random_ticket(shape)
    whole = slice_state(state, shape, ticket)
    for matrices in (True, False):
        part = {name: value for name, value in state.items() if (value.ndim == 2 and ".layers." in name) == matrices}
        cut = slice_state(part, shape, ticket, partial=True)
        assert cut.keys() == part.keys()
        assert all(cut[name].equal(whole[name]) for name in cut)
        with pytest.raises(ValueError, match="lacks"):
            slice_state(part, shape, ticket)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_sentence_head_goes_through_every_cut_untouched(norm):
    shape = small_shape(norm, layers=UNEVEN, type_vocab_size=2, sentence_head=True)
    state, ticket = random_state(shape), random_ticket(shape)
    assert ticket.slim_shape().sentence_head
    head = [name for name in state if name.startswith(("pooler.", "sentence."))]
    assert len(head) == 4
    slim = slice_state(state, shape, ticket)
    changed = (
        slim,
        expand_state(slim, ticket),
        fold_gates(state, shape, random_gates(shape)),
        slice_state({name: state[name] for name in head}, shape, ticket, partial=True),
    )
    assert all(result[name] is state[name] for result in changed for name in head)

    batch = packed_batch(shape) | {"token_type_ids": torch.tensor([0] * 5 + [1] * 7).repeat(3, 1)}
    assert check_surgery(state, shape, ticket, batch | {"sentence_targets": torch.tensor([0, 1, 1])}) <= 1e-5
    slim_model, masked = model_with(ticket.slim_shape(), slim), model_with(shape, state)
    with torch.no_grad():
        ours = slim_model(**batch).sentence_logits
        theirs = masked(**batch, gates=mask_gates(shape, ticket)).sentence_logits
        expanded = model_with(shape, expand_state(slim, ticket))(**batch).sentence_logits
    assert (ours - theirs).abs().max() <= 1e-5
    assert (ours - expanded).abs().max() <= 1e-5


def test_a_sentence_head_in_hugging_faces_layout_is_not_cut():
    shape = small_shape(sentence_head=True)
    state, ticket = random_state(shape), random_ticket(shape)
    hf_state, config = state_to_hf(state, shape)
    slim = slice_state(hf_state, shape, ticket, family="bert")
    for name in ("bert.pooler.dense", "cls.seq_relationship"):
        for part in ("weight", "bias"):
            assert slim[f"{name}.{part}"] is hf_state[f"{name}.{part}"]
    model = BertForPreTraining(config).eval()
    load_state(model, expand_state(slim, ticket, family="bert"))
    ids = packed_batch(shape)["input_ids"][:, :10]
    with torch.no_grad():
        theirs = model(ids)
        ours = model_with(ticket.slim_shape(), slice_state(state, shape, ticket))(ids)
    assert (theirs.seq_relationship_logits - ours.sentence_logits).abs().max() <= 2e-5
    assert (theirs.prediction_logits - ours.logits).abs().max() <= 2e-5
