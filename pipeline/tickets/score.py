"""How much each head and neuron matters, from gates, gradients or weights: four scores, one interface.

Knows nothing of masks, tickets or when they are drawn. Scores are magnitudes: the larger, the more it matters.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.families.family import num_units, unit_size
from pipeline.families.shape import Shape
from pipeline.families.table import FAMILIES
from pipeline.tickets.gates import GateGrads, GateSet

ScoreKind = Literal["l1", "taylor", "magnitude", "random"]
Needs = Literal["gradients", "weights", "nothing"]
Scores = dict[str, list[np.ndarray]]
Weights = Mapping[str, Tensor]
StandsFor = Sequence[float]


class Score(Protocol):
    """`needs` says when `update` is due: "gradients" after every step, "weights" before every look at the scores,
    "nothing" never."""

    kind: ClassVar[ScoreKind]
    needs: ClassVar[Needs]

    def update(
        self, gates: GateSet, grads: GateGrads | None, weights: Weights | None, stands_for: StandsFor | None = None
    ) -> bool:
        """Take in one step. False when it was left out because a gradient is not finite (fp16 overflow).

        `stands_for`, where layers are dropped: of how many steps each layer's gradient is the sample, 0 for one that
        was skipped and 1 / (its probability to run) for one that ran. So no layer's units score lower, or more
        slowly, because their layer was left out more often.
        """

    @property
    def complete(self) -> bool:
        """Whether every layer has been scored. False while one was left out of, or overflowed in, every step so far."""

    def scores(self) -> Scores:
        """One float32 array a layer for "heads" and "neurons", copies that later steps do not touch."""

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed search needs to go on the same way; the gates have a state of their own."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to `state()`."""


class L1Score:
    """EarlyBERT (Chen et al., ACL 2021): gates trained under an L1 penalty; the score is |gate|.

    Adam runs outside the engine on the gates alone: no weight decay, clipping or trust ratio touches them. Its rate
    falls to zero over `decay_steps` steps, or stays where there are none.
    """

    kind: ClassVar[ScoreKind] = "l1"
    needs: ClassVar[Needs] = "gradients"

    def __init__(
        self, gates: GateSet, lr: float, heads_penalty: float, neurons_penalty: float, decay_steps: int | None = None
    ) -> None:
        self._gates = gates
        self._lr, self._decay_steps, self._steps = lr, decay_steps, 0
        self._penalties = {"heads": heads_penalty, "neurons": neurons_penalty}
        self._adam = torch.optim.Adam([{"params": [gate]} for gate in gates.named().values()], lr=lr)

    @torch.no_grad()
    def update(
        self,
        gates: GateSet,
        grads: GateGrads | None,
        weights: Weights | None = None,
        stands_for: StandsFor | None = None,
    ) -> bool:
        assert gates is self._gates
        assert grads is not None
        rate = self._lr * (max(0.0, 1 - self._steps / self._decay_steps) if self._decay_steps else 1.0)
        self._steps += 1
        if not _all_finite(grads):
            return False
        # A gate that stands for several steps takes one as long as these; one whose layer was skipped takes none.
        by_gate = [1.0] * len(self._adam.param_groups) if stands_for is None else [*stands_for, *stands_for]
        named = zip(gates.named().items(), (*grads.heads, *grads.neurons), strict=True)
        for group, ((name, gate), grad), steps in zip(self._adam.param_groups, named, by_gate, strict=True):
            group["lr"] = rate * steps
            gate.grad = grad + self._penalties[name.partition(".")[0]] * gate.sign() if steps else None
        self._adam.step()
        self._adam.zero_grad()
        return True

    @property
    def complete(self) -> bool:
        return all(self._adam.state.get(gate) for gate in self._gates.named().values())

    def scores(self) -> Scores:
        heads, neurons = self._gates.tensors
        return {"heads": [_array(g.abs()) for g in heads], "neurons": [_array(g.abs()) for g in neurons]}

    def state(self) -> dict[str, Tensor]:
        moments = {
            f"{name}.{key}": value.clone()
            for name, gate in self._gates.named().items()
            for key, value in self._adam.state[gate].items()
        }
        return {**moments, "steps": torch.tensor(self._steps)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        named_values = dict(state)
        self._steps = int(named_values.pop("steps"))
        moments: dict[str, dict[str, Tensor]] = {}
        for full, value in named_values.items():
            name, _, key = full.rpartition(".")
            moments.setdefault(name, {})[key] = value
        named = self._gates.named()
        if not set(moments) <= set(named):
            raise KeyError(f"gates are {sorted(named)}, the saved moments are of {sorted(moments)}")
        for name, gate in named.items():
            # Adam keeps its step count on the CPU; the moments live where the gate does.
            self._adam.state[gate] = {
                key: value.clone() if key == "step" else value.to(gate, copy=True)
                for key, value in moments.get(name, {}).items()
            }


class TaylorScore:
    """First-order saliency: gates stay at 1, the score is the mean over steps of |dL/dgate|.

    `decay` None: the plain mean of all steps; else an exponential one, in which the newest step counts 1 and the one
    before it `decay`. Training itself is undisturbed (Michel et al., 2019; Molchanov et al., 2019 use the same
    quantity). Where layers are dropped it is the weighted mean over the steps in which the layer ran.
    """

    kind: ClassVar[ScoreKind] = "taylor"
    needs: ClassVar[Needs] = "gradients"

    def __init__(self, gates: GateSet, decay: float | None = None) -> None:
        self._decay = 1.0 if decay is None else decay
        self._means = {name: torch.zeros_like(gate) for name, gate in gates.state().items()}
        self._totals = torch.zeros(len(gates.tensors.heads), dtype=torch.float64)  # of each layer's weights

    def update(
        self,
        gates: GateSet,
        grads: GateGrads | None,
        weights: Weights | None = None,
        stands_for: StandsFor | None = None,
    ) -> bool:
        assert grads is not None
        if not _all_finite(grads):
            return False
        counts = torch.ones_like(self._totals) if stands_for is None else self._totals.new_tensor(stands_for)
        self._totals = self._decay * self._totals + counts
        shares = (counts / self._totals.where(counts > 0, 1.0)).tolist()
        every = zip(self._means.values(), (*grads.heads, *grads.neurons), [*shares, *shares], strict=True)
        for mean, grad, share in every:
            mean.lerp_(grad.abs(), share)
        return True

    @property
    def complete(self) -> bool:
        return bool(self._totals.all())

    def scores(self) -> Scores:
        if not self.complete:
            raise RuntimeError("a taylor score needs at least one step of every layer before it can be read")
        return _by_group({name: _array(mean) for name, mean in self._means.items()})

    def state(self) -> dict[str, Tensor]:
        return {**{name: mean.clone() for name, mean in self._means.items()}, "totals": self._totals.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if set(state) != {*self._means, "totals"}:
            raise KeyError(f"means are {sorted(self._means)}, the saved ones {sorted(state)}")
        self._totals = state["totals"].cpu().clone()
        for name, mean in self._means.items():
            mean.copy_(state[name])


class MagnitudeScore:
    """Early Transformers (Cheekati, 2024) at the grain of units: l2 norm of all weights a unit owns.

    `update` takes a full state dict of any family in the table; it is read in fp32.
    """

    kind: ClassVar[ScoreKind] = "magnitude"
    needs: ClassVar[Needs] = "weights"

    def __init__(self, shape: Shape, family: str | None = None) -> None:
        self._shape = shape
        self._family = FAMILIES[family or shape.family]
        self._norms: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(
        self,
        gates: GateSet | None,
        grads: GateGrads | None,
        weights: Weights | None,
        stands_for: StandsFor | None = None,
    ) -> bool:
        assert weights is not None
        squares: dict[str, Tensor] = {}
        for key, (slot, layer) in self._family.find(weights, self._shape).items():
            units, size = num_units(self._shape, slot.group, layer), unit_size(self._shape, slot.group)
            by_unit = weights[key].detach().float().movedim(slot.axis, 0)
            owned = by_unit.square().reshape(slot.blocks, units, size, -1).sum((0, 2, 3))
            name = f"{slot.group}.{layer}"
            squares[name] = squares[name] + owned if name in squares else owned
        self._norms = {name: total.sqrt() for name, total in squares.items()}
        return True

    @property
    def complete(self) -> bool:
        return bool(self._norms)

    def scores(self) -> Scores:
        if not self.complete:
            raise RuntimeError("a magnitude score needs the weights (update) before it can be read")
        groups = [(group, layer) for group in ("heads", "neurons") for layer in range(len(self._shape.layers))]
        return _by_group({f"{g}.{i}": _array(self._norms[f"{g}.{i}"]) for g, i in groups})

    def state(self) -> dict[str, Tensor]:
        return {name: norms.clone() for name, norms in self._norms.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._norms = {name: norms.clone() for name, norms in state.items()}


class RandomScore:
    """The control: one uniform draw a unit, a pure function of shape and seed, the same at every step."""

    kind: ClassVar[ScoreKind] = "random"
    needs: ClassVar[Needs] = "nothing"

    def __init__(self, shape: Shape, seed: int) -> None:
        self._shape = shape
        self._seed = seed

    def update(
        self,
        gates: GateSet | None,
        grads: GateGrads | None,
        weights: Weights | None,
        stands_for: StandsFor | None = None,
    ) -> bool:
        return True

    @property
    def complete(self) -> bool:
        return True

    def scores(self) -> Scores:
        generator = np.random.default_rng(self._seed)
        return {
            "heads": [generator.random(layer.heads, dtype=np.float32) for layer in self._shape.layers],
            "neurons": [generator.random(layer.ffn, dtype=np.float32) for layer in self._shape.layers],
        }

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if state:
            raise KeyError(f"a random score has no state, the saved one holds {sorted(state)}")


def build_score(
    kind: ScoreKind,
    gates: GateSet,
    shape: Shape,
    *,
    lr: float = 1e-3,
    heads_penalty: float = 1e-4,
    neurons_penalty: float = 1e-4,
    decay_steps: int | None = None,
    decay: float | None = None,
    seed: int = 0,
    family: str | None = None,
) -> Score:
    """The score of this kind: `lr`, `decay_steps`, the penalties belong to l1, `decay` to taylor, `seed` to random."""
    if kind == "l1":
        return L1Score(gates, lr, heads_penalty, neurons_penalty, decay_steps)
    if kind == "taylor":
        return TaylorScore(gates, decay)
    if kind == "magnitude":
        return MagnitudeScore(shape, family)
    if kind == "random":
        return RandomScore(shape, seed)
    raise ValueError(f"a score is l1, taylor, magnitude or random, got {kind!r}")


def _all_finite(grads: GateGrads) -> bool:
    return bool(torch.isfinite(torch.cat([*grads.heads, *grads.neurons])).all())


def _array(values: Tensor) -> np.ndarray:
    """A float32 copy on the CPU; without it all records of a CPU run would alias the final values."""
    return values.detach().to("cpu", torch.float32, copy=True).numpy()


def _by_group(named: Mapping[str, np.ndarray]) -> Scores:
    """`heads.0`, ..., `neurons.0`, ... as two lists in that order."""
    return {
        group: [values for name, values in named.items() if name.startswith(f"{group}.")]
        for group in ("heads", "neurons")
    }
