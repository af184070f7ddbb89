"""A classifier on top of a pre-trained model folder: ours, or a stock BERT or RoBERTa.

Knows nothing of data, engines or training.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig

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


def read_pretrained(folder: Path) -> Pretrained:
    """The encoder of a model folder: ours (`slim_bert`), or a stock bert, roberta or roberta-prelayernorm one.

    Language-model heads are left behind. Raises UserError for other families, pickled weights and damaged folders.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{folder} has no *.safetensors; pickled weights are not read: load the model and save_pretrained it again"
        )
    state: State = {}
    for path in files:
        try:
            state |= load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged ({error}); fetch or export it again") from error
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    try:
        if kind == SlimBertConfig.model_type:
            shape = shape_from_config(SlimBertConfig.from_pretrained(folder))
            parts = ({k: v for k, v in state.items() if k.startswith(part)} for part in ("encoder.", "pooler."))
            return Pretrained(folder, shape, *parts)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
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
    model = build_model(
        shape,
        SlimBertForSequenceClassification,
        seed=seed,
        num_labels=task.num_outputs,
        problem_type="regression" if task.is_regression else "single_label_classification",
        classifier_pooler=bool(pretrained.pooler),
    )
    try:
        load_state(model, pretrained.encoder, prefix="encoder.")
        if pretrained.pooler:
            load_state(model, pretrained.pooler, prefix="pooler.")
    except ValueError as error:
        raise UserError(f"the weights in {pretrained.folder} do not fit its config.json: {error}") from error
    return model
