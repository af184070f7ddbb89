"""Stock classes of transformers whose layers each have their own number of attention heads and FFN neurons.

This file travels with every exported model and needs torch and transformers only. The config is the stock one of the
dense model, with the sizes of the tensors that are narrower in `narrow`: name of a tensor, and its shape. A class
`NarrowX` is the stock class X, made narrow as soon as it is there: `NarrowBertForMaskedLM`, `NarrowGPT2LMHeadModel`.
"""

from typing import Any

import transformers
from torch import nn
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.pytorch_utils import Conv1D


def narrow(model: nn.Module, shapes: dict[str, list[int]]) -> None:
    """Give the parameters of `model` that `shapes` names these shapes, in place: the first of their numbers stay.

    The names are those of the base model, without its prefix in a model with a head. Raises ValueError for
    one that is not there.
    """
    modules = dict(model.named_modules())
    for name, shape in shapes.items():
        path, _, kind = name.rpartition(".")
        module = modules.get(path) or modules.get(f"{getattr(model, 'base_model_prefix', '')}.{path}")
        if module is None or getattr(module, kind, None) is None:
            raise ValueError(f"{type(model).__name__} has no parameter {name} to make narrow")
        whole = getattr(module, kind)
        part = whole.detach()[tuple(slice(size) for size in shape)].clone()
        setattr(module, kind, nn.Parameter(part, requires_grad=whole.requires_grad))
        if isinstance(module, nn.Linear) and kind == "weight":
            module.out_features, module.in_features = shape
        elif isinstance(module, Conv1D) and kind == "weight":
            module.nx, module.nf = shape
    for module in modules.values():
        if isinstance(module, GPT2Attention) and not module.is_cross_attention:
            module.split_size = module.c_attn.nf // 3


def __getattr__(name: str) -> Any:
    stock = getattr(transformers, name.removeprefix("Narrow"), None) if name.startswith("Narrow") else None
    if not (isinstance(stock, type) and issubclass(stock, nn.Module)):
        raise AttributeError(f"there is no {name} in {__name__}")

    def begin(self: Any, config: Any, *inputs: Any, **more: Any) -> None:
        super(made, self).__init__(config, *inputs, **more)
        narrow(self, config.narrow)

    made: Any = type(name, (stock,), {"__init__": begin, "__module__": __name__, "__doc__": stock.__doc__})
    globals()[name] = made
    return made
