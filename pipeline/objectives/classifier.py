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
from pipeline.objectives.tasks import Task

State = dict[str, torch.Tensor]
# Of what a checkpoint was fine-tuned for: classes of texts or of tokens, answers in a text.
_HEADS = ("classifier.", "qa_outputs.")


@dataclass(frozen=True)
class Pretrained:
    """An encoder to start from. `pooler` holds BERT's `pooler.dense.*` where the folder has one.

    `head` holds the tensors of what the checkpoint was fine-tuned for, and `config` is what its config.json says.
    """

    folder: Path
    shape: EncoderShape
    encoder: State
    pooler: State
    head: State
    config: dict[str, Any]


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

    Language-model heads are left behind, others kept aside. Raises UserError for other families, pickled weights and
    damaged folders.
    """
    state: State = {}
    for path in weight_files(folder):
        try:
            state |= load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged ({error}); fetch or export it again") from error
    said = read_config(folder)
    config = _known_config(folder)
    head = {name: state.pop(name) for name in [*state] if name.startswith(_HEADS)}
    try:
        if isinstance(config, SlimBertConfig):
            encoder, pooler = (
                {name: x for name, x in state.items() if name.startswith(part)} for part in ("encoder.", "pooler.")
            )
            return Pretrained(folder, shape_from_config(config), encoder, pooler, head, said)
        encoder, shape = encoder_state_from_hf(state, config)
    except ValueError as error:
        raise UserError(f"{folder} cannot be fine-tuned: {error}") from error
    prefix = "bert." if any(name.startswith("bert.") for name in state) else ""
    names = {f"{prefix}pooler.dense.{part}": f"pooler.dense.{part}" for part in ("weight", "bias")}
    # RoBERTa was not pre-trained with a pooler and its classifier has none.
    has_pooler = said.get("model_type") == "bert" and all(name in state for name in names)
    pooler = {ours: state[name] for name, ours in names.items()} if has_pooler else {}
    return Pretrained(folder, shape, encoder, pooler, head, said)


def what_of_head(pretrained: Pretrained, task: Task) -> str:
    """What becomes of the head on a checkpoint, in words; empty where there is none."""
    if not pretrained.head:
        return ""
    why = _why_dropped(pretrained, task)
    if why is None:
        return f"the classifier of {pretrained.folder} is kept: its labels are those of {task.name}"
    return f"the head of {pretrained.folder} is dropped and {task.name} gets a new one: {why}"


def _why_dropped(pretrained: Pretrained, task: Task) -> str | None:
    """Why the head on a checkpoint cannot serve the task; None where its labels are the task's."""
    head, config = pretrained.head, pretrained.config
    made_for = [str(name) for name in config.get("architectures") or ()]
    if made_for and not any(name.endswith("ForSequenceClassification") for name in made_for):
        return f"it is of {', '.join(made_for)}"
    scores = "classifier" if pretrained.pooler else "classifier.out_proj"
    others = () if pretrained.pooler else ("classifier.dense.weight", "classifier.dense.bias")
    if head.keys() != {f"{scores}.weight", f"{scores}.bias", *others}:
        return f"it is built otherwise ({', '.join(sorted(head))})"
    count = len(head[f"{scores}.bias"])
    if count != task.num_outputs:
        return f"it has {count} output{'s' * (count > 1)}, the task {task.num_outputs}"
    problem = config.get("problem_type")
    if problem not in (None, _problem(task)):
        return f"it was trained for {problem}, the task is {_problem(task)}"
    names = _label_names(config)
    if names and tuple(name.lower() for name in names) not in (task.labels, task.label_names):
        return f"its labels are {', '.join(names)}, those of the task {', '.join(task.label_names) or 'scores'}"
    return None


def _problem(task: Task) -> str:
    return "regression" if task.is_regression else "single_label_classification"


def _label_names(config: dict[str, Any]) -> tuple[str, ...]:
    """The names of a head's outputs in their order; none where id2label has only transformers' own, LABEL_0 and on."""
    by_id = {int(number): str(name) for number, name in (config.get("id2label") or {}).items()}
    names = tuple(by_id[number] for number in sorted(by_id))
    return () if names == tuple(f"LABEL_{number}" for number in range(len(names))) else names


def build_classifier(
    pretrained: Pretrained, task: Task, dropout: float, seed: int
) -> SlimBertForSequenceClassification:
    """A classifier on the encoder, its new parameters drawn from `seed`.

    With a pre-trained pooler the head is BERT's (pooler, linear), without one RoBERTa's (dense, tanh, linear). A head
    on the checkpoint whose labels are the task's is kept.
    """
    shape = replace(pretrained.shape, dropout=dropout, attention_dropout=dropout)
    try:
        model = build_model(
            shape,
            SlimBertForSequenceClassification,
            seed=seed,
            num_labels=task.num_outputs,
            problem_type=_problem(task),
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
        if pretrained.head and _why_dropped(pretrained, task) is None:
            load_state(model, pretrained.head, prefix="classifier.")
    except ValueError as error:
        raise UserError(f"the weights in {pretrained.folder} do not fit its config.json: {error}") from error
    return model
