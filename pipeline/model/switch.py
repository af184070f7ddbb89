"""Layers that can be skipped: run one as it was drawn. Knows nothing of schedules, recipes or engines.

`run_layer` serves any module that maps (B, ...) to (B, ...); `Switch` is what SlimBert's encoder takes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.layer_drop import LayerDraw


def run_layer(layer: Callable[..., Tensor], x: Tensor, draw: LayerDraw, *of_rows: Tensor | None) -> Tensor:
    """x (B, ...) after `layer(x, *of_rows)` as drawn: skipped, whole, or on some rows only.

    Of what the layer adds to x, `scale` times as much is added: x + scale (layer(x) - x). `of_rows` are further
    arguments with one entry a row; the layer gets those of its rows. With `draw.each` the layer is called with
    `scale=` instead and scales its sub-layers itself.
    """
    if not draw.runs:
        return x
    if draw.rows is None:
        return _scaled(layer, x, draw, of_rows)
    rows = torch.from_numpy(draw.rows).to(x.device, non_blocking=True)
    some = x.index_select(0, rows)
    out = _scaled(layer, some, draw, [None if each is None else each.index_select(0, rows) for each in of_rows])
    return x.index_copy(0, rows, out)


def _scaled(layer: Callable[..., Tensor], x: Tensor, draw: LayerDraw, of_rows: Sequence[Tensor | None]) -> Tensor:
    if draw.scale == 1.0:
        return layer(x, *of_rows)
    if draw.each:
        return layer(x, *of_rows, scale=draw.scale)
    return torch.lerp(x, layer(x, *of_rows), draw.scale)


class Switch:
    """The draws of one micro-batch, for SlimBertModel's argument `switch`."""

    def __init__(self, draws: Sequence[LayerDraw]) -> None:
        self._draws = draws

    def __call__(self, index: int, layer: Callable[..., Tensor], x: Tensor, *of_rows: Any) -> Tensor:
        return run_layer(layer, x, self._draws[index], *of_rows)
