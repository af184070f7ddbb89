"""Heads on our encoder: classes of texts, of tokens, of choices, and answers in a text.

This file travels with every exported model, beside `modeling_slim_bert.py`, and needs torch and transformers only.
Shape letters: B rows, L tokens a row, H hidden size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from .modeling_slim_bert import (
    IGNORED_LABEL,
    Gates,
    SlimBertConfig,
    SlimBertDropout,
    SlimBertModel,
    SlimBertPooler,
    SlimBertPreTrainedModel,
    label_count,
    one_of,
)


class SlimBertScores(nn.Linear):
    """A linear layer in fp32, whatever its weights are: scores in bf16 would have 8 bits to tell rows apart."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight.float(), None if self.bias is None else self.bias.float())


def mean_cross_entropy(scores: Tensor, labels: Tensor, number: Tensor | float | None) -> Tensor:
    """Mean cross entropy in fp32 of scores (N, classes) against labels (N,); -100 does not count, and `number` is
    that of `label_count`."""
    total = F.cross_entropy(scores.float(), labels, reduction="sum")
    return total / label_count(labels != IGNORED_LABEL, number)


class SlimBertClassificationHead(nn.Module):
    """RoBERTa's head over the first token: dropout, dense, tanh, dropout, projection."""

    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = SlimBertDropout(classifier_dropout(config))
        self.out_proj = SlimBertScores(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(x[:, 0])))))


def classifier_dropout(config: SlimBertConfig) -> float:
    """The classifier's own dropout where one is set, else the encoder's."""
    chosen = config.classifier_dropout
    return float(config.hidden_dropout_prob if chosen is None else chosen)


class SlimBertForSequenceClassification(SlimBertPreTrainedModel):
    """Encoder and a classifier or regressor over the first token."""

    accepts_loss_kwargs = True  # transformers' Trainer may pass num_items_in_batch

    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__(config)
        self.encoder = SlimBertModel(config)
        if config.classifier_pooler:
            self.pooler = SlimBertPooler(config)
            self.dropout = SlimBertDropout(classifier_dropout(config))
            self.classifier: nn.Module = SlimBertScores(config.hidden_size, config.num_labels)
        else:
            self.classifier = SlimBertClassificationHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        gates: Gates | None = None,
        num_items_in_batch: Tensor | float | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (B, labels); the loss is squared error for one label or `problem_type` "regression", binary cross
        entropy for "multi_label_classification" or labels that are no integers, cross entropy otherwise, in fp32.

        It is the mean over all labels, in cross entropy over those that are not -100 (0 when there is none); with
        `num_items_in_batch` the sum over that number (see `label_count`).
        """
        encoded = self.encoder(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            gates=gates,
            return_dict=True,
            **kwargs,
        )
        x = encoded.last_hidden_state
        if self.config.classifier_pooler:
            x = self.dropout(self.pooler(x))
        logits = self.classifier(x)
        loss = None
        if labels is not None:
            loss = self._loss(logits, labels, num_items_in_batch)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )

    def _loss(self, logits: Tensor, labels: Tensor, number: Tensor | float | None) -> Tensor:
        problem = self.config.problem_type
        if problem == "multi_label_classification" or (
            problem is None and self.config.num_labels > 1 and labels.is_floating_point()
        ):
            total = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum")
        elif problem == "regression" or (problem is None and self.config.num_labels == 1):
            total = F.mse_loss(logits.float().reshape(-1), labels.float().reshape(-1), reduction="sum")
        else:
            return mean_cross_entropy(logits, labels.reshape(-1), number)
        return total / label_count(torch.ones_like(labels, dtype=torch.bool), number)


class SlimBertForTokenClassification(SlimBertPreTrainedModel):
    """Encoder and a classifier over every token."""

    accepts_loss_kwargs = True  # transformers' Trainer may pass num_items_in_batch

    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__(config)
        self.encoder = SlimBertModel(config)
        self.dropout = SlimBertDropout(classifier_dropout(config))
        self.classifier = SlimBertScores(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | float | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Logits (B, L, classes); the loss is the mean cross entropy over the labels (B, L) that are not -100, in
        fp32, or with `num_items_in_batch` the sum over that number (see `label_count`)."""
        encoded = self.encoder(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        logits = self.classifier(self.dropout(encoded.last_hidden_state))
        loss = None
        if labels is not None:
            loss = mean_cross_entropy(logits.flatten(0, 1), labels.reshape(-1), num_items_in_batch)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


class SlimBertForMultipleChoice(SlimBertPreTrainedModel):
    """Encoder, pooler and one score for each choice, as BERT's and RoBERTa's classes have them."""

    accepts_loss_kwargs = True  # transformers' Trainer may pass num_items_in_batch

    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__(config)
        self.encoder = SlimBertModel(config)
        self.pooler = SlimBertPooler(config)
        self.dropout = SlimBertDropout(classifier_dropout(config))
        self.classifier = SlimBertScores(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | float | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Logits (B, choices) of inputs (B, choices, L), embeddings (B, choices, L, H); the loss is the mean cross
        entropy over the labels (B,), as `SlimBertForTokenClassification` has it."""
        choices = one_of(input_ids, inputs_embeds).shape[1]
        encoded = self.encoder(
            *(
                None if given is None else given.flatten(0, 1)
                for given in (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
            ),
            return_dict=True,
            **kwargs,
        )
        logits = self.classifier(self.dropout(self.pooler(encoded.last_hidden_state))).view(-1, choices)
        loss = None if labels is None else mean_cross_entropy(logits, labels, num_items_in_batch)
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


class SlimBertForQuestionAnswering(SlimBertPreTrainedModel):
    """Encoder and a start and an end score for every token."""

    accepts_loss_kwargs = False  # transformers' Trainer counts `labels`, and there are none

    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__(config)
        self.encoder = SlimBertModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        gates: Gates | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Start and end logits (B, L); the loss is the mean of both cross entropies, in fp32.

        A start or end at or beyond L (an answer the window cut away) does not count; where none counts the loss is 0.
        """
        encoded = self.encoder(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            gates=gates,
            return_dict=True,
            **kwargs,
        )
        x = encoded.last_hidden_state
        start_logits, end_logits = self.qa_outputs(x).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            length = start_logits.shape[1]
            losses = [
                F.cross_entropy(logits.float(), at, ignore_index=length, reduction="sum")
                / label_count(at != length, None)
                for logits, at in (
                    (start_logits, start_positions.reshape(-1).clamp(0, length)),
                    (end_logits, end_positions.reshape(-1).clamp(0, length)),
                )
            ]
            loss = (losses[0] + losses[1]) / 2
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
