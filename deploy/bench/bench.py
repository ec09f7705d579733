"""Measure a policy file in every way that was asked for, and the control tick around it.

Warm-up is excluded; the first call is reported by itself. Every session runs on one thread.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np

from onestride.deploy.bench import variants as ways
from onestride.deploy.bench.device import Skips, condition, machine
from onestride.deploy.bench.full_tick import Cell, measure_ticks
from onestride.deploy.bench.numeric import numeric_error
from onestride.deploy.bench.report import POLICY_STAGES, FullTick, Policy, Report, Variant
from onestride.deploy.bench.series import Stopwatch, back_to_back, paced
from onestride.deploy.bench.surroundings import neighbours, on_processors, power_meter
from onestride.deploy.contract import Contract
from onestride.deploy.runtime import Images, PolicyRuntime, load_contract
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

WARM_UP = 200
OBSERVATIONS = 256


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        policy: exported file.
        contract: a contract file, where the policy does not carry its own.
        calls: timed calls of each back-to-back series.
        seconds: length of each paced series [s].
        rate: pace [Hz]; default the contract's control rate, or its policy rate where no robot is named.
        nfe: network evaluations to measure; default all that the file offers.
        providers: of onnxruntime, by short or full name.
        precisions: of the products.
        tolerances: what actions may differ by, by precision; the usual ones where it says none.
        cuda_graph: whether a GPU replays its kernels as one graph.
        affinity: processors to run on; empty = where the system likes.
        busy: processes that load the machine meanwhile.
        device: name of the device, in place of what it says itself.
    """

    policy: Path
    contract: Path | None = None
    calls: int = 5000
    seconds: float = 3.0
    rate: float | None = None
    nfe: tuple[int, ...] = ()
    providers: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("fp32",)
    tolerances: Mapping[str, float] = field(default_factory=dict)
    cuda_graph: bool = False
    affinity: tuple[int, ...] = ()
    busy: int = 0
    device: str | None = None


def bench(
    options: BenchOptions, cell: Cell | str = "no robot was given", say: Callable[[str], None] = lambda _: None
) -> Report:
    """Measure a policy file.

    Args:
        options: what to measure.
        cell: the robot that the control tick is measured on, or why there is none.
        say: told what is measured next.

    Raises:
        OneStrideError: the file, an NFE, a provider or a processor is refused, or no variant could be measured.
    """
    with on_processors(options.affinity):
        run = _Run(options, say)
        before = condition()
        with _settled(), power_meter() as power, neighbours(options.busy):
            measured = tuple(run.variants())
            full_tick = run.skips.read("full tick", lambda: run.tick(cell))
            drawn = run.skips.read("power", power)
        if not measured:
            raise OneStrideError("; ".join(f"{one.what}: {one.why}" for one in run.skips.found))
        return Report(
            measured=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            policy=run.about,
            machine=machine(run.skips, options.device),
            before=before,
            after=condition(),
            busy=options.busy,
            variants=measured,
            full_tick=full_tick,
            power=drawn,
            skipped=tuple(run.skips.found),
        )


class _Run:
    """One run: what all variants are measured with."""

    def __init__(self, options: BenchOptions, say: Callable[[str], None]) -> None:
        self.options, self._say, self.skips = options, say, Skips()
        self.contract, self._digest = load_contract(options.policy, options.contract)
        self._providers = [ways.provider_of(name) for name in options.providers]
        self._precisions = [ways.precision_of(name) for name in options.precisions]
        execution = self.contract.execution
        self._rate = options.rate or execution.control_rate or execution.policy_rate
        self._observations, self._images = _inputs(self.contract)

    @property
    def about(self) -> Policy:
        """The policy, for the report."""
        terms, export = self.contract.policy, self.contract.export
        return Policy(
            file=self.options.policy.name,
            sha256=self._digest,
            name=terms.name,
            algorithm=terms.algorithm,
            observation=self._observations.shape[1],
            horizon=self.contract.execution.horizon,
            action=self.contract.action_size,
            candidates=terms.candidates,
            parity=export.parity if export else None,
        )

    def variants(self) -> Iterator[Variant]:
        """Every combination that can be had; the others are skipped with a reason."""
        for nfe in self.options.nfe or self.contract.policy.nfe:
            reference = PolicyRuntime(self.options.policy, contract=self.options.contract, nfe=nfe)
            for provider in self._providers:
                for precision in self._precisions:
                    what = f"{provider} {precision}, NFE {nfe}"
                    self._say(what)
                    measured = self.skips.read(what, partial(self._measure, provider, precision, reference))
                    if measured is not None:
                        yield measured

    def _measure(self, provider: str, precision: str, reference: PolicyRuntime) -> Variant:
        loading = time.perf_counter()
        policy = self._load(provider, precision, reference.nfe)
        load_ms = (time.perf_counter() - loading) * 1e3
        allowed = ways.tolerance(provider, precision, dict(self.options.tolerances))
        error = numeric_error(policy, reference, self._observations, self._images, allowed)
        infer = self._turn(policy)
        for index in range(WARM_UP):
            infer(Stopwatch(POLICY_STAGES, 1), index)
        watch, rhythm = (Stopwatch(POLICY_STAGES, count) for count in (self.options.calls, self._paced_turns))
        series = back_to_back(lambda index: infer(watch, index), watch, self.options.calls)
        return Variant(
            provider=policy.provider,
            precision=precision,
            nfe=policy.nfe,
            load_ms=round(load_ms, 3),
            first_call_us=round(policy.first_call * 1e6, 2),
            back_to_back=series,
            paced=paced(lambda index: infer(rhythm, index), rhythm, self._paced_turns, self._rate),
            error=error,
        )

    def _load(self, provider: str, precision: str, nfe: int) -> PolicyRuntime:
        convert = ways.conversion(provider, precision)
        told = ways.options_of(provider, precision, self._digest, cuda_graph=self.options.cuda_graph)
        return PolicyRuntime(
            self.options.policy,
            contract=self.options.contract,
            nfe=nfe,
            provider=provider,
            provider_options=told,
            convert=convert,
        )

    @property
    def _paced_turns(self) -> int:
        return max(1, round(self._rate * self.options.seconds))

    def _turn(self, policy: PolicyRuntime) -> Callable[[Stopwatch, int], None]:
        """One inference, stage by stage: four readings of the clock, nothing else."""
        observations, images, clock = self._observations, self._images, time.perf_counter_ns

        def turn(watch: Stopwatch, index: int) -> None:
            begun = clock()
            policy.copy_in(observations[index % OBSERVATIONS], images)
            ready = clock()
            policy.evaluate()
            inferred = clock()
            policy.copy_out()
            ended = clock()
            stages = (ready - begun, inferred - ready, ended - inferred, ended - begun)
            for stage, duration in zip(POLICY_STAGES, stages, strict=True):
                watch.add(stage, duration)

        return turn

    def tick(self, cell: Cell | str) -> FullTick:
        """The control tick around the policy's first NFE in the first provider and precision asked for."""
        if isinstance(cell, str):
            raise OneStrideError(cell)
        self._say("full tick")
        nfe = (self.options.nfe or self.contract.policy.nfe)[0]
        policy = self._load(self._providers[0], self._precisions[0], nfe)
        return measure_ticks(policy, cell, self.options.seconds, self.options.rate)


def _inputs(contract: Contract) -> tuple[Array, Images]:
    """Observations (256, To * Do) within the ranges of the training data, and one picture for each camera."""
    rng = np.random.default_rng(0)
    low, high = contract.ranges
    images = {term.name: rng.integers(0, 256, (contract.history, *term.shape), np.uint8) for term in contract.images}
    return rng.uniform(low, high, (OBSERVATIONS, len(low))), images


@contextmanager
def _settled() -> Iterator[None]:
    """Without a collection of what lives for ever in the middle of a series, as in the node."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
