"""Small shapes, tickets, batches and scores for the tests of this package."""

import numpy as np
import torch

from pipeline.families.hf import build_model, read_state
from pipeline.families.modeling_slim_bert import SlimBertForMaskedLM
from pipeline.families.shape import EncoderShape, LayerShape
from pipeline.tickets.select import TicketRules
from pipeline.tickets.ticket import Ticket


def small_shape(norm="post", layers=((4, 32), (4, 32), (4, 32)), **rest):
    return EncoderShape(
        vocab_size=50,
        hidden_size=16,
        head_size=4,
        layers=tuple(LayerShape(*layer) for layer in layers),
        max_positions=20,
        norm=norm,
        **rest,
    )


def random_ticket(shape, seed=0, **changes):
    """At least one unit a layer, the rest by coin."""
    generator = np.random.default_rng(seed)

    def some(width):
        size = int(generator.integers(1, width + 1))
        return tuple(sorted(generator.permutation(width)[:size].tolist()))

    values = {
        "dense_shape": shape,
        "heads": tuple(some(layer.heads) for layer in shape.layers),
        "neurons": tuple(some(layer.ffn) for layer in shape.layers),
        "step": 7,
        "score": "taylor",
        "settled": True,
        "rules": TicketRules(),
        "distances": {"heads": [0.0, 0.05], "neurons": [0.1, 0.01]},
        "provenance": {"commit": "abc", "scores_sha256": "0" * 64},
    }
    return Ticket(**{**values, **changes})


def random_state(shape, seed=0):
    """A state with nothing left at zero or one, biases and norms included, so that a slip shows."""
    state = read_state(build_model(shape, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    return {name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}


def model_with(shape, state):
    model = build_model(shape, SlimBertForMaskedLM, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state[name])
    return model.eval()


def packed_batch(shape, rows=3, length=12, seed=0):
    """Rows of two packed pieces and some padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, shape.vocab_size, (rows, length), generator=generator)
    documents = torch.tensor([1] * 5 + [2] * (length - 7) + [0] * 2).repeat(rows, 1)
    positions = torch.tensor([*range(5), *range(length - 7), 0, 0]).repeat(rows, 1)
    ids[:, -2:] = shape.pad_token_id
    return {"input_ids": ids, "document_ids": documents, "position_ids": positions}


def random_scores(shape, seed=0):
    generator = np.random.default_rng(seed)
    return {
        "heads": [generator.random(layer.heads, dtype=np.float32) for layer in shape.layers],
        "neurons": [generator.random(layer.ffn, dtype=np.float32) for layer in shape.layers],
    }
