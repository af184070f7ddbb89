"""Gaps where something was cut out of a sentence, and how they are closed: blanks, commas and parentheses around them.

Knows nothing of what was cut, or of any markup.
"""

import re

# Stands where a template or a formula was cut out, until the gap is closed; no text holds it.
GAP = "\x00"

_HOLED = re.compile(r"\(([^()\x00]*+\x00[^()]*+)\)")
_WIDE_HOLED = re.compile(r"\uff08([^\uff08\uff09\x00]*+\x00[^\uff08\uff09]*+)\uff09")
_SEPARATORS = re.compile(r" ?[,;\u3001\uff0c\uff1b](?: ?[,;\u3001\uff0c\uff1b])*+")
_CLOSING = frozenset(",.;:)\u3001\uff0c")


def without_gaps(text: str) -> str:
    """Parentheses and commas mended where something was cut out of them, marked with "\\x00"."""
    if "\uff08" in text:
        text = _WIDE_HOLED.sub(_mended, text)
    first, *others = _HOLED.sub(_mended, text).split(GAP)
    kept = [first]
    for piece in others:
        if piece[:1] in _CLOSING:
            kept[-1] = kept[-1].rstrip(" ")
            piece = piece[kept[-1][-1:] == piece[0] and piece[0] in ",\u3001\uff0c" :]
        kept.append(piece)
    return "".join(kept)


def _mended(match: re.Match[str]) -> str:
    inside = " ".join(match[1].replace(GAP, " ").split())
    inside = _SEPARATORS.sub(lambda found: found[0].strip()[0], inside).strip(" ,;:\u3001\uff0c\uff1b\uff1a")
    return f"{match[0][0]}{inside}{match[0][-1]}" if inside else GAP
