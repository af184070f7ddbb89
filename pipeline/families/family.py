"""The contract of a model family: where heads and neurons live in the tensors of a model, as data.

A family is the list of its tensors with an axis over heads or neurons; all other tensors are nobody's unit and stay
whole. Search, surgery, folding, building at other widths and export follow from the list. A new family is one more
file with a `Family` in it and its line in `pipeline.families.table`. Knows shapes, not tensors: no torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.families.head import Objective
from pipeline.families.shape import Shape

Group = Literal["heads", "neurons"]


class Shaped(Protocol):
    """A tensor of any library."""

    @property
    def shape(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Slot:
    """One tensor of every layer: `axis` holds `blocks` runs of all the layer's units.

    A head takes head_size places of a run, a neuron one. `folds`: the tensor that multiplies the units' outputs: at
    the input of its module gates multiply, and into it they can be folded. `optional`: configs may do without it, as
    without biases.
    """

    name: str
    group: Group
    axis: int
    blocks: int = 1
    folds: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Family:
    """`{layer}` in a slot's name stands for the layer's number; whatever precedes the name is a prefix.

    Fields of a transformers config: `heads` and `neurons` count them in a layer, `dropouts`, `attention_dropouts` and
    `classifier_dropout` are its probabilities. `ffn_matrices` are as many matrices as a neuron has a row or column in.
    `lm_head`: the module that takes the last hidden states to logits or towards them; `scores`: the last matrix of a
    classifier. `first_position`: how far behind the padding id the ids of positions begin; None where they begin at 0.
    """

    name: str
    slots: tuple[Slot, ...]
    objectives: tuple[Objective, ...] = ("masked-lm", "classification")
    heads: str = "num_attention_heads"
    neurons: str = "intermediate_size"
    ffn_matrices: int = 2
    dropouts: tuple[str, ...] = ("hidden_dropout_prob",)
    attention_dropouts: tuple[str, ...] = ("attention_probs_dropout_prob",)
    classifier_dropout: str = "classifier_dropout"
    lm_head: str = "lm_head"
    scores: str = "classifier"
    first_position: int | None = None

    def find(self, state: Mapping[str, Shaped], shape: Shape, partial: bool = False) -> dict[str, tuple[Slot, int]]:
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
        places = {(slot, layer) for slot in self.slots for layer in range(len(shape.layers))}
        needed = set() if partial else {(slot, layer) for slot, layer in places if not slot.optional}
        unfit = (set(found) - places) | (needed - set(found))
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


def num_units(shape: Shape, group: Group, layer: int) -> int:
    """Heads or neurons of a layer."""
    return shape.layers[layer].heads if group == "heads" else shape.layers[layer].ffn


def unit_size(shape: Shape, group: Group) -> int:
    """Places one unit takes on its axis."""
    return shape.head_size if group == "heads" else 1
