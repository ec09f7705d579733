"""From the chain that a robot declares to the filters that certify its commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from onestride.deploy.contract import Contract
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.apart import Apart
from onestride.deploy.safety.approach import Approach
from onestride.deploy.safety.barrier import BarrierRows
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.clock import Clock
from onestride.deploy.safety.collision import Collision
from onestride.deploy.safety.decrease import Decrease
from onestride.deploy.safety.envelope import Envelope
from onestride.deploy.safety.finite import Finite
from onestride.deploy.safety.frames import Frames
from onestride.deploy.safety.frozen import Frozen
from onestride.deploy.safety.frozen_imu import FrozenImu
from onestride.deploy.safety.guards import FreshStreams, PolicyAlive
from onestride.deploy.safety.impedance import ImpedanceLimits
from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.lyapunov import LyapunovRows
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.region import Region
from onestride.deploy.safety.sign import Sign
from onestride.deploy.safety.speed import Overspeed, Rate
from onestride.deploy.safety.stopping import Stopping
from onestride.deploy.safety.tank import make_tank
from onestride.deploy.safety.tilt import Tilt
from onestride.deploy.safety.tracking import Tracking
from onestride.deploy.safety.types import Filter, RowSource
from onestride.deploy.safety.workspace import Workspace
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError


@dataclass(frozen=True)
class Parts:
    """What filters and sources of rows are made from.

    Attributes:
        robot: the robot found.
        contract: of the policy that commands it.
        forward: its kinematics; None where there is no model of it at hand.
    """

    robot: RobotDescription
    contract: Contract
    forward: ForwardKinematics | None = None

    @property
    def kinematics(self) -> ForwardKinematics:
        """The kinematics, for those who cannot do without.

        Raises:
            OneStrideError: there are none.
        """
        if self.forward is None:
            raise OneStrideError(
                f"safety of robot {self.robot.id}: expected a MuJoCo model for rows of geometry, got none"
            )
        return self.forward

    @property
    def period(self) -> float:
        """Of the commands [s].

        Raises:
            OneStrideError: the contract names no control rate.
        """
        rate = self.contract.execution.control_rate
        if rate is None:
            raise OneStrideError("safety: certificates need a control rate, the contract names none")
        return 1.0 / rate

    @cached_property
    def frames(self) -> Frames:
        """The robot's geometry, one for all rows that are about it."""
        return Frames(self.kinematics)

    @cached_property
    def stopping(self) -> Stopping:
        """Where the safe stop leads, likewise."""
        return Stopping(self.robot)


def _projection(terms: Any, parts: Parts) -> Projection:
    return Projection([ROWS[row.row](row, parts) for row in terms.rows], parts.robot.joint_names)


#: Makers of filters by the name in YAML; each is given its terms and the parts.
FILTERS: dict[str, Callable[[Any, Parts], Filter]] = {
    "finite": lambda _, parts: Finite(len(parts.robot.joints)),
    "fresh_streams": lambda _, parts: FreshStreams.of(parts.contract, parts.robot),
    "policy_alive": lambda _, parts: PolicyAlive(parts.robot.detection),
    "clock": lambda terms, _: Clock(terms),
    "envelope": lambda terms, parts: Envelope(terms, parts.contract),
    "frozen": lambda terms, parts: Frozen(terms, parts.robot),
    "frozen_imu": lambda terms, parts: FrozenImu(terms, parts.robot),
    "sign": lambda terms, parts: Sign(terms, parts.robot),
    "rate": lambda terms, parts: Rate(terms, parts.robot),
    "overspeed": lambda terms, parts: Overspeed(terms, parts.robot),
    "tracking": lambda terms, parts: Tracking(terms, parts.robot),
    "tilt": lambda _, parts: Tilt(parts.robot),
    "region": lambda terms, parts: Region(terms, parts.robot, parts.period),
    "decrease": lambda terms, parts: Decrease(terms, parts.contract),
    "approach": lambda _, parts: Approach(parts.robot),
    "projection": _projection,
}

#: Makers of sources of rows by the name in YAML; likewise.
ROWS: dict[str, Callable[[Any, Parts], RowSource]] = {
    "joints": lambda _, parts: JointLimits(parts.robot),
    "impedance": lambda _, parts: ImpedanceLimits(parts.robot),
    "workspace": lambda terms, parts: Apart("workspace", Workspace(terms, parts.frames), parts.stopping, terms.reserve),
    "collision": lambda terms, parts: Apart("collision", Collision(terms, parts.frames), parts.stopping, terms.reserve),
    "tank": lambda terms, parts: make_tank(terms, parts.robot),
    "lyapunov": lambda terms, parts: LyapunovRows(terms, parts.robot, parts.period),
    "barrier": lambda terms, parts: BarrierRows(terms, parts.robot, parts.period),
}


def build_chain(contract: Contract, robot: RobotDescription, forward: ForwardKinematics | None = None) -> Chain:
    """The chain that a robot declares.

    Args:
        contract: of the policy that commands it.
        robot: the robot found.
        forward: its kinematics, for rows of geometry.

    Raises:
        OneStrideError: the chain needs what the robot, its model or the contract does not have.
    """
    parts = Parts(robot, contract, forward)
    return Chain([FILTERS[terms.filter](terms, parts) for terms in robot.safety])
