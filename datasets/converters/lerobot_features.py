"""Which column of a LeRobot dataset is which feature, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from onestride.datasets.converters.lerobot_meta import FeatureInfo
from onestride.datasets.converters.lerobot_rows import element_type
from onestride.datasets.converters.passport import Passport
from onestride.datasets.schema import DTYPES, Feature, Role, Schema

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns of every LeRobot dataset that follow from the rows' order and the tasks."""
CLOCK = "timestamp_ns"
"""Our column for the measured time: LeRobot's own `timestamp` has to be frame_index / fps."""
ALIASES = {"state": "observation.state", "actions": "action"}
"""Names that some files use, and the usual ones."""
_SCALARS: dict[str, Role] = {"next.reward": "reward", "reward": "reward", "next.done": "terminal", "done": "terminal"}


def usual_name(key: str, keys: Mapping[str, object]) -> str:
    """The name a column gets in the store."""
    usual = ALIASES.get(key, key)
    return key if usual != key and usual in keys else usual


def role_of(name: str) -> Role:
    """What a column is, by LeRobot's customs."""
    if name in _SCALARS:
        return _SCALARS[name]
    if name == "action" or name.startswith("action."):
        return "action"
    if name == "observation" or name.startswith("observation."):
        return "observation"
    return "info"


def describe(name: str, info: FeatureInfo, kind: pa.DataType) -> Feature | None:
    """The feature of a column of numbers; None where the store has no such type.

    Raises:
        ValidationError: a name or shape that the store cannot have.
    """
    dtype = dtype_of(kind)
    if dtype not in DTYPES:
        return None
    role = role_of(name)
    # LeRobot has no scalars: (1,) is how it writes them.
    scalar = info.shape == (1,) and role not in ("observation", "action")
    shape = () if scalar else info.shape
    return Feature(name=name, role=role, shape=shape, dtype=dtype, names=info.element_names if shape else ())


def dtype_of(kind: pa.DataType) -> str:
    """The numpy name of a column's elements; Arrow's own where numpy has none."""
    name = str(element_type(kind))
    return {"halffloat": "float16", "float": "float32", "double": "float64"}.get(name, name)


def frame_shape(info: FeatureInfo) -> tuple[int, ...]:
    """(H, W, C) of a camera, which some datasets declare as (C, H, W)."""
    names = info.names if isinstance(info.names, list) else []
    first = str(names[0]).lower() if names else ""
    if len(info.shape) == 3 and (first.startswith("channel") or (not names and info.shape[0] == 3 < info.shape[2])):
        return (*info.shape[1:], info.shape[0])
    return info.shape


def returning(passport: Passport | None, key: str, info: FeatureInfo, dtype: str) -> Feature | None:
    """The feature that our own writer put into a column; None for foreign or altered ones."""
    if passport is None:
        return None
    scalar = passport.feature_at(key, (), dtype) if info.shape == (1,) else None
    return scalar or passport.feature_at(key, info.shape, dtype)


def columns_for(schema: Schema) -> dict[str, str]:
    """Feature -> column that a LeRobot dataset gives it, all distinct."""
    low = [one for one in schema.by_role("observation") if not is_image(one)]
    given: dict[str, str] = {}
    for feature in schema.features:
        key = _column(feature, schema.label, only_observation=[one.name for one in low] == [feature.name])
        while key in given.values() or key in (*BOOKKEEPING, CLOCK, "task"):
            key = f"info.{key}"
        given[feature.name] = key
    return given


def is_image(feature: Feature) -> bool:
    """Whether LeRobot takes it as a camera: bytes (H, W, 3)."""
    return feature.dtype == "uint8" and len(feature.shape) == 3 and feature.shape[2] == 3


def _column(feature: Feature, label: str, *, only_observation: bool) -> str:
    name = feature.name
    if name == label:
        return "action"
    if feature.role in ("reward", "terminal"):
        return {"reward": "next.reward", "terminal": "next.done"}[feature.role]
    if feature.role == "observation":
        return _observation_column(feature, only_observation)
    # A policy of LeRobot takes every column that begins so as an input or a label.
    return f"info.{name}" if name.startswith(("observation", "action", "next.")) else name


def _observation_column(feature: Feature, only_observation: bool) -> str:
    bare = feature.name.removeprefix("observation").lstrip(".")
    if is_image(feature):
        return f"observation.images.{bare.removeprefix('images.') or 'camera'}"
    if only_observation or not bare:
        return "observation.state"
    return f"observation.{bare}"
