"""Markup in texts of any kind, against Python's own parser of HTML and by hand."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep.raw.markup import mended_paragraphs, without_markup


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One.<br /><br />Two.<br>Three.<BR/>Four.</br>Five.", "One.\n\nTwo.\nThree.\nFour.\nFive."),
        ("<p>One.</p><p class='x'>Two.</p>", "\nOne.\n\nTwo.\n"),
        ("A <i>fine</i>, <b>bold</b> and <em>long</em> word", "A fine, bold and long word"),
        ('See <a href="http://a.org/?b=c&d" target=_blank>this page</a>.', "See this page."),
        ("<span style=\"color: red\">red</span><div id='a b'>next</div>", "red\nnext\n"),
        ('He won.<ref name="a/b"></ref> Then.<ref>Smith, <i>p.</i> 3</ref> End.<ref name=x />', "He won. Then. End."),
        ("in his last days.\n/ref> Caesar was", "in his last days.\n Caesar was"),
        ("So it ended.</ref> And <!-- not --> then", "So it ended. And  then"),
        ("One&lt;br /&gt;two &lt;i&gt;three&lt;/i&gt; &amp;lt;br&amp;gt; 4 &lt; 5", "One\ntwo three \n 4 &lt; 5"),
        (
            "a &lt;ref name=x&gt;cite&lt;/ref&gt;b &lt;!-- c --&gt;d &amp;lt;ref&amp;gt;e&amp;lt;/ref&amp;gt;f<i>g</i>",
            "a b d fg",
        ),
        ("a &lt;ref name=x /&gt;b &lt;ref&gt;c", "a b c"),
        ("Hello<P>World.<hr>One<li>two<br/ >three", "Hello\nWorld.\nOne\ntwo\nthree"),
        (
            "10<sup>6</sup>, 10&lt;sup&gt;\u22123&lt;/sup&gt; and 5 m<sup>2</sup> of the 1<sup>st</sup>",
            "10^6, 10^\u22123 and 5 m2 of the 1st",
        ),
        ("&lt;a href=&quot;x&quot;&gt;link&lt;/a&gt;", "link"),
        # Quotes as typewriters had them are no code.
        ("`The Saint' is<br />good, `Castle' is not", "`The Saint' is\ngood, `Castle' is not"),
    ],
)
def test_markup_goes(text: str, wanted: str) -> None:
    assert without_markup(text) == wanted
    assert without_markup(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "if a < b > c, then a<b and c>d, but a <b",
        "Map<a> is no vector<span>, and List<table> no p<q>",
        "<s> the <unk> of <mask> and </s> [MASK] <|endoftext|> <pad>",
        "Use `<br>` for a break, and `a <b>c</b>`.",
        "Write:\n```\n<p>text</p><br>\n```\nand close it.",
        "<3 you, <- back, -> on, <me@example.org>, <https://example.org>",
        "the self->ref> of it",
        "<html>\n<body><p>One</p></body></html>",
        "print() and call (), then x = foo ()",
        "for (; i < n; i++) { run (, ) }",
        "It was , as WikiText has it , a film ( , 1999 ) .",
        "an ( open ) one; smile :) and wink ;)",
    ],
)
def test_what_may_be_text_or_code_stays(text: str) -> None:
    assert mended_paragraphs(text) == (text.split("\n"), {"markup_dropped": 0, "holes_closed": 0})


def test_holes_in_prose_are_closed() -> None:
    wide = "\u6771\u4eac\uff08\u3068\u3046\u3001\uff09\u306f\uff08\uff09\u90fd\u5e02"
    assert mended_paragraphs(wide)[0] == ["\u6771\u4eac\uff08\u3068\u3046\uff09\u306f\u90fd\u5e02"]
    text = "Aikido ( , 14 December 1883) was made by Ueshiba (). It is young (; born late).\nSo (it is) there."
    wanted = "Aikido (14 December 1883) was made by Ueshiba. It is young (born late).\nSo (it is) there."
    assert mended_paragraphs(text) == (wanted.split("\n"), {"markup_dropped": 0, "holes_closed": 1})
    assert mended_paragraphs(wanted)[0] == wanted.split("\n")


class Words(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []
        self.feed(text)
        self.close()

    def handle_data(self, data: str) -> None:
        self.found.append(data)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append("\n" * (tag in ("p", "br", "div", "li")))

    def handle_endtag(self, tag: str) -> None:
        self.handle_starttag(tag, None)


trees = st.recursive(
    st.sampled_from(["word", "two words", " ", "1 > 0", "<br>", "<br/>"]),
    lambda inner: st.builds(
        "<{0}{1}>{2}</{0}>".format,
        st.sampled_from(["b", "i", "a", "span", "p", "div", "li", "em"]),
        st.sampled_from(["", ' href="x y"', " id='z' class=q"]),
        st.lists(inner, max_size=3).map("".join),
    ),
    max_leaves=12,
)


@given(st.lists(trees, max_size=5).map("".join))
def test_of_well_formed_html_the_text_of_a_parser_stays(text: str) -> None:
    assert without_markup(text).split() == "".join(Words(text).found).split()


TOKENS = [
    *'<>b=x()`"',
    "</",
    "/>",
    "br",
    "ref",
    " ",
    "&lt;",
    "&gt;",
    ", ",
    "\n",
    "<i>",
    "</i>",
    "ref&gt;",
    "\uff08",
    "\uff09",
    "\u3001",
]


@given(st.lists(st.sampled_from(TOKENS), max_size=40).map("".join))
@example("<<b>b></b>")
@example("<<br>br>")
def test_twice_is_once(text: str) -> None:
    once = mended_paragraphs(text)[0]
    assert mended_paragraphs("\n".join(once))[0] == once


UNITS = [
    "<a ",
    "<b",
    "<a x=",
    "<a x='",
    "<ref>",
    "<ref",
    "&lt;a ",
    "&lt;b",
    "&amp;",
    "`",
    "```",
    "<!--",
    "(",
    "(,",
    "<i><",
    "&lt;ref&gt;",
    "&lt;!--",
    "1&lt;sup&gt;",
    "\uff08",
    "\u3001 ",
]


@pytest.mark.parametrize("unit", UNITS)
def test_time_is_linear(unit: str) -> None:
    started = time.process_time()
    mended_paragraphs(unit * (100_000 // len(unit)))
    assert time.process_time() - started < 2
