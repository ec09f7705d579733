"""No policy and no surroundings take more from a port than its tank was given, and honest work is still done."""

from __future__ import annotations

import numpy as np
import pytest
from tank_attacks import (
    Episode,
    PowerGate,
    World,
    along,
    bang_bang,
    effort_tank,
    greedy,
    impedance_tank,
    played,
    run,
)

from onestride.deploy.safety.ports import EffortPort
from onestride.deploy.safety.tank import EnergyTank
from onestride.deploy.safety.types import Box

PERIODS = (0.001, 0.005, 0.02)
BOUND = 0.95
"""Of all tanks here, without refills [J]."""
SIZE = 60.0
"""Of the efforts asked for [N]."""


def effort_episode(period: float, batch: int, joints: int, seed: int = 0, **world: float) -> tuple[Episode, EnergyTank]:
    tank = effort_tank(period, joints)
    return Episode(World.random(np.random.default_rng(seed), batch, joints, **world), tank.port, period), tank


def kept(episode: Episode, bound: float = BOUND) -> bool:
    return bool(np.all(episode.peak <= bound * (1 + 1e-9)))


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("joints", [1, 2])
@pytest.mark.parametrize("shake", [0.0, 0.02])
def test_effort_port_keeps_its_bound(period: float, joints: int, shake: float):
    rng = np.random.default_rng(1)
    for policy in (bang_bang(rng, SIZE), along(SIZE), greedy(SIZE)):
        batch = 30 if policy.__qualname__.startswith("greedy") else 150
        episode, tank = effort_episode(period, batch, joints, shake=shake)
        run(episode, tank, policy, round(0.4 / period))
        assert kept(episode)
        assert not tank.void.any()
        delivered = episode.spent.sum(axis=1)
        assert np.all(tank.energy[:, 0] <= 1.0 - delivered + 1.2)  # never more than was put in, up to the capacity


def test_attacks_use_what_they_may():
    """The attacks are strong: they bring a tank close to its bound, so that keeping it means something."""
    for period, share in zip(PERIODS, (0.98, 0.9, 0.5), strict=True):
        episode, tank = effort_episode(period, 60, 1)
        run(episode, tank, greedy(SIZE), round(0.6 / period))
        assert episode.peak.max() > share * BOUND


def test_a_gate_on_power_breaks_the_same_bound():
    """At 20 ms; the worst-case row keeps it in the same world, under the same policies."""
    for policy in (along(SIZE), greedy(SIZE)):
        episode, tank = effort_episode(0.02, 60, 1)
        gated = PowerGate(1.0, 0.05).run(Episode(episode.world.copy(), episode.port, 0.02), policy, 50)
        assert gated.peak.max() > 1.3 * BOUND
        assert kept(run(episode, tank, policy, 50))


def test_a_search_for_the_worst_sequence_finds_none():
    """Sequences of pushes are bred for the energy they take."""
    rng, period, ticks, batch = np.random.default_rng(3), 0.02, 30, 120
    signs = rng.choice([-1.0, 0.0, 1.0], (ticks, batch, 1))
    world = World.random(rng, batch, 1)
    for _ in range(12):
        tank = effort_tank(period, 1)
        episode = run(Episode(world.copy(), tank.port, period), tank, played(signs, SIZE), ticks)
        assert kept(episode)
        best = np.argsort(episode.peak)[-batch // 4 :]
        parents = rng.choice(best, batch)
        world = World(world.position[parents], world.velocity[parents], world.across[parents])
        mutate = rng.random(signs.shape) < 0.1
        signs = np.where(mutate, rng.choice([-1.0, 0.0, 1.0], signs.shape), signs[:, parents])
    assert episode.peak.max() > 0.5 * BOUND


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("damping", [0.0, 15.0])
@pytest.mark.parametrize("shake", [0.0, 0.02])
def test_impedance_port_keeps_its_bound(period: float, damping: float, shake: float):
    rng = np.random.default_rng(2)
    for joints in (1, 2):
        for policy in (bang_bang(rng, 0.4), along(0.4)):
            tank = impedance_tank(joints, damping, capacity=1.0)
            world = World.random(rng, 150, joints, shake=shake, fastest=20.0)
            episode = Episode(world, tank.port, period)
            run(episode, tank, policy, round(0.4 / period), still=0.01)
            assert kept(episode)


@pytest.mark.parametrize("kind", ["effort", "impedance"])
def test_what_quantised_encoders_hide_is_paid_for(kind: str):
    resolution = 1e-3
    for period in PERIODS:
        error = resolution / 2
        tank = effort_tank(period, 2, error=error) if kind == "effort" else impedance_tank(2, 15.0, error=error)
        world = World.random(np.random.default_rng(4), 150, 2)
        episode = Episode(world, tank.port, period)
        size = SIZE if kind == "effort" else 0.3
        run(episode, tank, bang_bang(np.random.default_rng(5), size), round(0.4 / period), resolution)
        assert kept(episode)


def test_refills_are_part_of_the_bound():
    tank = effort_tank(0.005, 1, refills=3.0)
    assert tank.budget.bound == pytest.approx([BOUND + 0.3])
    world = World.random(np.random.default_rng(6), 150, 1, drag=20.0)
    episode = run(Episode(world, tank.port, 0.005), tank, along(SIZE), 300)
    assert kept(episode, BOUND + 0.3)
    assert episode.peak.max() > 1.1 * BOUND


@pytest.mark.parametrize("period", PERIODS)
def test_work_is_still_done(period: float):
    """A closed valve keeps every bound: so the masses must also be brought to their places, against drag."""
    rng = np.random.default_rng(7)
    goal = rng.uniform(-0.04, 0.04, (150, 2))
    episode, tank = effort_episode(period, 150, 2, drag=2.0)
    run(episode, tank, lambda _, motion, __: 40 * (goal - motion.position) - 8 * motion.velocity, round(2 / period))
    near = np.abs(episode.world.position - goal).max(axis=1) < 0.002
    assert near.mean() > 0.98
    tank = impedance_tank(2, 15.0)
    episode = Episode(World.random(rng, 150, 2, drag=2.0), tank.port, period)
    run(episode, tank, lambda *_: goal, round(2 / period))
    near = np.abs(episode.world.position - goal).max(axis=1) < 0.002
    assert near.mean() > 0.98
    assert kept(episode)


def highest_effort(position, velocity, limit, strongest, period):
    """The largest acceleration after which a brake of `strongest` still ends before the limit (SAFETY's row)."""
    room = limit - position - velocity * period - strongest * period**2 / 8
    # (v + u dt)^2 / (2 a) + u dt^2 / 2 <= room, for the speed w = v + u dt after the period
    half = strongest * period / 2
    after = np.sqrt(np.maximum(half**2 + 2 * strongest * (room + velocity * period / 2), 0.0)) - half
    return np.where(after >= 0, (after - velocity) / period, -np.inf)


def approach(period: float, reserve: bool) -> tuple[float, bool]:
    """How far masses get beyond a limit that they are driven at with almost nothing left, and whether rows agreed."""
    rng, batch, strongest, limit = np.random.default_rng(8), 300, 5.0, 0.0
    initial = 0.05 + 2.0 * strongest * period + 1e-3 * rng.random()
    tank = effort_tank(period, 1, initial=initial, braking=strongest if reserve else 1e-9)
    speed = rng.uniform(0.5, 1.9, (batch, 1))
    distance = speed**2 / (2 * strongest) + speed * period * 3 + 0.3 * rng.random((batch, 1))
    world = World(limit - distance, speed, np.ones((batch, 1)), stiffness=0.0, drag=0.5)
    episode, agreed, beyond = Episode(world, tank.port, period), True, -np.inf

    def at_the_limit(_, motion, __):
        nonlocal agreed, beyond
        beyond = max(beyond, float((motion.position - limit).max()))
        box = next(one for one in tank.rows(motion) if isinstance(one, Box))
        most = highest_effort(motion.position, motion.velocity, limit, strongest, period)
        rest = -np.maximum(motion.velocity, 0.0) / period  # a brake needs to bring to rest, not to turn back
        most = np.maximum(most, np.maximum(rest, -strongest))
        agreed &= bool(np.all(box.low <= most + 1e-9))
        return np.minimum(SIZE, most)

    run(episode, tank, at_the_limit, round(1.5 / period))
    return beyond, agreed


@pytest.mark.parametrize("period", PERIODS)
def test_braking_before_a_limit_is_never_gated_away(period: float):
    beyond, agreed = approach(period, reserve=True)
    assert beyond <= 1e-9
    assert agreed
    beyond, agreed = approach(period, reserve=False)  # the same tank, all of it free to drive with
    assert beyond > 0.01
    assert not agreed


@pytest.mark.slow
@pytest.mark.parametrize("period", PERIODS)
def test_a_hundred_thousand_attacks(period: float):
    rng = np.random.default_rng(9)
    for joints, shake in ((1, 0.0), (2, 0.02)):
        episode, tank = effort_episode(period, 20_000, joints, shake=shake)
        assert isinstance(tank.port, EffortPort)
        assert kept(run(episode, tank, bang_bang(rng, SIZE), round(0.4 / period)))
        episode, tank = effort_episode(period, 20_000, joints, shake=shake)
        assert kept(run(episode, tank, along(SIZE), round(0.4 / period)))
        tank = impedance_tank(joints, 15.0)
        episode = Episode(World.random(rng, 20_000, joints, shake=shake), tank.port, period)
        assert kept(run(episode, tank, bang_bang(rng, 0.4), round(0.4 / period)))
