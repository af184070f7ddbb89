"""Wikis of other languages: nothing of their files, categories, links and references is left, and templates speak."""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep.raw.wikidump import Page, keep_page, read_site
from data_prep.raw.wikinames import Names, Site, names_of, redirect_words
from data_prep.raw.wikitext import plain_text

WIKIS = tomllib.loads(Path(__file__).with_name("wikis.toml").read_text(encoding="utf-8"))
SITES = WIKIS["site"]


def head(site: dict[str, Any]) -> bytes:
    """The beginning of a dump, as MediaWiki writes it."""
    namespaces = "".join(
        f'      <namespace key="{key}" case="first-letter">{name}</namespace>\n'
        for key, name in site["namespaces"].items()
    )
    return (
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="{site["language"]}">\n'
        f"  <siteinfo>\n    <sitename>Wikipedia</sitename>\n    <dbname>{site['language']}wiki</dbname>\n"
        f'    <namespaces>\n{namespaces}      <namespace key="0" case="first-letter" />\n'
        "    </namespaces>\n  </siteinfo>\n  <page>\n"
    ).encode()


def names(site: dict[str, Any]) -> Names:
    return names_of(read_site([head(site)]))


def page_of(site: dict[str, Any]) -> str:
    lines = [f"[[{file}]]'''Word''' is." for file in site["files"]]
    lines += [f"before[[{file}]]behind [[{file}]], end" for file in site["files"]]
    lines += [f"== {site['kept']} ==", "Kept."]
    for title in site["sections"]:
        lines += [f"== {title} ==", "* Lost."]
    lines += [f"== {site['kept']} ==", "Last."]
    return "\n\n".join([*lines, *(f"[[{category}]]" for category in site["categories"])])


@pytest.mark.parametrize("site", SITES, ids=lambda site: str(site["language"]))
def test_a_page_is_left_its_prose_only(site: dict[str, Any]) -> None:
    number = len(site["files"])
    prose = ["Word is."] * number + ["before behind, end"] * number + ["Kept.", "Last."]
    assert plain_text(page_of(site), names(site)) == prose
    # Without a head the names of all languages count, but those of languages that only their own dumps name.
    if site["language"] != "zz":
        assert plain_text(page_of(site).replace("Literatura", site["sections"][0])) == prose


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_the_head_is_read_however_it_is_cut(size: int) -> None:
    data = head(SITES[0])
    found = read_site(data[start : start + size] for start in range(0, len(data), size))
    assert found == Site("ru", ((-2, "\u041c\u0435\u0434\u0438\u0430"), *found.namespaces[1:]))
    assert [key for key, _ in found.namespaces] == [-2, 6, 10, 14]
    assert read_site([b"<page>", data]) == Site()
    assert read_site([data.replace(b' xml:lang="ru"', b"")]).language == "ru"


def test_a_title_that_heads_prose_elsewhere_is_left_out_in_its_own_language_only() -> None:
    page = "a\n== Literatura ==\nb"
    assert plain_text(page, names_of(Site("pl"))) == ["a"]
    assert plain_text(page, names_of(Site("es"))) == plain_text(page) == ["a", "b"]


def test_links_that_only_look_like_files_and_categories_stay() -> None:
    english = names_of(Site("en", ((6, "File"), (14, "Category"))))
    assert plain_text("[[Class: A Story|story]] [[:File:a.jpg]] [[:Category:B|b]] [[w:File:x|y]]", english) == [
        "story File:a.jpg b y"
    ]
    assert plain_text("[[File:a.jpg|thumb|never closed [[b]]\nc [[File]]", english) == ["c File"]


@pytest.mark.parametrize(
    ("language", "wikitext", "text"),
    [(entry["language"], *pair) for entry in WIKIS["said"] for pair in entry["texts"]],
)
def test_templates_of_other_languages(language: str, wikitext: str, text: str) -> None:
    cut: Counter[str] = Counter()
    assert plain_text(wikitext, names_of(Site(language)), cut) == [text]
    assert not cut


@pytest.mark.parametrize(
    ("language", "title"), [(language, title) for language, titles in WIKIS["titles"].items() for title in titles]
)
def test_sections_that_are_no_prose(language: str, title: str) -> None:
    assert plain_text(f"a\n== {title} ==\nb", names_of(Site(language))) == ["a"]


@pytest.mark.parametrize("text", WIKIS["redirects"]["texts"])
def test_redirects(text: str) -> None:
    assert redirect_words().match(text)
    assert not redirect_words().match(text.replace("[[", ""))


@pytest.mark.parametrize(
    ("language", "mark"),
    [(language, mark) for language, marks in WIKIS["disambiguation"]["texts"].items() for mark in marks],
)
def test_disambiguation_pages(language: str, mark: str) -> None:
    page = Page("7", "T", 0, False, f"* [[A]]\n{mark}", "wikitext")
    assert keep_page(page, names_of(Site(language))) == "disambiguation pages"
    assert (
        keep_page(Page("7", "T", 0, False, "{{Egy\u00e9rt-redir|x}}\nA word.", "wikitext"), names_of(Site("hu")))
        is None
    )
    assert keep_page(Page("7", "T", 0, False, "A word.", "wikitext"), names_of(Site(language))) is None
