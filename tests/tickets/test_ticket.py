"""The ticket's file: what is written comes back, and whatever is wrong in it is named."""

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import UserError
from pipeline.families.shape import EncoderShape, LayerShape
from pipeline.tickets.select import TicketRules
from pipeline.tickets.ticket import Ticket
from tests.tickets.make import random_ticket, small_shape


@given(st.integers(0, 10_000), st.booleans())
def test_json_round_trip(seed, settled):
    shape = small_shape(layers=((4, 32), (1, 7), (3, 90)))
    rules = TicketRules(heads=0.5, flops=0.7, row_length=16)
    ticket = random_ticket(shape, seed, settled=settled, rules=rules)
    assert Ticket.from_json(json.loads(json.dumps(ticket.to_json()))) == ticket


def test_file_round_trip(tmp_path):
    ticket = random_ticket(small_shape())
    ticket.write(tmp_path / "ticket.json")
    assert Ticket.read(tmp_path / "ticket.json") == ticket
    assert [path.name for path in tmp_path.iterdir()] == ["ticket.json"]


def test_kept_units_are_readable_and_lists_are_accepted():
    shape = small_shape(layers=((4, 32),))
    ticket = random_ticket(shape, heads=((0, 2, 3),), neurons=((*range(8), 12, *range(16, 18)),))
    written = ticket.to_json()
    assert written["layers"] == [{"heads": "0 2-3", "neurons": "0-7 12 16-17"}]
    written["layers"] = [{"heads": [0, 2, 3], "neurons": [*range(8), 12, 16, 17]}]
    assert Ticket.from_json(written) == ticket


def test_slim_shape():
    shape = small_shape(norm="pre", dropout=0.3)
    ticket = random_ticket(shape, heads=((0,), (1, 2), (3,)), neurons=((5,), tuple(range(8)), tuple(range(32))))
    slim = ticket.slim_shape()
    assert slim.layers == (LayerShape(1, 1), LayerShape(2, 8), LayerShape(1, 32))
    assert replace(slim, layers=shape.layers) == shape


def test_a_ticket_fits_its_own_shape_with_other_dropout():
    shape = small_shape()
    random_ticket(shape).check_fits(replace(shape, dropout=0.0, attention_dropout=0.0))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"vocab_size": 51}, ["vocab_size 50", "vocab_size 51"]),
        ({"norm": "pre"}, ["norm 'post'", "norm 'pre'"]),
        ({"layers": (LayerShape(4, 32),) * 2}, ["3 x {'heads': 4, 'ffn': 32}", "2 x {'heads': 4, 'ffn': 32}"]),
    ],
)
def test_a_ticket_for_another_model(changes, names):
    shape = small_shape()
    with pytest.raises(UserError, match="a ticket for another model") as caught:
        random_ticket(shape).check_fits(replace(shape, **changes))
    for name in names:
        assert name in str(caught.value)


def broken(change):
    values = random_ticket(small_shape()).to_json()
    values = copy.deepcopy(values)
    change(values)
    return values


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(values):
        for key in path:
            values = values[key]
        values[last] = value

    return change


def drop(*path):
    *parents, last = path

    def change(values):
        for key in parents:
            values = values[key]
        del values[last]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", 2), "format: this version reads 1, got 2"),
        (drop("format"), "format: this version reads 1, got None"),
        (drop("layers"), "the ticket lacks layers"),
        (put("comment", "mine"), "unknown keys: comment"),
        (put("step", -1), "step: expected a step counted from 0, got -1"),
        (put("step", "7"), "step: expected"),
        (put("step", True), "step: expected"),
        (put("score", ""), "score: expected"),
        (put("settled", 1), "settled: expected true or false, got 1"),
        (put("provenance", []), "provenance: expected"),
        (put("distances", []), "distances: expected"),
        (put("distances", "heads", [2.0]), r"distances\.heads: expected"),
        (put("distances", "heads", [float("nan")]), r"distances\.heads: expected"),
        (put("distances", "layers", [0.5]), r"distances\.layers: expected"),
        (put("rules", 3), "rules: expected an object"),
        (put("rules", "heads", 1.5), "rules: ticket.heads"),
        (put("rules", "heads", "many"), "rules: "),
        (drop("rules", "heads"), "rules lacks heads"),
        (put("rules", "extra", 1), "rules has unknown keys: extra"),
        (put("dense_shape", None), "dense_shape: expected an object"),
        (drop("dense_shape", "hidden_size"), "dense_shape: an encoder shape lacks: hidden_size"),
        (put("dense_shape", "layers", [{"heads": 4}]), "dense_shape: "),
        (put("dense_shape", "layers", 3), "dense_shape: "),
        (put("dense_shape", "hidden_size", "big"), "dense_shape: "),
        (put("dense_shape", "norm", "none"), "dense_shape: norm must be"),
        (put("layers", "0-3"), "layers: expected a list"),
        (drop("layers", 0), "heads: 2 layers, but dense_shape has 3"),
        (put("layers", 0, []), r"layers\[0\]: expected an object"),
        (drop("layers", 1, "heads"), r"layers\[1\] lacks heads"),
        (put("layers", 1, "width", 3), r"layers\[1\] has unknown keys: width"),
        (put("layers", 1, "heads", ""), r"layers\[1\]\.heads: no unit is kept"),
        (put("layers", 1, "heads", []), r"layers\[1\]\.heads: no unit is kept"),
        (put("layers", 1, "heads", [True]), r"layers\[1\]\.heads: expected ranges"),
        (put("layers", 1, "heads", [0.0]), r"layers\[1\]\.heads: expected ranges"),
        (put("layers", 1, "heads", None), r"layers\[1\]\.heads: expected ranges"),
        (put("layers", 1, "heads", "0 4"), r"layers\[1\]\.heads: index 4 is outside 0\.\.3"),
        (put("layers", 1, "heads", [-1, 2]), r"layers\[1\]\.heads: index -1 is outside 0\.\.3"),
        (put("layers", 1, "heads", "-1"), r"layers\[1\]\.heads: '-1' is neither"),
        (put("layers", 1, "heads", "1,2"), r"layers\[1\]\.heads: '1,2' is neither"),
        (put("layers", 2, "neurons", "0-3 3-5"), r"layers\[2\]\.neurons: indices must rise .* got 3 after 3"),
        (put("layers", 2, "neurons", "5 4"), r"layers\[2\]\.neurons: indices must rise .* got 4 after 5"),
        (put("layers", 2, "neurons", "7-4"), r"layers\[2\]\.neurons: the range '7-4' ends before"),
        (put("layers", 2, "neurons", "0-32"), r"layers\[2\]\.neurons: index 32 is outside 0\.\.31"),
        (put("layers", 2, "neurons", "0-99999999999"), "wider than any layer"),
    ],
)
def test_every_broken_field_is_named_with_the_file(tmp_path, change, message):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(broken(change)), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        Ticket.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'"ticket"'])
def test_files_that_are_no_ticket(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Ticket.read(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_names_the_stage(tmp_path):
    with pytest.raises(UserError, match="run the draw stage first"):
        Ticket.read(tmp_path / "ticket.json")


def test_a_ticket_is_checked_when_it_is_made():
    shape = EncoderShape.uniform(num_layers=1, num_heads=2, ffn=8, hidden_size=8, vocab_size=20, max_positions=8)
    with pytest.raises(UserError, match=r"layers\[0\]\.neurons: index 8"):
        random_ticket(shape, heads=((0,),), neurons=((8,),))
