"""Learned positions against rotary ones: the recipes `sample` and `mini`, dense and with a ticket, over several seeds.

Run: python benchmarks/positions_study.py --json FILE [--data FOLDER] [--recipes sample mini] [--ds cpu] [--jobs N]
Every case is one `python -m pipeline run`, which resumes; one row a case goes to FILE, so the same command goes on
where it was stopped. `mini` needs `--data`, a folder with wikipedia/ and books/. `--jobs` cases run at the same time:
losses do not mind, seconds compare within one queue only. `--table` prints what FILE holds.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.study import read_rows, refuse_others, run_pipeline, run_queue, study_parser
from pipeline.runs.folder import RunFolder

ARMS = {"ticket": [], "dense": ["search.enabled=false"]}
POSITIONS = ("absolute", "rotary")


def run_case(
    args: argparse.Namespace, recipe: str, positions: str, arm: str, seed: int, threads: int
) -> dict[str, Any]:
    """Pre-train one case to its end, and what came of it."""
    name = f"{recipe}-{positions}-{arm}-{seed}"
    folder = RunFolder(args.root / "runs" / name)
    words = [
        "run", "--root", args.root, "--recipe", recipe, "--run", name, "--ds", args.ds,
        *(["--data", args.data] if recipe != "sample" else []), f"model.positions={positions}", f"seed={seed}",
        "tracking.wandb=disabled", *ARMS[arm], *args.set,
    ]  # fmt: skip
    run_pipeline(words, folder.root.with_suffix(".log"), threads)
    manifest = json.loads((folder.pretrain / "manifest.json").read_text(encoding="utf-8"))
    lines = (folder.pretrain / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    results = manifest["results"]
    row = {
        "recipe": recipe, "positions": positions, "arm": arm, "seed": seed, "set": args.set, "ds": args.ds,
        "validation": [[r["step"], r["loss"]] for r in map(json.loads, lines) if r["kind"] == "validation"],
        "parameters": results["parameters"], "seconds_training": results["seconds_training"],
        "steps": results["steps"], "commit": manifest["commit"], "jobs": args.jobs, "threads": threads,
    }  # fmt: skip
    if arm == "ticket":
        search = json.loads((folder.search / "manifest.json").read_text(encoding="utf-8"))["results"]
        row |= {"search_steps": search["steps"], "seconds_search": search["seconds_training"]}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Last losses of every recipe, arm and kind of positions by seed, and the time of a step."""
    lines = ["| recipe | arm | positions | validation loss by seed | ms a step |", "|---|---|---|---|---|"]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        for arm in ARMS:
            for positions in POSITIONS:
                wanted = (recipe, arm, positions)
                found = [row for row in rows if (row["recipe"], row["arm"], row["positions"]) == wanted]
                if found:
                    losses = ", ".join(
                        f"{row['validation'][-1][1]:.3f}" for row in sorted(found, key=lambda row: row["seed"])
                    )
                    step = mean(row["seconds_training"] / row["steps"] for row in found)
                    lines.append(f"| {recipe} | {arm} | {positions} | {losses} | {1000 * step:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Run the queue, then print the table."""
    parser = study_parser(__doc__ or "", "positions", seeds=(42, 43, 44))
    parser.add_argument("--data", type=Path, help="text for mini")
    parser.add_argument("--recipes", nargs="+", default=["sample", "mini"], choices=["sample", "mini"])
    args = parser.parse_args()
    done = read_rows(args.json)
    if args.table:
        print(table(done))
        return 0
    if "mini" in args.recipes and args.data is None:
        parser.error("mini needs --data")
    refuse_others(parser, args.json, done, {"set": args.set, "ds": args.ds})
    known = {(row["recipe"], row["positions"], row["arm"], row["seed"]) for row in done}
    # Both kinds of positions of a case stand beside each other, so that two jobs time them under the same load.
    wanted = [
        (recipe, positions, arm, seed)
        for recipe in args.recipes for seed in args.seeds for arm in ARMS for positions in POSITIONS
    ]  # fmt: skip
    run_queue(
        args.json,
        done,
        [case for case in wanted if case not in known],
        lambda case, threads: run_case(args, *case, threads),
        lambda row: (
            f"{row['recipe']}, {row['positions']}, {row['arm']}, seed {row['seed']}: {row['validation'][-1][1]:.4f}"
        ),
        args.jobs,
    )
    print(table(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
