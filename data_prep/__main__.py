"""The command line of data_prep: `python -m data_prep ingest | tokenizer | shard | verify | stats | preview`."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO, cast

from data_prep.buckets import Cleaning
from data_prep.cleaning.filters import Rules
from data_prep.corpus import Corpus
from data_prep.documents import SPLITS
from data_prep.errors import UserError, refusal
from data_prep.ingest import ingest
from data_prep.preview import preview
from data_prep.raw.sources import parse_source
from data_prep.recipe_keys import InRecipeKeys
from data_prep.rows.masking import MaskRules
from data_prep.rows.pack import PACKINGS
from data_prep.stats.command import stats
from data_prep.terminal import escaped, wants_color
from data_prep.tokenizer import make_tokenizer
from data_prep.verify import verify
from data_prep.work import Part, cores
from data_prep.write_shards import shard


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m data_prep", description="raw text to hashed, tokenised shards")
    parser.add_argument(
        "--recipe-keys", action="store_true", help="messages name keys of the recipe, as for python -m pipeline"
    )
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("ingest", help="raw sources to clean documents, split into train and val")
    command.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="SOURCE",
        help="PATH (a file or folder), PATH?name=books&format=lines&text=body, or hub:OWNER/NAME?config=..&split=..; "
        "formats are recognised: text files, MediaWiki dumps, WikiExtractor output, JSONL, parquet; "
        "may be given several times, and of duplicates the one of the source named first is kept",
    )
    command.add_argument("--out", required=True, dest="corpus", help="the corpus folder, corpora/NAME")
    command.add_argument("--val-fraction", type=float, default=0.01, help="share held out as val (default 0.01)")
    command.add_argument(
        "--dedup", choices=["near", "exact", "none"], default="near", help="which duplicates go (default near)"
    )
    command.add_argument(
        "--repeated-lines",
        type=int,
        default=20,
        metavar="N",
        help="drop lines that stand in N documents or more (default 20; 0 keeps all)",
    )
    command.add_argument(
        "--filters", choices=["default", "none"], default="default", help="quality filters (default: default)"
    )
    command.add_argument("--min-characters", type=int, default=100, help="shorter documents are dropped (default 100)")
    command.add_argument("--language", help="keep documents in this language only, for instance en")
    command.add_argument(
        "--on-bad-input",
        choices=["stop", "skip"],
        default="stop",
        help="damaged files and records: stop there (default), or leave them out, name them and go on",
    )
    _add_work(command)

    command = commands.add_parser("tokenizer", help="train a vocabulary, or take one")
    _add_corpus(command)
    command.add_argument("--vocab-size", type=int, help="entries to train, special tokens included")
    command.add_argument(
        "--kind", choices=["wordpiece", "bpe"], help="what to train (default wordpiece); not with --load"
    )
    command.add_argument(
        "--cased",
        action=argparse.BooleanOptionalAction,
        help="WordPiece without lower-casing (default: lower-casing when trained, as the files say when loaded)",
    )
    command.add_argument(
        "--strip-accents",
        action=argparse.BooleanOptionalAction,
        help="WordPiece without accents and other marks that combine (default: kept when trained, as the files say "
        "when loaded)",
    )
    command.add_argument(
        "--load",
        type=Path,
        help="take this vocab.txt, tokenizer.json, vocab.json (merges.txt beside it) or their folder",
    )
    _add_force(command)

    command = commands.add_parser("shard", help="clean documents to packed rows of token ids")
    _add_corpus(command)
    command.add_argument("--row-length", type=int, required=True, help="tokens in a row")
    command.add_argument(
        "--packing",
        choices=PACKINGS,
        default="documents",
        help="pieces of documents (default), full sentences across documents, or sentence pairs",
    )
    command.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="SOURCE=TIMES",
        help="take the train documents of a source this many times, for instance books=2.5",
    )
    _add_work(command)

    command = commands.add_parser("verify", help="check every file and row of a finished corpus")
    _add_corpus(command)

    command = commands.add_parser("stats", help="tables and a page with pictures: what is in a corpus")
    _add_corpus(command)

    command = commands.add_parser("preview", help="decoded rows with masks and boundaries in colour")
    _add_corpus(command)
    command.add_argument("--row-length", type=int, help="tokens in a row (default: that of the only shards there are)")
    command.add_argument("--packing", choices=PACKINGS, help="packing (default: that of the only shards there are)")
    command.add_argument("--split", choices=SPLITS, default="train")
    command.add_argument("--rows", type=int, default=3, help="how many, spread over the split (default 3)")
    command.add_argument("--seed", type=int, default=42, help="as in the recipe (default 42)")
    command.add_argument("--epoch", type=int, default=0, help="masks differ from epoch to epoch (default 0)")
    command.add_argument("--mask-rate", type=float, default=0.15, help="share of tokens to predict (default 0.15)")
    command.add_argument("--mask-unit", choices=["token", "word", "span"], default="token")
    command.add_argument("--mask-token", type=float, default=0.8, help="of these, share that becomes [MASK]")
    command.add_argument("--random-token", type=float, default=0.1, help="of these, share that becomes a random token")
    command.add_argument("--sentence", choices=["none", "nsp", "sop"], default="none", help="the second task of pairs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it is done, 2 with one line on stderr for a mistake of the user's."""
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold what the terminal's encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not args.recipe_keys:
        return _run(args)
    said, warned = (cast(TextIO, InRecipeKeys(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(said), redirect_stderr(warned):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    corpus = Corpus(Path(args.corpus))
    try:
        _check_name(args.corpus)
        if args.command == "ingest":
            if args.min_characters < 0:
                raise UserError(f"--min-characters is {args.min_characters}, wanted 0 or more")
            rules = Rules(min_characters=args.min_characters, filters=args.filters, language=args.language)
            cleaning = Cleaning(rules, args.dedup, args.repeated_lines, args.on_bad_input, args.val_fraction)
            sources = [parse_source(spec) for spec in args.source]
            ingest(corpus, sources, cleaning, args.workers, _part(args), args.force)
        elif args.command == "tokenizer":
            habits = (args.cased, args.strip_accents)
            make_tokenizer(corpus, args.vocab_size, args.kind, *habits, args.load, args.force)
        elif args.command == "shard":
            weights = dict(_weight(text) for text in args.weight)
            shard(corpus, args.row_length, args.packing, weights, args.workers, _part(args), args.force)
        elif args.command == "verify":
            verify(corpus)
        elif args.command == "stats":
            stats(corpus)
        else:
            masks = MaskRules(args.mask_rate, args.mask_unit, args.mask_token, args.random_token)
            place = (args.row_length, args.packing, args.split, args.rows, args.seed, args.epoch)
            preview(corpus, *place, masks, args.sentence, wants_color(sys.stdout))
    except UserError as error:
        print(f"error: {escaped(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        refused = refusal(error, corpus.root)
        if refused is None:
            raise
        print(f"error: {escaped(str(refused))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the command again and it goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def _check_name(name: str) -> None:
    if not name:
        raise UserError("the name of the corpus folder is empty: wanted is a folder such as corpora/NAME")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        # The libraries that write shards and read tokenizers take names for UTF-8.
        raise UserError(f"the corpus folder {name} has a name that is not UTF-8; name another one") from error


def _part(args: argparse.Namespace) -> Part | None:
    if args.part is None:
        return None
    if args.force:
        raise UserError("--force and --part exclude each other: delete the stage's folder once, then start the parts")
    return Part.parse(args.part)


def _weight(text: str) -> tuple[str, float]:
    name, _, times = text.rpartition("=")
    try:
        return escaped(name), float(times)
    except ValueError as error:
        raise UserError(f"--weight is {text!r}, wanted SOURCE=TIMES such as books=2.5") from error


def _add_corpus(command: argparse.ArgumentParser) -> None:
    command.add_argument("--corpus", required=True, help="the corpus folder, corpora/NAME")


def _add_work(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=int, default=cores(), help="processes (default: all cores)")
    command.add_argument(
        "--part", metavar="I/N", help="do the I-th of N shares only; one machine each, on one shared file system"
    )
    _add_force(command)


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", help="make it again even if it is done")


if __name__ == "__main__":
    sys.exit(main())
