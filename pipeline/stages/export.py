"""Stage `export`: the trained model as Hugging Face folders that are loaded again and compared before they count.

Compact: the slim widths with the modelling file beside the weights. Expanded: zeros put back, so that a stock
class loads it. Knows nothing of training.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedConfig

from data_prep.errors import UserError
from data_prep.files import fsync_folder
from pipeline.families import modeling_slim_bert
from pipeline.families.hf import (
    build_model,
    config_from_shape,
    drop_sentence_head,
    load_state,
    state_to_hf,
    stock_family,
)
from pipeline.families.shape import EncoderShape
from pipeline.runs.run import Run
from pipeline.stages.pretrain import WEIGHTS
from pipeline.tickets.surgery import expand_state
from pipeline.tickets.ticket import Ticket
from pipeline.training.ranks import Ranks

TOLERANCE = 1e-4
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ROBERTA_SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}
_STOCK_CLASSES = {
    "bert": "BertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "roberta-prelayernorm": "RobertaPreLayerNormForMaskedLM",
    "esm": "EsmForMaskedLM",
}
_CLASSES = {
    "AutoConfig": "SlimBertConfig",
    "AutoModel": "SlimBertModel",
    "AutoModelForMaskedLM": "SlimBertForMaskedLM",
    "AutoModelForSequenceClassification": "SlimBertForSequenceClassification",
    "AutoModelForQuestionAnswering": "SlimBertForQuestionAnswering",
    "AutoModelForTokenClassification": "SlimBertForTokenClassification",
    "AutoModelForMultipleChoice": "SlimBertForMultipleChoice",
}
_SENTENCE_CLASSES = (
    "Class 0: the two segments of the row (token types 0 and 1) stand as in the text; class 1: they do not."
)
# Runs where this project cannot be imported: what loads here loads at a stranger's. It says which folder it is at.
_PROBE = """
import json, sys
sys.modules["pipeline"] = sys.modules["data_prep"] = None
import torch, transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
names = {"prediction_logits": "logits", "seq_relationship_logits": "sentence_logits"}
inputs = load_file(sys.argv[1])
for folder, outputs, auto_class, trust in json.loads(sys.argv[2]):
    print(folder, flush=True)
    model, info = getattr(transformers, auto_class).from_pretrained(
        folder, trust_remote_code=trust, dtype=torch.float32, output_loading_info=True
    )
    wrong = {kind: sorted(map(str, found)) for kind, found in info.items() if found}
    if wrong:
        sys.exit(f"the weights do not fit the class {type(model).__name__}: {wrong}")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    if len(tokenizer) > model.config.vocab_size or tokenizer.pad_token_id != model.config.pad_token_id:
        sys.exit(
            f"the tokenizer ({len(tokenizer)} entries, padding {tokenizer.pad_token_id}) does not fit the model "
            f"({model.config.vocab_size} entries, padding {model.config.pad_token_id})"
        )
    with torch.no_grad():
        output = model.eval()(**inputs)
    found = {names.get(name, name): value for name, value in output.items()}
    save_file({name: value.contiguous() for name, value in found.items() if name in names.values()}, outputs)
"""


def export_compact(
    state: Mapping[str, Tensor], shape: EncoderShape, tokenizer_file: Path, out_dir: Path, ticket: Ticket | None = None
) -> None:
    """Write the model at its own widths: config with `auto_map`, modelling file, weights, tokenizer, model card.

    `state` holds the fp32 tensors of SlimBertForMaskedLM; a `ticket` adds the kept units to the card. The pooler of
    a sentence head goes under the sequence classifier. The folder appears whole or not at all. Raises UserError when
    the tokenizer does not fit the shape, ValueError when the state does not.
    """
    _check(state, shape)
    tokenizer = _tokenizer_files(tokenizer_file, shape)
    config = config_from_shape(shape)
    source = Path(modeling_slim_bert.__file__)
    config.architectures = ["SlimBertForMaskedLM"]
    config.classifier_pooler = shape.sentence_head
    config.auto_map = {auto: f"{source.stem}.{name}" for auto, name in _CLASSES.items()}
    load = "AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)"
    about = "Every layer has its own width, so the class comes with the weights (`modeling_slim_bert.py`)."
    others = ", ".join(f"`{auto}`" for auto in _CLASSES if auto not in ("AutoConfig", "AutoModelForMaskedLM"))
    about += f"\nThe folder serves {others} too; heads that were not trained are new, as transformers reports."
    if shape.sentence_head:
        about += f"\nIt also has a sentence head: `sentence_logits` of the model's output. {_SENTENCE_CLASSES}"
    files = {**tokenizer, source.name: source.read_bytes(), "README.md": _card(shape, ticket, about, load)}
    _write_folder(out_dir, state, config, files)


def export_expanded(
    slim_state: Mapping[str, Tensor], shape: EncoderShape, ticket: Ticket | None, tokenizer_file: Path, out_dir: Path
) -> None:
    """Write the model at the dense widths, zeros where units were removed, for a stock class of transformers.

    `shape` is the shape of `slim_state`. Post-LN becomes bert, pre-LN roberta-prelayernorm, or esm with rotary
    positions; only a bert keeps its
    sentence head, from the others it is dropped and the card says so. Without a ticket the model is dense already
    and is written as it is. Raises UserError when ticket, tokenizer and shape do not fit each other, ValueError when
    the state does not or no stock class has the shape.
    """
    _check(slim_state, shape)
    dense_state, dense_shape = dict(slim_state), shape
    if ticket is not None:
        slim = ticket.slim_shape()
        if slim.layers != shape.layers:
            raise UserError(
                f"the ticket keeps {_widths(slim)}, the trained model has {_widths(shape)}; "
                "export it with the ticket it was trained from"
            )
        dense_state = expand_state(slim_state, ticket)
        dense_shape = replace(shape, layers=ticket.dense_shape.layers)
    family = stock_family(dense_shape)
    name, load, note = _STOCK_CLASSES[family], "AutoModelForMaskedLM.from_pretrained(folder)", ""
    if shape.sentence_head and family == "bert":
        name, load = "BertForPreTraining", "AutoModelForPreTraining.from_pretrained(folder)"
        note = (
            f"\nIt has a sentence head: `seq_relationship_logits` of the model's output. {_SENTENCE_CLASSES} "
            "`AutoModelForMaskedLM` loads the folder too and leaves the head behind."
        )
    elif shape.sentence_head:
        dense_state, dense_shape = drop_sentence_head(dense_state, dense_shape)
        shape = replace(shape, sentence_head=False)
        note = f"\nIt was trained with a sentence head, which is left out: `{name}` has none."
    hf_state, config = state_to_hf(dense_state, dense_shape)
    config.architectures = [name]
    files = _tokenizer_files(tokenizer_file, dense_shape)
    if family != "bert":
        # Else they have the ids of RoBERTa's own vocabulary.
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        special = _special_tokens(tokenizer, tokenizer_file)
        config.bos_token_id, config.eos_token_id, config.mask_token_id = (
            tokenizer.token_to_id(special[name]) for name in ("cls_token", "sep_token", "mask_token")
        )
    about = f"Removed heads and neurons are zeros again, so that the stock class `{name}` loads the weights.{note}"
    files["README.md"] = _card(shape, ticket, about, load)
    _write_folder(out_dir, hf_state, config, files)


def verify_exports(
    folders: Sequence[tuple[Path, bool]], state: Mapping[str, Tensor], shape: EncoderShape
) -> list[float]:
    """Load each (folder, whether it brings its own code) as a stranger would and compare; the largest absolute
    differences of fp32 logits.

    A separate process, which can import neither this project nor the network, loads them through
    AutoModelForMaskedLM (AutoModelForPreTraining for a stock bert with a sentence head) and AutoTokenizer; here the
    model of `state` and `shape` runs on the same fixed batch. The logits of a sentence head are compared too, unless
    a stock folder's class has none. Raises RuntimeError when loading fails or a difference exceeds `TOLERANCE`.
    """
    batch, real = _fixed_batch(shape)
    model = build_model(shape, seed=0)
    load_state(model, state)
    with torch.no_grad():
        wanted = model.eval()(**batch)
    with_sentence = [shape.sentence_head and (trust or stock_family(shape) == "bert") for _, trust in folders]
    with tempfile.TemporaryDirectory() as temporary:
        save_file(batch, inputs := Path(temporary, "inputs.safetensors"))
        outputs = [Path(temporary, f"outputs-{number}.safetensors") for number in range(len(folders))]
        orders = [
            (
                str(folder.resolve()),
                str(output),
                "AutoModelForPreTraining" if sentence and not trust else "AutoModelForMaskedLM",
                trust,
            )
            for (folder, trust), output, sentence in zip(folders, outputs, with_sentence, strict=True)
        ]
        _load_as_a_stranger(inputs, orders, temporary)
        found = [load_file(output) for output in outputs]
    problems, differences = [], []
    for (folder, _), theirs, sentence in zip(folders, found, with_sentence, strict=True):
        if ("sentence_logits" in theirs) != sentence:
            raise RuntimeError(f"{folder} has {'no' if sentence else 'a'} sentence head, against what was trained")
        apart = [(theirs["logits"] - wanted.logits)[real].flatten()]
        if sentence:
            apart.append((theirs["sentence_logits"] - wanted.sentence_logits).flatten())
        differences.append(float(torch.cat(apart).abs().max()))
        if not differences[-1] <= TOLERANCE:
            problems.append(
                f"{folder} computes other logits than the trained model: they differ by {differences[-1]:.3g}, "
                f"allowed are {TOLERANCE:g}"
            )
    if problems:
        raise RuntimeError("; ".join(problems))
    return differences


def _load_as_a_stranger(inputs: Path, orders: Sequence[tuple[str, str, str, bool]], home: str) -> None:
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    environment = kept | {
        "HF_HOME": home,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "CUDA_VISIBLE_DEVICES": "",
    }
    for name in ("HF_MODULES_CACHE", "HF_HUB_CACHE", "TRANSFORMERS_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _PROBE, str(inputs), json.dumps(orders)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        folder = done.stdout.removesuffix("\n").rpartition("\n")[2] or "an exported folder"
        raise RuntimeError(f"{folder} cannot be loaded again: {done.stderr.strip()[-2000:]}")


def export(run: Run, ranks: Ranks) -> dict[str, Any]:
    """Write and verify both folders of a run. Returns the results for the manifest."""
    weights = run.folder.pretrain / WEIGHTS
    with safe_open(weights, framework="pt") as file:
        shape = EncoderShape.from_dict(json.loads(file.metadata()["shape"]))
    state = load_file(weights)
    ticket = Ticket.read(run.folder.ticket) if run.recipe.search.enabled else None
    tokenizer_file = run.corpus.tokenizer_file
    export_compact(state, shape, tokenizer_file, run.folder.model, ticket)
    export_expanded(state, shape, ticket, tokenizer_file, run.folder.model_expanded)
    compact, expanded = verify_exports([(run.folder.model, True), (run.folder.model_expanded, False)], state, shape)
    print(
        f"export: {run.folder.model} (differs by {compact:.1e}), "
        f"{run.folder.model_expanded} (stock class, differs by {expanded:.1e})"
    )
    return {
        "parameters": shape.num_parameters(),
        "largest_difference_compact": compact,
        "largest_difference_expanded": expanded,
    }


def _check(state: Mapping[str, Tensor], shape: EncoderShape) -> None:
    other = sorted({str(value.dtype) for value in state.values() if value.dtype != torch.float32})
    if other:
        raise ValueError(f"exports are made from fp32 masters, the state holds {', '.join(other)}")
    load_state(build_model(shape, seed=0), state)


def _fixed_batch(shape: EncoderShape) -> tuple[dict[str, Tensor], Tensor]:
    """The model's inputs (4, L) with padding, two token types where it has them, and where the tokens are real."""
    length = min(48, shape.max_row_length)
    ids = torch.randint(0, shape.vocab_size, (4, length), generator=torch.Generator().manual_seed(0))
    ids[ids == shape.pad_token_id] = (shape.pad_token_id + 1) % shape.vocab_size
    real = torch.arange(length) < torch.tensor([length, length, max(1, length // 2), max(1, length // 5)])[:, None]
    ids[~real] = shape.pad_token_id
    batch = {"input_ids": ids, "attention_mask": real.long()}
    if shape.type_vocab_size > 1:
        batch["token_type_ids"] = (torch.arange(length) >= length // 3).long().repeat(4, 1)
    return batch, real


def _tokenizer_files(tokenizer_file: Path, shape: EncoderShape) -> dict[str, bytes | str]:
    """The tokenizer's own file, and the two that tell transformers its special tokens."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    special_tokens = _special_tokens(tokenizer, tokenizer_file)
    highest = max(tokenizer.get_vocab().values())
    if highest >= shape.vocab_size:
        raise UserError(
            f"{tokenizer_file} has ids up to {highest}, the model a vocabulary of {shape.vocab_size}; "
            "export with the tokenizer of the corpus the model was trained on"
        )
    pad = tokenizer.token_to_id(special_tokens["pad_token"])
    if pad != shape.pad_token_id:
        raise UserError(f"{tokenizer_file} pads with id {pad}, the model with {shape.pad_token_id}")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.max_row_length,
        "model_input_names": names if shape.type_vocab_size else [names[0], names[2]],
        **special_tokens,
    }
    return {
        "tokenizer.json": tokenizer_file.read_bytes(),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "special_tokens_map.json": json.dumps(special_tokens, indent=2) + "\n",
    }


def _special_tokens(tokenizer: Tokenizer, tokenizer_file: Path) -> dict[str, str]:
    """BERT's or RoBERTa's names, whichever the tokenizer has."""
    missing: list[list[str]] = []
    for names in (SPECIAL_TOKENS, ROBERTA_SPECIAL_TOKENS):
        missing.append([token for token in names.values() if tokenizer.token_to_id(token) is None])
        if not missing[-1]:
            return names
    raise UserError(
        f"{tokenizer_file} lacks the special tokens {', '.join(min((len(tokens), tokens) for tokens in missing)[1])}"
    )


def _write_folder(
    out_dir: Path, state: Mapping[str, Tensor], config: PreTrainedConfig, files: Mapping[str, bytes | str]
) -> None:
    """Fill a sibling folder, make it durable, then put it in the place of `out_dir`."""
    partial, old = (out_dir.with_name(f".{out_dir.name}.{what}") for what in ("partial", "old"))
    for left_over in (partial, old):
        shutil.rmtree(left_over, ignore_errors=True)
    partial.mkdir(parents=True)
    config.dtype = "float32"
    config.to_json_file(partial / "config.json", use_diff=False)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    for name, content in files.items():
        (partial / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    fsync_folder(partial)
    if out_dir.exists():
        out_dir.rename(old)
    partial.rename(out_dir)
    fsync_folder(out_dir.parent)
    shutil.rmtree(old, ignore_errors=True)


def _widths(shape: EncoderShape) -> str:
    return f"heads {[x.heads for x in shape.layers]} and neurons {[x.ffn for x in shape.layers]}"


def _card(shape: EncoderShape, ticket: Ticket | None, about: str, load: str) -> str:
    """The model card: what the folder holds and how to load it."""
    dense = ticket.dense_shape.layers if ticket else shape.layers
    rows = []
    for index, (layer, before) in enumerate(zip(shape.layers, dense, strict=True)):
        heads = _listing(ticket.heads[index]) if ticket else "all"
        rows.append(f"| {index} | {layer.heads} of {before.heads} | {heads} | {layer.ffn} of {before.ffn} |")
    drawn = f" It was drawn at step {ticket.step} by the score `{ticket.score}`." if ticket else ""
    kind = f"an early-bird ticket of a larger encoder.{drawn}" if ticket else "dense: nothing was removed."
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
---
# Masked language model

A {"pre" if shape.norm == "pre" else "post"}-LN transformer encoder, {kind}
{about}

{len(shape.layers)} layers, hidden size {shape.hidden_size}, heads of {shape.head_size}, vocabulary \
{shape.vocab_size}, rows of up to {shape.max_row_length} tokens, {shape.num_parameters():,} parameters that compute.

```python
from transformers import {load.split(".")[0]}, AutoTokenizer

model = {load}
tokenizer = AutoTokenizer.from_pretrained(folder{", trust_remote_code=True" if "trust_remote_code" in load else ""})
```

| layer | heads | kept heads | neurons |
|---|---|---|---|
{chr(10).join(rows)}
"""


def _listing(kept: Sequence[int]) -> str:
    return " ".join(str(index) for index in kept)
