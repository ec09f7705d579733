"""rosbag2 recordings for tests, written by the real `rosbags`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="needs the extra `rosbag`")
typesys = pytest.importorskip("rosbags.typesys")


@cache
def types() -> Any:
    return typesys.get_typestore(typesys.Stores.ROS2_JAZZY)


def make(name: str, /, **fields: Any) -> Any:
    """A message: `make("std_msgs/Bool", data=True)`."""
    package, kind = name.split("/")
    return types().types[f"{package}/msg/{kind}"](**fields)


def header(time: int = 0) -> Any:
    stamp = make("builtin_interfaces/Time", sec=time // 10**9, nanosec=time % 10**9)
    return make("std_msgs/Header", stamp=stamp, frame_id="")


def joints(names: Iterable[str], position: Iterable[float], time: int = 0, velocity: Iterable[float] = ()) -> Any:
    arrays = {"position": position, "velocity": velocity, "effort": ()}
    values = {key: np.array(list(value), np.float64) for key, value in arrays.items()}
    return make("sensor_msgs/JointState", header=header(time), name=list(names), **values)


def floats(*values: float) -> Any:
    layout = make("std_msgs/MultiArrayLayout", dim=[], data_offset=0)
    return make("std_msgs/Float64MultiArray", layout=layout, data=np.array(values, np.float64))


def flag(value: bool) -> Any:
    return make("std_msgs/Bool", data=value)


def image(pixels: np.ndarray, encoding: str, padding: int = 0) -> Any:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    padded = np.pad(rows, [(0, 0), (0, padding)], constant_values=77)
    return make(
        "sensor_msgs/Image",
        header=header(),
        height=len(pixels),
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=padded.shape[1],
        data=padded.reshape(-1),
    )


class Raw(bytes):
    """A message that is serialised already; of a service event, whose type is not needed."""


def call(event: int, client: int, number: int) -> Raw:
    """A service event: its type, the client's id, the number of the call."""
    head = bytes([event, 0, 0, 0]) + bytes(8) + bytes([client]) * 16 + bytes(4)
    return Raw(b"\x00\x01\x00\x00" + head + number.to_bytes(8, "little") + bytes(8))


def write_bag(path: Path, messages: Iterable[tuple[str, int, Any]], storage: str = "mcap") -> Path:
    """A recording of (topic, received [ns], message) at `path`."""
    plugin = {"mcap": rosbag2.StoragePlugin.MCAP, "sqlite3": rosbag2.StoragePlugin.SQLITE3}[storage]
    connections: dict[str, Any] = {}
    with rosbag2.Writer(path, version=9, storage_plugin=plugin) as writer:
        for topic, received, message in messages:
            raw = isinstance(message, Raw)
            kind = "std_srvs/srv/Trigger_Event" if raw else message.__msgtype__
            if topic not in connections:
                more = {"msgdef": "uint8 data\n", "rihs01": "RIHS01_" + "0" * 64} if raw else {"typestore": types()}
                connections[topic] = writer.add_connection(topic, kind, **more)
            content = bytes(message) if raw else types().serialize_cdr(message, kind)
            writer.write(connections[topic], received, content)
    return path
