"""The recorder as a process beside plant and controller, over DDS."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.datasets.journal_commit import commit
from onestride.datasets.journal_reader import UNFINISHED, Journal
from onestride.datasets.store import Store
from onestride.deploy.controller import Mode, Tick
from onestride.deploy.recorded import command_stream, object_stream, scalar_stream
from onestride.deploy.runtime import PolicyRuntime
from onestride.deploy.ticks import MODES, TickLayout
from onestride.hardware import description
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride_controller.teleoperated import lacking
from onestride_controller.ticks import Ticks

from .recorder import wait_for
from .tiny_policy import HORIZON, contract, write_policy

ROBOT = load_robot("ur5e_2f85")
SHIPPED = Path(description.__file__).parent / "robots" / "ur5e_2f85.yaml"
RECORDER = "onestride_recorder"
SEED = 5


class Stage:
    """Plant, controller and recorder, ready to record."""

    def __init__(self, session, ground):
        patient = session.folder / "patient.yaml"
        patient.write_text(re.sub(r"(joints_stale|objects_stale|policy_stall): .*", r"\1: 0.6", SHIPPED.read_text()))
        self.session, self.journals = session, session.folder / "journals"
        self.policy = write_policy(session.folder / "noisy.onnx", (0.1, 0.05, 0.0, 0.1, 0.1), noise_gain=0.2)
        plant = session.plant(ground)
        self.node = session.controller(ground, policy=self.policy, robot=patient, seed=SEED)
        self.recorder = self.start_recorder()
        self.supervisor = session.supervisor(plant, self.node)
        self.supervisor.wait_for_services()

    def start_recorder(self):
        return self.session.child(RECORDER, "--ros-args", "-p", f"directory:={self.journals}")

    def ask(self, service, timeout=20.0):
        return self.supervisor.trigger(f"{RECORDER}/{service}", timeout)

    @property
    def hears(self):
        """Whether a recorder answers and hears all; for 20 s DDS may believe in one that was killed."""
        with suppress(OneStrideError):
            return not self.ask("status", timeout=1.0)["waiting_for"]

    def episode(self, duration, *before_stop):
        """Record one activation; the episode's id."""
        self.supervisor.trigger("onestride_plant/reset")
        identity = self.ask("start")["episode"]
        self.supervisor.transition("activate")
        self.supervisor.spin(duration)
        self.supervisor.transition("deactivate")
        for service in before_stop:
            self.ask(service)
        return identity

    def journal(self):
        (path,) = self.journals.glob("*.journal")
        return path


@pytest.fixture
def stage(session, ground):
    return Stage(session, ground)


def test_from_start_to_store(stage, tmp_path):
    supervisor = stage.supervisor
    assert stage.ask("status")["waiting_for"] == ["onestride_controller"]
    with pytest.raises(OneStrideError, match="expected a configured onestride_controller"):
        stage.ask("start")
    supervisor.transition("configure")
    supervisor.wait_for_recorder()
    with pytest.raises(OneStrideError, match="expected an episode, got none yet"):
        stage.ask("stop")

    good = stage.episode(1.2, "mark_success", "stop")
    unwanted = stage.episode(0.3, "discard")
    late = stage.episode(0.5, "stop", "mark_success")
    plain = stage.episode(0.5, "stop")
    answered = stage.ask("status")
    assert (answered["on_disk"], answered["last_incomplete"], lacking(answered)) == (True, [], [])
    with pytest.raises(OneStrideError, match="expected a running episode"):
        stage.ask("stop")
    status = stage.ask("status")
    assert (status["recording"], status["lost_ticks"], status["warnings"]) == (None, 0, [])
    assert status["last"] == plain

    report = commit(stage.journals, tmp_path / "store")
    assert report.committed == [good, late, plain]
    assert report.left_out == [f"{unwanted}: discarded"]
    assert report.damage == []
    store = Store.open(tmp_path / "store")
    store.verify()
    marks = [info.attributes["success"] for info in store.episodes]
    assert marks == [True, True, False]
    for number, expected in enumerate(marks):
        assert store.read_episode(number).data["terminal"].tolist()[-1] is expected
    assert [info.attributes["seed"] for info in store.episodes] == [SEED, SEED + 2, SEED + 3]
    _is_what_happened(store, stage.policy)

    again = commit(stage.journals, tmp_path / "store")
    assert (again.committed, again.already) == ([], report.committed)
    assert again.dataset_id == report.dataset_id
    best = commit(stage.journals, tmp_path / "best", successes_only=True)
    assert best.committed == [good, late]


def _is_what_happened(store, policy):
    """Names, rates, clocks, and every number that can be known from elsewhere."""
    known = contract()
    observation = store.schema.feature("observation")
    assert (observation.names, observation.units) == (known.observation_names, known.observation_units)
    assert store.schema.feature("action").names == known.action_names
    assert (store.schema.environment, store.schema.robot) == (known.environment, "ur5e_2f85")
    assert (store.schema.label, store.schema.label_source, store.schema.control_rate) == ("action", "nominal", 20.0)

    episode = store.read_episode(0)
    clocks = {name: clock * 1e-9 for name, clock in episode.timestamps.items()}
    active = clocks["ticks"][episode.data["mode"] == MODES.index(Mode.ACTIVE)]
    assert np.median(np.diff(clocks["base"])) == pytest.approx(1 / 20, rel=0.2)
    assert len(episode.timestamps["base"]) == pytest.approx(np.ptp(active) * 20, abs=3)
    assert np.median(np.diff(active)) == pytest.approx(1 / 200, rel=0.5)
    assert np.median(np.diff(clocks["joint_states"])) < 1 / 100
    for stream in ("joint_states", object_stream("block_0"), scalar_stream("gripper_contact")):
        assert clocks[stream][0] < clocks["base"][0] + 0.1, "one clock for all streams"
        assert clocks[stream][-1] > clocks["base"][-1]

    _actions_are_the_policys(episode, policy)
    _certified_is_what_went_out(episode)
    _observed_is_what_was_published(episode, known)
    within = np.isfinite(episode.data["timing"]).all(axis=0)
    assert within.all()
    assert episode.data["feasible"].all()
    changed = np.abs(episode.data["nominal"] - episode.data["certified"]).max(axis=1) > 1e-9
    active = episode.data["filters_active"].any(axis=1)
    assert changed[active].all(), "`approach` changes commands as well, but keeps no claim by it"
    assert episode.data["intervened"].any() == active.any()


def _actions_are_the_policys(episode, policy):
    """The same file with the same noise on the recorded observations gives the recorded actions, bit for bit."""
    runtime = PolicyRuntime(policy, seed=episode.attributes["seed"])
    actions = episode.data["action"]
    assert len(actions) > 2 * HORIZON
    for start in range(0, len(actions), HORIZON):
        chunk = runtime.infer(episode.data["observation"][start])
        np.testing.assert_array_equal(actions[start : start + HORIZON], chunk[: len(actions) - start])


def _certified_is_what_went_out(episode):
    """Joint targets of the ticks, against the commands as a subscriber hears them."""
    for group in ROBOT.commands:
        sent = episode.data["certified"][:, ROBOT.indices(group.joints)]
        heard = episode.data[command_stream(group.topic)]
        assert abs(len(sent) - len(heard)) <= 2
        shorter = min(len(sent), len(heard))
        np.testing.assert_array_equal(sent[:shorter], heard[:shorter])


def _observed_is_what_was_published(episode, known):
    """Each observation's joint angles are those of a joint state that the plant had published by then."""
    places = [known.observation_names.index(f"arm_position.{name}") for name in ROBOT.joint_names[:6]]
    published = {row.tobytes() for row in episode.data["joint_position"][:, :6].astype(np.float32)}
    observed = episode.data["observation"][:, places]
    assert np.mean([row.tobytes() in published for row in observed]) > 0.8, "best effort may lose a joint state"


def test_killed_in_an_episode_it_costs_that_episode_and_disturbs_nobody(stage):
    supervisor = stage.supervisor
    supervisor.transition("configure")
    supervisor.wait_for_recorder()
    first = stage.episode(0.6, "stop")
    second = stage.ask("start")["episode"]
    supervisor.trigger("onestride_plant/reset")
    supervisor.transition("activate")
    supervisor.spin(0.5)
    stage.recorder.kill()
    supervisor.spin(0.5)
    before = supervisor.report()["ticks"]
    supervisor.spin(0.5)
    report = supervisor.report()
    assert report["mode"] == "active"
    assert report["ticks"] - before > 50
    with Journal(stage.journal()) as read:
        one, two = read.episodes
        assert (one.id, one.incomplete, two.id, two.incomplete) == (first, (), second, (UNFINISHED,))
        assert [line for line in read.report if line.startswith("episode")] == [f"episode {second}: {UNFINISHED}"]
        assert two.length > 3
        assert len(read.read(two).data["observation"]) == two.length

    stage.recorder = stage.start_recorder()
    wait_for(lambda: stage.hears, "the new recorder", timeout=30.0)
    stage.ask("start")
    supervisor.spin(0.5)
    stage.ask("stop")
    supervisor.transition("deactivate")
    report = commit(stage.journals, stage.session.folder / "store", include_incomplete=True)
    assert report.committed[:2] == [first, second]
    assert len(report.committed) == 3
    store = Store.open(stage.session.folder / "store")
    assert "incomplete" in store.episode(1).attributes
    assert "incomplete" not in store.episode(2).attributes, "one may begin while the controller is ticking"


def test_ended_in_an_episode_it_says_so(stage):
    stage.supervisor.transition("configure")
    stage.supervisor.wait_for_recorder()
    stage.episode(0.4)
    assert stage.recorder.stop() == 0
    assert "Traceback" not in stage.recorder.tail(1000)
    with Journal(stage.journal()) as read:
        (one,) = read.episodes
        assert one.incomplete == ("the recorder was ended while it ran",)
        assert one.length > 3


class Broken:
    """A node whose publishers fail."""

    def create_publisher(self, *_):
        return self

    def get_subscription_count(self):
        return 1

    def publish(self, message):
        if len(message.data) and not isinstance(message.data, str):
            raise OSError("no more memory")


def test_a_tick_that_cannot_be_published_is_counted_and_nothing_else():
    layout = TickLayout(
        contract=contract(),
        policy_sha256="0" * 64,
        joints=ROBOT.joint_names,
        commands=ROBOT.commands,
        filters=("finite",),
        control_rate=200.0,
    )
    node: Any = Broken()
    ticks = Ticks(node, layout, always=False)
    ticks.begin(0)
    for _ in range(3):
        ticks.tick(Tick(Mode.IDLE), 0.0, 0.0, 0.0)
    assert ticks.failures == 3


def test_without_a_folder_it_does_not_start(session):
    child = session.child(RECORDER)
    wait_for(lambda: not child.running, "its end", timeout=20.0)
    assert child.exit_code == 1
    assert "parameter directory: expected a folder, got none" in child.tail()
    assert "Traceback" not in child.tail(1000)
