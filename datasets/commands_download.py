"""`onestride download`: official datasets, by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from onestride.datasets.download import Fetched, Remote


@dataclass
class Download:
    """Fetch an official dataset; goes on where an earlier attempt broke off, and compares checksums."""

    name: Positional[str]
    """robomimic/<task>/<ph|mh|mg|paired>, ogbench/<dataset> or lerobot/<repository>, for instance
    robomimic/lift/ph, ogbench/cube-double-play-v0, lerobot/pusht."""
    folder: Path = Path("data")
    """Where the files go, in folders of the dataset's name."""
    sha256: tuple[str, ...] = ()
    """SHA-256 of each file, in order, where you know it from elsewhere."""
    mirror: str | None = None
    """Address of a mirror, instead of the official server."""
    json: bool = False
    """Print what was fetched as JSON."""

    def __call__(self) -> int:
        """Fetch with a progress bar on stderr; the table goes to stdout."""
        from onestride.datasets.catalogue import locate

        remotes = self._with_sums(locate(self.name, self.mirror))
        fetched = _fetch(remotes, self.folder)
        if self.json:
            _print_json(self.name, fetched)
        else:
            _print_table(self.name, fetched)
        return 0

    def _with_sums(self, remotes: list[Remote]) -> list[Remote]:
        """The files with the checksums that were given.

        Raises:
            OneStrideError: not as many as there are files, or no SHA-256.
        """
        import re
        from dataclasses import replace

        from onestride.hardware.errors import OneStrideError

        if self.sha256 and len(self.sha256) != len(remotes):
            raise OneStrideError(f"expected {len(remotes)} checksums, one for each file, got {len(self.sha256)}")
        for one in self.sha256:
            if not re.fullmatch(r"[0-9a-fA-F]{64}", one):
                raise OneStrideError(f"expected a SHA-256 of 64 hexadecimal digits, got {one!r}")
        if not self.sha256:
            return remotes
        return [replace(one, sha256=given.lower()) for one, given in zip(remotes, self.sha256, strict=True)]


def _fetch(remotes: Sequence[Remote], folder: Path) -> list[Fetched]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from onestride.datasets.download import fetch

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    fetched = []
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        for number, remote in enumerate(remotes, start=1):
            task = bar.add_task(f"{number}/{len(remotes)} {Path(remote.path).name}", total=remote.size)

            def show(done: int, total: int | None, task: object = task) -> None:
                bar.update(task, completed=done, total=total)  # type: ignore[arg-type]

            found = fetch(remote, folder, show)
            bar.remove_task(task)
            fetched += [found] if found is not None else []
    return fetched


def _print_table(name: str, fetched: list[Fetched]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "MB", "SHA-256", "compared", title=name, title_justify="left")
    for one in fetched:
        compared = "yes" if one.verified else "no checksum is known"
        table.add_row(str(one.path), f"{one.size / 1e6:.1f}", f"{one.sha256[:16]}…", compared)
    console = Console(markup=False, emoji=False)
    console.print(table)
    source = convertible(name, fetched)
    console.print(f"next: onestride convert {source} {source.with_suffix('')}.store", soft_wrap=True)


def _print_json(name: str, fetched: list[Fetched]) -> None:
    from rich.console import Console

    files = [
        {
            "path": str(one.path),
            "bytes": one.size,
            "sha256": one.sha256,
            "verified": one.verified,
            "resumed": one.resumed,
        }
        for one in fetched
    ]
    plain = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
    plain.print(json.dumps({"name": name, "convert": str(convertible(name, fetched)), "files": files}, indent=2))


def convertible(name: str, fetched: Sequence[Fetched]) -> Path:
    """What `onestride convert` takes as its source: the first file, or a LeRobot dataset's folder."""
    if name.startswith("lerobot/"):
        return next(one.path for one in fetched if one.path.name == "info.json").parent.parent
    return fetched[0].path
