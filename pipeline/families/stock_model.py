"""A stock model of transformers as the training loop calls our own: packed rows, the LM head at the predicted positions
only, gates at its units, and a loss in fp32 that micro-batches share.

Gates multiply at the input of the modules whose weights `folds` in the family's list, so that no modelling code knows
of them and fused attention keeps working.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.families.family import Slot, unit_size
from pipeline.families.modeling_slim_bert import Gates, SlimBertCrossEntropy, label_count
from pipeline.families.modeling_slim_bert_heads import SlimBertScores, mean_cross_entropy
from pipeline.families.stock_shape import StockShape
from pipeline.families.table import FAMILIES


@dataclass
class StockOutput:
    """`logits`: (N, vocabulary) at the predicted positions or (B, L, vocabulary) without them; (B, classes) of a
    classifier. `hidden_states`: after the embeddings and each layer, where asked for."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None


class StockModel(nn.Module):
    """The model stands under `model`, so its tensors are called `model.*` here."""

    def __init__(self, model: PreTrainedModel, shape: StockShape) -> None:
        super().__init__()
        self.model, self.shape = model, shape
        self._family = FAMILIES[shape.family]
        self._gates: Gates | None = None
        self._positions: Tensor | None = None
        modules = dict(model.named_modules())
        if shape.is_classifier:
            # The class alone decides how a linear layer computes; its parameters and hooks stay what they are.
            modules[self._family.scores].__class__ = SlimBertScores
        else:
            modules[self._family.lm_head].register_forward_pre_hook(self._select)
        for name, (slot, layer) in self._family.find(dict(model.named_parameters()), shape).items():
            if slot.folds:
                modules[name.rpartition(".")[0]].register_forward_pre_hook(self._gate_of(slot, layer))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        masked_positions: Tensor | None = None,
        labels: Tensor | None = None,
        gates: Gates | None = None,
        num_items_in_batch: Tensor | float | None = None,
        output_hidden_states: bool = False,
    ) -> StockOutput:
        """input_ids (B, L), position_ids counted from 0; document_ids (B, L): tokens see their own number's.

        masked_positions (N,): flat indices into B*L, where alone the LM head runs; labels are then (N,), those of a
        classifier (B,). The loss is that of `SlimBertForMaskedLM` and `SlimBertForSequenceClassification`: with
        `num_items_in_batch` a sum over that number. Raises ValueError for labels of a language model without
        masked_positions.
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        if position_ids is not None:
            first = self._family.first_position
            inputs["position_ids"] = position_ids + (0 if first is None else self.shape.pad_token_id + first)
        if document_ids is not None:
            inputs["attention_mask"] = self._document_mask(document_ids)
        if "causal-lm" in self._family.objectives:
            inputs["use_cache"] = False
        # Gates stay for layers that are computed again in the backward pass.
        self._gates, self._positions = gates, masked_positions
        try:
            found = self.model(**inputs, output_hidden_states=output_hidden_states, return_dict=True)
        finally:
            self._positions = None
        logits = found.logits if masked_positions is None else found.logits[0]
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        return StockOutput(loss, logits, found.hidden_states if output_hidden_states else None)

    def _loss(self, logits: Tensor, labels: Tensor, number: Tensor | float | None) -> Tensor:
        if not self.shape.is_classifier:
            if logits.dim() != 2:
                raise ValueError("a language model's labels go with masked_positions, the places they are predicted at")
            return SlimBertCrossEntropy.apply(logits, labels, number)
        if self.model.config.problem_type == "regression":
            total = F.mse_loss(logits.float().reshape(-1), labels.float().reshape(-1), reduction="sum")
            return total / label_count(torch.ones_like(labels, dtype=torch.bool), number)
        return mean_cross_entropy(logits, labels.reshape(-1), number)

    def _gate_of(self, slot: Slot, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]:
        size = unit_size(self.shape, slot.group)

        def multiply(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if self._gates is None:
                return None
            units, *rest = inputs
            gate = (self._gates.heads if slot.group == "heads" else self._gates.neurons)[layer]
            return (units * gate.repeat_interleave(size).to(units.dtype), *rest)

        return multiply

    def _select(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Only the predicted positions of the last hidden states (B, L, H), as one row (1, N, H)."""
        if self._positions is None:
            return None
        states, *rest = inputs
        return (states.flatten(0, 1)[self._positions][None], *rest)

    def _document_mask(self, document_ids: Tensor) -> Tensor | dict[str, Tensor]:
        """(B, 1, L, L) of who sees whom; padding sees padding, so that no row of the softmax is empty."""
        mask = document_ids[:, None, :, None] == document_ids[:, None, None, :]
        places = torch.arange(document_ids.shape[1], device=document_ids.device)
        if "causal-lm" in self._family.objectives:
            return mask & (places[:, None] >= places)
        if self.shape.family == "modernbert":
            near = (places[:, None] - places).abs() <= self.model.config.sliding_window
            return {"full_attention": mask, "sliding_attention": mask & near}
        return mask
