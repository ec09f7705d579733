"""Claim: every command sent, and every point of the safe stop from it, keeps the declared margin to what is kept clear.

It is a claim about commands: the margin must hold what the robot lags behind them. Most commands plainly keep it, by
the bound of `clearance` from distances measured some ticks ago. They pass without a row.

For the others, what may be commanded is a box of steps around the stop's next one, and in it one half-space per
distance, under which that bound stays positive until the robot stands. The box is as wide as the room left allows, so
that the half-spaces lose little.

Where no new claim can be made, as the turning of a surface's normal may bring about, the box is the stop's next step
alone: it was claimed with the command before. So that a robot which came to rest at a margin may leave again, a joint
may there move the way that opens every tight distance.

A second row per distance asks that it is approached no faster than it can be braked before the reserve, and leads
back there from within. It is no part of the claim and yields; without it a robot that is pushed against a wall would
use up all the room that lets it slide along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.safety.braking import Path
from onestride.deploy.safety.clearance import Anchor, Clearance, HalfSpaces, dot, half_spaces, least
from onestride.deploy.safety.stopping import Ahead, Stopping
from onestride.deploy.safety.types import Box, Motion, Rows, Yield
from onestride.hardware.state import Array

#: Room less than this [m] counts as used up.
TIGHT = 1e-4

#: What a solver and sums may be wrong by, of a distance [m] and of a step [rad].
ROUNDING, SAME_STEP = 1e-6, 1e-9

#: How often a box that is too wide is made narrower, and to what fraction at least.
ATTEMPTS, NARROWER = 3, 0.25

#: In what time two thirds of what the reserve lacks are won back [s].
RETURN = 0.25

#: How many configurations' distances are kept: the last sent command's and the next one's.
KEPT = 2


Flags = NDArray[np.bool_]


class Clearing(Protocol):
    """Measures distances."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the distances (m,)."""
        ...

    def at(self, position: Array) -> Clearance:
        """The distances at joint positions (B, n) [rad]."""
        ...


def trust_box(clear: Clearance, ahead: Ahead, near: Flags) -> tuple[Array, Array, HalfSpaces]:
    """A box of steps around the stop's next one, and the half-spaces in it, which that step keeps.

    Args:
        clear: distances at the last sent command.
        ahead: of the state.
        near: which distances a step of the widest box may use up (B, m).

    Returns:
        Lowest and highest step (B, n) [rad], which are the stop's where no box was found; half-spaces.
    """
    stop, slack = ahead.stop, least(clear, ahead.path)
    down, up = _ways(clear, slack < TIGHT, ahead.spread)
    share = _share(clear, np.where(near & (slack >= TIGHT), slack, np.inf), ahead)
    for _ in range(ATTEMPTS):
        low, high = stop - share * down, stop + share * up
        bounds = half_spaces(clear, low, high, ahead.last, ahead.limits)
        kept = (bounds.at(stop) >= -ROUNDING).all(axis=1, keepdims=True)
        if kept.all():
            return low, high, bounds
        share = np.where(kept, share, share * np.minimum(share, NARROWER))
    return np.where(kept, low, stop), np.where(kept, high, stop), bounds


def _ways(clear: Clearance, tight: Flags, spread: Array) -> tuple[Array, Array]:
    """How far down and up the steps of a box may be from the stop's, each (n,) or (B, n) [rad]."""
    if not tight.any():
        return spread, spread
    down = ~np.any(tight[..., None] & (clear.rate > 0), axis=1)
    up = ~np.any(tight[..., None] & (clear.rate < 0), axis=1)
    return spread * down, spread * up


def _share(clear: Clearance, slack: Array, ahead: Ahead) -> Array:
    """To what part of the widest box each joint's side is taken (B, n), so that its chords cost half of the room.

    What a joint's chord costs in its middle grows with the square of its length where the function is smooth. A joint
    that matters little to what is near is left its full width. Where `slack` is infinite, nothing is asked for.
    """
    own, chord = ahead.path, ahead.chord
    lost = clear.rate * (own.middle - chord.middle)[:, None] - clear.effect * (own.half - chord.half)[:, None]
    lost += clear.turn * (chord.size - own.size)[:, None]
    bent = 0.5 * clear.bend * dot(clear.bend, ahead.reach.size)[..., None]
    lost += bent * chord.size[:, None] - 0.5 * clear.bend * (dot(clear.bend, own.size)[..., None] * own.size[:, None])
    room = slack[..., None] * (0.5 / lost.shape[-1])
    return np.asarray(np.sqrt((room / np.maximum(lost, 1e-12)).min(axis=1, initial=1.0)))


def approach(clear: Clearance, ahead: Ahead, width: Array, reserve: float, returning: float) -> Array:
    """How much nearer the next step may come (B, m) [m]; negative where it must lead away.

    What the stop does by itself is always permitted, and on top of it as much of the widest box as can still be
    stopped before the reserve. From within the reserve it leads back, by no more than half of what the box permits.

    Args:
        clear: distances at the last sent command.
        ahead: of the state.
        width: by how much a step may differ from the stop's (B, n) [rad].
        reserve: distance to be kept [m].
        returning: part of what the reserve lacks that is won back in a period.
    """
    stopping, more = -dot(clear.rate, ahead.stop), dot(clear.effect, ahead.spread)
    room = clear.distance - reserve
    taken, most = (dot(clear.effect, path.half) - dot(clear.rate, path.middle) for path in (ahead.path, ahead.reach))
    share = np.maximum(room - taken, 0.0) / np.maximum(most - taken, 1e-12)
    nearer = np.maximum(stopping, 0.0) + more * np.minimum(share, 1.0)
    back = np.maximum(returning * room, np.minimum(stopping, 0.0) - 0.5 * dot(clear.effect, width))
    least_of_all = np.where(stopping > 0, stopping + SAME_STEP, -np.inf)
    return np.asarray(np.maximum(np.where(room > 0, nearer, back), least_of_all))


class Apart:
    """States the claim for the distances that a `Clearing` measures."""

    def __init__(self, name: str, clearing: Clearing, stopping: Stopping, reserve: float) -> None:
        self.name, self._clearing, self._stopping, self._reserve = name, clearing, stopping, reserve
        self._beside = np.where(stopping.limited, SAME_STEP, np.inf)
        self._keeping = tuple(f"{name}.{one}" for one in clearing.names)
        self._approaching = tuple(f"{one}.approach" for one in self._keeping)
        self._measured: dict[bytes, Clearance] = {}
        self._anchor: Anchor | None = None
        self._seen: Motion | None = None

    def reset(self, motion: Motion) -> None:
        """Begin with no distances."""
        self._anchor, self._seen = None, motion

    def observe(self, motion: Motion) -> None:
        """Where the robot is, for people."""
        self._seen = motion

    def sent(self, motion: Motion, command: Array) -> None:
        """Nothing is remembered."""

    def readings(self) -> Mapping[str, float]:
        """The smallest distance [m] at the last sent command, less the margin: to first order, as measured of late."""
        if self._seen is None:
            return {f"{self.name}.distance": float("inf")}
        sent, anchor = self._seen.sent, self._anchor
        distance = self._at(sent).distance if anchor is None else anchor.about(sent)
        return {f"{self.name}.distance": float(distance[0].min(initial=np.inf))}

    def spare(self, motion: Motion, command: Array) -> Array:
        """What a command (B, n) and the stop after it leave of the distances, at least (B,) [m].

        Where it is not negative the command keeps the claim, whatever the rows would say of it, and by the rates alone
        the reserve as well, so that the rows of approach would let it pass.
        """
        anchor = self._anchor
        if anchor is not None and anchor.position.shape == command.shape:
            for where in (self._stopping.around, self._stopping.towards):
                left = self._left(anchor, where(motion, command))
                if left.min() >= 0.0:
                    return left
        path = self._stopping.towards(motion, command)
        self._anchor = Anchor(path.middle, self._clearing.at(path.middle))
        return self._left(self._anchor, path)

    def _left(self, anchor: Anchor, path: Path) -> Array:
        first, least_of_all = anchor.least(path)
        return np.asarray(np.minimum(first - self._reserve, least_of_all).min(axis=1, initial=np.inf))

    def rows(self, motion: Motion) -> tuple[Rows | Box, ...]:
        """The box, the half-spaces in it and the rows of approach, as far as they ask for anything."""
        ahead, clear = self._stopping.ahead(motion), self._at(motion.sent)
        low, high, kept = self._kept(motion, clear, ahead)
        inside = Box(f"{self.name}.step", motion.sent + (low - self._beside), motion.sent + (high + self._beside))
        return (inside, *kept, *self._approached(motion, clear, ahead, 0.5 * (high - low)))

    def _at(self, position: Array) -> Clearance:
        """The distances at positions (B, n) [rad]; the last are kept: one tick's next is another's last."""
        key = position.tobytes()
        if key not in self._measured:
            while len(self._measured) >= KEPT:
                del self._measured[next(iter(self._measured))]
            self._measured[key] = self._clearing.at(position)
        return self._measured[key]

    def _kept(self, motion: Motion, clear: Clearance, ahead: Ahead) -> tuple[Array, Array, list[Rows]]:
        near = least(clear, ahead.reach) < 0
        asks = np.flatnonzero(near.any(axis=0))
        if not len(asks):
            return ahead.stop - ahead.spread, ahead.stop + ahead.spread, []
        clear = clear.only(asks)
        low, high, bounds = trust_box(clear, ahead, near[:, asks])
        needed = (high > low).any(axis=1, keepdims=True) & (bounds.lowest < 0)
        value = np.maximum(bounds.value, -dot(bounds.slope, ahead.stop))  # rounding must not exclude the stop
        lost = np.where(clear.distance < -ROUNDING, clear.distance, np.inf)
        bound = np.where(needed, value - dot(bounds.slope, motion.sent), lost)
        names = tuple(self._keeping[row] for row in asks)
        return low, high, [Rows(names, -bounds.slope * needed[..., None], bound)]

    def _approached(self, motion: Motion, clear: Clearance, ahead: Ahead, width: Array) -> list[Rows]:
        nearer = approach(clear, ahead, width, self._reserve, motion.period / RETURN)
        fastest = dot(clear.effect, width) - dot(clear.rate, ahead.stop)
        asks = np.flatnonzero((fastest > nearer + SAME_STEP).any(axis=0))
        if not len(asks):
            return []
        names, rate = tuple(self._approaching[row] for row in asks), clear.rate[:, asks]
        return [Rows(names, -rate, nearer[:, asks] - dot(rate, motion.sent), Yield.ACCELERATION)]

    def shortfall(self, motion: Motion, command: Array) -> Array:
        """By how much more than rounding the claim fails at a command (B, n), by the distances there (B,) [m].

        The stop after it is claimed by the bound from there, or from the last sent command, or because the command is
        itself the next one of a stop that was claimed. Negative is what is left.
        """
        step, path = command - motion.sent, self._stopping.after(motion, command)
        proved = least(self._at(motion.sent), path)
        if proved.min(initial=np.inf) >= 0.0:
            return -np.asarray(proved.min(axis=1, initial=np.inf)) - ROUNDING
        there = self._at(command)
        proved = np.maximum(least(there, path.seen_from(step)), proved)
        off = np.abs(step - self._stopping.ahead(motion).stop)[:, self._stopping.limited].max(axis=-1, initial=0.0)
        proved = np.where((off <= 2 * SAME_STEP)[:, None], np.inf, proved)
        return -np.asarray(np.minimum(there.distance, proved).min(axis=1, initial=np.inf)) - ROUNDING
