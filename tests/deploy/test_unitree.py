"""Unitree's low-level messages: the layout against a C struct, the checksum bit by bit, the robot's own joint order."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.deploy.drivers.crc import crc32_mpeg2, word_crc
from onestride.deploy.drivers.relay import ImpedanceRelay
from onestride.deploy.drivers.unitree import (
    MOTORS,
    ORDER,
    POSITION_STOP,
    SIZE,
    VELOCITY_STOP,
    advanced,
    low_command,
    measurement,
)
from onestride.hardware.description import DampingStop, load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.state import Inertial, Measurement

GO2 = load_robot("go2")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


class BmsCmd(ctypes.Structure):
    _fields_ = (("off", ctypes.c_uint8), ("reserve", ctypes.c_uint8 * 3))


class MotorCmd(ctypes.Structure):
    _fields_ = (
        ("mode", ctypes.c_uint8),
        *((name, ctypes.c_float) for name in ("q", "dq", "tau", "kp", "kd")),
        ("reserve", ctypes.c_uint32 * 3),
    )


class LowCmd(ctypes.Structure):
    """The message's fields in order, laid out by the C rules: an independent reading of the published struct."""

    _fields_ = (
        ("head", ctypes.c_uint8 * 2),
        ("level_flag", ctypes.c_uint8),
        ("frame_reserve", ctypes.c_uint8),
        ("sn", ctypes.c_uint32 * 2),
        ("version", ctypes.c_uint32 * 2),
        ("bandwidth", ctypes.c_uint16),
        ("motor_cmd", MotorCmd * 20),
        ("bms_cmd", BmsCmd),
        ("wireless_remote", ctypes.c_uint8 * 40),
        ("led", ctypes.c_uint8 * 12),
        ("fan", ctypes.c_uint8 * 2),
        ("gpio", ctypes.c_uint8),
        ("reserve", ctypes.c_uint32),
        ("crc", ctypes.c_uint32),
    )


def crc_bit_by_bit(words: list[int]) -> int:
    """The checksum as the definition has it: a register that every bit of every word is shifted through."""
    register = 0xFFFFFFFF
    for word in words:
        for bit in range(31, -1, -1):
            feedback = (register >> 31) ^ (word >> bit & 1)
            register = (register << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if feedback else 0)
    return register


def command(rng: np.random.Generator) -> ImpedanceCommand:
    return ImpedanceCommand(*rng.uniform([[-1], [-5], [-20], [0], [0]], [[1], [5], [20], [80], [8]], (5, 12)))


def test_the_catalogues_check_value():
    """CRC-32/MPEG-2 of `123456789` in every catalogue of checksums."""
    assert crc32_mpeg2(b"123456789") == 0x0376E6E7


@given(st.lists(st.integers(0, 0xFFFFFFFF), max_size=40))
def test_the_checksum_is_that_of_the_definition(words):
    assert word_crc(np.array(words, dtype="<u4").tobytes()) == crc_bit_by_bit(words)


def test_half_a_word_has_no_checksum():
    with pytest.raises(ValueError, match="got 7 bytes"):
        word_crc(bytes(7))


def test_a_message_is_the_published_struct(rng):
    message, sent = LowCmd(), low_command(ORDER, command(rng))
    sent.fill(message)
    packed = bytes(message)
    assert len(packed) == ctypes.sizeof(LowCmd) == SIZE == 812
    assert packed[:-4] == sent.packed()
    assert message.crc == crc_bit_by_bit(np.frombuffer(packed[:-4], dtype="<u4").tolist())


def test_the_bytes_of_one_motor_by_hand():
    """24 bytes come before the motors, each has 36; 1.0 is 0x3f800000, 35.0 is 0x420c0000, 0.5 is 0x3f000000."""
    nothing, first = np.zeros(12), np.eye(12)[0]
    one = ImpedanceCommand(first, nothing, nothing, 35.0 * first, 0.5 * first)
    packed = low_command(ORDER, one).packed()
    assert packed[:24].hex() == "feefff00" + "00" * 20
    assert packed[24:60].hex() == "01000000" + "0000803f" + "00" * 8 + "00000c42" + "0000003f" + "00" * 12
    assert packed[60:96].hex() == "01000000" + "00" * 32
    assert packed[24 + 12 * 36 :][:12].hex() == "01000000" + "b9d2ff4e" + "00007a46", "2.146e9 and 16000: no such motor"


def test_every_number_stands_where_it_belongs(rng):
    wanted = command(rng)
    joints = tuple(rng.permutation(ORDER))
    message = LowCmd()
    low_command(joints, wanted).fill(message)
    assert tuple(message.head) == (0xFE, 0xEF)
    assert message.level_flag == 0xFF
    for index, name in enumerate(joints):
        motor = message.motor_cmd[ORDER.index(name)]
        got = (motor.q, motor.dq, motor.tau, motor.kp, motor.kd)
        np.testing.assert_allclose(got, wanted.row().reshape(5, 12)[:, index], rtol=1e-6)
        assert motor.mode == 1
    for motor in message.motor_cmd[12:MOTORS]:
        assert (motor.q, motor.dq) == pytest.approx((POSITION_STOP, VELOCITY_STOP))
        assert (motor.tau, motor.kp, motor.kd) == (0.0, 0.0, 0.0)


def test_the_motors_are_the_go2s_joints():
    assert GO2.joint_names == ORDER
    assert GO2.drivers["unitree_ros2"].streaming.joints == ORDER


def test_damping_has_no_stiffness():
    message = LowCmd()
    assert isinstance(GO2.safe_stop, DampingStop)
    low_command(GO2.joint_names, ImpedanceCommand.damped(GO2)).fill(message)
    for motor in message.motor_cmd[:12]:
        assert (motor.dq, motor.tau, motor.kp) == (0.0, 0.0, 0.0)
        assert motor.kd == pytest.approx(GO2.safe_stop.damping)


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        ((*ORDER[:11], "wheel"), "unknown joint of a Unitree quadruped: got 'wheel', available: FR_hip_joint"),
        (ORDER[:11], "expected each of the 12 joints once"),
        ((*ORDER[:11], ORDER[0]), "expected each of the 12 joints once"),
    ],
)
def test_other_joints_are_refused(rng, joints, message):
    with pytest.raises(OneStrideError, match=message):
        low_command(joints, command(rng))


def test_a_number_too_large_for_the_message_is_refused(rng):
    parts = command(rng).row().reshape(5, 12)
    parts[2, 3] = 1e39
    with pytest.raises(OneStrideError, match="single precision"):
        low_command(ORDER, ImpedanceCommand(*parts))


@dataclass
class MotorState:
    q: float
    dq: float
    tau_est: float


@dataclass
class ImuState:
    quaternion: list[float]
    gyroscope: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3])
    accelerometer: list[float] = field(default_factory=lambda: [0.0, 0.0, 9.81])


@dataclass
class LowState:
    """The fields of `unitree_go/msg/LowState` that are read."""

    motor_state: list[MotorState]
    imu_state: ImuState
    foot_force: list[int]


def inertial(measured: Measurement) -> Inertial:
    assert measured.imu is not None
    return measured.imu


def rows(relay: ImpedanceRelay, now: float) -> np.ndarray:
    sent = relay.command(now)
    assert sent is not None
    return sent.row()


def low_state(rng: np.random.Generator, quaternion: list[float]) -> LowState:
    return LowState([MotorState(*rng.uniform(-1, 1, 3)) for _ in range(20)], ImuState(quaternion), [20, 21, 22, 23])


def test_a_state_becomes_a_measurement_in_the_order_that_is_asked_for(rng):
    state = low_state(rng, [0.5, -0.5, 0.5, 0.5])
    joints = tuple(rng.permutation(ORDER))
    measured = measurement(state, joints, received=4.5)
    for index, name in enumerate(joints):
        motor = state.motor_state[ORDER.index(name)]
        assert (measured.position[index], measured.velocity[index]) == (motor.q, motor.dq)
        assert measured.effort is not None
        assert measured.effort[index] == motor.tau_est
    np.testing.assert_allclose(inertial(measured).orientation, [0.5, -0.5, 0.5, 0.5])
    np.testing.assert_allclose(inertial(measured).angular_velocity, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(inertial(measured).acceleration, [0.0, 0.0, 9.81])
    np.testing.assert_allclose(measured.vectors["foot_forces_raw"], [20, 21, 22, 23])
    assert measured.received == {"joints": 4.5, "imu": 4.5, "foot_forces_raw": 4.5}
    assert "foot_forces" not in measured.vectors, "counts are no newtons, which the estimator would take them for"


@pytest.mark.parametrize(
    ("tick", "before", "new"),
    [
        (7, None, True),
        (9, 7, True),
        (7, 7, False),
        (5, 7, False),
        (7, 1006, False),
        (1, 2**32 - 1, True),
        (2**32 - 1, 1, False),
        (3, 900_000, True),
    ],
    ids=["first", "next", "again", "late", "later", "wrapped", "late across the wrap", "robot started anew"],
)
def test_a_state_that_the_robot_has_sent_before_is_no_new_one(tick, before, new):
    """Otherwise a stalled robot looks alive: the adapter stamps what it passes on with its own clock."""
    assert advanced(tick, before) is new


def test_its_orientation_is_wxyz_like_the_plants(tmp_path):
    """A Go2 in MuJoCo, written as its own LowState and read back, measures what the plant says."""
    pytest.importorskip("robosuite_models", reason="needs the model of the Go2")
    plant = Plant(robot_scene(GO2, folder=tmp_path / "scene"), GO2)
    plant.data.qpos[3:7] = [np.cos(0.2), np.sin(0.2), 0.0, 0.0]
    plant.step(5)
    there = plant.read()
    motors = [MotorState(*row) for row in zip(there.position, there.velocity, np.zeros(12), strict=True)]
    imu = ImuState(
        list(inertial(there).orientation), list(inertial(there).angular_velocity), list(inertial(there).acceleration)
    )
    here = measurement(LowState(motors, imu, [0, 0, 0, 0]), GO2.joint_names, received=0.0)
    np.testing.assert_array_equal(here.position, there.position)
    np.testing.assert_allclose(inertial(here).orientation, inertial(there).orientation)
    assert inertial(here).orientation[0] > 0.9
    assert inertial(here).orientation[1] == pytest.approx(np.sin(0.2), abs=0.02)


@pytest.mark.parametrize("quaternion", [[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], [float("nan"), 0.0, 0.0, 1.0]])
def test_an_orientation_that_is_none_is_refused(rng, quaternion):
    with pytest.raises(OneStrideError, match="expected an orientation of length 1"):
        measurement(low_state(rng, quaternion), ORDER, 0.0)


def test_a_state_of_too_few_motors_is_refused(rng):
    state = low_state(rng, [1.0, 0.0, 0.0, 0.0])
    state.motor_state = state.motor_state[:11]
    with pytest.raises(OneStrideError, match="at least 12 motors, got 11"):
        measurement(state, ORDER, 0.0)


STAND = ImpedanceCommand.towards(GO2, [joint.default for joint in GO2.joints])


def test_the_relay_sends_nothing_before_it_was_told_to():
    assert ImpedanceRelay(GO2, 0.1).command(100.0) is None


def test_the_relay_damps_when_commands_end_and_until_it_is_rearmed():
    relay = ImpedanceRelay(GO2, 0.1)
    relay.take(STAND.row(), 1.0)
    np.testing.assert_array_equal(rows(relay, 1.09), STAND.row())
    damped = ImpedanceCommand.damped(GO2).row()
    np.testing.assert_array_equal(rows(relay, 1.11), damped)
    relay.take(STAND.row(), 1.3)
    np.testing.assert_array_equal(rows(relay, 1.3), damped)
    relay.rearm(1.41)
    assert relay.command(1.41) is None, "nothing is sent until somebody commands anew"
    relay.take(STAND.row(), 2.0)
    np.testing.assert_array_equal(rows(relay, 2.0), STAND.row())


def test_the_relay_is_not_rearmed_under_a_controller_that_is_active():
    """Or the legs would jump: to where its targets have gone meanwhile, at full stiffness, after its soft start."""
    relay = ImpedanceRelay(GO2, 0.1)
    relay.take(STAND.row(), 1.0)
    assert not ImpedanceCommand.from_row(rows(relay, 1.2)).stiffness.any()
    for now in np.arange(1.2, 2.0, 0.005).tolist():
        relay.take(STAND.row(), now)
        with pytest.raises(OneStrideError, match=r"no command in the last 0\.1 s, .*; deactivate the controller first"):
            relay.rearm(now + 0.09)
        assert not ImpedanceCommand.from_row(rows(relay, now)).stiffness.any()


@pytest.mark.parametrize("spoil", [lambda row: row[:-5], lambda row: row * np.nan, lambda row: row[:-1]])
def test_the_relay_lets_no_bad_command_keep_the_robot_going(spoil):
    relay = ImpedanceRelay(GO2, 0.1)
    relay.take(STAND.row(), 1.0)
    with pytest.raises(OneStrideError):
        relay.take(spoil(STAND.row()), 1.09)
    assert not ImpedanceCommand.from_row(rows(relay, 1.2)).stiffness.any()


@pytest.mark.parametrize(("robot", "timeout"), [("panda", 0.1), ("go2", 0.0), ("go2", float("inf"))])
def test_a_relay_without_a_stop_is_refused(robot, timeout):
    with pytest.raises(OneStrideError, match="expected"):
        ImpedanceRelay(load_robot(robot), timeout)
