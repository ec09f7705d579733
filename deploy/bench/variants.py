"""Ways to run one policy: which provider, in which precision, and what each provider has to be told for it."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onestride.deploy import onnx_file
from onestride.deploy.bench.device import ROOT, ask
from onestride.deploy.runtime import Convert, import_onnxruntime
from onestride.hardware.errors import OneStrideError, unknown

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
PRECISIONS = ("fp32", "fp16", "int8")

#: The most that an action may differ from float32's, relative to actions beyond 1. Other hardware adds in another
#: order and may round products to TF32.
TOLERANCES = {"fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2}
SAME_HARDWARE = 1e-5


def provider_of(name: str) -> str:
    """Onnxruntime's name of a provider, from its short or its full one.

    Raises:
        OneStrideError: this machine's onnxruntime has none of that name.
    """
    provider, available = PROVIDERS.get(name, name), import_onnxruntime().get_available_providers()
    if provider not in available:
        raise unknown("onnxruntime provider on this machine", name, available)
    return provider


def precision_of(name: str) -> str:
    """The name of a precision.

    Raises:
        OneStrideError: there is none of that name.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    return name


def tolerance(provider: str, precision: str, stated: dict[str, float]) -> float:
    """What a variant's actions may differ by: as stated, else the usual."""
    if precision in stated:
        return stated[precision]
    return SAME_HARDWARE if (provider, precision) == (CPU, "fp32") else TOLERANCES[precision]


def options_of(provider: str, precision: str, digest: str, *, cuda_graph: bool = False) -> dict[str, str]:
    """What a provider is told.

    Args:
        provider: onnxruntime's name.
        precision: of the products.
        digest: of the policy file, which its engines are kept by.
        cuda_graph: replay the kernels as one graph.
    """
    if provider == TENSORRT:
        return _tensorrt(precision, digest, cuda_graph=cuda_graph)
    if provider == CUDA:
        return {"use_tf32": "0", "enable_cuda_graph": str(int(cuda_graph))}
    return {}


def _tensorrt(precision: str, digest: str, *, cuda_graph: bool) -> dict[str, str]:
    cache = engine_folder(digest, precision)
    cache.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_fp16_enable": str(int(precision == "fp16")),
        "trt_cuda_graph_enable": str(int(cuda_graph)),
    }


def engine_folder(digest: str, precision: str, root: Path = ROOT) -> Path:
    """Where TensorRT's engines of a policy are kept: apart for everything that they are built for."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    made_for = "\n".join((_gpu(root), _tensorrt_version(), import_onnxruntime().__version__))
    machine = hashlib.sha256(made_for.encode()).hexdigest()[:12]
    return cache / "onestride" / "engines" / f"{digest[:16]}-{machine}-{precision}"


def _gpu(root: Path) -> str:
    model = root / "proc/device-tree/model"  # a Jetson's GPU is part of the board
    if model.exists():
        return model.read_text(encoding="utf-8", errors="replace")
    try:
        return ask(["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"])
    except OneStrideError:
        return "unknown"


def _tensorrt_version() -> str:
    library = ctypes.util.find_library("nvinfer")
    try:
        return str(ctypes.CDLL(library).getInferLibVersion()) if library else "unknown"
    except (OSError, AttributeError):
        return "unknown"


def conversion(provider: str, precision: str) -> Convert | None:
    """What turns a float32 graph into one of this precision; None where the provider does so itself, or needs none.

    Raises:
        OneStrideError: it cannot be had here, with what it needs.
    """
    if precision == "fp32" or (provider == TENSORRT and precision == "fp16"):
        return None
    if precision == "int8" and provider != CPU:
        raise OneStrideError("int8 with ranges measured at run time is made for the CPU provider only")
    _require_converters()
    return _to_fp16 if precision == "fp16" else _to_int8


def _require_converters() -> None:
    try:
        import onnxruntime.quantization  # noqa: F401  (it is what needs onnx)
    except ImportError as error:
        missing = getattr(error, "name", None) or "onnx"
        raise OneStrideError(f"this needs {missing} to rewrite the graph: pip install 'onestride[bench]'") from None


def _to_fp16(data: bytes) -> bytes:
    """Weights and products in half precision; inputs and outputs stay float32."""
    from onnxruntime.transformers import float16

    with _in_a_file(data) as path:
        return bytes(float16.convert_float_to_float16(str(path), keep_io_types=True).SerializeToString())


def _to_int8(data: bytes) -> bytes:
    """Weights in 8 bits, each column with a scale of its own; activations by their range at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _in_a_file(onnx_file.without_shapes(data)) as path, _quiet():
        made = path.with_name("int8.onnx")
        quantize_dynamic(path, made, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
        return made.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """The converter recommends a preparation of its own, which these graphs do not need."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


@contextmanager
def _in_a_file(data: bytes) -> Iterator[Path]:
    """The model as a file in a folder of its own, which the converters want."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        yield path
