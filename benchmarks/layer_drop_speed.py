"""Seconds a step with layers dropped against dense, on two ranks at ZeRO 1, 2 and 3: how much of the FLOPs is time.

One engine a ZeRO stage, in processes of its own. Dense steps, steps with whole layers skipped, steps with layers run on
some rows and steps of a network whose every second layer waits take turns in it. Every round repeats the same steps;
the fastest of each step counts, as in timeit.
Run: python benchmarks/layer_drop_speed.py --json FILE [--stages 1 2 3] [--rounds 8] [--recompute]
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.step import processor_name
from data_prep.manifest import git_commit
from pipeline.families.hf import build_model
from pipeline.families.shape import EncoderShape
from pipeline.layer_drop.schedule import DropSchedule, LayerDrop
from pipeline.layer_drop.switch import Switch
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import parse_recipe
from pipeline.training import optimizers
from pipeline.training.engine import Engine
from pipeline.training.ranks import Ranks, started_ranks

MASK_RATE = 0.15
MODES = ("dense", "layer", "sample", "growing")


def measure(args: argparse.Namespace, stage: int, ranks: Ranks) -> dict[str, Any]:
    """Seconds a step of every mode, by round, and the share of FLOPs that these steps saved."""
    rows, length = args.rows, args.length
    shape = EncoderShape.uniform(
        num_layers=args.layers, num_heads=args.hidden // 64, ffn=4 * args.hidden, hidden_size=args.hidden,
        vocab_size=args.vocab, max_positions=length, norm="pre", dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    global_rows = rows * ranks.world_size
    recipe = parse_recipe({"batch": {"global_rows": global_rows, "micro_rows": rows}}, "benchmark")
    config: dict[str, Any] = {
        "bf16": {"enabled": True}, "zero_optimization": {"stage": stage}, "communication_data_type": "fp32",
        "steps_per_print": 10**9,
    }  # fmt: skip
    model = build_model(shape, seed=0)
    model.encoder.activation_checkpointing = args.recompute
    groups = optimizers.parameter_groups(model, 0.01)
    engine = Engine(model, engine_config.join(config, recipe, ranks.world_size), groups, ranks)
    generator = torch.Generator().manual_seed(ranks.rank)
    ids = torch.randint(5, shape.vocab_size, (rows, length), generator=generator)
    positions = torch.randperm(rows * length, generator=generator)[: round(MASK_RATE * rows * length)].sort().values
    batch = {"input_ids": ids, "masked_positions": positions, "labels": ids.reshape(-1)[positions]}

    drawn = DropSchedule(args.steps, args.layers, time="constant", depth="linear", theta=args.theta)
    waiting = DropSchedule(args.steps, args.layers, time="stages", depth="alternate", stages=(0.0,))
    drops = {
        "layer": LayerDrop(drawn, seed=1, unit="layer"),
        "sample": LayerDrop(drawn, seed=1, unit="sample"),
        "growing": LayerDrop(waiting, seed=1),
    }
    touch = engine.needs_every_gradient and not args.leave_out
    # Every round takes the same steps, with the same draws: the fastest of each is least disturbed by other work.
    seconds = {mode: np.zeros((args.rounds, args.steps)) for mode in MODES}
    for round_number in range(-1, args.rounds):  # the first warms up
        for step in range(args.steps):
            for mode in MODES:
                draws = drops[mode].draws(step, 0, rows) if mode in drops else None
                extra = {"switch": Switch(draws, touch=touch)} if draws else {}
                synchronize(ranks)
                began = time.perf_counter()
                engine.backward(engine.forward(batch, **extra).loss)
                engine.micro_step()
                synchronize(ranks)
                if round_number >= 0:
                    seconds[mode][round_number, step] = time.perf_counter() - began
    per_layer = np.array(shape.layer_flops_per_token(length))
    whole = shape.forward_flops_per_token(length, MASK_RATE)
    fastest = {mode: taken.min(0).mean() for mode, taken in seconds.items()}
    medians = {mode: np.median(taken, 0).mean() for mode, taken in seconds.items()}
    found: dict[str, Any] = {"zero_stage": stage, "seconds": fastest, "median_seconds": medians}
    for mode, drop in drops.items():
        saved = float(((1 - drop.executed(np.arange(args.steps), 1, rows)) @ per_layer).mean() / whole)
        fall, of_medians = (1 - which[mode] / which["dense"] for which in (fastest, medians))
        found[mode] = {
            "flops_saved": saved, "time_saved": fall, "of_flops": fall / saved,
            "of_flops_by_medians": of_medians / saved,
        }  # fmt: skip
    return found


def synchronize(ranks: Ranks) -> None:
    ranks.barrier()
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()


def run_ranks(arguments: list[str], world_size: int) -> dict[str, Any]:
    """What rank 0 of so many processes prints last."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True,
            env=os.environ | {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // world_size)),
            },
        )
        for rank in range(world_size)
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"a rank failed: exit codes {[process.returncode for process in processes]}")
    return json.loads(outputs[0].strip().split("\n")[-1])


def main() -> int:
    """Measure every stage, or, as a rank, one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="a round and mode")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rows", type=int, default=16, help="a rank")
    parser.add_argument("--theta", type=float, default=0.5)
    parser.add_argument("--recompute", action="store_true", help="activation checkpointing")
    parser.add_argument("--leave-out", action="store_true", help="no row for skipped layers: wrong gradients at ZeRO 3")
    parser.add_argument("--rank-of-stage", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank_of_stage is not None:
        with started_ranks() as ranks:
            found = measure(args, args.rank_of_stage, ranks)
        print(json.dumps(found), flush=True)
        os._exit(0)  # as the program itself leaves, see pipeline/__main__.py

    results = []
    print("ZeRO  mode    s/step dense  s/step  FLOPs saved  time saved  time/FLOPs  by medians")
    for stage in args.stages:
        found = run_ranks([*sys.argv[1:], "--rank-of-stage", str(stage)], args.ranks)
        results.append(found)
        for mode in MODES[1:]:
            row, seconds = found[mode], found["seconds"]
            print(
                f"{stage:<5} {mode:<7} {seconds['dense']:<13.3f} {seconds[mode]:<7.3f} {row['flops_saved']:<12.1%} "
                f"{row['time_saved']:<11.1%} {row['of_flops']:<11.2f} {row['of_flops_by_medians']:.2f}",
                flush=True,
            )
    if args.json:
        about = {
            "command": " ".join(sys.argv), "cpu": processor_name(), "commit": git_commit(Path(__file__).parent),
            "torch": torch.__version__, "device": "cuda" if torch.cuda.is_available() else "cpu",
        }  # fmt: skip
        args.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
