"""Where heads and neurons live in the state dicts of a model family: data, read by `pipeline.tickets.surgery`.

A family is the list of its tensors with an axis over heads or neurons; all other tensors are nobody's unit and
stay whole. A new family is one more entry. Knows shapes, not tensors: no torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.families.shape import EncoderShape

Group = Literal["heads", "neurons"]


class Shaped(Protocol):
    """A tensor of any library."""

    @property
    def shape(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Slot:
    """One tensor of every layer: `axis` holds `blocks` runs of all the layer's units.

    A head takes head_size places of a run, a neuron one. `folds`: the tensor that multiplies the unit's gated
    output, so that a gate can be folded into it.
    """

    name: str
    group: Group
    axis: int
    blocks: int = 1
    folds: bool = False


@dataclass(frozen=True)
class Family:
    """`{layer}` in a slot's name stands for the layer's number; whatever precedes the name is a prefix."""

    name: str
    slots: tuple[Slot, ...]

    def find(
        self, state: Mapping[str, Shaped], shape: EncoderShape, partial: bool = False
    ) -> dict[str, tuple[Slot, int]]:
        """The slot and layer of every tensor in `state` that has units.

        Raises ValueError when a layer lacks one of its tensors (unless the state is a `partial` one), has one twice,
        or one of another size than `shape` says: then the state dict is of another family or model.
        """
        found: dict[tuple[Slot, int], str] = {}
        for slot in self.slots:
            pattern = re.compile(r"(?:.*\.)?" + re.escape(slot.name).replace(r"\{layer\}", r"(\d+)"))
            for key in state:
                match = pattern.fullmatch(key)
                if match is None:
                    continue
                place = (slot, int(match[1]))
                if place in found:
                    raise ValueError(f"both {found[place]} and {key} look like {slot.name} of layer {match[1]}")
                found[place] = key
        wanted = {(slot, layer) for slot in self.slots for layer in range(len(shape.layers))}
        unfit = set(found) - wanted if partial else set(found) ^ wanted
        if unfit:
            slot, layer = min(unfit, key=lambda place: (place[1], place[0].name))
            held = "has" if (slot, layer) in found else "lacks"
            raise ValueError(
                f"a state dict of family {self.name!r} for {len(shape.layers)} layers {held} "
                f"{slot.name.format(layer=layer)}"
            )
        for (slot, layer), key in found.items():
            size = slot.blocks * num_units(shape, slot.group, layer) * unit_size(shape, slot.group)
            if state[key].shape[slot.axis] != size:
                raise ValueError(
                    f"{key} has shape {tuple(state[key].shape)}, but axis {slot.axis} must be {size} for "
                    f"{num_units(shape, slot.group, layer)} {slot.group} in layer {layer}"
                )
        return {key: place for place, key in found.items()}


def num_units(shape: EncoderShape, group: Group, layer: int) -> int:
    """Heads or neurons of a layer."""
    return shape.layers[layer].heads if group == "heads" else shape.layers[layer].ffn


def unit_size(shape: EncoderShape, group: Group) -> int:
    """Places one unit takes on its axis."""
    return shape.head_size if group == "heads" else 1


_HF_BERT_SLOTS = (
    Slot("layer.{layer}.attention.self.query.weight", "heads", 0),
    Slot("layer.{layer}.attention.self.query.bias", "heads", 0),
    Slot("layer.{layer}.attention.self.key.weight", "heads", 0),
    Slot("layer.{layer}.attention.self.key.bias", "heads", 0),
    Slot("layer.{layer}.attention.self.value.weight", "heads", 0),
    Slot("layer.{layer}.attention.self.value.bias", "heads", 0),
    Slot("layer.{layer}.attention.output.dense.weight", "heads", 1, folds=True),
    Slot("layer.{layer}.intermediate.dense.weight", "neurons", 0),
    Slot("layer.{layer}.intermediate.dense.bias", "neurons", 0),
    Slot("layer.{layer}.output.dense.weight", "neurons", 1, folds=True),
)

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "slim_bert",
            (
                Slot("layers.{layer}.attention.qkv.weight", "heads", 0, blocks=3),
                Slot("layers.{layer}.attention.qkv.bias", "heads", 0, blocks=3),
                Slot("layers.{layer}.attention.output.weight", "heads", 1, folds=True),
                Slot("layers.{layer}.ffn.up.weight", "neurons", 0),
                Slot("layers.{layer}.ffn.up.bias", "neurons", 0),
                Slot("layers.{layer}.ffn.down.weight", "neurons", 1, folds=True),
            ),
        ),
        Family("bert", _HF_BERT_SLOTS),
        Family("roberta", _HF_BERT_SLOTS),
        Family("roberta-prelayernorm", _HF_BERT_SLOTS),
    )
}
