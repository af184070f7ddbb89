"""Models of any shape: one function for our encoder and for stock classes of transformers.

They are called alike: input_ids (B, L), and where wanted attention_mask, token_type_ids, position_ids, document_ids,
masked_positions, labels, num_items_in_batch, gates, output_hidden_states. The output has `loss`, `logits` and
`hidden_states`.
"""

from torch import nn

from pipeline.families.hf import build_model
from pipeline.families.modeling_slim_bert import SlimBertForMaskedLM
from pipeline.families.modeling_slim_bert_heads import SlimBertForSequenceClassification
from pipeline.families.shape import EncoderShape, Shape
from pipeline.families.stock import build_stock
from pipeline.families.stock_model import StockModel
from pipeline.families.stock_shape import StockShape


def build(shape: Shape, *, seed: int) -> nn.Module:
    """A model of this shape on the CPU in fp32, initialised from `seed` alone. Raises KeyError for an activation that
    transformers does not have."""
    if isinstance(shape, StockShape):
        return StockModel(build_stock(shape, seed=seed), shape)
    assert isinstance(shape, EncoderShape)
    if shape.is_classifier:
        return build_model(
            shape,
            SlimBertForSequenceClassification,
            seed=seed,
            num_labels=shape.outputs,
            classifier_pooler=shape.pooler,
        )
    return build_model(shape, SlimBertForMaskedLM, seed=seed)


def recompute_layers(model: nn.Module, wanted: bool) -> None:
    """Whether the layers' activations are computed again in the backward pass instead of being kept."""
    if isinstance(model, StockModel):
        if wanted:
            model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return
    assert isinstance(model, (SlimBertForMaskedLM, SlimBertForSequenceClassification))
    model.encoder.activation_checkpointing = wanted
