"""Training a vocabulary: WordPiece as BERT's, or byte-level BPE as RoBERTa's, the same bytes on every run.

Knows nothing of files or the corpus.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import accumulate

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from data_prep.errors import UserError
from data_prep.tokenization.habits import JOINERS, ZERO_WIDTH_SPACE, bert_normalizer
from data_prep.tokenization.vocabulary import (
    BERT_TOKENS,
    BYTE_SYMBOLS,
    CONTINUATION,
    ROBERTA_TOKENS,
    bert_tokenizer,
    byte_level_tokenizer,
    word_piece,
)

# The alphabet: so many of the commonest characters; more, up to a share of the entries, where the writing has more.
LEAST_ALPHABET = 256
ALPHABET_SHARE = 0.25
ALPHABET_COVERS = 0.9995
# A pair of pieces seen once says nothing of the language.
MIN_PAIR_COUNT = 2


def train_wordpiece(
    texts: Callable[[], Iterable[str]], vocab_size: int, lowercase: bool = True, strip_accents: bool = False
) -> Tokenizer:
    """A BERT WordPiece tokenizer of at most `vocab_size` entries, the same on every run.

    Zero-width joiners are kept where they are among the text's common characters, and dropped as BERT drops them where
    they are not, so that they make no word unknown. Zero-width spaces, where they are common, separate words.

    `texts` is called for a fresh iterator, twice. The trainer of `tokenizers` numbers the characters that
    continue a word in the order of a randomly seeded hash table, and breaks ties between merges by these
    numbers; so they are fixed beforehand: counted here, and handed over as if they were special tokens.
    """
    model = models.WordPiece(unk_token=BERT_TOKENS["unk"])
    tokenizer = bert_tokenizer(model, bert_normalizer(lowercase, strip_accents, JOINERS + ZERO_WIDTH_SPACE))
    alphabet = _alphabet(tokenizer, texts(), vocab_size)
    separates = ZERO_WIDTH_SPACE in alphabet
    alphabet = [char for char in alphabet if char != ZERO_WIDTH_SPACE]
    normalizer = bert_normalizer(lowercase, strip_accents, "".join(sorted(set(alphabet) & set(JOINERS))), separates)
    tokenizer.normalizer = normalizer
    specials = list(BERT_TOKENS.values())
    fixed = specials + alphabet + [CONTINUATION + char for char in alphabet if _continues(tokenizer, char)]
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
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return bert_tokenizer(word_piece(tokenizer.get_vocab(with_added_tokens=False)), normalizer)


def train_byte_bpe(texts: Callable[[], Iterable[str]], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `vocab_size` entries, the same on every run; no text is unknown to it.

    `texts` is called once. Here the trainer's numbers are sure by themselves: it sorts the characters, nothing
    stands before or behind them, and no two merges make the same piece.
    """
    specials = list(ROBERTA_TOKENS.values())
    least = len(specials) + len(BYTE_SYMBOLS)
    if vocab_size < least:
        raise UserError(
            f"--vocab-size {vocab_size} is too small: {len(specials)} special tokens and the 256 bytes alone take "
            f"{least} entries"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_PAIR_COUNT,
        special_tokens=specials,
        initial_alphabet=BYTE_SYMBOLS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return byte_level_tokenizer(tokenizer.model, double_separator=False)


def _alphabet(tokenizer: Tokenizer, texts: Iterable[str], vocab_size: int) -> list[str]:
    """The commonest characters after normalisation, sorted by code point.

    LEAST_ALPHABET of them; where these are not ALPHABET_COVERS of the text, as in Chinese, Japanese and Korean, as
    many as are, but no more than ALPHABET_SHARE of the vocabulary.
    """
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(text)
    normal: Counter[str] = Counter()
    for char, count in raw.items():
        for part in tokenizer.normalizer.normalize_str(char):
            if not part.isspace():
                normal[part] += count
    commonest = sorted(normal, key=lambda char: (-normal[char], char))
    covered = accumulate(normal[char] for char in commonest)
    enough = 1 + sum(count < ALPHABET_COVERS * normal.total() for count in covered)
    size = max(LEAST_ALPHABET, min(enough, int(ALPHABET_SHARE * vocab_size)))
    return sorted(commonest[:size])


def _continues(tokenizer: Tokenizer, char: str) -> bool:
    """Whether a character may stand inside a word; punctuation and ideographs are words by themselves."""
    word = tokenizer.normalizer.normalize_str(f"a{char}")
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(word)] == [f"a{char}"]
