"""Whether a vocabulary can be used: its entries, ids, merges, special tokens and template. Knows nothing of how files
are found or read."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.errors import UserError
from data_prep.tokenization.vocabulary import continuation_ids, special_ids

WANTED = "wanted is vocab.txt, tokenizer.json, or vocab.json with merges.txt beside it"
# Words, an ideograph, an emoji, a control character, and a character that no vocabulary has.
_TRIAL = "It's a trial: \u4eba \U0001f426\n\x01 \U0010ffff"


def tried(text: str, path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, after it has shown that it works; without padding and truncation."""
    try:
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.decode(tokenizer.encode(_TRIAL, _TRIAL).ids)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises bare Exception for most malformed files, and panics for some
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a tokenizer.json that tokenizers can use: {reason}") from error
    return tokenizer


def usable(tokenizer: Tokenizer, path: Path) -> Tokenizer:
    """The tokenizer without padding and truncation; UserError where rows cannot be made with it."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special_ids(tokenizer, path)
    check_ids(tokenizer.get_vocab(), path)
    added = [tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (False, True)]
    if added[0] < 2 or added[1] < 3:
        raise UserError(
            f"{path} adds {added[0]} special tokens to a text and {added[1]} to a pair, wanted are 2 and 3 or more "
            "([CLS] a [SEP], [CLS] a [SEP] b [SEP]); give it such a post_processor and save it again"
        )
    try:
        continuation_ids(tokenizer)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return tokenizer


def check_holds(tokenizer: Tokenizer, entries: Mapping[str, int], path: Path) -> None:
    """UserError unless a tokenizer that transformers made of a file has its entries by their ids."""
    vocab = tokenizer.get_vocab()
    other = [entry for entry, number in entries.items() if vocab.get(entry) != number]
    if other:
        raise UserError(
            f"transformers makes a tokenizer of {path} and what lies beside it that lacks {len(other)} of its "
            f"{len(entries)} entries, the first is {other[0]!r}: what tokenizer_config.json or config.json names is "
            "for other files; mend it, or name a copy of the file alone"
        )


def merge_pairs(merges: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for number, merge in enumerate(merges):
        yield f"merge {number}", " ".join(map(str, merge)) if isinstance(merge, list) else str(merge)


def check_merges(merges: Iterable[tuple[str, str]], vocab: Mapping[str, Any], path: Path, prefix: str = "") -> None:
    """UserError for the first of (place, "left right") that is no pair, repeated, or of pieces without an id."""
    seen: set[str] = set()
    for place, merge in merges:
        left, _, right = merge.partition(" ")
        if not left or not right or " " in right:
            raise UserError(f"{path} {place} is {merge!r}, wanted are two pieces with one space between them")
        for token in (left, right, left + right.removeprefix(prefix)):
            if token not in vocab:
                raise UserError(f"{path} {place} merges {merge!r}, but {token!r} is not in the vocabulary")
        if merge in seen:
            raise UserError(f"{path} {place} repeats the merge {merge!r}; their order would be unclear")
        seen.add(merge)


def check_repeats(entries: Iterable[str], path: Path) -> None:
    repeated = [entry for entry, count in Counter(entries).items() if count > 1]
    if repeated:
        raise UserError(f"{path} repeats {len(repeated)} of its entries, the first is {repeated[0]!r}; ids would shift")


def check_ids(vocab: Mapping[str, Any], path: Path) -> None:
    """UserError unless entries have an id each, and the ids no larger holes than there are entries."""
    if not vocab:
        raise UserError(f"{path} has no entries; {WANTED}")
    owners: dict[int, str] = {}
    for token, number in vocab.items():
        if type(number) is not int or number < 0:
            raise UserError(f"{path} gives {token!r} the id {number!r}, wanted is a whole number from 0 up")
        if number in owners:
            raise UserError(f"{path} gives the id {number} to both {owners[number]!r} and {token!r}")
        owners[number] = token
    highest = max(owners)
    if highest + 1 > 2 * len(vocab):
        raise UserError(
            f"{path} has {len(vocab)} entries and ids up to {highest} (of {owners[highest]!r}): a model would need "
            f"an embedding of {highest + 1} rows; number the entries without holes"
        )
