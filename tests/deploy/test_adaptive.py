"""Fewer evaluations exactly when and as long as the machine is too slow for more; the noise goes on as one sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onestride.deploy.adaptive import LATE_IN_A_ROW, PATIENCE, AdaptivePolicy, time_for_inference
from onestride.deploy.contract import ExecutionTerms
from onestride.deploy.runtime import PolicyRuntime
from onestride.hardware.errors import OneStrideError

BUDGET = 0.010
EVERY = 0.2  # [s] between inferences


class SlowPolicy:
    """A policy on a machine that takes `machine.each` for an evaluation."""

    def __init__(self, machine, nfe, contract):
        self.machine, self.nfe, self.contract = machine, nfe, contract
        self.provider, self.readings = "none", ()

    def predict(self, *inputs):
        del inputs
        self.machine.now += self.machine.each * self.nfe
        return np.full((1, 1), self.nfe, np.float32)


class Machine:
    """Time as the policies use it up."""

    def __init__(self, contract, offered=(1, 2, 4), wanted=4):
        self.now, self.each = 0.0, 0.001
        terms = contract.policy.model_copy(update={"nfe": offered})
        contract = contract.model_copy(update={"policy": terms})
        first: Any = SlowPolicy(self, wanted, contract)
        make: Any = lambda nfe: SlowPolicy(self, nfe, contract)  # noqa: E731
        self.policy = AdaptivePolicy.load(first, BUDGET, make)
        self.policy._clock = lambda: self.now

    def infer(self, times):
        """The evaluations of each of `times` inferences."""
        taken = []
        for _ in range(times):
            taken.append(int(self.policy.infer(np.zeros(1))[0, 0]))
            self.now += EVERY
        return taken


@pytest.fixture
def machine(contract):
    return Machine(contract)


def test_as_long_as_what_is_wanted_fits_it_is_taken(machine):
    assert machine.infer(100) == [4] * 100
    assert machine.policy.summary() == {
        "wanted": 4,
        "now": 4,
        "late": 0,
        "budget_ms": 10.0,
        "inferences": {"4": 100},
    }


@pytest.mark.parametrize(("each", "fitting"), [(0.0026, 2), (0.0049, 2), (0.0051, 1), (0.5, 1)])
def test_late_in_a_row_the_most_that_would_have_fitted_is_taken(machine, each, fitting):
    machine.each = each
    assert machine.infer(LATE_IN_A_ROW + 3) == [4] * LATE_IN_A_ROW + [fitting] * 3


def test_a_stall_now_and_then_changes_nothing(machine):
    for _ in range(10):
        machine.each = 0.1
        assert machine.infer(LATE_IN_A_ROW - 1) == [4] * (LATE_IN_A_ROW - 1)
        machine.each = 0.001
        assert machine.infer(1) == [4]
    assert machine.policy.late == 10 * (LATE_IN_A_ROW - 1)


def test_more_is_taken_only_after_it_would_have_fitted_for_long_and_step_by_step(machine):
    machine.each = 0.5
    machine.infer(LATE_IN_A_ROW)
    machine.each = 0.001
    patient = int(np.ceil(PATIENCE / (EVERY + 0.001))) + 1
    climb = machine.infer(3 * patient)
    assert climb[:patient] == [1] * patient
    assert climb == sorted(climb)
    assert set(climb) == {1, 2, 4}
    assert climb[-1] == 4


def test_one_that_would_not_have_fitted_begins_the_wait_anew(machine):
    machine.each = 0.5
    machine.infer(LATE_IN_A_ROW)
    for _ in range(5):
        machine.each = 0.001
        assert set(machine.infer(int(PATIENCE / EVERY) - 2)) == {1}
        machine.each = 0.006  # fits once, not twice
        assert machine.infer(1) == [1]


def test_more_than_wanted_is_never_taken(contract):
    machine = Machine(contract, wanted=2)
    machine.each = 1e-6
    assert set(machine.infer(200)) == {2}


def test_a_new_activation_begins_with_what_is_wanted(machine):
    machine.each = 0.5
    machine.infer(LATE_IN_A_ROW)
    machine.policy.reset(3)
    assert machine.policy.nfe == 4


def test_where_there_is_nothing_to_choose_from_it_is_refused(contract):
    with pytest.raises(OneStrideError, match=r"expected a policy that offers less than 1, got \[1, 2, 4\]"):
        Machine(contract, wanted=1)


def test_chunks_are_those_of_the_policy_itself_noise_and_all(sample_policy):
    wanted = max(PolicyRuntime(sample_policy).contract.policy.nfe)
    alone = PolicyRuntime(sample_policy, nfe=wanted, seed=7)
    first = PolicyRuntime(sample_policy, nfe=wanted)
    adaptive = AdaptivePolicy.load(first, 10.0, lambda nfe: PolicyRuntime(sample_policy, nfe=nfe))
    adaptive.reset(7)
    for value in np.linspace(-1, 1, 5):
        observation = np.full(28, value)
        np.testing.assert_array_equal(adaptive.infer(observation), alone.infer(observation))


def test_the_noise_goes_on_whichever_is_taken(sample_policy):
    wanted = max(PolicyRuntime(sample_policy).contract.policy.nfe)
    adaptive = AdaptivePolicy.load(
        PolicyRuntime(sample_policy, nfe=wanted), 0.0, lambda nfe: PolicyRuntime(sample_policy, nfe=nfe)
    )
    adaptive.reset(7)
    generator, taken = np.random.default_rng(7), []
    for _ in range(LATE_IN_A_ROW + 2):
        taken.append(adaptive.nfe)
        chunk = adaptive.infer(np.zeros(28))
        runtime = PolicyRuntime(sample_policy, nfe=taken[-1])
        noise = np.array(generator.standard_normal(runtime.contract.noise_shape, dtype=np.float32))
        np.testing.assert_array_equal(chunk, runtime.predict(np.zeros(28), noise))
    assert taken[0] == wanted
    assert taken[-1] < wanted


@pytest.mark.parametrize(("blend", "expected"), [(0, 0.005), (1, 0.05), (3, 0.15)])
def test_the_budget_is_the_time_until_the_chunk_is_needed(blend, expected):
    terms = ExecutionTerms(control_rate=200.0, policy_rate=20.0, horizon=8, n_action_steps=5)
    assert time_for_inference(terms, blend) == pytest.approx(expected)
