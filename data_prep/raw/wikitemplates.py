"""The inline templates whose text a reader of the sentence would miss, and what they say; what else may be read.

Their names by language are in `wikitemplates.toml`, those that never say anything in `wikisilent.toml`; what they say
is in `wikisay` and `wikitimes`. Knows nothing of brackets, links or pages: it is given a name and arguments as text.
"""

import re
import tomllib
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from data_prep.raw import wikisay as say
from data_prep.raw import wikitimes as times
from data_prep.raw.wikiarguments import Arguments
from data_prep.raw.wikisay import APOSTROPHE, Say

_SAYS: dict[str, Say] = {
    function.__name__: function
    for function in (
        *(
            say.first,
            say.second,
            say.second_or_first,
            say.third_or_second,
            say.last,
            say.joined,
            say.spaced,
            say.listed,
        ),
        *(say.ill, say.linked_elsewhere, say.lien, say.helper, say.block, say.plural),
        *(say.lowered, say.raised, say.capitalised, say.nihongo, say.reading, say.chinese, times.lifetime),
        *(say.convert, say.measure, say.metric, say.height, say.gauge, say.value, say.power_of_ten, say.fraction),
        *(say.ordinal, say.ratio, say.music, say.above_sea, say.wrapped, say.verse, say.german_verse, say.section_link),
        *(times.full_date, times.as_of, times.age, times.age_in_days, times.month_name, times.duration),
        *(times.double_date, times.century_or_text, times.two_centuries, times.spanish_century),
        *(
            times.spanish_centuries,
            times.clock,
            say.textual_citation,
            say.ship,
            say.ship_class,
            say.old_money,
            say.rupees,
            say.paragraph_of_law,
        ),
    )
}
_PREFIXES: dict[str, Say] = {"lang-": say.first, "script/": say.last, "link-": say.helper}
_ENDINGS: dict[str, Say] = {" span": say.wrapped, "-span": say.wrapped, "\u7bc4\u56f2": say.wrapped}
# French names that are the text themselves: {{XIXe}}, {{XIXe siècle}}, {{1er janvier}}.
_ITSELF = re.compile(
    r"(?:[IVX]+(?:er|re|e|\u00e8re)|[IVX]{2,})(?: (?:si\u00e8cles?|mill\u00e9naire)(?: av\. J\.-C\.)?)?"
    r"|[0-9]{1,2}(?:er)? (?:janvier|f\u00e9vrier|mars|avril|mai|juin|juillet|ao\u00fbt|septembre|octobre|novembre"
    r"|d\u00e9cembre)(?: [0-9]{1,4})?|[0-9]{1,4}(?:re|e|\u00e8re)"
)
# Functions of MediaWiki that are written like templates, with a colon before their first argument.
_FUNCTIONS = ("formatnum", "plural", "lc", "uc", "ucfirst", "lcfirst", "nowrap")
# Words that editors' notes and citations have and text has not.
_NOTES = ("date", "reason", "url", "title", "datum", "fecha", "data", "author", "last", "isbn", "website", "publisher")
_NOTE_NAME = re.compile(r".*(?:[ -]inline|\bneeded|\?|\b(?:icon|stub|infobox|navbox|sidebar|banner))(?: \w+)?")
# Settings, not words.
_SETTINGS = frozenset(("yes", "no", "y", "n", "on", "off", "left", "right", "center", "none", "true", "false"))
_READABLE = re.compile(r"[^<>{}\[\]|=\n\x00\\_#]{1,80}")
_FILE = re.compile(r"\.\w{2,4}$|^https?:|^//", re.IGNORECASE)
_NUMBER = re.compile(r"[-+\u2212]?\d[\d.,\u00a0 ]*")
# The beginning of a number or of a date, or the code of a country or a currency.
_PART = re.compile(r"[-+\u2212]?\d|[A-Z]{1,4}\Z")
_UNIT = re.compile(r"[^\W\d_]{1,4}(?:[/\u00b2\u00b3^23][^\W\d_]{0,3}\d?)?|[%\u00b0\u2032\u2033]|\u00b0[CFK]")
_CODE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z]{2,8})*")


@lru_cache(maxsize=1 << 14)
def speaks(name: str, language: str = "") -> Say | None:
    """What turns the arguments of template `name` (as written) into text, or None where it is not known to say any.

    `language` is the code of the wiki's language; without it the names of all languages count, English ones first.
    """
    written, name = name.strip(), plain_template(name)
    if known := _table(language).get(name):
        return known
    if language in ("fr", "") and _ITSELF.fullmatch(written):
        return say.literal(written)
    known = next((known for prefix, known in _PREFIXES.items() if name.startswith(prefix)), None)
    return known or next((known for ending, known in _ENDINGS.items() if name.endswith(ending)), None)


def plain_template(name: str) -> str:
    """A template's name as the tables have it."""
    name = " ".join(name.replace("_", " ").lower().split())
    for prefix in ("template:", "subst:", "safesubst:", ":template:"):
        name = name.removeprefix(prefix).strip()
    return name


def is_function(name: str) -> bool:
    """True for a function of MediaWiki, which has a colon before its first argument."""
    return name.strip().lower() in _FUNCTIONS


@lru_cache(maxsize=1 << 14)
def is_silent(name: str) -> bool:
    """True for a template (name as the tables have it) that says nothing in a sentence, in any language."""
    names, beginnings = _silent()
    return name in names or beginnings.match(name) is not None or _NOTE_NAME.fullmatch(name) is not None


def reads(args: Arguments) -> str:
    """What can be read of an unknown template in the middle of a sentence, "" where that is not plain text.

    `2000|m` -> "2000 m", `de|Wort` -> "Wort", else the first argument. Of several, a number or a code alone would say
    something else than the template does.
    """
    if any(args.named.get(note) for note in _NOTES):
        return ""
    words = [word for word in args.listed if word]
    if len(words) > 1 and _CODE.fullmatch(words[0]):
        del words[0]
    text = words[0] if words else ""
    if len(words) == 2 and _NUMBER.fullmatch(text) and _UNIT.fullmatch(words[1]):
        text = f"{text} {words[1]}"
    elif len(words) > 1 and _PART.match(text):
        return ""
    plain = _READABLE.fullmatch(text) and not _FILE.search(text) and any(map(str.isalnum, text))
    return text if plain and text.lower() not in _SETTINGS else ""


@cache
def _table(language: str) -> dict[str, Say]:
    """What templates say, by name, on the wikis of a language."""
    if language:
        return _said("en") | _said(language)
    table: dict[str, Say] = {}
    for code in _data():
        table = _said(code) | table
    return table


@cache
def _said(language: str) -> dict[str, Say]:
    table: dict[str, Say] = {}
    for kind, entry in _data().get(language, {}).items():
        if kind == "ships":
            table |= {name: say.ship_with(name.upper()) for name in entry.split("|")}
        elif isinstance(entry, str):
            table |= dict.fromkeys(entry.split("|"), _SAYS[kind])
        else:
            for form, names in entry.items():
                table |= dict.fromkeys(names.split("|"), _made(kind, form))
    return table


def _made(kind: str, form: str) -> Say:
    """What a template of the kind says in this form: a word, what stands around its argument, names of months."""
    parts = form.split("|")
    if kind == "literal":
        return say.literal(form.replace("'", APOSTROPHE))
    if kind == "before":
        return say.before(form)
    if kind == "persons":
        return say.person(form)
    if kind == "behind":
        return say.behind(form)
    if kind == "around":
        return say.around(*parts)
    if kind == "centuries":
        return times.centuries(*parts)
    if kind == "years":
        return times.span_of_years(*parts)
    assert kind == "dates", f"{kind} is no kind of wikitemplates.toml"
    return times.day_first(parts[:12], *parts[12:])


@cache
def _silent() -> tuple[frozenset[str], re.Pattern[str]]:
    data = _read("wikisilent.toml")
    beginnings = "|".join(map(re.escape, data["beginnings"].split("|")))
    return frozenset(data["names"].split("|")), re.compile(rf"(?:{beginnings})(?![^\W\d_])")


@cache
def _data() -> dict[str, Any]:
    return _read("wikitemplates.toml")


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
