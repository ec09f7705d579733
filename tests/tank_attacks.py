"""A world that tries to take more from a port than its tank holds: masses between stiff walls, thousands at once.

The walls are simulated finely between the control ticks and may move. The energy through the port is summed over
those fine steps, apart from anything the tank measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from onestride.deploy.safety.ports import EffortPort, ImpedancePort, Members, Port
from onestride.deploy.safety.tank import Budget, EnergyTank, Refill
from onestride.deploy.safety.types import Box, Motion

FINE = 2e-4
"""Step of the simulation between ticks [s]."""

Array = np.ndarray


@dataclass
class World:
    """Masses of 1 kg in n directions, between two walls across a random direction.

    Attributes:
        position: (B, n) [m].
        velocity: (B, n) [m/s]; no component ever exceeds `fastest`.
        across: the walls' normal (B, n), unit length.
        stiffness: of the walls [N/m]; they take no energy themselves.
        drag: viscous [N s/m].
        shake: amplitude of the walls' motion [m].
        now: [s].
    """

    position: Array
    velocity: Array
    across: Array
    stiffness: float = 2e4
    drag: float = 0.0
    shake: float = 0.0
    fastest: float = 1.999
    now: float = 0.0

    @classmethod
    def random(cls, rng: np.random.Generator, batch: int, joints: int, **settings: float) -> World:
        across = rng.normal(size=(batch, joints))
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        velocity = rng.uniform(-1, 1, (batch, joints))
        return cls(rng.uniform(-0.05, 0.05, (batch, joints)), velocity, across, **settings)

    def push(self, force: Array) -> Array:
        """One fine step under a force (B, n) of the port; the way it went (B, n)."""
        along = np.einsum("bn,bn->b", self.position, self.across) - self.shake * np.sin(18.0 * self.now)
        outside = np.clip(along, -0.05, 0.05) - along
        total = force + (self.stiffness * outside)[:, None] * self.across - self.drag * self.velocity
        velocity = self.velocity + FINE * total
        np.clip(velocity, -self.fastest, self.fastest, out=velocity)
        way = FINE * velocity
        self.velocity, self.position, self.now = velocity, self.position + way, self.now + FINE
        return way

    def copy(self) -> World:
        return replace(self)  # arrays are never changed in place


@dataclass
class Episode:
    """One batch of rollouts under a gate; see `run`."""

    world: World
    port: Port
    period: float
    spent: Array = field(init=False)
    """Net energy through each joint so far (B, n) [J]."""
    peak: Array = field(init=False)
    """The most that ever was, of all joints together (B,) [J]."""

    def __post_init__(self) -> None:
        self.spent = np.zeros_like(self.world.position)
        self.peak = np.zeros(len(self.spent))

    def hold(self, command: Array) -> None:
        """Keep a command (B, n) for one period."""
        for _ in range(round(self.period / FINE)):
            self._fine(command)
            np.maximum(self.peak, self.spent.sum(axis=1), out=self.peak)

    def _fine(self, command: Array) -> None:
        if isinstance(self.port, EffortPort):
            self.spent = self.spent + command * self.world.push(command)
            return
        # The damper acts on the speed that the step ends with, so that it takes damping * speed^2 exactly.
        assert isinstance(self.port, ImpedancePort)
        stiffness, damping = self.port.stiffness, DAMPER
        before = self.world.position
        spring = stiffness * (command - before)
        free = self.world.velocity
        way = self.world.push((spring - damping * free) / (1.0 + FINE * damping))
        self.spent = self.spent + stiffness * (command - before - way / 2) * way - damping * way**2 / FINE


DAMPER = 15.0
"""What the impedance-controlled drives really have [N s/m]."""

Policy = Callable[[Episode, Motion, int], Array]


def run(
    episode: Episode,
    tank: EnergyTank,
    policy: Policy,
    ticks: int,
    resolution: float = 0.0,
    effort: bool = False,
    still: float = 0.0,
) -> Episode:
    """Let a policy act through the tank. Contradictory rows: no effort, or the last command held.

    Args:
        episode: with the world to act in.
        tank: under attack.
        policy: what is asked for at each tick.
        ticks: how many.
        resolution: of the encoders [m].
        effort: report the efforts too.
        still: position of the first command.
    """
    passive = np.zeros_like(episode.world.position)
    sent = passive + still
    for tick in range(ticks):
        motion = measured(episode, sent, resolution, effort)
        if tick == 0:
            tank.reset(motion)
        tank.observe(motion)
        fallback = passive if isinstance(episode.port, EffortPort) else sent
        sent = gate(tank, motion, policy(episode, motion, tick), fallback)
        tank.sent(motion, sent)
        episode.hold(sent)
    return episode


def measured(episode: Episode, sent: Array, resolution: float, effort: bool = False) -> Motion:
    world, nothing = episode.world, np.zeros_like(sent)
    position = np.round(world.position / resolution) * resolution if resolution else world.position
    reported = episode.port.effort(sent, Motion(0.0, world.position, world.velocity, sent, nothing, nothing))
    motion = Motion(episode.period, position, world.velocity, sent, nothing, nothing, reported if effort else None)
    return replace(motion, now=world.now)


def gate(tank: EnergyTank, motion: Motion, wanted: Array, fallback: Array) -> Array:
    """The closest command inside the tank's hard box; the fallback where the claim is void."""
    box = next(one for one in tank.rows(motion) if isinstance(one, Box))
    return np.where(tank.void[:, None], fallback, np.clip(wanted, box.low, box.high))


def effort_tank(period: float, joints: int, **changes: float) -> EnergyTank:
    """One port of all joints with 0.95 J to spend, at 2 m/s and with 5 N of braking."""
    full = np.ones(joints)
    members = Members(full[None], full / joints, changes.get("error", 0.0))
    braking = changes.get("braking", 5.0) * full
    port = EffortPort(members, 2.0 * full, braking, full / period)
    return EnergyTank(port, budget(**changes))


def impedance_tank(joints: int, damping: float = 0.0, **changes: float) -> EnergyTank:
    """One port of springs of 400 N/m with 0.95 J to spend."""
    full = np.ones(joints)
    members = Members(full[None], full / joints, changes.get("error", 0.0))
    port = ImpedancePort(members, 400.0 * full, damping * full, 20.0 * full)
    return EnergyTank(port, budget(**changes), measured=bool(changes.get("measured", 0.0)))


def budget(refills: float = 0.0, capacity: float = 1.2, initial: float = 1.0, **_: float) -> Budget:
    refill = Refill(np.array([0.1]), np.array([0.2]), np.array([refills])) if refills else None
    return Budget(("arm",), np.array([initial]), np.array([0.05]), np.array([capacity]), refill)


class PowerGate:
    """What tanks usually do: draw power times period at the sampled speed, allow anything while there is some left."""

    def __init__(self, energy: float, minimum: float) -> None:
        self.energy, self.minimum = energy, minimum

    def run(self, episode: Episode, policy: Policy, ticks: int) -> Episode:
        energy = np.full(len(episode.spent), self.energy)
        sent = np.zeros_like(episode.world.position)
        for tick in range(ticks):
            motion = measured(episode, sent, 0.0)
            wanted = policy(episode, motion, tick)
            drawn = (wanted * motion.velocity).sum(axis=1) * episode.period
            allowed = energy - drawn >= self.minimum
            sent, energy = np.where(allowed[:, None], wanted, 0.0), energy - np.where(allowed, drawn, 0.0)
            episode.hold(sent)
        return episode


def bang_bang(rng: np.random.Generator, size: float) -> Policy:
    """Reverses at random times."""
    state: dict[str, Array] = {}

    def ask(_: Episode, motion: Motion, __: int) -> Array:
        fresh = rng.choice([-1.0, 1.0], motion.position.shape)
        keep = rng.random(motion.position.shape) < 0.8
        state["sign"] = np.where(keep, state.get("sign", fresh), fresh)
        return size * state["sign"]

    return ask


def along(size: float) -> Policy:
    """Always drives the way the mass is going: the most power there is at a sample."""
    return lambda _, motion, __: size * np.where(motion.velocity >= 0, 1.0, -1.0)


def greedy(size: float) -> Policy:
    """Knows the walls: tries every corner of the command for one period and takes what delivers most."""

    def ask(episode: Episode, motion: Motion, _: int) -> Array:
        joints = motion.position.shape[1]
        best, gain = np.zeros_like(motion.position), np.full(len(motion.position), -np.inf)
        for corner in np.stack(np.meshgrid(*[(-1.0, 0.0, 1.0)] * joints), -1).reshape(-1, joints):
            trial = Episode(episode.world.copy(), episode.port, episode.period)
            command = np.broadcast_to(size * corner, motion.position.shape)
            trial.hold(command)
            won = trial.spent.sum(axis=1)
            best, gain = np.where((won > gain)[:, None], command, best), np.maximum(won, gain)
        return best

    return ask


def played(signs: Array, size: float) -> Policy:
    """A given sequence of signs (ticks, B, n), for searches."""
    return lambda _, __, tick: size * signs[tick]
