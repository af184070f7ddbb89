"""One factor a head and one a neuron, beside the model and outside the DeepSpeed engine.

The gates are fp32 leaf tensors, the same on every rank; the model multiplies by them, autograd leaves their
gradients here, and `collect` averages these over the ranks. Knows nothing of scores, optimisers or DeepSpeed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.families.shape import Shape


class GateTensors(NamedTuple):
    """What the model takes as `gates`: one (heads of the layer,) and one (neurons of the layer,) a layer."""

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


class GateGrads(NamedTuple):
    """Gradients in the order of `GateTensors`, already averaged over the ranks."""

    heads: list[Tensor]
    neurons: list[Tensor]


class GateSet:
    """The gates of one encoder, all at 1, with gradients."""

    def __init__(self, shape: Shape, device: torch.device | str = "cpu") -> None:
        def ones(width: int) -> Tensor:
            return torch.ones(width, dtype=torch.float32, device=device, requires_grad=True)

        self.tensors = GateTensors(
            heads=tuple(ones(layer.heads) for layer in shape.layers),
            neurons=tuple(ones(layer.ffn) for layer in shape.layers),
        )

    def named(self) -> dict[str, Tensor]:
        """The leaf tensors as `heads.0`, ..., `neurons.0`, ...; the order of the flat all-reduce."""
        return {
            f"{group}.{layer}": gate
            for group, gates in zip(GateTensors._fields, self.tensors, strict=True)
            for layer, gate in enumerate(gates)
        }

    def collect(
        self,
        divide_by: float,
        all_reduce: Callable[[Tensor], None] | None = None,
        scales: Sequence[float] | None = None,
    ) -> GateGrads:
        """Take the gradients of all backward passes since the last call, and clear them.

        `all_reduce` sums a flat fp32 tensor over the ranks in place (None: one rank). The sum is then divided by
        `divide_by`: the number of ranks times the loss scale times whatever else the loss was multiplied by; and
        where layers were dropped, by each layer's factor in `scales`, 0 for one that was skipped, whose gates get
        zeros. Raises RuntimeError when no gate was in the graph though a layer ran: the model was run without `gates`.
        """
        gates = list(self.named().values())
        if all(gate.grad is None for gate in gates) and (scales is None or any(scales)):
            raise RuntimeError("no gate has a gradient: pass GateSet.tensors to the model as gates")
        flat = torch.cat([torch.zeros_like(gate) if gate.grad is None else gate.grad for gate in gates])
        for gate in gates:
            gate.grad = None
        if all_reduce is not None:
            all_reduce(flat)
        grads = list(flat.div_(divide_by).split([gate.numel() for gate in gates]))
        num_layers = len(self.tensors.heads)
        for layer, scale in enumerate(scales or ()):
            for grad in (grads[layer], grads[num_layers + layer]):
                grad.div_(scale or 1.0)
        return GateGrads(heads=grads[:num_layers], neurons=grads[num_layers:])

    def state(self) -> dict[str, Tensor]:
        """Copies of the gates' values, for a checkpoint."""
        return {name: gate.detach().clone() for name, gate in self.named().items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to `state()`. Raises KeyError or RuntimeError when it belongs to another shape."""
        gates = self.named()
        if set(gates) != set(state):
            raise KeyError(f"gates are {sorted(gates)}, the saved ones {sorted(state)}")
        for name, gate in gates.items():
            if gate.shape != state[name].shape:
                raise RuntimeError(f"gate {name} has {gate.numel()} values, the saved one {state[name].numel()}")
            gate.copy_(state[name])
