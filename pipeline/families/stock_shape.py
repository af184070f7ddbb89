"""The shape of a stock model of transformers: its config, and how wide each layer is.

Plain data without torch, so that tickets and reports can reason about a model nobody has built.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.families.shape import LayerShape
from pipeline.families.table import FAMILIES


@dataclass(frozen=True)
class StockShape:
    """`config`: what transformers writes as the dense model's config.json; `layers`: the widths, the dense ones or
    less."""

    family: str
    config: Mapping[str, Any]
    layers: tuple[LayerShape, ...]
    head_size: int
    hidden_size: int

    @classmethod
    def of_config(cls, config: Any) -> "StockShape":
        """The dense shape of a transformers config. Raises ValueError for a model that is of no known family."""
        family = FAMILIES.get(config.model_type)
        if family is None:
            raise ValueError(f"model type {config.model_type!r} is of no family known here: {', '.join(FAMILIES)}")
        if getattr(config, "add_cross_attention", False):
            raise ValueError("a model with cross-attention has units that no family here describes")
        hidden, heads = config.hidden_size, getattr(config, family.heads)
        neurons = getattr(config, family.neurons, None) or 4 * hidden  # GPT-2 says None
        layer = LayerShape(heads, neurons)
        values = json.loads(config.to_json_string(use_diff=False))
        return cls(config.model_type, values, (layer,) * config.num_hidden_layers, hidden // heads, hidden)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StockShape":
        """The shape `to_dict` wrote; raises ValueError on unknown or missing keys, and for an unknown family."""
        if set(values) != {"family", "config", "layers", "head_size", "hidden_size"}:
            raise ValueError(
                f"a stock shape has family, config, layers, head_size and hidden_size, not {sorted(values)}"
            )
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
