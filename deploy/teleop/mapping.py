"""Which stick, button or leader joint asks for what: a small YAML file, checked against the contract."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from onestride.deploy.contract import Contract
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.model import Model, explain

Index = Annotated[int, Field(ge=0)]

#: Axes of `joy_node` for a gamepad: left stick up and left, right stick up and left.
_STICKS = ((".x", 1), (".y", 0), (".z", 4), (".yaw", 3))


class Axis(Model):
    """An axis of the joystick that moves one element of the action.

    Attributes:
        axis: its index in `sensor_msgs/Joy.axes`.
        gain: how much of the element's box full deflection asks for; negative turns the direction round.
    """

    axis: Index
    gain: Annotated[float, Field(ge=-1, le=1)] = 1.0


class GripperButtons(Model):
    """Buttons that open and close a gripper; what was asked last goes on, until the person lets go of the robot.

    Attributes:
        element: of the action.
        open: button.
        close: button.
        closing: the direction of the element that closes.
    """

    element: str
    open: Index = 1
    close: Index = 0
    closing: Literal[-1, 1] = 1


class EpisodeButtons(Model):
    """Buttons that tell the recording what an episode is.

    Attributes:
        start: begin one.
        success: end it, it succeeded.
        end: end it, it did not.
        discard: end it, nobody wants it.
    """

    start: Index = 7
    success: Index = 3
    end: Index = 6
    discard: Index = 2


class LeaderJoint(Model):
    """A joint of the leader arm that stands for a joint of the robot, at `sign * reading + offset`.

    Attributes:
        name: in the leader's `sensor_msgs/JointState`.
        sign: turns the direction round.
        offset: [rad].
    """

    name: str
    sign: Literal[-1, 1] = 1
    offset: float = 0.0


class LeaderGripper(Model):
    """The leader's grip, which places the robot's gripper between its limits.

    Attributes:
        name: in the leader's `sensor_msgs/JointState`.
        open: its reading when open.
        closed: its reading when closed.
    """

    name: str
    open: float
    closed: float


class Leader(Model):
    """A leader arm, of the robot's own kinematics.

    Attributes:
        joints: joint of the robot -> joint of the leader.
        gripper: the leader's grip; without it the gripper's buttons serve.
        follow: `relative` moves as the leader has moved since the person took the robot, `absolute` goes where the
            leader is.
    """

    joints: dict[str, LeaderJoint] = Field(default_factory=dict)
    gripper: LeaderGripper | None = None
    follow: Literal["relative", "absolute"] = "relative"


class Mapping(Model):
    """What the person's devices mean. Buttons always come from a `sensor_msgs/Joy`.

    Attributes:
        deadman: button that must be held for any motion; with a policy, the button that takes over.
        stale: oldest message that counts [s].
        dead_zone: share of an axis' travel about its middle that asks for nothing.
        axes: element of the action -> axis.
        gripper: buttons of the gripper; null for none.
        episode: buttons of the recording.
        reference: what axes and twists move on from: where the robot was `sent`, so that it stays when nothing is
            asked, or where it is `measured`, so that the action is what is asked, number by number.
        twist: `si` takes [m/s] and [rad/s], `unitless` shares of the action's box.
        leader: the leader arm.
    """

    deadman: Index = 5
    stale: Annotated[float, Field(gt=0, le=2)] = 0.2
    dead_zone: Annotated[float, Field(ge=0, lt=1)] = 0.1
    axes: dict[str, Axis] = Field(default_factory=dict)
    gripper: GripperButtons | None = None
    episode: EpisodeButtons = EpisodeButtons()
    reference: Literal["sent", "measured"] = "sent"
    twist: Literal["si", "unitless"] = "si"
    leader: Leader = Leader()

    @property
    def buttons(self) -> int:
        """How many buttons the joystick must have."""
        gripper = [] if self.gripper is None else [self.gripper.open, self.gripper.close]
        episode = self.episode
        return 1 + max(self.deadman, episode.start, episode.success, episode.end, episode.discard, *gripper)

    def check(self, contract: Contract) -> None:
        """Refuse a mapping that does not fit.

        Raises:
            OneStrideError: it names an element of the action or a joint that does not exist, or gives a button two
                meanings.
        """
        gripper = () if self.gripper is None else (self.gripper.element,)
        _known("element of the action", (*self.axes, *gripper), contract.action_names)
        if self.gripper is not None and self.gripper.element in self.axes:
            raise OneStrideError(f"mapping: {self.gripper.element} has an axis and the gripper's buttons; expected one")
        _known("joint of the robot", self.leader.joints, contract.robot.joints if contract.robot else ())
        meanings = {"deadman": self.deadman, **self.episode.model_dump()}
        if self.gripper is not None:
            meanings |= {"open": self.gripper.open, "close": self.gripper.close}
        for name, button in meanings.items():
            others = [other for other, same in meanings.items() if same == button and other != name]
            if others:
                raise OneStrideError(f"mapping: button {button} means {name} and {', '.join(others)}; expected one")


def load_mapping(path: Path | None, contract: Contract) -> Mapping:
    """The defaults for a contract, with what a YAML file says instead.

    Raises:
        OneStrideError: the file is missing or unreadable, a field is wrong, or it does not fit the contract.
    """
    said = {} if path is None else _read(path)
    for term in contract.actions:
        if term.mode == "joint_position":
            raise OneStrideError(f"a person acts by increments, but the action {term.name} is joint positions")
    try:
        mapping = Mapping.model_validate(_over(_defaults(contract), said))
    except ValidationError as error:
        raise OneStrideError(f"{path}: mapping: {explain(error)}") from None
    mapping.check(contract)
    return mapping


def _read(path: Path) -> dict[str, Any]:
    try:
        said = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise OneStrideError(f"mapping: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OneStrideError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if said is None:
        return {}
    if not isinstance(said, dict) or not all(isinstance(name, str) for name in said):
        raise OneStrideError(f"{path}: mapping: expected fields with names, got {type(said).__name__}")
    return said


def _over(defaults: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """What is said over the defaults; of the gripper and the leader, field by field."""
    parts: dict[str, Any] = {
        name: {**defaults[name], **said[name]}
        for name in ("gripper", "leader")
        if isinstance(said.get(name), dict) and name in defaults
    }
    return {**defaults, **said, **parts}


def _defaults(contract: Contract) -> dict[str, Any]:
    moved = {name: {"axis": axis} for part, axis in _STICKS for name in contract.action_names if name.endswith(part)}
    grippers = _grippers(contract)
    arm = contract.kinematics.joints if contract.kinematics is not None else ()
    own = [joint for term in contract.actions for joint in term.joints if joint not in grippers]
    found: dict[str, Any] = {"axes": moved, "leader": {"joints": {joint: {"name": joint} for joint in (*arm, *own)}}}
    return {**found, "gripper": {"element": next(iter(grippers.values()))}} if grippers else found


def _grippers(contract: Contract) -> dict[str, str]:
    """Joints whose drives limit their own speed, as grippers' drives do, and the elements that move them."""
    robot = contract.robot
    limits = zip(robot.joints, robot.velocity, strict=True) if robot and robot.velocity else ()
    slow = {name for name, speed in limits if speed is None}
    return {
        joint: element
        for term in contract.actions
        for joint, element in zip(term.joints, term.element_names, strict=False)
        if joint in slow
    }


def _known(what: str, names: Iterable[str], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise unknown(f"{what} in the mapping", name, known)
