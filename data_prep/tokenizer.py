"""Stage `tokenizer`: a BERT-style WordPiece vocabulary, trained on the train split or loaded from a file.

Knows nothing of raw files or rows.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tqdm import tqdm

from data_prep.corpus import Corpus, check_file, is_made, lock, required_manifest, staged_folder
from data_prep.documents import Document, read_documents
from data_prep.ingest import clean_inputs
from data_prep.manifest import UserError, sha256_file, write_manifest

SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
TOKENIZER_FILE = "tokenizer.json"
MAX_ALPHABET = 256
# Documents come in the order of a hash, so that the first of them are a fair sample of a large corpus.
TRAINING_CHARACTERS = 1 << 30
MEASURED_DOCUMENTS = 1000
_CONTINUATION = "##"


def make_tokenizer(corpus: Corpus, vocab_size: int | None, load: Path | None = None, force: bool = False) -> None:
    """Make `tokenizer/tokenizer.json`: train `vocab_size` entries, or take the tokenizer of the file `load`.

    Raises UserError where the vocabulary asked for cannot be had from this text or that file.
    """
    if load is None and vocab_size is None:
        raise UserError("either --vocab-size N (train a vocabulary) or --load FILE (take one) is needed")
    started = time.time()
    inputs = clean_inputs(corpus)
    if load is not None:
        if not load.is_file():
            raise UserError(f"--load {load} is not a file; wanted is a vocab.txt or tokenizer.json")
        inputs["loaded_sha256"] = sha256_file(load)
    settings = {
        "kind": "wordpiece" if load is None else "loaded",
        "vocab_size": vocab_size,
        "max_alphabet": MAX_ALPHABET,
        "training_characters": TRAINING_CHARACTERS,
    }
    with lock(corpus):
        if is_made(corpus.tokenizer, "tokenizer", settings, inputs, force):
            print(f"tokenizer: {corpus.tokenizer} is done and unchanged, skipped")
            return
        if load is None:
            assert vocab_size is not None
            tokenizer = train_wordpiece(lambda: _training_texts(corpus), vocab_size)
        else:
            tokenizer = load_tokenizer(load)
            if vocab_size is not None and vocab_size != vocabulary_size(tokenizer):
                raise UserError(
                    f"--vocab-size {vocab_size} differs from the {vocabulary_size(tokenizer)} entries of {load}; "
                    "leave --vocab-size away to take the file as it is"
                )
        with staged_folder(corpus.tokenizer) as folder:
            path = folder / TOKENIZER_FILE
            path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
            results: dict[str, Any] = {
                "vocab_size": vocabulary_size(tokenizer),
                "special_tokens": special_ids(tokenizer, TOKENIZER_FILE),
                "sha256": sha256_file(path),
                **measure(tokenizer, islice(read_documents(corpus.clean, "val"), MEASURED_DOCUMENTS)),
            }
            write_manifest(folder, "tokenizer", settings, inputs, started, results)
    print(
        f"tokenizer: {results['vocab_size']:,} entries, {results['tokens_per_word']:.3f} tokens a word, "
        f"{results['unknown_rate']:.3%} unknown (on val)"
    )
    if vocab_size is not None and results["vocab_size"] < vocab_size:
        print(f"tokenizer: the text yields no more than {results['vocab_size']:,} of {vocab_size:,} entries")


def finished_tokenizer(corpus: Corpus) -> tuple[Tokenizer, dict[str, Any]]:
    """The corpus's tokenizer, its file checked against the recorded hash, and its manifest's results."""
    results = required_manifest(corpus.tokenizer, f"tokenizer --corpus {corpus.root} --vocab-size N")["results"]
    path = corpus.tokenizer / TOKENIZER_FILE
    check_file(path, results["sha256"], "run tokenizer again with --force")
    return Tokenizer.from_file(str(path)), results


def train_wordpiece(texts: Callable[[], Iterable[str]], vocab_size: int) -> Tokenizer:
    """A lower-casing BERT WordPiece tokenizer of at most `vocab_size` entries, the same on every run.

    `texts` is called for a fresh iterator, twice. The trainer of `tokenizers` numbers the characters that
    continue a word in the order of a randomly seeded hash table, and breaks ties between merges by these
    numbers; so they are fixed beforehand: counted here, and handed over as if they were special tokens.
    """
    tokenizer = _bert_tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk"]), lowercase=True)
    alphabet = _alphabet(tokenizer, texts())
    specials = list(SPECIAL_TOKENS.values())
    fixed = specials + alphabet + [_CONTINUATION + char for char in alphabet if _continues(tokenizer, char)]
    if vocab_size < len(fixed):
        raise UserError(
            f"--vocab-size {vocab_size} is too small: {len(specials)} special tokens and the text's "
            f"{len(alphabet)} commonest characters alone take {len(fixed)} entries"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=fixed,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=_CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return _bert_tokenizer(_word_piece(tokenizer.get_vocab(with_added_tokens=False)), lowercase=True)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a BERT `vocab.txt` (ids are line numbers) or of a `tokenizer.json`.

    A vocab.txt does not say whether its text was lower-cased: it was, when no entry has a capital letter.
    Raises UserError for an unreadable file, a repeated entry or a missing special token.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte offset {error.start}); wanted vocab.txt or tokenizer.json"
        ) from error
    if content.lstrip().startswith("{"):
        try:
            tokenizer = Tokenizer.from_str(content)
        except Exception as error:  # tokenizers raises bare Exception for every malformed file
            raise UserError(f"{path} is not a tokenizer.json that tokenizers can read: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
    else:
        entries = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]
        repeated = [entry for entry, count in Counter(entries).items() if count > 1]
        if repeated:
            raise UserError(f"{path} repeats {len(repeated)} entries, the first is {repeated[0]!r}; ids would shift")
        vocab = {entry: number for number, entry in enumerate(entries)}
        _check_specials(vocab, path)
        plain = vocab.keys() - set(SPECIAL_TOKENS.values())
        lowercase = all(entry == entry.lower() for entry in plain)
        tokenizer = _bert_tokenizer(_word_piece(vocab), lowercase)
    special_ids(tokenizer, path)
    return tokenizer


def special_ids(tokenizer: Tokenizer, path: Path | str) -> dict[str, int]:
    """Ids of pad, unk, cls, sep and mask; UserError naming `path` where one is missing."""
    vocab = tokenizer.get_vocab()
    _check_specials(vocab, path)
    return {role: vocab[token] for role, token in SPECIAL_TOKENS.items()}


def measure(tokenizer: Tokenizer, documents: Iterable[Document]) -> dict[str, float]:
    """Fertility (tokens a word between white space) and the share of tokens that are unknown."""
    unknown_id = special_ids(tokenizer, "the tokenizer")["unk"]
    words = tokens = unknown = 0
    for document in documents:
        ids = tokenizer.encode(document.text, add_special_tokens=False).ids
        words += len(document.text.split())
        tokens += len(ids)
        unknown += ids.count(unknown_id)
    return {"tokens_per_word": tokens / max(1, words), "unknown_rate": unknown / max(1, tokens)}


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the highest id."""
    return max(tokenizer.get_vocab().values()) + 1


def _training_texts(corpus: Corpus) -> Iterator[str]:
    split = required_manifest(corpus.clean, "ingest")["results"]["splits"]["train"]
    total = min(split["characters"], TRAINING_CHARACTERS)
    with tqdm(total=total, desc="tokenizer", unit="B", unit_scale=True, disable=None) as bar:
        seen = 0
        for document in read_documents(corpus.clean, "train"):
            if seen >= TRAINING_CHARACTERS:
                return
            yield document.text
            seen += len(document.text)
            bar.update(len(document.text))


def _bert_tokenizer(model: models.WordPiece, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUATION)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS.values()}
    if all(number is not None for number in ids.values()):
        tokenizer.add_special_tokens(list(ids))
        cls, sep = SPECIAL_TOKENS["cls"], SPECIAL_TOKENS["sep"]
        tokenizer.post_processor = processors.BertProcessing((sep, ids[sep]), (cls, ids[cls]))
    return tokenizer


def _word_piece(vocab: dict[str, int]) -> models.WordPiece:
    return models.WordPiece(vocab, unk_token=SPECIAL_TOKENS["unk"], continuing_subword_prefix=_CONTINUATION)


def _alphabet(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The commonest MAX_ALPHABET characters after normalisation, sorted by code point."""
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(text)
    normal: Counter[str] = Counter()
    for char, count in raw.items():
        for part in tokenizer.normalizer.normalize_str(char):
            if not part.isspace():
                normal[part] += count
    commonest = sorted(normal, key=lambda char: (-normal[char], char))[:MAX_ALPHABET]
    return sorted(commonest)


def _continues(tokenizer: Tokenizer, char: str) -> bool:
    """Whether a character may stand inside a word; punctuation and ideographs are words by themselves."""
    word = tokenizer.normalizer.normalize_str(f"a{char}")
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(word)] == [f"a{char}"]


def _check_specials(vocab: Mapping[str, int], path: Path | str) -> None:
    missing = [token for token in SPECIAL_TOKENS.values() if token not in vocab]
    if missing:
        raise UserError(f"{path} lacks the special tokens {', '.join(missing)}; wanted is a BERT vocabulary")
