"""Learning from pictures: what only they tell, exact resume, one file with cameras in its contract, real data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from onestride.datasets.converters import Options, convert
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.deploy.bench.bench import BenchOptions, bench
from onestride.deploy.check import check_data, check_file
from onestride.deploy.contract import Contract
from onestride.deploy.runtime import PolicyRuntime
from onestride.hardware.errors import OneStrideError
from onestride.training.agents.bc_flow import BCFlowConfig
from onestride.training.agents.catalogue import AgentConfig
from onestride.training.agents.mvp import MVPConfig
from onestride.training.agents.qc import QCAgent, QCConfig
from onestride.training.agents.sac import SACConfig
from onestride.training.checkpoint import load_run
from onestride.training.exporting import export_run, fresh_parity
from onestride.training.metrics import read_metrics
from onestride.training.options import TrainOptions
from onestride.training.trainer import train
from onestride.training.vision import Vision

SIDE = 20
SMALL = Vision(features=16, widths=(8, 16))
CHUNK: dict[str, Any] = {"horizon": 2, "n_action_steps": 2, "batch_size": 32, "hidden": (64, 64)}
CRITIC: dict[str, Any] = {"candidates": 3, "critic_hidden": (32, 32), "nfe": (2,)}
CONFIGS: dict[str, AgentConfig] = {
    "mvp": MVPConfig(**CHUNK),
    "bc_flow": BCFlowConfig(**CHUNK),
    "qc": QCConfig(**CHUNK, **CRITIC),
    "mvp with a critic": MVPConfig(**CHUNK, **CRITIC),
}
LIFT_QC: dict[str, Any] = {"batch_size": 32, "candidates": 2, "nfe": (2,), "lr": 1e-3}
SEEN = ("heat", "scene")


def scenes(random: np.random.Generator, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pictures (N, S, S, 3) of a bright square on noise, and where it is (N, 2) in [-1, 1]."""
    corner = random.integers(1, SIDE - 5, (count, 2))
    images = random.integers(0, 60, (count, SIDE, SIDE, 3))
    for image, (row, column) in zip(images, corner, strict=True):
        image[row : row + 4, column : column + 4] = (250, 30, 30)
    return images.astype(np.uint8), (2 * (corner - 1) / (SIDE - 7) - 1).astype(np.float32)


def make_store(path: Path, *, episodes: int = 20, length: int = 20, seed: int = 0) -> Store:
    """The shown action is where the square is; the vector says nothing of it."""
    features = (
        Feature(name="heat", role="observation", shape=(1,), dtype="float32"),
        Feature(name="scene", role="observation", shape=(SIDE, SIDE, 3), dtype="uint8"),
        Feature(name="action", role="action", shape=(2,), dtype="float32"),
        Feature(name="reward", role="reward", shape=(), dtype="float32"),
        Feature(name="done", role="terminal", shape=(), dtype="bool"),
    )
    schema = Schema(features=features, control_rate=10.0, label="action", label_source="oracle")
    store = Store.create(path, schema, Provenance.now("test"))
    random = np.random.default_rng(seed)
    store.append([_episode(random, length) for _ in range(episodes)])
    return store


def _episode(random: np.random.Generator, length: int) -> Episode:
    images, places = scenes(random, length)
    data = {
        "heat": random.normal(size=(length, 1)).astype(np.float32),
        "scene": images,
        "action": places,
        "reward": np.zeros(length, np.float32),
        "done": np.arange(length) == length - 1,
    }
    return Episode(data, {"base": synthetic_clock(length, 10.0)})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("scenes") / "scenes.zarr")


def options(store: Store, run: Path, config: AgentConfig, **changed: Any) -> TrainOptions:
    given: dict[str, Any] = {"steps": 12, "observations": SEEN, "vision": SMALL, "device": "cpu", "log_every": 1}
    return TrainOptions(config, store.path, run, **{**given, **changed})


def test_a_policy_learns_what_only_pictures_tell(tmp_path: Path) -> None:
    """On pictures it never saw, through the exported file; without pictures the error is that of the mean."""
    store = make_store(tmp_path / "s.zarr", episodes=150)
    config = BCFlowConfig(horizon=1, n_action_steps=1, batch_size=64, hidden=(64, 64), lr=3e-3)
    train(options(store, tmp_path / "run", config, steps=120, log_every=50))
    export_run(tmp_path / "run", tmp_path / "policy.onnx")
    policy = PolicyRuntime(tmp_path / "policy.onnx")
    images, places = scenes(np.random.default_rng(99), 200)
    acted = [policy.infer(np.zeros(1), {"scene": image[None]})[0] for image in images]
    error = np.sqrt(np.square(acted - places).mean())
    assert places.std() > 0.55
    assert error < 0.3


@pytest.mark.parametrize("name", CONFIGS)
def test_every_agent_trains_on_pictures_and_becomes_one_file(store: Store, tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    train(options(store, tmp_path / "run", config))
    path = tmp_path / "policy.onnx"
    contract = export_run(tmp_path / "run", path)
    assert contract.export is not None and contract.export.parity <= 1e-5
    image = contract.images[0]
    assert (image.name, image.shape, image.encoding) == ("scene", (SIDE, SIDE, 3), "rgb8")
    assert (image.source.kind, image.source.camera) == ("camera", "scene")
    assert contract.observation_names == ("heat.0",)
    findings, read = check_file(path)
    assert [one for one in findings if not one.passed] == [] and read == contract
    assert all(one.passed for one in check_data(contract, store.path))
    assert fresh_parity(path, tmp_path / "run").passed
    _agrees_with_torch(contract, path, tmp_path / "run", store)


def _agrees_with_torch(contract: Contract, path: Path, run: Path, store: Store) -> None:
    """The file on whole pictures against the agent on their middles, cut with plain numpy."""
    agent, policy, random = load_run(run).agent, PolicyRuntime(path), np.random.default_rng(0)
    for image in store.read("scene")[:5]:
        heat, noise = random.normal(size=1), random.standard_normal(contract.noise_shape, dtype=np.float32)
        middle = image[1:-1, 1:-1].astype(np.float32).ravel()
        seen = torch.from_numpy(np.concatenate([heat, middle]).astype(np.float32))[None]
        expected = agent.act(seen, torch.from_numpy(noise), contract.policy.nfe[0]).numpy()[0]
        np.testing.assert_allclose(policy.predict(heat, noise, {"scene": image[None]}), expected, atol=1e-5)


def test_a_history_of_pictures_reaches_the_file_oldest_first(store: Store, tmp_path: Path) -> None:
    config = BCFlowConfig(**CHUNK, history=3)
    train(options(store, tmp_path / "run", config))
    contract = export_run(tmp_path / "run", tmp_path / "policy.onnx")
    assert contract.inputs["image.scene"] == (1, 3, SIDE, SIDE, 3)
    agent, policy = load_run(tmp_path / "run").agent, PolicyRuntime(tmp_path / "policy.onnx")
    images, heat = store.read("scene")[:3], np.linspace(0.0, 2.0, 3, dtype=np.float64)
    steps = [np.concatenate([heat[i : i + 1], images[i, 1:-1, 1:-1].ravel()]) for i in range(3)]
    seen = torch.from_numpy(np.concatenate(steps).astype(np.float32))[None]
    expected = agent.act(seen, torch.zeros(1, 2, 2), 10).numpy()[0]
    noise = np.zeros((1, 2, 2), np.float32)
    np.testing.assert_allclose(policy.predict(heat, noise, {"scene": images}), expected, atol=1e-5)
    other = policy.predict(heat, noise, {"scene": images[::-1]})
    assert np.abs(other - expected).max() > 1e-4


@pytest.mark.parametrize("name", ["bc_flow", "mvp with a critic"])
def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Cuts of the pictures included."""
    whole = options(store, tmp_path / "whole", CONFIGS[name], checkpoint_every=5)
    train(whole)
    parts, calls = replace(whole, run=tmp_path / "parts"), 0
    learn = type(load_run(tmp_path / "whole").agent).update

    def failing(agent: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return learn(agent, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(load_run(tmp_path / "whole").agent), "update", failing)
        train(parts)
    assert train(parts).resumed_from == 5
    one, other = (load_run(tmp_path / path).agent.state_dict().tensors for path in ("whole", "parts"))
    for group, tensors in one.items():
        assert [name for name, tensor in tensors.items() if not torch.equal(tensor, other[group][name])] == [], group


def test_no_gradient_of_a_critic_reaches_the_encoders(store: Store, tmp_path: Path) -> None:
    train(options(store, tmp_path / "run", CONFIGS["qc"], steps=1))
    agent = load_run(tmp_path / "run").agent
    assert isinstance(agent, QCAgent)
    size = 1 + (SIDE - 2) ** 2 * 3
    batch = {
        **{key: torch.rand(4, 1, size) for key in ("observations", "next_observations")},
        **{key: torch.ones(4, 2) for key in ("rewards", "masks", "valid")},
        "actions": torch.zeros(4, 2, 2),
    }
    loss, _ = agent.critic_loss(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(one.grad is None for one in agent.actor.policy.parameters())
    assert any(one.grad is not None and one.grad.any() for one in agent.critic.online.parameters())


def test_what_cannot_be_seen_is_refused(store: Store, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(OneStrideError, match=r"sac: expected observations without pictures, got scene, available"):
        train(options(store, run, SACConfig()))
    with pytest.raises(OneStrideError, match="at least one that is no picture"):
        train(options(store, run, CONFIGS["mvp"], observations=("scene",)))
    with pytest.raises(OneStrideError, match="features: expected >= 1, got 0"):
        Vision(features=0)
    for widths in ((), (12,)):
        with pytest.raises(OneStrideError, match="widths: expected multiples of 8"):
            Vision(widths=widths)


def test_chunks_that_no_episode_holds_are_refused(store: Store, tmp_path: Path) -> None:
    config = replace(CONFIGS["qc"], horizon=21, n_action_steps=1)
    with pytest.raises(OneStrideError, match="horizon: expected at most 20, the longest episode's steps, got 21"):
        train(options(store, tmp_path / "run", config))


def test_the_file_refuses_wrong_pictures_and_other_data(store: Store, tmp_path: Path) -> None:
    train(options(store, tmp_path / "run", CONFIGS["mvp"], steps=1))
    contract = export_run(tmp_path / "run", tmp_path / "policy.onnx")
    policy = PolicyRuntime(tmp_path / "policy.onnx")
    good = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    wrong: list[Any] = [None, {}, {"scene": good[0]}, {"scene": good.astype(np.float32)}, {"other": good}]
    for images in wrong:
        with pytest.raises(OneStrideError, match=r"image scene: expected uint8 \(1, 20, 20, 3\), got"):
            policy.infer(np.zeros(1), images)
    other = contract.model_copy(update={"images": (contract.images[0].model_copy(update={"width": 30}),)})
    finding = check_data(other, store.path)[0]
    assert not finding.passed and "scene of shape (20, 30, 3)" in finding.detail
    report = bench(BenchOptions(tmp_path / "policy.onnx", calls=5, seconds=0.1, nfe=(1,)))
    assert report.variants[0].back_to_back["policy"].n == 5


@pytest.mark.parametrize(
    ("config", "loss", "steps", "share"),
    [
        (BCFlowConfig(batch_size=32, lr=1e-3), "actor/flow_mse", 100, 0.85),
        pytest.param(MVPConfig(batch_size=32, lr=1e-3), "actor/mean_flow_mse", 200, 0.6, marks=pytest.mark.slow),
        pytest.param(QCConfig(**LIFT_QC), "actor/flow_mse", 200, 0.6, marks=pytest.mark.slow),
    ],
    ids=["bc_flow", "mvp", "qc"],
)
def test_both_cameras_of_the_lift_demonstrations(
    shared_data: Path, tmp_path: Path, config: AgentConfig, loss: str, steps: int, share: float
) -> None:
    """The loss falls on real demonstrations, and the exported graph is torch's on real pictures."""
    source = shared_data / "robomimic" / "lift_ph_10demos.hdf5"
    if not source.is_file():
        pytest.skip(f"no demonstrations at {source}")
    convert(source, tmp_path / "s")
    seen = ("robot0_eef_pos", "robot0_gripper_qpos", "agentview_image", "robot0_eye_in_hand_image")
    store = Store.open(tmp_path / "s")
    train(options(store, tmp_path / "run", config, steps=steps, observations=seen, vision=Vision()))
    _falls(tmp_path / "run", loss, share)
    contract = export_run(tmp_path / "run", tmp_path / "policy.onnx")
    assert [image.name for image in contract.images] == list(seen[2:])


@pytest.mark.slow
def test_push_t_pictures(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "diffusion_policy" / "pusht_cchi_v7_replay.zarr"
    if not source.is_dir():
        pytest.skip(f"no Push-T file at {source}")
    convert(source, tmp_path / "s", options=Options(as_uint8=("img",)))
    config = BCFlowConfig(batch_size=32, lr=1e-3, history=2)
    store = Store.open(tmp_path / "s")
    train(options(store, tmp_path / "run", config, steps=300, observations=("state", "img"), vision=Vision()))
    _falls(tmp_path / "run", "actor/flow_mse", 0.5)
    contract = export_run(tmp_path / "run", tmp_path / "policy.onnx")
    assert contract.inputs["image.img"] == (1, 2, 96, 96, 3)


def _falls(run: Path, name: str, share: float) -> None:
    """The last tenth of a metric lies below a share of its first tenth."""
    values = np.array([row[name] for row in read_metrics(run / "metrics.csv")])
    tenth = len(values) // 10
    assert np.isfinite(values).all()
    assert values[-tenth:].mean() < share * values[:tenth].mean(), values
