"""The shape of a stock model of transformers: its config, how wide each layer is, and what a unit weighs.

Plain data without torch, so that tickets and reports can reason about a model nobody has built. Shapes are made by
`pipeline.families.stock`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pipeline.families.shape import EncoderShape, LayerShape, Shape
from pipeline.families.table import FAMILIES


@dataclass(frozen=True)
class StockShape:
    """`config`: what transformers writes as the dense model's config.json; `layers`: the widths, the dense ones or
    less.

    `auto_class` names the class of transformers that has the head. `parameters` are the dense model's, of which a head
    has `head_parameters` and a neuron `neuron_parameters`; `head_weights`: the numbers in the matrices behind the
    layers.
    """

    family: str
    config: Mapping[str, Any]
    layers: tuple[LayerShape, ...]
    head_size: int
    hidden_size: int
    auto_class: str
    parameters: int
    head_parameters: int
    neuron_parameters: int
    head_weights: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StockShape":
        """The shape `to_dict` wrote; raises ValueError on unknown or missing keys, and for an unknown family."""
        wanted = [field.name for field in fields(cls)]
        if set(values) != set(wanted):
            raise ValueError(f"a stock shape has {', '.join(wanted)}, not {', '.join(sorted(values))}")
        if values["family"] not in FAMILIES:
            raise ValueError(f"family {values['family']!r} is none known here: {', '.join(FAMILIES)}")
        layers = tuple(LayerShape(int(layer["heads"]), int(layer["ffn"])) for layer in values["layers"])
        return cls(**{**values, "layers": layers})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        return {**asdict(self), "layers": [asdict(layer) for layer in self.layers]}

    def with_layers(self, layers: tuple[LayerShape, ...]) -> "StockShape":
        """The same model at other widths."""
        return replace(self, layers=layers)

    def dense(self) -> "StockShape":
        """The shape of the stock model itself."""
        family = FAMILIES[self.family]
        neurons = self.config.get(family.neurons) or 4 * self.hidden_size  # GPT-2 says None
        layer = LayerShape(self.hidden_size // self.head_size, neurons)
        return self.with_layers((layer,) * len(self.layers))

    @property
    def vocab_size(self) -> int:
        """Rows of the word embedding."""
        return int(self.config["vocab_size"])

    @property
    def pad_token_id(self) -> int:
        """The padding id; 0 where the config has none and padding is only ever masked."""
        return int(self.config.get("pad_token_id") or 0)

    @property
    def type_vocab_size(self) -> int:
        """Token types, 0 where the family has none."""
        return int(self.config.get("type_vocab_size") or 0)

    @property
    def max_row_length(self) -> int:
        """Tokens in the longest row that there are positions for."""
        first = FAMILIES[self.family].first_position
        longest = int(self.config.get("max_position_embeddings") or self.config["n_positions"])
        return longest if first is None else longest - self.pad_token_id - first

    @property
    def row_limit(self) -> int:
        """Tokens in the longest row that can be computed."""
        return self.max_row_length

    @property
    def is_classifier(self) -> bool:
        """Whether the head is a classifier."""
        return self.auto_class == "AutoModelForSequenceClassification"

    def num_parameters(self) -> int:
        """Trainable numbers of the model with its head, shared ones once."""
        gone = zip(self.dense().layers, self.layers, strict=True)
        return self.parameters - sum(
            (whole.heads - layer.heads) * self.head_parameters + (whole.ffn - layer.ffn) * self.neuron_parameters
            for whole, layer in gone
        )

    def layer_flops_per_token(self, row_length: int) -> tuple[float, ...]:
        """The terms of `encoder_flops_per_token`, one a layer."""
        matrices = FAMILIES[self.family].ffn_matrices
        return tuple(
            layer.flops_per_token(self.hidden_size, self.head_size, row_length, matrices) for layer in self.layers
        )

    def encoder_flops_per_token(self, row_length: int) -> float:
        """Matmul FLOPs of the layers' forward pass for one token of a row of `row_length`.

        Attention is counted over the whole row, as a fused kernel with a mask computes it.
        """
        return sum(self.layer_flops_per_token(row_length))

    def forward_flops_per_token(self, row_length: int, predicted: float) -> float:
        """`encoder_flops_per_token` and the head: a language-model head runs on a share `predicted` of the tokens, a
        classifier once a row."""
        share = 1 / row_length if self.is_classifier else predicted
        return self.encoder_flops_per_token(row_length) + share * 2 * self.head_weights

    def train_flops_per_token(self, row_length: int, predicted: float) -> float:
        """Forward and backward: three times the forward pass, recomputation not counted."""
        return 3.0 * self.forward_flops_per_token(row_length, predicted)


def read_shape(values: Mapping[str, Any]) -> Shape:
    """The shape that `to_dict` of either kind wrote. Raises ValueError, TypeError or KeyError for anything else."""
    return StockShape.from_dict(values) if "family" in values else EncoderShape.from_dict(values)
