"""What `stats` tells about a corpus as tables, for the terminal and for the page. Knows nothing of files."""

from typing import Any

import numpy as np

from data_prep.cleaning.tally import DROPS, EDITS, cut_names
from data_prep.formatting import duration, share_of, short, size
from data_prep.stats.figures import Counts, Figures
from data_prep.stats.text import Table
from data_prep.terminal import escaped
from data_prep.tokenizer import letter_changes

_SAMPLE_CHARACTERS = 100
_PROBLEMS_SHOWN = 20
_QUANTILES = (0, 5, 25, 50, 75, 95, 99, 100)
_DUPLICATES = {"exact_duplicates": "exact", "near_duplicates": "near"}


def source_table(figures: Figures) -> Table:
    kept = _tally(figures)["kept"]
    total = sum(entry["characters"] for entry in kept.values())
    rows = [
        (name, f"{entry['documents']:,}", f"{entry['characters']:,}", share_of(entry["characters"], total))
        for name, entry in kept.items()
    ]
    if len(kept) > 1:
        rows.append(("all", f"{sum(e['documents'] for e in kept.values()):,}", f"{total:,}", share_of(total, total)))
    return Table(
        "Sources",
        ("source", "documents", "characters", "share"),
        rows,
        note="After cleaning and without duplicates, both splits. Long texts are cut into sections, each a document.",
    )


def split_table(figures: Figures) -> Table:
    rows = [
        (
            split,
            f"{of['documents']:,}",
            f"{of['characters']:,}",
            f"{len(of['files']):,}",
            size(figures.clean_bytes[split]),
        )
        for split, of in _clean(figures)["splits"].items()
    ]
    return Table("Clean text", ("split", "documents", "characters", "files", "on disk"), rows)


def rule_table(figures: Figures) -> Table:
    """What each rule dropped, in the order in which they run."""
    dropped, total = _tally(figures)["dropped"], _characters_seen(figures)
    rows = [
        (label, f"{dropped[rule]['documents']:,}", f"{dropped[rule]['characters']:,}",
         share_of(dropped[rule]["characters"], total))
        for rule, label in labels(dropped, DROPS).items()
    ]  # fmt: skip
    settings = figures.clean["settings"]
    return Table(
        "Dropped",
        ("what", "documents", "characters", "share"),
        rows,
        note=f"Share of all characters that were read. Filters: {settings['filters']}; least length: "
        f"{settings['min_characters']:,} characters; language: {settings['language'] or 'any'}. A document counts for "
        "the first rule that drops it.",
    )


def drop_samples(figures: Figures) -> dict[str, list[tuple[str, str]]]:
    """By rule: the identifiers and beginnings of some documents that it dropped."""
    dropped = _tally(figures)["dropped"]
    return {
        label: [(sample["id"], _beginning(sample["text"])) for sample in dropped[rule]["samples"]]
        for rule, label in labels(dropped, DROPS).items()
    }


def edit_table(figures: Figures) -> Table:
    edited = _tally(figures)["edited"]
    rows = [(label, f"{edited[rule]:,}") for rule, label in labels(edited, EDITS).items()]
    cut = cut_names(_tally(figures)["cut"])
    return Table("Changed", ("what", "times"), rows, note=f"Templates cut most often: {cut}." if cut else "")


def duplicate_table(figures: Figures) -> Table:
    tally = _tally(figures)
    kept = tally["kept"].values()
    gone = {name: tally["dropped"].get(rule) for rule, name in _DUPLICATES.items()}
    documents = sum(e["documents"] for e in [*kept, *filter(None, gone.values())])
    characters = sum(e["characters"] for e in [*kept, *filter(None, gone.values())])
    rows = [
        (name, f"{e['documents']:,}", share_of(e["documents"], documents), f"{e['characters']:,}",
         share_of(e["characters"], characters))
        if e else (name, "0", share_of(0, 1), "0", share_of(0, 1))
        for name, e in gone.items()
    ]  # fmt: skip
    mode = figures.clean["settings"]["dedup"]
    searched = {
        "near": "Exact and near duplicates were looked for",
        "exact": "Only exact duplicates were looked for",
        "none": "Duplicates were not looked for",
    }
    return Table(
        "Duplicates",
        ("kind", "documents", "share", "characters", "share"),
        rows,
        note=f"{searched[mode]}. Shares of what came through the rules; sections of long texts count each.",
    )


def repeated_table(figures: Figures) -> Table:
    """The lines of most documents among those that were dropped for it."""
    rows = [(line, f"{documents:,}") for line, documents in _clean(figures)["repeated_lines"]]
    least = figures.clean["settings"]["repeated_lines"]
    return Table(
        "Repeated lines", ("line", "documents"), rows, note=f"Dropped: they stand in {least} documents or more."
    )


def problem_table(figures: Figures) -> Table:
    problems, number = _clean(figures)["problems"], _clean(figures)["num_problems"]
    rows = [(problem,) for problem in problems[:_PROBLEMS_SHOWN]]
    note = f"{number:,} in all." if number > len(rows) else ""
    return Table("Damaged input left out", ("what",), rows, note=note)


def length_table(figures: Figures) -> Table:
    sample = figures.lengths
    rows = []
    for unit, values in (("characters", sample.characters), ("words", sample.words), ("tokens", sample.tokens)):
        if values is not None and len(values):
            rows.append((unit, *_quantiles(values)))
    if len(sample.sources) > 1:
        for number, name in enumerate(sample.sources):
            rows.append((f"characters: {name}", *_quantiles(sample.characters[sample.source == number])))
    names = {0: "least", 50: "median", 100: "most"}
    return Table(
        "Lengths of documents",
        ("in", *(names.get(q, f"{q} %") for q in _QUANTILES), "mean"),
        rows,
        note=sampled_documents(figures),
    )


def sampled_documents(figures: Figures) -> str:
    """How many documents were looked at, as a sentence."""
    sample = figures.lengths
    if sample.documents >= sample.of:
        return f"All {sample.of:,} train documents."
    return (
        f"The first {sample.documents:,} of {sample.of:,} train documents, a fair sample, since they are in the order "
        "of a hash."
    )


def tokenizer_table(figures: Figures) -> Table:
    assert figures.tokenizer is not None
    found = figures.tokenizer["results"]
    specials = sorted((number, found["special_token_texts"][role]) for role, number in found["special_tokens"].items())
    rows = [
        ("model", found["kind"] + (", loaded" if figures.tokenizer["settings"]["kind"] == "loaded" else ", trained")),
        ("entries", f"{found['vocab_size']:,}"),
        ("special tokens", " ".join(f"{text}={number}" for number, text in specials)),
        ("tokens a word (fertility)", f"{found['tokens_per_word']:.3f}"),
        ("characters a token", f"{1 / found['tokens_per_character']:.2f}" if found["tokens_per_character"] else ""),
        ("bytes a token", f"{1 / found['tokens_per_byte']:.2f}" if found["tokens_per_byte"] else ""),
        ("unknown tokens", f"{found['unknown_rate']:.4%}"),
        *_losses(found),
        ("tokens of one character", f"{found['single_character_rate']:.1%}"),
    ]  # fmt: skip
    return Table(
        "Tokenizer", ("", "value"), rows, note="Rates are measured on validation documents, if not said otherwise."
    )


def _losses(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Characters and letters that are lost or changed; nothing of a tokenizer that was made before this was counted."""
    if "lost_rate" not in found:
        return []
    rows = [("characters lost", f"{found['lost_rate']:.4%}")]
    if "train" in found:
        rows.append(("characters lost in train", f"{found['train']['lost_rate']:.4%}"))
    if found["lost_words"]:
        rows.append(("most lost", ", ".join(f"{escaped(word)} x {count:,}" for word, count in found["lost_words"])))
    rows.append(("letters changed, apart from case", share_of(found["changed_letters"], found["letters"])))
    if found["letter_changes"]:
        rows.append(("most changed", ", ".join(f"{change} x {count:,}" for change, count in letter_changes(found))))
    return rows


def stage_table(figures: Figures) -> Table:
    rows = []
    for stage in figures.stages:
        rate = stage.work / stage.seconds if stage.work and stage.seconds else None
        speed = "" if rate is None else f"{short(rate)} {stage.unit}/s"
        rows.append(
            (
                stage.name,
                stage.state,
                "" if stage.seconds is None else duration(stage.seconds),
                speed,
                stage.finished or "",
            )
        )
    return Table(
        "Stages",
        ("stage", "state", "time", "speed", "finished"),
        rows,
        labels=2,
        note="Time from the last start to the end: of a stage that was interrupted, the last part only.",
    )


def labels(found: dict[str, Any], known: dict[str, str]) -> dict[str, str]:
    """The rules that did something, in the order in which they run, with what the tables call them."""
    return {rule: known[rule] for rule in known if rule in found} | {r: r for r in sorted(found) if r not in known}


def _clean(figures: Figures) -> dict[str, Any]:
    return figures.clean["results"]


def _tally(figures: Figures) -> dict[str, Any]:
    return _clean(figures)["tally"]


def _characters_seen(figures: Figures) -> int:
    tally = _tally(figures)
    return sum(e["characters"] for part in ("dropped", "kept") for e in tally[part].values())


def _beginning(text: str) -> str:
    return text[:_SAMPLE_CHARACTERS].replace("\n", " / ") or "(nothing)"


def _quantiles(values: Counts) -> list[str]:
    found = np.percentile(values, _QUANTILES, method="inverted_cdf")
    return [*(f"{int(value):,}" for value in found), f"{values.mean():,.0f}"]
