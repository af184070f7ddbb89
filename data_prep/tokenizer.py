"""Stage `tokenizer`: a WordPiece or byte-level BPE vocabulary, trained on the train split or loaded from files.

Knows nothing of raw files or rows.
"""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer
from tqdm import tqdm

from data_prep.corpus import Corpus, check_file, is_made, lock, required_manifest, staged_folder
from data_prep.documents import SPLITS, Document, Split, read_documents
from data_prep.errors import UserError
from data_prep.files import sha256_file
from data_prep.ingest import check_clean, clean_inputs
from data_prep.manifest import write_manifest
from data_prep.terminal import escaped, show
from data_prep.tokenization.files import LoadedVocabulary, load_tokenizer, load_vocabulary
from data_prep.tokenization.habits import habits_of, lost_to
from data_prep.tokenization.measures import LONGEST_WORD, measure
from data_prep.tokenization.train import (
    ALPHABET_COVERS,
    ALPHABET_SHARE,
    LEAST_ALPHABET,
    MIN_PAIR_COUNT,
    train_byte_bpe,
    train_wordpiece,
)
from data_prep.tokenization.vocabulary import (
    continuation_ids,
    for_documents,
    model_kind,
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
# Of each split: so many documents, fewer where they are books.
MEASURED_DOCUMENTS, MEASURED_CHARACTERS = 1000, 1 << 24
# Of the characters: above the first the most frequent lost words are shown, above the second nothing is made.
LOST_WARNING, LOST_LIMIT = 0.01, 0.2
_LOSSES = ("unknown_rate", "lost_rate", "lost_words")
_SPLIT_NAMES = {"train": "training", "val": "validation"}
_EXAMPLES = 5


def make_tokenizer(
    corpus: Corpus,
    vocab_size: int | None,
    kind: Kind | None = None,
    cased: bool | None = None,
    strip_accents: bool | None = None,
    load: Path | None = None,
    force: bool = False,
) -> None:
    """Make `tokenizer/tokenizer.json`: train `vocab_size` entries of a kind (None: WordPiece), or take those at `load`.

    `cased` and `strip_accents` are for WordPiece. When it is trained, None means lower-cased with its accents; of
    files, what they say or, where they do not, a guess that is printed. Byte-level BPE keeps every byte.
    Raises UserError where the vocabulary asked for cannot be had from this text or those files, and where it would
    lose more than LOST_LIMIT of the text.
    """
    if load is None and vocab_size is None:
        raise UserError("either --vocab-size N (train a vocabulary) or --load FILE (take one) is needed")
    if load is not None and kind is not None:
        raise UserError(f"--kind {kind} says what to train, but --load {load} brings its own kind: leave one away")
    started = time.time()
    inputs = clean_inputs(corpus)
    loaded = None if load is None else load_vocabulary(load, cased, strip_accents)
    settings: dict[str, Any] = {
        "kind": "loaded", "vocab_size": vocab_size, "cased": cased, "strip_accents": strip_accents
    }  # fmt: skip
    if loaded is None:
        settings = {"vocab_size": vocab_size, **_training_settings(kind or "wordpiece", cased, strip_accents)}
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
            tokenizer = _train(corpus, vocab_size, settings)
        with staged_folder(corpus.tokenizer) as folder:
            path = folder / TOKENIZER_FILE
            path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
            opened = open_tokenizer(path, sha256_file(path))
            measures = {split: measure(opened, _measured(corpus, split)) for split in SPLITS}
            results: dict[str, Any] = {
                "kind": model_kind(tokenizer),
                "vocab_size": vocabulary_size(tokenizer),
                "special_tokens": special_ids(tokenizer),
                "special_token_texts": special_tokens(tokenizer),
                "appended_special_tokens": loaded.appended if loaded else (),
                "guessed": loaded.guessed if loaded else (),
                "assumed": loaded.assumed if loaded else (),
                "composed_entries": loaded.composed if loaded else 0,
                "sha256": sha256_file(path),
                **measures["val"],
                "train": {key: measures["train"][key] for key in _LOSSES},
            }
            for split in SPLITS:
                _check_loss(split, measures[split], results, load)
            write_manifest(folder, "tokenizer", settings, inputs, started, results)
    for line in _lines(tokenizer, results, vocab_size, load):
        show(f"tokenizer: {line}")


def finished_tokenizer(corpus: Corpus) -> tuple[Tokenizer, dict[str, Any]]:
    """The corpus's tokenizer, its file checked against the recorded hash, and its manifest's results."""
    results = required_manifest(corpus.tokenizer, f"tokenizer --corpus {corpus.root} --vocab-size N")["results"]
    return open_tokenizer(corpus.tokenizer / TOKENIZER_FILE, results["sha256"]), results


def open_tokenizer(path: Path, sha256: str) -> Tokenizer:
    """The tokenizer of a file with these bytes, for the text of a corpus: "[SEP]" or "</s>" in it is text.

    So are the five structural tokens only; other special tokens of a loaded tokenizer are found in the text, as they
    will be when the exported model is used. That is a state of the object, which pickling loses: open it in every
    process. Raises UserError for other bytes.
    """
    check_file(path, sha256, "run tokenizer again with --force")
    tokenizer = for_documents(Tokenizer.from_file(str(path)))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _training_settings(kind: Kind, cased: bool | None, strip_accents: bool | None) -> dict[str, Any]:
    if kind == "bpe":
        if cased is False or strip_accents:
            said = "--no-cased (corpus.cased = false)" if cased is False else "--strip-accents (corpus.strip_accents)"
            raise UserError(f"{said} is for WordPiece; --kind bpe keeps every byte: leave one of the two away")
        own: dict[str, Any] = {"min_pair_count": MIN_PAIR_COUNT}
    else:
        own = {
            "lowercase": not cased,
            "strip_accents": bool(strip_accents),
            "alphabet": [LEAST_ALPHABET, ALPHABET_SHARE, ALPHABET_COVERS],
        }
    return {"kind": kind, "training_characters": TRAINING_CHARACTERS, **own}


def _train(corpus: Corpus, vocab_size: int, settings: dict[str, Any]) -> Tokenizer:
    if settings["kind"] == "wordpiece":
        habits = settings["lowercase"], settings["strip_accents"]
        return train_wordpiece(lambda: _training_texts(corpus), vocab_size, *habits)
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


def _measured(corpus: Corpus, split: Split) -> Iterator[Document]:
    """The sample of a split that a vocabulary is measured on: whole documents, the first in any case."""
    left = MEASURED_CHARACTERS
    for document in islice(read_documents(corpus.clean, split), MEASURED_DOCUMENTS):
        yield document
        left -= len(document.text)
        if left <= 0:
            return


def _check_loss(split: Split, measures: dict[str, Any], results: dict[str, Any], load: Path | None) -> None:
    documents = f"{_SPLIT_NAMES[split]} documents"
    if not measures["tokens_per_character"]:
        raise UserError(f"{load or 'the vocabulary'} makes no token at all of the {documents}; name another one")
    if measures["lost_rate"] <= LOST_LIMIT:
        return
    lost_as = results["special_token_texts"]["unk"] if measures["unknown_rate"] else "nothing"
    is_long = results["kind"] == "wordpiece" and 2 * measures["lost_long_rate"] > measures["lost_rate"]
    long = f", being in words of more than {LONGEST_WORD} characters, as texts without spaces have them"
    cures = [*_unsaid(results, load)]
    if load is None and not is_long:
        cures.append(
            f"raise --vocab-size (corpus.vocab_size): single characters get {ALPHABET_SHARE:.0%} of the entries, at "
            f"least {LEAST_ALPHABET}"
        )
    cures.append(
        "nothing is unknown to byte-level BPE: train it with --kind bpe (corpus.tokenizer_kind), or name a vocabulary "
        "made for this text with --load (corpus.tokenizer)"
    )
    raise UserError(
        f"{load or 'the vocabulary'} has no entries for {measures['lost_rate']:.1%} of the characters of the "
        f"{documents}: they become {lost_as}{long * is_long}, the most frequent {_lost_words(measures)}; "
        f"{'; '.join(cures)}"
    )


def _unsaid(results: dict[str, Any], load: Path | None) -> Iterator[str]:
    """What the files of a vocabulary leave open, how it was decided, and what decides it otherwise."""
    keys = "--cased and --strip-accents (corpus.cased, corpus.strip_accents), or their --no- forms"
    config = "tokenize_chinese_chars in a tokenizer_config.json beside it"
    for found, means in (("guessed", "guessed from the entries"), ("assumed", "the default of the class it is for")):
        if results[found]:
            # The last one, where it is there.
            is_spacing = "Chinese" in results[found][-1]
            deciding = [keys] * (len(results[found]) > is_spacing) + [config] * is_spacing
            yield (
                f"{load} does not say how its text was made; {means}: {', '.join(results[found])}; "
                f"to say it: {', '.join(deciding)}"
            )


def _lines(tokenizer: Tokenizer, results: dict[str, Any], vocab_size: int | None, load: Path | None) -> Iterator[str]:
    """What the stage says of a vocabulary."""
    yield (
        f"{results['kind']}, {results['vocab_size']:,} entries; on val {results['tokens_per_word']:.3f} "
        f"tokens a word, {results['tokens_per_character']:.3f} a character, {results['tokens_per_byte']:.3f} a byte; "
        f"{results['unknown_rate']:.3%} unknown, {results['lost_rate']:.3%} of the characters lost, "
        f"{results['single_character_rate']:.1%} single characters"
    )
    if results["changed_letters"]:
        shown = ", ".join(f"{change} {times:,} times" for change, times in letter_changes(results)[:_EXAMPLES])
        share = results["changed_letters"] / results["letters"]
        yield f"{results['changed_letters']:,} letters ({share:.2%}) are changed apart from case: {shown}"
    found, where = max((results, "val"), (results["train"], "train"), key=lambda each: each[0]["lost_rate"])
    if found["lost_rate"] > LOST_WARNING or found["unknown_rate"] > LOST_WARNING:
        yield (
            f"warning: on {where} {found['unknown_rate']:.1%} of the tokens are unknown and {found['lost_rate']:.1%} "
            f"of the characters lost, most often {_lost_words(found)}"
        )
    yield from _unsaid(results, load)
    if results["composed_entries"]:
        yield f"{_entries(results['composed_entries'])} taken in Unicode NFC, in which documents are"
    if load is not None:
        added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        unreached = lost_to(tokenizer.get_vocab().keys() - added, habits_of(tokenizer))
        if unreached:
            named = ", ".join(escaped(entry) for entry in sorted(unreached)[:_EXAMPLES])
            done = "lower-cased, stripped or composed"
            yield f"{_entries(len(unreached))} never reached, as text is {done} before: {named}"
    if results["appended_special_tokens"]:
        added = results["appended_special_tokens"]
        yield f"{load} lacks {' '.join(added)}: added as the last {len(added)} ids"
    if vocab_size is not None and results["vocab_size"] < vocab_size:
        yield f"the text yields no more than {results['vocab_size']:,} of {vocab_size:,} entries"


def _entries(count: int) -> str:
    return "1 entry is" if count == 1 else f"{count:,} entries are"


def letter_changes(results: dict[str, Any]) -> list[tuple[str, int]]:
    """The most frequent changes that a tokenizer makes to letters, in words, and how often each was met."""
    return [
        (f"{escaped(before)} to {escaped(after) or 'nothing'}", times)
        for before, after, times in results["letter_changes"]
    ]


def _lost_words(results: dict[str, Any]) -> str:
    return ", ".join(f"{escaped(word)} {times:,} times" for word, times in results["lost_words"][:_EXAMPLES])
