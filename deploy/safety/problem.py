"""All that a command has to keep at one state, put together from the claims of every source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.safety.types import Box, Motion, Rows, Yield
from onestride.hardware.state import Array

#: By how much a command may break a bound, and a row of length 1 [rad]: rounding, not intervention.
ROUNDING = 1e-9

#: From all that is asked for to what is kept in any case.
LEVELS = (Yield.JERK, Yield.ACCELERATION, Yield.TASK, Yield.NEVER)

Claims = Sequence[tuple[str, Rows | Box]]


class Bounds(NamedTuple):
    """Of each joint's command (n,) [rad]."""

    low: Array
    high: Array

    def nearest(self, command: Array) -> Array:
        """The command within that is closest to `command` (n,)."""
        return np.asarray(np.minimum(np.maximum(command, self.low), self.high))

    def outside(self, command: Array) -> bool:
        """Whether a joint of `command` (n,) is out of them, or not a number."""
        return bool(np.count_nonzero((command >= self.low) & (command <= self.high)) < command.size)

    @property
    def meet(self) -> bool:
        """Whether there is a command within."""
        return bool(np.count_nonzero(self.low <= self.high) == self.low.size)


class Layout(NamedTuple):
    """In what order boxes are kept, those that yield last first; the same from tick to tick.

    Attributes:
        order: places of the boxes as they were stated (k,).
        names: of their rules (k,).
        ends: how many of them are kept at each level.
        lasting: which stay where they are while the robot moves.
    """

    order: tuple[int, ...]
    names: tuple[str, ...]
    ends: dict[Yield, int]
    lasting: tuple[int, ...]


@lru_cache(maxsize=64)
def _layout(stated: tuple[tuple[str, str, Yield, bool], ...]) -> Layout:
    """For boxes of which source, name, level and whether they last are known."""
    order = tuple(sorted(range(len(stated)), key=lambda place: stated[place][2]))
    names = tuple(_full_name(stated[place][0], stated[place][1]) for place in order)
    ends = {level: sum(one[2] <= level for one in stated) for level in LEVELS}
    return Layout(order, names, ends, tuple(at for at, place in enumerate(order) if stated[place][3]))


class Boxes(NamedTuple):
    """The boxes of all sources, one below the other.

    Attributes:
        layout: their order and names.
        low: (k, n) [rad].
        high: (k, n) [rad].
    """

    layout: Layout
    low: Array
    high: Array

    @classmethod
    def of(cls, claims: Claims, joints: int) -> Boxes:
        """Those among the claims."""
        found = [(source, claim) for source, claim in claims if isinstance(claim, Box)]
        layout = _layout(tuple([(source, box.name, box.yields, box.lasting) for source, box in found]))
        if not found:
            return cls(layout, np.zeros((0, joints)), np.zeros((0, joints)))
        boxes = [found[place][1] for place in layout.order]
        return cls(layout, np.concatenate([box.low for box in boxes]), np.concatenate([box.high for box in boxes]))

    def together(self, harder: int, level: Yield) -> Bounds | None:
        """What the boxes of one level have in common, after so many harder ones; None where there are none."""
        end = self.layout.ends[level]
        if end == harder:
            return None
        return Bounds(np.maximum.reduce(self.low[harder:end]), np.minimum.reduce(self.high[harder:end]))

    def broken(self, command: Array, level: Yield) -> list[str]:
        """Names of the rules up to a level that `command` (n,) breaks, in the order in which they were stated."""
        end, order = self.layout.ends[level], self.layout.order
        kept = (command >= self.low[:end] - ROUNDING) & (command <= self.high[:end] + ROUNDING)
        broken = (~np.logical_and.reduce(kept, axis=1)).nonzero()[0].tolist()
        return [self.layout.names[at] for at in sorted(broken, key=order.__getitem__)]


@dataclass(frozen=True)
class Problem:
    """What a command has to keep at a state.

    Attributes:
        motion: the state, a batch of one.
        boxes: of all sources.
        bounds: what the boxes leave at each level of yielding, as far as it is known; see `bounds_at`.
        names: of the rows (m,).
        matrix: the rows, made 1 long; zeros stay zeros (m, n).
        bound: of these rows (m,).
        yields: when each row gives way (m,).
        clash: which hard boxes contradict one another, or what is not a number, for people; empty if none.
        meet: whether all boxes have some command in common.
    """

    motion: Motion
    boxes: Boxes
    bounds: dict[Yield, Bounds]
    names: tuple[str, ...]
    matrix: Array
    bound: Array
    yields: NDArray[np.int64]
    clash: str = ""
    meet: bool = False

    def bounds_at(self, level: Yield) -> Bounds:
        """What the boxes leave at a level, within that of the harder one; only without a `clash`."""
        if level not in self.bounds:
            self.bounds.update(_nested(self.boxes))
        return self.bounds[level]

    def keeps_bounds(self, command: Array) -> bool:
        """Whether `command` (n,) keeps the hard bounds, within which all others are."""
        return not (self.bounds_at(Yield.JERK).outside(command) and self.bounds_at(Yield.NEVER).outside(command))

    def room(self, command: Array) -> Array:
        """How far `command` (n,) may go along each row (m,) [rad]; negative where it breaks one."""
        return self.bound - self.matrix @ command

    def keeps_rows(self, command: Array, level: Yield) -> bool:
        """Whether `command` (n,) keeps all rows of a level."""
        if not self.names:
            return True
        return bool(((self.room(command) >= -ROUNDING) | (self.yields > level)).all())

    def broken(self, command: Array, level: Yield = Yield.JERK) -> tuple[str, ...]:
        """Names of the rules of a level that `command` (n,) breaks."""
        boxes = [] if self._in_all_boxes(command) else self.boxes.broken(command, level)
        if not self.names:
            return tuple(boxes)
        over = ~(self.room(command) >= -ROUNDING) & (self.yields <= level)
        return tuple(dict.fromkeys((*boxes, *(self.names[row] for row in np.flatnonzero(over)))))

    def _in_all_boxes(self, command: Array) -> bool:
        """Whether the boxes meet in every joint and `command` (n,) is plainly within them all."""
        return self.meet and not self.bounds[Yield.JERK].outside(command)

    def margin(self, command: Array) -> float:
        """The smallest distance that `command` (n,) leaves to a hard row or lasting bound [rad]."""
        least = [np.inf]
        if self.names:
            least += self.room(command)[self.yields == Yield.NEVER].tolist()
        for at in self.boxes.layout.lasting:
            least += np.minimum(command - self.boxes.low[at], self.boxes.high[at] - command).tolist()
        return float(min(least))


def gather(motion: Motion, claims: Claims, joints: tuple[str, ...]) -> Problem:
    """One problem of all claims at a batch of one state.

    Args:
        motion: the state.
        claims: each with the name of its source.
        joints: names of the joints, in order.
    """
    boxes = Boxes.of(claims, len(joints))
    bounds, clash = _together(boxes, joints)
    rows = [(source, claim) for source, claim in claims if isinstance(claim, Rows)]
    names = tuple(_full_name(source, name) for source, claim in rows for name in claim.names)
    if not names:
        nothing = np.zeros((0, len(joints)))
        yields = np.zeros(0, np.int64)
        return Problem(motion, boxes, bounds, names, nothing, nothing[:, 0], yields, clash, bool(bounds))
    matrix = np.concatenate([claim.matrix[0] for _, claim in rows])
    length = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    length[length == 0.0] = 1.0
    bound = np.concatenate([claim.bound[0] for _, claim in rows]) / length
    if not clash and np.isnan(bound).any():
        clash = f"a bound is not a number: {names[int(np.isnan(bound).argmax())]}"
    yields = np.array([int(claim.yields) for _, claim in rows for _ in claim.names])
    return Problem(motion, boxes, bounds, names, matrix / length[:, None], bound, yields, clash, bool(bounds))


def _full_name(source: str, rule: str) -> str:
    return rule if rule.startswith(source) else f"{source}.{rule}"


def _together(boxes: Boxes, joints: tuple[str, ...]) -> tuple[dict[Yield, Bounds], str]:
    """What all boxes leave, if they meet in every joint; which of the hard ones do not, or are no numbers."""
    together = boxes.together(0, Yield.JERK) or Bounds(np.full(len(joints), -np.inf), np.full(len(joints), np.inf))
    if together.meet:
        return {Yield.JERK: together}, ""
    unknown = np.isnan(together.low) | np.isnan(together.high)
    if unknown.any():
        return {}, _not_a_number(boxes, joints[int(unknown.argmax())])
    hard = boxes.together(0, Yield.NEVER)
    if hard is None or hard.meet:
        return {}, ""
    return {}, _clash(boxes, joints, int(np.argmin(hard.low <= hard.high)))


def _nested(boxes: Boxes) -> dict[Yield, Bounds]:
    """Bounds of each level within those of the harder one; its nearest edge, for a joint where they do not meet."""
    anywhere = np.full(boxes.low.shape[1], np.inf)
    hard = boxes.together(0, Yield.NEVER) or Bounds(-anywhere, anywhere)
    levels = {Yield.NEVER: hard}
    for harder, level in pairwise(reversed(LEVELS)):
        own = boxes.together(boxes.layout.ends[harder], level)
        if own is not None:
            ends = hard.nearest(own.low), hard.nearest(own.high)
            hard = Bounds(np.minimum(*ends), np.maximum(*ends))
        levels[level] = hard
    return levels


def _not_a_number(boxes: Boxes, joint: str) -> str:
    broken = (np.isnan(boxes.low) | np.isnan(boxes.high)).any(axis=1)
    return f"{joint}: a bound is not a number: {boxes.layout.names[int(broken.argmax())]}"


def _clash(boxes: Boxes, joints: tuple[str, ...], joint: int) -> str:
    count, names = boxes.layout.ends[Yield.NEVER], boxes.layout.names
    low, high = boxes.low[:count, joint], boxes.high[:count, joint]
    first, last = int(low.argmax()), int(high.argmin())
    return (
        f"no command of {joints[joint]} keeps {names[first]} (at least {low[first]:.4f} rad) "
        f"and {names[last]} (at most {high[last]:.4f} rad)"
    )
