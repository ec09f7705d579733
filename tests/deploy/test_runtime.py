"""A policy file is verified and then run as it is: seeded, on the provider asked for, in a thread or not."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from policy_samples import sample_chunk, signed, signed_anew

from onestride.deploy import onnx_file, runtime
from onestride.deploy.runtime import InlineInference, PolicyRuntime, Prediction, ThreadedInference, load_contract
from onestride.hardware.errors import OneStrideError

PATIENCE = 10.0  # [s] that a test waits for a thread at most
observations = arrays(np.float64, 28, elements=st.floats(-5, 5, width=32))


@pytest.fixture(scope="module")
def policy(sample_policy):
    return PolicyRuntime(sample_policy, seed=5)


def noise_of(seed: int, calls: int) -> list[np.ndarray]:
    """The noise of the first calls, by numpy's own generator."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal((5, 5), dtype=np.float32) for _ in range(calls)]


# One policy


@given(observations, arrays(np.float32, (5, 5), elements=st.floats(-3, 3, width=32)))
@settings(max_examples=25)
def test_a_chunk_is_what_the_graph_computes(policy, observation, noise):
    chunk = policy.predict(observation, noise)
    assert chunk.shape == (5, 5)
    assert chunk.dtype == np.float32
    np.testing.assert_allclose(chunk, sample_chunk(observation.astype(np.float32), noise, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(policy.noise, noise)


@given(observations, st.integers(0, 2**32))
@settings(max_examples=25)
def test_the_noise_is_numpys_seeded_sequence(policy, observation, seed):
    policy.reset(seed)
    for noise in noise_of(seed, 3):
        chunk = policy.infer(observation)
        np.testing.assert_array_equal(policy.noise, noise)
        np.testing.assert_array_equal(chunk, policy.predict(observation, noise))


def test_the_seed_given_at_the_start_counts(sample_policy):
    fresh = PolicyRuntime(sample_policy, seed=11)
    fresh.infer(np.zeros(28))
    np.testing.assert_array_equal(fresh.noise, noise_of(11, 1)[0])


def test_chunks_do_not_share_memory(policy):
    first = policy.infer(np.zeros(28))
    kept = first.copy()
    policy.infer(np.ones(28))
    np.testing.assert_array_equal(first, kept)


def test_each_nfe_is_its_own_output_and_the_contracts_first_is_the_default(sample_policy):
    noise = noise_of(0, 1)[0]
    for nfe in (1, 2):
        chosen = PolicyRuntime(sample_policy, nfe=nfe)
        assert chosen.nfe == nfe
        np.testing.assert_allclose(chosen.predict(np.ones(28), noise), sample_chunk(np.ones(28), noise, nfe), rtol=1e-5)
    assert PolicyRuntime(sample_policy).nfe == 1


def test_an_unknown_nfe_lists_those_of_the_file(sample_policy):
    with pytest.raises(OneStrideError, match=r"unknown NFE of .*policy\.onnx: got 8, available: 1, 2"):
        PolicyRuntime(sample_policy, nfe=8)


def test_an_unknown_provider_lists_those_of_the_machine(sample_policy):
    with pytest.raises(OneStrideError, match=r"unknown onnxruntime provider .*: got 'TpuExecutionProvider', .*CPU"):
        PolicyRuntime(sample_policy, provider="TpuExecutionProvider")


def test_a_provider_that_falls_back_is_an_error(sample_policy, monkeypatch):
    """onnxruntime-gpu without its CUDA libraries offers the provider and then runs on the CPU."""
    real = runtime.import_onnxruntime()

    def on_the_cpu(data, options, providers):
        assert providers == [("CUDAExecutionProvider", {})]
        return real.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    pretending = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=real.SessionOptions,
        ExecutionMode=real.ExecutionMode,
        InferenceSession=on_the_cpu,
    )
    monkeypatch.setattr(runtime, "import_onnxruntime", lambda: pretending)
    with pytest.raises(
        OneStrideError, match="expected onnxruntime provider CUDAExecutionProvider, it fell back to CPU"
    ):
        PolicyRuntime(sample_policy, provider="CUDAExecutionProvider")


def test_the_bytes_that_are_run_are_the_bytes_that_were_verified(sample_policy, monkeypatch):
    """A file that is replaced while it is loaded is not mixed from two."""
    reads = []
    original = onnx_file.read_file
    monkeypatch.setattr(onnx_file, "read_file", lambda path: reads.append(path) or original(path))
    PolicyRuntime(sample_policy)
    assert reads == [sample_policy]


def test_a_file_without_a_contract_is_refused(sample_policy, tmp_path):
    path = tmp_path / "bare.onnx"
    data = onnx_file.with_metadata(sample_policy.read_bytes(), {onnx_file.CONTRACT_KEY: ""})
    path.write_bytes(onnx_file.sign(data).replace(b"onestride.contract", b"onestride.kontrakt"))
    path.write_bytes(onnx_file.sign(path.read_bytes()))
    for load in (load_contract, PolicyRuntime):
        with pytest.raises(OneStrideError, match=r"bare\.onnx: carries no onestride\.contract"):
            load(path)


def test_a_graph_that_lacks_a_promised_output_is_refused(sample_policy, tmp_path):
    path = signed_anew(sample_policy, tmp_path / "p.onnx", lambda content: content["policy"].update(nfe=[8]))
    with pytest.raises(OneStrideError, match="got 'actions_nfe8', available: actions_nfe1, actions_nfe2"):
        PolicyRuntime(path)


def test_a_signed_file_that_is_no_graph_is_refused(tmp_path, contract):
    path = tmp_path / "empty.onnx"
    path.write_bytes(signed(b"", contract))
    with pytest.raises(OneStrideError, match=r"empty\.onnx: the graph is refused"):
        PolicyRuntime(path)


# In a thread


@pytest.fixture
def threaded(sample_policy):
    inference = ThreadedInference(PolicyRuntime(sample_policy))
    yield inference
    inference.close()
    assert not inference._thread.is_alive()


def answer(inference, observation, at) -> Prediction:
    inference.request(observation, at)
    prediction = inference.poll(PATIENCE)
    assert prediction is not None
    assert inference.poll() is None, "the finished prediction is given once"
    return prediction


def test_the_thread_gives_what_the_caller_would_have_computed(sample_policy, threaded):
    inline = InlineInference(PolicyRuntime(sample_policy))
    rng = np.random.default_rng(2)
    for seed in (7, 8, 7):
        inline.reset(seed)
        threaded.reset(seed)
        for at in range(6):
            observation = rng.normal(size=28)
            expected, got = answer(inline, observation, at), answer(threaded, observation, at)
            assert got.requested_at == expected.requested_at == at
            np.testing.assert_array_equal(got.chunk, expected.chunk)


def test_nothing_asked_nothing_given(threaded):
    began = time.monotonic()
    assert threaded.poll() is None
    assert threaded.poll(0.02) is None
    assert time.monotonic() - began < PATIENCE


class Gated:
    """A policy that waits at a gate before it draws its noise."""

    readings = ()

    def __init__(self, policy: PolicyRuntime) -> None:
        self._policy, self.gate, self.entered = policy, threading.Event(), threading.Event()

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)

    def infer(self, observation):
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        return self._policy.infer(observation)


@pytest.fixture
def gated(sample_policy):
    policy = Gated(PolicyRuntime(sample_policy))
    inference = ThreadedInference(policy)  # pyright: ignore[reportArgumentType]
    yield policy, inference
    policy.gate.set()
    inference.close()


def test_a_reset_drops_what_is_running_and_its_noise(sample_policy, gated):
    """The first chunk after a reset uses the first noise of its seed, whatever was on its way before."""
    policy, inference = gated
    inference.reset(1)
    inference.request(np.zeros(28), 0)
    assert policy.entered.wait(PATIENCE)
    inference.reset(2)
    inference.request(np.ones(28), 3)
    policy.gate.set()
    prediction = inference.poll(PATIENCE)
    assert prediction is not None
    assert prediction.requested_at == 3
    expected = PolicyRuntime(sample_policy).predict(np.ones(28), noise_of(2, 1)[0])
    np.testing.assert_array_equal(prediction.chunk, expected)


def test_what_was_running_before_a_reset_is_never_given(gated):
    policy, inference = gated
    inference.request(np.zeros(28), 0)
    assert policy.entered.wait(PATIENCE)
    inference.reset()
    policy.gate.set()
    assert inference.poll(0.1) is None


def test_a_reset_drops_a_finished_prediction(threaded):
    threaded.request(np.zeros(28), 0)
    assert threaded._done.wait(PATIENCE)
    threaded.reset()
    assert threaded.poll(0.02) is None


def test_a_request_that_has_not_begun_is_replaced(gated):
    policy, inference = gated
    inference.request(np.zeros(28), 0)
    assert policy.entered.wait(PATIENCE)
    inference.request(np.zeros(28), 1)
    inference.request(np.zeros(28), 2)
    policy.gate.set()
    seen = []
    while not seen or seen[-1] != 2:
        prediction = inference.poll(PATIENCE)
        assert prediction is not None
        seen.append(prediction.requested_at)
    assert 1 not in seen


def test_a_policy_that_hangs_does_not_hold_up_who_asks(gated):
    policy, inference = gated
    inference.request(np.zeros(28), 0)
    assert policy.entered.wait(PATIENCE)
    began = time.monotonic()
    assert inference.poll(0.001) is None
    inference.reset(3)
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("kind", [InlineInference, ThreadedInference])
def test_an_exception_becomes_the_predictions_error(sample_policy, kind):
    policy = PolicyRuntime(sample_policy)
    inference = kind(policy)
    failed = answer(inference, np.zeros(3), 4)
    assert failed.chunk is None
    assert failed.requested_at == 4
    assert failed.error.startswith("ValueError: ")
    assert answer(inference, np.zeros(28), 5).chunk is not None, "one failure does not end it"
    inference.close()
