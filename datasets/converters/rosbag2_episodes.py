"""Episodes out of a stream of messages: rows gathered by topic, commands aligned with the ticks of the base clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from onestride.datasets.converters import Report
from onestride.datasets.converters.rosbag2_bag import Bag, Message
from onestride.datasets.converters.rosbag2_fields import UnusableError, field_of, row_of, stamp_of
from onestride.datasets.converters.rosbag2_mapping import Mapping, TopicMapping
from onestride.datasets.converters.rosbag2_survey import Span, Wanted
from onestride.datasets.schema import BASE, Array, Episode, Feature
from onestride.hardware.errors import OneStrideError

Times = NDArray[np.int64]


@dataclass
class _Gathered:
    """What one topic brought within an episode."""

    times: list[int] = field(default_factory=list)
    rows: list[list[Array]] = field(default_factory=list)

    def ordered(self) -> tuple[Times, list[list[Array]]]:
        """By time; equal times as they came."""
        times = np.array(self.times, np.int64)
        order = np.argsort(times, kind="stable")
        return times[order], [self.rows[one] for one in order]


@dataclass
class Counts:
    """What was not used, by topic and reason."""

    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    ticks: Counter[str] = field(default_factory=Counter)
    outside: int = 0
    empty: int = 0

    def tell(self, report: Report) -> None:
        """Put it into the report."""
        for (topic, reason), count in self.skipped.items():
            report.left_out.append(f"{topic}: {count} messages skipped: {reason}")
        for reason, count in self.ticks.items():
            report.left_out.append(f"{count} ticks left out: {reason}")
        if self.outside:
            report.left_out.append(f"{self.outside} messages outside every episode")
        if self.empty:
            report.left_out.append(f"{self.empty} episodes without a usable tick")


def time_features(mapping: Mapping) -> tuple[Feature, ...]:
    """For each aligned topic, when the message behind each tick was [ns]: nothing measured is lost by aligning."""
    aligned = (mapping.stream(topic) for topic, about in mapping.topics.items() if about.align is not None)
    return tuple(
        Feature(name=f"{stream}.time", role="info", shape=(), dtype="int64", units=("ns",)) for stream in aligned
    )


def episodes(
    bag: Bag, mapping: Mapping, wanted: tuple[Wanted, ...], spans: list[Span], report: Report
) -> Iterator[Episode]:
    """Every episode that has a usable tick; holds one at a time.

    Raises:
        OneStrideError: a damaged file, or no episode at all.
    """
    counts, made = Counts(), 0
    for messages in _grouped(bag, mapping, spans, counts):
        episode = _episode(bag, mapping, wanted, messages, counts)
        if episode is None:
            counts.empty += 1
            continue
        made += 1
        yield episode
    if not made:
        reasons = "; ".join([f"{topic}: {reason}" for topic, reason in counts.skipped] + list(counts.ticks))
        raise OneStrideError(f"{bag.path}: expected an episode with usable ticks, got none: {reasons or 'no messages'}")
    counts.tell(report)


def _grouped(bag: Bag, mapping: Mapping, spans: list[Span], counts: Counts) -> Iterator[Iterator[Message]]:
    """The messages of each span; each group has to be used up before the next."""
    topics = {*mapping.topics, *(one.topic for one in mapping.attributes.values())}
    messages = bag.messages(topics)
    waiting = next(messages, None)
    for span in spans:
        while waiting is not None and waiting.received < span.start:
            counts.outside += 1
            waiting = next(messages, None)

        def group(stop: int = span.stop) -> Iterator[Message]:
            nonlocal waiting
            while waiting is not None and waiting.received < stop:
                yield waiting
                waiting = next(messages, None)

        yield group()
    while waiting is not None:
        counts.outside += 1
        waiting = next(messages, None)


def _episode(
    bag: Bag, mapping: Mapping, wanted: tuple[Wanted, ...], messages: Iterator[Message], counts: Counts
) -> Episode | None:
    gathered = {topic: _Gathered() for topic in mapping.topics}
    attributes: dict[str, JsonValue] = {"bag": bag.path.name}
    if mapping.task is not None:
        attributes["task"] = mapping.task
    by_topic = {topic: [one for one in wanted if one.topic == topic] for topic in mapping.topics}
    for message in messages:
        if message.topic in gathered:
            _gather(bag, mapping, message, by_topic[message.topic], gathered[message.topic], counts)
        _note(bag, mapping, message, attributes)
    return _assemble(mapping, by_topic, gathered, attributes, counts)


def _gather(
    bag: Bag, mapping: Mapping, message: Message, wanted: list[Wanted], into: _Gathered, counts: Counts
) -> None:
    try:
        decoded = bag.decode(message)
        stamped = mapping.clock_of(message.topic) == "stamped"
        time = stamp_of(decoded) if stamped else message.received
        rows = [_row(bag, decoded, one) for one in wanted]
    except UnusableError as error:
        counts.skipped[message.topic, str(error)] += 1
        return
    except OneStrideError as error:
        raise OneStrideError(f"{bag.path}: {message.topic} at {message.received} ns: {error}") from error
    into.times.append(time)
    into.rows.append(rows)


def _row(bag: Bag, decoded: object, one: Wanted) -> Array:
    value = row_of(decoded, one.mapping, one.joints, bag.types).value
    if value.shape != one.feature.shape or value.dtype.name != one.feature.dtype:
        raise UnusableError(
            f"{one.feature.name}: {value.shape} {value.dtype}, not {one.feature.shape} {one.feature.dtype}"
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        element = int(np.flatnonzero(~np.isfinite(value.reshape(-1)))[0])
        raise OneStrideError(f"{one.feature.element(element)}: expected finite, got {value.reshape(-1)[element]}")
    return value


def _note(bag: Bag, mapping: Mapping, message: Message, attributes: dict[str, JsonValue]) -> None:
    for name, one in mapping.attributes.items():
        if one.topic == message.topic:
            try:
                value = field_of(bag.decode(message), one.field)
            except UnusableError:
                continue
            if not isinstance(value, bool | int | float | str | list):
                raise OneStrideError(f"attribute {name}: expected a plain value at {one.field}, got {value!r:.60}")
            attributes[name] = value


def _assemble(
    mapping: Mapping,
    by_topic: dict[str, list[Wanted]],
    gathered: dict[str, _Gathered],
    attributes: dict[str, JsonValue],
    counts: Counts,
) -> Episode | None:
    base, base_rows = gathered[mapping.base].ordered()
    kept = np.ones(len(base), bool)
    choices: dict[str, tuple[Times, Times, list[list[Array]]]] = {}
    for topic, about in mapping.topics.items():
        if about.align is not None:
            times, rows = gathered[topic].ordered()
            chosen, usable = _aligned(about, base, times)
            for reason in (f"no message on {topic} ({about.align})",) * int((kept & ~usable).sum()):
                counts.ticks[reason] += 1
            kept &= usable
            choices[topic] = (chosen, times, rows)
    ticks = np.flatnonzero(kept)
    if not len(ticks):
        return None
    data: dict[str, Array] = {}
    clocks = {BASE: base[ticks]}
    for topic, wanted in by_topic.items():
        if topic in choices:
            chosen, times, rows = choices[topic]
            data[f"{mapping.stream(topic)}.time"] = times[chosen[ticks]]
            _fill(data, wanted, [rows[one] for one in chosen[ticks]])
        elif topic == mapping.base:
            _fill(data, wanted, [base_rows[one] for one in ticks])
        else:
            clocks[mapping.stream(topic)], rows = gathered[topic].ordered()
            _fill(data, wanted, rows)
    return Episode(data, clocks, {}, attributes)


def _aligned(about: TopicMapping, base: Times, times: Times) -> tuple[Times, NDArray[np.bool_]]:
    """Which message belongs to each tick, and whether there is one."""
    if about.align == "hold":
        chosen = np.searchsorted(times, base, side="right") - 1
    else:
        chosen = np.searchsorted(times, base, side="left")
    usable = (chosen >= 0) & (chosen < len(times))
    chosen = np.clip(chosen, 0, max(0, len(times) - 1)).astype(np.int64)
    if about.max_age is not None and len(times):
        usable &= np.abs(times[chosen] - base) <= about.max_age * 1e9
    return chosen, usable


def _fill(data: dict[str, Array], wanted: list[Wanted], rows: list[list[Array]]) -> None:
    for number, one in enumerate(wanted):
        empty = np.zeros((0, *one.feature.shape), one.feature.dtype)
        data[one.feature.name] = np.stack([row[number] for row in rows]) if rows else empty
