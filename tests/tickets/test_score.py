"""Scores against their formulas, by hand or in slow loops."""

import numpy as np
import pytest
import torch

from pipeline.families.hf import state_to_hf
from pipeline.tickets.gates import GateGrads, GateSet
from pipeline.tickets.score import MagnitudeScore, RandomScore, TaylorScore, build_score
from tests.tickets.make import model_with, packed_batch, random_state, small_shape

UNEVEN = ((4, 24), (1, 7), (3, 16))


def grads_of(gates, seed):
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(gate.shape, generator=generator) for gate in gates.named().values()]
    num_layers = len(gates.tensors.heads)
    return GateGrads(grads[:num_layers], grads[num_layers:])


def flat(scores):
    return np.concatenate([*scores["heads"], *scores["neurons"]])


def test_l1_is_adam_on_the_penalised_gates():
    shape = small_shape(layers=UNEVEN)
    gates = GateSet(shape)
    lr, penalties = 0.3, {"heads": 0.5, "neurons": 0.25}
    score = build_score("l1", gates, shape, lr=lr, heads_penalty=0.5, neurons_penalty=0.25)
    values = {name: gate.detach().double() for name, gate in gates.named().items()}
    first = {name: torch.zeros_like(value) for name, value in values.items()}
    second = {name: torch.zeros_like(value) for name, value in values.items()}
    for step in range(1, 9):
        grads = grads_of(gates, step)
        for name, grad in zip(values, (*grads.heads, *grads.neurons), strict=True):
            full = grad.double() + penalties[name.split(".")[0]] * values[name].sign()
            first[name] = 0.9 * first[name] + 0.1 * full
            second[name] = 0.999 * second[name] + 0.001 * full**2
            corrected = (second[name] / (1 - 0.999**step)).sqrt() + 1e-8
            values[name] = values[name] - lr * first[name] / (1 - 0.9**step) / corrected
        assert score.update(gates, grads, None)
    for name, gate in gates.named().items():
        assert torch.allclose(gate.double(), values[name], atol=1e-5)
        assert gate.grad is None
    assert (torch.cat(list(values.values())) < 0).any()  # so that |gate| is not the gate
    expected = torch.cat([value.abs() for value in values.values()]).float().numpy()
    assert np.allclose(flat(score.scores()), expected, atol=1e-5)


def test_the_rate_of_l1_falls_to_zero_over_its_steps_also_when_resumed():
    shape = small_shape(layers=UNEVEN)
    gates, alone = GateSet(shape), GateSet(shape)
    options = {"heads_penalty": 0.0, "neurons_penalty": 0.0}
    score = build_score("l1", gates, shape, lr=0.1, decay_steps=4, **options)
    whole = build_score("l1", alone, shape, lr=0.1, decay_steps=4, **options)
    ones = GateGrads([torch.ones(4), torch.ones(1), torch.ones(3)], [torch.ones(24), torch.ones(7), torch.ones(16)])
    moved = []
    for step in range(5):
        if step == 2:
            state = score.state()
            score = build_score("l1", gates, shape, lr=0.1, decay_steps=4, **options)
            score.load_state(state)
        before = flat(score.scores())
        # Under equal gradients Adam's step is as long as its rate. A step that overflows counts as one too.
        bad = GateGrads([grad * torch.inf for grad in ones.heads], list(ones.neurons))
        assert score.update(gates, bad if step == 1 else ones, None) == (step != 1)
        moved.append(before - flat(score.scores()))
        whole.update(alone, bad if step == 1 else ones, None)
    for distance, expected in zip(moved, (0.1, 0.0, 0.05, 0.025, 0.0), strict=True):
        assert np.allclose(distance, expected, atol=1e-5)
    assert np.array_equal(flat(score.scores()), flat(whole.scores()))


def test_the_first_adam_step_moves_every_gate_by_the_learning_rate():
    shape = small_shape()
    gates = GateSet(shape)
    score = build_score("l1", gates, shape, lr=0.125, heads_penalty=0.0, neurons_penalty=0.0)
    score.update(gates, grads_of(gates, 0), None)
    assert np.allclose(np.abs(flat(score.scores()) - 1), 0.125, atol=1e-5)


def test_the_model_computes_with_the_trained_gates():
    shape = small_shape()
    model, batch = model_with(shape, random_state(shape)), packed_batch(shape)
    gates = GateSet(shape)
    score = build_score("l1", gates, shape, lr=0.1)
    before = model(**batch, gates=gates.tensors).logits
    score.update(gates, grads_of(gates, 0), None)
    after = model(**batch, gates=gates.tensors).logits
    assert (before - after).abs().max() > 1e-3


def test_l1_descends_the_loss_it_is_given():
    shape = small_shape()
    model, batch = model_with(shape, random_state(shape)), packed_batch(shape)
    labels = torch.arange(batch["input_ids"].numel()).reshape(batch["input_ids"].shape) % 50
    gates = GateSet(shape)
    score = build_score("l1", gates, shape, lr=0.02, heads_penalty=0.0, neurons_penalty=0.0)
    losses = []
    for _ in range(15):
        loss = model(**batch, labels=labels, gates=gates.tensors).loss
        loss.backward()
        losses.append(loss.item())
        score.update(gates, gates.collect(divide_by=1.0), None)
    assert losses[-1] < losses[0] - 0.1


def test_taylor_is_the_plain_mean_of_absolute_gradients():
    shape = small_shape(layers=UNEVEN)
    gates = GateSet(shape)
    score = build_score("taylor", gates, shape)
    steps = [grads_of(gates, seed) for seed in range(7)]
    for grads in steps:
        assert score.update(gates, grads, None)
    expected = np.mean([flat_grads(grads) for grads in steps], axis=0)
    assert np.allclose(flat(score.scores()), expected, atol=1e-6)
    assert all((gate == 1).all() for gate in gates.named().values())


def test_taylor_with_decay_is_the_corrected_moving_average():
    shape = small_shape(layers=UNEVEN)
    gates = GateSet(shape)
    decay = 0.8
    score = build_score("taylor", gates, shape, decay=decay)
    steps = [grads_of(gates, seed) for seed in range(6)]
    for count, grads in enumerate(steps, 1):
        score.update(gates, grads, None)
        weights = np.array([decay ** (count - 1 - i) for i in range(count)])
        expected = np.average([flat_grads(g) for g in steps[:count]], axis=0, weights=weights)
        assert np.allclose(flat(score.scores()), expected, atol=1e-6)


def flat_grads(grads):
    return np.abs(np.concatenate([grad.numpy() for grad in (*grads.heads, *grads.neurons)]))


@pytest.mark.parametrize("kind", ["l1", "taylor"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_overflowed_is_left_out(kind, bad):
    shape = small_shape()
    gates = GateSet(shape)
    score = build_score(kind, gates, shape)
    score.update(gates, grads_of(gates, 0), None)
    before = flat(score.scores())
    grads = grads_of(gates, 1)
    grads.neurons[2][5] = bad
    assert not score.update(gates, grads, None)
    assert np.array_equal(flat(score.scores()), before)


def own_weights(state, shape, layer, group, unit):
    """Every number that belongs to one unit, written out tensor by tensor."""
    at, name = f"encoder.layers.{layer}", shape.layers[layer]
    if group == "neurons":
        return [
            state[f"{at}.ffn.up.weight"][unit],
            state[f"{at}.ffn.up.bias"][unit : unit + 1],
            state[f"{at}.ffn.down.weight"][:, unit],
        ]
    size = shape.head_size
    own = [state[f"{at}.attention.output.weight"][:, unit * size : (unit + 1) * size]]
    for block in range(3):
        first = (block * name.heads + unit) * size
        own.append(state[f"{at}.attention.qkv.weight"][first : first + size])
        own.append(state[f"{at}.attention.qkv.bias"][first : first + size])
    return own


def test_taylor_of_dropped_layers_is_the_mean_of_the_steps_they_stand_for():
    gates = GateSet(small_shape(layers=UNEVEN))
    score, decayed = TaylorScore(gates), TaylorScore(gates, decay=0.8)
    counts = [(1.0, 0.0, 4.0), (1.0, 2.0, 0.0), (1.0, 2.0, 4.0), (1.0, 0.0, 0.0)]
    taken = [grads_of(gates, seed) for seed in range(len(counts))]
    for grads, stands_for in zip(taken, counts, strict=True):
        assert score.update(gates, grads, None, stands_for)
        assert decayed.update(gates, grads, None, stands_for)
    for group in ("heads", "neurons"):
        for layer in range(3):
            absolute = np.stack([getattr(grads, group)[layer].abs().numpy() for grads in taken])
            weights = np.array([row[layer] for row in counts])
            expected = np.average(absolute, axis=0, weights=weights)
            assert np.allclose(score.scores()[group][layer], expected, rtol=1e-6)
            newest_most = np.average(absolute, axis=0, weights=weights * 0.8 ** np.arange(3, -1, -1))
            assert np.allclose(decayed.scores()[group][layer], newest_most, rtol=1e-6)


def test_a_layer_that_never_ran_has_no_taylor_score():
    gates = GateSet(small_shape(layers=UNEVEN))
    score = TaylorScore(gates)
    score.update(gates, grads_of(gates, 0), None, (1.0, 0.0, 2.0))
    with pytest.raises(RuntimeError, match="every layer"):
        score.scores()
    score.update(gates, grads_of(gates, 1), None, (0.0, 2.0, 0.0))
    score.scores()


def test_l1_steps_of_dropped_layers_are_as_long_as_those_they_stand_for():
    shape = small_shape(layers=UNEVEN)
    gates, alone = GateSet(shape), GateSet(shape)
    options = {"heads_penalty": 0.5, "neurons_penalty": 0.25}
    score = build_score("l1", gates, shape, lr=0.01, **options)
    # The second layer alone, at twice the rate, in the steps in which it ran.
    twice = build_score("l1", alone, shape, lr=0.02, **options)
    for step in range(6):
        grads = grads_of(gates, step)
        assert score.update(gates, grads, None, (1.0, 2.0 * (step % 2), 1.0))
        if step % 2:
            twice.update(alone, grads, None)
    for group in ("heads", "neurons"):
        assert torch.equal(getattr(gates.tensors, group)[1], getattr(alone.tensors, group)[1])
    state = score.state()
    resumed = build_score("l1", gates, shape, lr=0.01, **options)
    resumed.load_state(state)
    assert all(torch.equal(value, state[name]) for name, value in resumed.state().items())


def test_the_expected_drift_of_a_gate_does_not_depend_on_how_often_its_layer_ran():
    shape = small_shape(layers=((4, 24), (4, 24)))
    generator = np.random.default_rng(0)
    drifts = []
    for seed in range(40):
        gates = GateSet(shape)
        score = build_score("l1", gates, shape, lr=1e-4, heads_penalty=0.0, neurons_penalty=0.0)
        for step in range(60):
            # Both layers see the same kind of gradients: ones under noise.
            grads = GateGrads(*([1 + g for g in group] for group in grads_of(gates, 1000 * seed + step)))
            score.update(gates, grads, None, (1.0, 4.0 * (generator.random() < 0.25)))
        named = gates.state()
        drifts.append([float(1 - torch.cat([named[f"heads.{i}"], named[f"neurons.{i}"]]).mean()) for i in range(2)])
    always, seldom = np.mean(drifts, axis=0)
    assert seldom == pytest.approx(always, rel=0.1)


def test_magnitude_is_the_norm_of_the_unit_s_own_weights():
    shape = small_shape(layers=UNEVEN)
    state = random_state(shape)
    score = build_score("magnitude", GateSet(shape), shape)
    assert score.update(GateSet(shape), None, state)
    for group, widths in (("heads", [4, 1, 3]), ("neurons", [24, 7, 16])):
        for layer, width in enumerate(widths):
            expected = [
                torch.cat([part.reshape(-1) for part in own_weights(state, shape, layer, group, unit)]).norm().item()
                for unit in range(width)
            ]
            assert np.allclose(score.scores()[group][layer], expected, rtol=1e-5)


def test_magnitude_reads_bf16_weights_in_fp32():
    shape = small_shape()
    state = {name: tensor.bfloat16() for name, tensor in random_state(shape).items()}
    score = MagnitudeScore(shape)
    score.update(None, None, state)
    wide = MagnitudeScore(shape)
    wide.update(None, None, {name: tensor.float() for name, tensor in state.items()})
    assert np.array_equal(flat(score.scores()), flat(wide.scores()))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("offset", [0, 1])
def test_magnitude_is_the_same_on_hugging_face_layouts(norm, offset):
    shape = small_shape(norm, position_offset=offset)
    state = random_state(shape)
    hf_state, config = state_to_hf(state, shape)
    ours, theirs = MagnitudeScore(shape), MagnitudeScore(shape, family=config.model_type)
    ours.update(None, None, state)
    theirs.update(None, None, hf_state)
    assert np.allclose(flat(ours.scores()), flat(theirs.scores()), rtol=1e-5)


def test_random_depends_on_the_seed_alone():
    shape = small_shape(layers=UNEVEN)
    first, again, other = RandomScore(shape, 1), RandomScore(shape, 1), RandomScore(shape, 2)
    assert np.array_equal(flat(first.scores()), flat(again.scores()))
    assert np.array_equal(flat(first.scores()), flat(first.scores()))
    assert not np.array_equal(flat(first.scores()), flat(other.scores()))
    assert len(np.unique(flat(first.scores()))) == 8 + 47


@pytest.mark.parametrize("kind", ["l1", "taylor", "magnitude", "random"])
def test_shapes_types_and_copies(kind):
    shape = small_shape(layers=UNEVEN)
    gates = GateSet(shape)
    score = build_score(kind, gates, shape, seed=3)
    weights = random_state(shape)
    score.update(gates, grads_of(gates, 0), weights)
    scores = score.scores()
    assert [values.shape for values in scores["heads"]] == [(4,), (1,), (3,)]
    assert [values.shape for values in scores["neurons"]] == [(24,), (7,), (16,)]
    assert all(values.dtype == np.float32 for group in scores.values() for values in group)
    before = flat(scores).copy()
    score.update(gates, grads_of(gates, 1), {name: 2 * tensor for name, tensor in weights.items()})
    assert np.array_equal(flat(scores), before)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("l1", {"lr": 0.1}), ("taylor", {}), ("taylor", {"decay": 0.9}), ("magnitude", {}), ("random", {"seed": 5})],
)
@pytest.mark.parametrize("cut", [0, 3])
def test_saved_midway_and_loaded_it_goes_on_the_same(kind, options, cut):
    shape = small_shape(layers=UNEVEN)
    weights = [random_state(shape, seed) for seed in range(6)]

    def run(gates, score, steps):
        for step in steps:
            score.update(gates, grads_of(gates, step), weights[step])
        return score

    whole_gates = GateSet(shape)
    whole = run(whole_gates, build_score(kind, whole_gates, shape, **options), range(6))
    gates = GateSet(shape)
    half = run(gates, build_score(kind, gates, shape, **options), range(cut))
    saved_gates, saved = gates.state(), half.state()
    run(gates, half, range(cut, 6))  # what is saved must not move along
    fresh = GateSet(shape)
    resumed = build_score(kind, fresh, shape, **options)
    fresh.load_state(saved_gates)
    resumed.load_state(saved)
    run(fresh, resumed, range(cut, 6))
    assert np.array_equal(flat(resumed.scores()), flat(whole.scores()))
    assert all(torch.equal(a, b) for a, b in zip(resumed.state().values(), whole.state().values(), strict=True))


@pytest.mark.parametrize("kind", ["l1", "taylor", "random"])
def test_a_state_of_another_search_is_refused(kind):
    shape = small_shape()
    gates = GateSet(shape)
    score = build_score(kind, gates, shape)
    score.update(gates, grads_of(gates, 0), None)
    state = {**score.state(), "heads.9": torch.zeros(4)}
    state.pop("heads.0", None)
    with pytest.raises(KeyError):
        score.load_state(state)


def test_scores_before_the_first_update_are_an_error():
    shape = small_shape()
    gates = GateSet(shape)
    with pytest.raises(RuntimeError, match="at least one step"):
        TaylorScore(gates).scores()
    with pytest.raises(RuntimeError, match="needs the weights"):
        MagnitudeScore(shape).scores()


def test_an_unknown_kind():
    shape = small_shape()
    with pytest.raises(ValueError, match="got 'luck'"):
        build_score("luck", GateSet(shape), shape)


def test_scores_find_what_was_made_useless():
    """Head 2 of layer 1 writes nothing into the residual stream: the gradient of its gate is zero."""
    shape = small_shape()
    state = random_state(shape)
    size = shape.head_size
    state["encoder.layers.1.attention.output.weight"][:, 2 * size : 3 * size] = 0
    model = model_with(shape, state)
    gates = GateSet(shape)
    batch = packed_batch(shape)
    model(**batch, labels=batch["input_ids"], gates=gates.tensors).loss.backward()
    score = TaylorScore(gates)
    score.update(gates, gates.collect(divide_by=1.0), None)
    found = score.scores()["heads"]
    assert found[1].argmin() == 2
    assert found[1][2] == 0
