"""What a controller tells a recorder of each tick: one array of numbers, and how it is laid out.

The layout is announced once, as JSON; it carries the contract, so that a recorder needs no file and no setting of its
own. Ticks are packed where the control loop runs and unpacked where they are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from onestride.deploy.contract import Contract
from onestride.deploy.controller import Actor, Controller, Mode, Tick
from onestride.hardware.description import CommandGroup, RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Model, explain
from onestride.hardware.state import Array

#: Modes by their number in a packed tick and in recordings.
MODES = tuple(Mode)

#: Likewise, who acts.
ACTORS = tuple(Actor)

_HEAD = (
    "activation",
    "index",
    "seed",
    "second",
    "nanosecond",
    "mode",
    "late",
    "elapsed",
    "age",
    "observed",
    "acted",
    "feasible",
)


@dataclass(frozen=True)
class Moment:
    """When and in which activation a tick happened.

    Attributes:
        activation: counts from 1.
        index: of the tick within its activation, from 0 and without gaps.
        seed: of the activation's noise.
        stamp: the system's clock when the tick began [ns].
        late: how late it began [s].
        elapsed: from its beginning until its command was sent [s].
        age: of the joint state it saw [s].
    """

    activation: int
    index: int
    seed: int
    stamp: int
    late: float
    elapsed: float
    age: float


@dataclass(frozen=True)
class TickRow:
    """A tick as a recorder sees it.

    Attributes:
        moment: when.
        mode: after the tick.
        feasible: whether the filters could keep their claims; true where they were not asked.
        active: filters that changed the nominal action (F,).
        nominal: joint targets before the filters (n,) [rad]; the command where the policy was not followed.
        command: joint targets sent (n,) [rad]: the certified ones, or the safe stop's; None if nothing was sent.
        observation: one step (Do,), if a policy step began.
        action: the nominal one (Da,), if one began to be executed.
        actor: who acts; None without a person at the controls.
        policy_action: the policy's (Da,) in the running step, where a person is at the controls and it is known.
        velocity: of the base, as estimated (3,) [m/s]; None where nothing estimates it.
    """

    moment: Moment
    mode: Mode
    feasible: bool
    active: NDArray[np.bool_]
    nominal: Array | None
    command: Array | None
    observation: Array | None
    action: Array | None
    actor: Actor | None = None
    policy_action: Array | None = None
    velocity: Array | None = None


class TickLayout(Model):
    """How ticks are packed, and of what.

    Attributes:
        format: version.
        contract: of the policy that runs.
        policy_sha256: of its file.
        joints: in the order of every joint array.
        commands: the command topics and their joints.
        filters: names of the safety filters, in order.
        control_rate: ticks per second [Hz].
        operator: the device by which a person acts, `joy`, `twist` or `leader`; empty without one.
        nfe: network evaluations per action; None where no policy runs, or it is not known.
        runtime: what the bits of an inference depend on beside the file, see `runtime_identity`.
        varied: why the actions depended on how long each inference took; empty where they did not.
        feet: of a robot on legs, in the order of their forces; empty for a robot without a floating base.
        imu_frame: that messages of the inertial sensor name; None where that is not checked.
        topics: of streams that have another than their usual one, by the stream's name.
    """

    format: Literal[1] = 1
    contract: Contract
    policy_sha256: str
    joints: tuple[str, ...] = Field(min_length=1)
    commands: tuple[CommandGroup, ...]
    filters: tuple[str, ...]
    control_rate: float
    operator: str = ""
    nfe: int | None = None
    runtime: str = ""
    varied: str = ""
    feet: tuple[str, ...] = ()
    imu_frame: str | None = None
    topics: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(
        cls,
        controller: Controller,
        policy_sha256: str,
        operator: str = "",
        *,
        nfe: int | None = None,
        runtime: str = "",
        varied: str = "",
        topics: Mapping[str, str] | None = None,
    ) -> TickLayout:
        """The layout of a controller's ticks."""
        robot: RobotDescription = controller.robot
        return cls(
            contract=controller.contract,
            policy_sha256=policy_sha256,
            joints=robot.joint_names,
            commands=robot.commands,
            filters=tuple(one.name for one in controller.chain.filters),
            control_rate=round(1.0 / controller.period, 6),
            operator=operator,
            nfe=nfe,
            runtime=runtime,
            varied=varied,
            feet=() if robot.base is None else tuple(foot.name for foot in robot.base.feet),
            imu_frame=None if robot.base is None else robot.base.imu_frame,
            topics=dict(topics or {}),
        )

    @cached_property
    def places(self) -> dict[str, slice]:
        """Where each part lies in a packed tick."""
        sizes = {
            "head": len(_HEAD),
            "active": len(self.filters),
            "nominal": len(self.joints),
            "command": len(self.joints),
            "observation": self.contract.observation_size,
            "action": self.contract.action_size,
            "actor": 1 if self.operator else 0,
            "policy_action": self.contract.action_size if self.operator else 0,
            "velocity": 3 if self.contract.needs_estimator else 0,
        }
        ends = np.cumsum(list(sizes.values())).tolist()
        return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}

    @property
    def size(self) -> int:
        """Numbers in a packed tick."""
        return int(self.places["velocity"].stop)

    def pack(self, into: Array, tick: Tick, moment: Moment) -> None:
        """Write a tick into `into` (size,); absent parts become NaN."""
        certified = tick.certified
        into[self.places["head"]] = (
            moment.activation,
            moment.index,
            moment.seed,
            moment.stamp // 1_000_000_000,
            moment.stamp % 1_000_000_000,
            MODES.index(tick.mode),
            moment.late,
            moment.elapsed,
            moment.age,
            tick.observation is not None,
            tick.action is not None,
            certified is None or certified.feasible,
        )
        into[self.places["active"]] = self._active(() if certified is None else certified.active)
        into[self.places["nominal"]] = _or_nan(tick.nominal if tick.nominal is not None else tick.command)
        into[self.places["command"]] = _or_nan(tick.command)
        step = None if tick.observation is None else tick.observation[self.contract.newest_step]
        into[self.places["observation"]] = _or_nan(step)
        into[self.places["action"]] = _or_nan(tick.action)
        if self.operator:
            into[self.places["actor"]] = np.nan if tick.actor is None else ACTORS.index(tick.actor)
            into[self.places["policy_action"]] = _or_nan(tick.policy_action)
        into[self.places["velocity"]] = _or_nan(tick.velocity)

    def unpack(self, values: Array) -> TickRow:
        """A tick from its numbers.

        Raises:
            OneStrideError: there are more or fewer than the layout says.
        """
        if values.shape != (self.size,):
            raise OneStrideError(f"expected a tick of {self.size} numbers, got {values.shape}")
        head = dict(zip(_HEAD, values[self.places["head"]].tolist(), strict=True))
        stamp = int(head["second"]) * 1_000_000_000 + int(head["nanosecond"])
        moment = Moment(
            int(head["activation"]),
            int(head["index"]),
            int(head["seed"]),
            stamp,
            head["late"],
            head["elapsed"],
            head["age"],
        )
        sent = not np.isnan(values[self.places["command"]]).any()
        return TickRow(
            moment=moment,
            mode=MODES[int(head["mode"])],
            feasible=bool(head["feasible"]),
            active=values[self.places["active"]] > 0,
            nominal=np.array(values[self.places["nominal"]]) if sent else None,
            command=np.array(values[self.places["command"]]) if sent else None,
            observation=np.array(values[self.places["observation"]]) if head["observed"] else None,
            action=np.array(values[self.places["action"]]) if head["acted"] else None,
            actor=self._actor(values[self.places["actor"]]),
            policy_action=_known(values[self.places["policy_action"]]),
            velocity=_known(values[self.places["velocity"]]),
        )

    @staticmethod
    def _actor(values: Array) -> Actor | None:
        known = _known(values)
        return None if known is None else ACTORS[int(known[0])]

    def _active(self, rules: tuple[str, ...]) -> list[bool]:
        names = {rule.partition(".")[0] for rule in rules}
        return [name in names for name in self.filters]


def _or_nan(values: Array | None) -> Array | float:
    return np.nan if values is None else values


def _known(values: Array) -> Array | None:
    return np.array(values) if len(values) and not np.isnan(values).any() else None


def parse_layout(text: str) -> TickLayout:
    """Read an announced layout.

    Raises:
        OneStrideError: it is not one of this version.
    """
    try:
        return TickLayout.model_validate_json(text)
    except ValidationError as error:
        raise OneStrideError(f"announced ticks: {explain(error)}") from None
