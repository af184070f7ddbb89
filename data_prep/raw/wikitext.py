"""Wikitext to clean text: paragraphs without templates, tables, references, links or any other markup.

Knows nothing of dumps, pages or cleaning rules. A pass for each kind of markup, from the outside in, in time
proportional to the text. A bracket without a partner goes alone, or with its line where that is a file or a row of
a table, and never with the rest of the page.
"""

import html
import re
from collections import Counter
from functools import cache
from html.entities import html5

from data_prep.raw.gaps import GAP, without_gaps
from data_prep.raw.wikiarguments import split_arguments
from data_prep.raw.wikilinks import without_links
from data_prep.raw.wikinames import Names, Site, names_of, plain_name
from data_prep.raw.wikiquotes import without_quotes
from data_prep.raw.wikitemplates import is_function, is_silent, plain_template, reads, speaks

_MAX_DEPTH = 8
_HEADING = re.compile(r"\n(=[^\n]+)")
_IN_HEADING = re.compile(r"\{\{[^{}]*\}\}|<[^<>]*>|\[\[[^][|]*\|")
# What joins two titles: "Notes and references", "Literatur & Weblinks".
_JOINED = re.compile(
    r"\s*[,;/&\u3001\u30fb\u548c\u53ca\u8207\u4e0e]\s*|\s(?:and|und|et|y|e|i|en|och|og|ja|ve|\u0438|\u0456|\u0442\u0430|och|s|\u0219i)\s"
)

_CUT_TAGS = (
    "ref|math|chem|ce|gallery|source|syntaxhighlight|timeline|score|pre|hiero|imagemap|graph|mapframe|maplink|inputbox"
    "|references|templatestyles|templatedata|indicator|categorytree|includeonly|table|section|languages"
)
_KEPT_TAGS = (
    "abbr|bdi|bdo|b|big|cite|code|data|del|dfn|em|font|i|ins|kbd|mark|q|rb|rp|rtc|rt|ruby|samp|small|span|strike"
    "|strong|sub|sup|s|time|tt|u|var|wbr|nowiki|noinclude|onlyinclude|phonos|translate|tvar"
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

_SWITCH = re.compile(
    r"(?:__|\uff3f\uff3f)([^\W\d_\uff3f][^\s_\uff3f<>]{0,40}(?:_[^\s_\uff3f<>]{1,40}){0,6})(?:__|\uff3f\uff3f)"
)
# The title of the page in its own text, as English and other large wikis write it.
_TITLE = re.compile(
    r"\{\{\s*+(?:(?:FULL|BASE|SUB)?PAGENAME|(?:VOLLER)?SEITENNAME|NOM(?:COMPLET|BASEDE)?PAGE(?:COMPLET)?"
    r"|NOMBREDEP[A\u00c1]GINA|NOMEDAP[A\u00c1]GINA|NAZWASTRONY|PAGINANAAM|SIDNAMN|TITOLOPAGINA"
    r"|\u041d\u0410\u0417\u0412\u0410\u041d\u0418\u0415\u0421\u0422\u0420\u0410\u041d\u0418\u0426\u042b|\u30da\u30fc\u30b8\u540d|\u9875\u540d|\u9801\u540d)\s*+\}\}"
)
_TITLE_LANGUAGES = frozenset(("de", "fr", "es", "pt", "pl", "nl", "sv", "it", "ru", "ja", "zh"))
_SMALL_SWITCHES = frozenset(("notoc", "toc", "forcetoc", "noeditsection", "nogallery", "noindex", "index", "hiddencat"))
_VARIANTS = re.compile(r"-\{(?!\{)([^{}]*+)\}-")
_VARIANT = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,8})?")
# Scripts without blanks between words.
_UNSPACED = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uff10-\uff19\u0e00-\u0eff\u1000-\u109f\u3001\uff08\uff09]"
)
# Prepositions and articles of Hebrew are letters of the next word, which may be a template.
_HEBREW_PREFIX = re.compile(r"[\s(\u05be-][\u05d1\u05d4\u05d5\u05db\u05dc\u05de\u05e9]{1,3}\Z")
# Longer ones are no part of a sentence.
_MOST_READ = 200
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_MARKS = frozenset("*#:;=|!{-")
_LETTER = re.compile(r"[^\W\d_]")


def plain_text(
    wikitext: str, names: Names | None = None, cut: Counter[str] | None = None, title: str = ""
) -> list[str]:
    """The paragraphs of a page, without markup and without "\\n".

    Left out: templates that say nothing in a sentence, tables, references, files, categories, formulas, galleries, code
    blocks, headings, and the sections of references and links. An item of a list is a paragraph. `names` are those of
    the page's wiki, without them those of all languages. The names of templates that were cut out in the middle of a
    sentence, though they may have said something, are counted in `cut`. `title` is that of the page, which its text may
    say by a magic word.
    """
    names = names or names_of(Site())
    cut = Counter() if cut is None else cut
    text = "\n" + wikitext.replace(GAP, "")
    if "<nowiki" in text:
        text = _NOWIKI.sub(lambda match: _MARKUP.sub(_escaped, match[1]), text)
    text = _without_sections(_without_comments(text), names.sections)
    text = _CUT.sub(_cut, text)
    if title and ("PAGENAME" in text or (names.language in _TITLE_LANGUAGES and _TITLE.search(text))):
        text = _TITLE.sub(lambda match: title, text)
    text = without_links(_without_braces(text, names, cut), names)
    if "-{" in text:
        text = _VARIANTS.sub(_variant, text)
    text = without_quotes(text)
    text = _without_tags(text)
    text = without_gaps(text)
    for remains in ("{{", "}}", "[[", "]]", "''"):
        if remains in text:
            text = text.replace(remains, " ")
    return _paragraphs(text)


def without_remains(text: str) -> str:
    """A text that another extractor made, without what it left of tags, links, templates and magic words."""
    names = names_of(Site())
    if "<" in text:
        text = _CUT.sub(_cut, text)
    if "{" in text and ("{{" in text or "{|" in text):
        text = _without_braces(text, names, Counter())
    if "[" in text or "]]" in text:
        text = without_links(text, names)
    text = _without_tags(without_quotes(text))
    return without_gaps(text) if GAP in text else text


def is_left_out(title: str) -> bool:
    """Whether the section of this title is none of prose, but of references or links, in any language."""
    return _is_no_prose(title, names_of(Site()).sections)


@cache
def titles_left_out() -> frozenset[str]:
    """The titles of such sections as articles write them, in any language."""
    return frozenset(title.capitalize() for title in names_of(Site()).sections)


def is_category(line: str) -> bool:
    """Whether a line is the rest of a link to a category, in any language."""
    prefix, colon, _ = line.partition(":")
    return bool(colon) and len(prefix) < _MOST_READ and plain_name(prefix) in names_of(Site()).categories


def _escaped(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def _without_comments(text: str) -> str:
    kept, position = [], 0
    while (start := text.find("<!--", position)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        kept.append(text[position:start])
        position = end + 3
    return "".join([*kept, text[position:].replace("<!--", "")])


def _without_sections(text: str, titles: frozenset[str]) -> str:
    kept, position, left_out = [], 0, 0
    for match in _HEADING.finditer(text):
        line = match[1].rstrip()
        level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")))
        if level == 0 or len(line) < 3:
            continue
        if left_out and level <= left_out:
            position, left_out = match.start(), 0
        if not left_out and _is_no_prose(line, titles):
            kept.append(text[position : match.start()])
            left_out = level
    return "".join(kept if left_out else [*kept, text[position:]])


def _is_no_prose(heading: str, titles: frozenset[str]) -> bool:
    if "{" in heading or "<" in heading or "|" in heading:
        heading = _IN_HEADING.sub("", heading)
    title = " ".join(heading.strip("= \t'\":[]").casefold().split())
    # No title of a section without prose has a hundred characters.
    return title in titles or (len(title) < 100 and all(part in titles for part in _JOINED.split(title)))


def _cut(match: re.Match[str]) -> str:
    """Nothing, or a gap to be closed; short formulas as they are written."""
    if match[1].lower() not in ("math", "chem", "ce"):
        # A gap also keeps apart the runs of apostrophes on both sides.
        return GAP if match.string[match.start() - 1] in " ('" else ""
    formula = match[2]
    return formula.strip() if formula and _PLAIN_FORMULA.fullmatch(formula) else GAP


def _without_braces(text: str, names: Names, cut: Counter[str], depth: int = 0) -> str:
    """Tables cut out, templates replaced by what they say."""
    if "{{{" in text:
        text = _PARAMETER.sub("", text)
    if "{|" in text:
        text = _INDENTED_TABLE.sub("\n", text)
    kept, position = [], 0
    for start, stop, closer in _brace_spans(text):
        kept.append(text[position:start])
        if closer == "}}":
            name, said = _template(text[start + 2 : stop - 2], names, cut, depth)
            if said is None:
                said = _unknown(text, start, stop, name, names, cut) if depth == 0 else GAP
            kept.append(said)
        else:
            kept.append("\n")
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


def _template(body: str, names: Names, cut: Counter[str], depth: int) -> tuple[str, str | None]:
    """The name of a template, and what it says; None where that is not known."""
    name, _, rest = body.partition("|")
    function, colon, argument = name.partition(":")
    if colon and is_function(function):
        name, rest = function, f"{argument}|{rest}" if rest else argument
    say = speaks(name, names.language) if len(name) < 60 else None
    if say is None or depth >= _MAX_DEPTH:
        return name, None
    if "{{" in rest:
        rest = _without_braces(rest, names, cut, depth + 1)
    if "[[" in rest:
        rest = without_links(rest, names)
    said = say(split_arguments(rest.split("|") if rest else []))
    return name, (without_quotes(said) if "''" in said else said) or GAP


def _unknown(text: str, start: int, stop: int, name: str, names: Names, cut: Counter[str]) -> str:
    """A gap, or in the middle of a sentence what can be read of a template that nobody knows."""
    if len(name) >= 60 or not _in_sentence(text, start, stop):
        return GAP
    name = plain_template(name)
    if not name or name[0] in "#:!" or is_silent(name):
        return GAP
    rest = text[start + 2 : stop - 2].partition("|")[2]
    said = ""
    if rest and len(rest) < _MOST_READ and "{{" not in rest:
        said = reads(split_arguments((without_links(rest, names) if "[[" in rest else rest).split("|")))
    if not said:
        cut[name] += 1
    return said or GAP


def _in_sentence(text: str, start: int, stop: int) -> bool:
    """True where words stand before and behind on the same line, and no blank is missing before (as before a note)."""
    before, behind = text[max(start - 8, 0) : start], text[stop : stop + 4]
    if before[-1:] in " \u00a0(\u00ab\u201e\u201c\"'-\u2013/":
        word = before.rstrip(" \u00a0(\u00ab\u201e\u201c\"'-\u2013/\x00")[-1:]
        following = behind.lstrip(" \u00a0)'\"\u00bb\x00,")
        if word.isalnum() or word in ",;:)":
            return bool(following) and (following[0].isalnum() or following[0] in ".;:?!([<\u2013\u2014-")
        return word in ".?!\u3002\n" and following[:1].islower()
    if before[-1:] == "\n":
        return behind[:1] in " ,'" and behind[1:].lstrip(" '")[:1].islower()
    if _HEBREW_PREFIX.search(before):
        return True
    return _UNSPACED.fullmatch(before[-1:]) is not None and _UNSPACED.fullmatch(behind[:1]) is not None


def _variant(match: re.Match[str]) -> str:
    """What `-{zh-hans:A; zh-hant:B}-` shows: its first form, or its text; rules for the whole page say nothing."""
    flags, bar, text = match[1].rpartition("|")
    if bar and not set(flags.strip()).isdisjoint("HT-") and "zh" not in flags:
        return ""
    form = text.split(";", 1)[0]
    code, colon, words = form.partition(":")
    return words.strip() if colon and _VARIANT.fullmatch(code.strip()) else text


def _without_tags(text: str) -> str:
    if "<" in text:
        text = _POWER.sub("^", text)
        text = _TAG.sub(_tag, text)
    return _SWITCH.sub(_switch, text) if "__" in text or "\uff3f" in text else text


def _switch(match: re.Match[str]) -> str:
    """Nothing for a switch of the page's looks such as __NOTOC__: capitals, in any script; Georgian ones look small."""
    word = match[1]
    small = any(letter.islower() and not "\u10d0" <= letter <= "\u10ff" for letter in word)
    return match[0] if len(word) < 2 or (small and word.lower() not in _SMALL_SWITCHES) else ""


def _tag(match: re.Match[str]) -> str:
    return "\n\n" if match[1] else " " if match[2] else ""


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
