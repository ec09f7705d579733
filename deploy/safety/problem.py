"""All that a command has to keep at one state, put together from the claims of every source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
        return not ((command >= self.low) & (command <= self.high)).all()


@dataclass(frozen=True)
class Problem:
    """What a command has to keep at a state.

    Attributes:
        motion: the state, a batch of one.
        boxes: of all sources, by name.
        bounds: what the boxes leave at each level of yielding; empty where the hard ones contradict one another.
        names: of the rows (m,).
        matrix: the rows, made 1 long; zeros stay zeros (m, n).
        bound: of these rows (m,).
        yields: when each row gives way (m,).
        clash: which hard boxes contradict one another, for people; empty if none.
    """

    motion: Motion
    boxes: tuple[tuple[str, Box], ...]
    bounds: dict[Yield, Bounds]
    names: tuple[str, ...]
    matrix: Array
    bound: Array
    yields: NDArray[np.int64]
    clash: str = ""

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
        boxes = (name for name, box in self.boxes if box.yields <= level and _breaks(command, box))
        over = ~(self.room(command) >= -ROUNDING) & (self.yields <= level)
        return tuple(dict.fromkeys((*boxes, *(self.names[row] for row in np.flatnonzero(over)))))

    def margin(self, command: Array) -> float:
        """The smallest distance that `command` (n,) leaves to a hard row or lasting bound [rad]."""
        least = np.inf
        if self.names:
            least = np.where(self.yields == Yield.NEVER, self.room(command), np.inf).min()
        for _, box in self.boxes:
            if box.lasting:
                least = min(least, np.minimum(command - box.low[0], box.high[0] - command).min())
        return float(least)


def _breaks(command: Array, box: Box) -> bool:
    return not ((command >= box.low[0] - ROUNDING) & (command <= box.high[0] + ROUNDING)).all()


def gather(motion: Motion, claims: Claims, joints: tuple[str, ...]) -> Problem:
    """One problem of all claims at a batch of one state.

    Args:
        motion: the state.
        claims: each with the name of its source.
        joints: names of the joints, in order.
    """
    boxes = tuple((_full_name(source, claim.name), claim) for source, claim in claims if isinstance(claim, Box))
    bounds, clash = _nested(boxes, joints)
    rows = [(source, claim) for source, claim in claims if isinstance(claim, Rows)]
    names = tuple(_full_name(source, name) for source, claim in rows for name in claim.names)
    if not names:
        nothing = np.zeros((0, len(joints)))
        return Problem(motion, boxes, bounds, names, nothing, nothing[:, 0], np.zeros(0, np.int64), clash)
    matrix = np.concatenate([claim.matrix[0] for _, claim in rows])
    length = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    length[length == 0.0] = 1.0
    bound = np.concatenate([claim.bound[0] for _, claim in rows]) / length
    yields = np.array([int(claim.yields) for _, claim in rows for _ in claim.names])
    return Problem(motion, boxes, bounds, names, matrix / length[:, None], bound, yields, clash)


def _full_name(source: str, rule: str) -> str:
    return rule if rule.startswith(source) else f"{source}.{rule}"


def _nested(boxes: Sequence[tuple[str, Box]], joints: tuple[str, ...]) -> tuple[dict[Yield, Bounds], str]:
    """Bounds of each level within those of the harder one; its nearest edge, for a joint where they do not meet."""
    hard = _together(boxes, Yield.NEVER) or Bounds(np.full(len(joints), -np.inf), np.full(len(joints), np.inf))
    if not (hard.low <= hard.high).all():
        return {}, _clash(boxes, joints, int(np.argmax(~(hard.low <= hard.high))))
    levels = {Yield.NEVER: hard}
    for level in (Yield.TASK, Yield.ACCELERATION, Yield.JERK):
        own = _together(boxes, level)
        if own is not None:
            ends = hard.nearest(own.low), hard.nearest(own.high)
            hard = Bounds(np.minimum(*ends), np.maximum(*ends))
        levels[level] = hard
    return levels, ""


def _together(boxes: Sequence[tuple[str, Box]], level: Yield) -> Bounds | None:
    """What the boxes of one level have in common."""
    own = [box for _, box in boxes if box.yields is level]
    if not own:
        return None
    low, high = own[0].low[0], own[0].high[0]
    for box in own[1:]:
        low, high = np.maximum(low, box.low[0]), np.minimum(high, box.high[0])
    return Bounds(low, high)


def _clash(boxes: Sequence[tuple[str, Box]], joints: tuple[str, ...], joint: int) -> str:
    hard = [(name, box.low[0, joint], box.high[0, joint]) for name, box in boxes if box.yields is Yield.NEVER]
    if any(np.isnan((low, high)).any() for _, low, high in hard):
        return f"{joints[joint]}: a bound is not a number"
    above, low, _ = max(hard, key=lambda one: one[1])
    below, _, high = min(hard, key=lambda one: one[2])
    return f"no command of {joints[joint]} keeps {above} (at least {low:.4f} rad) and {below} (at most {high:.4f} rad)"
