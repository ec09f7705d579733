"""Run an exported policy: verified on load, then fixed buffers, seeded noise and one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.deploy import onnx_file
from onestride.deploy.contract import Contract, parse_contract
from onestride.deploy.monitors import Reading
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array

Float32 = NDArray[np.float32]
Images = Mapping[str, NDArray[np.uint8]]
"""Name in the contract -> its picture at each observation step (To, H, W, C), whole."""


def output_name(nfe: int) -> str:
    """The graph output that takes `nfe` network evaluations."""
    return f"actions_nfe{nfe}"


def output_shapes(contract: Contract) -> dict[str, tuple[int, ...]]:
    """The graph's outputs, in order: a chunk for each NFE, then a number for each monitor."""
    chunks = {output_name(nfe): contract.chunk_shape for nfe in contract.policy.nfe}
    return {**chunks, **{monitor.name: (1,) for monitor in contract.policy.monitors}}


def load_contract(path: str | Path) -> tuple[Contract, str]:
    """Verify a policy file and read its contract, without loading its graph.

    Returns:
        The contract and the file's SHA-256.

    Raises:
        OneStrideError: missing, damaged, without a contract, or with one that is refused.
    """
    return _verified(onnx_file.read_file(path), str(path))


def _verified(data: bytes, source: str) -> tuple[Contract, str]:
    digest = onnx_file.verify(data, source)
    entries = onnx_file.metadata(data, source)
    if onnx_file.CONTRACT_KEY not in entries:
        raise OneStrideError(f"{source}: carries no {onnx_file.CONTRACT_KEY}")
    return parse_contract(entries[onnx_file.CONTRACT_KEY], source), digest


def import_onnxruntime() -> Any:
    """onnxruntime, whichever build is installed.

    Raises:
        OneStrideError: none is.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise OneStrideError(
            "onnxruntime is not installed: pip install 'onestride[cpu]', or your device's own build"
        ) from None
    return onnxruntime


class PolicyRuntime:
    """A policy file ready to run.

    Args:
        path: the exported file.
        nfe: network evaluations per action; default the contract's first.
        seed: of the noise generator.
        provider: onnxruntime execution provider; a missing one is an error, never a silent fall-back.

    Attributes:
        contract: what the file promises.
        sha256: of the file.
        nfe: network evaluations per action.
        provider: the one in use.
        first_call: duration of the first inference, made while loading [s].
        readings: of the contract's monitors, at the last call.

    Raises:
        OneStrideError: the file, the NFE or the provider is refused.
    """

    def __init__(
        self, path: str | Path, *, nfe: int | None = None, seed: int = 0, provider: str = "CPUExecutionProvider"
    ) -> None:
        data = onnx_file.read_file(path)  # once: what is run is what was verified
        self.contract, self.sha256 = _verified(data, str(path))
        self.nfe = self.contract.policy.nfe[0] if nfe is None else nfe
        if self.nfe not in self.contract.policy.nfe:
            raise unknown(f"NFE of {path}", self.nfe, self.contract.policy.nfe)
        monitors = self.contract.policy.monitors
        self._outputs = [output_name(self.nfe), *(monitor.name for monitor in monitors)]
        self._session = create_session(data, self._outputs[0], provider, str(path), *self._outputs[1:])
        self.readings: tuple[Reading, ...] = ()
        self.provider: str = self._session.get_providers()[0]
        history = self.contract.history
        inputs = history * self.contract.observation_size
        self._observation: Float32 = np.zeros((1, inputs), np.float32)
        self._noise: Float32 = np.zeros(self.contract.noise_shape, np.float32)
        self._images = {term.name: np.zeros((1, history, *term.shape), np.uint8) for term in self.contract.images}
        pictures = {term.input_name: self._images[term.name] for term in self.contract.images}
        self._feed: dict[str, Any] = {"observation": self._observation, "noise": self._noise, **pictures}
        self.reset(seed)
        self.first_call = self._warm_up(inputs)

    def _warm_up(self, inputs: int) -> float:
        """Make the first call, which allocates; how long it took [s]."""
        start = time.perf_counter()
        black = {name: np.zeros_like(image[0]) for name, image in self._images.items()}
        self.predict(np.zeros(inputs), np.zeros_like(self._noise), black)
        return time.perf_counter() - start

    def reset(self, seed: int) -> None:
        """Start the noise sequence of `seed`."""
        self._generator = np.random.default_rng(seed)

    def infer(self, observation: Array, images: Images | None = None) -> Float32:
        """The chunk (h, Da) for an observation (To * Do,), with the next noise of the seeded sequence.

        Args:
            observation: (To * Do,).
            images: the contract's pictures, where it has any.

        Raises:
            OneStrideError: a picture is missing, or has another shape or dtype than the contract's.
        """
        self._generator.standard_normal(out=self._noise, dtype=np.float32)
        return self._run(observation, images)

    def predict(self, observation: Array, noise: Float32, images: Images | None = None) -> Float32:
        """The chunk (h, Da) for an observation (To * Do,) and given noise, shaped as :attr:`noise`; see `infer`."""
        self._noise[...] = noise
        return self._run(observation, images)

    @property
    def noise(self) -> Float32:
        """The noise of the last call: (h, Da), or (N, h, Da) of a policy that ranks N > 1 candidates."""
        return np.array(self._noise if len(self._noise) > 1 else self._noise[0])

    def _run(self, observation: Array, images: Images | None) -> Float32:
        self._observation[0] = observation
        if self._images:
            self._look(images or {})
        chunks, *watched = self._session.run(self._outputs, self._feed)
        pairs = zip(self.contract.policy.monitors, watched, strict=True)
        self.readings = tuple(Reading(terms.name, float(value[0]), terms.threshold) for terms, value in pairs)
        chunk: Float32 = chunks[0]
        return chunk

    def _look(self, images: Images) -> None:
        for name, held in self._images.items():
            image = images.get(name)
            if image is None or image.shape != held.shape[1:] or image.dtype != np.uint8:
                got = "none" if image is None else f"{image.dtype} {image.shape}"
                raise OneStrideError(f"image {name}: expected uint8 {held.shape[1:]}, got {got}")
            held[0] = image


def create_session(data: bytes, output: str, provider: str, source: str, *further: str) -> Any:
    """An onnxruntime session on one thread that computes `output`, the `further` ones, and nothing else.

    Raises:
        OneStrideError: the provider is missing or the graph is refused.
    """
    onnxruntime = import_onnxruntime()
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise unknown("onnxruntime provider on this machine", provider, available)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        pruned = onnx_file.with_output(data, output, *further)
        session = onnxruntime.InferenceSession(pruned, options, providers=[provider])
        used = session.get_providers()[0]
    except Exception as error:  # onnxruntime raises its own C++ exceptions, which share no base class
        raise OneStrideError(f"{source}: the graph is refused: {error}") from None
    if used != provider:  # onnxruntime falls back where the provider's own libraries are missing
        raise OneStrideError(f"{source}: expected onnxruntime provider {provider}, it fell back to {used}")
    return session


@dataclass(frozen=True)
class Prediction:
    """What one inference gave.

    Attributes:
        chunk: (h, Da); None if it failed.
        requested_at: actions consumed when it was requested.
        error: why it failed.
        readings: of the policy's monitors.
    """

    chunk: Float32 | None
    requested_at: int
    error: str = ""
    readings: tuple[Reading, ...] = ()


class InlineInference:
    """Inference in the caller's thread: deterministic, for replay, evaluation and tests."""

    def __init__(self, policy: PolicyRuntime) -> None:
        self.policy = policy
        self._prediction: Prediction | None = None

    def request(self, observation: Array, at: int) -> None:
        """Infer from `observation` (To * Do,), requested when `at` actions had been consumed."""
        self._prediction = predicted(self.policy, observation, at)

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        """The finished prediction, once; None if there is none after `timeout` [s]."""
        del timeout
        prediction, self._prediction = self._prediction, None
        return prediction

    def reset(self, seed: int | None = None) -> None:
        """Drop what is pending; start the noise sequence of `seed` if given."""
        self._prediction = None
        if seed is not None:
            self.policy.reset(seed)

    def close(self) -> None:
        """Nothing to free."""


class ThreadedInference:
    """Inference in its own thread, so that a slow policy cannot stop the control thread."""

    def __init__(self, policy: PolicyRuntime) -> None:
        self.policy = policy
        self._lock = threading.Lock()
        self._wanted, self._done = threading.Event(), threading.Event()
        self._request: tuple[Array, int] | None = None
        self._prediction: Prediction | None = None
        self._seed: int | None = None
        self._generation, self._closed = 0, False
        self._thread = threading.Thread(target=self._work, name="onestride-inference", daemon=True)
        self._thread.start()

    def request(self, observation: Array, at: int) -> None:
        """Ask for a chunk; a request that has not begun is replaced."""
        with self._lock:
            self._request = (observation, at)
            self._prediction = None
            self._done.clear()
        self._wanted.set()

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        """The finished prediction, once; waits at most `timeout` [s]."""
        if not self._done.wait(timeout):
            return None
        with self._lock:
            prediction, self._prediction = self._prediction, None
            self._done.clear()
        return prediction

    def reset(self, seed: int | None = None) -> None:
        """Drop what is pending and what is running; start the noise sequence of `seed` if given.

        The thread starts the sequence, before its next inference: one that still runs must not draw from it.
        """
        with self._lock:
            self._request = self._prediction = None
            self._generation += 1
            self._done.clear()
            self._seed = self._seed if seed is None else seed

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wanted.set()
        self._thread.join(timeout=2.0)

    def _work(self) -> None:
        while not self._closed:
            self._wanted.wait()
            self._wanted.clear()
            with self._lock:
                request, generation, seed = self._request, self._generation, self._seed
                self._request = None
                self._seed = seed if request is None else None
            if request is None:
                continue
            if seed is not None:
                self.policy.reset(seed)
            prediction = predicted(self.policy, *request)
            with self._lock:
                if generation == self._generation:
                    self._prediction = prediction
                    self._done.set()


def predicted(policy: PolicyRuntime, observation: Array, at: int) -> Prediction:
    """One inference as a value: an exception becomes the prediction's error."""
    try:
        chunk = policy.infer(observation)
        return Prediction(chunk, at, readings=policy.readings)
    except Exception as error:  # whatever it is, the controller must learn of it and stop safely
        return Prediction(None, at, f"{type(error).__name__}: {error}")
