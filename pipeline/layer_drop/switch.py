"""Layers that can be skipped: run one as it was drawn, compile each by itself. Knows nothing of recipes or engines.

`run_layer` serves any module that maps (B, ...) to (B, ...); `Switch` is what SlimBert's encoder takes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.layer_drop.schedule import LayerDraw


def run_layer(
    layer: Callable[..., Tensor], x: Tensor, draw: LayerDraw, *of_rows: Tensor | None, touch: bool = False
) -> Tensor:
    """x (B, ...) after `layer(x, *of_rows)` as drawn: skipped, whole, or on some rows only.

    Of what the layer adds to x, `scale` times as much is added: x + scale (layer(x) - x). `of_rows` are further
    arguments with one entry a row; the layer gets those of its rows. With `draw.each` the layer is called with
    `scale=` instead and scales its sub-layers itself. `touch`: a skipped layer runs on one row whose result is left
    out, so that its parameters have gradients, of zero.
    """
    if not draw.runs:
        if touch:
            return _LeaveOut.apply(x, layer(x[:1], *(None if each is None else each[:1] for each in of_rows)))
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


def compile_layers(layers: nn.ModuleList, backend: str | Callable[..., Any] = "inductor") -> None:
    """torch.compile every layer by itself, in place, so that no pattern of skipped layers needs a graph of its own.

    Layers of one shape share their graphs: one for the first number of rows they meet, one for any other; twice that
    with evaluation, and again with gates. More recompilations than that are an error, not a silent return to eager.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 16 * len(layers))
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for layer in layers:
        layer.compile(backend=backend)


class _LeaveOut(torch.autograd.Function):
    """The first tensor; the second gets a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, left_out: Tensor) -> Tensor:
        ctx.left_out = left_out.shape
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.new_zeros(ctx.left_out)


class Switch:
    """The draws of one micro-batch, for SlimBertModel's argument `switch`; `touch` as in `run_layer`."""

    def __init__(self, draws: Sequence[LayerDraw], touch: bool = False) -> None:
        self._draws, self._touch = draws, touch

    def __call__(self, index: int, layer: Callable[..., Tensor], x: Tensor, *of_rows: Tensor | None) -> Tensor:
        return run_layer(layer, x, self._draws[index], *of_rows, touch=self._touch)
