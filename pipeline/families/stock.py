"""Stock models of transformers at any widths: their shapes, built, and as they leave for strangers.

No modelling code has to know of widths: the attention of transformers takes as many heads as its matrices hold.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from pipeline.families import modeling_narrow
from pipeline.families.family import Family, num_units, unit_size
from pipeline.families.head import Head
from pipeline.families.hf import name_labels
from pipeline.families.shape import LayerShape
from pipeline.families.stock_shape import StockShape
from pipeline.families.table import FAMILIES

# Of a config.json, what says where it came from and not what it computes.
_ORIGIN = ("_name_or_path", "transformers_version", "architectures", "auto_map", "narrow", "dtype")


def family_of(config: PreTrainedConfig, head: Head) -> Family:
    """The family of a config. Raises ValueError for a model that is of none, or of one without such a head."""
    family = FAMILIES.get(config.model_type)
    if family is None or family.name == "slim_bert":
        raise ValueError(f"model type {config.model_type!r} is of no family known here: {', '.join(FAMILIES)}")
    if getattr(config, "add_cross_attention", False):
        raise ValueError("a model with cross-attention has units that no family here describes")
    if not family.objectives:
        raise ValueError(f"{family.name} models are written here and not trained")
    if head.objective not in family.objectives:
        raise ValueError(f"{family.name} models learn {' or '.join(family.objectives)}, not {head.objective}")
    return family


def stock_shape(config: PreTrainedConfig, head: Head) -> StockShape:
    """The dense shape of a config's model with this head. Raises ValueError as `family_of`."""
    family = family_of(config, head)
    name_labels(config, head)
    hidden, heads = config.hidden_size, getattr(config, family.heads)
    neurons = getattr(config, family.neurons, None) or 4 * hidden  # GPT-2 says None
    layers = (LayerShape(heads, neurons),) * config.num_hidden_layers
    values = {k: v for k, v in json.loads(config.to_json_string(use_diff=False)).items() if k not in _ORIGIN}
    # The counts come last: they are read off the model of the rest.
    shape = StockShape(family.name, values, layers, hidden // heads, hidden, head.auto_class, 0, 0, 0, 0)
    model = _on_meta(shape)
    state = dict(model.named_parameters())
    units = {"heads": 0, "neurons": 0}
    for name, (slot, layer) in family.find(state, shape).items():
        if layer == 0:
            units[slot.group] += state[name].numel() // num_units(shape, slot.group, layer)
    behind = sum(
        x.numel() for name, x in state.items() if x.dim() == 2 and not name.startswith(f"{model.base_model_prefix}.")
    )
    if head.objective != "classification" and config.tie_word_embeddings:
        behind += config.vocab_size * hidden
    parameters = sum(x.numel() for x in state.values())
    return StockShape(
        family.name, values, layers, hidden // heads, hidden, head.auto_class,
        parameters, units["heads"], units["neurons"], behind,
    )  # fmt: skip


def _on_meta(shape: StockShape) -> PreTrainedModel:
    config = config_of(shape)
    with torch.device("meta"):
        return stock_class(config, shape.auto_class)(config)


def config_of(shape: StockShape) -> PreTrainedConfig:
    """The stock config, of the dense widths."""
    return AutoConfig.for_model(**{"model_type": shape.family, **shape.config})


def stock_class(config: PreTrainedConfig, auto_class: str) -> type[PreTrainedModel]:
    """The class that `auto_class`, such as AutoModelForMaskedLM, takes for a config. Raises ValueError for none."""
    mapping = getattr(transformers, auto_class)._model_mapping
    if type(config) not in mapping:
        raise ValueError(f"transformers has no {auto_class} for model type {config.model_type!r}")
    return mapping[type(config)]


def build_stock(shape: StockShape, *, seed: int) -> PreTrainedModel:
    """A model of this shape on the CPU in fp32, initialised from `seed` alone."""
    config, made = _config_and_class(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return made(config)


def load_stock(shape: StockShape, weights: Mapping[str, Tensor], *, seed: int) -> tuple[PreTrainedModel, set[str]]:
    """The model with these weights, and the names of what they lack, which is drawn from `seed`.

    The names of `weights` are those of the class, of its base model, or of older files; tensors that the model does
    not have are left out. Raises ValueError or RuntimeError where tensors of the base model are missing or of other
    sizes.
    """
    config, made = _config_and_class(shape)
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, info = made.from_pretrained(
                None, config=config, state_dict=dict(weights), dtype=torch.float32, output_loading_info=True
            )
    finally:
        transformers.logging.set_verbosity(before)
        transformers.logging.enable_progress_bar()
    missing = set(info["missing_keys"])
    of_base = sorted(x for x in missing if x.startswith(f"{made.base_model_prefix}.") and ".pooler." not in x)
    if of_base:
        raise ValueError(f"{of_base[0]} is missing" + (f", and {len(of_base) - 1} more" if len(of_base) > 1 else ""))
    return model.train(), missing


def _config_and_class(shape: StockShape) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    config = config_of(shape)
    stock = stock_class(config, shape.auto_class)
    if shape.layers == shape.dense().layers:
        return config, stock
    config.narrow = narrow_shapes(shape)
    return config, getattr(modeling_narrow, f"Narrow{stock.__name__}")


def narrow_shapes(shape: StockShape) -> dict[str, list[int]]:
    """For `modeling_narrow`: the shape of every tensor with units, by its name in the base model."""
    model = _on_meta(shape)
    state = dict(model.named_parameters())
    found = {}
    for name, (slot, layer) in FAMILIES[shape.family].find(state, shape.dense()).items():
        size = list(state[name].shape)
        size[slot.axis] = slot.blocks * num_units(shape, slot.group, layer) * unit_size(shape, slot.group)
        found[name.removeprefix(f"{model.base_model_prefix}.")] = size
    return found


def layers_of(narrow: Mapping[str, list[int]], dense: StockShape) -> tuple[LayerShape, ...]:
    """The widths that a folder's `narrow` says: the inverse of `narrow_shapes`. Raises ValueError where it does not."""
    widths: dict[tuple[str, int], int] = {}
    model = _on_meta(dense)
    for name, (slot, layer) in FAMILIES[dense.family].find(dict(model.named_parameters()), dense).items():
        size = narrow.get(name.removeprefix(f"{model.base_model_prefix}."))
        if slot.folds and size is not None:
            widths[slot.group, layer] = size[slot.axis] // unit_size(dense, slot.group)
    try:
        return tuple(LayerShape(widths["heads", i], widths["neurons", i]) for i in range(len(dense.layers)))
    except KeyError as error:
        raise ValueError(f"config.json says nothing of the {error.args[0][0]} of layer {error.args[0][1]}") from None


def leaving_config(shape: StockShape) -> PreTrainedConfig:
    """The config a model leaves with; `modeling_narrow.py` goes beside it where layers are narrow."""
    config = config_of(shape)
    stock = stock_class(config, shape.auto_class)
    config.architectures = [stock.__name__]
    if shape.layers != shape.dense().layers:
        config.narrow = narrow_shapes(shape)
        config.architectures = [f"Narrow{stock.__name__}"]
        source = modeling_narrow.__name__.rpartition(".")[2]
        config.auto_map = {
            name: f"{source}.Narrow{stock_class(config, name).__name__}" for name in ("AutoModel", shape.auto_class)
        }
    return config


def random_shape(
    name: str, sizes: Mapping[str, Any], head: Head, dropout: float, attention_dropout: float
) -> StockShape:
    """The dense shape of a model of this family that is drawn at random; `sizes` are fields of a config under BERT's
    names."""
    family, fields = FAMILIES[name], dict(sizes)
    fields[family.neurons] = fields.pop("intermediate_size")
    if family.first_position is not None:
        fields["max_position_embeddings"] += fields["pad_token_id"] + family.first_position
    config = AutoConfig.for_model(name, **fields)
    set_dropout(config, head, dropout, attention_dropout)
    return stock_shape(config, head)


def set_dropout(config: PreTrainedConfig, head: Head, dropout: float, attention_dropout: float) -> None:
    """Give all dropouts that a model with this head has these probabilities, under its family's names for them."""
    family = FAMILIES[config.model_type]
    names = (*family.dropouts, *([family.classifier_dropout] if head.objective == "classification" else []))
    for name in names:
        setattr(config, name, dropout)
    for name in family.attention_dropouts:
        setattr(config, name, attention_dropout)
