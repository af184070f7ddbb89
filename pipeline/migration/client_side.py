"""The client file of DeepSpeedExamples' bing_bert, which stood beside the DeepSpeed file: model, rate, steps, warm-up.

What its script made of the values is told from the script: the tokenizer decided the size of the vocabulary, the rate
of the client overruled the optimiser's, and `--max_seq_length` chose among the trainings.
"""

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.migration.ledger import Block, Ledger, defaults
from pipeline.migration.recipe_side import take_steps

# Of bert_model_config: the recipe's key, whether it is a whole number, and the least that can have worked.
MODEL_KEYS = {
    "hidden_size": ("model.hidden_size", True, 1),
    "num_hidden_layers": ("model.layers", True, 1),
    "num_attention_heads": ("model.heads", True, 1),
    "intermediate_size": ("model.ffn", True, 1),
    "hidden_dropout_prob": ("model.dropout", False, 0),
    "attention_probs_dropout_prob": ("model.attention_dropout", False, 0),
    "type_vocab_size": ("model.token_types", True, 0),
    "initializer_range": ("model.initializer_range", False, 0),
}
_MODEL_DROPPED = {
    "vocab_size_or_config_json_file": "the tokenizer decides it here, as it did there",
    "max_position_embeddings": "as many as corpus.row_length or corpus.long_row_length has tokens",
}
# Blocks of a training, alone or one for each length of rows.
TRAININGS = ("training", "mixed_seq_training", "mixed_seq_dataset", "mixed_seq_datasets")
_TRAINING_DROPPED = {
    "num_epochs": "a recipe counts steps, pretrain.steps",
    "num_workers": "batches are prepared ahead by a thread",
    "async_worker": "batches are prepared ahead by a thread",
}
_TRAINING_KEYS = (
    *_TRAINING_DROPPED, "total_training_steps", "warmup_proportion", "learning_rate", "decay_rate", "decay_step",
)  # fmt: skip
_TOP_KEYS = ("name", "bert_token_file", "bert_model_file", "bert_model_config", "data", "validation", *TRAININGS)


def take_client(done: Ledger, client: Mapping[str, Any], steps: int | None) -> bool:
    """Every key of a client file, after the optimiser; whether it had a training, and so the schedule.

    `steps`: what the user says, for files that do not tell.
    """
    for key, value in client.items():
        where = f"client.{key}"
        if key == "name":
            done.drop(where, "a run is named with --run")
        elif key == "bert_token_file":
            done.leave_open(where, f"{json.dumps(value)} is no path here: fetch its vocab.txt, set corpus.tokenizer")
        elif key == "bert_model_file":
            done.drop(where, "for --use_pretrain of the old script; here the first weights are drawn from the seed")
        elif key == "bert_model_config":
            _take_model(done, where, value)
        elif key == "data":
            _take_data(done, where, value)
        elif key == "validation":
            for path, _ in _leaves(where, value):
                done.drop(path, "corpus.val_fraction of the text is held out")
        elif key in TRAININGS and not _is_training(key, value):
            _take_data(done, where, value)
        elif key not in TRAININGS:
            _unknown(done, where, _TOP_KEYS)
    trainings = [key for key in TRAININGS if key in client and _is_training(key, client[key])]
    if len(trainings) > 1:
        done.problems.append(f"the training has two owners, client.{' and client.'.join(trainings)}: delete one")
    elif trainings:
        _choose_training(done, f"client.{trainings[0]}", client[trainings[0]], steps)
    return bool(trainings)


def _is_training(key: str, value: Any) -> bool:
    """Whether a block is a training, whatever it is called: some have a training where others name their data."""
    return not key.startswith("mixed_seq_dataset") or any(
        path.rpartition(".")[2] in _TRAINING_KEYS for path, _ in _leaves(key, value)
    )


def _take_model(done: Ledger, where: str, config: Any) -> None:
    if not _is_block(done, where, config):
        return
    for key, value in config.items():
        path = f"{where}.{key}"
        if key in MODEL_KEYS:
            to, whole, least = MODEL_KEYS[key]
            if done.is_number(path, value, whole, least):
                done.move(path, to, value)
        elif key in _MODEL_DROPPED:
            done.drop(path, _MODEL_DROPPED[key])
        elif key == "hidden_act" and value == "gelu":
            done.drop(path, "GELU is what the model has here")
        elif key == "hidden_act":
            done.leave_open(path, f"{json.dumps(value)} cannot be said: the model has GELU here")
        else:
            _unknown(done, path, (*MODEL_KEYS, *_MODEL_DROPPED, "hidden_act"))
    absent = [to for key, (to, _, _) in MODEL_KEYS.items() if key not in config]
    if absent:
        done.leave_open(where, f"does not tell {', '.join(absent)}: the recipe's defaults")


def _take_data(done: Ledger, where: str, data: Any) -> None:
    for path, value in _leaves(where, data):
        if ".datasets." in path or ".mixed_seq_dataset" in path:
            done.leave_open(
                path, f"{json.dumps(value)} is of the old script's own form: name its text in corpus.sources"
            )
        else:
            done.drop(path, "corpus.sources says what is read, and how often")


def _choose_training(done: Ledger, where: str, value: Any, steps: int | None) -> None:
    """The one training, or of several, by length of rows, that on the shortest: the first that was run."""
    if not _is_block(done, where, value):
        return
    by_length = {key: block for key, block in value.items() if isinstance(block, dict)}
    if not by_length:
        done.leave_open("corpus.row_length", "was --max_seq_length of the old command, not in the file: set it")
        _take_training(done, where, value, steps)
        return
    wrong = [key for key in value if key not in by_length or not key.isdecimal()]
    if wrong:
        done.problems.append(f'{where}.{wrong[0]} is not a training of one length of rows, such as "128": {{...}}')
        return
    shortest, *others = sorted(by_length, key=int)
    done.move(f"{where}.{shortest}", "corpus.row_length", int(shortest))
    _take_training(done, f"{where}.{shortest}", by_length[shortest], steps)
    for other in others:
        for path, its in _leaves(f"{where}.{other}", by_length[other]):
            done.leave_open(
                path,
                f"{json.dumps(its)} is of another training, on rows of {other}: leave that alone in the file for a "
                "recipe of its own, or set corpus.long_row_length for one training on both",
            )


def _take_training(done: Ledger, where: str, block: Block, steps: int | None) -> None:
    total = take_steps(done, f"{where}.total_training_steps", block.get("total_training_steps"), steps)
    good = {
        key: key in block and done.is_number(f"{where}.{key}", block[key])
        for key in ("warmup_proportion", "learning_rate", "decay_rate", "decay_step")
    }
    if good["warmup_proportion"]:
        done.move(f"{where}.warmup_proportion", "schedule.warmup_fraction", block["warmup_proportion"])
    if good["learning_rate"]:
        _take_rate(done, f"{where}.learning_rate", block["learning_rate"])
    end = (
        _end_of_decay(block, total) if good["warmup_proportion"] and good["decay_rate"] and good["decay_step"] else None
    )
    fell = "an end that the file does not tell" if end is None else f"{end:.3g} of the peak after {total} steps"
    for key in ("decay_rate", "decay_step"):
        if good[key]:
            done.leave_open(
                f"{where}.{key}",
                f"{json.dumps(block[key])} cannot be said: the rate fell exponentially, to {fell}; "
                f"{defaults('schedule', 'warmup_fraction')}",
            )
    for key in block:
        if key in _TRAINING_DROPPED:
            done.drop(f"{where}.{key}", _TRAINING_DROPPED[key])
        elif key not in _TRAINING_KEYS:
            _unknown(done, f"{where}.{key}", _TRAINING_KEYS)


def _end_of_decay(block: Block, total: int | None) -> float | None:
    """The part of the peak that is left in the end, as the old script counted; None where it cannot be told."""
    warmup, rate, step = (block[key] for key in ("warmup_proportion", "decay_rate", "decay_step"))
    if total is None or not step or not 0 < rate <= 1 or warmup > 1:
        return None
    return float(rate ** ((1 - warmup) * total / step))


def _take_rate(done: Ledger, key: str, rate: float) -> None:
    if any(line.to == "optimizer.name" for line in done.lines):
        done.move(key, "optimizer.lr", rate, "--lr_offset of the old command, if it had one, came on top")
    else:
        done.leave_open(key, f"{json.dumps(rate)} is not carried over, as the optimiser is not; see optimizer.lr")


def _is_block(done: Ledger, where: str, value: Any) -> bool:
    if not isinstance(value, dict):
        done.problems.append(f"{where} is {json.dumps(value)}, wanted a block such as {{...}}")
    return isinstance(value, dict)


def _leaves(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Paths and values below a block, and of the block itself where it is empty or none."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(f"{where}.{key}", below)
    else:
        yield where, value


def _unknown(done: Ledger, path: str, known: Collection[str]) -> None:
    close = difflib.get_close_matches(path.rpartition(".")[2], known, n=1)
    done.drop(path, f"not a key of bing_bert's client file{f'; did you mean {close[0]}?' if close else ''}")
