"""The demo's second half: the same episodes on a simulated robot, through the ROS 2 node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onestride.deploy.rooms import load
from onestride.hardware.scene import Scene
from onestride.training.commands import progress_bar
from onestride.training.demo.stages import Workshop

SIMULATED = "onestride_controller.simulated"


def film_of(shop: Workshop) -> Path:
    """Where the plant keeps its configurations."""
    return shop.out / "film.npz"


def robot_stage(shop: Workshop, scene: Scene) -> Any:
    """Run the evaluation episodes on the plant, through the ROS 2 node; see `RobotTrials` there.

    Raises:
        OneStrideError: ROS 2 is not installed, or a process died or refused.
    """
    run = load(f"{SIMULATED}:SimulatedRun", "ros")(
        policy=shop.policy,
        robot=scene.description.robot,
        scene=scene.folder,
        episodes=shop.episodes,
        logs=shop.out / "log",
        starts=shop.starts,
        seed=shop.seed,
        film=film_of(shop),
    )
    done: list[bool] = []
    with progress_bar("  through the node", shop.episodes) as advance:

        def progress(episode: Any) -> None:
            done.append(episode.success)
            advance(len(done), f"{sum(done)} solved")

        trials = load(f"{SIMULATED}:run_simulated", "ros")(run, progress)
    shop.say(f"{sum(done)} of {len(done)} unseen episodes solved through the ROS 2 node (simulated robot)")
    return trials
