"""Wikitext to clean text: paragraphs without templates, tables, references, links or any other markup.

Knows nothing of dumps, pages or cleaning rules. A pass for each kind of markup, from the outside in, in time
proportional to the text. A bracket without a partner goes alone, or with its line where that is a file or a row of
a table, and never with the rest of the page.
"""

import html
import re
from html.entities import html5

from data_prep.raw.wikitemplates import speaks, split_arguments

_MAX_DEPTH = 8
# Stands where a template or a formula was cut out, until the gap is closed; no wikitext holds it.
_GAP = "\x00"

# Sections of references and links: no prose. English, and the same titles in large Wikipedias.
_LEFT_OUT_TITLES = (
    "see also|references|reference|external links|external link|further reading|notes|note|bibliography|footnotes"
    "|sources|citations|notes and references|references and notes|footnotes and references|works cited|weblinks"
    "|einzelnachweise|siehe auch|literatur|quellen|notes et r\u00e9f\u00e9rences|voir aussi|liens externes"
    "|bibliographie|r\u00e9f\u00e9rences|referencias|v\u00e9ase tambi\u00e9n|enlaces externos|bibliograf\u00eda|notas"
    "|voci correlate|collegamenti esterni|altri progetti|bibliografia|refer\u00eancias|ver tamb\u00e9m"
    "|liga\u00e7\u00f5es externas|zie ook|externe links|externe link|bronnen, noten en/of referenties"
)
_LEFT_OUT = frozenset(_LEFT_OUT_TITLES.split("|"))
_HEADING = re.compile(r"\n(==[^\n]*)")

_CUT_TAGS = (
    "ref|math|chem|ce|gallery|source|syntaxhighlight|timeline|score|pre|hiero|imagemap|graph|mapframe|maplink|inputbox"
    "|references|templatestyles|templatedata|indicator|categorytree|includeonly|table|section"
)
_KEPT_TAGS = (
    "abbr|bdi|bdo|b|big|cite|code|data|del|dfn|em|font|i|ins|kbd|mark|q|rb|rp|rtc|rt|ruby|samp|small|span|strike"
    "|strong|sub|sup|s|time|tt|u|var|wbr|nowiki|noinclude|onlyinclude"
)
_BLOCK_TAGS = "blockquote|caption|center|dd|div|dl|dt|h[1-6]|hr|li|ol|poem|p|td|th|tr|ul"
# Between a tag and its end there is no second opening of it: then the first one is broken, and loses its tag only.
_CUT = re.compile(rf"<({_CUT_TAGS})\b[^<>]*+(?:(?<=/)>|>([^<]*+(?:<(?!/?\1\b)[^<]*+)*+)</\1\s*>)", re.IGNORECASE)
_NOWIKI = re.compile(r"<nowiki\s*>([^<]*+(?:<(?!/?nowiki\b)[^<]*+)*+)</nowiki\s*>", re.IGNORECASE)
_MARKUP = re.compile(r"[][{}<>'|=*#:;!_-]")
_TAG = re.compile(rf"</?(?:({_BLOCK_TAGS})|(br)|(?:{_KEPT_TAGS}|{_CUT_TAGS}))\b[^<>]*+>", re.IGNORECASE)
_POWER = re.compile(r"<sup>(?<=\d<sup>)(?=[-+\u2212]?\d)")
_PLAIN_FORMULA = re.compile(r"[^\\{}^_<>&\n]{1,60}")

_BRACES = re.compile(r"\{\{|\}\}|\{(?<=\n\{)\||\|(?<=\n\|)\}(?!\}(?!\}))")
_OPENERS = {"}}": "{{", "|}": "{|"}
_INDENTED_TABLE = re.compile(r"\n[ \t:]++(?=\{\||\|\})")
_PARAMETER = re.compile(r"\{\{\{([^{}|]*+)[^{}]*+\}\}\}")

_LINK = re.compile(r"\[\[([^][|\n]*+)(?:\|([^][]*+(?:(?:\[(?!\[)|\](?!\]))[^][]*+)*+))?\]\]")
_FILE_NAMES = "file|image|media|datei|bild|fichier|archivo|imagen|immagine|ficheiro|imagem|bestand|afbeelding"
_FILES = frozenset(_FILE_NAMES.split("|"))
_CATEGORIES = frozenset(("category", "kategorie", "cat\u00e9gorie", "categor\u00eda", "categoria", "categorie"))
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*+|simple")
_OPEN_FILE = re.compile(rf"\[\[\s*(?:{_FILE_NAMES})\s*:[^\n]*+", re.IGNORECASE)
_EXTERNAL = re.compile(r"\[(?:(?:https?:|ftps?:|irc:|gopher:|git:)?//|mailto:|news:)[^][<>\s]*+[ \t]*+([^][\n]*+)\]")

_QUOTES = re.compile(r"(''+)")
_AMBIGUOUS = re.compile(r"'''(?<=\w''')(?=[^'\n]++''(?!'))|''''(?!')")
_MAGIC_WORD = re.compile(r"__[A-Z]{3,30}__")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_HOLED = re.compile(r"\(([^()\x00]*+\x00[^()]*+)\)")
_SEPARATORS = re.compile(r" ?[,;](?: ?[,;])*+")
_CLOSING = frozenset(",.;:)")
_MARKS = frozenset("*#:;=|!{-")
_LETTER = re.compile(r"[^\W\d_]")


def plain_text(wikitext: str) -> list[str]:
    """The paragraphs of a page, without markup and without "\\n".

    Left out: templates but for a few inline ones, tables, references, files, categories, formulas, galleries, code
    blocks, headings, and the sections of references and links. An item of a list is a paragraph.
    """
    text = "\n" + wikitext.replace(_GAP, "")
    if "<nowiki" in text:
        text = _NOWIKI.sub(lambda match: _MARKUP.sub(_escaped, match[1]), text)
    text = _without_sections(_without_comments(text))
    text = _CUT.sub(_cut, text)
    text = _without_links(_without_braces(text))
    text = _without_tags(text)
    text = without_gaps(text)
    for remains in ("{{", "}}", "[[", "]]", "''"):
        if remains in text:
            text = text.replace(remains, " ")
    return _paragraphs(text)


def without_remains(text: str) -> str:
    """A text that another extractor made, without what it left of tags, links, templates and magic words."""
    if "<" in text:
        text = _CUT.sub(_cut, text)
    if "{" in text and ("{{" in text or "{|" in text):
        text = _without_braces(text)
    if "[" in text or "]]" in text:
        text = _without_links(text)
    text = _without_tags(text)
    return without_gaps(text) if _GAP in text else text


def is_left_out(title: str) -> bool:
    """Whether the section of this title is none of prose, but of references or links."""
    return title.strip("= \t'\":[]").casefold() in _LEFT_OUT


def _escaped(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def _without_comments(text: str) -> str:
    kept, position = [], 0
    while (start := text.find("<!--", position)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        kept.append(text[position:start])
        position = end + 3
    return "".join([*kept, text[position:].replace("<!--", "")])


def _without_sections(text: str) -> str:
    kept, position, left_out = [], 0, 0
    for match in _HEADING.finditer(text):
        line = match[1].rstrip()
        level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")))
        if level == 0:
            continue
        if left_out and level <= left_out:
            position, left_out = match.start(), 0
        if not left_out and is_left_out(line):
            kept.append(text[position : match.start()])
            left_out = level
    return "".join(kept if left_out else [*kept, text[position:]])


def _cut(match: re.Match[str]) -> str:
    """Nothing, or a gap to be closed; short formulas as they are written."""
    if match[1].lower() not in ("math", "chem", "ce"):
        return _GAP if match.string[match.start() - 1] in " (" else ""
    formula = match[2]
    return formula.strip() if formula and _PLAIN_FORMULA.fullmatch(formula) else _GAP


def _without_braces(text: str, depth: int = 0) -> str:
    """Tables cut out, templates replaced by what they say."""
    if "{{{" in text:
        text = _PARAMETER.sub("", text)
    if "{|" in text:
        text = _INDENTED_TABLE.sub("\n", text)
    kept, position = [], 0
    for start, stop, closer in _brace_spans(text):
        kept.append(text[position:start])
        kept.append(_template(text[start + 2 : stop - 2], depth) if closer == "}}" else "\n")
        position = stop
    return "".join([*kept, text[position:]]).replace("{{", "").replace("}}", "")


def _brace_spans(text: str) -> list[tuple[int, int, str]]:
    """(start, stop, closing token) of the outermost templates and tables, in order of the text.

    A closing token ends the innermost open one of its kind; those left open inside it count as text.
    """
    spans: list[tuple[int, int, str]] = []
    opened: list[tuple[int, str]] = []
    counts = {"{{": 0, "{|": 0}
    for match in _BRACES.finditer(text):
        token = match[0]
        opener = _OPENERS.get(token)
        if opener is None:
            opened.append((match.start(), token))
            counts[token] += 1
        elif counts[opener]:
            kind = ""
            while kind != opener:
                start, kind = opened.pop()
                counts[kind] -= 1
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, match.end(), token))
    return spans


def _template(body: str, depth: int) -> str:
    name, bar, rest = body.partition("|")
    if not bar and ":" in name:
        name, _, rest = name.partition(":")
    say = speaks(name) if len(name) < 60 else None
    if say is None or depth >= _MAX_DEPTH:
        return _GAP
    if "{{" in rest:
        rest = _without_braces(rest, depth + 1)
    if "[[" in rest:
        rest = _without_links(rest)
    return say(split_arguments(rest.split("|") if rest else []))


def _without_links(text: str) -> str:
    """Links replaced by the text they show, files and categories cut out."""
    for _ in range(_MAX_DEPTH):
        text, links = _LINK.subn(_link, text)
        if not links or "[[" not in text:
            break
    if "[[" in text:
        text = _OPEN_FILE.sub("", text).replace("[[", "")
    text = _EXTERNAL.sub(lambda match: match[1], text)
    return text.replace("]]", "")


def _link(match: re.Match[str]) -> str:
    target, label = match[1], match[2]
    if ":" in target:
        prefix = target.partition(":")[0].strip()
        kind = prefix.lower()
        if (kind in _FILES and "\n\n" not in (label or "")) or kind in _CATEGORIES:
            return ""
        if label is None and _LANGUAGE.fullmatch(prefix):
            return ""
        if kind in ("http", "https"):
            return (label or target).partition(" ")[2]
    if label:
        return label.rpartition("|")[2]
    return target.strip().removeprefix(":").removeprefix("#")


def _without_tags(text: str) -> str:
    if "<" in text:
        text = _POWER.sub("^", text)
        text = _TAG.sub(_tag, text)
    if "''" in text:
        if _AMBIGUOUS.search(text):
            text = "\n".join(_without_quotes(line) if _AMBIGUOUS.search(line) else line for line in text.split("\n"))
        text = _QUOTES.sub("", text)
    return _MAGIC_WORD.sub("", text) if "__" in text else text


def _without_quotes(line: str) -> str:
    """A line without bold and italics, with the apostrophe of l'''amour'' (l' before italics) kept."""
    parts = _QUOTES.split(line)
    bold = False
    for index in range(1, len(parts), 2):
        length, following = len(parts[index]), len(parts[index + 2]) if index + 2 < len(parts) else 0
        apostrophe = length == 3 and not bold and following == 2 and parts[index - 1][-1:].isalpha()
        bold ^= length != 2 and not apostrophe
        parts[index] = "'" if apostrophe or length == 4 else ""
    return "".join(parts)


def _tag(match: re.Match[str]) -> str:
    return "\n\n" if match[1] else " " if match[2] else ""


def without_gaps(text: str) -> str:
    """Parentheses and commas mended where something was cut out of them, marked with "\\x00"."""
    first, *others = _HOLED.sub(_mended, text).split(_GAP)
    kept = [first]
    for piece in others:
        if piece[:1] in _CLOSING:
            kept[-1] = kept[-1].rstrip(" ")
            piece = piece[kept[-1][-1:] == piece[0] == "," :]
        kept.append(piece)
    return "".join(kept)


def _mended(match: re.Match[str]) -> str:
    inside = " ".join(match[1].replace(_GAP, " ").split())
    inside = _SEPARATORS.sub(lambda found: found[0].strip()[0], inside).strip(" ,;:")
    return f"({inside})" if inside else _GAP


def _paragraphs(text: str) -> list[str]:
    """Lines up to a blank one make a paragraph, items of lists one each; headings and remains of tables are dropped."""
    paragraphs: list[str] = []
    lines: list[str] = []
    for line in text.split("\n"):
        line = line.strip()
        item = line[:1] in _MARKS
        if item:
            line = _item_text(line)
        if lines and (item or not line):
            paragraphs.append(" ".join(lines))
            lines = []
        if line and item:
            paragraphs.append(line)
        elif line:
            lines.append(line)
    paragraphs.append(" ".join(lines))
    clean = (unescape(text) if "&" in text else text for text in paragraphs)
    return [" ".join(text.split()) for text in clean if _LETTER.search(text)]


def _item_text(line: str) -> str:
    """What a line that starts with a mark says: "" for headings, rules and rows of a table that was never closed."""
    first = line[:1]
    heading = first == "=" and line.endswith("=")
    row = line.startswith(("|", "{|")) or (first == "!" and ("|" in line or "!!" in line))
    if heading or row:
        return ""
    if line.startswith("----"):
        return line.lstrip("-").lstrip()
    return line.lstrip("*#:; \t") if first in "*#:;" else line


def unescape(text: str) -> str:
    """A text with the characters that its entities stand for."""
    return _ENTITY.sub(_character, text)


def _character(match: re.Match[str]) -> str:
    """What an entity stands for; unlike html.unescape, &notin; but not the beginning of &notinfo;."""
    entity = match[0]
    return html.unescape(entity) if entity[1] == "#" else html5.get(entity[1:], entity)
