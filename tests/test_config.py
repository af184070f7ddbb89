"""Recipes: every shipped one is valid, every mistake is reported, overrides mean what they say."""

from pathlib import Path

import pytest

from data_prep.manifest import UserError
from pipeline.config import RECIPES, load_recipe, parse_recipe, resolve_sources


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = load_recipe(path.stem)
    shape = recipe.dense_shape(recipe.corpus.vocab_size, 0)
    assert shape.layers[0].heads * shape.head_size == recipe.model.hidden_size
    recipe.ticket_rules()


def test_three_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('[model]\nlayers = 0\n[search]\nscoer = "l1"\n[optimizer]\nlr = "fast"\n')
    with pytest.raises(UserError) as caught:
        load_recipe(str(bad))
    message = str(caught.value)
    assert "3 problems" in message
    assert "model.layers" in message
    assert "search.scoer: unknown key" in message
    assert "optimizer.lr" in message
    assert str(bad) in message


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("pretrain.steps=7", lambda r: r.pretrain.steps == 7),
        ("optimizer.lr=1e-5", lambda r: r.optimizer.lr == 1e-5),
        ("search.enabled=false", lambda r: r.search.enabled is False),
        ("corpus.name=other", lambda r: r.corpus.name == "other"),
        ('corpus.sources=["a", "b"]', lambda r: r.corpus.sources == ["a", "b"]),
        ("seed=3", lambda r: r.seed == 3),
        ("optimizer.adamw_lr=", lambda r: r.optimizer.adamw_lr is None),
    ],
)
def test_overrides(override: str, read: object) -> None:
    extra = ["search.max_steps=5", "search.guard_steps=1"]
    assert callable(read)
    assert read(load_recipe("sample", [*extra, override]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": {"hidden_size": 100, "heads": 3}}, ["hidden_size (100)", "heads (3)"]),
        ({"search": {"guard_steps": 50, "max_steps": 50}}, ["guard_steps (50)"]),
        ({"search": {"max_steps": 500}, "pretrain": {"steps": 100}}, ["max_steps (500)", "pretrain.steps (100)"]),
        ({"optimizer": {"name": "muon", "gradient_clipping": 1.0}}, ["gradient_clipping (1.0)", "muon"]),
        ({"optimizer": {"name": "adamw", "adamw_lr": 0.1}}, ["adamw_lr (0.1)"]),
        ({"search": {"enabled": False}, "pretrain": {"rewind": "inherit"}}, ["rewind ('inherit')"]),
        ({"ticket": {"heads": 0.0, "neurons": 0.0, "flops": 0.5}}, ["ticket", "flops"]),
        ({"objective": {"mask_token": 0.9, "random_token": 0.2}}, ["exceed 1"]),
    ],
)
def test_values_that_do_not_fit_together(values: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_recipe(values, "test")
    assert all(word in str(caught.value) for word in words)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="sample"):
        load_recipe("nonesuch")


@pytest.mark.parametrize("override", ["steps", "=3", "seed.x=1"])
def test_malformed_overrides(override: str) -> None:
    with pytest.raises(UserError):
        load_recipe("sample", [override])


def test_data_folders_give_their_text_parts_only(tmp_path: Path) -> None:
    for name in ("wikipedia/extracted", "books", "glue"):
        (tmp_path / name).mkdir(parents=True)
    recipe = resolve_sources(str(tmp_path), load_recipe("mini"))
    assert recipe.corpus.sources == [str(tmp_path / "wikipedia" / "extracted"), str(tmp_path / "books")]
    other = resolve_sources(str(tmp_path / "glue"), load_recipe("mini"))
    assert other.corpus.sources == [str(tmp_path / "glue")]
    with pytest.raises(UserError, match="does not exist"):
        resolve_sources(str(tmp_path / "nowhere"), recipe)
