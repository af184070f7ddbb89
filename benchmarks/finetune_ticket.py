"""EarlyBERT in fine-tuning: a ticket against the dense model and against a random ticket of the same budget.

Run: python benchmarks/finetune_ticket.py --model FOLDER --data FOLDER-OF-GLUE --json FILE [--tasks MRPC SST-2]
[--rows N] [--jobs N] [--set section.key=value ...]
Every case is one `python -m pipeline finetune`, which resumes; one row a case goes to FILE, so the same command goes on
where it was stopped. `--rows`: only so many training rows of a task, the first ones. `--jobs` cases run at the same
time, each on its share of the cores: seconds compare within such a queue only. `--table` prints what FILE holds.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.study import read_rows, refuse_others, run_pipeline, run_queue, study_parser
from data_prep.files import write_atomically
from pipeline.objectives.glue import TASKS, find_file
from pipeline.runs.folder import RunFolder

ARMS = {
    "dense": [],
    "ticket": ["search.enabled=true"],
    "random ticket": ["search.enabled=true", "search.score=random"],
}
FIGURES = (
    "headline", "best_epoch_headline", "metrics", "parameters", "parameters_dense", "encoder_flops_kept", "ticket_step",
    "seconds_search", "seconds_draw", "seconds_training", "seconds", "steps", "train_rows", "dev_rows",
)  # fmt: skip


def run_case(args: argparse.Namespace, task: str, arm: str, seed: int, threads: int) -> dict[str, Any]:
    """Fine-tune one case to its end, and what came of it."""
    name = f"{args.model.name}-{arm.replace(' ', '-')}"
    folder = RunFolder(RunFolder(args.root / "runs" / name).finetune(task, seed))
    words = [
        "finetune", "--root", args.root, "--run", name, "--model", args.model, "--task", task, "--seed", seed,
        "--data", args.root / "rows", "--ds", args.ds, "tracking.wandb=disabled", *args.set, *ARMS[arm],
    ]  # fmt: skip
    run_pipeline(words, folder.root.with_suffix(".log"), threads)
    found = json.loads((folder.root / "metrics.json").read_text(encoding="utf-8"))
    commit = json.loads((folder.root / "manifest.json").read_text(encoding="utf-8"))["commit"]
    return {
        "task": task, "arm": arm, "seed": seed, "model": args.model.name, "set": args.set, "ds": args.ds,
        "rows": args.rows, **{key: found[key] for key in FIGURES if key in found}, "commit": commit, "jobs": args.jobs,
        "threads": threads,
    }  # fmt: skip


def write_rows(args: argparse.Namespace, task: str) -> None:
    """The task's files under the study's root, with as many training rows as are asked for."""
    for split in ("train", "dev"):
        source = find_file(TASKS[task], split, args.data)
        content = source.read_bytes()
        content = gzip.decompress(content) if source.suffix == ".gz" else content
        lines = content.splitlines(keepends=True)
        if split == "train" and args.rows:
            lines = lines[: args.rows + (TASKS[task].header is None)]  # and the header, where the file has one
        target = args.root / "rows" / task / f"{split}.tsv"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, b"".join(lines).decode("utf-8"))


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds of every task and arm."""

    def over(values: list[float], digits: int) -> str:
        return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")

    lines = [
        "| task | arm | seeds | score, % | parameters | encoder FLOPs | search, draw, training, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        for arm in ARMS:
            found = [row for row in rows if (row["task"], row["arm"]) == (task, arm)]
            if not found:
                continue
            seconds = [mean(row.get(name, 0.0) for row in found) for name in ("seconds_search", "seconds_draw")]
            seconds.append(mean(row["seconds_training"] for row in found))
            lines.append(
                f"| {task} | {arm} | {', '.join(str(row['seed']) for row in found)} "
                f"| {over([row['headline'] for row in found], 2)} "
                f"| {mean(row['parameters'] for row in found):,.0f} "
                f"| {mean(row.get('encoder_flops_kept', 1.0) for row in found):.1%} "
                f"| {', '.join(f'{value:.0f}' for value in seconds)} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Run the queue, then print the table."""
    parser = study_parser(__doc__ or "", "finetune", seeds=(0, 1, 2))
    parser.add_argument("--model", type=Path, help="a model folder")
    parser.add_argument("--data", type=Path, help="folder of GLUE's TSVs")
    parser.add_argument("--tasks", nargs="+", default=["MRPC", "SST-2"], choices=TASKS)
    parser.add_argument("--rows", type=int, help="training rows of a task, at most")
    args = parser.parse_args()
    done = read_rows(args.json)
    if args.table:
        print(table(done))
        return 0
    if args.model is None or args.data is None:
        parser.error("--model and --data are needed")
    for task in args.tasks:
        write_rows(args, task)
    given = {"model": args.model.name, "rows": args.rows, "set": args.set, "ds": args.ds}
    refuse_others(parser, args.json, done, given)
    known = {(row["task"], row["arm"], row["seed"]) for row in done}
    wanted = [(task, arm, seed) for task in args.tasks for seed in args.seeds for arm in ARMS]
    run_queue(
        args.json,
        done,
        [case for case in wanted if case not in known],
        lambda case, threads: run_case(args, *case, threads),
        lambda row: f"{row['task']}, {row['arm']}, seed {row['seed']}: {row['headline']:.2f}",
        args.jobs,
    )
    print(table(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
