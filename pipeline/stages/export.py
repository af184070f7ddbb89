"""Stage `export`: the trained model as Hugging Face folders that are loaded again and compared before they count.

Compact: the slim widths with the modelling file beside the weights. Expanded: zeros put back, so that a stock
class loads it. Knows nothing of training.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from data_prep.errors import UserError
from pipeline.families import modeling_narrow, modeling_slim_bert, modeling_slim_bert_heads
from pipeline.families.head import MASKED_LM, Head
from pipeline.families.hf import (
    config_from_shape,
    drop_sentence_head,
    load_state,
    name_labels,
    state_to_hf,
    stock_family,
)
from pipeline.families.model_files import fetch
from pipeline.families.models import build
from pipeline.families.shape import EncoderShape, Shape
from pipeline.families.stock import leaving_config
from pipeline.families.stock_shape import StockShape, read_shape
from pipeline.runs.run import Run
from pipeline.stages.model_folder import model_card, special_tokens, tokenizer_files, write_folder
from pipeline.stages.pretrain import WEIGHTS
from pipeline.stages.stranger import verify_exports
from pipeline.tickets.surgery import expand_state
from pipeline.tickets.ticket import Ticket
from pipeline.training.ranks import Ranks

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


def export_compact(
    state: Mapping[str, Tensor],
    shape: Shape,
    tokenizer: Path,
    out_dir: Path,
    ticket: Ticket | None = None,
    head: Head = MASKED_LM,
) -> None:
    """Write the model at its own widths: config with `auto_map`, modelling file, weights, tokenizer, model card.

    `state` holds the fp32 tensors of `build(shape)`; `tokenizer` is what `tokenizer_files` takes; a `ticket` adds the
    kept units to the card. A stock model that is dense needs no file of ours. The pooler of a sentence head goes under
    the sequence classifier. The folder appears whole or not at all. Raises UserError when
    the tokenizer does not fit the shape, ValueError when the state does not.
    """
    _check(state, shape)
    files = tokenizer_files(tokenizer, shape, head.objective)
    if isinstance(shape, StockShape):
        _export_stock(state, shape, files, out_dir, ticket, head, about="Every layer has its own width.")
        return
    assert isinstance(shape, EncoderShape)
    config = config_from_shape(shape)
    sources = [Path(module.__file__ or "") for module in (modeling_slim_bert, modeling_slim_bert_heads)]
    auto_class = head.auto_class
    config.architectures = [_CLASSES[auto_class]]
    config.classifier_pooler = shape.sentence_head or shape.pooler
    name_labels(config, head)
    core, heads = (source.stem for source in sources)
    config.auto_map = {
        auto: f"{core if hasattr(modeling_slim_bert, name) else heads}.{name}" for auto, name in _CLASSES.items()
    }
    load = f"{auto_class}.from_pretrained(folder, trust_remote_code=True)"
    about = "Every layer has its own width, so the class comes with the weights (`modeling_slim_bert.py`)."
    others = ", ".join(f"`{auto}`" for auto in _CLASSES if auto not in ("AutoConfig", auto_class))
    about += f"\nThe folder serves {others} too; heads that were not trained are new, as transformers reports."
    if shape.sentence_head:
        about += f"\nIt also has a sentence head: `sentence_logits` of the model's output. {_SENTENCE_CLASSES}"
    card = model_card(shape, ticket, about, load, head.objective)
    code = {source.name: source.read_bytes() for source in sources}
    write_folder(out_dir, state, config, files | code | {"README.md": card})


def export_expanded(
    slim_state: Mapping[str, Tensor],
    shape: Shape,
    ticket: Ticket | None,
    tokenizer: Path,
    out_dir: Path,
    head: Head = MASKED_LM,
) -> None:
    """Write the model at the dense widths, zeros where units were removed, for a stock class of transformers.

    `shape` is the shape of `slim_state`. Of our encoder post-LN becomes bert, pre-LN roberta-prelayernorm, or esm with
    rotary positions; only a bert keeps its sentence head, from the others it is dropped and the card says so. Without a
    ticket the model is dense already and is written as it is. Raises UserError when ticket, tokenizer and shape do not
    fit each other, ValueError when the state does not or no stock class has the shape.
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
        dense_shape = shape.with_layers(ticket.dense_shape.layers)
    if isinstance(dense_shape, StockShape):
        files = tokenizer_files(tokenizer, dense_shape, head.objective)
        about = "Removed heads and neurons are zeros again, so that the stock class loads the weights."
        _export_stock(dense_state, dense_shape, files, out_dir, ticket, head, about, shape)
        return
    assert isinstance(dense_shape, EncoderShape)
    assert isinstance(shape, EncoderShape)
    family = stock_family(dense_shape)
    name, load, note = _STOCK_CLASSES[family], f"{head.auto_class}.from_pretrained(folder)", ""
    if shape.is_classifier:
        name = name.replace("MaskedLM", "SequenceClassification")
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
    name_labels(config, head)
    files = tokenizer_files(tokenizer, dense_shape)
    if family != "bert":
        # Else they have the ids of RoBERTa's own vocabulary.
        source = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
        read = Tokenizer.from_file(str(source))
        special = special_tokens(read, source)
        config.bos_token_id, config.eos_token_id, config.mask_token_id = (
            read.token_to_id(special[name]) for name in ("cls_token", "sep_token", "mask_token")
        )
    about = f"Removed heads and neurons are zeros again, so that the stock class `{name}` loads the weights.{note}"
    files["README.md"] = model_card(shape, ticket, about, load, head.objective)
    write_folder(out_dir, hf_state, config, files)


def _export_stock(
    state: Mapping[str, Tensor],
    shape: StockShape,
    files: dict[str, bytes | str],
    out_dir: Path,
    ticket: Ticket | None,
    head: Head,
    about: str,
    trained: Shape | None = None,
) -> None:
    """A stock model at these widths, with the class for narrow layers where there are any; the card speaks of the
    `trained` shape."""
    config = leaving_config(shape)
    load = f"{head.auto_class}.from_pretrained(folder)"
    if shape.layers != shape.dense().layers:
        source = Path(modeling_narrow.__file__)
        files = files | {source.name: source.read_bytes()}
        load = f"{head.auto_class}.from_pretrained(folder, trust_remote_code=True)"
        about += f" The class comes with the weights (`{source.name}`)."
    elif ticket is None:
        about = f"The class is transformers' own, `{config.architectures[0]}`."
    card = model_card(trained or shape, ticket, about, load, head.objective)
    weights = {name.removeprefix("model."): x for name, x in state.items()}
    write_folder(out_dir, weights, config, files | {"README.md": card})


def export(run: Run, ranks: Ranks) -> dict[str, Any]:
    """Write and verify the folders of a run. Returns the results for the manifest.

    A dense stock model is one folder: it is what a stock class loads already.
    """
    weights = run.folder.pretrain / WEIGHTS
    with safe_open(weights, framework="pt") as file:
        said = file.metadata()
    shape, head = read_shape(json.loads(said["shape"])), Head.from_dict(json.loads(said["head"]))
    state = load_file(weights)
    ticket = Ticket.read(run.folder.ticket) if run.recipe.search.enabled else None
    chosen = run.recipe.model
    tokenizer = run.corpus.tokenizer_file if chosen.checkpoint is None else fetch(chosen.checkpoint, chosen.revision)
    export_compact(state, shape, tokenizer, run.folder.model, ticket, head)
    folders = [(run.folder.model, not is_stock(shape))]
    dense = shape if ticket is None else ticket.dense_shape
    if not is_stock(shape) and is_even(dense):
        export_expanded(state, shape, ticket, tokenizer, run.folder.model_expanded, head)
        folders.append((run.folder.model_expanded, False))
    differences = verify_exports(folders, state, shape)
    results: dict[str, Any] = {"parameters": shape.num_parameters()}
    for (folder, own_code), difference in zip(folders, differences, strict=True):
        results["largest_difference_compact" if folder == run.folder.model else "largest_difference_expanded"] = (
            difference
        )
        print(f"export: {folder} ({'' if own_code else 'stock class, '}differs by {difference:.1e})")
    if len(folders) == 1 and not is_stock(shape):
        print("export: no folder for a stock class: layers were of different widths before this run's search")
    return results


def is_stock(shape: Shape) -> bool:
    """Whether a stock class has this very shape."""
    return isinstance(shape, StockShape) and shape.layers == shape.dense().layers


def is_even(dense: Shape) -> bool:
    """Whether a stock class has room for models cut from this one."""
    return dense.is_uniform if isinstance(dense, EncoderShape) else is_stock(dense)


def _check(state: Mapping[str, Tensor], shape: Shape) -> None:
    other = sorted({str(value.dtype) for value in state.values() if value.dtype != torch.float32})
    if other:
        raise ValueError(f"exports are made from fp32 masters, the state holds {', '.join(other)}")
    load_state(build(shape, seed=0), state)


def _widths(shape: Shape) -> str:
    return f"heads {[x.heads for x in shape.layers]} and neurons {[x.ffn for x in shape.layers]}"
