"""What is heard of a robot against what a policy's contract expects: pure functions of what a listener brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from onestride.deploy.actions import ActionMapper
from onestride.deploy.contract import Contract
from onestride.deploy.controller import Controller, Mode
from onestride.deploy.doctor.answers import Answer, Level
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.safety.envelope import beyond
from onestride.deploy.safety.guards import OWN, FreshStreams
from onestride.deploy.sources import COMMAND
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array, Measurement

JOINTS = "joints"

#: Stamps older than that are no delay: their clock is another [s].
PLAUSIBLE = 2.0


@dataclass(frozen=True)
class HeardStream:
    """One topic that an observation is made from, as it was heard.

    Attributes:
        name: of the stream, as in `Measurement.received`.
        topic: its full name.
        arrivals: of the messages, on the monotonic clock (N,) [s].
        stamps: of the messages (N,) [s]; empty where they carry none.
        ages: between stamp and arrival, by the system's clock (N,) [s]; empty likewise.
        refused: messages that could not be understood, by reason.
        publishers: who publishes, by full name.
        required: whether the policy cannot act without it.
    """

    name: str
    topic: str
    arrivals: Array
    stamps: Array
    ages: Array
    refused: Mapping[str, int] = field(default_factory=dict)
    publishers: tuple[str, ...] = ()
    required: bool = True


@dataclass(frozen=True)
class CommandTopic:
    """Who is on a command topic, by full name.

    Attributes:
        topic: its full name.
        publishers: who sends.
        subscribers: who obeys or listens.
    """

    topic: str
    publishers: tuple[str, ...]
    subscribers: tuple[str, ...]


@dataclass(frozen=True)
class Heard:
    """What a listener heard.

    Attributes:
        duration: of listening [s].
        streams: one by one.
        joint_names: as the driver publishes them; empty where none came.
        commands: who is on the command topics.
        measurement: the newest of every stream; None where a required one gave nothing.
        now: when it was put together, on the monotonic clock [s].
    """

    duration: float
    streams: tuple[HeardStream, ...]
    joint_names: tuple[str, ...]
    commands: tuple[CommandTopic, ...]
    measurement: Measurement | None
    now: float


def judge_streams(contract: Contract, robot: RobotDescription, heard: Heard, *, real: bool = False) -> Iterator[Answer]:
    """Each stream's rate, gaps and stamps, and the joints' names.

    Args:
        contract: of the policy that observes them.
        robot: whose streams they are.
        heard: what was heard of them.
        real: whether the robot shall move now: then a delay that the stamps tell of fails.
    """
    bounds = FreshStreams.of(contract, robot).bounds
    for stream in heard.streams:
        bound = bounds.get(stream.name, _bound(stream.name, contract, robot))
        yield from _judge_stream(stream, heard, bound, contract.execution.control_rate or 0.0)
        if len(stream.stamps):
            yield _judge_stamps(stream, bound, real)
    yield judge_joint_names(robot.joint_names, heard.joint_names)


def _bound(stream: str, contract: Contract, robot: RobotDescription) -> float:
    """How old a stream that no guard watches may be before it does not count [s]."""
    if stream == COMMAND.name and contract.velocity_command is not None:
        return contract.velocity_command.timeout
    return robot.detection.joints_stale if stream in OWN else robot.detection.objects_stale


def _judge_stream(stream: HeardStream, heard: Heard, bound: float, wanted: float) -> Iterator[Answer]:
    question, count = f"stream {stream.name}", len(stream.arrivals)
    refused = ", ".join(f"{number} with {reason}" for reason, number in stream.refused.items())
    if count == 0:
        why = f"messages that cannot be used: {refused}" if refused else "none"
        who = f" (published by {', '.join(stream.publishers)})" if stream.publishers else "; nobody publishes there"
        level = Level.FAIL if stream.required else Level.WARN
        yield Answer(question, level, f"expected messages on {stream.topic}, got {why}{who}")
        return
    gaps = np.diff(stream.arrivals)
    since = max(0.0, heard.now - stream.arrivals[-1])  # it may have died while it was heard
    longest = float(gaps.max(initial=since))
    rate = len(gaps) / float(np.ptp(stream.arrivals)) if len(gaps) else 0.0
    detail = f"{stream.topic} at {rate:.1f} Hz, longest gap {longest * 1e3:.1f} ms"
    if longest > bound or (count < 2 and heard.duration > bound):
        level, or_else = (Level.FAIL, "the robot faults") if stream.required else (Level.WARN, "it does not count")
        yield Answer(question, level, f"{detail}; expected at most {bound * 1e3:g} ms, or {or_else}")
    elif stream.name == JOINTS and rate < 0.9 * wanted:
        yield Answer(question, Level.WARN, f"{detail}; expected the control rate, {wanted:g} Hz")
    else:
        yield Answer(question, Level.PASS, detail)
    if refused:
        yield Answer(f"{question} messages", Level.WARN, f"expected all of them to be usable, got {refused}")


def _judge_stamps(stream: HeardStream, bound: float, real: bool) -> Answer:
    question, age = f"stream {stream.name} stamps", float(np.median(stream.ages))
    steps = np.diff(stream.stamps)
    if len(steps) and not (steps > 0).all():
        still = int((steps <= 0).sum())
        return Answer(question, Level.FAIL, f"expected stamps that advance, got {still} of {len(steps)} that do not")
    detail = f"p50 {age * 1e3:.1f} ms old on arrival"
    if abs(age) > bound:
        level = Level.FAIL if real and 0 < age <= PLAUSIBLE else Level.WARN
        why = "it is delayed, or its clock is wrong" if 0 < age <= PLAUSIBLE else "do the clocks agree?"
        return Answer(question, level, f"{detail}; expected at most {bound * 1e3:g} ms: {why}")
    return Answer(question, Level.PASS, detail)


def judge_joint_names(wanted: tuple[str, ...], found: tuple[str, ...]) -> Answer:
    """Whether every joint is there once; another order is fine, because joints are read by name."""
    if not found:
        return Answer("joint names", Level.FAIL, f"expected {', '.join(wanted)}, got none")
    wrong = [name for name in wanted if found.count(name) != 1]
    if wrong:
        return Answer("joint names", Level.FAIL, f"expected once each: {', '.join(wrong)}; got {', '.join(found)}")
    ours = tuple(name for name in found if name in wanted)
    order = "in the robot's order" if ours == wanted else "in another order, read by name"
    others = f", with {len(found) - len(wanted)} others" if len(found) > len(wanted) else ""
    return Answer("joint names", Level.PASS, f"all {len(wanted)} there, {order}{others}")


def judge_commands(heard: Heard) -> Iterator[Answer]:
    """Nobody else may send, and somebody should obey."""
    for one in heard.commands:
        question = f"commands {one.topic}"
        obeying = f"read by {', '.join(one.subscribers)}" if one.subscribers else "read by nobody: is the driver up?"
        if one.publishers:
            yield Answer(question, Level.FAIL, f"expected no publisher, got {', '.join(one.publishers)}; {obeying}")
        else:
            yield Answer(question, Level.PASS if one.subscribers else Level.WARN, obeying)


def judge_policy(
    policy: PolicyRuntime, robot: RobotDescription, forward: ForwardKinematics, heard: Heard
) -> Iterator[Answer]:
    """What the policy sees now against what it was trained on, and where it would go first. Nothing is sent."""
    differences = policy.contract.differences(robot)
    yield Answer("robot", Level.FAIL if differences else Level.PASS, "; ".join(differences) or f"fits {robot.id}")
    if heard.measurement is None or differences:
        return
    try:
        controller = Controller(policy.contract, robot, forward, InlineInference(policy))
        controller.activate(heard.now, heard.measurement, seed=0)
        tick = controller.tick(heard.now, heard.measurement)
    except OneStrideError as error:
        yield Answer("activation", Level.FAIL, str(error))
        return
    if tick.mode is not Mode.ACTIVE or tick.observation is None or tick.action is None:
        yield Answer("activation", Level.FAIL, tick.reason or "the policy gave no action")
        return
    yield Answer("activation", Level.PASS, "the controller would begin here")
    yield judge_ranges(policy.contract, tick.observation[policy.contract.newest_step])
    start = np.clip(heard.measurement.position, *robot.position_limits)
    target = ActionMapper(policy.contract, forward).target(heard.measurement, tick.action, start)
    yield judge_jump(robot, heard.measurement.position, target, 1.0 / policy.contract.execution.policy_rate)


def judge_ranges(contract: Contract, observation: Array) -> Answer:
    """Whether one observation step (Do,) is like those the policy has learnt from."""
    low, high = np.array(contract.dataset.minimum), np.array(contract.dataset.maximum)
    outside = beyond(observation, low, high)
    if (outside <= 1e-6).all():
        return Answer("training ranges", Level.PASS, f"all {len(observation)} elements within them")
    worst = np.argsort(outside)[::-1][:3]
    told = [
        f"{contract.observation_names[i]} expected {low[i]:.4g} to {high[i]:.4g}, got {observation[i]:.4g}"
        for i in worst.tolist()
        if outside[i] > 1e-6
    ]
    return Answer("training ranges", Level.WARN, f"{int((outside > 1e-6).sum())} elements outside: {'; '.join(told)}")


def judge_jump(robot: RobotDescription, position: Array, target: Array, within: float) -> Answer:
    """How far the first action's joint targets (n,) are from the measured joints (n,) [rad].

    Args:
        robot: for its speeds.
        position: measured (n,).
        target: what the first action asks for (n,).
        within: the time it has [s].
    """
    jump, allowed = np.abs(target - position), robot.velocity_limits * within
    joint = int(np.argmax(np.where(np.isfinite(allowed), jump, 0.0)))
    share = np.where(np.isfinite(allowed), jump / allowed, 0.0)
    detail = f"at most {jump[joint]:.3f} rad, of {robot.joint_names[joint]}"
    if share.max() <= 1.0:
        return Answer("first command", Level.PASS, detail)
    worst = int(share.argmax())
    return Answer(
        "first command",
        Level.WARN,
        f"{robot.joint_names[worst]} is asked to move {jump[worst]:.3f} rad in {within:g} s; expected at most "
        f"{allowed[worst]:.3f} rad: the safety chain will slow it",
    )
