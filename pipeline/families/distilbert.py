"""DistilBERT: BERT's layers under other names."""

from pipeline.families.family import Family, Slot

FAMILY = Family(
    "distilbert",
    (
        Slot("layer.{layer}.attention.q_lin.weight", "heads", 0),
        Slot("layer.{layer}.attention.q_lin.bias", "heads", 0),
        Slot("layer.{layer}.attention.k_lin.weight", "heads", 0),
        Slot("layer.{layer}.attention.k_lin.bias", "heads", 0),
        Slot("layer.{layer}.attention.v_lin.weight", "heads", 0),
        Slot("layer.{layer}.attention.v_lin.bias", "heads", 0),
        Slot("layer.{layer}.attention.out_lin.weight", "heads", 1, folds=True),
        Slot("layer.{layer}.ffn.lin1.weight", "neurons", 0),
        Slot("layer.{layer}.ffn.lin1.bias", "neurons", 0),
        Slot("layer.{layer}.ffn.lin2.weight", "neurons", 1, folds=True),
    ),
    neurons="hidden_dim",
    dropouts=("dropout",),
    attention_dropouts=("attention_dropout",),
    classifier_dropout="seq_classif_dropout",
    lm_head="vocab_transform",
)
