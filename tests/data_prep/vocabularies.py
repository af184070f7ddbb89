"""Texts that are hard to cut and to put together again, and small vocabularies as files of others."""

import json
from pathlib import Path

from hypothesis import strategies as st
from tokenizers import Tokenizer

import data_prep
from data_prep.tokenization.train import train_byte_bpe, train_wordpiece

BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
NOVEL = Path(data_prep.__file__).parent / "samples" / "persuasion.txt"
HARD_TEXTS = [
    "",
    " ",
    "Hello, na\u00efve world!",
    "  two  spaces\n\nand lines\r\n\ttabs \v\f",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f1e9\U0001f1ea\u2764\ufe0f!",
    "\u4eba\u4eba\u3002\u3053\u3093\u306b\u3061\u306f \ud55c\uad6d\uc5b4 \U00020000",
    "\x00\x01\x07\x7f\x80\x9f\ufffd\ufffe\u200b\u2028\u2029\ufeff\U0010ffff",
    "I'll don't WE'VE it's 12,345.67 $9 a_b http://x.org/?q=1#2",
    "\u0130stanbul \u1e9e \ufb01 \u01c4 \u00c5\u030a e\u0301",
    "\u0915\u094d\u0937 \u05e9\u05dc\u05d5\u05dd \u0e44\u0e17\u0e22",
    "x" * 120 + " " + "\u00e9" * 101,
]
texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*HARD_TEXTS[:-1], "the sea", " ship", "'s", "\n", "  ", "\u0301"]), max_size=8).map(
        "".join
    ),
)


def paragraphs() -> list[str]:
    """A novel and the hard texts."""
    return [*NOVEL.read_text(encoding="utf-8").split("\n\n")[:600], *HARD_TEXTS * 3]


def write_vocab_txt(
    path: Path, lowercase: bool = True, vocab_size: int = 1000, strip_accents: bool | None = None
) -> Path:
    """A WordPiece vocabulary of BERT's form; stripped of accents, unless it is said, when it is lower-cased."""
    strips = lowercase if strip_accents is None else strip_accents
    vocab = train_wordpiece(paragraphs, vocab_size, lowercase, strips).get_vocab()
    path.write_text("".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)), encoding="utf-8")
    return path


def write_vocab_json(folder: Path, with_specials: bool) -> Path:
    """vocab.json and merges.txt as RoBERTa has them, or as GPT-2 does: without its special tokens."""
    folder.mkdir(exist_ok=True)
    model = json.loads(train_byte_bpe(paragraphs, 800).to_str())["model"]
    vocab = model["vocab"] if with_specials else {token: n - 5 for token, n in model["vocab"].items() if n > 4}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "vocab.json"


def save(tokenizer: Tokenizer, path: Path, **changes: object) -> Path:
    """A tokenizer.json, with some of its top-level values replaced."""
    path.write_text(json.dumps(json.loads(tokenizer.to_str()) | changes), encoding="utf-8")
    return path
