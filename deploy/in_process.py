"""A run in this process, in simulated time: the plant with what is wrong with it, and what is kept of the episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestride.deploy.controller import Controller, Tick
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import InlineInference, PolicyRuntime, runtime_identity
from onestride.deploy.simulation import Watch, simulate_episode
from onestride.hardware.description import RobotDescription
from onestride.hardware.film import Film
from onestride.hardware.plant import Plant, Progress
from onestride.hardware.realism import usual_realism
from onestride.hardware.realistic_plant import RealisticPlant
from onestride.hardware.scene import Scene
from onestride.hardware.state import Array, Measurement

if TYPE_CHECKING:
    from onestride.deploy.commands_run import Run
    from onestride.deploy.commands_walk import WalkOptions
    from onestride.deploy.simulation_recording import SimulatedRecording


class InProcess:
    """What `onestride run --no-ros` runs, as a context manager.

    Args:
        run: what is asked for.
        robot: the robot.
        scene: where it is.

    Attributes:
        plant: the simulated robot.
        controller: of the policy.
    """

    def __init__(self, run: Run, robot: RobotDescription, scene: Scene) -> None:
        policy = PolicyRuntime(run.policy, contract=run.contract, nfe=run.nfe)
        self.plant = simulated_robot(scene, robot, run.walk_options, run.seed)
        forward = ForwardKinematics.load(scene.model_path, robot)
        self.controller = Controller(policy.contract, robot, forward, InlineInference(policy))
        self._recording = None if run.record is None else _recording(policy, self.controller, run.record)
        self._film = None if run.walk_options.film is None else Film(run.logs / "film.npz")
        self._episodes = 0

    def episode(
        self,
        start: Array | None,
        seed: int,
        watch: Watch | None = None,
        *,
        succeeded: Callable[[Progress], bool] = lambda progress: progress.success,
        **asked: Any,
    ) -> Progress:
        """One episode, as `simulate_episode` has it.

        Args:
            start: full state (S,); None is the model's default pose.
            seed: of the policy's noise.
            watch: called with every tick and the measurement it saw.
            succeeded: whether what came of it is a success, for its recording.
            asked: `velocity` and `duration` of `simulate_episode`.

        Raises:
            OneStrideError: the controller refuses to activate, or the disk to take the episode.
        """
        number, self._episodes = self._episodes, self._episodes + 1
        if self._film is not None:
            self._film.begin()

        def see(tick: Tick, measurement: Measurement) -> None:
            if self._film is not None:
                self._film.see(number, self.plant.progress.time, self.plant.data.qpos)
            if watch is not None:
                watch(tick, measurement)

        if self._recording is None:
            return simulate_episode(self.controller, self.plant, start, seed, see, **asked)
        return self._recording.episode(self.plant, start, seed, see, succeeded=succeeded, **asked)

    @property
    def journal(self) -> dict[str, str]:
        """Where the journal is, if there is one, for a report."""
        return {} if self._recording is None else {"journal": self._recording.journal}

    def write_film(self) -> Path | None:
        """Write what is to be rendered, if anything is; its path."""
        if self._film is None:
            return None
        self._film.write()
        return self._film.path

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._recording is not None:
            self._recording.close()


def simulated_robot(scene: Scene, robot: RobotDescription, options: WalkOptions, seed: int) -> Plant:
    """The plant, with what is wrong with it.

    Raises:
        OneStrideError: that cannot be.
    """
    if not options.plant.keys() - {"odometry"}:
        return Plant(scene, robot, odometry=options.odometry)
    latency = (options.latency, options.latency)
    realism = usual_realism(latency, noise=options.noise, jitter=options.jitter, dropped=options.drop)
    return RealisticPlant(scene, robot, realism, seed, odometry=options.odometry)


def _recording(policy: PolicyRuntime, controller: Controller, folder: Path) -> SimulatedRecording:
    from onestride.deploy.simulation_recording import SimulatedRecording

    inferred = {"nfe": policy.nfe, "runtime": runtime_identity(policy.provider)}
    return SimulatedRecording(controller, policy.sha256, folder, **inferred)
