"""How training talks to a person: not at all, or by a progress bar on the error stream."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Reporter:
    """Says nothing; the base of those that do."""

    def note(self, text: str) -> None:
        """One line worth reading."""

    def progress(self, step: int, steps: int, metrics: Mapping[str, float], steps_per_s: float) -> None:
        """How far training is.

        Args:
            step: Gradient steps taken.
            steps: Gradient steps asked for.
            metrics: Means since the last call.
            steps_per_s: Speed of this session [1/s].
        """


class RichReporter(Reporter):
    """A progress bar with loss and speed; use it as a context manager."""

    def __init__(self, title: str = "train") -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._title = title
        self._task: TaskID | None = None

    def __enter__(self) -> RichReporter:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(escape(text), soft_wrap=True)

    def progress(self, step: int, steps: int, metrics: Mapping[str, float], steps_per_s: float) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._bar.add_task(self._title, total=steps, state="")
        loss = next((f"{name} {value:.4f}  " for name, value in metrics.items() if name.endswith("loss")), "")
        self._bar.update(self._task, completed=step, state=f"{loss}{steps_per_s:.0f} it/s")
