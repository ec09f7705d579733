"""Reading rosbag2 recordings, sqlite3 and MCAP, without ROS: a mapping file says which topics become which features.

Reference: https://github.com/ros2/rosbag2, https://mcap.dev/spec; see docs/formats/rosbag2.md for the mapping.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from onestride.datasets.converters import Options, Report, Source
from onestride.datasets.converters.rosbag2_bag import Bag, open_bag, survey_times
from onestride.datasets.converters.rosbag2_episodes import episodes, time_features
from onestride.datasets.converters.rosbag2_mapping import Mapping, load_mapping
from onestride.datasets.converters.rosbag2_starter import starter
from onestride.datasets.converters.rosbag2_survey import Wanted, base_rate, survey_episodes, survey_features
from onestride.datasets.provenance import Provenance
from onestride.datasets.provenance import Source as SourceFile
from onestride.datasets.schema import Schema
from onestride.hardware.errors import OneStrideError

VERSION = 1
"""Of what this reader makes of a recording, see `Provenance.command_version`."""


def read(path: Path, report: Report, options: Options) -> Source:
    """Look through a recording, and make its episodes available one by one.

    Raises:
        OneStrideError: damaged or missing files, or a mapping that is missing or does not fit the recording. Without
            a mapping the message lists the topics and a mapping to begin with.
    """
    bag = open_bag(path, report)
    if options.mapping is None:
        survey_times(bag)
        raise OneStrideError(starter(bag))
    mapping = load_mapping(options.mapping)
    with _told(path):
        wanted = survey_features(bag, mapping, report)
        spans = survey_episodes(bag, mapping, report)
        schema = _schema(bag, mapping, wanted, report, options)
    _report(bag, mapping, report)
    provenance = partial(_provenance, bag, mapping, options.mapping, schema)
    return Source(schema, provenance, len(spans), episodes(bag, mapping, wanted, spans, report))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise OneStrideError(f"{path}: expected usable features, got: {error.errors()[0]['msg']}") from error


def _schema(bag: Bag, mapping: Mapping, wanted: tuple[Wanted, ...], report: Report, options: Options) -> Schema:
    return Schema(
        features=(*(one.feature for one in wanted), *time_features(mapping)),
        control_rate=base_rate(bag, mapping, report),
        label=mapping.label_name,
        label_source=mapping.label_source,
        environment=options.environment or mapping.environment,
        robot=mapping.robot,
    )


def _report(bag: Bag, mapping: Mapping, report: Report) -> None:
    used = {*mapping.topics, *(one.topic for one in mapping.attributes.values())}
    for topic in bag.topics.values():
        if topic.name not in used and topic.count:
            report.left_out.append(f"{topic.name}: {topic.count} messages {topic.type}, not in the mapping")
    for topic_name, about in mapping.topics.items():
        if about.align is not None:
            sense = {"hold": "the last message at or before", "next": "the first message at or after"}[about.align]
            stream = mapping.stream(topic_name)
            report.changed.append(f"{topic_name}: {sense} each tick; its own time is feature {stream}.time")


def _provenance(bag: Bag, mapping: Mapping, path: Path, schema: Schema) -> Provenance:
    return Provenance.now(
        "convert rosbag2",
        command_version=VERSION,
        packages=("rosbags",),
        sources=(*(SourceFile.of(file) for file in bag.files), SourceFile.of(path)),
        environment=schema.environment,
        extra={"mapping": mapping.model_dump(mode="json", exclude_defaults=True)},
    )
