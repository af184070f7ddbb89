"""ModernBERT: rotary positions, local and global layers in turns, matrices without bias unless the config has them.

Its FFN is gated, so a neuron is a pair of rows of one matrix, half the matrix apart, and a column of another.
"""

from pipeline.families.family import Family, Slot

FAMILY = Family(
    "modernbert",
    (
        Slot("layers.{layer}.attn.Wqkv.weight", "heads", 0, blocks=3),
        Slot("layers.{layer}.attn.Wqkv.bias", "heads", 0, blocks=3, optional=True),
        Slot("layers.{layer}.attn.Wo.weight", "heads", 1, folds=True),
        Slot("layers.{layer}.mlp.Wi.weight", "neurons", 0, blocks=2),
        Slot("layers.{layer}.mlp.Wi.bias", "neurons", 0, blocks=2, optional=True),
        Slot("layers.{layer}.mlp.Wo.weight", "neurons", 1, folds=True),
    ),
    ffn_matrices=3,
    dropouts=("embedding_dropout", "mlp_dropout"),
    attention_dropouts=("attention_dropout",),
    lm_head="head",
)
