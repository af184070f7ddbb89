"""A classifier on top of a pre-trained model folder: ours, or a stock BERT or RoBERTa.

Knows nothing of data, engines or training.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, PreTrainedConfig

from data_prep.errors import UserError
from pipeline.families.hf import build_model, encoder_state_from_hf, load_state, shape_from_config
from pipeline.families.modeling_slim_bert import SlimBertConfig, SlimBertForSequenceClassification
from pipeline.families.shape import EncoderShape
from pipeline.objectives.glue import Task

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Pretrained:
    """An encoder to start from. `pooler` holds BERT's `pooler.dense.*` where the folder has one."""

    folder: Path
    shape: EncoderShape
    encoder: State
    pooler: State


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model folder. Raises UserError where it has none; pickles can run code and are not read."""
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    if any(folder.glob("*.bin")):
        raise UserError(
            f"{folder} has no *.safetensors, and pickled weights are not read: make a folder of it that has them with "
            f"`python -m pipeline convert {folder} NEW_FOLDER`, and name that one"
        )
    raise UserError(f"{folder} has no *.safetensors; load the model where it is whole and save_pretrained it again")


def read_config(folder: Path) -> dict[str, Any]:
    """What a model folder's config.json says. Raises UserError where it is no JSON object."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); fetch or export it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object; fetch or export it again")
    return config


def _known_config(folder: Path) -> PreTrainedConfig:
    """The config as a class of ours or of transformers, never of the folder's own code."""
    is_ours = read_config(folder).get("model_type") == SlimBertConfig.model_type
    reader = SlimBertConfig if is_ours else AutoConfig
    try:
        return reader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds: transformers checks few values itself
        raise UserError(
            f"{folder / 'config.json'} cannot be read by transformers: {' '.join(str(error).split())}; fetch or export "
            "it again"
        ) from error


def read_pretrained(folder: Path) -> Pretrained:
    """The encoder of a model folder: ours (`slim_bert`), or a stock bert, roberta or roberta-prelayernorm one.

    Language-model heads are left behind. Raises UserError for other families, pickled weights and damaged folders.
    """
    state: State = {}
    for path in weight_files(folder):
        try:
            state |= load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged ({error}); fetch or export it again") from error
    kind = read_config(folder).get("model_type")
    config = _known_config(folder)
    try:
        if isinstance(config, SlimBertConfig):
            parts = ({k: v for k, v in state.items() if k.startswith(part)} for part in ("encoder.", "pooler."))
            return Pretrained(folder, shape_from_config(config), *parts)
        encoder, shape = encoder_state_from_hf(state, config)
    except ValueError as error:
        raise UserError(f"{folder} cannot be fine-tuned: {error}") from error
    prefix = "bert." if any(name.startswith("bert.") for name in state) else ""
    names = {f"{prefix}pooler.dense.{part}": f"pooler.dense.{part}" for part in ("weight", "bias")}
    # RoBERTa was not pre-trained with a pooler and its classifier has none.
    has_pooler = kind == "bert" and all(name in state for name in names)
    return Pretrained(folder, shape, encoder, {ours: state[name] for name, ours in names.items()} if has_pooler else {})


def build_classifier(
    pretrained: Pretrained, task: Task, dropout: float, seed: int
) -> SlimBertForSequenceClassification:
    """A classifier on the encoder, its new parameters drawn from `seed`.

    With a pre-trained pooler the head is BERT's (pooler, linear), without one RoBERTa's (dense, tanh, linear).
    """
    shape = replace(pretrained.shape, dropout=dropout, attention_dropout=dropout)
    try:
        model = build_model(
            shape,
            SlimBertForSequenceClassification,
            seed=seed,
            num_labels=task.num_outputs,
            problem_type="regression" if task.is_regression else "single_label_classification",
            classifier_pooler=bool(pretrained.pooler),
        )
    except KeyError as error:
        raise UserError(
            f"{pretrained.folder / 'config.json'} names an activation that transformers has not: {shape.activation!r}"
        ) from error
    try:
        load_state(model, pretrained.encoder, prefix="encoder.")
        if pretrained.pooler:
            load_state(model, pretrained.pooler, prefix="pooler.")
    except ValueError as error:
        raise UserError(f"the weights in {pretrained.folder} do not fit its config.json: {error}") from error
    return model
