"""Exported folders loaded as a stranger would, and compared with the model they were made of.

That is in a process that can import neither this project nor reach the network.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.families.hf import load_state, stock_family
from pipeline.families.models import build
from pipeline.families.shape import EncoderShape, Shape
from pipeline.families.stock_shape import StockShape

TOLERANCE = 1e-4
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
    if len(tokenizer) > model.config.vocab_size or tokenizer.pad_token_id not in (None, model.config.pad_token_id):
        sys.exit(
            f"the tokenizer ({len(tokenizer)} entries, padding {tokenizer.pad_token_id}) does not fit the model "
            f"({model.config.vocab_size} entries, padding {model.config.pad_token_id})"
        )
    with torch.no_grad():
        output = model.eval()(**inputs)
    found = {names.get(name, name): value for name, value in output.items()}
    save_file({name: value.contiguous() for name, value in found.items() if name in names.values()}, outputs)
"""


def verify_exports(folders: Sequence[tuple[Path, bool]], state: Mapping[str, Tensor], shape: Shape) -> list[float]:
    """Load each (folder, whether it brings its own code) as a stranger would and compare; the largest absolute
    differences of fp32 logits.

    A separate process, which can import neither this project nor the network, loads them through
    the auto class of its head (AutoModelForPreTraining for a stock bert with a sentence head) and AutoTokenizer; here
    the model of `state` and `shape` runs on the same fixed batch. The logits of a sentence head are compared too,
    unless a stock folder's class has none. Raises RuntimeError when loading fails or a difference exceeds `TOLERANCE`.
    """
    batch, real = _fixed_batch(shape)
    model = build(shape, seed=0)
    load_state(model, state)
    with torch.no_grad():
        wanted = model.eval()(**batch)
    auto_class = shape.auto_class if isinstance(shape, StockShape) else "AutoModelForMaskedLM"
    sentence_head = isinstance(shape, EncoderShape) and shape.sentence_head
    if shape.is_classifier:
        auto_class, real = "AutoModelForSequenceClassification", torch.ones(len(real), dtype=torch.bool)
    with_sentence = [sentence_head and (trust or _keeps_sentence_head(shape)) for _, trust in folders]
    with tempfile.TemporaryDirectory() as temporary:
        save_file(batch, inputs := Path(temporary, "inputs.safetensors"))
        outputs = [Path(temporary, f"outputs-{number}.safetensors") for number in range(len(folders))]
        orders = [
            (
                str(folder.resolve()),
                str(output),
                "AutoModelForPreTraining" if sentence and not trust else auto_class,
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


def _keeps_sentence_head(shape: Shape) -> bool:
    return isinstance(shape, EncoderShape) and stock_family(shape) == "bert"


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


def _fixed_batch(shape: Shape) -> tuple[dict[str, Tensor], Tensor]:
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
