"""What the commands of this room print: tables and JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def print_table(table: Table) -> None:
    """Show a table."""
    from rich.console import Console

    Console(markup=False, emoji=False).print(table)


def print_line(text: str) -> None:
    """Show one line, not wrapped."""
    from rich.console import Console

    Console(soft_wrap=True, markup=False, emoji=False, highlight=False).print(text)


def print_json(content: dict[str, Any]) -> None:
    """Show JSON and nothing else; NaN and infinity, which JSON has no words for, as null."""
    print_line(json.dumps(_sayable(content), indent=2, allow_nan=False))


def _sayable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sayable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def episode_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, told with (episodes done, episodes in all)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
