"""The families, by the name of their config's `model_type`."""

from pipeline.families import bert, distilbert, gpt2, modernbert, slim_bert

FAMILIES = {
    family.name: family
    for family in (
        slim_bert.FAMILY,
        bert.BERT,
        bert.ROBERTA,
        bert.ROBERTA_PRELAYERNORM,
        bert.ESM,
        distilbert.FAMILY,
        modernbert.FAMILY,
        gpt2.FAMILY,
    )
}
