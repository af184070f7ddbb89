import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_prep.errors import UserError
from data_prep.tokenization.train import train_byte_bpe
from data_prep.tokenization.vocabulary import (
    BYTE_SYMBOLS,
    bert_tokenizer,
    continuation_ids,
    for_documents,
    model_kind,
    single_character_ids,
    special_ids,
    special_tokens,
    vocabulary_size,
    word_piece,
)
from tests.data_prep.vocabularies import BERT_SPECIALS, HARD_TEXTS, ROBERTA_SPECIALS


def wordpiece(*entries: str) -> Tokenizer:
    vocab = {entry: number for number, entry in enumerate([*BERT_SPECIALS, *entries])}
    return bert_tokenizer(word_piece(vocab), normalizers.BertNormalizer(lowercase=True))


def tokens(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    assert ids == sorted(ids)
    return [tokenizer.id_to_token(number) for number in ids]


def test_symbols_of_bytes_are_those_of_the_library() -> None:
    assert sorted(BYTE_SYMBOLS) == sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in HARD_TEXTS[1:]:
        ((found, _),) = plain.pre_tokenize_str(text)
        assert found == "".join(BYTE_SYMBOLS[byte] for byte in text.encode())


def test_wordpiece_entries() -> None:
    tokenizer = wordpiece("sea", "##s", "a", "##", "#", "##ing", "\u4eba", "[unused1]")
    assert tokens(tokenizer, continuation_ids(tokenizer)) == ["##s", "##ing"]
    assert tokens(tokenizer, single_character_ids(tokenizer)) == ["##s", "a", "##", "#", "\u4eba"]
    assert special_tokens(tokenizer) == dict(zip(["pad", "unk", "cls", "sep", "mask"], BERT_SPECIALS, strict=True))
    assert special_ids(tokenizer) == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert (model_kind(tokenizer), vocabulary_size(tokenizer)) == ("wordpiece", 13)


def test_byte_level_entries() -> None:
    story = ["the sea, the seas \u4eba\u4eba \u4eba it's\n\nit's"] * 4
    tokenizer = train_byte_bpe(lambda: story, 5 + 256 + 14)
    continuing, single = continuation_ids(tokenizer), single_character_ids(tokenizer)
    assert not {*continuing, *single} & set(range(5))
    ids = tokenizer.encode("the sea, it's\n\u4eba \u4eba", add_special_tokens=False).ids
    assert tokenizer.decode(ids) == "the sea, it's\n\u4eba \u4eba"
    pieces = [(tokenizer.decode([number]), number in continuing, number in single) for number in ids]
    assert pieces == [
        ("the", True, False), (" sea", False, False), (",", True, True), (" it", False, False),
        ("'s", True, False), ("\n", False, True), ("\u4eba", True, True), (" \u4eba", False, True),
    ]  # fmt: skip
    assert set(tokenizer.encode("\u00ff\U0001f426", add_special_tokens=False).ids) <= set(single)
    assert special_tokens(tokenizer) == {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
    assert special_ids(tokenizer) == {"pad": 1, "unk": 3, "cls": 0, "sep": 2, "mask": 4}
    assert (model_kind(tokenizer), vocabulary_size(tokenizer)) == ("bpe", 275)


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=5), min_size=1, max_size=8))
def test_byte_level_words_begin_where_white_space_does(words: list[str]) -> None:
    tokenizer = train_byte_bpe(lambda: [" ".join(words)] * 2, 320)
    continuing = set(continuation_ids(tokenizer))
    ids = tokenizer.encode(" " + " ".join(words), add_special_tokens=False).ids
    assert sum(number not in continuing for number in ids) == len(words)


@pytest.mark.parametrize("kind", ["wordpiece", "bytes"])
def test_of_the_special_tokens_only_the_structural_ones_are_text_in_a_document(kind: str) -> None:
    """As transformers finds them, but for the five: in number, place and id."""
    texts = ["the sea [URL] the [USER]'s sea.[URL] ##s [SEP] </s>", "[MASK]<mask>[URL]", "[url] [UNK] <unk>"]
    made = wordpiece("the", "sea", "##s", "s", "'", ".") if kind == "wordpiece" else train_byte_bpe(lambda: texts, 300)
    structural = set(special_ids(made).values())
    made.add_special_tokens(["[URL]", AddedToken("[USER]", normalized=True)])
    stock = PreTrainedTokenizerFast(tokenizer_object=made)
    before = made.to_str()
    for_texts = for_documents(made)
    for_texts.encode_special_tokens = True
    added = [made.token_to_id(token) for token in ("[URL]", "[USER]")]
    for text in texts:
        theirs = stock(text, add_special_tokens=False).input_ids
        ours = for_texts.encode(text, add_special_tokens=False).ids
        assert [number for number in ours if number in added] == [number for number in theirs if number in added]
        assert not (structural - {special_ids(made)["unk"]}) & set(ours)
        if not structural & set(theirs):
            assert ours == theirs
    assert made.to_str() == before
    assert not {*continuation_ids(for_texts), *single_character_ids(for_texts)} & set(added)
    assert continuation_ids(for_texts) == continuation_ids(made)
    plain = wordpiece("sea")
    assert for_documents(plain) is plain


def test_sentencepiece_and_whole_words() -> None:
    entries = [*ROBERTA_SPECIALS, "\u2581sea", "s", "\u2581a", "\u2581", "ing"]
    tokenizer = Tokenizer(models.Unigram([(entry, -1.0) for entry in entries], 3))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    assert tokens(tokenizer, continuation_ids(tokenizer)) == ["s", "ing"]
    assert tokens(tokenizer, single_character_ids(tokenizer)) == ["s", "\u2581a", "\u2581"]
    entries = [*BERT_SPECIALS, "sea", "a"]
    words = Tokenizer(models.WordLevel({entry: n for n, entry in enumerate(entries)}, unk_token="[UNK]"))
    assert continuation_ids(words) == []
    assert tokens(words, single_character_ids(words)) == ["a"]


def test_pieces_without_a_mark_of_words_are_refused() -> None:
    vocab = {entry: number for number, entry in enumerate([*BERT_SPECIALS, "a", "b</w>"])}
    tokenizer = Tokenizer(models.BPE(vocab, [], end_of_word_suffix="</w>"))
    with pytest.raises(UserError, match="pieces of this BPE tokenizer do not show where words begin"):
        continuation_ids(tokenizer)


def test_a_vocabulary_with_both_names_of_special_tokens_is_berts() -> None:
    assert special_ids(wordpiece(*ROBERTA_SPECIALS)) == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    few = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "<s>": 3}, unk_token="[UNK]"))
    with pytest.raises(UserError, match=r"^file lacks the special tokens \[SEP\], \[MASK\]; wanted are BERT's"):
        special_ids(few, "file")
