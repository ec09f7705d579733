"""Record episodes that run in this process, in simulated time: what the recorder node records over DDS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from onestride.deploy.controller import Controller, Tick
from onestride.deploy.episode_recorder import EpisodeRecorder
from onestride.deploy.recorded import EFFORTS, JOINTS, command_stream, object_stream, observed, scalar_stream
from onestride.deploy.recorded_base import base_rows
from onestride.deploy.simulation import Watch, simulate_episode
from onestride.deploy.ticks import Moment, TickLayout
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant, Progress
from onestride.hardware.state import Array, Measurement

#: How long an episode's end waits for the disk [s].
PATIENCE = 30.0

#: Stamps of one sample, seen in two ticks, differ by less than this for rounding [ns].
SAME = 1000


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
        self._stamps = dict[str, int]()
        self._activations = self._index = self._seed = self._began = 0

    @property
    def journal(self) -> str:
        """Path of the journal; empty before the first episode."""
        return self._recorder.journal

    def episode(
        self,
        plant: Plant,
        start: Array | None,
        seed: int,
        watch: Watch | None = None,
        *,
        succeeded: Callable[[Progress], bool] = lambda progress: progress.success,
        **asked: Any,
    ) -> Progress:
        """Run an episode as `simulate_episode` does, and record it.

        Args:
            plant: the simulated robot.
            start: full state (S,).
            seed: of the policy's noise.
            watch: called with every tick and the measurement it saw.
            succeeded: whether what came of it is a success.
            asked: `velocity` and `duration` of `simulate_episode`.

        Raises:
            OneStrideError: the controller refuses to activate, or the disk to take the episode.
        """
        self._begin(seed)

        def see(tick: Tick, measurement: Measurement) -> None:
            self._watch(tick, measurement)
            if watch is not None:
                watch(tick, measurement)

        try:
            progress = simulate_episode(self._controller, plant, start, seed, see, **asked)
        except BaseException:
            self._recorder.stop(incomplete=("the episode was cut short",))
            raise
        if succeeded(progress):
            self._recorder.mark_success()
        self._recorder.stop()
        if not self._recorder.wait(PATIENCE):
            raise OneStrideError(f"{self.journal}: the disk did not take an episode within {PATIENCE:g} s")
        return progress

    def _begin(self, seed: int) -> None:
        self._activations, self._index, self._seed, self._began = self._activations + 1, 0, seed, time.time_ns()
        self._stamps.clear()
        self._recorder.start({})

    def _watch(self, tick: Tick, measurement: Measurement) -> None:
        now = self._index * self._controller.period
        stamp = self._began + round(now * 1e9)
        age = now - measurement.received["joints"]
        moment = Moment(self._activations, self._index, self._seed, stamp, late=0.0, elapsed=0.0, age=age)
        self._index += 1
        self._layout.pack(self._packed, tick, moment)
        self._recorder.tick(self._layout.unpack(self._packed))
        for stream, values, received in self._sensed(measurement):
            self._sample(stream, values, stamp - round((now - received) * 1e9))
        if tick.command is not None:
            for stream, joints in self._places:
                self._recorder.row(stream, {stream: tick.command[self._controller.robot.indices(joints)]}, stamp)

    def _sample(self, stream: str, values: dict[str, Any], stamp: int) -> None:
        """Record a sample once, however many ticks see it."""
        if stamp - self._stamps.get(stream, -SAME) >= SAME:
            self._recorder.row(stream, values, stamp)
            self._stamps[stream] = stamp

    def _sensed(self, measurement: Measurement) -> Iterator[tuple[str, dict[str, Any], float]]:
        """Stream, row and time of arrival [s] of all that a measurement holds."""
        received = measurement.received
        joints = {"joint_position": measurement.position, "joint_velocity": measurement.velocity}
        yield JOINTS, joints, received["joints"]
        if measurement.effort is not None:
            yield EFFORTS, {EFFORTS: measurement.effort}, received["joints"]
        for stream, values in base_rows(self._layout, measurement):
            yield stream, values, received[stream]
        for name in self._objects:
            pose, stream = measurement.objects[name], object_stream(name)
            yield stream, {stream: np.concatenate([pose.position, pose.quaternion])}, received[name]
        for name in self._scalars:
            stream = scalar_stream(name)
            yield stream, {stream: measurement.scalars[name]}, received[name]

    def close(self) -> None:
        """Close the journal."""
        self._recorder.close()
