"""Our own encoder, in which every layer has its widths: queries, keys and values are one matrix."""

from pipeline.families.family import Family, Slot

FAMILY = Family(
    "slim_bert",
    (
        Slot("layers.{layer}.attention.qkv.weight", "heads", 0, blocks=3),
        Slot("layers.{layer}.attention.qkv.bias", "heads", 0, blocks=3),
        Slot("layers.{layer}.attention.output.weight", "heads", 1, folds=True),
        Slot("layers.{layer}.ffn.up.weight", "neurons", 0),
        Slot("layers.{layer}.ffn.up.bias", "neurons", 0),
        Slot("layers.{layer}.ffn.down.weight", "neurons", 1, folds=True),
    ),
)
