"""Rows of token ids as coloured text for a terminal: decoded, wrapped, with masks and boundaries marked.

Knows nothing of which rows, or of how they were masked. Colours are laid over the markers and do not replace them:
without colour the same characters are shown.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from data_prep.rows.masking import IntArray
from data_prep.rows.shards import ShardReader
from data_prep.terminal import columns_of, escaped, visible
from data_prep.tokenization.vocabulary import BYTE_SYMBOLS, CONTINUATION

Style = Literal["text", "boundary", "unknown", "masked", "random", "kept", "odd", "even", "title"]
# Dark letters on a bright ground can be read on any terminal's own ground.
_CODES: dict[Style, str] = {
    "text": "",
    "boundary": "2",
    "unknown": "4;31",
    "masked": "30;43",
    "random": "30;48;5;210",
    "kept": "30;46",
    "odd": "1;36",
    "even": "1;35",
    "title": "1",
}
MASK = "MASK"
_BYTES = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}
_ANCHOR = "a"


@dataclass(frozen=True)
class Span:
    """Some characters in one style; white space is a place to break lines in style "text" only."""

    text: str
    style: Style = "text"


def painted(span: Span) -> str:
    """The characters with the codes of their colour around them."""
    code = _CODES[span.style]
    return f"\x1b[{code}m{span.text}\x1b[0m" if code and span.text else span.text


class RowText:
    """Rows of one split as lines of spans: a block for every piece, behind a bar with its number."""

    def __init__(self, reader: ShardReader, tokenizer: Tokenizer, special_texts: dict[str, str]) -> None:
        self._reader, self._tokenizer = reader, tokenizer
        self._special_texts = {reader.special_tokens[role]: text for role, text in special_texts.items()}
        self._bounds = {reader.special_tokens[role] for role in ("cls", "sep")}

    def lines(
        self, seen: IntArray, ids: IntArray, predicted: np.ndarray, lengths: np.ndarray, columns: int
    ) -> Iterator[list[Span]]:
        """One row: what a model sees (L,), the original ids (L,), where it predicts (L,), its pieces' lengths."""
        start = 0
        for number, end in enumerate(self.ends(ids, lengths)):
            label = "AB"[number] if self._reader.packing == "pairs" else str(number + 1)
            bar: Style = "even" if number % 2 else "odd"
            spans = self.spans(seen[start:end], ids[start:end], predicted[start:end])
            for line_number, line in enumerate(wrapped(spans, columns - 6)):
                yield [Span(f"{label if line_number == 0 else '':>3} | ", bar), *line]
            start = end
        if start < len(ids):
            yield [Span("    | "), Span(f"{self.special('pad')} x {len(ids) - start}", "boundary")]

    def ends(self, ids: IntArray, lengths: np.ndarray) -> list[int]:
        """Where each block ends: pieces, sentences of a pair, or in packing "sentences" parts of documents."""
        ends = np.cumsum(lengths[lengths > 0])
        if self._reader.packing == "sentences":
            ends = np.flatnonzero(ids[: ends[-1]] == self._reader.special_tokens["sep"]) + 1
        return ends.tolist()

    def special(self, role: str) -> str:
        """How the tokenizer writes a special token."""
        return self._special_texts[self._reader.special_tokens[role]]

    def spans(self, seen: IntArray, ids: IntArray, predicted: np.ndarray) -> list[Span]:
        """The characters of one block; the text between its boundaries is that of the original ids."""
        spans: list[Span] = []
        is_first = True
        tokens = zip(seen.tolist(), ids.tolist(), predicted.tolist(), strict=True)
        for is_plain, group in groupby(tokens, lambda token: not token[2] and token[1] not in self._special_texts):
            if is_plain:
                spans.append(Span(visible(self.text([before for _, before, _ in group], is_first))))
                is_first = False
                continue
            for now, before, is_predicted in group:
                if before in self._bounds:
                    spans += [Span(" "), Span(self._special_texts[before], "boundary"), Span(" ")]
                else:
                    spans += self._marker(now, before, is_predicted, is_first)
                is_first = before in self._bounds
        return spans

    def text(self, ids: Sequence[int], is_first: bool) -> str:
        """What the tokenizer decodes these ids to, at the beginning of a text or behind other tokens.

        Bytes that are no whole character of UTF-8 appear as \\xNN.
        """
        tokens = [self._tokenizer.id_to_token(number) or f"<{number}>" for number in ids]
        decoder = self._tokenizer.decoder
        if decoder is None:
            return " " * (not is_first) + " ".join(tokens)
        text = decoder.decode(tokens) if is_first else decoder.decode([_ANCHOR, *tokens])[len(_ANCHOR) :]
        symbols = "".join(tokens)
        if "\ufffd" in text and all(symbol in _BYTES for symbol in symbols):
            return bytes(_BYTES[symbol] for symbol in symbols).decode("utf-8", "backslashreplace")
        return text

    def _marker(self, now: int, before: int, is_predicted: bool, is_first: bool) -> list[Span]:
        original = self.text([before], is_first)
        space = " " if original.startswith(" ") and not original.isspace() else ""
        word = escaped(original.removeprefix(space))
        if not is_predicted:
            return [Span(space), Span(word, "unknown")]
        if now == before:
            return [Span(space), Span(f"[={word}]", "kept")]
        if now == self._reader.special_tokens["mask"]:
            return [Span(space), Span(f"[{MASK}={word}]", "masked")]
        shown = CONTINUATION * bool(self._reader.continues[now]) + self.text([now], False).removeprefix(" ")
        return [Span(space), Span(f"[{escaped(shown)}={word}]", "random")]


def wrapped(spans: Iterable[Span], columns: int) -> list[list[Span]]:
    """Lines of at most `columns` columns, broken at spaces, of which one is shown where there are several.

    A longer word stands alone. "\\n" ends a line.
    """
    words: list[tuple[str, list[Span]]] = [("\n", [])]
    for span in spans:
        for part in re.split("([ \n])", span.text) if span.style == "text" else [span.text]:
            if span.style == "text" and part in (" ", "\n"):
                words.append((part, []))
            elif part:
                words[-1][1].append(Span(part, span.style))
    lines: list[list[Span]] = []
    used = 0
    for space, word in words:
        width = sum(columns_of(span.text) for span in word)
        if space == "\n" or (word and used and used + 1 + width > columns):
            lines.append([])
            used = 0
        if word:
            lines[-1] += [Span(" "), *word] if used else word
            used += width + (used > 0)
    return lines
