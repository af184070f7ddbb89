"""Selection against slow references, on scores with many ties and layers of uneven widths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import UserError
from pipeline.families.shape import LayerShape
from pipeline.tickets.select import TicketRules, match_widths, select_heads, select_neurons, select_units
from tests.tickets.make import random_scores, small_shape

RATIO = st.floats(0, 0.99)


def layers_of(low, high, elements):
    return st.lists(st.lists(elements, min_size=low, max_size=high), min_size=1, max_size=5).map(
        lambda layers: [np.array(layer, dtype=np.float32) for layer in layers]
    )


TIED = st.integers(-3, 3)
HEADS = layers_of(1, 8, TIED)
NEURONS = layers_of(1, 40, TIED)


def num_cut(width, ratio):
    """Nearest whole number, halves down."""
    exact = width * ratio
    return int(exact) + (exact - int(exact) > 0.5 + 1e-9)


def best(values, count):
    """Indices of the `count` largest magnitudes, the lower index first among equals."""
    return tuple(sorted(sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:count]))


def global_reference(scores, ratio, floor):
    """Protect every layer's best `floor`, then fill by (magnitude, lower layer, lower index)."""
    units = [(layer, i) for layer, values in enumerate(scores) for i in range(len(values))]
    kept = {(layer, i) for layer, values in enumerate(scores) for i in best(values, floor)}
    budget = max(len(units) - num_cut(len(units), ratio), len(kept))
    for unit in sorted(set(units) - kept, key=lambda u: (-abs(scores[u[0]][u[1]]), *u)):
        if len(kept) < budget:
            kept.add(unit)
    return tuple(tuple(i for i in range(len(values)) if (layer, i) in kept) for layer, values in enumerate(scores))


@given(HEADS, RATIO, st.integers(1, 4))
def test_heads_layer_by_layer_match_a_slow_reference(scores, ratio, floor):
    chosen = select_heads(scores, TicketRules(heads=ratio, min_heads=floor))
    for values, kept in zip(scores, chosen.kept, strict=True):
        count = max(len(values) - num_cut(len(values), ratio), min(floor, len(values)))
        assert kept == best(values, count)


@given(HEADS, RATIO, st.integers(1, 4))
def test_global_heads_match_a_slow_reference(scores, ratio, floor):
    rules = TicketRules(heads=ratio, head_scope="global", min_heads=floor)
    assert select_heads(scores, rules).kept == global_reference(scores, ratio, floor)


@given(NEURONS, RATIO, st.integers(1, 9), st.sampled_from(["layer", "global"]))
def test_neuron_widths_are_blocks_and_hold_the_best(scores, ratio, block, scope):
    chosen = select_neurons(scores, TicketRules(neurons=ratio, neuron_scope=scope, neuron_block=block))
    for values, kept in zip(scores, chosen.kept, strict=True):
        assert len(kept) % block == 0 or len(kept) == len(values)
        assert len(kept) >= min(block, len(values))
        assert kept == best(values, len(kept))


@given(st.data(), RATIO, st.integers(1, 8), st.sampled_from(["layer", "global"]))
def test_neuron_totals_are_as_near_to_the_budget_as_blocks_allow(data, ratio, block, scope):
    widths = [block * data.draw(st.integers(1, 6)) for _ in range(data.draw(st.integers(1, 4)))]
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    scores = [generator.random(width, dtype=np.float32) for width in widths]
    kept = select_neurons(scores, TicketRules(neurons=ratio, neuron_scope=scope, neuron_block=block)).kept
    groups = [(sum(widths), sum(map(len, kept)))] if scope == "global" else [
        (width, len(units)) for width, units in zip(widths, kept, strict=True)
    ]  # fmt: skip
    floor = block * (len(widths) if scope == "global" else 1)
    for width, total in groups:
        budget = max(width - num_cut(width, ratio), floor)
        assert abs(total - budget) <= block / 2


def test_a_global_cut_follows_the_scores_to_the_block():
    # 16 + 16 units, half cut: 16 stay; layer 0 holds 11 of the best 16, so that 8 + 8 is as far as 16 + 0 + floor.
    strong = np.linspace(2, 3, 11)
    scores = [np.concatenate([strong, np.linspace(0.1, 0.2, 5)]), np.linspace(1, 1.5, 16)]
    rules = TicketRules(neurons=0.5, neuron_block=4)
    # Wanted 11 + 5: below are 8 + 4, remainders 3/4 and 1/4, 4 short: layer 0 goes up.
    assert [len(kept) for kept in select_neurons(scores, rules).kept] == [12, 4]


@given(HEADS, RATIO, st.sampled_from(["layer", "global"]), st.randoms(use_true_random=False))
def test_without_a_tie_the_order_of_units_does_not_matter(scores, ratio, scope, random):
    rules = TicketRules(heads=ratio, head_scope=scope)
    chosen = select_heads(scores, rules)
    orders = [random.sample(range(len(values)), len(values)) for values in scores]
    shuffled = select_heads([values[order] for values, order in zip(scores, orders, strict=True)], rules)
    back = [np.zeros(len(values), dtype=bool) for values in scores]
    for mask, order, kept in zip(back, orders, shuffled.kept, strict=True):
        mask[[order[i] for i in kept]] = True
    distance = sum((a != b).sum() for a, b in zip(chosen.masks(), back, strict=True)) / sum(chosen.widths)
    assert distance <= chosen.tied_share
    if not chosen.tie:
        assert distance == 0


@given(st.integers(2, 12), st.integers(1, 4), RATIO)
def test_equal_scores_keep_the_lower_indices_and_are_a_tie(width, num_layers, ratio):
    scores = [np.ones(width, dtype=np.float32)] * num_layers
    chosen = select_heads(scores, TicketRules(heads=ratio))
    assert all(kept == tuple(range(len(kept))) for kept in chosen.kept)
    assert chosen.tie == (len(chosen.kept[0]) < width)


def test_global_ties_across_layers_are_seen_and_lower_layers_win():
    # Two of the four stay; the second place is shared by units of different layers.
    scores = [np.array([3.0, 1.0]), np.array([0.5, 1.0]), np.array([0.25, 0.1])]
    chosen = select_heads(scores, TicketRules(heads=1 / 3, head_scope="global"))
    assert chosen.kept == ((0, 1), (1,), (0,))
    assert not chosen.tie  # layer 1 keeps its own 1.0 by the floor
    scores = [np.array([3.0, 1.0]), np.array([2.0, 1.0])]
    chosen = select_heads(scores, TicketRules(heads=0.25, head_scope="global"))
    assert chosen.kept == ((0, 1), (0,))
    assert chosen.tied == 1
    assert chosen.tied_share == 0.5


def test_nothing_cut_is_no_tie():
    chosen = select_neurons([np.ones(16, dtype=np.float32)], TicketRules(neurons=0))
    assert chosen.kept == (tuple(range(16)),)
    assert not chosen.tie


def test_magnitude_counts_not_sign():
    assert select_heads([np.array([-5.0, 1.0, 2.0])], TicketRules(heads=1 / 3)).kept == ((0, 2),)


@pytest.mark.parametrize(("width", "cut"), [(12, 4), (16, 5), (4, 1), (2, 1), (1, 0)])
def test_a_third_of_the_heads(width, cut):
    kept = select_heads([np.arange(width, dtype=np.float32)], TicketRules()).kept[0]
    assert len(kept) == width - cut
    assert kept == tuple(range(cut, width))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("group", ["heads", "neurons"])
def test_scores_that_are_not_finite_are_named(bad, group):
    shape = small_shape()
    scores = random_scores(shape)
    scores[group][1][3] = bad
    with pytest.raises(UserError, match=rf"{group} layer 1 unit 3 is {bad}"):
        select_units(scores, shape, TicketRules())


def test_scores_of_another_model_are_refused():
    with pytest.raises(UserError, match="but the model has"):
        select_units(random_scores(small_shape()), small_shape(layers=((4, 32), (4, 24), (4, 32))), TicketRules())


def flops_fraction(shape, chosen, row_length):
    """Counted by hand: 2 m n k for q, k, v and output, for the two attention products, and for the FFN."""

    def cost(heads, neurons):
        inner = heads * shape.head_size
        return 8 * shape.hidden_size * inner + 4 * row_length * inner + 4 * shape.hidden_size * neurons

    slim = sum(cost(len(h), len(n)) for h, n in zip(chosen["heads"].kept, chosen["neurons"].kept, strict=True))
    return slim / sum(cost(layer.heads, layer.ffn) for layer in shape.layers)


@given(
    st.floats(0.35, 1), st.integers(0, 100), st.sampled_from(["layer", "global"]), st.sampled_from(["layer", "global"])
)
def test_a_flops_budget_holds(flops, seed, head_scope, neuron_scope):
    shape = small_shape(layers=((4, 32), (3, 24), (4, 30)))
    rules = TicketRules(
        heads=0.2, neurons=0.4, head_scope=head_scope, neuron_scope=neuron_scope, flops=flops, row_length=16,
        neuron_block=4,
    )  # fmt: skip
    chosen = select_units(random_scores(shape, seed), shape, rules)
    assert flops_fraction(shape, chosen, 16) <= flops


@given(st.floats(0.35, 1), st.integers(0, 100))
def test_a_flops_budget_is_used_up_to_one_head_and_one_block(flops, seed):
    shape = small_shape()
    rules = TicketRules(head_scope="global", flops=flops, row_length=16)
    chosen = select_units(random_scores(shape, seed), shape, rules)
    step = (8 * 16 * 4 + 4 * 16 * 4 + 4 * 16 * 8) / shape.encoder_flops_per_token(16)
    assert flops - step <= flops_fraction(shape, chosen, 16) <= flops


def test_a_flops_budget_of_one_cuts_nothing():
    shape = small_shape()
    chosen = select_units(random_scores(shape), shape, TicketRules(flops=1.0, row_length=16))
    assert flops_fraction(shape, chosen, 16) == 1


def test_an_unreachable_flops_budget_says_what_is_reachable():
    shape = small_shape()
    rules = TicketRules(min_heads=3, neuron_block=16, flops=0.3, row_length=16)
    with pytest.raises(UserError, match=r"0\.3000 .* no less than 0\.6500"):
        select_units(random_scores(shape), shape, rules)
    with pytest.raises(UserError, match="no less than"):
        select_units(random_scores(shape), shape, TicketRules(heads=0, flops=0.3, row_length=16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 1.0}, "ticket.heads"),
        ({"neurons": -0.1}, "ticket.neurons"),
        ({"head_scope": "model"}, "ticket.head_scope"),
        ({"min_heads": 0}, "ticket.min_heads"),
        ({"neuron_block": 0}, "ticket.neuron_block"),
        ({"flops": 0.0, "row_length": 8}, "ticket.flops"),
        ({"flops": 0.5}, "row_length"),
        ({"flops": 0.5, "row_length": 8, "heads": 0, "neurons": 0}, "both are 0"),
    ],
)
def test_rules_that_make_no_sense(changes, message):
    with pytest.raises(UserError, match=message):
        TicketRules(**changes)


def test_matched_widths():
    shape = small_shape()
    widths = [LayerShape(1, 5), LayerShape(4, 32), LayerShape(2, 1)]
    scores = random_scores(shape)
    chosen = match_widths(scores, widths)
    assert [len(kept) for kept in chosen["heads"].kept] == [1, 4, 2]
    assert chosen["neurons"].kept[0] == best(scores["neurons"][0], 5)
    assert [len(kept) for kept in chosen["neurons"].kept] == [5, 32, 1]
