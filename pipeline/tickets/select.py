"""Which heads and neurons stay: from scores and rules to kept indices, always the same for the same scores.

Numpy only. Knows nothing of gates, training steps or files.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data_prep.errors import UserError
from pipeline.families.shape import LayerShape, Shape

GROUPS = ("heads", "neurons")
Scope = Literal["layer", "global"]
LayerScores = Sequence[np.ndarray]

_BISECTIONS = 40


@dataclass(frozen=True)
class TicketRules:
    """How much is cut, and where.

    `heads` and `neurons` are the fractions cut; scope "layer" cuts that fraction in every layer, "global"
    ranks the units of all layers together. Every layer keeps at least `min_heads` heads and one
    `neuron_block` of neurons (or all it has, where it has fewer), and the width of its feed-forward part is a
    multiple of `neuron_block`. With `flops`, a fraction of the dense encoder's FLOPs on rows of `row_length`
    tokens, both fractions are scaled by one factor, the smallest for which the slim encoder stays within that
    budget. Raises UserError on values that make no sense.
    """

    heads: float = 1 / 3
    neurons: float = 0.3
    head_scope: Scope = "layer"
    neuron_scope: Scope = "global"
    min_heads: int = 1
    neuron_block: int = 8
    flops: float | None = None
    row_length: int | None = None

    def __post_init__(self) -> None:
        for name in ("heads", "neurons"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"ticket.{name} is a fraction cut and lies in [0, 1), got {getattr(self, name)}")
        for name in ("head_scope", "neuron_scope"):
            if getattr(self, name) not in ("layer", "global"):
                raise UserError(f"ticket.{name} is 'layer' or 'global', got {getattr(self, name)!r}")
        for name in ("min_heads", "neuron_block"):
            if getattr(self, name) < 1:
                raise UserError(f"ticket.{name} must be at least 1, got {getattr(self, name)}")
        if self.flops is not None:
            if not 0 < self.flops <= 1:
                raise UserError(f"ticket.flops is a fraction of the dense FLOPs in (0, 1], got {self.flops}")
            if self.row_length is None:
                raise UserError(f"ticket.flops ({self.flops}) needs row_length, the tokens in a row, to be counted")
            if not self.heads and not self.neurons:
                raise UserError(
                    f"ticket.flops ({self.flops}) scales ticket.heads and ticket.neurons, but both are 0: "
                    "nothing may be cut; set at least one of them"
                )


@dataclass(frozen=True)
class Selection:
    """The kept units of one group: sorted indices a layer, and how many the tie-break alone decided."""

    kept: tuple[tuple[int, ...], ...]
    widths: tuple[int, ...]
    tied: int = 0

    @property
    def tie(self) -> bool:
        """True when the cut runs through equal scores."""
        return self.tied > 0

    @property
    def tied_share(self) -> float:
        """At most how far another order of equal scores could move the mask: two units a swap, of all.

        Blocks aside: rounding to them may turn one unit more into a whole block.
        """
        return 2 * self.tied / sum(self.widths)

    def masks(self) -> list[np.ndarray]:
        """Per layer a bool array, True where the unit stays."""
        masks = [np.zeros(width, dtype=bool) for width in self.widths]
        for mask, kept in zip(masks, self.kept, strict=True):
            mask[list(kept)] = True
        return masks


class _Ranked:
    """One group's units, strongest first; among equal scores the lower layer, then the lower index."""

    def __init__(self, group: str, scores: LayerScores) -> None:
        for layer, values in enumerate(scores):
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                raise UserError(
                    f"the score of {group} layer {layer} unit {bad[0]} is {values[bad[0]]}; {bad.size} of "
                    f"the {values.size} scores of that layer are not finite: the search diverged, so no "
                    "ticket can be drawn from it (try a lower learning rate)"
                )
        self.layers = [np.abs(np.asarray(values)) for values in scores]
        self.widths = [values.size for values in self.layers]
        flat = np.concatenate(self.layers)
        # A stable sort of the negated values leaves equal scores in (layer, index) order.
        self.order = np.argsort(-flat, kind="stable")
        self.flat = flat
        self.layer_of = np.repeat(np.arange(len(self.layers)), self.widths)
        self.by_layer = [np.argsort(-values, kind="stable") for values in self.layers]
        ranks = np.empty_like(self.order)
        starts = np.concatenate([[0], np.cumsum(self.widths)[:-1]])
        for order, start in zip(self.by_layer, starts, strict=True):
            ranks[start + order] = np.arange(order.size)
        self.rank_in_layer = ranks

    def counts(self, ratio: float, scope: Scope, floor: int, block: int) -> list[int]:
        """How many units each layer keeps when `ratio` of them is cut."""
        if scope == "global":
            stay, _, budget = self._global_fill(ratio, floor)
            filled = np.bincount(self.layer_of[stay], minlength=len(self.widths))
            return _round_to_blocks(filled.tolist(), self.widths, block, budget)
        wanted = [max(width - _num_cut(width, ratio), min(floor, width)) for width in self.widths]
        return [
            _round_to_blocks([count], [width], block, count)[0]
            for count, width in zip(wanted, self.widths, strict=True)
        ]

    def best(self, counts: Sequence[int]) -> Selection:
        """Each layer's best `counts` units."""
        kept, tied = [], 0
        for values, order, count in zip(self.layers, self.by_layer, counts, strict=True):
            kept.append(tuple(sorted(order[:count].tolist())))
            tied += _num_tied(values[order[:count]], values[order[count:]])
        return Selection(tuple(kept), tuple(self.widths), tied)

    def select(self, ratio: float, scope: Scope, floor: int, block: int) -> Selection:
        """The units kept when `ratio` of them is cut."""
        selection = self.best(self.counts(ratio, scope, floor, block))
        if scope == "global":
            stay, go, _ = self._global_fill(ratio, floor)
            # Equal scores in different layers: which layer gets the unit is the tie-break's doing too.
            tied = _num_tied(self.flat[stay[self._num_protected(floor) :]], self.flat[go])
            selection = replace(selection, tied=selection.tied + tied)
        return selection

    def _num_protected(self, floor: int) -> int:
        return sum(min(floor, width) for width in self.widths)

    def _global_fill(self, ratio: float, floor: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Flat indices kept (each layer's best `floor`, then the globally best) and cut, and the budget."""
        num_protected = self._num_protected(floor)
        budget = max(self.flat.size - _num_cut(self.flat.size, ratio), num_protected)
        protected = self.rank_in_layer < floor
        free = self.order[~protected[self.order]]
        spare = budget - num_protected
        return np.concatenate([np.flatnonzero(protected), free[:spare]]), free[spare:], budget


def select_heads(scores: LayerScores, rules: TicketRules) -> Selection:
    """Cut `rules.heads` of the heads, those of the smallest magnitude; `scores` is one array a layer.

    Raises UserError naming layer and unit of a score that is not finite.
    """
    return _Ranked("heads", scores).select(rules.heads, rules.head_scope, rules.min_heads, 1)


def select_neurons(scores: LayerScores, rules: TicketRules) -> Selection:
    """Cut `rules.neurons` of the neurons, those of the smallest magnitude; `scores` is one array a layer.

    Widths become multiples of `rules.neuron_block` (a layer that is no multiple may stay whole); their sum is
    as near to the budget as the blocks allow. Raises UserError naming layer and unit of a score that is not
    finite.
    """
    block = rules.neuron_block
    return _Ranked("neurons", scores).select(rules.neurons, rules.neuron_scope, block, block)


def match_widths(scores: Mapping[str, LayerScores], widths: Sequence[LayerShape]) -> dict[str, Selection]:
    """Keep each layer's best units, as many as `widths` says: the width-matched control of a ticket."""
    return {
        "heads": _Ranked("heads", scores["heads"]).best([layer.heads for layer in widths]),
        "neurons": _Ranked("neurons", scores["neurons"]).best([layer.ffn for layer in widths]),
    }


def select_units(scores: Mapping[str, LayerScores], shape: Shape, rules: TicketRules) -> dict[str, Selection]:
    """Both groups under `rules`, the FLOPs budget included; `shape` is the encoder the scores belong to.

    Raises UserError where a score is not finite or the floors make the budget unreachable.
    """
    heads = _Ranked("heads", scores["heads"])
    neurons = _Ranked("neurons", scores["neurons"])
    given = [LayerShape(h, f) for h, f in zip(heads.widths, neurons.widths, strict=True)]
    if given != list(shape.layers):
        raise UserError(f"the scores cover layers {given}, but the model has {list(shape.layers)}")
    ratios = (rules.heads, rules.neurons)
    if rules.flops is not None:
        ratios = _within_budget(heads, neurons, shape, rules)
    block = rules.neuron_block
    return {
        "heads": heads.select(ratios[0], rules.head_scope, rules.min_heads, 1),
        "neurons": neurons.select(ratios[1], rules.neuron_scope, block, block),
    }


def _within_budget(heads: _Ranked, neurons: _Ranked, shape: Shape, rules: TicketRules) -> tuple[float, float]:
    """Both cut fractions scaled by the smallest factor that meets `rules.flops`, found by bisection."""
    assert rules.flops is not None
    assert rules.row_length is not None
    dense = shape.encoder_flops_per_token(rules.row_length)
    row_length, block = rules.row_length, rules.neuron_block

    def scaled(factor: float) -> tuple[float, float]:
        return min(rules.heads * factor, 1.0), min(rules.neurons * factor, 1.0)

    def fraction(factor: float) -> float:
        head_ratio, neuron_ratio = scaled(factor)
        num_heads = heads.counts(head_ratio, rules.head_scope, rules.min_heads, 1)
        num_neurons = neurons.counts(neuron_ratio, rules.neuron_scope, block, block)
        layers = tuple(LayerShape(h, f) for h, f in zip(num_heads, num_neurons, strict=True))
        return shape.with_layers(layers).encoder_flops_per_token(row_length) / dense

    low, high = 0.0, 1 / min(ratio for ratio in (rules.heads, rules.neurons) if ratio)
    if fraction(low) <= rules.flops:
        return scaled(low)
    if fraction(high) > rules.flops:
        raise UserError(
            f"ticket.flops asks for {rules.flops:.4f} of the dense encoder's FLOPs, but the floors "
            f"(min_heads {rules.min_heads}, neuron_block {block}) with what may be cut (heads "
            f"{rules.heads:.4g}, neurons {rules.neurons:.4g}; a 0 stays 0) allow no less than "
            f"{fraction(high):.4f}; raise ticket.flops or lower the floors"
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if fraction(middle) <= rules.flops:
            high = middle
        else:
            low = middle
    return scaled(high)


def _num_cut(width: int, ratio: float) -> int:
    """`ratio` of `width` to the nearest whole unit; halves are kept."""
    return math.ceil(width * ratio - 0.5 - 1e-9)


def _num_tied(kept: np.ndarray, cut: np.ndarray) -> int:
    """Kept units that could be swapped for cut ones of the same score."""
    if not kept.size or not cut.size:
        return 0
    edge = kept.min()
    if cut.max() != edge:
        return 0
    return int(min((kept == edge).sum(), (cut == edge).sum()))


def _round_to_blocks(counts: Sequence[int], widths: Sequence[int], block: int, budget: int) -> list[int]:
    """Each count to a multiple of `block` below or above it, their sum as near to `budget` as possible.

    A layer may also stay whole when its width is no multiple. All start at the multiple below; the largest
    remainders, then the lower layers, go up one while that brings the sum nearer (halves stay below).
    """
    lower = [
        n if n == width else max(n // block * block, min(block, width)) for n, width in zip(counts, widths, strict=True)
    ]
    upper = [min(low + block, width) for low, width in zip(lower, widths, strict=True)]
    remainders = [(n - low) / (up - low) if up > low else 0.0 for n, low, up in zip(counts, lower, upper, strict=True)]
    rounded = list(lower)
    for layer in sorted(range(len(counts)), key=lambda i: (-remainders[i], i)):
        short = budget - sum(rounded)
        gain = upper[layer] - lower[layer]
        if remainders[layer] > 0 and abs(short - gain) < short:
            rounded[layer] = upper[layer]
    return rounded
