"""Messages of the control loop from the bytes that DDS delivers: only what is read of them.

rclpy makes a Python object of every part of a message, each name and each number. For the streams of an arm that is a
fifth of a tick. These here have the attributes that are read, under the same names. Bytes in another encoding than
plain little-endian CDR, or of another length than they say, are left to rclpy.

Reference: OMG DDSI-RTPS 2.5, 10.2 (plain CDR), and the message definitions of ROS 2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from onestride.hardware.state import Array

#: Bytes before the content, which say how that is encoded; and those of plain little-endian CDR.
PREAMBLE, PLAIN = 4, b"\x00\x01"

STAMP, COUNT = struct.Struct("<iI"), struct.Struct("<I")
NUMBER, POSE = struct.Struct("<d"), struct.Struct("<7d")


class Stamp(NamedTuple):
    """As `builtin_interfaces/Time`."""

    sec: int
    nanosec: int


class Header(NamedTuple):
    """As `std_msgs/Header`."""

    stamp: Stamp
    frame_id: str


class Vector(NamedTuple):
    """As `geometry_msgs/Point`."""

    x: float
    y: float
    z: float


class Quaternion(NamedTuple):
    """As `geometry_msgs/Quaternion`."""

    x: float
    y: float
    z: float
    w: float


class Pose(NamedTuple):
    """As `geometry_msgs/Pose`."""

    position: Vector
    orientation: Quaternion


class StampedPose(NamedTuple):
    """As `geometry_msgs/PoseStamped`."""

    header: Header
    pose: Pose


class Joints(NamedTuple):
    """As `sensor_msgs/JointState`."""

    header: Header
    name: list[str]
    position: Array
    velocity: Array
    effort: Array


class Number(NamedTuple):
    """As `std_msgs/Float64`."""

    data: float


class UnlikeError(ValueError):
    """Bytes that are not what they should be."""


def reader_of(kind: Any) -> Callable[[bytes], Any] | None:
    """Reads messages of a kind from their bytes; None for kinds that are left to rclpy.

    What it returns raises whatever rclpy does for bytes that are no such message.
    """
    known: dict[Any, Callable[[bytes], tuple[Any, int]]] = {
        JointState: JointStates(),
        PoseStamped: _pose_stamped,
        Float64: lambda data: (Number(*NUMBER.unpack_from(data, PREAMBLE)), PREAMBLE + NUMBER.size),
    }
    read = known.get(kind)
    return None if read is None else lambda data: _checked(read, data, kind)


def _checked(read: Callable[[bytes], tuple[Any, int]], data: bytes, kind: Any) -> Any:
    try:
        if data[:2] != PLAIN:
            raise UnlikeError
        message, end = read(data)
        if not 0 <= len(data) - end < 4:  # what pads it
            raise UnlikeError
    except (ValueError, struct.error):
        return deserialize_message(data, kind)
    return message


class JointStates:
    """Reads joint states; the names, which stay the same from message to message, only where they differ."""

    def __init__(self) -> None:
        self._block, self._names = b"", list[str]()

    def __call__(self, data: bytes) -> tuple[Joints, int]:
        """The message, and where its bytes end."""
        header, at = _header(data)
        names, at = self._name(data, _aligned(at, 4))
        position, at = _numbers(data, at)
        velocity, at = _numbers(data, at)
        effort, at = _numbers(data, at)
        return Joints(header, names, position, velocity, effort), at

    def _name(self, data: bytes, start: int) -> tuple[list[str], int]:
        end = start + len(self._block)
        if not self._block or data[start:end] != self._block:
            self._names, end = _strings(data, start)
            self._block = data[start:end]
        return self._names, end


def _aligned(at: int, size: int) -> int:
    """The next place for something of this size; places count from the end of the preamble."""
    return at + (PREAMBLE - at) % size


def _header(data: bytes) -> tuple[Header, int]:
    frame, at = _string(data, PREAMBLE + STAMP.size)
    return Header(Stamp(*STAMP.unpack_from(data, PREAMBLE)), frame), at


def _string(data: bytes, at: int) -> tuple[str, int]:
    at = _aligned(at, 4)
    (count,) = COUNT.unpack_from(data, at)
    end = at + COUNT.size + count  # with a zero at its end
    if not 1 <= count <= len(data) - at - COUNT.size or data[end - 1]:
        raise UnlikeError
    return data[at + COUNT.size : end - 1].decode(), end


def _strings(data: bytes, at: int) -> tuple[list[str], int]:
    (count,) = COUNT.unpack_from(data, at)
    at, found = at + COUNT.size, list[str]()
    for _ in range(count):
        text, at = _string(data, at)
        found.append(text)
    return found, at


def _numbers(data: bytes, at: int) -> tuple[Array, int]:
    at = _aligned(at, 4)
    (count,) = COUNT.unpack_from(data, at)
    at += COUNT.size
    if not count:
        return np.empty(0), at
    at = _aligned(at, 8)
    return np.frombuffer(data, "<f8", count, at), at + 8 * count


def _pose_stamped(data: bytes) -> tuple[StampedPose, int]:
    header, at = _header(data)
    at = _aligned(at, 8)
    x, y, z, *turn = POSE.unpack_from(data, at)
    return StampedPose(header, Pose(Vector(x, y, z), Quaternion(*turn))), at + POSE.size
