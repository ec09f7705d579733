"""Episodes of one announced policy: its ticks and surroundings, from topics into a journal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from onestride.deploy.episode_recorder import EpisodeRecorder
from onestride.deploy.ticks import TickLayout, TickRow
from onestride.hardware.errors import OneStrideError
from onestride_recorder.surroundings import Surroundings
from onestride_recorder.topics import EVERY, Topic

#: A controller whose last tick is younger than this is ticking [s].
TICKING = 0.1

#: How long an answer waits for the disk [s].
PATIENCE = 3.0


class Episodes:
    """Records episodes while its owner polls.

    Args:
        node: owns the subscriptions.
        layout: what the controller announced.
        controller: its name.
        folder: takes the journal, which is made with the first episode.
        options: of `Recorder`: `buffer_bytes`, `least_free`, `warn`.
    """

    def __init__(self, node: Node, layout: TickLayout, controller: str, folder: Path, **options: Any) -> None:
        self.layout, self._recorder = layout, EpisodeRecorder(layout, folder, **options)
        self._ticks = Topic(node, Float64MultiArray, f"{controller}/ticks", EVERY, self._read)
        self._around = Surroundings(node, layout)
        self._ticked = float("-inf")

    def _read(self, message: Any) -> TickRow:
        try:
            return self.layout.unpack(np.array(message.data))
        except OneStrideError as error:
            raise ValueError(str(error)) from None

    @property
    def waiting_for(self) -> list[str]:
        """What is not there yet; an episode can begin once the ticks have a publisher."""
        return ([] if self._ticks.published else ["ticks"]) + self._around.silent

    @property
    def recording(self) -> str | None:
        """The running episode's id."""
        return self._recorder.recording

    def poll(self) -> None:
        """Record what came since the last look."""
        self._around.drain(self._recorder.row)
        self._ticks.drain(self._on_tick)

    def start(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Begin an episode with what comes from now on.

        Raises:
            OneStrideError: one is running, nobody publishes ticks, or the disk refuses.
        """
        if not self._ticks.published:
            raise OneStrideError(f"expected a controller that publishes {self._ticks.name}, found none")
        self.poll()
        episode = self._recorder.start(attributes, ticking=time.monotonic() - self._ticked < TICKING)
        return {"episode": episode, "journal": self._recorder.journal}

    def stop(self, incomplete: tuple[str, ...] = ()) -> dict[str, Any]:
        """End the running episode; the answer says what is missing in it, in words.

        Raises:
            OneStrideError: none is running.
        """
        self.poll()
        not_taken = self._around.not_taken()
        episode = self._recorder.stop({"not_taken": not_taken} if not_taken else {}, incomplete)
        on_disk = self._recorder.wait(PATIENCE)
        return {"episode": episode, "on_disk": on_disk, "incomplete": self._recorder.status()["last_incomplete"]}

    def mark_success(self) -> dict[str, Any]:
        """The running episode succeeded, or the last one.

        Raises:
            OneStrideError: there is none.
        """
        return {"episode": self._recorder.mark_success()}

    def discard(self) -> dict[str, Any]:
        """Nobody wants the running episode, or the last one.

        Raises:
            OneStrideError: there is none.
        """
        return {"episode": self._recorder.discard()}

    def status(self) -> dict[str, Any]:
        """What is recorded, what waits and what went wrong."""
        return {"waiting_for": self.waiting_for, **self._recorder.status()}

    def close(self) -> None:
        """End a running episode as incomplete, free the topics, close the journal."""
        if self.recording is not None:
            self.stop(("the recorder was ended while it ran",))
        self._around.close()
        self._ticks.close()
        self._recorder.close()

    def _on_tick(self, row: TickRow, stamp: int) -> None:
        del stamp  # a tick carries its own
        self._ticked = time.monotonic()
        self._recorder.tick(row)
