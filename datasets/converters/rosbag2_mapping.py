"""The mapping file: which topics of a recording become which features, on which clock, in which episodes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from onestride.datasets.schema import BASE, LabelSource, Role
from onestride.hardware.errors import OneStrideError

Clock = Literal["received", "stamped"]
_LONGEST = 1 << 20


class FeatureMapping(BaseModel):
    """What of a message becomes a feature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    field: str | None = None
    """Path within the message as `pose.position` or `points[0].positions`; None = the message itself."""
    joints: tuple[str, ...] = ()
    """Elements in this order, by the names the message carries; messages that lack one are skipped and counted."""
    names: tuple[str, ...] = ()
    """Element names, where the message carries none."""
    unit: str | None = None
    """Of every element."""
    units: tuple[str, ...] = ()
    """One for each element."""
    codec: Literal["lossless", "video"] = "lossless"

    @model_validator(mode="after")
    def _one_of_each(self) -> FeatureMapping:
        if self.joints and self.names:
            raise ValueError("expected either joints (by the message's names) or names (given here), got both")
        if self.unit is not None and self.units:
            raise ValueError("expected either unit (for all elements) or units (one for each), got both")
        return self


class TopicMapping(BaseModel):
    """What becomes of a topic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: dict[str, FeatureMapping] = Field(min_length=1)
    align: Literal["hold", "next"] | None = None
    """Onto the base clock: `hold` = the last message at or before the tick, `next` = the first at or after it.
    None = a stream of its own, at its own rate."""
    max_age: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """A tick whose aligned message is further away than this [s] is left out."""
    clock: Clock | None = None
    """As `Mapping.clock`, for this topic."""
    stream: str | None = None
    """Name of its stream; None = after the topic."""


class WholeBag(BaseModel):
    """The recording is one episode."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["whole"] = "whole"


class ByGap(BaseModel):
    """A pause of the base topic ends an episode."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["gap"]
    seconds: float = Field(gt=0, allow_inf_nan=False)


class ByMarker(BaseModel):
    """Messages or service calls begin and end episodes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["marker"]
    start: str
    """Topic whose messages, or service whose calls, begin an episode; with `field` they end it too."""
    stop: str | None = None
    """Likewise for the end; None = the next start."""
    field: str | None = None
    """A boolean of the start topic: true begins, false ends."""

    @model_validator(mode="after")
    def _one_way_to_stop(self) -> ByMarker:
        if self.stop is not None and self.field is not None:
            raise ValueError("expected either a stop topic or a boolean field of the start topic, got both")
        return self


class AttributeMapping(BaseModel):
    """An attribute of the episode: the last value of a field within it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    field: str = "data"


class Mapping(BaseModel):
    """A mapping file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    """The topic whose messages are the control steps."""
    clock: Clock = "received"
    """`received` by the recorder, or `stamped` by the sender in `header.stamp`."""
    control_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """[Hz]; None = the median of the base topic."""
    label: str | None = None
    """The action feature that a policy learns; None = the only one."""
    label_source: LabelSource = "unknown"
    environment: str | None = None
    robot: str | None = None
    topics: dict[str, TopicMapping] = Field(min_length=1)
    episodes: Annotated[WholeBag | ByGap | ByMarker, Field(discriminator="by")] = WholeBag()
    attributes: dict[str, AttributeMapping] = Field(default_factory=dict)
    task: str | None = None
    """What is done in every episode."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Mapping:
        if self.base not in self.topics:
            raise ValueError(f"expected the base topic among topics, got {self.base!r}, has: {', '.join(self.topics)}")
        if self.topics[self.base].align is not None:
            raise ValueError(f"expected no align for the base topic {self.base}: its messages are the ticks")
        names = [name for topic in self.topics.values() for name in topic.features]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"expected distinct feature names, got {', '.join(doubled)} more than once")
        self._check_streams()
        self._check_label()
        return self

    def _check_streams(self) -> None:
        streams = [self.stream(topic) for topic in self.topics]
        doubled = sorted({name for name in streams if streams.count(name) > 1})
        if doubled:
            raise ValueError(f"expected distinct streams, got {', '.join(doubled)} more than once: name them by stream")

    def _check_label(self) -> None:
        actions = {
            name: topic
            for topic, about in self.topics.items()
            for name, feature in about.features.items()
            if feature.role == "action"
        }
        if self.label is None and len(actions) != 1:
            raise ValueError(f"expected one feature of role action, or a label, got: {', '.join(actions) or 'none'}")
        if self.label is not None and self.label not in actions:
            raise ValueError(f"expected the label among the action features, got {self.label!r}, has: {list(actions)}")
        topic = actions[self.label_name]
        if topic != self.base and self.topics[topic].align is None:
            raise ValueError(f"topic {topic}: expected align hold or next, for it holds the label {self.label_name}")

    @property
    def label_name(self) -> str:
        """The action feature that a policy learns."""
        if self.label is not None:
            return self.label
        every = (pair for topic in self.topics.values() for pair in topic.features.items())
        return next(name for name, feature in every if feature.role == "action")

    def stream(self, topic: str) -> str:
        """The stream of a topic that has its own; for messages and the time of aligned ones too."""
        if topic == self.base:
            return BASE
        return self.topics[topic].stream or re.sub(r"[^A-Za-z0-9_.\-]+", ".", topic).strip(".-_") or "stream"

    def on_base(self, topic: str) -> bool:
        """Whether a topic's features have one row for each tick."""
        return topic == self.base or self.topics[topic].align is not None

    def clock_of(self, topic: str) -> Clock:
        """Which time of its messages counts."""
        return self.topics[topic].clock or self.clock


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file.

    Raises:
        OneStrideError: missing, no YAML, or not a mapping; names the place and what is expected there.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise OneStrideError(f"{path}: expected a mapping of at most {_LONGEST} bytes, got {path.stat().st_size}")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OneStrideError(f"expected a mapping at {path}, got: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise OneStrideError(f"{path}: expected YAML, got: {reason}") from error
    return parse_mapping(content, str(path))


def parse_mapping(content: object, where: str) -> Mapping:
    """A mapping from YAML values.

    Raises:
        OneStrideError: not a mapping.
    """
    try:
        return Mapping.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise OneStrideError(f"{where}: expected a usable {place or 'mapping'}, got: {message}") from error
