"""Episodes of one announced policy: its ticks and surroundings, from topics into a journal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from onestride.datasets.recording import Recorder
from onestride.deploy.controller import Mode
from onestride.deploy.recorded import TICKS, PolicyStep, PolicySteps, recorded_schema, tick_values
from onestride.deploy.ticks import TickLayout, TickRow
from onestride.hardware.errors import OneStrideError
from onestride_recorder.topics import EVERY, Surroundings, Topic, Values

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
        self.layout, self._folder, self._options = layout, folder, options
        self._ticks = Topic(node, Float64MultiArray, f"{controller}/ticks", EVERY, self._read)
        self._around = Surroundings(node, layout)
        self._recorder: Recorder | None = None
        self._steps = PolicySteps()
        self._first = self._faulted = False
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
        return None if self._recorder is None else self._recorder.recording

    def poll(self) -> None:
        """Record what came since the last look."""
        self._around.drain(self._on_row)
        self._ticks.drain(self._on_tick)

    def start(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Begin an episode with what comes from now on.

        Raises:
            OneStrideError: one is running, nobody publishes ticks, or the disk refuses.
        """
        if not self._ticks.published:
            raise OneStrideError(f"expected a controller that publishes {self._ticks.name}, found none")
        self.poll()
        if self._recorder is None:
            about = {"policy_sha256": self.layout.policy_sha256, "policy": self.layout.contract.policy.name}
            self._recorder = Recorder(self._folder, recorded_schema(self.layout), about=about, **self._options)
        ticking = time.monotonic() - self._ticked < TICKING
        episode = self._recorder.start({**self._origin(), **attributes, "success": False})
        self._steps, self._first, self._faulted = PolicySteps(), not ticking, False
        return {"episode": episode, "journal": str(self._recorder.path)}

    def _origin(self) -> dict[str, Any]:
        contract = self.layout.contract
        task = {"task": contract.environment} if contract.environment else {}
        operated = {"teleop": self.layout.operator} if self.layout.operator else {}
        return {**task, **operated, "policy": contract.policy.name, "policy_sha256": self.layout.policy_sha256}

    def stop(self, incomplete: tuple[str, ...] = ()) -> dict[str, Any]:
        """End the running episode.

        Raises:
            OneStrideError: none is running.
        """
        self.poll()
        recorder = self._known()
        last, steps = self._steps.finish(), self._steps
        if last is not None:
            self._give(last, terminal=recorder.succeeded)
        seeds = list(steps.activations.values())
        said: dict[str, Any] = {"seed": seeds[0]} if seeds else {}
        said["faulted"] = self._faulted
        if steps.actors:
            said["actors"] = dict(steps.actors)
        if not_taken := self._around.not_taken():
            said["not_taken"] = not_taken
        episode = recorder.stop(said, incomplete=(*incomplete, *self._missing()))
        return {"episode": episode, "on_disk": recorder.wait(PATIENCE)}

    def _missing(self) -> tuple[str, ...]:
        found = [f"{self._steps.lost} ticks did not arrive"] if self._steps.lost else []
        if len(self._steps.activations) > 1:
            found.append(f"the controller was activated {len(self._steps.activations)} times in it")
        return tuple(found)

    def mark_success(self) -> dict[str, Any]:
        """The running episode succeeded, or the last one.

        Raises:
            OneStrideError: there is none.
        """
        return {"episode": self._known().mark_success()}

    def discard(self) -> dict[str, Any]:
        """Nobody wants the running episode, or the last one.

        Raises:
            OneStrideError: there is none.
        """
        return {"episode": self._known().discard()}

    def _known(self) -> Recorder:
        if self._recorder is None:
            raise OneStrideError("expected an episode, got none yet; start one first")
        return self._recorder

    def status(self) -> dict[str, Any]:
        """What is recorded, what waits and what went wrong."""
        found: dict[str, Any] = {"waiting_for": self.waiting_for, "lost_ticks": self._steps.lost}
        return {**found, **(self._recorder.status() if self._recorder is not None else {"recording": None})}

    def close(self) -> None:
        """End a running episode as incomplete, free the topics, close the journal."""
        if self.recording is not None:
            self.stop(("the recorder was ended while it ran",))
        self._around.close()
        self._ticks.close()
        if self._recorder is not None:
            self._recorder.close()

    def _on_row(self, stream: str, values: Values, stamp: int) -> None:
        if self._recorder is not None:
            self._recorder.step(values, stream=stream, stamp=stamp)

    def _on_tick(self, row: TickRow, stamp: int) -> None:
        del stamp  # a tick carries its own
        self._ticked = time.monotonic()
        if self._recorder is None or self._recorder.recording is None:
            return
        values = tick_values(row)
        if values is not None:
            self._recorder.step(values, stream=TICKS, stamp=row.moment.stamp)
        done = self._steps.add(row, expected=self._first)
        self._faulted = self._faulted or row.mode is Mode.FAULT
        if done is not None:
            self._give(done)

    def _give(self, step: PolicyStep, *, terminal: bool = False) -> None:
        self._known().step(step.values(terminal=terminal), stamp=step.stamp)
