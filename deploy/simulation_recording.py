"""Record episodes that run in this process, in simulated time: what the recorder node records over DDS."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from onestride.deploy.controller import Controller, Tick
from onestride.deploy.episode_recorder import EpisodeRecorder
from onestride.deploy.recorded import JOINTS, command_stream, object_stream, observed, scalar_stream
from onestride.deploy.simulation import simulate_episode
from onestride.deploy.ticks import Moment, TickLayout
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant, Progress
from onestride.hardware.state import Array, Measurement

#: How long an episode's end waits for the disk [s].
PATIENCE = 30.0


class SimulatedRecording:
    """A journal of simulated episodes; their clock is the simulation's, from the moment each began.

    Args:
        controller: whose ticks are recorded.
        policy_sha256: of its policy's file.
        inferred: `nfe` and `runtime` of `TickLayout`, where they are known.
        folder: takes the journal.
    """

    def __init__(self, controller: Controller, policy_sha256: str, folder: Path, **inferred: Any) -> None:
        self._controller = controller
        self._layout = TickLayout.of(controller, policy_sha256, **inferred)
        self._recorder = EpisodeRecorder(self._layout, folder)
        self._objects, self._scalars = observed(controller.contract)
        self._places = [(command_stream(group.topic), group.joints) for group in controller.robot.commands]
        self._packed = np.empty(self._layout.size)
        self._activations = self._index = self._seed = self._began = 0

    @property
    def journal(self) -> str:
        """Path of the journal; empty before the first episode."""
        return self._recorder.journal

    def episode(self, plant: Plant, start: Array, seed: int) -> Progress:
        """Run an episode as `simulate_episode` does, and record it.

        Raises:
            OneStrideError: the controller refuses to activate, or the disk to take the episode.
        """
        self._activations, self._index, self._seed, self._began = self._activations + 1, 0, seed, time.time_ns()
        self._recorder.start({})
        try:
            progress = simulate_episode(self._controller, plant, start, seed, self._watch)
        except BaseException:
            self._recorder.stop(incomplete=("the episode was cut short",))
            raise
        if progress.success:
            self._recorder.mark_success()
        self._recorder.stop()
        if not self._recorder.wait(PATIENCE):
            raise OneStrideError(f"{self.journal}: the disk did not take an episode within {PATIENCE:g} s")
        return progress

    def _watch(self, tick: Tick, measurement: Measurement) -> None:
        stamp = self._began + round(self._index * self._controller.period * 1e9)
        moment = Moment(self._activations, self._index, self._seed, stamp, late=0.0, elapsed=0.0, age=0.0)
        self._index += 1
        self._layout.pack(self._packed, tick, moment)
        self._recorder.tick(self._layout.unpack(self._packed))
        self._surroundings(measurement, stamp)
        if tick.command is not None:
            for stream, joints in self._places:
                self._recorder.row(stream, {stream: tick.command[self._controller.robot.indices(joints)]}, stamp)

    def _surroundings(self, measurement: Measurement, stamp: int) -> None:
        joints = {"joint_position": measurement.position, "joint_velocity": measurement.velocity}
        self._recorder.row(JOINTS, joints, stamp)
        for name in self._objects:
            pose, stream = measurement.objects[name], object_stream(name)
            self._recorder.row(stream, {stream: np.concatenate([pose.position, pose.quaternion])}, stamp)
        for name in self._scalars:
            stream = scalar_stream(name)
            self._recorder.row(stream, {stream: measurement.scalars[name]}, stamp)

    def close(self) -> None:
        """Close the journal."""
        self._recorder.close()
