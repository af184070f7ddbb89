"""bing_bert's client file joined with its DeepSpeed config: every key has a line, the recipe what belongs to it.

The file of old_clients/ has the form of DeepSpeedExamples' bing_bert, with numbers of its own.
"""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import UserError
from pipeline.__main__ import main
from pipeline.migration import whole
from pipeline.migration.ledger import Ledger
from pipeline.recipes.engine_config import load_ds_config, read_json_object
from pipeline.recipes.recipe import load_recipe, parse_recipe

HERE = Path(__file__).parent
CLIENT = HERE / "old_clients" / "bert_base.json"
ADAM, LAMB = (HERE / "old_ds_configs" / f"bing_bert_{name}.json" for name in ("pld", "lamb_sparse"))
SHORT = "mixed_seq_training.128"


def client(**changes: Any) -> dict[str, Any]:
    """The file with other values at dotted paths; None takes a key out."""
    made = copy.deepcopy(read_json_object(CLIENT))
    for path, value in changes.items():
        *above, last = path.split("__")
        block = made
        for key in above:
            block = block[key]
        if value is None:
            del block[last]
        else:
            block[last] = value
    return made


def joined(made: dict[str, Any], old: Path = ADAM, steps: int | None = None) -> Ledger:
    return whole.migrate(read_json_object(old), steps=steps, client=made)


def leaves(where: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(f"{where}.{key}", below)
    else:
        yield where


def line_of(done: Ledger, key: str) -> str:
    (line,) = [line for line in done.lines if line.key == f"client.{key}"]
    return str(line)


def flat(made: dict[str, Any]) -> dict[str, Any]:
    """The older form: one training, its length of rows said on the command line."""
    training = made.pop("mixed_seq_training")["128"]
    return made | {"training": training}


def renamed(made: dict[str, Any]) -> dict[str, Any]:
    """Data and trainings beside each other, the trainings under another name."""
    return made | {"mixed_seq_dataset": made.pop("mixed_seq_training"), "mixed_seq_datasets": {"128": {"wiki": "rows"}}}


@pytest.mark.parametrize("old", [ADAM, LAMB])
@pytest.mark.parametrize("form", [lambda made: made, flat, renamed], ids=["two lengths", "one training", "renamed"])
def test_every_key_has_one_line_and_the_recipe_loads(old: Path, form: Any) -> None:
    made = form(client())
    done = joined(made, old)
    for key in leaves("client", made):
        assert len([line for line in done.lines if line.key == key]) == 1, key
    recipe = parse_recipe(done.recipe, "test")
    for line in done.lines:
        if line.to is not None:
            section, name = line.to.split(".")
            assert f"{line.to} = {json.dumps(done.recipe[section][name])}" in line.text
    assert (recipe.model.layers, recipe.pretrain.steps) == (12, 100_000)


def test_the_two_files_exactly() -> None:
    done = joined(client())
    assert done.recipe["model"] == {
        "hidden_size": 768, "layers": 12, "heads": 12, "ffn": 3072, "dropout": 0.1, "attention_dropout": 0.05,
        "token_types": 2, "initializer_range": 0.02,
    }  # fmt: skip
    assert done.recipe["corpus"] == {"row_length": 128}
    assert done.recipe["pretrain"] == {"steps": 100_000}
    assert done.recipe["schedule"] == {"warmup_fraction": 0.05}
    assert done.recipe["optimizer"] == {
        "name": "adamw", "lr": 4e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "gradient_clipping": 1.0,
    }  # fmt: skip
    assert done.recipe["batch"] == {"global_rows": 4096, "micro_rows": 16}
    assert [str(line) for line in done.lines if line.key == "optimizer.params.lr"] == [
        f"dropped  optimizer.params.lr: client.{SHORT}.learning_rate overrules it"
    ]
    assert done.engine == whole.migrate(read_json_object(ADAM)).engine
    # 0.99 ** (95,000 / 1,000), the script's own formula.
    assert "exponentially, to 0.385 of the peak after 100000 steps" in line_of(done, f"{SHORT}.decay_rate")
    assert line_of(done, "mixed_seq_training.512.learning_rate").startswith("open")
    assert line_of(done, "data.mixed_seq_datasets.128.wiki_pretrain_dataset").startswith("open")
    assert {line.key for line in done.lines if line.kind == "open"} >= {"client.bert_token_file", "corpus, objective"}


def test_a_rate_of_an_optimiser_that_is_not_here_stays_behind() -> None:
    done = joined(client(), LAMB)
    assert "lr" not in done.recipe["optimizer"]
    assert "not carried over, as the optimiser is not" in line_of(done, f"{SHORT}.learning_rate")


def test_steps_come_from_the_file_or_the_user_and_not_from_both() -> None:
    without = client(mixed_seq_training__128__total_training_steps=None)
    assert joined(without, steps=70).recipe["pretrain"] == {"steps": 70}
    assert "pass --steps N" in next(line.text for line in joined(without).lines if line.key == "pretrain.steps")
    assert joined(client(), steps=100_000).recipe["pretrain"] == {"steps": 100_000}
    with pytest.raises(UserError, match=r"two owners: client.*total_training_steps is 100000, --steps is 70"):
        joined(client(), steps=70)


def test_a_client_without_a_training_leaves_the_schedule_to_the_other_file() -> None:
    done = joined(client(mixed_seq_training=None), steps=20)
    assert done.recipe["pretrain"] == {"steps": 20}
    assert [line.kind for line in done.lines if line.key == "scheduler"] == ["open"]


@pytest.mark.parametrize(
    ("key", "value", "kind", "words"),
    [
        ("bert_model_config__hidden_act", "relu", "open", '"relu" cannot be said'),
        ("bert_model_config__hidden_sizes", 5, "dropped", "did you mean hidden_size?"),
        ("mixed_seq_training__128__decay_steps", 5, "dropped", "did you mean decay_step?"),
        ("nane", 5, "dropped", "did you mean name?"),
        ("mixed_seq_training__128__decay_rate", 3.0, "open", "to an end that the file does not tell"),
        ("mixed_seq_training__128__decay_step", 0, "open", "to an end that the file does not tell"),
    ],
)
def test_what_cannot_be_said_is_told(key: str, value: Any, kind: str, words: str) -> None:
    line = line_of(joined(client(**{key: value})), key.replace("__", "."))
    assert line.startswith(kind)
    assert words in line


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("bert_model_config", 3, "client.bert_model_config is 3, wanted a block"),
        ("bert_model_config__hidden_size", "768", 'client.bert_model_config.hidden_size is "768"'),
        ("bert_model_config__num_attention_heads", 7, "768.* is not a multiple of heads"),
        ("bert_model_config__hidden_dropout_prob", 1.5, "model.dropout"),
        ("mixed_seq_training", [], "client.mixed_seq_training is .*wanted a block"),
        ("mixed_seq_training__long", {"learning_rate": 1}, "mixed_seq_training.long is not a training of one length"),
        ("mixed_seq_training__128__warmup_proportion", "x", 'warmup_proportion is "x"'),
        ("mixed_seq_training__128__learning_rate", -1, "learning_rate is -1"),
        ("training", {"learning_rate": 1}, "two owners, client.training and client.mixed_seq_training"),
    ],
)
def test_what_cannot_have_worked_is_refused(key: str, value: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        joined(client(**{key: value}))


def test_a_scheduler_beside_it_is_a_second_owner() -> None:
    old = read_json_object(ADAM) | {"scheduler": {"type": "WarmupLR", "params": {}}}
    with pytest.raises(UserError, match="the schedule has two owners"):
        whole.migrate(old, client=client())


def test_the_command_joins_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", str(ADAM), "--client", str(CLIENT), "--out", str(tmp_path / "new")]) == 0
    recipe = load_recipe(str(tmp_path / "new.toml"))
    done = joined(client())
    assert recipe == parse_recipe(done.recipe, "test")
    assert load_ds_config(str(tmp_path / "new.json")) == done.engine
    shown = capsys.readouterr().out
    assert all(str(line) in shown for line in done.lines)
    assert (tmp_path / "new.toml").read_text().startswith(f"# Made of {ADAM.name} and {CLIENT.name} by")


def test_files_in_each_others_place_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "new")]
    named = re.escape(f"`python -m pipeline migrate DEEPSPEED.json --client {CLIENT}`")
    for arguments in (["migrate", str(CLIENT), *out], ["migrate", str(CLIENT), "--client", str(ADAM), *out]):
        assert main(arguments) == 2
        assert re.search(f"^error: .*is the client file of bing_bert.*{named}$", capsys.readouterr().err)
    with pytest.raises(UserError, match=named):
        load_ds_config(str(CLIENT))
    assert main(["migrate", str(ADAM), "--client", str(LAMB), *out]) == 2
    assert "is not a client file of bing_bert" in capsys.readouterr().err
    assert main(["migrate", str(ADAM), "--client", str(tmp_path / "none.json"), *out]) == 2
    assert "there is no client file" in capsys.readouterr().err
    (tmp_path / "new.json").write_text(CLIENT.read_text())
    assert main(["migrate", str(ADAM), "--client", str(tmp_path / "new.json"), *out, "--force"]) == 2
    assert "is the old file itself" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["new.json"]
