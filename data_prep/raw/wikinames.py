"""What a wiki calls its files, categories, disambiguation pages and the sections that are no prose.

A dump names its namespaces itself; aliases, titles of sections and templates are those of its language. The names of
all languages are in `wikinames.toml`. Knows nothing of wikitext or of how dumps are read.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

FILE_NAMESPACES, CATEGORY_NAMESPACE = (6, -2), 14
_CANONICAL = {"files": ("file", "image", "media"), "categories": ("category",)}
# Codes that dumps write for wikis, whose names here are those of their addresses.
_CODES = {
    "nb": "no",
    "gsw": "als",
    "sgs": "bat-smg",
    "rup": "roa-rup",
    "vro": "fiu-vro",
    "nan": "zh-min-nan",
    "lzh": "zh-classical",
    "zh-yue": "yue",
    "be-x-old": "be-tarask",
    "simple": "en",
}
# Marks of direction, which MediaWiki takes out of titles.
_UNSEEN = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u202d\u202e"))
# Names of one or two letters begin titles of other languages; Chinese, Japanese and Korean ones do not.
_SHORT = re.compile(r"[^\W\u1100-\uffff]{1,2}")
_BLANKS = r"[\s_\u200e\u200f\u202a-\u202e]*"
# Disambiguation by name, not by ending: {{disambiguation needed}} and {{other uses (disambiguation)}} are in articles.
_DISAMBIGUATION = (
    r"(?:human name|hospital|place name|geo|school|church|county|airport|road|station|genus|species latin name|"
    r"mathematical|music|opus number|letter-number combination|chinese title|phonetics|taxonomic authority|"
    r"plant common name|biology|village|synagogue|caselaw)?[ _]?disambig(?:uation)?(?: page)?"
    r"|disamb|disambig-\w+|dab|hn-?dis|geo-?dis|schooldis|num(?:ber)?dis|roaddis|mil-unit-dis|mathdab|callsigndis|tndis"
)


@dataclass(frozen=True)
class Site:
    """What the head of a dump says: the code of its language and (number, name) of its namespaces, where it does."""

    language: str = ""
    namespaces: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Names:
    """Names of one wiki, or of all languages; `files`, `categories` and `sections` as `plain_name` has them.

    `language` is the code that the tables of templates have, "" where it is not known.
    """

    language: str
    files: frozenset[str]
    categories: frozenset[str]
    sections: frozenset[str]
    disambiguation: re.Pattern[str]


def plain_name(name: str) -> str:
    """A name as it is compared: underscores are blanks, and case and marks of direction do not count."""
    # The lower case of the Turkish capital I with a dot has the dot behind it.
    return " ".join(name.translate(_UNSEEN).replace("_", " ").lower().replace("i\u0307", "i").split())


@lru_cache(maxsize=16)
def names_of(site: Site) -> Names:
    """The names of a wiki; where its language or its namespaces are not known, those of all languages."""
    language = _language(site.language)
    told = dict(site.namespaces)
    files = _namespace("files", language, [told[key] for key in FILE_NAMESPACES if told.get(key)])
    categories = _namespace("categories", language, [told[CATEGORY_NAMESPACE]] if told.get(CATEGORY_NAMESPACE) else [])
    sections = _of("sections", language) | _of("sections", "en")
    if not _of("sections", language):
        sections = _all("sections") - frozenset(_data()["prose_elsewhere"].split("|"))
    disambiguation = _of("disambiguation", language)
    if not language:
        disambiguation = frozenset(name for name in _all("disambiguation") if len(name) > 2)
    return Names(
        language,
        files,
        categories,
        sections,
        re.compile(
            rf"\{{\{{{_BLANKS}(?:\w+:)?(?:{_DISAMBIGUATION}{'|' * bool(disambiguation)}{_either(disambiguation)})"
            rf"{_BLANKS}(?:\||\}}\}})",
            re.IGNORECASE,
        ),
    )


@cache
def redirect_words() -> re.Pattern[str]:
    """What the text of a redirect begins with, in any language."""
    words = _either(frozenset(_data()["redirects"].split("|")))
    return re.compile(rf"\s*[#\uff03](?:{words})\s*:?\s*\[\[", re.IGNORECASE)


def _namespace(kind: str, language: str, told: list[str]) -> frozenset[str]:
    names = _of(kind, language)
    if not language and not told:
        elsewhere = _data()["titles_elsewhere"].split("|")
        names = frozenset(name for name in _all(kind) if name not in elsewhere and not _SHORT.fullmatch(name))
    return names | {plain_name(name) for name in told} | set(_CANONICAL[kind])


def _language(code: str) -> str:
    """The code that the tables have, "" where they have none."""
    code = code.lower().replace("_", "-")
    for form in (code, code.partition("-")[0]):
        form = _CODES.get(form, form)
        if form == "en" or any(form in _data()[kind] for kind in ("files", "sections", "disambiguation")):
            return form
    return ""


def _of(kind: str, language: str) -> frozenset[str]:
    names = _data()[kind].get(language, "")
    return frozenset(names.split("|")) if names else frozenset()


def _all(kind: str) -> frozenset[str]:
    return frozenset(name for names in _data()[kind].values() for name in names.split("|"))


def _either(names: frozenset[str]) -> str:
    """A pattern of any of the names, where blanks may be underscores."""
    return "|".join(re.escape(name).replace(r"\ ", "[ _]+") for name in sorted(names))


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("wikinames.toml").read_text(encoding="utf-8"))
