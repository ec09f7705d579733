"""Somebody at the controls: a joystick, a twist and a leader arm, fifty times a second, and what comes of it."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from geometry_msgs.msg import Twist
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState, Joy
from std_srvs.srv import Trigger

from onestride.hardware import description
from onestride.hardware.description import load_robot

from .recorder import Participant, wait_for

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)  # as joy_node has it
PERIOD = 0.02
ROBOT = load_robot("ur5e_2f85")
SHIPPED = Path(description.__file__).parent / "robots" / "ur5e_2f85.yaml"
STALE = 0.4
#: Every element has its axis and nothing is added: what is asked is the label, number by number.
EXACT = f"""
reference: measured
dead_zone: 0
gripper: null
stale: {STALE}
axes: {{effector_position.x: {{axis: 1}}, effector_position.y: {{axis: 0}}, effector_position.z: {{axis: 4}},
       effector_yaw.yaw: {{axis: 3}}, gripper.opening: {{axis: 2}}}}
"""
DEADMAN, START, SUCCESS, END, DISCARD, CLOSE, OPEN = 5, 7, 3, 6, 2, 0, 1


class Person(Participant):
    """Publishes what a test tells it to.

    Attributes:
        axes: of the joystick.
        buttons: that are pressed.
        twist: linear and angular (6,); None publishes none.
        leader: joint -> position; None publishes none.
        paused: publish nothing.
    """

    def __init__(self, environment: Mapping[str, str], namespace: str = "/person") -> None:
        super().__init__("joy_node", namespace, environment)
        self.axes: list[float] = [0.0] * 8
        self.buttons: set[int] = set()
        self.twist: np.ndarray | None = None
        self.leader: dict[str, float] | None = None
        self.paused = False
        self._joy = self.node.create_publisher(Joy, "/joy", RELIABLE)
        self._twist = self.node.create_publisher(Twist, "/cmd_vel", RELIABLE)
        self._leader = self.node.create_publisher(JointState, "/leader/joint_states", RELIABLE)
        self.node.create_timer(PERIOD, self._publish)

    def _publish(self) -> None:
        if self.paused:
            return
        stamp = self.node.get_clock().now().to_msg()
        if self.leader is not None:
            arm = JointState(name=list(self.leader), position=array("d", self.leader.values()))
            self._leader.publish(arm)  # without a stamp, as some drivers do
        if self.twist is not None:
            self._twist.publish(_twist(self.twist))
        joy = Joy(axes=array("f", self.axes), buttons=array("i", [int(i in self.buttons) for i in range(8)]))
        joy.header.stamp = stamp
        self._joy.publish(joy)

    def asks(self, service: str) -> None:
        """Call a service that takes and gives nothing but whether it succeeded."""
        client = self.node.create_client(Trigger, service)
        wait_for(client.service_is_ready, f"somebody who offers {service}")
        answer = client.call_async(Trigger.Request())
        wait_for(answer.done, f"an answer of {service}")
        said = answer.result()
        assert said is not None and said.success, said


def _twist(values: np.ndarray) -> Twist:
    message = Twist()
    for part, three in ((message.linear, values[:3]), (message.angular, values[3:])):
        part.x, part.y, part.z = (float(value) for value in three)
    return message


def single(action: Sequence[float]) -> np.ndarray:
    """An action as it is recorded."""
    return np.array(action, dtype=np.float32)


def axes(action: Sequence[float]) -> list[float]:
    """The joystick's axes that ask for an action, as EXACT has it."""
    x, y, z, yaw, gripper = single(action).tolist()
    return [y, x, gripper, yaw, z, 0.0, 0.0, 0.0]


def patient_robot(folder: Path) -> Path:
    """A robot that forgives stalls of half a second, so that a busy machine fails no test about other things."""
    path = folder / "patient.yaml"
    path.write_text(re.sub(r"(joints_stale|objects_stale|policy_stall): .*", r"\1: 0.6", SHIPPED.read_text()))
    return path


def within_limits(certified: np.ndarray) -> None:
    """Each command keeps the position limits, and the speed limits from the one before it."""
    lower, upper = ROBOT.position_limits
    assert ((certified >= lower) & (certified <= upper)).all()
    reach = ROBOT.velocity_limits / 200.0
    assert (np.abs(np.diff(certified, axis=0)) <= reach + 1e-9).all()
