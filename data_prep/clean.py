"""The cleaning rules: one function from raw paragraphs to clean text, with every rule counted.

Knows nothing of files, splits or tokens.
"""

import re
from collections import Counter
from collections.abc import Iterable

from ftfy import TextFixerConfig, fix_text

# Part of the stage's settings: raised whenever a rule changes, so that no old result is taken for a new one.
RULES_VERSION = 1
MIN_CHARACTERS = 100

# Replaced before ftfy, which drops some of them and joins what they separate. C1 controls it reads as
# Windows-1252: U+0085 is an ellipsis, which is how that character comes into texts.
_FTFY = TextFixerConfig(normalization="NFC", fix_line_breaks=False, explain=False)
_SEPARATORS = re.compile("[\x0b\x0c\r\x1c-\x1e\u2028\u2029]")
# Not yet ESC, by which ftfy knows terminal escapes, nor C1 controls, by which it knows mojibake.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1f\x7f\ufeff]")
_LEFT_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")

# Counter keys and what the table calls them, in the order in which the rules run.
RULES = {
    "documents_read": "documents read",
    "boilerplate_stripped": "books with Project Gutenberg boilerplate cut off",
    "separators_replaced": "line separators inside a line made spaces (characters)",
    "controls_dropped": "control characters dropped (characters)",
    "documents_repaired": "documents mended by ftfy (mojibake, entities, ligatures, quotes, NFC)",
    "whitespace_dropped": "superfluous white space dropped (characters)",
    "empty_paragraphs_dropped": "empty paragraphs dropped",
    "empty_documents_dropped": "empty documents dropped",
    "short_documents_dropped": f"documents under {MIN_CHARACTERS} characters dropped",
    "documents_kept": "documents kept",
}


def clean_text(paragraphs: Iterable[str], counts: Counter[str]) -> str | None:
    """Clean paragraphs joined with "\\n", or None for a document that is dropped.

    A paragraph holds no "\\n". Adds to `counts`, under the keys of RULES, what each rule did.
    """
    counts["documents_read"] += 1
    raw, separators = _SEPARATORS.subn(" ", "\n".join(paragraphs))
    counts["separators_replaced"] += separators
    raw, controls = _CONTROLS.subn("", raw)
    text = fix_text(raw, _FTFY)
    counts["documents_repaired"] += text != raw
    text, left_controls = _LEFT_CONTROLS.subn("", text)
    counts["controls_dropped"] += controls + left_controls
    lines = text.split("\n")
    kept = [line for line in (" ".join(line.split()) for line in lines) if line]
    clean = "\n".join(kept)
    counts["whitespace_dropped"] += len(text) - len(clean) - (len(lines) - len(kept) if kept else 0)
    counts["empty_paragraphs_dropped"] += len(lines) - len(kept) if raw else 0
    if not clean:
        counts["empty_documents_dropped"] += 1
        return None
    if len(clean) < MIN_CHARACTERS:
        counts["short_documents_dropped"] += 1
        return None
    counts["documents_kept"] += 1
    return clean


def table(counts: Counter[str]) -> str:
    """The counts as lines of text, one rule a line."""
    width = max(len(f"{counts[key]:,}") for key in RULES)
    return "\n".join(f"  {counts[key]:>{width},}  {label}" for key, label in RULES.items())
