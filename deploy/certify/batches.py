"""Attacks on single sources of rows, many states at once: the joints' corners, and worlds that empty a tank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.certify.limits import RULES, JointBounds, uses
from onestride.deploy.certify.report import BatchedJoints, Spent
from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.ports import EffortPort, ImpedancePort
from onestride.deploy.safety.tank import EnergyTank
from onestride.deploy.safety.types import Box, Motion
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array

#: What sums may add to the energy of a run [J].
SAME_ENERGY = 1e-6

#: By how much slower than its limit a joint is moved: a speed above it by rounding would void the claim.
ROUNDED = 1e-9

#: Share of the ticks that see the joint sample of an earlier one again.
REPEATED = 0.1


def attack_joints(
    robot: RobotDescription, bounds: JointBounds, period: float, count: int, ticks: int, rng: np.random.Generator
) -> BatchedJoints:
    """Take each joint to an end of what its rows permit, or anywhere between, and change one's mind now and then."""
    source, (lower, upper) = JointLimits(robot), robot.position_limits
    share = rng.random((count, len(lower)))
    sent = lower + np.where(rng.random(share.shape) < 0.5, share**4, 1 - share**4) * (upper - lower)
    commands = [sent]
    velocity, acceleration = np.zeros_like(sent), np.zeros_like(sent)
    push, empty = rng.random(sent.shape).round(), 0
    for _ in range(ticks):
        boxes = source.rows(Motion(period, sent, velocity, sent, velocity, acceleration))
        low, high = _common(boxes)
        empty += int((low > high + 1e-9).any(axis=1).sum())
        push = np.where(rng.random(push.shape) < 0.03, rng.choice([0.0, 0.5, 1.0], push.shape), push)
        command = low + push * np.maximum(high - low, 0.0)
        before, velocity = velocity, (command - sent) / period
        acceleration, sent = (velocity - before) / period, command
        commands.append(sent)
    found = uses(np.array(commands), period, bounds)
    violations = sum(int(found.beyond[rule].sum()) for rule in RULES)
    used = {rule: float(found.used[rule].max()) for rule in RULES}
    return BatchedJoints(states=count * ticks, used=used, empty=empty, violations=violations)


def _common(boxes: tuple[object, ...]) -> tuple[Array, Array]:
    own = [box for box in boxes if isinstance(box, Box)]
    return np.max([box.low for box in own], axis=0), np.min([box.high for box in own], axis=0)


class GivingWay:
    """A world that moves joints as it likes within a period, so as to take energy out of their drives.

    Each run has its own manner: some yield at the speed at which a spring with a damper gives most, some slower or
    faster, some push back now and then. What is delivered follows from force and way alone, apart from the tank.
    """

    def __init__(self, tank: EnergyTank, period: float, start: Array, rng: np.random.Generator) -> None:
        self.position, self.delivered = start, np.zeros_like(start)
        self._port, self._period, self._rng = tank.port, period, rng
        self._hurry = np.exp(rng.uniform(np.log(0.02), np.log(5.0), (len(start), 1)))
        self._hurry[::4] = 1.0

    def live(self, command: Array) -> None:
        """One period under a command (B, n)."""
        step = self._step(command) * np.where(self._rng.random(self.position.shape) < 0.05, -1.0, 1.0)
        port = self._port
        if isinstance(port, ImpedancePort):
            stretch = command - self.position
            spring = port.stiffness * (stretch - 0.5 * step) * step
            self.delivered = self.delivered + spring - port.damping * step**2 / self._period
        else:
            self.delivered = self.delivered + command * step
        self.position = self.position + step

    def _step(self, command: Array) -> Array:
        port = self._port
        if isinstance(port, ImpedancePort):
            best = port.stiffness / (port.stiffness + 2.0 * port.damping / self._period)
            return np.asarray((command - self.position) * np.minimum(best * self._hurry, 1.0))
        assert isinstance(port, EffortPort)
        fastest = port.velocity * (1.0 - ROUNDED)
        return np.asarray(np.sign(command) * fastest * self._period * np.minimum(self._hurry, 1.0))


def attack_tank(
    tank: EnergyTank,
    robot: RobotDescription,
    period: float,
    runs: int,
    ticks: int,
    rng: np.random.Generator,
    fresh: NDArray[np.bool_] | None = None,
) -> tuple[Spent, ...]:
    """Ask for as much as can be had, in worlds that give way, and count what leaves each port.

    Half of the runs change their mind now and then, the others at every tick.

    Args:
        tank: under attack.
        robot: that declares it.
        period: of its commands [s].
        runs: how many.
        ticks: of each.
        rng: where chance comes from.
        fresh: which ticks see a new joint sample (ticks,); default all but a share of `REPEATED`.
    """
    fresh = rng.random(ticks) >= REPEATED if fresh is None else fresh
    lower, upper = robot.position_limits
    start = lower + rng.uniform(0.3, 0.7, (runs, len(lower))) * (upper - lower)
    world, error = GivingWay(tank, period, start, rng), tank.port.members.error
    impedance = isinstance(tank.port, ImpedancePort)
    sent = start.copy() if impedance else np.zeros_like(start)
    ways, of, still = rng.choice([-1.0, 1.0], start.shape), tank.port.members.of, np.zeros_like(start)
    turns = np.where(np.arange(runs) % 2 == 0, 0.01, 1.0)[:, None]
    delivered, left = np.zeros((ticks, runs, len(of))), np.zeros((ticks, runs, len(of)))
    before, motion = start, Motion(period, start, still, sent, still, still, sampled=0.0)
    tank.reset(motion)
    for tick in range(ticks):
        motion = replace(motion, sent=sent, now=tick * period)
        if fresh[tick]:
            measured = world.position + error * rng.uniform(-1.0, 1.0, start.shape)
            motion = replace(motion, position=measured, velocity=(world.position - before) / period, sampled=motion.now)
        tank.observe(motion)
        box = next(one for one in tank.rows(motion) if isinstance(one, Box))
        ways = np.where(rng.random(ways.shape) < turns, -ways, ways)
        asked = np.clip(np.where(np.isfinite(box.low), 1e6 * ways, sent), box.low, box.high)
        passive = sent if impedance else still
        sent = np.where(((box.low > box.high).any(axis=1) | tank.void)[:, None], passive, asked)
        tank.sent(motion, sent)
        before = world.position
        world.live(sent)
        delivered[tick], left[tick] = world.delivered @ of.T, tank.energy
    return tuple(_spent(tank, port, delivered[:, :, port], left[:, :, port], period) for port in range(len(of)))


def _spent(tank: EnergyTank, port: int, delivered: Array, left: Array, period: float) -> Spent:
    worst = int(delivered.max(axis=0).argmax())
    allowed = [tank.budget.allowed(tick * period)[port] for tick in range(1, len(delivered) + 1)]
    at = np.unique(np.linspace(0, len(delivered) - 1, min(len(delivered), 400)).astype(int))
    return Spent(
        port=tank.budget.names[port],
        bound=float(tank.budget.bound[port]),
        most=float(delivered.max()),
        over=float((delivered - np.reshape(allowed, (-1, 1))).max()),
        runs=delivered.shape[1],
        ticks=len(delivered),
        time=tuple(float(one) for one in (at + 1) * period),
        delivered=tuple(float(one) for one in delivered[at, worst]),
        left=tuple(float(one) for one in left[at, worst]),
    )
