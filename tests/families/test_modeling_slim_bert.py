from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from transformers.utils.generic import find_labels

from pipeline.families import modeling_slim_bert
from pipeline.families.hf import build_model, config_from_shape, read_state
from pipeline.families.modeling_slim_bert import (
    SlimBertConfig,
    SlimBertCrossEntropy,
    SlimBertDropout,
    SlimBertForMaskedLM,
    SlimBertModel,
    rotary_factors,
    turned,
)
from pipeline.families.modeling_slim_bert_heads import (
    SlimBertForMultipleChoice,
    SlimBertForQuestionAnswering,
    SlimBertForSequenceClassification,
    SlimBertForTokenClassification,
)
from pipeline.families.shape import EncoderShape, LayerShape
from pipeline.training.optimizers import parameter_groups

SHAPE = EncoderShape(
    vocab_size=50,
    hidden_size=16,
    head_size=4,
    layers=(LayerShape(3, 24), LayerShape(1, 8), LayerShape(4, 40)),
    max_positions=20,
    type_vocab_size=2,
    dropout=0.0,
    attention_dropout=0.0,
    initializer_range=0.3,
)
NORMS = ["post", "pre"]
ROTARY = replace(SHAPE, norm="pre", positions="rotary", type_vocab_size=0)


@dataclass
class GateTensors:
    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


def ones(shape: EncoderShape, requires_grad: bool = False) -> GateTensors:
    return GateTensors(
        tuple(torch.ones(layer.heads, requires_grad=requires_grad) for layer in shape.layers),
        tuple(torch.ones(layer.ffn, requires_grad=requires_grad) for layer in shape.layers),
    )


def some_ids(*size: int, seed: int = 0) -> Tensor:
    return torch.randint(1, SHAPE.vocab_size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [*(replace(SHAPE, norm=norm) for norm in NORMS), ROTARY], ids=[*NORMS, "rotary"])
def test_packed_rows_equal_their_pieces_run_alone(shape: EncoderShape) -> None:
    model = build_model(shape, seed=0).eval()
    lengths = [[5, 4, 3], [12], [2, 9]]
    rows, documents, positions, pieces = [], [], [], []
    for row, row_lengths in enumerate(lengths):
        parts = [some_ids(n, seed=10 * row + i) for i, n in enumerate(row_lengths)]
        pieces.append(parts)
        rest = 12 - sum(row_lengths)
        rows.append(torch.cat([*parts, torch.zeros(rest, dtype=torch.long)]))
        ids = [torch.full((n,), i + 1) for i, n in enumerate(row_lengths)]
        documents.append(torch.cat([*ids, torch.zeros(rest, dtype=torch.long)]))
        positions.append(torch.cat([torch.arange(n) for n in [*row_lengths, rest]]))
    packed = model(torch.stack(rows), document_ids=torch.stack(documents), position_ids=torch.stack(positions)).logits
    assert torch.isfinite(packed).all()
    for row, parts in enumerate(pieces):
        start = 0
        for part in parts:
            alone = model(part[None]).logits[0]
            torch.testing.assert_close(packed[row, start : start + len(part)], alone, atol=1e-5, rtol=1e-5)
            start += len(part)


@pytest.mark.parametrize(("head_size", "base"), [(4, 10_000.0), (32, 500.0)])
def test_rotary_positions_turn_pairs_as_complex_numbers_do(head_size: int, base: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, head_size, generator=generator, dtype=torch.float64)
    positions = torch.tensor([[0, 1, 2, 0, 1], [7, 300, 2, 511, 0]])
    half = head_size // 2
    angles = positions[..., None] * base ** -(torch.arange(half, dtype=torch.float64) / half)
    pairs = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, :, None]
    wanted = torch.cat([pairs.real, pairs.imag], -1)
    found = turned(x, rotary_factors(positions, head_size, base, torch.float64))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_rotary_positions_count_from_anywhere_and_beyond_the_longest_row() -> None:
    model = build_model(ROTARY, seed=0).eval()
    ids = some_ids(2, 2 * ROTARY.max_positions)
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    wanted = model(ids).logits
    torch.testing.assert_close(model(ids, position_ids=positions + 9).logits, wanted, atol=1e-5, rtol=1e-5)
    assert (model(ids, position_ids=2 * positions).logits - wanted).abs().max() > 0.01
    assert not any("position" in name for name, _ in model.named_parameters())
    assert ROTARY.num_parameters() == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("shape", [SHAPE, replace(SHAPE, norm="pre", position_offset=1), ROTARY])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_on_either_side(shape: EncoderShape, side: str) -> None:
    model = build_model(shape, seed=0).eval()
    ids = some_ids(2, 8)
    padding = torch.full((2, 5), shape.pad_token_id)
    padded = torch.cat([padding, ids] if side == "left" else [ids, padding], 1)
    real = slice(5, None) if side == "left" else slice(8)
    mask = torch.zeros(2, 13, dtype=torch.long)
    mask[:, real] = 1
    found = model(padded, attention_mask=mask).logits[:, real]
    torch.testing.assert_close(found, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooler", [False, True])
def test_scores_are_not_rounded_to_the_type_of_the_weights(pooler: bool) -> None:
    model = (
        build_model(SHAPE, SlimBertForSequenceClassification, seed=0, num_labels=1, classifier_pooler=pooler)
        .bfloat16()
        .eval()
    )
    scores = model(some_ids(64, 8)).logits
    assert scores.dtype == torch.float32
    assert len(scores.unique()) == 64
    assert (scores.bfloat16().float() != scores).any()


def test_attention_mask_and_document_ids_hold_together() -> None:
    model = build_model(SHAPE, seed=0).eval()
    ids = some_ids(1, 8)
    documents = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2]])
    attention = torch.tensor([[1, 1, 1, 0, 1, 1, 0, 0]])
    position = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    both = model(ids, attention_mask=attention, document_ids=documents, position_ids=position).logits
    torch.testing.assert_close(both[:, :3], model(ids[:, :3]).logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[:, 4:6], model(ids[:, 4:6]).logits, atol=1e-5, rtol=1e-5)


def test_masked_positions_labels_and_full_logits_agree() -> None:
    model = build_model(SHAPE, seed=0).eval()
    ids = some_ids(3, 10)
    labels = torch.full((3, 10), -100)
    positions = torch.tensor([1, 7, 12, 29])
    labels.view(-1)[positions] = some_ids(4, seed=3)
    full = model(ids).logits
    by_position = model(ids, masked_positions=positions, labels=labels.view(-1)[positions])
    by_labels = model(ids, labels=labels)
    torch.testing.assert_close(by_position.logits, full.view(-1, 50)[positions])
    # As stock classes have it, and transformers' Trainer hands it to compute_metrics.
    assert torch.equal(by_labels.logits, full)
    wanted = F.cross_entropy(full.view(-1, 50), labels.view(-1))
    torch.testing.assert_close(by_position.loss, wanted)
    torch.testing.assert_close(by_labels.loss, wanted)


def test_padded_masked_positions_do_not_count_and_none_at_all_gives_zero() -> None:
    model = build_model(SHAPE, seed=0).eval()
    ids = some_ids(2, 6)
    positions, labels = torch.tensor([1, 8, 0, 0]), torch.tensor([4, 5, -100, -100])
    padded = model(ids, masked_positions=positions, labels=labels).loss
    torch.testing.assert_close(padded, model(ids, masked_positions=positions[:2], labels=labels[:2]).loss)
    empty = model(ids, labels=torch.full((2, 6), -100)).loss
    assert empty.item() == 0.0
    empty.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_gates_of_ones_change_nothing(norm: str) -> None:
    shape = replace(SHAPE, norm=norm)
    model = build_model(shape, seed=0)
    ids = some_ids(2, 9)
    assert torch.equal(model(ids).logits, model(ids, gates=ones(shape)).logits)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gate_gradients_equal_finite_differences(norm: str, checkpointing: bool) -> None:
    shape = replace(SHAPE, norm=norm)
    model = build_model(shape, seed=0).double()
    model.encoder.activation_checkpointing = checkpointing
    ids = some_ids(2, 9)
    positions = torch.tensor([0, 4, 10])
    labels = ids.view(-1)[positions]
    gates = GateTensors(
        tuple(torch.ones(x.heads, dtype=torch.double, requires_grad=True) for x in shape.layers),
        tuple(torch.ones(x.ffn, dtype=torch.double, requires_grad=True) for x in shape.layers),
    )

    def loss() -> Tensor:
        return model(ids, masked_positions=positions, labels=labels, gates=gates).loss

    loss().backward()
    for gate, index in [(gates.heads[0], 2), (gates.heads[1], 0), (gates.neurons[1], 5), (gates.neurons[2], 39)]:
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                gate[index] += step
                values.append(loss().item())
                gate[index] -= step
        assert gate.grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_zeroed_gates_equal_removed_heads_and_neurons(norm: str) -> None:
    shape = replace(SHAPE, norm=norm)
    dense = build_model(shape, seed=0).eval()
    kept_heads = [[0, 2], [0], [1]]
    kept_neurons = [[1, 5, 23], [0, 7], list(range(16))]
    gates = ones(shape)
    slim_layers = []
    for layer, heads, neurons in zip(range(3), kept_heads, kept_neurons, strict=True):
        gates.heads[layer].zero_()[heads] = 1.0
        gates.neurons[layer].zero_()[neurons] = 1.0
        slim_layers.append(LayerShape(len(heads), len(neurons)))
    slim = build_model(replace(shape, layers=tuple(slim_layers)), seed=1).eval()
    state = read_state(dense)
    for i, (heads, neurons) in enumerate(zip(kept_heads, kept_neurons, strict=True)):
        name, size = f"encoder.layers.{i}", shape.head_size
        columns = torch.cat([torch.arange(h * size, (h + 1) * size) for h in heads])
        inner = shape.layers[i].heads * size
        rows = torch.cat([columns + block * inner for block in range(3)])
        for kind in ("weight", "bias"):
            state[f"{name}.attention.qkv.{kind}"] = state[f"{name}.attention.qkv.{kind}"][rows]
            state[f"{name}.ffn.up.{kind}"] = state[f"{name}.ffn.up.{kind}"][neurons]
        state[f"{name}.attention.output.weight"] = state[f"{name}.attention.output.weight"][:, columns]
        state[f"{name}.ffn.down.weight"] = state[f"{name}.ffn.down.weight"][:, neurons]
    with torch.no_grad():
        for name, parameter in slim.named_parameters():
            parameter.copy_(state[name])
    ids = some_ids(2, 9)
    torch.testing.assert_close(slim(ids).logits, dense(ids, gates=gates).logits, atol=1e-5, rtol=1e-5)


def test_rows_of_nothing_but_padding_are_finite_forward_and_backward() -> None:
    model = build_model(SHAPE, seed=0)
    ids = some_ids(3, 8)
    ids[1:] = 0
    masks = {
        "attention_mask": torch.tensor([[1] * 8, [0] * 8, [0] * 8]),
        "document_ids": torch.tensor([[1] * 5 + [0] * 3, [0] * 8, [0] * 8]),
    }
    for given in ({k: v} for k, v in masks.items()):
        model.zero_grad()
        output = model(ids, output_hidden_states=True, **given)
        assert all(torch.isfinite(x).all() for x in (output.logits, *output.hidden_states))
        output.logits.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    both = model(ids, **masks).logits
    assert torch.isfinite(both).all()


def test_masks_that_hide_nothing_are_dropped() -> None:
    model = build_model(SHAPE, seed=0).eval()
    ids = some_ids(2, 8)
    plain = model(ids).logits
    assert torch.equal(plain, model(ids, attention_mask=torch.ones_like(ids)).logits)
    assert torch.equal(plain, model(ids, document_ids=torch.tensor([[1] * 8, [3] * 8])).logits)


@pytest.mark.parametrize("norm", NORMS)
def test_bf16_parameters_train_with_an_fp32_loss(norm: str) -> None:
    shape = replace(SHAPE, norm=norm, dropout=0.1, attention_dropout=0.1)
    model = build_model(shape, seed=0).bfloat16()
    gates = ones(shape, requires_grad=True)
    ids = some_ids(2, 9)
    output = model(ids, labels=ids, document_ids=torch.ones_like(ids).cumsum(1) // 5 + 1, gates=gates)
    assert output.loss.dtype == torch.float32
    assert output.logits.dtype == torch.bfloat16
    output.loss.backward()
    assert all(p.grad.dtype == torch.bfloat16 and torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(g.grad.dtype == torch.float32 for g in (*gates.heads, *gates.neurons))
    exact = build_model(replace(shape, dropout=0.0, attention_dropout=0.0), seed=0)
    close = build_model(replace(shape, dropout=0.0, attention_dropout=0.0), seed=0).bfloat16()
    assert close(ids, labels=ids).loss.item() == pytest.approx(exact(ids, labels=ids).loss.item(), rel=0.02)


def test_activation_checkpointing_gives_identical_gradients() -> None:
    shape = replace(SHAPE, dropout=0.2, attention_dropout=0.2)
    gradients = []
    for checkpointing in (False, True):
        model = build_model(shape, seed=0)
        model.encoder.activation_checkpointing = checkpointing
        gates = ones(shape, requires_grad=True)
        ids = some_ids(2, 9)
        torch.manual_seed(8)
        model(ids, labels=ids, gates=gates).loss.backward()
        gradients.append([p.grad for p in model.parameters()] + [g.grad for g in gates.heads + gates.neurons])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_transformers_own_checkpointing_gives_identical_gradients() -> None:
    shape = replace(SHAPE, dropout=0.2, attention_dropout=0.2)
    gradients, passes = [], []
    for checkpointing in (False, True):
        model = build_model(shape, seed=0)
        if checkpointing:
            with pytest.warns(FutureWarning, match="gradient_checkpointing_enable"):
                model.gradient_checkpointing_enable()
        runs: list[object] = []
        model.encoder.layers[1].ffn.register_forward_hook(lambda *_, runs=runs: runs.append(None))
        gates = ones(shape, requires_grad=True)
        ids = some_ids(2, 9)
        torch.manual_seed(8)
        model(ids, labels=ids, gates=gates).loss.backward()
        gradients.append([p.grad for p in model.parameters()] + [g.grad for g in gates.heads + gates.neurons])
        passes.append(len(runs))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert passes == [1, 2]


@pytest.mark.parametrize("shape", [SHAPE, ROTARY], ids=["absolute", "rotary"])
def test_attentions_are_those_of_each_layers_own_heads_and_cost_nothing_unasked(shape: EncoderShape) -> None:
    model = build_model(shape, seed=0).eval()
    ids = some_ids(2, 9)
    plain = model(ids)
    assert plain.attentions is None
    output = model(ids, output_attentions=True)
    assert [each.shape for each in output.attentions] == [(2, layer.heads, 9, 9) for layer in shape.layers]
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(2, 3, 9))
    torch.testing.assert_close(output.logits, plain.logits)
    model.train().activation_checkpointing_enable()
    again = model(ids, labels=ids, output_attentions=True)
    again.loss.backward()
    assert len(again.attentions) == len(shape.layers)
    assert torch.equal(model.eval()(ids).logits, plain.logits)

    config = config_from_shape(shape)
    config.output_attentions = config.output_hidden_states = True
    model = SlimBertForMaskedLM(config)
    output = model(ids)
    assert (len(output.attentions), len(output.hidden_states)) == (3, 4)
    assert list(model(ids, output_attentions=False, output_hidden_states=False)) == ["logits"]


def test_arguments_that_cannot_be_are_refused() -> None:
    model = build_model(SHAPE, seed=0)
    ids = some_ids(2, 9)
    for given in ({}, {"input_ids": ids, "inputs_embeds": torch.zeros(2, 9, 16)}):
        with pytest.raises(ValueError, match="give either input_ids or inputs_embeds"):
            model(**given)
    with pytest.raises(TypeError, match="an unexpected keyword argument 'atention_mask'"):
        model(ids, atention_mask=torch.ones_like(ids))
    with pytest.raises(ValueError, match="output_attentions was asked of a pass whose layers a switch may drop"):
        model(ids, switch=lambda index, layer, x, *of_rows: x, output_attentions=True)


def test_dropout_of_zero_draws_nothing_and_changes_nothing() -> None:
    model = build_model(SHAPE, seed=0)
    ids = some_ids(2, 9)
    before = torch.random.get_rng_state()
    training = model.train()(ids).logits
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(training, model.eval()(ids).logits)


def test_dropout_acts_in_training_only() -> None:
    model = build_model(replace(SHAPE, dropout=0.3, attention_dropout=0.3), seed=0)
    ids = some_ids(2, 9)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_position_offset_counts_the_tokens_that_are_not_padding() -> None:
    shape = replace(SHAPE, position_offset=2, pad_token_id=1)
    model = build_model(shape, seed=0).eval()
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 1, 1]])
    attention = (ids != 1).long()
    implicit = model(ids, attention_mask=attention).logits
    explicit = model(ids, attention_mask=attention, position_ids=torch.arange(4).expand(2, 4)).logits
    torch.testing.assert_close(implicit[0], explicit[0])
    torch.testing.assert_close(implicit[1, :2], explicit[1, :2])


def test_too_long_a_row_is_refused() -> None:
    model = build_model(replace(SHAPE, position_offset=2), seed=0)
    assert model(some_ids(1, 18)).logits.shape == (1, 18, 50)
    with pytest.raises(ValueError, match="a row of 19 tokens is too long: the position table serves 18"):
        model(some_ids(1, 19))


def test_decoder_is_the_word_embedding() -> None:
    model = build_model(SHAPE, seed=0)
    assert model.lm_head.decoder.weight is model.encoder.embeddings.word.weight
    assert model.lm_head.decoder.bias is model.lm_head.bias
    names = [name for name, _ in model.named_parameters()]
    assert not any("decoder" in name for name in names)
    assert "encoder.layers.2.attention.qkv.weight" in names


@pytest.mark.parametrize("norm", NORMS)
def test_save_and_load_round_trip(norm: str, tmp_path: Path) -> None:
    model = build_model(replace(SHAPE, norm=norm), seed=0)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    again = SlimBertForMaskedLM.from_pretrained(tmp_path)
    first, second = read_state(model), read_state(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert again.lm_head.decoder.weight is again.encoder.embeddings.word.weight
    encoder = SlimBertModel.from_pretrained(tmp_path)
    ids = some_ids(2, 7)
    torch.testing.assert_close(
        encoder(ids).last_hidden_state, model.eval().encoder(ids).last_hidden_state, atol=1e-6, rtol=1e-6
    )


SPLITS = [slice(0, 1), slice(1, 4), slice(4, 6)]


def as_trainer_counts(labels: Tensor) -> list[Tensor | int]:
    """`num_items_in_batch` in the forms in which transformers' Trainer passes it."""
    count = labels.ne(-100).sum()
    return [count, int(count), count.unsqueeze(0).expand(1, -1), count / 1]


def add_up(
    model: torch.nn.Module, parts: list[dict[str, Tensor]], **numbers: Tensor | int
) -> tuple[Tensor, list[Tensor]]:
    """The sum of the losses of these micro-batches, and the gradients it leaves."""
    model.zero_grad()
    losses = [model(**part, **numbers).loss for part in parts]
    for loss in losses:
        loss.backward()
    return torch.stack(losses).sum().detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_with_the_number_of_a_whole_step_the_losses_of_its_parts_add_up_to_its_mean() -> None:
    model = build_model(SHAPE, seed=0).eval()
    ids, labels = some_ids(6, 9), some_ids(6, 9, seed=1)
    labels[torch.rand(6, 9, generator=torch.Generator().manual_seed(2)) < 0.6] = -100
    labels[4:] = -100  # a part without any
    wanted = F.cross_entropy(model(ids).logits.transpose(1, 2), labels)
    model.zero_grad()
    wanted.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    parts = [{"input_ids": ids[part], "labels": labels[part]} for part in SPLITS]
    assert model.accepts_loss_kwargs
    for number in as_trainer_counts(labels):
        loss, found = add_up(model, parts, num_items_in_batch=number)
        torch.testing.assert_close(loss, wanted.detach())
        for one, other in zip(found, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    means, _ = add_up(model, parts[:2])
    assert abs(means / 2 - wanted) > 1e-3
    none, found = add_up(model, parts[2:], num_items_in_batch=0)
    assert none == 0
    assert not any(gradient.any() for gradient in found)


def test_sentence_targets_have_a_number_of_their_own() -> None:
    model = build_model(replace(SHAPE, sentence_head=True), seed=0).eval()
    ids, labels = some_ids(6, 9), some_ids(6, 9, seed=1)
    labels[:, ::2] = -100
    sentences = torch.tensor([-100, 0, 1, 1, -100, 0])
    output = model(ids)
    wanted = F.cross_entropy(output.logits.transpose(1, 2), labels) + F.cross_entropy(output.sentence_logits, sentences)
    parts = [{"input_ids": ids[p], "labels": labels[p], "sentence_targets": sentences[p]} for p in SPLITS]
    loss, _ = add_up(model, parts, num_items_in_batch=24, num_sentences_in_batch=4)
    torch.testing.assert_close(loss, wanted.detach())
    with pytest.raises(ValueError, match="num_items_in_batch and num_sentences_in_batch go together"):
        model(**parts[0], num_items_in_batch=24)
    # So transformers' Trainer, which knows labels only, is not to pass their number.
    assert not model.accepts_loss_kwargs


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_a_classifiers_losses_add_up_too(problem: str) -> None:
    single = problem == "single_label_classification"
    num_labels = 1 if problem == "regression" else 3
    model = build_model(SHAPE, SlimBertForSequenceClassification, seed=0, num_labels=num_labels).eval()
    model.config.problem_type = problem
    ids, draw = some_ids(6, 9), torch.Generator().manual_seed(1)
    labels = {
        "single_label_classification": torch.tensor([0, 2, -100, 1, -100, -100]),
        "multi_label_classification": torch.randint(0, 2, (6, 3), generator=draw),
        "regression": torch.rand(6, generator=draw),
    }[problem]
    logits = model(ids).logits
    if single:
        wanted = F.cross_entropy(logits, labels)
    elif problem == "regression":
        wanted = (logits[:, 0] - labels).square().mean()
    else:
        wanted = F.binary_cross_entropy_with_logits(logits, labels.float())
    parts = [{"input_ids": ids[part], "labels": labels[part]} for part in SPLITS]
    assert model.accepts_loss_kwargs
    for number in as_trainer_counts(labels):
        loss, _ = add_up(model, parts, num_items_in_batch=number)
        torch.testing.assert_close(loss, wanted.detach())
    if single:
        none, found = add_up(model, parts[2:])
        assert none == 0
        assert not any(gradient.any() for gradient in found)


@pytest.mark.parametrize("pooler", [False, True])
def test_classifier_losses(pooler: bool) -> None:
    ids = some_ids(4, 9)
    model = build_model(SHAPE, SlimBertForSequenceClassification, seed=0, num_labels=3, classifier_pooler=pooler).eval()
    labels = torch.tensor([0, 2, 1, 2])
    output = model(ids, labels=labels)
    assert output.logits.shape == (4, 3)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels))
    regressor = build_model(SHAPE, SlimBertForSequenceClassification, seed=0, num_labels=1).eval()
    targets = torch.tensor([0.5, 1.0, 4.2, 3.0])
    scores = regressor(ids, labels=targets)
    torch.testing.assert_close(scores.loss, (scores.logits.squeeze(1) - targets).square().mean())
    many = build_model(SHAPE, SlimBertForSequenceClassification, seed=0, num_labels=2).eval()
    many.config.problem_type = "multi_label_classification"
    marks = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 1]])
    several = many(ids, labels=marks)
    p = torch.sigmoid(several.logits)
    torch.testing.assert_close(several.loss, -torch.where(marks == 1, p.log(), (1 - p).log()).mean())


def test_pooler_and_roberta_heads_have_the_names_fine_tuning_relies_on() -> None:
    for pooler, wanted in [
        (True, {"pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"}),
        (False, {f"classifier.{m}.{k}" for m in ("dense", "out_proj") for k in ("weight", "bias")}),
    ]:
        model = build_model(SHAPE, SlimBertForSequenceClassification, seed=0, num_labels=2, classifier_pooler=pooler)
        heads = {name for name, _ in model.named_parameters() if not name.startswith("encoder.")}
        assert heads == wanted


def test_question_answering_loss_leaves_out_answers_beyond_the_row() -> None:
    model = build_model(SHAPE, SlimBertForQuestionAnswering, seed=0).eval()
    ids = some_ids(2, 9)
    output = model(ids, start_positions=torch.tensor([2, 9]), end_positions=torch.tensor([4, 30]))
    assert output.start_logits.shape == output.end_logits.shape == (2, 9)
    start = F.cross_entropy(output.start_logits[:1], torch.tensor([2]))
    end = F.cross_entropy(output.end_logits[:1], torch.tensor([4]))
    torch.testing.assert_close(output.loss, (start + end) / 2)
    # No answer in any window: nothing to learn, rather than not a number.
    assert model(ids, start_positions=torch.tensor([9, 9]), end_positions=torch.tensor([9, 30])).loss == 0


def test_hidden_states_run_from_the_embeddings_to_the_last_layer() -> None:
    model = build_model(SHAPE, SlimBertModel, seed=0).eval()
    output = model(some_ids(2, 5), output_hidden_states=True)
    assert len(output.hidden_states) == 1 + len(SHAPE.layers)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert model(some_ids(2, 5)).hidden_states is None


def test_config_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="heads_per_layer names 2 layers, ffn_per_layer 3"):
        SlimBertConfig(heads_per_layer=[1, 2], ffn_per_layer=[8, 8, 8])
    with pytest.raises(ValueError, match="'none'"):
        SlimBertConfig(norm="none")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("chunk", [1, 70, 2**19])
def test_cross_entropy_equals_torch_and_so_does_its_gradient(dtype, chunk: int, monkeypatch) -> None:
    monkeypatch.setattr(modeling_slim_bert, "_CHUNK_ON_CPU", chunk)
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(9, 33, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(0, 33, (9,), generator=generator)
    labels[[2, 8]] = -100
    loss = SlimBertCrossEntropy.apply(logits, labels)
    (3.0 * loss).backward(retain_graph=True)
    found, logits.grad = logits.grad, None
    wide = logits if dtype == torch.float64 else logits.float()
    wanted = F.cross_entropy(wide, labels)
    (3.0 * wanted).backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(found, logits.grad)
    assert not found[2].any()
    logits.grad = None
    (3.0 * loss).backward()
    assert torch.equal(logits.grad, found)


def test_cross_entropy_survives_extreme_logits() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    loss = SlimBertCrossEntropy.apply(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == 1e4
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0, 0.0], [-0.5, 0.5, 0.0]]))


@pytest.mark.parametrize("p", [0.1, 0.5, 1e-6, 0.999999])
def test_dropout_keeps_the_mean_and_follows_the_seed(p: float) -> None:
    dropout = SlimBertDropout(p).train()
    x = torch.ones(301, 333)
    torch.manual_seed(0)
    first = dropout(x)
    torch.manual_seed(0)
    assert torch.equal(first, dropout(x))
    assert not torch.equal(first, dropout(x)) or p in (1e-6, 0.999999)
    rounded = min(max(round(p * 2**16), 1), 2**16 - 1) / 2**16
    values = first.unique()
    assert all(v == 0 or v.item() == pytest.approx(1 / (1 - rounded)) for v in values)
    sigma = (rounded * (1 - rounded) / x.numel()) ** 0.5
    assert abs((first == 0).float().mean().item() - rounded) < 5 * sigma
    # Neighbours share a draw, so they must still fall independently.
    left, right = first.view(-1)[:-1] == 0, first.view(-1)[1:] == 0
    assert abs((left & right).float().mean().item() - rounded**2) < 5 * (rounded / x.numel()) ** 0.5


@pytest.mark.parametrize("masked", [False, True])
def test_bf16_attention_on_the_cpu_agrees_with_the_fp32_kernel(masked: bool) -> None:
    shape = replace(SHAPE, layers=(LayerShape(4, 16),), initializer_range=0.2)
    exact = build_model(shape, SlimBertModel, seed=0).layers[0].attention
    close = build_model(shape, SlimBertModel, seed=0).bfloat16().layers[0].attention
    with torch.no_grad():
        exact.load_state_dict({name: x.float() for name, x in close.state_dict().items()})
    x = torch.randn(3, 10, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    documents = torch.arange(10)[None].expand(3, 10) // 4
    mask = (documents[:, :, None] == documents[:, None, :])[:, None] if masked else None
    gate = torch.tensor([1.0, 0.5, 0.0, 2.0])
    torch.testing.assert_close(
        close(x, mask, None, gate).float(), exact(x.float(), mask, None, gate), atol=0.02, rtol=0.02
    )


WITH_HEAD = replace(SHAPE, sentence_head=True)
HEAD_NAMES = {"pooler.dense.weight", "pooler.dense.bias", "sentence.weight", "sentence.bias"}


@pytest.mark.parametrize("norm", NORMS)
def test_sentence_head_is_berts_pooler_and_two_classes_over_the_first_token(norm: str) -> None:
    model = build_model(replace(WITH_HEAD, norm=norm), seed=0).eval()
    ids, types = some_ids(4, 10), torch.arange(10).ge(6).long().expand(4, 10)
    labels, sentences = some_ids(3, seed=3), torch.tensor([0, 1, 1, 0])
    positions = torch.tensor([1, 7, 31])
    first = model.encoder(ids, token_type_ids=types).last_hidden_state[:, 0]
    weights = read_state(model)
    pooled = torch.tanh(first @ weights["pooler.dense.weight"].T + weights["pooler.dense.bias"])
    wanted = pooled @ weights["sentence.weight"].T + weights["sentence.bias"]
    given = {"input_ids": ids, "token_type_ids": types}
    both = model(**given, masked_positions=positions, labels=labels, sentence_targets=sentences)
    torch.testing.assert_close(both.sentence_logits, wanted)
    tokens_only = model(**given, masked_positions=positions, labels=labels)
    sentences_only = model(**given, sentence_targets=sentences)
    torch.testing.assert_close(sentences_only.loss, F.cross_entropy(wanted, sentences))
    assert torch.equal(both.loss, tokens_only.loss + sentences_only.loss)
    assert torch.equal(tokens_only.sentence_logits, both.sentence_logits)
    assert model(**given).loss is None


def test_rows_without_a_sentence_label_do_not_count() -> None:
    model = build_model(WITH_HEAD, seed=0).eval()
    ids = some_ids(4, 9)
    some = model(ids, sentence_targets=torch.tensor([1, -100, 0, -100])).loss
    torch.testing.assert_close(some, model(ids[[0, 2]], sentence_targets=torch.tensor([1, 0])).loss)
    none = model(ids, sentence_targets=torch.full((4,), -100)).loss
    assert none.item() == 0.0
    none.backward()
    assert not model.sentence.weight.grad.any()


def test_without_a_sentence_head_nothing_of_it_is_there() -> None:
    plain, headed = build_model(SHAPE, seed=0), build_model(WITH_HEAD, seed=0)
    first, second = read_state(plain), read_state(headed)
    assert set(second) - set(first) == HEAD_NAMES
    assert set(first) < set(second)
    # One seed draws one encoder, so that runs with and without the head start alike.
    assert all(torch.equal(first[name], second[name]) for name in first if name.startswith("encoder."))
    assert second["pooler.dense.weight"].std() == pytest.approx(0.3, rel=0.2)
    assert not second["pooler.dense.bias"].any()
    assert not second["sentence.bias"].any()
    output = plain(some_ids(2, 5))
    assert output.sentence_logits is None
    assert list(output) == ["logits"]
    with pytest.raises(ValueError, match="given to a model without a sentence head"):
        plain(some_ids(2, 5), sentence_targets=torch.tensor([0, 1]))


@pytest.mark.parametrize("norm", NORMS)
def test_gates_get_the_gradient_of_the_sentence_loss(norm: str) -> None:
    model = build_model(replace(WITH_HEAD, norm=norm), seed=0).double()
    ids, sentences = some_ids(3, 9), torch.tensor([0, 1, 1])
    gates = GateTensors(
        tuple(torch.ones(x.heads, dtype=torch.double, requires_grad=True) for x in SHAPE.layers),
        tuple(torch.ones(x.ffn, dtype=torch.double, requires_grad=True) for x in SHAPE.layers),
    )

    def loss() -> Tensor:
        return model(ids, sentence_targets=sentences, gates=gates).loss

    loss().backward()
    for gate in (gates.heads[0], gates.neurons[0], gates.heads[2], gates.neurons[2]):
        before, step = gate[1].item(), 1e-6
        with torch.no_grad():
            gate[1] = before + step
            up = loss()
            gate[1] = before - step
            down = loss()
            gate[1] = before
        assert gate.grad[1].item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-4, abs=1e-9)
    assert gates.neurons[2].grad.abs().sum() > 0


def test_bf16_sentence_head_trains_with_an_fp32_loss() -> None:
    model = build_model(WITH_HEAD, seed=0).bfloat16()
    ids, sentences = some_ids(4, 9), torch.tensor([0, 1, 1, 0])
    output = model(ids, labels=ids, sentence_targets=sentences)
    assert output.loss.dtype == torch.float32
    assert output.sentence_logits.dtype == torch.bfloat16
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.pooler.dense.weight.grad.any()


def test_the_sentence_head_is_saved_and_its_pooler_serves_a_classifier(tmp_path: Path) -> None:
    model = build_model(WITH_HEAD, seed=0)
    model.config.classifier_pooler = True
    model.save_pretrained(tmp_path)
    again, info = SlimBertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    first, second = read_state(model), read_state(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    classifier, info = SlimBertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert torch.equal(classifier.pooler.dense.weight, first["pooler.dense.weight"])
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}


def test_weight_decay_falls_on_the_matrices_of_the_sentence_head() -> None:
    model = build_model(WITH_HEAD, seed=0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, bare = parameter_groups(model, 0.1)
    of_head = [{names[id(p)] for p in group["params"]} & HEAD_NAMES for group in (decayed, bare)]
    assert of_head == [{"pooler.dense.weight", "sentence.weight"}, {"pooler.dense.bias", "sentence.bias"}]
    assert (decayed["weight_decay"], bare["weight_decay"]) == (0.1, 0.0)


def test_transformers_trainer_finds_the_labels_of_stock_classes_and_one_array_of_logits() -> None:
    for ours, theirs in [
        (SlimBertForMaskedLM, BertForMaskedLM),
        (SlimBertForSequenceClassification, BertForSequenceClassification),
        (SlimBertForQuestionAnswering, BertForQuestionAnswering),
        (SlimBertForTokenClassification, BertForTokenClassification),
        (SlimBertForMultipleChoice, BertForMultipleChoice),
    ]:
        assert find_labels(ours) == find_labels(theirs)
        # Every head takes more than it names, which Trainer would read as taking num_items_in_batch.
        assert "accepts_loss_kwargs" in vars(ours)
    model = build_model(WITH_HEAD, seed=0).eval()
    ids = some_ids(2, 9)
    output = model(ids, labels=ids)
    ignored = {"loss", *model.config.keys_to_ignore_at_inference}
    assert [(name, value.shape) for name, value in output.items() if name not in ignored] == [("logits", (2, 9, 50))]
