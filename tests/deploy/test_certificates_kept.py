"""Certificates in the tick: what is proved of commands holds for ten thousand states, and for an adversary's ticks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from limited_arm import limited_ur5e
from policy_samples import changed, parse
from pydantic import ValidationError

from onestride.deploy.contract import MonitorTerms
from onestride.deploy.safety.barrier import BarrierRows, barrier_rows
from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.certificate import Certificate, load_certificate
from onestride.deploy.safety.decrease import Decrease, growing
from onestride.deploy.safety.lyapunov import JointCertificate, LyapunovRows, Parabola, commands_below, joint_value
from onestride.deploy.safety.region import Region
from onestride.deploy.safety.types import ControlState, Motion
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.certificates import (
    BarrierRow,
    CertificateTerms,
    DecreaseFilter,
    LyapunovRow,
    RegionFilter,
)
from onestride.hardware.state import Measurement

PERIOD, ACCELERATION = 0.005, 8.0
#: What `onestride certificate commanded_joint` wrote.
WRITTEN = CertificateTerms.model_validate(
    {
        "claim": "lyapunov",
        "system": "commanded_joint",
        "states": ["distance to the goal [rad]", "speed of the command [rad/s]"],
        "period": PERIOD,
        "domain": [1.0, 2.0],
        "limit": [ACCELERATION],
        "function": {"form": "quadratic", "matrix": [[1.0, 0.3], [0.3, 0.2]]},
        "level": 0.1,
        "decay": 0.005,
        "proof": {"method": "algebra", "share": 0.1},
    }
)


@pytest.fixture(scope="module")
def proved() -> CertificateTerms:
    """Made and proved here, as the command does it."""
    recipes = pytest.importorskip("onestride.training.certificates.recipes", reason="needs the extra `train`")
    systems = pytest.importorskip("onestride.training.certificates.systems")
    terms = recipes.issue(recipes.Request(systems.system_named("commanded_joint"))).terms
    assert terms is not None
    return terms


@pytest.fixture(scope="module")
def ur5e() -> RobotDescription:
    return limited_ur5e()


def motion_at(robot: RobotDescription, offset: np.ndarray, velocity: np.ndarray) -> Motion:
    """Commands at an offset from the default pose, both (B, n)."""
    sent = np.array([joint.default for joint in robot.joints]) + offset
    return Motion(PERIOD, sent, velocity, sent, velocity, np.zeros_like(sent))


def states(terms: CertificateTerms, count: int, joints: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random offsets and speeds of each joint, uniform in the certified ellipse (count, joints)."""
    rng = np.random.default_rng(seed)
    root = np.linalg.inv(np.linalg.cholesky(np.array(terms.function.matrix)).T)  # type: ignore[union-attr]
    angle, radius = (
        rng.uniform(0, 2 * np.pi, (count, joints)),
        np.sqrt(terms.level * rng.uniform(0, 1, (count, joints))),
    )
    return tuple(np.einsum("ij,jbn->ibn", root, radius * np.stack([np.cos(angle), np.sin(angle)])))  # type: ignore[return-value]


def test_the_interval_is_exactly_where_v_keeps_the_bound():
    """Against a scan of the command, for random matrices, states and bounds."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        root = rng.normal(size=(2, 2))
        matrix = root @ root.T + 0.05 * np.eye(2)
        goal, sent, bound = rng.normal(), rng.normal(), rng.uniform(0, 3)
        period = rng.uniform(0.002, 0.5)
        parabola = Parabola.of(matrix, period)
        low, high = commands_below(parabola, np.array([[sent - goal]]), np.array([[sent]]), np.array([[bound]]))
        inside = np.linspace(low, high, 1001).ravel()
        value = joint_value(matrix, inside - goal, (inside - sent) / period)
        middle = (low + high).item() / 2
        least = joint_value(matrix, np.array(middle - goal), np.array((middle - sent) / period))
        if least <= bound:
            assert value.max() == pytest.approx(bound, rel=1e-6, abs=1e-9)
        else:
            assert low == high
            near = middle + np.array([-1e-4, 1e-4])
            assert (joint_value(matrix, near - goal, (near - sent) / period) >= least).all()


def test_ten_thousand_states_whatever_the_command_in_the_rows(proved, ur5e):
    """V decreases, the interval holds a command within the acceleration, and what is left alone is the gripper."""
    rows = LyapunovRows(LyapunovRow(certificate=proved), ur5e, PERIOD)
    offset, velocity = states(proved, 10_000, len(ur5e.joints))
    motion = motion_at(ur5e, offset, velocity)
    (box,) = rows.rows(motion)
    arm = np.isfinite(ur5e.velocity_limits)
    assert np.isinf(box.low[:, ~arm]).all() and np.isfinite(box.low[:, arm]).all()
    coasting = motion.sent + velocity * PERIOD
    nearest = np.clip(coasting, box.low, box.high) - coasting
    assert (np.abs(nearest[:, arm]) <= ACCELERATION * PERIOD**2 * (1 + 1e-9)).all()
    matrix = np.array(proved.function.matrix)
    before = joint_value(matrix, offset, velocity)
    for share in (0.0, 0.3, 1.0):
        step = (box.low[:, arm] * (1 - share) + share * box.high[:, arm]) - motion.sent[:, arm]
        after = joint_value(matrix, offset[:, arm] + step, step / PERIOD)
        assert (after <= (1 - proved.decay) * before[:, arm] * (1 + 1e-9)).all()


@pytest.mark.parametrize("aim", ["out", "random", "sign"])
def test_the_barrier_holds_against_an_adversary(proved, ur5e, aim):
    """A thousand ticks of a hundred robots that are commanded outwards, at random, or to and fro."""
    rows = BarrierRows(BarrierRow(certificate=proved, rate=0.2, reserve=0.0), ur5e, PERIOD)
    offset, velocity = states(proved, 100, len(ur5e.joints), seed=1)
    motion, rng, arm = motion_at(ur5e, offset, velocity), np.random.default_rng(2), np.isfinite(ur5e.velocity_limits)
    goal, matrix = motion.sent - offset, np.array(proved.function.matrix)
    closest = np.inf
    for tick in range(1000):
        (box,) = rows.rows(motion)
        ahead = motion.sent + motion.sent_velocity * PERIOD
        wanted = {"out": goal + 5.0, "random": ahead + rng.normal(size=ahead.shape), "sign": goal + 5 * (-1) ** tick}
        reach = ACCELERATION * PERIOD**2
        low, high = np.maximum(box.low, ahead - reach), np.minimum(box.high, ahead + reach)
        assert (low[:, arm] <= high[:, arm] + 1e-12).all()
        command = np.clip(wanted[aim], low, np.maximum(low, high))
        speed = (command - motion.sent) / PERIOD
        motion = Motion(PERIOD, command, speed, command, speed, np.zeros_like(command))
        value = joint_value(matrix, command - goal, speed)[:, arm]
        assert (value <= proved.level * (1 + 1e-9)).all()
        closest = min(closest, float(1 - value.max() / proved.level))
    assert closest < 0.05  # the barrier was met


def test_a_reserve_is_kept_and_bounded(proved, ur5e):
    most = proved.decay * proved.level
    rows = BarrierRows(BarrierRow(certificate=proved, reserve=0.9 * most), ur5e, PERIOD)
    offset, velocity = states(proved, 1000, len(ur5e.joints), seed=3)
    arm = np.isfinite(ur5e.velocity_limits)
    motion = motion_at(ur5e, offset, velocity)
    (box,) = rows.rows(motion)
    coasting = motion.sent + velocity * PERIOD
    nearest = np.clip(coasting, box.low, box.high) - coasting
    assert (np.abs(nearest[:, arm]) <= ACCELERATION * PERIOD**2 * (1 + 1e-9)).all()
    with pytest.raises(OneStrideError, match="reserve: expected at most decay times level"):
        BarrierRows(BarrierRow(certificate=proved, reserve=1.1 * most), ur5e, PERIOD)
    slow = BarrierRow(certificate=proved, rate=0.5 * proved.decay, reserve=0.9 * most)
    with pytest.raises(OneStrideError, match="and rate times level"):  # at the goal, h cannot grow
        BarrierRows(slow, ur5e, PERIOD)


def test_half_spaces_of_a_known_model_are_sufficient():
    """A concave barrier of a model affine in its input: whatever input keeps the row keeps the barrier, pushes too."""
    rng = np.random.default_rng(0)
    count, n, m = 2000, 3, 2
    centre, weight = rng.normal(size=n), np.diag([2.0, 1.0, 0.5])
    reach, push = np.array([1.5, 0.5]), 1e-3

    def barrier(x):
        return 4.0 - np.einsum("...i,ij,...j->...", x - centre, weight, x - centre)

    x, gain = centre + rng.normal(size=(count, n)), 0.1 * rng.normal(size=(count, n, m))
    drift = centre + 0.95 * (x - centre)
    slope = -2 * (drift - centre) @ weight
    steepest = 2 * 2.0 * 12.0  # of h within 12 of the centre
    rows = barrier_rows(barrier(x), barrier(drift), slope, gain, 0.3, steepest * push, 4.0, reach)
    assert rows.matrix.shape == (count, 1, m) and rows.bound.shape == (count, 1)
    kept = 0
    for _ in range(20):
        u = reach * rng.uniform(-1, 1, (count, m))
        w = rng.normal(size=(count, n))
        w *= push / np.linalg.norm(w, axis=1, keepdims=True)
        ahead = drift + np.einsum("bij,bj->bi", gain, u) + w
        asked = (np.einsum("bij,bj->bi", rows.matrix, u) <= rows.bound)[:, 0]
        assert (barrier(ahead)[asked] >= 0.7 * barrier(x)[asked]).all()
        kept += int(asked.sum())
    assert 0.05 < kept / (20 * count) < 0.99


def state_at(robot: RobotDescription, offset: float, **further) -> ControlState:
    pose = np.array([joint.default for joint in robot.joints])
    sent = pose + offset * np.isfinite(robot.velocity_limits)
    return ControlState(1.0, PERIOD, Measurement(sent, np.zeros_like(sent)), sent, **further)


def test_a_state_outside_the_region_is_refused_by_name(proved, ur5e):
    region = Region(RegionFilter(certificate=proved), ur5e, PERIOD)
    near, far = state_at(ur5e, 0.05), state_at(ur5e, 3.0)
    assert region.certify(near, near.last_sent).feasible
    refused = region.certify(far, far.last_sent)
    assert not refused.feasible
    assert "shoulder_pan_joint is outside the certified region: expected V <" in refused.reason


def test_a_robot_that_declares_them_is_commanded_by_them(proved, ur5e, contract):
    """From the YAML's terms through the whole chain, until the robot is at its goal; the policy pulls away."""
    certificate = json.loads(proved.model_dump_json())
    chain = [
        {"filter": "finite"},
        {"filter": "region", "certificate": certificate},
        {"filter": "projection", "rows": [{"row": "joints"}, {"row": "lyapunov", "certificate": certificate}]},
    ]
    robot = RobotDescription.model_validate(json.loads(ur5e.model_dump_json()) | {"safety": chain})
    built = build_chain(contract, robot)
    arm = np.isfinite(robot.velocity_limits)
    pose = np.array([joint.default for joint in robot.joints])
    sent, velocity, acceleration = pose + 0.2 * arm, np.zeros(len(pose)), np.zeros(len(pose))
    value, ticks = np.inf, 0
    built.begin(ControlState(0.0, PERIOD, Measurement(sent, velocity), sent))
    while np.abs(sent - pose)[arm].max() > 0.01 and ticks < 4000:
        state = ControlState(
            ticks * PERIOD, PERIOD, Measurement(sent, velocity), sent,
            sent_velocity=velocity, sent_acceleration=acceleration,
        )  # fmt: skip
        built.observe(state)
        certified = built.certify(state, sent + 0.05 * arm)
        assert certified.feasible, certified.reason
        built.sent(state, certified.action)
        speed = (certified.action - sent) / PERIOD
        acceleration, velocity, sent = (speed - velocity) / PERIOD, speed, certified.action
        found = joint_value(np.array(proved.function.matrix), sent - pose, velocity)[arm].max()
        assert found <= value * (1 + 1e-9)
        value, ticks = found, ticks + 1
    assert np.abs(sent - pose)[arm].max() <= 0.01
    assert certified.readings["lyapunov.value"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proof": None}, "expected a proved one, got one without proof"),
        ({"claim": "barrier"}, "expected the claim lyapunov without disturbance .* got barrier"),
        ({"disturbance": [0.0, 1e-3]}, r"got lyapunov with disturbance \(0.0, 0.001\)"),
        ({"limit": []}, r"2 of the domain and 1 limit, got \(2, 2, 0\)"),
        ({"system": "pendulum"}, "expected a quadratic one of commanded_joint, got a quadratic of pendulum"),
        ({"function": {"form": "stopping_distance", "position": 1, "braking": 1}}, "got a stopping_distance of"),
        ({"function": {"form": "quadratic", "matrix": [[1.0, 2.0], [2.0, 1.0]]}}, "symmetric and positive definite"),
        ({"function": {"form": "quadratic", "matrix": [[1.0, 2.0]]}}, "expected 1 columns"),
        ({"schema_version": 2}, "Input should be 1"),
        ({"level": float("nan")}, "finite number"),
    ],
)
def test_terms_that_claim_nothing_are_refused(change, message):
    content = json.loads(WRITTEN.model_dump_json()) | change
    with pytest.raises(ValidationError, match=message):
        LyapunovRow.model_validate({"certificate": content})


@pytest.mark.parametrize(
    ("change", "goal", "period", "message"),
    [
        ({}, (0.0,), PERIOD, "expected a goal of 7 joints, got 1"),
        ({}, None, 0.01, "expected period 0.01 s, got one for 0.005 s"),
        ({}, (6.2, 0, 0, 0, 0, 0, 0), PERIOD, "shoulder_pan_joint would leave its limits"),
        ({"level": 3.0}, None, PERIOD, r"would reach 5\.\d+ rad/s within the level"),
        ({"limit": [41.0]}, None, PERIOD, r"expected at most 40.0 rad/s\^2, got 41.0"),
        ({"domain": [1e-6, 1e-6]}, None, PERIOD, r"expected V < 0.1 inside the domain \(1e-06, 1e-06\)"),
        ({"decay": 1.0}, None, PERIOD, r"decay: got 1, but within 8 rad/s\^2 at most 0.01488 can be proved"),
        ({"limit": [0.5]}, None, PERIOD, r"decay: got 0.005, but within 0.5 rad/s\^2 V may grow"),
    ],
)
def test_a_certificate_that_does_not_fit_the_robot_is_refused(ur5e, change, goal, period, message):
    row = LyapunovRow.model_validate({"certificate": json.loads(WRITTEN.model_dump_json()) | change, "goal": goal})
    with pytest.raises(OneStrideError, match=message):
        JointCertificate(row, ur5e, period)


def test_files_evaluate_as_they_were_proved(tmp_path):
    """Quadratic, learnt and stopping-distance functions, by numpy alone, against those of the proof."""
    recipes = pytest.importorskip("onestride.training.certificates.recipes", reason="needs the extra `train`")
    systems = pytest.importorskip("onestride.training.certificates.systems")
    neural = pytest.importorskip("onestride.training.certificates.neural")
    rng = np.random.default_rng(0)
    for name in ("pendulum", "double_integrator", "two_link_arm"):
        issued = recipes.issue(recipes.Request(systems.system_named(name)))
        path = tmp_path / f"{name}.json"
        path.write_text(issued.terms.model_dump_json())
        loaded = load_certificate(path)
        x = rng.uniform(-1, 1, (500, len(loaded.terms.domain))) * loaded.terms.domain
        np.testing.assert_allclose(loaded.value(x), issued.function(list(x.T)), rtol=1e-9, atol=1e-9)
        inside = np.asarray(issued.function(list(x.T))) < loaded.terms.level
        np.testing.assert_array_equal(loaded.inside(x), inside)
        assert 0 < inside.sum() < 500
        assert not loaded.inside(2 * np.array(loaded.terms.domain))
    network = neural.NeuralLyapunov(issued_quadratic(recipes, systems), (8, 8), 1).frozen()
    terms = WRITTEN.model_copy(update={"function": recipes.network_terms(network)})
    x = rng.normal(size=(200, 2))
    loaded = Certificate(CertificateTerms.model_validate_json(terms.model_dump_json()))
    np.testing.assert_allclose(loaded.value(x), network(list(x.T)), rtol=1e-12)


def issued_quadratic(recipes, systems):
    return recipes.controller(systems.system_named("pendulum"))[0]


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(OneStrideError, match="expected a certificate, got: No such file"):
        load_certificate(tmp_path / "none.json")
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(OneStrideError, match=r"odd.json: claim: Field required"):
        load_certificate(tmp_path / "odd.json")


@pytest.mark.parametrize(
    ("claim", "level", "allowance", "kept"),
    [
        ("lyapunov", 0.1, 0.0, True),
        ("lyapunov", 0.1, 0.00049, True),
        ("lyapunov", 0.1, 0.00051, False),
        ("lyapunov", 0.1, 1e6, False),
        ("lyapunov", 0.0, 0.0, False),
        ("barrier", 0.0, 0.0, True),
        ("barrier", 0.0, 1e-9, False),
        ("barrier", -0.1, 0.0, False),
    ],
)
def test_a_file_whose_region_may_be_left_is_refused(tmp_path, claim, level, allowance, kept):
    """`(1 - decay) V + allowance` of the largest V below the level: with decay 0.005 and level 0.1, ε = 0.0005."""
    path, changes = tmp_path / "c.json", {"claim": claim, "level": level, "allowance": allowance}
    path.write_text(WRITTEN.model_copy(update=changes).model_dump_json())
    if kept:
        assert load_certificate(path).terms.allowance == allowance
        return
    with pytest.raises(OneStrideError, match=r"c.json: .*allowance: expected it (below|at most) decay \* level"):
        load_certificate(path)


def watched(contract):
    """A contract whose policy computes a learnt function."""
    monitor = MonitorTerms(name="lyapunov", meaning="learnt", threshold=10.0)
    content = changed(contract, lambda one: one["policy"].update(monitors=[monitor.model_dump()]))
    return parse(content)


@pytest.mark.parametrize(
    ("values", "above", "count"),
    [
        ([3, 2, 1], 0, 0),
        ([1, 2, 3], 0, 2),
        ([1, 2, 1, 2], 0, 1),
        ([1, 2, 3], 2.5, 1),
        ([1, np.nan, 2], 0, 2),
        ([1], 0, 0),
    ],
)
def test_growth_by_hand(values, above, count):
    assert growing(np.array(values, dtype=float), above) == count
    both = np.array([values, values], dtype=float)
    assert growing(both, above).tolist() == [count, count]


def test_growth_for_long_stops_or_warns_and_one_inference_counts_once(contract, ur5e):
    terms = DecreaseFilter(monitor="lyapunov", grows_for=3)
    for reaction in ("stop", "warn"):
        guard = Decrease(terms.model_copy(update={"reaction": reaction}), watched(contract))
        answers = []
        for inference, value in enumerate([5.0, 4.0, 4.5, 5.0, 4.9, 5.0, 5.1, 5.2], start=1):
            for _ in range(4):  # ticks between two inferences
                state = state_at(ur5e, 0.0, inferences=inference, monitored={"lyapunov": value})
                answer = guard.certify(state, state.last_sent)
            answers.append(answer)
        assert all(one.feasible and not one.warnings for one in answers[:-1])
        assert answers[4].readings == {"decrease.value": 4.9, "decrease.rate": pytest.approx(0.5)}
        if reaction == "stop":
            assert not answers[-1].feasible
            assert answers[-1].reason == "lyapunov grew for 3 inferences in a row: 5.2"
        else:
            assert answers[-1].feasible and answers[-1].warnings == ("growing",)
        guard.reset()
        assert guard.certify(state_at(ur5e, 0.0), np.zeros(7)).feasible


def test_a_policy_without_the_monitor_is_refused(contract):
    with pytest.raises(OneStrideError, match="unknown monitor of the policy: got 'lyapunov'"):
        Decrease(DecreaseFilter(monitor="lyapunov"), contract)
