"""Unitree's low-level messages (`unitree_go`: LowCmd, LowState) as our commands and measurements.

A low command holds 20 motors, of which the twelve joints of a quadruped are the first: right before left, front before
rear, each leg from the base down. Every motor gets position, velocity, torque, stiffness and damping, and computes
`tau + kp (q - q_now) + kd (dq - dq_now)` itself. The robot refuses a message whose checksum is wrong.

Reference: github.com/unitreerobotics/unitree_ros2 (message definitions, `motor_crc.h`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from onestride.deploy.drivers.crc import word_crc
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.state import Inertial, Measurement

#: The joints in the motors' order.
ORDER = tuple(f"{leg}_{part}_joint" for leg in ("FR", "FL", "RR", "RL") for part in ("hip", "thigh", "calf"))
MOTORS = 20

HEAD = (0xFE, 0xEF)
LOW_LEVEL = 0xFF
SERVO = 0x01  # the motor's mode: field-oriented control
POSITION_STOP, VELOCITY_STOP = 2.146e9, 16000.0  # "no position" and "no velocity" for motors that are not there

#: The C struct that the checksum is of: padded as a compiler does it, the last word is the checksum itself.
MOTOR = struct.Struct("<B3x5f12x")
_BEGINNING = struct.Struct("<4B16xH2x")
_END_SIZE = 4 + 40 + 12 + 2 + 1 + 1 + 4
SIZE = _BEGINNING.size + MOTORS * MOTOR.size + _END_SIZE + 4

#: By how much the length of a measured quaternion may differ from 1.
UNIT = 0.05

#: A LowState's tick is a 32-bit count of milliseconds. One that is no more than this behind the last is a message that
#: came twice or late; further behind, the robot has started anew.
TICKS, LATE = 2**32, 1000


@dataclass(frozen=True)
class LowCommand:
    """What goes into a LowCmd; all that is not here stays zero.

    Attributes:
        motors: (20, 5) position [rad], velocity [rad/s], torque [Nm], stiffness [Nm/rad] and damping [Nm s/rad], in
            single precision.
    """

    motors: np.ndarray[Any, np.dtype[np.float32]]

    def packed(self) -> bytes:
        """The C struct without its checksum (808 bytes)."""
        motors = b"".join(MOTOR.pack(SERVO, *row) for row in self.motors.tolist())
        return _BEGINNING.pack(*HEAD, LOW_LEVEL, 0, 0) + motors + bytes(_END_SIZE)

    def crc(self) -> int:
        """The checksum that the robot expects."""
        return word_crc(self.packed())

    def fill(self, message: Any) -> None:
        """Write everything that is not zero into a `unitree_go/msg/LowCmd`, the checksum last."""
        message.head[0], message.head[1] = HEAD
        message.level_flag = LOW_LEVEL
        for motor, row in zip(message.motor_cmd, self.motors.tolist(), strict=True):
            motor.mode = SERVO
            motor.q, motor.dq, motor.tau, motor.kp, motor.kd = row
        message.crc = self.crc()


def low_command(joints: Sequence[str], command: ImpedanceCommand) -> LowCommand:
    """The message for a command to the robot's joints.

    Args:
        joints: the joints in the command's order; all twelve, in any order.
        command: to them.

    Raises:
        OneStrideError: other joints, or a number that single precision cannot hold.
    """
    slots = _slots(joints)
    motors = np.zeros((MOTORS, 5), dtype=np.float32)
    motors[:, 0], motors[:, 1] = POSITION_STOP, VELOCITY_STOP
    wanted = np.stack([command.position, command.velocity, command.effort, command.stiffness, command.damping], axis=1)
    with np.errstate(over="ignore"):
        motors[slots] = wanted
    if not np.isfinite(motors).all():
        raise OneStrideError("expected a command of numbers that single precision holds, got larger ones")
    return LowCommand(motors)


class Motor(Protocol):
    """What is read of a `unitree_go/msg/MotorState`."""

    q: float
    dq: float
    tau_est: float


class Imu(Protocol):
    """What is read of a `unitree_go/msg/IMUState`."""

    @property
    def quaternion(self) -> Sequence[float]:
        """Orientation, wxyz."""
        ...

    @property
    def gyroscope(self) -> Sequence[float]:
        """Angular velocity [rad/s]."""
        ...

    @property
    def accelerometer(self) -> Sequence[float]:
        """Specific force [m/s^2]."""
        ...


class LowState(Protocol):
    """What is read of a `unitree_go/msg/LowState`."""

    @property
    def motor_state(self) -> Sequence[Motor]:
        """Of the 20 motors."""
        ...

    @property
    def imu_state(self) -> Imu:
        """Of the base."""
        ...

    @property
    def foot_force(self) -> Sequence[int]:
        """Of the four feet, raw."""
        ...


def measurement(state: LowState, joints: Sequence[str], received: float) -> Measurement:
    """What a LowState says.

    Args:
        state: the message.
        joints: in the order that the measurement shall have.
        received: when it arrived, on the reader's monotonic clock [s].

    Returns:
        Positions, velocities and estimated torques (12,), the inertial sensor, and `foot_forces_raw` (4,) in the order
        FR, FL, RR, RL: counts of the sensors, not newtons, which `foot_forces` would be.

    Raises:
        OneStrideError: other joints, fewer motors, or an orientation that is none, as before the robot has booted.
    """
    slots = _slots(joints)
    if len(state.motor_state) < len(ORDER):
        raise OneStrideError(f"expected a LowState of at least {len(ORDER)} motors, got {len(state.motor_state)}")
    motors = np.array([(motor.q, motor.dq, motor.tau_est) for motor in state.motor_state[: len(ORDER)]])[slots]
    imu = _inertial(state.imu_state)
    forces = np.array(state.foot_force, dtype=np.float64)
    streams = {"joints": received, "imu": received, "foot_forces_raw": received}
    position, velocity, effort = motors.T.copy()
    vectors = {"foot_forces_raw": forces}
    return Measurement(position, velocity, received=streams, effort=effort, imu=imu, vectors=vectors)


def advanced(tick: int, before: int | None) -> bool:
    """Whether a LowState of this tick [ms] says anything that the one of the tick `before` it did not."""
    return before is None or (before - tick) % TICKS >= LATE


def _inertial(imu: Imu) -> Inertial:
    orientation = np.array(imu.quaternion, dtype=np.float64)  # wxyz already
    length = float(np.linalg.norm(orientation))
    if not abs(length - 1.0) <= UNIT:
        raise OneStrideError(f"LowState: expected an orientation of length 1, got {orientation.tolist()}")
    turning, pushed = (np.array(reading, dtype=np.float64) for reading in (imu.gyroscope, imu.accelerometer))
    return Inertial(orientation / length, turning, pushed)


def _slots(joints: Sequence[str]) -> list[int]:
    """The motor of each joint."""
    for name in joints:
        if name not in ORDER:
            raise unknown("joint of a Unitree quadruped", name, ORDER)
    if len(set(joints)) != len(ORDER) or len(joints) != len(ORDER):
        raise OneStrideError(f"expected each of the {len(ORDER)} joints once, got {', '.join(joints)}")
    return [ORDER.index(name) for name in joints]
