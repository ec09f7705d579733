"""The tank's rows beside the joints' own, in the chain that certifies a position-controlled arm."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import yaml
from policy_samples import cube_contract

from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.tank import EnergyTank, make_tank
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription, parse_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.chain import ProjectionFilter
from onestride.hardware.safety.energy import TankRow
from onestride.hardware.state import Measurement

PERIOD, FINE = 0.002, 4e-4
STIFFNESS, DAMPING, INERTIA = 300.0, 60.0, 1.0
ARM = 6


BRAKED = {"name": "arm", "joints": ["elbow_joint"], "initial": 3.0, "minimum": 0.5, "capacity": 3.0} | {
    "braking": [1.0],
    "braking_damping": [1.0],
}


def described(initial: float, **tank: object) -> str:
    """The UR5e as a compliant arm with a tank of all its joints."""
    folder = resources.files("onestride.hardware") / "robots"
    robot = yaml.safe_load((folder / "ur5e_2f85.yaml").read_text(encoding="utf-8"))
    for joint in robot["joints"][:ARM]:
        joint.update(stiffness=STIFFNESS, damping=DAMPING)
    names = [joint["name"] for joint in robot["joints"][:ARM]]
    port = {"name": "arm", "joints": names, "initial": initial, "minimum": 0.5, "capacity": initial}
    rows = [{"row": "joints"}, {"row": "tank", "ports": [port]} | tank]
    robot["safety"] = [{"filter": "finite"}, {"filter": "approach"}, {"filter": "projection", "rows": rows}]
    return yaml.safe_dump(robot)


def compliant(initial: float) -> RobotDescription:
    return parse_robot(described(initial), "compliant.yaml")


def tank_of(robot: RobotDescription) -> EnergyTank:
    terms = next(one for one in robot.safety if isinstance(one, ProjectionFilter))
    return next(make_tank(row, robot) for row in terms.rows if isinstance(row, TankRow))


class Arm:
    """Uncoupled joints of 1 kg m^2 on springs and dampers; the energy of their drives is summed in fine steps."""

    def __init__(self, robot: RobotDescription, start: np.ndarray) -> None:
        self.chain = build_chain(cube_contract(), robot)
        self.position, self.velocity = start.copy(), np.zeros(len(start))
        self.sent, self.sent_velocity, self.sent_acceleration = start.copy(), np.zeros(len(start)), np.zeros(len(start))
        self.spent = self.peak = 0.0
        self.active: set[str] = set()
        self.chain.begin(self._state())

    def tick(self, nominal: np.ndarray, wall: float = np.inf) -> None:
        """One control period; a wall stands at the first joint's angle `wall`."""
        state = self._state()
        self.chain.observe(state)
        certified = self.chain.certify(state, nominal)
        assert certified.feasible, certified.reason
        self.active.update(certified.active)
        self.readings = certified.readings
        self.chain.sent(state, certified.action)
        velocity = (certified.action - self.sent) / PERIOD
        self.sent_acceleration = (velocity - self.sent_velocity) / PERIOD
        self.sent, self.sent_velocity = certified.action, velocity
        for _ in range(round(PERIOD / FINE)):
            self._fine(wall)

    def _fine(self, wall: float) -> None:
        spring = STIFFNESS * (self.sent - self.position)
        contact = np.zeros_like(spring)
        contact[0] = -2e4 * max(self.position[0] - wall, 0.0)
        self.velocity += FINE * (spring - DAMPING * self.velocity + contact) / (INERTIA + FINE * DAMPING)
        way = FINE * self.velocity
        work = STIFFNESS * (self.sent - self.position - way / 2) * way - DAMPING * way**2 / FINE
        self.position = self.position + way
        self.spent += float(work[:ARM].sum())
        self.peak = max(self.peak, self.spent)

    def _state(self) -> ControlState:
        measured = Measurement(self.position, self.velocity)
        state = ControlState(0.0, PERIOD, measured, self.sent)
        return replace(state, sent_velocity=self.sent_velocity, sent_acceleration=self.sent_acceleration)


def far(robot: RobotDescription, **joints: float) -> np.ndarray:
    target = np.array([joint.default for joint in robot.joints])
    for name, angle in joints.items():
        target[robot.joint_names.index(name)] = angle
    return target


def test_work_within_the_bound_is_done():
    """Two joints go 1 rad. With 60 J, most of which their stretched springs need on the way, no command is changed."""
    robot = compliant(60.0)
    start = far(robot)
    arm = Arm(robot, start)
    goal = start + np.array([1.0, 0.0, -1.0, 0, 0, 0, 0])
    for step in range(1000):
        arm.tick(start + (goal - start) * min(1.0, step / 500))
    np.testing.assert_allclose(arm.position[:ARM], goal[:ARM], atol=0.01)
    assert arm.peak <= 59.5 * (1 + 1e-9)
    assert not {name for name in arm.active if "tank" in name}


@pytest.mark.parametrize("initial", [0.6, 30.0])
def test_a_nearly_empty_tank_never_gates_braking_away(initial: float):
    """Commanded as fast as may be beyond the elbow's limit: the rows agree all the way, and the limit is kept."""
    robot = compliant(initial)
    limit = robot.position_limits[1][2]
    arm = Arm(robot, far(robot, elbow_joint=limit - 0.6))
    for _ in range(600):
        arm.tick(far(robot, elbow_joint=limit + 1.0))
        assert arm.sent[2] <= limit + 1e-9
        assert arm.position[2] <= limit + 1e-9
    assert arm.peak <= (initial - 0.5) * (1 + 1e-9)
    if initial == 30.0:
        assert arm.position[2] > limit - 0.01


def test_a_wall_that_goes_takes_no_more_than_was_left():
    """The arm leans on a wall with all that it is allowed, the wall goes, the arm comes back for the next one."""
    robot = compliant(3.0)
    start = far(robot)
    arm, leant = Arm(robot, start), 0.0
    for step in range(1000):
        leaning, wall = step % 500 < 300, np.inf if step % 500 >= 200 else start[0] + 0.05
        arm.tick(far(robot, shoulder_pan_joint=start[0] + (2.0 if leaning else -0.05)), wall)
        leant = max(leant, arm.sent[0] - arm.position[0])
    assert leant == pytest.approx(np.sqrt(2 * 2.5 / STIFFNESS), rel=0.05)  # all that was left lay in the spring
    assert 0.1 < arm.peak <= 2.5 * (1 + 1e-9)  # the damper takes most of it once the wall has gone
    assert any("tank" in name for name in arm.active)
    assert 0.5 * (1 - 1e-9) <= arm.readings["tank.arm"] <= 3.0


def test_what_throws_the_arm_faster_than_it_may_give_way_ends_in_the_safe_stop():
    """Where the tank and the speed limit contradict one another, the reason names both."""
    robot = compliant(3.0)
    start = far(robot)
    arm = Arm(robot, start)
    for _ in range(300):
        arm.tick(far(robot, shoulder_pan_joint=start[0] + 2.0), start[0] + 0.05)
    with pytest.raises(AssertionError, match=r"no command of shoulder_pan_joint keeps .*velocity.* and tank\.energy"):
        for _ in range(100):
            arm.tick(arm.sent, start[0] - 0.5)


def test_what_contradicts_itself_is_refused_at_load():
    for changes, message in (
        ({"drive": "effort"}, "expected braking with drive effort"),
        ({"drive": "effort", "ports": [BRAKED]}, "drive impedance with command_mode position, got effort"),
        ({"ports": []}, "ports"),
        ({"meter": "guessed"}, "meter"),
    ):
        with pytest.raises(OneStrideError, match=message):
            parse_robot(described(3.0, **changes), "compliant.yaml")
