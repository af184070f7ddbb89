"""Ids of words put together are the ids of the text, whatever the text."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from data_prep.tokenization import encoder
from data_prep.tokenization.encoder import Encoder
from data_prep.tokenization.files import load_tokenizer
from data_prep.tokenization.train import train_byte_bpe, train_wordpiece
from data_prep.tokenization.vocabulary import for_documents
from tests.data_prep.real_data import DATA, needs_texts
from tests.data_prep.vocabularies import NOVEL

TEXT = NOVEL.read_text(encoding="utf-8")[:200_000]
# Texts as cleaning leaves them are words with single blanks; nothing may depend on that.
WORDS = st.sampled_from(
    ["the", "The", "don't", "word,", '"Yes!"', "(see", "n\u00e9e", "\u4eba\u6c11", "\u0391\u03a3", "e\u0301", ".\u0301",
     "[SEP]", "<mask>", "##s", "123.45", "\u2026", "\U0001f600", "\u200b", "\xa0", "\t", "\x1c", "\x85", "\u3000",
     "x" * 120,      "--", "\0", "I\u0307", "\u1e9e", "[URL]", "[url]", "s[URL]'s", "<ent>", "<ENT>x", "[USER].",
     "\u0645\u06cc\u200c\u062e", "\u0915\u094d\u200d\u0937", "\u200d", "\xad", "\u0645\u06cc\u200c<ent>",
     "the\u200bsea", "\u200b<ent>\u200b"]
)  # fmt: skip
BLANKS = st.sampled_from([" ", "\n", "  ", " \n", "\n\n", "", "\r\n"])
TEXTS = st.lists(
    st.one_of(st.text(max_size=20), st.lists(st.tuples(WORDS, BLANKS)).map(lambda p: "".join(w + b for w, b in p))),
    max_size=5,
)


def ready(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.encode_special_tokens = True
    return tokenizer


def with_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """As people add them, and as transformers writes them."""
    tokenizer.add_special_tokens([AddedToken("[URL]", lstrip=True), AddedToken("[USER]", normalized=False)])
    tokenizer.add_tokens([AddedToken("<ent>", single_word=True), AddedToken("##s[")])
    return for_documents(tokenizer)


JOINED = TEXT + "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0915\u094d\u200d\u0937 " * 200
TOKENIZERS = {
    "stripped": ready(train_wordpiece(lambda: [TEXT], 400, lowercase=True, strip_accents=True)),
    "uncased": ready(train_wordpiece(lambda: [TEXT], 400, lowercase=True)),
    "cased": ready(train_wordpiece(lambda: [TEXT], 400, lowercase=False)),
    "joiners": ready(train_wordpiece(lambda: [JOINED], 400)),
    "zero-width spaces": ready(train_wordpiece(lambda: [JOINED + "the\u200bsea " * 50], 400)),
    "separated own tokens": ready(with_tokens(train_wordpiece(lambda: [TEXT + "the\u200bsea " * 50], 400))),
    "bytes": ready(train_byte_bpe(lambda: [TEXT], 500)),
    "own tokens": ready(with_tokens(train_wordpiece(lambda: [JOINED], 400))),
    "own tokens of bytes": ready(with_tokens(train_byte_bpe(lambda: [TEXT], 500))),
}
ENCODERS = {name: Encoder(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def check(name: str, texts: list[str]) -> None:
    found = ENCODERS[name].encode(texts)
    assert len(found) == len(texts)
    for text, ids in zip(texts, found, strict=True):
        assert ids.dtype == np.int32
        assert ids.tolist() == TOKENIZERS[name].encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=300, deadline=None)
@given(texts=TEXTS)
def test_any_texts(name: str, texts: list[str]) -> None:
    check(name, texts)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_all_kinds_take_the_short_way(name: str) -> None:
    assert ENCODERS[name]._words_of is not None
    check(name, [" ".join(TEXT.split())[:50_000], "", " ", "\n"])


def test_a_memory_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_MOST_WORDS", 20)
    parts = [" ".join(TEXT[start : start + 300].split()) for start in range(0, 6000, 300)]
    for part in parts:
        check("uncased", [part])
        assert len(ENCODERS["uncased"]._numbers) < 20 + len(part)


def test_tokens_that_hold_blanks_keep_texts_whole(tmp_path: Path) -> None:
    for token in ("of the", "(see)", "don't", AddedToken("\u4eba\u6c11", normalized=True)):
        tokenizer = train_wordpiece(lambda: [TEXT], 400, lowercase=True)
        tokenizer.add_tokens([token])
        whole = Encoder(ready(tokenizer))
        assert whole._words_of is None
        text = "one of the two (see) don't\u4eba\u6c11"
        assert whole.encode([text])[0].tolist() == tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer = train_byte_bpe(lambda: [TEXT], 400)
    tokenizer.add_tokens([AddedToken("<ent>", rstrip=True)])
    assert Encoder(ready(tokenizer))._words_of is None


@needs_texts
@pytest.mark.parametrize("name", ["bert-base-uncased-vocab.txt", "gpt2-vocab.json", "roberta-base-vocab.json"])
def test_published_vocabularies(name: str) -> None:
    tokenizer = ready(load_tokenizer(DATA / "vocab" / name))
    text = " ".join(TEXT.split())
    texts = [text, TEXT[:5000]]
    for one, ids in zip(texts, Encoder(tokenizer).encode(texts), strict=True):
        assert ids.tolist() == tokenizer.encode(one, add_special_tokens=False).ids
