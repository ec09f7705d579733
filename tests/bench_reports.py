"""A small report of the bench, made by hand: what is judged, compared, drawn and tabled in tests."""

from __future__ import annotations

from typing import Any

from onestride.deploy.bench.report import (
    Condition,
    Figures,
    FullTick,
    Machine,
    NumericError,
    Paced,
    Policy,
    Report,
    Skipped,
    Variant,
)


def figures(p50: float, p99: float | None = None, n: int = 100) -> Figures:
    """Figures whose other numbers lie between and around these [us]."""
    last = p50 * 2 if p99 is None else p99
    return Figures(n=n, min=p50 / 2, p50=p50, p90=p50, p95=p50, p99=last, p999=last, max=last, mean=p50)


def paced(stages: dict[str, Figures]) -> Paced:
    """At 200 Hz, with two overruns."""
    return Paced(rate_hz=200.0, stages=stages, wakeup=figures(80.0), overruns=2, longest_run=1)


def variant(precision: str = "fp32", p50: float = 40.0, error: float = 0.0, **changes: Any) -> Variant:
    """One way, whose whole inference has this median."""
    stages = {"copy_in": figures(2.0), "infer": figures(p50 - 4), "copy_out": figures(2.0), "policy": figures(p50)}
    found = NumericError(samples=8, p50=error / 2, p99=error, max=error, tolerance=0.01)
    fields: dict[str, Any] = {
        "provider": "CPUExecutionProvider",
        "precision": precision,
        "nfe": 1,
        "load_ms": 20.0,
        "first_call_us": 300.0,
        "back_to_back": stages,
        "paced": paced(stages),
        "error": found,
    }
    return Variant(**{**fields, **changes})


def full_tick(filters: float = 50.0) -> FullTick:
    """A control tick whose filters have this median."""
    stages = {"filters": figures(filters), "rest": figures(5.0), "tick": figures(filters + 5)}
    return FullTick(
        robot="ur5e_2f85",
        scene="a scene",
        sink="memory",
        n_inferences=7,
        inferring=figures(filters + 50),
        paced=paced(stages),
        faults={},
    )


def report(*variants: Variant, device: str = "a board", **changes: Any) -> Report:
    """A report of these ways."""
    standing = Condition(governor="performance", khz=(2_000_000,), temperatures={}, throttling={}, load=(0.1, 0.1, 0.1))
    machine = Machine(
        device=device,
        machine="aarch64",
        processor=None,
        cores=6,
        affinity=(0, 1),
        pinned=True,
        system="Linux",
        python="3.10.12",
        numpy="1.26.4",
        onnxruntime="1.23.2",
        onestride="0.1.0",
        jetson=None,
    )
    policy = Policy(
        file="p.onnx",
        sha256="ab" * 32,
        name="pick",
        algorithm="mvp",
        observation=37,
        horizon=5,
        action=5,
        candidates=1,
        parity=1e-7,
    )
    fields: dict[str, Any] = {
        "measured": "2026-11-20T17:00:00+00:00",
        "policy": policy,
        "machine": machine,
        "before": standing,
        "after": standing,
        "busy": 0,
        "variants": variants or (variant(),),
        "full_tick": None,
        "power": None,
        "skipped": (Skipped(what="full tick", why="the policy names no robot"),),
    }
    return Report(**{**fields, **changes})
