"""What `stats` tells about a corpus as one page with pictures, for light and dark screens, without a network.

Knows nothing of files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from data_prep.documents import SECTION_CHARACTERS
from data_prep.formatting import short, size
from data_prep.plots import svg_of
from data_prep.stats import row_tables, tables
from data_prep.stats.figures import Figures
from data_prep.stats.plots import drop_bars, fill_histograms, length_histogram, rank_curve, source_bars
from data_prep.stats.text import Table

TEMPLATE = "page.html.jinja"
_MOST_TILES = 5


def page(figures: Figures, name: str) -> str:
    """The whole page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        name=name,
        tiles=_tiles(figures),
        sections=list(_sections(figures)),
        samples=tables.drop_samples(figures),
    )


def _tiles(figures: Figures) -> list[dict[str, str]]:
    splits = figures.clean["results"]["splits"]
    documents = {split: of["documents"] for split, of in splits.items()}
    characters = sum(of["characters"] for of in splits.values())
    disk = size(sum(figures.clean_bytes.values()))
    tiles = [
        _tile(
            "Documents", f"{sum(documents.values()):,}", ", ".join(f"{n:,} {split}" for split, n in documents.items())
        ),
        _tile("Characters", short(characters), f"{disk} on disk"),
    ]
    if figures.tokenizer:
        found = figures.tokenizer["results"]
        tiles.append(_tile("Vocabulary", f"{found['vocab_size']:,}", f"{found['tokens_per_word']:.2f} tokens a word"))
    for one in figures.sets[:_MOST_TILES]:
        of = one.index["splits"]["train"]
        padding = 1 - of["tokens"] / (of["rows"] * one.index["row_length"])
        tiles.append(_tile(one.name, short(of["tokens"]), f"train tokens, {of['rows']:,} rows, {padding:.2%} padding"))
    return tiles


def _tile(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def _sections(figures: Figures) -> list[dict[str, Any]]:
    sections = [
        _section(
            "Sources",
            [tables.source_table(figures), tables.split_table(figures)],
            svg_of(source_bars(figures), "sources", "Bars: characters by source"),
            "Characters by source, after cleaning and without duplicates.",
        ),
        _section(
            "What cleaning did",
            [tables.rule_table(figures), tables.duplicate_table(figures), tables.edit_table(figures)]
            + ([tables.repeated_table(figures)] if figures.clean["results"]["repeated_lines"] else [])
            + ([tables.problem_table(figures)] if figures.clean["results"]["num_problems"] else []),
            svg_of(bars, "drops", "Bars: characters dropped by rule") if (bars := drop_bars(figures)) else None,
            "Characters that each rule dropped, in the order in which the rules run, and what was kept. The axis is "
            "logarithmic.",
            has_samples=True,
        ),
        _section(
            "Lengths of documents",
            [tables.length_table(figures)],
            svg_of(length_histogram(figures), "lengths", "Histogram of document lengths"),
            "How long the documents of each source are, on a logarithmic axis. Long texts are cut into sections of "
            f"about {SECTION_CHARACTERS:,} characters. {tables.sampled_documents(figures)}",
        ),
    ]
    if figures.tokenizer:
        sections.append(_section("Tokenizer", [tables.tokenizer_table(figures)]))
    used = [one for one in figures.sets if row_tables.ordinary_counts(one).any()]
    if figures.sets:
        sections += [
            _section(
                "Rows",
                [row_tables.row_table(figures), row_tables.fill_table(figures), row_tables.mixture_table(figures)],
                svg_of(fill_histograms(figures.sets), "fill", "Histograms: tokens a row and pieces a row"),
                "Left: how full rows are, as the share of rows with fewer tokens; the later the curve rises, the less "
                f"padding. Right: how many pieces share a row. {row_tables.sampled_rows(figures.sets)}",
            ),
            _section(
                "Use of the vocabulary",
                [row_tables.vocabulary_table(figures)],
                svg_of(curve, "ranks", "Curve: frequency of tokens by rank") if (curve := rank_curve(used)) else None,
                "Share of the text by a token's rank, both axes logarithmic. Where a curve ends, so do the entries "
                f"that occur in the sample. {row_tables.sampled_rows(figures.sets)}",
            ),
        ]
    return [*sections, _section("Stages", [tables.stage_table(figures)])]


def _section(
    title: str,
    parts: Sequence[Table],
    plot: Markup | None = None,
    caption: str = "",
    has_samples: bool = False,
) -> dict[str, Any]:
    return {"title": title, "tables": parts, "plot": plot, "caption": caption, "has_samples": has_samples}
