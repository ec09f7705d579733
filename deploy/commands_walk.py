"""What `onestride run` does with a robot on legs: episodes are walks, and somebody asks for velocities."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from onestride.deploy.foreign import contract_argument
from onestride.deploy.rooms import load
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.scene import Scene

if TYPE_CHECKING:
    from onestride.deploy.commands_run import Run
    from onestride.deploy.in_process import InProcess

WALKS = "onestride_controller.walks"

#: Simulated time of a walk, unless told otherwise [s].
SECONDS = 10.0


@dataclass
class WalkOptions:
    """Of any simulated robot its model, what is wrong with it and a film; of one on legs, also where it walks."""

    model: Path | None = None
    """The robot's MuJoCo XML, for a policy without an environment; default what its description names."""
    command: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Velocity asked of a robot on legs: vx,vy [m/s] and wz [rad/s], as `--command=0.5,0,0`. Given more than once, one
    after the other for equal shares of the time."""
    cmd_vel_topic: str | None = None
    """In place of `--command`: geometry_msgs/Twist of somebody else who asks, such as a joystick."""
    odometry: bool = False
    """The simulated robot on legs publishes its base's true velocity."""
    latency: float = 0.0
    """Of the simulated robot, from a state to the answer to it [s]."""
    jitter: float = 0.0
    """Largest further delay of a message [s]."""
    noise: float = 0.0
    """On all its readings; 1 is that of usual sensors."""
    drop: float = 0.0
    """Share of messages that get lost, both ways."""
    film: Path | None = None
    """GIF of the first episode or walk."""

    @property
    def plant(self) -> dict[str, Any]:
        """Options of the plant."""
        wrong = {name: getattr(self, name) for name in ("jitter", "noise", "drop", "odometry")}
        if self.latency:
            wrong["latency"] = (self.latency, self.latency)
        return {name: value for name, value in wrong.items() if value}


def run_walks(run: Run, robot: RobotDescription, scene: Scene) -> int:
    """Walk, and print what came of it; 1 where a walk ended in a fall or a fault.

    Raises:
        OneStrideError: what is asked makes no sense, or a process died or refused.
    """
    course = _course(run, robot)
    result = _in_process(run, robot, scene, course) if run.no_ros else _through_ros(run, scene, course)
    _print(result, run.json)
    return 0 if result["success_rate"] == 1.0 else 1


@dataclass(frozen=True)
class _Asked:
    commands: tuple[tuple[float, float, float], ...]
    seconds: float
    topic: str


def _course(run: Run, robot: RobotDescription) -> _Asked:
    options = run.walk_options
    seconds = SECONDS if run.robot_options.seconds is None else run.robot_options.seconds
    if not seconds > 0:
        raise OneStrideError(f"expected seconds > 0, got {seconds}")
    if bool(options.command) == (options.cmd_vel_topic is not None):
        raise OneStrideError(
            f"robot {robot.id} walks where it is asked to: expected --command vx,vy,wz or --cmd-vel-topic, "
            f"got {'both' if options.command else 'neither'}"
        )
    return _Asked(tuple(map(_velocity, options.command)), seconds, options.cmd_vel_topic or "cmd_vel")


def _velocity(text: str) -> tuple[float, float, float]:
    try:
        vx, vy, wz = map(float, text.split(","))
    except ValueError:
        raise OneStrideError(f"--command: expected vx,vy,wz such as 0.5,0,0, got {text!r}") from None
    return vx, vy, wz


def _through_ros(run: Run, scene: Scene, asked: _Asked) -> dict[str, Any]:
    options, robot = run.walk_options, scene.description.robot
    film = run.logs / "film.npz" if options.film else None
    contract = {"contract": contract_argument(run.contract)} if run.contract else {}
    wanted = load("onestride_controller.simulated:SimulatedRun", "ros")(
        policy=run.policy,
        robot=run.robot or robot,
        scene=scene.folder,
        episodes=run.episodes,
        logs=run.logs,
        nfe=run.nfe,
        seed=run.seed,
        record=run.record,
        film=film,
        parameters={**contract, **run.node_options.parameters, "cmd_vel_topic": asked.topic},
        plant={**options.plant, "cmd-vel-topic": asked.topic, "seed": run.seed},
    )
    course = load(f"{WALKS}:Course", "ros")(asked.commands, asked.seconds, asked.topic)
    trials = load(f"{WALKS}:run_walks", "ros")(wanted, course, _say_walk, _say)
    keep_film(scene, film, options.film)
    return {
        "success_rate": sum(walk.success for walk in trials.episodes) / len(trials.episodes),
        "episodes": [asdict(walk) for walk in trials.episodes],
        "transport": trials.transport,
        "simulated": True,
        "node": {name: value for name, value in trials.figures.items() if name != "tick_ms_histogram"},
    }


def _in_process(run: Run, robot: RobotDescription, scene: Scene, asked: _Asked) -> dict[str, Any]:
    from onestride.deploy.in_process import InProcess

    with InProcess(run, robot, scene) as simulated:
        walks = [_walk(simulated, index, run.seed + index, asked) for index in range(run.episodes)]
        keep_film(scene, simulated.write_film(), run.walk_options.film)
    return {
        "success_rate": sum(walk["success"] for walk in walks) / len(walks),
        "episodes": walks,
        "transport": "none (in process, simulated time)",
        "simulated": True,
        "node": {"counters": dict(simulated.controller.chain.counters)},
        **simulated.journal,
    }


def _walk(simulated: InProcess, index: int, seed: int, asked: _Asked) -> dict[str, Any]:
    from onestride.hardware.walking import WalkMeter, command_at

    simulated.plant.reset()
    controller, meter = simulated.controller, WalkMeter(simulated.plant)

    def velocity(time: float) -> tuple[float, float, float]:
        command = command_at(asked.commands, asked.seconds, time)
        meter.ask(command)
        return command

    def upright(_: object) -> bool:
        return bool(meter.progress()["upright"]) and not controller.reason

    limits = {"velocity": velocity, "duration": asked.seconds}
    progress = simulated.episode(None, seed, lambda *_: meter.see(), succeeded=upright, **limits)
    found = {name: value for name, value in meter.progress().items() if name != "upright"}
    walk = {"episode": index, "success": upright(progress), "time": progress.time, **found, "fault": controller.reason}
    controller.rearm()
    return walk


def keep_film(scene: Scene, film: Path | None, output: Path | None) -> None:
    """A GIF of the first episode that a plant filmed, where one is asked for; or a word why there is none."""
    if film is None or output is None:
        return
    problem = load("onestride.training.demo.film:render", "train")(scene.folder, film, output, 0)
    if problem:
        _say(problem)


def _say(line: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(line)


def _say_walk(walk: Any) -> None:
    outcome = "upright" if walk.success else walk.fault or "fallen"
    _say(f"walk {walk.episode}: {outcome} ({walk.time:.1f} s simulated)")


def _print(result: dict[str, Any], json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from onestride.deploy.commands import print_json

    if json:
        print_json(result)
        return
    console, walks = Console(highlight=False), result["episodes"]
    console.print(f"[bold]{result['success_rate']:.0%}[/] of {len(walks)} walks upright to the end (simulated)")
    table = Table(box=None, padding=(0, 2))
    for column in ("walk", "asked vx vy wz", "got", "error [m/s]", "error [rad/s]"):
        table.add_column(column)
    for walk in walks:
        for stretch in walk["stretches"]:
            asked, got = (" ".join(f"{value:.2f}" for value in stretch[key]) for key in ("command", "velocity"))
            errors = (f"{stretch[key]:.3f}" for key in ("error", "turn_error"))
            table.add_row(str(walk["episode"]), asked, got, *errors)
    console.print(table)
    if "journal" in result:
        console.print(f"recorded: {result['journal']}; next: onestride commit", soft_wrap=True)
    node = result["node"]
    if "tick_ms" in node:
        tick = node["tick_ms"]
        console.print(
            f"control {node['control_rate_hz']:.1f} Hz, tick p50 {tick['p50']:.2f} p99 {tick['p99']:.2f} ms, "
            f"{node['deadline_misses']} deadline misses, {result['transport']}"
        )
