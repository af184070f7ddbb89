"""Building models from a shape, and the exact mapping between our tensors and Hugging Face's BERT families.

A state is `{name: tensor for named_parameters()}` of SlimBertForMaskedLM; the tied decoder is in it once.
Knows nothing of tickets, recipes or training.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, EsmConfig, PreTrainedConfig, RobertaConfig, RobertaPreLayerNormConfig
from typing_extensions import TypeVar

from pipeline.families.head import Head
from pipeline.families.modeling_slim_bert import SlimBertConfig, SlimBertForMaskedLM, SlimBertPreTrainedModel
from pipeline.families.shape import EncoderShape, LayerShape

State = dict[str, Tensor]
ModelT = TypeVar("ModelT", bound=SlimBertPreTrainedModel, default=SlimBertForMaskedLM)

_PREFIXES = {"bert": "bert.", "roberta": "roberta.", "roberta-prelayernorm": "roberta_prelayernorm.", "esm": "esm."}
_CONFIGS = {
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "roberta-prelayernorm": RobertaPreLayerNormConfig,
    "esm": EsmConfig,
}
_HEAD = {
    "bert": {
        "lm_head.bias": "cls.predictions.bias",
        "lm_head.dense": "cls.predictions.transform.dense",
        "lm_head.norm": "cls.predictions.transform.LayerNorm",
    },
    "roberta": {"lm_head.bias": "lm_head.bias", "lm_head.dense": "lm_head.dense", "lm_head.norm": "lm_head.layer_norm"},
}
_HEAD["roberta-prelayernorm"] = _HEAD["esm"] = _HEAD["roberta"]
_DECODER = {"bert": "cls.predictions.decoder", "roberta": "lm_head.decoder"}
_DECODER["roberta-prelayernorm"] = _DECODER["esm"] = _DECODER["roberta"]
_SENTENCE_HEAD = {"pooler.dense": "bert.pooler.dense", "sentence": "cls.seq_relationship"}
# Parts of a published checkpoint that a masked-LM encoder has no use for.
_NOT_OURS = re.compile(
    r"(^|\.)pooler\.|^cls\.seq_relationship\.|embeddings\.(position_ids|token_type_ids)$"
    r"|(^|\.)contact_head\.|rotary_embeddings\.inv_freq$"
)


def config_from_shape(shape: EncoderShape) -> SlimBertConfig:
    """The transformers config of a shape."""
    return SlimBertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        head_size=shape.head_size,
        heads_per_layer=[layer.heads for layer in shape.layers],
        ffn_per_layer=[layer.ffn for layer in shape.layers],
        max_position_embeddings=shape.max_positions,
        type_vocab_size=shape.type_vocab_size,
        norm=shape.norm,
        hidden_act=shape.activation,
        layer_norm_eps=shape.layer_norm_eps,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.attention_dropout,
        initializer_range=shape.initializer_range,
        pad_token_id=shape.pad_token_id,
        position_offset=shape.position_offset,
        positions=shape.positions,
        rope_theta=shape.rope_theta,
        sentence_head=shape.sentence_head,
    )


def shape_from_config(config: SlimBertConfig) -> EncoderShape:
    """The shape a SlimBertConfig describes; the inverse of `config_from_shape`."""
    return EncoderShape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        head_size=config.head_size,
        layers=tuple(
            LayerShape(heads, ffn) for heads, ffn in zip(config.heads_per_layer, config.ffn_per_layer, strict=True)
        ),
        max_positions=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        norm=config.norm,
        activation=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        initializer_range=config.initializer_range,
        pad_token_id=config.pad_token_id,
        position_offset=config.position_offset,
        positions=config.positions,
        rope_theta=config.rope_theta,
        sentence_head=config.sentence_head,
    )


def build_model(
    shape: EncoderShape,
    cls: type[ModelT] = SlimBertForMaskedLM,
    *,
    seed: int,
    num_labels: int | None = None,
    classifier_pooler: bool = False,
) -> ModelT:
    """A model of class `cls` on the CPU in fp32, initialised from `seed` alone.

    The global random state is the same before and after. The last two arguments matter to the
    classification class only (see `SlimBertForSequenceClassification`).
    """
    config = config_from_shape(shape)
    if num_labels is not None:
        config.num_labels = num_labels
    config.classifier_pooler = classifier_pooler
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(config)


def name_labels(config: PreTrainedConfig, head: Head) -> None:
    """Give a classifier's config its labels, in transformers' terms."""
    if head.objective != "classification":
        return
    config.num_labels, config.problem_type = head.num_outputs, head.problem_type
    if head.labels:
        config.id2label = dict(enumerate(head.labels))
        config.label2id = {name: number for number, name in enumerate(head.labels)}


def read_state(model: torch.nn.Module) -> State:
    """A detached copy of every parameter by name, shared ones once."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def load_state(model: torch.nn.Module, state: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copy `state` into the parameters of `model` whose names start with `prefix`, all of them and no others.

    With prefix "encoder." a masked-LM state fills the encoder of a classifier, whose head stays as it is.
    Raises ValueError naming the tensors that are missing, left over or of another shape.
    """
    mine = {name: value for name, value in model.named_parameters() if name.startswith(prefix)}
    theirs = {name: value for name, value in state.items() if name.startswith(prefix)}
    problems = [f"{name} is missing" for name in sorted(set(mine) - set(theirs))]
    problems += [f"{name} is not in the model" for name in sorted(set(theirs) - set(mine))]
    problems += [
        f"{name} is {tuple(theirs[name].shape)}, the model has {tuple(value.shape)}"
        for name, value in mine.items()
        if name in theirs and theirs[name].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ValueError(f"the state does not fit the model: {shown}")
    with torch.no_grad():
        for name, value in mine.items():
            value.copy_(theirs[name])


def _modules(model_type: str, num_layers: int) -> Iterator[tuple[str, str]]:
    """(our module, their module below the prefix) for every weight-and-bias pair but q, k, v."""
    pre, rotary = model_type in ("roberta-prelayernorm", "esm"), model_type == "esm"
    yield "encoder.embeddings.norm", "embeddings.layer_norm" if rotary else "embeddings.LayerNorm"
    for i in range(num_layers):
        ours, theirs = f"encoder.layers.{i}", f"encoder.layer.{i}"
        yield f"{ours}.attention.output", f"{theirs}.attention.output.dense"
        yield f"{ours}.ffn.up", f"{theirs}.intermediate.dense"
        yield f"{ours}.ffn.down", f"{theirs}.output.dense"
        attention_norm = "attention.LayerNorm" if pre else "attention.output.LayerNorm"
        yield f"{ours}.attention_norm", f"{theirs}.{attention_norm}"
        ffn_norm = "LayerNorm" if rotary else "intermediate.LayerNorm" if pre else "output.LayerNorm"
        yield f"{ours}.ffn_norm", f"{theirs}.{ffn_norm}"
    if pre:
        yield "encoder.final_norm", "encoder.emb_layer_norm_after" if rotary else "LayerNorm"


def _qkv_names(layer: int, kind: str) -> tuple[str, list[str]]:
    theirs = f"encoder.layer.{layer}.attention.self"
    return (
        f"encoder.layers.{layer}.attention.qkv.{kind}",
        [f"{theirs}.{part}.{kind}" for part in ("query", "key", "value")],
    )


def _shape_from_hf(config: PreTrainedConfig) -> EncoderShape:
    if config.model_type not in _PREFIXES:
        raise ValueError(f"model type {config.model_type!r} is not supported; supported are {', '.join(_PREFIXES)}")
    if config.is_decoder or config.add_cross_attention:
        raise ValueError("a decoder or cross-attention model cannot become a bidirectional encoder")
    rotary = config.model_type == "esm"
    positions, wanted = (
        getattr(config, "position_embedding_type", None) or "absolute",
        "rotary" if rotary else "absolute",
    )
    if positions != wanted:
        raise ValueError(f"position_embedding_type {positions!r} is not supported, only {wanted!r}")
    if rotary and (config.token_dropout or not config.emb_layer_norm_before):
        raise ValueError("an esm model needs emb_layer_norm_before true and token_dropout false to become this encoder")
    if config.pad_token_id is None:
        raise ValueError("the config has no pad_token_id; set it to the padding id of the tokenizer")
    _check_activation(config.model_type, _activation(config))
    return EncoderShape.uniform(
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        ffn=config.intermediate_size,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        max_positions=config.max_position_embeddings,
        type_vocab_size=0 if rotary else config.type_vocab_size,
        norm="pre" if config.model_type in ("roberta-prelayernorm", "esm") else "post",
        activation=_activation(config),
        layer_norm_eps=config.layer_norm_eps,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        initializer_range=config.initializer_range,
        pad_token_id=config.pad_token_id,
        position_offset=0 if config.model_type in ("bert", "esm") else config.pad_token_id + 1,
        positions="rotary" if rotary else "absolute",
        rope_theta=config.rope_theta if rotary else 10_000.0,
    )


def _activation(config: PreTrainedConfig) -> str:
    # The config of ESM does not say it: its classes know no other.
    return "gelu" if config.model_type == "esm" else config.hidden_act


def _check_activation(model_type: str, activation: str) -> None:
    # The LM head of the RoBERTa classes is hard-wired to gelu, ours follows the activation of the layers.
    if model_type != "bert" and activation != "gelu":
        raise ValueError(
            f"a {model_type} model uses gelu in its LM head whatever hidden_act says, so activation "
            f"{activation!r} cannot be mapped; use 'gelu'"
        )


def _normalised(hf_state: Mapping[str, Tensor], prefix: str) -> State:
    """Their state with full names: gamma and beta of old files renamed, a bare encoder given its prefix."""
    state = {}
    bare = not any(name.startswith(prefix) for name in hf_state)
    for name, value in hf_state.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if bare and not name.startswith(("cls.", "lm_head.")):
            name = prefix + name
        state[name] = value
    return state


def _take(state: State, name: str) -> Tensor:
    if name not in state:
        raise ValueError(f"the Hugging Face state has no tensor {name!r}")
    return state.pop(name)


def encoder_state_from_hf(hf_state: Mapping[str, Tensor], hf_config: PreTrainedConfig) -> tuple[State, EncoderShape]:
    """The `encoder.*` tensors of a published encoder and its shape, with or without a head.

    Names may start with the model's prefix ("bert.") or be those of a bare BertModel, as MiniLM's are.
    A masked-LM head, the pooler and the next-sentence head are left out. Raises ValueError on any other
    tensor that is missing or unknown.
    """
    full = _normalised(hf_state, _PREFIXES.get(hf_config.model_type, ""))
    without_head = {name: x for name, x in full.items() if not name.startswith(("cls.", "lm_head."))}
    return _encoder_from_hf(without_head, hf_config)


def _encoder_from_hf(rest: State, hf_config: PreTrainedConfig) -> tuple[State, EncoderShape]:
    """Takes the encoder's tensors out of `rest`; raises ValueError when anything unknown stays."""
    shape = _shape_from_hf(hf_config)
    prefix = _PREFIXES[hf_config.model_type]
    state: State = {}
    is_there = {"word": True, "position": shape.positions == "absolute", "token_type": shape.type_vocab_size > 0}
    for table in (table for table, found in is_there.items() if found):
        state[f"encoder.embeddings.{table}.weight"] = _take(rest, f"{prefix}embeddings.{table}_embeddings.weight")
    for i in range(len(shape.layers)):
        for kind in ("weight", "bias"):
            fused, parts = _qkv_names(i, kind)
            state[fused] = torch.cat([_take(rest, prefix + part) for part in parts])
    for ours, theirs in _modules(hf_config.model_type, len(shape.layers)):
        for kind in ("weight", "bias"):
            state[f"{ours}.{kind}"] = _take(rest, f"{prefix}{theirs}.{kind}")
    unknown = sorted(name for name in rest if not _NOT_OURS.search(name))
    if unknown:
        raise ValueError(f"the Hugging Face state has tensors this encoder does not know: {unknown[:5]}")
    return state, shape


def state_from_hf(
    hf_state: Mapping[str, Tensor], hf_config: PreTrainedConfig, *, sentence_head: bool = False
) -> tuple[State, EncoderShape]:
    """Our state and shape of a published masked-LM model (bert, roberta, roberta-prelayernorm).

    With `sentence_head` the pooler and the next-sentence head of a bert come along (BertForPreTraining);
    without it they are left out. Raises ValueError for other families, untied decoders, missing tensors (a
    model without an LM head: use `encoder_state_from_hf`) and unknown ones.
    """
    kind = hf_config.model_type
    if sentence_head and kind != "bert":
        raise ValueError(f"a {kind} model has no sentence head, only a bert one (BertForPreTraining) has")
    rest = _normalised(hf_state, _PREFIXES.get(kind, ""))
    _shape_from_hf(hf_config)
    head: State = {"lm_head.bias": _take(rest, _HEAD[kind]["lm_head.bias"])}
    for module in ("lm_head.dense", "lm_head.norm"):
        for part in ("weight", "bias"):
            head[f"{module}.{part}"] = _take(rest, f"{_HEAD[kind][module]}.{part}")
    tied = {
        f"{_DECODER[kind]}.weight": rest.get(f"{_PREFIXES[kind]}embeddings.word_embeddings.weight"),
        f"{_DECODER[kind]}.bias": head["lm_head.bias"],
    }
    for name, partner in tied.items():
        copy = rest.pop(name, None)
        if copy is not None and (partner is None or not torch.equal(copy, partner)):
            raise ValueError(f"{name} differs from the tensor it is tied to: untied decoders do not fit")
    if sentence_head:
        for ours, theirs in _SENTENCE_HEAD.items():
            for part in ("weight", "bias"):
                head[f"{ours}.{part}"] = _take(rest, f"{theirs}.{part}")
    state, shape = _encoder_from_hf(rest, hf_config)
    return {**state, **head}, replace(shape, sentence_head=sentence_head)


def stock_family(shape: EncoderShape) -> str:
    """The family of transformers that computes what this shape does, once its layers are even.

    Pre-LN is roberta-prelayernorm, or esm with rotary positions; post-LN is bert, or roberta when it has a position
    offset.
    """
    if shape.positions == "rotary":
        if shape.norm != "pre" or shape.type_vocab_size:
            raise ValueError("no stock class has rotary positions and post-LN, or token types")
        return "esm"
    return "roberta-prelayernorm" if shape.norm == "pre" else "roberta" if shape.position_offset else "bert"


def drop_sentence_head(state: Mapping[str, Tensor], shape: EncoderShape) -> tuple[State, EncoderShape]:
    """The same masked-LM model without a sentence head."""
    gone = {f"{module}.{part}" for module in _SENTENCE_HEAD for part in ("weight", "bias")}
    return {name: x for name, x in state.items() if name not in gone}, replace(shape, sentence_head=False)


def state_to_hf(state: Mapping[str, Tensor], shape: EncoderShape) -> tuple[State, PreTrainedConfig]:
    """The state and config of the stock class that computes the same: the tied decoder is left out of it.

    The class is the masked-LM one of `stock_family`; BertForPreTraining for a bert with a sentence head, the one for
    sequence classification for a classifier.
    Where the stock class wants rows that ours lacks, they are zeros that change no output: a type table of
    two rows when there is none, and RoBERTa's position rows up to the padding id. Raises ValueError for
    a shape that no stock class has (uneven layers, heads that do not fill the hidden size, a sentence head
    that is not a bert's).
    """
    if not shape.is_uniform:
        raise ValueError(
            "no stock class has layers of different widths or heads that do not fill the hidden size "
            f"(heads {[x.heads for x in shape.layers]} of {shape.head_size}, neurons "
            f"{[x.ffn for x in shape.layers]}, hidden size {shape.hidden_size}); expand the state first"
        )
    kind = stock_family(shape)
    if shape.sentence_head and kind != "bert":
        raise ValueError(f"no stock class of family {kind!r} has a sentence head; drop it first (drop_sentence_head)")
    _check_activation(kind, shape.activation)
    prefix = _PREFIXES[kind]
    hf_state: State = {f"{prefix}embeddings.word_embeddings.weight": state["encoder.embeddings.word.weight"]}
    kept, special = (_rotary_parts if kind == "esm" else _table_parts)(state, shape, kind)
    hf_state |= {f"{prefix}{name}": value for name, value in kept.items()}
    for i in range(len(shape.layers)):
        for part in ("weight", "bias"):
            fused, names = _qkv_names(i, part)
            for name, value in zip(names, state[fused].chunk(3), strict=True):
                hf_state[prefix + name] = value.clone()
    for ours, theirs in _modules(kind, len(shape.layers)):
        for part in ("weight", "bias"):
            hf_state[f"{prefix}{theirs}.{part}"] = state[f"{ours}.{part}"]
    if shape.is_classifier:
        hf_state |= _classifier_to_hf(state, shape, kind)
    else:
        hf_state[_HEAD[kind]["lm_head.bias"]] = state["lm_head.bias"]
        for module in ("lm_head.dense", "lm_head.norm"):
            for part in ("weight", "bias"):
                hf_state[f"{_HEAD[kind][module]}.{part}"] = state[f"{module}.{part}"]
    for ours, theirs in _SENTENCE_HEAD.items() if shape.sentence_head else ():
        for part in ("weight", "bias"):
            hf_state[f"{theirs}.{part}"] = state[f"{ours}.{part}"]
    fields: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": len(shape.layers),
        "num_attention_heads": shape.layers[0].heads,
        "intermediate_size": shape.layers[0].ffn,
        "hidden_dropout_prob": shape.dropout,
        "attention_probs_dropout_prob": shape.attention_dropout,
        "initializer_range": shape.initializer_range,
        "layer_norm_eps": shape.layer_norm_eps,
        "pad_token_id": shape.pad_token_id,
    }
    return hf_state, _CONFIGS[kind](**fields, **special)


def _classifier_to_hf(state: Mapping[str, Tensor], shape: EncoderShape, kind: str) -> State:
    """Both our classifiers are dense, tanh and a projection of the first token, and so are BERT's and RoBERTa's."""
    ours = ("pooler.dense", "classifier") if shape.pooler else ("classifier.dense", "classifier.out_proj")
    theirs = ("bert.pooler.dense", "classifier") if kind == "bert" else ("classifier.dense", "classifier.out_proj")
    names = zip(ours, theirs, strict=True)
    return {f"{their}.{part}": state[f"{our}.{part}"] for our, their in names for part in ("weight", "bias")}


def _table_parts(state: Mapping[str, Tensor], shape: EncoderShape, kind: str) -> tuple[State, dict[str, Any]]:
    """What a stock class with tables of positions and token types has besides: tensors, and fields of its config."""
    word, position = state["encoder.embeddings.word.weight"], state["encoder.embeddings.position.weight"]
    missing_rows = (0 if kind == "bert" else shape.pad_token_id + 1) - shape.position_offset
    if missing_rows >= 0:
        position = torch.cat([position.new_zeros(missing_rows, shape.hidden_size), position])
    else:
        position = position[-missing_rows:].clone()
    token_type = (
        state["encoder.embeddings.token_type.weight"] if shape.type_vocab_size else word.new_zeros(2, shape.hidden_size)
    )
    tensors = {"embeddings.position_embeddings.weight": position, "embeddings.token_type_embeddings.weight": token_type}
    return tensors, {
        "hidden_act": shape.activation,
        "max_position_embeddings": position.shape[0],
        "type_vocab_size": token_type.shape[0],
    }


def _rotary_parts(state: Mapping[str, Tensor], shape: EncoderShape, kind: str) -> tuple[State, dict[str, Any]]:
    """The same of ESM's, which has rotary positions; its head that guesses contacts of proteins is zeros."""
    powers = torch.arange(0, shape.head_size, 2, dtype=torch.float32) / shape.head_size
    tensors = {
        "rotary_embeddings.inv_freq": 1.0 / shape.rope_theta**powers,
        "contact_head.regression.weight": torch.zeros(1, sum(layer.heads for layer in shape.layers)),
        "contact_head.regression.bias": torch.zeros(1),
    }
    return tensors, {
        "max_position_embeddings": shape.max_positions,
        "position_embedding_type": "rotary",
        "rope_theta": shape.rope_theta,
        "emb_layer_norm_before": True,
        "token_dropout": False,
    }
