"""Layers run as drawn, against models with layers removed, rows run alone, and means over every possible draw."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from pipeline.families.hf import build_model
from pipeline.families.modeling_slim_bert import (
    SlimBertForMaskedLM,
    SlimBertLayer,
    SlimBertModel,
    attention_bias_mask,
    rotary_factors,
)
from pipeline.families.shape import EncoderShape, LayerShape
from pipeline.layer_drop.schedule import DropSchedule, LayerDraw, LayerDrop
from pipeline.layer_drop.switch import Switch, compile_layers, run_layer

SHAPE = EncoderShape(
    vocab_size=50,
    hidden_size=16,
    head_size=4,
    layers=(LayerShape(3, 24), LayerShape(1, 8), LayerShape(4, 40)),
    max_positions=20,
    type_vocab_size=2,
    dropout=0.0,
    attention_dropout=0.0,
    initializer_range=0.3,
)
ROWS, LENGTH, LAYERS = 5, 9, len(SHAPE.layers)
both_norms = pytest.mark.parametrize("norm", ["post", "pre"])
Step = Callable[[Tensor], Tensor]


@dataclass
class GateTensors:
    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


def some_ids() -> Tensor:
    return torch.randint(1, SHAPE.vocab_size, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))


def random(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def packed() -> dict[str, Tensor]:
    """Rows whose documents, paddings and attention masks all differ from each other."""
    lengths = [[4, 5], [9], [2, 3, 2], [1, 6], [5]]
    documents, positions = [], []
    for row in lengths:
        pieces = [*row, LENGTH - sum(row)]
        numbers = [*range(1, len(row) + 1), 0]
        documents.append(torch.cat([torch.full((n,), i) for n, i in zip(pieces, numbers, strict=True)]))
        positions.append(torch.cat([torch.arange(n) for n in pieces]))
    attention = torch.ones(ROWS, LENGTH, dtype=torch.long)
    attention[0, 7] = attention[1, :2] = attention[4, 3] = 0
    return {
        "input_ids": some_ids(),
        "document_ids": torch.stack(documents),
        "position_ids": torch.stack(positions),
        "attention_mask": attention,
    }


def all_gates() -> GateTensors:
    generator = torch.Generator().manual_seed(3)
    return GateTensors(
        tuple(torch.rand(layer.heads, generator=generator) for layer in SHAPE.layers),
        tuple(torch.rand(layer.ffn, generator=generator) for layer in SHAPE.layers),
    )


def some(*rows: int, scale: float = 1.0, each: bool = False) -> LayerDraw:
    return LayerDraw(True, scale, np.array(rows, np.int64), each)


def without(model: SlimBertForMaskedLM, kept: Sequence[int]) -> SlimBertForMaskedLM:
    """The same model with these layers only."""
    found = copy.deepcopy(model)
    found.encoder.layers = nn.ModuleList(found.encoder.layers[index] for index in kept)
    return found


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def masked_loss(model: SlimBertForMaskedLM, **given: Any) -> Tensor:
    ids = some_ids()
    return model(ids, labels=ids.where(ids % 3 == 0, -100), **given).loss


# All layers


@both_norms
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("draw", [LayerDraw(), LayerDraw(each=True)], ids=["block", "sublayer"])
def test_a_switch_that_runs_every_layer_changes_no_bit(norm: str, dropout: float, draw: LayerDraw) -> None:
    shape = replace(SHAPE, norm=norm, dropout=dropout, attention_dropout=dropout)
    found = []
    for switch in (None, Switch([draw] * LAYERS)):
        model = build_model(shape, seed=0)
        torch.manual_seed(8)
        output = model(**packed(), labels=some_ids(), switch=switch, output_hidden_states=True)
        output.loss.backward()
        found.append([output.loss, output.logits, *output.hidden_states, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# Skipped layers


@both_norms
@pytest.mark.parametrize("kept", [kept for size in range(LAYERS + 1) for kept in combinations(range(LAYERS), size)])
def test_skipped_layers_are_as_if_they_were_removed(norm: str, kept: tuple[int, ...]) -> None:
    model = build_model(replace(SHAPE, norm=norm), seed=0)
    removed = without(model, kept)
    draws = [LayerDraw(index in kept, 1.0 if index in kept else 3.0) for index in range(LAYERS)]
    output = model(**packed(), labels=some_ids(), switch=Switch(draws), output_hidden_states=True)
    wanted = removed(**packed(), labels=some_ids(), output_hidden_states=True)
    assert torch.equal(output.logits, wanted.logits)
    assert len(output.hidden_states) == LAYERS + 1
    for index, (before, after) in enumerate(pairwise(output.hidden_states)):
        assert (after is before) == (index not in kept)
    output.loss.backward()
    wanted.loss.backward()
    found, reference = gradients(model), gradients(removed)
    for name, gradient in found.items():
        parts = name.split(".")
        if parts[:2] == ["encoder", "layers"]:
            if int(parts[2]) not in kept:
                assert gradient is None
                continue
            parts[2] = str(kept.index(int(parts[2])))
        assert torch.equal(gradient, reference[".".join(parts)])


@both_norms
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_skipped_layers_that_are_touched_get_gradients_of_zero_and_change_nothing(
    norm: str, checkpointing: bool, gated: bool
) -> None:
    draws = [LayerDraw(False, 2.0), some(1, 3, scale=2.5), LayerDraw(False, 2.0, None, True)]
    found = []
    for touch in (False, True):
        model, gates = build_model(replace(SHAPE, norm=norm), seed=0), all_gates() if gated else None
        model.encoder.activation_checkpointing = checkpointing
        for gate in (*gates.heads, *gates.neurons) if gates else ():
            gate.requires_grad_()
        output = model(**packed(), labels=some_ids(), gates=gates, switch=Switch(draws, touch))
        output.loss.backward()
        named = gradients(model)
        if gates:
            named |= {f"encoder.layers.{i}.head_gate": gate.grad for i, gate in enumerate(gates.heads)}
            named |= {f"encoder.layers.{i}.neuron_gate": gate.grad for i, gate in enumerate(gates.neurons)}
        found.append({"loss": output.loss, "logits": output.logits, **named})
    plain, touched = found
    for name, value in touched.items():
        if name.startswith(("encoder.layers.0.", "encoder.layers.2.")):
            assert plain[name] is None
            assert value is not None, name
            assert not value.any(), name
        else:
            assert torch.equal(value, plain[name]), name


# Some rows of each layer

SAMPLES = [
    [some(0, 2, 4), some(1, 2), some(4)],
    [LayerDraw(), some(0), some(0, 1, 2, 3)],
    [some(3, 4), LayerDraw(False), some(1, 3)],
]


@both_norms
@pytest.mark.parametrize("draws", SAMPLES)
@pytest.mark.parametrize("gated", [False, True])
def test_every_row_is_as_if_alone_in_the_layers_it_was_drawn_for(
    norm: str, draws: list[LayerDraw], gated: bool
) -> None:
    """Layers of different widths, packed rows, masks that differ from row to row: outputs and gradients."""
    model = build_model(replace(SHAPE, norm=norm), seed=0).double()
    gates, inputs, labels = all_gates() if gated else None, packed(), some_ids()
    output = model(**inputs, gates=gates, switch=Switch(draws))
    nn.functional.cross_entropy(output.logits.view(-1, 50), labels.view(-1), reduction="sum").backward()

    summed: dict[str, Tensor] = {}
    for row in range(ROWS):
        kept = [i for i, d in enumerate(draws) if d.runs and (d.rows is None or row in d.rows.tolist())]
        alone = without(model, kept)
        alone.zero_grad()
        its_gates = gates and GateTensors(tuple(gates.heads[i] for i in kept), tuple(gates.neurons[i] for i in kept))
        logits = alone(**{name: x[row : row + 1] for name, x in inputs.items()}, gates=its_gates).logits
        torch.testing.assert_close(output.logits[row], logits[0], atol=1e-12, rtol=1e-10)
        nn.functional.cross_entropy(logits[0], labels[row], reduction="sum").backward()
        for name, gradient in gradients(alone).items():
            parts = name.split(".")
            if parts[:2] == ["encoder", "layers"]:
                parts[2] = str(kept[int(parts[2])])
            assert gradient is not None
            summed[".".join(parts)] = summed.get(".".join(parts), torch.zeros_like(gradient)) + gradient
    for name, gradient in gradients(model).items():
        if name in summed:
            torch.testing.assert_close(gradient, summed[name], atol=1e-11, rtol=1e-9)
        else:
            assert gradient is None


@both_norms
@pytest.mark.parametrize("each", [False, True])
def test_scaled_samples_follow_a_loop_over_rows(norm: str, each: bool) -> None:
    model = build_model(replace(SHAPE, norm=norm), SlimBertModel, seed=0).double()
    inputs = packed()
    draws = [
        some(0, 2, 4, scale=5 / 3, each=each), LayerDraw(True, 1.25, None, each), some(1, 4, scale=2.5, each=each)
    ]  # fmt: skip
    output = model(**inputs, switch=Switch(draws), output_hidden_states=True)
    for row in range(ROWS):
        mask = attention_bias_mask(inputs["attention_mask"][[row]], inputs["document_ids"][[row]])
        x = output.hidden_states[0][[row]]
        for layer, draw, after in zip(model.layers, draws, output.hidden_states[1:], strict=True):
            if draw.rows is None or row in draw.rows.tolist():
                x = by_hand(layer, x, mask, draw.scale) if each else x + draw.scale * (layer(x, mask) - x)
            torch.testing.assert_close(after[[row]], x, atol=1e-12, rtol=1e-10)


def test_rows_of_a_layer_keep_their_own_rotary_positions() -> None:
    shape = replace(SHAPE, norm="pre", positions="rotary", type_vocab_size=0)
    model = build_model(shape, SlimBertModel, seed=0).double()
    inputs = {name: value for name, value in packed().items() if name != "token_type_ids"}
    output = model(**inputs, switch=Switch([some(0, 2, 4), some(), some(1, 4)]), output_hidden_states=True)
    for rows, layer, before, after in zip(
        ([0, 2, 4], [], [1, 4]), model.layers, output.hidden_states[:-1], output.hidden_states[1:], strict=True
    ):
        mask = attention_bias_mask(inputs["attention_mask"], inputs["document_ids"])
        rotary = rotary_factors(inputs["position_ids"], shape.head_size, shape.rope_theta, torch.float64)
        whole = layer(before, mask, rotary)
        for row in range(ROWS):
            torch.testing.assert_close(after[row], whole[row] if row in rows else before[row], atol=1e-12, rtol=1e-10)


def by_hand(layer: SlimBertLayer, x: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """PLD's switchable block, h = x + A(x) / p and y = h + F(h) / p, with `scale` for 1 / p."""
    if layer.pre_norm:
        h = x + layer.attention(layer.attention_norm(x), mask, None, None) * scale
        return h + layer.ffn(layer.ffn_norm(h), None) * scale
    h = layer.attention_norm(x + layer.attention(x, mask, None, None) * scale)
    return layer.ffn_norm(h + layer.ffn(h, None) * scale)


@both_norms
@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_scaling_at_both_sub_layers_is_plds_formula(norm: str, keep: float) -> None:
    layer = build_model(replace(SHAPE, norm=norm), SlimBertModel, seed=0).double().layers[0]
    x, drawn = random(ROWS, LENGTH, 16), LayerDraw(True, 1 / keep, None, True)
    mask = attention_bias_mask(packed()["attention_mask"], packed()["document_ids"])
    torch.testing.assert_close(run_layer(layer, x, drawn, mask), by_hand(layer, x, mask, 1 / keep))
    # Its mean over draws is not the layer; that of the factor at the whole residual is.
    full = layer(x, mask)
    sublayer, block = (
        keep * run_layer(layer, x, replace(drawn, each=each), mask) + (1 - keep) * x for each in (True, False)
    )
    torch.testing.assert_close(block, full, atol=1e-12, rtol=1e-12)
    assert (sublayer - full).abs().max() > 0.01


# Means over draws


def row_sets(rows: int, count: int) -> list[LayerDraw]:
    return [some(*chosen, scale=rows / count) for chosen in combinations(range(rows), count)]


def layer_states(keep: float) -> list[tuple[float, LayerDraw]]:
    return [(keep, LayerDraw(True, 1 / keep)), (1 - keep, LayerDraw(False, 1 / keep))]


def one_layer(kind: str) -> Step:
    torch.manual_seed(0)
    if kind == "linear":
        return nn.Linear(16, 16).double()
    if kind == "torch":
        return nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True).double()
    norm = kind.removeprefix("slim ")
    return build_model(replace(SHAPE, norm=norm), SlimBertModel, seed=0).double().layers[0]


@pytest.mark.parametrize("kind", ["linear", "slim post", "slim pre", "torch"])
def test_the_mean_over_all_draws_of_a_layer_is_the_layer(kind: str) -> None:
    layer, x = one_layer(kind), random(4, 6, 16)
    with torch.no_grad():
        full = layer(x)
        for keep in (0.3, 0.75):
            mean = sum(share * run_layer(layer, x, draw) for share, draw in layer_states(keep))
            torch.testing.assert_close(mean, full, atol=1e-12, rtol=1e-12)
        for count in (1, 2, 3):
            sets = row_sets(4, count)
            assert len(sets) == math.comb(4, count)
            mean = torch.stack([run_layer(layer, x, draw) for draw in sets]).mean(0)
            torch.testing.assert_close(mean, full, atol=1e-12, rtol=1e-12)


def stack_means(layers: Sequence[Step], x: Tensor) -> Iterator[Tensor]:
    """The mean of a stack's output over every combination of draws: whole layers, then sets of 2 of 3 rows."""
    keeps = [0.9, 0.6, 0.3]
    for of_layers in (
        [layer_states(keep) for keep in keeps],
        [[(1 / 3, draw) for draw in row_sets(3, 2)] for _ in keeps],
    ):
        mean, total = torch.zeros_like(x), 0.0
        for combination in product(*of_layers):
            switch = Switch([draw for _, draw in combination])
            share, y = math.prod(share for share, _ in combination), x
            for index, layer in enumerate(layers):
                y = switch(index, layer, y)
            mean, total = mean + share * y, total + share
        assert total == pytest.approx(1)
        yield mean


def test_the_mean_over_all_draws_of_a_linear_stack_is_the_stack() -> None:
    torch.manual_seed(0)
    layers, x = [nn.Linear(16, 16).double() for _ in range(3)], random(3, 6, 16)
    with torch.no_grad():
        full = layers[2](layers[1](layers[0](x)))
        for mean in stack_means(layers, x):
            torch.testing.assert_close(mean, full, atol=1e-12, rtol=1e-12)


def test_the_mean_over_all_draws_of_a_nonlinear_stack_is_another() -> None:
    layers, x = list(build_model(SHAPE, SlimBertModel, seed=0).double().layers), random(3, 6, 16)
    with torch.no_grad():
        full = layers[2](layers[1](layers[0](x)))
        for mean in stack_means(layers, x):
            assert (mean - full).abs().max() > 0.01


# Training


@both_norms
@pytest.mark.parametrize(
    "draws",
    [
        [LayerDraw(True, 1.25), LayerDraw(False), LayerDraw(True, 2.0)],
        [LayerDraw(True, 1.25, None, True), some(0, 3, scale=2.5, each=True), LayerDraw(each=True)],
        [some(0, 1, 4, scale=5 / 3), some(2), LayerDraw(False)],
    ],
    ids=["layer", "sublayer", "sample"],
)
def test_activation_checkpointing_gives_identical_gradients(norm: str, draws: list[LayerDraw]) -> None:
    shape = replace(SHAPE, norm=norm, dropout=0.2, attention_dropout=0.2)
    found, calls = [], []
    for checkpointing in (False, True):
        model = build_model(shape, seed=0)
        model.encoder.activation_checkpointing = checkpointing
        counts = [0] * LAYERS
        for index, layer in enumerate(model.encoder.layers):

            def count(*_: Any, index: int = index, counts: list[int] = counts) -> None:
                counts[index] += 1

            layer.register_forward_pre_hook(count)
        torch.manual_seed(8)
        loss = masked_loss(model, switch=Switch(draws))
        loss.backward()
        found.append({"loss": loss, **gradients(model)})
        calls.append(counts)
    assert calls == [[runs * d.runs for d in draws] for runs in (1, 2)]
    for name, value in found[0].items():
        assert value is None or torch.equal(value, found[1][name]), name
        assert (value is None) == (found[1][name] is None), name


@pytest.mark.parametrize("cls", [SlimBertModel, SlimBertForMaskedLM])
@pytest.mark.parametrize("draws", [[LayerDraw()] * LAYERS, [LayerDraw(False)] * LAYERS])
def test_a_switch_in_evaluation_is_refused(cls: type, draws: list[LayerDraw]) -> None:
    model = build_model(SHAPE, cls, seed=0).eval()
    with pytest.raises(ValueError, match=r"^a switch that drops layers was given to a model in evaluation mode$"):
        model(some_ids(), switch=Switch(draws))


@both_norms
@pytest.mark.parametrize("each", [False, True])
def test_bf16_stays_bf16(norm: str, each: bool) -> None:
    shape = replace(SHAPE, norm=norm, dropout=0.1, attention_dropout=0.1)
    draws = [LayerDraw(True, 1.25, None, each), some(0, 2, 3, scale=5 / 3, each=each), LayerDraw(each=each)]
    model = build_model(shape, seed=0).bfloat16()
    output = model(**packed(), labels=some_ids(), switch=Switch(draws), output_hidden_states=True)
    assert output.loss.dtype == torch.float32
    assert {x.dtype for x in (output.logits, *output.hidden_states)} == {torch.bfloat16}
    output.loss.backward()
    assert all(p.grad.dtype == torch.bfloat16 and torch.isfinite(p.grad).all() for p in model.parameters())

    shape = replace(shape, dropout=0.0, attention_dropout=0.0)
    losses = [
        masked_loss(build_model(shape, seed=0).to(dtype), switch=Switch(draws)).item()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@given(
    st.sampled_from(["uniform", "pld", "linear", "alternate", "inner"]),
    st.sampled_from(["block", "sublayer", "none"]),
    st.floats(0.11, 0.9),
    st.integers(0, 1000),
    st.sampled_from(["post", "pre"]),
)
@settings(deadline=None, max_examples=20)
def test_dropping_by_sample_leaves_no_parameter_without_a_gradient(
    depth: str, scaling: str, theta: float, seed: int, norm: str
) -> None:
    model = build_model(replace(SHAPE, norm=norm), seed=0)
    drop = LayerDrop(DropSchedule(50, LAYERS, "constant", depth, theta), seed, "sample", scaling)
    masked_loss(model, switch=Switch(drop.draws(seed % 50, 0, ROWS))).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.any(), name


def test_draws_of_a_schedule_train_the_layers_they_keep() -> None:
    drop = LayerDrop(DropSchedule(50, LAYERS, "constant", "uniform", 0.5), 1, "layer")
    seen = set()
    for step in range(12):
        model, draws = build_model(SHAPE, seed=0), drop.draws(step, 0, ROWS)
        masked_loss(model, switch=Switch(draws)).backward()
        for draw, layer in zip(draws, model.encoder.layers, strict=True):
            assert {p.grad is not None for p in layer.parameters()} == {draw.runs}
            seen.add(draw.runs)
    assert seen == {True, False}


# Other people's layers


def test_a_plain_torch_layer_runs_on_some_rows_with_arguments_of_its_rows() -> None:
    torch.manual_seed(0)
    inner = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True).double()
    padding = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    for row in range(ROWS):
        padding[row, LENGTH - row :] = True

    def layer(x: Tensor, padded: Tensor, shift: Tensor | None) -> Tensor:
        assert shift is None
        return inner(x, src_key_padding_mask=padded)

    x = random(ROWS, LENGTH, 16).requires_grad_()
    for draw in (some(1, 2, 4), some(0, 3, scale=2.5), LayerDraw(True, 1.5), LayerDraw(False), LayerDraw()):
        found = run_layer(layer, x, draw, padding, None)
        for row in range(ROWS):
            wanted = x[[row]]
            if draw.runs and (draw.rows is None or row in draw.rows.tolist()):
                wanted = wanted + draw.scale * (inner(wanted, src_key_padding_mask=padding[[row]]) - wanted)
            torch.testing.assert_close(found[[row]], wanted, atol=1e-12, rtol=1e-12)
    with pytest.raises(TypeError, match="scale"):
        run_layer(layer, x, LayerDraw(True, 2.0, None, True), padding, None)


@pytest.mark.parametrize("draw", [some(0, 2, scale=2.0), LayerDraw(True, 1.25), LayerDraw(False), LayerDraw()])
def test_gradients_equal_finite_differences(draw: LayerDraw) -> None:
    layer = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double()
    x = random(4, 2, 3).requires_grad_()

    def run(x: Tensor, weight: Tensor) -> Tensor:
        parameters = {"0.weight": weight, "0.bias": torch.ones(3, dtype=torch.float64)}
        return run_layer(lambda some: torch.func.functional_call(layer, parameters, some), x, draw)

    assert torch.autograd.gradcheck(run, (x, random(3, 3).requires_grad_()))


# torch's own look at the tensors it traces; it hides the warning only where warnings are not errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("scaling", ["block", "sublayer"])
@pytest.mark.parametrize("unit", ["layer", "sample"])
def test_compiled_layers_need_few_graphs_for_any_pattern(unit: Any, scaling: Any) -> None:
    steps, rows = 30, 12
    shape = replace(SHAPE, layers=SHAPE.layers * 3, norm="pre")
    drop = LayerDrop(DropSchedule(steps, len(shape.layers), "pld", "pld", 0.3), 1, unit, scaling)
    eager, compiled = build_model(shape, seed=0).train(), build_model(shape, seed=0).train()
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit
    counter = CompileCounterWithBackend("aot_eager")
    try:
        torch._dynamo.reset()
        compile_layers(compiled.encoder.layers, backend=counter)
        for step in range(steps):
            ids = torch.randint(1, shape.vocab_size, (rows, LENGTH), generator=torch.Generator().manual_seed(step))
            switch = Switch(drop.draws(step, 0, rows))
            losses = [model(ids, labels=ids, switch=switch).loss for model in (eager, compiled)]
            assert torch.allclose(*losses, rtol=1e-5)
            for loss in losses:
                loss.backward()
    finally:
        torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit = limits
        torch._dynamo.reset()
    patterns = {str([(draw.runs, draw.rows) for draw in drop.draws(step, 0, rows)]) for step in range(steps)}
    distinct_shapes = len(set(shape.layers))
    # One graph for the rows met first and one for any; with scaling in the layer the factor is a second such number.
    assert distinct_shapes <= counter.frame_count <= distinct_shapes * (2 if scaling == "block" else 4) < len(patterns)
    assert gradients(compiled).keys() == gradients(eager).keys()
