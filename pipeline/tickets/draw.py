"""The draw: scores over steps become masks, masks settle, and one observation becomes the ticket.

Numpy only. The search calls `Watcher.observe` as it goes, the draw stage calls it on the recorded scores: the
same code on the same numbers, so that both find the same ticket.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.errors import UserError
from pipeline.families.shape import Shape
from pipeline.tickets.select import GROUPS, Selection, TicketRules, match_widths, select_units
from pipeline.tickets.settle import SettleRules, Settling
from pipeline.tickets.ticket import Ticket

Scores = Mapping[str, Sequence[np.ndarray]]


@dataclass(frozen=True)
class Observation:
    """What one look at the scores showed; `draw` says that the draw rule takes its ticket here."""

    step: int
    selections: dict[str, Selection]
    distances: dict[str, list[float]]
    fired: dict[str, bool]
    settled: bool
    draw: bool


class Watcher:
    """Turns scores into masks and decides when the ticket is drawn.

    `like` gives every mask the per-layer widths of another ticket (the width-matched control); `rules` then
    only travel into the ticket.
    """

    def __init__(self, shape: Shape, rules: TicketRules, settle: SettleRules, like: Ticket | None = None) -> None:
        if like is not None:
            like.check_fits(shape)
        self.shape = shape
        self.rules = rules
        self.settle = settle
        self.like = like
        self.drawn_step: int | None = None
        self._settling = Settling(GROUPS, settle.queue, settle.threshold, settle.guard_step)

    @property
    def done(self) -> bool:
        """True once an observation was taken for the ticket."""
        return self.drawn_step is not None

    @property
    def settled(self) -> bool:
        """True once the masks of both groups had settled, whatever the draw rule makes of it."""
        return self._settling.settled

    @property
    def last_step(self) -> int | None:
        """The step of the newest observation."""
        return self._settling.last_step

    def observe(self, step: int, scores: Scores) -> Observation:
        """Look at the scores after `step` optimiser steps: one float32 array a layer, for heads and neurons.

        Raises UserError where a score is not finite or the rules cannot be met.
        """
        if self.like is None:
            selections = select_units(scores, self.shape, self.rules)
        else:
            selections = match_widths(scores, self.like.slim_shape().layers)
        distances = self._settling.observe(
            step,
            {group: selection.masks() for group, selection in selections.items()},
            {group: selection.tied_share for group, selection in selections.items()},
        )
        settled = self._settling.settled
        due = step >= self.settle.max_step or (self.settle.rule == "settle" and settled)
        draw = due and not self.done
        if draw:
            self.drawn_step = step
        return Observation(step, selections, distances, dict(self._settling.fired), settled, draw)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed search needs to decide the same way, as JSON values."""
        return {"drawn_step": self.drawn_step, "settling": self._settling.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`. Raises UserError when it was made under other settings."""
        self._settling.load_state_dict(state["settling"])
        self.drawn_step = state["drawn_step"]


def replay(
    observations: Iterable[tuple[int, Scores]],
    shape: Shape,
    rules: TicketRules,
    settle: SettleRules,
    like: Ticket | None = None,
) -> Observation:
    """The observation a search over these recorded (step, scores) draws its ticket from.

    Raises UserError when the record ends before the draw rule is met.
    """
    watcher = Watcher(shape, rules, settle, like)
    last: int | None = None
    for last, scores in observations:
        seen = watcher.observe(last, scores)
        if seen.draw:
            return seen
    end = "there are no scores" if last is None else f"the recorded scores end at step {last}"
    raise UserError(
        f"{end}, before a ticket is drawn (rule {settle.rule!r}, at the latest at step {settle.max_step}); "
        "run the search to its end or set an earlier step"
    )


def drawn_because(rule: str, settled: bool) -> str:
    """Why the ticket was drawn where it was, in words: a fixed step is chosen, masks that do not settle are met."""
    if rule == "fixed":
        return "drawn at a fixed step"
    return "settled" if settled else "not settled"


def ticket_from(
    seen: Observation,
    shape: Shape,
    rules: TicketRules,
    score: str,
    provenance: Mapping[str, Any] | None = None,
) -> Ticket:
    """The ticket of one observation; `score` names the kind of scores, `provenance` where they came from."""
    return Ticket(
        dense_shape=shape,
        heads=seen.selections["heads"].kept,
        neurons=seen.selections["neurons"].kept,
        step=seen.step,
        score=score,
        settled=seen.settled,
        rules=rules,
        distances=seen.distances,
        provenance=dict(provenance or {}),
    )
