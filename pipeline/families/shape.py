"""The shape of an encoder: how wide each layer is, and what that costs in parameters and FLOPs.

Plain data without torch, so that recipes, tickets and reports can reason about a model nobody has built.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Protocol, Self

Norm = Literal["post", "pre"]
Positions = Literal["absolute", "rotary"]


@dataclass(frozen=True)
class LayerShape:
    """What one layer holds: its attention heads and its feed-forward neurons."""

    heads: int
    ffn: int

    def __post_init__(self) -> None:
        if self.heads < 1 or self.ffn < 1:
            raise ValueError(f"a layer needs at least one head and one neuron, got heads={self.heads}, ffn={self.ffn}")

    def flops_per_token(self, hidden_size: int, head_size: int, row_length: int, ffn_matrices: int = 2) -> float:
        """Matmul FLOPs (2 m n k each) of the layer's forward pass for one token of a row of `row_length`."""
        inner = self.heads * head_size
        projections = 2 * hidden_size * inner * 4
        attention = 2 * row_length * inner * 2
        return float(projections + attention + 2 * hidden_size * self.ffn * ffn_matrices)


class Shape(Protocol):
    """What tickets and costs have to know of a model: how wide each layer is, and what that costs."""

    @property
    def family(self) -> str: ...
    @property
    def layers(self) -> tuple[LayerShape, ...]: ...
    @property
    def head_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def pad_token_id(self) -> int: ...
    @property
    def type_vocab_size(self) -> int: ...
    @property
    def max_row_length(self) -> int:
        """Tokens in the longest row that there are positions for, or that was trained on."""
        ...

    @property
    def row_limit(self) -> int | None:
        """Tokens in the longest row that can be computed; None where positions have no end."""
        ...

    @property
    def is_classifier(self) -> bool: ...

    def with_layers(self, layers: tuple[LayerShape, ...]) -> Self:
        """The same model at other widths."""
        ...

    def to_dict(self) -> dict[str, Any]: ...

    def layer_flops_per_token(self, row_length: int) -> tuple[float, ...]: ...

    def encoder_flops_per_token(self, row_length: int) -> float: ...

    def forward_flops_per_token(self, row_length: int, predicted: float) -> float: ...

    def train_flops_per_token(self, row_length: int, predicted: float) -> float:
        """FLOPs forward and backward of a token where a share `predicted` of them goes through the LM head."""
        ...

    def num_parameters(self) -> int: ...


@dataclass(frozen=True)
class EncoderShape:
    """A BERT-like encoder with its masked-LM head; every layer may have its own number of heads and neurons.

    `max_positions` counts the rows of the position table. The first `position_offset` of them are never
    given to a token (RoBERTa keeps rows up to its padding id free), so the longest row is
    `max_positions - position_offset` tokens. With `positions` "rotary" there is no table: queries and keys are
    turned by angles of base `rope_theta`, and `max_positions` is the longest row trained on. `sentence_head`: BERT's
    pooler and two classes over the first token stand beside the masked-LM head. `outputs`: logits of a classifier that
    stands in the place of both, over BERT's `pooler` or as RoBERTa's.
    """

    vocab_size: int
    hidden_size: int
    head_size: int
    layers: tuple[LayerShape, ...]
    max_positions: int
    type_vocab_size: int = 0
    norm: Norm = "post"
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int = 0
    position_offset: int = 0
    positions: Positions = "absolute"
    rope_theta: float = 10_000.0
    sentence_head: bool = False
    outputs: int = 0
    pooler: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "head_size", "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.layers:
            raise ValueError("an encoder needs at least one layer")
        if self.norm not in ("post", "pre"):
            raise ValueError(f"norm must be 'post' or 'pre', got {self.norm!r}")
        if self.positions not in ("absolute", "rotary"):
            raise ValueError(f"positions must be 'absolute' or 'rotary', got {self.positions!r}")
        if self.positions == "rotary" and (self.head_size % 2 or self.position_offset):
            raise ValueError(
                f"rotary positions need heads of an even size and no position offset, got head_size {self.head_size}, "
                f"position_offset {self.position_offset}"
            )
        if not 0 <= self.position_offset < self.max_positions:
            raise ValueError(
                f"position_offset {self.position_offset} must lie in 0..{self.max_positions - 1} "
                f"(max_positions is {self.max_positions})"
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id {self.pad_token_id} is not in a vocabulary of {self.vocab_size}")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    @classmethod
    def uniform(
        cls,
        *,
        num_layers: int,
        num_heads: int,
        ffn: int,
        hidden_size: int,
        vocab_size: int,
        max_positions: int,
        head_size: int | None = None,
        **rest: Any,
    ) -> "EncoderShape":
        """Equal layers; the heads share out the hidden size unless `head_size` is given."""
        if head_size is None:
            if hidden_size % num_heads:
                raise ValueError(
                    f"hidden_size {hidden_size} is not a multiple of num_heads {num_heads}; give head_size"
                )
            head_size = hidden_size // num_heads
        layers = tuple(LayerShape(num_heads, ffn) for _ in range(num_layers))
        return cls(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            head_size=head_size,
            layers=layers,
            max_positions=max_positions,
            **rest,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EncoderShape":
        """The shape `to_dict` wrote; raises ValueError on unknown or missing keys."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown keys in an encoder shape: {', '.join(unknown)}")
        missing = sorted({"vocab_size", "hidden_size", "head_size", "layers", "max_positions"} - set(values))
        if missing:
            raise ValueError(f"an encoder shape lacks: {', '.join(missing)}")
        layers = tuple(LayerShape(int(layer["heads"]), int(layer["ffn"])) for layer in values["layers"])
        return cls(**{**values, "layers": layers})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        return {**asdict(self), "layers": [asdict(layer) for layer in self.layers]}

    @property
    def family(self) -> str:
        """Its entry in `pipeline.families.table`."""
        return "slim_bert"

    def with_layers(self, layers: tuple[LayerShape, ...]) -> "EncoderShape":
        """The same encoder at other widths."""
        return replace(self, layers=layers)

    @property
    def max_row_length(self) -> int:
        """Tokens in the longest row the position table can serve, or the model was trained on."""
        return self.max_positions - self.position_offset

    @property
    def row_limit(self) -> int | None:
        """Tokens in the longest row that can be computed; None with rotary positions."""
        return self.max_row_length if self.positions == "absolute" else None

    @property
    def is_classifier(self) -> bool:
        """Whether a classifier stands where the masked-LM head would."""
        return self.outputs > 0

    @property
    def is_uniform(self) -> bool:
        """True when all layers are equal and the heads fill the hidden size, as in a stock BERT."""
        first = self.layers[0]
        return first.heads * self.head_size == self.hidden_size and all(x == first for x in self.layers)

    def num_parameters(self) -> int:
        """Trainable numbers of the model with its head; the decoder shares the word embedding and counts once."""
        hidden = self.hidden_size
        rows = self.max_positions if self.positions == "absolute" else 0
        total = (self.vocab_size + rows + self.type_vocab_size) * hidden + 2 * hidden
        for layer in self.layers:
            inner = layer.heads * self.head_size
            total += 3 * inner * (hidden + 1) + (inner + 1) * hidden
            total += (hidden + 1) * layer.ffn + (layer.ffn + 1) * hidden + 4 * hidden
        if self.norm == "pre":
            total += 2 * hidden
        if self.outputs:
            return total + (hidden + 1) * (hidden + self.outputs)
        if self.sentence_head:
            total += (hidden + 1) * hidden + 2 * (hidden + 1)
        return total + (hidden + 1) * hidden + 2 * hidden + self.vocab_size

    def encoder_flops_per_token(self, row_length: int) -> float:
        """Matmul FLOPs (2 m n k each) of the layers' forward pass for one token of a row of `row_length`.

        Attention is counted over the whole row, as a fused kernel with a mask computes it.
        """
        return sum(self.layer_flops_per_token(row_length))

    def layer_flops_per_token(self, row_length: int) -> tuple[float, ...]:
        """The terms of `encoder_flops_per_token`, one a layer."""
        return tuple(layer.flops_per_token(self.hidden_size, self.head_size, row_length) for layer in self.layers)

    def forward_flops_per_token(self, row_length: int, predicted: float) -> float:
        """`encoder_flops_per_token` and the heads: the LM head on the `predicted` of positions it runs on,
        the sentence head or a classifier once a row.
        """
        if self.outputs:
            head = 2 * self.hidden_size * (self.hidden_size + self.outputs) / row_length
            return self.encoder_flops_per_token(row_length) + head
        head = 2 * self.hidden_size * (self.hidden_size + self.vocab_size)
        total = self.encoder_flops_per_token(row_length) + predicted * head
        if self.sentence_head:
            total += 2 * self.hidden_size * (self.hidden_size + 2) / row_length
        return total

    def train_flops_per_token(self, row_length: int, predicted: float) -> float:
        """Forward and backward: three times the forward pass, recomputation not counted."""
        return 3.0 * self.forward_flops_per_token(row_length, predicted)
