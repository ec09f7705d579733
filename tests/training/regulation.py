"""A double integrator with a quadratic cost: a regulation task whose optimum is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from onestride.training.agents.catalogue import Agent

LANES, STEPS, DISCOUNT = 32, 40, 0.95
A = np.array([[1.0, 0.2], [0.0, 1.0]])  # position [m], velocity [m/s], 0.2 s
B = np.array([0.06, 0.6])  # an action of 1 accelerates by 3 m/s²
Q, R = np.diag([1.0, 0.1]), 0.5


def reward(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    return -(np.einsum("bi,ij,bj->b", state, Q, state) + R * action[:, 0] ** 2)


def step(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.clip(state @ A.T + action * B, -3, 3)


def start(rng: np.random.Generator, lanes: int) -> np.ndarray:
    return rng.uniform([-0.8, -0.3], [0.8, 0.3], (lanes, 2))


def regulator() -> np.ndarray:
    """The discounted LQR's gain (2,), by iterating Riccati's equation."""
    a, b = np.sqrt(DISCOUNT) * A, np.sqrt(DISCOUNT) * B
    p = Q.copy()
    for _ in range(500):
        gain = b @ p @ a / (R + b @ p @ b)
        p = Q + a.T @ p @ (a - np.outer(b, gain))
    return gain


def cost(act: Any) -> float:
    """Mean discounted cost of a controller from 64 fixed starts."""
    state, total = start(np.random.default_rng(99), 64), np.zeros(64)
    for index in range(STEPS):
        action = act(state)
        total -= DISCOUNT**index * reward(state, action)
        state = step(state, action)
    return float(total.mean())


def train(agent: Agent, updates: int) -> dict[str, torch.Tensor]:
    """One step of every lane for each update, from random actions on; episodes are cut, not terminal.

    Returns the last update's metrics.
    """
    rng, g = np.random.default_rng(0), torch.Generator().manual_seed(0)
    rows: list[tuple[np.ndarray, ...]] = []
    state, metrics = start(rng, LANES), {}
    for index in range(updates):
        noise = torch.randn(LANES, 1, 1, generator=g)
        action = agent.act(torch.as_tensor(state, dtype=torch.float32), noise)[:, 0].double().numpy()
        following = step(state, action)
        rows.append((state, action, reward(state, action), following))
        state = following if (index + 1) % STEPS else start(rng, LANES)
        chosen = rng.integers(0, len(rows) * LANES, agent.config.batch_size)
        picked = [np.stack([rows[i // LANES][k][i % LANES] for i in chosen]) for k in range(4)]
        s, a, r, following_s = (torch.as_tensor(values, dtype=torch.float32) for values in picked)
        one = torch.ones(len(chosen), 1)
        metrics = agent.update(
            {
                "observations": s.unsqueeze(1),
                "actions": a.unsqueeze(1),
                "rewards": r.unsqueeze(1),
                "next_observations": following_s.unsqueeze(1),
                "masks": one,
                "valid": one,
                "terminals": 0 * one,
            }
        )
    return metrics


def mode(agent: Agent, state: np.ndarray) -> np.ndarray:
    observation = torch.as_tensor(state, dtype=torch.float32)
    return agent.act(observation, torch.zeros(len(state), 1, 1))[:, 0].double().numpy()
