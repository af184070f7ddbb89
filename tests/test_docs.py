"""The documentation names only what there is: targets, commands, recipe keys, DeepSpeed keys, layers, files, links."""

import argparse
import re
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from data_prep.__main__ import build_parser as build_data_parser
from pipeline.__main__ import build_parser
from pipeline.layer_drop.old_block import KEYS as OLD_LAYER_DROP_KEYS
from pipeline.layer_drop.old_block import OLD_LAYER_DROP
from pipeline.recipes import engine_config
from pipeline.recipes.recipe import Recipe, load_recipe, parse_recipe
from pipeline.recipes.sections import Model, Source
from tests.test_imports import PIPELINE, ROOMS

REPOSITORY = Path(__file__).parent.parent
CANDIDATES = ["README.md", "CONTRIBUTING.md", "slurm/README.md", "ds_configs/README.md"]
DOCS = sorted(p for p in [*(REPOSITORY / name for name in CANDIDATES), *REPOSITORY.glob("docs/*.md")] if p.exists())
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
# Tops of the repository; runs/ and corpora/ are made by running. site.env is made by the user.
TOPS = ("data_prep", "pipeline", "ds_configs", "slurm", "tests", "docs", "benchmarks", ".ci", ".github")
MADE_BY_THE_USER = {"slurm/site.env"}
SUFFIXES = {"py", "toml", "json", "md", "safetensors", "sbatch", "env", "jsonl"}

every_page = pytest.mark.parametrize("page", DOCS, ids=lambda path: str(path.relative_to(REPOSITORY)))


def code(page: Path) -> list[str]:
    """Lines of the fenced blocks and inline code of a page."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [line for block in fenced for line in block.split("\n")] + [" ".join(span.split()) for span in inline]


def recipe_defaults() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section, value in Recipe().model_dump().items():
        found |= {f"{section}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {section: value}
    return found


def documented_defaults() -> dict[str, str]:
    text = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([\w.]+)` \| [^|]+ \| `?([^|`]+)`? \| [^|]+ \|[^|]*\|$", text, re.M))


def read_default(text: str) -> Any:
    if text == "unset":
        return None
    return tomllib.loads(f"value = {text}")["value"]


def heading_anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))


def test_every_page_is_there() -> None:
    names = {str(page.relative_to(REPOSITORY)) for page in DOCS}
    wanted = {"README", "concepts", "architecture", "data", "recipes", "howto", "decisions", "from-deepspeed-pld"}
    assert {f"docs/{name}.md" for name in wanted} | {"CONTRIBUTING.md", "ds_configs/README.md"} <= names


@every_page
def test_make_targets_and_variables_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    for line in code(page):
        for target, rest in re.findall(r"(?:^|[$;&] ?|^# )make ([a-z][a-z-]*)(.*)", line):
            assert target in targets, line
            for variable in re.findall(r" ([A-Z]+)=", re.sub(r'"[^"]*"', "", rest)):
                assert f"$({variable})" in MAKEFILE or f"$(or $({variable})" in MAKEFILE, line


@every_page
def test_commands_and_their_flags_exist(page: Path) -> None:
    for line in code(page):
        match = re.search(r"-m (pipeline|data_prep) ([a-z]+)(.*)", line)
        if match is None:
            continue
        known = commands(build_parser() if match[1] == "pipeline" else build_data_parser())
        assert match[2] in known, line
        options = set(known[match[2]]._option_string_actions)
        assert set(re.findall(r"(?<!\S)(--[a-z-]+)", match[3])) <= options, line


@every_page
def test_recipes_are_recipes(page: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        parse_recipe(tomllib.loads(block), origin=str(page))


def test_every_key_of_a_source_is_documented() -> None:
    text = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    table = text[text.index("| key of a source |") :]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]+) \|", table[: table.index("\n\n")], re.M))))
    assert named == set(Source.model_fields)


def test_every_recipe_key_is_documented_with_its_default() -> None:
    documented, defaults = documented_defaults(), recipe_defaults()
    assert documented.keys() == defaults.keys()
    ratios = {key for key, text in documented.items() if re.fullmatch(r'"\d+/\d+"', text)}
    assert ratios == {"ticket.heads"}
    for key, text in documented.items():
        value = read_default(text)
        if key in ratios:
            value = float(Fraction(value))
        assert (tuple(value) if isinstance(defaults[key], tuple) else value) == defaults[key], key


def test_every_default_can_be_written_as_it_is_documented() -> None:
    written = "\n".join(f"{key} = {text}" for key, text in documented_defaults().items() if text != "unset")
    assert parse_recipe(tomllib.loads(written), origin="docs/recipes.md") == Recipe()


def test_what_is_documented_as_a_fraction_is_taken_as_text_too() -> None:
    text = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| `(\w+)\.(\w+)` \| fraction \|", text, re.M)
    assert len(keys) > 15
    for section, key in keys:
        enabled = {"enabled": True, "time": "constant"} if section == "layer_drop" else {}
        values = {section: {key: "1/10", **enabled}}
        assert getattr(getattr(parse_recipe(values, origin="test"), section), key) == 1 / 10


def test_shapes_that_are_named_are_written_down() -> None:
    places = [
        REPOSITORY / "RESULTS.md",
        *REPOSITORY.glob("pipeline/recipes/*.toml"),
        *REPOSITORY.glob("benchmarks/*.toml"),
    ]
    named = {name for path in places for name in re.findall(r"`(\w+)` shape", path.read_text(encoding="utf-8"))}
    text = " ".join((REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8").split())
    told = {
        found[0]: tuple(int(number) for number in found[1:])
        for found in re.findall(
            r"the `(\w+)` shape: (\d+) layers of hidden size (\d+), with (\d+) heads and (\d+) FFN neurons", text
        )
    }
    assert named == told.keys() == {"micro"}
    for model in (Model(), load_recipe("mini").model):
        assert told["micro"] == (model.layers, model.hidden_size, model.heads, model.ffn)


def test_the_glossary_has_the_terms_and_is_linked_from_the_readme() -> None:
    text = (REPOSITORY / "docs" / "concepts.md").read_text(encoding="utf-8")
    glossary = text[text.index("## Glossary") :]
    told = {word for row in re.findall(r"^\| ([^|]+) \| [^|]{20,} \|$", glossary, re.M) for word in row.split(", ")}
    assert told >= {
        "attention head", "FFN neuron", "ticket", "settling", "rewind", "drawing a ticket", "random draw", "gate",
        "score", "micro-batch", "row", "piece", "observation", "waiting layer",
    }  # fmt: skip
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "](docs/concepts.md#glossary)" in readme
    scope = readme[readme.index("## What is there, and what is not") :]
    assert re.search(r"\| there \| .*fine-tuning", scope)
    assert re.search(r"\| missing \| .*SQuAD", scope)


@every_page
def test_named_recipe_keys_exist(page: Path) -> None:
    known = recipe_defaults()
    sections = {key.partition(".")[0] for key in known if "." in key}
    for line in code(page):
        for section, key in re.findall(r"(?<![\w./\-])([a-z]+)\.([a-z]\w*)(?![\w(/]|\.\w)", line):
            is_module = f"{section}.{key}" in PIPELINE
            if section in sections and key not in SUFFIXES and not is_module:
                assert f"{section}.{key}" in known, line


def test_every_deepspeed_key_is_documented() -> None:
    named = set(code(REPOSITORY / "ds_configs" / "README.md"))
    for keys in (
        engine_config.ENGINE_KEYS,
        engine_config.RECIPE_KEYS,
        engine_config.REMOVED_KEYS,
        engine_config.REMOVED_ZERO_KEYS,
    ):
        assert set(keys) <= named
    assert {OLD_LAYER_DROP, *OLD_LAYER_DROP_KEYS} <= named
    files = {f"ds_configs/{path.name}" for path in engine_config.DS_CONFIGS.glob("*.json")}
    assert files == {name for name in named if re.fullmatch(r"ds_configs/\w+\.json", name)}


def test_the_rooms_are_those_of_the_test_with_every_module_named() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("## Rooms of pipeline") : text.index("The same test checks")]
    rows = dict(re.findall(r"^\| `([\w/]+)/` \| (.+) \|$", table, re.M))
    assert ["__main__", *list(rows)[1:-1]] == ROOMS
    assert list(rows)[:: len(rows) - 1] == ["pipeline", "data_prep"]
    for module in PIPELINE:
        room, _, rest = module.partition(".")
        named = re.findall(r"`([\w/]+)`", rows.get(room, rows["pipeline"]))
        assert (rest or room).split(".")[0] in {name.rstrip("/") for name in named}, module


@every_page
def test_named_files_exist(page: Path) -> None:
    for line in code(page):
        for word in re.findall(r"[\w.\-/*]+", line):
            path = word.rstrip(".")
            if not path.startswith(tuple(f"{top}/" for top in TOPS)) or path in MADE_BY_THE_USER:
                continue
            if re.search(r"[A-Z]{3,}", path) and not path.endswith("README.md"):
                continue  # a placeholder such as NAME
            assert list(REPOSITORY.glob(path)), f"{path} in: {line}"


@every_page
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in heading_anchors(linked), target
