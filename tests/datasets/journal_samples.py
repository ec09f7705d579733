"""A small two-rate schema, episodes that are known by their number, and a journal of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onestride.datasets.journal import TIME, JournalWriter, row_dtypes
from onestride.datasets.schema import Episode, Feature, Schema

SCHEMA = Schema(
    features=(
        Feature(name="observation", role="observation", shape=(3,), dtype="float32", names=("x", "y", "z")),
        Feature(name="action", role="action", shape=(2,), dtype="float32"),
        Feature(name="terminal", role="terminal", shape=(), dtype="bool"),
        Feature(name="joints", role="state", shape=(4,), dtype="float64", stream="fast"),
        Feature(name="camera", role="info", shape=(2, 2, 3), dtype="uint8", stream="slow"),
    ),
    control_rate=20.0,
    label="action",
    label_source="nominal",
    environment="toy/reach-v0",
    robot="toy",
)
CONTENT = SCHEMA.model_dump(mode="json")
LENGTHS = {"base": 1, "fast": 4, "slow": 0.5}


def sample(number: int, length: int = 6) -> Episode:
    """The episode of a number: same number, same bits."""
    chance = np.random.default_rng(number)
    counts = {stream: int(length * factor) for stream, factor in LENGTHS.items()}
    data = {
        one.name: (chance.normal(size=(counts[one.stream], *one.shape)) * 50).astype(one.dtype)
        for one in SCHEMA.features
    }
    data["terminal"][:] = False
    clocks = {stream: 1_000_000_000 + np.cumsum(chance.integers(1, 99, count)) for stream, count in counts.items()}
    return Episode(data, clocks, {"observation": np.array([number, 1, 2], np.float32)}, {"seed": number})


def packed(episode: Episode, stream: str) -> np.ndarray:
    rows = np.zeros(len(episode.timestamps[stream]), row_dtypes(CONTENT)[stream])
    rows[TIME] = episode.timestamps[stream]
    for name in (rows.dtype.names or ())[1:]:
        rows[name] = episode.data[name]
    return rows


def write(writer: JournalWriter, number: int, length: int = 6) -> None:
    """One whole episode, its id `e<number>`."""
    episode = sample(number, length)
    writer.begin(f"e{number}", 1000 + number, {"seed": number})
    for stream in writer.streams:
        rows = packed(episode, stream)
        writer.rows(stream, rows[: len(rows) // 2])
        writer.rows(stream, rows[len(rows) // 2 :])
    writer.final("observation", episode.final["observation"])
    rows_of = {stream: len(clock) for stream, clock in episode.timestamps.items()}
    writer.end({"rows": rows_of, "incomplete": [], "discarded": False, "attributes": {}})


def journal(path: Path, numbers: range) -> Path:
    """A journal of these episodes."""
    writer = JournalWriter(path, CONTENT, {"robot": "toy"})
    for number in numbers:
        write(writer, number)
    writer.close()
    return path


def same(one: Episode, other: Episode) -> bool:
    """Bit for bit, attributes of the recorder aside."""
    arrays = [(one.data, other.data), (one.timestamps, other.timestamps), (one.final, other.final)]
    alike = all(
        a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a)
        for a, b in arrays
    )
    return alike and one.attributes["seed"] == other.attributes["seed"]
