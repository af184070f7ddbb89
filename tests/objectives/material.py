"""A tiny tokenizer, model folder and GLUE folder that the tests of tasks and fine-tuning share."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeline.families.hf import build_model
from pipeline.families.shape import EncoderShape, LayerShape

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["good", "bad", "film", "the", "a", "was", "plot", "and", "very", "it"]
SHAPE = EncoderShape(
    vocab_size=len(SPECIALS) + len(WORDS), hidden_size=16, head_size=4, layers=(LayerShape(4, 32), LayerShape(2, 16)),
    max_positions=32, norm="pre",
)  # fmt: skip


def tokenizer(pairs: bool = True) -> Tokenizer:
    """Words to ids: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, good 4, bad 5, film 6, the 7, a 8, was 9, ..."""
    vocabulary = {word: number for number, word in enumerate(SPECIALS + WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1" if pairs else "$A $B",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def write_model(folder: Path, shape: EncoderShape = SHAPE) -> None:
    """A randomly initialised masked-LM model as an exported run holds it."""
    folder.mkdir(parents=True)
    build_model(shape, seed=5).save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))


def write_sentiment(folder: Path, train_rows: int = 70, dev_rows: int = 30) -> None:
    """SST-2 files whose label is whether the sentence says "good"."""
    (folder / "SST-2").mkdir(parents=True)
    for name, count, start in (("train", train_rows, 0), ("dev", dev_rows, 1000)):
        lines = ["sentence\tlabel"]
        for number in range(start, start + count):
            filler = " ".join(WORDS[2 + (number * step) % 8] for step in range(1, 2 + number % 5))
            lines.append(f"{filler} {WORDS[number % 2]} film \t{1 - number % 2}")
        (folder / "SST-2" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_similarity(folder: Path, train_rows: int = 64, dev_rows: int = 100) -> None:
    """STS-B files of pairs of which no two are alike, whose score is the number of "good" in the first, 0 to 5."""
    (folder / "STS-B").mkdir(parents=True)
    for name, count, start in (("train", train_rows, 0), ("dev", dev_rows, 100)):
        lines = ["sentence1\tsentence2\tscore"]
        for number in range(start, start + count):
            first = " ".join(WORDS[2 + int(digit)] for digit in oct(512 + number)[2:])
            lines.append(f"{first}{' good' * (number % 6)}\tthe film\t{number % 6}")
        (folder / "STS-B" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
