"""What an episode holds: typed features with names, shapes and units, and the checks that keep it honest.

Importable on a robot: numpy and pydantic only, no file format.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from onestride.hardware.errors import OneStrideError, unknown

Role = Literal["observation", "action", "reward", "terminal", "mask", "state", "info"]
LabelSource = Literal["oracle", "human", "nominal", "certified", "sent", "unknown"]
Codec = Literal["lossless", "video"]
Array = NDArray[Any]

BASE = "base"
"""The stream of the control clock: one row for each transition."""

ROLES: tuple[str, ...] = get_args(Role)
_INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
DTYPES = ("bool", *_INTEGERS, "float16", "float32", "float64")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def _checked_name(name: str, what: str) -> str:
    """Names become folders of the store, so only characters that every file system takes."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a {what} name of letters, digits, '_', '.', '-', got {name!r}")
    return name


class Feature(BaseModel):
    """One recorded quantity: a row of `shape` for each tick of its stream."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    role: Role
    shape: tuple[int, ...]
    """Shape of one row; `()` for a scalar."""
    dtype: str
    names: tuple[str, ...] = ()
    """One for each flattened element; empty = unnamed."""
    units: tuple[str, ...] = ()
    """One for each flattened element ("rad", "m", "1"); empty = unknown."""
    stream: str = BASE
    """The clock it is recorded on."""
    codec: Codec = "lossless"
    """`video` stores images (H, W, 3) of uint8 as H.264: some fifty times smaller, and no longer bit-exact."""

    @property
    def size(self) -> int:
        """Number of elements in one row."""
        return math.prod(self.shape)

    @property
    def element_names(self) -> tuple[str, ...]:
        """One name for each flattened element, numbered where the dataset gives none."""
        return self.names or tuple(f"{self.name}.{index}" for index in range(self.size))

    @property
    def element_units(self) -> tuple[str, ...]:
        """One unit for each flattened element, empty where the dataset gives none."""
        return self.units or ("",) * self.size

    @field_validator("name", "stream")
    @classmethod
    def _name_is_a_folder(cls, value: str) -> str:
        return _checked_name(value, "feature or stream")

    @field_validator("dtype")
    @classmethod
    def _dtype_is_storable(cls, value: str) -> str:
        if value not in DTYPES:
            raise ValueError(f"expected a dtype of {', '.join(DTYPES)}, got {value!r}")
        return value

    @model_validator(mode="after")
    def _elements_agree(self) -> Feature:
        if any(extent < 1 for extent in self.shape):
            raise ValueError(f"feature {self.name!r}: expected positive extents, got shape {self.shape}")
        for what, given in (("names", self.names), ("units", self.units)):
            if given and len(given) != self.size:
                raise ValueError(f"feature {self.name!r}: expected {self.size} {what}, got {len(given)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"feature {self.name!r}: expected distinct element names, got {self.names}")
        if self.codec == "video" and (self.dtype != "uint8" or len(self.shape) != 3 or self.shape[2] != 3):
            raise ValueError(
                f"feature {self.name!r}: expected uint8 images (H, W, 3) for the codec 'video', "
                f"got {self.dtype} {self.shape}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual_codec(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Schemas from before there were codecs keep their bytes, and thereby their dataset ids."""
        content: dict[str, Any] = dump(self)
        if self.codec == "lossless":
            content.pop("codec", None)
        return content

    def element(self, index: int) -> str:
        """Name of a flattened element, for messages: `action[2] 'dz'`."""
        named = f" {self.names[index]!r}" if self.names else ""
        return f"{self.name}[{index}]{named}" if self.shape else self.name


class Schema(BaseModel):
    """All features of a dataset, and what its labels are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[Feature, ...]
    control_rate: float | None = Field(gt=0, allow_inf_nan=False)
    """Rate of the base stream [Hz]; None = irregular or unknown."""
    label: str
    """The action feature that a policy learns."""
    label_source: LabelSource
    environment: str | None = None
    """For instance `ogbench/cube-single-singletask-task2-v0`."""
    robot: str | None = None
    """Robot description, for instance `ur5e_2f85`; None = actions named as in the dataset."""

    @model_validator(mode="after")
    def _features_agree(self) -> Schema:
        names = [feature.name for feature in self.features]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"expected distinct feature names, got {', '.join(doubled)} more than once")
        for role in ("reward", "terminal", "mask"):
            found = [feature.name for feature in self.features if feature.role == role]
            if len(found) > 1:
                raise ValueError(f"expected at most one {role} feature, got {', '.join(found)}")
        actions = [feature.name for feature in self.features if feature.role == "action"]
        if self.label not in actions:
            raise ValueError(f"expected the label to be an action feature, got {self.label!r}, has: {actions}")
        if self.feature(self.label).stream != BASE:
            raise ValueError(f"expected the label {self.label!r} on the stream {BASE!r}")
        return self

    @property
    def streams(self) -> tuple[str, ...]:
        """Every clock, the base first, the others in the order of their features."""
        return tuple(dict.fromkeys([BASE, *(feature.stream for feature in self.features)]))

    def feature(self, name: str) -> Feature:
        """The feature of that name.

        Raises:
            OneStrideError: there is none; lists the names that exist.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise unknown("feature", name, [feature.name for feature in self.features])

    def by_role(self, role: Role) -> tuple[Feature, ...]:
        """All features of a role, in order; possibly none.

        Raises:
            OneStrideError: no such role.
        """
        if role not in ROLES:
            raise unknown("role", role, ROLES)
        return tuple(feature for feature in self.features if feature.role == role)


@dataclass
class Episode:
    """One rollout: what was measured and done from a reset to its end, T transitions long."""

    data: dict[str, Array]
    """Feature -> (T, *shape); features of another stream have that stream's length."""
    timestamps: dict[str, NDArray[np.int64]]
    """Stream -> (T,) measured time [ns], never decreasing."""
    final: dict[str, Array] = field(default_factory=dict)
    """Observation or state feature -> (*shape), its value after the last action; optional."""
    attributes: dict[str, JsonValue] = field(default_factory=dict)
    """Task, success, seed, operator's notes."""

    @property
    def length(self) -> int:
        """Number of transitions T."""
        return len(self.timestamps[BASE]) if BASE in self.timestamps else 0

    @property
    def nbytes(self) -> int:
        """Size of the rows."""
        return sum(rows.nbytes for rows in self.data.values())

    def validate(self, schema: Schema) -> None:
        """Check keys, lengths, shapes, dtypes, clocks and finiteness against the schema.

        Raises:
            OneStrideError: the first thing found wrong, by feature, element and step.
        """
        _check_keys("data", self.data, [feature.name for feature in schema.features])
        _check_keys("timestamps", self.timestamps, schema.streams)
        for stream, clock in self.timestamps.items():
            _check_clock(stream, clock)
        if self.length == 0:
            raise OneStrideError("expected an episode of at least one step, got 0")
        for feature in schema.features:
            length = len(self.timestamps[feature.stream])
            _check_array(feature, self.data[feature.name], (length, *feature.shape), "")
        for name, value in self.final.items():
            _check_final(schema.feature(name), value)
        _check_attributes(self.attributes)


def synthetic_clock(length: int, rate: float) -> NDArray[np.int64]:
    """Timestamps (T,) [ns] of an ideal clock of `rate` [Hz], for sources that measured none."""
    return np.round(np.arange(length) * (1e9 / rate)).astype(np.int64)


def _check_keys(what: str, got: Mapping[str, object], expected: tuple[str, ...] | list[str]) -> None:
    if got.keys() == set(expected):
        return
    missing = [name for name in expected if name not in got]
    surplus = [name for name in got if name not in expected]
    raise OneStrideError(
        f"episode {what}: expected {', '.join(expected)}, "
        f"got missing: {', '.join(missing) or 'none'}, unexpected: {', '.join(surplus) or 'none'}"
    )


def _check_clock(stream: str, clock: Array) -> None:
    where = f"timestamps of stream {stream!r}"
    if clock.dtype != np.int64 or clock.ndim != 1:
        raise OneStrideError(f"{where}: expected (T,) int64 [ns], got {clock.shape} {clock.dtype}")
    backwards = clock[1:] < clock[:-1]
    if backwards.any():
        raise OneStrideError(f"{where}: expected never to decrease, got a step back at step {backwards.argmax() + 1}")


def _check_array(feature: Feature, array: Array, shape: tuple[int, ...], where: str) -> None:
    if array.shape != shape:
        raise OneStrideError(f"feature {feature.name!r}{where}: expected shape {shape}, got {array.shape}")
    if array.dtype != np.dtype(feature.dtype):
        raise OneStrideError(f"feature {feature.name!r}{where}: expected {feature.dtype}, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        flat = array.reshape(-1, feature.size)
        step, element = (int(i) for i in np.argwhere(~np.isfinite(flat))[0])
        place = where or f" at step {step}"
        raise OneStrideError(f"{feature.element(element)}{place}: expected finite, got {flat[step, element]}")


def _check_final(feature: Feature, value: Array) -> None:
    if feature.role not in ("observation", "state") or feature.stream != BASE:
        raise OneStrideError(
            f"final: expected an observation or state feature of stream {BASE!r}, "
            f"got {feature.name!r} ({feature.role}, stream {feature.stream!r})"
        )
    _check_array(feature, value, feature.shape, " after the last step")


def _check_attributes(attributes: dict[str, JsonValue]) -> None:
    try:
        json.dumps(attributes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OneStrideError(f"episode attributes: expected JSON values, got: {error}") from error
