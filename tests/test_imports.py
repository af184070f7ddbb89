"""Imports go one way: the rooms of docs/architecture.md, checked on the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
# From the top; a module imports from its own room and from those below it.
ROOMS = [
    "__main__", "stages", "reports", "migration", "objectives", "training", "runs", "recipes", "tickets", "families",
    "layer_drop",
]  # fmt: skip
# What pipeline takes from data_prep: its ground floor, which everybody may stand on, and by room the rest.
GROUND = {"errors", "files", "manifest"}
FROM_DATA_PREP = {
    "reports": {"corpus", "formatting", "plots", "tokenization.sizes"},
    "objectives": {"rows.shards", "rows.masking", "rows.sentence_pairs"},
    "training": {"rows.masking"},
    "runs": {"corpus"},
    "layer_drop": {"rows.masking"},
    "migration": {"tokenization.habits"},
}
# Imported where nothing is trained: a finished run is recognised, and a recipe told, in a second.
TORCH_FREE = [
    "pipeline.__main__", "pipeline.stages.table", "pipeline.reports.plan", "pipeline.reports.record",
    "pipeline.migration.whole", "pipeline.runs.run", "pipeline.tickets.draw", "pipeline.layer_drop.describe",
    "pipeline.families.stock_shape",
]  # fmt: skip
ONLY_DEEPSPEED = {"training.engine", "training.gradient_norm", "training.checkpoint"}


def modules(package: str) -> dict[str, Path]:
    root = REPOSITORY / package
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in sorted(root.rglob("*.py"))
        if path.name != "__init__.py"
    }


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module: str) -> str:
    return module.split(".")[0]


PIPELINE, DATA_PREP = modules("pipeline"), modules("data_prep")


def test_every_module_has_a_room() -> None:
    assert {room_of(module) for module in PIPELINE} == set(ROOMS)


@pytest.mark.parametrize("module", sorted(PIPELINE))
def test_imports_point_down(module: str) -> None:
    for name in imported(PIPELINE[module]):
        target = name.removeprefix("pipeline.")
        if name.startswith("pipeline.") and target in PIPELINE:
            assert ROOMS.index(room_of(target)) >= ROOMS.index(room_of(module)), f"{module} imports {target} from above"


def test_nothing_heavy_is_imported_where_nothing_is_trained() -> None:
    code = f"import sys, {', '.join(TORCH_FREE)}; print({{'torch', 'deepspeed', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


def test_deepspeed_stays_behind_the_engine() -> None:
    uses = {
        module for module, path in PIPELINE.items() if any(name.split(".")[0] == "deepspeed" for name in imported(path))
    }
    assert uses <= ONLY_DEEPSPEED


def test_the_packages_touch_in_few_places() -> None:
    found: dict[str, set[str]] = {}
    for module, path in PIPELINE.items():
        names = {name.removeprefix("data_prep.") for name in imported(path) if name.startswith("data_prep.")}
        found.setdefault(room_of(module), set()).update((names & set(DATA_PREP)) - GROUND)
    assert {room: names for room, names in found.items() if names} == FROM_DATA_PREP


def test_data_prep_knows_neither_torch_nor_the_pipeline() -> None:
    for module, path in DATA_PREP.items():
        # One module asks transformers for a published tokenizer, when it is called and not before.
        asks = {"transformers"} if module == "tokenization.published" else set()
        assert not {name.split(".")[0] for name in imported(path)} & (
            {"torch", "pipeline", "transformers", "deepspeed"} - asks
        )


def test_the_ground_floor_imports_nothing_of_ours() -> None:
    for module in GROUND:
        names = {name for name in imported(DATA_PREP[module]) if name.startswith(("data_prep.", "pipeline."))}
        assert {name.split(".")[1] for name in names} <= GROUND | {"terminal"}


@pytest.mark.parametrize("module", ["modeling_slim_bert", "modeling_slim_bert_heads", "modeling_narrow"])
def test_files_that_travel_with_a_model_need_torch_and_transformers_only(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(PIPELINE[f"families.{module}"])}
    # The heads travel beside the encoder.
    beside = {"modeling_slim_bert"} if module == "modeling_slim_bert_heads" else set()
    assert roots - {"torch", "transformers"} - beside <= set(sys.stdlib_module_names)
