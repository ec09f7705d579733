"""Attacks on the shipped chain, tick by tick, on a robot whose drives follow as they declare and touch nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestride.deploy.certify.attacks import Attack
from onestride.deploy.certify.trace import Trace
from onestride.deploy.contract import Contract
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.stop import DecelerateAndHold
from onestride.deploy.safety.types import Certified, ControlState
from onestride.deploy.terms import ObjectSource, ScalarSource
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array, Measurement

#: How far random postures are drawn around the default pose for a start, as shares of the range, until one will do.
SHARES = np.geomspace(1.0, 0.02, 40)

#: How long a stopped robot is left alone before it is activated again [s].
REST = 0.1


def streams_of(contract: Contract) -> tuple[str, ...]:
    """Whatever a policy reads."""
    sources = [term.source for term in contract.observations]
    objects = [source.object for source in sources if isinstance(source, ObjectSource)]
    scalars = [source.scalar for source in sources if isinstance(source, ScalarSource)]
    return ("joints", *dict.fromkeys((*objects, *scalars)))


@dataclass
class KinematicRobot:
    """Joints that follow their commands as a first-order lag of damping over stiffness; nothing else acts on them.

    Attributes:
        robot: the robot.
        period: of its commands [s].
        streams: that are always fresh.
        position: (n,) [rad].
        now: [s].
    """

    robot: RobotDescription
    period: float
    streams: tuple[str, ...]
    position: Array
    now: float = 0.0

    def __post_init__(self) -> None:
        self._rate = np.array([joint.stiffness / joint.damping for joint in self.robot.joints])
        self._left = np.exp(-self._rate * self.period)

    def measured(self, sent: Array) -> Measurement:
        """Now, with `sent` (n,) [rad] in force; spring and damper are in balance, so that the effort is nothing."""
        velocity = (sent - self.position) * self._rate
        received = dict.fromkeys(self.streams, self.now)
        return Measurement(self.position.copy(), velocity, {}, {}, received, np.zeros_like(velocity))

    def follow(self, command: Array) -> None:
        """One period under a command (n,) [rad]."""
        self.position = command + (self.position - command) * self._left
        self.now += self.period


class Pushed:
    """A chain under attack, driven as the controller drives it: certified commands, or the safe stop.

    After a stop, the robot is activated again from where it stands.
    """

    def __init__(self, chain: Chain, robot: RobotDescription, plant: KinematicRobot) -> None:
        self._chain, self._robot, self._plant = chain, robot, plant
        self._stop = DecelerateAndHold(robot, plant.period)
        self._place(plant.position)

    def _place(self, position: Array) -> None:
        self._sent, self._velocity, self._acceleration = position, np.zeros_like(position), np.zeros_like(position)

    def _state(self) -> ControlState:
        plant, memory = self._plant, (self._velocity, self._acceleration)
        return ControlState(plant.now, plant.period, plant.measured(self._sent), self._sent, 0.0, 1.0, *memory)

    def activates(self) -> str:
        """Begin from here; why not, or nothing."""
        state = self._state()
        self._chain.begin(state)
        return self._chain.certify(state, self._sent).reason

    def run(self, attack: Attack, ticks: int) -> Trace:
        """Push for so many ticks, and some more until a stop that began has ended."""
        trace = Trace(self._plant.period, [self._sent])
        while len(trace.answers) < ticks:
            state = self._state()
            self._chain.observe(state)
            answer = self._chain.certify(state, attack(len(trace.answers), self._sent))
            if answer.feasible:
                self._send(trace, state, answer.action, answer)
            else:
                trace.reasons.append(answer.reason)
                self._come_to_rest(trace, state)
                if self.activates():
                    break
        return trace

    def _send(self, trace: Trace, state: ControlState, command: Array, answer: Certified | None) -> None:
        self._chain.sent(state, command)
        velocity = (command - self._sent) / self._plant.period
        self._acceleration = (velocity - self._velocity) / self._plant.period
        self._sent, self._velocity = command, velocity
        self._plant.follow(command)
        trace.note(command, answer)

    def _come_to_rest(self, trace: Trace, state: ControlState) -> None:
        """The declared stop; an unfinished one is left to itself after twice its time."""
        terms, period = self._robot.safe_stop, self._plant.period
        self._stop.begin(self._sent, self._velocity, self._acceleration)
        took, resting = 0, 0
        while resting * period < REST and took * period < 2 * terms.completes_within:
            self._send(trace, state, self._stop.next(), None)
            took, resting = took + (not self._stop.at_rest), resting + self._stop.at_rest
            state = self._state()
            self._chain.observe(state)
        trace.late_stops += took * period > terms.completes_within


@dataclass(frozen=True)
class Arena:
    """Where chains are attacked.

    Attributes:
        robot: the robot.
        contract: of its policy.
        period: of the commands [s].
        chain: under attack.
    """

    robot: RobotDescription
    contract: Contract
    period: float
    chain: Chain

    def run(self, attack: Attack, ticks: int, rng: np.random.Generator) -> Trace:
        """One attack, from a random posture in which the chain lets control begin.

        Raises:
            OneStrideError: it does so in none, nor in the default pose.
        """
        return self._begun(rng).run(attack, ticks)

    def _begun(self, rng: np.random.Generator) -> Pushed:
        lower, upper = self.robot.position_limits
        home = np.array([joint.default for joint in self.robot.joints])
        drawn = [home + share * (rng.uniform(lower, upper) - home) for share in SHARES]
        reason = ""
        for start in (*drawn, home):
            plant = KinematicRobot(self.robot, self.period, streams_of(self.contract), start)
            pushed = Pushed(self.chain, self.robot, plant)
            reason = pushed.activates()
            if not reason:
                return pushed
        raise OneStrideError(f"robot {self.robot.id}: control cannot begin in its default pose: {reason}")
