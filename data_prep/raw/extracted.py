"""Articles as WikiExtractor leaves them: plain, with links (-l), as HTML (--html), and with the marks of old versions.

Out of all of them come the paragraphs that a dump gives: headings, sections of references and rows of tables left out,
links as their text, items of lists as paragraphs, holes in sentences closed. Knows nothing of files.
"""

import re

from data_prep.raw.holes import close_all_holes
from data_prep.raw.markup import without_markup
from data_prep.raw.wikitext import is_category, is_left_out, titles_left_out, unescape, without_remains

Edits = dict[str, int]
# How deep the headings among some lines are, by place; all that do not say so are as deep as can be.
Levels = dict[int, int]

# Lines that --html adds around the escaped text; a few versions write </<li> for </li>.
_HEADING = re.compile(r"<h([1-6])>(.*)</h\1>")
_LIST = re.compile(r"</?[uod]l>")
_ITEM = re.compile(r"<(li|dt|dd)>(.*?)(?:</<?\1>)?")
_OLD_HEADING, _MARKED_HEADING = "Section::::", re.compile(r"## (.*?)\.?")
_OLD_ITEMS, _OLD_ITEM = ("BULLET::::", "*"), re.compile(r"BULLET::::(?:-|[0-9]+[.)])?")
_MARKS = ("<", _OLD_HEADING, "## ", *_OLD_ITEMS)

_ESCAPED = re.compile(r"&(amp|lt|gt);")
_NOT_ESCAPED = re.compile(r"&(?!(?:amp|lt|gt);)")
_CHARACTERS = {"amp": "&", "lt": "<", "gt": ">"}
# Those that a text without them was not escaped for.
_NAMED_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot);)[a-zA-Z][a-zA-Z0-9]{1,31};")
# A row of a table: marked as one, or numbers only.
_ROW = re.compile(r"\s*+(?:[|!]|[\d\W_]*+\Z)")
_LETTER = re.compile(r"[^\W\d_]")

# A heading of the plain form is a line with a full stop behind it, like a sentence. In 106 articles of which --html
# tells the headings these rules find 1,658 of 1,671 and take 2 sentences for one; in 14,054 articles without any, 29.
_HEADING_CHARACTERS, _HEADING_WORDS, _SURE_WORDS, _DEEPEST = 80, 8, 3, 7
_TITLE_CHARACTERS = 40
_HEADING_START = re.compile(r"(?![0-9]+\.|[^_]*_)[\w\"]")
_SENTENCE_END = re.compile(r"[^\W\d]{4}[.!?][\"\u201d)]?\s")
_SENTENCE_WORDS = (
    "is are was were be been has have had do does did can could will would may might must shall should became becomes "
    "began died lived he she it they we you i there where which who this these those see therefore sometimes"
)
_WORDS_OF_SENTENCES = frozenset(_SENTENCE_WORDS.split())
_PUNCTUATION = ",;:\"'()\u201c\u201d"


def extracted_paragraphs(lines: list[str]) -> tuple[list[str], Edits]:
    """The paragraphs of an article, of which `lines` are the title and what follows it, and how many edits were made.

    Entities are read as often as the form escaped them, which the text itself shows.
    """
    if not lines:
        return [], {}
    title = _HEADING.fullmatch(lines[0])
    body, levels, is_html = _without_marks(lines[1:])
    if _is_escaped(marked := "\n".join(body)):
        body = _unescaped(marked).split("\n")
    levels = levels or _levels(body)
    while body and is_category(body[-1]):
        del body[-1]
    kept = _prose(body, levels)
    text = "\n".join(kept)
    clean = without_remains(without_markup(text))
    if "&" in clean:
        clean = unescape(clean) if is_html else _NAMED_ENTITY.sub(lambda match: unescape(match[0]), clean)
    if is_changed := clean != text:
        as_found = set(kept)
        clean = "\n".join(line for line in clean.split("\n") if line in as_found or _LETTER.search(line))
    clean, holes = close_all_holes(clean)
    edits = {
        "headings_dropped": len(levels),
        "markup_dropped": int(is_changed or is_html or len(marked) < sum(map(len, lines[1:]))),
        "holes_closed": holes,
    }
    return [_unescaped(title[2] if title else lines[0]), *(clean.split("\n") if clean else [])], edits


def _is_escaped(text: str) -> bool:
    """Whether html.escape(text, quote=False) may have made it of another one."""
    return "&" in text and "<" not in text and ">" not in text and not _NOT_ESCAPED.search(text)


def _unescaped(text: str) -> str:
    """What html.escape(text, quote=False) was made of."""
    return _ESCAPED.sub(lambda match: _CHARACTERS[match[1]], text) if "&" in text else text


def _without_marks(lines: list[str]) -> tuple[list[str], Levels, bool]:
    """Lines without the marks of their form, those among them that it marks as headings, and whether it is HTML.

    Of HTML, every heading comes twice: marked, and with a full stop before the first text under it.
    """
    if not any(line.startswith(_MARKS) for line in lines):
        return lines, {}, False
    kept: list[str] = []
    levels: Levels = {}
    is_html = False
    pending: set[str] = set()
    for line in lines:
        found = line.rstrip()
        if found.startswith("<") and (heading := _HEADING.fullmatch(found)):
            is_html = True
            levels[len(kept)] = int(heading[1])
            kept.append(heading[2])
            pending |= {heading[2], f"{heading[2]}."}
        elif found.startswith("<") and _LIST.fullmatch(found):
            is_html = True
        elif found.startswith("<") and (item := _ITEM.fullmatch(found)):
            is_html = True
            kept.append(item[2])
        elif found.startswith(_OLD_HEADING):
            *path, name = found.removeprefix(_OLD_HEADING).split(".:")
            levels[len(kept)] = len(path) + 1
            kept.append(name.removesuffix("."))
        elif heading := _MARKED_HEADING.fullmatch(found):
            levels[len(kept)] = _DEEPEST
            kept.append(heading[1])
        elif found not in pending:
            pending.clear()
            kept.append(_OLD_ITEM.sub("", found, count=1).lstrip("* ") if found.startswith(_OLD_ITEMS) else line)
    return kept, levels, is_html


def _levels(lines: list[str]) -> Levels:
    """The lines that look like headings, where of one of them that is sure, and the titles of references and links."""
    # Where sentences have other words, only the shortest lines can be told from them.
    most = _HEADING_WORDS if any(" the " in line for line in lines) else _SURE_WORDS
    found = {
        place: _DEEPEST
        for place, line in enumerate(lines[:-1])
        if len(line) <= _HEADING_CHARACTERS and lines[place + 1].strip() and _is_heading(line, most)
    }
    known = {
        place: _DEEPEST
        for place, line in enumerate(lines)
        if len(line) <= _TITLE_CHARACTERS and line.endswith(".") and is_left_out(line[:-1])
    }
    return found | known if any(len(lines[place].split()) <= _SURE_WORDS for place in found) else known


def _is_heading(line: str, most_words: int) -> bool:
    words = line.split()
    return (
        line.endswith(".")
        and not line.endswith("..")
        and _HEADING_START.match(line) is not None
        and not line[0].islower()
        and len(words) <= most_words
        and _LETTER.search(line) is not None
        and not _SENTENCE_END.search(line)
        and not _WORDS_OF_SENTENCES.intersection(word.strip(_PUNCTUATION).lower() for word in words)
    )


def _prose(lines: list[str], levels: Levels) -> list[str]:
    """The text without headings, sections of references and links, and rows of tables.

    Where a title of references has no full stop, other headings have none either, and nobody can say where it ends.
    """
    kept: list[str] = []
    left_out, longest = 0, _TITLE_CHARACTERS
    titles = titles_left_out()
    for place, line in enumerate(lines):
        level = levels.get(place, 0)
        if level:
            if level <= left_out:
                left_out = 0
            if not left_out and is_left_out(line.removesuffix(".")):
                left_out = level
        elif not (left_out or ("|" in line and _ROW.match(line)) or (len(line) < longest and line.strip() in titles)):
            kept.append(line)
    return kept
