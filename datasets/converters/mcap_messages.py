"""How a feature travels as ROS 2 messages in MCAP: which type it is, and its rows as CDR bytes and back, to the bit.

CDR with `ros2msg` definitions and not JSON: every ROS tool (`ros2 bag play`, Foxglove, PlotJuggler, `rosbags`) reads
it, floats keep their bits, and a row is a fraction of the size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from onestride.datasets.schema import Array, Feature, Schema
from onestride.hardware.errors import OneStrideError

EPISODE_TOPIC = "/onestride/episode"
"""Strings of JSON that begin and end every episode."""
STRING = "std_msgs/msg/String"

_ARRAYS = {
    "bool": ("UInt8", "uint8"),
    "float16": ("Float32", "float32"),
    **{f"float{bits}": (f"Float{bits}", f"float{bits}") for bits in (32, 64)},
    **{f"int{bits}": (f"Int{bits}", f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (f"UInt{bits}", f"uint{bits}") for bits in (8, 16, 32, 64)},
}
"""Dtype -> message of std_msgs, dtype in it; bool and float16 have none of their own, the wider one holds them."""
_ENCODINGS = {("uint8", 3): "rgb8", ("uint8", 2): "mono8", ("uint16", 2): "mono16"}
"""(dtype, axes) -> encoding of an image."""
_JOINT_UNITS = {"rad": "position", "rad/s": "velocity", "N m": "effort", "Nm": "effort"}


@dataclass(frozen=True)
class Wire:
    """A feature's messages: always the same bytes around the row's own."""

    feature: Feature
    topic: str
    type: str
    dtype: str
    """Of the numbers within the message."""
    template: bytes
    offset: int
    """Where they begin."""
    stamped: bool
    """Whether bytes 4 to 12 are `header.stamp`."""

    @property
    def size(self) -> int:
        """Bytes of a row within the message."""
        return self.feature.size * np.dtype(self.dtype).itemsize

    def message(self, row: Array, time: int) -> bytes:
        """A row (*shape) with its time [ns] as a message; `mcap_records` makes many at once."""
        content = row.astype(np.dtype(self.dtype).newbyteorder("<")).tobytes()
        before, after = self.template[: self.offset], self.template[self.offset + self.size :]
        if self.stamped:
            before = before[:4] + _stamp(time) + before[12:]
        return before + content + after

    def payloads(self, messages: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The rows' bytes (T, size) within messages (T, bytes).

        Raises:
            OneStrideError: one that is no message of this feature.
        """
        expected, head = np.frombuffer(self.template, np.uint8), 12 if self.stamped else 4
        length = messages.shape[1]
        if length != len(expected) or (messages[:, head : self.offset] != expected[head : self.offset]).any():
            raise OneStrideError(f"{self.topic}: expected {self.type} of {len(expected)} bytes, got another message")
        return messages[:, self.offset : self.offset + self.size]

    def decode(self, payloads: NDArray[np.uint8]) -> Array:
        """Rows (T, *shape) in the feature's own dtype, of their bytes (T, size)."""
        wire = np.ascontiguousarray(payloads).reshape(-1).view(np.dtype(self.dtype).newbyteorder("<"))
        return wire.astype(self.feature.dtype, copy=False).reshape(-1, *self.feature.shape)


def wires(schema: Schema) -> dict[str, Wire]:
    """Feature -> how it travels; topics are distinct."""
    taken: set[str] = {EPISODE_TOPIC}
    found = {}
    for feature in schema.features:
        topic = _topic(feature.name)
        while topic in taken or final_topic(topic) in taken:
            topic += "_"
        taken |= {topic, final_topic(topic)}
        found[feature.name] = _wire(feature, topic)
    return found


def final_topic(topic: str) -> str:
    """Where the value after the last action goes."""
    return f"{topic}/final"


@cache
def definition(type_name: str) -> bytes:
    """A message type's definition with all it refers to, as MCAP's `ros2msg` wants it."""
    text, _ = _types().generate_msgdef(type_name, ros_version=2)
    return str(text).encode()


def string_message(text: str) -> bytes:
    """A `std_msgs/msg/String`."""
    return _serialised(STRING, _types().types[STRING](data=text))


def string_of(message: bytes) -> str:
    """The text of a `std_msgs/msg/String`.

    Raises:
        ValueError: not such a message.
    """
    length = int.from_bytes(message[4:8], "little")
    content = message[8 : 8 + length]
    if len(content) != length or not content.endswith(b"\0"):
        raise ValueError("a string that is cut off")
    return content[:-1].decode()


def _topic(name: str) -> str:
    """A feature's name as a ROS name: `state.qpos` -> `/state/qpos`."""
    tokens = [re.sub(r"[^A-Za-z0-9_]", "_", token) for token in name.split(".") if token]
    return "/" + "/".join(f"_{token}" if token[0].isdigit() else token for token in tokens)


def _wire(feature: Feature, topic: str) -> Wire:
    joints = _joint_field(feature)
    if joints is not None:
        return _templated(feature, topic, "sensor_msgs/msg/JointState", "float64", stamped=True)
    if _encoding(feature) is not None:
        return _templated(feature, topic, "sensor_msgs/msg/Image", feature.dtype, stamped=True)
    name, dtype = _ARRAYS[feature.dtype]
    return _templated(feature, topic, f"std_msgs/msg/{name}MultiArray", dtype, stamped=False)


def _templated(feature: Feature, topic: str, type_name: str, dtype: str, *, stamped: bool) -> Wire:
    """Find the row's place in the message: the first byte that changes when the row does."""
    size = feature.size * np.dtype(dtype).itemsize
    low, high = (np.frombuffer(bytes([fill]) * size, dtype) for fill in (0x00, 0xFF))
    template, other = (_serialised(type_name, _message(feature, type_name, values)) for values in (low, high))
    offset = next(place for place, (one, two) in enumerate(zip(template, other, strict=True)) if one != two)
    return Wire(feature, topic, type_name, dtype, template, offset, stamped)


def _message(feature: Feature, type_name: str, values: Array) -> Any:
    types = _types().types
    header = types["std_msgs/msg/Header"](stamp=types["builtin_interfaces/msg/Time"](sec=0, nanosec=0), frame_id="")
    if type_name.endswith("/JointState"):
        none = np.zeros(0, np.float64)
        parts = dict.fromkeys(("position", "velocity", "effort"), none) | {str(_joint_field(feature)): values}
        return types[type_name](header=header, name=list(feature.names), **parts)
    if type_name.endswith("/Image"):
        height, width = feature.shape[:2]
        return types[type_name](
            header=header,
            height=height,
            width=width,
            encoding=_encoding(feature),
            is_bigendian=0,
            step=feature.size // height * np.dtype(feature.dtype).itemsize,
            data=values.view(np.uint8),
        )
    dimension = types["std_msgs/msg/MultiArrayDimension"]
    strides = [int(np.prod(feature.shape[axis:])) for axis in range(len(feature.shape))]
    dims = [dimension(label="", size=size, stride=stride) for size, stride in zip(feature.shape, strides, strict=True)]
    return types[type_name](layout=types["std_msgs/msg/MultiArrayLayout"](dim=dims, data_offset=0), data=values)


def _joint_field(feature: Feature) -> str | None:
    """`position`, `velocity` or `effort` where every element is a named joint of that unit."""
    plain = len(feature.shape) == 1 and feature.dtype in ("float32", "float64") and bool(feature.names)
    fields = {_JOINT_UNITS.get(unit) for unit in feature.units}
    return fields.pop() if plain and len(fields) == 1 else None


def _encoding(feature: Feature) -> str | None:
    axes = len(feature.shape)
    usable = axes == 2 or (axes == 3 and feature.shape[2] == 3)
    return _ENCODINGS.get((feature.dtype, axes)) if usable and feature.role == "observation" else None


def _stamp(time: int) -> bytes:
    seconds, nanoseconds = divmod(time, 10**9)
    return seconds.to_bytes(4, "little", signed=True) + nanoseconds.to_bytes(4, "little")


def _serialised(type_name: str, message: Any) -> bytes:
    return bytes(_types().serialize_cdr(message, type_name))


@cache
def _types() -> Any:
    return get_typestore(Stores.ROS2_JAZZY)
