"""Vocabularies of others: BERT's vocab.txt, GPT-2's and RoBERTa's vocab.json with merges.txt, any tokenizer.json.

What a file holds is recognised by its content and checked before it is taken. Knows nothing of the corpus.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models

from data_prep.manifest import UserError, sha256_file, sha256_json
from data_prep.tokenization.vocabulary import (
    BERT_TOKENS,
    BYTE_SYMBOLS,
    ROBERTA_TOKENS,
    bert_tokenizer,
    byte_level_tokenizer,
    continuation_ids,
    special_ids,
    word_piece,
)

MAX_FILE_BYTES = 256 << 20
_MERGES = "merges.txt"
# Words, an ideograph, an emoji, a control character, and a character that no vocabulary has.
_TRIAL = "It's a trial: \u4eba \U0001f426\n\x01 \U0010ffff"
_WANTED = "wanted is vocab.txt, tokenizer.json, or vocab.json with merges.txt beside it"


@dataclass(frozen=True)
class LoadedVocabulary:
    """A tokenizer, the hash of the files it came from, and the special tokens that were added to their entries."""

    tokenizer: Tokenizer
    sha256: str
    appended: tuple[str, ...] = ()


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file or folder; see `load_vocabulary`."""
    return load_vocabulary(path).tokenizer


def load_vocabulary(path: Path) -> LoadedVocabulary:
    """Take a `vocab.txt` (ids are line numbers), a `tokenizer.json`, a `vocab.json` with the merges beside it, or
    the folder of one of them.

    A vocab.txt does not say whether its text was lower-cased: it was, when no entry has a capital letter. To a
    vocab.json without RoBERTa's special tokens, the missing ones are added behind its last id. Raises UserError for
    a file that is none of these, or whose entries, ids, merges, special tokens or template cannot be used.
    """
    path = _file_of(path)
    text = _read_text(path)
    if not text.lstrip().startswith("{"):
        return LoadedVocabulary(_vocab_txt(text, path), sha256_file(path))
    content = _read_json(text, path)
    if isinstance(content.get("model"), dict):
        return LoadedVocabulary(_tokenizer_json(text, content["model"], path), sha256_file(path))
    if not any(isinstance(value, int) for value in content.values()):
        raise UserError(f"{path} holds neither a tokenizer.json nor the ids of a vocab.json; {_WANTED}")
    merges = _merges_beside(path)
    tokenizer, appended = _byte_level(content, path, merges)
    return LoadedVocabulary(tokenizer, sha256_json([sha256_file(path), sha256_file(merges)]), appended)


def _file_of(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path} is not a file or folder; {_WANTED}")
    # A tokenizer.json says everything; a vocab.json does not say how text is cut before.
    for name in ("tokenizer.json", "vocab.json", "vocab.txt"):
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path} has no tokenizer.json, vocab.json or vocab.txt; name the file itself")


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise UserError(f"{path} has {size:,} bytes, a vocabulary at most {MAX_FILE_BYTES:,}; {_WANTED}")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte offset {error.start}); {_WANTED}") from error


def _read_json(text: str, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _check_repeats((key for key, _ in pairs), path)
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {_WANTED}") from error


def _vocab_txt(text: str, path: Path) -> Tokenizer:
    entries = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    _check_repeats(entries, path)
    missing = [token for token in BERT_TOKENS.values() if token not in set(entries)]
    if missing:
        raise UserError(f"{path} lacks the special tokens {', '.join(missing)}; wanted is a BERT vocabulary")
    vocab = {entry: number for number, entry in enumerate(entries)}
    plain = vocab.keys() - set(BERT_TOKENS.values())
    return bert_tokenizer(word_piece(vocab), lowercase=all(entry == entry.lower() for entry in plain))


def _tokenizer_json(text: str, model: Mapping[str, Any], path: Path) -> Tokenizer:
    entries = model.get("vocab")
    if isinstance(entries, dict):
        _check_ids(entries, path)
        if isinstance(model.get("merges"), list):
            prefix = model.get("continuing_subword_prefix")
            pairs = _merge_pairs(model["merges"])
            _check_merges(pairs, entries, path, prefix if isinstance(prefix, str) else "")
    elif isinstance(entries, list):
        _check_repeats((str(entry[0]) for entry in entries if isinstance(entry, list) and entry), path)
    tokenizer = _tried(text, path)
    special_ids(tokenizer, path)
    _check_ids(tokenizer.get_vocab(), path)
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


def _tried(text: str, path: Path) -> Tokenizer:
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


def _byte_level(entries: Mapping[str, Any], path: Path, merges_path: Path) -> tuple[Tokenizer, tuple[str, ...]]:
    _check_ids(entries, path)
    vocab = dict(entries)
    lacking = [symbol for symbol in BYTE_SYMBOLS if symbol not in vocab]
    if lacking:
        raise UserError(
            f"{path} lacks {len(lacking)} of the 256 symbols of bytes, the first is {lacking[0]!r}: it is not "
            "byte-level; name a tokenizer.json instead, it says how text is cut"
        )
    if all(f"{letter}</w>" in vocab for letter in "aeiou"):
        raise UserError(
            f"{path} marks the ends of words (</w>), so it is not GPT-2's kind of vocabulary; name a tokenizer.json "
            "instead, it says how text is cut"
        )
    merges = list(_read_merges(merges_path))
    _check_merges(merges, vocab, merges_path)
    appended = tuple(token for token in ROBERTA_TOKENS.values() if token not in vocab)
    first = max(vocab.values()) + 1
    vocab |= {token: first + number for number, token in enumerate(appended)}
    model = models.BPE(vocab, [tuple(pair.split(" ")) for _, pair in merges])
    return byte_level_tokenizer(model, double_separator=not appended), appended


def _merges_beside(path: Path) -> Path:
    """NAME-merges.txt of NAME-vocab.json, else merges.txt, else the only *-merges.txt of the folder."""
    for name in (path.name.replace("vocab.json", _MERGES), _MERGES):
        if name != path.name and path.with_name(name).is_file():
            return path.with_name(name)
    found = sorted(path.parent.glob(f"*-{_MERGES}"))
    if len(found) == 1:
        return found[0]
    others = f"there are {', '.join(each.name for each in found)}: name yours {_MERGES}" if found else "it needs one"
    raise UserError(f"{path} has no {_MERGES} beside it; {others}")


def _read_merges(path: Path) -> Iterator[tuple[str, str]]:
    lines = _read_text(path).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not (number == 1 and line.startswith("#version")):
            yield f"line {number}", line.removesuffix("\r")


def _merge_pairs(merges: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for number, merge in enumerate(merges):
        yield f"merge {number}", " ".join(map(str, merge)) if isinstance(merge, list) else str(merge)


def _check_merges(merges: Iterable[tuple[str, str]], vocab: Mapping[str, Any], path: Path, prefix: str = "") -> None:
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


def _check_repeats(entries: Iterable[str], path: Path) -> None:
    repeated = [entry for entry, count in Counter(entries).items() if count > 1]
    if repeated:
        raise UserError(f"{path} repeats {len(repeated)} entries, the first is {repeated[0]!r}; ids would shift")


def _check_ids(vocab: Mapping[str, Any], path: Path) -> None:
    """UserError unless entries have an id each, and the ids no larger holes than there are entries."""
    if not vocab:
        raise UserError(f"{path} has no entries; {_WANTED}")
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
