"""How long a robot takes: a small known motion through the safety chain, and the delay between it and what is measured.

One joint goes back and forth between where it stands and a few hundredths of a radian away, at irregular times. What is
measured is explained by the command, later by a pure delay, and followed by a drive of the first order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from onestride.deploy.contract import Contract, DatasetTerms, ExecutionTerms, PolicyTerms, RobotTerms
from onestride.deploy.runtime import Prediction
from onestride.deploy.terms import ActionTerm, JointSource, ObservationTerm
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array

#: How far a joint is moved at most [rad].
LARGEST_AMPLITUDE = 0.05

#: How often the excitation may change its mind [Hz].
POLICY_RATE = 20.0

#: How long it stays on one side, at least and at most, in steps of `POLICY_RATE`.
STAY = (6, 14)

#: How long home is asked for at the end, in steps of `POLICY_RATE`: the chain may take its time on the way there.
HOMING = 20

#: Longest delay that is looked for [s].
LONGEST = 0.3

#: Everything is compared on a grid this fine; the answer is refined between its points [s].
GRID = 1e-3

#: Time constants of the drive that are tried [s].
LAGS = np.concatenate([[0.0], np.geomspace(0.004, 0.6, 40)])

#: A delay is believed where it explains this share of the motion.
ENOUGH = 0.8


@dataclass(frozen=True)
class Delay:
    """How a motion comes after its command: at first nothing, then as a drive of the first order follows.

    Attributes:
        seconds: the delay.
        lag: time constant of the drive [s].
        explained: share of the motion's variance that the delayed and lagging command explains.
    """

    seconds: float
    lag: float
    explained: float


@dataclass(frozen=True)
class Delays:
    """Delays of single stretches of a motion.

    Attributes:
        median: of the delay [s].
        spread: half the range of its middle half [s].
        lag: median time constant of the drive [s].
        explained: median share of the motion that is explained.
        count: stretches.
    """

    median: float
    spread: float
    lag: float
    explained: float
    count: int


def delays_of(
    command_times: Array, commands: Array, motion_times: Array, motion: Array, stretch: float = 2.0
) -> Delays:
    """The delay and the drive's lag in every `stretch` [s] of a motion, and how much they differ.

    Args:
        command_times: when each command was sent (N,) [s], increasing.
        commands: what was sent (N,) [rad]; each holds until the next.
        motion_times: when each measurement was taken (M,) [s], increasing.
        motion: what was measured (M,) [rad].
        stretch: how long each is.

    Raises:
        OneStrideError: there is too little, or the joint does not follow.
    """
    begin, end = command_times[0], min(command_times[-1], motion_times[-1])
    size, reach = round(stretch / GRID), round(LONGEST / GRID)
    times = begin + GRID * np.arange(max(0, int((end - begin) / GRID)))
    if len(times) < 2 * reach + size:
        raise OneStrideError(f"expected at least {2 * LONGEST + stretch:g} s of motion, got {end - begin:.1f} s")
    sent = commands[np.maximum(np.searchsorted(command_times, times, side="right") - 1, 0)]
    seen, bank = np.interp(times, motion_times, motion), [lagged(sent, lag) for lag in LAGS]
    starts = range(2 * reach, len(times) - size + 1, size)  # the first moments hold what was before
    found = [_best([one[at - reach : at + size] for one in bank], seen[at : at + size]) for at in starts]
    explained = float(np.median([one.explained for one in found]))
    if explained < ENOUGH:
        raise OneStrideError(f"expected a joint that follows its commands, they explain {explained:.0%} of its motion")
    low, median, high = np.percentile([one.seconds for one in found], [25, 50, 75])
    lag = float(np.median([one.lag for one in found]))
    return Delays(float(median), float(high - low) / 2, lag, explained, len(found))


def lagged(command: Array, lag: float) -> Array:
    """What a drive of the first order with time constant `lag` [s] makes of a command (K,) on the grid."""
    if lag == 0.0:
        return command
    share, state = 1.0 - np.exp(-GRID / lag), float(command[0])
    followed = np.empty_like(command)
    for index, wanted in enumerate(command.tolist()):
        state += share * (wanted - state)
        followed[index] = state
    return followed


def _best(bank: list[Array], motion: Array) -> Delay:
    """The delay and lag that explain a motion (K,) best; each command (reach + K,) begins `reach` earlier."""
    shares = np.array([_explained(command, motion) for command in bank])
    lag, shift = np.unravel_index(int(shares.argmax()), shares.shape)
    delay = GRID * (shift + _vertex(shares[lag], int(shift)))
    return Delay(max(0.0, float(delay)), float(LAGS[lag]), float(shares[lag, shift]))


def _explained(command: Array, motion: Array) -> Array:
    """Squared correlation at every shift from 0 on; 0 where either stands still or they go against each other."""
    windows = sliding_window_view(command, len(motion))[::-1]
    windows, motion = windows - windows.mean(axis=1, keepdims=True), motion - motion.mean()
    power = np.sqrt(np.einsum("ij,ij->i", windows, windows) * float(motion @ motion))
    share = np.divide(windows @ motion, power, out=np.zeros(len(windows)), where=power > 1e-12)
    return np.asarray(np.maximum(0.0, share) ** 2)


def _vertex(values: Array, best: int) -> float:
    """Where between its neighbours the maximum of a parabola through three samples lies, in samples."""
    if not 0 < best < len(values) - 1:
        return 0.0
    left, middle, right = values[best - 1 : best + 2]
    curvature = left - 2 * middle + right
    return 0.0 if curvature == 0 else float(0.5 * (left - right) / curvature)


# The motion


class Excitation:
    """Inference that asks for one side or the other, at irregular times that a seed fixes, and for home at the end.

    Args:
        seconds: how long it goes to and fro [s].
        home: the side, 0 or 1, on which the joint stands.
        seed: of the times.

    Attributes:
        done: whether home has been asked for long enough.
    """

    def __init__(self, seconds: float, home: float = 0.0, seed: int = 0) -> None:
        rng, sides, side = np.random.default_rng(seed), list[float](), home
        while len(sides) < seconds * POLICY_RATE:
            side = 1.0 - side
            sides += [side] * int(rng.integers(*STAY, endpoint=True))
        self._sides, self._home, self.done = sides, home, False
        self._prediction: Prediction | None = None

    def request(self, observation: Array, at: int) -> None:
        """The side of step `at`."""
        del observation
        side = self._sides[at] if at < len(self._sides) else self._home
        self.done = at >= len(self._sides) + HOMING
        self._prediction = Prediction(np.full((1, 1), side, np.float32), at)

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        """The answer, once."""
        del timeout
        prediction, self._prediction = self._prediction, None
        return prediction

    def reset(self, seed: int | None = None) -> None:
        """Drop what is pending."""
        del seed
        self._prediction = None


def default_joint(robot: RobotDescription) -> str:
    """The last joint with a speed limit, which carries the least.

    Raises:
        OneStrideError: the robot stands on its joints, or none has a limit.
    """
    if robot.base is not None:
        raise OneStrideError(f"robot {robot.id} stands on its joints: expected an arm to calibrate")
    for joint in reversed(robot.joints):
        if joint.velocity is not None:
            return joint.name
    raise OneStrideError(f"robot {robot.id}: expected a joint with a speed limit, got none")


def calibration_contract(robot: RobotDescription, joint: str, position: float, amplitude: float) -> Contract:
    """The contract of the motion: one joint between `position` and `amplitude` beside it, away from its nearer limit.

    Raises:
        OneStrideError: no such joint, an amplitude that is not small, or no room for it.
    """
    if joint not in robot.joint_names:
        raise unknown(f"joint of robot {robot.id}", joint, robot.joint_names)
    if not 0 < amplitude <= LARGEST_AMPLITUDE:
        raise OneStrideError(f"expected an amplitude above 0 and up to {LARGEST_AMPLITUDE:g} rad, got {amplitude:g}")
    lower, upper = robot.joints[robot.joint_names.index(joint)].position
    offset = position - home_side(robot, joint, position) * amplitude
    if not lower <= offset <= offset + amplitude <= upper:
        raise OneStrideError(f"joint {joint} at {position:.3f} rad: expected room for {amplitude:g} rad")
    seen = ObservationTerm(name="joint", source=JointSource(field="position", joints=(joint,)), unit="rad")
    done = ActionTerm(
        name="joint",
        mode="joint_position",
        unit="rad",
        scale=amplitude,
        joints=(joint,),
        offset=(offset,),
        clip=(0.0, 1.0),
        names=("position",),
    )
    rate = calibration_rate(robot)
    return Contract(
        schema_version=1,
        policy=PolicyTerms(name="latency calibration", algorithm="none", nfe=(1,), seed=0, steps=0, config={}),
        environment=None,
        robot=RobotTerms.of(robot),
        history=1,
        observations=(seen,),
        actions=(done,),
        execution=ExecutionTerms(
            control_rate=rate, policy_rate=POLICY_RATE, horizon=1, n_action_steps=1, interpolation="hold"
        ),
        dataset=DatasetTerms.unknown(seen.element_names, seen.element_units, done.element_names),
    )


def home_side(robot: RobotDescription, joint: str, position: float) -> float:
    """On which side of the motion a joint at `position` [rad] stands: 1 where its upper limit is the nearer one."""
    lower, upper = robot.joints[robot.joint_names.index(joint)].position
    return 0.0 if upper - position >= position - lower else 1.0


def calibration_rate(robot: RobotDescription) -> float:
    """The multiple of `POLICY_RATE` at which commands are sent: 200 Hz, or as near as the driver allows."""
    low, high = robot.control_rates
    multiples = np.arange(1, 101) * POLICY_RATE
    allowed = multiples[(multiples >= low) & (multiples <= high)]
    if not len(allowed):
        raise OneStrideError(f"robot {robot.id}: expected a control rate that is a multiple of {POLICY_RATE:g} Hz")
    return float(allowed[np.abs(allowed - 200.0).argmin()])
