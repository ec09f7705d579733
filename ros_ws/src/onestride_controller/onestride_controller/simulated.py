"""Episodes on a simulated robot: plant, watchdog and controller as processes, over DDS on this machine only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from onestride.deploy.confinement import claim_domain, simulated_environment, unique_namespace
from onestride.deploy.processes import Child
from onestride_controller.supervisor import WATCHDOG, EpisodeResult, Supervisor

Result = TypeVar("Result")


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
        plant: further options of the plant, by name without dashes; true stands for an option without a value.
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
    plant: Mapping[str, Any] = field(default_factory=dict)
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

    @property
    def setting(self) -> str:
        """The environment variables that somebody needs who wants to be heard, in words."""
        names = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "RMW_IMPLEMENTATION")
        return " ".join(f"{name}={self.confined[name]}" for name in names)


@dataclass(frozen=True)
class RobotTrials(Generic[Result]):
    """What came of the episodes through the node.

    Attributes:
        episodes: one by one.
        figures: the controller's own report.
        transport: the DDS implementation in use.
    """

    episodes: list[Result]
    figures: dict[str, Any]
    transport: str


def run_simulated(
    run: SimulatedRun, progress: Callable[[EpisodeResult], None] | None = None
) -> RobotTrials[EpisodeResult]:
    """Start plant, watchdog and controller, run the episodes, and stop them again, whatever happens.

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
    """Plant, watchdog, configured controller and, where wanted, recorder, as long as the context lasts.

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
        supervisor.trigger(f"{WATCHDOG}/status", timeout=20.0)
        supervisor.transition("configure")
        if run.record is not None:
            supervisor.wait_for_recorder()
        yield Stage(supervisor, namespace, confined)


def _modules(run: SimulatedRun, namespace: str) -> list[tuple[str, list[str], str]]:
    """Modules to start, with their command lines and logs."""
    modules = [
        ("onestride_plant", _plant(run, namespace), "plant.log"),
        (WATCHDOG, ros_arguments(namespace, {"robot": run.robot}), "watchdog.log"),
        ("onestride_controller", _node(run, namespace), "node.log"),
    ]
    if run.record is None:
        return modules
    notes = {"notes": json.dumps(run.notes)} if run.notes else {}
    journals = ros_arguments(namespace, {"directory": run.record.resolve(), **notes})
    return [*modules, ("onestride_recorder", journals, "recorder.log")]


def _check(children: list[Child]) -> None:
    for child in children:
        child.check()


def _plant(run: SimulatedRun, namespace: str) -> list[str]:
    options = {"--scene": run.scene, "--robot": run.robot, "--starts": run.starts, "--record": run.film}
    options |= {"--horizon": run.horizon, **{f"--{name}": value for name, value in run.plant.items()}}
    given = (part for name, value in options.items() if value is not None for part in _option(name, value))
    return [*given, *ros_arguments(namespace, {})]


def _option(name: str, value: Any) -> list[str]:
    if value is True:
        return [name]
    return [name, *map(str, value)] if isinstance(value, (tuple, list)) else [name, str(value)]


def _node(run: SimulatedRun, namespace: str) -> list[str]:
    parameters = {"robot": run.robot, "scene": run.scene, "seed": run.seed, "watchdog": WATCHDOG, **run.parameters}
    policy = {"policy": run.policy.resolve()} if run.policy else {}
    return ros_arguments(namespace, {**policy, **parameters, **({"nfe": run.nfe} if run.nfe else {})})


def ros_arguments(namespace: str, parameters: dict[str, Any]) -> list[str]:
    """A node's command line: its namespace and its parameters."""
    settings = (part for name, value in parameters.items() for part in ("-p", f"{name}:={value}"))
    return ["--ros-args", "-r", f"__ns:={namespace}", *settings]
