"""What `onestride run` does apart from simulated episodes: a dry run, and a run on a real robot behind its gate."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onestride.deploy.permit import Deadman
from onestride.deploy.rooms import load
from onestride.hardware.errors import OneStrideError
from onestride.hardware.scene import Scene

if TYPE_CHECKING:
    from onestride.deploy.commands_run import Run

#: Of a dry run, unless told otherwise [s].
DRY_SECONDS = 5.0


@dataclass
class GateOptions:
    """A real robot in place of a plant."""

    real: bool = False
    """A real robot, by the topics of its driver, behind a gate that a person has to confirm."""
    driver: str | None = None
    """The real robot's driver, by its name in the robot description; default the only one."""
    namespace: str = ""
    """ROS namespace of the real robot's topics."""
    speed: float = 0.1
    """Share of the real robot's velocity and acceleration limits; for legs, of the velocity that is asked."""
    deadman_topic: str = "/joy"
    """sensor_msgs/Joy of the person who watches a real robot."""
    deadman_button: int = 5
    """The button that they hold while it may move."""

    @property
    def deadman(self) -> Deadman:
        """The person's button.

        Raises:
            OneStrideError: it has no such number.
        """
        if self.deadman_button < 0:
            raise OneStrideError(f"expected a button from 0 on, got {self.deadman_button}")
        return Deadman(topic=self.deadman_topic, button=self.deadman_button)


@dataclass
class RobotOptions(GateOptions):
    """In place of simulated episodes: a real robot, or everything but sending."""

    dry_run: bool = False
    """Everything but sending: no publisher of commands is made. What would have been sent is told."""
    seconds: float | None = None
    """How long a walk, a dry or a real run lasts [s]; default 10 s for a simulated walk, 5 s dry, and real until it is
    ended."""

    @property
    def wanted(self) -> bool:
        """Whether any of this is asked for."""
        return self.dry_run or self.real


def run_on_robot(run: Run, robot: str, scene: Scene) -> int:
    """A dry or a real run; its exit code is 1 where a fault ended it."""
    options = run.robot_options
    if options.seconds is not None and not options.seconds > 0:
        raise OneStrideError(f"expected seconds > 0, got {options.seconds}")
    result = _dry(run, robot, scene) if options.dry_run else _real(run, robot, scene)
    if run.json:
        from onestride.deploy.commands import print_json

        print_json(result)
    elif options.dry_run:
        _print_unsent(result)
    else:
        say(f"ended after {result['seconds']:.1f} s: {result['ended']}")
    return int(not options.dry_run and result["node"]["mode"] == "fault")


def _dry(run: Run, robot: str, scene: Scene) -> dict[str, Any]:
    options, extra = run.robot_options, _parameters(run)
    remappings: dict[str, str] = {}
    if options.real:
        remappings = _remappings(run, robot)
    wanted = load("onestride_controller.dry_run:DryRun", "ros")(
        policy=run.policy,
        robot=robot,
        scene=scene.folder,
        seconds=options.seconds or DRY_SECONDS,
        logs=run.logs,
        starts=scene.starts_path,
        namespace=options.namespace if options.real else None,
        parameters=extra,
        remappings=remappings,
    )
    result: dict[str, Any] = load("onestride_controller.dry_run:run_dry", "ros")(wanted)
    return result


def _parameters(run: Run) -> dict[str, Any]:
    from onestride.deploy.foreign import contract_argument

    contract = {"contract": contract_argument(run.contract)} if run.contract else {}
    return {"seed": run.seed, **contract, **({"nfe": run.nfe} if run.nfe else {}), **run.node_options.parameters}


def _remappings(run: Run, robot: str) -> dict[str, str]:
    from onestride.deploy.gate import choose_driver, drive
    from onestride.deploy.runtime import load_contract
    from onestride.hardware.description import load_robot

    described = load_robot(robot)
    driver, profile = choose_driver(described, run.robot_options.driver)
    return drive(described, driver, profile, load_contract(run.policy, run.contract)[0]).remappings


def _real(run: Run, robot: str, scene: Scene) -> dict[str, Any]:
    need_a_person()
    options = run.robot_options
    wanted = load("onestride_controller.real:RealRun", "ros")(
        policy=run.policy,
        robot=robot,
        scene=scene.folder,
        logs=run.logs,
        contract=run.contract,
        driver=options.driver,
        namespace=options.namespace,
        speed=options.speed,
        deadman=options.deadman,
        seconds=options.seconds,
        nfe=run.nfe,
        seed=run.seed,
        parameters=run.node_options.parameters,
    )
    result: dict[str, Any] = load("onestride_controller.real:run_real", "ros")(wanted, say, ask)
    return result


def need_a_person() -> None:
    """Refuse a real run that nobody can confirm.

    Raises:
        OneStrideError: the standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise OneStrideError("a real run asks a person to confirm it: expected a terminal, got something else")


def say(line: str) -> None:
    """Tell a person something, apart from what a program may read."""
    from rich.console import Console

    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(line)


def ask(question: str) -> str:
    """What a person typed."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline()


def _print_unsent(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console, unsent = Console(highlight=False), result["unsent"]
    console.print(f"would have sent {unsent['commands']} commands in {result['activations']} activations; sent none")
    table = Table(box=None, padding=(0, 2))
    for column in ("joint", "first", "lowest", "highest", "largest step [rad]"):
        table.add_column(column, justify="left" if column == "joint" else "right")
    for name, joint in unsent["joints"].items():
        table.add_row(name, *(f"{joint[key]:.4f}" for key in ("first", "low", "high", "step")))
    console.print(table)
    for reason in dict.fromkeys(result["ended_by"]):
        console.print(f"ended an activation: {reason}", markup=False, soft_wrap=True)
