"""The command line: `python -m pipeline run`, one word a stage, `plan`, `migrate`, `convert`, `status` and `report`."""

import argparse
import os
import sys
import time
from pathlib import Path

from data_prep.errors import UserError, refusal
from pipeline.families.head import AUTO_CLASSES
from pipeline.recipes.engine_config import load_with_recipe
from pipeline.recipes.recipe import load_recipe, resolve_sources
from pipeline.runs.folder import RunFolder
from pipeline.runs.run import Run
from pipeline.stages import table

# What makes a folder in runs/ one of ours.
_RUN = ("recipe.json", "finetune")


def build_parser() -> argparse.ArgumentParser:
    """Every command and flag."""
    parser = argparse.ArgumentParser(
        prog="pipeline", description="Find the early-bird ticket, cut it out, train the slim model."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    everything = argparse.ArgumentParser(add_help=False)
    everything.add_argument("--root", type=Path, default=Path("."), help="folder that holds corpora/ and runs/")
    everything.add_argument("--run", default="sample", help="name of the run: its folder is runs/NAME")

    run = commands.add_parser("run", parents=[everything], help="all stages in order, finished ones skipped")
    run.add_argument("--recipe", default="sample", help="name in pipeline/recipes/ or path of a .toml file")
    run.add_argument("--ds", default="cpu", help="name in ds_configs/ or path of a DeepSpeed .json file")
    run.add_argument("--data", help="folder or file of raw text instead of the recipe's sources")
    run.add_argument("--nproc", type=int, default=1, help="ranks on this node (torchrun); srun takes the job's")
    run.add_argument("--launcher", choices=("torchrun", "srun"), default="torchrun")
    run.add_argument("--force", action="store_true", help="make finished or begun stages again")
    run.add_argument("overrides", nargs="*", metavar="section.key=value", help="go on top of the recipe")

    plan = commands.add_parser("plan", help="what a recipe will do, before it is run: printed and drawn")
    plan.add_argument("--recipe", default="sample", help="name in pipeline/recipes/ or path of a .toml file")
    plan.add_argument("--ds", default="cpu", help="name in ds_configs/ or path of a DeepSpeed .json file")
    plan.add_argument("--nproc", type=int, default=1, help="ranks that will share the rows of a step")
    plan.add_argument("--out", type=Path, default=Path("plan.png"), help="where the picture goes")
    plan.add_argument("overrides", nargs="*", metavar="section.key=value", help="go on top of the recipe")

    migrate = commands.add_parser("migrate", help="an old DeepSpeed config becomes a recipe and an engine config")
    migrate.add_argument("old", type=Path, help="DeepSpeed .json file, with progressive_layer_drop or without")
    migrate.add_argument("--client", type=Path, help="bing_bert's own .json file beside it, with the model and rates")
    migrate.add_argument("--out", help="NAME.toml and NAME.json are written; without it, named after the old file")
    migrate.add_argument("--steps", type=int, help="optimiser steps of the run, where the file does not tell")
    migrate.add_argument("--ranks", type=int, help="GPUs of the old run, where the file gives one GPU's batch only")
    migrate.add_argument("--force", action="store_true", help="overwrite NAME.toml and NAME.json")

    convert = commands.add_parser("convert", help="an old model folder with pickled weights becomes one to fine-tune")
    convert.add_argument("old", type=Path, help="folder with pytorch_model.bin, config.json and a vocabulary")
    convert.add_argument("new", type=Path, help="folder to make, with safetensors and a tokenizer.json")

    data = commands.add_parser("data", help="only the corpus of a recipe, or one machine's part of it")
    data.add_argument("--root", type=Path, default=Path("."), help="folder that holds corpora/ and runs/")
    data.add_argument("--recipe", default="sample", help="name in pipeline/recipes/ or path of a .toml file")
    data.add_argument("--data", help="folder or file of raw text instead of the recipe's sources")
    data.add_argument("--only", choices=("ingest", "tokenizer", "shard"), help="this stage alone")
    data.add_argument("--part", metavar="I/N", help="with --only ingest or shard: the I-th of N machines' shares")
    data.add_argument("--workers", type=int, help="processes of ingest and shard; all cores when not given")
    data.add_argument("--force", action="store_true", help="make finished stages again")
    data.add_argument("overrides", nargs="*", metavar="section.key=value", help="go on top of the recipe")

    for stage in table.TRAINING_STAGES:
        word = commands.add_parser(
            stage.name, parents=[everything], help=f"stage {stage.name} of a run, in these ranks"
        )
        word.add_argument("--force", action="store_true", help="make the stage again")

    finetune = commands.add_parser("finetune", help="fine-tune a model on a task: GLUE's, or texts of your own")
    finetune.add_argument("--root", type=Path, default=Path("."), help="folder that holds runs/")
    finetune.add_argument("--run", help="run whose model it is, or with --model the name of the folder of results")
    finetune.add_argument("--model", help="a model folder or a name on the hub instead of the run's own")
    finetune.add_argument("--task", required=True, help="a task of GLUE, such as MRPC, or a name for your own texts")
    finetune.add_argument("--seed", type=int, default=0)
    finetune.add_argument(
        "--data", help="folder of GLUE's TSVs or of your own files, or hub:NAME; without it GLUE's hub"
    )
    finetune.add_argument("--recipe", default="finetune", help="name in pipeline/recipes/ or path of a .toml file")
    finetune.add_argument("--ds", help="name in ds_configs/ or path of a DeepSpeed .json file; without it the run's")
    finetune.add_argument("--force", action="store_true", help="do it again")
    finetune.add_argument("overrides", nargs="*", metavar="section.key=value", help="go on top of the recipe")

    report = commands.add_parser("report", parents=[everything], help="report.html of a run")
    report.add_argument("--compare", nargs="*", default=[], metavar="RUN", help="runs to show beside it")

    status = commands.add_parser("status", help="what every run has done")
    status.add_argument("--root", type=Path, default=Path("."))
    status.add_argument("--run", help="only this run")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Exit code 2 with one line for the user's mistakes."""
    options = build_parser().parse_args(arguments)
    try:
        return _dispatch(options)
    except UserError as error:
        return _fail(error)
    except OSError as error:
        refused = refusal(error, getattr(options, "root", Path()))
        if refused is None:
            raise
        return _fail(refused)


def _fail(error: UserError) -> int:
    rank = os.environ.get("SLURM_PROCID" if "SLURM_STEP_ID" in os.environ else "RANK", "0")
    if rank != "0":
        # Rank 0 mostly meets the same mistake: it speaks first and its exit ends this process.
        time.sleep(3)
    print(f"error: {error.shown()}", file=sys.stderr, flush=True)
    return 2


def _dispatch(options: argparse.Namespace) -> int:
    if options.command == "plan":
        from pipeline.reports.plan import plan

        return plan(options.recipe, options.overrides, options.ds, options.nproc, options.out)
    if options.command == "migrate":
        return _migrate(options)
    if options.command == "convert":
        from pipeline.migration.pickled import convert

        print("\n".join(convert(options.old, options.new)))
        return 0
    root: Path = options.root
    if options.command == "status":
        return _status(root, options.run)
    if options.command == "data":
        return _data(root, options)
    if options.command == "run":
        recipe = resolve_sources(options.data, load_recipe(options.recipe, options.overrides))
        engine, recipe, notes = load_with_recipe(options.ds, recipe)
        for note in notes:
            print(note, file=sys.stderr, flush=True)
        run = Run.of(root, options.run, recipe, engine)
        code = table.run_all(run, root, options.launcher, options.nproc, options.force)
        if code == 0:
            _report(root, options.run, [])
            _closing_words(run)
        return code
    if options.command == "report":
        return _report(root, options.run, options.compare)
    if options.command == "finetune":
        from pipeline.stages.finetune import finetune

        return finetune(
            root, options.run, options.task, options.seed, options.data, options.model, options.recipe, options.ds,
            options.overrides, options.force,
        )  # fmt: skip
    run = Run.open(root, options.run)
    stage = next(stage for stage in table.TRAINING_STAGES if stage.name == options.command)
    table.run_stage(stage, run, options.force)
    return 0


def _data(root: Path, options: argparse.Namespace) -> int:
    recipe = resolve_sources(options.data, load_recipe(options.recipe, options.overrides))
    if options.part and options.only not in ("ingest", "shard"):
        raise UserError(
            f"--part {options.part} needs --only ingest or --only shard; the parts of one stage run together"
        )
    run = Run.of(root, "data", recipe, {})
    return table.make_corpus(run, options.force, options.only, options.part, options.workers)


def _migrate(options: argparse.Namespace) -> int:
    from pipeline.migration.whole import write_migrated

    for flag in ("steps", "ranks"):
        value = getattr(options, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag} is {value}, wanted 1 or more")
    done, recipe, engine = write_migrated(
        options.old, options.out, options.force, options.steps, options.ranks, options.client
    )
    print("\n".join(str(line) for line in done.lines))
    for note in done.notes:
        print(note, file=sys.stderr)
    print(f"wrote {recipe} and {engine}; next:")
    print(f"  python -m pipeline run --recipe {recipe} --run {recipe.stem} --ds {engine}")
    return 0


def _report(root: Path, name: str, others: list[str]) -> int:
    from pipeline.reports.page import build_report

    folders = [_folder(root, one) for one in [name, *others]]
    out = folders[0].report
    build_report([folder.root for folder in folders], out)
    print(f"report: {out}")
    return 0


def _folder(root: Path, name: str) -> RunFolder:
    """The folder of a run, or of fine-tunings of a model that is no run's. Raises UserError when there is none."""
    folder = RunFolder(root / "runs" / name)
    return folder if (folder.root / "finetune").is_dir() else Run.open(root, name).folder


def _status(root: Path, name: str | None) -> int:
    runs = root / "runs"
    names = [name] if name else sorted({path.parent.name for what in _RUN for path in runs.glob(f"*/{what}")})
    if not names:
        raise UserError(f"there are no runs in {runs}; start one with: make pretrain")
    for one in names:
        folder = _folder(root, one)
        print(f"{one} ({folder.root})")
        run = Run.open(root, one) if folder.recipe.exists() else None
        for stage, state, seconds in [*(table.statuses(run) if run else []), *table.finetuned(folder)]:
            print(f"  {stage:<24} {state:<40} {seconds:>10}{' s' if seconds else ''}")
    return 0


def _closing_words(run: Run) -> None:
    name, slim, objective = run.folder.root.name, run.recipe.search.enabled, run.recipe.objective.name
    own = ", trust_remote_code=True" if any(run.folder.model.glob("modeling_*.py")) else ""
    words = [
        f"{'slim' if slim else 'dense'} model:  {run.folder.model} "
        f"({AUTO_CLASSES[objective]}.from_pretrained(...{own}))"
    ]
    if run.folder.model_expanded.is_dir():
        zeros = ", zeros where units were cut" if slim else ""
        words.append(f"stock model: {run.folder.model_expanded} (plain transformers{zeros})")
    tune = f"; fine-tune with `make finetune RUN={name} TASK=SST-2 GLUE=folder-of-GLUE-tsvs`"
    words.append(f"next: open {run.folder.report}{'' if objective == 'classification' else tune}; see `make status`")
    print("\n".join(words))


def cli() -> None:
    """The program: `main`, then the end of the process."""
    code = main()
    if code == 0:
        # Threads of torch and gloo may still be joinable when C++ tears its statics down, which now and then aborts a
        # process that has long written its manifest. Everything of ours is closed by now, so that part is left out.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    sys.exit(code)


if __name__ == "__main__":
    cli()
