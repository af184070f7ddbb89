"""Stock classes of transformers at other widths: what they compute, with gates and without, and as strangers load
them."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from pipeline.families import modeling_narrow
from pipeline.families.head import Head, Objective
from pipeline.families.hf import load_state
from pipeline.families.models import build
from pipeline.families.stock import (
    config_of,
    layers_of,
    leaving_config,
    narrow_shapes,
    random_shape,
    stock_class,
    stock_shape,
)
from pipeline.families.stock_shape import StockShape
from pipeline.families.table import FAMILIES
from pipeline.recipes.recipe import load_recipe
from pipeline.tickets.gates import GateSet, GateTensors
from pipeline.tickets.score import MagnitudeScore
from pipeline.tickets.surgery import expand_state, fold_gates, mask_gates, slice_state
from tests.stages.test_export import as_a_stranger
from tests.tickets.make import random_ticket

COMMON = {"vocab_size": 50, "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 16}
TABLE = {"intermediate_size": 32, "max_position_embeddings": 24, "initializer_range": 0.3}


@dataclass(frozen=True)
class Case:
    config: str
    fields: dict
    objective: Objective

    @property
    def head(self) -> Head:
        return Head(self.objective, labels=("no", "maybe", "yes") if self.objective == "classification" else ())


MODERN = {**COMMON, **TABLE, "pad_token_id": 0, "local_attention": 4, "global_attn_every_n_layers": 2}
CASES = {
    "bert": Case("BertConfig", COMMON | TABLE, "masked-lm"),
    "bert-classifier": Case("BertConfig", COMMON | TABLE, "classification"),
    "roberta": Case("RobertaConfig", COMMON | TABLE, "masked-lm"),
    "roberta-prelayernorm": Case("RobertaPreLayerNormConfig", COMMON | TABLE, "masked-lm"),
    "distilbert": Case(
        "DistilBertConfig",
        {"vocab_size": 50, "n_layers": 3, "n_heads": 4, "dim": 16, "hidden_dim": 32, "max_position_embeddings": 24},
        "masked-lm",
    ),
    "modernbert": Case("ModernBertConfig", MODERN, "masked-lm"),
    "modernbert-biases": Case(
        "ModernBertConfig", {**MODERN, "attention_bias": True, "mlp_bias": True}, "classification"
    ),
    "gpt2": Case(
        "GPT2Config", {"vocab_size": 50, "n_layer": 3, "n_head": 4, "n_embd": 16, "n_positions": 24},
        "causal-lm",
    ),
}  # fmt: skip
every_family = pytest.mark.parametrize("name", CASES)


def dense(name: str) -> tuple[StockShape, torch.nn.Module]:
    """A stock model with nothing left at zero or one, so that a slip shows."""
    case = CASES[name]
    shape = stock_shape(getattr(transformers, case.config)(**case.fields), case.head)
    model = build(shape, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return shape, model


def state_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def batch() -> dict[str, Tensor]:
    ids = torch.randint(5, 50, (3, 12), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def logits_of(model: torch.nn.Module, gates: GateTensors | None = None) -> Tensor:
    found = model(**batch(), gates=gates).logits
    return found[batch()["attention_mask"].bool()] if found.dim() == 3 else found


def narrow_model(shape: StockShape, state: dict[str, Tensor]) -> torch.nn.Module:
    model = build(shape, seed=0).eval()
    load_state(model, state)
    return model


def random_gates(shape: StockShape) -> GateTensors:
    gates = GateSet(shape)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for gate in gates.named().values():
            gate.copy_(0.5 + torch.rand(gate.shape, generator=generator))
    return gates.tensors


@every_family
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sliced_equals_masked_dense(name: str, seed: int) -> None:
    shape, model = dense(name)
    ticket = random_ticket(shape, seed)
    slim = narrow_model(ticket.slim_shape(), slice_state(state_of(model), shape, ticket))
    with torch.no_grad():
        wanted = logits_of(model, mask_gates(shape, ticket))
        torch.testing.assert_close(logits_of(slim), wanted, atol=1e-5, rtol=1e-5)
        assert (logits_of(model) - wanted).abs().max() > 0.01
    for each, of in ((slim, ticket.slim_shape()), (model, shape)):
        assert of.num_parameters() == sum(p.numel() for p in each.parameters())
    assert ticket.slim_shape().num_parameters() < shape.num_parameters()


@every_family
def test_gates_of_ones_change_nothing(name: str) -> None:
    shape, model = dense(name)
    bare = logits_of(model)
    bare.square().sum().backward()
    without = {n: each.grad.clone() for n, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    gates = GateSet(shape)
    gated = logits_of(model, gates.tensors)
    gated.square().sum().backward()
    assert torch.equal(gated, bare)
    assert all(torch.equal(each.grad, without[n]) for n, each in model.named_parameters() if n in without)
    assert torch.equal(logits_of(model), bare)
    # A gate scales what stands behind it, so its gradient is that of the weights behind it times these weights.
    collected = gates.collect(1.0)
    for key, (slot, layer) in FAMILIES[shape.family].find(state_of(model), shape).items():
        if slot.folds:
            products = state_of(model)[key] * without[key]
            gradient = (collected.heads if slot.group == "heads" else collected.neurons)[layer]
            wanted = products.sum(1 - slot.axis).view(len(gradient), -1).sum(1)
            torch.testing.assert_close(gradient, wanted, atol=1e-3, rtol=1e-3)


@every_family
def test_folded_gates_and_zeros_put_back_compute_the_same(name: str) -> None:
    shape, model = dense(name)
    ticket, gates = random_ticket(shape, 4), random_gates(shape)
    slim_state = slice_state(fold_gates(state_of(model), shape, gates), shape, ticket)
    both = GateTensors(*(
        tuple(mask * gate for mask, gate in zip(masks, of, strict=True))
        for masks, of in zip(mask_gates(shape, ticket), gates, strict=True)
    ))  # fmt: skip
    with torch.no_grad():
        wanted = logits_of(model, both)
        torch.testing.assert_close(
            logits_of(narrow_model(ticket.slim_shape(), slim_state)), wanted, atol=1e-5, rtol=1e-5
        )
        load_state(model, expand_state(slim_state, ticket))
        torch.testing.assert_close(logits_of(model), wanted, atol=1e-5, rtol=1e-5)


@every_family
def test_magnitudes_are_those_of_the_units_own_weights(name: str) -> None:
    shape, model = dense(name)
    score = MagnitudeScore(shape)
    score.update(GateSet(shape), None, state_of(model))
    before = score.scores()
    ticket = random_ticket(shape, 5)
    with torch.no_grad():
        for parameter, zeroed in zip(
            model.parameters(), expand_state(slice_state(state_of(model), shape, ticket), ticket).values(), strict=True
        ):
            parameter.copy_(zeroed)
    score = MagnitudeScore(shape)
    score.update(GateSet(shape), None, state_of(model))
    for group, kept in (("heads", ticket.heads), ("neurons", ticket.neurons)):
        for layer, units in enumerate(kept):
            gone = [unit for unit in range(len(before[group][layer])) if unit not in units]
            assert not score.scores()[group][layer][gone].any()
            assert before[group][layer][gone].all()


def test_a_stranger_loads_every_compact_folder(tmp_path: Path) -> None:
    orders = []
    for name in CASES:
        shape, model = dense(name)
        ticket, auto_class = random_ticket(shape, 6), shape.auto_class
        slim = narrow_model(ticket.slim_shape(), slice_state(state_of(model), shape, ticket))
        folder = tmp_path / name
        folder.mkdir()
        leaving_config(ticket.slim_shape()).to_json_file(folder / "config.json", use_diff=False)
        save_file(
            {n.removeprefix("model."): x.contiguous() for n, x in state_of(slim).items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        shutil.copy(modeling_narrow.__file__, folder)
        save_file(batch() | {"wanted": model_logits(slim)}, folder / "batch.safetensors")
        orders.append([name, auto_class])
    code = """
import json, sys, torch, transformers
from safetensors.torch import load_file
for name, auto_class in json.loads(sys.argv[1]):
    batch = load_file(f"{name}/batch.safetensors"); wanted = batch.pop("wanted")
    said = [name]
    for place in (name, f"{name}-again"):
        model, info = getattr(transformers, auto_class).from_pretrained(
            place, trust_remote_code=True, dtype=torch.float32, output_loading_info=True
        )
        with torch.no_grad():
            said += [not any(info.values()), bool((model.eval()(**batch).logits - wanted).abs().max() < 1e-5)]
        model.save_pretrained(f"{name}-again")
    base = transformers.AutoModel.from_pretrained(name, trust_remote_code=True)
    print(*said, type(base).__name__.startswith("Narrow"))
"""
    said = as_a_stranger(code, json.dumps(orders), home=tmp_path)
    assert said == "".join(f"{name} True True True True True\n" for name in CASES)


def model_logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(**batch()).logits


def test_gpt2_generates_alike_narrow_and_expanded() -> None:
    shape, model = dense("gpt2")
    ticket = random_ticket(shape, 7)
    slim_state = slice_state(state_of(model), shape, ticket)
    slim = narrow_model(ticket.slim_shape(), slim_state)
    load_state(model, expand_state(slim_state, ticket))
    start = batch()["input_ids"][:, :4]
    written = [
        each.model.generate(start, max_new_tokens=12, do_sample=False, use_cache=cache, pad_token_id=0)
        for each in (slim, model)
        for cache in (True, False)
    ]
    assert all(torch.equal(one, written[0]) for one in written)
    assert written[0].shape == (3, 16)


def test_shapes_say_what_a_model_is() -> None:
    shape, _ = dense("gpt2")
    assert [(layer.heads, layer.ffn) for layer in shape.layers] == [(4, 64)] * 3
    assert StockShape.from_dict(json.loads(json.dumps(shape.to_dict()))) == shape
    assert type(config_of(shape)).__name__ == "GPT2Config"
    with pytest.raises(ValueError, match="family 'llama' is none known here"):
        StockShape.from_dict(shape.to_dict() | {"family": "llama"})
    with pytest.raises(ValueError, match="a stock shape has family"):
        StockShape.from_dict({"family": "gpt2"})
    with pytest.raises(ValueError, match="'t5' is of no family known here"):
        stock_shape(transformers.T5Config(), Head("masked-lm"))
    with pytest.raises(ValueError, match="gpt2 models learn causal-lm or classification, not masked-lm"):
        stock_shape(config_of(shape), Head("masked-lm"))
    ticket = random_ticket(shape, 8)
    assert layers_of(narrow_shapes(ticket.slim_shape()), shape) == ticket.slim_shape().layers
    with pytest.raises(ValueError, match="no AutoModelForMaskedLM for model type 'gpt2'"):
        stock_class(config_of(shape), "AutoModelForMaskedLM")


def test_flops_count_every_matrix_of_a_layer() -> None:
    """2 FLOPs a weight and token, and the two products of attention over the row."""
    for name in CASES:
        shape, model = dense(name)
        weights = sum(
            parameter.numel() for n, parameter in model.named_parameters()
            if parameter.dim() == 2 and any(f".{layer}." in n for layer in range(3))
        )  # fmt: skip
        assert shape.encoder_flops_per_token(12) == 2 * weights + 3 * 2 * 2 * 12 * 16


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.objective != "classification"])
def test_packed_rows_are_what_their_documents_are_alone(name: str) -> None:
    """Logits at chosen positions of rows of several documents, against each document in a row of its own."""
    shape, model = dense(name)
    ids = batch()["input_ids"][:2]
    documents = torch.tensor([[1] * 5 + [2] * 7, [1] * 3 + [2] * 6 + [0] * 3])
    places = torch.tensor([[*range(5), *range(7)], [*range(3), *range(6), 0, 0, 0]])
    positions = torch.tensor([0, 4, 5, 11, 12 + 2, 12 + 3, 12 + 8])
    labels = ids.reshape(-1)[positions]
    with torch.no_grad():
        packed = model(
            ids, position_ids=places, document_ids=documents, masked_positions=positions, labels=labels,
            num_items_in_batch=14,
        )  # fmt: skip
        alone = []
        for row, number in ((0, 1), (0, 2), (1, 1), (1, 2)):
            document = ids[row][documents[row] == number][None]
            first = 0 if not shape.family.startswith("roberta") else shape.pad_token_id + 1
            at = {"position_ids": first + torch.arange(document.shape[1])[None]}
            alone.append(model.model(document, **at).logits[0])
    flat = torch.cat([alone[0], alone[1], alone[2], alone[3]])
    wanted = flat[torch.tensor([0, 4, 5, 11, 12 + 2, 12 + 3, 12 + 8])]
    torch.testing.assert_close(packed.logits, wanted, atol=1e-5, rtol=1e-5)
    loss = torch.nn.functional.cross_entropy(wanted, labels, reduction="sum") / 14
    torch.testing.assert_close(packed.loss, loss)


def test_head_weights_are_what_a_token_costs_behind_the_layers() -> None:
    for name in CASES:
        shape, _ = dense(name)
        behind = shape.forward_flops_per_token(12, 1.0) - shape.encoder_flops_per_token(12)
        transformed = 16 * 16 + 16 * 50
        heads = {
            "bert": transformed, "roberta": transformed, "roberta-prelayernorm": transformed, "distilbert": transformed,
            "modernbert": transformed, "gpt2": 16 * 50, "bert-classifier": 16 * 3 / 12,
            "modernbert-biases": (16 * 16 + 16 * 3) / 12,
        }  # fmt: skip
        assert behind == pytest.approx(2 * heads[name]), name


def test_gpt2_small_has_its_published_size() -> None:
    recipe = load_recipe("gpt2-small")
    sizes = recipe.stock_sizes(50257, {"pad": 0, "cls": 1, "sep": 2})
    shape = random_shape("gpt2", sizes, Head("causal-lm"), recipe.model.dropout, recipe.model.attention_dropout)
    assert shape.num_parameters() == 124_439_808
    assert shape.row_limit == 1024
