"""The chain certifies by every filter in turn, counts, and does not believe the last one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from policy_samples import changed, cube_contract, parse

from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.types import Certified, ControlState, Filter
from onestride.hardware.description import load_robot
from onestride.hardware.state import Array, Measurement

ROBOT = load_robot("ur5e_2f85")
HOME = np.array([joint.default for joint in ROBOT.joints])
STREAMS = ("joints", "block_0", "gripper_contact")


def state(**changes) -> ControlState:
    received = dict.fromkeys(STREAMS, 10.0) | changes.pop("received", {})
    measurement = Measurement(changes.pop("position", HOME), np.zeros(7), received=received)
    return ControlState(10.0, 0.005, measurement, HOME, **changes)


class Shift:
    """A filter that adds to whatever it is given."""

    def __init__(self, name: str, by: float) -> None:
        self.name, self._by = name, by

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        del state
        return Certified(nominal + self._by, active=("shift",), margin=abs(self._by))


class Once(Shift):
    """A filter that is satisfied with its own answer, as a sound one is."""

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        if np.array_equal(nominal, state.last_sent):
            return Certified(nominal + self._by, active=("shift",), margin=abs(self._by))
        return Certified(nominal)


class Nothing:
    name = "nothing"

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        del state
        return Certified(np.full_like(nominal, np.nan))


class Refuse:
    name = "refuse"

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        del state
        return Certified(nominal, feasible=False, reason="because")


def test_filters_act_in_order_and_their_answers_are_put_together():
    answer = Chain([Once("first", 0.25), Once("second", 0.5)]).certify(state(), HOME)
    assert answer.feasible
    np.testing.assert_array_equal(answer.action, HOME + 0.25)  # the second saw what the first gave
    assert answer.active == ("first.shift",)
    assert answer.margin == 0.25


def test_the_first_refusal_is_the_chains():
    chain = Chain([Once("first", 0.25), Refuse(), Nothing()])
    answer = chain.certify(state(), HOME)
    assert not answer.feasible
    assert answer.reason == "because"
    assert chain.counters == {"ticks": 1, "refusals": 1, "interventions": 1, "first.shift": 1}


@pytest.mark.parametrize(
    ("intruder", "reason"),
    [
        (Shift("intruder", 0.5), "recheck failed: projection.joints.velocity, "),
        (Shift("intruder", 100.0), "recheck failed: projection.joints.position, projection.joints.velocity, "),
        (Nothing(), "action: not finite at joint 0"),
    ],
)
def test_a_filter_behind_the_limits_that_spoils_the_command_is_caught(intruder: Filter, reason):
    chain = build_chain(cube_contract(), ROBOT)
    answer = Chain([*chain.filters, intruder]).certify(state(), HOME)
    assert not answer.feasible
    assert answer.reason.startswith(reason)


@given(arrays(float, (20, 7), elements=st.floats(-8, 8)))
def test_counters_tell_ticks_interventions_and_which_rules(nominals):
    chain = Chain([Projection([JointLimits(ROBOT)], ROBOT.joint_names)])
    expected: Counter[str] = Counter()
    for nominal in nominals:
        answer = chain.certify(state(), nominal)
        assert answer.feasible
        expected.update(answer.active)
        expected["interventions"] += not np.array_equal(answer.action, nominal)
    assert chain.counters == {"ticks": 20, "refusals": 0, "interventions": 0, **expected}
    assert {name for name in chain.counters if "." in name} <= {
        f"projection.joints.{rule}" for rule in ("position", "velocity", "stopping", "acceleration", "jerk")
    }


def test_the_robots_chain_watches_every_stream_the_policy_reads():
    chain = build_chain(cube_contract(), ROBOT)
    assert [one.name for one in chain.filters] == [terms.filter for terms in ROBOT.safety]
    assert {"finite", "fresh_streams", "policy_alive", "projection"} <= {one.name for one in chain.filters}
    assert chain.certify(state(), HOME).feasible
    for stream in STREAMS:
        answer = chain.certify(state(received={stream: 9.0}), HOME)
        assert not answer.feasible
        assert f"stream {stream} is stale" in answer.reason


@pytest.mark.parametrize("ages", [(0.05, 0.02), (0.02, 0.05)])
def test_the_smallest_maximum_age_of_a_streams_terms_tightens_its_bound(ages):
    def change(content):
        content["observations"][6]["max_age"], content["observations"][7]["max_age"] = ages

    chain = build_chain(parse(changed(cube_contract(), change)), ROBOT)
    assert chain.certify(state(received={"block_0": 9.985}), HOME).feasible
    answer = chain.certify(state(received={"block_0": 9.97}), HOME)
    assert "stream block_0 is stale: expected age <= 0.02 s" in answer.reason


def test_a_silent_policy_and_a_bad_measurement_are_refused():
    chain = build_chain(cube_contract(), ROBOT)
    assert "policy stalled" in chain.certify(state(waiting=0.2), HOME).reason
    assert "measured position" in chain.certify(state(position=np.full(7, np.nan)), HOME).reason
    assert chain.counters["refusals"] == 2
