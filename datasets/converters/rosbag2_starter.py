"""What to write when there is no mapping yet: the topics of a recording, and a mapping to begin with."""

from __future__ import annotations

from typing import Any

import yaml

from onestride.datasets.converters.rosbag2_bag import Bag, Topic
from onestride.hardware.errors import OneStrideError

_READINGS: dict[str, tuple[str, str | None]] = {
    "sensor_msgs/msg/JointState": ("position", "rad"),
    "sensor_msgs/msg/Imu": ("angular_velocity", "rad/s"),
    "sensor_msgs/msg/Joy": ("axes", None),
    "sensor_msgs/msg/Image": ("", None),
    "sensor_msgs/msg/CompressedImage": ("", None),
    "sensor_msgs/msg/LaserScan": ("ranges", "m"),
    "sensor_msgs/msg/Range": ("range", "m"),
    "sensor_msgs/msg/Temperature": ("temperature", None),
    "geometry_msgs/msg/PoseStamped": ("pose", None),
    "geometry_msgs/msg/Pose": ("", None),
    "geometry_msgs/msg/WrenchStamped": ("wrench", None),
    "nav_msgs/msg/Odometry": ("pose.pose", None),
}
"""Type -> field of an observation, its unit."""
_COMMANDS: dict[str, tuple[str, str | None]] = {
    "trajectory_msgs/msg/JointTrajectory": ("points[0].positions", "rad"),
    "std_msgs/msg/Float64MultiArray": ("", None),
    "std_msgs/msg/Float32MultiArray": ("", None),
    "geometry_msgs/msg/TwistStamped": ("twist", None),
    "geometry_msgs/msg/Twist": ("", None),
    "sensor_msgs/msg/JointState": ("position", "rad"),
}
"""Type -> field of a command, its unit."""


def starter(bag: Bag) -> str:
    """The topics with their types, counts and rates, and a mapping that can be edited."""
    lines = [
        f"{bag.path}: expected a mapping (--mapping FILE) that says which topics become which features, got none.",
        "Topics:",
        *(f"  {_about(topic)}" for topic in bag.topics.values() if topic.count),
        "A mapping to begin with:",
        starter_mapping(bag),
    ]
    return "\n".join(lines)


def starter_mapping(bag: Bag) -> str:
    """A mapping in YAML, guessed from the topics' types."""
    there = sorted((one for one in bag.topics.values() if one.count), key=lambda one: -one.count)
    command = _command(there)
    readings = [one for one in there if one is not command and one.type in _READINGS]
    if not readings:
        readings = [one for one in there if one is not command][:1] or there[:1]
    base = next((one for one in readings if one.type.endswith("/JointState")), readings[0] if readings else None)
    content: dict[str, Any] = {
        "base": base.name if base else "/joint_states",
        "clock": "received",
        "label_source": "unknown",
        "topics": {one.name: {"features": _reading(bag, one)} for one in readings},
        "episodes": {"by": "whole"},
    }
    action = {"action": _entry("action", bag, command, _COMMANDS)}
    content["topics"][command.name if command else "/your/command"] = {"align": "hold", "features": action}
    return str(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100))


def _about(topic: Topic) -> str:
    rate = f"{topic.rate:.4g} Hz" if topic.rate else "no rate"
    return f"{topic.name}: {topic.type}, {topic.count} messages, {rate}"


def _command(topics: list[Topic]) -> Topic | None:
    """A topic that looks like a command by its name, or by its type where only commands have it."""
    possible = [one for one in topics if one.type in _COMMANDS]
    by_name = [one for one in possible if any(word in one.name.lower() for word in ("command", "cmd", "action"))]
    by_type = [one for one in possible if one.type not in _READINGS]
    return next(iter([*by_name, *by_type]), None)


def _reading(bag: Bag, topic: Topic) -> dict[str, Any]:
    name = topic.name.strip("/").replace("/", ".") or "topic"
    return {name: _entry("observation", bag, topic, _READINGS)}


def _entry(role: str, bag: Bag, topic: Topic | None, known: dict[str, tuple[str, str | None]]) -> dict[str, Any]:
    field, unit = known.get(topic.type, ("data", None)) if topic else ("position", "rad")
    entry: dict[str, Any] = {"role": role}
    if field:
        entry["field"] = field
    joints = _joints(bag, topic) if topic else []
    if joints:
        entry["joints"] = joints
    if unit is not None:
        entry["unit"] = unit
    return entry


def _joints(bag: Bag, topic: Topic) -> list[str]:
    """The names in the first message that has any."""
    if topic.type not in ("sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"):
        return []
    try:
        for number, message in enumerate(bag.messages([topic.name])):
            decoded = bag.decode(message)
            names = list(getattr(decoded, "name", None) or getattr(decoded, "joint_names", []))
            if names or number == 100:
                return names
    except OneStrideError:
        return []
    return []
