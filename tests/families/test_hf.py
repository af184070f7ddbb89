"""Our encoder against transformers' own classes: same weights, same logits, same gradients, both ways."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    EsmConfig,
    PreTrainedConfig,
    RobertaConfig,
    RobertaPreLayerNormConfig,
)

from pipeline.families.hf import (
    build_model,
    config_from_shape,
    drop_sentence_head,
    encoder_state_from_hf,
    load_state,
    read_state,
    shape_from_config,
    state_from_hf,
    state_to_hf,
)
from pipeline.families.modeling_slim_bert import (
    SlimBertModel,
)
from pipeline.families.modeling_slim_bert_heads import (
    SlimBertForMultipleChoice,
    SlimBertForSequenceClassification,
    SlimBertForTokenClassification,
)
from pipeline.families.shape import EncoderShape, LayerShape

FAMILIES = {
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "roberta-prelayernorm": RobertaPreLayerNormConfig,
    "esm": EsmConfig,
}
# What ESM has besides: a head for proteins, which nobody trained, and the frequencies of its positions.
OF_ESM = ("esm.contact_head.regression.weight", "esm.contact_head.regression.bias", "esm.rotary_embeddings.inv_freq")
ROTARY = {"position_embedding_type": "rotary", "emb_layer_norm_before": True, "token_dropout": False}
SIZES = [
    {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24},
    {"num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 6, "intermediate_size": 40},
]


def hf_config(family: str, size: dict, **changes) -> PreTrainedConfig:
    fields = {
        "vocab_size": 60,
        "max_position_embeddings": 24,
        "type_vocab_size": 2 if family == "bert" else 1,
        "pad_token_id": 0 if family == "bert" else 1,
        "initializer_range": 0.3,
        "layer_norm_eps": 1e-5,
    }
    fields |= {**ROTARY, "rope_theta": 500.0} if family == "esm" else {}
    return FAMILIES[family](**{**fields, **size, **changes})


def hf_model(config: PreTrainedConfig, cls=AutoModelForMaskedLM) -> torch.nn.Module:
    torch.manual_seed(3)
    model = cls.from_config(config) if cls is AutoModelForMaskedLM else cls(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def named(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def batch(pad: int, padded: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 60, (3, 11), generator=generator)
    attention = torch.ones_like(ids)
    if padded:
        for row, length in enumerate((11, 7, 2)):
            ids[row, length:] = pad
            attention[row, length:] = 0
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.4, ids, -100)
    labels[attention == 0] = -100
    return ids, attention, labels


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES, ids=["small", "deep"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_forward_and_gradients_equal_transformers(family: str, size: dict, padded: bool) -> None:
    config = hf_config(family, size)
    theirs = hf_model(config)
    state, shape = state_from_hf(named(theirs), config)
    ours = build_model(shape, seed=0).eval()
    load_state(ours, state)
    ids, attention, labels = batch(config.pad_token_id, padded)
    mask = attention if padded else None
    real = attention.bool()

    logits, their_logits = ours(ids, attention_mask=mask).logits, theirs(ids, attention_mask=mask).logits
    torch.testing.assert_close(logits[real], their_logits[real], atol=1e-5, rtol=1e-5)

    loss = ours(ids, attention_mask=mask, labels=labels).loss
    their_loss = theirs(ids, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(loss, their_loss, atol=1e-5, rtol=1e-5)
    loss.backward()
    their_loss.backward()
    our_gradients = {name: p.grad for name, p in ours.named_parameters()}
    mapped, _ = state_from_hf({name: p.grad for name, p in theirs.named_parameters()}, config)
    assert mapped.keys() == our_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, mapped[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_attentions_states_embeddings_and_tuples_equal_transformers(family: str) -> None:
    config = hf_config(family, SIZES[1])
    theirs = hf_model(config)
    theirs.set_attn_implementation("eager")
    state, shape = state_from_hf(named(theirs), config)
    ours = build_model(shape, seed=0).eval()
    load_state(ours, state)
    ids, attention, labels = batch(config.pad_token_id, padded=True)
    real = attention.bool()
    asked = {"attention_mask": attention, "output_attentions": True, "output_hidden_states": True}
    found, wanted = ours(ids, **asked), theirs(ids, **asked)
    assert len(found.attentions) == len(wanted.attentions) == 3
    for one, other in zip(found.attentions, wanted.attentions, strict=True):
        torch.testing.assert_close(one.transpose(1, 2)[real], other.transpose(1, 2)[real], atol=1e-5, rtol=1e-5)
    assert len(found.hidden_states) == len(wanted.hidden_states) == 4
    for one, other in zip(found.hidden_states[:-1], wanted.hidden_states[:-1], strict=True):
        torch.testing.assert_close(one[real], other[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.logits[real], ours(ids, attention_mask=attention).logits[real])

    words = theirs.get_input_embeddings()(ids).detach()
    for given in ({"attention_mask": attention}, {}):
        embedded = ours(inputs_embeds=words, **given).logits
        # ESM takes inputs_embeds for what its norm has given.
        stock = theirs(ids, **given) if family == "esm" else theirs(inputs_embeds=words, **given)
        torch.testing.assert_close(embedded[real], stock.logits[real], atol=1e-5, rtol=1e-5)

    plain, stock = (model(ids, labels=labels, return_dict=False) for model in (ours, theirs))
    assert isinstance(plain, tuple)
    assert [each.shape for each in plain] == [each.shape for each in stock]
    ours.config.return_dict = ours.encoder.config.return_dict = False
    loss, logits = ours(ids, labels=labels)
    assert torch.equal(loss, plain[0])
    assert torch.equal(logits, plain[1])


def filled(ours: torch.nn.Module, theirs: torch.nn.Module) -> torch.nn.Module:
    """Our classifier with the weights of one of theirs."""
    state = named(theirs)
    encoder, _ = encoder_state_from_hf({n: x for n, x in state.items() if n.startswith("bert.")}, theirs.config)
    head = {name.removeprefix("bert."): x for name, x in state.items() if "pooler" in name or "classifier" in name}
    load_state(ours, {**encoder, **head})
    return ours.eval()


def shape_of(config: PreTrainedConfig) -> EncoderShape:
    return encoder_state_from_hf(named(hf_model(config, BertModel)), config)[1]


def test_token_classification_equals_transformers() -> None:
    config = hf_config("bert", SIZES[1], num_labels=5)
    theirs = hf_model(config, BertForTokenClassification)
    ours = filled(build_model(shape_of(config), SlimBertForTokenClassification, seed=0, num_labels=5), theirs)
    ids, attention, labels = batch(0, padded=True)
    labels = torch.where(labels == -100, -100, labels % 5)
    found, wanted = (model(ids, attention_mask=attention, labels=labels) for model in (ours, theirs))
    torch.testing.assert_close(found.loss, wanted.loss)
    torch.testing.assert_close(found.logits[attention.bool()], wanted.logits[attention.bool()], atol=1e-5, rtol=1e-5)
    parts = [ours(ids[part], attention[part], labels=labels[part], num_items_in_batch=(labels != -100).sum()).loss
             for part in (slice(0, 1), slice(1, 3))]  # fmt: skip
    torch.testing.assert_close(sum(parts), wanted.loss)
    assert ours(ids, labels=torch.full_like(ids, -100)).loss == 0


def test_multiple_choice_equals_transformers() -> None:
    config = hf_config("bert", SIZES[1])
    theirs = hf_model(config, BertForMultipleChoice)
    ours = filled(build_model(shape_of(config), SlimBertForMultipleChoice, seed=0), theirs)
    ids, attention, _ = (each[:2, None].repeat(1, 3, 1) for each in batch(0, padded=True))
    ids[:, 1, 1:4], ids[:, 2, :2] = 7, 9
    types = torch.arange(11).ge(4).long().expand_as(ids)
    given = {"attention_mask": attention, "token_type_ids": types, "labels": torch.tensor([2, 0])}
    for inputs in ({"input_ids": ids}, {"inputs_embeds": theirs.get_input_embeddings()(ids).detach()}):
        found, wanted = ours(**inputs, **given), theirs(**inputs, **given)
        torch.testing.assert_close(found.logits, wanted.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.loss, wanted.loss)
    assert found.logits.shape == (2, 3)
    with pytest.raises(ValueError, match="give either input_ids or inputs_embeds"):
        ours(labels=given["labels"])


@pytest.mark.parametrize("labels", [torch.tensor([0, 2, 1]), torch.tensor([[0.0, 1.0, 1.0], [1, 0, 0], [0, 0, 0]])])
def test_labels_without_a_problem_type_say_it_as_they_do_in_transformers(labels: Tensor) -> None:
    config = hf_config("bert", SIZES[0], num_labels=3)
    theirs = hf_model(config, BertForSequenceClassification)
    new = build_model(shape_of(config), SlimBertForSequenceClassification, seed=0, num_labels=3, classifier_pooler=True)
    ours = filled(new, theirs)
    ids, attention, _ = batch(0, padded=True)
    found, wanted = (model(ids, attention_mask=attention, labels=labels) for model in (ours, theirs))
    torch.testing.assert_close(found.loss, wanted.loss)


@pytest.mark.parametrize("family", FAMILIES)
def test_published_weights_survive_the_round_trip_bit_for_bit(family: str) -> None:
    config = hf_config(family, SIZES[1])
    original = named(hf_model(config))
    state, shape = state_from_hf(original, config)
    back, back_config = state_to_hf(state, shape)
    assert type(back_config) is type(config)
    assert set(back) - set(OF_ESM) == set(original) - set(OF_ESM)
    assert all(torch.equal(back[name], original[name]) for name in set(original) - set(OF_ESM))
    fields = {"vocab_size", "max_position_embeddings", "layer_norm_eps"}
    fields |= set(ROTARY) | {"rope_theta"} if family == "esm" else {"type_vocab_size", "hidden_act"}
    for field in fields:
        assert getattr(back_config, field) == getattr(config, field)


@pytest.mark.parametrize(
    ("norm", "offset", "types", "pad", "family"),
    [
        ("post", 0, 0, 0, "bert"),
        ("post", 0, 2, 0, "bert"),
        ("post", 1, 0, 0, "roberta"),
        ("post", 3, 1, 1, "roberta"),
        ("pre", 0, 0, 0, "roberta-prelayernorm"),
        ("pre", 1, 1, 3, "roberta-prelayernorm"),
        ("pre", 0, 0, 0, "esm"),
    ],
)
def test_our_own_shapes_compute_the_same_in_the_stock_class(norm, offset, types, pad, family) -> None:
    shape = EncoderShape.uniform(
        num_layers=2,
        num_heads=3,
        ffn=20,
        hidden_size=12,
        vocab_size=60,
        max_positions=14,
        norm=norm,
        position_offset=offset,
        type_vocab_size=types,
        pad_token_id=pad,
        initializer_range=0.3,
        positions="rotary" if family == "esm" else "absolute",
    )
    ours = build_model(shape, seed=1).eval()
    hf_state, config = state_to_hf(read_state(ours), shape)
    assert config.model_type == family
    theirs = AutoModelForMaskedLM.from_config(config).eval()
    parameters = dict(theirs.named_parameters()) | {n: x for n, x in theirs.state_dict().items() if n in OF_ESM}
    assert parameters.keys() == hf_state.keys()
    with torch.no_grad():
        for name, value in hf_state.items():
            parameters[name].copy_(value)
    ids, attention, _ = batch(pad, padded=True)
    ids[attention == 1] = ids[attention == 1].clamp(min=4)
    real = attention.bool()
    wanted = ours(ids, attention_mask=attention).logits
    found = theirs(ids, attention_mask=attention).logits
    torch.testing.assert_close(found[real], wanted[real], atol=1e-5, rtol=1e-5)
    again, again_shape = state_from_hf(hf_state, config)
    restored = build_model(again_shape, seed=0).eval()
    load_state(restored, again)
    torch.testing.assert_close(restored(ids, attention_mask=attention).logits[real], wanted[real])


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_with_the_last_id_takes_rows_of_zeros_that_no_smaller_id_would_do_without(side: str) -> None:
    shape = EncoderShape.uniform(
        num_layers=2, num_heads=3, ffn=20, hidden_size=12, vocab_size=60, max_positions=14, norm="pre",
        pad_token_id=59, initializer_range=0.3,
    )  # fmt: skip
    ours = build_model(shape, seed=1).eval()
    hf_state, config = state_to_hf(read_state(ours), shape)
    table = hf_state["roberta_prelayernorm.embeddings.position_embeddings.weight"]
    assert len(table) == config.max_position_embeddings == 60 + 14
    assert not table[:60].any()
    ids, attention, _ = batch(59, padded=True)
    ids[attention == 1] = ids[attention == 1].clamp(max=58)
    if side == "left":
        ids, attention = ids.flip(1), attention.flip(1)
    real = attention.bool()
    wanted = ours(ids, attention_mask=attention).logits[real]

    def stock(position: Tensor, pad: int) -> Tensor:
        config.max_position_embeddings, config.pad_token_id = len(position), pad
        theirs = AutoModelForMaskedLM.from_config(config).eval()
        full = hf_state | {"roberta_prelayernorm.embeddings.position_embeddings.weight": position}
        missing, unexpected = theirs.load_state_dict(full, strict=False)
        assert unexpected == []
        assert set(missing) <= {"lm_head.decoder.weight", "lm_head.decoder.bias"}
        theirs.tie_weights()
        return theirs(ids, attention_mask=attention).logits[real]

    torch.testing.assert_close(stock(table, 59), wanted, atol=1e-5, rtol=1e-5)
    # Id 0 is in no row. Without the rows below 59 the class takes padding on the left for tokens.
    same = torch.allclose(stock(table[59:], 0), wanted, atol=1e-5, rtol=1e-5)
    assert same == (side == "right")


def test_pretraining_checkpoint_loses_pooler_and_next_sentence_head_only() -> None:
    config = hf_config("bert", SIZES[0])
    model = hf_model(config, BertForPreTraining)
    full = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    old_names = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): x for name, x in full.items()}
    old_names["bert.embeddings.position_ids"] = torch.arange(24)[None]
    state, shape = state_from_hf(old_names, config)
    ours = build_model(shape, seed=0).eval()
    load_state(ours, state)
    ids, attention, _ = batch(0, padded=True)
    found = ours(ids, attention_mask=attention).logits[attention.bool()]
    wanted = model(ids, attention_mask=attention).prediction_logits[attention.bool()]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_bare_encoder_fills_encoder_and_classifier(prefix: str) -> None:
    config = hf_config("bert", SIZES[1])
    theirs = hf_model(config, BertModel)
    state, shape = encoder_state_from_hf({prefix + name: x for name, x in named(theirs).items()}, config)
    assert all(name.startswith("encoder.") for name in state)
    encoder = build_model(shape, SlimBertModel, seed=0).eval()
    load_state(encoder, {name.removeprefix("encoder."): x for name, x in state.items()})
    ids, attention, _ = batch(0, padded=True)
    types = torch.zeros_like(ids)
    types[:, 1:4] = 1
    found = encoder(ids, attention_mask=attention, token_type_ids=types).last_hidden_state
    wanted = theirs(ids, attention_mask=attention, token_type_ids=types).last_hidden_state
    torch.testing.assert_close(found[attention.bool()], wanted[attention.bool()], atol=1e-5, rtol=1e-5)

    classifier = build_model(shape, SlimBertForSequenceClassification, seed=0, num_labels=3)
    head = classifier.classifier.out_proj.weight.clone()
    load_state(classifier, state, prefix="encoder.")
    assert torch.equal(classifier.encoder.embeddings.word.weight, state["encoder.embeddings.word.weight"])
    assert torch.equal(classifier.classifier.out_proj.weight, head)


def test_mistakes_are_named() -> None:
    config = hf_config("bert", SIZES[0])
    good = named(hf_model(config))
    with pytest.raises(ValueError, match=r"no tensor 'bert.encoder.layer.0.attention.self.key.weight'"):
        state_from_hf({n: x for n, x in good.items() if "key.weight" not in n}, config)
    with pytest.raises(ValueError, match=r"no tensor 'cls.predictions.bias'"):
        state_from_hf({n: x for n, x in good.items() if not n.startswith("cls.")}, config)
    with pytest.raises(ValueError, match=r"does not know: \['bert.extra'\]"):
        state_from_hf({**good, "bert.extra": torch.zeros(1)}, config)
    untied = {**good, "cls.predictions.decoder.weight": torch.zeros(60, 16)}
    with pytest.raises(ValueError, match="differs from the tensor it is tied to"):
        state_from_hf(untied, config)
    with pytest.raises(ValueError, match="uses gelu in its LM head"):
        state_from_hf(good, hf_config("roberta", SIZES[0], hidden_act="relu"))
    with pytest.raises(ValueError, match="a decoder or cross-attention model"):
        state_from_hf(good, hf_config("bert", SIZES[0], is_decoder=True))
    for changes in ({"token_dropout": True}, {"emb_layer_norm_before": False}, {"position_embedding_type": "absolute"}):
        with pytest.raises(ValueError, match=r"emb_layer_norm_before true|only 'rotary'"):
            state_from_hf(good | {"lm_head.bias": torch.zeros(60)}, hf_config("esm", SIZES[0], **changes))
    state, shape = state_from_hf(good, config)
    for rotary in (replace(shape, positions="rotary"), replace(shape, positions="rotary", norm="pre")):
        with pytest.raises(ValueError, match="no stock class has rotary positions and post-LN, or token types"):
            state_to_hf(state, rotary)
    uneven = replace(shape, layers=(LayerShape(1, 24),))
    with pytest.raises(ValueError, match="expand the state first"):
        state_to_hf(state, uneven)
    model = build_model(uneven, seed=0)
    with pytest.raises(ValueError, match=r"qkv.weight is \(48, 16\), the model has \(24, 16\)"):
        load_state(model, state)
    with pytest.raises(ValueError, match=r"lm_head.bias is missing"):
        load_state(model, {n: x for n, x in read_state(model).items() if n != "lm_head.bias"})


def test_relu_bert_maps_exactly() -> None:
    config = hf_config("bert", SIZES[0], hidden_act="relu")
    theirs = hf_model(config)
    state, shape = state_from_hf(named(theirs), config)
    ours = build_model(shape, seed=0).eval()
    load_state(ours, state)
    ids, _, _ = batch(0, padded=False)
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_config_and_shape_describe_each_other() -> None:
    shape = EncoderShape(
        vocab_size=30,
        hidden_size=12,
        head_size=5,
        layers=(LayerShape(2, 9), LayerShape(1, 4)),
        max_positions=9,
        type_vocab_size=1,
        norm="pre",
        activation="relu",
        layer_norm_eps=1e-6,
        dropout=0.0,
        attention_dropout=0.3,
        initializer_range=0.1,
        pad_token_id=4,
        position_offset=2,
        sentence_head=True,
    )
    assert shape_from_config(config_from_shape(shape)) == shape
    turning = replace(shape, head_size=6, position_offset=0, positions="rotary", rope_theta=500.0)
    assert shape_from_config(config_from_shape(turning)) == turning


def test_the_seed_alone_decides_and_the_global_generator_is_untouched() -> None:
    shape = EncoderShape.uniform(num_layers=1, num_heads=2, ffn=8, hidden_size=8, vocab_size=20, max_positions=8)
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first = read_state(build_model(shape, seed=4))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    second = read_state(build_model(shape, seed=4))
    other = read_state(build_model(shape, seed=5))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["encoder.embeddings.word.weight"], other["encoder.embeddings.word.weight"])
    assert first["encoder.layers.0.ffn.up.weight"].std() == pytest.approx(0.02, rel=0.3)
    assert not first["encoder.embeddings.word.weight"][0].any()
    assert not first["lm_head.bias"].any()


@pytest.mark.parametrize("size", SIZES, ids=["small", "deep"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_both_heads_and_their_gradients_equal_those_of_bert_for_pretraining(size: dict, padded: bool) -> None:
    config = hf_config("bert", size)
    theirs = hf_model(config, BertForPreTraining)
    state, shape = state_from_hf(named(theirs), config, sentence_head=True)
    assert shape.sentence_head
    ours = build_model(shape, seed=0).eval()
    load_state(ours, state)
    ids, attention, labels = batch(0, padded)
    types, sentences = torch.arange(11).ge(4).long().expand(3, 11), torch.tensor([1, 0, 1])
    given = {"attention_mask": attention if padded else None, "token_type_ids": types}
    real = attention.bool()

    found, wanted = ours(ids, **given), theirs(ids, **given)
    torch.testing.assert_close(found.logits[real], wanted.prediction_logits[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.sentence_logits, wanted.seq_relationship_logits, atol=1e-5, rtol=1e-5)

    loss = ours(ids, **given, labels=labels, sentence_targets=sentences).loss
    their_loss = theirs(ids, **given, labels=labels, next_sentence_label=sentences).loss
    torch.testing.assert_close(loss, their_loss, atol=1e-5, rtol=1e-5)
    loss.backward()
    their_loss.backward()
    mapped, _ = state_from_hf({n: p.grad for n, p in theirs.named_parameters()}, config, sentence_head=True)
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    assert mapped.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, mapped[name], atol=1e-5, rtol=1e-4, msg=name)


def test_bert_for_pretraining_survives_the_round_trip_bit_for_bit() -> None:
    config = hf_config("bert", SIZES[1])
    model = hf_model(config, BertForPreTraining)
    back, back_config = state_to_hf(*state_from_hf(model.state_dict(), config, sentence_head=True))
    assert set(back) == set(named(model))
    assert all(torch.equal(back[name], value) for name, value in named(model).items())
    again = BertForPreTraining(back_config).eval()
    missing, unexpected = again.load_state_dict(back, strict=False)
    assert unexpected == []
    assert set(missing) <= {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    ids, attention, _ = batch(0, padded=True)
    found, wanted = again(ids, attention_mask=attention), model(ids, attention_mask=attention)
    torch.testing.assert_close(found.prediction_logits, wanted.prediction_logits, atol=0, rtol=0)
    torch.testing.assert_close(found.seq_relationship_logits, wanted.seq_relationship_logits, atol=0, rtol=0)


@pytest.mark.parametrize("types", [0, 2])
def test_our_own_sentence_head_computes_the_same_in_bert_for_pretraining(types: int) -> None:
    shape = EncoderShape.uniform(
        num_layers=2,
        num_heads=3,
        ffn=20,
        hidden_size=12,
        vocab_size=60,
        max_positions=14,
        type_vocab_size=types,
        initializer_range=0.3,
        sentence_head=True,
    )
    ours = build_model(shape, seed=1).eval()
    hf_state, config = state_to_hf(read_state(ours), shape)
    theirs = BertForPreTraining(config).eval()
    assert named(theirs).keys() == hf_state.keys()
    load_state(theirs, hf_state)
    ids, attention, _ = batch(0, padded=True)
    given = {"attention_mask": attention}
    if types:
        given["token_type_ids"] = torch.arange(11).ge(4).long().expand(3, 11)
    found, wanted = theirs(ids, **given), ours(ids, **given)
    real = attention.bool()
    torch.testing.assert_close(found.prediction_logits[real], wanted.logits[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.seq_relationship_logits, wanted.sentence_logits, atol=1e-5, rtol=1e-5)


def test_a_sentence_head_where_there_can_be_none_is_refused() -> None:
    config = hf_config("bert", SIZES[0])
    with pytest.raises(ValueError, match=r"no tensor 'bert.pooler.dense.weight'"):
        state_from_hf(named(hf_model(config)), config, sentence_head=True)
    roberta = hf_config("roberta", SIZES[0])
    with pytest.raises(ValueError, match="a roberta model has no sentence head"):
        state_from_hf(named(hf_model(roberta)), roberta, sentence_head=True)
    state, shape = state_from_hf(named(hf_model(config, BertForPreTraining)), config, sentence_head=True)
    for changes, family in (({"norm": "pre"}, "roberta-prelayernorm"), ({"position_offset": 1}, "roberta")):
        other = replace(shape, **changes)
        with pytest.raises(ValueError, match=f"no stock class of family '{family}' has a sentence head"):
            state_to_hf(read_state(build_model(other, seed=0)), other)
    without, plain = drop_sentence_head(state, shape)
    assert plain == replace(shape, sentence_head=False)
    assert without.keys() == read_state(build_model(plain, seed=0)).keys()
    assert all(without[name] is state[name] for name in without)
