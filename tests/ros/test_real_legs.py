"""The gate of a real run on legs, as a person meets it: the command at a terminal, a driver process behind its topics.

Nothing here is a real robot: the driver is the plant under a profile's names. The terminal is a pseudo-terminal.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")
pytest.importorskip("robosuite_models", reason="needs the Go2's model")

from geometry_msgs.msg import Twist
from sensor_msgs.msg import Joy
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from onestride.deploy.confinement import claim_domain
from onestride.deploy.gate import STREAMS
from onestride.hardware.description import load_robot
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.models import robot_scene

from .conftest import Session
from .patient import patient_robot
from .recorder import HEARD, Participant, wait_for

ROBOT, BUTTON = load_robot("go2"), 2
POLICY = Path(__file__).parents[1] / "assets" / "go2_walk.onnx"
COMMANDS, HEARD_STREAMS = "driver/legs", ("joints", "imu", "foot_forces", "velocity_command")
QUESTION = "type go2 to let it move: "


def described(folder: Path) -> Path:
    """The robot with a driver on topics of its own, which damps when commands end."""
    content = yaml.safe_load(patient_robot("go2", folder).read_text())
    states = {name: {"topic": f"driver/{name}", "message": STREAMS[name][1], "rate": 500} for name in HEARD_STREAMS}
    legs = {"kind": "forward_command", "message": "std_msgs/msg/Float64MultiArray", "rate": [50, 500], "timeout": 0.1}
    command = {**legs, "topic": COMMANDS, "joints": list(ROBOT.joint_names)}
    driver = {"title": "a plant that imitates a driver", "docs": "https://example.org", "states": states}
    content["drivers"] = {"test_driver": {**driver, "commands": {"legs": command}}}
    path = folder / "described.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class Person(Participant):
    """Holds a button or not, asks for a velocity, and as onestride_recorder hears the commands."""

    def __init__(self, session: Session) -> None:
        super().__init__("onestride_recorder", session.namespace, session.environment)
        self.held, self.commands = False, list[ImpedanceCommand]()
        self._joy = self.node.create_publisher(Joy, "/joy", 1)
        self._asks = self.node.create_publisher(Twist, "driver/velocity_command", 1)
        self._reset = self.node.create_client(Trigger, "onestride_plant/reset")
        self.node.create_subscription(Float64MultiArray, COMMANDS, self._hear, HEARD)
        self.node.create_timer(0.02, self._publish)

    def _hear(self, message: Float64MultiArray) -> None:
        self.commands.append(ImpedanceCommand.from_row(message.data))

    def _publish(self) -> None:
        asked = Twist()
        asked.linear.x = 0.3
        self._joy.publish(Joy(buttons=[0, 0, int(self.held)]))
        self._asks.publish(asked)

    def stand_up(self) -> None:
        """Have the robot put on its feet again."""
        wait_for(self._reset.service_is_ready, "the plant", timeout=30.0)
        answer = self._reset.call_async(Trigger.Request())
        wait_for(answer.done, "the reset")
        self.commands.clear()


class Terminal:
    """A command at a pseudo-terminal."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "onestride.deploy.cli", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self.text = ""

    def read(self) -> str:
        """All that stands on the screen so far."""
        while True:
            try:
                part = os.read(self._master, 65536)
            except OSError:  # nothing now, or nobody writes any more
                return self.text
            if not part:
                return self.text
            self.text += part.decode(errors="replace").replace("\r\n", "\n")

    def wait_for(self, words: str, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while words not in self.read():
            assert self._process.poll() is None, self.read()
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self, timeout: float = 60.0) -> int:
        """Wait for its end; its exit code."""
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self.read()
            self.read()
            time.sleep(0.02)
        self.read()
        assert "Traceback" not in self.text
        return self._process.returncode

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)


class Place:
    """A driver, a person, and what a command needs."""

    def __init__(self, session: Session, person: Person, robot: Path, scene: Path) -> None:
        self.session, self.person, self.robot, self.scene = session, person, robot, scene

    @contextmanager
    def terminal(self, *options: str) -> Iterator[Terminal]:
        """`onestride run --real` at a terminal."""
        common = ["--robot", self.robot, "--scene", self.scene, "--logs", self.session.folder / "logs"]
        common += ["--namespace", self.session.namespace, "--deadman-button", BUTTON]
        line = ["run", POLICY, "--real", *common, *options]
        one = Terminal([str(part) for part in line], self.session.environment)
        try:
            yield one
        finally:
            one.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A domain with a plant as driver."""
    with ExitStack() as stack:
        session = Session(stack.enter_context(claim_domain()), tmp_path_factory.mktemp("legs"))
        stack.enter_context(session.children)
        robot, scene = described(session.folder), robot_scene("go2", folder=session.folder / "scene").folder
        topics = {STREAMS[name][0]: f"driver/{name}" for name in HEARD_STREAMS}
        topics[ROBOT.commands[0].topic] = COMMANDS
        remapped = [part for ours, theirs in topics.items() for part in ("-r", f"{ours}:={theirs}")]
        plant = ("--scene", str(scene), "--robot", str(robot), "--ros-args", *remapped, "--")
        session.child("onestride_plant", *plant)
        yield Place(session, stack.enter_context(Person(session)), robot, scene)


@pytest.fixture(autouse=True)
def standing(place):
    place.person.held = False
    place.person.stand_up()


@pytest.mark.parametrize("typed", ["yes\n", pytest.param("\x04", marks=pytest.mark.slow)], ids=["a word", "no word"])
def test_with_another_word_nothing_is_sent(place, typed):
    with place.terminal() as terminal:
        terminal.wait_for(QUESTION)
        terminal.type(typed)
        assert terminal.end() == 1
    for stream in HEARD_STREAMS:
        assert f"pass  stream {stream}: {place.session.namespace}/driver/{stream} at " in terminal.text
    assert "pass  command timeout: 0.1 s" in terminal.text
    assert "commanded velocity times 0.1; limits:" in terminal.text
    said = "yes" if typed.startswith("yes") else "nothing"
    assert f"not confirmed: expected go2, got '{said}'; nothing was moved" in " ".join(terminal.text.split())
    assert place.person.commands == []


def test_with_the_right_word_it_goes_on_to_the_button(place):
    with place.terminal() as terminal:
        terminal.wait_for(QUESTION)
        terminal.type("go2\n")
        terminal.wait_for("hold button 2 on /joy: the robot moves while it is held")
        assert terminal.end() == 1
    expected = "cannot activate: the deadman, button 2 on /joy, is not held"
    assert expected in " ".join(terminal.text.split())
    assert place.person.commands == []


@pytest.mark.slow
def test_it_walks_while_the_button_is_held_and_is_damped_when_it_is_let_go(place):
    person = place.person
    with place.terminal() as terminal:
        terminal.wait_for(QUESTION)
        person.held = True
        terminal.type("go2\n")
        wait_for(lambda: len(person.commands) > 200, "a second of commands", timeout=40.0)
        person.held = False
        assert terminal.end() == 0
    assert "the deadman, button 2 on /joy, is not held" in " ".join(terminal.text.split())
    stiff = [bool(command.stiffness.any()) for command in person.commands]
    first = stiff.index(False)
    assert first > 150
    assert not any(stiff[first:]), "once it is let go, it is not made stiff again"


@pytest.mark.slow
def test_a_dry_run_on_the_driver_asks_nothing_and_sends_nothing(place):
    with place.terminal("--dry-run", "--seconds", "1") as terminal:
        assert terminal.end() == 0
    assert QUESTION not in terminal.text
    assert "sent none" in terminal.text
    assert place.person.commands == []


@pytest.mark.slow
def test_without_the_inertial_sensor_of_a_robot_on_legs_it_is_refused(place, tmp_path):
    content = yaml.safe_load(place.robot.read_text())
    content["drivers"]["test_driver"]["states"]["imu"]["topic"] = "driver/elsewhere"
    robot = tmp_path / "blind.yaml"
    robot.write_text(yaml.safe_dump(content))
    with place.terminal("--robot", str(robot)) as terminal:
        assert terminal.end() == 1
    assert QUESTION not in terminal.text
    assert "stream imu: expected messages on" in " ".join(terminal.text.split())
    assert place.person.commands == []
