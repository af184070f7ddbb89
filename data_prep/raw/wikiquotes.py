"""Runs of apostrophes in wikitext: what of them is bold and italics, and what is an apostrophe.

The rule is MediaWiki's (Parser::doQuotes), line by line, but for the slips of editors that it would show: there is no
apostrophe but behind a letter, and `''Titanic'''s` and `''L'''Europe''` have one however many runs the line has.
"""

import re

_RUNS = re.compile(r"(''+)")
_POSSESSIVE = re.compile(r"s\b")


def without_quotes(text: str) -> str:
    """A text without bold and italics, its apostrophes kept: `''Titanic'''s` -> "Titanic's"."""
    if "''" not in text:
        return text
    if "'''" in text:
        text = "\n".join(_line(line) if "'''" in line else line for line in text.split("\n"))
    return _RUNS.sub("", text)


def _line(line: str) -> str:
    parts = _RUNS.split(line)
    lengths = [min(len(run), 5) if len(run) != 4 else 3 for run in parts[1::2]]
    extra = [len(run) - length for run, length in zip(parts[1::2], lengths, strict=True)]
    apostrophes = _certain(parts, lengths)
    for number in apostrophes:
        lengths[number] = 2
    bold = sum(length != 2 for length in lengths)
    italics = sum(length != 3 for length in lengths)
    if bold % 2 and italics % 2:
        apostrophes += _first_apostrophe(parts, lengths)
    for number, more in enumerate(extra):
        parts[2 * number + 1] = "'" * (more or number in apostrophes)
    return "".join(parts)


def _certain(parts: list[str], lengths: list[int]) -> list[int]:
    """The runs of three behind a letter that end italics before an s, or stand before a word that '' ends."""
    found = []
    in_bold = in_italics = False
    for number, length in enumerate(lengths):
        before, behind = parts[2 * number], parts[2 * number + 2]
        if length == 3 and not in_bold and before[-1:].isalnum():
            following = lengths[number + 1] if number + 1 < len(lengths) else 0
            if (in_italics and _POSSESSIVE.match(behind)) or (following == 2 and behind[:1].isalpha()):
                found.append(number)
                length = 2
        in_italics ^= length != 3
        in_bold ^= length != 2
    return found


def _first_apostrophe(parts: list[str], lengths: list[int]) -> list[int]:
    """The run of three that is an apostrophe and italics where neither bold nor italics are even in number.

    It is the first behind a word of one letter, else the first behind a longer word.
    """
    behind_words = [number for number, length in enumerate(lengths) if length == 3 and parts[2 * number][-1:].isalnum()]
    single = [number for number in behind_words if parts[2 * number][-2:-1] == " "]
    return (single or behind_words)[:1]
