"""Fuzzing of the wikitext and dump readers: random markup, and pages of every kind with pieces broken.

Run: python -m tests.data_prep.fuzz_wikitext --inputs 100000 --seed 0
Prints the number of inputs tried; exits with 1 at the first one that breaks a promise, which is printed.
"""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable

from data_prep.raw.wikidump import Page, iter_pages, keep_page, parse_page
from data_prep.raw.wikitext import plain_text

# Far above what any input here needs: a text of 10,000 characters takes a millisecond or two.
MAX_SECONDS = 5.0

MARKUP = [
    "{{", "}}", "{{{", "}}}", "{|", "|}", "|-", "\n|", "\n!", "||", "[[", "]]", "[", "]", "|", "=", "==", "\n==",
    "==\n", "''", "'''", "'''''", "'", "<ref>", "</ref>", "<ref name=a/>", "<ref name=\"b\">", "<!--", "-->",
    "<nowiki>", "</nowiki>", "<math>", "</math>", "<br>", "<br/>", "<div>", "</div>", "<table>", "</table>",
    "<gallery>", "</gallery>", "<", ">", "/>", "\n", "\n\n", "\n*", "\n#", "\n:", "\n;", "\n----", " ", "&nbsp;",
    "&lt;", "&#39;", "&#0;", "&#xd800;", "&", ";", "#", ":", "[http://a.b c]", "http://", "File:", "Category:", "fr:",
    "convert|", "lang|fr|", "nowrap|", "quote|", "frac|", "as of|", "5|km", "1=", "__TOC__", "(", ")", "( ", " ;",
    ",", ".", "word", "Two words", "\u00e9", "\u4e2d", "\U0001f600", "\x00", "\x0b", "\x85", "\u2028", "\ud800", "\r",
    "\t", "See also", "References", "-{", "}-", "~~~~",
]  # fmt: skip

# One page with every kind of markup, as articles have it.
ARTICLE = """{{Short description|Test}}
{{Infobox person
| name = Ada {{small|Test}}
| image = [[File:Ada.jpg|thumb|{{nowrap|a [[b|c]]}}]]
| list = {{plainlist|
* one
* two
}}
}}
'''Ada Test''' ({{IPAc-en|t|e}}; born {{birth date|1815|12|10}}) was a [[mathematics|mathematician]]<ref name="x">{{cite
web|url=http://a.b/c?d=e|title=[[T]]}}</ref> of ''L'''Europe'' {{lang|fr|la [[France]]}}.<ref name="x" />

[[File:Engine.png|thumb|left|The [[engine]] of {{convert|5|ft|3|in}} [http://a.b old] one]]
It weighed {{convert|5|-|10|t}}{{citation needed|date=May 2011}} &ndash; 10<sup>6</sup> parts, x<sub>1</sub>.
<!-- {{a comment [[with]] -->
== History and ''notes'' ==
{| class="wikitable"
|-
! head !! head
|-
| cell || {{flag|France}}
{|
| nested
|}
|}
* item [[one]]
** item '''two'''
# <nowiki>[[not a link]]</nowiki>
; term : definition
{{quote|A saying.|Somebody}}
Text of a paragraph
on two lines <math>a</math> and <math>\\frac{1}{2}</math>.
<gallery>
File:A.jpg|caption
</gallery>
=== See also ===
* [[Other]]
==References==
{{reflist}}
[[Category:Tests]]
[[fr:Ada]]
"""
XML = """<page><title>Ada &amp; Test</title><ns>0</ns><id>12</id><revision><id>5</id><model>wikitext</model>
<text bytes="3" xml:space="preserve">%s</text></revision></page>"""


def check_text(text: str) -> None:
    """The promises of `plain_text`, for any text."""
    started = time.perf_counter()
    paragraphs = plain_text(text)
    seconds = time.perf_counter() - started
    assert seconds < MAX_SECONDS, f"{seconds:.1f} seconds for {len(text)} characters"
    for paragraph in paragraphs:
        assert paragraph == " ".join(paragraph.split()), f"white space in {paragraph!r}"
        assert any(character.isalnum() for character in paragraph), f"no letter in {paragraph!r}"
        assert "\x00" not in paragraph
    if "&" not in text and "nowiki" not in text:
        left = [mark for mark in ("{{", "}}", "[[", "]]", "''") if mark in "\n".join(paragraphs)]
        assert not left, f"{left} left in {paragraphs!r}"


def check_page(xml: bytes) -> Page | None:
    """The promises of `parse_page`, for any bytes: a page, or a ValueError of one line."""
    try:
        page = parse_page(xml)
    except ValueError as error:
        message = str(error)
    else:
        keep_page(page)
        return page
    assert message
    assert "\n" not in message, message
    return None


def check_stream(data: bytes, sizes: Callable[[], int], limit: int) -> None:
    """Pages are where they are said to be, in order, within the limit, and the same however the stream is cut."""
    blocks, start = [], 0
    while start < len(data):
        size = sizes()
        blocks.append(data[start : start + size])
        start += size
    pages = list(iter_pages(blocks, limit))
    behind = 0
    for offset, page in pages:
        assert offset >= behind
        assert data[offset : offset + len(page)] == page
        assert page.startswith(b"<page>")
        assert len(page) <= limit
        behind = offset + len(page)
        check_page(page)
    assert pages == list(iter_pages([data], limit)), f"pages depend on the cuts of {data!r}"


def random_markup(draw: random.Random) -> str:
    return "".join(draw.choices(MARKUP, k=draw.randint(1, 120)))


def broken(draw: random.Random, text: str) -> str:
    """`text` with up to eight pieces dropped, doubled, moved or overwritten with markup."""
    for _ in range(draw.randint(1, 8)):
        start = draw.randint(0, len(text))
        stop = min(len(text), start + draw.choice((1, 2, 5, 40, 400)))
        piece = draw.choice(("", text[start:stop] * 2, draw.choice(MARKUP), text[stop : stop + 50]))
        text = text[:start] + piece + text[stop:]
    return text


def try_one(draw: random.Random) -> None:
    """One input to each of the three readers."""
    text = random_markup(draw) if draw.random() < 0.5 else broken(draw, ARTICLE)
    check_text(text)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    xml = (XML % escaped).encode("utf-8", "surrogatepass")
    check_page(xml)
    damaged = broken(draw, (XML % draw.choice((escaped, text))) * draw.randint(1, 3)).encode("utf-8", "surrogatepass")
    check_stream(damaged, lambda: draw.choice((1, 7, 64, 4096)), draw.choice((64, 1024, 1 << 20)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.perf_counter()
    for number in range(args.inputs):
        try:
            try_one(random.Random(args.seed * 1_000_003 + number))
        except Exception:
            traceback.print_exc()
            print(f"input {number} of seed {args.seed} broke a promise")
            return 1
    print(f"{args.inputs:,} inputs tried (seed {args.seed}, {time.perf_counter() - started:.0f} s), no broken promise")
    return 0


if __name__ == "__main__":
    sys.exit(main())
