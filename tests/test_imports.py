"""Imports go one way: the layers of docs/architecture.md, checked on the source."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
LAYERS = [
    {"__main__"},
    {"stages", "launch"},
    {"search", "draw", "finetune", "export", "report", "pretrain", "plan"},
    {"train", "evaluate"},
    {"checkpoint", "engine"},
    {"metrics", "data", "optim", "dist", "tracking", "record", "report_tables",
     "plots.plan", "plots.ticket", "plots.training", "tickets.gates", "tickets.score", "tickets.surgery",
     "model.hf", "model.modeling_slim_bert", "model.switch", "tasks.glue", "tasks.classification", "tasks.classifier"},
    {"run", "dsconfig", "config", "sections", "artifacts", "model.shape", "tickets.ticket", "tickets.select",
     "tickets.settle", "tickets.draw", "tickets.families", "layer_drop", "schedule_words", "step_costs",
     "migration.layer_drop", "migration.ledger", "migration.recipe_side", "migration.engine_side", "migration.whole"},
]  # fmt: skip
TORCH_FREE = LAYERS[-1] | {"stages", "launch", "__main__", "plan"}
ONLY_DEEPSPEED = {"engine", "checkpoint"}
DATA_PREP_EDGES = {
    ("config", "data_prep.manifest"),
    ("dsconfig", "data_prep.manifest"),
    ("artifacts", "data_prep.manifest"),
    ("layer_drop", "data_prep.manifest"),
    ("layer_drop", "data_prep.rows.masking"),
    ("artifacts", "data_prep.corpus"),
    ("data", "data_prep.rows.shards"),
    ("data", "data_prep.rows.masking"),
    ("data", "data_prep.rows.sentence_pairs"),
    ("train", "data_prep.rows.masking"),
    ("plots.plan", "data_prep.pictures"),
    ("plots.ticket", "data_prep.pictures"),
    ("plots.training", "data_prep.pictures"),
    ("plots.training", "data_prep.readable"),
    ("report", "data_prep.pictures"),
    ("report", "data_prep.readable"),
    ("report_tables", "data_prep.readable"),
}


def modules(package: str) -> dict[str, Path]:
    root = REPOSITORY / package
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in sorted(root.rglob("*.py"))
        if path.name != "__init__.py"
    }


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


PIPELINE = modules("pipeline")


def layer_of(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if module in layer)


def test_every_module_has_a_layer() -> None:
    assert set(PIPELINE) == set().union(*LAYERS)


@pytest.mark.parametrize("module", sorted(PIPELINE))
def test_imports_point_down(module: str) -> None:
    for name in imported(PIPELINE[module]):
        target = name.removeprefix("pipeline.")
        if name.startswith("pipeline.") and target in PIPELINE:
            assert layer_of(target) >= layer_of(module), f"{module} imports {target} from a layer above"


@pytest.mark.parametrize("module", sorted(TORCH_FREE & set(PIPELINE)))
def test_torch_free_modules_stay_so(module: str) -> None:
    heavy = {"torch", "deepspeed", "transformers", "datasets"}
    assert not {name.split(".")[0] for name in imported(PIPELINE[module], top_level_only=True)} & heavy


@pytest.mark.parametrize("module", sorted(PIPELINE))
def test_deepspeed_stays_behind_the_engine(module: str) -> None:
    uses = any(name.split(".")[0] == "deepspeed" for name in imported(PIPELINE[module]))
    assert not uses or module in ONLY_DEEPSPEED


def test_the_packages_touch_in_few_places() -> None:
    edges = {
        (module, name)
        for module, path in PIPELINE.items()
        for name in imported(path)
        if name in {f"data_prep.{m}" for m in modules("data_prep")}
    }
    assert edges == DATA_PREP_EDGES


def test_data_prep_knows_neither_torch_nor_the_pipeline() -> None:
    for module, path in modules("data_prep").items():
        # One module asks transformers for a published tokenizer, when it is called and not before.
        asks = {"transformers"} if module == "tokenization.published" else set()
        unwanted = {"torch", "pipeline", "transformers", "deepspeed"}
        assert not {name.split(".")[0] for name in imported(path)} & (unwanted - asks)
        assert not {name.split(".")[0] for name in imported(path, top_level_only=True)} & unwanted


def test_the_model_file_travels_alone() -> None:
    allowed = {"torch", "transformers"}
    import sys

    roots = {name.split(".")[0] for name in imported(PIPELINE["model.modeling_slim_bert"])}
    assert roots - allowed <= set(sys.stdlib_module_names)


def test_model_code_knows_no_training() -> None:
    for module in ("model.shape", "model.modeling_slim_bert", "model.hf"):
        names = {name.removeprefix("pipeline.") for name in imported(PIPELINE[module])}
        assert not names & {"config", "sections", "engine", "dist", "data", "train"}
