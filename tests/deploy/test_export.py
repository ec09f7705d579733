"""The exported file computes what torch computes, is one file, and is not written where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from onestride.deploy import onnx_file
from onestride.deploy.export import TOLERANCE, export_policy, parity
from onestride.deploy.runtime import PolicyRuntime, load_contract
from onestride.hardware.errors import OneStrideError

torch = pytest.importorskip("torch", reason="needs the extra `train`")
onnx = pytest.importorskip("onnx", reason="needs the extra `train`")

NOTHING = np.empty((0, 28))


@pytest.fixture(scope="module")
def agent(small_run):
    from onestride.training.checkpoint import load_run

    return load_run(small_run.run).agent


@pytest.mark.parametrize("nfe", [1, 2, 4])
def test_every_nfe_computes_what_torch_computes(small_run, agent, nfe):
    runtime, module = PolicyRuntime(small_run.policy, nfe=nfe), agent.as_exportable((nfe,))
    terms, rng = runtime.contract.dataset, np.random.default_rng(nfe)
    low, high = np.array(terms.minimum), np.array(terms.maximum)
    for index in range(200):
        spread = 1.0 if index % 2 else 5.0  # beyond what it was trained on, too
        observation = (low + high) / 2 + spread * (high - low) * rng.uniform(-0.5, 0.5, 28)
        noise = rng.standard_normal((5, 5), dtype=np.float32)
        with torch.no_grad():
            (expected,) = module(torch.tensor(observation[None], dtype=torch.float32), torch.from_numpy(noise[None]))
        np.testing.assert_allclose(runtime.predict(observation, noise), expected[0].numpy(), rtol=0, atol=TOLERANCE)


def test_more_evaluations_are_another_answer(small_run):
    """Otherwise the variants would agree with torch for nothing."""
    noise = np.random.default_rng(0).standard_normal((5, 5), dtype=np.float32)
    chunks = [PolicyRuntime(small_run.policy, nfe=nfe).predict(np.zeros(28), noise) for nfe in (1, 2, 4)]
    assert np.abs(chunks[0] - chunks[1]).max() > 1e-3
    assert np.abs(chunks[1] - chunks[2]).max() > 1e-3


def test_one_file_is_written_with_everything_inside(small_run):
    assert sorted(path.name for path in small_run.policy.parent.iterdir()) == ["cube.zarr", "policy.onnx", "run"]
    model = onnx.load(small_run.policy, load_external_data=False)
    onnx.checker.check_model(model)
    assert model.graph.initializer
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    keys = {entry.key for entry in model.metadata_props}
    assert {onnx_file.CONTRACT_KEY, onnx_file.HASH_KEY} <= keys


def test_the_contract_says_what_export_did(small_run):
    contract, _ = load_contract(small_run.policy)
    assert contract.export is not None
    assert 0 <= contract.export.parity <= TOLERANCE
    assert (contract.export.opset, contract.export.parity_samples) == (20, 256)
    assert contract.export.torch == torch.__version__
    assert contract.policy.steps == 60
    model = onnx.load(small_run.policy)
    assert model.opset_import[0].version == contract.export.opset


class Module(torch.nn.Module):
    """Two chunks from the observation's mean and the noise; `spoil` makes the exported graph another one."""

    def __init__(self, spoil=lambda chunk: chunk) -> None:
        super().__init__()
        self._spoil = spoil

    def forward(self, observation, noise):
        chunk = noise + observation.mean()
        if torch.compiler.is_exporting():
            chunk = self._spoil(chunk)
        return chunk, 2 * chunk


def test_a_module_that_changes_on_its_way_out_is_refused_and_nothing_written(contract, tmp_path):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"the policy of yesterday")
    with pytest.raises(OneStrideError, match=r"export differs from torch: expected at most 1e-05, got 0\.0002"):
        export_policy(Module(lambda chunk: chunk + 1e-4), contract, path, NOTHING)
    assert [file.name for file in tmp_path.iterdir()] == ["policy.onnx"]
    assert path.read_bytes() == b"the policy of yesterday"


def test_what_is_exported_runs_and_replaces_the_file(contract, tmp_path):
    path = tmp_path / "new" / "policy.onnx"
    complete = export_policy(Module(), contract, path, np.random.default_rng(0).normal(size=(10, 28)))
    assert [file.name for file in path.parent.iterdir()] == ["policy.onnx"]
    assert load_contract(path)[0] == complete
    noise = np.ones((5, 5), np.float32)
    np.testing.assert_allclose(PolicyRuntime(path, nfe=2).predict(np.full(28, 0.5), noise), 3 * noise, rtol=1e-6)


class Numbers:
    """Stands for a torch module: gives these chunks, whatever it is asked."""

    def __init__(self, *chunks: np.ndarray) -> None:
        self._chunks = chunks

    def __call__(self, observation, noise):
        del observation, noise
        return [torch.from_numpy(chunk) for chunk in self._chunks]


def test_parity_is_the_largest_difference_of_any_output(contract, sample_policy):
    """Against the sample graph by hand: it computes the mean plus a tenth, and two tenths, of the noise."""

    def module(observation, noise):
        return observation.mean() + 0.1 * noise, observation.mean() + 0.2 * noise + 0.25

    worst, count = parity(module, sample_policy.read_bytes(), contract, NOTHING)  # pyright: ignore[reportArgumentType]
    assert worst == pytest.approx(0.25, abs=1e-5)
    assert count == 128, "without a dataset, only random observations"
    _, count = parity(module, sample_policy.read_bytes(), contract, np.zeros((3, 28)))  # pyright: ignore[reportArgumentType]
    assert count == 256


@pytest.mark.parametrize("which", [0, 1])
def test_numbers_that_are_none_are_no_parity(contract, sample_policy, which):
    chunks = [np.zeros((1, 5, 5), np.float32) for _ in range(2)]
    chunks[which][0, 3, 2] = np.nan
    worst, _ = parity(Numbers(*chunks), sample_policy.read_bytes(), contract, NOTHING)  # pyright: ignore[reportArgumentType]
    assert np.isnan(worst)
    assert not worst <= TOLERANCE


def test_chunks_of_another_shape_than_promised_are_refused(contract, tmp_path):
    """torch and the graph agree, and the contract is wrong."""

    class Short(Module):
        def forward(self, observation, noise):
            return tuple(chunk[:, :2] for chunk in super().forward(observation, noise))

    with pytest.raises(OneStrideError, match=r"expected actions_nfe1 of shape \(1, 5, 5\), got \(1, 2, 5\)"):
        export_policy(Short(), contract, tmp_path / "policy.onnx", NOTHING)
