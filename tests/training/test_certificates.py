"""Certificates: what is proved holds under attack, what is wrong is refused, what is written is proved again."""

from __future__ import annotations

import numpy as np
import pytest

from onestride.hardware.errors import OneStrideError
from onestride.training.certificates.claims import any_input, decrease, ellipsoid, stopping_distance
from onestride.training.certificates.learning import LearningConfig
from onestride.training.certificates.quadratic import LinearFeedback, Quadratic, linear_decay
from onestride.training.certificates.recipes import FORMS, Request, controller, issue, prove_again
from onestride.training.certificates.systems import CartPole, DoubleIntegrator, Pendulum, system_named
from onestride.training.certificates.verifier import Effort, verify

PROVED = [
    (name, form)
    for name, forms in FORMS.items()
    for form in forms
    if form not in ("ellipsoid", "network")
]  # fmt: skip


def below(function, level: float, domain, count: int, seed: int = 0) -> np.ndarray:
    """Random states (n, count) of the domain below a level."""
    rng, half, found = np.random.default_rng(seed), np.array(domain)[:, None], []
    while sum(one.shape[1] for one in found) < count:
        x = rng.uniform(-half, half, (len(half), 100_000))
        found.append(x[:, np.asarray(function(list(x))) < level])
    return np.concatenate(found, axis=1)[:, :count]


@pytest.mark.parametrize(("name", "form"), PROVED)
def test_no_counterexample_among_a_hundred_thousand_states(name, form):
    """Of the whole region: an input of a fine grid, or the controller's, keeps the claim and the domain."""
    issued = issue(Request(system_named(name), form))
    assert issued.terms is not None and issued.verdict.accepted
    system, terms, function = issued.system, issued.terms, issued.function
    x = below(function, terms.level, terms.domain, 100_000)
    value = np.asarray(function(list(x)))
    controls = [controller(system)[1]] + [lambda _, u=u: list(u) for u in _few(system)]
    kept = np.zeros(x.shape[1], dtype=bool)
    for control in controls:
        u = [np.broadcast_to(one, value.shape) for one in control(list(x))]
        ahead = np.stack(system.step(list(x), u))
        better = np.asarray(function(list(ahead))) <= (1 - terms.decay) * value + terms.allowance
        kept |= better & (np.abs(ahead) <= np.array(terms.domain)[:, None]).all(axis=0)
    assert kept.all()
    if form == "quadratic":
        assert (value >= 0).all() and np.linalg.eigvalsh(issued.function.matrix).min() > 0


def _few(system):
    return system.inputs(41) if system.name == "double_integrator" else []


@pytest.mark.parametrize(("name", "form"), PROVED)
def test_what_was_proved_can_be_proved_again_at_its_level(name, form):
    terms = issue(Request(system_named(name), form)).terms
    assert terms is not None
    assert prove_again(terms, Effort()).accepted
    if name != "two_link_arm" and terms.claim == "lyapunov":
        faster = terms.model_copy(update={"decay": min(0.9, terms.decay * 4)})
        assert not prove_again(faster, Effort()).accepted


@pytest.mark.parametrize("name", ["commanded_joint", "double_integrator", "pendulum"])
def test_a_claim_whose_allowance_lets_its_region_be_left_is_not_proved(name):
    """With `allowance = 10 decay level` the inequality holds of the pendulum, and says nothing of staying."""
    terms = issue(Request(system_named(name))).terms
    assert terms is not None
    room = terms.decay * terms.level
    for allowance in (10 * room or 0.01, 1e6):
        assert not prove_again(terms.model_copy(update={"allowance": allowance}), Effort()).accepted


def test_a_climb_finds_no_counterexample_either():
    """From random states of the pendulum's region, along the sign of a finite-difference gradient of the growth."""
    issued = issue(Request(Pendulum()))
    terms, function, system = issued.terms, issued.function, issued.system
    assert terms is not None
    control = controller(system)[1]

    def growth(x):
        ahead = function(system.step(list(x), control(list(x))))
        return ahead - (1 - terms.decay) * function(list(x)) - terms.allowance

    x, half = below(function, terms.level, terms.domain, 5000), np.array(terms.domain)[:, None]
    for step in np.geomspace(0.05, 1e-4, 20):
        slope = [(growth(x + 1e-6 * one) - growth(x - 1e-6 * one)) for one in np.eye(2)[:, :, None]]
        moved = np.clip(x + step * half * np.sign(slope), -half, half)
        inside = np.asarray(function(list(moved))) < terms.level
        x = np.where(inside, moved, x)
        assert growth(x).max() <= 0


def test_the_stopping_distance_is_a_barrier_unless_it_counts_on_braking_that_is_not_there():
    system = DoubleIntegrator()
    for braking, right in ((1.2, True), (1.6, True), (1.96, True), (2.2, False), (4.0, False)):
        barrier = stopping_distance(1.0, braking)
        verdict = verify(barrier, any_input(system, barrier, 0.1, 0.0, 5), system.domain, level=0.0)
        assert verdict.accepted is right
        assert (len(verdict.counterexamples) > 0) is not right


def test_a_barrier_holds_against_the_disturbance_it_has_a_reserve_for():
    """The pushes are worst-case; a barrier without reserve cannot keep its boundary against any."""
    system, barrier = DoubleIntegrator(), stopping_distance(1.0, 1.2)
    options = any_input(system, barrier, 0.1, 0.0, 5)
    small = verify(barrier, options, system.domain, level=0.0, disturbance=(3e-4, 3e-4))
    large = verify(barrier, options, system.domain, level=0.0, disturbance=(1e-2, 1e-2), effort=Effort(cells=50_000))
    assert small.accepted and not large.accepted


def test_the_cart_poles_ellipsoid_is_refused_with_a_state_that_no_input_saves():
    system = CartPole()
    issued = issue(Request(system))
    assert issued.terms is None and not issued.verdict.accepted
    states, barrier = issued.verdict.counterexamples.T, ellipsoid(system.domain)
    h = -np.asarray(barrier(list(states)))
    assert (h > 0).all() and states.shape[1] > 100
    for u in np.linspace(-10, 10, 401):
        ahead = system.step(list(states), [np.full(states.shape[1], u)])
        assert (-np.asarray(barrier(ahead)) < 0.9 * h).all()


def test_the_ellipsoid_fails_in_continuous_time_as_well():
    """`grad h . f + 0.1 h >= 0` for the better of both extreme inputs, on grids of 6 and 10 points per axis."""
    system, counts = CartPole(), {}
    limits = np.array(system.domain)
    for points in (6, 10):
        axes = [np.linspace(-limit, limit, points) for limit in limits]
        x = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(4, -1)
        slope = -2 * x / limits[:, None] ** 2
        rates = [sum(slope[i] * np.broadcast_to(one, x.shape[1]) for i, one in enumerate(system.rate(
            list(x), [np.full(x.shape[1], u)]))) for u in (-10.0, 10.0)]  # fmt: skip
        h = -np.asarray(ellipsoid(system.domain)(list(x)))
        counts[points] = int(((np.maximum(rates[0], rates[1]) + 0.1 * h < 0) & (h > 0)).sum())
    assert counts == {6: 18, 10: 192}


def test_planted_faults_are_refused():
    """A wrong matrix, a controller with the wrong sign, and a good function with a dent that only a cell would see."""
    system = Pendulum()
    good, control = controller(system)
    flipped = Quadratic(good.matrix * np.array([[1.0, -1.0], [-1.0, 1.0]]))
    away = LinearFeedback(-control.gain, control.limit)
    for function, feedback in ((flipped, control), (good, away)):
        claim = decrease(system, function, feedback, 0.02, 1e-4)
        verdict = verify(function, [claim], system.domain, level=5.0)
        assert not verdict.accepted and len(verdict.counterexamples)
        value = np.asarray(function(list(verdict.counterexamples.T)))
        assert (value < 5.0).all()


def test_a_dent_that_sampling_misses_is_found():
    """A claim that fails in one disc of radius 0.003 only: random states miss it, cells do not."""
    system = DoubleIntegrator()
    place = (0.3217, -0.4519)

    def dented(x, w):
        del w
        return [9e-6 - ((x[0] - place[0]) * (x[0] - place[0]) + (x[1] - place[1]) * (x[1] - place[1]))]

    def radius(x):
        return x[0] * x[0] + x[1] * x[1]

    rng = np.random.default_rng(0)
    tried = rng.uniform(-1, 1, (20_000, 2)) * system.domain
    assert dented(list(tried.T), [])[0].max() < 0
    found = verify(radius, [dented], system.domain)
    at = place[0] ** 2 + place[1] ** 2
    assert at - 0.02 < found.level < at
    assert not verify(radius, [dented], system.domain, level=at).accepted


def test_a_seed_repeats_a_proof_and_a_learnt_function():
    config = LearningConfig(hidden=(8,), rounds=2, steps=120, batch=128, seed=3)
    first, second = (issue(Request(Pendulum(), "network", learning=config)) for _ in range(2))
    assert first.terms is not None and second.terms is not None
    assert first.terms.function == second.terms.function
    assert first.terms.level == second.terms.level
    assert first.verdict.share > 0.35
    assert prove_again(first.terms, Effort()).accepted
    x = below(first.function, first.terms.level, first.terms.domain, 100_000)
    control, value = controller(Pendulum())[1], np.asarray(first.function(list(x)))
    ahead = np.asarray(first.function(Pendulum().step(list(x), control(list(x)))))
    assert (ahead <= (1 - first.terms.decay) * value + first.terms.allowance).all()


@pytest.mark.slow
def test_a_learnt_function_certifies_more_than_the_quadratic_one():
    learnt = issue(Request(Pendulum(), "network"))
    plain = issue(Request(Pendulum(), "quadratic", decay=LearningConfig().decay))
    assert learnt.verdict.share > 1.02 * plain.verdict.share


def test_linear_decay_is_the_worst_rate_of_all_states():
    function, control = controller(system_named("commanded_joint"))
    system, rng = system_named("commanded_joint", limit=(1e9,)), np.random.default_rng(0)
    free = LinearFeedback(control.gain, (1e9,))
    x = rng.normal(size=(2, 100_000))
    rate = 1 - np.asarray(function(system.step(list(x), free(list(x))))) / np.asarray(function(list(x)))
    assert rate.min() == pytest.approx(linear_decay(function, control, system), rel=1e-3)
    assert rate.min() >= linear_decay(function, control, system) - 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: system_named("penulum"), "unknown system: got 'penulum', available: commanded_joint"),
        (lambda: system_named("pendulum", limit=(1.0, 2.0)), "limit: expected 1 positive numbers"),
        (lambda: Request(Pendulum(), "stopping_distance"), "unknown form: got stopping_distance, available: quadratic"),
        (lambda: Request(Pendulum(), disturbance=(1.0,)), "disturbance: expected 2 numbers, got 1"),
        (lambda: issue(Request(Pendulum(), decay=0.9)), "decay: expected at most 0.247"),
        (lambda: Quadratic(np.array([[1.0, 2.0], [2.0, 1.0]])), "positive definite matrix, smallest eigenvalue -1"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(OneStrideError, match=message):
        make()
