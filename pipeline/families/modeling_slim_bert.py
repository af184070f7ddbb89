"""A BERT-like encoder whose layers may each have their own number of attention heads and FFN neurons.

This file travels with every exported model and needs torch and transformers only; heads for other things than language
stand beside it in `modeling_slim_bert_heads.py`.
Shape letters: B rows, L tokens a row, H hidden size, N masked positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
)
from transformers.utils.generic import can_return_tuple
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

IGNORED_LABEL = -100
# Logits worked on at a time by the loss: on a CPU what its cache holds, elsewhere what memory easily does.
_CHUNK_ON_CPU = 2**19
_CHUNK_ELSEWHERE = 2**27


class Gates(Protocol):
    """For every layer l, fp32 factors of its heads, (heads of l,), and of its neurons, (neurons of l,)."""

    @property
    def heads(self) -> tuple[Tensor, ...]: ...
    @property
    def neurons(self) -> tuple[Tensor, ...]: ...


class Switch(Protocol):
    """Runs layer `index` of a training pass, or skips it: x (B, L, H), and what else has an entry a row, to x after it.

    `layer` takes the same (the mask, the rotary factors, each None where there are none), of all rows or of some, and
    `scale`, the factor of what both its sub-layers add.
    """

    def __call__(self, index: int, layer: Callable[..., Tensor], x: Tensor, /, *of_rows: Tensor | None) -> Tensor: ...


class SlimBertConfig(PreTrainedConfig):
    """Shape and habits of a SlimBert model; `heads_per_layer[i]` and `ffn_per_layer[i]` belong to layer i.

    `norm` is "post" (BERT: norms after the residual sums) or "pre" (norms before each sub-layer and one at
    the end). `position_offset` rows at the start of the position table are never given to a token.
    `positions` "rotary" turns queries and keys by their positions instead (Su et al., RoFormer, 2021, with base
    `rope_theta`, in halves as transformers does); then there is no table, and `max_position_embeddings` is the length
    of the longest rows trained on. `sentence_head` gives the masked-LM model BERT's pooler and two classes over the
    first token. `classifier_pooler` selects BERT's pooler under the sequence classifier instead of RoBERTa's head.
    """

    model_type = "slim_bert"
    # What Trainer keeps from `compute_metrics`: stock masked-LM classes give it one array of logits.
    keys_to_ignore_at_inference = ["sentence_logits"]  # noqa: RUF012 (transformers' convention)

    vocab_size: int = 30522
    hidden_size: int = 256
    head_size: int = 64
    heads_per_layer: list[int] = field(default_factory=lambda: [4] * 4)
    ffn_per_layer: list[int] = field(default_factory=lambda: [1024] * 4)
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    norm: Literal["post", "pre"] = "post"
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    initializer_range: float = 0.02
    pad_token_id: int = 0
    position_offset: int = 0
    positions: Literal["absolute", "rotary"] = "absolute"
    rope_theta: float = 10000.0
    sentence_head: bool = False
    classifier_pooler: bool = False
    classifier_dropout: float | int | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if len(self.heads_per_layer) != len(self.ffn_per_layer):
            raise ValueError(
                f"heads_per_layer names {len(self.heads_per_layer)} layers, ffn_per_layer {len(self.ffn_per_layer)}"
            )
        if self.norm not in ("post", "pre"):
            raise ValueError(f"norm must be 'post' or 'pre', got {self.norm!r}")
        if self.positions not in ("absolute", "rotary"):
            raise ValueError(f"positions must be 'absolute' or 'rotary', got {self.positions!r}")
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        return len(self.heads_per_layer)


class SlimBertDropout(nn.Module):
    """Dropout of probability `p`, in training only; none at all, not even a draw, when p is 0."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = float(p)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p, True)
        # On a CPU torch draws a number an element on one thread. Here a 64-bit draw serves four elements,
        # which rounds p to a multiple of 2**-16.
        cut = max(1, min(round(self.p * 2**16), 2**16 - 1))
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= cut - 2**15
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - cut))


class SlimBertEmbeddings(nn.Module):
    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.offset = config.position_offset
        self.pad_token_id = config.pad_token_id
        self.word = nn.Embedding(config.vocab_size, hidden, padding_idx=config.pad_token_id)
        self.position = (
            nn.Embedding(config.max_position_embeddings, hidden, padding_idx=self.offset - 1 if self.offset else None)
            if config.positions == "absolute"
            else None
        )
        self.token_type = nn.Embedding(config.type_vocab_size, hidden) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = SlimBertDropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        x = self.word(input_ids) if inputs_embeds is None else inputs_embeds
        if self.position is not None:
            x = x + self.position(self._table_rows(self.position, x.shape[1], input_ids, position_ids))
        if self.token_type is not None:
            if token_type_ids is None:
                token_type_ids = torch.zeros(1, 1, dtype=torch.long, device=x.device)
            x = x + self.token_type(token_type_ids)
        return self.dropout(self.norm(x))

    def _table_rows(
        self, table: nn.Embedding, length: int, input_ids: Tensor | None, position_ids: Tensor | None
    ) -> Tensor:
        if length + self.offset > table.num_embeddings:
            raise ValueError(
                f"a row of {length} tokens is too long: the position table serves {table.num_embeddings - self.offset}"
            )
        if position_ids is not None:
            return position_ids + self.offset
        if self.offset and input_ids is not None:
            # RoBERTa counts the tokens that are not padding; padding gets the row before the first.
            real = input_ids.ne(self.pad_token_id)
            return real.cumsum(1) * real + (self.offset - 1)
        return torch.arange(self.offset, self.offset + length, device=table.weight.device)[None]


def rotary_factors(position_ids: Tensor, head_size: int, base: float, dtype: torch.dtype) -> Tensor:
    """(B, L, 2, D) for position ids (B, L): of every place of a head the cosine, and the sine with its sign.

    A head's places d and d + D/2 are one pair, which position p turns by the angle p base^(-2d/D).
    """
    half = head_size // 2
    powers = torch.arange(half, dtype=torch.float32, device=position_ids.device) / half
    angles = position_ids[..., None].float() * base**-powers
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)], -2).to(dtype)


def turned(x: Tensor, rotary: Tensor) -> Tensor:
    """Queries or keys x (B, L, ..., D) turned by `rotary_factors` (B, L, 2, D)."""
    cos, sin = (part.view(*part.shape[:2], *(1,) * (x.dim() - 3), x.shape[-1]) for part in rotary.unbind(2))
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class SlimBertAttention(nn.Module):
    def __init__(self, config: SlimBertConfig, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = config.head_size
        self.dropout = SlimBertDropout(config.attention_probs_dropout_prob)
        inner = heads * config.head_size
        self.qkv = nn.Linear(config.hidden_size, 3 * inner)
        self.output = nn.Linear(inner, config.hidden_size)

    def forward(
        self, x: Tensor, mask: Tensor | None, rotary: Tensor | None, gate: Tensor | None, plain: bool = False
    ) -> Tensor:
        """`plain`: not the fused kernel, so that what each query takes of each key, (B, heads, L, L), can be recorded
        where it leaves `dropout`."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, self.head_size)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        if rotary is not None:
            q, k = (part.transpose(1, 2) for part in turned(qkv[:, :, :2], rotary).unbind(2))
        if plain or (q.device.type == "cpu" and q.dtype == torch.bfloat16):
            # On a CPU in bf16 the fused kernel's backward pass is two to six times slower than these products.
            scores = (q * self.head_size**-0.5) @ k.transpose(-1, -2)
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            context = self.dropout(torch.softmax(scores, -1, dtype=scores.dtype)) @ v
        else:
            dropout_p = self.dropout.p if self.training else 0.0
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
        context = context.transpose(1, 2)
        if gate is not None:
            context = context * gate.to(context.dtype)[:, None]
        return self.output(context.reshape(batch, length, self.heads * self.head_size))


class SlimBertFeedForward(nn.Module):
    def __init__(self, config: SlimBertConfig, neurons: int) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, neurons)
        self.activation = ACT2FN[config.hidden_act]
        self.down = nn.Linear(neurons, config.hidden_size)

    def forward(self, x: Tensor, gate: Tensor | None) -> Tensor:
        x = self.activation(self.up(x))
        if gate is not None:
            x = x * gate.to(x.dtype)
        return self.down(x)


class SlimBertLayer(GradientCheckpointingLayer):
    def __init__(self, config: SlimBertConfig, heads: int, neurons: int) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.attention = SlimBertAttention(config, heads)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.ffn = SlimBertFeedForward(config, neurons)
        self.ffn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = SlimBertDropout(config.hidden_dropout_prob)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: Tensor | None = None,
        head_gate: Tensor | None = None,
        neuron_gate: Tensor | None = None,
        scale: float = 1.0,
        plain: bool = False,
    ) -> Tensor:
        if self.pre_norm:
            x = x + self.dropout(scaled(self.attention(self.attention_norm(x), mask, rotary, head_gate, plain), scale))
            return x + self.dropout(scaled(self.ffn(self.ffn_norm(x), neuron_gate), scale))
        x = self.attention_norm(x + self.dropout(scaled(self.attention(x, mask, rotary, head_gate, plain), scale)))
        return self.ffn_norm(x + self.dropout(scaled(self.ffn(x, neuron_gate), scale)))


def scaled(x: Tensor, factor: float) -> Tensor:
    """`x` times `factor`, and x itself when that is 1."""
    return x if factor == 1.0 else x * factor


class SlimBertPreTrainedModel(PreTrainedModel):
    config_class = SlimBertConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["SlimBertLayer"]  # noqa: RUF012 (transformers' convention)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SlimBertLMHead):
            init.zeros_(module.bias)


class SlimBertModel(SlimBertPreTrainedModel):
    """The encoder alone. `activation_checkpointing` recomputes each layer in the backward pass, as does transformers'
    own `gradient_checkpointing_enable`, in training only."""

    _can_record_outputs = {  # noqa: RUF012 (transformers' convention)
        "attentions": OutputRecorder(SlimBertDropout, layer_name="attention.dropout")
    }

    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__(config)
        self.activation_checkpointing = False
        self.embeddings = SlimBertEmbeddings(config)
        self.layers = nn.ModuleList(
            SlimBertLayer(config, heads, neurons)
            for heads, neurons in zip(config.heads_per_layer, config.ffn_per_layer, strict=True)
        )
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm == "pre" else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word = value

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        document_ids: Tensor | None = None,
        gates: Gates | None = None,
        switch: Switch | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutput:
        """Hidden states (B, L, H) of token ids (B, L), or of inputs_embeds (B, L, H) in the place of their words.

        attention_mask (B, L): 0 where no position may look. document_ids (B, L): positions attend only within
        equal ids; 0 marks padding. position_ids (B, L) count from 0 within a piece, without them the tokens that
        attention_mask shows; the position offset is added here. A model without a type table ignores token_type_ids.
        `switch` runs the layers, or skips them; raises ValueError outside training, where every layer runs.

        With `output_hidden_states` the embeddings and the output of every layer (before the final norm) are returned
        too, with `output_attentions` also what each query takes of each key: of every layer (B, heads of the layer, L,
        L), from a slower computation of attention. What is not said here is as the config says. With
        `return_dict=False` the output is a tuple.
        """
        one_of(input_ids, inputs_embeds)
        if switch is not None and not self.training:
            raise ValueError("a switch that drops layers was given to a model in evaluation mode")
        plain = bool(self.config.output_attentions if output_attentions is None else output_attentions)
        if plain and switch is not None:
            raise ValueError("output_attentions was asked of a pass whose layers a switch may drop: leave one out")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        by_ids = self.config.position_offset and input_ids is not None
        if position_ids is None and attention_mask is not None and not by_ids:
            # Tokens count, padding does not, whichever side it is on.
            position_ids = (attention_mask.ne(0).cumsum(1) - 1).clamp(min=0)
        x = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        mask = attention_bias_mask(attention_mask, document_ids)
        rotary = self._rotary(x, position_ids) if self.config.positions == "rotary" else None
        states = [x] if output_hidden_states else None
        for index, layer in enumerate(self.layers):
            head_gate = gates.heads[index] if gates is not None else None
            neuron_gate = gates.neurons[index] if gates is not None else None
            run: Callable[..., Tensor] = partial(layer, head_gate=head_gate, neuron_gate=neuron_gate, plain=plain)
            if self.activation_checkpointing and torch.is_grad_enabled():
                run = partial(checkpoint, run, use_reentrant=False)
            x = run(x, mask, rotary) if switch is None else switch(index, run, x, mask, rotary)
            if states is not None:
                states.append(x)
        if self.final_norm is not None:
            x = self.final_norm(x)
        return BaseModelOutput(last_hidden_state=x, hidden_states=tuple(states) if states is not None else None)

    def _rotary(self, x: Tensor, position_ids: Tensor | None) -> Tensor:
        if position_ids is None:
            position_ids = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        return rotary_factors(position_ids, self.config.head_size, self.config.rope_theta, x.dtype)


def one_of(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """The one that is given; raises ValueError where both are or none is."""
    given = input_ids if inputs_embeds is None else inputs_embeds
    if given is None or (input_ids is not None and inputs_embeds is not None):
        raise ValueError("give either input_ids or inputs_embeds")
    return given


def attention_bias_mask(attention_mask: Tensor | None, document_ids: Tensor | None) -> Tensor | None:
    """True where a query may look at a key, (B, 1, L, L) with documents, else (B, 1, 1, L); None: everywhere.

    Padding of a packed row attends to padding, and a row without any visible key to all of it, so that no
    softmax runs over nothing. The search for an all-visible mask stays off accelerators, where reading
    its answer would stall the queue, and out of graphs, which serve other masks too.
    """
    mask = None
    if document_ids is not None and (_unread(document_ids) or bool((document_ids != document_ids[:, :1]).any())):
        mask = (document_ids[:, :, None] == document_ids[:, None, :])[:, None]
    if attention_mask is not None:
        visible = attention_mask != 0
        if _unread(visible) or not bool(visible.all()):
            keys = visible[:, None, None, :]
            mask = keys if mask is None else mask & keys
            mask = mask | ~mask.any(-1, keepdim=True)
    return mask


def _unread(x: Tensor) -> bool:
    """Whether what `x` holds is not to be read: on an accelerator, and while a graph is traced or exported."""
    return x.device.type != "cpu" or is_tracing(x)


class SlimBertLMHead(nn.Module):
    """Dense, activation, norm and the decoder, whose weight is the word embedding of the encoder."""

    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        # Registered in both modules: the GEMM adds it, and ZeRO-3 gathers it where it is used.
        self.decoder.bias = self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.norm(self.activation(self.dense(x))))


def label_count(counted: Tensor, given: Tensor | float | None) -> Tensor:
    """What a sum of losses is divided by, (): the number `given`, or without it how many are `counted` (...); 1 for 0.

    `given` is a number of labels that count for a whole optimiser step, over all micro-batches and ranks: then the
    losses of the micro-batches add up to the step's mean, however its rows were split.
    """
    count = counted.sum() if given is None else torch.as_tensor(given, device=counted.device).reshape(())
    return count.masked_fill(count == 0, 1)


class SlimBertCrossEntropy(torch.autograd.Function):
    """Mean cross entropy, in fp32 or better, of logits (N, V) against labels (N,); -100 does not count.

    With `num_items` it is the sum divided by that number instead. The backward pass recomputes the probabilities from
    one number a row, some rows at a time, and writes the gradient in the logits' own type: no fp32 copy of the logits
    is ever held.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, num_items: Tensor | float | None = None) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        targets = labels.clamp(min=0)[:, None]
        counted = labels != IGNORED_LABEL
        weights = (counted.to(dtype) / label_count(counted, num_items))[:, None]
        rows = SlimBertCrossEntropy.rows_at_once(logits)
        log_p = torch.cat(
            [
                torch.log_softmax(part, -1, dtype=dtype).gather(1, at)
                for part, at in zip(logits.split(rows), targets.split(rows), strict=True)
            ]
        )
        normaliser = logits.gather(1, targets).to(dtype) - log_p
        ctx.save_for_backward(logits, targets, weights, normaliser)
        return -(log_p * weights).sum()

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, weights, normaliser = ctx.saved_tensors
        weights = weights * grad_loss
        gradient = torch.empty_like(logits)
        rows = SlimBertCrossEntropy.rows_at_once(logits)
        for start in range(0, logits.shape[0], rows):
            part = slice(start, start + rows)
            p = (logits[part] - normaliser[part]).exp_()
            p.scatter_add_(1, targets[part], p.new_full(targets[part].shape, -1.0))
            gradient[part] = p.mul_(weights[part])
        return gradient, None, None

    @staticmethod
    def rows_at_once(logits: Tensor) -> int:
        chunk = _CHUNK_ON_CPU if logits.device.type == "cpu" else _CHUNK_ELSEWHERE
        return max(1, chunk // logits.shape[1])


class SlimBertPooler(nn.Module):
    """BERT's pooler: tanh of a dense layer over the first token."""

    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x[:, 0]))


@dataclass
class SlimBertOutput(MaskedLMOutput):
    """transformers' masked-LM output, with the logits (B, 2) of the sentence head where the model has one."""

    sentence_logits: Tensor | None = None


class SlimBertForMaskedLM(SlimBertPreTrainedModel):
    """Encoder and masked-LM head; the head runs on the masked positions only when they are given.

    With `sentence_head` also BERT's next-sentence head: pooler and two classes. Class 0: the two segments of
    the row stand as in the text; class 1: they do not (BERT: another second segment; ALBERT: swapped).
    """

    _tied_weights_keys = {  # noqa: RUF012 (transformers' convention)
        "lm_head.decoder.weight": "encoder.embeddings.word.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }

    def __init__(self, config: SlimBertConfig) -> None:
        super().__init__(config)
        self.encoder = SlimBertModel(config)
        self.lm_head = SlimBertLMHead(config)
        if config.sentence_head:
            self.pooler = SlimBertPooler(config)
            self.sentence = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether transformers' Trainer may pass `num_items_in_batch`: it counts `labels`, and no sentence targets."""
        return not self.config.sentence_head

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head.decoder = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        document_ids: Tensor | None = None,
        masked_positions: Tensor | None = None,
        sentence_targets: Tensor | None = None,
        gates: Gates | None = None,
        switch: Switch | None = None,
        num_items_in_batch: Tensor | float | None = None,
        num_sentences_in_batch: Tensor | float | None = None,
        **kwargs: Any,
    ) -> SlimBertOutput:
        """Logits and, with labels, the mean cross entropy in fp32 (0 when no label counts).

        masked_positions (N,): flat indices into B*L, where alone the head runs; labels are then (N,) and logits
        (N, V). Without them labels are (B, L) and logits (B, L, V), as in stock classes. sentence_targets (B,),
        0, 1 or -100: the mean cross entropy of the sentence head is added to the loss; raises ValueError when the
        model has no such head. They are not called labels: transformers' Trainer takes every argument with that word
        in its name for one that all data have.
        num_items_in_batch, num_sentences_in_batch: sums of cross entropies of `labels` and `sentence_targets` are
        divided by these (see `label_count`), not by how many count here; raises ValueError where both kinds of
        labels are given and one of the numbers. The other arguments are those of `SlimBertModel.forward`.
        """
        if sentence_targets is not None and not self.config.sentence_head:
            raise ValueError("sentence_targets were given to a model without a sentence head (config.sentence_head)")
        both = labels is not None and sentence_targets is not None
        if both and (num_items_in_batch is None) != (num_sentences_in_batch is None):
            raise ValueError("num_items_in_batch and num_sentences_in_batch go together, as their labels do")
        encoded = self.encoder(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            document_ids=document_ids,
            gates=gates,
            switch=switch,
            return_dict=True,
            **kwargs,
        )
        x = encoded.last_hidden_state
        sentence_logits = self.sentence(self.pooler(x)) if self.config.sentence_head else None
        if masked_positions is not None:
            x = x.reshape(-1, x.shape[-1]).index_select(0, masked_positions)
        logits = self.lm_head(x)
        loss = None
        if labels is not None:
            rows = logits.reshape(-1, logits.shape[-1])
            loss = SlimBertCrossEntropy.apply(rows, labels.reshape(-1), num_items_in_batch)
        if sentence_targets is not None:
            sentence_loss = SlimBertCrossEntropy.apply(sentence_logits, sentence_targets, num_sentences_in_batch)
            loss = sentence_loss if loss is None else loss + sentence_loss
        return SlimBertOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            sentence_logits=sentence_logits,
        )
