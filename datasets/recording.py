"""Recording while a control loop runs: the loop copies rows into memory, a thread of ours takes them to the disk.

What happens when the disk does not keep up:

- **slow disk**: rows wait in memory (`buffer_bytes`). Once that is full, new rows are lost, counted and warned of,
  and their episode is marked incomplete. `step` never waits.
- **full disk, or one that fails**: the episode at hand is marked incomplete and its further rows are lost; finished
  episodes are on the disk already. Recording goes on with the next episode; its end is written once there is room.
- **little room left**: `start` refuses an episode below `least_free` bytes.
- **killed**: the journal holds all but the last moments; the episode has no end, and readers say so.

The thread shares the interpreter with the loop. A loop with real-time priority on a crowded machine can then wait for
it while the system runs something else; it should publish, and leave recording to a process, as our ROS 2 nodes do.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from onestride.datasets.journal import SUFFIX, JournalWriter, little, row_dtypes
from onestride.datasets.recording_thread import WritingThread
from onestride.datasets.ring import Ring
from onestride.datasets.schema import BASE, Schema
from onestride.hardware.errors import OneStrideError, unknown

#: Memory for rows that wait, all streams together.
BUFFER_BYTES = 32 << 20

#: Most rows that one stream may have waiting.
MOST_ROWS = 1 << 15

#: An episode is refused where the disk has less room than this.
LEAST_FREE = 256 << 20


class Recorder:
    """Records episodes into a new journal in `folder`, as a context manager.

    `step` may be called from a control loop: it copies the values and returns. Each stream has one caller.

    Args:
        folder: where the journal is made.
        schema: of the episodes.
        about: where they come from, as JSON; ends in the journal's header.
        buffer_bytes: memory for rows that wait for the disk.
        least_free: an episode is refused below this room on the disk [bytes].
        warn: called with each warning, from the writing thread.

    Raises:
        OneStrideError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        schema: Schema,
        *,
        about: Mapping[str, Any] | None = None,
        buffer_bytes: int = BUFFER_BYTES,
        least_free: int = LEAST_FREE,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.schema = schema
        content = schema.model_dump(mode="json")
        dtypes = row_dtypes(content)
        share = buffer_bytes // len(dtypes)
        self._rings = {name: Ring(one, _capacity(one, share)) for name, one in dtypes.items()}
        self._journal = JournalWriter(Path(folder) / f"{_new_id()}{SUFFIX}", content, about)
        self._thread = WritingThread(self._journal, self._rings, warn)
        self._least_free, self._lock = least_free, threading.Lock()
        self._running: str | None = None
        self._last: str | None = None
        self._discarded = False
        self._attributes: dict[str, Any] = {}
        self._anchor = time.time_ns() - time.monotonic_ns()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The journal."""
        return self._journal.path

    @property
    def recording(self) -> str | None:
        """The running episode's id."""
        return self._running

    def start(self, attributes: Mapping[str, Any] | None = None) -> str:
        """Begin an episode; its id, which no other episode has.

        Raises:
            OneStrideError: one is running, there is no room on the disk, or the writing thread has died.
        """
        with self._lock:
            if self._running is not None:
                raise OneStrideError(f"expected no running episode, got {self._running}; stop or discard it first")
            self._thread.check_alive()
            self._check_room()
            self._attributes = _said(attributes)
            episode = _new_id()
            for ring in self._rings.values():
                ring.forget_time()
            self._thread.begin(episode, self.now(), dict(self._attributes))
            self._running, self._last, self._discarded = episode, episode, False
            return episode

    def step(self, values: Mapping[str, Any], *, stream: str = BASE, stamp: int | None = None) -> bool:
        """Record one row of a stream; whether it was taken. Never waits and never raises for what is recorded.

        Args:
            values: feature -> value, for every feature of the stream.
            stream: its name.
            stamp: when it was measured, on the system's clock [ns]; None = now.

        Raises:
            OneStrideError: no such stream.
        """
        if stream not in self._rings:
            raise unknown("stream", stream, self._rings)
        if self._running is None:
            return False
        return self._rings[stream].put(values, self.now() if stamp is None else stamp)

    def now(self) -> int:
        """The system's clock as it was when this object was made, and steady since [ns]."""
        return time.monotonic_ns() + self._anchor

    def mark_success(self) -> str:
        """The running episode succeeded, or the last one; its id.

        Raises:
            OneStrideError: there is none.
        """
        with self._lock:
            self._attributes["success"] = True
            if self._running is None:
                self._thread.amend(self._known(), {"success": True}, discarded=False)
            return self._known()

    @property
    def succeeded(self) -> bool:
        """Whether the running episode was marked so, or the last one."""
        return self._attributes.get("success") is True

    def discard(self) -> str:
        """Nobody wants the running episode, or the last one: end it, and leave it out of stores; its id.

        Raises:
            OneStrideError: there is none.
        """
        with self._lock:
            episode = self._known()
            if self._running is None:
                self._thread.amend(episode, {}, discarded=True)
            else:
                self._end({}, {}, (), discarded=True)
            self._discarded = True
            return episode

    def stop(
        self,
        attributes: Mapping[str, Any] | None = None,
        *,
        final: Mapping[str, Any] | None = None,
        incomplete: tuple[str, ...] = (),
    ) -> str:
        """End the running episode; its id. `wait` tells when it is on the disk.

        Args:
            attributes: what is known of it now.
            final: observation or state feature -> its value after the last action.
            incomplete: what is missing in it, in words.

        Raises:
            OneStrideError: none is running, or a final value does not fit.
        """
        with self._lock:
            if self._running is None:
                raise OneStrideError("expected a running episode, got none; start one first")
            values = {name: self._fitting(name, value) for name, value in (final or {}).items()}
            return self._end(_said(attributes), values, incomplete, discarded=False)

    def wait(self, timeout: float = 10.0) -> bool:
        """Wait until everything said so far is on the disk, or lost and reported; whether that came in time."""
        return self._thread.wait(timeout)

    def status(self) -> dict[str, Any]:
        """What was recorded, what waits and what went wrong, as JSON."""
        return {
            "journal": str(self.path),
            "recording": self._running,
            "last": self._last,
            "last_success": self.succeeded,
            "last_discarded": self._discarded,
            "waiting_rows": {name: ring.head - ring.tail for name, ring in self._rings.items()},
            "lost_rows": {name: ring.lost + ring.malformed for name, ring in self._rings.items()},
            "free_bytes": self._free(),
            **self._thread.status(),
        }

    def close(self) -> None:
        """End a running episode as incomplete, write what waits, close the journal."""
        with self._lock:
            if self._running is not None:
                self._end({}, {}, ("the recorder was closed while it ran",), discarded=False)
        self._thread.close()

    def _end(
        self, attributes: dict[str, Any], final: dict[str, Any], incomplete: tuple[str, ...], *, discarded: bool
    ) -> str:
        episode, self._running = self._known(), None
        said = {**self._attributes, **attributes}
        self._thread.end(said, final, incomplete, discarded=discarded)
        return episode

    def _known(self) -> str:
        if self._last is None:
            raise OneStrideError("expected an episode, got none yet; start one first")
        return self._last

    def _fitting(self, name: str, value: Any) -> np.ndarray[Any, Any]:
        feature = self.schema.feature(name)
        array = np.array(value, little(feature.dtype))
        if feature.role not in ("observation", "state") or feature.stream != BASE:
            names = [one.name for one in self.schema.features if one.role in ("observation", "state")]
            raise unknown("observation or state feature for a final value", name, names)
        if array.shape != feature.shape:
            raise OneStrideError(f"final {name}: expected shape {feature.shape}, got {array.shape}")
        return array

    def _free(self) -> int:
        try:
            found = os.statvfs(self.path.parent)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize

    def _check_room(self) -> None:
        free = self._free()
        if free < self._least_free:
            raise OneStrideError(
                f"{self.path.parent}: expected at least {self._least_free >> 20} MiB free to begin an episode, "
                f"got {free >> 20} MiB"
            )


def _said(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes, checked here and not where they are written."""
    try:
        json.dumps(content := dict(attributes or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OneStrideError(f"episode attributes: expected JSON values, got: {error}") from error
    return content


def _capacity(dtype: np.dtype[Any], share: int) -> int:
    return max(2, min(MOST_ROWS, share // dtype.itemsize))


def _new_id() -> str:
    """Sorts by time; no two recorders ever make the same."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
