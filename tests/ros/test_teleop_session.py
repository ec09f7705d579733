"""A whole session of `onestride collect --teleop`: buttons, recorder, store, and what is refused before it begins."""

from __future__ import annotations

import json
import re
import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")
pytest.importorskip("torch", reason="needs the extra `train`")

from onestride.datasets.store import Store
from onestride.deploy.cli import main
from onestride.deploy.confinement import claim_domain, simulated_environment
from onestride.deploy.controller import Actor
from onestride.deploy.ticks import ACTORS
from onestride.hardware.errors import OneStrideError
from onestride.training.demonstrations import demonstration
from onestride.training.teleoperation import Teleoperation, teleoperate

from .person import (
    DEADMAN,
    DISCARD,
    END,
    EXACT,
    PERIOD,
    START,
    SUCCESS,
    Person,
    axes,
    patient_robot,
    single,
    within_limits,
)
from .tiny_policy import ENVIRONMENT, write_policy

POLICY = (0.1, 0.05, 0.0, 0.1, 0.1)
OPERATOR, FROM_POLICY = (ACTORS.index(one) for one in (Actor.OPERATOR, Actor.POLICY))


class Actress(threading.Thread):
    """Reacts to what the session says: begins episodes, acts, and ends each as the script has it."""

    def __init__(self, person, script):
        super().__init__(daemon=True)
        self.person, self.script, self.heard = person, list(script), []
        self.told = threading.Condition()
        self._wait = threading.Event()

    def say(self, text):
        with self.told:
            self.heard.append(text)
            self.told.notify_all()

    def _until(self, count, what):
        with self.told:
            assert self.told.wait_for(lambda: sum(what in line for line in self.heard) >= count, timeout=60.0)

    def _pause(self, duration):
        self._wait.wait(duration)

    def discards_by_service(self):
        """Ask the recorder, whose name the session has told."""
        services = re.search(r"services of the recorder: (\S+)/\.\.\.", self.heard[0])
        assert services is not None
        self.person.asks(f"{services[1]}/discard")

    def ends_and_discards_later(self):
        """Think better of an episode that was kept."""
        begun = sum("starts" in line for line in self.heard)
        self._press(END)
        self._until(begun + 1, "starts")
        self.discards_by_service()

    def _press(self, button):
        self.person.buttons = {button}
        self._pause(10 * PERIOD)
        self.person.buttons = set()

    def run(self):
        for number, (action, button) in enumerate(self.script, start=1):
            self._until(number, "starts")
            self._pause(0.3)
            self._press(START)
            self._until(number, "running")
            self.person.axes = axes(action)
            self._pause(0.6)
            self.person.buttons = {DEADMAN}
            self._pause(0.8)
            self.person.buttons = set()
            self._pause(0.2)
            if callable(button):
                button(self)
            else:
                self._press(button)


@pytest.fixture
def domain():
    with claim_domain() as free:
        pass
    return free


def session_settings(folder, domain, **said):
    mapping = folder / "mapping.yaml"
    mapping.write_text(EXACT)
    return Teleoperation(
        env=ENVIRONMENT,
        device="joy",
        mapping=mapping,
        robot=str(patient_robot(folder)),
        domain=domain,
        notes='a "first": try',
        **said,
    )


def test_a_session_from_buttons_to_the_store(tmp_path, domain, capsys):
    """`onestride collect --teleop`: start, success, discard and end; then another session into the same store."""
    path, asked = tmp_path / "mine.zarr", (0.3, -0.2, -0.4, 0.1, 0.5)
    with Person(simulated_environment(domain)) as person:
        script = [(asked, SUCCESS), (asked, DISCARD), ((-0.2, 0.3, -0.4, 0.0, 0.5), END)]
        actress, done = Actress(person, script), []
        actress.start()
        result = teleoperate(session_settings(tmp_path, domain), path, 2, actress.say, done.append)
        actress.join(timeout=10.0)
    assert [(one.outcome, one.success, one.kept) for one in done] == [
        ("success", True, True),
        ("discard", False, False),
        ("end", False, True),
    ]
    assert (result.committed, [line.partition(": ")[2] for line in result.left_out]) == (2, ["discarded"])
    assert f"ROS_DOMAIN_ID={domain}" in actress.heard[0]
    store = Store.open(path)
    store.verify()
    first = store.read_episode(0)
    assert [info.attributes["success"] for info in store.episodes] == [True, False]
    assert first.attributes["notes"] == 'a "first": try'
    assert (first.attributes["task"], first.attributes["teleop"]) == (ENVIRONMENT, "joy")
    acted = first.data["actor"] == OPERATOR
    assert acted.sum() > 5
    assert {row.tobytes() for row in first.data["action"][acted]} == {single(asked).tobytes()}
    assert first.data["terminal"].tolist() == [False] * (len(acted) - 1) + [True]
    within_limits(first.data["certified"])
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    learns = ["train", "mvp", "--data", str(path), "--run", str(tmp_path / "run")]
    assert main([*learns, "--steps", "2", "--hidden", "16", "16"]) == 0
    draft = json.loads((tmp_path / "run" / "contract.json").read_text())
    mine = json.loads(demonstration(ENVIRONMENT, "joy").model_dump_json())
    for part in ("environment", "robot", "observations", "actions", "kinematics"):
        assert draft[part] == mine[part], part

    policy = write_policy(tmp_path / "policy.onnx", POLICY)

    def ends(_):
        raise KeyboardInterrupt

    with Person(simulated_environment(domain)) as person:
        actress = Actress(person, [(asked, SUCCESS)])
        actress.start()
        again = teleoperate(session_settings(tmp_path, domain, policy=policy), path, 9, actress.say, ends)
        actress.join(timeout=10.0)
    assert actress.heard[-1] == "ended"
    assert again.committed == 1, "Ctrl-C ends the session, and what was finished is kept"
    third = Store.open(path).read_episode(2)
    assert {FROM_POLICY, OPERATOR} <= set(third.data["actor"].tolist())

    def dies(_):
        raise OneStrideError("the plant died")

    with Person(simulated_environment(domain)) as person:
        actress = Actress(person, [(asked, SUCCESS)])
        actress.start()
        with pytest.raises(OneStrideError, match=r"the plant died; committed before: 1 episodes of \d+ steps"):
            teleoperate(session_settings(tmp_path, domain), path, 9, actress.say, dies)
        actress.join(timeout=10.0)
    assert Store.open(path).num_episodes == 4


def test_what_a_service_discards_is_not_kept(tmp_path, domain):
    """Neither in the episode nor after it: the session goes on until as many are kept as were asked for."""
    path, asked = tmp_path / "mine.zarr", (0.2, -0.1, -0.3, 0.1, 0.5)
    ends = (Actress.discards_by_service, Actress.ends_and_discards_later, END, SUCCESS)
    with Person(simulated_environment(domain)) as person:
        actress, done = Actress(person, [(asked, end) for end in ends]), []
        actress.start()
        result = teleoperate(session_settings(tmp_path, domain), path, 2, actress.say, done.append)
        actress.join(timeout=10.0)
    said = [(one.outcome, one.success, one.kept) for one in done]
    assert said == [("service", False, False), ("end", False, True), ("end", False, True), ("success", True, True)]
    assert f"episode {done[1].episode}: discarded after its end" in actress.heard
    running = [line.partition(":")[0] for line in actress.heard if "running" in line]
    assert running == ["episode 1", "episode 1", "episode 1", "episode 2"]
    assert (result.committed, len(result.left_out)) == (2, 2)
    assert [info.attributes["success"] for info in Store.open(path).episodes] == [False, True]


def test_what_would_end_badly_is_refused_before_it_begins(tmp_path, domain, capsys):
    settings, other = session_settings(tmp_path, domain), tmp_path / "oracle.zarr"
    assert main(["collect", str(other), "--env", ENVIRONMENT, "--episodes", "1", "--json"]) == 0
    nobody = Actress(None, [])
    with pytest.raises(OneStrideError, match=r"expected a store of teleoperated episodes, got .*merge --common"):
        teleoperate(settings, other, 1, nobody.say, lambda _: None)
    assert nobody.heard == []
    capsys.readouterr()
    assert main(["collect", str(tmp_path / "a.zarr"), "--policy", "p.onnx", "--domain", "3"]) == 1
    assert capsys.readouterr().err == "onestride: --policy, --domain: expected --teleop with it\n"
    assert main(["collect", str(tmp_path / "a.zarr"), "--teleop", "joy", "--mapping", str(tmp_path / "no.yaml")]) == 1
    assert "mapping: cannot read" in capsys.readouterr().err
    maze = "ogbench/pointmaze-medium-navigate-singletask-task1-v0"
    assert main(["collect", str(tmp_path / "a.zarr"), "--teleop", "joy", "--env", maze]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "a.zarr").exists()
