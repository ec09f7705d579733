"""What is recorded of a running policy: the schema, from its contract, and the policy's steps, from its ticks.

The base stream has one row for each step of the policy, with the observation it was fed and the action it gave, named
as the contract names them: a policy learns from a recording as it learns from any other store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from onestride.datasets.schema import Feature, LabelSource, Role, Schema
from onestride.deploy.contract import Contract
from onestride.deploy.controller import Actor
from onestride.deploy.recorded_base import base_features
from onestride.deploy.terms import ObjectSource, ScalarSource
from onestride.deploy.ticks import ACTORS, MODES, TickLayout, TickRow
from onestride.hardware.state import Array

#: Streams beside the base. Efforts have one of their own, which stays empty where the robot reports none.
TICKS, JOINTS, EFFORTS = "ticks", "joint_states", "joint_effort"

#: Sources of a label by their number in the feature `label_source`.
LABEL_SOURCES: tuple[str, ...] = get_args(LabelSource)
NOMINAL, HUMAN = LABEL_SOURCES.index("nominal"), LABEL_SOURCES.index("human")

#: Age of a joint state that has never come, in recordings, which hold finite numbers only [s].
NEVER = 1e6

_POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
_TIMING = ("late", "elapsed", "joint_age")


def object_stream(name: str) -> str:
    """The stream and feature of an object's pose."""
    return f"object.{name}"


def scalar_stream(name: str) -> str:
    """The stream and feature of a scalar reading."""
    return f"scalar.{name}"


def command_stream(topic: str) -> str:
    """The stream and feature of a command topic."""
    return f"command.{topic.strip('/').replace('/', '.')}"


def observed(contract: Contract) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Objects and scalars that a policy observes."""
    sources = [term.source for term in contract.observations]
    objects = [source.object for source in sources if isinstance(source, ObjectSource)]
    scalars = [source.scalar for source in sources if isinstance(source, ScalarSource)]
    return tuple(dict.fromkeys(objects)), tuple(dict.fromkeys(scalars))


def recorded_schema(layout: TickLayout) -> Schema:
    """The schema of what is recorded while a policy runs.

    Its label is `action`, the nominal action of whoever acted; `intervened` says whether a filter changed a command
    while it was executed. With a person at the controls, `actor` says who acted, and `policy_action` what the policy
    gave for the step where `policy_known`.
    """
    contract = layout.contract
    supervised = _supervised(contract) if layout.operator else ()
    return Schema(
        features=(
            *_steps(contract),
            *supervised,
            *_ticks(layout),
            *_joints(layout),
            *base_features(layout),
            *_surroundings(contract),
            *_commands(layout),
        ),
        control_rate=contract.execution.policy_rate,
        label="action",
        label_source="nominal",
        environment=contract.environment,
        robot=contract.robot.id if contract.robot is not None else None,
    )


def _steps(contract: Contract) -> tuple[Feature, ...]:
    return (
        Feature(
            name="observation",
            role="observation",
            shape=(contract.observation_size,),
            dtype="float32",
            names=contract.observation_names,
            units=contract.observation_units,
        ),
        Feature(
            name="action", role="action", shape=(contract.action_size,), dtype="float32", names=contract.action_names
        ),
        Feature(name="terminal", role="terminal", shape=(), dtype="bool"),
        Feature(name="intervened", role="info", shape=(), dtype="bool"),
        Feature(name="label_source", role="info", shape=(), dtype="uint8"),
    )


def _supervised(contract: Contract) -> tuple[Feature, ...]:
    size, names = contract.action_size, contract.action_names
    return (
        Feature(name="actor", role="info", shape=(), dtype="uint8"),
        Feature(name="policy_action", role="info", shape=(size,), dtype="float32", names=names),
        Feature(name="policy_known", role="info", shape=(), dtype="bool"),
    )


def _row(
    name: str, stream: str, dtype: str, names: tuple[str, ...] = (), unit: str = "", *, role: Role = "info"
) -> Feature:
    """A feature beside the base stream: one element for each name, a scalar without names."""
    shape, units = ((len(names),), (unit,) * len(names) if unit else ()) if names else ((), ())
    return Feature(name=name, role=role, shape=shape, dtype=dtype, names=names, units=units, stream=stream)


def _ticks(layout: TickLayout) -> list[Feature]:
    features = [
        _row("mode", TICKS, "uint8"),
        _row("nominal", TICKS, "float64", layout.joints, "rad"),
        _row("certified", TICKS, "float64", layout.joints, "rad"),
        _row("feasible", TICKS, "bool"),
        _row("timing", TICKS, "float64", _TIMING, "s"),
    ]
    return [*features, _row("filters_active", TICKS, "bool", layout.filters)] if layout.filters else features


def _joints(layout: TickLayout) -> list[Feature]:
    return [
        _row("joint_position", JOINTS, "float64", layout.joints, "rad", role="state"),
        _row("joint_velocity", JOINTS, "float64", layout.joints, "rad/s", role="state"),
        _row(EFFORTS, EFFORTS, "float64", layout.joints, "Nm", role="state"),
    ]


def _surroundings(contract: Contract) -> list[Feature]:
    objects, scalars = observed(contract)
    units = ("m",) * 3 + ("1",) * 4
    poses = [
        Feature(name=name, role="state", shape=(7,), dtype="float64", names=_POSE, units=units, stream=name)
        for name in map(object_stream, objects)
    ]
    readings = [_row(name, name, "float64", role="state") for name in map(scalar_stream, scalars)]
    return poses + readings


def _commands(layout: TickLayout) -> list[Feature]:
    streams = [(command_stream(group.topic), group.joints) for group in layout.commands]
    return [_row(stream, stream, "float64", joints, "rad") for stream, joints in streams]


def tick_values(row: TickRow) -> dict[str, Any] | None:
    """A row of the stream `ticks`; None for a tick that sent nothing."""
    if row.command is None:
        return None
    moment = row.moment
    return {
        "mode": MODES.index(row.mode),
        "nominal": row.nominal,
        "certified": row.command,
        "filters_active": row.active,
        "feasible": row.feasible,
        "timing": (moment.late, moment.elapsed, min(moment.age, NEVER)),
    }


@dataclass
class PolicyStep:
    """A step of the policy, complete once the next begins.

    Attributes:
        stamp: when it was observed [ns].
        observation: what the policy was fed (Do,).
        action: the nominal one (Da,): what it gave, unless a person acted or nobody.
        intervened: whether a filter changed a command while it was executed.
        actor: who acted; None without a person at the controls.
        policy_action: what the policy gave, whoever acted (Da,); None where it is not known.
    """

    stamp: int
    observation: Array
    action: Array
    intervened: bool = False
    actor: Actor | None = None
    policy_action: Array | None = None

    def values(self, *, terminal: bool = False) -> Mapping[str, Any]:
        """Its row of the base stream."""
        values = {
            "observation": np.asarray(self.observation, np.float32),
            "action": np.asarray(self.action, np.float32),
            "terminal": terminal,
            "intervened": self.intervened,
            "label_source": HUMAN if self.actor is Actor.OPERATOR else NOMINAL,
        }
        return values if self.actor is None else {**values, **self._supervised(self.actor)}

    def _supervised(self, actor: Actor) -> dict[str, Any]:
        known = self.policy_action is not None
        action = self.policy_action if known else np.zeros_like(self.action)
        return {
            "actor": ACTORS.index(actor),
            "policy_action": np.asarray(action, np.float32),
            "policy_known": known,
        }


class PolicySteps:
    """Gathers the steps of an episode from its ticks, and notices ticks that did not arrive.

    Attributes:
        activations: seed of each activation seen.
        lost: ticks that did not arrive.
        actors: steps by who acted, where a person is at the controls.
        after: what was observed after the last step (Do,), once finished; None where no observation came any more.
    """

    def __init__(self) -> None:
        self._observed: tuple[int, Array] | None = None
        self._step: PolicyStep | None = None
        self._last: tuple[int, int] | None = None
        self.activations: dict[int, int] = {}
        self.lost = 0
        self.actors: Counter[str] = Counter()
        self.after: Array | None = None

    def add(self, row: TickRow, *, expected: bool = True) -> PolicyStep | None:
        """Take a tick; the step that it completes.

        Args:
            row: the tick.
            expected: false for the first tick of an episode that begins while the controller is ticking.
        """
        self._count(row, expected=expected)
        done = None
        if row.observation is not None:
            self._observed = (row.moment.stamp, row.observation)
        if row.action is not None:
            done, self._step = self._step, None
            if self._observed is not None:
                self._step, self._observed = PolicyStep(*self._observed, row.action, actor=row.actor), None
                self.actors.update([] if row.actor is None else [row.actor.value])
        if self._step is not None and row.policy_action is not None:
            self._step.policy_action = row.policy_action
        if self._step is not None and row.active.any():
            self._step.intervened = True
        return done

    def finish(self) -> PolicyStep | None:
        """The last step, which nothing follows."""
        done, observed = self._step, self._observed
        self._step = self._observed = None
        if done is not None and observed is not None:
            self.after = observed[1]
        return done

    def _count(self, row: TickRow, *, expected: bool) -> None:
        activation, index = row.moment.activation, row.moment.index
        self.activations.setdefault(activation, row.moment.seed)
        before = self._last[1] if self._last is not None and self._last[0] == activation else -1
        if self._last is not None or expected:
            self.lost += max(0, index - before - 1)
        self._last = (activation, index)
