"""A robot with rows of geometry, pushed about by someone who means it harm: commands only, no dynamics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from limited_arm import limited_ur5e

from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.apart import Apart
from onestride.deploy.safety.collision import Collision
from onestride.deploy.safety.frames import Frames
from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.stop import DecelerateAndHold
from onestride.deploy.safety.stopping import Stopping
from onestride.deploy.safety.types import ControlState
from onestride.deploy.safety.workspace import Workspace
from onestride.hardware.description import RobotDescription
from onestride.hardware.safety.geometry import CollisionRow, WorkspaceRow
from onestride.hardware.state import Array, Measurement

ROBOT = limited_ur5e()
HOME = np.array([joint.default for joint in ROBOT.joints])
PERIOD = 0.005

WORKSPACE = WorkspaceRow.model_validate(
    {
        "frames": {"pinch": 0.05, "flange": 0.0},
        "inside": [[-0.7, -0.9, 0.02], [0.9, 0.9, 1.1]],
        "half_spaces": [{"name": "slant", "normal": [1, 1, 0], "offset": 1.0}],
        "spheres": [{"name": "ball", "centre": [0.5, 0.35, 0.3], "radius": 0.1}],
        "boxes": [{"name": "crate", "lowest": [0.3, -0.4, 0.0], "highest": [0.5, -0.2, 0.25]}],
    }
)


def limited(acceleration: float | None, jerk: float | None) -> RobotDescription:
    """The robot with these limits on every joint of the arm."""
    joints = tuple(
        joint if joint.velocity is None else joint.model_copy(update={"acceleration": acceleration, "jerk": jerk})
        for joint in ROBOT.joints
    )
    return ROBOT.model_copy(update={"joints": joints})


@dataclass
class Geometry:
    """The parts that a chain makes, at hand for tests."""

    forward: ForwardKinematics
    robot: RobotDescription = ROBOT
    workspace_terms: WorkspaceRow = WORKSPACE
    collision_terms: CollisionRow = field(default_factory=CollisionRow)

    def __post_init__(self) -> None:
        self.frames = Frames(self.forward)
        self.workspace = Workspace(self.workspace_terms, self.frames)
        self.collision = Collision(self.collision_terms, self.frames)

    def sources(self) -> list[Apart]:
        """Row sources of both kinds."""
        terms = self.workspace_terms, self.collision_terms
        kinds = ("workspace", self.workspace), ("collision", self.collision)
        stopping = Stopping(self.robot)
        return [Apart(*kind, stopping, one.reserve) for kind, one in zip(kinds, terms, strict=True)]


#: A nominal command (n,) for a tick, from what was sent last.
Attack = Callable[[int, Array], Array]


class Pushed:
    """Certified commands one after another, as the controller sends them.

    Attributes:
        counts: of ticks, changed commands, refusals and rules.
        least: the smallest distance of each source at a command sent, less its margin [m].
    """

    def __init__(self, sources: list[Apart], robot: RobotDescription = ROBOT, period: float = PERIOD) -> None:
        self.sources, self._robot, self._period = sources, robot, period
        self.projection = Projection([JointLimits(robot), *sources], robot.joint_names)
        self.counts: Counter[str] = Counter()
        self.least = {source.name: np.inf for source in sources}
        self.place(HOME)

    def place(self, position: Array) -> None:
        """At rest somewhere."""
        self.sent, self.velocity, self.acceleration = position, np.zeros(7), np.zeros(7)

    @property
    def state(self) -> ControlState:
        """What the chain is told."""
        measurement = Measurement(self.sent, self.velocity)
        memory = self.velocity, self.acceleration
        return ControlState(0.0, self._period, measurement, self.sent, 0.0, 1.0, *memory)

    def distances(self, position: Array) -> dict[str, float]:
        """The smallest of each source, less its margin [m]."""
        return {one.name: float(one._clearing.at(position[None]).distance.min()) for one in self.sources}

    def push(self, nominal: Array) -> Array:
        """Send what is certified for a nominal command; the safe stop's next command if nothing is."""
        answer = self.projection.certify(self.state, nominal)
        self.counts.update(("ticks", *answer.active))
        command = answer.action
        if not answer.feasible:
            self.counts[f"refused: {answer.reason}"] += 1
            command = self.stop()[0]
        velocity = (command - self.sent) / self._period
        self.acceleration = (velocity - self.velocity) / self._period
        self.sent, self.velocity = command, velocity
        for name, distance in self.distances(command).items():
            self.least[name] = min(self.least[name], distance)
        return command

    def stop(self) -> Array:
        """The commands of the safe stop from here, to rest (T, n)."""
        stop = DecelerateAndHold(self._robot, self._period)
        stop.begin(self.sent, self.velocity, self.acceleration)
        commands = [stop.next()]
        while not stop.at_rest:
            commands.append(stop.next())
        return np.array(commands)

    @property
    def refusals(self) -> dict[str, int]:
        """How often nothing could be certified, and why."""
        return {what: count for what, count in self.counts.items() if what.startswith("refused")}


def far_away(rng: np.random.Generator, _: list[Apart]) -> Attack:
    """Ask for far away postures, at once."""
    target = HOME

    def attack(tick: int, _: Array) -> Array:
        nonlocal target
        if tick % 50 == 0:
            target = np.append(rng.uniform(-3.2, 3.2, 6), rng.uniform(0, 0.8))
        return target

    return attack


def steepest(rng: np.random.Generator, sources: list[Apart]) -> Attack:
    """Make one distance as small as possible at full speed, also while sliding along it."""
    source, row, aside = sources[0], 0, np.zeros(7)

    def attack(tick: int, sent: Array) -> Array:
        nonlocal source, row, aside
        if tick % 150 == 0:
            source = sources[rng.integers(len(sources))]
            row = int(rng.integers(len(source._clearing.names)))
            aside = rng.normal(size=7) * rng.choice([0.0, 0.01, 0.1])
        rate = source._clearing.at(sent[None]).rate[0, row]
        return sent - 0.05 * rate / max(float(np.linalg.norm(rate)), 1e-9) + aside

    return attack


def reversing(rng: np.random.Generator, _: list[Apart]) -> Attack:
    """All joints to and fro at full speed."""
    way = np.ones(7)

    def attack(tick: int, sent: Array) -> Array:
        nonlocal way
        if tick % 40 == 0:
            way = rng.choice([-1.0, 1.0], 7)
        return sent + 0.1 * way

    return attack


ATTACKS = {"far_away": far_away, "steepest": steepest, "reversing": reversing}
