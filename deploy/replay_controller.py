"""A node's recording through the whole controller again: its measurements in, its observations and commands out.

In a recording made in one process, in simulated time, each tick has exactly the measurement that it saw. A recording
made over DDS has every message by its stamp; here each tick is given the newest that had arrived, as far as that is
known, which may be another one than the node took.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.schema import BASE, Episode
from onestride.deploy.contract import Contract
from onestride.deploy.controller import Controller, Mode, Tick
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.recorded import EFFORTS, JOINTS, TICKS, object_stream, observed, scalar_stream
from onestride.deploy.recorded_base import base_streams, read_inertial
from onestride.deploy.replay import Difference, Part, parts_of
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.sources import COMMAND, IMU
from onestride.deploy.ticks import MODES
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array, Measurement, Pose

_ACTIVE = MODES.index(Mode.ACTIVE)
_AGE = 2  # of the joint state, in the feature `timing`


@dataclass(frozen=True)
class ControllerReplay:
    """What the controller made of the recorded measurements.

    Attributes:
        observations: (T, Do) of the policy's steps.
        commands: joint targets (N, n) [rad] of the ticks.
        exact: whether every tick was given the very measurement that it saw.
        ended: why it stopped before the recording did; empty if it did not.
    """

    observations: Difference
    commands: Difference
    exact: bool
    ended: str = ""


def replay_controller(
    policy: PolicyRuntime, robot: RobotDescription, forward: ForwardKinematics, episode: Episode, seed: int
) -> ControllerReplay:
    """Run the controller over the recorded ticks, up to the first in which it followed no policy.

    Raises:
        OneStrideError: the recording lacks what an observation is made from, or the controller refuses to begin.
    """
    measured = _Measured(policy.contract, robot, episode)
    controller = Controller(policy.contract, robot, forward, InlineInference(policy))
    times = _times(episode, controller.period)
    ticks = list(_ticks(controller, measured, times, seed))
    ended = ticks[-1].reason if ticks and ticks[-1].mode is not Mode.ACTIVE else ""
    commands = np.array([tick.command for tick in ticks]).reshape(len(ticks), -1)
    joints = tuple(Part(name, slice(i, i + 1)) for i, name in enumerate(robot.joint_names))
    return ControllerReplay(
        _observations(policy.contract, episode, times, ticks),
        Difference(episode.data["certified"][: len(ticks)], commands, joints),
        measured.exact,
        ended,
    )


def _ticks(controller: Controller, measured: _Measured, times: Array, seed: int) -> Iterable[Tick]:
    controller.activate(float(times[0]), measured.at(0, float(times[0])), seed)
    for index, now in enumerate(times.tolist()):
        tick = controller.tick(now, measured.at(index, now))
        yield tick
        if tick.mode is not Mode.ACTIVE:
            return


def _times(episode: Episode, period: float) -> Array:
    """Times of the ticks that followed the policy, from the first [s]; on the controller's own grid where they are."""
    modes = episode.data["mode"]
    active = len(modes) if (modes == _ACTIVE).all() else int(np.argmax(modes != _ACTIVE))
    if active == 0:
        raise OneStrideError("expected ticks in which the policy was followed, the recording has none")
    seconds = (episode.timestamps[TICKS][:active] - episode.timestamps[TICKS][0]) * 1e-9
    grid = np.round(seconds / period) * period
    return np.asarray(grid if np.abs(seconds - grid).max() < 1e-8 else seconds)


def _observations(contract: Contract, episode: Episode, times: Array, ticks: list[Tick]) -> Difference:
    """The observations of steps that both have, each found by the tick that it was made in."""
    recorded = episode.data["observation"]
    steps = np.searchsorted(episode.timestamps[TICKS][: len(times)], episode.timestamps[BASE])
    built = [index for index, tick in enumerate(ticks) if tick.observation is not None]
    pairs = [(step, ticks[tick].observation) for step, tick in enumerate(steps.tolist()) if tick in set(built)]
    again = [observation[contract.newest_step] for _, observation in pairs if observation is not None]
    size = contract.observation_size
    return Difference(
        recorded[[step for step, _ in pairs]].astype(np.float64).reshape(-1, size),
        np.array(again, np.float32).astype(np.float64).reshape(-1, size),  # recorded as float32
        parts_of(contract.observations),
    )


class _Measured:
    """The measurement of each tick, from the streams of a recording.

    Attributes:
        exact: whether the ticks took no time and every stream has a row at each, as in simulated time.
    """

    def __init__(self, contract: Contract, robot: RobotDescription, episode: Episode) -> None:
        self._data, self._clocks = episode.data, episode.timestamps
        self._objects, self._scalars = observed(contract)
        self._base = base_streams(contract, legged=robot.base is not None)
        self._stamps, timing = self._clocks[TICKS], self._data["timing"]
        self.exact = not timing.any()
        self._seen = self._stamps - np.round(timing[:, _AGE] * 1e9).astype(np.int64)
        self._rows = {stream: self._latest(stream) for stream in self._streams}
        self._optional = {stream: self._before(stream) for stream in (EFFORTS, *self._base.optional)}

    @property
    def _streams(self) -> tuple[str, ...]:
        objects, scalars = map(object_stream, self._objects), map(scalar_stream, self._scalars)
        return (JOINTS, *objects, *scalars, *self._base.required)

    def _latest(self, stream: str) -> NDArray[np.int64]:
        """The last row of a stream that was stamped before each tick looked, its first before that."""
        if not len(self._clocks.get(stream, ())):
            raise OneStrideError(f"expected rows of stream {stream!r} in the recording, got none")
        return np.maximum(self._before(stream), 0)

    def _before(self, stream: str) -> NDArray[np.int64]:
        """The last row of a stream that was stamped before each tick looked; -1 where there was none yet.

        Sensors report with the joints; what is asked of the base comes at any time.
        """
        clock = self._clocks.get(stream, np.empty(0, np.int64))
        looked = self._stamps if stream == COMMAND.name else self._seen
        return np.searchsorted(clock, looked, side="right") - 1

    def at(self, index: int, now: float) -> Measurement:
        """What the tick saw at `now` [s]."""
        row = {stream: int(rows[index]) for stream, rows in self._rows.items()}
        row |= {stream: int(rows[index]) for stream, rows in self._optional.items() if rows[index] >= 0}
        poses = {name: self._reading(object_stream(name), row) for name in self._objects}
        return Measurement(
            position=self._reading("joint_position", row, JOINTS),
            velocity=self._reading("joint_velocity", row, JOINTS),
            objects={name: Pose(pose[:3], pose[3:]) for name, pose in poses.items()},
            scalars={name: float(self._reading(scalar_stream(name), row)) for name in self._scalars},
            received=self._received(row, index, now),
            effort=self._reading(EFFORTS, row) if EFFORTS in row else None,
            imu=read_inertial(self._data, row[IMU.name]) if IMU.name in row else None,
            vectors={name: self._reading(name, row) for name in self._base.vectors if name in row},
        )

    def _reading(self, feature: str, row: dict[str, int], stream: str = "") -> Array:
        return np.array(self._data[feature][row[stream or feature]])

    def _received(self, row: dict[str, int], index: int, now: float) -> dict[str, float]:
        """When each stream's sample came, as far as its stamp tells."""
        names = {JOINTS: "joints"} | {object_stream(name): name for name in self._objects}
        names |= {scalar_stream(name): name for name in self._scalars} | {name: name for name in self._base.all}
        ages = {s: (int(self._stamps[index]) - int(self._clocks[s][at])) * 1e-9 for s, at in row.items() if s in names}
        return {names[stream]: now - max(0.0, age) for stream, age in ages.items()}
