"""Inputs and outputs at fixed places: the same numbers as by names, and chunks that stay as they were given."""

from __future__ import annotations

import numpy as np
import pytest
from policy_samples import sample_chunk

from onestride.deploy.binding import Binding
from onestride.deploy.runtime import PolicyRuntime, create_session

pytest.importorskip("onnx", reason="needs the extra `train`")

CPU = "CPUExecutionProvider"


def test_the_same_as_by_names(sample_policy, contract):
    session = create_session(sample_policy.read_bytes(), "actions_nfe1", CPU, "sample")
    inputs = {name: np.zeros(shape, np.float32) for name, shape in contract.inputs.items()}
    binding, rng = Binding(session, CPU, inputs, {"actions_nfe1": contract.chunk_shape}), np.random.default_rng(0)
    for _ in range(5):
        for array in inputs.values():
            array[...] = rng.standard_normal(array.shape)
        binding.copy_in()
        binding.evaluate()
        (chunk,) = binding.copy_out()
        np.testing.assert_array_equal(chunk, session.run(None, inputs)[0])


def test_a_chunk_that_is_being_executed_is_not_overwritten_by_the_next(sample_policy, contract):
    policy = PolicyRuntime(sample_policy)
    first = policy.infer(np.zeros(contract.observation_size))
    kept = first.copy()
    second = policy.infer(np.ones(contract.observation_size))
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_the_three_steps_are_one_inference(sample_policy, contract):
    whole, steps = PolicyRuntime(sample_policy, seed=4), PolicyRuntime(sample_policy, seed=4)
    for value in (0.0, 0.5):
        observation = np.full(contract.observation_size, value)
        chunk = whole.infer(observation)
        steps.copy_in(observation)
        steps.evaluate()
        np.testing.assert_array_equal(steps.copy_out(), chunk)
        np.testing.assert_allclose(chunk, sample_chunk(observation, whole.noise, 1), rtol=1e-6)
