"""`onestride run`: a policy on a simulated robot, through the ROS 2 node or in this process, or on a real one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from onestride.deploy.commands_real import RobotOptions, run_on_robot
from onestride.deploy.commands_walk import WalkOptions, keep_film, run_walks
from onestride.deploy.contract import Contract
from onestride.deploy.foreign import contract_argument
from onestride.deploy.node_options import NodeOptions
from onestride.deploy.rooms import load
from onestride.deploy.run_modes import refuse_unread
from onestride.hardware.errors import OneStrideError
from onestride.hardware.scene import STARTS_FILE, Scene, find_scene

if TYPE_CHECKING:
    from onestride.deploy.in_process import InProcess
    from onestride.hardware.description import RobotDescription

SIMULATED = "onestride_controller.simulated"


@dataclass
class Run:
    """Run a policy through the ROS 2 node: on a simulated robot, confined to this machine; with --real, on a robot.

    A real robot moves only behind a gate that a person confirms. Ctrl-C stops node and plant in order. An option that
    the chosen kind of run does not read is refused.
    """

    policy: tyro.conf.Positional[Path]
    """Exported policy file, or an ONNX file of another origin with `--contract`."""
    contract: Path | None = None
    """Contract file of a policy that onestride did not export, or the name of one that comes with onestride."""
    robot: str | None = None
    """Robot description, by id or YAML file; default the contract's."""
    scene: Path | None = None
    """Folder of an exported scene; default the contract's environment, exported if need be."""
    episodes: int = 5
    """Simulated episodes to run."""
    nfe: int | None = None
    """Network evaluations per action; default the policy's first."""
    seed: int = 0
    """Seed of the policy's noise."""
    record: Path | None = None
    """Folder that takes a journal of the simulated episodes; then: onestride commit."""
    no_ros: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run the same controller in this process, in simulated time."""
    logs: Path = Path("runs/run/log")
    """Folder for the processes' logs."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""
    walk_options: Annotated[WalkOptions, tyro.conf.arg(name="simulated robot")] = field(default_factory=WalkOptions)
    robot_options: Annotated[RobotOptions, tyro.conf.arg(name="real or dry run")] = field(default_factory=RobotOptions)
    node_options: Annotated[NodeOptions, tyro.conf.arg(name="node")] = field(default_factory=NodeOptions)

    def __call__(self) -> int:
        """Run the episodes and print what came of them."""
        from onestride.deploy.runtime import load_contract
        from onestride.hardware.description import load_robot

        if self.episodes < 1:
            raise OneStrideError(f"expected episodes >= 1, got {self.episodes}")
        contract, _ = load_contract(self.policy, self.contract)
        if contract.robot is None:
            raise OneStrideError(f"{self.policy} names no robot (actions as in its dataset): it cannot be run")
        robot = self.robot or contract.robot.id
        described = load_robot(robot)
        refuse_unread(self, legs=described.base is not None)  # pyright: ignore[reportArgumentType] - by its other path
        scene = Scene.load(self.scene) if self.scene else _scene_of(contract, described, self.walk_options.model)
        if self.robot_options.wanted:
            return run_on_robot(self, robot, scene)  # pyright: ignore[reportArgumentType] - this file by its other path
        if described.base is not None:
            return run_walks(self, described, scene)  # pyright: ignore[reportArgumentType] - likewise
        result = self._in_process(robot, scene) if self.no_ros else self._through_ros(robot, scene)
        _print(result, self.json)
        return 0

    def _through_ros(self, robot: str, scene: Scene) -> dict[str, Any]:
        film = self.logs / "film.npz" if self.walk_options.film else None
        contract = {"contract": contract_argument(self.contract)} if self.contract else {}
        run = load(f"{SIMULATED}:SimulatedRun", "ros")(
            policy=self.policy,
            robot=robot,
            scene=scene.folder,
            episodes=self.episodes,
            logs=self.logs,
            starts=scene.starts_path,
            nfe=self.nfe,
            seed=self.seed,
            record=self.record,
            film=film,
            parameters={**contract, **self.node_options.parameters},
            plant={**self.walk_options.plant, "seed": self.seed},
        )
        trials = load(f"{SIMULATED}:run_simulated", "ros")(run, _say)
        keep_film(scene, film, self.walk_options.film)
        figures = {name: value for name, value in trials.figures.items() if name != "tick_ms_histogram"}
        return {
            "success_rate": sum(episode.success for episode in trials.episodes) / len(trials.episodes),
            "episodes": [asdict(episode) for episode in trials.episodes],
            "transport": trials.transport,
            "simulated": True,
            "node": figures,
        }

    def _in_process(self, robot_name: str, scene: Scene) -> dict[str, Any]:
        from onestride.deploy.in_process import InProcess
        from onestride.hardware.description import load_robot

        with InProcess(self, load_robot(robot_name), scene) as run:  # pyright: ignore[reportArgumentType] - likewise
            episodes = self._simulated(run, scene)
            keep_film(scene, run.write_film(), self.walk_options.film)
        return {
            "success_rate": sum(bool(episode["success"]) for episode in episodes) / len(episodes),
            "episodes": episodes,
            "transport": "none (in process, simulated time)",
            "simulated": True,
            "node": {"counters": dict(run.controller.chain.counters)},
            **run.journal,
        }

    def _simulated(self, run: InProcess, scene: Scene) -> list[dict[str, Any]]:
        from onestride.hardware.scene import load_starts

        states = load_starts(scene.starts_path)[1] if scene.starts_path else [run.plant.state]
        episodes = []
        for index in range(self.episodes):
            progress = run.episode(states[index % len(states)], self.seed + index)
            episodes.append({"episode": index, **asdict(progress), "fault": run.controller.reason})
            run.controller.rearm()
        return episodes


def _scene_of(contract: Contract, robot: RobotDescription, model: Path | None) -> Scene:
    """The scene of the policy's environment, exported now if it is installed; without one, or on legs, a floor."""
    if contract.environment in (None, f"robot/{robot.id}") or model is not None or robot.base is not None:
        from onestride.hardware.models import robot_scene

        return robot_scene(robot, model)
    try:
        scene = find_scene(contract.environment)
        if (scene.folder / STARTS_FILE).is_file():
            return scene
    except OneStrideError:
        pass
    prepared: Scene = load("onestride.training.environments.scenes:prepare_scene", "sim")(contract.environment)
    return prepared


def _say(episode: Any) -> None:
    from rich.console import Console

    outcome = f"solved after {episode.solved_after} steps" if episode.success else episode.fault or "not solved"
    Console(stderr=True).print(
        f"episode {episode.episode}: {outcome} ({episode.time:.1f} s simulated)", highlight=False
    )


def _print(result: dict[str, Any], json: bool) -> None:
    from rich.console import Console

    from onestride.deploy.commands import print_json

    if json:
        print_json(result)
        return
    console = Console()
    console.print(f"[bold]{result['success_rate']:.0%}[/] of {len(result['episodes'])} episodes solved (simulated)")
    if "journal" in result:
        console.print(f"recorded: {result['journal']}; next: onestride commit", highlight=False, soft_wrap=True)
    node = result["node"]
    if "tick_ms" in node:
        tick = node["tick_ms"]
        console.print(
            f"control {node['control_rate_hz']:.1f} Hz, tick p50 {tick['p50']:.2f} p99 {tick['p99']:.2f} ms, "
            f"{node['deadline_misses']} deadline misses, interventions {node['intervention_rate']:.1%}, "
            f"{result['transport']}",
            highlight=False,
        )
