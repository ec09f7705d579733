"""Everything but sending: the controller ticks on what a robot reports, and nobody hears what it would have sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestride.deploy.confinement import claim_domain, simulated_environment, unique_namespace
from onestride.deploy.processes import Child
from onestride_controller.simulated import ros_arguments
from onestride_controller.supervisor import PLANT, POLL_PERIOD, Supervisor


@dataclass(frozen=True)
class DryRun:
    """What to run.

    Attributes:
        policy: exported policy file.
        robot: robot description, by id or file.
        scene: folder of a scene with its model.
        seconds: how long [s].
        logs: folder for the processes' logs.
        starts: episode starts of the plant.
        namespace: of a robot that is there already; None starts a plant of its own, confined to this machine.
        parameters: further ones of the controller.
        remappings: our topic -> the robot's.
    """

    policy: Path
    robot: str
    scene: Path
    seconds: float
    logs: Path
    starts: Path | None = None
    namespace: str | None = None
    parameters: Mapping[str, Any] | None = None
    remappings: Mapping[str, str] | None = None


def run_dry(run: DryRun) -> dict[str, Any]:
    """Let the controller tick for a while; what it would have sent, and its own report.

    The robot does not follow, so that guards which expect it to will end an activation after a moment. The next one
    begins at once, from where the robot is measured then, until the time is over.

    Raises:
        OneStrideError: a process died, refused, or did not answer; the message says which and why.
    """
    with _started(run) as supervisor:
        deadline, faults, activations = time.monotonic() + run.seconds, list[str](), 0
        while time.monotonic() < deadline:
            supervisor.status = {}
            supervisor.transition("activate")
            activations += 1
            while supervisor.status.get("mode") != "fault" and time.monotonic() < deadline:
                supervisor.check_alive()
                supervisor.spin(POLL_PERIOD)
            supervisor.transition("deactivate")
            faults += filter(None, [supervisor.clear_fault()])
        report = supervisor.report()
    return {"unsent": report.pop("unsent"), "activations": activations, "ended_by": faults, "node": report}


@contextmanager
def _started(run: DryRun) -> Iterator[Supervisor]:
    with ExitStack() as stack:
        namespace, confined = run.namespace, dict[str, str]()
        children = []
        if namespace is None:
            namespace = unique_namespace()
            confined = simulated_environment(stack.enter_context(claim_domain()))
            starts = [] if run.starts is None else ["--starts", str(run.starts)]
            plant = ["--scene", str(run.scene), "--robot", run.robot, *starts, *ros_arguments(namespace, {})]
            children.append(Child("onestride_plant", plant, log=run.logs / "plant.log", environment=confined))
        node = [*ros_arguments(namespace, _parameters(run)), *_remapped(run)]
        children.append(Child("onestride_controller", node, log=run.logs / "node.log", environment=confined))
        for child in children:
            child.log.unlink(missing_ok=True)
            stack.enter_context(child)
        supervisor = stack.enter_context(Supervisor(namespace, confined, _alive(children)))
        if run.namespace is None:
            supervisor.trigger(f"{PLANT}/reset", timeout=20.0)
        supervisor.transition("configure")
        yield supervisor


def _alive(children: list[Child]) -> Callable[[], None]:
    def alive() -> None:
        for child in children:
            child.check()

    return alive


def _parameters(run: DryRun) -> dict[str, Any]:
    own = {"policy": run.policy.resolve(), "robot": run.robot, "scene": run.scene, "dry_run": True}
    return {**own, "simulated": run.namespace is None, **(run.parameters or {})}


def _remapped(run: DryRun) -> list[str]:
    return [part for ours, theirs in (run.remappings or {}).items() for part in ("-r", f"{ours}:={theirs}")]
