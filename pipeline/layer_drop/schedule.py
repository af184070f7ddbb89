"""Layer dropping: which layers run in which micro-batch. Schedules over time and depth, and the draws.

Pure functions of the step, and draws that are pure functions of (seed, step, micro-step), the same on every rank:
nothing here needs to be kept in a checkpoint. Knows nothing of torch, models or recipes; `pipeline.layer_drop.switch`
runs layers as they were drawn.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from data_prep.errors import UserError
from data_prep.rows.masking import IntArray, extend_chain, hash_chain, uniform

TimeKind = Literal["constant", "pld", "decreasing", "stages"]
DepthKind = Literal["uniform", "pld", "linear", "alternate", "inner"]
Unit = Literal["layer", "sample"]
Scaling = Literal["block", "sublayer", "none"]
Floats = NDArray[np.float64]

GROWING = (0.0, 1.0)
THETA = 0.5
_STREAM_LAYER, _STREAM_ROWS = 21, 22
_CHUNK_STEPS = 4096
# So many draws at a time stay in a core's cache, which is ten times as fast as all of a long run's at once.
_CACHED_DRAWS = 200_000


@dataclass(frozen=True)
class DropSchedule:
    """The probability with which each layer is kept, at every step of `total_steps`.

    `theta` is that of the layers dropped most, at the time they are dropped most; 1 - theta is the largest drop rate.
    None is 0.5, and what time "stages" wants.
    Over time theta(t), t counted from 0 over the T steps between the two dense phases:
      constant     theta (LayerDrop: Fan et al., ICLR 2020)
      pld          (1 - theta) exp(-gamma t) + theta (Zhang and He, NeurIPS 2020, eq. 5); gamma None: 100 / T
      decreasing   theta + (1 - theta) t / (T - 1): drops most at first, none at the end
      stages       stages[i] for the i-th of equally long stages (RaPTr: growing subnetworks); 0, where the depth
                   lets the first layer always run, leaves the layers out for as long. () is (0, 1): a network
                   that grows once, at half of the steps
    Over depth, layer l of L counted from 0, with theta for theta(t):
      uniform      theta
      pld          1 - (l + 1) / L (1 - theta) (the paper's i / L with i from 1)
      linear       1 - l / (L - 1) (1 - theta): the first layer always runs
      alternate    theta for every second layer, from the second on; the others always run
      inner        theta for all but the first and the last layer, which always run (RaPTr)
    In the fractions `dense_start` and `dense_end` of the steps every layer runs. `first_step`: the step, as the
    callers count them, with which the schedule begins.
    Raises UserError for values that make no schedule.
    """

    total_steps: int
    num_layers: int
    time: TimeKind = "stages"
    depth: DepthKind = "alternate"
    theta: float | None = None
    gamma: float | None = None
    stages: tuple[float, ...] = ()
    dense_start: float = 0.0
    dense_end: float = 0.0
    first_step: int = 0

    def __post_init__(self) -> None:
        problems = schedule_problems(
            self.time, self.depth, self.theta, self.gamma, self.stages, self.dense_start, self.dense_end
        )
        if self.total_steps < 1 or self.num_layers < 1:
            problems.append(f"needs 1 step and 1 layer or more, got {self.total_steps} and {self.num_layers}")
        if problems:
            raise UserError("layer dropping: " + "; ".join(problems))

    @property
    def least_theta(self) -> float:
        """theta, or what it is where it is not given."""
        return THETA if self.theta is None else self.theta

    def theta_at(self, steps: IntArray | int) -> Floats:
        """theta(t) at `steps` (n,); (n,)."""
        steps = np.atleast_1d(np.asarray(steps, np.int64)) - self.first_step
        begin = round(self.dense_start * self.total_steps)
        end = self.total_steps - round(self.dense_end * self.total_steps)
        t, length = (steps - begin).astype(np.float64), max(1, end - begin)
        least = self.least_theta
        if self.time == "constant":
            theta = np.full(len(steps), least)
        elif self.time == "pld":
            gamma = 100 / length if self.gamma is None else self.gamma
            theta = (1 - least) * np.exp(-gamma * np.maximum(t, 0)) + least
        elif self.time == "decreasing":
            theta = least + (1 - least) * np.clip(t / max(1, length - 1), 0, 1)
        else:
            stages = self.stages or GROWING
            stage = np.clip((t * len(stages)) // length, 0, len(stages) - 1)
            theta = np.asarray(stages)[stage.astype(np.int64)]
        return np.where((steps < begin) | (steps >= end), 1.0, theta)

    def keep(self, steps: IntArray | int) -> Floats:
        """Keep probability of every layer at `steps` (n,); (n, num_layers)."""
        shares = self._depth_shares()
        # Written so that a share of 1 gives theta, and theta 1 gives 1, to the last bit.
        return (1 - shares) + shares * self.theta_at(steps)[:, None]

    def expected_depth(self, steps: IntArray | int) -> Floats:
        """Layers that run on average at `steps` (n,); (n,)."""
        return self.keep(steps).sum(1)

    def _depth_shares(self) -> Floats:
        """The share of 1 - theta(t) with which each layer is dropped, (num_layers,)."""
        layers, index = self.num_layers, np.arange(self.num_layers)
        if self.depth == "uniform":
            return np.ones(layers)
        if self.depth == "pld":
            return (index + 1) / layers
        if self.depth == "linear":
            return index / max(1, layers - 1)
        if self.depth == "alternate":
            return (index % 2).astype(np.float64)
        return ((index > 0) & (index < layers - 1)).astype(np.float64)


def schedule_problems(
    time: str,
    depth: str,
    theta: float | None,
    gamma: float | None,
    stages: tuple[float, ...],
    dense_start: float,
    dense_end: float,
) -> list[str]:
    """Everything that is wrong with a schedule's values, a line each."""
    problems = []
    for name, value, kinds in (("time", time, get_args(TimeKind)), ("depth", depth, get_args(DepthKind))):
        if value not in kinds:
            problems.append(f"{name} is {value!r}, wanted one of {', '.join(kinds)}")
    if theta is not None and not 0 < theta <= 1:
        problems.append(f"theta is {theta}, wanted above 0 and at most 1: it is the probability to keep a layer")
    elif theta is not None and time == "stages":
        problems.append(f'theta is {theta}, wanted unset: time "stages" goes by stages')
    if gamma is not None and (time != "pld" or not (math.isfinite(gamma) and gamma > 0)):
        wanted = "a number above 0" if time == "pld" else f'unset: it belongs to time "pld", not {time!r}'
        problems.append(f"gamma is {gamma}, wanted {wanted}")
    if stages and time != "stages":
        problems.append(f'stages is {list(stages)}, wanted empty: they belong to time "stages", not {time!r}')
    problems += [f"stages holds {value}, wanted at least 0 and at most 1" for value in stages if not 0 <= value <= 1]
    if time == "stages" and 0 in (stages or GROWING) and depth in ("uniform", "pld"):
        problems.append(
            f"stages is {list(stages or GROWING)}, and 0 leaves out the first layer too with depth {depth!r}: wanted "
            "above 0"
        )
    if not (dense_start >= 0 and dense_end >= 0 and dense_start + dense_end < 1):
        problems.append(
            f"dense_start and dense_end are {dense_start} and {dense_end}, wanted 0 or more and together below 1"
        )
    return problems


@dataclass(frozen=True)
class LayerDraw:
    """What one layer does in one micro-batch.

    `rows` (k,), ascending: the rows it runs on; None: all of them. `scale`: the factor of its residual. `each`: the
    factor stands at both sub-layers, inside the layer, as in PLD, not at the layer's residual as a whole.
    """

    runs: bool = True
    scale: float = 1.0
    rows: IntArray | None = None
    each: bool = False


@dataclass(frozen=True)
class LayerDrop:
    """The draws of a schedule.

    `unit` "layer": a layer is skipped for a whole micro-batch, with the probability the schedule gives. "sample":
    it runs on a subset of the rows of fixed size, round(keep x rows), that is drawn for every layer and micro-batch.
    A layer kept with probability 0 is skipped with either.
    `scaling`: the factor of what runs, by the probability that drew it: "block" 1/keep at the layer's residual, whose
    mean over draws is the full layer; "sublayer" 1/keep at both sub-layers (PLD, whose mean is not); "none" 1
    (LayerDrop). `once_a_step`: all micro-batches of an optimiser step share the draw of the first.
    Raises UserError for a unit or scaling that there is not.
    """

    schedule: DropSchedule
    seed: int
    unit: Unit = "layer"
    scaling: Scaling = "block"
    once_a_step: bool = False

    def __post_init__(self) -> None:
        for name, value, kinds in (("unit", self.unit, get_args(Unit)), ("scaling", self.scaling, get_args(Scaling))):
            if value not in kinds:
                raise UserError(f"layer dropping: {name} is {value!r}, wanted one of {', '.join(kinds)}")

    def draws(self, step: int, micro: int, rows: int) -> list[LayerDraw]:
        """What every layer does in micro-batch `micro` of `step`, of so many rows.

        Raises UserError where a layer would be left without a row.
        """
        keep = self.schedule.keep(step)[0]
        micro = 0 if self.once_a_step else micro
        each = self.scaling == "sublayer"
        if self.unit == "layer":
            runs = self._runs(np.array([step]), np.array([micro]))[0, 0]
            scales = np.ones_like(keep) if self.scaling == "none" else 1 / np.where(keep > 0, keep, 1.0)
            return [LayerDraw(bool(r), float(s), None, each) for r, s in zip(runs, scales, strict=True)]
        counts = self._counts(np.array([step]), rows)[0]
        layers = np.arange(self.schedule.num_layers)[:, None]
        keys = extend_chain(hash_chain(self.seed, _STREAM_ROWS, step, micro, layers), np.arange(rows))
        order = np.argsort(keys, axis=1, kind="stable")
        return [
            LayerDraw(runs=count > 0, each=each)
            if count in (0, rows)
            else LayerDraw(True, 1.0 if self.scaling == "none" else rows / count, np.sort(order[layer, :count]), each)
            for layer, count in enumerate(counts.tolist())
        ]

    def executed(self, steps: IntArray, micro_steps: int, rows: int) -> Floats:
        """The share of a step's rows that each layer really ran on, (n, num_layers), for `steps` (n,)."""
        if self.unit == "sample":
            return self._counts(steps, rows) / rows
        micros = np.arange(1 if self.once_a_step else micro_steps)
        pieces = 1 + len(steps) * len(micros) * self.schedule.num_layers // _CACHED_DRAWS
        return np.concatenate([self._runs(piece, micros).mean(1) for piece in np.array_split(steps, pieces)])

    def check(self, rows: int, first: int, end: int) -> None:
        """Raise UserError where a layer would be left without one of so many rows in steps [first, end)."""
        for start in range(first, end, _CHUNK_STEPS) if self.unit == "sample" else ():
            self._counts(np.arange(start, min(start + _CHUNK_STEPS, end)), rows)

    def _runs(self, steps: IntArray, micros: IntArray) -> NDArray[np.bool_]:
        """(steps, micro-steps, layers): whether the layer runs."""
        layers = np.arange(self.schedule.num_layers)
        keys = hash_chain(self.seed, _STREAM_LAYER, steps[:, None, None], micros[:, None], layers)
        return uniform(keys) < self.schedule.keep(steps)[:, None, :]

    def _counts(self, steps: IntArray, rows: int) -> IntArray:
        """(steps, layers): the rows each layer runs on; none only where the schedule keeps none."""
        keep = self.schedule.keep(steps)
        counts = np.floor(keep * rows + 0.5).astype(np.int64)
        without = (counts < 1) & (keep > 0)
        if without.any():
            step, layer = np.argwhere(without)[0]
            stage = "its stage" if self.schedule.time == "stages" else "theta"
            raise UserError(
                f"layer dropping by sample leaves layer {layer + 1} without a row at step {steps[step]}: it keeps "
                f"{keep[step, layer]:.3f} of the {rows} rows of a micro-batch; raise {stage} or batch.micro_rows"
            )
        return counts
