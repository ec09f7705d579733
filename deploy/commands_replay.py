"""`onestride replay`: a recording through the same code again, and what comes out differently."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from onestride.deploy.commands import print_json
from onestride.deploy.rooms import load
from onestride.hardware.errors import OneStrideError

if TYPE_CHECKING:
    from onestride.deploy.contract import Contract
    from onestride.deploy.replay_controller import ControllerReplay
    from onestride.deploy.runtime import PolicyRuntime
    from onestride.hardware.description import RobotDescription
    from onestride.hardware.scene import Scene


@dataclass
class Replay:
    """Feed a recording to a policy again, through the same code, and tell how its actions differ. Nothing moves.

    Exits with 1 where the recording promises the same actions and they are not: to the bit where the policy file and
    what it runs on are the recorded ones, else within 1e-5 or the tolerance given. Other data, or another policy, is
    compared and not judged.
    """

    policy: tyro.conf.Positional[Path]
    """Exported policy file."""
    data: tyro.conf.Positional[Path]
    """A journal or a folder of them, a store, an MCAP file of ours, or data in a format that converts."""
    episode: int = 0
    """Which episode, from 0."""
    contract: Path | None = None
    """Contract of a policy file that carries none: a file, or a shipped name such as `go1_joystick`."""
    robot: str | None = None
    """Robot description, by id or YAML file; default the contract's."""
    scene: Path | None = None
    """Folder of an exported scene, to replay the whole controller; default the contract's, where it was exported."""
    nfe: int | None = None
    """Network evaluations per action; default the recorded ones, else the policy's first."""
    seed: int | None = None
    """Seed of the noise; default the recorded one, else 0."""
    tolerance: float | None = None
    """Judge by this largest difference of an action, whatever was recorded."""
    mapping: Path | None = None
    """What the topics of a rosbag2 recording mean."""
    plot: Path | None = None
    """Draw the actions, recorded and again, into this file."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Replay, report and judge."""
        from onestride.deploy.replay import judge, read_steps, replay_actions
        from onestride.deploy.runtime import runtime_identity

        recording = load("onestride.datasets.recordings:read_recording", "train")(self.data, self.episode, self.mapping)
        policy = self._policy(recording.episode.attributes)
        steps = read_steps(policy.contract, recording.schema, recording.episode)
        seed = _first(self.seed, steps.attributes.get("seed"), 0)
        actions = replay_actions(policy, steps, seed)
        judgement = judge(steps, policy.sha256, runtime_identity(policy.provider), self.tolerance)
        report: dict[str, Any] = {
            "policy_sha256": policy.sha256,
            "data": str(self.data),
            "format": recording.format,
            "episode": self.episode,
            "episode_id": steps.attributes.get("episode_id"),
            "recorded_by_node": steps.by_node,
            "nfe": policy.nfe,
            "seed": seed,
            "actions": actions.summary(judgement.tolerance or 0.0),
            "tolerance": judgement.tolerance,
            "judged": judgement.why,
            "passed": judgement.passed(actions),
        }
        if steps.by_node and not steps.supervised:
            report["controller"] = self._controller(policy, recording.episode, seed)
        controller = report.get("controller", {})
        if judgement.tolerance == 0 and controller.get("exact"):
            report["passed"] &= controller["observations"]["identical"] and controller["commands"]["identical"]
        if self.plot is not None:
            from onestride.deploy.replay_plot import plot

            plot(self.plot, actions, policy.contract.action_names, f"{policy.contract.policy.name} on {self.data.name}")
        print_json(report) if self.json else _print(report)
        return 0 if report["passed"] else 1

    def _policy(self, attributes: dict[str, Any]) -> PolicyRuntime:
        from onestride.deploy.runtime import PolicyRuntime

        recorded = attributes.get("nfe")
        nfe = _first(self.nfe, recorded if isinstance(recorded, int) else None)
        return PolicyRuntime(self.policy, nfe=nfe, contract=self.contract)

    def _controller(self, policy: PolicyRuntime, episode: Any, seed: int) -> dict[str, Any]:
        """The whole controller's replay as JSON, or why there is none."""
        from onestride.deploy.kinematics import ForwardKinematics
        from onestride.deploy.replay_controller import replay_controller
        from onestride.hardware.description import load_robot

        contract = policy.contract
        try:
            if contract.robot is None:
                raise OneStrideError("the contract names no robot")
            robot = load_robot(self.robot or contract.robot.id)
            scene = self._scene(contract, robot)
            forward = ForwardKinematics.load(scene.model_path, robot)
            return _summary(replay_controller(policy, robot, forward, episode, seed))
        except OneStrideError as error:
            if self.scene is not None:
                raise
            return {"left_out": str(error)}

    def _scene(self, contract: Contract, robot: RobotDescription) -> Scene:
        from onestride.hardware.models import robot_scene
        from onestride.hardware.scene import Scene, find_scene

        if self.scene is not None:
            return Scene.load(self.scene)
        if robot.base is not None:
            return robot_scene(robot)
        if contract.environment is None:
            raise OneStrideError("the contract names no environment")
        return find_scene(contract.environment)


def _summary(replay: ControllerReplay) -> dict[str, Any]:
    return {
        "exact": replay.exact,
        "observations": replay.observations.summary(),
        "commands": replay.commands.summary(),
        "ended": replay.ended,
    }


def _first(*values: Any) -> Any:
    """The first that is not None; None where all are."""
    return next((value for value in values if value is not None), None)


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"episode {report['episode']} of {report['data']} ({report['format']}), seed {report['seed']}")
    _print_difference(console, "actions", report["actions"], report["tolerance"] or 0.0)
    controller = report.get("controller")
    if controller and "left_out" in controller:
        console.print(f"whole controller: left out, {controller['left_out']}", soft_wrap=True)
    elif controller:
        if not controller["exact"]:
            console.print("whole controller, from messages by their stamps: differences are told, not judged")
        for what in ("observations", "commands"):
            _print_difference(console, what, controller[what], 0.0)
        if controller["ended"]:
            console.print(f"it ended early: {controller['ended']}", soft_wrap=True)
    judged = "not judged" if report["tolerance"] is None else "pass"
    verdict = judged if report["passed"] else "[red]FAIL[/]"
    console.print(f"{verdict}: {report['judged']}", soft_wrap=True)


def _print_difference(console: Any, what: str, figures: dict[str, Any], tolerance: float) -> None:
    from rich.table import Table

    if figures["identical"]:
        console.print(f"{what}: {figures['steps']} steps, identical to the bit")
        return
    first = figures["first_step_that_differs"]
    where = "none" if first is None else f"the first in step {first}"
    largest = f"largest difference {figures['max']:.3g}"
    console.print(f"{what}: {figures['steps']} steps, {largest}, above {tolerance:g} {where}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2))
    for column in ("", "largest", "in step", "mean"):
        table.add_column(column, justify="left" if not column else "right")
    for name, part in figures["terms"].items():
        table.add_row(name, f"{part['max']:.3g}", str(part["at_step"]), f"{part['mean']:.3g}")
    console.print(table)
