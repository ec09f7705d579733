"""Between the store and its neighbours: one reader and one writer for each format, N + M through the store.

A reader is a module with `OPTIONS`, the names of the `Options` it understands, and

- `recognises(path) -> bool`, which looks at the content and never at the name;
- `read(path, report, options) -> Source`, which looks through everything before the first episode is yielded.

A writer is a module with `OPTIONS` and

- `write(store, path, report, options, progress) -> None`, which makes `path` (a file or a folder) and its companions
  beside it. The folder of `path` is new and empty, and is moved into place when `write` has returned: what a failed
  writer leaves behind is never seen.

Both stream, episode by episode or segment by segment, and put a line into the report for all they leave out or alter.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from onestride.datasets.ahead import ahead, portions
from onestride.datasets.converters.placing import left_behind, placed
from onestride.datasets.layout import is_store
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Schema
from onestride.datasets.store import SegmentWriter, Store
from onestride.hardware.errors import OneStrideError, unknown

STORE = "store"
"""The name of our own format, as a source and as a target."""

READERS: dict[str, str] = {
    "robomimic HDF5": "onestride.datasets.converters.robomimic",
    "OGBench npz": "onestride.datasets.converters.ogbench",
    "diffusion-policy zarr": "onestride.datasets.converters.diffusion_policy",
    "LeRobot": "onestride.datasets.converters.lerobot",
    "onestride MCAP": "onestride.datasets.converters.mcap_reader",
    "rosbag2": "onestride.datasets.converters.rosbag2",
}
"""Format -> module that reads it, imported when it is needed; asked in this order."""


@dataclass(frozen=True)
class Writer:
    """A format that can be written."""

    module: str
    """Imported when it is needed."""
    format: str
    """The key in `READERS` that recognises what it writes."""
    suffixes: tuple[str, ...] = ()
    """Endings of a destination that choose it where no `--to` does."""
    companions: tuple[str, ...] = ()
    """Files it may write beside the destination, as patterns over `{stem}`."""


WRITERS: dict[str, Writer] = {
    "robomimic": Writer("onestride.datasets.converters.robomimic_writer", "robomimic HDF5", suffixes=(".hdf5", ".h5")),
    "ogbench": Writer(
        "onestride.datasets.converters.ogbench_writer",
        "OGBench npz",
        suffixes=(".npz",),
        companions=("{stem}-val.npz",),
    ),
    "diffusion_policy": Writer("onestride.datasets.converters.diffusion_policy_writer", "diffusion-policy zarr"),
    "lerobot": Writer("onestride.datasets.converters.lerobot_writer", "LeRobot"),
    "mcap": Writer("onestride.datasets.converters.mcap_writer", "onestride MCAP", suffixes=(".mcap",)),
}
"""Name for `--to` -> how it is written."""

AHEAD_BYTES = 32 << 20
"""Of episodes that an import reads while those before are written."""

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


@dataclass(frozen=True)
class Options:
    """What a user may say about a conversion. A converter that does not understand an option refuses it."""

    environment: str | None = None
    """Environment that the data is of, where the source does not say."""
    mapping: Path | None = None
    """File that says which topics become which features."""
    codec: Literal["lossless", "video"] | None = None
    """How images are kept; None = as the converter's documentation says."""
    control_rate: float | None = None
    """Rate of the control steps [Hz], where the source does not say."""
    leave_out: tuple[str, ...] = ()
    """Keys of the source that are not brought over."""
    as_uint8: tuple[str, ...] = ()
    """Pictures of the source that are floats of whole numbers from 0 to 255, and become uint8."""

    def given(self) -> tuple[str, ...]:
        """Names of the options that differ from their defaults."""
        plain = Options()
        return tuple(one.name for one in fields(self) if getattr(self, one.name) != getattr(plain, one.name))


@dataclass
class Report:
    """What became of a source: nothing is left out or altered without a line here."""

    format: str = ""
    """What was read."""
    to: str = STORE
    """What was written."""
    kept: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Kept in another form, derived, or corrected."""
    left_out: list[str] = field(default_factory=list)
    """What the target cannot hold, or this converter does not bring over."""
    episodes: int = 0
    steps: int = 0
    dataset_id: str = ""
    """Of the store that was made, or that was written from."""
    seconds: float = 0.0
    bytes: int = 0
    """Size of what was written, on disk."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Source:
    """A dataset in another format, opened and checked, ready to be read episode by episode."""

    schema: Schema
    provenance: Callable[[], Provenance]
    """Makes it; asked once, while the first episodes are read already: it has to hash the source."""
    count: int
    """Number of episodes."""
    episodes: Iterator[Episode]


def detect(path: Path) -> str:
    """The format of the dataset at `path`, by its content: `STORE` or a key of `READERS`.

    Raises:
        OneStrideError: nothing there, none of the known formats, or the disk refuses.
    """
    try:
        if not path.exists():
            raise OneStrideError(f"expected a dataset at {path}, got nothing there")
        if is_store(path):
            return STORE
        for name, module in READERS.items():
            if import_module(module).recognises(path):
                return name
    except OSError as error:
        raise OneStrideError(f"{path}: expected a dataset that can be read, got: {error}") from error
    raise unknown("dataset format", str(path), [*READERS, STORE])


def target_format(destination: Path, to: str | None = None) -> str:
    """The format to write: `to` where given, else by the ending of the destination, else a store.

    Raises:
        OneStrideError: `to` is no format that can be written.
    """
    if to is not None:
        if to not in (STORE, *WRITERS):
            raise unknown("target format", to, (STORE, *WRITERS))
        return to
    by_suffix = (name for name, writer in WRITERS.items() if destination.suffix.lower() in writer.suffixes)
    return next(by_suffix, STORE)


def convert(
    source: Path,
    destination: Path,
    *,
    to: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    options: Options | None = None,
) -> Report:
    """Convert a dataset, whole or not at all.

    The result grows beside `destination` under another name and takes its place when it is complete. From one foreign
    format to another it goes through a store of its own, which is removed afterwards.

    Args:
        source: a store, or a dataset in one of the formats of `READERS`.
        destination: what to make.
        to: the format to make, see `target_format`.
        overwrite: replace what is there already, if it is of the same format.
        progress: told about each episode.
        options: what the source does not say itself.

    Raises:
        OneStrideError: unknown format, damaged source, or a destination that exists.
    """
    options, progress, began = options or Options(), progress or _silent, time.monotonic()
    target = target_format(destination, to)
    companions = _companions(destination, target)
    _check_apart(source, destination, companions)
    _check_destination(destination, companions, target, overwrite)
    report = Report(format=detect(source), to=target)
    _check_options(report, options)
    left = left_behind(destination)
    with placed(destination, companions) as unfinished:
        if report.format == STORE:
            _export(Store.open(source), unfinished, report, options, progress)
        elif target == STORE:
            _import(source, unfinished, report, options, progress)
        else:
            _through_a_store(source, unfinished, report, options, progress)
        report.bytes = _size(unfinished.parent)
    report.left_out += [f"{path}, which lies beside it: left by a run that was cut short" for path in left]
    report.seconds = time.monotonic() - began
    return report


def _companions(destination: Path, target: str) -> tuple[Path, ...]:
    patterns = () if target == STORE else WRITERS[target].companions
    return tuple(destination.with_name(pattern.format(stem=destination.stem)) for pattern in patterns)


def _check_apart(source: Path, destination: Path, companions: tuple[Path, ...]) -> None:
    """Nothing that is read is written over, not even on demand."""
    read = source.resolve()
    for path in (one.resolve() for one in (destination, *companions)):
        if path == read or read in path.parents or path in read.parents:
            raise OneStrideError(f"expected a destination apart from {source}, which is only read, got {path}")


def _check_destination(destination: Path, companions: tuple[Path, ...], target: str, overwrite: bool) -> None:
    """Nothing is there, or something of the same format that may be replaced."""
    expected = STORE if target == STORE else WRITERS[target].format
    for path in (path for path in (destination, *companions) if path.exists()):
        if not overwrite:
            raise OneStrideError(
                f"expected a new path, got {path}, which exists: --overwrite replaces a dataset of the same format"
            )
        if _format_or_none(path) != expected:
            raise OneStrideError(f"expected a {expected} to overwrite, got {path}, which is none")


def _format_or_none(path: Path) -> str | None:
    try:
        return detect(path)
    except OneStrideError:
        return None


def _check_options(report: Report, options: Options) -> None:
    """Every option that is given means something to a converter at work."""
    if report.format == report.to == STORE:
        raise OneStrideError(
            f"expected --to or an ending that names a format, got a store, available: {', '.join(WRITERS)}"
        )
    modules = [READERS[report.format]] if report.format != STORE else []
    modules += [WRITERS[report.to].module] if report.to != STORE else []
    understood = sorted({name for module in modules for name in import_module(module).OPTIONS})
    for name in options.given():
        if name not in understood:
            raise unknown(f"option for {report.format} to {report.to}", name, understood)


def open_source(path: Path, report: Report, options: Options) -> Source:
    """Look through a dataset of the format that `report` names, a key of `READERS`, before anything is read of it.

    Raises:
        OneStrideError: damaged, or an option is missing.
    """
    opened: Source = import_module(READERS[report.format]).read(path, report, options)
    return opened


def _import(source: Path, path: Path, report: Report, options: Options, progress: Progress) -> Store:
    """A new store at `path`; commits segments as they fill."""
    opened = open_source(source, report, options)
    done = 0
    with ahead(portions(opened.episodes, AHEAD_BYTES)) as read:
        store = Store.create(path, opened.schema, opened.provenance())
        with store.writer() as writer:
            for episode in chain.from_iterable(read):
                _add(writer, episode, f"{source}: episode {done}")
                done += 1
                progress(done, opened.count)
    _count(store, report)
    return store


def _add(writer: SegmentWriter, episode: Episode, told: str) -> None:
    try:
        writer.add(episode)
    except OneStrideError as error:
        # What is wrong with the disk names the store already.
        if str(error).startswith(str(writer.store.path)):
            raise
        raise OneStrideError(f"{told}: {error}") from error


def _export(store: Store, path: Path, report: Report, options: Options, progress: Progress) -> None:
    if not store.num_episodes:
        raise OneStrideError(f"expected a store with episodes, got {store.path}, which is empty")
    _count(store, report)
    try:
        import_module(WRITERS[report.to].module).write(store, path, report, options, progress)
    except OSError as error:
        raise OneStrideError(f"expected to write {report.to} to {path.parent.parent}, got: {error}") from error


def _through_a_store(source: Path, path: Path, report: Report, options: Options, progress: Progress) -> None:
    """From one foreign format to another; both halves count as work to be done."""
    # What arrives only to leave again is told by the writer; what does not arrive is told in any case.
    arriving = replace(report, to=STORE, kept=[])
    with tempfile.TemporaryDirectory(prefix=".onestride.", dir=path.parent.parent) as folder:
        between = _import(source, Path(folder) / "store", arriving, options, lambda n, all_: progress(n, 2 * all_))
        _export(between, path, report, options, lambda n, all_: progress(all_ + n, 2 * all_))


def _count(store: Store, report: Report) -> None:
    report.episodes, report.steps, report.dataset_id = store.num_episodes, store.num_steps, store.dataset_id


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _silent(done: int, total: int) -> None:
    """No one listens."""
