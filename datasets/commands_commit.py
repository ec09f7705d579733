"""`onestride commit`: what a recorder wrote into a store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from rich.table import Table

    from onestride.datasets.journal_commit import CommitReport


@dataclass
class Commit:
    """Add recorded episodes to a store; repeat it at will, no episode is seen twice.

    What was finished or marked as a success since is taken anew, what was discarded since is hidden (`edit restore`).
    For instance `onestride commit runs/record cube.zarr`. Discarded and incomplete episodes are left out, and said so.
    """

    journal: Positional[Path]
    """A journal, or a folder of journals."""
    store: Positional[Path]
    """Store to add to; made if there is none."""
    include_incomplete: bool = False
    """Take what there is of incomplete episodes; their attribute `incomplete` says what is missing."""
    successes_only: bool = False
    """Leave out episodes that were not marked as successes."""
    json: bool = False
    """Print the report as JSON."""

    def __call__(self) -> int:
        """Commit with a progress bar on stderr; the report goes to stdout."""
        from rich.console import Console

        report = self._commit()
        if self.json:
            plain = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
            plain.print(json.dumps(report.to_json(), indent=2))
        else:
            Console(markup=False, emoji=False).print(_table(report))
        return 0

    def _commit(self) -> CommitReport:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from onestride.datasets.journal_commit import commit

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"Committing {self.journal.name}", total=None)
            return commit(
                self.journal,
                self.store,
                include_incomplete=self.include_incomplete,
                successes_only=self.successes_only,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )


def _table(report: CommitReport) -> Table:
    from rich.table import Table

    title = f"{report.store}: {len(report.committed)} episodes, {report.steps} steps added, id {report.dataset_id}"
    table = Table("", "", title=title, title_justify="left", show_header=False)
    table.add_row("committed", str(len(report.committed)))
    table.add_row("already there", str(len(report.already)))
    for heading, lines in (("hidden", report.hidden), ("left out", report.left_out), ("damage", report.damage)):
        table.add_section()
        for number, line in enumerate(lines or ["nothing"]):
            table.add_row("" if number else heading, line)
    return table
