"""Overlapping trajectories, sampled as the joint_trajectory_controller does it: the joints never stop on the way."""

from __future__ import annotations

import numpy as np
import pytest

from onestride.deploy.drivers.trajectory import AHEAD, Point, Trajectory, TrajectoryStream
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

UR5E = load_robot("ur5e_2f85")
ARM = UR5E.commands[0].joints
START = np.array([joint.default for joint in UR5E.joints[:6]])
PERIOD = 0.02
UPDATE = 0.002  # of the controller: 500 Hz


class JointTrajectoryController:
    """Follows trajectories by ros2_controllers' own rule: a cubic spline from the state of its arrival to the first
    point, and from point to point, by positions and velocities; the last position is held after the end.
    """

    def __init__(self, position: Array) -> None:
        self.position, self.velocity, self.time = position.copy(), np.zeros_like(position), 0.0
        self._points = [Point(position.copy(), np.zeros_like(position), 0.0)]
        self._begun = 0.0

    def receive(self, trajectory: Trajectory) -> None:
        assert trajectory.joints == ARM, "all joints named"
        assert not trajectory.points[-1].velocities.any(), "trajectories that end in motion are refused"
        times = [point.time_from_start for point in trajectory.points]
        assert times == sorted(set(times))
        self._points = [Point(self.position.copy(), self.velocity.copy(), 0.0), *trajectory.points]
        self._begun = self.time

    def step(self) -> None:
        self.time += UPDATE
        since = self.time - self._begun
        for before, after in zip(self._points, self._points[1:], strict=False):
            if before.time_from_start <= since <= after.time_from_start:
                self.position, self.velocity = hermite(before, after, since)
                return
        self.position, self.velocity = self._points[-1].positions.copy(), np.zeros_like(self.position)


def hermite(before: Point, after: Point, time: float) -> tuple[Array, Array]:
    """Position and velocity of the cubic through two points with their velocities."""
    span = after.time_from_start - before.time_from_start
    s = (time - before.time_from_start) / span
    p0, p1, v0, v1 = before.positions, after.positions, span * before.velocities, span * after.velocities
    a, b = 2 * (p0 - p1) + v0 + v1, 3 * (p1 - p0) - 2 * v0 - v1
    return p0 + s * (v0 + s * (b + s * a)), (v0 + s * (2 * b + 3 * s * a)) / span


def played(targets: Array, make, late=lambda _: 0) -> tuple[Array, Array]:
    """Positions and velocities (T, 6) of a controller that is sent a trajectory for each target (N, 6)."""
    controller, waiting, positions, velocities = JointTrajectoryController(START), [], [], []
    for index, target in enumerate(targets):
        waiting.append((index * round(PERIOD / UPDATE) + late(index), make(target, index * PERIOD)))
    for tick in range(len(targets) * round(PERIOD / UPDATE)):
        while waiting and waiting[0][0] <= tick:
            controller.receive(waiting.pop(0)[1])
        controller.step()
        positions.append(controller.position)
        velocities.append(controller.velocity)
    return np.array(positions), np.array(velocities)


def constant_speed(speed: float, count: int = 60) -> Array:
    return START + speed * PERIOD * np.arange(1, count + 1)[:, None] * np.ones(6)


def test_a_moving_target_is_followed_without_dips():
    _, velocities = played(constant_speed(0.5), TrajectoryStream(UR5E, ARM, PERIOD).next)
    running = velocities[round(10 * PERIOD / UPDATE) :]
    assert running.min() > 0.95 * 0.5
    assert running.max() < 1.05 * 0.5


def test_points_without_speed_or_overlap_would_make_it_stop_all_the_time():
    """What is avoided, measured by the same controller: one point per period, to be reached at rest."""

    def at_rest(target: Array, now: float) -> Trajectory:
        del now
        return Trajectory(ARM, (Point(target, np.zeros(6), PERIOD),))

    _, velocities = played(constant_speed(0.5), at_rest)
    assert velocities[round(10 * PERIOD / UPDATE) :].min() < 0.1 * 0.5


def test_one_that_is_late_by_less_than_half_a_period_is_no_dip_either():
    rng = np.random.default_rng(0)
    late = rng.integers(0, round((AHEAD - 1.0) * PERIOD / UPDATE), 60)
    _, velocities = played(constant_speed(0.5), TrajectoryStream(UR5E, ARM, PERIOD).next, lambda index: late[index])
    assert velocities[round(10 * PERIOD / UPDATE) :].min() > 0.6 * 0.5


def test_a_sine_is_followed_closely():
    time = PERIOD * np.arange(1, 201)
    targets = START + 0.3 * (1 - np.cos(2 * np.pi * 0.5 * time))[:, None]
    positions, _ = played(targets, TrajectoryStream(UR5E, ARM, PERIOD).next)
    at_targets = positions[round(PERIOD / UPDATE) - 1 :: round(PERIOD / UPDATE)]
    # A target is where to be at its own time; the extrapolation leads it by a period's curvature.
    assert np.abs(at_targets[:-1] - targets[1:])[10:].max() < 0.02


def test_the_arm_comes_to_rest_when_nothing_more_comes():
    stream = TrajectoryStream(UR5E, ARM, PERIOD)
    targets = constant_speed(1.0, 30)
    controller = JointTrajectoryController(START)
    for target in targets:
        controller.receive(stream.next(target, controller.time))
        for _ in range(round(PERIOD / UPDATE)):
            controller.step()
    speeds = []
    for _ in range(round(1.0 / UPDATE)):
        controller.step()
        speeds.append(np.abs(controller.velocity).max())
    braking = UR5E.safe_stop.deceleration
    stopped = next(index for index, speed in enumerate(speeds) if speed < 1e-9) * UPDATE
    assert stopped <= AHEAD * PERIOD + 1.0 / braking + 2 * UPDATE
    changes = np.diff(speeds) / UPDATE
    assert np.abs(changes[: round(stopped / UPDATE) - 1]).max() < 2.0 * braking
    assert np.all(controller.position < targets[-1] + AHEAD * PERIOD + 0.5 / braking + 1e-9)


def test_it_never_asks_for_more_than_the_limits():
    lower, upper = (limit[:6] for limit in UR5E.position_limits)
    for end, back in ((upper, -0.01), (lower, 0.01)):
        stream = TrajectoryStream(UR5E, ARM, PERIOD)
        for index, target in enumerate((end + 6 * back, end + back, end, end)):
            for point in stream.next(target, index * PERIOD).points:
                assert np.all((lower <= point.positions) & (point.positions <= upper))
                assert np.all(np.abs(point.velocities) <= UR5E.velocity_limits[:6])
                assert not point.velocities[(point.positions == upper) | (point.positions == lower)].any()


def test_after_a_gap_the_first_target_is_taken_to_stand_still():
    """The arm was moved otherwise in the meantime: that is no motion of one period."""
    stream, there = TrajectoryStream(UR5E, ARM, PERIOD), START + 0.2
    for index, target in enumerate(constant_speed(1.0, 5)):
        stream.next(target, index * PERIOD)
    for now in (1.0, 1.0 + PERIOD):
        (point,) = stream.next(there, now).points
        np.testing.assert_array_equal(point.positions, there)
        assert not point.velocities.any()
        assert point.time_from_start == pytest.approx(AHEAD * PERIOD)
    assert AHEAD > 1.0


def test_targets_that_got_lost_make_it_no_faster():
    stream = TrajectoryStream(UR5E, ARM, PERIOD)
    stream.next(START, 0.0)
    point, _ = stream.next(START + 0.03, 2 * PERIOD + 0.003).points
    np.testing.assert_allclose(point.velocities, 0.03 / (2 * PERIOD))


def test_a_target_out_of_reach_is_refused_until_targets_come_back_or_begin_anew():
    stream, far = TrajectoryStream(UR5E, ARM, PERIOD), 2.1 * UR5E.velocity_limits[0] * PERIOD * np.eye(6)[0]
    stream.next(START, 0.0)
    for index in range(1, 10):
        with pytest.raises(OneStrideError, match=r"got shoulder_pan_joint \+0\.\d+ rad in 0\.02 s"):
            stream.next(START + far, index * PERIOD)
    stream.next(START, 10 * PERIOD)
    (point,) = stream.next(START + far, 14 * PERIOD).points
    assert not point.velocities.any()


@pytest.mark.parametrize(("rate", "words"), [(50, ""), (100, "got 100"), (200, "got 200"), (10, "got 10")])
def test_another_rate_than_the_declared_one_is_told(rate, words):
    """One stream that comes twice as often, as of `calibrate-latency`, would be followed at half its speed."""
    stream = TrajectoryStream(UR5E, ARM, PERIOD)
    assert not stream.disagreement
    for index in range(1, 40):
        stream.next(START, index / rate)
    stream.next(START, 100.0)  # one pause says nothing of the rate
    assert stream.disagreement == (words and f"expected 50 targets per second, {words}")


def test_two_points_by_hand():
    """0.01 rad in 20 ms is 0.5 rad/s; 30 ms ahead that is 0.015 rad; from there it brakes as the robot declares."""
    stream, braking = TrajectoryStream(UR5E, ARM, 0.02), UR5E.safe_stop.deceleration
    stream.next(START, 0.0)
    moving, rest = stream.next(START + 0.01 * np.eye(6)[0], 0.02).points
    np.testing.assert_allclose(moving.positions, START + 0.025 * np.eye(6)[0])
    np.testing.assert_allclose(moving.velocities, 0.5 * np.eye(6)[0])
    assert moving.time_from_start == pytest.approx(0.03)
    np.testing.assert_allclose(rest.positions, START + (0.025 + 0.5**2 / (2 * braking)) * np.eye(6)[0])
    assert not rest.velocities.any()
    assert rest.time_from_start == pytest.approx(0.03 + 0.5 / braking)


@pytest.mark.parametrize(
    ("joints", "period", "message"),
    [
        (("nobody",), PERIOD, "unknown joint of robot ur5e_2f85"),
        (ARM, 0.0, "expected a period > 0"),
        (("right_driver_joint",), PERIOD, "expected joints with limits of speed"),
    ],
)
def test_what_cannot_be_streamed_is_refused(joints, period, message):
    with pytest.raises(OneStrideError, match=message):
        TrajectoryStream(UR5E, joints, period)


@pytest.mark.parametrize("target", [START[:5], START * np.nan])
def test_bad_targets_are_refused(target):
    with pytest.raises(OneStrideError, match="expected 6 finite joint targets"):
        TrajectoryStream(UR5E, ARM, PERIOD).next(target, 0.0)
