"""For each known system: which certificate it gets, how it is proved, and what is written to its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.certificates import (
    CertificateTerms,
    Claim,
    LayerTerms,
    NetworkTerms,
    ProofTerms,
    QuadraticTerms,
    StoppingTerms,
    keeps,
)
from onestride.training.certificates.claims import (
    Function,
    Option,
    admissible,
    any_input,
    decrease,
    ellipsoid,
    stopping_distance,
)
from onestride.training.certificates.jets import Column
from onestride.training.certificates.learning import LearningConfig, Told, allowance, learn
from onestride.training.certificates.neural import FLOOR, FrozenLyapunov
from onestride.training.certificates.quadratic import (
    LinearFeedback,
    Quadratic,
    enclosed,
    linear_decay,
    riccati,
    unsaturated_level,
)
from onestride.training.certificates.systems import State, System, TwoLinkArm, system_named
from onestride.training.certificates.verifier import Effort, Progress, Verdict, verify

Form = Literal["usual", "quadratic", "network", "stopping_distance", "ellipsoid"]
FunctionTerms = QuadraticTerms | NetworkTerms | StoppingTerms

#: Diagonals of the Riccati equation's Q and R.
COSTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "commanded_joint": ((1.0, 0.05), (0.02,)),
    "double_integrator": ((1.0, 0.1), (0.1,)),
    "pendulum": ((1.0, 0.1), (0.1,)),
    "two_link_arm": ((100.0, 100.0, 1.0, 1.0), (0.1, 0.1)),
    "cart_pole": ((1.0, 1.0, 0.1, 0.1), (0.1,)),
}

#: The certificates each system can have, the usual one first.
FORMS: dict[str, tuple[Form, ...]] = {
    "commanded_joint": ("quadratic",),
    "double_integrator": ("stopping_distance", "quadratic", "ellipsoid"),
    "pendulum": ("quadratic", "network", "ellipsoid"),
    "two_link_arm": ("quadratic",),
    "cart_pole": ("ellipsoid",),
}

#: Systems that are linear under their controller: the decrease is proved by algebra.
LINEAR = ("commanded_joint", "two_link_arm")

#: Share of a linear system's deceleration that the stopping-distance barrier counts with: the rest is its reserve.
BRAKING_SHARE = 0.8

#: Decay of barriers, per step.
BARRIER_DECAY = 0.1

#: Levels at or below this are a proof of nothing: a claim's allowance alone keeps them.
LEAST_SHARE = 1e-4


@dataclass(frozen=True, eq=False)
class Issued:
    """A certificate, or why there is none.

    Attributes:
        terms: None where the claim is refuted or nothing was proved, or for a form that no file has.
        verdict: of the proof.
        system: what it is about.
        function: V, of columns.
        outline: another region to compare with: V and its level; None where there is none.
    """

    terms: CertificateTerms | None
    verdict: Verdict
    system: System
    function: Function
    outline: tuple[Function, float] | None = None


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        system: name of a known system.
        form: of the function; `usual` for the system's own.
        decay: c per step; None for the form's own.
        disturbance: largest push per step on each element of the state; empty for none.
        learning: how a network is learnt.
        effort: of the proof.
    """

    system: System
    form: Form = "usual"
    decay: float | None = None
    disturbance: tuple[float, ...] = ()
    learning: LearningConfig = field(default_factory=LearningConfig)
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        forms = FORMS[self.system.name]
        if self.form != "usual" and self.form not in forms:
            raise OneStrideError(f"{self.system.name}: unknown form: got {self.form}, available: {', '.join(forms)}")
        if self.disturbance and len(self.disturbance) != len(self.system.domain):
            wanted = len(self.system.domain)
            raise OneStrideError(f"disturbance: expected {wanted} numbers, got {len(self.disturbance)}")
        if self.decay is not None and not 0.0 < self.decay < 1.0:
            raise OneStrideError(f"decay: expected it between 0 and 1, got {self.decay}")

    @property
    def chosen(self) -> Form:
        """The form, by its own name."""
        return FORMS[self.system.name][0] if self.form == "usual" else self.form


def issue(request: Request, told: Told | None = None, progress: Progress | None = None) -> Issued:
    """Make a certificate and prove it, or find out that it is none."""
    makers: dict[Form, Callable[[], Issued]] = {
        "quadratic": lambda: _quadratic(request, progress),
        "network": lambda: _network(request, told, progress),
        "stopping_distance": lambda: _stopping(request, progress),
        "ellipsoid": lambda: _ellipsoid(request, progress),
    }
    return makers[request.chosen]()


def controller(system: System) -> tuple[Quadratic, LinearFeedback]:
    """The Riccati function of a system and the controller its certificates are proved with."""
    state, inputs = COSTS[system.name]
    return riccati(system, np.array(state), np.array(inputs))


def _quadratic(request: Request, progress: Progress | None) -> Issued:
    system = request.system
    function, control = controller(system)
    fastest = linear_decay(function, control, system)
    decay = 0.5 * fastest if request.decay is None else request.decay
    if decay > fastest:
        raise OneStrideError(f"decay: expected at most {fastest:.4g}, which the linearised system has, got {decay}")
    if system.name in LINEAR:
        return _linear(request, function, control, decay, progress)
    spare = 1e-3 * decay * unsaturated_level(function, control)
    verdict = verify(
        function,
        [decrease(system, function, control, decay, spare)],
        system.domain,
        disturbance=request.disturbance,
        effort=request.effort,
        progress=progress,
    )
    return _issued(request, verdict, function, _matrix(function), decay, spare)


def _linear(
    request: Request, function: Quadratic, control: LinearFeedback, decay: float, progress: Progress | None
) -> Issued:
    """The decrease is proved by algebra; what bounds the level is the domain, and what the inputs can do."""
    system = request.system
    if request.disturbance:
        raise OneStrideError(f"{system.name}: its certificate has no disturbance; use `reserve` of the barrier row")
    cap = min(unsaturated_level(function, control), enclosed(function, system.domain))
    options = [admissible(system, control)] if isinstance(system, TwoLinkArm) else []
    if options:
        verdict = verify(
            function, options, system.domain, ceiling=cap, effort=_coarse(request.effort), progress=progress
        )
        return _issued(request, verdict, function, _matrix(function), decay, 0.0)
    share = _share_below(function, cap, system.domain)
    nothing = np.empty((0, len(system.domain)))
    verdict = Verdict(True, cap, share * float(np.prod(2 * np.array(system.domain))), share, nothing, 0, 0, 0.0)
    return _issued(request, verdict, function, _matrix(function), decay, 0.0, "algebra")


def _coarse(effort: Effort) -> Effort:
    """Cells of a 4-dimensional state are not cut finer than this: the level sinks a little instead."""
    return Effort(effort.cells, max(effort.resolution, 2.0**-7), effort.batch, effort.samples, effort.seed)


def _share_below(function: Function, level: float, domain: tuple[float, ...]) -> float:
    half = np.array(domain)
    samples = np.random.default_rng(0).uniform(-half, half, (20_000, len(half))).T
    return float(np.mean(np.asarray(function(list(samples))) < level))


def _network(request: Request, told: Told | None, progress: Progress | None) -> Issued:
    if request.disturbance:
        raise OneStrideError("network: is learnt without disturbance; prove the written file with one")
    system = request.system
    function, control = controller(system)
    config = request.learning if request.decay is None else _with_decay(request.learning, request.decay)
    learnt = learn(system, control, function, config, request.effort, told, progress)
    plain = verify(
        function,
        [decrease(system, function, control, config.decay, 1e-3 * config.decay * unsaturated_level(function, control))],
        system.domain,
        effort=request.effort,
    )
    frozen = learnt.function
    issued = _issued(request, learnt.verdict, frozen, network_terms(frozen), config.decay, allowance(config.decay))
    return Issued(issued.terms, issued.verdict, system, frozen, (function, plain.level))


def _with_decay(config: LearningConfig, decay: float) -> LearningConfig:
    return LearningConfig(decay, config.hidden, config.rounds, config.steps, config.batch, config.rate, config.seed)


def _stopping(request: Request, progress: Progress | None) -> Issued:
    system = request.system
    position, braking = system.domain[0] / 1.05, BRAKING_SHARE * system.limit[0]
    function = stopping_distance(position, braking)
    decay = request.decay or BARRIER_DECAY
    verdict = _barrier(request, function, decay, progress)
    return _issued(request, verdict, function, StoppingTerms(position=position, braking=braking), decay, 0.0)


def _ellipsoid(request: Request, progress: Progress | None) -> Issued:
    function = ellipsoid(request.system.domain)
    verdict = _barrier(request, function, request.decay or BARRIER_DECAY, progress)
    return Issued(None, verdict, request.system, function)


def _barrier(request: Request, function: Function, decay: float, progress: Progress | None) -> Verdict:
    return verify(
        function,
        any_input(request.system, function, decay, 0.0, points=5 if len(request.system.domain) == 2 else 41),
        request.system.domain,
        level=0.0,
        disturbance=request.disturbance,
        effort=request.effort,
        progress=progress,
    )


def _matrix(function: Quadratic) -> QuadraticTerms:
    return QuadraticTerms(matrix=tuple(tuple(float(one) for one in row) for row in function.matrix))


def network_terms(function: FrozenLyapunov) -> NetworkTerms:
    """A learnt function as it is written."""
    layers = [
        LayerTerms(weight=tuple(map(tuple, weight.tolist())), bias=tuple(bias.tolist()))
        for weight, bias in function.layers
    ]
    return NetworkTerms(root=tuple(map(tuple, function.root.tolist())), floor=FLOOR, layers=tuple(layers))


def _issued(
    request: Request,
    verdict: Verdict,
    function: Function,
    written: FunctionTerms,
    decay: float,
    spare: float,
    method: Literal["algebra", "cells"] = "cells",
) -> Issued:
    system = request.system
    claim: Claim = "barrier" if isinstance(written, StoppingTerms) else "lyapunov"
    if not verdict.accepted or verdict.share < LEAST_SHARE or not keeps(claim, verdict.level, decay, spare):
        return Issued(None, verdict, system, function)
    proof = ProofTerms(
        method=method,
        share=verdict.share,
        cells=verdict.cells,
        undecided=verdict.undecided,
        seconds=round(verdict.seconds, 3),
    )
    terms = CertificateTerms(
        claim=claim,
        system=system.name,
        states=system.states,
        period=system.period,
        domain=system.domain,
        limit=system.limit,
        disturbance=request.disturbance,
        function=written,
        level=verdict.level,
        decay=decay,
        allowance=spare,
        proof=proof,
    )
    return Issued(terms, verdict, system, function)


def prove_again(terms: CertificateTerms, effort: Effort, progress: Progress | None = None) -> Verdict:
    """Prove a written claim at its own level, whatever its file says about its proof.

    Raises:
        OneStrideError: the system is unknown, or its size differs.
    """
    system = system_named(terms.system, period=terms.period, limit=terms.limit, domain=terms.domain)
    function = function_of(terms.function)
    options = _options(system, function, terms)
    cut = _coarse(effort) if len(system.domain) > 2 else effort
    level = terms.level * (1.0 - 1e-9) if terms.level > 0.0 else terms.level
    return verify(
        function, options, system.domain, level=level, disturbance=terms.disturbance, effort=cut, progress=progress
    )


def _options(system: System, function: Function, terms: CertificateTerms) -> list[Option]:
    if not keeps(terms.claim, terms.level, terms.decay, terms.allowance):
        return [_never]
    if terms.claim == "barrier":
        return any_input(system, function, terms.decay, terms.allowance, points=5)
    _, control = controller(system)
    if system.name not in LINEAR:
        return [decrease(system, function, control, terms.decay, terms.allowance)]
    holds = (
        isinstance(function, Quadratic)
        and linear_decay(function, control, system) >= terms.decay
        and unsaturated_level(function, control) >= terms.level
    )
    return [admissible(system, control) if holds else _never]


def _never(x: State, w: State) -> list[Column]:
    """What no state keeps: the algebra of the claim is wrong, or its allowance lets every state leave."""
    del w
    return [x[0] * 0.0 + 1.0]


def function_of(terms: FunctionTerms) -> Function:
    """The function of a file, for columns of any kind."""
    if isinstance(terms, QuadraticTerms):
        return Quadratic(np.array(terms.matrix))
    if isinstance(terms, StoppingTerms):
        return stopping_distance(terms.position, terms.braking)
    layers = [(np.array(layer.weight), np.array(layer.bias)) for layer in terms.layers]
    return FrozenLyapunov(np.array(terms.root), layers, terms.floor)
