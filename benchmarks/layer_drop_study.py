"""The layer dropping study: schedules x ways of skipping x seeds, against dense training, all fully decayed.

Every case is a dense pre-training run of the pipeline with its own [layer_drop]. Run: make layer-drop-study, or
python benchmarks/layer_drop_study.py --json FILE [--shape micro|full] [--ds NAME] [--data FOLDER] [--jobs N]
One row a case goes to FILE, so that the same command goes on where it was stopped; a case that was interrupted resumes
from its checkpoint. `--jobs` cases run at the same time, each on its share of the cores: losses do not mind, but
seconds do, so steps are timed against others of the same run, and in benchmarks/layer_drop_speed.py. `--table` prints
what FILE holds, `--picture` draws it.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.study import REPOSITORY, read_rows, refuse_others, run_pipeline, run_queue, study_parser
from data_prep import plots
from data_prep.manifest import is_done
from pipeline.families.shape import EncoderShape
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import load_recipe, resolve_sources
from pipeline.runs.folder import begin
from pipeline.runs.run import Run
from pipeline.stages.table import make_corpus, stages_of

SEEDS = (42, 43, 44)
# All save about a quarter of the layers' FLOPs over the run, so that what differs is where and when. The depth that
# runs is drawn anew for every micro-batch.
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
# Nothing is drawn: a stage of 0 leaves the same layers out, and the network grows to all of them.
GROWING = {
    "growing alternate": ["depth=alternate", "stages=[0.0, 1.0]"],
    "growing inner": ["depth=inner", "stages=[0.0, 1.0]"],
    "growing inner late": ["depth=inner", "stages=[0.0, 0.0, 1.0]"],
}
# What the picture shows.
CURVES = ("dense", "growing alternate", "growing inner late", "decreasing linear, layer", "pld, layer")
FAMILIES = {
    "a new draw every micro-batch": tuple(SCHEDULES),
    "growing": tuple(GROWING),
    "half the layers": ("dense, half",),
}
Cost = Callable[[dict[str, Any], int, float, dict[str, Any]], float]
SHORTER = "growing inner late"
SMALL_RATE = "post-LN, rate / 10"


def cases(steps: int, layers: int) -> dict[str, list[str]]:
    """Overrides by the name of the case, in the order they are run; `steps`, `layers`: the shape's."""
    dropped = {
        f"{name}, {unit}": [f"layer_drop.{value}" for value in ["enabled=true", f"unit={unit}", *values]]
        for name, values in SCHEDULES.items()
        for unit in UNITS
    }
    growing = {
        name: [f"layer_drop.{value}" for value in ["enabled=true", "time=stages", "unit=layer", *values]]
        for name, values in GROWING.items()
    }
    # A search with layers left out would have no scores for them.
    ticket = ["search.enabled=true", "layer_drop.during_search=false"]
    # As PLD was published: against a post-LN model at a tenth of the rate.
    small_rate = ["model.norm=post", "optimizer.lr=8e-4", "optimizer.adamw_lr=4e-4"]
    return {
        "dense": [],
        **growing,
        # Decayed to zero within 1 / 1.5 of dense's time.
        f"{SHORTER}, 5/6 of the steps": [*growing[SHORTER], f"pretrain.steps={round(5 / 6 * steps)}"],
        # What never growing comes to: the larger network has to beat it.
        "dense, half the layers": [f"model.layers={layers // 2}"],
        "ticket": ticket,
        "ticket, growing alternate": [*ticket, *growing["growing alternate"]],
        SMALL_RATE: small_rate,
        **dropped,
    }


def run_case(args: argparse.Namespace, name: str, overrides: list[str], seed: int, threads: int) -> dict[str, Any]:
    """Train one case to its end, from where it stands, and describe what came of it."""
    run = make_run(args, name, overrides, seed)
    for stage in stages_of(run.recipe)[:-1]:  # all but the export
        folder, settings, inputs = stage.folder(run), stage.settings(run), stage.inputs(run)
        if is_done(folder, stage.name, settings, inputs):
            continue
        run.save()
        begin(folder, stage.name, settings, inputs)
        words = [stage.name, "--root", args.root, "--run", run.folder.root.name]
        run_pipeline(words, run.folder.root / "log.txt", threads)
    folder = run.folder.pretrain
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    saved = {row["step"]: row.get("flops_saved", 0.0) for row in rows if row["kind"] == "train"}
    with safe_open(folder / "weights.safetensors", "np") as weights:
        shape = EncoderShape.from_dict(json.loads(weights.metadata()["shape"]))
    recipe = run.recipe
    tokens_a_step = recipe.batch.global_rows * recipe.corpus.row_length
    step_flops = tokens_a_step * shape.train_flops_per_token(recipe.corpus.row_length, recipe.objective.mask_rate)
    results = manifest["results"]
    row = {
        "case": name, "seed": seed, "shape": args.shape, "overrides": overrides, "set": args.set, "data": args.data,
        "ds": args.ds, "steps": results["steps"], "tokens": results["tokens"],
        "flops_saved": saved[results["steps"]], "encoder_flops_kept": results["encoder_flops_kept"],
        "step_flops": step_flops,
        "validation": [[r["step"], r["loss"], saved.get(r["step"], 0.0)] for r in rows if r["kind"] == "validation"],
        "commit": manifest["commit"], "seconds_training": results["seconds_training"], "jobs": args.jobs,
        "threads": threads,
    }  # fmt: skip
    if name.startswith(tuple(GROWING)):
        dropping = recipe.dropping(len(shape.layers))
        assert dropping is not None
        row["steps_waiting"] = int((dropping.schedule.theta_at(np.arange(results["steps"])) == 0).sum())
        train = [row for row in rows if row["kind"] == "train"]
        row["step_seconds"] = {
            key: float(np.median([each["step_seconds"] for each in train if each["theta"] == theta]))
            for key, theta in (("waiting", 0.0), ("full", 1.0))
        }
    if recipe.search.enabled:
        search = json.loads((run.folder.search / "manifest.json").read_text(encoding="utf-8"))["results"]
        row |= {"search_steps": search["steps"], "settled": search["settled"]}
    return row


def make_run(args: argparse.Namespace, name: str, overrides: list[str], seed: int) -> Run:
    path = REPOSITORY / "benchmarks" / f"layer_drop_{args.shape}.toml"
    recipe = load_recipe(str(path), [*args.set, *overrides, f"seed={seed}"])
    recipe = resolve_sources(args.data, recipe)
    folder = f"{args.shape}-{re.sub('[^A-Za-z0-9]+', '-', name)}-{seed}"
    return Run.of(args.root, folder, recipe, engine_config.load_ds_config(args.ds))


def table(rows: list[dict[str, Any]], shape: str) -> str:
    """Final loss of every case and seed, its mean difference from dense of the same seed, and what it cost.

    "cost": FLOPs of the run, a search included; "to dense's loss": FLOPs until the validation loss first lies under
    dense's last one, on the line between two validations; both as a share of the dense run's FLOPs. Means of the seeds
    that dense has too; a case of which a seed never gets there has a dash.
    """
    of_shape = [row for row in rows if row["shape"] == shape]
    dense = {row["seed"]: row for row in of_shape if row["case"] == "dense"}
    lines = ["| case | final loss by seed | against dense | cost | to dense's loss |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(row["case"] for row in of_shape):
        found = sorted((row for row in of_shape if row["case"] == name), key=lambda row: row["seed"])
        paired = [row for row in found if row["seed"] in dense]
        losses = ", ".join(f"{row['validation'][-1][1]:.3f}" for row in found)
        gaps = [row["validation"][-1][1] - dense[row["seed"]]["validation"][-1][1] for row in paired]
        costs = [cost(row, row["steps"], row["flops_saved"], dense[row["seed"]]) for row in paired]
        reached = [cost_to(row, dense[row["seed"]]) for row in paired]
        cells = [f"{np.mean(gaps):+.3f}", f"{np.mean(costs):.1%}"] if paired else ["", ""]
        ever = [spent for spent in reached if spent is not None]
        cells.append(f"{np.mean(ever):.1%}" if paired and len(ever) == len(reached) else "-")
        lines.append(f"| {name} | {losses} | {' | '.join(cells)} |")
    for row in of_shape:
        if "step_seconds" in row and row["seed"] in dense:
            seconds, ours = row["step_seconds"], dense[row["seed"]]
            whole, there = time(row, row["steps"], 0, ours), cost_to(row, ours, time)
            lines.append(
                f"{row['case']}, seed {row['seed']}: a step while layers wait takes "
                f"{seconds['waiting'] / seconds['full']:.3f} of a later one, the run {whole:.1%} of dense's time, "
                f"to dense's loss {'never' if there is None else f'{there:.1%}'}"
            )
    as_published = {row["seed"]: row for row in of_shape if row["case"] == SMALL_RATE}
    for row in of_shape:
        if row["case"] == "pld, layer" and row["seed"] in as_published:
            spent = cost_to(row, as_published[row["seed"]])
            when = "never" if spent is None else f"after {spent:.1%} of its FLOPs"
            lines.append(f"pld, layer, seed {row['seed']}: at the last loss of {SMALL_RATE} {when}")
    return "\n".join(lines)


def cost(row: dict[str, Any], step: int, saved: float, dense: dict[str, Any]) -> float:
    """FLOPs of a run's search and its first `step` steps, as a share of the dense run's."""
    flops = row["step_flops"] * (1 - saved) * step + dense["step_flops"] * row.get("search_steps", 0)
    return float(flops / (dense["step_flops"] * dense["steps"]))


def time(row: dict[str, Any], step: int, _: float, dense: dict[str, Any]) -> float:
    """Time of a growing run's first `step` steps as a share of the dense run's, by the run's own median steps."""
    waiting = min(step, row["steps_waiting"])
    share = row["step_seconds"]["waiting"] / row["step_seconds"]["full"]
    return float((waiting * share + step - waiting) / dense["steps"])


def cost_to(row: dict[str, Any], dense: dict[str, Any], spend: Cost = cost) -> float | None:
    """The share of dense's cost after which a run's validation loss is first at most dense's last; None: never."""
    wanted, before = dense["validation"][-1][1], None
    for step, loss, saved in row["validation"]:
        if not np.isfinite(loss):
            before = None
            continue
        spent = spend(row, step, saved, dense)
        if loss <= wanted:
            if before is None:
                return spent
            return float(np.interp(wanted, [loss, before[1]], [spent, before[0]]))
        before = spent, loss
    return None


def picture(rows: list[dict[str, Any]], shape: str, out: Path) -> None:
    """Validation loss over FLOPs of some cases, and what every run lost or won against dense of its seed."""
    rows = [row for row in rows if row["shape"] == shape]
    dense = {row["seed"]: row for row in rows if row["case"] == "dense"}
    figure = plots.canvas(plots.WIDTH, 3.6)
    curves, ends = figure.subplots(1, 2, width_ratios=(3, 2))
    for index, name in enumerate(CURVES):
        for row in rows:
            if row["case"] == name and row["seed"] in dense:
                spent = [100 * cost(row, step, saved, dense[row["seed"]]) for step, _, saved in row["validation"]]
                losses = [loss for _, loss, _ in row["validation"]]
                label = None if name in curves.get_legend_handles_labels()[1] else name
                color, line = plots.SERIES[index], plots.LINES[index]
                curves.plot(spent, losses, color=color, linestyle=line, linewidth=1.2, label=label)
    for index, (family, words) in enumerate(FAMILIES.items()):
        found = [row for row in rows if row["seed"] in dense and row["case"].startswith(words)]
        spent = [100 * cost(row, row["steps"], row["flops_saved"], dense[row["seed"]]) for row in found]
        gaps = [row["validation"][-1][1] - dense[row["seed"]]["validation"][-1][1] for row in found]
        look: dict[str, Any] = {
            "color": plots.SERIES[index],
            "marker": plots.MARKERS[index],
            "linestyle": "none",
            "markersize": 4,
        }
        ends.plot(spent, gaps, label=family, **look)
    for axes, columns in ((curves, 2), (ends, 1)):
        plots.dress(axes)
        axes.set_xlabel("FLOPs, % of dense")
        plots.legend(axes, columns)
    ends.axhline(0, color=plots.MUTED, linewidth=0.8)
    curves.set_ylabel("validation loss")
    ends.set_ylabel("final loss minus dense's")
    figure.savefig(out, dpi=160)


def main() -> int:
    """Run the queue, then print the table."""
    parser = study_parser(__doc__ or "", "", seeds=SEEDS)
    parser.set_defaults(ds="zero1_bf16")
    parser.add_argument("--shape", choices=("micro", "full"), default="micro")
    parser.add_argument("--data", help="text instead of the bundled novels")
    parser.add_argument("--only", nargs="+", help="cases whose names contain one of these words")
    parser.add_argument("--picture", type=Path, help="only draw what FILE holds into this .png")
    args = parser.parse_args()
    done = read_rows(args.json)
    if args.picture:
        picture(done, args.shape, args.picture)
    if args.table:
        print(table(done, args.shape))
    if args.picture or args.table:
        return 0
    base = make_run(args, "dense", [], 0)
    if code := make_corpus(base, force=False):
        return code
    given = {"set": args.set, "data": args.data, "ds": args.ds}
    refuse_others(parser, args.json, [row for row in done if row["shape"] == args.shape], given)
    known = {(row["shape"], row["case"], row["seed"]) for row in done}
    queue = [
        (name, overrides, seed)
        for seed in args.seeds
        for name, overrides in cases(base.recipe.pretrain.steps, base.recipe.model.layers).items()
        if (args.shape, name, seed) not in known and (not args.only or any(word in name for word in args.only))
    ]
    run_queue(
        args.json,
        done,
        queue,
        lambda item, threads: run_case(args, *item, threads),
        lambda row: f"{row['case']}, seed {row['seed']}: {row['validation'][-1][1]:.4f}",
        args.jobs,
    )
    print(table(done, args.shape))
    return 0


if __name__ == "__main__":
    sys.exit(main())
