"""Sentences of a clean text, with every character of it in exactly one of them.

Knows nothing of tokens or rows. Where sentences end is found by `sentencex`, the splitter of Wikimedia's translation
tools; paragraphs end sentences too. A quotation is cut inside only where it makes the sentence a long one.
"""

import re
from collections.abc import Iterator

import sentencex

_LONG_SENTENCE = 300
# A paragraph; more than an honest one holds is cut up, behind a full stop or at white space where there is some: on a
# run of opening quotation marks sentencex takes time that grows with the square of its length.
_PARAGRAPH = re.compile(
    r"[^\n]{1,8191}(?=\n|\Z)|[^\n]{1,8190}[.!?](?=\s)|[^\n]{1,8191}(?=\s)|[^\n]{1,8191}|\n+",
)
# sentencex 1.0 panics on some white space that is more than one byte long (U+00A0 between "A" and a full stop).
_ODD_SPACE = re.compile(r"[^\S\n ]")
_OPENING_QUOTE = re.compile(r"(?<!\S)[\"'\u201c\u2018\u00ab]")


def split_sentences(text: str, language: str = "en") -> list[str]:
    """The sentences of a text, none of white space only, in order; joined they are the text again.

    White space goes with the sentence that follows it, at the end of the text with the last one. A text of nothing
    but white space is one sentence. `language`: a code such as "en", for abbreviations; English rules where
    sentencex knows none of its own.
    """
    sentences: list[str] = []
    start = end = 0  # `start` of the sentence that is being put together, `end` of the last part looked at
    for part in _parts(_ODD_SPACE.sub(" ", text), language):
        content = part.rstrip()
        if content:
            sentences.append(text[start : end + len(content)])
            start = end + len(content)
        end += len(part)
    if start < len(text):
        sentences[-1:] = ["".join(sentences[-1:]) + text[start:]]
    return sentences


def _parts(text: str, language: str) -> Iterator[str]:
    """Sentences with the white space behind them, as sentencex gives them; of a length with those of the text."""
    for paragraph in _PARAGRAPH.findall(text):
        for sentence in sentencex.segment(language, paragraph):
            if len(sentence) <= _LONG_SENTENCE:
                yield sentence
            else:
                yield from sentencex.segment(language, _OPENING_QUOTE.sub(" ", sentence))
