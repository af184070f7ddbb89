"""Wikitext to clean text, ours against the extractors that pip can install, on the articles of a real dump.

All in one process, page by page in turn, so that whatever else the machine does falls on all of them; processor
time of one thread, median of the rounds. Peers that are not installed are named as left out. What is left of markup
is counted in what each one keeps. The words that survive are those of a reference: mwparserfromhell's tree without
templates, tables, references, files, headings and the sections that are no prose. It stumbles on broken pages (an
unclosed tag), so a few words of every hundred thousand are none that a reader sees.

Run: python benchmarks/wikitext.py --dump FILE [--rounds 5] [--json FILE]
Peers: pip install wikiextractor gensim wikitextparser mediawiki-dump
"""

import argparse
import bz2
import html
import importlib
import json
import platform
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import mwparserfromhell
from mwparserfromhell.nodes import Heading, Template
from mwparserfromhell.nodes import Tag as TagNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep.raw.wikidump import iter_pages, keep_page, parse_page
from data_prep.raw.wikitext import plain_text

LEFTOVERS = {
    "braces": re.compile(r"[{}]"),
    "brackets": re.compile(r"[\[\]]"),
    "tags": re.compile(r"</?[a-zA-Z][^<>\n]*>|<!--|-->"),
    "pipes": re.compile(r"\|"),
    "quotes": re.compile(r"''+"),
    "line marks": re.compile(r"^[ \t]*[*#:;=]+|=+[ \t]*$", re.MULTILINE),
    "entities": re.compile(r"&#?\w{1,10};"),
}
NO_PROSE = frozenset(
    ("see also", "references", "external links", "further reading", "notes", "bibliography", "footnotes", "sources")
    + ("citations", "notes and references", "references and notes", "works cited")
)
NO_TEXT_TAGS = frozenset(
    ("ref", "table", "gallery", "math", "source", "syntaxhighlight", "timeline", "references", "pre")
)
HIDDEN_LINKS = ("file:", "image:", "category:")
HEADING = re.compile(r"(={2,6})\s*(.*?)\s*\1")
WORD = re.compile(r"[^\W\d_]+")


def ours(text: str) -> str:
    return "\n".join(plain_text(text))


def wikiextractor(module: Any) -> Callable[[str], str]:
    """Its own `clean_markup` without the escaping of <, > and &, which would count as leftovers."""

    def extract(text: str) -> str:
        extractor = module.Extractor(0, "", "", "", [])
        lines = extractor.clean_text(text, mark_headers=True, expand_templates=False, html_safe=False)
        return "\n".join(line for line in lines if not line.startswith("## "))

    return extract


def strip_code(text: str) -> str:
    return str(mwparserfromhell.parse(text).strip_code())


# Name, distribution, module, what makes the function of the module.
PEERS: list[tuple[str, str, str, Callable[[Any], Callable[[str], str]]]] = [
    ("wikiextractor", "wikiextractor", "wikiextractor.extract", wikiextractor),
    ("gensim filter_wiki", "gensim", "gensim.corpora.wikicorpus", lambda module: module.filter_wiki),
    ("wikitextparser", "wikitextparser", "wikitextparser", lambda module: lambda text: module.parse(text).plain_text()),
    ("mediawiki-dump clean", "mediawiki-dump", "mediawiki_dump.tokenizer", lambda module: module.clean),
    ("mwparserfromhell", "mwparserfromhell", "mwparserfromhell", lambda module: strip_code),
]


def find_extractors() -> tuple[dict[str, Callable[[str], str]], list[str]]:
    """Functions by name with version, ours first, and the names of peers that are not installed."""
    found: dict[str, Callable[[str], str]] = {"earlybird": ours}
    missing = []
    for name, distribution, module, make in PEERS:
        try:
            found[f"{name} {metadata.version(distribution)}"] = make(importlib.import_module(module))
        except (ImportError, metadata.PackageNotFoundError):
            missing.append(name)
    return found, missing


def read_articles(path: Path) -> list[str]:
    """Wikitext of the articles of a dump."""
    with bz2.open(path) if path.suffix == ".bz2" else path.open("rb") as file:
        pages = [parse_page(page) for _, page in iter_pages(iter(lambda: file.read(1 << 20), b""))]
    return [page.text for page in pages if keep_page(page) is None]


def reference_words(text: str) -> Counter[str]:
    """Words of the prose of a page, as mwparserfromhell's tree has it."""
    prose, left_out = [], 7
    for line in text.split("\n"):
        heading = HEADING.match(line)
        if heading and len(heading[1]) <= left_out:
            left_out = len(heading[1]) if heading[2].lower() in NO_PROSE else 7
        if not heading and left_out == 7:
            prose.append(line)
    code = mwparserfromhell.parse("\n".join(prose))
    for node in code.filter(matches=is_no_prose):
        remove(code, node)
    return Counter(WORD.findall(html.unescape(str(code.strip_code()))))


def is_no_prose(node: Any) -> bool:
    if isinstance(node, TagNode):
        return str(node.tag).strip().lower() in NO_TEXT_TAGS
    title = str(getattr(node, "title", "")).strip().lower() if not isinstance(node, Heading) else ""
    return isinstance(node, Template | Heading) or title.startswith(HIDDEN_LINKS)


def remove(code: Any, node: Any) -> None:
    """Take a node out, unless it went with one that held it."""
    if code.contains(node):
        code.remove(node)


def count_leftovers(texts: list[str]) -> dict[str, float]:
    """Occurrences per 1,000 characters kept."""
    characters = sum(map(len, texts))
    return {
        name: 1000 * sum(len(pattern.findall(text)) for text in texts) / characters
        for name, pattern in LEFTOVERS.items()
    }


def measure(extractors: dict[str, Callable[[str], str]], pages: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time for all pages, one figure a round."""
    seconds: dict[str, list[float]] = {name: [] for name in extractors}
    for _ in range(rounds):
        spent = dict.fromkeys(extractors, 0.0)
        for page in pages:
            for name, extract in extractors.items():
                started = time.process_time()
                extract(page)
                spent[name] += time.process_time() - started
        for name, value in spent.items():
            seconds[name].append(value)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", type=Path, required=True, help="pages-articles.xml or .xml.bz2 (a small one)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pages = read_articles(args.dump)
    extractors, missing = find_extractors()
    references = [reference_words(page) for page in pages]
    total = sum(map(len, pages))
    rows = []
    for name, seconds in measure(extractors, pages, args.rounds).items():
        texts = [extractors[name](page) for page in pages]
        kept = [Counter(WORD.findall(text)) for text in texts]
        survived = sum((reference & words).total() for reference, words in zip(references, kept, strict=True))
        leftovers = count_leftovers(texts)
        rows.append(
            {
                "extractor": name,
                "seconds": statistics.median(seconds),
                "million_characters_per_second": total / statistics.median(seconds) / 1e6,
                "leftovers": leftovers,
                "leftovers_total": sum(leftovers.values()),
                "characters_kept": sum(map(len, texts)),
                "words_kept": sum(words.total() for words in kept),
                "reference_words_surviving": survived / sum(words.total() for words in references),
            }
        )
    print(f"{len(pages)} articles, {total:,} characters of wikitext; Python {platform.python_version()}, one thread")
    print_rows(rows)
    for name in missing:
        print(f"left out: {name} is not installed")
    if args.json:
        args.json.write_text(json.dumps({"articles": len(pages), "characters": total, "rows": rows}, indent=1) + "\n")


def print_rows(rows: list[dict[str, Any]]) -> None:
    heads = ["M chars/s", "speed", "kept", "words", *LEFTOVERS, "all"]
    print(f"{'':30}" + "".join(f"{head:>11}" for head in heads))
    for row in rows:
        figures = [
            f"{row['million_characters_per_second']:.2f}",
            f"{rows[0]['seconds'] / row['seconds']:.2f}x",
            f"{row['characters_kept']:,}",
            f"{row['reference_words_surviving']:.2%}",
            *(f"{value:.3f}" for value in row["leftovers"].values()),
            f"{row['leftovers_total']:.3f}",
        ]
        print(f"{row['extractor']:30}" + "".join(f"{figure:>11}" for figure in figures))


if __name__ == "__main__":
    main()
