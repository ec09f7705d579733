"""The demo's second half: plant and controller as processes of their own, talking over DDS on this machine only."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onestride.deploy.confinement import claim_domain, simulated_environment, unique_namespace
from onestride.deploy.processes import Child
from onestride.hardware.errors import OneStrideError
from onestride.hardware.scene import Scene
from onestride.training.commands import progress_bar
from onestride.training.demo.stages import Workshop

if TYPE_CHECKING:
    from onestride_controller.supervisor import EpisodeResult, Supervisor

FILM = "film.npz"


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


def robot_stage(shop: Workshop, scene: Scene) -> RobotTrials:
    """Run the evaluation episodes on the plant, through the ROS 2 node.

    Raises:
        OneStrideError: ROS 2 is not installed, or a process died or refused.
    """
    try:
        from onestride_controller.supervisor import Supervisor
    except ModuleNotFoundError as error:
        raise OneStrideError(f"the ROS 2 node needs {error.name}: pip install 'onestride[ros]'") from None

    logs = shop.out / "log"
    with ExitStack() as stack:
        namespace, confined = unique_namespace(), simulated_environment(stack.enter_context(claim_domain()))
        children = [
            Child(
                "onestride_plant", plant_arguments(shop, scene, namespace), log=logs / "plant.log", environment=confined
            ),
            Child(
                "onestride_controller",
                node_arguments(shop, scene, namespace),
                log=logs / "node.log",
                environment=confined,
            ),
        ]
        for child in children:
            child.log.unlink(missing_ok=True)
            stack.enter_context(child)
        supervisor = stack.enter_context(Supervisor(namespace, confined, lambda: _check(children)))
        episodes, figures = _episodes(shop, supervisor)
    solved = sum(episode.success for episode in episodes)
    shop.say(f"{solved} of {len(episodes)} unseen episodes solved through the ROS 2 node (simulated robot)")
    return RobotTrials(episodes, figures, confined["RMW_IMPLEMENTATION"])


def _check(children: list[Child]) -> None:
    for child in children:
        child.check()


def plant_arguments(shop: Workshop, scene: Scene, namespace: str) -> list[str]:
    """The plant's command line."""
    options = {"--scene": scene.folder, "--robot": scene.description.robot, "--starts": shop.starts}
    options["--record"] = shop.out / FILM
    return [*(str(part) for option in options.items() for part in option), *_in(namespace)]


def node_arguments(shop: Workshop, scene: Scene, namespace: str) -> list[str]:
    """The controller's command line."""
    parameters = {"policy": shop.policy.resolve(), "robot": scene.description.robot, "scene": scene.folder}
    settings = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    return [*_in(namespace), *settings, "-p", f"seed:={shop.seed}"]


def _in(namespace: str) -> list[str]:
    return ["--ros-args", "-r", f"__ns:={namespace}"]


def _episodes(shop: Workshop, supervisor: Supervisor) -> tuple[list[EpisodeResult], dict[str, Any]]:
    supervisor.wait_for_services()
    supervisor.transition("configure")
    episodes = []
    with progress_bar("  through the node", shop.episodes) as advance:
        for count in range(1, shop.episodes + 1):
            episodes.append(supervisor.run_episode())
            solved = sum(episode.success for episode in episodes)
            advance(count, f"{solved} solved")
    return episodes, supervisor.report()
