"""The command line of data_prep: `python -m data_prep ingest | tokenizer | shard | verify`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.corpus import Corpus
from data_prep.ingest import ingest
from data_prep.manifest import UserError
from data_prep.tokenizer import make_tokenizer
from data_prep.write_shards import shard, verify


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of all four commands."""
    parser = argparse.ArgumentParser(prog="python -m data_prep", description="raw text to hashed, tokenised shards")
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("ingest", help="raw files to clean documents, split into train and val")
    command.add_argument(
        "--source",
        type=Path,
        action="append",
        required=True,
        help="a file or folder: text files (.txt, .txt.gz), WikiExtractor output; may be given several times",
    )
    command.add_argument("--out", type=Path, required=True, dest="corpus", help="the corpus folder, corpora/NAME")
    command.add_argument("--val-fraction", type=float, default=0.01, help="share held out as val (default 0.01)")
    _add_force(command)

    command = commands.add_parser("tokenizer", help="train a WordPiece vocabulary, or take one")
    _add_corpus(command)
    command.add_argument("--vocab-size", type=int, help="entries to train, special tokens included")
    command.add_argument("--load", type=Path, help="take this vocab.txt or tokenizer.json, train nothing")
    _add_force(command)

    command = commands.add_parser("shard", help="clean documents to packed rows of token ids")
    _add_corpus(command)
    command.add_argument("--row-length", type=int, required=True, help="tokens in a row")
    _add_force(command)

    command = commands.add_parser("verify", help="check every file and row of a finished corpus")
    _add_corpus(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it is done, 2 with one line on stderr for a mistake of the user's."""
    args = build_parser().parse_args(argv)
    corpus = Corpus(args.corpus)
    try:
        if args.command == "ingest":
            ingest(corpus, args.source, args.val_fraction, args.force)
        elif args.command == "tokenizer":
            make_tokenizer(corpus, args.vocab_size, args.load, args.force)
        elif args.command == "shard":
            shard(corpus, args.row_length, args.force)
        else:
            verify(corpus)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was kept", file=sys.stderr)
        return 130
    return 0


def _add_corpus(command: argparse.ArgumentParser) -> None:
    command.add_argument("--corpus", type=Path, required=True, help="the corpus folder, corpora/NAME")


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", help="make it again even if it is done")


if __name__ == "__main__":
    sys.exit(main())
