"""Vocabularies of others: BERT's vocab.txt, GPT-2's and RoBERTa's vocab.json with merges.txt, any tokenizer.json.

What a file holds is recognised by its content and checked before it is taken. Knows nothing of the corpus.
"""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models

from data_prep.errors import UserError
from data_prep.files import sha256_file, sha256_json
from data_prep.tokenization.checks import (
    WANTED,
    check_holds,
    check_ids,
    check_merges,
    check_repeats,
    merge_pairs,
    tried,
    usable,
)
from data_prep.tokenization.habits import Habits, guess_habits, habits_of, has_ideographs
from data_prep.tokenization.published import TOKENIZER_CONFIG, companions, published_tokenizer, said_in
from data_prep.tokenization.vocabulary import (
    BERT_TOKENS,
    BYTE_SYMBOLS,
    ROBERTA_TOKENS,
    bert_tokenizer,
    byte_level_tokenizer,
    with_roberta_tokens,
    word_piece,
)

MAX_FILE_BYTES = 256 << 20
_MERGES = "merges.txt"


@dataclass(frozen=True)
class LoadedVocabulary:
    """A tokenizer, the hash of the files it came from, and the special tokens that were added to their entries.

    `guessed`: the habits that neither the files nor the user told, in words; `assumed`: those of them that are
    transformers' default for the class that the files name. `composed`: how many entries were brought into NFC, in
    which documents are.
    """

    tokenizer: Tokenizer
    sha256: str
    appended: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    composed: int = 0


@dataclass(frozen=True)
class _Wanted:
    """What the user says of a vocabulary's text; None: what the files say."""

    cased: bool | None
    strip_accents: bool | None

    @property
    def lowercase(self) -> bool | None:
        return None if self.cased is None else not self.cased


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file or folder; see `load_vocabulary`."""
    return load_vocabulary(path).tokenizer


def load_vocabulary(path: Path, cased: bool | None = None, strip_accents: bool | None = None) -> LoadedVocabulary:
    """Take a `vocab.txt` (ids are line numbers), a `tokenizer.json`, a `vocab.json` with the merges beside it, or
    the folder of one of them.

    With a tokenizer_config.json or config.json beside it, the tokenizer is the one that transformers makes of both.
    Lower-casing and the stripping of accents are what these files say, else what `cased` and `strip_accents` say,
    else transformers' default for the class they name; for a vocab.txt of no known class, a guess. To a vocab.json
    without RoBERTa's special tokens, the missing ones are added behind its last id. Raises UserError for a file that
    is none of these, whose entries, ids, merges, special tokens or template cannot be used, or that contradicts what
    is said of it.
    """
    path = file_of(path)
    wanted = _Wanted(cased, strip_accents)
    text = read_text(path)
    if not text.lstrip().startswith("{"):
        loaded = _vocab_txt(text, path, wanted)
    else:
        content = read_json(text, path)
        if isinstance(content.get("model"), dict):
            loaded = _tokenizer_json(text, content["model"], path)
        elif any(isinstance(value, int) for value in content.values()):
            loaded = _vocab_json(content, path)
        else:
            raise UserError(f"{path} holds neither a tokenizer.json nor the ids of a vocab.json; {WANTED}")
    _check_habits(habits_of(loaded.tokenizer), wanted, path)
    return loaded


def file_of(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path} is not a file or folder; {WANTED}")
    # A tokenizer.json says everything; a vocab.json does not say how text is cut before.
    for name in ("tokenizer.json", "vocab.json", "vocab.txt"):
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path} has no tokenizer.json, vocab.json or vocab.txt; name the file itself")


def read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise UserError(f"{path} has {size:,} bytes, a vocabulary at most {MAX_FILE_BYTES:,}; {WANTED}")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte offset {error.start}); {WANTED}") from error


def read_json(text: str, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        check_repeats((key for key, _ in pairs), path)
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {WANTED}") from error


def _vocab_txt(text: str, path: Path, wanted: _Wanted) -> LoadedVocabulary:
    entries = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    check_repeats(entries, path)
    vocab = {entry: number for number, entry in enumerate(entries)}
    missing = [token for token in BERT_TOKENS.values() if token not in vocab]
    if missing:
        raise UserError(f"{path} lacks the special tokens {', '.join(missing)}; wanted is a BERT vocabulary")
    beside = companions(path)
    said = said_in(beside.get(TOKENIZER_CONFIG))
    lowercase, strip_accents = (
        said[key] if isinstance(said.get(key), bool) else keyed
        for key, keyed in (("do_lower_case", wanted.lowercase), ("strip_accents", wanted.strip_accents))
    )
    files = {"vocab.txt": path, **beside}
    if beside:
        options = {"do_lower_case": lowercase, "strip_accents": strip_accents}
        found = published_tokenizer(files, options)
        if found is not None:
            check_holds(found, vocab, path)
            assumed = _in_words(habits_of(found), lowercase is None, strip_accents is None)
            return LoadedVocabulary(usable(found, path), _sha256_of(files), assumed=assumed)
    guess = guess_habits(entries, lowercase, strip_accents)
    spaced = said.get("tokenize_chinese_chars")
    habits = Habits(
        guess.lowercase, guess.strip_accents, spaced if isinstance(spaced, bool) else guess.space_ideographs
    )
    is_spacing = not isinstance(spaced, bool) and has_ideographs(entries)
    guessed = _in_words(habits, lowercase is None, strip_accents is None, is_spacing)
    if beside:
        options = {
            "do_lower_case": habits.lowercase,
            "strip_accents": habits.strip_accents,
            "tokenize_chinese_chars": habits.space_ideographs,
        }
        found = published_tokenizer(files, options, assumed="BertTokenizer")
        assert found is not None
        return LoadedVocabulary(usable(found, path), _sha256_of(files), guessed=guessed)
    in_nfc = {unicodedata.normalize("NFC", entry): number for entry, number in vocab.items()}
    taken = in_nfc if len(in_nfc) == len(vocab) else vocab
    composed = len(taken.keys() - vocab.keys())
    tokenizer = bert_tokenizer(word_piece(taken), habits.normalizer())
    return LoadedVocabulary(tokenizer, sha256_file(path), guessed=guessed, composed=composed)


def _in_words(habits: Habits, is_case: bool, is_accents: bool, is_spacing: bool = False) -> tuple[str, ...]:
    words = []
    if is_case:
        words.append("lower-casing" if habits.lowercase else "cased")
    if is_accents:
        words.append("accents stripped" if habits.strip_accents else "accents kept")
    if is_spacing:
        words.append("every Chinese character a word" if habits.space_ideographs else "words of Chinese characters")
    return tuple(words)


def _check_habits(found: Habits, wanted: _Wanted, path: Path) -> None:
    """UserError where what is said of a vocabulary is not what its files make of text."""
    pairs = (
        ("cased", "cased", wanted.cased, not found.lowercase, "do_lower_case"),
        ("strip-accents", "strip_accents", wanted.strip_accents, found.strip_accents, "strip_accents"),
    )
    for option, key, said, has, name in pairs:
        if said is not None and said != has:
            config = companions(path).get(TOKENIZER_CONFIG)
            value = said_in(config).get(name)
            source = path if value is None else f"{config} ({name} {json.dumps(value)})"
            given = f"--{'' if said else 'no-'}{option} (corpus.{key} {json.dumps(said)})"
            raise UserError(
                f"{given} contradicts {source}, which makes "
                f"it {json.dumps(has)}; leave it away to take the vocabulary as it is, or change the file"
            )


def _sha256_of(files: Mapping[str, Path]) -> str:
    """Of all files that have a say; of one alone its own."""
    hashes = [sha256_file(path) for path in files.values()]
    return hashes[0] if len(hashes) == 1 else sha256_json(hashes)


def _tokenizer_json(text: str, model: Mapping[str, Any], path: Path) -> LoadedVocabulary:
    entries = model.get("vocab")
    if isinstance(entries, dict):
        check_ids(entries, path)
        if isinstance(model.get("merges"), list):
            prefix = model.get("continuing_subword_prefix")
            pairs = merge_pairs(model["merges"])
            check_merges(pairs, entries, path, prefix if isinstance(prefix, str) else "")
    elif isinstance(entries, list):
        check_repeats((str(entry[0]) for entry in entries if isinstance(entry, list) and entry), path)
    tokenizer = tried(text, path)
    files = {"tokenizer.json": path, **companions(path)}
    if len(files) > 1:
        found = published_tokenizer(files, {})
        assert found is not None
        check_holds(found, tokenizer.get_vocab(with_added_tokens=False), path)
        tokenizer = found
    return LoadedVocabulary(usable(tokenizer, path), _sha256_of(files))


def _vocab_json(entries: Mapping[str, Any], path: Path) -> LoadedVocabulary:
    merges = _merges_beside(path)
    beside = companions(path)
    model, appended = _byte_level(entries, path, merges)
    files = {"vocab.json": path, "merges.txt": merges, **beside}
    found = published_tokenizer(files, {}) if beside else None
    if found is not None:
        check_holds(found, entries, path)
        missing = tuple(token for token in ROBERTA_TOKENS.values() if found.token_to_id(token) is None)
        tokenizer = usable(with_roberta_tokens(found) if missing else found, path)
        return LoadedVocabulary(tokenizer, _sha256_of(files), missing)
    prefix = said_in(beside.get(TOKENIZER_CONFIG)).get("add_prefix_space") is True
    tokenizer = byte_level_tokenizer(model, double_separator=not appended, add_prefix_space=prefix)
    return LoadedVocabulary(tokenizer, _sha256_of(files), appended)


def _byte_level(entries: Mapping[str, Any], path: Path, merges_path: Path) -> tuple[models.BPE, tuple[str, ...]]:
    """The checked model of a vocab.json, and which of RoBERTa's special tokens were added to its entries."""
    check_ids(entries, path)
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
    check_merges(merges, vocab, merges_path)
    appended = tuple(token for token in ROBERTA_TOKENS.values() if token not in vocab)
    first = max(vocab.values()) + 1
    vocab |= {token: first + number for number, token in enumerate(appended)}
    return models.BPE(vocab, [tuple(pair.split(" ")) for _, pair in merges]), appended


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
    lines = read_text(path).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not (number == 1 and line.startswith("#version")):
            yield f"line {number}", line.removesuffix("\r")
