"""Online and replayed decisions are the same, and degenerate phases never make a ticket."""

import json

import numpy as np
import pytest
import torch

from data_prep.errors import UserError
from pipeline.tickets.draw import Watcher, drawn_because, replay, ticket_from
from pipeline.tickets.gates import GateGrads, GateSet
from pipeline.tickets.score import L1Score
from pipeline.tickets.select import TicketRules
from pipeline.tickets.settle import SettleRules
from tests.tickets.make import random_scores, random_ticket, small_shape

RULES = TicketRules(neuron_block=4)


def converging(shape, count, every=10, noise=1.0):
    """Scores that wander at first and come to rest."""
    goal = random_scores(shape, seed=1)
    record = []
    for index in range(1, count + 1):
        other = random_scores(shape, seed=100 + index)
        weight = noise / index**2
        record.append(
            (
                index * every,
                {
                    group: [a + np.float32(weight) * b for a, b in zip(goal[group], other[group], strict=True)]
                    for group in goal
                },
            )
        )
    return record


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
def test_online_resumed_and_replayed_agree(cut):
    shape, settle = small_shape(), SettleRules(max_step=1000, guard_step=50, queue=4, threshold=0.1)
    record = converging(shape, 30)
    online = Watcher(shape, RULES, settle)
    seen = []
    for index, (step, scores) in enumerate(record):
        if index == cut:
            resumed = Watcher(shape, RULES, settle)
            resumed.load_state_dict(json.loads(json.dumps(online.state_dict())))
            online = resumed
        seen.append(online.observe(step, scores))
        if online.done:
            break
    assert online.drawn_step == seen[-1].step >= 50
    assert online.settled
    assert online.last_step == online.drawn_step
    replayed = replay(record, shape, RULES, settle)
    assert replayed == seen[-1]
    assert all(not earlier.draw for earlier in seen[:-1])
    assert max(max(distances) for distances in replayed.distances.values()) <= 0.1
    ticket = ticket_from(replayed, shape, RULES, "taylor", {"commit": "abc"})
    assert ticket.settled
    assert ticket.heads == replayed.selections["heads"].kept
    assert ticket.distances == replayed.distances
    assert [len(kept) for kept in replayed.distances.values()] == [3, 3]


def test_a_fixed_step_draws_there_whether_settled_or_not():
    shape = small_shape()
    same = random_scores(shape)
    record = [(step, same) for step in (5, 10, 15, 20, 25)]
    seen = replay(record, shape, RULES, SettleRules(12, "fixed", queue=2))
    assert (seen.step, seen.settled) == (15, True)
    seen = replay(record, shape, RULES, SettleRules(5, "fixed", queue=2))
    assert (seen.step, seen.settled) == (5, False)


def test_what_never_settles_is_drawn_at_the_last_step_and_says_so():
    shape = small_shape()
    record = [(step, random_scores(shape, step)) for step in range(1, 30)]
    seen = replay(record, shape, RULES, SettleRules(20))
    assert (seen.step, seen.settled) == (20, False)
    assert not ticket_from(seen, shape, RULES, "taylor").settled


def test_after_the_draw_nothing_is_drawn_again():
    shape = small_shape()
    watcher = Watcher(shape, RULES, SettleRules(3, queue=2))
    draws = [watcher.observe(step, random_scores(shape, step)).draw for step in range(6)]
    assert draws == [False, False, False, True, False, False]
    assert watcher.drawn_step == 3


def test_a_record_that_ends_too_early():
    shape = small_shape()
    record = [(step, random_scores(shape, step)) for step in (10, 20)]
    with pytest.raises(UserError, match=r"end at step 20, .* at the latest at step 100"):
        replay(record, shape, RULES, SettleRules(100))
    with pytest.raises(UserError, match="there are no scores"):
        replay([], shape, RULES, SettleRules(100))


def test_the_tie_flood_of_the_first_adam_steps_does_not_settle():
    """After step 1 Adam has moved every gate by the learning rate, up or down: two values, one great tie.

    Gradients of one sign keep it so for many steps, in which the masks stand perfectly still.
    """
    shape = small_shape()
    gates = GateSet(shape)
    score = L1Score(gates, lr=2e-5, heads_penalty=0.0, neurons_penalty=0.0)
    generator = torch.Generator().manual_seed(0)
    grads = [
        torch.where(torch.rand(gate.shape, generator=generator) < 0.5, 1.0, -1.0) for gate in gates.named().values()
    ]
    watcher = Watcher(shape, TicketRules(neuron_block=1), SettleRules(100, queue=5, threshold=0.1))
    for step in range(1, 11):
        score.update(gates, GateGrads(grads[:3], grads[3:]))
        scores = score.scores()
        assert len(np.unique(np.concatenate(scores["neurons"]))) == 2
        seen = watcher.observe(step, scores)
        assert all(distance == 0 for group in seen.distances.values() for distance in group)
        assert seen.selections["neurons"].tie
        assert not seen.fired["neurons"]
        assert not seen.draw


def test_untouched_gates_do_not_settle():
    shape = small_shape()
    ones = {
        "heads": [np.ones(4, dtype=np.float32)] * 3,
        "neurons": [np.ones(32, dtype=np.float32)] * 3,
    }
    seen = replay([(step, ones) for step in range(12)], shape, RULES, SettleRules(11))
    assert (seen.step, seen.settled) == (11, False)


def test_a_control_has_the_widths_of_its_ticket():
    shape = small_shape()
    other = random_ticket(shape, seed=3)
    seen = replay([(0, random_scores(shape))], shape, RULES, SettleRules(0), like=other)
    control = ticket_from(seen, shape, RULES, "random")
    assert control.slim_shape() == other.slim_shape()
    assert control.neurons != other.neurons
    with pytest.raises(UserError, match="a ticket for another model"):
        Watcher(small_shape(norm="pre"), RULES, SettleRules(0), like=other)


def test_an_observation_is_not_tied_to_the_arrays_it_saw():
    shape = small_shape()
    scores = random_scores(shape)
    watcher = Watcher(shape, RULES, SettleRules(10, queue=2))
    watcher.observe(1, scores)
    for values in scores["neurons"]:
        values[:] = values[::-1].copy()
    assert watcher.observe(2, scores).distances["neurons"][0] > 0


@pytest.mark.parametrize("settled", [True, False])
def test_a_fixed_step_is_not_told_as_a_failure(settled: bool) -> None:
    assert drawn_because("fixed", settled) == "drawn at a fixed step"
    assert drawn_because("settle", settled) == ("settled" if settled else "not settled")
