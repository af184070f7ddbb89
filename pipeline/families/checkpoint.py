"""A model to go on from: a folder in transformers' form, under the head of another objective.

Read as data: weights from safetensors, the config as a class of ours or of transformers, never a folder's own code.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from data_prep.errors import UserError
from pipeline.families.family import Family
from pipeline.families.head import Head
from pipeline.families.hf import load_state, shape_from_config
from pipeline.families.model_files import read_config, weight_files
from pipeline.families.modeling_slim_bert import SlimBertConfig
from pipeline.families.models import build
from pipeline.families.shape import EncoderShape, Shape
from pipeline.families.stock import family_of, layers_of, load_stock, set_dropout, stock_shape
from pipeline.families.stock_model import StockModel
from pipeline.families.stock_shape import StockShape

State = dict[str, Tensor]
# What a checkpoint was fine-tuned for: classes of texts or of tokens, answers in a text.
_TASK_HEADS = ("classifier.", "pre_classifier.", "score.", "qa_outputs.")
# The last matrix of a classifier, under the names of the families.
_LAST = ("classifier.weight", "out_proj.weight", "score.weight")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder but for the weights. `said`: what its config.json says; `names`: of its tensors."""

    folder: Path
    said: dict[str, Any]
    config: PreTrainedConfig
    names: frozenset[str]

    def weights(self) -> tuple[State, State]:
        """The model's tensors, and those of what it was fine-tuned for. Raises UserError for damaged files."""
        state: State = {}
        for path in weight_files(self.folder):
            try:
                state |= load_file(path)
            except SafetensorError as error:
                raise _damaged(path, error) from error
        head = {name: state.pop(name) for name in [*state] if name.startswith(_TASK_HEADS)}
        return state, head


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


def read_checkpoint(folder: Path) -> Checkpoint:
    """What there is in a model folder. Raises UserError for pickled weights and damaged folders."""
    said = read_config(folder)
    names: set[str] = set()
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                names |= set(file.keys())
        except SafetensorError as error:
            raise _damaged(path, error) from error
    return Checkpoint(folder, said, _known_config(folder), frozenset(names))


def _damaged(path: Path, error: SafetensorError) -> UserError:
    return UserError(f"{path} is damaged ({error}); fetch or export it again")


def shape_of(checkpoint: Checkpoint, head: Head, dropout: float, attention_dropout: float) -> Shape:
    """The shape of a checkpoint's model under this head. Raises UserError for models of no family known here."""
    config = checkpoint.config
    try:
        if isinstance(config, SlimBertConfig):
            return _slim_shape(checkpoint, config, head, dropout, attention_dropout)
        family = family_of(config, head)
        set_dropout(config, head, dropout, attention_dropout)
        _check_padding(checkpoint, family)
        if head.objective == "classification" and config.pad_token_id is None:
            # GPT-2 has none, and its classifier looks for the last token that is not padding.
            config.pad_token_id = _padding_of_tokenizer(checkpoint.folder, config.eos_token_id)
        narrow = getattr(config, "narrow", None)
        dense = stock_shape(config, head)
        return dense if narrow is None else dense.with_layers(layers_of(narrow, dense))
    except ValueError as error:
        raise UserError(f"{checkpoint.folder} cannot be trained: {error}") from error
    except KeyError as error:
        raise _unknown(checkpoint, error) from error


def _check_padding(checkpoint: Checkpoint, family: Family) -> None:
    if family.first_position is not None and checkpoint.config.pad_token_id is None:
        raise ValueError("the config has no pad_token_id; set it to the padding id of the tokenizer")


def _padding_of_tokenizer(folder: Path, otherwise: int) -> int:
    """The id that the folder's tokenizer pads with; `otherwise` where it does not."""
    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False).pad_token_id
    except Exception as error:  # of many kinds, and told again when the tokenizer is read to be used
        raise ValueError(f"transformers cannot read its tokenizer: {' '.join(str(error).split())}") from error
    return otherwise if found is None else int(found)


def _slim_shape(
    checkpoint: Checkpoint, config: SlimBertConfig, head: Head, dropout: float, attention_dropout: float
) -> EncoderShape:
    shape = replace(shape_from_config(config), dropout=dropout, attention_dropout=attention_dropout)
    if head.objective == "causal-lm":
        raise ValueError("slim_bert models learn masked-lm or classification, not causal-lm")
    if head.objective == "masked-lm":
        return replace(shape, sentence_head=head.sentence)
    pooler = any(name.startswith("pooler.") for name in checkpoint.names)
    return replace(shape, sentence_head=False, outputs=head.num_outputs, pooler=pooler)


def build_from(checkpoint: Checkpoint, shape: Shape, head: Head, seed: int) -> tuple[nn.Module, list[str]]:
    """The checkpoint's model under this head, what it lacks drawn from `seed`, and what became of heads, in words.

    Raises UserError where the weights do not fit the config.
    """
    weights, its_head = checkpoint.weights()
    why_dropped = _why_dropped(checkpoint, its_head, head) if its_head else None
    notes = []
    if its_head and why_dropped is None:
        notes.append(f"the classifier of {checkpoint.folder} is kept: its labels are those of the task")
    elif its_head:
        notes.append(f"the head of {checkpoint.folder} is dropped and the model gets a new one: {why_dropped}")
    weights |= {} if why_dropped else its_head
    try:
        if isinstance(shape, EncoderShape):
            model: nn.Module = build(shape, seed=seed)
            _load_slim(model, weights)
            return model, notes
        assert isinstance(shape, StockShape)
        stock, missing = load_stock(shape, weights, seed=seed)
    except KeyError as error:
        raise _unknown(checkpoint, error) from error
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the weights in {checkpoint.folder} do not fit its config.json: {error}") from error
    if missing and head.objective != "classification":
        notes.append(f"{checkpoint.folder} has no {head.objective} head: the model gets a new one")
    return StockModel(stock, shape), notes


def _unknown(checkpoint: Checkpoint, error: KeyError) -> UserError:
    return UserError(f"{checkpoint.folder / 'config.json'} names an activation that transformers has not: {error}")


def _load_slim(model: nn.Module, weights: State) -> None:
    """Each part of our encoder that is in the weights: whole, or ValueError."""
    parts = {name.partition(".")[0] for name, _ in model.named_parameters()}
    for part in sorted(parts):
        found = {name: x for name, x in weights.items() if name.startswith(f"{part}.")}
        if found or part == "encoder":
            load_state(model, found, prefix=f"{part}.")


def _why_dropped(checkpoint: Checkpoint, its_head: State, head: Head) -> str | None:
    """Why the head on a checkpoint cannot serve the task; None where its labels are the task's."""
    if head.objective != "classification":
        return f"it does not serve {head.objective}"
    said = checkpoint.said
    made_for = [str(name) for name in said.get("architectures") or ()]
    if made_for and not any(name.endswith("ForSequenceClassification") for name in made_for):
        return f"it is of {', '.join(made_for)}"
    counts = {len(x) for name, x in its_head.items() if name.endswith(_LAST) and x.dim()}
    if counts != {head.num_outputs}:
        given = ", ".join(f"{count} output{'s' * (count > 1)}" for count in sorted(counts)) or "other tensors"
        return f"it has {given}, the task {head.num_outputs}"
    problem = said.get("problem_type")
    if problem not in (None, head.problem_type):
        return f"it was trained for {problem}, the task is {head.problem_type}"
    names = _label_names(said)
    wanted = {tuple(name.lower() for name in known) for known in (head.labels, head.words)}
    if names and tuple(name.lower() for name in names) not in wanted:
        return f"its labels are {', '.join(names)}, those of the task {', '.join(head.labels) or 'scores'}"
    return None


def _label_names(config: dict[str, Any]) -> tuple[str, ...]:
    """The names of a head's outputs in their order; none where id2label has only transformers' own, LABEL_0 and on."""
    by_id = {int(number): str(name) for number, name in (config.get("id2label") or {}).items()}
    names = tuple(by_id[number] for number in sorted(by_id))
    return () if names == tuple(f"LABEL_{number}" for number in range(len(names))) else names
