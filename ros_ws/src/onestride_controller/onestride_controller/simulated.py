"""Episodes on a simulated robot: plant and controller as processes of their own, over DDS on this machine only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestride.deploy.confinement import claim_domain, simulated_environment, unique_namespace
from onestride.deploy.processes import Child
from onestride_controller.supervisor import EpisodeResult, Supervisor


@dataclass(frozen=True)
class SimulatedRun:
    """What to run.

    Attributes:
        policy: exported policy file.
        robot: robot description, by id or file.
        scene: folder of an exported scene.
        episodes: how many.
        logs: folder for the processes' logs.
        starts: episode starts; None means the scene's default pose every time.
        nfe: network evaluations per action; None means the policy's first.
        seed: of the policy's noise.
        film: file that takes the plant's configurations.
        record: folder that takes a journal of the episodes.
    """

    policy: Path
    robot: str
    scene: Path
    episodes: int
    logs: Path
    starts: Path | None = None
    nfe: int | None = None
    seed: int = 0
    film: Path | None = None
    record: Path | None = None


@dataclass(frozen=True)
class RobotTrials:
    """What came of the episodes through the node.

    Attributes:
        episodes: one by one.
        figures: the controller's own report.
        transport: the DDS implementation in use.
    """

    episodes: list[EpisodeResult]
    figures: dict[str, Any]
    transport: str


def run_simulated(run: SimulatedRun, progress: Callable[[EpisodeResult], None] | None = None) -> RobotTrials:
    """Start plant and controller, run the episodes, and stop both again, whatever happens.

    Args:
        run: what to run.
        progress: called after each episode.

    Raises:
        OneStrideError: a process died, refused, or did not answer; the message says which and why.
    """
    with ExitStack() as stack:
        namespace, confined = unique_namespace(), simulated_environment(stack.enter_context(claim_domain()))
        children = [
            Child("onestride_plant", _plant(run, namespace), log=run.logs / "plant.log", environment=confined),
            Child("onestride_controller", _node(run, namespace), log=run.logs / "node.log", environment=confined),
        ]
        if run.record is not None:
            journals = _ros_arguments(namespace, {"directory": run.record.resolve()})
            log = run.logs / "recorder.log"
            children.append(Child("onestride_recorder", journals, log=log, environment=confined))
        for child in children:
            child.log.unlink(missing_ok=True)
            stack.enter_context(child)
        supervisor = stack.enter_context(Supervisor(namespace, confined, lambda: _check(children)))
        supervisor.wait_for_services()
        supervisor.transition("configure")
        if run.record is not None:
            supervisor.wait_for_recorder()
        episodes = []
        for _ in range(run.episodes):
            episodes.append(supervisor.run_episode(record=run.record is not None))
            if progress:
                progress(episodes[-1])
        return RobotTrials(episodes, supervisor.report(), confined["RMW_IMPLEMENTATION"])


def _check(children: list[Child]) -> None:
    for child in children:
        child.check()


def _plant(run: SimulatedRun, namespace: str) -> list[str]:
    options = {"--scene": run.scene, "--robot": run.robot, "--starts": run.starts, "--record": run.film}
    given = (str(part) for name, value in options.items() if value is not None for part in (name, value))
    return [*given, *_ros_arguments(namespace, {})]


def _node(run: SimulatedRun, namespace: str) -> list[str]:
    parameters = {"policy": run.policy.resolve(), "robot": run.robot, "scene": run.scene, "seed": run.seed}
    return _ros_arguments(namespace, parameters | ({"nfe": run.nfe} if run.nfe else {}))


def _ros_arguments(namespace: str, parameters: dict[str, Any]) -> list[str]:
    settings = (part for name, value in parameters.items() for part in ("-p", f"{name}:={value}"))
    return ["--ros-args", "-r", f"__ns:={namespace}", *settings]
