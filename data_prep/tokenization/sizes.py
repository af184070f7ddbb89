"""How many entries a vocabulary will have, read from its files without transformers, which brings torch along."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.tokenization.checks import WANTED
from data_prep.tokenization.files import file_of, read_json, read_text
from data_prep.tokenization.published import companions, said_in
from data_prep.tokenization.vocabulary import ROBERTA_TOKENS

_LISTS = ("additional_special_tokens", "extra_special_tokens")


def count_entries(path: Path) -> int:
    """One more than the highest id of what `load_vocabulary` makes of a file or folder.

    Raises UserError for files without entries; whether they can be used is not looked at.
    """
    path = file_of(path)
    ids, unnumbered = _own_entries(path)
    for name, file in companions(path).items():
        said = said_in(file)
        if name == "added_tokens.json":
            ids |= said
        elif name != "config.json":
            ids |= {token["content"]: int(number) for number, token in said.get("added_tokens_decoder", {}).items()}
            unnumbered += _special_texts(said)
    if not ids:
        raise UserError(f"{path} has no entries; {WANTED}")
    # Whoever has no id of its own gets the next one.
    return max(ids.values()) + 1 + len({text for text in unnumbered if text not in ids})


def _own_entries(path: Path) -> tuple[dict[str, int], list[str]]:
    """Entries by their ids, and the texts that are added where they are missing, of the vocabulary's own file."""
    text = read_text(path)
    if not text.lstrip().startswith("{"):
        lines = text.removesuffix("\n").split("\n")
        return {line.removesuffix("\r"): number for number, line in enumerate(lines)}, []
    content = read_json(text, path)
    model = content.get("model")
    if not isinstance(model, dict):
        return {entry: number for entry, number in content.items() if isinstance(number, int)}, [
            *ROBERTA_TOKENS.values()
        ]
    vocab = model.get("vocab", {})
    ids = dict(vocab) if isinstance(vocab, dict) else {str(entry[0]): number for number, entry in enumerate(vocab)}
    return ids | {token["content"]: token["id"] for token in content.get("added_tokens") or ()}, []


def _special_texts(said: dict[str, Any]) -> Iterator[str]:
    """Texts of the special tokens that a tokenizer_config.json or special_tokens_map.json names."""
    for key, value in said.items():
        named = value if key in _LISTS else [value] if key.endswith("_token") else []
        for token in named.values() if isinstance(named, dict) else named:
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                yield text
