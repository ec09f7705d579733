"""A realistic plant is the plain one, but late, noisy and varied by as much as is declared, and the same every time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from legged_samples import ROBOT

from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.realism import Noise, Realism
from onestride.hardware.realistic_plant import Line, RealisticPlant
from onestride.hardware.state import Measurement

HOME = np.array([joint.default for joint in ROBOT.joints])
STEP = 0.002


@pytest.fixture(scope="module")
def scene(shared_data, tmp_path_factory):
    model = shared_data / "policies" / "go1_joystick" / "go1_mjx_feetonly.xml"
    return robot_scene("go1", model, folder=tmp_path_factory.mktemp("go1") / "scene")


def targets(count: int) -> np.ndarray:
    """Commands that keep the robot moving (T, n)."""
    return HOME + 0.1 * np.sin(0.05 * np.arange(count))[:, None]


def driven(plant: Plant, count: int = 200) -> list[Measurement]:
    """What a plant measures while it moves, step by step; the first is that of the reset."""
    seen = [plant.reset()]
    for target in targets(count):
        plant.command(target)
        plant.step()
        seen.append(plant.read())
    return seen


def effort(plant: Plant) -> float:
    """The largest that is measured [Nm]."""
    found = plant.read().effort
    assert found is not None
    return float(np.abs(found).max())


def felt(measurement: Measurement) -> np.ndarray:
    """Specific force (3,) [m/s^2]."""
    assert measurement.imu is not None
    return measurement.imu.acceleration


def turned(measurement: Measurement) -> np.ndarray:
    """Orientation (4,) wxyz."""
    assert measurement.imu is not None
    return measurement.imu.orientation


def positions(seen: list[Measurement]) -> np.ndarray:
    return np.array([one.position for one in seen])


def test_with_nothing_wrong_it_is_the_plain_plant(scene):
    plain, real = Plant(scene, ROBOT), RealisticPlant(scene, ROBOT, Realism())
    for ours, theirs in zip(driven(real), driven(plain), strict=True):
        np.testing.assert_array_equal(ours.position, theirs.position)
        np.testing.assert_array_equal(felt(ours), felt(theirs))
        np.testing.assert_array_equal(ours.vectors["foot_forces"], theirs.vectors["foot_forces"])
    np.testing.assert_array_equal(real.state, plain.state)


@pytest.mark.parametrize("late", [1, 5, 10])
def test_measurements_are_as_old_as_declared(scene, late):
    realism = Realism(measurement_latency=(late * STEP, late * STEP))
    ours = positions(driven(RealisticPlant(scene, ROBOT, realism)))
    plain = positions(driven(Plant(scene, ROBOT)))
    np.testing.assert_array_equal(ours[late + 1 :], plain[1:-late])
    np.testing.assert_array_equal(ours[: late + 1], np.broadcast_to(plain[0], (late + 1, 12)))


@pytest.mark.parametrize("late", [1, 5, 10])
def test_commands_take_effect_as_late_as_declared(scene, late):
    plant = RealisticPlant(scene, ROBOT, Realism(command_latency=(late * STEP, late * STEP)))
    plant.reset()
    plant.command(HOME + 0.2)
    efforts = []
    for _ in range(late + 3):
        plant.step()
        efforts.append(effort(plant))
    assert max(efforts[:late]) < 3.0 < 5.0 < efforts[late]


def test_damping_takes_its_time_as_well(scene):
    plant = RealisticPlant(scene, ROBOT, Realism(command_latency=(0.01, 0.01)))
    plant.step(200)
    standing = effort(plant)
    plant.damp()
    plant.step(5)
    assert effort(plant) == pytest.approx(standing, rel=0.2)
    plant.step(1)
    assert effort(plant) < 0.5 * standing


HARD = Realism(
    measurement_latency=(0.0, 0.01),
    command_latency=(0.0, 0.01),
    jitter=0.005,
    dropped=0.2,
    noise=Noise(position=0.01, orientation=0.02, vectors={"foot_forces": 1.0}),
    friction=(0.5, 1.0),
    mass=(0.9, 1.1),
    gains=(0.8, 1.2),
)


def test_a_seed_is_one_episode_and_another_seed_another(scene):
    first, again, other = (positions(driven(RealisticPlant(scene, ROBOT, HARD, seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_reseeding_plays_an_episode_again(scene):
    plant = RealisticPlant(scene, ROBOT, HARD, 1)
    plant.reseed(7)
    first = positions(driven(plant))
    assert np.abs(positions(driven(plant)) - first).max() > 0.0
    plant.reseed(7)
    np.testing.assert_array_equal(positions(driven(plant)), first)


def test_messages_get_lost_as_often_as_declared_and_the_age_says_so(scene):
    plant = RealisticPlant(scene, ROBOT, Realism(dropped=0.25))
    plant.step()
    seen, ages = [plant.read()], []
    for _ in range(1000):
        plant.step()
        seen.append(plant.read())
        ages.append(plant.age)
    lost = np.mean([(a.position == b.position).all() for a, b in pairwise(seen)])
    assert lost == pytest.approx(0.25, abs=0.05)
    assert np.mean(np.array(ages) > STEP / 2) == pytest.approx(lost, abs=1e-9)
    assert max(ages) > 2 * STEP - 1e-9


def test_a_slow_sensor_measures_at_its_own_rate(scene):
    plant = RealisticPlant(scene, ROBOT, Realism(rate=100.0))
    seen = positions(driven(plant, 500))
    assert 95 <= np.count_nonzero(np.abs(np.diff(seen, axis=0)).max(axis=1) > 0) <= 100


def test_noise_is_as_large_as_declared_on_every_stream(scene):
    noise = Noise(
        position=0.01,
        velocity=0.5,
        effort=1.0,
        orientation=0.02,
        angular_velocity=0.1,
        acceleration=0.3,
        vectors={"foot_forces": 2.0},
    )
    plant, rng = Plant(scene, ROBOT, odometry=True), np.random.default_rng(0)
    plant.step(100)
    true = plant.read()
    seen = [noise.on(true, rng) for _ in range(2000)]

    def deviation(take) -> float:
        return float(np.std([take(one) - take(true) for one in seen]))

    assert deviation(lambda m: m.position) == pytest.approx(0.01, rel=0.1)
    assert deviation(lambda m: m.velocity) == pytest.approx(0.5, rel=0.1)
    assert deviation(lambda m: m.effort) == pytest.approx(1.0, rel=0.1)
    assert deviation(lambda m: m.imu.angular_velocity) == pytest.approx(0.1, rel=0.1)
    assert deviation(lambda m: m.imu.acceleration) == pytest.approx(0.3, rel=0.1)
    assert deviation(lambda m: m.vectors["foot_forces"]) == pytest.approx(2.0, rel=0.1)
    assert deviation(lambda m: m.vectors["base_velocity"]) == 0.0
    assert deviation(lambda m: 2.0 * turned(m)[1:]) == pytest.approx(0.02, rel=0.1)
    np.testing.assert_allclose([np.linalg.norm(turned(one)) for one in seen], 1.0, atol=1e-12)


def test_parameters_are_drawn_anew_from_what_was_loaded(scene):
    plain = Plant(scene, ROBOT)
    plant = RealisticPlant(scene, ROBOT, HARD, 3)
    for _ in range(20):
        plant.reset()
        mass, friction = plant.model.body_mass, plant.model.geom_friction[:, 0]
        ratio = mass[1:] / plain.model.body_mass[1:]
        assert np.all((ratio >= 0.9) & (ratio <= 1.1))
        drawn = friction[[plant.model.geom(name).id for name in ("floor", "FR", "RL")]]
        assert len(set(drawn.tolist())) == 1
        assert 0.5 <= drawn[0] <= 1.0
        assert plant.model.body_subtreemass[0] == pytest.approx(mass.sum())
    assert np.ptp(ratio) > 0.05


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.5)), min_size=1, max_size=30))
def test_messages_arrive_in_the_order_in_which_they_were_sent(sent):
    line, arrivals = Line[int](), []
    times = sorted(time for time, _ in sent)
    for index, (time, (_, delay)) in enumerate(zip(times, sent, strict=True)):
        line.send(index, time + delay)
    for now in np.arange(0.0, 2.0, 0.01):
        found = line.newest(float(now))
        if found is not None:
            arrivals.append(found)
            assert now + 1e-6 >= times[found] + sent[found][1]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] == len(sent) - 1
