"""A person at the controls over DDS: demonstrations and interventions, through node, chain and recorder."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.datasets.journal_commit import commit
from onestride.datasets.store import Store
from onestride.deploy.controller import Actor
from onestride.deploy.recorded import HUMAN, NOMINAL
from onestride.deploy.ticks import ACTORS
from onestride.hardware.errors import OneStrideError
from onestride.training.demonstrations import demonstration
from onestride_controller.neighbours import UNKNOWN

from .person import (
    CLOSE,
    DEADMAN,
    EXACT,
    PERIOD,
    ROBOT,
    STALE,
    Person,
    axes,
    patient_robot,
    single,
    within_limits,
)
from .recorder import Recorder, wait_for
from .tiny_policy import ENVIRONMENT, write_policy

#: What a loaded two-core machine may add to any bound [s].
SLACK = 0.3
POLICY = (0.1, 0.05, 0.0, 0.1, 0.1)
NOBODY, OPERATOR, FROM_POLICY = (ACTORS.index(one) for one in (Actor.NOBODY, Actor.OPERATOR, Actor.POLICY))


class Stage:
    """Plant, controller, recorder and a person."""

    def __init__(self, session, ground, device, policy=None, mapping=EXACT):
        self.session, self.supervisor = session, session.supervisor()
        self.journals = session.folder / "journals"
        said = session.folder / "mapping.yaml"
        said.write_text(mapping)
        parameters = {
            "robot": patient_robot(session.folder),
            "scene": ground.scene,
            "teleop": device,
            "teleop_mapping": said,
            "soft_start": 0.0,
        }
        if policy is None:
            contract = session.folder / "contract.json"
            contract.write_text(demonstration(ENVIRONMENT, device).model_dump_json())
            parameters["contract"] = contract
        else:
            parameters["policy"] = policy
        given = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
        self.plant = session.plant(ground)
        self.node = session.child("onestride_controller.node", "--ros-args", *given)
        self.supervisor.wait_for_services()
        self.supervisor.transition("configure")

    def record(self):
        self.session.child("onestride_recorder", "--ros-args", "-p", f"directory:={self.journals}")
        self.supervisor.wait_for_recorder()

    def heard(self):
        """Whether the node hears the person."""
        return not self.supervisor.report()["operator"]["problem"]

    def begin(self):
        self.supervisor.trigger("onestride_plant/reset")
        self.supervisor.transition("activate")
        self.supervisor.spin(0.3)  # the person is seen with the deadman let go

    def spin(self, duration):
        self.supervisor.spin(duration)

    def episode(self):
        """What was recorded."""
        self.supervisor.transition("deactivate")
        self.supervisor.trigger("onestride_recorder/stop", 10.0)
        store = self.session.folder / "store.zarr"
        report = commit(self.journals, store)
        assert len(report.committed) == 1, report
        opened = Store.open(store)
        opened.verify()
        return opened.read_episode(0)


def runs(flags):
    """Lengths of the runs of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def test_a_demonstration_from_the_stick_to_the_store(session, ground):
    """Labels are what was asked, bit for bit; certified commands keep the limits; letting go and silence hold."""
    stage = Stage(session, ground, "joy")
    stage.record()
    assert "no message" in stage.supervisor.report()["operator"]["problem"]
    script = [(0.4, -0.3, -0.5, 0.2, 0.5), (-0.25, 0.35, 0.3, -0.4, -0.5), (0.1, 0.2, 0.6, 0.0, 0.25)]
    with Person(session.environment) as person:
        wait_for(stage.heard, "the person", timeout=20.0)
        stage.supervisor.trigger("onestride_recorder/start")
        stage.begin()
        for action in script:
            person.axes = axes(action)
            stage.spin(2.5 * PERIOD)  # the stick first, then the deadman: no step begins with the old one
            person.buttons = {DEADMAN}
            stage.spin(0.6)
            person.buttons = set()
            stage.spin(0.5)
        person.axes, person.buttons = axes(script[0]), {DEADMAN}
        stage.spin(0.6)
        person.paused = True
        stage.spin(1.5)
        assert "no message" in stage.supervisor.report()["operator"]["problem"]
        episode = stage.episode()
    data, clocks = episode.data, episode.timestamps
    assert stage.supervisor.report()["faults"] == []
    assert episode.attributes["teleop"] == "joy"
    assert episode.attributes["task"] == ENVIRONMENT
    acted = data["actor"] == OPERATOR
    assert len(runs(acted)) == 4
    assert not data["policy_known"].any()
    np.testing.assert_array_equal(data["label_source"], np.where(acted, HUMAN, NOMINAL))
    asked = {single(action).tobytes() for action in script}
    assert {label.tobytes() for label in data["action"][acted]} == asked
    assert episode.attributes["actors"] == {"operator": int(acted.sum()), "nobody": int((~acted).sum())}
    assert (np.median(np.abs(data["action"][~acted]), axis=0) < 0.2).all(), "at rest: only what keeps the arm up"
    within_limits(data["certified"])
    assert np.ptp(data["certified"][:, :6], axis=0).max() > 0.05, "the person should have moved the arm"
    _moves_only_while_somebody_acts(data, clocks)


def _moves_only_while_somebody_acts(data, clocks):
    """Commands change in the steps of the person, and for no longer than the stale bound after the last message."""
    ticks, base = clocks["ticks"] * 1e-9, clocks["base"] * 1e-9
    moving = ticks[1:][np.abs(np.diff(data["certified"], axis=0)).max(axis=1) > 0]
    step_of = np.clip(np.searchsorted(base, moving, side="right") - 1, 0, None)
    actors = data["actor"][step_of]
    late = moving - base[step_of]
    assert (actors[late > SLACK] == OPERATOR).all()
    assert (actors == OPERATOR).mean() > 0.95
    silent = np.flatnonzero(data["actor"] == OPERATOR)[-1]
    assert moving[-1] <= base[silent] + 0.05 + SLACK, "the last step of the person ends before the next would"
    last_run = runs(data["actor"] == OPERATOR)[-1] * 0.05
    assert last_run <= 0.6 + STALE + SLACK, "silence ends it"


def test_interventions_are_marked_and_the_policy_goes_on(session, ground):
    policy = write_policy(session.folder / "policy.onnx", POLICY)
    stage = Stage(session, ground, "joy", policy=policy)
    stage.record()
    given = single(POLICY)
    mine = (-0.3, 0.1, 0.2, 0.0, -0.5)
    with Person(session.environment) as person:
        wait_for(stage.heard, "the person", timeout=20.0)
        stage.supervisor.trigger("onestride_recorder/start")
        stage.begin()
        stage.spin(0.7)
        person.axes = axes(mine)
        stage.spin(2.5 * PERIOD)
        person.buttons = {DEADMAN}
        stage.spin(0.8)
        person.buttons = set()
        stage.spin(0.7)
        episode = stage.episode()
    data = episode.data
    assert stage.supervisor.report()["faults"] == []
    acted = data["actor"] == OPERATOR
    assert len(runs(acted)) == 1
    assert data["actor"][-1] == FROM_POLICY
    by_policy = data["actor"] == FROM_POLICY
    assert {label.tobytes() for label in data["action"][acted]} == {single(mine).tobytes()}
    np.testing.assert_allclose(data["action"][by_policy], np.tile(given, (by_policy.sum(), 1)), atol=1e-6)
    assert data["policy_known"][by_policy].all()
    both = acted & data["policy_known"]
    assert both.sum() > 0.5 * acted.sum(), "the policy was asked along"
    np.testing.assert_allclose(data["policy_action"][both], np.tile(given, (both.sum(), 1)), atol=1e-6)
    np.testing.assert_array_equal(data["label_source"], np.where(acted, HUMAN, NOMINAL))
    within_limits(data["certified"])
    assert episode.attributes["actors"] == {
        actor.value: count for actor in Actor if (count := int((data["actor"] == ACTORS.index(actor)).sum()))
    }


def test_a_twist_moves_the_effector(session, ground):
    stage = Stage(session, ground, "twist", mapping=f"stale: {STALE}\n")
    assert "joy: no message" in stage.supervisor.report()["operator"]["problem"]
    with Person(session.environment) as person, Recorder(session.namespace, session.environment) as recorder:
        wait_for(lambda: "twist: no message" in stage.supervisor.report()["operator"]["problem"], "buttons", 20.0)
        person.twist = np.array([-0.1, 0.0, -0.05, 0.0, 0.0, 0.0])
        wait_for(stage.heard, "the twist", timeout=20.0)
        stage.begin()
        (arm, _) = recorder.heard
        held = recorder.commands(arm)[2]
        assert np.ptp(held, axis=0).max() == 0, "without the deadman it holds"
        person.buttons = {DEADMAN, CLOSE}
        stage.spin(1.0)
        assert np.ptp(recorder.commands(arm)[2], axis=0).max() > 0.05
        assert recorder.commands(list(recorder.heard)[1])[2].max() == pytest.approx(0.8), "the gripper closes"
        person.twist = np.full(6, np.nan)
        wait_for(
            lambda: stage.supervisor.report()["operator"]["problem"] == "twist: linear not finite", "the refusal", 10.0
        )
        stage.spin(0.2)
        before = len(recorder.commands(arm)[0])
        stage.spin(0.5)
        assert np.ptp(recorder.commands(arm)[2][before:], axis=0).max() == 0


LEADER = f"""
stale: {STALE}
leader:
  joints: {{{", ".join(f"{name}: {{name: leader_{name}}}" for name in ROBOT.joint_names[:6])}}}
  gripper: {{name: leader_grip, open: 0.0, closed: 1.0}}
"""


def test_a_leader_arm_is_followed_and_one_that_lacks_a_joint_refused(session, ground):
    stage = Stage(session, ground, "leader", mapping=LEADER)
    with Person(session.environment) as person, Recorder(session.namespace, session.environment) as recorder:
        pose = np.array([joint.default for joint in ROBOT.joints[:6]])
        person.leader = {f"leader_{name}": value for name, value in zip(ROBOT.joint_names[:5], pose, strict=False)}
        reason = "leader: expected once each: leader_wrist_3_joint, leader_grip; got leader_shoulder_pan_joint"
        wait_for(lambda: reason in stage.supervisor.report()["operator"]["problem"], "the reason", timeout=20.0)
        with pytest.raises(OneStrideError, match="the operator is not understood: leader: expected once each"):
            stage.supervisor.transition("activate")
        person.leader |= {"leader_wrist_3_joint": pose[5], "leader_grip": 0.0}
        wait_for(stage.heard, "the leader", timeout=20.0)
        stage.begin()
        person.buttons = {DEADMAN}
        stage.spin(0.5)
        arm, gripper = recorder.heard
        before = recorder.commands(arm)[2][-1]
        person.leader["leader_shoulder_pan_joint"] += 0.1
        person.leader["leader_grip"] = 1.0
        stage.spin(2.0)
        moved = recorder.commands(arm)[2][-1] - before
        assert moved[0] == pytest.approx(0.1, abs=0.06)
        assert recorder.commands(gripper)[2][-1] == pytest.approx(0.8, abs=1e-6)


def test_two_people_at_the_controls_are_refused_and_tripped_by_name(session, ground):
    stage = Stage(session, ground, "joy")
    with Person(session.environment) as person:
        wait_for(stage.heard, "the person", timeout=20.0)
        somebody = f"(/somebody/joy_node|{UNKNOWN})"  # who has not introduced itself yet is not waited for
        words = f"/person/joy_node and {somebody} publish on /joy"
        with Person(session.environment, "/somebody") as other:
            wait_for(lambda: other.node.count_publishers("/joy") == 2, "one another")
            stage.spin(1.0)
            with pytest.raises(OneStrideError, match=f"expected one person at the controls, but {words}; end all"):
                stage.begin()
        wait_for(lambda: person.node.count_publishers("/joy") == 1, "the other gone", timeout=30.0)
        stage.spin(1.0)
        stage.begin()
        with Person(session.environment, "/somebody"):
            wait_for(lambda: stage.supervisor.report()["mode"] == "fault", "a fault", timeout=10.0)
    assert re.fullmatch(f"a second person at the controls: {words}", stage.supervisor.report()["reason"])
    assert stage.supervisor.report()["safe_stop_delay_ms"] < 1e3 * SLACK


def test_what_cannot_be_is_refused_at_configure(session, ground):
    with pytest.raises(OneStrideError, match=r"unknown device of teleoperation: got 'mouse'"):
        Stage(session, ground, "mouse")
