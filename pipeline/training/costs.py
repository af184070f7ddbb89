"""What the steps of a run cost: FLOPs and layers run, of every step and in sum, with layer dropping counted in.

Plain arithmetic on a shape and a schedule: known before the run, and the same after any restart.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.families.shape import Shape
from pipeline.layer_drop.schedule import LayerDrop
from pipeline.recipes.phases import Phase

_CHUNK_STEPS = 4096


class StepCosts:
    """Sums over the steps of a schedule, from step 0 on.

    FLOPs are those of matrix products, forward and backward, on all ranks; recomputation is not counted. Depth is that
    of the draws: a layer that is skipped but runs on a row for the sake of its gradients adds to the FLOPs alone.
    """

    def __init__(
        self,
        shape: Shape,
        phases: list[Phase],
        predicted: float,
        micro_steps: int = 1,
        drop: LayerDrop | None = None,
        first_step: int = 0,
        touch: bool = False,
    ) -> None:
        """`predicted`: the share of the tokens that goes through a language-model head. `first_step`: before it nothing
        is dropped (another stage ran those steps, or none). `touch`: skipped layers run on one row of the micro-batch,
        as `run_layer` does."""
        dense, real, run = [np.zeros(1)], [np.zeros(1)], [np.zeros(1)]
        layers, begin = len(shape.layers), 0
        for phase in phases:
            tokens = phase.global_rows * phase.row_length
            per_layer = 3 * tokens * np.asarray(shape.layer_flops_per_token(phase.row_length))
            head = tokens * shape.train_flops_per_token(phase.row_length, predicted) - per_layer.sum()
            for start in range(begin, begin + phase.steps, _CHUNK_STEPS):
                steps = np.arange(start, min(start + _CHUNK_STEPS, begin + phase.steps))
                share, worked = np.ones((len(steps), layers)), np.ones((len(steps), layers))
                if drop is not None:
                    dropped = steps >= first_step
                    share[dropped] = drop.executed(steps[dropped], micro_steps, phase.micro_rows)
                    skipped = 1 - share if drop.unit == "layer" else share == 0
                    worked = share + skipped / phase.micro_rows if touch else share
                real.append(head + worked @ per_layer)
                run.append(share.sum(1))
                dense.append(np.full(len(steps), head + per_layer.sum()))
            begin += phase.steps
        self._dense, self._real, self._run = (np.cumsum(np.concatenate(parts)) for parts in (dense, real, run))

    def flops(self, steps: int) -> float:
        """FLOPs of the first so many steps."""
        return float(self._real[steps])

    def saved(self, first: int, last: int) -> float:
        """The share of a run's FLOPs without dropping that steps [first, last) save by it."""
        dense = self._dense[last] - self._dense[first]
        return float(1 - (self._real[last] - self._real[first]) / dense) if dense else 0.0

    def depth(self, first: int, last: int) -> float:
        """Layers that ran, on average over the rows of steps [first, last)."""
        return float((self._run[last] - self._run[first]) / max(1, last - first))

    def saved_by_step(self) -> NDArray[np.float64]:
        """`saved(0, n)` for n = 1 to the number of steps."""
        return 1 - self._real[1:] / self._dense[1:]
