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
from onestride.datasets.converters.rosbag2_decoding import Decoded, Skipped, TopicDecoder
from onestride.datasets.converters.rosbag2_fields import UnusableError, field_of
from onestride.datasets.converters.rosbag2_mapping import Mapping, TopicMapping
from onestride.datasets.converters.rosbag2_storage import Block
from onestride.datasets.converters.rosbag2_survey import END, Span, Wanted
from onestride.datasets.converters.spilling import picked
from onestride.datasets.schema import BASE, Array, Episode, Feature
from onestride.hardware.errors import OneStrideError

Times = NDArray[np.int64]


@dataclass
class Counts:
    """What was not used, by topic and reason."""

    skipped: Skipped = field(default_factory=Counter)
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
    by_topic = {topic: [one for one in wanted if one.topic == topic] for topic in mapping.topics}
    decoders = {
        topic: TopicDecoder(bag, topic, mine, mapping.clock_of(topic) == "stamped", counts.skipped)
        for topic, mine in by_topic.items()
    }
    for blocks in _grouped(bag, mapping, spans, counts):
        attributes = _gather(bag, mapping, decoders, blocks)
        decoded = {topic: decoder.finish() for topic, decoder in decoders.items()}
        episode = _assemble(mapping, by_topic, decoded, attributes, counts)
        if episode is None:
            counts.empty += 1
            continue
        made += 1
        yield episode
    if not made:
        reasons = "; ".join([f"{topic}: {reason}" for topic, reason in counts.skipped] + list(counts.ticks))
        raise OneStrideError(f"{bag.path}: expected an episode with usable ticks, got none: {reasons or 'no messages'}")
    counts.tell(report)


def _grouped(bag: Bag, mapping: Mapping, spans: list[Span], counts: Counts) -> Iterator[Iterator[Block]]:
    """The messages of each span; each group has to be used up before the next."""
    topics = {*mapping.topics, *(one.topic for one in mapping.attributes.values())}
    blocks = bag.blocks(topics)
    waiting = next(blocks, None)

    def before(time: int) -> Iterator[Block]:
        """What is left of messages received before a time [ns]."""
        nonlocal waiting
        while waiting is not None:
            count = int(np.searchsorted(waiting.received, time, side="left"))
            if count:
                yield waiting.cut(0, count)
            if count < len(waiting):
                waiting = waiting.cut(count)
                return
            waiting = next(blocks, None)

    for span in spans:
        counts.outside += sum(map(len, before(span.start)))
        yield before(span.stop)
    counts.outside += sum(map(len, before(END)))


def _gather(
    bag: Bag, mapping: Mapping, decoders: dict[str, TopicDecoder], blocks: Iterator[Block]
) -> dict[str, JsonValue]:
    """Hand an episode's messages to the decoders; its attributes."""
    attributes: dict[str, JsonValue] = {"bag": bag.path.name}
    if mapping.task is not None:
        attributes["task"] = mapping.task
    noted = [one.topic for one in mapping.attributes.values()]
    for block in blocks:
        for place in np.flatnonzero(np.isin(block.topics, noted)):
            topic = str(block.topics[place])
            message = Message(topic, bag.topics[topic].type, int(block.received[place]), block.contents[place])
            _note(bag, mapping, message, attributes)
        for topic, decoder in decoders.items():
            decoder.add(*block.of(topic))
    return attributes


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
    decoded: dict[str, Decoded],
    attributes: dict[str, JsonValue],
    counts: Counts,
) -> Episode | None:
    base = decoded[mapping.base].times
    kept = np.ones(len(base), bool)
    choices: dict[str, Times] = {}
    for topic, about in mapping.topics.items():
        if about.align is not None:
            choices[topic], usable = _aligned(about, base, decoded[topic].times)
            if missing := int((kept & ~usable).sum()):
                counts.ticks[f"no message on {topic} ({about.align})"] += missing
            kept &= usable
    ticks = np.flatnonzero(kept)
    if not len(ticks):
        return None
    data: dict[str, Array] = {}
    clocks = {BASE: base[ticks]}
    for topic, wanted in by_topic.items():
        times, rows = decoded[topic].times, decoded[topic].rows
        if topic in choices:
            data[f"{mapping.stream(topic)}.time"] = times[choices[topic][ticks]]
            rows = [picked(one, choices[topic][ticks]) for one in rows]
        elif topic == mapping.base:
            rows = [picked(one, ticks) for one in rows]
        else:
            clocks[mapping.stream(topic)] = times
        data |= {one.feature.name: of_one for one, of_one in zip(wanted, rows, strict=True)}
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
