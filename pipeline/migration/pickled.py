"""A model folder of former years, with pickled weights, becomes one with safetensors and a tokenizer.json.

Runs nothing of what the folder holds, neither its pickles nor its code, and ends with a folder that can be fine-tuned.
"""

import json
import os
import pickle
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from data_prep.errors import UserError
from data_prep.files import fsync_folder
from data_prep.tokenization.habits import guess_habits
from pipeline.families.checkpoint import build_from, read_checkpoint, shape_of
from pipeline.families.head import Head
from pipeline.families.model_files import read_config
from pipeline.objectives.classification import read_tokenizer

WEIGHTS = "pytorch_model.bin"
# TensorFlow's names of a LayerNorm's two tensors, which the first PyTorch files kept.
FORMER_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_VOCABULARIES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def convert(old: Path, new: Path) -> list[str]:
    """Make the folder `new` of `old`, whole or not at all; what was done, a line each.

    Raises UserError where `old` is no such folder, its pickle holds anything but tensors, or what comes out cannot be
    fine-tuned here; and where `new` is there already.
    """
    if not (old / WEIGHTS).is_file():
        raise UserError(_why_not(old))
    if os.path.lexists(new):
        raise UserError(f"{new} exists already: name a new folder")
    config = _config(old)
    state, lines = _with_new_names(_read_weights(old / WEIGHTS), old / WEIGHTS)
    lines += _complete(config, state, old)
    new.parent.mkdir(parents=True, exist_ok=True)
    partial = new.with_name(f".{new.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        # Tensors that share their memory, such as a tied decoder, are not taken: each gets its own.
        own = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
        save_file(own, partial / "model.safetensors", metadata={"format": "pt"})
        checkpoint, head = read_checkpoint(partial), Head("classification", labels=("0", "1"))
        shape = shape_of(checkpoint, head, dropout=0.0, attention_dropout=0.0)
        build_from(checkpoint, shape, head, seed=0)
        vocab_size = shape.vocab_size
        lines += _write_tokenizer(old, partial)
        read_tokenizer(partial, vocab_size, with_pairs=False)
        _flush(partial)
        partial.rename(new)
        fsync_folder(new.parent)
    except UserError as error:
        raise UserError(str(error).replace(str(partial), str(old))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [*lines, f"wrote {new}: {len(state)} tensors, config.json and tokenizer.json"]


def _why_not(old: Path) -> str:
    if not old.is_dir():
        return f"{old} is not a folder; name the one that holds {WEIGHTS}"
    if any(old.glob("*.safetensors")):
        return f"{old} has safetensors already and needs no conversion"
    if any(old.glob("pytorch_model-*.bin")):
        return (
            f"{old} has its weights in several files, and only a whole {WEIGHTS} is read: fetch the model in one file"
        )
    return f"{old} has no {WEIGHTS} to convert"


def _config(old: Path) -> dict[str, Any]:
    if not (old / "config.json").is_file():
        former = "; rename its bert_config.json to that" if (old / "bert_config.json").is_file() else ""
        raise UserError(f"{old} has no config.json, which says how the weights go together{former}")
    return read_config(old)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, read by torch's restricted reader, which can make tensors and run nothing."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file ends in errors of many kinds
        reason = " ".join(str(error).rpartition("WeightsUnpickler error:")[2].split()).partition(". ")[0]
        kind = "holds more than tensors, or is damaged" if isinstance(error, pickle.UnpicklingError) else "is damaged"
        raise UserError(
            f"{path} {kind}: torch.load(weights_only=True) refuses it ({reason[:200] or type(error).__name__}), and "
            "nothing else is safe; fetch it again, or the model from a source that has safetensors"
        ) from error
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{path} holds a {type(state).__name__}, wanted tensors by name, as state_dict() gives them")
    other = [str(name) for name, x in state.items() if not (isinstance(x, Tensor) and x.layout == torch.strided)]
    if other:
        shown = ", ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
        raise UserError(
            f"{path} holds {shown}, which are not plain tensors; wanted are tensors by name, as state_dict() gives them"
        )
    return dict(state)


def _with_new_names(state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        former = next((one for one in FORMER_NAMES if name == one or name.endswith(f".{one}")), "")
        now = name.removesuffix(former) + FORMER_NAMES.get(former, "")
        if now in renamed or (now != name and now in state):
            raise UserError(f"{path} holds {now} twice, under its former name too; delete one of them")
        renamed[now] = tensor
    count = len(renamed.keys() - state.keys())
    return renamed, [f"renamed gamma and beta of LayerNorms to weight and bias ({count} tensors)"] * (count > 0)


def _complete(config: dict[str, Any], state: Iterable[str], old: Path) -> list[str]:
    """Put the model type into `config` where it is of before there was one, and take the folder's own code out."""
    lines = []
    if config.pop("auto_map", None) is not None:
        lines.append("left out auto_map of config.json: it names code of the folder, which is neither run nor copied")
    if "model_type" not in config:
        kinds = {name.partition(".")[0] for name in state} & {"bert", "roberta"}
        if len(kinds) != 1:
            raise UserError(
                f'{old / "config.json"} has no model_type, and its tensors do not tell: add "bert" or what it is'
            )
        (config["model_type"],) = kinds
        lines.append(f"added model_type {config['model_type']!r} to config.json, as the tensors are named")
    return lines


def _write_tokenizer(old: Path, partial: Path) -> list[str]:
    """Write what transformers' own class makes of the old folder's vocabulary; `partial` holds the new config.json."""
    files = next((names for names in _VOCABULARIES if all((old / name).is_file() for name in names)), None)
    if files is None:
        wanted = ", ".join(" with ".join(names) for names in _VOCABULARIES)
        raise UserError(f"{old} has no vocabulary: wanted is one of {wanted}, of the model's own tokenizer")
    staging = partial / ".tokenizer"
    staging.mkdir()
    for name in ("config.json", *files, *_BESIDE):
        place = partial if name == "config.json" else old
        if (place / name).is_file():
            shutil.copyfile(place / name, staging / name)
    options, lines = _habits(staging, old) if files == ("vocab.txt",) else ({}, [])
    try:
        found = AutoTokenizer.from_pretrained(staging, local_files_only=True, trust_remote_code=False, **options)
        found.init_kwargs.pop("auto_map", None)
        found.save_pretrained(partial)
        vocabulary = found.get_vocab()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of many kinds, and tokenizers panics
        reason = " ".join(str(error).split()).replace(str(staging), str(old))
        raise UserError(f"transformers cannot read the tokenizer in {old}: {reason}") from error
    lost = [entry for entry, number in _entries(staging).items() if vocabulary.get(entry) != number]
    if lost:
        raise UserError(
            f"transformers reads the tokenizer in {old} as {type(found).__name__}, which does not take {len(lost)} "
            f"entries of {files[0]} as they are (the first is {lost[0]!r}): is it the vocabulary of this model?"
        )
    shutil.rmtree(staging)
    return [*lines, f"made tokenizer.json of {' and '.join(files)} with {type(found).__name__} of transformers"]


def _entries(folder: Path) -> dict[str, int]:
    """The ids of a vocab.txt or vocab.json; none where a tokenizer.json says them itself."""
    if (folder / "vocab.txt").is_file():
        return {entry: number for number, entry in enumerate(_lines(folder / "vocab.txt"))}
    if (folder / "vocab.json").is_file():
        return dict(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    return {}


def _lines(path: Path) -> list[str]:
    return [line.removesuffix("\r") for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]


def _habits(staging: Path, old: Path) -> tuple[dict[str, bool], list[str]]:
    """Whether a vocab.txt is of lower-cased text, and of text without accents, where no file beside it says so."""
    entries = _lines(staging / "vocab.txt")
    missing = [token for token in _SPECIALS if token not in entries]
    if missing:
        raise UserError(f"{old / 'vocab.txt'} lacks {', '.join(missing)}; wanted is a BERT vocabulary")
    path = staging / "tokenizer_config.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if isinstance(said.get("do_lower_case"), bool):
        return {}, []
    habits = guess_habits(entries)
    words = (
        f"{'lower-casing' if habits.lowercase else 'cased'}, accents {'stripped' if habits.strip_accents else 'kept'}"
    )
    line = (
        f"guessed of the entries of vocab.txt: {words}; if that is wrong, put a tokenizer_config.json with "
        '"do_lower_case" beside it and convert again'
    )
    return {"do_lower_case": habits.lowercase, "strip_accents": habits.strip_accents}, [line]


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    fsync_folder(folder)
