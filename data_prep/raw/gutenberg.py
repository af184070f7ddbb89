"""What Project Gutenberg's people put around and into a book: licence, credits, notes, pictures, marks of italics.

Knows nothing of files, cleaning rules or tokens.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

_START = re.compile(
    r"\s*\*{3}\s*START OF (?:THE|THIS) .*PROJECT GUTENBERG|\s*\*END[ *]*THE SMALL PRINT!", re.IGNORECASE
)
_END = re.compile(
    r"\s*\*{3}\s*END OF (?:THE|THIS) .*PROJECT GUTENBERG"
    r"|\s*\**\s*END OF (?:THE |THIS )?PROJECT GUTENBERG(?:'S|\u2019S| E-?(?:BOOK|TEXT))",
    re.IGNORECASE,
)
_NAMES = ("GUTENBERG", "Gutenberg", "gutenberg", "SMALL PRINT", "Small Print", "small print")
# A title too long for its start line goes on below, to the closing asterisks.
_LONGEST_START_LINES = 4
# The licence has fewer lines, and so have headers.
_LICENCE_LINES = 1_000

_CREDITS = re.compile(
    r"\[?(?:This )?(?:E-?text |E-?book )?(?:was )?(?:Produced|Prepared|Transcribed) (?:by|from)\b"
    r"|\[?Note: +(?:The )?(?:Project Gutenberg|Images of the original|Many of the images|Illustrations for)\b", re.I
)  # fmt: skip
_CREDIT_PARAGRAPHS = 4

_INSIDE = r"(?:[^\[\]]++|\[[^\[\]]*+\])*+"
_PICTURES = (
    "illustrated|pictures?|photographs?|plate|portrait|images?|map|decorat[a-z]+|ornament|tailpiece|headpiece"
    r"|blank page|music(?:al notation)?|page \d+|pg \d+|p\. \d+"
)
# Words that a sentence in brackets may begin with, too, are captions before a colon or alone in a paragraph.
_PICTURE = re.compile(
    rf"\[ *(?:(?:illustrations?|frontispiece|sidenote|editor's illustration)\b|(?:{_PICTURES}) *(?=[:.\]])"
    rf"|(?P<caption>{_PICTURES})\b){_INSIDE}\]",
    re.IGNORECASE,
)
_LONGEST_INDENT = 80
_PAGE_NUMBER = re.compile(r"\{(?:p\. ?)?\d{1,4}[a-z]?\}")
_BRACKETED_NOTE = re.compile(
    rf"\[[\s*_]*+(?:Original\s+)?Transcri(?:ber['\u2019]?s?|ption)\b{_INSIDE}\]", re.IGNORECASE
)
_LONGEST_BRACKET = 6_000
_NOTE = re.compile(
    r"[\s|\[*_=+\u2022\u25cf-]*+(?:original )?(?:e-?text )?transcriber['\u2019]?s?['\u2019]? (?:end)?notes?\b"
    r"|\s*+(?:typographical )?err(?:ors|ata)\b.{0,30}\bby (?:the )?(?:e-?text )?transcriber",
    re.IGNORECASE,
)
_TRANSCRIBER = ("ranscri", "RANSCRI")
_BOX = re.compile(r"\s*+[|+]")
_LONGEST_HEADING = 60
# Where in a book notes stand that are more than one paragraph, as shares of its lines.
_IN_FRONT, _AT_THE_END = 0.05, 0.8

_CHAPTER = re.compile(
    r"\s*+(?:chapter|chap\.|book|part|volume|vol\.|canto|act|scene|section|letter|appendix|no\.)\s*+[ivxlcdm\d]++\b",
    re.IGNORECASE,
)
# Years are no pages.
_NUMBER = r"(?!(?:1\d|20)\d\d(?!\d))\d{1,4}"
_PAGE = re.compile(
    rf"(?:(?P<gap>[.\s]{{2}})|[,.]) ?(?:(?P<page>{_NUMBER})|[ivxlc]{{1,7}})(?:[,-] ?{_NUMBER})*+$"
    rf"|^\s*+[IVXLCDM]{{1,8}}\. .*\s{_NUMBER}$"
)
_SENTENCE = re.compile(r"(?:\S+\s+){6}.*[.!?][\"'\u201d\u2019)]*$")
_TITLED = re.compile(r"\s*+(?:chapter|chap\.|book|part|volume|vol\.|canto|act|scene|appendix)\b", re.IGNORECASE)
_BEFORE_LAST_OF_PAGES = frozenset("0123456789ivxlc .")
_LIST_LINES, _LIST_SHARE = 4, 0.7

# Patterns that begin with the mark are found at the speed of a search for it.
_ITALICS = re.compile(r"_(?<!\w_)(?=[^\s_])([^_]{1,1000}+)(?<=\S)_(?!\w)")
_LONE_MARK = re.compile(r"_(?:(?<!\w_)(?=[^\W_])|(?<=[a-zA-Z.,;:!?]_)(?!\w))")
# Of sums of money: 8_s_. 6_d_., and of ordinals: 4_th_.
_UNIT = re.compile(r"_(?<=[\d\u00bc-\u00be]_)([a-zA-Z]{1,4}\.?)_(?!\w)")
_BOLD = re.compile(r"=(?<![\w=]=)(?=[^\s=])([^=]{1,200}+)(?<=\S)=(?![\w=])")
_RAISED = re.compile(r"\^\{([^{}\n]{1,20})\}")
_LIGATURE = re.compile(r"\[(oe|ae)\]", re.IGNORECASE)
_FOOTNOTE = re.compile(r"\[Footnote(?: [\w*]{1,5})?: ?", re.IGNORECASE)
_FOOTNOTE_MARK = re.compile(r"\[(?<=[\w.,;:!?\"'\u201d\u2019)]\[)(?:Footnote )?\d{1,3}\]")


def regions(lines: Sequence[str]) -> list[tuple[int, int]]:
    """(first line, line behind the last) of every book proper; all lines where no marker stands.

    A missing start marker keeps the beginning, a missing end marker the rest; text behind the last book that is
    longer than the licence is a text too.
    """
    marked = [(number, lines[number]) for number in _naming(_NAMES, "\n".join(lines))]
    starts = [number for number, line in marked if _START.match(line)]
    ends = [number for number, line in marked if _END.match(line)]
    if starts and ends and ends[0] < starts[0] <= _LICENCE_LINES:
        # A header that speaks of the end.
        ends = [number for number in ends if number > starts[0]]
    found: list[tuple[int, int]] = []
    behind = 0
    for end in [*ends, len(lines)]:
        begins = [number for number in starts if behind <= number < end]
        if begins:
            # Old headers have a "small print" of their own, and with it a second start.
            start = next((n for n, after in pairwise(begins) if after - n > _LICENCE_LINES), begins[-1])
            # Behind a book the small print alone begins no other one, unless a book follows.
            if not found or "SMALL PRINT" not in lines[start].upper() or end - start > _LICENCE_LINES:
                found.append((_behind_title(lines, start, end), end))
        elif not behind or (end == len(lines) and end - behind > _LICENCE_LINES):
            found.append((behind, end))
        behind = end + 1
    return found


def _naming(words: Sequence[str], text: str) -> list[int]:
    """The lines that hold one of the words, found without a look at the others."""
    places = set()
    for word in words:
        place = text.find(word)
        while place >= 0:
            places.add(text.rfind("\n", 0, place))
            end = text.find("\n", place)
            place = text.find(word, end) if end >= 0 else -1
    numbers, number, seen = [], 0, 0
    for place in sorted(places):
        number += text.count("\n", seen, place + 1)
        seen = place + 1
        numbers.append(number)
    return numbers


def _behind_title(lines: Sequence[str], start: int, end: int) -> int:
    """The line behind a start marker, whose title may go on below."""
    if lines[start].rstrip().endswith("*"):
        return start + 1
    ahead = range(start + 1, min(start + 1 + _LONGEST_START_LINES, end))
    return next((n + 1 for n in ahead if lines[n].rstrip().endswith("***")), start + 1)


def without_additions(text: str) -> str:
    """A book without captions and markers of pictures, sidenotes, page numbers in brackets, and transcriber's notes."""
    has_notes = any(word in text for word in _TRANSCRIBER)
    if has_notes:
        text = _BRACKETED_NOTE.sub(_unless_long, text)
    if "[" in text:
        text = _PICTURE.sub(_unless_said, text)
    if "{" in text:
        text = _PAGE_NUMBER.sub("", text)
    return "\n".join(_without_notes(text.split("\n"), _naming(_TRANSCRIBER, text))) if has_notes else text


def plain(paragraph: str) -> str:
    """A paragraph without marks of italics, bold, raised letters and footnotes."""
    if "_" in paragraph:
        paragraph = _UNIT.sub(r"\1", _ITALICS.sub(r"\1", paragraph))
    if "_" in paragraph:
        paragraph = _LONE_MARK.sub("", paragraph)
    if "=" in paragraph:
        paragraph = _BOLD.sub(r"\1", paragraph)
    if "^" in paragraph:
        paragraph = _RAISED.sub(r"\1", paragraph)
    if "[" in paragraph:
        paragraph = _FOOTNOTE_MARK.sub("", _LIGATURE.sub(r"\1", paragraph))
        if found := _FOOTNOTE.match(paragraph):
            paragraph = paragraph[found.end() :].removesuffix("]")
    return paragraph


def without_credits(paragraphs: list[str]) -> list[str]:
    """Without the paragraphs in front that name who made the file."""
    head = [text for text in paragraphs[:_CREDIT_PARAGRAPHS] if not _CREDITS.match(text)]
    return head + paragraphs[_CREDIT_PARAGRAPHS:]


def _unless_long(match: re.Match[str]) -> str:
    """Nothing in its place, unless it is so long that its bracket belongs to something else."""
    return "" if len(match[0]) <= _LONGEST_BRACKET else match[0]


def _unless_said(match: re.Match[str]) -> str:
    """Nothing in its place, unless it is long, or a caption that may be part of a sentence: no paragraph of its own."""
    if match["caption"]:
        before = match.string[max(0, match.start() - _LONGEST_INDENT) : match.start()].rstrip(" \t")
        after = match.string[match.end() : match.end() + _LONGEST_INDENT].lstrip(" \t")
        begins = match.start() == 0 or before.endswith(("\n\n", "]\n"))
        if not begins or after[:1] not in ("", "\n") or (after[1:2].strip() not in ("", "[")):
            return match[0]
    return _unless_long(match)


def _without_notes(lines: list[str], naming: Sequence[int]) -> list[str]:
    """A note goes with its paragraph or box; a heading of notes with all up to the next gap of two blank lines, at the
    end of the book with all that follows. Notes begin in lines `naming` transcribers."""
    kept: list[str] = []
    position = 0
    for number in naming:
        if number < position or not _NOTE.match(lines[number]) or (number and lines[number - 1].strip(" |+-=\t")):
            continue
        kept += lines[position:number]
        if _BOX.match(lines[number]):
            while kept and _BOX.match(kept[-1]):
                kept.pop()
            position = next((n for n in range(number, len(lines)) if not _BOX.match(lines[n])), len(lines))
        else:
            position = _behind_note(lines, number)
    return kept + lines[position:]


def _behind_note(lines: Sequence[str], start: int) -> int:
    end = next((n for n in range(start, len(lines)) if not lines[n].strip()), len(lines))
    if end - start > 1 or len(lines[start].strip()) > _LONGEST_HEADING:
        return end
    if start >= _AT_THE_END * len(lines):
        return len(lines)
    if start > max(_IN_FRONT * len(lines), 100):
        return end
    gap = next((n for n in range(end + 1, len(lines) - 1) if not (lines[n].strip() or lines[n + 1].strip())), end)
    return gap


def is_list(block: str, is_marked: bool = False) -> bool:
    """Whether a block of lines is one of chapters or pages: contents, or an index.

    In files that are not `is_marked`, with Gutenberg's markers, titles are those of chapters and no sentences,
    and pages that stand right behind the text rise, or its lines are in the order of the alphabet.
    """
    most = (1 - _LIST_SHARE) * (block.count("\n") + 1)
    if most < (1 - _LIST_SHARE) * _LIST_LINES:
        return False
    others = 0
    lines = block.split("\n")
    for line in lines:
        others += not _is_listed(line.rstrip(), is_marked)
        if others > most:
            return False
    return is_marked or _is_in_order(lines)


def _is_listed(line: str, is_marked: bool) -> bool:
    """Whether a line names a chapter, or ends with the number of a page."""
    may_be_page = line[-1:].isdigit() or (line[-1:] in "ivxlc" and line[-2:-1] in _BEFORE_LAST_OF_PAGES)
    if may_be_page and _PAGE.search(line) is not None:
        return True
    if _CHAPTER.match(line) is None:
        return False
    # Laws and letters have numbers, too.
    is_titled, is_sentence = _TITLED.match(line) is not None, _SENTENCE.match(line) is not None
    return is_titled or not is_sentence if is_marked else is_titled and not is_sentence


def _is_in_order(lines: Sequence[str]) -> bool:
    found = [page for line in lines if (page := _PAGE.search(line.rstrip())) and page["page"] and not page["gap"]]
    pages = [int(page["page"]) for page in found]
    names = [page.string.strip().lower() for page in found]
    return not pages or (pages == sorted(pages) and pages[0] < pages[-1]) or names == sorted(names)
