"""Links of wikitext: what each shows, and the files and categories that show nothing in a sentence.

Knows nothing of templates, tags or paragraphs.
"""

import re

from data_prep.raw.gaps import GAP
from data_prep.raw.wikinames import Names, plain_name
from data_prep.raw.wikiquotes import without_quotes

_MAX_DEPTH = 8
# A bracketed word may be the last of a label: [[a|b [c]]].
_LINK = re.compile(r"\[\[([^][|\n]*+)(?:\|([^][]*+(?:(?:\[(?!\[)(?:[^][]*+\](?=\]\]))?|\](?!\]))[^][]*+)*+))?\]\]")
# Longer ones with a blank line in them were never closed.
_LONGEST_CAPTION = 1_000
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*+|simple")
_OPEN = re.compile(r"\[\[([^][|\n:]{1,60}):")
_EXTERNAL = re.compile(r"\[(?:(?:https?:|ftps?:|irc:|gopher:|git:)?//|mailto:|news:)[^][<>\s]*+[ \t]*+([^][\n]*+)\]")


def without_links(text: str, names: Names) -> str:
    """Links replaced by the text they show, files and categories cut out."""

    def show(match: re.Match[str]) -> str:
        return _link(match, names)

    for _ in range(_MAX_DEPTH):
        text, links = _LINK.subn(show, text)
        if not links or "[[" not in text:
            break
    if "[[" in text:
        text = _without_open_files(text, names).replace("[[", "")
    text = _EXTERNAL.sub(lambda match: match[1], text)
    return text.replace("]]", "")


def _without_open_files(text: str, names: Names) -> str:
    """The links to files that have no end are cut out with the rest of their lines."""
    kept, position = [], 0
    for match in _OPEN.finditer(text):
        if match.start() >= position and plain_name(match[1]) in names.files:
            kept.append(text[position : match.start()])
            end = text.find("\n", match.end())
            position = end if end >= 0 else len(text)
    return "".join([*kept, text[position:]])


def _link(match: re.Match[str], names: Names) -> str:
    target, label = match[1], match[2]
    if ":" in target:
        prefix = target.partition(":")[0].strip()
        kind = plain_name(prefix)
        if kind in names.files and (label is None or len(label) < _LONGEST_CAPTION or "\n\n" not in label):
            return _apart(match)
        if kind in names.categories:
            return GAP
        if label is None and _LANGUAGE.fullmatch(prefix):
            return ""
        if kind in ("http", "https"):
            return (label or target).partition(" ")[2]
    if label:
        label = label.rpartition("|")[2]
        return without_quotes(label) if "''" in label else label
    return target.strip().removeprefix(":").removeprefix("#")


def _apart(match: re.Match[str]) -> str:
    """A blank where words touch what was cut out between them, else a gap."""
    before, behind = match.string[match.start() - 1 : match.start()], match.string[match.end() : match.end() + 1]
    return GAP if before in "\n (\x00" or behind in "\n ,.;:)" else " "
