"""Episodes on a simulated robot: plant and controller as processes of their own, over DDS on this machine only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestride.deploy.confinement import claim_domain, simulated_environment, unique_namespace
from onestride.deploy.processes import Child
from onestride_controller.supervisor import EpisodeResult, Supervisor


@dataclass(frozen=True)
class SimulatedRun:
    """What to run.

    Attributes:
        policy: exported policy file; None where only a person acts.
        robot: robot description, by id or file.
        scene: folder of an exported scene.
        episodes: how many.
        logs: folder for the processes' logs.
        starts: episode starts; None means the scene's default pose every time.
        nfe: network evaluations per action; None means the policy's first.
        seed: of the policy's noise.
        film: file that takes the plant's configurations.
        record: folder that takes a journal of the episodes.
        notes: kept with every recorded episode.
        horizon: steps of an episode; None means the environment's own.
        parameters: further ones of the controller.
        domain: DDS domain; None means one that nobody has.
    """

    policy: Path | None
    robot: str
    scene: Path
    episodes: int
    logs: Path
    starts: Path | None = None
    nfe: int | None = None
    seed: int = 0
    film: Path | None = None
    record: Path | None = None
    notes: str = ""
    horizon: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    domain: int | None = None


@dataclass(frozen=True)
class Stage:
    """What was started.

    Attributes:
        supervisor: drives it.
        namespace: of every node.
        confined: the environment variables of every process.
    """

    supervisor: Supervisor
    namespace: str
    confined: dict[str, str]


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
    with started(run) as stage:
        episodes = []
        for _ in range(run.episodes):
            episodes.append(stage.supervisor.run_episode(record=run.record is not None))
            if progress:
                progress(episodes[-1])
        return RobotTrials(episodes, stage.supervisor.report(), stage.confined["RMW_IMPLEMENTATION"])


@contextmanager
def started(run: SimulatedRun) -> Iterator[Stage]:
    """Plant, configured controller and, where wanted, recorder, as long as the context lasts.

    Raises:
        OneStrideError: a process died, refused, or did not answer; the message says which and why.
    """
    with ExitStack() as stack:
        namespace = unique_namespace()
        confined = simulated_environment(stack.enter_context(claim_domain(wanted=run.domain)))
        children = [
            Child(module, arguments, log=run.logs / log, environment=confined)
            for module, arguments, log in _modules(run, namespace)
        ]
        for child in children:
            child.log.unlink(missing_ok=True)
            stack.enter_context(child)
        supervisor = stack.enter_context(Supervisor(namespace, confined, lambda: _check(children)))
        supervisor.wait_for_services()
        supervisor.transition("configure")
        if run.record is not None:
            supervisor.wait_for_recorder()
        yield Stage(supervisor, namespace, confined)


def _modules(run: SimulatedRun, namespace: str) -> list[tuple[str, list[str], str]]:
    """Modules to start, with their command lines and logs."""
    modules = [
        ("onestride_plant", _plant(run, namespace), "plant.log"),
        ("onestride_controller", _node(run, namespace), "node.log"),
    ]
    if run.record is None:
        return modules
    notes = {"notes": json.dumps(run.notes)} if run.notes else {}
    journals = _ros_arguments(namespace, {"directory": run.record.resolve(), **notes})
    return [*modules, ("onestride_recorder", journals, "recorder.log")]


def _check(children: list[Child]) -> None:
    for child in children:
        child.check()


def _plant(run: SimulatedRun, namespace: str) -> list[str]:
    options = {"--scene": run.scene, "--robot": run.robot, "--starts": run.starts, "--record": run.film}
    options |= {"--horizon": run.horizon}
    given = (str(part) for name, value in options.items() if value is not None for part in (name, value))
    return [*given, *_ros_arguments(namespace, {})]


def _node(run: SimulatedRun, namespace: str) -> list[str]:
    parameters = {"robot": run.robot, "scene": run.scene, "seed": run.seed, **run.parameters}
    policy = {"policy": run.policy.resolve()} if run.policy else {}
    return _ros_arguments(namespace, {**policy, **parameters, **({"nfe": run.nfe} if run.nfe else {})})


def _ros_arguments(namespace: str, parameters: dict[str, Any]) -> list[str]:
    settings = (part for name, value in parameters.items() for part in ("-p", f"{name}:={value}"))
    return ["--ros-args", "-r", f"__ns:={namespace}", *settings]
