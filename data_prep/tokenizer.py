"""Stage `tokenizer`: a WordPiece or byte-level BPE vocabulary, trained on the train split or loaded from files.

Knows nothing of raw files or rows.
"""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from data_prep.corpus import Corpus, check_file, is_made, lock, required_manifest, staged_folder
from data_prep.documents import SPLITS, Document, read_documents
from data_prep.ingest import check_clean, clean_inputs
from data_prep.manifest import UserError, sha256_file, write_manifest
from data_prep.tokenization.files import LoadedVocabulary, load_tokenizer, load_vocabulary
from data_prep.tokenization.train import MAX_ALPHABET, MIN_PAIR_COUNT, train_byte_bpe, train_wordpiece
from data_prep.tokenization.vocabulary import (
    continuation_ids,
    model_kind,
    single_character_ids,
    special_ids,
    special_tokens,
    vocabulary_size,
)

__all__ = [
    "Kind",
    "continuation_ids",
    "finished_tokenizer",
    "load_tokenizer",
    "make_tokenizer",
    "measure",
    "open_tokenizer",
    "special_ids",
    "special_tokens",
]

Kind = Literal["wordpiece", "bpe"]
TOKENIZER_FILE = "tokenizer.json"
# Documents come in the order of a hash, so that the first of them are a fair sample of a large corpus.
TRAINING_CHARACTERS = 1 << 28
MEASURED_DOCUMENTS = 1000


def make_tokenizer(
    corpus: Corpus,
    vocab_size: int | None,
    kind: Kind = "wordpiece",
    lowercase: bool = True,
    load: Path | None = None,
    force: bool = False,
) -> None:
    """Make `tokenizer/tokenizer.json`: train `vocab_size` entries of a kind, or take the files at `load`.

    `lowercase` is for training WordPiece; byte-level BPE keeps every byte, and files say themselves what they do.
    Raises UserError where the vocabulary asked for cannot be had from this text or those files.
    """
    if load is None and vocab_size is None:
        raise UserError("either --vocab-size N (train a vocabulary) or --load FILE (take one) is needed")
    started = time.time()
    inputs = clean_inputs(corpus)
    loaded = None if load is None else load_vocabulary(load)
    settings = {"kind": "loaded", "vocab_size": vocab_size}
    if loaded is None:
        settings |= _training_settings(kind, lowercase)
    else:
        inputs["loaded_sha256"] = loaded.sha256
    with lock(corpus):
        if is_made(corpus.tokenizer, "tokenizer", settings, inputs, force):
            print(f"tokenizer: {corpus.tokenizer} is done and unchanged, skipped")
            return
        for split in SPLITS:
            check_clean(corpus, split)
        if loaded is not None:
            tokenizer = _checked_size(loaded, vocab_size, load)
        else:
            assert vocab_size is not None
            tokenizer = _train(corpus, vocab_size, kind, lowercase)
        with staged_folder(corpus.tokenizer) as folder:
            path = folder / TOKENIZER_FILE
            path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
            documents = islice(read_documents(corpus.clean, "val"), MEASURED_DOCUMENTS)
            results: dict[str, Any] = {
                "kind": model_kind(tokenizer),
                "vocab_size": vocabulary_size(tokenizer),
                "special_tokens": special_ids(tokenizer),
                "special_token_texts": special_tokens(tokenizer),
                "appended_special_tokens": loaded.appended if loaded else (),
                "sha256": sha256_file(path),
                **measure(open_tokenizer(path, sha256_file(path)), documents),
            }
            write_manifest(folder, "tokenizer", settings, inputs, started, results)
    _say(results, vocab_size, load)


def finished_tokenizer(corpus: Corpus) -> tuple[Tokenizer, dict[str, Any]]:
    """The corpus's tokenizer, its file checked against the recorded hash, and its manifest's results."""
    results = required_manifest(corpus.tokenizer, f"tokenizer --corpus {corpus.root} --vocab-size N")["results"]
    return open_tokenizer(corpus.tokenizer / TOKENIZER_FILE, results["sha256"]), results


def open_tokenizer(path: Path, sha256: str) -> Tokenizer:
    """The tokenizer of a file with these bytes, for the text of a corpus: "[SEP]" or "</s>" in it is text.

    That is a state of the object, which pickling loses: open it in every process. Raises UserError for other bytes.
    """
    check_file(path, sha256, "run tokenizer again with --force")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def measure(tokenizer: Tokenizer, documents: Iterable[Document]) -> dict[str, float]:
    """How finely documents are cut: tokens a word between white space (fertility), a character and a byte of UTF-8.

    And the shares of the tokens that are unknown, and that are one character or a part of one, one-letter words
    and punctuation included.
    """
    counts = np.zeros(vocabulary_size(tokenizer), np.int64)
    words = characters = size = 0
    for document in documents:
        ids = tokenizer.encode(document.text, add_special_tokens=False).ids
        counts += np.bincount(ids, minlength=len(counts))
        words += len(document.text.split())
        characters += len(document.text)
        size += len(document.text.encode())
    tokens = int(counts.sum())
    return {
        "tokens_per_word": tokens / max(1, words),
        "tokens_per_character": tokens / max(1, characters),
        "tokens_per_byte": tokens / max(1, size),
        "unknown_rate": int(counts[special_ids(tokenizer)["unk"]]) / max(1, tokens),
        "single_character_rate": int(counts[single_character_ids(tokenizer)].sum()) / max(1, tokens),
    }


def _training_settings(kind: Kind, lowercase: bool) -> dict[str, Any]:
    own = (
        {"lowercase": lowercase, "max_alphabet": MAX_ALPHABET}
        if kind == "wordpiece"
        else {"min_pair_count": MIN_PAIR_COUNT}
    )
    return {"kind": kind, "training_characters": TRAINING_CHARACTERS, **own}


def _train(corpus: Corpus, vocab_size: int, kind: Kind, lowercase: bool) -> Tokenizer:
    if kind == "wordpiece":
        return train_wordpiece(lambda: _training_texts(corpus), vocab_size, lowercase)
    return train_byte_bpe(lambda: _training_texts(corpus), vocab_size)


def _checked_size(loaded: LoadedVocabulary, vocab_size: int | None, load: Path | None) -> Tokenizer:
    found = vocabulary_size(loaded.tokenizer)
    if vocab_size not in (None, found):
        raise UserError(
            f"--vocab-size {vocab_size} differs from the {found} entries of {load}; "
            "leave --vocab-size away to take the file as it is"
        )
    return loaded.tokenizer


def _training_texts(corpus: Corpus) -> Iterator[str]:
    """The train split's texts in their order, up to TRAINING_CHARACTERS in all."""
    split = required_manifest(corpus.clean, "ingest")["results"]["splits"]["train"]
    total = min(split["characters"], TRAINING_CHARACTERS)
    with tqdm(total=total, desc="tokenizer", unit="B", unit_scale=True, disable=None) as bar:
        left = TRAINING_CHARACTERS
        for document in read_documents(corpus.clean, "train"):
            text = document.text[:left]
            yield text
            bar.update(len(text))
            left -= len(text)
            if not left:
                return


def _say(results: dict[str, Any], vocab_size: int | None, load: Path | None) -> None:
    print(
        f"tokenizer: {results['kind']}, {results['vocab_size']:,} entries; on val {results['tokens_per_word']:.3f} "
        f"tokens a word, {results['tokens_per_character']:.3f} a character, {results['tokens_per_byte']:.3f} a byte; "
        f"{results['unknown_rate']:.3%} unknown, {results['single_character_rate']:.1%} single characters"
    )
    if results["appended_special_tokens"]:
        added = results["appended_special_tokens"]
        print(f"tokenizer: {load} lacks {' '.join(added)}: added as the last {len(added)} ids")
    if vocab_size is not None and results["vocab_size"] < vocab_size:
        print(f"tokenizer: the text yields no more than {results['vocab_size']:,} of {vocab_size:,} entries")
