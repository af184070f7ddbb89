"""What `stats` tells about packed rows as tables. Knows nothing of files."""

from collections.abc import Sequence

import numpy as np

from data_prep.formatting import share_of, size
from data_prep.stats.figures import Counts, Figures, ShardSet
from data_prep.stats.text import Table


def row_table(figures: Figures) -> Table:
    rows = []
    for one in figures.sets:
        length = one.index["row_length"]
        for split, of in one.index["splits"].items():
            places = of["rows"] * length
            padding = share_of(places - of["tokens"], places)
            counts = (of["documents"], of["longest_document"], len(of["files"]))
            sizes = [file["bytes"] for file in of["files"]]
            rows.append(
                (
                    *(one.name, split, f"{of['rows']:,}", f"{of['tokens']:,}", padding),
                    *(f"{count:,}" for count in counts),
                    *(size(number) for number in (sum(sizes), min(sizes), max(sizes))),
                )
            )
    return Table(
        "Rows",
        (
            *("rows", "split", "number", "tokens", "padding"),
            *("documents", "longest", "files"),
            *("on disk", "smallest", "largest"),
        ),
        rows,
        labels=2,
        note="Tokens with boundaries, without padding. Longest: the most rows that one document takes part in. "
        "Smallest and largest: of the files.",
    )


def fill_table(figures: Figures) -> Table:
    """What the places of a row are filled with, and how many pieces it has."""
    rows = []
    for one in figures.sets:
        special = [one.index["special_tokens"][role] for role in ("cls", "sep")]
        places = one.sample.rows * one.index["row_length"]
        tokens = int(one.sample.by_token.sum())
        boundaries = int(one.sample.by_token[special].sum())
        pieces = np.repeat(np.arange(len(one.sample.by_pieces)), one.sample.by_pieces)
        shares = [share_of(part, places) for part in (tokens - boundaries, boundaries, places - tokens)]
        rows.append((one.name, *shares, f"{pieces.mean():.2f}", f"{np.median(pieces):g}", f"{pieces.max():,}"))
    return Table(
        "How rows are filled",
        ("rows", "text", "boundaries", "padding", "pieces a row", "median", "most"),
        rows,
        note=f"Pieces are documents or parts of one; of a pair, its two sentences. {sampled_rows(figures.sets)}",
    )


def mixture_table(figures: Figures) -> Table:
    rows = []
    for one in figures.sets:
        tokens, weights = one.manifest["results"]["tokens_by_source"]["train"], one.manifest["settings"]["weights"]
        total = sum(tokens.values())
        for name in sorted(tokens.keys() | weights.keys()):
            count = tokens.get(name, 0)
            rows.append((one.name, name, f"{weights.get(name, 1.0):g}", f"{count:,}", share_of(count, total)))
    return Table(
        "Tokens by source",
        ("rows", "source", "weight", "tokens", "share"),
        rows,
        labels=2,
        note="Of the train rows, boundaries not counted. Weight: how many times the documents of a source are taken.",
    )


def vocabulary_table(figures: Figures) -> Table:
    rows = []
    for one in figures.sets:
        counts = ordinary_counts(one)
        ranked = np.sort(counts)[::-1]
        shares = np.cumsum(ranked) / max(1, ranked.sum())
        used = int((counts > 0).sum())
        half, most = (int(np.searchsorted(shares, part)) + 1 for part in (0.5, 0.9))
        spread = (f"{half:,}", f"{most:,}") if used else ("-", "-")
        unknown = int(one.sample.by_token[one.index["special_tokens"]["unk"]])
        rows.append(
            (one.name, f"{ranked.sum():,}", f"{used:,}", share_of(used, len(counts)), f"{int((counts >= 100).sum()):,}",
             *spread, f"{unknown / max(1, ranked.sum() + unknown):.4%}")
        )  # fmt: skip
    return Table(
        "Use of the vocabulary",
        ("rows", "tokens", "used", "share", "100 times", "half of text", "90 %", "unknown"),
        rows,
        note="Entries without the special ones: how many occur at all, and 100 times or more; how many of the "
        f"commonest make up half and 90 % of the text. {sampled_rows(figures.sets)}{_lost_sets(figures.sets)}",
    )


def _lost_sets(sets: Sequence[ShardSet]) -> str:
    lost = [one.name for one in sets if not ordinary_counts(one).any()]
    return f" All tokens of {', '.join(lost)} are unknown or special: there is nothing to learn." if lost else ""


def ordinary_counts(one: ShardSet) -> Counts:
    """How often each entry of the vocabulary occurs in the sample, the special ones left out."""
    return np.delete(one.sample.by_token, sorted(set(one.index["special_tokens"].values())))


def sampled_rows(sets: Sequence[ShardSet]) -> str:
    """How many rows were looked at, as a sentence."""
    if all(one.sample.rows >= one.sample.of for one in sets):
        return "All train rows."
    parts = [f"{one.sample.rows:,} of the {one.sample.of:,} train rows of {one.name}" for one in sets]
    return f"Looked at, spread evenly: {', '.join(parts)}."
