"""Cutting the ticket out for real: functions on state dicts, driven by the families' table alone.

Any tensor with a parameter's shape is cut like the parameter: fp32 masters and optimiser moments go through the
same functions under the same names. Tensors without units are handed on as they are, not copied.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.families.family import Group, Slot, num_units, unit_size
from pipeline.families.hf import load_state
from pipeline.families.modeling_slim_bert import Gates
from pipeline.families.models import build
from pipeline.families.shape import Shape
from pipeline.families.table import FAMILIES
from pipeline.tickets.gates import GateTensors
from pipeline.tickets.ticket import Ticket

State = Mapping[str, Tensor]

TOLERANCE = 1e-5


def slice_state(
    state: State, shape: Shape, ticket: Ticket, family: str | None = None, partial: bool = False
) -> dict[str, Tensor]:
    """The slim model's tensors: of a dense `state`, only what belongs to the ticket's units.

    A `partial` state holds tensors for some of the parameters only, as one kind of optimiser moments may. Raises
    UserError when the ticket is for another shape, ValueError when the state is not of this family.
    """
    ticket.check_fits(shape)
    slim = dict(state)
    for key, (slot, layer) in FAMILIES[family or shape.family].find(state, shape, partial).items():
        places = _places(slot, layer, shape, ticket).to(state[key].device)
        slim[key] = state[key].index_select(slot.axis, places)
    return slim


def expand_state(slim_state: State, ticket: Ticket, family: str | None = None) -> dict[str, Tensor]:
    """The dense model's tensors again: kept units at their own places, zeros (biases too) for the others.

    The expanded model computes what the slim one does: a removed head or neuron adds nothing through zero
    output weights. Raises ValueError when the state is not of this family and the ticket's widths.
    """
    shape = ticket.dense_shape
    dense = dict(slim_state)
    for key, (slot, layer) in FAMILIES[family or shape.family].find(slim_state, ticket.slim_shape()).items():
        slim = slim_state[key]
        size = list(slim.shape)
        size[slot.axis] = slot.blocks * num_units(shape, slot.group, layer) * unit_size(shape, slot.group)
        places = _places(slot, layer, shape, ticket).to(slim.device)
        dense[key] = slim.new_zeros(size).index_copy_(slot.axis, places, slim)
    return dense


def fold_gates(state: State, shape: Shape, gates: Gates, family: str | None = None) -> dict[str, Tensor]:
    """Weights that compute without gates what `state` computes with them: output columns times their gate.

    Raises ValueError when the state is not of this family and shape.
    """
    folded = dict(state)
    for key, (slot, layer) in FAMILIES[family or shape.family].find(state, shape).items():
        if slot.folds:
            gate = (gates.heads if slot.group == "heads" else gates.neurons)[layer]
            factors = gate.detach().repeat_interleave(unit_size(shape, slot.group)).to(state[key])
            broadcast = [1] * state[key].dim()
            broadcast[slot.axis] = -1
            folded[key] = state[key] * factors.view(broadcast)
    return folded


def mask_gates(shape: Shape, ticket: Ticket) -> GateTensors:
    """Gates that switch the removed units of the dense model off: ones for the kept, zeros for the others."""
    ticket.check_fits(shape)

    def masks(group: Group, kept: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
        found = []
        for layer, units in enumerate(kept):
            mask = torch.zeros(num_units(shape, group, layer))
            mask[torch.tensor(units)] = 1.0
            found.append(mask)
        return tuple(found)

    return GateTensors(heads=masks("heads", ticket.heads), neurons=masks("neurons", ticket.neurons))


@torch.no_grad()
def differences(
    dense_model: nn.Module,
    slim_model: nn.Module,
    ticket: Ticket,
    batch: Mapping[str, Tensor],
    gates: Gates | None = None,
) -> dict[str, float]:
    """How far the masked dense model and the slim one are apart: after the embeddings, each layer, the logits.

    `batch` holds the model's inputs without labels; `gates` are the dense model's trained gates, which the slim
    model has folded in. A difference is absolute where the values stay within 1, and relative to the largest of
    them beyond, since fp32 has so many digits and no more. Both models must be in eval mode.
    """
    assert not dense_model.training
    assert not slim_model.training
    device = next(dense_model.parameters()).device
    mask = mask_gates(ticket.dense_shape, ticket)
    gated = GateTensors(*(tuple(gate.to(device) for gate in group) for group in mask))
    if gates is not None:
        gated = GateTensors(
            heads=tuple(m * g for m, g in zip(gated.heads, gates.heads, strict=True)),
            neurons=tuple(m * g for m, g in zip(gated.neurons, gates.neurons, strict=True)),
        )
    dense = dense_model(**batch, gates=gated, output_hidden_states=True)
    slim = slim_model(**batch, output_hidden_states=True)
    names = ["embeddings", *(f"layer {i}" for i in range(len(dense.hidden_states) - 1)), "logits"]
    pairs = zip((*dense.hidden_states, dense.logits), (*slim.hidden_states, slim.logits), strict=True)
    return {
        name: float((a - b).abs().max() / a.abs().max().clamp(min=1)) for name, (a, b) in zip(names, pairs, strict=True)
    }


def largest_difference(
    dense_model: nn.Module,
    slim_model: nn.Module,
    ticket: Ticket,
    batch: Mapping[str, Tensor],
    gates: Gates | None = None,
) -> float:
    """The largest of `differences`; NaN when one of them is."""
    found = differences(dense_model, slim_model, ticket, batch, gates)
    return float(torch.tensor(list(found.values()), dtype=torch.float64).max())


def check_surgery(
    dense_state: State,
    shape: Shape,
    ticket: Ticket,
    batch: Mapping[str, Tensor],
    gates: Gates | None = None,
) -> float:
    """Cut `dense_state`, run both models in fp32 on `batch`, and return their largest difference.

    `gates`: trained gates, folded into the slim model. Raises RuntimeError when it exceeds `TOLERANCE`.
    """
    device = batch["input_ids"].device
    folded = dense_state if gates is None else fold_gates(dense_state, shape, gates)
    dense_model = _model(dense_state, shape, device)
    slim_model = _model(slice_state(folded, shape, ticket), ticket.slim_shape(), device)
    difference = largest_difference(dense_model, slim_model, ticket, batch, gates)
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"surgery changed the model: masked dense and slim differ by {difference:.3g} in fp32, "
            f"allowed are {TOLERANCE:g} on every layer"
        )
    return difference


def _model(state: State, shape: Shape, device: torch.device) -> nn.Module:
    model = build(shape, seed=0)
    load_state(model, state)
    return model.to(device).eval()


def _places(slot: Slot, layer: int, shape: Shape, ticket: Ticket) -> Tensor:
    """Indices of the ticket's units on the slot's axis of the dense tensor, in order."""
    kept = torch.tensor((ticket.heads if slot.group == "heads" else ticket.neurons)[layer])
    size = unit_size(shape, slot.group)
    blocks = torch.arange(slot.blocks) * num_units(shape, slot.group, layer) * size
    return (blocks[:, None, None] + kept[:, None] * size + torch.arange(size)).reshape(-1)
