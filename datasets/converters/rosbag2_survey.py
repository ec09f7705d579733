"""Looking through a recording before a row is converted: what each feature is, and where episodes begin and end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.converters import Report
from onestride.datasets.converters.rosbag2_bag import Bag, Message
from onestride.datasets.converters.rosbag2_fields import UnusableError, feature_of, field_of, row_of
from onestride.datasets.converters.rosbag2_mapping import ByGap, ByMarker, FeatureMapping, Mapping
from onestride.datasets.schema import BASE, Feature
from onestride.hardware.errors import OneStrideError

EVENTS = "/_service_event"
"""What ROS 2 appends to a service's name for the topic of its calls."""
END = 2**63 - 1
"""No message is received after this [ns]."""
TRIES = 1000
"""Messages that are looked at for a feature's first usable row."""


@dataclass(frozen=True)
class Wanted:
    """A feature, and how its rows are taken from messages."""

    topic: str
    feature: Feature
    mapping: FeatureMapping
    joints: tuple[str, ...]
    """Order by name; empty = as the messages have them."""


@dataclass(frozen=True)
class Span:
    """An episode's messages: received at `start` or later and before `stop` [ns]."""

    start: int
    stop: int


def survey_features(bag: Bag, mapping: Mapping, report: Report) -> tuple[Wanted, ...]:
    """What each mapped feature is, by the first message that has it.

    Raises:
        OneStrideError: no such topic or field, or no usable message.
    """
    found = []
    for topic, about in mapping.topics.items():
        if not bag.topic(topic).count:
            raise OneStrideError(f"{bag.path}: expected messages on {topic}, got none")
        stream = BASE if mapping.on_base(topic) else mapping.stream(topic)
        for name, one in about.features.items():
            found.append(_first(bag, topic, name, one, stream, report))
    return tuple(found)


def survey_episodes(bag: Bag, mapping: Mapping, report: Report) -> list[Span]:
    """Where episodes begin and end, on the recorder's clock.

    Raises:
        OneStrideError: no such marker, or none that begins an episode.
    """
    if isinstance(mapping.episodes, ByMarker):
        return _by_marker(bag, mapping.episodes, report)
    if isinstance(mapping.episodes, ByGap):
        return _by_gap(bag.received(mapping.base), mapping.episodes.seconds)
    return [Span(0, END)]


def base_rate(bag: Bag, mapping: Mapping, report: Report) -> float | None:
    """The control rate [Hz]: as the mapping says, else the median of the base topic; None of a single message."""
    steps = np.diff(bag.received(mapping.base))
    steps = steps[steps > 0]
    measured = round(1e9 / float(np.median(steps)), 3) if len(steps) else None
    if measured is not None:
        spread = np.percentile(steps, [1, 99]) / 1e6
        report.kept.append(
            f"{mapping.base}: the base clock, {measured:g} Hz by median, "
            f"periods of {spread[0]:.2f} to {spread[1]:.2f} ms (1 to 99 %)"
        )
    return mapping.control_rate or measured


def _first(bag: Bag, topic: str, name: str, mapping: FeatureMapping, stream: str, report: Report) -> Wanted:
    reason = "none"
    for tried, message in enumerate(bag.messages([topic])):
        if tried == TRIES:
            break
        try:
            row = row_of(bag.decode(message), mapping, (), bag.types)
        except UnusableError as error:
            reason = str(error)
            continue
        except OneStrideError as error:
            raise OneStrideError(f"{bag.path}: {topic}: feature {name!r}: {error}") from error
        feature = feature_of(name, mapping, row, stream)
        if row.changed:
            report.changed.append(f"{topic}: {name}: {row.changed}")
        report.kept.append(f"{topic}: {name} {feature.shape} {feature.dtype}, stream {stream!r}")
        return Wanted(topic, feature, mapping, row.names if row.by_name else ())
    raise OneStrideError(f"{bag.path}: expected {name!r} in a message on {topic}, got none: {reason}")


def _by_gap(times: NDArray[np.int64], seconds: float) -> list[Span]:
    """Cut in the middle of each pause, so that commands just before a first tick belong to it."""
    before = np.flatnonzero(np.diff(times) > seconds * 1e9)
    cuts = [(int(times[one]) + int(times[one + 1])) // 2 for one in before]
    edges = [0, *cuts, END]
    return [Span(start, stop) for start, stop in pairwise(edges)]


def _by_marker(bag: Bag, episodes: ByMarker, report: Report) -> list[Span]:
    events = _events(bag, episodes)
    spans: list[Span] = []
    begun: int | None = None
    surplus = 0
    for time, begins in events:
        if begun is not None and (not begins or episodes.stop is None):
            spans.append(Span(begun, time))
            begun = time if begins else None
        elif begins:
            # A second start without a stop in between: what came before was not meant.
            surplus += begun is not None
            begun = time
        else:
            surplus += 1
    if begun is not None:
        spans.append(Span(begun, END))
        report.changed.append(f"{episodes.start}: the last episode has no end, taken to the recording's")
    if surplus:
        report.left_out.append(f"{episodes.start}: {surplus} markers without a counterpart")
    if not spans:
        raise OneStrideError(f"{bag.path}: expected a marker on {episodes.start} that begins an episode, got none")
    return [span for span in spans if span.start < span.stop]


def _events(bag: Bag, episodes: ByMarker) -> list[tuple[int, bool]]:
    """(received, whether an episode begins), in order."""
    start = _marker_topic(bag, episodes.start)
    stop = _marker_topic(bag, episodes.stop) if episodes.stop else None
    calls: set[bytes] = set()
    events = []
    for message in bag.messages([topic for topic in (start, stop) if topic]):
        if message.topic.endswith(EVENTS):
            if not _first_of_call(message, calls):
                continue
            begins = message.topic == start
        elif episodes.field is not None:
            begins = bool(_flag(bag, message, episodes.field))
        else:
            begins = message.topic == start
        events.append((message.received, begins))
    return _changes(events) if episodes.field is not None else events


def _marker_topic(bag: Bag, name: str) -> str:
    """The topic itself, or that of the service's calls."""
    return name + EVENTS if name not in bag.topics and name + EVENTS in bag.topics else bag.topic(name).name


def _first_of_call(message: Message, calls: set[bytes]) -> bool:
    """A call has up to four events, told by client and number; the layout of `ServiceEventInfo` is fixed.

    After 4 bytes of CDR header: event type 1 (+3), time 4 + 4, client 16 (+4), number 8.
    """
    if len(message.content) < 44:
        raise OneStrideError(f"{message.topic}: expected a service event at {message.received} ns, got {message.type}")
    call = message.topic.encode() + message.content[16:32] + message.content[36:44]
    fresh = call not in calls
    calls.add(call)
    return fresh


def _flag(bag: Bag, message: Message, field: str) -> object:
    try:
        return field_of(bag.decode(message), field)
    except UnusableError as error:
        raise OneStrideError(f"{bag.path}: {message.topic}: {error}") from error


def _changes(events: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """A flag may be repeated at a rate: only its changes count, and false before the first true does not."""
    changed, now = [], False
    for time, begins in events:
        if begins != now:
            changed.append((time, begins))
            now = begins
    return changed
