"""Stock models of transformers at any widths: built, given gates from outside, and written for strangers.

No modelling code has to know of gates or widths: gates multiply at the input of the modules whose weights `folds` in
the family's list, and the attention of transformers takes as many heads as its matrices hold.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from pipeline.families import modeling_narrow
from pipeline.families.family import num_units, unit_size
from pipeline.families.stock_shape import StockShape
from pipeline.families.table import FAMILIES


def dense_shape(shape: StockShape) -> StockShape:
    """The shape of the stock model itself."""
    return StockShape.of_config(config_of(shape))


def config_of(shape: StockShape) -> PreTrainedConfig:
    """The stock config, of the dense widths."""
    return AutoConfig.for_model(**{"model_type": shape.family, **shape.config})


def stock_class(config: PreTrainedConfig, auto_class: str) -> type[PreTrainedModel]:
    """The class that `auto_class`, such as AutoModelForMaskedLM, takes for a config. Raises ValueError for none."""
    mapping = getattr(transformers, auto_class)._model_mapping
    if type(config) not in mapping:
        raise ValueError(f"transformers has no {auto_class} for model type {config.model_type!r}")
    return mapping[type(config)]


def build_stock(shape: StockShape, auto_class: str, *, seed: int, **config_changes: Any) -> PreTrainedModel:
    """A model of this shape on the CPU in fp32, initialised from `seed` alone; `config_changes` such as num_labels."""
    config = config_of(shape)
    for name, value in config_changes.items():
        setattr(config, name, value)
    stock = stock_class(config, auto_class)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if shape.layers == dense_shape(shape).layers:
            return stock(config)
        config.narrow = narrow_shapes(shape, stock)
        return getattr(modeling_narrow, f"Narrow{stock.__name__}")(config)


def narrow_shapes(shape: StockShape, stock: type[PreTrainedModel]) -> dict[str, list[int]]:
    """For `modeling_narrow`: the shape of every tensor with units, by its name in the base model."""
    dense = dense_shape(shape)
    with torch.device("meta"):
        state = dict(stock(config_of(shape)).named_parameters())
    found = {}
    for name, (slot, layer) in FAMILIES[shape.family].find(state, dense).items():
        size = list(state[name].shape)
        size[slot.axis] = slot.blocks * num_units(shape, slot.group, layer) * unit_size(shape, slot.group)
        found[name.removeprefix(f"{stock.base_model_prefix}.")] = size
    return found


@contextmanager
def gates_in(model: nn.Module, shape: StockShape, gates: Any) -> Iterator[nn.Module]:
    """The model with gates at its units while the block runs: `heads` (heads of l,) and `neurons` (neurons of l,).

    A gate multiplies what the unit hands on, in its own type. The hooks go with the block, however it ends.
    """
    handles = []
    modules = dict(model.named_modules())
    try:
        for name, (slot, layer) in FAMILIES[shape.family].find(dict(model.named_parameters()), shape).items():
            if slot.folds:
                gate = (gates.heads if slot.group == "heads" else gates.neurons)[layer]
                hook = _multiply(gate, unit_size(shape, slot.group))
                handles.append(modules[name.rpartition(".")[0]].register_forward_pre_hook(hook))
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _multiply(gate: Tensor, size: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        units, *rest = inputs
        return (units * gate.repeat_interleave(size).to(units.dtype), *rest)

    return hook


def compact_config(shape: StockShape, auto_class: str) -> PreTrainedConfig:
    """The config that a narrow model leaves with; `modeling_narrow.py` goes beside it."""
    config = config_of(shape)
    stock = stock_class(config, auto_class)
    config.narrow = narrow_shapes(shape, stock)
    config.architectures = [f"Narrow{stock.__name__}"]
    source = modeling_narrow.__name__.rpartition(".")[2]
    config.auto_map = {
        name: f"{source}.Narrow{stock_class(config, name).__name__}" for name in ("AutoModel", auto_class)
    }
    return config
