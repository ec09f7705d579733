"""Which library multiplies the matrices of a gradient step, and in which precision candidates are ranked.

torch gives float32 products to MKL, which takes its AVX2 path on processors that are not Intel's. oneDNN, which torch
brings along for its low-precision products, takes AVX-512 wherever there is one, at the same precision: measured on an
AMD EPYC at twice the speed. :func:`fast_products` asks for it; where there is nothing to gain it changes nothing.

Every rule here depends on the processor, never on a clock, so that a run can go on bit for bit; the one exception
measures, and says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

NARROW = 16
"""Outputs below which a layer is too narrow for oneDNN to gain anything."""

_log = logging.getLogger(__name__)
_state = threading.local()


@contextmanager
def fast_products(wanted: bool = True) -> Iterator[None]:
    """Within, :func:`linear` uses oneDNN where it is faster; on this thread, gradients included."""
    before = getattr(_state, "fast", False)
    _state.fast = wanted and _onednn_is_faster()
    _keep_freed_memory()
    try:
        yield
    finally:
        _state.fast = before


def are_fast() -> bool:
    """Whether fast products are asked for and to be had."""
    return getattr(_state, "fast", False) and not torch.compiler.is_compiling()


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x Wᵀ + b``: (R, I), (O, I), (O,) -> (R, O)."""
    fits = x.dtype == torch.float32 and x.device.type == "cpu" and x.ndim == 2 and len(weight) >= NARROW
    if fits and are_fast():
        result: torch.Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return functional.linear(x, weight, bias)


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, activation: str = "none"
) -> torch.Tensor:
    """The ``x Wᵀ + b`` of oneDNN with an activation, without gradient.

    Args:
        x: (R, I), contiguous or the transpose of what is: where rows lie apart oneDNN falls back to a plain loop, a
            thousand times slower.
        weight: (O, I), likewise.
        bias: (O,).
        activation: ``none`` or ``relu``.
    """
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, activation, [], "")
    return result


class _Linear(torch.autograd.Function):
    """oneDNN's linear layer, with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = gradients[0].contiguous()
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(g, weight.t()) if of_x else None,
            product(g.t(), x.t()) if of_weight else None,
            g.sum(0) if of_bias else None,
        )


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Let the process keep the memory of small batches from one gradient step to the next.

    glibc hands blocks larger than it has seen freed back to the system at once, and the next step pays for every page
    of them anew. It has now seen 32 MB freed, the most it learns from.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


@lru_cache(maxsize=1)
def _processor() -> tuple[str, frozenset[str]]:
    """Vendor and features of the CPU; unknown where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "", frozenset()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    return fields.get("vendor_id", ""), frozenset(fields.get("flags", "").split())


def _onednn_is_faster() -> bool:
    vendor, features = _processor()
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    has_it = available and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_it and vendor != "GenuineIntel" and "avx512f" in features


def rank_dtype(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The precision in which candidates are ranked.

    Args:
        wanted: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the processor multiplies it natively, else
            whichever is faster in a short measurement.
        device: Where.

    Returns:
        The precision, and why, in words.
    """
    if wanted != "auto":
        return (torch.bfloat16 if wanted == "bfloat16" else torch.float32), "as asked for"
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
        return (torch.bfloat16 if native else torch.float32), f"the GPU has {'' if native else 'no '}bfloat16"
    _, features = _processor()
    for feature in ("amx_bf16", "avx512_bf16"):
        if feature in features:
            return torch.bfloat16, f"the processor has {feature}"
    return _faster()


@lru_cache(maxsize=1)
def _faster() -> tuple[torch.dtype, str]:
    """Whichever precision multiplies (1024, 512) by (512, 512) faster, the best of 5 tries each."""
    seconds = {dtype: _duration(dtype) for dtype in (torch.float32, torch.bfloat16)}
    best = min(seconds, key=lambda dtype: seconds[dtype])
    figures = ", ".join(f"{str(dtype).removeprefix('torch.')} {1e3 * took:.2f} ms" for dtype, took in seconds.items())
    why = f"measured, as the processor has neither AMX nor avx512_bf16: {figures}"
    _log.warning("candidates are ranked in %s: %s", str(best).removeprefix("torch."), why)
    return best, why


def _duration(dtype: torch.dtype) -> float:
    x, weight = torch.ones(1024, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    best = float("inf")
    with fast_products():
        for _ in range(6):  # the first one prepares
            start = time.perf_counter()
            linear(x, weight)
            best = min(best, time.perf_counter() - start)
    return best
