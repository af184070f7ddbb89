"""Classification and regression of texts and pairs: rows tokenised once, shuffled, sharded and padded when asked for,
and the task's metrics on the dev rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from data_prep.errors import UserError
from data_prep.files import write_atomically
from pipeline.families.head import Head
from pipeline.families.model_files import fetch
from pipeline.families.table import FAMILIES
from pipeline.objectives.objective import Objective, ShapeFor
from pipeline.objectives.tasks import Example, Task, predictions_of, score
from pipeline.objectives.texts import read_texts
from pipeline.recipes import engine_config
from pipeline.runs.run import Run
from pipeline.training.batches import Batch, epoch_rows
from pipeline.training.engine import Engine
from pipeline.training.ranks import Ranks

PREDICTIONS = "dev.tsv"
PROBE_ROWS = 4

# Lengths that are multiples of this keep the accelerators' matrix units full and the number of shapes small.
PAD_MULTIPLE = 8
_ENCODE_CHUNK = 4096


@dataclass(frozen=True)
class Encoded:
    """A split as token ids, rows one after another: row i is [offsets[i], offsets[i + 1]).

    `type_ids` are 0 for [CLS] a [SEP] and 1 for b [SEP]. `labels` (n,) are class indices, int64, or scores, float32.
    """

    input_ids: NDArray[np.int32]
    type_ids: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every row, special ones included."""
        return np.diff(self.offsets)


def read_tokenizer(folder: Path, vocab_size: int, with_pairs: bool = True, causal: bool = False) -> Tokenizer:
    """The tokenizer of a model folder, as transformers makes it of tokenizer.json and the files beside it.

    Raises UserError when transformers cannot, when it does not fit the model's vocabulary, or has no template for
    pairs that sets them apart, where there are any, or for texts, where the model is not a `causal` one.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(
            f"{folder} is not a model folder: it has no tokenizer.json; finish the run's export stage, or name a "
            "folder that a model and its tokenizer were saved to with save_pretrained"
        )
    try:
        # A folder's own code is for its model; a tokenizer that needs some is refused.
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of many kinds, and tokenizers panics
        raise UserError(
            f"transformers cannot read the tokenizer in {folder}: {' '.join(str(error).split())}"
        ) from error
    tokenizer = getattr(found, "backend_tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(
            f"transformers reads the tokenizer in {folder} as {type(found).__name__}, which is not of the tokenizers "
            "library; save it again as one that is"
        )
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocab_size:
        raise UserError(f"{path} gives ids up to {largest}, but the model beside it has {vocab_size} embeddings")
    added = [tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (False, True)]
    if not causal and added[0] < 1:
        raise UserError(
            f"{path} adds no special token to a text; the classifier of an encoder looks at one, [CLS] a [SEP] (the "
            "post_processor of the file)"
        )
    if with_pairs and added[1] < 1:
        raise UserError(
            f"{path} adds no special tokens to a pair, so that nothing would tell its two texts apart; a classifier of "
            "pairs needs, for example, [CLS] a [SEP] b [SEP] (the post_processor of the file)"
        )
    return tokenizer


def encode(examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, is_regression: bool) -> Encoded:
    """Tokenise examples as [CLS] a [SEP] or [CLS] a [SEP] b [SEP], at most `max_length` tokens.

    Of a pair too long the longer text is cut first. The tokenizer's own template decides the special tokens, so
    RoBERTa's pairs come out as RoBERTa wants them.
    """
    # A copy: the settings belong to this call.
    are_specials_text = tokenizer.encode_special_tokens
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.encode_special_tokens = are_specials_text
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    input_ids: list[NDArray[np.int32]] = []
    type_ids: list[NDArray[np.uint8]] = []
    lengths = [0]
    for start in range(0, len(examples), _ENCODE_CHUNK):
        chunk = examples[start : start + _ENCODE_CHUNK]
        texts = [e.first if e.second is None else (e.first, e.second) for e in chunk]
        encodings = tokenizer.encode_batch(texts)
        ids = [encoding.ids for encoding in encodings]
        types = [encoding.type_ids for encoding in encodings]
        lengths += [len(row) for row in ids]
        input_ids.append(np.fromiter(chain.from_iterable(ids), np.int32))
        type_ids.append(np.fromiter(chain.from_iterable(types), np.uint8))
    values = [e.label for e in examples]
    return Encoded(
        np.concatenate(input_ids),
        np.concatenate(type_ids),
        np.cumsum(lengths, dtype=np.int64),
        np.array(values, np.float32) if is_regression else np.array(values, np.int64),
    )


@dataclass(frozen=True)
class Inputs:
    """What a model takes: its padding id, the longest row in tokens, and whether it has two token types."""

    pad_id: int
    max_length: int
    with_types: bool


def collate(encoded: Encoded, rows: NDArray[np.int64], inputs: Inputs) -> Batch:
    """Keyword arguments of the classifier for these rows, padded to the longest of them.

    The length is rounded up to a multiple of 8, but never above `inputs.max_length`. input_ids, attention_mask and
    (where the model has token types) token_type_ids are (n, L) int64; labels (n,).
    """
    lengths = encoded.lengths[rows]
    width = min(math.ceil(lengths.max() / PAD_MULTIPLE) * PAD_MULTIPLE, inputs.max_length)
    columns = np.arange(width)[None, :]
    real = columns < lengths[:, None]
    source = np.where(real, encoded.offsets[rows][:, None] + columns, 0)
    batch = {
        "input_ids": np.where(real, encoded.input_ids[source], inputs.pad_id).astype(np.int64),
        "attention_mask": real.astype(np.int64),
        "labels": encoded.labels[rows],
    }
    if inputs.with_types:
        batch["token_type_ids"] = np.where(real, encoded.type_ids[source], 0).astype(np.int64)
    return {name: torch.from_numpy(array) for name, array in batch.items()}


class ClassificationLoader:
    """Training micro-batches of one rank, out of an endless stream of shuffled epochs.

    The order is a pure function of (seed, epoch) and every global batch is the same set of rows whatever the number
    of ranks: `micro_rows` each of every micro-step, so all ranks have equally many batches of equally many rows. The
    last batch of an epoch takes the first rows of the next.
    """

    def __init__(
        self,
        encoded: Encoded,
        inputs: Inputs,
        seed: int,
        global_rows: int,
        micro_rows: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._encoded, self._inputs, self._seed = encoded, inputs, seed
        self._global_rows, self._micro_rows = global_rows, micro_rows
        self._rank, self._world_size = rank, world_size
        self._epoch_tokens: tuple[int, NDArray[np.int64]] | None = None

    def micro_batch(self, step: int, micro: int) -> Batch:
        start = step * self._global_rows + (micro * self._world_size + self._rank) * self._micro_rows
        _, rows = epoch_rows(self._seed, start, self._micro_rows, len(self._encoded))
        return collate(self._encoded, rows, self._inputs)

    def tokens(self, steps: int) -> int:
        """Real tokens of the first `steps` steps, over all ranks; padding does not count."""
        size = len(self._encoded)
        epoch, offset = divmod(steps * self._global_rows, size)
        if self._epoch_tokens is None or self._epoch_tokens[0] != epoch:
            _, rows = epoch_rows(self._seed, epoch * size, size, size)
            self._epoch_tokens = epoch, np.cumsum(self._encoded.lengths[rows])
        within = self._epoch_tokens[1]
        return epoch * int(within[-1]) + (int(within[offset - 1]) if offset else 0)


class EvaluationBatches:
    """Every row of a split, once over all ranks, in equally many batches of `batch_rows` on every rank.

    Rows are taken in order of length, so that little is padding. Where they do not come out even, a batch is filled
    up with the last row, which then does not count.
    """

    def __init__(
        self,
        encoded: Encoded,
        inputs: Inputs,
        batch_rows: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._encoded, self._inputs, self._batch_rows = encoded, inputs, batch_rows
        self._rank, self._world_size = rank, world_size
        self._order = np.argsort(encoded.lengths, kind="stable")

    def __len__(self) -> int:
        return math.ceil(len(self._encoded) / (self._batch_rows * self._world_size))

    def batch(self, index: int) -> tuple[NDArray[np.int64], Batch]:
        """(row numbers (n,), arguments of the classifier) of this rank's batch `index`.

        The first n rows of the batch count; n is below `batch_rows`, or 0, where the batch was filled up.
        """
        start = (index * self._world_size + self._rank) * self._batch_rows
        positions = np.arange(start, start + self._batch_rows)
        rows = self._order[np.minimum(positions, len(self._encoded) - 1)]
        batch = collate(self._encoded, rows, self._inputs)
        return rows[positions < len(self._encoded)], batch


class DevEvaluation:
    """Call with an engine: the task's metrics in percent, and the mean loss, over all dev rows.

    `predictions` (n,) are those of the latest call: class indices, or scores.
    """

    def __init__(self, task: Task, batches: EvaluationBatches, labels: NDArray[Any]) -> None:
        self._task, self._batches, self._labels = task, batches, labels
        self.predictions: NDArray[Any] = np.empty(0)

    def __call__(self, engine: Engine) -> dict[str, float]:
        ranks = engine.ranks
        logits = torch.zeros(len(self._labels), self._task.num_outputs, dtype=torch.float64, device=ranks.device)
        with engine.evaluating():
            for index in range(len(self._batches)):
                rows, batch = self._batches.batch(index)
                found = engine.forward({name: x for name, x in batch.items() if name != "labels"}).logits
                logits[torch.from_numpy(rows).to(ranks.device)] = found[: len(rows)].double()
        logits = ranks.sum(logits).cpu()
        labels = torch.from_numpy(self._labels)
        self.predictions = predictions_of(self._task, logits.numpy())
        if self._task.is_regression:
            loss = F.mse_loss(logits[:, 0], labels.double())
        else:
            loss = F.cross_entropy(logits, labels)
        return {"loss": float(loss)} | score(self._task, self.predictions, self._labels)


def prepare(run: Run, ranks: Ranks, shape_for: ShapeFor) -> Objective:
    """Classification of the recipe's [task], with the tokenizer of its checkpoint.

    Raises UserError for whatever cannot be used.
    """
    chosen = run.recipe.task
    texts = read_texts(chosen)
    task = texts.task
    recipe = run.recipe.counted(math.ceil(len(texts.train) / run.recipe.batch.global_rows))
    head = Head("classification", labels=task.label_names, words=task.labels)
    shape = shape_for(head, None)
    assert recipe.model.checkpoint is not None  # the recipe has looked
    folder = fetch(recipe.model.checkpoint, recipe.model.revision)
    causal = "causal-lm" in FAMILIES[shape.family].objectives
    tokenizer = read_tokenizer(folder, shape.vocab_size, task.is_pair, causal)
    max_length = min(chosen.max_length, shape.row_limit or chosen.max_length)
    _check_length(folder, task, max_length, tokenizer)

    train, dev = (encode(rows, tokenizer, max_length, task.is_regression) for rows in (texts.train, texts.dev))
    batch = recipe.batch
    micro_rows, _ = engine_config.accumulation_steps(batch.global_rows, batch.micro_rows, ranks.world_size)
    inputs = Inputs(shape.pad_token_id, max_length, with_types=shape.type_vocab_size > 1)
    rank, world_size = ranks.rank, ranks.world_size
    loader = ClassificationLoader(train, inputs, recipe.seed, batch.global_rows, micro_rows, rank, world_size)
    evaluation = DevEvaluation(task, EvaluationBatches(dev, inputs, micro_rows, rank, world_size), dev.labels)

    def probe() -> Batch:
        rows = collate(dev, np.arange(min(PROBE_ROWS, len(dev))), inputs)
        return {name: x for name, x in rows.items() if name != "labels"}

    def write(stage_folder: Path, validation: Mapping[str, float]) -> dict[str, Any]:
        _write_predictions(stage_folder / PREDICTIONS, task, evaluation.predictions, texts.dev)
        return {
            "headline": validation["headline"],
            "headline_of": list(task.metrics),
            "metrics": {name: validation[name] for name in task.metrics},
            "train_rows": len(train),
            "dev_rows": len(dev),
            "max_length": max_length,
        }

    notes = []
    if max_length < chosen.max_length:
        notes.append(
            f"texts are cut at {max_length} tokens: the model has no more positions ({chosen.max_length} asked)"
        )
    return Objective(recipe, head, shape, loader, evaluation, probe, write, tuple(notes))


def _check_length(folder: Path, task: Task, max_length: int, tokenizer: Tokenizer) -> None:
    """UserError where rows of `max_length` tokens have no room for a token of every text: they cannot be cut to it."""
    least = tokenizer.num_special_tokens_to_add(task.is_pair) + (2 if task.is_pair else 1)
    if max_length < least:
        raise UserError(
            f"{folder} has positions for {max_length} tokens (max_position_embeddings of its config.json), and a row "
            f"of {task.name} needs {least} or more: take a model with more positions"
        )


def _write_predictions(path: Path, task: Task, predictions: NDArray[Any], dev: Sequence[Example]) -> None:
    """dev.tsv: index of the row in the dev file (from 0), prediction, label; as words, or as scores."""

    def word(value: float) -> str:
        return f"{value:.4f}" if task.is_regression else task.label_names[math.trunc(value)]

    lines = ["index\tprediction\tlabel"]
    lines += [
        f"{index}\t{word(predicted)}\t{word(example.label)}"
        for index, (predicted, example) in enumerate(zip(predictions.tolist(), dev, strict=True))
    ]
    write_atomically(path, "\n".join(lines) + "\n")
