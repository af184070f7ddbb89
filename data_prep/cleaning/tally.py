"""What the cleaning did: for every rule the documents and characters it dropped, with samples, or the edits it made.

A tally is made where documents are read, written down as JSON, and merged with others: in any order, with the same
result. Knows nothing of how a rule decides.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

SAMPLES = 3
_SAMPLE_CHARACTERS = 200
_HASH_BYTES = 8
# Names of templates that a tally keeps when it is written down, and that are shown.
_NAMES, _NAMES_SHOWN = 1_000, 5

# What the table calls the rules, in the order in which they run.
DROPS = {
    "redirects": "redirects",
    "other namespaces": "pages outside the article namespace",
    "other content models": "pages that are no wikitext",
    "disambiguation pages": "disambiguation pages",
    "empty": "empty documents",
    "short": "documents shorter than the least length",
    "word_length": "mean word length not within 2 to 10 characters",
    "symbol_words": "too many # or ellipses for its words",
    "symbols": "too many characters that are neither letters nor digits nor white space",
    "braces": "code: too many curly brackets for its words",
    "bullet_lines": "nearly all lines begin with a bullet",
    "ellipsis_lines": "too many lines end with an ellipsis",
    "alphabetic_words": "too few words with a letter in them",
    "stop_words": "without the most frequent words of any language known here",
    "lorem_ipsum": "filler text (lorem ipsum)",
    "one_character": "one character over and over",
    "duplicate_lines": "too much of it in repeated lines",
    "top_ngram": "one phrase over and over (2 to 4 words)",
    "duplicate_ngrams": "too much of it in repeated phrases (5 to 10 words)",
    "language": "in another language",
    "exact_duplicates": "copies of another document",
    "near_duplicates": "near copies of another document",
    "repeated_lines": "little else than lines of many documents",
}
EDITS = {
    "boilerplate_stripped": "books with Project Gutenberg boilerplate cut off",
    "additions_dropped": "captions, notes and lists of books left out (characters)",
    "templates_cut": "templates nobody knows cut out in the middle of a sentence",
    "markup_dropped": "documents out of which tags or other remains of markup were taken",
    "headings_dropped": "headings of extracted articles left out",
    "holes_closed": "paragraphs mended where something had been cut out (empty parentheses, quotes, commas)",
    "separators_replaced": "line separators inside a line made spaces (characters)",
    "controls_dropped": "control characters dropped (characters)",
    "documents_repaired": "documents mended by ftfy (mojibake, entities, ligatures, quotes, NFC)",
    "whitespace_dropped": "superfluous white space dropped (characters)",
    "empty_paragraphs_dropped": "empty paragraphs dropped",
    "repeated_lines_dropped": "lines that stand in many documents dropped",
}
RULE_LABELS = DROPS | EDITS


@dataclass
class _Dropped:
    """`samples` holds by the hash of the text the identifier and the beginning, for the SAMPLES smallest hashes."""

    documents: int = 0
    characters: int = 0
    samples: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, documents: int, characters: int, samples: dict[str, tuple[str, str]]) -> None:
        self.documents += documents
        self.characters += characters
        for key, sample in samples.items():
            # Of copies of one text the smallest identifier stays, whichever came first.
            self.samples[key] = min(sample, self.samples.get(key, sample))
        self.samples = {key: self.samples[key] for key in sorted(self.samples)[:SAMPLES]}


@dataclass
class Tally:
    """Counts by rule and by source. Rules that are not in RULE_LABELS are shown by their own name."""

    _edits: dict[str, int] = field(default_factory=dict)
    _drops: dict[str, _Dropped] = field(default_factory=dict)
    _kept: dict[str, tuple[int, int]] = field(default_factory=dict)
    _cut: dict[str, int] = field(default_factory=dict)

    def edited(self, rule: str, amount: int = 1) -> None:
        """An edit of `amount` characters, paragraphs or documents; none at all leaves no trace."""
        if amount:
            self._edits[rule] = self._edits.get(rule, 0) + int(amount)

    def dropped(self, rule: str, text: str, identifier: str) -> None:
        """A document that is left out, by the first rule that says so."""
        key = hashlib.blake2b(f"{rule}{text}".encode(), digest_size=_HASH_BYTES).hexdigest()
        sample = {key: (identifier, text[:_SAMPLE_CHARACTERS])}
        self._drops.setdefault(rule, _Dropped()).add(1, len(text), sample)

    def cut(self, templates: Mapping[str, int]) -> None:
        """So many templates of each name were cut out in the middle of a sentence."""
        self.edited("templates_cut", sum(templates.values()))
        self._count_names(templates)

    def kept(self, source: str, characters: int) -> None:
        """A document that stays."""
        self._keep(source, 1, characters)

    def merge(self, other: "Tally") -> None:
        """Add all of another tally to this one."""
        for rule, amount in other._edits.items():
            self.edited(rule, amount)
        for rule, dropped in other._drops.items():
            self._drops.setdefault(rule, _Dropped()).add(dropped.documents, dropped.characters, dropped.samples)
        for source, (documents, characters) in other._kept.items():
            self._keep(source, documents, characters)
        self._count_names(other._cut)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON, with sorted keys: equal tallies give equal bytes."""
        return {
            "dropped": {
                rule: {
                    "documents": dropped.documents,
                    "characters": dropped.characters,
                    "samples": [
                        {"hash": key, "id": identifier, "text": text}
                        for key, (identifier, text) in sorted(dropped.samples.items())
                    ],
                }
                for rule, dropped in sorted(self._drops.items())
            },
            "edited": dict(sorted(self._edits.items())),
            "cut": dict(sorted(_most_frequent(self._cut, _NAMES))),
            "kept": {
                source: {"documents": documents, "characters": characters}
                for source, (documents, characters) in sorted(self._kept.items())
            },
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The tally that `to_json` was asked of."""
        tally = cls()
        for rule, amount in value["edited"].items():
            tally.edited(rule, amount)
        for rule, drop in value["dropped"].items():
            samples = {sample["hash"]: (sample["id"], sample["text"]) for sample in drop["samples"]}
            tally._drops[rule] = _Dropped(drop["documents"], drop["characters"], samples)
        for source, figures in value["kept"].items():
            tally._keep(source, figures["documents"], figures["characters"])
        tally._count_names(value["cut"])
        return tally

    def table(self) -> str:
        """One line a rule: documents, characters, label; drops first, then edits, then what is kept of each source."""
        rows: list[tuple[str, str, str]] = [("documents", "characters", "")]
        for rule in _in_order(self._drops, DROPS):
            dropped = self._drops[rule]
            rows.append((f"{dropped.documents:,}", f"{dropped.characters:,}", f"dropped: {DROPS.get(rule, rule)}"))
        for rule in _in_order(self._edits, EDITS):
            names = f" ({cut_names(self._cut)})" if rule == "templates_cut" else ""
            rows.append((f"{self._edits[rule]:,}", "", f"edited: {EDITS.get(rule, rule)}{names}"))
        for source, (documents, characters) in sorted(self._kept.items()):
            rows.append((f"{documents:,}", f"{characters:,}", f"kept: {source}"))
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"  {a:>{widths[0]}}  {b:>{widths[1]}}  {label}".rstrip() for a, b, label in rows)

    def samples(self) -> str:
        """What was dropped, by rule: the identifier and the beginning of up to SAMPLES documents, one a line."""
        lines = []
        for rule in _in_order(self._drops, DROPS):
            lines.append(f"  {DROPS.get(rule, rule)}")
            for identifier, text in self._drops[rule].samples.values():
                lines.append(f"    {identifier}: {text.replace(chr(10), ' / ') or '(nothing)'}")
        return "\n".join(lines)

    def _count_names(self, templates: Mapping[str, int]) -> None:
        for name, times in templates.items():
            self._cut[name] = self._cut.get(name, 0) + times

    def _keep(self, source: str, documents: int, characters: int) -> None:
        before = self._kept.get(source, (0, 0))
        self._kept[source] = (before[0] + documents, before[1] + characters)


def _in_order(found: dict[str, Any], labels: dict[str, str]) -> list[str]:
    return [rule for rule in labels if rule in found] + sorted(rule for rule in found if rule not in labels)


def cut_names(templates: Mapping[str, int]) -> str:
    """The most frequent of the templates that were cut out in the middle of a sentence: "name 12, other 3"."""
    return ", ".join(f"{name} {times:,}" for name, times in _most_frequent(templates, _NAMES_SHOWN))


def _most_frequent(templates: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    return sorted(templates.items(), key=lambda entry: (-entry[1], entry[0]))[:most]
