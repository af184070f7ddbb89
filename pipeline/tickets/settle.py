"""When the masks have stopped changing: the early-bird rule, step by step and from recorded masks alike.

Numpy only. Knows masks of named groups, not what they select nor where their scores come from.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from data_prep.errors import UserError

Masks = Sequence[np.ndarray]


@dataclass(frozen=True)
class SettleRules:
    """When a ticket is drawn: "settle" as soon as all groups have settled, "fixed" only at `max_step`.

    Either way the ticket is drawn at the first observation at or after `max_step`, settled or not. `queue`
    masks are compared, so that a group settles at its `queue`-th observation at the earliest, and never
    before `guard_step`. Raises UserError on values that make no sense.
    """

    max_step: int
    rule: Literal["settle", "fixed"] = "settle"
    guard_step: int = 0
    queue: int = 5
    threshold: float = 0.1

    def __post_init__(self) -> None:
        if self.rule not in ("settle", "fixed"):
            raise UserError(f"the draw rule is 'settle' or 'fixed', got {self.rule!r}")
        if self.max_step < 0 or self.guard_step < 0:
            raise UserError(f"steps count from 0, got max_step {self.max_step}, guard_step {self.guard_step}")
        if self.queue < 2:
            raise UserError(f"the queue compares at least 2 masks, got {self.queue}")
        if not 0 <= self.threshold <= 1:
            raise UserError(f"the threshold is a mask distance in [0, 1], got {self.threshold}")


class Settling:
    """Online detector after You et al. (ICLR 2020): a queue of masks a group, the newest against all others.

    A group fires when the queue is full, the step is at or past `guard_step`, and every distance between the
    newest mask and another in the queue is at most `threshold`, whatever way equal scores are ordered. All
    groups firing at the same observation settle the search.
    """

    def __init__(self, groups: Iterable[str], queue: int = 5, threshold: float = 0.1, guard_step: int = 0) -> None:
        self.groups = tuple(groups)
        self.queue = queue
        self.threshold = threshold
        self.guard_step = guard_step
        self.last_step: int | None = None
        self.settled_step: int | None = None
        self.fired = dict.fromkeys(self.groups, False)
        self._masks: dict[str, deque[np.ndarray]] = {group: deque(maxlen=queue) for group in self.groups}
        self._ties: dict[str, deque[float]] = {group: deque(maxlen=queue) for group in self.groups}

    @property
    def settled(self) -> bool:
        """True from the first observation on at which every group fired."""
        return self.settled_step is not None

    def observe(self, step: int, masks: Mapping[str, Masks], ties: Mapping[str, float]) -> dict[str, list[float]]:
        """Add one observation; returns, a group, the distances of its mask to those before it, oldest first.

        `masks` holds one bool array a layer; a distance is the share of the group's units that differ. `ties`
        is the largest distance another order of equal scores could have made (True counts as 1, so that such
        a mask never settles anything): it is added, for both masks, before a distance is held against the
        threshold. Raises ValueError on a step that is not past the last one.
        """
        if self.last_step is not None and step <= self.last_step:
            raise ValueError(f"observed step {step} after step {self.last_step}")
        self.last_step = step
        distances: dict[str, list[float]] = {}
        for group in self.groups:
            newest, tie = (
                np.concatenate([np.asarray(m, dtype=bool) for m in masks[group]]),
                float(ties[group]),
            )
            queue, tied = self._masks[group], self._ties[group]
            if len(queue) == self.queue:
                queue.popleft()
                tied.popleft()
            distances[group] = [mask_distance(newest, older) for older in queue]
            worst = [distance + tie + older for distance, older in zip(distances[group], tied, strict=True)]
            full = len(queue) == self.queue - 1
            self.fired[group] = full and step >= self.guard_step and max(worst) <= self.threshold
            queue.append(newest)
            tied.append(tie)
        if all(self.fired.values()) and self.settled_step is None:
            self.settled_step = step
        return distances

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed search needs to go on the same way, as JSON values."""
        return {
            "queue": self.queue,
            "last_step": self.last_step,
            "settled_step": self.settled_step,
            "fired": dict(self.fired),
            "masks": {
                group: [{"units": mask.size, "bits": np.packbits(mask).tobytes().hex()} for mask in masks]
                for group, masks in self._masks.items()
            },
            "ties": {group: list(ties) for group, ties in self._ties.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`. Raises UserError when it was made with other groups or another queue."""
        theirs, ours = (sorted(state["masks"]), state["queue"]), (sorted(self.groups), self.queue)
        if theirs != ours:
            raise UserError(
                f"the saved search has groups {theirs[0]} and a queue of {theirs[1]}, this one {ours[0]} and "
                f"{ours[1]}; resume with the settings it was started with"
            )
        self.last_step = state["last_step"]
        self.settled_step = state["settled_step"]
        self.fired = dict(state["fired"])
        for group in self.groups:
            self._masks[group] = deque((_unpack(item) for item in state["masks"][group]), self.queue)
            self._ties[group] = deque(state["ties"][group], self.queue)


def mask_distance(mask: np.ndarray, other: np.ndarray) -> float:
    """Normalised Hamming distance: the share of units that differ."""
    if mask.shape != other.shape:
        raise ValueError(f"masks of {mask.size} and {other.size} units cannot be compared")
    return float(np.count_nonzero(mask != other)) / mask.size


def _unpack(item: Mapping[str, Any]) -> np.ndarray:
    packed = np.frombuffer(bytes.fromhex(item["bits"]), dtype=np.uint8)
    return np.unpackbits(packed, count=item["units"]).astype(bool)
