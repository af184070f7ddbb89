"""Wikitext to clean text: each kind of markup by hand, prose against an independent parser, real pages, fuzzing."""

import bz2
import random
import re
import time
from collections import Counter

import mwparserfromhell
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.raw.wikiarguments import split_arguments
from data_prep.raw.wikidump import iter_pages, keep_page, parse_page
from data_prep.raw.wikinames import Site, names_of
from data_prep.raw.wikitemplates import speaks
from data_prep.raw.wikitext import plain_text
from data_prep.raw.wikitimes import two_centuries
from tests.data_prep.fuzz_wikitext import ARTICLE, MARKUP, broken, check_text
from tests.data_prep.real_data import DATA, needs_dump


def test_an_article_with_every_kind_of_markup() -> None:
    assert plain_text(ARTICLE) == [
        "Ada Test (born 10 December 1815) was a mathematician of L'Europe la France.",
        "It weighed 5\u201310 t \u2013 10^6 parts, x1.",
        "item one",
        "item two",
        "[[not a link]]",
        "term : definition",
        "A saying.",
        "Text of a paragraph on two lines a and.",
    ]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("a [[b]] c", "a b c"),
        ("[[dog]]s and [[cat|kittens]]", "dogs and kittens"),
        ("[[Page (x)#Part|part]]", "part"),
        ("[[:Category:Tests]]", "Category:Tests"),
        ("[[:fr:Page|page]] x", "page x"),
        ("[[wikt:word|word]] x", "word x"),
        ("x[[fr:Ada]][[zh-min-nan:Ada]][[simple:Ada]]", "x"),
        ("[[2001: A Space Odyssey]]", "2001: A Space Odyssey"),
        ("x [[Category:A|sort key]][[category : B]]", "x"),
        ("[[File:a.jpg|thumb|A [[b|c]] [http://d e] [f] {{nowrap|g}} h]]x", "x"),
        ("[[Datei:a.jpg|mini|b]][[ image : a.png ]]x", "x"),
        ("[[File:a.jpg|thumb|[[b|''c'' [[d]]]]]] x", "x"),
        ("see [http://a.b/c?d=e&f the page] now", "see the page now"),
        ("see [http://a.b/c] now", "see now"),
        ("[//a.b/c rel] and [mailto:a@b.c mail]", "rel and mail"),
        ("see http://a.b/c", "see http://a.b/c"),
        ("[[http://a.b label]] x", "label x"),
        ("[[File:a.jpg|thumb|cap [1] [z]]]Foo [[a|b [c]]] d", "Foo b [c] d"),
        ("[[File:a.jpg|thumb|one.\n\n* two [[b]]\n\nthree]]Foo", "Foo"),
        ("he [sic] said [...] it", "he [sic] said [...] it"),
        ("array[0] and [1, 2]", "array[0] and [1, 2]"),
    ],
)
def test_links(wikitext: str, text: str) -> None:
    assert plain_text(wikitext) == [text]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("a '''b''' ''c'' '''''d''''' e", "a b c d e"),
        ("it's the dogs' day", "it's the dogs' day"),
        ("l'''amour'' fou", "l'amour fou"),
        ("'''Ada''' (''x'') and '''B''' ''y''", "Ada (x) and B y"),
        ("a ''''b'''' c", "a 'b' c"),
        ("The ''Titanic'''s captain.", "The Titanic's captain."),
        ("The ''Titanic'''s and the ''Olympic'''s crews, '''bold'''", "The Titanic's and the Olympic's crews, bold"),
        ("''Titanic''{{'s}} ''Titanic''{{'}}s [[Foo|''Foo'']]'s ''[[Foo]]'''s", "Titanic's Titanic's Foo's Foo's"),
        ("'''Foo''''s '''''Foo''''''s '''''Foo''' bar''", "Foo's Foo's Foo bar"),
        ("''Foo''<ref>x</ref>'s ''Foo''<nowiki/>'s ''Foo''{{citation needed}}'s", "Foo's Foo's Foo's"),
        ("{{lang|fr|''Foo''}}'s [[File:a.jpg|x]]'''b'''", "Foo's b"),
        ("''Les Mis\u00e9rables'''' success", "Les Mis\u00e9rables' success"),
        ("'''a''' b l'''c'' d", "a b l'c d"),
        ("'''a ''b", "a b"),
        ("a<br>b<br />c<BR/>d", "a b c d"),
        (
            "x<sup>2</sup> 10<sup>6</sup> 10<sup>\u22123</sup> 1<sup>st</sup> H<sub>2</sub>O",
            "x2 10^6 10^\u22123 1st H2O",
        ),
        ('<span style="a">b</span> <code>c</code> <small>d</small>', "b c d"),
        ("a < b and c > d", "a < b and c > d"),
        ("<unknown>a</unknown>", "<unknown>a</unknown>"),
        ("a &amp; b &lt;ref&gt; &#39;c&#x27; &nbsp;d &notanentity; AT&T", "a & b <ref> 'c' d &notanentity; AT&T"),
        ("&amp;lt; x", "&lt; x"),
        ("a\u00a0b\u2009c\td&#10;e", "a b c d e"),
        ("<nowiki>[[a]] ''b'' {{c}} <ref></nowiki> d<nowiki/>e", "[[a]] ''b'' {{c}} <ref> de"),
        ("__NOTOC__ a __init__", "a __init__"),
        ("<languages/><translate><!--T:1-->\nThe <phonos file=x.ogg>word</phonos></translate>", "The word"),
        ("__notoc__ a __\u041e\u0413\u041b__ b __\u76ee\u6b21__ c __INHALTSVERZEICHNIS_ERZWINGEN__", "a b c"),
        ("-{zh-hans:a;zh-hant:b}- -{c}- -{H|zh-cn:d;zh-tw:e}-f", "a c f"),
        ("a<!-- b -->c<!--\n\n-->d", "acd"),
        ("x = y and -> z", "x = y and -> z"),
        ("a &ndash; b", "a \u2013 b"),
    ],
)
def test_quotes_tags_and_entities(wikitext: str, text: str) -> None:
    assert plain_text(wikitext) == [text]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ('a<ref>b</ref>c<ref name="x" />d<ref name=y/>e<REF>f</REF>g', "acdeg"),
        ("a<ref>{{cite|b}} [[c]] <i>d</i> < e</ref>.", "a."),
        ("a <ref>b</ref>, c <ref>d</ref>.", "a, c."),
        ("a<ref>b<ref>c</ref> d", "ab d"),
        ("a <math>\\frac{a}{b}</math> b <math>n</math> c <math>x + y</math>", "a b n c x + y"),
        ("a<gallery>\nFile:b.jpg|c\n</gallery>d", "ad"),
        ('a <syntaxhighlight lang="c">if (a < b) {}</syntaxhighlight> b <pre>x</pre>', "a b"),
        ("a<references><ref name=b>c</ref></references>", "a"),
        ("a <table><tr><td>b</td></tr></table> c", "a c"),
    ],
)
def test_blocks_are_cut_out(wikitext: str, text: str) -> None:
    assert plain_text(wikitext) == [text]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("a {{cite|b|c={{d|e}}}} f", "a f"),
        ("a {{unknown|b}}, c {{unknown}}.", "a b, c."),
        ("a ({{IPA|b}}) c", "a c"),
        ("a ({{IPA|b}}; {{x}}) c", "a c"),
        ("a ({{IPA|b}}, born 1950) c", "a (born 1950) c"),
        ("a (b {{x}}; {{y}}; c {{z}}) d", "a (b; c) d"),
        ("a such as {{x}}, {{y}}, or b", "a such as, or b"),
        ("main() and ( ) stay", "main() and ( ) stay"),
        ("{{{1}}} a {{{b|c}}} d", "a d"),
        ("{{convert|5|km|mi}}", "5 km"),
        ("{{Convert|5|-|10|km}} {{convert|1|to|2|sqmi}} {{cvt|20|C|F}}", "5\u201310 km 1 to 2 sq mi 20 \u00b0C"),
        ("{{convert|5|ft|3|in|m|abbr=on}} {{convert|3|by|4|m}}", "5 ft 3 in 3 by 4 m"),
        ("{{lang|fr|mot}} {{lang-de|Wort}} {{transl|ru|ISO|slovo}} {{lang|la|[[a|b]] ''c''}}", "mot Wort slovo b c"),
        ("{{nowrap|a {{nowrap|b [[c|d]]}}}} {{Small|1=e=f}} {{abbr|g|h}}", "a b d e=f g"),
        ("ship{{'s}} {{spaced ndash}} b{{snd}}c{{nbsp}}d", "ship's \u2013 b \u2013 c d"),
        ("{{frac|1|2}} {{frac|3|1|2}} {{frac|4}} {{val|1.5|e=6|u=m}}", "1/2 3 1/2 1/4 1.5\u00d710^6 m"),
        ("{{as of|2015|3}} {{as of|2010|lc=y}} {{as of|2015|1|31|alt=x}}", "As of March 2015 as of 2010 x"),
        ("{{as of|2015|3|31}} {{as of|2015|13}}", "As of 31 March 2015 As of 13 2015"),
        ("{{chem|H|2|O}} {{US$|5}} {{circa|1200}} {{formatnum:1000}}", "H2O US$5 c. 1200 1000"),
        ("{{nihongo|a|b|c}} {{nihongo||b}} {{USS|Nimitz|CVN-68}} {{ship|MV|X}}", "a (b, c) b USS Nimitz MV X"),
        ("{{hlist|a|b|[[c]]}} {{flag|France}}{{flagicon|France}}", "a, b, c France"),
        ("{{nowrap}} {{lang|fr}} {{frac}} a {{convert}}", "1/ a"),
        (
            "a {{sclass|Nimitz|aircraft carrier}}, {{sclass|Essex||4}} or {{sclass2|Tribal|destroyer|0}}",
            "a Nimitz-class aircraft carrier, Essex class or Tribal-class",
        ),
        (
            "{{SMS|Emden}} {{MV|Foo|1999|6}} {{USS|Enterprise|CV-6|2}} {{ship|German battleship|Bismarck||2}}",
            "SMS Emden MV Foo Enterprise Bismarck",
        ),
        ("{{stn|Oxford}} {{rws|Reading}} {{station link|System|Place}}", "Oxford Reading Place"),
        ("{{INR|500|c}} {{A$|5}} {{C$|3 million}} {{GBP|2}}", "\u20b9500 crore A$5 C$3 million \u00a32"),
        ("the {{ordinal|3}}, {{ord|11}} and {{nth|22}}", "the 3rd, 11th and 22nd"),
        (
            "({{tlit|ru|slovo}}; {{langx|de|Wort}}) {{height|ft=6|in=1}} {{height|m=1.85}}",
            "(slovo; Wort) 6 ft 1 in 1.85 m",
        ),
        ("aged {{age|1950|5|1|2000|4|30}}, {{age|1950|5|1|2000|5|1}}; {{age|1950|5|1}} now", "aged 49, 50; now"),
        ("{{convert|2|x|3|x|4|m}} {{convert|1+1/2|in}} {{track gauge|1435mm}}", "2 by 3 by 4 m 1 1/2 in 1435 mm"),
        (
            "B{{music|flat}} {{music|natural}} E{{music|b}} F{{music|#}} {{music|time|3|4}} {{music|x}}",
            "B\u266d \u266e E\u266d F\u266f 3/4 \U0001d12a",
        ),
        (
            "{{circa|1500|1550}} {{fl.|1500|1520}} {{reign|1500|1520}} {{circa|1500}} {{b.|1500}}",
            "c. 1500 \u2013 c. 1550 fl. 1500\u20131520 r. 1500\u20131520 c. 1500 b. 1500",
        ),
        (
            "{{bibleverse|John|3:16|NIV}} {{bibleverse||Genesis|1:1}} {{bibleverse|1|John|2:3}}",
            "John 3:16 Genesis 1:1 1 John 2:3",
        ),
        (
            "{{ratio|3|2}} {{duration|1|2|3}} {{duration|m=3|s=5}} {{val|3|0.1|u=m}} {{val|3|0.2|0.1}}",
            "3:2 1:02:03 3:05 3\u00b10.1 m 3+0.2\u22120.1",
        ),
        (
            "{{age in days|2000|1|1|2000|3|1}} {{monthname|3}} {{INRConvert|500|c}} {{U.S. Route|66}}",
            "60 March \u20b9500 crore U.S. Route 66",
        ),
        (
            "{{post-nominals|country=GBR|OBE|FRS}} {{section link|Foo|Bar}} {{slink||Bar}}",
            "OBE FRS Foo \u00a7 Bar \u00a7 Bar",
        ),
        (
            "{{harvtxt|Smith|2000}} and {{harvtxt|Smith|Jones|2000a|p=5}} argue",
            "Smith (2000) and Smith & Jones (2000a, p. 5) argue",
        ),
        # The words that an editor's note is about stay.
        (
            "{{citation needed span|text=the sky|date=x}} {{clarify span|is|date=x}} {{fact span|green}} {{cns|or so}}",
            "the sky is green or so",
        ),
        ("10{{sup|6}} 10{{sup|\u22123}} 1{{sup|st}} H{{sub|2}}O", "10^6 10^\u22123 1st H2O"),
        ("{{PLURAL:3|ship|ships}} {{Template:nowrap|a}} {{ill|Name|de|Wer|lt=him}} {{ill|de|Wer}}", "ships a him Wer"),
    ],
)
def test_templates(wikitext: str, text: str) -> None:
    assert plain_text(wikitext) == [text]


@pytest.mark.parametrize(
    ("wikitext", "text", "cut"),
    [
        ("about {{foo|2000|m}} high", "about 2000 m high", 0),
        ("a {{foo|[[b|c d]]}} e", "a c d e", 0),
        ("a ({{foo|de|Wort}}) e", "a (Wort) e", 0),
        ("the {{foo}} is, {{foo|x=y}} was", "the is, was", 2),
        ("see {{foo|a.jpg}} or {{foo|{{bar}}}} or {{foo|yes}} there", "see or or there", 3),
        # One of several arguments, if it is a number or a code, says something else than the template.
        (
            "from {{foo|1941|1945}} to {{foo|USA|500}} is {{foo|I|66}} or {{foo|John Smith|5}} there",
            "from to is or John Smith there",
            3,
        ),
        # Notes, doubts, citations, icons and what stands beside the text say nothing, wherever they stand.
        (
            "a{{citation needed|date=May 2011}} b {{who|date=x}} c {{sfn|Smith|2001|p=3}} d {{efn|note}} e",
            "a b c d e",
            0,
        ),
        (
            "a {{coord|1|2}} b {{cite web|url=x|title=y}} c {{rp|12}} d {{clarify|reason=x}} e {{when?|x}} f",
            "a b c d e f",
            0,
        ),
        ("a {{tone inline|x}} b {{foo|x|date=May}} c {{flagicon|x}} d {{IPA|x}} e {{anchor|x}} f", "a b c d e f", 1),
        ("{{main|X}}\n{{foo|X}}\na.{{foo|X}} B {{foo|X}}", "a. B", 0),
    ],
)
def test_unknown_templates_are_read_in_the_middle_of_a_sentence(wikitext: str, text: str, cut: int) -> None:
    found: Counter[str] = Counter()
    assert plain_text(wikitext, names_of(Site("en")), found) == [text]
    assert found.total() == cut


def test_the_title_of_the_page() -> None:
    assert plain_text("'''{{PAGENAME}}''' is {{ FULLPAGENAME }}.", title="Foo") == ["Foo is Foo."]
    assert plain_text("Die {{SEITENNAME}} ist.", names_of(Site("de")), title="Foo") == ["Die Foo ist."]
    assert plain_text("The {{PAGENAME}} is.") == ["The is."]


def test_holes_in_wide_parentheses_are_closed() -> None:
    text = (
        "\u6771\u4eac\uff08{{IPA|x}}\u30011950\u5e74\uff09\u306f\uff08{{IPA|x}}\uff09\u3001{{Efn|x}}\u3001\u90fd\u5e02"
    )
    assert plain_text(text) == ["\u6771\u4eac\uff081950\u5e74\uff09\u306f\u3001\u90fd\u5e02"]


def test_names_of_templates() -> None:
    for name in ("nowrap", "Nowrap", " nowrap\n", "visible_anchor", "Visible  Anchor", "lang-fr", "script/Hebrew"):
        assert speaks(name) is not None, name
    for name in ("cite web", "", "infobox", "langs", "nowrap2"):
        assert speaks(name) is None, name


@pytest.mark.parametrize(
    ("wikitext", "paragraphs"),
    [
        ("a\nb\n\nc", ["a b", "c"]),
        ("a\r\nb\r\n\r\nc", ["a b", "c"]),
        ("* a\n* b\n** c\n#d\n:e\n:*f\n;g", ["a", "b", "c", "d", "e", "f", "g"]),
        ("a\n* b\nc", ["a", "b", "c"]),
        ("== H ==\na\n===I===\nb\n==J== \nc", ["a", "b", "c"]),
        ("a\n----\nb\n-----c", ["a", "b", "c"]),
        ("{{Infobox\n| a = b\n}}\nc\n{{hatnote}}\nd", ["c", "d"]),
        ("a {{quote|b\n\nc}} d", ["a", "b", "c", "d"]),
        ("a<blockquote>b</blockquote>c<p>d</p>", ["a", "b", "c", "d"]),
        ("<poem>\na\nb\n</poem>", ["a b"]),
        ("a\n\n1968\n\n...\n\n* \n\nb", ["a", "b"]),
        ("{|\n| a\n|}\nb\n:{| class=x\n|-\n! c !! d\n| e || {{f|\n{|\n|}}}\n|}\ng", ["b", "g"]),
        ("", []),
        ("\n\n  \n", []),
        ("{{x}}", []),
    ],
)
def test_paragraphs(wikitext: str, paragraphs: list[str]) -> None:
    assert plain_text(wikitext) == paragraphs


def test_sections_without_prose_are_left_out_up_to_the_next_of_their_level() -> None:
    wikitext = "a\n== See also ==\nb\n=== c ===\nd\n== E ==\nf\n=== ''Notes'' ===\ng\n=== h ===\ni\n==References:==\nj"
    assert plain_text(wikitext) == ["a", "f", "i"]
    assert plain_text("a\n= References =\n* b\n=\nc\n= History =\nd") == ["a", "d"]
    assert plain_text("a\n==Notes on style==\nb\n==External links==\nc") == ["a", "b"]


@pytest.mark.parametrize(
    ("wikitext", "paragraphs"),
    [
        ("a {{unclosed b\n\nc {{nowrap|d}} e\n\nf", ["a unclosed b", "c d e", "f"]),
        ("a }} b\n\nc", ["a b", "c"]),
        ("a [[unclosed b\n\nc [[d|e]] f", ["a unclosed b", "c e f"]),
        ("a ]] b", ["a b"]),
        ("[[File:a.jpg|thumb|unclosed\n\nb [[c]]", ["b c"]),
        ("[[File:a.jpg|thumb|unclosed\n\nb [[c]] ]] d", ["d"]),
        ("[[File:a.jpg|unclosed\n\n" + "b " * 1000 + "[[c]] ]] d", ["unclosed", "b " * 1000 + "c d"]),
        ("{| class=x\n|-\n! h !! i\n| never closed\n\nText after.", ["Text after."]),
        ("{{Infobox\n| name = b {{c\n}}\nText after.", ["Infobox", "Text after."]),
        ("{| \n| {{unclosed\n|}\nb", ["b"]),
        ("a <ref>unclosed b\n\nc<ref>d</ref> e", ["a unclosed b", "c e"]),
        ("a <!-- unclosed b\n\nc", ["a unclosed b", "c"]),
        ("a <nowiki>b [[c|d]]", ["a b d"]),
        ("a '''b\nc ''d", ["a b c d"]),
        ("!Kung people", ["!Kung people"]),
    ],
)
def test_broken_markup_never_takes_the_rest_of_the_page(wikitext: str, paragraphs: list[str]) -> None:
    assert plain_text(wikitext) == paragraphs


@pytest.mark.parametrize("mark", MARKUP)
@pytest.mark.parametrize("tail", ["", "text " * 2000])
def test_a_hundred_thousand_of_one_mark(mark: str, tail: str) -> None:
    started = time.process_time()
    check_text(mark * 100_000 + tail)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("start", "stop"),
    [("{{", "}}"), ("[[", "]]"), ("{{nowrap|", "}}"), ("[[a|", "]]"), ("\n{|", "\n|}"), ("<ref>", "</ref>"), ("(", ")")]
    + [("[[File:a|", "]]"), ("<div>", "</div>"), ("({{x}}", ")"), ("{{quote|", "}}"), ("<table>", "</table>")],
)
def test_deep_nesting_takes_time_in_proportion(start: str, stop: str) -> None:
    started = time.process_time()
    check_text(start * 50_000 + "word" + stop * 50_000)
    check_text(start * 40 + "word " * 20_000 + stop * 40)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "filling", [" ", "\n", " =", "a ", "\x00", "{{x}}", "{{x}} ", "{{x}},", "|", "[[", "]", "'", "=", "a|"]
)
@pytest.mark.parametrize(
    "frame",
    [
        "{{nowrap|%s}}",
        "{{lang|fr|%sy}}",
        "(%sy)",
        "({{x}}%s)",
        "[[a|%s]]",
        "[[File:a|%s]]",
        "[http://a %s]",
        "<ref>%s</ref>",
    ]
    + [
        "== %s ==",
        "\n= a%sb",
        "<b %s>",
        "<math>%s</math>",
        "<nowiki>%s</nowiki>",
        "&%s;",
        "{{convert|1|%s}}",
        "''%s''",
    ],
)
def test_a_hundred_thousand_of_one_filling(frame: str, filling: str) -> None:
    started = time.process_time()
    check_text(frame % (filling * 100_000))
    assert time.process_time() - started < 5


@settings(deadline=None, max_examples=400)
@given(st.lists(st.sampled_from(MARKUP), max_size=60).map("".join))
def test_any_markup_keeps_the_promises(text: str) -> None:
    check_text(text)


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_any_text_keeps_the_promises(text: str) -> None:
    check_text(text)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 1 << 40))
def test_broken_articles_keep_the_promises(seed: int) -> None:
    check_text(broken(random.Random(seed), ARTICLE))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(st.sampled_from("abcdefgh ,.()"), min_size=1), max_size=6))
def test_text_without_markup_is_kept_whole(paragraphs: list[str]) -> None:
    expected = [" ".join(text.split()) for text in paragraphs if re.search("[a-h]", text)]
    assert plain_text("\n\n".join(paragraphs)) == expected


def test_the_same_words_as_an_independent_parser_on_well_formed_prose() -> None:
    draw = random.Random(5)
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    wrap = [
        "%s",
        "''%s''",
        "'''%s'''",
        "[[%s]]",
        "[[x|%s]]",
        "%s<ref>note</ref>",
        "<small>%s</small>",
        "[http://a.b %s]",
    ]
    wikitext = "\n\n".join(
        " ".join(draw.choice(wrap) % draw.choice(words) for _ in range(40)) + " {{cite|x}}." for _ in range(50)
    )
    tree = mwparserfromhell.parse(wikitext)
    for reference in tree.filter_tags(matches=lambda tag: str(tag.tag) == "ref"):
        tree.remove(reference)
    assert (
        " ".join(plain_text(wikitext)).replace(" .", ".").split() == str(tree.strip_code()).replace(" .", ".").split()
    )


@needs_dump
def test_real_articles_keep_their_words_and_lose_their_markup() -> None:
    with bz2.open(next((DATA / "wikipedia" / "xml").glob("*.bz2"))) as file:
        pages = [parse_page(text) for _, text in iter_pages(iter(lambda: file.read(1 << 20), b""))]
    texts = {page.title: "\n".join(plain_text(page.text)) for page in pages if keep_page(page) is None}
    everything = "\n".join(texts.values())
    assert 2_700_000 < len(everything) < 2_900_000
    left = Counter(re.findall(r"\{\{|\}\}|\[\[|\]\]|''|</?ref|<!--|&nbsp;|\{\||^[*#:;|]", everything, re.MULTILINE))
    assert left.total() <= 2, left
    assert texts["Autism"].startswith("Autism is a neurodevelopmental disorder characterized by impaired social")
    assert "; 384\u2013322 BC) was a Greek philosopher and scientist born in the city of Stagira" in texts["Aristotle"]


def test_a_century_without_its_ending_is_said_too() -> None:
    assert two_centuries(split_arguments(["XVIII", "e", "XIX"])) == "XVIIIe et XIXe siècles"
