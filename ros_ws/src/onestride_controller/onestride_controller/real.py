"""A policy on a real robot: through the gate, then under a deadman, a watchdog and a share of the speed.

What must hold is decided in `onestride.deploy.gate`; here it is asked of the robot, and the processes are started.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Joy

from onestride.deploy.contract import Contract
from onestride.deploy.doctor.answers import Answer, Level
from onestride.deploy.doctor.live import Heard, judge_commands, judge_policy, judge_streams
from onestride.deploy.foreign import contract_argument
from onestride.deploy.gate import (
    ControllerState,
    Driven,
    choose_driver,
    confirmed,
    drive,
    judge_controllers,
    judge_deadman,
    judge_speed,
    judge_timeout,
    refuse,
    remapping_arguments,
    summary,
)
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.permit import Deadman, Permit
from onestride.deploy.processes import Child
from onestride.deploy.runtime import PolicyRuntime
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.scene import Scene
from onestride_controller.listening import listen, listening_node
from onestride_controller.parameters import READERS
from onestride_controller.simulated import ros_arguments
from onestride_controller.streams import Stream
from onestride_controller.supervisor import POLL_PERIOD, WATCHDOG, Supervisor

#: How long the gate waits for the deadman's first message, and for controller_manager [s].
PATIENCE = 2.0

#: How long a process may take to end once the robot is at rest [s].
ENDING = 3.0

LIST_CONTROLLERS = "controller_manager/list_controllers"


Say = Callable[[str], None]
Ask = Callable[[str], str]


@dataclass(frozen=True)
class Terms:
    """Under which a real robot shall move.

    Attributes:
        driver: the robot's driver; None takes the only one.
        namespace: of the driver's relative topics.
        speed: share of the robot's limits, or of the velocity commanded to legs.
        deadman: the person's button.
        listen: how long the doctor listens [s].
    """

    driver: str | None = None
    namespace: str = ""
    speed: float = 0.1
    deadman: Deadman = field(default_factory=Deadman)
    listen: float = 3.0


@dataclass(frozen=True)
class Passed:
    """What a passed gate leaves.

    Attributes:
        driven: how the driver is reached.
        heard: of the robot.
        permit: what a person has confirmed.
    """

    driven: Driven
    heard: Heard
    permit: Permit

    @property
    def readers(self) -> tuple[str, ...]:
        """Nodes that may subscribe to the command topics: ours, and those that the person was shown."""
        return (*READERS, *sorted({reader for topic in self.heard.commands for reader in topic.subscribers}))


@dataclass(frozen=True)
class RealRun:
    """What to run.

    Attributes:
        policy: exported policy file.
        robot: robot description, by id or file.
        scene: folder of a scene with its model.
        logs: folder for the processes' logs.
        contract: of a policy file that carries none.
        driver: the robot's driver; None takes the only one.
        namespace: of the driver's relative topics.
        speed: share of the robot's limits, or of the velocity commanded to legs.
        deadman: the person's button.
        listen: how long the doctor listens [s].
        seconds: after which the robot is brought to rest [s]; None means until somebody ends it.
        nfe: network evaluations per action; None takes the policy's first.
        seed: of the policy's noise.
        parameters: further ones of the controller.
    """

    policy: Path
    robot: str
    scene: Path
    logs: Path
    contract: Path | None = None
    driver: str | None = None
    namespace: str = ""
    speed: float = 0.1
    deadman: Deadman = field(default_factory=Deadman)
    listen: float = 3.0
    seconds: float | None = None
    nfe: int | None = None
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)


def run_real(run: RealRun, say: Say, ask: Ask) -> dict[str, Any]:
    """Pass the gate, then let the policy move the robot until the deadman is let go or the time is over.

    Args:
        run: what to run.
        say: tells the person something.
        ask: asks them, and returns what they typed.

    Raises:
        OneStrideError: the gate is not passed, or a process refuses or dies.
    """
    policy, robot = PolicyRuntime(run.policy, contract=run.contract, nfe=run.nfe), load_robot(run.robot)
    forward = ForwardKinematics.load(Scene.load(run.scene).model_path, robot)
    terms = Terms(run.driver, run.namespace, run.speed, run.deadman, run.listen)

    def questions(heard: Heard) -> Iterable[Answer]:
        return judge_policy(policy, robot, forward, heard)

    passed = pass_gate(terms, robot, policy.contract, policy.sha256, questions, say, ask)
    with tempfile.TemporaryDirectory(prefix="onestride-") as folder:
        permit = Path(folder) / "permit.json"
        passed.permit.write(permit)
        return _moving(run, permit, passed, say)


def pass_gate(
    terms: Terms,
    robot: RobotDescription,
    contract: Contract,
    sha256: str,
    questions: Callable[[Heard], Iterable[Answer]],
    say: Say,
    ask: Ask,
) -> Passed:
    """Ask everything of the robot and of the person; only a passed gate returns.

    Args:
        terms: under which it shall move.
        robot: the robot.
        contract: of what shall move it.
        sha256: of that.
        questions: further ones about what is heard.
        say: tells the person something.
        ask: asks them, and returns what they typed.

    Raises:
        OneStrideError: it is not passed; says why.
    """
    refuse([judge_speed(terms.speed)])
    driver, profile = choose_driver(robot, terms.driver)
    driven = drive(robot, driver, profile, contract)
    with listening_node(terms.namespace, remappings=driven.remappings) as node:
        heard = listen(node, contract, robot, terms.listen)
        answers = [*_answers(node, robot, contract, driven, heard, terms.deadman), *questions(heard)]
    for answer in answers:
        say(f"{answer.level.value}  {answer.question}: {answer.detail}")
    refuse(answers)
    for line in summary(robot, driver, sha256, contract, terms.speed):
        say(line)
    confirmed(robot.id, ask(f"type {robot.id} to let it move: "))
    return Passed(driven, heard, Permit.now(robot.id, sha256, driver, terms.speed, terms.deadman))


def _answers(
    node: Node, robot: RobotDescription, contract: Contract, driven: Driven, heard: Heard, deadman: Deadman
) -> Iterator[Answer]:
    commands = [command for _, command in driven.commands]
    yield from judge_streams(contract, robot, heard, real=True)
    yield from map(_obeyed, judge_commands(heard))
    yield judge_timeout(robot, commands)
    yield _deadman(node, deadman)
    if any(command.controller for command in commands):
        yield from judge_controllers(commands, controllers(node))


def _obeyed(answer: Answer) -> Answer:
    """A command topic that nobody reads is a fault here: the driver is not up."""
    return answer if answer.level is Level.PASS else Answer(answer.question, Level.FAIL, answer.detail)


def _deadman(node: Node, deadman: Deadman) -> Answer:
    joy = Stream(node, Joy, deadman.topic, lambda message: list(message.buttons), unstamped=True)
    deadline = time.monotonic() + PATIENCE
    while joy.value is None and time.monotonic() < deadline:
        time.sleep(0.01)
        joy.poll(time.monotonic())
    answer = judge_deadman(deadman, joy.value, time.monotonic() - joy.received)
    joy.close()
    return answer


def controllers(node: Node) -> list[ControllerState]:
    """What controller_manager says of every controller.

    Raises:
        OneStrideError: its messages are not installed, or it does not answer.
    """
    try:
        services: Any = import_module("controller_manager_msgs.srv")  # not among the wheels of ROS 2
    except ModuleNotFoundError:
        raise OneStrideError(
            "the driver's controllers are asked of controller_manager, which needs controller_manager_msgs: install "
            "ros-$ROS_DISTRO-controller-manager-msgs and source that ROS 2"
        ) from None
    client = node.create_client(services.ListControllers, LIST_CONTROLLERS)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    try:
        if not client.wait_for_service(timeout_sec=PATIENCE):
            raise OneStrideError(f"no service {client.srv_name}: is the driver up?")
        future = client.call_async(services.ListControllers.Request())
        executor.spin_until_future_complete(future, timeout_sec=PATIENCE)
        answer: Any = future.result()
        if answer is None:
            raise OneStrideError(f"service {client.srv_name} did not answer within {PATIENCE:g} s")
    finally:
        executor.remove_node(node)
        executor.shutdown(timeout_sec=1.0)
        node.destroy_client(client)
    return [ControllerState(one.name, one.state, tuple(one.claimed_interfaces)) for one in answer.controller]


def _moving(run: RealRun, permit: Path, passed: Passed, say: Say) -> dict[str, Any]:
    with ExitStack() as stack:
        children = _children(run, permit, passed)
        for child in children:
            child.log.unlink(missing_ok=True)
            stack.enter_context(child)

        def alive() -> None:
            for child in children:
                child.check()

        supervisor = stack.enter_context(Supervisor(run.namespace, {}, alive))
        supervisor.trigger(f"{WATCHDOG}/status", timeout=20.0)
        supervisor.transition("configure")
        say(f"hold button {run.deadman.button} on {run.deadman.topic}: the robot moves while it is held")
        supervisor.transition("activate")
        begun = time.monotonic()
        try:
            ended = _until_ended(supervisor, run.seconds)
        except KeyboardInterrupt:
            ended = "interrupted by hand"
        finally:
            supervisor.transition("deactivate")
        report = supervisor.report()
    ended = ended or report["deadman"] or report["reason"]
    return {"simulated": False, "seconds": time.monotonic() - begun, "ended": ended, "node": report}


def _children(run: RealRun, permit: Path, passed: Passed) -> list[Child]:
    patience = ending(load_robot(run.robot))
    return [
        Child(
            module, [*arguments, *remapping_arguments(passed.driven.remappings)], log=run.logs / log, patience=patience
        )
        for module, arguments, log in _modules(run, permit, passed)
    ]


def ending(robot: RobotDescription) -> float:
    """How long a process may take to end that brings the robot to rest first [s]."""
    return robot.safe_stop.completes_within + ENDING


def _modules(run: RealRun, permit: Path, passed: Passed) -> list[tuple[str, list[str], str]]:
    parameters = {
        "policy": run.policy.resolve(),
        "robot": run.robot,
        "scene": run.scene,
        "seed": run.seed,
        "simulated": False,
        "permit": permit,
        "watchdog": WATCHDOG,
        "declared_peers": "[" + ", ".join(passed.readers) + "]",
        **run.parameters,
        **({"contract": contract_argument(run.contract)} if run.contract else {}),
        **({"nfe": run.nfe} if run.nfe else {}),
    }
    return [
        (WATCHDOG, ros_arguments(run.namespace, {"robot": run.robot}), "watchdog.log"),
        ("onestride_controller", ros_arguments(run.namespace, parameters), "node.log"),
    ]


def _until_ended(supervisor: Supervisor, seconds: float | None) -> str:
    """Why it ended; empty where the controller says so itself."""
    begun = time.monotonic()
    while supervisor.status.get("mode", "active") in ("active", "idle"):
        if seconds is not None and time.monotonic() - begun > seconds:
            return f"the {seconds:g} s were over"
        supervisor.check_alive()
        supervisor.spin(POLL_PERIOD)
    return ""
