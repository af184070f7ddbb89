"""What WikiExtractor leaves, in all its forms, as the paragraphs of a dump."""

import html
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep.raw.extracted import extracted_paragraphs
from data_prep.raw.holes import close_holes
from data_prep.raw.wikitext import plain_text

WIKITEXT = """
The '''hill''' is in the [[county]]; it was < 10 metres & is [[high|higher]].

== History ==
=== First years ===
It was named in 1204, and it has been a market since then.

== Trees ==
The trees of the hill are these:
* the [[oak]], which is common
* the birch

== See also ==
* [[Another hill]]

== Later years of the hill ==
Nothing was done there.
"""
FORMS = {
    "plain": """The hill is in the county; it was &lt; 10 metres &amp; is higher.
History.
First years.
It was named in 1204, and it has been a market since then.
Trees.
The trees of the hill are these:
Later years of the hill.
Nothing was done there.""",
    "links": """The hill is in the &lt;a href="county"&gt;county&lt;/a&gt;; it was &lt; 10 metres &amp; is \
&lt;a href="high"&gt;higher&lt;/a&gt;.
History.
First years.
It was named in 1204, and it has been a market since then.
Trees.
The trees of the hill are these:
Later years of the hill.
Nothing was done there.""",
    "html": """The hill is in the &lt;a href="county"&gt;county&lt;/a&gt;; it was &amp;lt; 10 metres &amp;amp; is \
&lt;a href="high"&gt;higher&lt;/a&gt;.
<h2>History</h2>
<h3>First years</h3>
History.
First years.
It was named in 1204, and it has been a market since then.
<h2>Trees</h2>
Trees.
The trees of the hill are these:
<ul>
<li>the &lt;a href="oak"&gt;oak&lt;/a&gt;, which is common</li>
<li>the birch</<li>
</ul>
<h2>See also</h2>
<ul>
<li>&lt;a href="Another%20hill"&gt;Another hill&lt;/a&gt;</li>
</ul>
<h2>Later years of the hill</h2>
Later years of the hill.
Nothing was done there.""",
    "old": """The hill is in the county; it was < 10 metres & is higher.
Section::::History.
Section::::History.:First years.
It was named in 1204, and it has been a market since then.
Section::::Trees.
The trees of the hill are these:
BULLET::::- the oak, which is common
BULLET::::1. the birch
Section::::See also.
BULLET::::- Another hill
Section::::Later years of the hill.
Nothing was done there.""",
}


def mended(text: str) -> list[str]:
    title, *paragraphs = extracted_paragraphs(["Hill", *text.split("\n")])[0]
    assert title == "Hill"
    return paragraphs


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_paragraphs_of_the_dump(form: str) -> None:
    wanted = plain_text(WIKITEXT)
    assert wanted[3:5] == ["the oak, which is common", "the birch"]
    # The plain forms have lost their lists before they are written.
    kept = wanted if form in ("html", "old") else wanted[:3] + wanted[5:]
    paragraphs, edits = extracted_paragraphs(["Hill &amp; dale", *FORMS[form].split("\n")])
    assert paragraphs == ["Hill & dale", *kept]
    assert edits["headings_dropped"] == (5 if form in ("html", "old") else 4)
    assert edits["markup_dropped"] == (form != "plain")
    assert extracted_paragraphs(paragraphs)[0] == paragraphs


@pytest.mark.parametrize(
    "text",
    [
        "It was so.\nThen they left.\nThis was the end of the war.",
        "of one kind.\nand of another.\nand so on.",
        "History is written by men of the world.\nThe winters of the north kill all of them.",
        "Das Haus steht heute noch dort.\nEs ist alt.",
        "The last line of it.\nHistory.",
        "Wait...\nthe end",
    ],
)
def test_sentences_are_no_headings(text: str) -> None:
    assert mended(text) == text.split("\n")


@pytest.mark.parametrize("title", ["Geschichte.", "\u0418\u0441\u0442\u043e\u0440\u0438\u044f.", "\u6b74\u53f2."])
def test_headings_of_other_languages_go(title: str) -> None:
    assert mended(f"eins, zwei\n{title}\ndrei") == ["eins, zwei", "drei"]


def test_sections_of_links_go_up_to_the_next_heading() -> None:
    text = "It was a hill.\nReferences.\nA book of hills, 1999\nTrees.\nThere are oaks.\nExternal links.\nPage of hills"
    assert mended(text) == ["It was a hill.", "There are oaks."]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It was a hill.\nSee also.\n- Other hill\n- Valley", ["It was a hill."]),
        ("C'est une ville.\n\nVoir aussi.\n\nLiens externes.\n Page", ["C'est une ville.", ""]),
        # Without full stops nobody can say where a section ends.
        (
            "C'est une ville.\n\nVoir aussi\n\nLiens externes\n Page\n\nCat\u00e9gorie:Ville",
            ["C'est une ville.", "", "", " Page", ""],
        ),
    ],
)
def test_titles_of_references_need_no_guess(text: str, wanted: list[str]) -> None:
    assert mended(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("calligraphy (), flowers () and tea ().", "calligraphy, flowers and tea."),
        ("Ueshiba ( , 14 December 1883) came", "Ueshiba (14 December 1883) came"),
        ('The word "atom" (; ""), meaning that', 'The word "atom", meaning that'),
        ("Archimedes (; ; ) was", "Archimedes was"),
        ("the hype (see below; ) of it", "the hype (see below) of it"),
        ("Osaka (, \u014csaka (city)) is", "Osaka (\u014csaka (city)) is"),
        ("a ship, , and later a boat , too .", "a ship, and later a boat, too."),
        ('""Asteroid" clones" and ""Noli turbare","', '"Asteroid clones" and "Noli turbare,"'),
        ('He said "greetings from "Endeavour"".', 'He said "greetings from Endeavour".'),
        ('"Titanic""s captain of HMS "Nile"","', '"Titanic"\'s captain of HMS "Nile",'),
        ('with "" being Latin for "little pig"', 'with being Latin for "little pig"'),
        ("the values of formula_1 and formula_23are (formula_4) codice_5.", "the values of and are."),
        (
            "\u6771\u4eac\uff08\u3068\u3046\u3001\uff09\u306f\uff08\uff09\u300c\u300d\u3068\uff08\u30011950\u5e74\uff09",
            "\u6771\u4eac\uff08\u3068\u3046\uff09\u306f\u3068\uff081950\u5e74\uff09",
        ),
        ("von \u201e\u201c und \u201e\u201d an", "von und an"),
        ("so \u201c\u201d and \u00ab\u00bb of it", "so and of it"),
        ('f(x, y) is printf() . . . and (so) on; "a", "b"', 'f(x, y) is printf() . . . and (so) on; "a", "b"'),
        ("Texte : voil\u00e0 ; et (oui) !", "Texte : voil\u00e0 ; et (oui) !"),
    ],
)
def test_holes_are_closed(text: str, wanted: str) -> None:
    assert close_holes(text) == wanted
    assert close_holes(wanted) == wanted
    assert mended(f"It was,\n{text}\nof course") == ["It was,", wanted, "of course"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a<br>b", "a\nb"),
        ('He said.<ref name="a/b"></ref> So', "He said. So"),
        ("<poem>\nof the sea\n</poem>", "of the sea"),
        ("a [[File:A.png|thumb|x]]and [[b|c]]__NOTOC__", "a and c"),
        ("|colspan=2|x\n! a !! b | c\n344||156\nmee|ne|men, |x| it is", "mee|ne|men, |x| it is"),
        ("formula_1\nit is formula_2\n1871", "it is\n1871"),
        ("*a point of it\n** and another", "a point of it\nand another"),
        # Escaped twice, it is read once, and blanks and dashes as what they are.
        ("&amp;lt;b&amp;gt; is&amp;nbsp;bold &amp; so on", "&lt;b&gt; is\xa0bold & so on"),
        ("R&D has &ndash; and &lt; 5", "R&D has \u2013 and &lt; 5"),
        ("it is &lt;ref&gt;cite&lt;/ref&gt; the <i>end</i> of &lt;!-- c --&gt; it", "it is  the end of  it"),
        ("10<sup>6</sup> men", "10^6 men"),
        ("5 &lt; 6 &gt; 4 &amp; it is", "5 < 6 > 4 & it is"),
    ],
)
def test_remains_of_markup_go(text: str, wanted: str) -> None:
    assert mended(text) == wanted.split("\n")


@given(st.lists(st.text("ab <>&;'", max_size=20), max_size=4))
@example(["&lt; it is", "a & b < c"])
def test_an_escaped_text_is_read_as_what_was_escaped(lines: list[str]) -> None:
    raw = ["it is", *lines, "< &"]
    assert mended("\n".join(html.escape(line, quote=False) for line in raw)) == mended("\n".join(raw))


UNITS = [
    '""',
    '"a ',
    "(",
    "( ,",
    "(a",
    " ,",
    ", ",
    "[[",
    "{{",
    "<b>",
    "formula_1",
    "&lt;",
    "<li>",
    "|",
    "A.\n",
    '"b""',
    "\uff08",
    "\uff08\u3001",
]


@pytest.mark.parametrize("unit", UNITS)
def test_time_is_linear(unit: str) -> None:
    started = time.process_time()
    extracted_paragraphs(["Hill", *(unit * (200_000 // len(unit))).split("\n")])
    assert time.process_time() - started < 2
