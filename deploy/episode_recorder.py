"""Episodes of one policy, from its ticks into a journal; in the recorder node as in one process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onestride.datasets.recording import Recorder
from onestride.deploy.controller import Mode
from onestride.deploy.recorded import TICKS, PolicyStep, PolicySteps, recorded_schema, tick_values
from onestride.deploy.recorded_base import ESTIMATE
from onestride.deploy.ticks import TickLayout, TickRow
from onestride.hardware.errors import OneStrideError


class EpisodeRecorder:
    """Records the ticks of a policy, and what else its owner sees, while an episode runs.

    Args:
        layout: of the ticks.
        folder: takes the journal, which is made with the first episode.
        options: of `Recorder`: `buffer_bytes`, `least_free`, `warn`.
    """

    def __init__(self, layout: TickLayout, folder: Path, **options: Any) -> None:
        self.layout, self._folder, self._options = layout, folder, options
        self._recorder: Recorder | None = None
        self._steps = PolicySteps()
        self._first = self._faulted = False

    @property
    def recording(self) -> str | None:
        """The running episode's id."""
        return None if self._recorder is None else self._recorder.recording

    @property
    def journal(self) -> str:
        """Path of the journal; empty before the first episode."""
        return "" if self._recorder is None else str(self._recorder.path)

    def start(self, attributes: Mapping[str, Any], *, ticking: bool = False) -> str:
        """Begin an episode with what comes from now on; its id.

        Args:
            attributes: what is known of it.
            ticking: the controller is ticking already: the first tick seen need not be its first.

        Raises:
            OneStrideError: one is running, or the disk refuses.
        """
        if self._recorder is None:
            contract = json.loads(self.layout.contract.model_dump_json())
            about = {
                "policy_sha256": self.layout.policy_sha256,
                "policy": self.layout.contract.policy.name,
                "contract": contract,
            }
            self._recorder = Recorder(self._folder, recorded_schema(self.layout), about=about, **self._options)
        episode = self._recorder.start({**self._origin(), **attributes, "success": False})
        self._steps, self._first, self._faulted = PolicySteps(), not ticking, False
        return episode

    def _origin(self) -> dict[str, Any]:
        contract = self.layout.contract
        task = {"task": contract.environment} if contract.environment else {}
        operated = {"teleop": self.layout.operator} if self.layout.operator else {}
        inferred = {"nfe": self.layout.nfe, "runtime": self.layout.runtime} if self.layout.nfe else {}
        policy = {"policy": contract.policy.name, "policy_sha256": self.layout.policy_sha256}
        varied = {"varied": self.layout.varied} if self.layout.varied else {}
        return {**task, **operated, **inferred, **varied, **policy}

    def row(self, stream: str, values: Mapping[str, Any], stamp: int) -> None:
        """Record a row of a stream beside the ticks, measured at `stamp` [ns]."""
        if self._recorder is not None:
            self._recorder.step(values, stream=stream, stamp=stamp)

    def tick(self, row: TickRow) -> None:
        """Record a tick, and the policy's step that it completes."""
        if self._recorder is None or self._recorder.recording is None:
            return
        values = tick_values(row)
        if values is not None:
            self._recorder.step(values, stream=TICKS, stamp=row.moment.stamp)
        if row.velocity is not None:
            self._recorder.step({ESTIMATE: row.velocity}, stream=ESTIMATE, stamp=row.moment.stamp)
        done = self._steps.add(row, expected=self._first)
        self._faulted = self._faulted or row.mode is Mode.FAULT
        if done is not None:
            self._give(done)

    def stop(self, attributes: Mapping[str, Any] | None = None, incomplete: tuple[str, ...] = ()) -> str:
        """End the running episode; its id.

        Raises:
            OneStrideError: none is running.
        """
        recorder = self._known()
        last, steps = self._steps.finish(), self._steps
        if last is not None:
            self._give(last, terminal=recorder.succeeded)
        seeds = list(steps.activations.values())
        said: dict[str, Any] = {"seed": seeds[0]} if seeds else {}
        said["faulted"] = self._faulted
        if steps.actors:
            said["actors"] = dict(steps.actors)
        final = {} if steps.after is None else {"observation": np.asarray(steps.after, np.float32)}
        missing = (*incomplete, *self._missing())
        return recorder.stop({**said, **(attributes or {})}, final=final, incomplete=missing)

    def _missing(self) -> tuple[str, ...]:
        found = [f"{self._steps.lost} ticks did not arrive"] if self._steps.lost else []
        if len(self._steps.activations) > 1:
            found.append(f"the controller was activated {len(self._steps.activations)} times in it")
        return tuple(found)

    def mark_success(self) -> str:
        """The running episode succeeded, or the last one; its id.

        Raises:
            OneStrideError: there is none.
        """
        return self._known().mark_success()

    def discard(self) -> str:
        """Nobody wants the running episode, or the last one; its id.

        Raises:
            OneStrideError: there is none.
        """
        return self._known().discard()

    def wait(self, timeout: float) -> bool:
        """Wait until everything is on the disk, or lost and reported; whether that came in time."""
        return self._known().wait(timeout)

    def status(self) -> dict[str, Any]:
        """What is recorded, what waits and what went wrong."""
        state = self._recorder.status() if self._recorder is not None else {"recording": None}
        return {"lost_ticks": self._steps.lost, **state}

    def close(self) -> None:
        """Close the journal; a running episode is left incomplete."""
        if self._recorder is not None:
            self._recorder.close()

    def _known(self) -> Recorder:
        if self._recorder is None:
            raise OneStrideError("expected an episode, got none yet; start one first")
        return self._recorder

    def _give(self, step: PolicyStep, *, terminal: bool = False) -> None:
        self._known().step(step.values(terminal=terminal), stamp=step.stamp)
