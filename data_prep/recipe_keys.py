"""Messages in the words of a recipe: who started a stage through `python -m pipeline` has given keys, not options."""

import re
from typing import Any, TextIO

# What the pipeline passes to each stage, and the key it takes it from.
KEYS = {
    "--out": "the folder of corpus.name",
    "--corpus": "the folder of corpus.name",
    "--source": "corpus.sources",
    "--weight": "the weight in corpus.sources",
    "--val-fraction": "corpus.val_fraction",
    "--min-characters": "corpus.min_characters",
    "--filters": "corpus.filters",
    "--language": "corpus.language",
    "--dedup": "corpus.dedup",
    "--repeated-lines": "corpus.repeated_lines",
    "--on-bad-input": "corpus.on_bad_input",
    "--vocab-size": "corpus.vocab_size",
    "--kind": "corpus.tokenizer_kind",
    "--load": "corpus.tokenizer",
    "--cased": "corpus.cased",
    "--no-cased": "corpus.cased = false",
    "--strip-accents": "corpus.strip_accents",
    "--no-strip-accents": "corpus.strip_accents = false",
    "--packing": "corpus.packing",
    "--row-length": "corpus.row_length",
}
_OPTION = re.compile(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*(?![\w-])")
_COMMAND = re.compile(r"`python -m data_prep (ingest|tokenizer|shard)\b[^`]*`")
# Messages that name option and key side by side.
_BESIDE = re.compile(r" \(corpus\.\w+(?:(?: =)? \w+)?(?:, corpus\.\w+)*\)|, or their --no- forms")


def in_recipe_keys(text: str) -> str:
    """The text with the recipe's keys in place of the options that they were passed as."""
    text = _BESIDE.sub("", _COMMAND.sub(r"`python -m pipeline data --only \1`", text))
    return _OPTION.sub(lambda found: KEYS.get(found[0], found[0]), text)


class InRecipeKeys:
    """A stream that writes what it is given `in_recipe_keys`, and is the wrapped one in everything else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(in_recipe_keys(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
