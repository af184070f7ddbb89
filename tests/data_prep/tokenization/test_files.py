import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertTokenizerFast, GPT2TokenizerFast, RobertaTokenizerFast

from data_prep.errors import UserError
from data_prep.files import sha256_file, sha256_json
from data_prep.tokenization.files import MAX_FILE_BYTES, load_tokenizer, load_vocabulary
from data_prep.tokenization.train import train_byte_bpe, train_wordpiece
from data_prep.tokenization.vocabulary import BYTE_SYMBOLS, special_ids
from tests.conftest import REAL_DATA
from tests.data_prep.vocabularies import (
    BERT_SPECIALS,
    ROBERTA_SPECIALS,
    paragraphs,
    save,
    texts,
    write_vocab_json,
    write_vocab_txt,
)

VOCABULARIES = REAL_DATA / "vocab"
needs_data = pytest.mark.skipif(
    not VOCABULARIES.is_dir(), reason=f"left out: no vocabularies at {VOCABULARIES} (EARLYBIRD_DATA names a folder)"
)
LSTRIP_MASK = AddedToken("<mask>", lstrip=True, normalized=False, special=True)


def assert_same(ours: Tokenizer, theirs, text: str) -> None:
    """As transformers: ids, types and offsets of a text and of a pair."""
    for arguments in ((text,), (text, "the second")):
        wanted = theirs(*arguments, return_offsets_mapping=True, return_token_type_ids=True)
        found = ours.encode(*arguments)
        assert found.ids == wanted.input_ids, text
        assert found.type_ids == wanted.token_type_ids
        assert found.offsets == wanted.offset_mapping


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture(
    scope="module", params=[(True, True), (True, False), (False, False)], ids=["uncased", "with accents", "cased"]
)
def berts(request: pytest.FixtureRequest, folder: Path):
    lowercase, strip = request.param
    path = write_vocab_txt(folder / f"{lowercase}-{strip}.txt", lowercase, strip_accents=strip)
    return load_tokenizer(path), BertTokenizerFast(vocab=str(path), do_lower_case=lowercase, strip_accents=strip)


@pytest.fixture(scope="module")
def robertas(folder: Path):
    path = write_vocab_json(folder / "roberta", with_specials=True)
    merges = str(path.with_name("merges.txt"))
    return load_vocabulary(path), RobertaTokenizerFast(vocab=str(path), merges=merges, mask_token=LSTRIP_MASK)


@pytest.fixture(scope="module")
def gpts(folder: Path):
    path = write_vocab_json(folder / "gpt2", with_specials=False)
    return load_vocabulary(path.parent), GPT2TokenizerFast(vocab=str(path), merges=str(path.with_name("merges.txt")))


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_a_vocab_txt_gives_what_berts_tokenizer_gives(berts, text: str) -> None:
    assert_same(*berts, text)
    assert berts[0].decode(berts[0].encode(text).ids) == berts[1].decode(berts[1](text).input_ids, True)


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_a_vocab_json_gives_what_robertas_tokenizer_gives(robertas, text: str) -> None:
    assert_same(robertas[0].tokenizer, robertas[1], text)


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_a_vocab_json_gives_what_gpt2s_tokenizer_gives_and_gives_back_the_text(gpts, text: str) -> None:
    loaded, theirs = gpts
    ids = loaded.tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == theirs(text).input_ids
    assert loaded.tokenizer.decode(ids) == text


def test_special_tokens_in_text_are_taken_as_transformers_takes_them(berts, robertas) -> None:
    assert_same(*berts, "a [MASK] b[SEP] [UNK]")
    assert_same(robertas[0].tokenizer, robertas[1], "a <mask> b</s> <s> <pad>")


def test_special_tokens_are_added_behind_the_last_id_of_a_gpt2_vocabulary(gpts, robertas) -> None:
    loaded = gpts[0]
    assert loaded.appended == ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    assert special_ids(loaded.tokenizer) == {"cls": 795, "pad": 796, "sep": 797, "unk": 798, "mask": 799}
    pair = loaded.tokenizer.encode("the sea", "a ship")
    assert [pair.ids.count(number) for number in (795, 797)] == [1, 2]
    assert pair.type_ids == [int(number > pair.ids.index(797)) for number in range(len(pair.ids))]
    assert robertas[0].appended == ()
    assert special_ids(robertas[0].tokenizer) == {"cls": 0, "pad": 1, "sep": 2, "unk": 3, "mask": 4}


def test_vocab_txt_keeps_its_ids_and_its_case(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join(["[unused0]", "sea", *BERT_SPECIALS, "\u2028", "##s"]).encode())
    loaded = load_vocabulary(tmp_path)
    assert loaded.sha256 == sha256_file(path)
    assert special_ids(loaded.tokenizer) == {"pad": 2, "unk": 3, "cls": 4, "sep": 5, "mask": 6}
    assert loaded.tokenizer.encode("SEAS").ids == [4, 1, 8, 5]
    path.write_text("\n".join([*BERT_SPECIALS, "Sea", "sea"]) + "\n", encoding="utf-8")
    assert load_tokenizer(path).encode("Sea sea SEA", add_special_tokens=False).ids == [5, 6, 1]


def test_tokenizer_json_is_taken_as_it_is(tmp_path: Path) -> None:
    made = train_wordpiece(paragraphs, 300)
    plain = made.to_str()
    made.enable_truncation(4)
    made.enable_padding(length=50)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    assert load_tokenizer(path).to_str() == plain == load_tokenizer(tmp_path).to_str()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_tokenizer(path).to_str() == plain


def sentencepiece(tokens: list[str]) -> Tokenizer:
    """A Unigram tokenizer as XLM-RoBERTa's."""
    entries = [(token, -float(number)) for number, token in enumerate(tokens)]
    tokenizer = Tokenizer(models.Unigram(entries, tokens.index("<unk>")))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    specials = [(token, tokens.index(token)) for token in ("<s>", "</s>") if token in tokens]
    if len(specials) == 2:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", specials)
    return tokenizer


def test_a_unigram_tokenizer_json_is_taken_where_it_has_the_special_tokens(tmp_path: Path) -> None:
    path = save(sentencepiece([*ROBERTA_SPECIALS, "\u2581sea", "s"]), tmp_path / "xlm.json")
    assert load_tokenizer(path).encode("sea seas").ids == [0, 5, 5, 6, 2]
    path = save(sentencepiece(["<pad>", "</s>", "<unk>", "\u2581sea"]), tmp_path / "t5.json")
    with pytest.raises(UserError, match=r"t5\.json lacks the special tokens <s>, <mask>; wanted are BERT's \[PAD\]"):
        load_tokenizer(path)


def test_merges_are_found_beside_the_vocabulary(gpts, folder: Path, tmp_path: Path) -> None:
    vocab, merges = ((folder / "gpt2" / name).read_bytes() for name in ("vocab.json", "merges.txt"))
    path = tmp_path / "mine-vocab.json"
    path.write_bytes(vocab)
    with pytest.raises(UserError, match=r"mine-vocab\.json has no merges\.txt beside it; it needs one"):
        load_tokenizer(path)
    (tmp_path / "other-merges.txt").write_bytes(merges)
    found = load_vocabulary(path)
    assert found.tokenizer.to_str() == gpts[0].tokenizer.to_str()
    assert (
        found.sha256 == gpts[0].sha256 == sha256_json([sha256_file(path), sha256_file(tmp_path / "other-merges.txt")])
    )
    (tmp_path / "third-merges.txt").write_text("a b c")
    with pytest.raises(UserError, match=r"there are other-merges\.txt, third-merges\.txt: name yours merges\.txt"):
        load_tokenizer(path)
    (tmp_path / "mine-merges.txt").write_bytes(merges)
    (tmp_path / "merges.txt").write_text("a b c")
    assert load_vocabulary(path).sha256 == found.sha256
    (tmp_path / "mine-merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges\.txt line 1 is 'a b c', wanted are two pieces"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["#version: 0.2", "a b", "t h"], r"line 3 merges 't h', but 'th' is not in the vocabulary"),
        (["a b", "xyz b"], r"line 2 merges 'xyz b', but 'xyz' is not in the vocabulary"),
        (["a b", "", "a b"], r"line 2 is '', wanted are two pieces"),
        (["a b", "ab"], r"line 2 is 'ab', wanted are two pieces"),
        (["a b", "a b"], r"line 2 repeats the merge 'a b'"),
        (["a b", "#version: 0.2"], r"line 2 merges '#version: 0\.2', but '#version:' is not"),
        (["a b", "caf\udce9 b"], r"is not UTF-8 \(byte offset 7\)"),
    ],
)
def test_bad_merges_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    vocab = {symbol: number for number, symbol in enumerate([*BYTE_SYMBOLS, "ab"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (tmp_path / "merges.txt").write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=rf"merges\.txt {message}"):
        load_tokenizer(tmp_path)


BYTES = {symbol: number for number, symbol in enumerate(BYTE_SYMBOLS)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[UNK]\nsea\n", r"lacks the special tokens \[CLS\], \[SEP\], \[MASK\]; wanted is a BERT vocab"),
        (
            "\n".join([*BERT_SPECIALS, "a", "a", "b", "b"]),
            r"repeats 2 of its entries, the first is 'a'; ids would shift",
        ),
        (b"", r"lacks the special tokens \[PAD\]"),
        (b"caf\xe9", r"is not UTF-8 \(byte offset 3\); wanted is vocab\.txt, tokenizer\.json, or vocab\.json"),
        ("[PAD]".encode("utf-16"), r"is not UTF-8 \(byte offset 0\)"),
        (b'{"version": ', r"is not valid JSON \(Expecting value: line 1 column 13"),
        (b"[" * 100_000, r"lacks the special tokens"),
        (b'{"a":' * 100_000, r"is not valid JSON \(maximum recursion depth"),
        (b'{"version": "1.0"}', r"holds neither a tokenizer\.json nor the ids of a vocab\.json"),
        (b'{"version": "1.0", "model": {"type": "WordPiece"}}', r"is not a tokenizer\.json that tokenizers can use: "),
        (b'{"a": 0, "b": 1, "a": 2}', r"repeats 1 of its entries, the first is 'a'"),
        ('{"a": 0, "b": "1"}', r"gives 'b' the id '1', wanted is a whole number"),
        ('{"a": 0, "b": true}', r"gives 'b' the id True"),
        ('{"a": 0, "b": -1}', r"gives 'b' the id -1"),
        ('{"a": 0, "b": 1, "c": 0}', r"gives the id 0 to both 'a' and 'c'"),
        (
            json.dumps(BYTES | {"big": 600}),
            r"has 257 entries and ids up to 600 \(of 'big'\): a model would need an embedding of 601 rows",
        ),
        (
            '{"a": 0, "b": 1, "!": 2}',
            r"lacks 253 of the 256 symbols of bytes, the first is '\u0100': it is not",
        ),
        (
            json.dumps(BYTES | {f"{letter}</w>": 256 + n for n, letter in enumerate("aeiou")}),
            r"marks the ends of words \(</w>\), so it is not GPT-2's kind",
        ),
    ],
)
def test_bad_vocabulary_files_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "vocab"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (tmp_path / "merges.txt").touch()
    with pytest.raises(UserError, match=rf"vocab {message}") as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value)


def test_missing_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none is not a file or folder; wanted is vocab\.txt"):
        load_tokenizer(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no tokenizer\.json, vocab\.json or vocab\.txt; name the file itself"):
        load_tokenizer(tmp_path)
    path = tmp_path / "dump.txt"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(UserError, match=r"dump\.txt has 268,435,457 bytes, a vocabulary at most 268,435,456"):
        load_tokenizer(path)


def altered(model: dict, **changes: object) -> dict[str, dict]:
    return {"model": model | changes}


def test_bad_tokenizer_json_files_are_refused(tmp_path: Path) -> None:
    bpe, path = train_byte_bpe(paragraphs, 300), tmp_path / "tokenizer.json"
    model = json.loads(bpe.to_str())["model"]
    left, right = model["merges"][3]
    gap = dict(model["vocab"]) | {left + right: 700}
    last = max(model["vocab"], key=model["vocab"].__getitem__)
    cases: list[tuple[dict[str, object], str]] = [
        (altered(model, merges=[*model["merges"], ["sea", "t"]]), r"merge 39 merges 'sea t', but 'sea' is not in"),
        (altered(model, vocab=gap), r"has 300 entries and ids up to 700 .* an embedding of 701 rows"),
        (altered(model, vocab=model["vocab"] | {last: 3}), r"gives the id 3 to both '<unk>' and"),
        (altered(model, type="Bpe"), r"is not a tokenizer\.json that tokenizers can use"),
        ({"post_processor": None}, r"adds 0 special tokens to a text and 0 to a pair, wanted are 2 and 3 or more"),
        ({"pre_tokenizer": None, "decoder": None}, r"the pieces of this BPE tokenizer do not show"),
    ]
    for changes, message in cases:
        save(bpe, path, **changes)
        with pytest.raises(UserError, match=rf"tokenizer\.json:? ?{message}"):
            load_tokenizer(path)
    wordpiece = train_wordpiece(paragraphs, 300)
    model = json.loads(wordpiece.to_str())["model"]
    save(wordpiece, path, **altered(model, unk_token="<nothing>"))
    with pytest.raises(UserError, match=r"can use: WordPiece error: Missing \[UNK\] token from the vocabulary"):
        load_tokenizer(path)
    unigram = sentencepiece([*ROBERTA_SPECIALS, "\u2581sea"])
    model = json.loads(unigram.to_str())["model"]
    save(unigram, path, **altered(model, vocab=[*model["vocab"], ["\u2581sea", -2.0]]))
    with pytest.raises(UserError, match=r"repeats 1 of its entries, the first is '\u2581sea'"):
        load_tokenizer(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats(allow_nan=False) | st.sampled_from(BERT_SPECIALS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "vocab", "id"]), inner),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_tokenizer_json_is_one_line_or_works(tmp_path: Path, data: st.DataObject) -> None:
    """Anything at any place of a good file: refused in one line, or a tokenizer that can be used."""
    made = train_wordpiece(lambda: ["the sea"], 40) if data.draw(st.booleans()) else sentencepiece(ROBERTA_SPECIALS)
    content = json.loads(made.to_str())
    place = content
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not place[key] or not isinstance(place[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    place[key] = data.draw(json_values)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    refusal = refused(path)
    assert "\n" not in refusal
    if not refusal:
        tokenizer = load_tokenizer(path)
        again = load_tokenizer(save(tokenizer, path))
        assert again.encode("the sea", "a").ids == tokenizer.encode("the sea", "a").ids


def refused(path: Path) -> str:
    """Why a file is not taken, or nothing."""
    try:
        load_tokenizer(path)
    except UserError as error:
        return str(error)
    return ""


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value)


@needs_data
@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_berts_own_vocabulary(text: str) -> None:
    path = VOCABULARIES / "bert-base-uncased-vocab.txt"
    assert_same(cached(path), cached(path, BertTokenizerFast, vocab=str(path)), text)


@needs_data
@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_gpt2s_and_robertas_own_vocabularies(text: str) -> None:
    merges = str(VOCABULARIES / "gpt2-merges.txt")
    path = VOCABULARIES / "roberta-base-vocab.json"
    theirs = cached(path, RobertaTokenizerFast, vocab=str(path), merges=merges, mask_token=LSTRIP_MASK)
    assert_same(cached(path), theirs, text)
    path = VOCABULARIES / "gpt2-vocab.json"
    ids = cached(path).encode(text, add_special_tokens=False).ids
    assert ids == cached(path, GPT2TokenizerFast, vocab=str(path), merges=merges)(text).input_ids
    assert cached(path).decode(ids) == text


@needs_data
def test_ids_of_the_real_vocabularies() -> None:
    bert, gpt2, roberta = (
        load_vocabulary(VOCABULARIES / name)
        for name in ("bert-base-uncased-vocab.txt", "gpt2-vocab.json", "roberta-base-vocab.json")
    )
    assert bert.tokenizer.encode("Hello, na\u00efve world!").ids == [101, 7592, 1010, 15743, 2088, 999, 102]
    assert roberta.tokenizer.encode("Hello world <mask>").ids == [0, 31414, 232, 50264, 2]
    assert roberta.appended == ()
    assert gpt2.tokenizer.encode("Hello world <mask>").ids == [50257, 15496, 995, 50261, 50259]
    assert gpt2.appended == tuple(ROBERTA_SPECIALS)


_made: dict[tuple[Path, object], object] = {}


def cached(path: Path, make=None, **arguments: object):
    """The tokenizer of a large vocabulary, made once."""
    if (path, make) not in _made:
        _made[path, make] = make(**arguments) if make else load_tokenizer(path)
    return _made[path, make]
