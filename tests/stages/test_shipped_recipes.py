"""Every shipped recipe, trained for real at its tiny scale; and what is made of the models that come out: gone on with,
fine-tuned with a ticket, and used by a stranger."""

import json
from pathlib import Path

import pytest

from tests import ranks
from tests.corpus import tiny_corpus
from tests.objectives.material import write_sentiment
from tests.recipes.test_recipe import PRETRAINING
from tests.stages.test_export import as_a_stranger

SMALLER = ["scale=tiny", "pretrain.steps=6", "search.max_steps=3", "search.guard_steps=0", "search.every_steps=1",
           "tracking.wandb=disabled", "corpus.filters=none", "corpus.val_fraction=0.2"]  # fmt: skip
# One process for all, since each would wait for torch and DeepSpeed again. Only what is used afterwards is exported.
TRAIN = """
from contextlib import nullcontext
from pathlib import Path
from data_prep.__main__ import main as data_prep
from pipeline.recipes.recipe import load_recipe
from pipeline.runs.run import Run
from pipeline.stages import finetune
from pipeline.stages.table import EXPORT, corpus_commands, do_stage, stages_of
from pipeline.training.ranks import started_ranks

root = Path({root!r})

def train(name, recipe, exported, ranks):
    run = Run.of(root, name, recipe, {{}})
    for arguments in corpus_commands(run):
        workers = ["--workers", "1"] if arguments[0] != "tokenizer" else []
        assert data_prep(["--recipe-keys", *arguments, *workers]) == 0
    run.save()
    for stage in stages_of(recipe):
        if stage is not EXPORT or exported:
            do_stage(stage, run, ranks)

def main(ranks):
    sources = ["corpus.sources=[" + repr(str(root / "raw")) + "]"]
    for name in {names!r}:
        sought = ["search.enabled=true"] if name in ("bert-base", "gpt2-small") else []
        train(name, load_recipe(name, [*{smaller!r}, *sources, *sought]), bool(sought), ranks)
        print("trained", name, flush=True)
    checkpoint = "model.checkpoint=" + repr(str(root / "runs/bert-base/model-expanded"))
    more = [x for x in {smaller!r} if not x.startswith("scale")]
    recipe = load_recipe("continued", [
        *more, *sources, checkpoint, "search.enabled=true", "pretrain.epochs=", "search.epochs=", "corpus.name=more",
        "corpus.row_length=32", "batch.global_rows=8", "batch.micro_rows=8", "evaluation.rows=32",
        "pretrain.rewind=step", "search.draw=fixed",
        "pretrain.rewind_step=2",
    ])
    train("more", recipe, True, ranks)
    finetune.started_ranks = lambda: nullcontext(ranks)
    for model in ("more/model-expanded", "gpt2-small/model"):
        done = finetune.finetune(
            root, model.replace("/", "-"), "SST-2", 0, str(root / "glue"), str(root / "runs" / model),
            overrides=["tracking.wandb=disabled", "batch.global_rows=8", "pretrain.epochs=2", "search.enabled=true",
                       "task.max_length=24", "pretrain.rewind=inherit"],
        )
        assert done == 0

with started_ranks() as ranks:
    main(ranks)
"""


@pytest.mark.dist
def test_every_shipped_recipe_trains_and_what_comes_out_goes_on(tmp_path: Path) -> None:
    tiny_corpus(tmp_path)
    write_sentiment(tmp_path / "glue")
    [output] = ranks.run(["-c", TRAIN.format(root=str(tmp_path), names=PRETRAINING, smaller=SMALLER)], 1, tmp_path, 400)
    for name in PRETRAINING:
        assert f"trained {name}\n" in output
        manifest = json.loads((tmp_path / "runs" / name / "pretrain" / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["results"]["steps"] == 6
        assert 0 < manifest["results"]["validation_loss"] < 8
    assert "masked - sliced" in output
    lines = (tmp_path / "runs/more/pretrain/metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    # Rewound to step 2, it is measured there before it goes on.
    assert [row["step"] for row in map(json.loads, lines) if row["kind"] == "validation"] == [2, 6]
    # The checkpoint's own vocabulary, and the head it has.
    assert "has no masked-lm head" not in output
    shards = tmp_path / "corpora" / "more" / "shards"
    index = json.loads((next(shards.iterdir()) / "index.json").read_text(encoding="utf-8"))
    config = json.loads((tmp_path / "runs/bert-base/model-expanded/config.json").read_text(encoding="utf-8"))
    assert index["vocab_size"] <= config["vocab_size"]
    for place in ("more-model-expanded", "gpt2-small-model"):
        results = json.loads((tmp_path / "runs" / place / "finetune/SST-2/seed-0/metrics.json").read_text("utf-8"))
        assert results["ticket_step"] < results["steps"] == 18
        assert results["parameters"] < results["parameters_dense"]

    # The layers of the second were narrow before, so that no stock class has them.
    code = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
root = sys.argv[1]
texts = []
for folder, own in (("model", True), ("model-expanded", False)):
    folder = f"{root}/runs/gpt2-small/{folder}"
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=own).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=own)
    prompt = tokenizer("The captain", return_tensors="pt")
    for cache in (True, False):
        ids = model.generate(**prompt, max_new_tokens=8, do_sample=False, use_cache=cache)[0]
        assert ids[0] == model.config.bos_token_id == tokenizer.bos_token_id and len(ids) > prompt["input_ids"].shape[1]
        texts.append(tokenizer.decode(ids, skip_special_tokens=True))
print(len(set(texts)), texts[0].startswith("The captain"), type(model).__name__)
for place, own in (("more-model-expanded/finetune/SST-2/seed-0/model-expanded", False),
                   ("gpt2-small-model/finetune/SST-2/seed-0/model", True)):
    folder = f"{root}/runs/{place}"
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=own).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=own)
    said = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)("good film")
    print(type(model).__name__, said[0]["label"] in ("negative", "positive"))
"""
    assert as_a_stranger(code, str(tmp_path), home=tmp_path) == (
        "1 True GPT2LMHeadModel\nBertForSequenceClassification True\nNarrowGPT2ForSequenceClassification True\n"
    )
