"""Recipes: every shipped one is valid, every mistake is reported, overrides mean what they say."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from pipeline.recipes.recipe import RECIPES, apply_override, load_recipe, parse_recipe, resolve_sources

THETA = "wanted above 0 and at most 1: it is the probability to keep a layer"
FALLING = ["layer_drop.enabled=true", "layer_drop.time=decreasing", "layer_drop.depth=linear"]
FALLING_BY_SAMPLE = [*FALLING, "layer_drop.unit=sample"]


ON_A_CHECKPOINT = ["finetune", "earlybert-finetune"]
PRETRAINING = sorted({path.stem for path in RECIPES.glob("*.toml")} - {*ON_A_CHECKPOINT})


@pytest.mark.parametrize("name", PRETRAINING)
def test_shipped_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    shape = recipe.dense_shape(recipe.corpus.vocab_size, 0)
    assert shape.layers[0].heads * shape.head_size == recipe.model.hidden_size
    recipe.ticket_rules()


@pytest.mark.parametrize("name", ON_A_CHECKPOINT)
def test_recipes_of_fine_tuning_take_a_model_and_a_task(name: str) -> None:
    recipe = load_recipe(name, ["model.checkpoint=folder", "task.name=MRPC"])
    counted = recipe.counted(115)
    assert (counted.pretrain.steps, counted.pretrain.epochs) == (115 * int(recipe.pretrain.epochs or 0), None)
    assert counted.search.max_steps == round(115 * (recipe.search.epochs or 0))
    assert counted.evaluation.every_steps == 115
    assert counted.counted(7) == counted
    assert recipe.row_length == 128
    columns = load_recipe(name, ["model.checkpoint=folder", "task.name=news", "task.text=title,body"]).task.text
    assert columns == ("title", "body")
    for without, words in ((["model.checkpoint=x"], "needs task.name"), (["task.name=RTE"], "needs model.checkpoint")):
        with pytest.raises(UserError, match=words):
            load_recipe(name, without)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.family=llama"], "family 'llama' is none of slim_bert, bert"),
        (["model.family=gpt2"], "gpt2 models learn causal-lm or classification, not masked-lm"),
        (["objective.name=causal-lm"], "slim_bert models learn masked-lm or classification, not causal-lm"),
        (
            ["model.family=bert", "optimizer.name=muon", "optimizer.gradient_clipping=0"],
            "knows the matrices of slim_bert",
        ),
        (["model.family=bert", "layer_drop.enabled=true"], "layer_drop works with slim_bert only, not with bert"),
        (["model.family=bert", "model.positions=rotary"], "positions can be said of family slim_bert only"),
        (["model.checkpoint=x", "model.layers=9"], "layers cannot be said beside a checkpoint"),
        (["model.checkpoint=x", "layer_drop.enabled=true"], "layer_drop is for models drawn at random"),
        (["model.revision=main"], "revision belongs to a checkpoint"),
        (["task.name=RTE"], r"\[task\] is for the objective \"classification\", not 'masked-lm'"),
        (["search.run=x", "pretrain.rewind=inherit"], "'inherit' needs a search of its own"),
        (["pretrain.rewind=step", "pretrain.rewind_step=50"], "may settle before pretrain.rewind_step \\(50\\)"),
        (["model.family=esm"], "family 'esm' is none of"),
        (["model.checkpoint=x", "corpus.tokenizer=y"], "a checkpoint brings its own tokenizer"),
        (
            ["model.checkpoint=x", "objective.sentence=nsp", "corpus.packing=pairs"],
            "goes with masked-lm from random weights only",
        ),
        (["pretrain.rewind=step"], 'rewind "step" and rewind_step go together'),
        (["pretrain.rewind=step", "pretrain.rewind_step=500"], "rewind_step \\(500\\) exceeds search.max_steps"),
    ],
)
def test_what_families_and_objectives_do_not_go_together(overrides: list[str], words: str) -> None:
    base = parse_recipe({}, "test").model_dump(mode="json")
    for override in overrides:
        apply_override(base, override)
    with pytest.raises(UserError, match=words):
        parse_recipe(base, "test")


@pytest.mark.parametrize(
    ("name", "layers", "parameters"),
    [
        ("bert-base", 12, 110_106_428),
        ("bert-large", 24, 336_226_108),
        ("earlybert-base", 12, 110_106_428),
        ("earlybert-large", 24, 336_226_108),
        # Without RoBERTa's table of one token type and its two rows of positions that no token is given.
        ("roberta-base", 12, 124_697_433 - 3 * 768),
    ],
)
def test_published_models_have_their_published_size(name: str, layers: int, parameters: int) -> None:
    """Counts of transformers' BertForPreTraining and RobertaForMaskedLM for the published configs."""
    recipe = load_recipe(name)
    assert recipe.model.layers == layers
    assert recipe.dense_shape(recipe.corpus.vocab_size, 0).num_parameters() == parameters


def test_the_papers_numbers_are_in_their_recipes() -> None:
    early, dense, pld = (load_recipe(name) for name in ("earlybert-base", "bert-base", "pld-base"))
    assert (early.search.score, early.search.draw, early.search.max_steps) == ("l1", "fixed", 400)
    assert early.search.l1_heads == early.search.l1_neurons == 1e-4
    assert (early.search.l1_decay, early.ticket.neurons, early.ticket.neuron_scope) == ("constant", 0.3, "global")
    assert early.ticket.heads * early.model.heads == pytest.approx(4)
    assert load_recipe("earlybert-large").ticket.heads * 16 == 4
    changed = {"search", "ticket"}
    assert early.model_dump(exclude=changed) == dense.model_dump(exclude=changed)
    drop = pld.layer_drop
    assert (drop.time, drop.depth, drop.theta, drop.gamma, drop.scaling) == ("pld", "pld", 0.5, 1e-3, "sublayer")
    assert (pld.model.norm, pld.batch.global_rows, pld.optimizer.lr) == ("pre", 4096, 1e-3)
    assert pld.corpus.row_lengths == (128,)


@pytest.mark.parametrize("name", PRETRAINING)
def test_every_recipe_has_a_tiny_scale_that_keeps_its_habits(name: str) -> None:
    whole, tiny = load_recipe(name), load_recipe(name, ["scale=tiny", "pretrain.steps=24"])
    assert tiny.pretrain.steps == 24
    assert tiny.corpus.name == f"{whole.corpus.name}-tiny"
    assert len(tiny.corpus.row_lengths) == len(whole.corpus.row_lengths)
    assert tiny.dense_shape(512, 0).num_parameters() < 100_000
    sized = {
        "corpus": {"name", "vocab_size", "row_length", "long_row_length", "val_fraction"},
        "model": {"layers", "hidden_size", "heads", "ffn"},
        "batch": True,
        "search": {"max_steps", "guard_steps", "every_steps", "epochs"},
        "pretrain": {"steps", "epochs"},
        "evaluation": True,
        "checkpoint": {"every_steps"},
    }
    assert tiny.model_dump(exclude=sized) == whole.model_dump(exclude=sized)


def test_a_recipe_extends_another_but_for_what_it_is_without(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        'seed = 1\n[corpus]\nlanguage = "en"\nvocab_size = 300\n[pretrain]\nsteps = 500\n'
    )
    (tmp_path / "mine.toml").write_text(
        'extends = "base.toml"\nwithout = ["corpus.language"]\n[corpus]\nvocab_size = 400\n[model]\nlayers = 2\n'
    )
    recipe = load_recipe(str(tmp_path / "mine.toml"))
    assert (recipe.seed, recipe.pretrain.steps, recipe.model.layers) == (1, 500, 2)
    assert (recipe.corpus.vocab_size, recipe.corpus.language) == (400, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('extends = "nonesuch"\n', "no recipe 'nonesuch'; known are bert-base"),
        ('extends = "bad.toml"\n', "in the end, extends this one again"),
        ('without = ["corpus.language"]\n', "extends no recipe that could have them"),
        ("extends = 3\n", "extends is the name or path of a recipe"),
    ],
)
def test_what_extends_nothing_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UserError, match=words):
        load_recipe(str(tmp_path / "bad.toml"))
    with pytest.raises(UserError, match="no scale 'huge'; known are tiny"):
        load_recipe("sample", ["scale=huge"])


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
        ({"corpus": {"tokenizer_kind": "bpe", "cased": False}}, ["corpus: cased (false)", 'tokenizer_kind "bpe"']),
        ({"corpus": {"tokenizer_kind": "bpe", "strip_accents": True}}, ["corpus: strip_accents (true)"]),
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


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"time": "constant", "theta": 0.0}, f"layer_drop: theta is 0.0, {THETA}"),
        ({"time": "constant", "theta": 1.5}, f"layer_drop: theta is 1.5, {THETA}"),
        ({"time": "pld", "gamma": -1.0}, "layer_drop: gamma is -1.0, wanted a number above 0"),
        ({"gamma": 0.1}, "layer_drop: gamma is 0.1, wanted unset: it belongs to time \"pld\", not 'stages'"),
        ({"theta": 0.4}, 'layer_drop: theta is 0.4, wanted unset: time "stages" goes by stages'),
        ({"theta": 0.5}, 'layer_drop: theta is 0.5, wanted unset: time "stages" goes by stages'),
        ({"stages": [0.5, 1.5]}, "layer_drop: stages holds 1.5, wanted at least 0 and at most 1"),
        (
            {"time": "sideways"},
            "layer_drop.time: Input should be 'constant', 'pld', 'decreasing' or 'stages', got 'sideways'",
        ),
        (
            {"dense_start": 0.6, "dense_end": 0.4},
            "layer_drop: dense_start and dense_end are 0.6 and 0.4, wanted 0 or more and together below 1",
        ),
    ],
)
def test_layer_dropping_that_is_none(values: dict, line: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_recipe({"layer_drop": {"enabled": True} | values}, "test")
    assert str(caught.value) == f"1 problem in recipe test:\n  {line}"


@pytest.mark.parametrize(
    "overrides", [["layer_drop.stages=[1.0,0.0]"], ["pretrain.steps=1", "search.enabled=false"]], ids=str
)
def test_layers_left_out_to_the_end_are_refused(overrides: list[str]) -> None:
    with pytest.raises(UserError, match="layer_drop leaves layers out to the last step, and the model would keep them"):
        load_recipe("sample", ["layer_drop.enabled=true", *overrides])
    assert load_recipe("sample", [*overrides, "layer_drop.enabled=false"])


def test_the_former_penalty_on_all_gates_names_the_two_of_today() -> None:
    with pytest.raises(UserError, match=r"l1_penalty \(1e-05\) is two keys now, l1_heads and l1_neurons"):
        load_recipe("earlybert-base", ["search.l1_penalty=1e-5"])
    search = load_recipe("sample", ["search.l1_heads=1e-3", "search.l1_neurons=1e-5", "search.l1_decay=linear"]).search
    assert (search.l1_heads, search.l1_neurons, search.l1_decay) == (1e-3, 1e-5, "linear")


def test_a_search_leaves_steps_to_inherit() -> None:
    recipe = ["pretrain.steps=240", "search.max_steps=240"]
    with pytest.raises(UserError, match=r"max_steps \(240\) may leave none of pretrain.steps \(240\)"):
        load_recipe("sample", [*recipe, "pretrain.rewind=inherit"])
    assert load_recipe("sample", recipe).search.max_steps == 240


def test_more_dropped_than_the_batch_has_rows() -> None:
    recipe = load_recipe("sample", [*FALLING_BY_SAMPLE, "layer_drop.theta=0.1"])
    recipe.check_rows(32)
    with pytest.raises(
        UserError, match=r"layer 4 without a row at step 0: it keeps 0\.100 of the 4 rows of a micro-batch"
    ):
        recipe.check_rows(4)


def test_rows_of_each_length_are_checked_over_their_own_steps() -> None:
    # Long rows come to 4 a micro-batch, in the last tenth of the steps, when hardly anything is dropped any more.
    long = [*FALLING_BY_SAMPLE, "corpus.long_row_length=512", "search.enabled=false"]
    load_recipe("sample", [*long, "layer_drop.theta=0.1"]).check_rows(32)
    with pytest.raises(UserError, match=r"layer 4 without a row at step 0: it keeps 0\.010 of the 32 rows"):
        load_recipe("sample", [*long, "layer_drop.theta=0.01"]).check_rows(32)
    constant = [*long, "layer_drop.time=constant", "layer_drop.theta=0.1"]
    with pytest.raises(UserError, match=r"layer 4 without a row at step 2520: it keeps 0\.100 of the 4 rows"):
        load_recipe("sample", constant).check_rows(32)


def test_the_schedule_of_dropping_over_search_and_restart() -> None:
    on = [*FALLING_BY_SAMPLE, "layer_drop.during_search=true"]
    on += ["pretrain.steps=1000", "pretrain.rewind=inherit", "search.max_steps=300"]
    recipe = load_recipe("sample", on)
    searching, after = recipe.dropping(4, searching=True), recipe.dropping(4, first_step=200)
    assert searching is not None
    assert after is not None
    # One schedule from the search's first step to the end; whole layers, once a step, while gates are scored.
    steps = np.arange(1000)
    assert np.array_equal(searching.schedule.keep(steps), after.schedule.keep(steps))
    assert (searching.unit, searching.once_a_step, after.unit, after.once_a_step) == ("layer", True, "sample", False)

    anew = load_recipe("sample", [*on, "layer_drop.after_search=restart"]).dropping(4, first_step=200)
    assert anew is not None
    assert anew.schedule.theta_at([200, 999]).tolist() == [0.5, 1.0]

    growing = [*on, "layer_drop.time=stages", "layer_drop.depth=alternate"]
    for steps, waiting in ((300, 300), (501, 500)):
        with pytest.raises(
            UserError,
            match=rf"leaves out layers in {waiting} of the search's {steps} steps.*layer_drop.during_search = false",
        ):
            load_recipe("sample", [*growing, f"search.max_steps={steps}"])
    late = [*growing, "layer_drop.dense_start=0.3"]
    assert load_recipe("sample", late).dropping(4, searching=True) is not None
    assert load_recipe("sample", [*growing, "layer_drop.during_search=false"]).dropping(4) is not None
    with pytest.raises(UserError, match=r"leaves out layer \d in all of the search's 5 steps"):
        load_recipe("sample", [*on, "layer_drop.theta=0.01", "search.max_steps=5", "search.guard_steps=1"])

    off = load_recipe("sample", [*on, "layer_drop.during_search=false"])
    assert off.dropping(4, searching=True) is None
    assert off.dropping(4) is not None
    assert load_recipe("sample").dropping(4) is None


@pytest.mark.parametrize("text", ["1/3", " 1 / 3 "])
def test_a_fraction_as_text_is_the_number_it_means(text: str) -> None:
    recipe = parse_recipe({"ticket": {"heads": text}}, "test")
    assert recipe.ticket.heads == 1 / 3
    # Runs that were begun with the default go on.
    assert recipe == parse_recipe({}, "test") == parse_recipe(recipe.model_dump(mode="json"), "test")
    assert load_recipe("sample", ["ticket.heads=1/3"]).ticket.heads == 1 / 3


@pytest.mark.parametrize("text", ["1/0", "4/3", "3/3", "-1/3", "one third", "1/3/3"])
def test_what_is_no_fraction_is_refused_with_its_key(text: str) -> None:
    with pytest.raises(UserError, match=r"ticket\.heads: "):
        parse_recipe({"ticket": {"heads": text}}, "test")
