"""`onestride export --certificate`: the file chooses among candidates that keep a claim, and tells if none does.

The claim is checked by itself: with the numpy function of the robot side and equations that are written out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

import torch

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema
from onestride.datasets.store import Store
from onestride.deploy.cli import main
from onestride.deploy.contract import Contract, RobotTerms
from onestride.deploy.runtime import PolicyRuntime, load_contract
from onestride.deploy.safety.certificate import Certificate, load_certificate
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.certificates import CertificateTerms, QuadraticTerms
from onestride.policies.normaliser import Affine
from onestride.policies.selection import BestOfN
from onestride.training.certificates.candidates import candidate_certificate
from onestride.training.certificates.neural import NeuralLyapunov
from onestride.training.certificates.recipes import Request, controller, issue, network_terms
from onestride.training.certificates.systems import SYSTEMS, System, TwoLinkArm, system_named
from onestride.training.checkpoint import load_run
from onestride.training.exporting import fresh_parity

N, PERIOD, LIMIT, DOMAIN = 12, 0.05, 2.0, np.array([1.05, 2.4])
NETWORKS = ("--hidden", "16", "16", "--critic-hidden", "16", "16", "--horizon", "2", "--n-action-steps", "1")


@dataclass(frozen=True)
class Certified:
    """A run on the double integrator, its certificate, and both in one file."""

    run: Path
    certificate: Path
    policy: Path


def make_store(path: Path) -> Store:
    """A joint that is steered to the middle and pushed about."""
    features = (
        Feature(name="state", role="observation", shape=(2,), dtype="float32", units=("rad", "rad/s")),
        Feature(name="acceleration", role="action", shape=(1,), dtype="float32", units=("rad/s^2",)),
        Feature(name="reward", role="reward", shape=(), dtype="float32"),
    )
    generator = np.random.default_rng(0)
    schema = Schema(features=features, control_rate=1 / PERIOD, label="acceleration", label_source="oracle")
    store = Store.create(path, schema, Provenance.now("test"))
    store.append([_episode(generator) for _ in range(12)])
    return store


def _episode(generator: np.random.Generator) -> Episode:
    x, states, inputs = generator.uniform(-0.6, 0.6, 2), [], []
    for _ in range(40):
        u = float(np.clip(-3 * x[0] - 2 * x[1] + 2 * generator.normal(), -1.25 * LIMIT, 1.25 * LIMIT))
        states.append(x)
        inputs.append([u])
        x = moved(x, np.array(u))
    rows = np.array(states, np.float32)
    data = {"state": rows, "acceleration": np.array(inputs, np.float32), "reward": -(rows**2).sum(1)}
    return Episode(data=data, timestamps={"base": np.arange(40, dtype=np.int64) * 50_000_000})


def moved(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """A joint (..., 2) after an acceleration (...) that is held."""
    return np.stack([x[..., 0] + PERIOD * x[..., 1] + 0.5 * PERIOD**2 * u, x[..., 1] + PERIOD * u], -1)


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    folder = tmp_path_factory.mktemp("certified")
    made = Certified(folder / "run", folder / "joint.json", folder / "policy.onnx")
    make_store(folder / "joint.zarr")
    data = ["--data", str(folder / "joint.zarr"), "--run", str(made.run), "--steps", "60"]
    assert main(["train", "mvp", "--candidates", "4", *NETWORKS, *data]) == 0
    assert main(["certificate", "double_integrator", "-o", str(made.certificate)]) == 0
    chosen = ["--certificate", str(made.certificate), "--candidates", str(N)]
    assert main(["export", str(made.run), "-o", str(made.policy), *chosen]) == 0
    return made


def ranking(made: Certified) -> BestOfN:
    """What the run itself draws and values by."""
    policy = load_run(made.run).agent.as_exportable((1,)).policy
    assert isinstance(policy, BestOfN)
    return policy


def broken(claim: Certificate, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """By how much inputs (...) at states (..., 2) break the barrier's claim: 0 or less where they keep it."""
    ahead, terms = moved(x, u), claim.terms
    return np.max(
        np.broadcast_arrays(
            claim.value(ahead) - (1 - terms.decay) * claim.value(x),
            *(np.abs(ahead) - DOMAIN).T,
            np.abs(u) - LIMIT,
            claim.value(x),
            *(np.abs(x) - DOMAIN).T,
        ),
        axis=0,
    )


def test_the_file_chooses_the_best_of_those_that_keep_the_claim(certified: Certified) -> None:
    """One candidate at a time, from the run's own policy and critic; all kinds of states occur."""
    claim, runtime, mine = load_certificate(certified.certificate), PolicyRuntime(certified.policy), ranking(certified)
    rng, counts, turned = np.random.default_rng(1), set(), 0
    for _ in range(300):
        x, noise = rng.uniform(-1.2, 1.2, 2), rng.standard_normal((N, 2, 1), dtype=np.float32)
        x = x.astype(np.float32).astype(np.float64)
        got = runtime.predict(x, noise)
        with torch.no_grad():
            s = mine.policy.condition(torch.tensor(x[None], dtype=torch.float32))
            drawn, values = (one[0].numpy() for one in mine.values(s, torch.from_numpy(noise)))
            chunks = mine.policy.to_dataset(torch.from_numpy(drawn)).numpy()
        excess = broken(claim, x[None], chunks[:, 0, 0].astype(np.float64))
        count, least = (reading.value for reading in runtime.readings)
        assert (excess <= -1e-5).sum() <= count <= (excess <= 0).sum()
        assert runtime.readings[1].tripped == (least > 0) == (count == 0)
        if count > 0:  # never one that breaks it, and the most valued of those that surely keep it
            assert broken(claim, x, got[0, 0].astype(np.float64)) <= 0
            sure = excess <= -1e-5
            best = chunks[np.flatnonzero(sure)[values[sure].argmax()]] if sure.any() else got
            assert np.abs(got - best).max() < 1e-4 or np.ptp(np.sort(values[sure])[-2:]) < 1e-4
            turned += excess[values.argmax()] > 0
        counts.add(int(count))
    assert 0 in counts and N in counts and len(counts) > 4
    assert turned > 10, "the claim changed the choice"


def test_a_joint_stays_in_the_region_while_candidates_keep_the_claim(certified: Certified, tmp_path: Path) -> None:
    """In closed loop, from near the edge; the same policy without the certificate leaves."""
    plain = tmp_path / "plain.onnx"
    assert main(["export", str(certified.run), "-o", str(plain), "--candidates", str(N)]) == 0
    assert load_contract(plain)[0].noise_shape == (N, 2, 1) and fresh_parity(plain, certified.run).passed
    claim, left = load_certificate(certified.certificate), {certified.policy: 0, plain: 0}
    for path in left:
        runtime, rng = PolicyRuntime(path), np.random.default_rng(2)
        for _ in range(60):
            x = rng.uniform(-1, 1, 2)
            while not -0.15 < claim.value(x) < -0.05:
                x = rng.uniform(-1, 1, 2)
            for _ in range(20):
                h, u = -claim.value(x), runtime.infer(x)[0]
                if path == certified.policy and runtime.readings[1].tripped:
                    break
                x = moved(x, u[0].astype(np.float64))
                kept = -claim.value(x) >= (1 - claim.terms.decay) * h - 1e-6 and claim.inside(x)
                left[path] += not kept
    assert left[certified.policy] == 0 < left[plain]


def test_the_contract_keeps_the_claim_and_the_run_is_compared_with_it(certified: Certified) -> None:
    contract, _ = load_contract(certified.policy)
    assert contract.policy.certificate == load_certificate(certified.certificate).terms
    assert (contract.policy.candidates, contract.policy.nfe) == (N, (1,))
    assert [one.name for one in contract.policy.monitors] == ["certified_candidates", "certificate_violation"]
    assert "barrier certificate of double_integrator" in contract.policy.monitors[0].meaning
    assert fresh_parity(certified.policy, certified.run).passed


def numbered(contract: Contract, terms: CertificateTerms, steps: int) -> Contract:
    """A contract for a policy that sees another system's state and gives its input."""
    system, units = SYSTEMS[terms.system], tuple(state.split("[")[1][:-1] for state in SYSTEMS[terms.system].states)
    (seen,), (done,) = contract.observations, contract.actions
    names = tuple(f"x.{index}" for index in range(len(system.states)))
    source = seen.source.model_copy(update={"names": names, "units": units})
    execution = {"policy_rate": 1 / terms.period, "horizon": steps, "n_action_steps": steps}
    return contract.model_copy(
        update={
            "observations": (seen.model_copy(update={"source": source}),),
            "actions": (done.model_copy(update={"names": tuple(f"u.{i}" for i in range(len(terms.limit)))}),),
            "execution": contract.execution.model_copy(update=execution),
        }
    )


def network_of_the_pendulum() -> CertificateTerms:
    """Not learnt: what is tested is how the function is evaluated."""
    issued = issue(Request(system_named("pendulum")))
    assert issued.terms is not None
    learnt = NeuralLyapunov(controller(issued.system)[0], (8, 8))
    return issued.terms.model_copy(update={"function": network_terms(learnt.frozen())})


def worst(claim: Certificate, system: System, x: np.ndarray, actions: np.ndarray) -> float:
    """By how much actions (steps, m) from a state (n,) break a claim, in the unit of whatever is broken most."""
    terms, found = claim.terms, []
    for u in actions:
        ahead = np.array(system.step(list(x), list(u)))
        found += [
            claim.value(ahead) - (1 - terms.decay) * claim.value(x) - terms.allowance,
            claim.value(x) - terms.level,
        ]
        found += [*(np.abs(x) - terms.domain), *(np.abs(ahead) - terms.domain), *(np.abs(u) - terms.limit)]
        if isinstance(system, TwoLinkArm):
            found += [*(np.abs(system.torques(list(x), list(u))) - np.array(system.torque))]
        x = ahead
    return float(max(found))


@pytest.mark.parametrize("name", ["pendulum", "two_link_arm", "commanded_joint", "network"])
def test_every_action_that_is_executed_is_tried_on_the_system(certified: Certified, name: str) -> None:
    """Three steps, one candidate at a time, against the numpy function of the robot side."""
    terms = network_of_the_pendulum() if name == "network" else issue(Request(system_named(name))).terms
    assert terms is not None
    claim, system, rng = Certificate(terms), system_named(terms.system), np.random.default_rng(3)
    states = (rng.uniform(-0.7, 0.7, (60, 1)) * rng.uniform(-1, 1, (60, len(terms.domain))) * terms.domain).astype("f4")
    inputs = np.stack(controller(system)[1](list(states.T.astype(float))), -1)
    tried = inputs[:, None, None] * rng.normal(0.8, 0.4, (60, 8, 3, 1))
    top = np.abs(tried).max()
    action = Affine(torch.zeros(len(terms.limit)), torch.full((len(terms.limit),), float(1 / top)))
    chunks = torch.from_numpy(tried / top).float()
    contract = numbered(load_contract(certified.policy)[0], terms, 3)
    judge = candidate_certificate(terms, contract, Affine.identity(len(terms.domain)), action)
    with torch.no_grad():
        kept = (judge(torch.from_numpy(states), chunks) <= 0).numpy()
    sent = action.inverse(chunks).double().numpy()
    excess = np.array(
        [[worst(claim, system, x, u) for u in us] for x, us in zip(states.astype(float), sent, strict=True)]
    )
    assert (excess[kept] <= 0).all()
    assert (excess[~kept] > -2e-6 * max(terms.level, *terms.domain, *terms.limit)).all()
    assert 0.02 < kept.mean() < 0.98


def changed(certified: Certified, path: Path, **changes: object) -> Path:
    path.write_text(load_certificate(certified.certificate).terms.model_copy(update=changes).model_dump_json())
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proof": None}, "expected a proved one, got one without proof"),
        ({"disturbance": (0.0, 0.1)}, "expected one without disturbance"),
        ({"period": 0.02}, "expected an action each 0.02 s, the policy gives 20 per second"),
        ({"system": "commanded_join"}, "unknown system: got 'commanded_join', available: commanded_joint"),
        ({"domain": (1.0, 1.0, 1.0)}, "domain: expected 2 positive numbers"),
        ({"level": -3.0}, "allowance: expected it at most decay * level = -0.3"),
        ({"function": QuadraticTerms(matrix=((1.0, 0.0), (0.0, 1.0)))}, "expected a level above V at rest, got 0.0"),
        ({"function": QuadraticTerms(matrix=((1.0,),))}, "expected V of 2 elements"),
    ],
)
def test_a_certificate_of_something_else_is_refused(
    certified: Certified, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    assert message in refused(capsys, certified.run, changed(certified, tmp_path / "c.json", **changes), tmp_path)


def refused(capsys: pytest.CaptureFixture[str], run: Path, file: Path, folder: Path, *more: str) -> str:
    """What an export that must fail says."""
    output = folder / "p.onnx"
    assert main(["export", str(run), "-o", str(output), "--certificate", str(file), *more]) == 1
    assert not output.exists()
    return " ".join(capsys.readouterr().err.split())


def test_a_policy_of_something_else_is_refused(
    certified: Certified, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arm, file = tmp_path / "arm.json", certified.certificate
    assert main(["certificate", "two_link_arm", "-o", str(arm)]) == 0
    assert "got 2 (state.0, state.1)" in refused(capsys, certified.run, arm, tmp_path)
    assert "none.json: expected a certificate, got" in refused(capsys, certified.run, tmp_path / "none.json", tmp_path)
    assert "2 or more candidates" in refused(capsys, certified.run, file, tmp_path, "--candidates", "1")
    assert "candidates: expected >= 1, got 0" in refused(capsys, certified.run, file, tmp_path, "--candidates", "0")
    uncritical, data = tmp_path / "run", str(certified.run.parent / "joint.zarr")
    assert main(["train", "mvp", *NETWORKS, "--data", data, "--run", str(uncritical), "--steps", "2"]) == 0
    assert "of a run with a critic, got 1" in refused(capsys, uncritical, file, tmp_path)
    assert "a policy that ranks nothing, got 4" in refused(capsys, uncritical, file, tmp_path, "--candidates", "4")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("robot", "expected actions that are its inputs, got those of the robot ur5e_2f85"),
        ("actions", "expected actions of 1, got 2"),
        ("units", r"expected its position \[rad\], the policy sees x\.0 \[Nm\]"),
        ("pictures", "expected a policy without pictures, got one with them"),
    ],
)
def test_a_policy_that_sees_or_does_something_else_is_refused(certified: Certified, what: str, message: str) -> None:
    terms, observation = load_certificate(certified.certificate).terms, Affine.identity(2)
    contract = numbered(load_contract(certified.policy)[0], terms, 1)
    if what == "robot":
        contract = contract.model_copy(update={"robot": RobotTerms.of(load_robot("ur5e_2f85"))})
    if what == "actions":
        contract = numbered(contract, terms.model_copy(update={"limit": (1.0, 1.0)}), 1)
    if what == "units":
        (seen,) = contract.observations
        source = seen.source.model_copy(update={"units": ("Nm", "rad/s")})
        contract = contract.model_copy(update={"observations": (seen.model_copy(update={"source": source}),)})
    conditioning = torch.nn.Linear(2, 2) if what == "pictures" else observation
    with pytest.raises(OneStrideError, match=message):
        candidate_certificate(terms, contract, conditioning, Affine.identity(1))  # type: ignore[arg-type]
