"""The settling rule on sequences worked out by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import UserError
from pipeline.tickets.settle import SettleRules, Settling, mask_distance


def mask(text):
    """One group of one layer: "1101" keeps units 0, 1 and 3."""
    return [np.array([unit == "1" for unit in text])]


def watch(settling, texts, first=1, tie=0.0, group="heads"):
    return [settling.observe(step, {group: mask(text)}, {group: tie})[group] for step, text in enumerate(texts, first)]


def test_distances_run_from_the_oldest_mask_to_the_newest():
    settling = Settling(["heads"], queue=5, threshold=0.1)
    seen = watch(settling, ["1100", "1010", "1010", "0110"])
    assert seen == [[], [0.5], [0.5, 0.0], [0.5, 0.5, 0.5]]


def test_a_queue_of_five_masks_makes_four_distances_and_fires_at_the_fifth():
    settling = Settling(["heads"], queue=5, threshold=0.1)
    for step, distances in enumerate(watch(settling, ["1100"] * 4), 1):
        assert distances == [0.0] * (step - 1)
        assert not settling.settled
    assert settling.observe(5, {"heads": mask("1100")}, {"heads": 0.0}) == {"heads": [0.0] * 4}
    assert settling.settled_step == 5


def test_the_queue_forgets_the_sixth_mask_back():
    settling = Settling(["heads"], queue=3, threshold=0.0)
    seen = watch(settling, ["1100", "1010", "1010", "1010"])
    assert seen == [[], [0.5], [0.5, 0.0], [0.0, 0.0]]
    assert settling.settled_step == 4


def test_the_threshold_itself_still_fires():
    # One of ten units out, one in: a distance of 0.2 from all the others.
    steady, other = "1111100000", "1111010000"
    for threshold, fires in ((0.2, True), (0.19, False)):
        settling = Settling(["heads"], queue=3, threshold=threshold)
        watch(settling, [steady, steady, other])
        assert settling.settled is fires


def test_only_the_newest_mask_is_compared():
    # The older two are 0.4 apart, but each is 0.2 from the newest.
    settling = Settling(["heads"], queue=3, threshold=0.2)
    watch(settling, ["1111000000", "1110100000", "1110100000"])
    assert settling.settled
    settling = Settling(["heads"], queue=3, threshold=0.2)
    assert watch(settling, ["1111000000", "1100110000", "1110100000"])[-1] == [0.2, 0.2]
    assert settling.settled


def test_never_before_the_guard():
    settling = Settling(["heads"], queue=3, threshold=0.1, guard_step=6)
    watch(settling, ["1100"] * 5)
    assert not settling.fired["heads"]
    watch(settling, ["1100"], first=6)
    assert settling.settled_step == 6


def test_a_tied_mask_never_fires_while_it_is_in_the_queue():
    settling = Settling(["heads"], queue=3, threshold=0.1)
    watch(settling, ["1100"] * 6, tie=True)
    assert not settling.settled
    watch(settling, ["1100"] * 2, first=7)
    assert not settling.settled
    watch(settling, ["1100"], first=9)
    assert settling.settled_step == 9


def test_a_tie_too_small_to_matter_is_added_to_the_distance():
    # In fp32 two of thousands of neurons often share the score at the cut: 0.03 + 0.03 + 0 is within 0.1.
    settling = Settling(["heads"], queue=2, threshold=0.1)
    watch(settling, ["1100"] * 2, tie=0.03)
    assert settling.settled
    settling = Settling(["heads"], queue=2, threshold=0.1)
    watch(settling, ["1100"] * 2, tie=0.06)
    assert not settling.settled


def test_all_groups_must_fire_at_the_same_observation():
    settling = Settling(["heads", "neurons"], queue=2, threshold=0.0)
    heads = ["1100", "1100", "1010", "1010", "1010"]
    neurons = ["11", "10", "10", "01", "01"]
    fired = []
    for step, (h, n) in enumerate(zip(heads, neurons, strict=True)):
        settling.observe(step, {"heads": mask(h), "neurons": mask(n)}, {"heads": 0, "neurons": 0})
        fired.append((settling.fired["heads"], settling.fired["neurons"]))
    assert fired == [(False, False), (True, False), (False, True), (True, False), (True, True)]
    assert settling.settled_step == 4


def test_settled_stays_at_its_first_step():
    settling = Settling(["heads"], queue=2, threshold=0.0)
    watch(settling, ["11", "11", "10", "10"])
    assert settling.settled_step == 2
    assert settling.settled


def test_layers_count_together():
    # 1 of 2 and 0 of 8 units differ: 0.1 of all.
    settling = Settling(["heads"], queue=2, threshold=0.1)
    settling.observe(1, {"heads": [*mask("10"), *mask("11110000")]}, {"heads": 0})
    distances = settling.observe(2, {"heads": [*mask("11"), *mask("11110000")]}, {"heads": 0})
    assert distances == {"heads": [0.1]}
    assert settling.settled


def test_masks_are_not_aliased():
    settling = Settling(["heads"], queue=2)
    (first,) = mask("1100")
    settling.observe(1, {"heads": [first]}, {"heads": 0})
    first[:] = True
    assert settling.observe(2, {"heads": [first]}, {"heads": 0}) == {"heads": [0.5]}


def test_steps_must_rise():
    settling = Settling(["heads"])
    watch(settling, ["1"], first=4)
    with pytest.raises(ValueError, match="observed step 4 after step 4"):
        watch(settling, ["1"], first=4)


def test_masks_of_different_sizes_cannot_be_compared():
    with pytest.raises(ValueError, match="2 and 3 units"):
        mask_distance(np.ones(2, dtype=bool), np.ones(3, dtype=bool))


MASKS = st.lists(st.tuples(st.integers(0, 2**11 - 1), st.sampled_from([0.0, 0.05, 1.0])), min_size=1, max_size=14)


@given(MASKS, st.integers(0, 14), st.integers(2, 5), st.sampled_from([0.0, 0.1, 0.4]))
def test_saved_midway_and_loaded_it_decides_the_same(sequence, cut, queue, threshold):
    def run(settling, part, first):
        seen = []
        for step, (bits, tie) in enumerate(part, first):
            units = np.array([bool(bits >> i & 1) for i in range(11)])
            masks = {"heads": [units[:3]], "neurons": [units[3:7], units[7:]]}
            distances = settling.observe(step, masks, {"heads": tie, "neurons": 0.0})
            seen.append((distances, dict(settling.fired), settling.settled_step, settling.last_step))
        return seen

    whole = Settling(["heads", "neurons"], queue, threshold, guard_step=3)
    expected = run(whole, sequence, 0)
    before = Settling(["heads", "neurons"], queue, threshold, guard_step=3)
    seen = run(before, sequence[:cut], 0)
    after = Settling(["heads", "neurons"], queue, threshold, guard_step=3)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert seen + run(after, sequence[cut:], min(cut, len(sequence))) == expected
    assert after.state_dict() == whole.state_dict()


def test_a_state_of_other_settings_is_refused():
    state = Settling(["heads"], queue=5).state_dict()
    with pytest.raises(UserError, match="queue of 5"):
        Settling(["heads"], queue=3).load_state_dict(state)
    with pytest.raises(UserError, match="groups"):
        Settling(["heads", "neurons"], queue=5).load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "soon"}, "'settle' or 'fixed', got 'soon'"),
        ({"max_step": -1}, "max_step -1"),
        ({"guard_step": -1}, "guard_step -1"),
        ({"queue": 1}, "at least 2 masks, got 1"),
        ({"threshold": 1.5}, "got 1.5"),
    ],
)
def test_rules_that_make_no_sense(changes, message):
    with pytest.raises(UserError, match=message):
        SettleRules(**{"max_step": 10, **changes})
