"""The thread that takes recorded rows to the disk, and what it does when the disk refuses."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from onestride.datasets.journal import JournalWriter
from onestride.datasets.ring import Ring
from onestride.hardware.errors import OneStrideError

#: How often rows are taken to the disk [s]. Seldom: each time this thread holds the interpreter for some 0.1 ms.
PERIOD = 0.25

#: How long the end of a recorder may wait for the disk [s].
PATIENCE = 30.0

UNFLUSHED = "the disk failed to flush it"

#: Warnings kept for `status`.
_WARNINGS = 20


class Mark:
    """A ring's counters at a moment."""

    def __init__(self, ring: Ring) -> None:
        self.head, self.lost, self.malformed = ring.head, ring.lost, ring.malformed
        self.reordered, self.trouble = ring.reordered, ring.trouble


class OpenEpisode:
    """The episode that is being written; none without an id.

    Attributes:
        number: in the journal; None until its beginning is there.
        failed: why the disk refused a part of it; empty if it did not.
        flushes: how many flushes had failed when it began.
    """

    def __init__(self, episode: str = "", marks: Mapping[str, Mark] | None = None) -> None:
        self.id, self.marks = episode, dict(marks or {})
        self.rows, self.failed = dict.fromkeys(self.marks, 0), ""
        self.number: int | None = None
        self.flushes = 0
        self.begin: Callable[[], None] = lambda: None

    def missing(self, marks: Mapping[str, Mark]) -> list[str]:
        """What was lost of it by the time of `marks`, in words."""
        found = [self.failed] if self.failed else []
        for name, mark in marks.items():
            before = self.marks[name]
            if mark.lost > before.lost:
                found.append(f"{mark.lost - before.lost} rows of stream {name!r} found no room: the disk is too slow")
            if mark.malformed > before.malformed:
                count = mark.malformed - before.malformed
                found.append(f"{count} rows of stream {name!r} did not fit the schema, the last with {mark.trouble}")
        return found


class WritingThread:
    """What is to be written, in order, and the thread that writes it.

    Args:
        journal: where to.
        rings: where the rows of each stream wait.
        warn: called with each warning, in this thread.
    """

    def __init__(self, journal: JournalWriter, rings: Mapping[str, Ring], warn: Callable[[str], None] | None) -> None:
        self._journal, self._rings = journal, rings
        self._tell = warn or (lambda _: None)
        self._acts: deque[Callable[[], None]] = deque()
        self._wake, self._idle = threading.Event(), threading.Condition()
        self._asked = self._done = 0
        self._episode = OpenEpisode()
        self._owed: list[Callable[[], None]] = []
        self._incomplete: list[str] = []
        self._committed, self._warnings = 0, deque[str](maxlen=_WARNINGS)
        self._closing, self._died = False, ""
        self._thread = threading.Thread(target=self._work, name="onestride-recorder", daemon=True)
        self._thread.start()

    # Asked for by the other threads

    def begin(self, episode: str, started: int, attributes: dict[str, Any]) -> None:
        """An episode begins with the rows that come from now on; `started` [ns]."""
        marks = self._marks()
        self._ask(partial(self._begin, episode, started, attributes, marks))

    def end(
        self, attributes: dict[str, Any], final: dict[str, Any], incomplete: tuple[str, ...], *, discarded: bool
    ) -> None:
        """The episode ended with the rows that came until now; `final` values fit their features."""
        marks = self._marks()
        self._ask(partial(self._end, attributes, final, incomplete, discarded, marks))

    def amend(self, episode: str, attributes: dict[str, Any], *, discarded: bool) -> None:
        """Say something of an episode that has ended."""
        content = {"episode": episode, "attributes": attributes, "discarded": discarded}
        self._ask(partial(self._owe, partial(self._journal.amend, content)))

    def wait(self, timeout: float) -> bool:
        """Wait until all that was asked is done, at most `timeout` [s]; whether it is, and the disk took it."""
        with self._idle:
            asked = self._asked
            self._wake.set()
            self._idle.wait_for(lambda: self._done >= asked or bool(self._died), timeout)
            return self._done >= asked and not self._owed

    def check_alive(self) -> None:
        """Make sure that it still writes.

        Raises:
            OneStrideError: it does not, and why.
        """
        if self._died or self._closing:
            raise OneStrideError(f"the recorder is closed{': ' + self._died if self._died else ''}")

    def status(self) -> dict[str, Any]:
        """What was written and what went wrong, as JSON."""
        return {
            "committed": self._committed,
            "owed": len(self._owed),
            "on_disk": self._done >= self._asked and not self._owed,
            "last_incomplete": list(self._incomplete),
            "bytes": self._journal.size,
            "died": self._died,
            "warnings": list(self._warnings),
        }

    def close(self) -> None:
        """Write what waits and end; a disk that hangs is not waited for longer than `PATIENCE`."""
        self._closing = True
        self._wake.set()
        self._thread.join(PATIENCE)

    def _ask(self, act: Callable[[], None]) -> None:
        self._asked += 1
        self._acts.append(act)
        self._wake.set()

    def _marks(self) -> dict[str, Mark]:
        return {name: Mark(ring) for name, ring in self._rings.items()}

    # In the writing thread

    def _work(self) -> None:
        try:
            while not (self._closing and not self._acts):
                self._wake.wait(PERIOD)
                self._wake.clear()
                self._catch_up()
            self._pay()
        except Exception as error:  # a recorder that dies must say so, and must not take the control loop along
            self._died = f"{type(error).__name__}: {error}"
            self._warn(f"recording ended: {self._died}")
        finally:
            self._journal.close()
            with self._idle:
                self._idle.notify_all()

    def _catch_up(self) -> None:
        while True:
            # First the marks, then a look for acts: rows before the marks belong to no later act.
            marks = {name: ring.head for name, ring in self._rings.items()}
            if not self._acts:
                break
            self._acts.popleft()()
            with self._idle:
                self._done += 1
                self._idle.notify_all()
        self._write_rows(marks)

    def _begin(self, episode: str, started: int, attributes: dict[str, Any], marks: dict[str, Mark]) -> None:
        for name, mark in marks.items():
            self._rings[name].skip(mark.head)
        opened = self._episode = OpenEpisode(episode, marks)
        self._incomplete = []

        def write() -> None:
            opened.flushes = self._journal.failed_flushes
            self._journal.begin(episode, started, attributes)
            opened.number = self._journal.episode

        opened.begin = write
        self._pay()
        self._guarded(write)

    def _write_rows(self, until: Mapping[str, int]) -> None:
        for name, ring in self._rings.items():
            if self._episode.failed or not self._episode.id:
                ring.skip(until[name])
                continue
            for rows in ring.take(until[name]):
                if self._guarded(partial(self._journal.rows, name, rows)):
                    self._episode.rows[name] += len(rows)

    def _end(
        self,
        attributes: dict[str, Any],
        final: dict[str, Any],
        incomplete: tuple[str, ...],
        discarded: bool,
        marks: dict[str, Mark],
    ) -> None:
        self._write_rows({name: mark.head for name, mark in marks.items()})
        for name, value in final.items():
            self._guarded(partial(self._journal.final, name, value))
        missing = (*incomplete, *self._episode.missing(marks))
        self._episode_attributes(attributes, marks)
        content = {
            "rows": dict(self._episode.rows),
            "incomplete": list(missing),
            "discarded": discarded,
            "attributes": attributes,
        }
        if missing:
            self._warn(f"episode {self._episode.id} is incomplete: {'; '.join(missing)}")
        if self._episode.number is None:  # the journal shall name it all the same
            self._owed.append(self._episode.begin)
        self._owe(partial(self._finish, content, self._episode))
        self._episode = OpenEpisode()

    def _finish(self, content: dict[str, Any], episode: OpenEpisode) -> None:
        if self._journal.failed_flushes > episode.flushes and UNFLUSHED not in content["incomplete"]:
            content["incomplete"].append(UNFLUSHED)
            self._warn(f"episode {episode.id} is incomplete: {UNFLUSHED}")
        self._journal.end(content, episode.number)
        self._incomplete = content["incomplete"]
        self._committed += not content["incomplete"]

    def _episode_attributes(self, attributes: dict[str, Any], marks: dict[str, Mark]) -> None:
        reordered = sum(mark.reordered - self._episode.marks[name].reordered for name, mark in marks.items())
        if reordered:
            attributes["timestamps_raised"] = reordered

    def _owe(self, write: Callable[[], None]) -> None:
        """Write now, or as soon as the disk takes it."""
        self._owed.append(write)
        self._pay()

    def _pay(self) -> None:
        while self._owed:
            try:
                self._owed[0]()
            except OSError as error:
                self._warn(f"the disk refused the end of an episode, tried again later: {error}")
                return
            self._owed.pop(0)

    def _guarded(self, write: Callable[[], None]) -> bool:
        """Write a part of the episode; where the disk refuses, the rest of it is given up."""
        if self._episode.failed:
            return False
        try:
            write()
        except OSError as error:
            self._episode.failed = f"the disk refused: {error}"
            self._warn(f"episode {self._episode.id}: {self._episode.failed}; its further rows are lost")
            return False
        return True

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        self._tell(text)
