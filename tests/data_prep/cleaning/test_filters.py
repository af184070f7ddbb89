import gzip
import itertools
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.cleaning.filters import STOP_WORDS, Rules, check_language, reason_to_drop
from data_prep.cleaning.repair import clean_text
from data_prep.cleaning.tally import DROPS, Tally
from data_prep.cleaning.words import blocks, words_of
from data_prep.errors import UserError
from tests.data_prep.languages import SNIPPETS
from tests.data_prep.real_data import DATA, needs_texts

RULES = Rules(min_characters=1)
PROSE = (
    "The river rises in the hills and runs for three hundred miles to the sea. Small towns stand on its banks, and "
    "most of them were founded by merchants in the Middle Ages. Ships have not called there for a long time, but in "
    "summer visitors come to look at the old churches and at the castle that a king had built above the valley. They "
    "say that nowhere else is it so quiet in the evening, when the boats lie in the harbour and the bells can be heard "
    "from the other side of the water. In winter the roads are closed by snow, and people mend their nets."
)
LOREM = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore "
    "magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo "
    "consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur. "
    "Excepteur sint occaecat cupidatat non proident, sunt in culpa qui officia deserunt mollit anim id est laborum."
)


def reason(text: str, rules: Rules = RULES) -> str | None:
    found = reason_to_drop(text, rules)
    assert found is None or found in DROPS
    return found


def clean(text: str) -> str:
    return clean_text(text.split("\n"), Tally())


def numbered(count: int, line: str = "Visitor number {} came to the town in the year {}.") -> str:
    generator = random.Random(count)
    return "\n".join(line.format(generator.randrange(10**6), generator.randrange(10**6)) for _ in range(count))


def soup(characters: str, length: int, seed: int = 0) -> str:
    generator = random.Random(seed)
    return clean("".join(generator.choice(characters) for _ in range(length)))


def distinct(count: int, seed: int = 0) -> str:
    """Words that never repeat, with all stop words among them."""
    generator = random.Random(seed)
    made = [
        "".join(generator.choice("bcdefghiklmnoprstuvw") for _ in range(generator.randint(5, 8))) for _ in range(count)
    ]
    for place in range(0, count, 97):
        made[place] = "the" if place % 2 else "of"
    return " ".join(made)


def test_prose_stays_in_every_language_and_length() -> None:
    assert reason(PROSE) is None
    assert reason(distinct(60_000)) is None
    for language, text in SNIPPETS.items():
        assert reason(text) is None, language


@pytest.mark.parametrize(
    ("wanted", "junk"),
    [
        ("one_character", "a" * 5_000),
        ("one_character", "a " * 2_000 + "b"),
        ("one_character", "=" * 200),
        ("one_character", "aaaa " * 100 + "end"),
        ("one_character", "\u554a" * 500),
        ("one_character", "Title\n" + "x" * 100_000),
        ("word_length", soup("abcdefghijklmnopqrstuvwxyz", 20_000)),
        ("word_length", "a b c d e f g h " * 50 + "end"),
        ("word_length", "\n".join(f"https://www.example.org/{n}/page-{n * 7}.html" for n in range(100))),
        ("symbol_words", "#sun #sea #sand the photograph of that day with " * 20 + "end"),
        ("symbol_words", "and so ... it went ... on with ... the day ... of days\n" * 20 + "end"),
        ("symbols", soup("@$%^&*()_+=[]|<>/~     ab", 4_000)),
        ("bullet_lines", "\n".join(f"\u2022 item {n} of the list to have with that" for n in range(40))),
        ("ellipsis_lines", "\n".join(f"The news number {n} of the day that will be read on..." for n in range(40))),
        (
            "braces",
            "\n".join(
                f"when the {word} {{ have been }} read, go to {{ the }} end of that" for word in distinct(30).split()
            ),
        ),
        ("alphabetic_words", " ".join(f"{n} {n * 17} 3.{n}" + (" the of and" if n % 3 else "") for n in range(60))),
        ("lorem_ipsum", LOREM),
        ("lorem_ipsum", "\n".join([LOREM, *[LOREM[28:]] * 3])),
        ("stop_words", " ".join(f"cheap watches {n}st quality brand replica handbags store online" for n in range(20))),
        ("duplicate_lines", "\n".join([PROSE, PROSE[:300], PROSE[:300], PROSE[:300]])),
        ("duplicate_lines", "Home page of the shop\nAll about us and the team\n" * 30),
        ("top_ngram", "buy the shoes now " * 12 + "and have them sent to the door of the house with no costs"),
        ("top_ngram", "\n".join(f"{n} to be or not to be, that is of all things what the man {n}" for n in range(30))),
        ("duplicate_ngrams", PROSE + " " + PROSE + " " + distinct(20) + " " + PROSE),
        ("duplicate_ngrams", "\n".join(f"{n}. {PROSE[:150]} {n * n}" for n in range(9))),
    ],
)
def test_junk_is_dropped(wanted: str, junk: str) -> None:
    assert reason(clean(junk)) == wanted


REVIEW = "I had seen the film before, and it was as good as the book that it was made of, or better"


@pytest.mark.parametrize(
    "text",
    [
        f"{REVIEW}...",
        f"{REVIEW}\u2026",
        f"- {REVIEW}.",
        f"***1/2 {REVIEW}.",
        f"\u2013 {REVIEW}.\n\u2013 But of all the songs in it, which one is the best?",
        f"{REVIEW}...\nThe songs are what I like the most...\nThat is all for now...\nGo and have fun with it...",
        "\n".join([*[f"Of the man with number {n} we are told that he was here." for n in range(5)], *["So..."] * 2]),
    ],
)
def test_a_few_lines_are_no_list(text: str) -> None:
    assert reason(clean(text)) is None


def test_five_lines_are_a_list() -> None:
    others = [f"{distinct(12, n)} to him" for n in range(17)]
    items, rest = others[:5], others[5:]
    for edited, rule in (("- {}", "bullet_lines"), ("{}...", "ellipsis_lines")):
        lines = [edited.format(item) for item in items]
        assert reason("\n".join(lines)) == rule
        assert reason("\n".join(lines[:4])) is None
    # The share of all lines still counts.
    assert reason("\n".join([f"- {item}" for item in items] + rest[:1])) is None
    assert reason("\n".join([f"{item}..." for item in items] + rest[:11])) == "ellipsis_lines"
    assert reason("\n".join([f"{item}..." for item in items] + rest[:12])) is None


def test_program_code_is_dropped() -> None:
    source = clean(Path(random.__file__).read_text(encoding="utf-8"))
    body = "\n".join(line for line in source.split("\n") if re.search(r"[=()\[\]:]", line) and len(line) < 60)
    assert len(body) > 8_000
    assert reason(body) in ("symbols", "alphabetic_words")


def test_thresholds_are_exact() -> None:
    braced = PROSE.split()
    assert len(braced) == 110
    braced[:11] = [f"{{{word}" for word in braced[:11]]
    assert reason(" ".join(braced)) is None
    braced[11] = "{" + braced[11]
    assert reason(" ".join(braced)) == "braces"
    assert reason("ab " * 0 + "abcdefghij klmnopqrst") is None
    assert reason("abcdefghij klmnopqrstu") == "word_length"
    assert reason("ab cd") is None
    assert reason("a cd") == "word_length"
    names = distinct(400).split(" ")
    lines = [f"- {' '.join(names[start : start + 4])}" for start in range(0, 400, 4)]
    assert reason("\n".join([*lines[:90], *(line[2:] for line in lines[90:100])])) is None
    assert reason("\n".join([*lines[:91], *(line[2:] for line in lines[91:100])])) == "bullet_lines"


def test_lorem_ipsum_may_be_written_about() -> None:
    text = distinct(499) + " Lorem, ipsum"
    assert reason(text) is None
    assert reason(text.replace(" ", "\n", 1).removeprefix("of\n")) == "lorem_ipsum"


def test_empty_short_and_no_filters() -> None:
    assert reason("", Rules()) == reason("", Rules(filters="none")) == "empty"
    assert reason("x" * 99, Rules()) == "short"
    assert reason(PROSE[:99], Rules()) == "short"
    assert reason(PROSE[:100], Rules()) is None
    assert reason("x" * 5_000, Rules(filters="none")) is None
    assert reason("x", Rules(min_characters=2, filters="none")) == "short"


def test_language() -> None:
    everything = SNIPPETS | {"en": PROSE}
    for language in everything:
        kept = [other for other, text in everything.items() if reason(text, Rules(language=language)) is None]
        assert kept == [language]
    assert reason(PROSE, Rules(language="en", language_threshold=1.01)) == "language"
    assert reason("x" * 100 + PROSE * 30, Rules(filters="none", language="en")) is None
    with pytest.raises(UserError, match=r"language is 'english', wanted one of .*, en, .*, zh"):
        check_language("english")
    check_language("en")
    check_language(None)


def test_language_identification_is_imported_only_when_asked_for() -> None:
    code = (
        "import sys; from data_prep.cleaning.filters import Rules, check_language, reason_to_drop; "
        f"reason_to_drop({PROSE!r}, Rules()); sys.exit('py3langid' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_stop_words_are_words_of_their_own() -> None:
    english = set(STOP_WORDS["en"].split())
    for language, text in STOP_WORDS.items():
        assert len(words_of(text).hashes) == len(set(text.split())) == len(text.split()), language
        assert language == "en" or not english & set(text.split()), language
        assert not set(text.split()) & set(re.findall(r"\w+", LOREM.lower())), language
    text = " ".join(distinct(120).replace("the", "a").replace("of", "b").split())
    assert reason(text) == "stop_words"
    assert reason(f"{text} The (of)") is None
    assert reason(f"{text} The the") == "stop_words"
    assert reason(f"{text} und der") is None
    assert reason(f"{text} und der", Rules(min_characters=1, language="ru", filters="default")) == "language"


def test_a_long_text_is_judged_by_all_of_its_blocks() -> None:
    good = distinct(60_000)
    bad = " ".join([PROSE] * 160)
    assert len(list(blocks(good))) > 5
    assert len(list(blocks(bad))) == 2
    assert reason(bad) == "duplicate_ngrams"
    assert reason(f"{good}\n{bad}") == "duplicate_ngrams"
    assert reason(f"{distinct(200_000, 1)}\n{bad}") is None
    # A phrase may come back in every part of a long book.
    chapters = "\n".join(f"{distinct(12_000, number)} {PROSE}" for number in range(6))
    assert reason(chapters) is None


@needs_texts
def test_real_articles_and_books_stay() -> None:
    paths = [*sorted(DATA.glob("wikipedia/extracted/AA/wiki_*.gz"))[:4], *sorted(DATA.glob("books/gutenberg/*.gz"))[:4]]
    texts = [gzip.decompress(path.read_bytes()).decode().replace("\r", "") for path in paths]
    documents = re.findall(r"<doc [^>]*>\n(.*?)</doc>", "".join(texts[:4]), re.DOTALL)
    documents += [text.replace("\n\n", "\r").replace("\n", " ").replace("\r", "\n") for text in texts[4:]]
    assert len(documents) > 95
    rules = Rules(language="en")
    assert [text[:40] for text in map(clean, documents) if reason(text, rules) is not None] == []


VOCABULARY = [
    "the",
    "of",
    "and",
    "to",
    "tree",
    "Lorem",
    "ipsum",
    "b",
    "bird,",
    "1914",
    "=",
    "{",
    "#",
    "...",
    "na\u00efve",
]


@settings(max_examples=400)
@given(
    st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=12),
    st.integers(1, 60),
    st.lists(st.sampled_from(VOCABULARY), max_size=40),
    st.integers(0, 300),
    st.randoms(use_true_random=False),
)
@example(["tree", "bird,"], 13, [], 300, random.Random(0))
def test_the_reason_is_that_of_a_plain_reading_of_the_rules(
    phrase: list[str], times: int, rest: list[str], filler: int, generator: random.Random
) -> None:
    tokens = phrase * times + rest + distinct(filler, times).split()
    pieces = [tokens[start : start + 7] for start in range(0, len(tokens), 7)]
    if generator.random() < 0.5:
        generator.shuffle(pieces)
    text = "".join(" ".join(piece) + generator.choice("  \n") for piece in pieces).strip()
    assert reason(text) == plain_reason(text)


def plain_reason(text: str) -> str | None:
    """The rules again, word by word, for English texts of one block."""
    tokens, lines, length = re.split("[ \n]", text), text.split("\n"), len(text)
    many = len(tokens) >= 50
    words = [(match[0].lower(), match.start()) for match in re.finditer(r"[^\W_]+", text)]
    names, starts = [word for word, _ in words], [start for _, start in words] + [length]
    alone = Counter(text.replace("\n", "").replace(" ", ""))
    spans = [end - start for start, end in itertools.pairwise(starts)]

    def phrases(size: int) -> list[tuple[str, ...]]:
        return [tuple(names[place : place + size]) for place in range(len(names) - size + 1)]

    def top(size: int) -> float:
        taken: dict[tuple[str, ...], list[int]] = {}
        for place, phrase in enumerate(phrases(size)):
            taken.setdefault(phrase, []).append(starts[place + size] - starts[place])
        return max((sum(found) for found in taken.values() if len(found) >= 10), default=0) / length

    def repeated(size: int) -> float:
        seen, covered = set(), set()
        for place, phrase in enumerate(phrases(size)):
            if phrase in seen:
                covered |= set(range(place, place + size))
            seen.add(phrase)
        return sum(spans[place] for place in covered) / length

    found = {
        "word_length": not 2 <= sum(map(len, tokens)) / len(tokens) <= 10,
        "symbol_words": max(text.count("#"), text.count("...")) / len(tokens) > 0.1,
        "symbols": sum(not char.isalnum() and not char.isspace() for char in text) / length > (0.15 if many else 0.25),
        "bullet_lines": (n := sum(line[0] in "-*" for line in lines)) >= 5 and n / len(lines) > 0.9,
        "ellipsis_lines": (n := sum(line.endswith("...") for line in lines)) >= 5 and n / len(lines) > 0.3,
        "braces": many and (text.count("{") + text.count("}")) / len(tokens) > 0.1,
        "alphabetic_words": many and sum(any(map(str.isalpha, token)) for token in tokens) < 0.8 * len(tokens),
        "lorem_ipsum": many and phrases(2).count(("lorem", "ipsum")) / len(tokens) >= 1 / 500,
        "stop_words": many and len(set(STOP_WORDS["en"].split()) & set(names)) < 2,
        "duplicate_lines": sum(len(line) * (n - 1) for line, n in Counter(lines).items()) / length > 0.2,
        "top_ngram": top(2) > 0.20 or top(3) > 0.18 or top(4) > 0.16,
        "duplicate_ngrams": len(tokens) >= 200
        and any(
            repeated(size) > share
            for size, share in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True)
        ),
    }
    first = next((rule for rule, fails in found.items() if fails), None)
    return "one_character" if first and max(alone.values()) * 2 > alone.total() else first
