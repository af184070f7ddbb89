"""The layer dropping study: schedules x ways of skipping x seeds, against dense training, all fully decayed.

Every case is a dense pre-training run of the pipeline with its own [layer_drop]. Run: make layer-drop-study, or
python benchmarks/layer_drop_study.py --json FILE [--shape micro|full] [--ds NAME] [--data FOLDER] [--jobs N]
One row a case goes to FILE, so that the same command goes on where it was stopped; a case that was interrupted resumes
from its checkpoint. `--jobs` cases run at the same time, each on its share of the cores: losses do not mind, but
seconds do, so times are taken from benchmarks/layer_drop_speed.py. `--table` prints what FILE holds.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import config, dsconfig, stages
from pipeline.artifacts import begin, is_done, write_atomically
from pipeline.run import Run

REPOSITORY = Path(__file__).resolve().parents[1]
SEEDS = (42, 43, 44)
# All save about a quarter of the layers' FLOPs over the run, so that what differs is where and when.
SCHEDULES = {
    "constant uniform": ["time=constant", "depth=uniform", "theta=0.75"],
    "constant linear": ["time=constant", "depth=linear", "theta=0.5"],
    "pld": ["time=pld", "depth=pld", "theta=0.5", "scaling=sublayer"],
    "decreasing uniform": ["time=decreasing", "depth=uniform", "theta=0.5"],
    "decreasing linear": ["time=decreasing", "depth=linear", "theta=0.05"],
    "decreasing alternate": ["time=decreasing", "depth=alternate", "theta=0.05"],
    "stages inner": ["time=stages", "depth=inner", "stages=[0.25, 0.5, 0.75, 1.0]"],
}
UNITS = ("layer", "sample")


def cases() -> dict[str, list[str]]:
    """Overrides by the name of the case, in the order they are run."""
    found = {"dense": ["layer_drop.enabled=false"]}
    for name, values in SCHEDULES.items():
        for unit in UNITS:
            settings = [*values, f"unit={unit}", "enabled=true"]
            found[f"{name}, {unit}"] = [f"layer_drop.{value}" for value in settings]
    return found


def run_case(args: argparse.Namespace, name: str, overrides: list[str], seed: int, threads: int) -> dict[str, Any]:
    """Train one case to its end, from where it stands, and describe what came of it."""
    run = make_run(args, name, overrides, seed)
    stage, folder = stages.PRETRAIN, run.folder.pretrain
    settings, inputs = stage.settings(run), stage.inputs(run)
    if not is_done(folder, stage.name, settings, inputs):
        run.save()
        begin(folder, stage.name, settings, inputs)
        words = [sys.executable, "-m", "pipeline", stage.name, "--root", str(args.root), "--run", run.folder.root.name]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(REPOSITORY)}
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            subprocess.run(words, env=environment, check=True, stdout=log, stderr=log)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    last = [row for row in rows if row["kind"] == "train"][-1]
    return {
        "case": name, "seed": seed, "shape": args.shape, "overrides": overrides, "data": args.data, "ds": args.ds,
        "steps": manifest["results"]["steps"], "tokens": manifest["results"]["tokens"],
        "flops_saved": last.get("flops_saved", 0.0),
        "validation": [[r["step"], r["loss"], r["accuracy"]] for r in rows if r["kind"] == "validation"],
        "commit": manifest["commit"], "seconds_training": manifest["results"]["seconds_training"],
        "jobs": args.jobs, "threads": threads,
    }  # fmt: skip


def make_run(args: argparse.Namespace, name: str, overrides: list[str], seed: int) -> Run:
    recipe = config.load_recipe(
        str(REPOSITORY / "benchmarks" / f"layer_drop_{args.shape}.toml"), [*overrides, f"seed={seed}", *args.set]
    )
    recipe = config.resolve_sources(args.data, recipe)
    folder = f"{args.shape}-{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    return Run.of(args.root, folder, recipe, dsconfig.load_ds_config(args.ds))


def main() -> int:
    """Run the queue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="rows are added to this file")
    parser.add_argument("--shape", choices=("micro", "full"), default="micro")
    parser.add_argument("--ds", default="zero1_bf16")
    parser.add_argument("--data", help="text instead of the bundled novels")
    parser.add_argument("--root", type=Path, default=REPOSITORY / "study")
    parser.add_argument("--jobs", type=int, default=1, help="cases at the same time")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--only", nargs="+", help="cases whose names contain one of these words")
    parser.add_argument("--set", nargs="+", default=[], metavar="section.key=value", help="on top of every recipe")
    args = parser.parse_args()
    done: list[dict[str, Any]] = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else []
    known = {(row["shape"], row["case"], row["seed"]) for row in done}
    queue = [
        (name, overrides, seed)
        for seed in args.seeds
        for name, overrides in cases().items()
        if (args.shape, name, seed) not in known and (not args.only or any(word in name for word in args.only))
    ]
    if code := stages.make_corpus(make_run(args, "dense", [], 0), force=False):
        return code
    threads = max(1, (os.cpu_count() or 1) // args.jobs)

    def work(item: tuple[str, list[str], int]) -> None:
        row = run_case(args, *item, threads)
        done.append(row)
        write_atomically(args.json, "[\n" + ",\n".join(json.dumps(each) for each in done) + "\n]\n")
        tqdm.write(f"{row['case']}, seed {row['seed']}: {row['validation'][-1][1]:.4f}, saved {row['flops_saved']:.1%}")

    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(queue), desc="cases") as bar:
        for future in [pool.submit(work, item) for item in queue]:
            future.result()
            bar.update()
    return 0


if __name__ == "__main__":
    sys.exit(main())
