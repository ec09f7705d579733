"""What our exports carry besides the data, so that a dataset that comes back is the one that left.

Foreign formats have no place for roles, units, label sources or provenance. Each writer puts a passport where its
format allows a note that foreign readers ignore; each reader looks for it, and believes it where the data agree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import JsonValue, ValidationError

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import BASE, Feature, Schema
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

NAME = "onestride"
"""Of the attribute or member that holds it."""

_FORMAT = 1


@dataclass(frozen=True)
class Passport:
    """A store's description on its way through a foreign format."""

    dataset_id: str
    schema: Schema
    provenance: Provenance
    paths: dict[str, str]
    """Feature -> where the format keeps it."""
    notes: dict[str, JsonValue] = field(default_factory=dict)
    """What else the writer wants its reader to know."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "format": _FORMAT,
            "dataset_id": self.dataset_id,
            "schema": self.schema.model_dump(mode="json"),
            "provenance": self.provenance.model_dump(mode="json"),
            "paths": self.paths,
            "notes": self.notes,
        }

    def feature_at(self, path: str, shape: tuple[int, ...], dtype: str) -> Feature | None:
        """The feature that lies at `path`; None where there was none, or the data have changed since."""
        for feature in self.schema.features:
            if self.paths.get(feature.name) == path and (feature.shape, feature.dtype) == (shape, dtype):
                # Foreign formats know one clock, and pictures come back as they were written.
                return feature.model_copy(update={"stream": BASE, "codec": "lossless"})
        return None

    def ordered(self, features: Iterable[Feature]) -> list[Feature]:
        """The features in the order they had, new ones last."""
        order = {feature.name: number for number, feature in enumerate(self.schema.features)}
        return sorted(features, key=lambda feature: order.get(feature.name, len(order)))


def issue(store: Store, paths: dict[str, str], notes: dict[str, JsonValue] | None = None) -> Passport:
    """The passport of a store that is being exported."""
    return Passport(store.dataset_id, store.schema, store.provenance, paths, notes or {})


def read_passport(recorded: object) -> Passport | None:
    """The passport in a recorded note, JSON text or values; None where there is none.

    Raises:
        OneStrideError: a note of ours that is damaged, or of another version.
    """
    if recorded is None:
        return None
    try:
        content: Any = json.loads(recorded) if isinstance(recorded, str | bytes) else recorded
        version = content["format"]
        if version != _FORMAT:
            raise OneStrideError(f"{NAME}: expected a note of version {_FORMAT}, got {version!r}")
        return Passport(
            dataset_id=str(content["dataset_id"]),
            schema=Schema.model_validate(content["schema"]),
            provenance=Provenance.model_validate(content["provenance"]),
            paths={str(name): str(path) for name, path in content["paths"].items()},
            notes=dict(content["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, ValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise OneStrideError(f"{NAME}: expected the note of an export, got: {reason}") from error


def origin(passport: Passport | None) -> dict[str, Any]:
    """What a returning dataset's provenance says about where it had been: `parents` and an entry for `extra`."""
    if passport is None:
        return {"parents": (), "extra": {}}
    left = passport.provenance.model_dump(mode="json")
    return {"parents": (passport.dataset_id,), "extra": {"parent": left}}


def pack_attributes(attributes: dict[str, JsonValue]) -> str:
    """An episode's attributes as JSON text, in their order."""
    return json.dumps(attributes, allow_nan=False)


def unpack_attributes(recorded: object) -> dict[str, JsonValue]:
    """Attributes from JSON text or values.

    Raises:
        OneStrideError: no JSON object.
    """
    try:
        content = json.loads(recorded) if isinstance(recorded, str | bytes) else recorded
    except (ValueError, RecursionError) as error:
        raise OneStrideError(f"{NAME}: expected an episode's attributes, got damaged JSON") from error
    if not isinstance(content, dict):
        raise OneStrideError(f"{NAME}: expected an episode's attributes, got {type(content).__name__}")
    return dict(content)


def is_plain(value: object, longest: int = 1 << 16) -> bool:
    """Whether a value is a short JSON scalar that a foreign attribute holds exactly."""
    if isinstance(value, float):
        return bool(np.isfinite(value))
    if isinstance(value, int):
        return abs(value) < 1 << 63
    return isinstance(value, str) and len(value) < longest and "\0" not in value
