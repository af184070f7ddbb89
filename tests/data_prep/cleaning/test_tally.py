import hashlib
import json
import random

from hypothesis import given
from hypothesis import strategies as st

from data_prep.cleaning.tally import DROPS, EDITS, RULE_LABELS, SAMPLES, Tally

EVENTS = st.one_of(
    st.tuples(st.just("edited"), st.sampled_from(["controls_dropped", "other"]), st.integers(0, 9)),
    st.tuples(st.just("dropped"), st.sampled_from(["short", "empty", "odd"]), st.text(max_size=3), st.text(max_size=2)),
    st.tuples(st.just("cut"), st.dictionaries(st.sampled_from(["lang", "unit"]), st.integers(1, 9))),
    st.tuples(st.just("kept"), st.sampled_from(["wiki", "books"]), st.integers(0, 9)),
)


def tally_of(events: list[tuple]) -> Tally:
    tally = Tally()
    for name, *values in events:
        getattr(tally, name)(*values)
    return tally


@given(st.lists(EVENTS, max_size=30), st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_order_and_any_sharing_out_gives_the_same_bytes(
    events: list[tuple], generator: random.Random, parts: int
) -> None:
    whole = tally_of(events)
    shuffled = events.copy()
    generator.shuffle(shuffled)
    merged = Tally()
    for number in range(parts):
        merged.merge(Tally.from_json(json.loads(json.dumps(tally_of(shuffled[number::parts]).to_json()))))
    assert json.dumps(merged.to_json()) == json.dumps(whole.to_json())
    assert merged.table() == whole.table()
    assert merged.samples() == whole.samples()


@given(st.lists(st.tuples(st.text(max_size=2), st.text(max_size=2)), min_size=1, max_size=20))
def test_samples_are_those_with_the_smallest_hashes(documents: list[tuple[str, str]]) -> None:
    tally = Tally()
    for text, identifier in documents:
        tally.dropped("short", text, identifier)
    wanted = {}
    for text, identifier in documents:
        key = hashlib.blake2b(("short" + text).encode(), digest_size=8).hexdigest()
        wanted[key] = min(identifier, wanted.get(key, (identifier,))[0]), text
    figures = tally.to_json()["dropped"]["short"]
    assert figures["documents"] == len(documents)
    assert figures["characters"] == sum(len(text) for text, _ in documents)
    assert [(sample["hash"], (sample["id"], sample["text"])) for sample in figures["samples"]] == sorted(
        wanted.items()
    )[:SAMPLES]


def test_table_and_samples() -> None:
    tally = Tally()
    tally.kept("wiki", 12_345)
    tally.edited("whitespace_dropped", 7)
    tally.edited("controls_dropped", 0)
    tally.dropped("short", "too\nlittle", "17")
    tally.dropped("redirects", "", "3")
    tally.dropped("redirects", "", "2")
    tally.dropped("made up", "x" * 300, "9")
    assert tally.table().split("\n") == [
        "  documents  characters",
        "          2           0  dropped: redirects",
        "          1          10  dropped: documents shorter than the least length",
        "          1         300  dropped: made up",
        "          7              edited: superfluous white space dropped (characters)",
        "          1      12,345  kept: wiki",
    ]
    assert tally.samples().split("\n") == [
        "  redirects",
        "    2: (nothing)",
        "  documents shorter than the least length",
        "    17: too / little",
        "  made up",
        f"    9: {'x' * 200}",
    ]
    assert Tally().samples() == ""


def test_the_most_frequent_templates_that_were_cut_are_named() -> None:
    tally = Tally()
    tally.cut({"b": 2, "a": 2, "c": 9, "d": 1, "e": 1, "f": 1})
    tally.cut({"d": 1_000})
    names = "d 1,001, c 9, a 2, b 2, e 1"
    assert tally.table().split("\n")[1].split(maxsplit=1) == ["1,016", f"edited: {EDITS['templates_cut']} ({names})"]
    assert tally.to_json()["cut"] == {"a": 2, "b": 2, "c": 9, "d": 1_001, "e": 1, "f": 1}


def test_labels_are_one_line_each_and_none_is_of_two_kinds() -> None:
    assert len(RULE_LABELS) == len(DROPS) + len(EDITS)
    assert all(label and "\n" not in label for label in RULE_LABELS.values())
    assert len(set(RULE_LABELS.values())) == len(RULE_LABELS)
