"""One training step, ours against transformers' BertForMaskedLM: same shape, same batch, same optimiser.

Forward, backward and torch AdamW; the two models take turns in one process, so that whatever else the
machine does falls on both. Run: python benchmarks/step.py [--json FILE]
On a machine that is busy with other work, `--threads 1 --clock cpu` counts the processor time of one thread,
which the others disturb least.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.families.hf import build_model, load_state, state_from_hf


def processor_name() -> str:
    """The model name of the CPU, as Linux tells it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def draw_batch(args: argparse.Namespace, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, L) and labels (B, L), -100 where nothing is to be predicted, on the chosen device."""
    generator = torch.Generator().manual_seed(args.seed)
    ids = torch.randint(5, vocab_size, (args.micro_batch, args.length), generator=generator)
    masked = torch.rand(ids.shape, generator=generator) < args.masked
    labels = ids.masked_fill(~masked, -100)
    return ids.masked_fill(masked, 4).to(args.device), labels.to(args.device)


def build_pair(args: argparse.Namespace, vocab_size: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Ours and transformers' model with the same weights."""
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        intermediate_size=args.ffn,
        max_position_embeddings=args.length,
        hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=args.dropout,
    )
    torch.manual_seed(args.seed)
    theirs = BertForMaskedLM(config)
    state, shape = state_from_hf({name: p.detach() for name, p in theirs.named_parameters()}, config)
    ours = build_model(shape, seed=args.seed)
    load_state(ours, state)
    return ours.train().to(args.device), theirs.train().to(args.device)


def build_step(model: torch.nn.Module, batch: dict[str, Tensor], precision: str, device: str) -> Callable[[], Tensor]:
    """One forward, backward and update; returns the loss."""
    if precision == "bf16":
        model.bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def context() -> AbstractContextManager[Any]:
        return torch.autocast(device, torch.bfloat16) if precision == "autocast" else nullcontext()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with context():
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def seconds(step: Callable[[], Tensor], steps: int, device: str, clock: str) -> float:
    """Seconds of one step, averaged over `steps`: on the wall, or of processor time."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    started = now()
    for _ in range(steps):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (now() - started) / steps


def measure(args: argparse.Namespace, vocab_size: int) -> dict[str, Any]:
    """Median tokens/s of both models over the rounds, and the median of the ratios of the rounds."""
    ids, labels = draw_batch(args, vocab_size)
    positions = (labels.view(-1) != -100).nonzero().squeeze(1)
    ours, theirs = build_pair(args, vocab_size)
    masked = {"input_ids": ids, "masked_positions": positions, "labels": labels.view(-1)[positions]}
    steps = {
        "ours": build_step(ours, masked, args.precision, args.device),
        "transformers": build_step(theirs, {"input_ids": ids, "labels": labels}, args.precision, args.device),
    }
    first_losses = {name: step().item() for name, step in steps.items()}
    for step in steps.values():
        seconds(step, args.steps, args.device, args.clock)
    rounds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            rounds[name].append(seconds(step, args.steps, args.device, args.clock))
    ratios = [b / a for a, b in zip(rounds["ours"], rounds["transformers"], strict=True)]
    tokens = ids.numel()
    return {
        "vocab_size": vocab_size,
        "first_losses": first_losses,
        "seconds_per_step": rounds,
        "tokens_per_second": {name: tokens / statistics.median(x) for name, x in rounds.items()},
        "ratio": statistics.median(ratios),
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vocab", type=int, nargs="+", default=[8192, 30522])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--ffn", type=int, default=1024)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--masked", type=float, default=0.15, help="fraction of tokens to predict")
    parser.add_argument("--dropout", type=float, default=0.1, help="of both models, attention included")
    parser.add_argument("--precision", choices=["autocast", "bf16", "fp32"], default="autocast")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each model")
    parser.add_argument("--steps", type=int, default=2, help="steps a turn")
    parser.add_argument("--threads", type=int, help="torch's own choice when not given")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write settings, machine and every round here")
    args = parser.parse_args()
    if args.clock == "cpu" and (args.device != "cpu" or args.threads != 1):
        parser.error("--clock cpu is for --device cpu --threads 1: waiting threads would count as work")
    if args.threads:
        torch.set_num_threads(args.threads)

    results = []
    print(
        f"L{args.layers} H{args.hidden}, length {args.length}, micro-batch {args.micro_batch}, "
        f"{args.precision}, dropout {args.dropout}, {args.device}, {torch.get_num_threads()} threads, {args.clock} time"
    )
    print(f"{'vocabulary':>10} {'ours tok/s':>12} {'transformers':>12} {'ratio':>6}   (lowest - highest)")
    for vocab_size in args.vocab:
        row = measure(args, vocab_size)
        results.append(row)
        speed = row["tokens_per_second"]
        print(
            f"{vocab_size:>10} {speed['ours']:>12,.0f} {speed['transformers']:>12,.0f} {row['ratio']:>6.2f}"
            f"   ({row['ratio_lowest']:.2f} - {row['ratio_highest']:.2f})",
            flush=True,
        )
    if args.json:
        report = {
            "settings": {k: v for k, v in vars(args).items() if k != "json"},
            "machine": {
                "processor": processor_name(),
                "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None,
                "cpus": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "system": platform.platform(),
            },
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "results": results,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
