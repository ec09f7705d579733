"""Run an exported policy: verified on load, then fixed buffers, seeded noise and one thread."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onestride.deploy import onnx_file
from onestride.deploy.binding import Binding
from onestride.deploy.contract import Contract
from onestride.deploy.foreign import load_policy
from onestride.deploy.graph import graph_problem
from onestride.deploy.monitors import Reading
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array

Float32 = NDArray[np.float32]
Images = Mapping[str, NDArray[np.uint8]]
"""Name in the contract -> its picture at each observation step (To, H, W, C), whole."""
Convert = Callable[[bytes], bytes]
"""From one ONNX model to another with the same inputs and outputs."""


def output_name(nfe: int) -> str:
    """The graph output that takes `nfe` network evaluations."""
    return f"actions_nfe{nfe}"


def output_shapes(contract: Contract) -> dict[str, tuple[int, ...]]:
    """The graph's outputs, in order: a chunk for each NFE, then a number for each monitor."""
    if contract.graph is not None:
        return {contract.graph.output: contract.chunk_shape}
    chunks = {output_name(nfe): contract.chunk_shape for nfe in contract.policy.nfe}
    return {**chunks, **{monitor.name: (1,) for monitor in contract.policy.monitors}}


def load_contract(path: str | Path, contract: str | Path | None = None) -> tuple[Contract, str]:
    """Verify a policy file and read its contract, without loading its graph.

    Args:
        path: the ONNX file.
        contract: a contract file, where the policy does not carry its own.

    Returns:
        The contract and the file's SHA-256.

    Raises:
        OneStrideError: missing, damaged, without a contract, or with one that is refused.
    """
    return load_policy(path, contract)[:2]


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


def runtime_identity(provider: str) -> str:
    """What the bits of an inference depend on beside the file: two runs under the same words give the same bits."""
    return f"{platform.machine()}, onnxruntime {import_onnxruntime().__version__}, {provider}, numpy {np.__version__}"


class PolicyRuntime:
    """A policy file ready to run.

    Args:
        path: the ONNX file.
        contract: a contract file, where the policy does not carry its own.
        nfe: network evaluations per action; default the contract's first.
        seed: of the noise generator.
        provider: onnxruntime execution provider; a missing one is an error, never a silent fall-back.
        provider_options: what the provider is told, in its own words.
        convert: what to make of the graph before it is loaded, such as one of lower precision.

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
        self,
        path: str | Path,
        *,
        contract: str | Path | None = None,
        nfe: int | None = None,
        seed: int = 0,
        provider: str = "CPUExecutionProvider",
        provider_options: Mapping[str, str] | None = None,
        convert: Convert | None = None,
    ) -> None:
        self.contract, self.sha256, data = load_policy(path, contract)
        self.nfe = self.contract.policy.nfe[0] if nfe is None else nfe
        if self.nfe not in self.contract.policy.nfe:
            raise unknown(f"NFE of {path}", self.nfe, self.contract.policy.nfe)
        monitors = self.contract.policy.monitors
        shapes, graph = output_shapes(self.contract), self.contract.graph
        self._outputs = [graph.output if graph else output_name(self.nfe), *(monitor.name for monitor in monitors)]
        output, *further = self._outputs
        session = create_session(data, output, provider, str(path), *further, options=provider_options, convert=convert)
        if problem := graph_problem(session, self.contract, shapes[output]):
            raise OneStrideError(f"{path}: {problem}")
        self.readings: tuple[Reading, ...] = ()
        self.provider: str = session.get_providers()[0]
        history = self.contract.history
        inputs = history * self.contract.observation_size
        self._observation: Float32 = np.zeros((1, inputs), np.float32)
        self._noise: Float32 = np.zeros(self.contract.noise_shape, np.float32)
        self._images = {term.name: np.zeros((1, history, *term.shape), np.uint8) for term in self.contract.images}
        pictures = {term.input_name: self._images[term.name] for term in self.contract.images}
        feed: dict[str, NDArray[Any]] = {"observation": self._observation, "noise": self._noise, **pictures}
        self._draws = graph is None
        if graph is not None:
            feed = {graph.input: self._observation}
        try:
            self._binding = Binding(session, provider, feed, {name: shapes[name] for name in self._outputs})
            self.reset(seed)
            self.first_call = self._warm_up(inputs)
        except Exception as error:  # onnxruntime's own, which share no base class
            raise OneStrideError(f"{path}: {provider}: the first inference fails: {error}") from None

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
        self.copy_in(observation, images)
        self.evaluate()
        return self.copy_out()

    def predict(self, observation: Array, noise: Float32, images: Images | None = None) -> Float32:
        """The chunk (h, Da) for an observation (To * Do,) and given noise, shaped as :attr:`noise`; see `infer`."""
        self._noise[...] = noise
        self._fill(observation, images)
        self.evaluate()
        return self.copy_out()

    def copy_in(self, observation: Array, images: Images | None = None) -> None:
        """The first step of `infer`: draw the next noise, and bring all inputs to the device."""
        if self._draws:
            self._generator.standard_normal(out=self._noise, dtype=np.float32)
        self._fill(observation, images)

    def evaluate(self) -> None:
        """The second: run the graph."""
        self._binding.evaluate()

    def copy_out(self) -> Float32:
        """The third: the chunk (h, Da), and the monitors' readings."""
        chunks, *watched = self._binding.copy_out()
        if watched:
            pairs = zip(self.contract.policy.monitors, watched, strict=True)
            self.readings = tuple(Reading(terms.name, float(value[0]), terms.threshold) for terms, value in pairs)
        chunk: Float32 = chunks.reshape(self._noise.shape[1:])
        return chunk

    @property
    def noise(self) -> Float32:
        """The noise of the last call: (h, Da), or (N, h, Da) of a policy that ranks N > 1 candidates.

        Zeros where the graph takes none.
        """
        return np.array(self._noise if len(self._noise) > 1 else self._noise[0])

    def _fill(self, observation: Array, images: Images | None) -> None:
        self._observation[0] = observation
        if self._images:
            self._look(images or {})
        self._binding.copy_in()

    def _look(self, images: Images) -> None:
        for name, held in self._images.items():
            image = images.get(name)
            if image is None or image.shape != held.shape[1:] or image.dtype != np.uint8:
                got = "none" if image is None else f"{image.dtype} {image.shape}"
                raise OneStrideError(f"image {name}: expected uint8 {held.shape[1:]}, got {got}")
            held[0] = image


def create_session(
    data: bytes,
    output: str,
    provider: str,
    source: str,
    *further: str,
    options: Mapping[str, str] | None = None,
    convert: Convert | None = None,
) -> Any:
    """An onnxruntime session on one thread that computes `output`, the `further` ones, and nothing else.

    The provider is given `options`, in its own words, and what `convert` makes of the graph.

    Raises:
        OneStrideError: the provider is missing or the graph is refused.
    """
    onnxruntime = import_onnxruntime()
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise unknown("onnxruntime provider on this machine", provider, available)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    try:
        pruned = onnx_file.with_output(data, output, *further)
        session = onnxruntime.InferenceSession(
            convert(pruned) if convert else pruned, settings, providers=[(provider, dict(options or {}))]
        )
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


class Policy(Protocol):
    """What gives chunks; see `PolicyRuntime` and `adaptive.AdaptivePolicy`."""

    provider: str
    readings: tuple[Reading, ...]

    def infer(self, observation: Array) -> Float32:
        """The chunk (h, Da) for an observation (To * Do,)."""
        ...

    def reset(self, seed: int) -> None:
        """Start the noise sequence of `seed`."""
        ...


class ThreadedInference:
    """Inference in its own thread, so that a slow policy cannot stop the control thread.

    Args:
        policy: to infer from.
        begin: called by the thread before all else, such as to ask for its priority.
    """

    def __init__(self, policy: Policy, begin: Callable[[], None] = lambda: None) -> None:
        self.policy, self._begin = policy, begin
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
        self._begin()
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


def predicted(policy: Policy, observation: Array, at: int) -> Prediction:
    """One inference as a value: an exception becomes the prediction's error."""
    try:
        chunk = policy.infer(observation)
        return Prediction(chunk, at, readings=policy.readings)
    except Exception as error:  # whatever it is, the controller must learn of it and stop safely
        return Prediction(None, at, f"{type(error).__name__}: {error}")
