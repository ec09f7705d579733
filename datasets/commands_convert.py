"""`onestride convert`: between the store and the formats of its neighbours."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from rich.table import Table

    from onestride.datasets.converters import Progress, Report


@dataclass
class Convert:
    """Convert a dataset into a store, out of one, or through one; say what was kept, changed and left out."""

    source: Positional[Path]
    """Dataset to read; its format is told by its content: a store, robomimic HDF5, OGBench npz, Diffusion Policy's
    zarr, LeRobot, rosbag2 or MCAP."""
    destination: Positional[Path]
    """What to make. Its ending chooses the format: .hdf5 robomimic, .npz OGBench, .mcap MCAP, anything else a store."""
    to: str | None = None
    """Format to make where the ending does not tell: store, robomimic, ogbench, diffusion_policy, lerobot or mcap."""
    environment: Annotated[str | None, arg(aliases=["--env"])] = None
    """Environment of the data, for instance cube-double-play-singletask-task2-v0: gives OGBench its rewards."""
    mapping: Path | None = None
    """File that says which topics of a bag become which features."""
    rate: float | None = None
    """Control rate [Hz], where the source does not say."""
    codec: Literal["lossless", "video"] | None = None
    """How pictures are kept."""
    leave_out: tuple[str, ...] = ()
    """What is not brought over, by its name in the source."""
    as_uint8: tuple[str, ...] = ()
    """Pictures that the source holds as floats of whole numbers from 0 to 255, by their name there: kept as uint8."""
    overwrite: bool = False
    """Replace a dataset of the same format that is already there."""
    json: bool = False
    """Print the report as JSON."""

    def __call__(self) -> int:
        """Convert with a progress bar on stderr; the report goes to stdout."""
        from rich.console import Console

        report = self._convert()
        if self.json:
            plain = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
            plain.print(json.dumps(report.to_json(), indent=2))
        else:
            Console(markup=False, emoji=False).print(report_table(report, self.destination))
        return 0

    def _convert(self) -> Report:
        from onestride.datasets.converters import Options, convert

        options = Options(
            environment=self.environment,
            mapping=self.mapping,
            codec=self.codec,
            control_rate=self.rate,
            leave_out=self.leave_out,
            as_uint8=self.as_uint8,
        )
        with _progress(f"Converting {self.source.name}") as progress:
            return convert(
                self.source,
                self.destination,
                to=self.to,
                overwrite=self.overwrite,
                progress=progress,
                options=options,
            )


@contextmanager
def _progress(description: str) -> Iterator[Progress]:
    """A bar on stderr, with the rate so far."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=None, rate="")
        began = time.monotonic()

        def show(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - began, 1e-3)
            bar.update(task, completed=done, total=total, rate=f"{rate:.3g} episodes/s")

        yield show


def report_table(report: Report, destination: Path) -> Table:
    """What became of the source, as a table."""
    from rich.table import Table

    seconds = max(report.seconds, 1e-3)
    title = (
        f"{destination}: {report.episodes} episodes, {report.steps} steps, {report.bytes / 1e6:.1f} MB "
        f"in {seconds:.1f} s ({report.steps / seconds:.0f} steps/s); store id {report.dataset_id}"
    )
    table = Table("", f"from {report.format} to {report.to}", title=title, title_justify="left")
    sections = (("kept", report.kept), ("changed", report.changed), ("left out", report.left_out))
    for heading, lines in sections:
        table.add_section()
        for number, line in enumerate(lines or ["nothing"]):
            table.add_row("" if number else heading, line)
    return table
