"""Rows out of ROS messages: joints by name, vectors, poses, images. Quaternions leave as (w, x, y, z).

Knows messages by the fields they have, so no ROS is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onestride.datasets.converters.rosbag2_mapping import FeatureMapping
from onestride.datasets.schema import Array, Feature
from onestride.hardware.errors import OneStrideError

_STEP = re.compile(r"([A-Za-z_]\w*)((?:\[\d+\])*)")
_NAME_FIELDS = ("name", "joint_names")
# ROS writes quaternions (x, y, z, w), the house (w, x, y, z).
_PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "Vector3": (("x", "x"), ("y", "y"), ("z", "z")),
    "Point": (("x", "x"), ("y", "y"), ("z", "z")),
    "Point32": (("x", "x"), ("y", "y"), ("z", "z")),
    "Quaternion": (("w", "qw"), ("x", "qx"), ("y", "qy"), ("z", "qz")),
    "Pose": (("position", ""), ("orientation", "")),
    "Pose2D": (("x", "x"), ("y", "y"), ("theta", "theta")),
    "Transform": (("translation", ""), ("rotation", "")),
    "Twist": (("linear", "v"), ("angular", "w")),
    "Accel": (("linear", "a"), ("angular", "alpha")),
    "Wrench": (("force", "f"), ("torque", "t")),
}
_PIXELS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "rgb8": ("uint8", 3, (0, 1, 2)),
    "bgr8": ("uint8", 3, (2, 1, 0)),
    "rgba8": ("uint8", 4, (0, 1, 2, 3)),
    "bgra8": ("uint8", 4, (2, 1, 0, 3)),
    "mono8": ("uint8", 1, (0,)),
    "8UC1": ("uint8", 1, (0,)),
    "8UC3": ("uint8", 3, (0, 1, 2)),
    "mono16": ("uint16", 1, (0,)),
    "16UC1": ("uint16", 1, (0,)),
    "32FC1": ("float32", 1, (0,)),
}
"""Encoding -> dtype, channels, and their order here."""


class UnusableError(Exception):
    """A message without the row that is wanted; it is skipped and counted under this reason."""


@dataclass(frozen=True)
class Row:
    """What a message holds for a feature."""

    value: Array
    names: tuple[str, ...] = ()
    by_name: bool = False
    """Whether the names are the message's own, so that other messages may have another order."""
    changed: str = ""
    """What was altered on the way, for the report."""


def row_of(message: Any, mapping: FeatureMapping, joints: tuple[str, ...], types: Any) -> Row:
    """The row of a feature.

    Args:
        message: decoded.
        mapping: what is wanted of it.
        joints: order by name; empty = as the message has them.
        types: fields of every message type, for their dtypes.

    Raises:
        UnusableError: the message lacks what is wanted.
        OneStrideError: the type of message can never have it.
    """
    value, dtype = _follow(message, mapping.field, types)
    if hasattr(value, "__msgtype__"):
        return _of_message(value, types)
    row = _of_values(value, dtype, mapping.field)
    carried = _names(message)
    if mapping.joints or joints:
        if carried is None:
            raise OneStrideError(f"{_kind(message)}: expected joint names ({', '.join(_NAME_FIELDS)}), got none")
        return _by_name(row.value, carried, mapping.joints or joints)
    if carried and not mapping.names and len(carried) == row.value.size and row.value.ndim == 1:
        return _by_name(row.value, carried, carried)
    return Row(row.value, mapping.names)


def feature_of(name: str, mapping: FeatureMapping, row: Row, stream: str) -> Feature:
    """The feature that the first usable row describes."""
    units = mapping.units or ((mapping.unit,) * int(row.value.size) if mapping.unit is not None else ())
    return Feature(
        name=name,
        role=mapping.role,
        shape=row.value.shape,
        dtype=row.value.dtype.name,
        names=mapping.names or row.names,
        units=units,
        stream=stream,
        codec=mapping.codec,
    )


def stamp_of(message: Any) -> int:
    """`header.stamp` [ns].

    Raises:
        UnusableError: it was never set.
        OneStrideError: the message has none.
    """
    header = getattr(message, "header", None)
    stamp = getattr(header, "stamp", None)
    if stamp is None:
        raise OneStrideError(f"{_kind(message)}: expected header.stamp for the clock 'stamped', got no header")
    time = int(stamp.sec) * 10**9 + int(stamp.nanosec)
    if time == 0:
        raise UnusableError("header.stamp was never set")
    return time


def field_of(message: Any, path: str) -> Any:
    """A plain value of a message, as JSON has it.

    Raises:
        UnusableError: an index beyond the end.
        OneStrideError: no such field.
    """
    value, _ = _follow(message, path, None)
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) else value


def _follow(message: Any, path: str | None, types: Any) -> tuple[Any, str | None]:
    """Walk to a field; gives its value and the dtype the definition says."""
    value, dtype = message, None
    for step in path.split(".") if path else ():
        matched = _STEP.fullmatch(step)
        if matched is None:
            raise OneStrideError(f"expected a field as a.b[0].c, got {path!r}")
        name, indices = matched[1], [int(one) for one in re.findall(r"\d+", matched[2])]
        fields = [one for one in getattr(value, "__dataclass_fields__", {}) if not one.startswith("_")]
        if name not in fields:
            raise OneStrideError(
                f"{_kind(message)}: expected a field {name!r} for {path!r}, available: {', '.join(fields) or 'none'}"
            )
        dtype = declared(types, value, name)
        value = getattr(value, name)
        for index in indices:
            if index >= len(value):
                raise UnusableError(f"{path}: no element {index}")
            value = value[index]
    return value, dtype


def declared(types: Any, owner: Any, name: str) -> str | None:
    """The base type of a field by its message's definition; None without definitions."""
    if types is None:
        return None
    _, fields = types[owner.__msgtype__]
    described: Any = dict(fields)[name]
    while not isinstance(described[1][0], str):
        described = described[1][0]
    return str(described[1][0])


def _kind(message: Any) -> str:
    return str(getattr(message, "__msgtype__", type(message).__name__))


def _names(message: Any) -> tuple[str, ...] | None:
    for field in _NAME_FIELDS:
        value = getattr(message, field, None)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
    return None


def _of_values(value: Any, dtype: str | None, path: str | None) -> Row:
    if isinstance(value, np.ndarray):
        # rosbags has booleans as bytes of 0 and 1 in some versions.
        array = value.astype(bool) if dtype == "bool" else value
        if array.size == 0:
            raise UnusableError(f"{path}: empty")
        return Row(np.array(array.astype(array.dtype.newbyteorder("="), copy=False)))
    if isinstance(value, bool | int | float | np.generic):
        return Row(np.asarray(value, {"byte": "uint8", "char": "uint8", "octet": "uint8"}.get(dtype or "", dtype)))
    if isinstance(value, list) and not value:
        raise UnusableError(f"{path}: empty")
    raise OneStrideError(f"{path}: expected numbers, got {type(value).__name__}: name a field within it")


def _by_name(values: Array, names: tuple[str, ...], joints: tuple[str, ...]) -> Row:
    if not names:
        raise UnusableError("no joint names")
    if len(names) != len(values):
        raise UnusableError(f"{len(values)} values for {len(names)} joint names")
    if len(set(names)) != len(names):
        raise UnusableError("a joint named twice")
    missing = [joint for joint in joints if joint not in names]
    if missing:
        raise UnusableError(f"without joint {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    return Row(values[[names.index(joint) for joint in joints]], joints, by_name=True)


def _of_message(message: Any, types: Any) -> Row:
    kind = _kind(message).rpartition("/")[2]
    if kind == "Image":
        return _image(message)
    if kind == "CompressedImage":
        return _compressed(message)
    if kind.endswith("Stamped") and kind.removesuffix("Stamped") in _PARTS:
        return _of_message(getattr(message, kind.removesuffix("Stamped").lower()), types)
    if kind in _PARTS:
        values, names, dtype = _flat(message, kind, "", types)
        quaternion = "quaternion reordered from (x, y, z, w) to (w, x, y, z)" if "qw" in names else ""
        return Row(np.array(values, dtype), tuple(names), changed=quaternion)
    fields = [one for one in getattr(message, "__dataclass_fields__", {}) if not one.startswith("_")]
    if fields in (["data"], ["layout", "data"]):
        return _of_data(message, types)
    raise OneStrideError(f"{_kind(message)}: expected a field to be named, available: {', '.join(fields) or 'none'}")


def _of_data(message: Any, types: Any) -> Row:
    """A plain value or array of std_msgs, in the shape its layout gives."""
    row = _of_values(message.data, declared(types, message, "data"), "data")
    shape = tuple(int(one.size) for one in message.layout.dim) if hasattr(message, "layout") else ()
    fits = len(shape) > 1 and int(np.prod(shape)) == row.value.size
    return Row(row.value.reshape(shape)) if fits else row


def _flat(message: Any, kind: str, prefix: str, types: Any) -> tuple[list[float], list[str], str]:
    values: list[float] = []
    names: list[str] = []
    dtype = "float64"
    for field, name in _PARTS[kind]:
        value = getattr(message, field)
        if hasattr(value, "__msgtype__"):
            inner, inner_names, dtype = _flat(value, _kind(value).rpartition("/")[2], name, types)
            values += inner
            names += inner_names
        else:
            dtype = declared(types, message, field) or dtype
            values.append(value)
            names.append(f"{prefix}{name}")
    return values, names, dtype


def _image(message: Any) -> Row:
    """(H, W, C) or, of one channel, (H, W)."""
    if message.encoding not in _PIXELS:
        raise OneStrideError(f"expected an image encoding of {', '.join(_PIXELS)}, got {message.encoding!r}")
    dtype, channels, order = _PIXELS[message.encoding]
    kind = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = int(message.height), int(message.width), int(message.step)
    used = width * channels * kind.itemsize
    content: NDArray[np.uint8] = np.asarray(message.data, np.uint8)
    if not used or step < used or len(content) != height * step:
        raise UnusableError(f"an image of {height} rows of {step} bytes with {len(content)} bytes")
    rows = np.ascontiguousarray(content.reshape(height, step)[:, :used])
    pixels = rows.view(kind).reshape(height, width, channels)[..., list(order)].astype(dtype)
    changed = f"channels reordered from {message.encoding}" if order != tuple(sorted(order)) else ""
    plain = pixels[..., 0] if channels == 1 else pixels
    return Row(np.ascontiguousarray(plain), changed=changed)


def _compressed(message: Any) -> Row:
    try:
        with Image.open(BytesIO(bytes(np.asarray(message.data, np.uint8)))) as opened:
            return Row(np.array(opened.convert("RGB")), changed=f"decoded from {opened.format}")
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise UnusableError(f"a compressed image ({message.format}) that cannot be decoded") from error
