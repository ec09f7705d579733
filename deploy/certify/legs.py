"""Attacks on legs: the shipped chain between an adversary and the simulated robot, which falls as it likes.

What legs are claimed to keep depends on what is measured, so that the attacks run on the plant. Every command is held
against the position limits and, at the state that it was computed from, against the drives' efforts; leaning beyond the
declared tilt must end in the stop at once; and the stop must take energy out of the robot.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onestride.deploy.certify.attacks import Attack
from onestride.deploy.certify.limits import JointBounds
from onestride.deploy.certify.plant_runs import MeteredPlant
from onestride.deploy.certify.trace import Trace
from onestride.deploy.contract import Contract
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.tilt import tilt_of
from onestride.deploy.safety.types import ControlState
from onestride.deploy.sources import IMU, JOINTS
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.scene import Scene
from onestride.hardware.state import Array, Measurement

#: Targets of soft drives may jump: no speed, acceleration or jerk of theirs is claimed.
BOUNDLESS = 1e12

#: What rounding may add to an effort, as a share of its limit, and to the energy that a stop delivers [J].
SAME_EFFORT, SAME_ENERGY = 1e-6, 1e-6

#: After how many stops a run ends: each takes seconds.
STOPS = 5


def jumping(bounds: JointBounds) -> JointBounds:
    """The same position limits, and no others."""
    free = np.full_like(bounds.lower, BOUNDLESS)
    return bounds._replace(velocity=free, acceleration=free, jerk=free)


class LegArena:
    """Where the chain of a robot on legs is attacked.

    Args:
        robot: the robot.
        contract: of its policy.
        period: of the commands [s].
        chain: under attack.
        scene: of the plant.
    """

    def __init__(self, robot: RobotDescription, contract: Contract, period: float, chain: Chain, scene: Scene) -> None:
        self._robot, self._period, self._chain = robot, period, chain
        self._plant = MeteredPlant(scene, robot)
        self._streams = (*(stream.name for stream in contract.streams), JOINTS.name, IMU.name)
        self._efforts = np.array([np.inf if joint.effort is None else joint.effort for joint in robot.joints])
        self._tilts = any(terms.filter == "tilt" for terms in robot.safety)
        self._ticks = 0

    def run(self, attack: Attack, ticks: int, rng: np.random.Generator) -> Trace:
        """One attack for so many ticks, from the default pose; after each stop the robot is put there again.

        Raises:
            OneStrideError: the chain does not let control begin there.
        """
        del rng
        trace, driven = Trace(self._period, [self._put_up()]), 0
        while driven < ticks and len(trace.reasons) < STOPS:
            state = self._state(trace.commands[-1])
            self._chain.observe(state)
            answer = self._chain.certify(state, attack(driven, trace.commands[-1]))
            driven += 1
            if not answer.feasible:
                trace.reasons.append(answer.reason)
                self._lie_down(trace, state)
                trace.commands[-1] = self._put_up()
                continue
            self._judge(trace, state.measurement, answer.action)
            self._chain.sent(state, answer.action)
            self._plant.command(answer.action)
            self._step()
            trace.note(answer.action, answer)
        return trace

    def _put_up(self) -> Array:
        """The robot in its default pose, and the command that holds it there (n,) [rad]."""
        measured = self._plant.reset()
        sent = np.clip(measured.position, *self._robot.position_limits)
        self._plant.command(sent)
        state = self._state(sent)
        self._chain.begin(state)
        reason = self._chain.certify(state, sent).reason
        if reason:
            raise OneStrideError(f"robot {self._robot.id}: control cannot begin in its default pose: {reason}")
        return sent

    def _state(self, sent: Array) -> ControlState:
        now = self._ticks * self._period
        measured = replace(self._plant.read(), received=dict.fromkeys(self._streams, now))
        return ControlState(now, self._period, measured, sent, 0.0, 1.0, np.zeros_like(sent), np.zeros_like(sent))

    def _step(self) -> None:
        timestep = self._plant.scene.physics_timestep
        done = round(self._ticks * self._period / timestep)
        self._ticks += 1
        self._plant.step(round(self._ticks * self._period / timestep) - done)

    def _judge(self, trace: Trace, measured: Measurement, command: Array) -> None:
        """Hold a command that is about to be sent against what was measured."""
        asked = ImpedanceCommand.towards(self._robot, command).torque(measured.position, measured.velocity)
        room = float((1.0 - np.abs(asked) / self._efforts).min())
        trace.rooms["effort"] = min(trace.rooms.get("effort", 1.0), room)
        trace.broken["impedance.effort"] += room < -SAME_EFFORT
        base = self._robot.base
        if self._tilts and base is not None and measured.imu is not None:
            trace.broken["tilt"] += not tilt_of(measured.imu) <= base.tilt

    def _lie_down(self, trace: Trace, state: ControlState) -> None:
        """The declared stop, for as long as it may take."""
        self._plant.damp()
        before = float(self._plant.delivered.sum())
        for _ in range(round(self._robot.safe_stop.completes_within / self._period)):
            self._step()
            trace.broken["safe_stop"] += float(self._plant.delivered.sum()) - before > SAME_ENERGY
            trace.note(state.last_sent, None)
