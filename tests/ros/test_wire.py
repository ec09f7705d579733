"""Messages read from their bytes have what rclpy reads from the same bytes."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from geometry_msgs.msg import PoseStamped, Twist
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from onestride_controller.wire import reader_of

TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), max_size=9)
NUMBER = st.floats(width=64)
NUMBERS = st.lists(NUMBER, max_size=9)
SECOND, NANOSECOND = st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1)


def reader(kind):
    read = reader_of(kind)
    assert read is not None
    return read


def stamped(message, second, nanosecond, frame):
    message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id = second, nanosecond, frame
    return message


def header(message):
    return message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id


JOINTS = st.builds(
    lambda names, position, velocity, effort, *head: stamped(
        JointState(name=names, position=position, velocity=velocity, effort=effort), *head
    ),
    *(st.lists(TEXT, max_size=9), NUMBERS, NUMBERS, NUMBERS, SECOND, NANOSECOND, TEXT),
)


@settings(deadline=None)
@given(st.lists(JOINTS, min_size=1, max_size=4))
def test_joint_states_one_after_another(messages):
    read = reader(JointState)
    for message in [*messages, messages[0]]:
        data = serialize_message(message)
        found, expected = read(data), deserialize_message(data, JointState)
        assert header(found) == header(expected)
        assert found.name == list(expected.name)
        for field in ("position", "velocity", "effort"):
            np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


@settings(deadline=None)
@given(st.lists(NUMBER, min_size=7, max_size=7), SECOND, NANOSECOND, TEXT)
def test_poses(numbers, second, nanosecond, frame):
    message = stamped(PoseStamped(), second, nanosecond, frame)
    place, turn = message.pose.position, message.pose.orientation
    place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w = numbers
    found = reader(PoseStamped)(serialize_message(message))
    assert header(found) == header(message)
    p, q = found.pose.position, found.pose.orientation
    np.testing.assert_array_equal([p.x, p.y, p.z, q.x, q.y, q.z, q.w], numbers)


@settings(deadline=None)
@given(NUMBER)
def test_numbers(number):
    found = reader(Float64)(serialize_message(Float64(data=number))).data
    assert found == number or (math.isnan(found) and math.isnan(number))


def test_other_kinds_are_left_to_rclpy():
    assert reader_of(Twist) is None


def test_another_encoding_is_left_to_rclpy():
    """Big-endian, as a driver on another kind of machine may send it."""
    data = b"\x00\x00\x00\x00" + struct.pack(">d", 0.25)
    assert isinstance(reader(Float64)(data), Float64)
    assert reader(Float64)(data).data == 0.25


@settings(deadline=None)
@given(st.data())
def test_broken_bytes_give_what_rclpy_makes_of_them(data):
    """A message of the wrong length, or with a count that is none: never another reading than rclpy's."""
    whole = bytearray(serialize_message(JointState(name=["a", "bc"], position=[1.0, 2.0], velocity=[3.0])))
    at = data.draw(st.integers(4, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    broken = bytes(whole[: data.draw(st.integers(4, len(whole)))])
    try:
        expected = deserialize_message(broken, JointState)
    except Exception:
        return
    found = reader(JointState)(broken)
    assert list(found.name) == list(expected.name)
    np.testing.assert_array_equal(found.position, expected.position)
    np.testing.assert_array_equal(found.velocity, expected.velocity)
