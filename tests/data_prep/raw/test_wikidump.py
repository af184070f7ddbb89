"""Pages of a MediaWiki dump: found in a stream however it is cut, read safely, and told from articles."""

import bz2
import random
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.raw.wikidump import Page, iter_pages, keep_page, parse_page
from tests.data_prep.fuzz_wikitext import XML, check_page, check_stream
from tests.data_prep.real_data import DATA, needs_dump

HEAD = b'<mediawiki xml:lang="en">\n  <siteinfo><sitename>Test</sitename></siteinfo>\n  '


def page_xml(
    text: str = "Some text.", title: str = "T", ns: str = "0", extra: str = "", model: str = "wikitext"
) -> bytes:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f"<page>\n<title>{title}</title>\n<ns>{ns}</ns>\n<id>7</id>\n{extra}<revision>\n<id>99</id>\n"
        f"<contributor><username>text</username><id>3</id></contributor><comment>c</comment>\n<model>{model}</model>\n"
        f'<format>text/x-wiki</format>\n<text xml:space="preserve">{escaped}</text>\n<sha1>x</sha1></revision>\n</page>'
    ).encode()


def page(text: str = "", title: str = "T", namespace: int = 0, redirect: bool = False, model: str = "wikitext") -> Page:
    return Page("7", title, namespace, redirect, text, model)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 64, 10_000])
def test_pages_and_offsets_do_not_depend_on_the_cuts(size: int) -> None:
    pages = [page_xml(f"Text {number} \u00e9\u4e2d.", title=f"T{number}") for number in range(4)]
    data = HEAD + b"\n  ".join(pages) + b"\n</mediawiki>\n"
    found = list(iter_pages(cut(data, size)))
    assert [text for _, text in found] == pages
    assert all(data[offset:].startswith(text) for offset, text in found)


def test_a_stream_may_begin_inside_a_page() -> None:
    data = b"ge>left over</text></revision></page>" + page_xml("whole")
    assert [parse_page(text).text for _, text in iter_pages(cut(data, 3))] == ["whole"]


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_a_page_without_an_end_is_refused_and_the_next_one_read(size: int) -> None:
    broken = b"<page><title>Cut</title><ns>0</ns>"
    data = broken + page_xml("good") + broken
    found = list(iter_pages(cut(data, size)))
    assert [text for _, text in found] == [broken, page_xml("good"), broken]
    with pytest.raises(ValueError, match=r"no </page> in its 34 bytes: it is cut short or too long"):
        parse_page(found[0][1])


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_a_page_over_the_limit_is_refused_and_never_held_whole(size: int) -> None:
    long = page_xml("x" * 5000)
    found = list(iter_pages(cut(long + page_xml("good"), size), limit=1000))
    assert [len(text) for _, text in found] == [1000, len(page_xml("good"))]
    assert long.startswith(found[0][1])
    with pytest.raises(ValueError, match="1,000 bytes"):
        parse_page(found[0][1])
    assert found[1][0] == len(long)


def test_a_page_of_exactly_the_limit_is_whole() -> None:
    data = page_xml("y" * 100)
    assert [text for _, text in iter_pages(cut(data + data, 13), limit=len(data))] == [data, data]


def test_memory_stays_bounded_on_a_stream_without_pages() -> None:
    started = time.process_time()
    endless = (b"<" * 65536 for _ in range(2000))
    assert [len(text) for _, text in iter_pages((block for block in [b"<page>", *endless]), limit=1 << 20)] == [1 << 20]
    assert time.process_time() - started < 10


def test_what_a_page_says() -> None:
    text = "A < B & \u00e9 '''bold'''\n&lt;ref&gt;"
    assert parse_page(page_xml(text, title="A &amp; B")) == Page("7", "A & B", 0, False, text, "wikitext")
    assert parse_page(page_xml("", ns="-1", model="Scribunto")) == Page("7", "T", -1, False, "", "Scribunto")
    assert parse_page(page_xml(extra='<redirect title="X" />')).redirect
    assert parse_page(page_xml("#REDIRECT [[X]]")).redirect
    assert parse_page(page_xml(" #redirect:[[X]]")).redirect
    assert not parse_page(page_xml("# redirect is a word\n[[X]]")).redirect


def test_of_several_revisions_the_last_one_counts() -> None:
    xml = page_xml("old").replace(b"</page>", page_xml("new")[page_xml("new").index(b"<revision>") :])
    assert parse_page(xml).text == "new"


def test_an_empty_or_deleted_text_is_empty_and_a_missing_model_is_wikitext() -> None:
    xml = b'<page><title>T</title><ns>0</ns><id>1</id><revision><id>2</id><text deleted="deleted" /></revision></page>'
    assert parse_page(xml) == Page("1", "T", 0, False, "", "wikitext")


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (b"", "starts with <page>, this one with b''"),
        (b"<pages></page>", "starts with <page>"),
        (b'<!DOCTYPE page [<!ENTITY a "aaaa">]><page>&a;</page>', "starts with <page>"),
        (b'<?xml version="1.0" encoding="utf-16"?><page></page>', "starts with <page>"),
        (b'<page><!DOCTYPE page [<!ENTITY a "aaaa">]>&a;</page>', "not well-formed XML"),
        (b"<page>&nbsp;</page>", "undefined entity"),
        (b"<page>&xxe;</page>", "undefined entity"),
        (b"<page>&#0;</page>", "reference to invalid character number"),
        (b"<page>\x00</page>", "not well-formed"),
        (b"<page>\xff\xfe</page>", "not well-formed"),
        (b"<page><title>T</page>", "mismatched tag"),
        (b"<page></page><page></page>", "junk after document element"),
        (b"<page>" + b"<a>" * 100_000 + b"</page>", "nests elements more than 16 deep"),
        (b"<page></page>", "has no <title>"),
        (b"<page><title>T</title><id>1</id></page>", "has no <ns>: not a page of a MediaWiki dump"),
        (page_xml(ns="zero"), "<ns> is 'zero', wanted a number"),
        (page_xml(ns="9" * 5000), "wanted a number"),
        (page_xml().replace(b"text", b"txet"), "has no <text>"),
    ],
)
def test_a_malformed_page_is_one_clear_line(xml: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        parse_page(xml)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_articles_are_told_from_everything_else() -> None:
    assert keep_page(page("'''T''' is a word.")) is None
    assert keep_page(page("x", namespace=1)) == "other namespaces"
    assert keep_page(page("x", redirect=True)) == "redirects"
    assert keep_page(page("x", namespace=10, redirect=True)) == "other namespaces"
    assert keep_page(page("x", model="css")) == "other content models"
    assert keep_page(page("x", title="Mercury (disambiguation)")) == "disambiguation pages"


@pytest.mark.parametrize(
    "mark",
    [
        "{{disambiguation}}",
        "{{Disambig}}",
        "{{disambig|geo}}",
        "{{ dab }}",
        "{{hndis|A, B}}",
        "{{Geodis}}",
        "__DISAMBIG__",
    ]
    + [
        "{{Human name disambiguation|x}}",
        "{{place name_disambiguation}}",
        "{{Begriffskl\u00e4rung}}",
        "{{disambiguation page}}",
    ],
)
def test_disambiguation_pages(mark: str) -> None:
    assert keep_page(page(f"'''T''' may be:\n* [[T (x)]]\n\n{mark}\n")) == "disambiguation pages"


@pytest.mark.parametrize(
    "mark",
    [
        "{{disambiguation needed}}",
        "{{Other uses (disambiguation)}}",
        "{{redirect|T|x|T (disambiguation)}}",
        "disambiguation",
    ]
    + ["{{about|x|y|T (disambiguation)}}", "{{dabbling}}", "{{disambiguation-inline}}"],
)
def test_articles_that_mention_disambiguation(mark: str) -> None:
    assert keep_page(page(f"{mark}\n'''T''' is a word.")) is None


@settings(deadline=None, max_examples=150)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])), st.text(st.sampled_from("abc -:")))
def test_fields_are_those_an_independent_parser_finds(text: str, title: str) -> None:
    xml = page_xml(text, title=title)
    tree = ET.fromstring(xml)
    found = parse_page(xml)
    assert found.text == (tree.findtext("revision/text") or "")
    assert found.title == (tree.findtext("title") or "").strip()
    assert found.id == tree.findtext("id")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 300))
def test_damaged_pages_raise_nothing_but_value_errors(junk: bytes, start: int, stop: int) -> None:
    whole = page_xml("Some {{text}} &amp; more.")
    check_page(junk)
    check_page(b"<page>" + junk + b"</page>")
    check_page(whole[:start] + junk + whole[stop:])


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.sampled_from([b"<page>", b"</page>", b"<pa", b"ge>", b"<", b"/", b"x" * 30, page_xml("t")]), max_size=30
    ),
    st.integers(8, 200),
    st.integers(0, 1 << 30),
)
def test_any_stream_gives_the_same_pages_however_it_is_cut(pieces: list[bytes], limit: int, seed: int) -> None:
    draw = random.Random(seed)
    check_stream(b"".join(pieces), lambda: draw.randint(1, 40), limit)


def test_the_fuzzers_page_is_a_page() -> None:
    found = check_page((XML % "text").encode())
    assert found == Page("12", "Ada & Test", 0, False, "text", "wikitext")


@needs_dump
def test_a_real_dump_counted_by_an_independent_parser() -> None:
    path = next((DATA / "wikipedia" / "xml").glob("*.bz2"))
    with bz2.open(path) as file:
        pages = [parse_page(text) for _, text in iter_pages(iter(lambda: file.read(1 << 16), b""))]
    with bz2.open(path) as file:
        expected = []
        for _, element in ET.iterparse(file):
            if element.tag.endswith("}page"):
                space = element.tag.removesuffix("page")
                text = element.findtext(f"{space}revision/{space}text") or ""
                expected.append((element.findtext(f"{space}title"), element.find(f"{space}redirect") is not None, text))
                element.clear()
    assert [(found.title, found.redirect, found.text) for found in pages] == expected
    assert Counter(map(keep_page, pages)) == {
        "redirects": 99,
        None: 98,
        "disambiguation pages": 8,
        "other namespaces": 1,
    }
