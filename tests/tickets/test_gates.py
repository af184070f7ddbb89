"""Gates: their gradients against numeric differentiation, and their collection over ranks."""

import pytest
import torch

from pipeline.layer_drop.schedule import LayerDraw
from pipeline.layer_drop.switch import Switch
from pipeline.tickets.gates import GateSet
from tests.tickets.make import model_with, packed_batch, random_state, small_shape

UNEVEN = ((4, 24), (1, 7), (3, 16))


def loss_of(model, batch, gates):
    targets = torch.arange(batch["input_ids"].numel()).reshape(batch["input_ids"].shape) % 50
    return model(**batch, labels=targets, gates=gates).loss


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_gradients_match_numeric_differentiation(norm):
    shape = small_shape(norm, layers=UNEVEN)
    model = model_with(shape, random_state(shape)).double()
    batch = packed_batch(shape)
    gates = GateSet(shape)
    loss_of(model, batch, gates.tensors).backward()
    grads = gates.collect(divide_by=1.0)
    step = 2.0**-9  # exact in fp32, where the gates live; the model computes in fp64
    for (name, gate), grad in zip(gates.named().items(), (*grads.heads, *grads.neurons), strict=True):
        for unit in range(gate.numel()):
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    gate[unit] = 1 + sign * step
                    losses.append(loss_of(model, batch, gates.tensors).item())
                    gate[unit] = 1
            numeric = (losses[0] - losses[1]) / (2 * step)
            assert grad[unit].item() == pytest.approx(numeric, rel=2e-3, abs=2e-6), (name, unit)


def test_gates_at_one_change_nothing():
    shape = small_shape(layers=UNEVEN)
    model = model_with(shape, random_state(shape))
    batch = packed_batch(shape)
    with torch.no_grad():
        assert torch.equal(model(**batch, gates=GateSet(shape).tensors).logits, model(**batch).logits)


def test_gates_stay_fp32_under_a_bf16_model():
    shape = small_shape()
    model = model_with(shape, random_state(shape)).bfloat16()
    gates = GateSet(shape)
    loss_of(model, packed_batch(shape), gates.tensors).backward()
    grads = gates.collect(divide_by=1.0)
    assert all(grad.dtype == torch.float32 for grad in (*grads.heads, *grads.neurons))


def test_gradients_pass_activation_checkpointing():
    shape = small_shape()
    model = model_with(shape, random_state(shape)).train()
    batch, found = packed_batch(shape), []
    for checkpointing in (False, True):
        model.encoder.activation_checkpointing = checkpointing
        gates = GateSet(shape)
        torch.manual_seed(0)
        loss_of(model, batch, gates.tensors).backward()
        found.append(torch.cat([*gates.collect(divide_by=1.0).neurons]))
    assert torch.allclose(*found, atol=1e-7)


def filled(shape, seed):
    gates = GateSet(shape)
    generator = torch.Generator().manual_seed(seed)
    for gate in gates.named().values():
        gate.grad = torch.randn(gate.shape, generator=generator)
    return gates


def test_one_flat_all_reduce_averages_two_ranks():
    shape = small_shape(layers=UNEVEN)
    ranks = [filled(shape, seed) for seed in (0, 1)]
    flats = [torch.cat([gate.grad.clone() for gate in gates.named().values()]) for gates in ranks]
    expected = [
        [(a.grad + b.grad) / 2 for a, b in zip(*group, strict=True)]
        for group in zip(*(gates.tensors for gates in ranks), strict=True)
    ]
    for rank, gates in enumerate(ranks):
        calls = []

        def all_reduce(flat, other=flats[1 - rank], calls=calls):
            calls.append(flat.shape)
            flat += other

        grads = gates.collect(divide_by=2.0, all_reduce=all_reduce)
        assert calls == [flats[0].shape]
        for mine, wanted in zip(grads, expected, strict=True):
            assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(mine, wanted, strict=True))
        assert [len(grad) for grad in grads.heads] == [4, 1, 3]
        assert [len(grad) for grad in grads.neurons] == [24, 7, 16]
        assert all(gate.grad is None for gate in gates.named().values())


def test_micro_steps_add_up_and_the_loss_scale_goes_out():
    shape = small_shape()
    model = model_with(shape, random_state(shape))
    batches = [packed_batch(shape, seed=seed) for seed in (0, 1)]
    gates = GateSet(shape)
    for batch in batches:
        (loss_of(model, batch, gates.tensors) / 2 * 1024).backward()
    scaled = gates.collect(divide_by=1024.0)
    (sum(loss_of(model, batch, gates.tensors) for batch in batches) / 2).backward()
    plain = gates.collect(divide_by=1.0)
    for a, b in zip((*scaled.heads, *scaled.neurons), (*plain.heads, *plain.neurons), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_a_skipped_layer_counts_as_zero():
    gates = filled(small_shape(), 0)
    gates.tensors.heads[1].grad = None
    grads = gates.collect(divide_by=1.0)
    assert torch.equal(grads.heads[1], torch.zeros(4))
    assert grads.heads[0].abs().min() > 0


def test_the_factor_of_a_layer_that_ran_goes_out_and_a_step_without_layers_is_one_of_zeros():
    shape = small_shape(norm="pre", dropout=0.0, attention_dropout=0.0)
    model, gates = model_with(shape, random_state(shape)), GateSet(shape)
    batch = packed_batch(shape)
    # The last layer alone is scaled: all else is as in the dense pass, so its gates' gradients are, up to its effect.
    last = len(shape.layers) - 1

    def gradients(scale):
        draws = [LayerDraw(scale=scale if layer == last else 1.0) for layer in range(last + 1)]
        model.train()
        encoded = model.encoder(**batch, gates=gates.tensors, switch=Switch(draws)).last_hidden_state
        encoded.sum().backward()
        return gates.collect(1.0, scales=[draw.scale for draw in draws])

    model.encoder.final_norm = None  # linear from the last layer on
    dense, scaled = gradients(1.0), gradients(4.0)
    assert torch.allclose(dense.heads[last], scaled.heads[last], rtol=1e-4, atol=1e-5)
    assert torch.allclose(dense.neurons[last], scaled.neurons[last], rtol=1e-4, atol=1e-5)

    skipped = gates.collect(1.0, scales=[0.0] * len(shape.layers))
    assert not torch.cat([*skipped.heads, *skipped.neurons]).any()


def test_gates_left_out_of_the_model_are_an_error():
    with pytest.raises(RuntimeError, match=r"pass GateSet\.tensors to the model"):
        GateSet(small_shape()).collect(divide_by=1.0)


def test_state_round_trip_and_refusal():
    shape = small_shape(layers=UNEVEN)
    gates = GateSet(shape)
    with torch.no_grad():
        gates.tensors.neurons[1][3] = 0.25
    state = gates.state()
    other = GateSet(shape)
    other.load_state(state)
    assert other.tensors.neurons[1][3] == 0.25
    assert other.tensors.neurons[1].requires_grad
    assert other.tensors.neurons[1].is_leaf
    with torch.no_grad():
        gates.tensors.neurons[1][3] = 0.5
    assert state["neurons.1"][3] == 0.25
    with pytest.raises(KeyError):
        GateSet(small_shape(layers=UNEVEN[:2])).load_state(state)
    with pytest.raises(RuntimeError, match=r"neurons\.0 has 32 values, the saved one 24"):
        GateSet(small_shape(layers=((4, 32), *UNEVEN[1:]))).load_state(state)
