"""What all vocabularies here have: five special tokens, a template for texts and pairs, marks of where words go on.

Knows nothing of files, training or the corpus.
"""

import json
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from data_prep.errors import UserError

BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
# In the order of RoBERTa's ids.
ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
CONTINUATION = "##"
_METASPACE = "\u2581"


def _byte_symbols() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary, as GPT-2 defined it."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]


BYTE_SYMBOLS = _byte_symbols()
_SPACE_SYMBOL = BYTE_SYMBOLS[ord(" ")]
_WHITE_SPACE_SYMBOLS = tuple(BYTE_SYMBOLS[byte] for byte in b" \t\n\v\f\r")
# Bytes 10xxxxxx go on with a character of UTF-8; all others begin one.
_INNER_SYMBOLS = frozenset(BYTE_SYMBOLS[0x80:0xC0])


def bert_tokenizer(model: models.WordPiece, normalizer: normalizers.Normalizer) -> Tokenizer:
    """BERT's way around a WordPiece model; with its template where the model has the special tokens."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    ids = {token: tokenizer.token_to_id(token) for token in BERT_TOKENS.values()}
    if all(number is not None for number in ids.values()):
        tokenizer.add_special_tokens(list(ids))
        cls, sep = BERT_TOKENS["cls"], BERT_TOKENS["sep"]
        tokenizer.post_processor = processors.BertProcessing((sep, ids[sep]), (cls, ids[cls]))
    return tokenizer


def word_piece(vocab: dict[str, int]) -> models.WordPiece:
    """BERT's model of these entries."""
    return models.WordPiece(vocab, unk_token=BERT_TOKENS["unk"], continuing_subword_prefix=CONTINUATION)


def byte_level_tokenizer(model: models.BPE, double_separator: bool, add_prefix_space: bool = False) -> Tokenizer:
    """RoBERTa's way around a BPE model over bytes; the model has the special tokens.

    A pair becomes `<s> a </s> b </s>` with types 0 and 1, as rows of sentence pairs are made; with
    `double_separator` it becomes RoBERTa's own `<s> a </s></s> b </s>`, without types.
    """
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    with_roberta_tokens(tokenizer)
    if double_separator:
        sep, cls = ((token, tokenizer.token_to_id(token)) for token in (ROBERTA_TOKENS["sep"], ROBERTA_TOKENS["cls"]))
        tokenizer.post_processor = processors.RobertaProcessing(
            sep, cls, trim_offsets=True, add_prefix_space=add_prefix_space
        )
    return tokenizer


def with_roberta_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The byte-level tokenizer itself with RoBERTa's special tokens, the missing ones behind its last id, and the
    template `<s> a </s> b </s>`."""
    mask = ROBERTA_TOKENS["mask"]
    # As RoBERTa's, the mask takes the space before it along: it stands for a word with its space.
    tokenizer.add_special_tokens(
        [AddedToken(token, lstrip=token == mask, normalized=False, special=True) for token in ROBERTA_TOKENS.values()]
    )
    sep, cls = ((token, tokenizer.token_to_id(token)) for token in (ROBERTA_TOKENS["sep"], ROBERTA_TOKENS["cls"]))
    offsets = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    tokenizer.post_processor = processors.Sequence([offsets, processors.BertProcessing(sep, cls)])
    return tokenizer


def special_tokens(tokenizer: Tokenizer, path: Path | str = "the tokenizer") -> dict[str, str]:
    """The texts of pad, unk, cls, sep and mask; UserError naming `path` where one is missing."""
    return special_names(tokenizer.get_vocab(), path)


def special_ids(tokenizer: Tokenizer, path: Path | str = "the tokenizer") -> dict[str, int]:
    """The ids of pad, unk, cls, sep and mask; UserError naming `path` where one is missing."""
    vocab = tokenizer.get_vocab()
    return {role: vocab[token] for role, token in special_names(vocab, path).items()}


def special_names(vocab: Container[str], path: Path | str) -> dict[str, str]:
    """BERT's or RoBERTa's special tokens by role, whichever are all there; UserError where neither are."""
    missing = [[token for token in names.values() if token not in vocab] for names in (BERT_TOKENS, ROBERTA_TOKENS)]
    if all(missing):
        fewest = min(missing, key=len)
        raise UserError(
            f"{path} lacks the special tokens {', '.join(fewest)}; wanted are BERT's "
            f"{' '.join(BERT_TOKENS.values())} or RoBERTa's {' '.join(ROBERTA_TOKENS.values())} "
            "(to a GPT-2 vocab.json with its merges.txt they are added)"
        )
    names = ROBERTA_TOKENS if missing[0] else BERT_TOKENS
    return {role: names[role] for role in BERT_TOKENS}


def for_documents(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with all its special tokens but pad, unk, cls, sep and mask made ordinary added ones.

    These are still found in a text when `encode_special_tokens` leaves the five structural ones as text.
    """
    structural = set(special_ids(tokenizer).values())
    added = tokenizer.get_added_tokens_decoder()
    if all(token.special == (number in structural) for number, token in added.items()):
        return tokenizer
    whole = json.loads(tokenizer.to_str())
    for token in whole["added_tokens"]:
        token["special"] = token["id"] in structural
    return Tokenizer.from_str(json.dumps(whole))


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the highest id."""
    return max(tokenizer.get_vocab().values()) + 1


def model_kind(tokenizer: Tokenizer) -> str:
    """ "wordpiece", "bpe", "unigram" or "wordlevel"."""
    return type(tokenizer.model).__name__.lower()


def continuation_ids(tokenizer: Tokenizer) -> list[int]:
    """Sorted ids of the entries that go on with the word before them; special tokens are not among them.

    WordPiece: what begins with "##". Byte-level: what does not begin with white space, so that punctuation belongs
    to the word before it. SentencePiece: what does not begin with U+2581. Raises UserError for a tokenizer whose
    pieces do not show where words begin.
    """
    prefix, starts, _ = _word_marks(tokenizer)
    found = []
    for token, number in _plain_entries(tokenizer):
        goes_on = bool(prefix) and len(token) > len(prefix) and token.startswith(prefix)
        if goes_on or (starts and not token.startswith(starts)):
            found.append(number)
    return sorted(found)


def single_character_ids(tokenizer: Tokenizer) -> list[int]:
    """Sorted ids of the entries that are one character, or a part of one, apart from the marks of words."""
    prefix, starts, is_byte_level = _word_marks(tokenizer)
    found = []
    for token, number in _plain_entries(tokenizer):
        text = token.removeprefix(prefix)
        if starts:
            text = text.removeprefix(starts[0])
        length = sum(symbol not in _INNER_SYMBOLS for symbol in text) if is_byte_level else len(text)
        if length <= 1:
            found.append(number)
    return sorted(found)


def _plain_entries(tokenizer: Tokenizer) -> Iterator[tuple[str, int]]:
    """The model's entries: what was added beside them is found in text as it stands, a word by itself."""
    added = {*tokenizer.get_added_tokens_decoder(), *special_ids(tokenizer).values()}
    return ((token, number) for token, number in tokenizer.get_vocab().items() if number not in added)


def _word_marks(tokenizer: Tokenizer) -> tuple[str, tuple[str, ...], bool]:
    """(prefix of pieces that go on, beginnings of pieces that begin a word, whether pieces are of bytes)."""
    whole = json.loads(tokenizer.to_str())
    model = whole["model"]
    parts = set(_types([whole["normalizer"], whole["pre_tokenizer"], whole["decoder"]]))
    if "ByteLevel" in parts:
        return "", _WHITE_SPACE_SYMBOLS, True
    if "Metaspace" in parts:
        return "", (_METASPACE,), False
    prefix = model.get("continuing_subword_prefix")
    if prefix or model["type"] == "WordLevel":
        return prefix or "", (), False
    raise UserError(
        f"the pieces of this {model['type']} tokenizer do not show where words begin: wanted is WordPiece, "
        "byte-level BPE, or SentencePiece with Metaspace"
    )


def _types(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "type" in part:
            yield part["type"]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _types(inner)
