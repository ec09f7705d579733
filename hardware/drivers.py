"""A robot's usual ROS 2 driver as data: what it publishes, what it obeys, and how long it goes on without a command."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from onestride.hardware.model import Interval, Model, Positive

#: What a driver's command message is; `onestride.deploy.drivers` maps those that are not plain numbers.
MessageKind = Literal[
    "forward_command", "joint_trajectory", "gripper_action", "unitree_lowcmd", "unitree_legged_lowcmd", "spot_command"
]

_TYPE = r"^[a-z][a-z0-9_]*/(msg|srv|action)/[A-Z]\w*$"
MessageType = Annotated[str, Field(pattern=_TYPE)]


class DriverState(Model):
    """One topic that the driver publishes.

    Attributes:
        topic: its usual name.
        message: its type, `package/msg/Name`.
        rate: how often it comes [Hz]; none where it comes on change.
    """

    topic: str
    message: MessageType
    rate: Positive | None


class DriverCommand(Model):
    """One topic or action that the driver obeys.

    Attributes:
        kind: what its message means.
        topic: its usual name.
        message: its type, `package/msg/Name` or `package/action/Name`.
        controller: the ros2_control controller that must be active; none where there are no controllers.
        joints: the joints it moves, by the names and in the order of the message.
        rate: lowest and highest useful rate [Hz]; none where it is sent on change.
        timeout: after how long without a command the driver itself stops the robot [s]; none where it never does.
    """

    kind: MessageKind
    topic: str
    message: MessageType
    controller: str | None = None
    joints: tuple[str, ...] = Field(min_length=1)
    rate: Interval | None
    timeout: Positive | None


class DriverProfile(Model):
    """How a driver is talked to.

    Attributes:
        title: the driver, and the versions this profile was written from.
        docs: where its authors describe it.
        states: stream of the measurement (`joints`, `imu`, ...) -> the topic it comes from.
        commands: what it obeys, each under a name of ours; the first is the one that streams.
        notes: what a person has to know before they trust it.
    """

    title: str
    docs: Annotated[str, Field(pattern=r"^https://")]
    states: dict[str, DriverState]
    commands: dict[str, DriverCommand]
    notes: str = ""

    @model_validator(mode="after")
    def _both_ways(self) -> DriverProfile:
        if not self.commands:
            raise ValueError("expected at least one command, got none")
        if "joints" not in self.states:
            raise ValueError(f"states: expected the stream joints, got {', '.join(self.states) or 'none'}")
        return self

    @property
    def streaming(self) -> DriverCommand:
        """The command that a controller streams to."""
        return next(iter(self.commands.values()))
