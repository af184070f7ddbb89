"""GPT-2: causal attention, and matrices that lie transposed (transformers' Conv1D: inputs by outputs)."""

from pipeline.families.family import Family, Slot

FAMILY = Family(
    "gpt2",
    (
        Slot("h.{layer}.attn.c_attn.weight", "heads", 1, blocks=3),
        Slot("h.{layer}.attn.c_attn.bias", "heads", 0, blocks=3),
        Slot("h.{layer}.attn.c_proj.weight", "heads", 0, folds=True),
        Slot("h.{layer}.mlp.c_fc.weight", "neurons", 1),
        Slot("h.{layer}.mlp.c_fc.bias", "neurons", 0),
        Slot("h.{layer}.mlp.c_proj.weight", "neurons", 0, folds=True),
    ),
    objectives=("causal-lm", "classification"),
    neurons="n_inner",
    dropouts=("resid_pdrop", "embd_pdrop"),
    attention_dropouts=("attn_pdrop",),
    scores="score",
)
