"""``onestride report``: curves of runs, with bands over seeds, as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from onestride.training.commands import say


@dataclass
class Report:
    """Curves of one or more runs as one HTML file; runs that differ in their seed alone share a line and a band.

    For instance `onestride report runs/mvp-* -o report.html`.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, finished or not."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report.html")
    """File to write."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Write the report and say where."""
        from onestride.hardware.durable import write_atomic
        from onestride.hardware.errors import OneStrideError
        from onestride.training.report import group_runs
        from onestride.training.report_page import build_page

        groups = group_runs(self.runs)
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.output, build_page(groups).encode(), self.output.parent)
        except OSError as error:
            raise OneStrideError(f"{self.output}: expected to write it, got: {error}") from error
        say({"report": str(self.output), "groups": [group.label for group in groups]}, "reported", self.json)
        return 0
