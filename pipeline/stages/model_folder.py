"""A model folder for strangers: config, weights, tokenizer and card, written whole or not at all."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedConfig

from data_prep.errors import UserError
from data_prep.files import fsync_folder
from pipeline.families.head import Objective
from pipeline.families.model_files import FILES
from pipeline.families.shape import EncoderShape, Shape
from pipeline.tickets.ticket import Ticket

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
_PIPELINES: dict[Objective, tuple[str, str]] = {
    "masked-lm": ("fill-mask", "Masked language model"),
    "causal-lm": ("text-generation", "Causal language model"),
    "classification": ("text-classification", "Text classifier"),
}


def tokenizer_files(source: Path, shape: Shape, objective: Objective = "masked-lm") -> dict[str, bytes | str]:
    """A model folder's files of its tokenizer, as they are; or of a corpus' tokenizer.json that file, and the two that
    tell transformers its special tokens.

    A causal model's tokenizer begins a text with what documents began with in training, and does not end it. Raises
    UserError where the tokenizer does not fit the shape.
    """
    if source.is_dir():
        return {path.name: path.read_bytes() for name in FILES[1:] if (path := source / name).is_file()}
    tokenizer = Tokenizer.from_file(str(source))
    special = special_tokens(tokenizer, source)
    highest = max(tokenizer.get_vocab().values())
    if highest >= shape.vocab_size:
        raise UserError(
            f"{source} has ids up to {highest}, the model a vocabulary of {shape.vocab_size}; "
            "export with the tokenizer of the corpus the model was trained on"
        )
    pad = tokenizer.token_to_id(special["pad_token"])
    if pad != shape.pad_token_id:
        raise UserError(f"{source} pads with id {pad}, the model with {shape.pad_token_id}")
    content: bytes | str = source.read_bytes()
    if objective == "causal-lm":
        begin, end = special["cls_token"], special["sep_token"]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{begin} $A",
            pair=f"{begin} $A {end} $B",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
        )
        content = tokenizer.to_str(pretty=True)
        special = special | {"bos_token": begin, "eos_token": end}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.max_row_length,
        "model_input_names": names if shape.type_vocab_size else [names[0], names[2]],
        **special,
    }
    return {
        "tokenizer.json": content,
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2) + "\n",
    }


def special_tokens(tokenizer: Tokenizer, tokenizer_file: Path) -> dict[str, str]:
    """BERT's or RoBERTa's names, whichever the tokenizer has."""
    missing: list[list[str]] = []
    for names in (SPECIAL_TOKENS, ROBERTA_SPECIAL_TOKENS):
        missing.append([token for token in names.values() if tokenizer.token_to_id(token) is None])
        if not missing[-1]:
            return names
    raise UserError(
        f"{tokenizer_file} lacks the special tokens {', '.join(min((len(tokens), tokens) for tokens in missing)[1])}"
    )


def write_folder(
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


def model_card(shape: Shape, ticket: Ticket | None, about: str, load: str, objective: Objective = "masked-lm") -> str:
    """The model card: what the folder holds and how to load it."""
    dense = ticket.dense_shape.layers if ticket else shape.layers
    rows = []
    for index, (layer, before) in enumerate(zip(shape.layers, dense, strict=True)):
        heads = _listing(ticket.heads[index]) if ticket else "all"
        rows.append(f"| {index} | {layer.heads} of {before.heads} | {heads} | {layer.ffn} of {before.ffn} |")
    drawn = f" It was drawn at step {ticket.step} by the score `{ticket.score}`." if ticket else ""
    kind = f"an early-bird ticket of a larger model.{drawn}" if ticket else "dense: nothing was removed."
    what = f"A model of family {shape.family}"
    if isinstance(shape, EncoderShape):
        what = f"A {'pre' if shape.norm == 'pre' else 'post'}-LN transformer encoder"
    task, title = _PIPELINES[objective]
    return f"""---
library_name: transformers
pipeline_tag: {task}
---
# {title}

{what}, {kind}
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
