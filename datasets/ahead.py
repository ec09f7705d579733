"""Working ahead: what comes next is read in a thread while the present is used."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum, auto
from typing import TypeVar

from onestride.datasets.schema import Episode

T = TypeVar("T")


class _End(Enum):
    """What comes after the last item."""

    END = auto()


@contextmanager
def ahead(items: Generator[T, None, None]) -> Iterator[Iterator[T]]:
    """The items of a generator in their order, one ahead of whoever asks; the first is begun at once.

    All of the generator runs in one thread, its clean-up too. What it raises is raised where the item would have been.
    When the block is left the thread finishes the item that it is at, and ends.

    Args:
        items: not to be touched by anyone else from now on.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        yield _each(pool, items, pool.submit(next, items, _End.END))
    finally:
        closed = pool.submit(items.close)
        pool.shutdown()
    closed.result()


def portions(episodes: Iterable[Episode], most: int) -> Generator[list[Episode], None, None]:
    """Neighbouring episodes together, as many as fit into `most` bytes, one at least."""
    held: list[Episode] = []
    size = 0
    try:
        for episode in episodes:
            if held and size + episode.nbytes > most:
                yield held
                held, size = [], 0
            held.append(episode)
            size += episode.nbytes
        if held:
            yield held
    finally:
        # Here and now: left to the garbage collector, it would be cleaned up in any thread.
        if isinstance(episodes, Generator):
            episodes.close()


def _each(pool: ThreadPoolExecutor, items: Generator[T, None, None], coming: Future[T | _End]) -> Iterator[T]:
    while (item := coming.result()) is not _End.END:
        coming = pool.submit(next, items, _End.END)
        yield item
