"""Masked batches out of files on disk, ours against `datasets` rows and transformers' masking collator.

The same random token ids for both, once as our shards and once saved with `datasets`, with just the columns that the
collator is quickest with: a special tokens mask, and offsets, which its whole-word masking goes by. Random rows of
length 128, one process, one thread. The contenders take turns in one process, so that whatever else the machine does
falls on all of them. Transformers has no spans and no sentence pairs, and its whole-word masking replaces by [MASK]
only.
Run: python benchmarks/loader.py [--json FILE]
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.step import processor_name
from data_prep.files import sha256_file
from data_prep.rows.arrow_files import write_file
from data_prep.rows.pack import PackedRows
from data_prep.rows.shards import ShardReader
from pipeline.objectives.masked_lm import MaskedRows
from pipeline.recipes.sections import Objective

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
CONTENDERS = {
    "ours: tokens": ("documents", {}),
    "ours: words": ("documents", {"mask_unit": "word"}),
    "ours: spans": ("documents", {"mask_unit": "span"}),
    "ours: pairs, sentence order": ("pairs", {"sentence": "sop"}),
    "ours: pairs, next sentence": ("pairs", {"sentence": "nsp"}),
    "datasets + collator: tokens": (None, {"whole_word_mask": False}),
    "datasets + collator: words": (None, {"whole_word_mask": True}),
}
Batches = Callable[[], Any]


def write_shards(folder: Path, ids: np.ndarray, packing: str, vocab_size: int) -> Path:
    """Our shards of these rows: every row two pieces, parted at a random place."""
    num_rows, length = ids.shape
    ids = ids.astype(np.uint16)
    parted = np.random.default_rng(1).integers(length // 4, 3 * length // 4, num_rows)
    ids[np.arange(num_rows), parted - 1] = SPECIAL["sep"]
    if packing == "documents":
        ids[np.arange(num_rows), parted] = SPECIAL["cls"]
    lengths = np.stack([parted, length - parted], 1).astype(np.int32).reshape(-1)
    path = folder / "train" / "train-00000.arrow"
    path.parent.mkdir(parents=True)
    write_file(path, PackedRows(ids, lengths, np.arange(0, 2 * num_rows + 1, 2, dtype=np.int32), 1, 0))
    entry = {"name": f"train/{path.name}", "rows": num_rows, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    index = {
        "format": 2, "packing": packing, "row_length": length, "vocab_size": -(-vocab_size // 64) * 64,
        "tokenizer_vocab_size": vocab_size, "special_tokens": SPECIAL, "tokenizer_sha256": "",
        "continuation_ids": list(range(3 * vocab_size // 4, vocab_size)),
        "splits": {"train": {"rows": num_rows, "tokens": ids.size, "documents": num_rows, "max_pieces": 2,
                             "longest_document": 10, "files": [entry]}},
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def save_dataset(folder: Path, ids: np.ndarray, vocab_size: int) -> Path:
    """The rows with their special tokens mask, and each token's place in a text: a word's tokens without gaps."""
    special = np.isin(ids, list(SPECIAL.values()))
    begins = (np.arange(ids.shape[1]) * 2)[None, :] - (ids >= 3 * vocab_size // 4)
    offsets = np.stack([begins, np.broadcast_to(np.arange(ids.shape[1]) * 2 + 1, ids.shape)], -1)
    columns = {"input_ids": ids.astype(np.int32), "special_tokens_mask": special.astype(np.int8)}
    datasets.Dataset.from_dict({name: list(column) for name, column in columns.items()}).save_to_disk(folder / "tokens")
    columns["offset_mapping"] = offsets.astype(np.int64)
    datasets.Dataset.from_dict({name: list(column) for name, column in columns.items()}).save_to_disk(folder / "words")
    return folder


def build_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose special ids and size are those of the rows; the collator asks it for nothing else."""
    entries = [f"[{role.upper()}]" for role in SPECIAL]
    entries += [f"w{n}" if n < 3 * vocab_size // 4 else f"##w{n}" for n in range(len(SPECIAL), vocab_size)]
    model = WordPiece({entry: number for number, entry in enumerate(entries)}, unk_token="[UNK]")
    names = {f"{role}_token": f"[{role.upper()}]" for role in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **names)


def our_batches(folder: Path, objective: Objective, args: argparse.Namespace) -> Batches:
    """The next micro-batch of a loader, at every call."""
    loader = MaskedRows(ShardReader(folder, "train"), objective, args.seed, args.micro_batch, args.micro_batch)
    steps = iter(range(1 << 60))
    return lambda: loader.micro_batch(next(steps), 0)


def their_batches(folder: Path, tokenizer: Any, whole_words: bool, args: argparse.Namespace) -> Batches:
    """The next batch of random rows through torch's data loader, as the Trainer makes them."""
    dataset = datasets.load_from_disk(str(folder / ("words" if whole_words else "tokens")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=args.masked, whole_word_mask=whole_words)
    generator = torch.Generator().manual_seed(args.seed)

    def endless() -> Any:
        while True:
            yield from torch.utils.data.DataLoader(
                dataset, args.micro_batch, shuffle=True, drop_last=True, collate_fn=collator, generator=generator
            )

    batches = endless()
    return lambda: next(batches)


def rate(batches: Batches, steps: int, tokens: int, clock: str) -> float:
    """Tokens a second, of the processor's time or on the wall."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    started = now()
    for _ in range(steps):
        batches()
    return steps * tokens / (now() - started)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """For every contender the rate of each round and their median."""
    draw = np.random.default_rng(args.seed)
    ids = draw.integers(len(SPECIAL), args.vocab, (args.rows, args.length))
    ids[:, 0], ids[:, -1] = SPECIAL["cls"], SPECIAL["sep"]
    shards = {packing: write_shards(folder / packing, ids, packing, args.vocab) for packing in ("documents", "pairs")}
    saved = save_dataset(folder / "datasets", ids[: args.peer_rows], args.vocab)
    del ids
    tokenizer = build_tokenizer(args.vocab)
    contenders: dict[str, Batches] = {}
    for name, (packing, options) in CONTENDERS.items():
        if packing is None:
            contenders[name] = their_batches(saved, tokenizer, options["whole_word_mask"], args)
        else:
            objective = Objective(mask_rate=args.masked, **options)
            contenders[name] = our_batches(shards[packing], objective, args)
    tokens = args.micro_batch * args.length
    steps = {name: args.steps if name.startswith("ours") else max(1, args.steps // 20) for name in contenders}
    for name, batches in contenders.items():
        rate(batches, steps[name], tokens, args.clock)
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, batches in contenders.items():
            rounds[name].append(rate(batches, steps[name], tokens, args.clock))
    return {name: {"tokens_per_second": statistics.median(rates), "rounds": rates} for name, rates in rounds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=400_000, help="rows of our shards")
    parser.add_argument("--peer-rows", type=int, default=50_000, help="so many of them for `datasets`")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=30_522)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--masked", type=float, default=0.15)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    parser.add_argument("--steps", type=int, default=200, help="our batches a turn; theirs are a twentieth")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="cpu", help="cpu: others on the machine disturb less"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write settings, machine and every round here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()

    with tempfile.TemporaryDirectory() as name:
        results = measure(args, Path(name))
    print(
        f"length {args.length}, micro-batch {args.micro_batch}, {args.masked:.0%} masked, {args.clock} time, one core"
    )
    for contender, figures in results.items():
        lowest, highest = min(figures["rounds"]), max(figures["rounds"])
        print(f"{contender:30} {figures['tokens_per_second'] / 1e6:7.3f} M tokens/s   ({lowest:,.0f} - {highest:,.0f})")
    if args.json:
        report = {
            "settings": {key: value for key, value in vars(args).items() if key != "json"},
            "machine": {"processor": processor_name(), "cpus": os.cpu_count(), "system": platform.platform()},
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "torch": torch.__version__,
                "datasets": datasets.__version__,
                "transformers": transformers.__version__,
            },
            "results": results,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
