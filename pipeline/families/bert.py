"""BERT, and the families of transformers that name their tensors like it: RoBERTa, post-LN and pre-LN, and ESM."""

from pipeline.families.family import Family, Slot

_SLOTS = (
    Slot("layer.{layer}.attention.self.query.weight", "heads", 0),
    Slot("layer.{layer}.attention.self.query.bias", "heads", 0),
    Slot("layer.{layer}.attention.self.key.weight", "heads", 0),
    Slot("layer.{layer}.attention.self.key.bias", "heads", 0),
    Slot("layer.{layer}.attention.self.value.weight", "heads", 0),
    Slot("layer.{layer}.attention.self.value.bias", "heads", 0),
    Slot("layer.{layer}.attention.output.dense.weight", "heads", 1, folds=True),
    Slot("layer.{layer}.intermediate.dense.weight", "neurons", 0),
    Slot("layer.{layer}.intermediate.dense.bias", "neurons", 0),
    Slot("layer.{layer}.output.dense.weight", "neurons", 1, folds=True),
)

BERT = Family("bert", _SLOTS, lm_head="cls")
ROBERTA = Family("roberta", _SLOTS, scores="classifier.out_proj", first_position=1)
ROBERTA_PRELAYERNORM = Family("roberta-prelayernorm", _SLOTS, scores="classifier.out_proj", first_position=1)
# What our encoder with rotary positions leaves as. Its embeddings take no mask of packed rows: it is not trained here.
ESM = Family("esm", _SLOTS, objectives=())
