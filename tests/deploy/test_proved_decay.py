"""What is proved again of a joint's certificate when it is loaded holds for the equations."""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.lyapunov import proved_decay


def test_v_falls_by_what_is_proved_with_some_acceleration_within_the_limit():
    """Against the best acceleration of each state, for random matrices, limits and states, and not far from it."""
    rng, tight = np.random.default_rng(4), 0
    for _ in range(100):
        root = rng.normal(size=(2, 2))
        matrix, period = root @ root.T + 0.05 * np.eye(2), rng.uniform(0.002, 0.1)
        level, limit = rng.uniform(0.01, 1.0), rng.uniform(0.5, 50.0)
        angle, share = rng.uniform(0, 2 * np.pi, 500), rng.uniform(0.01, 1, 500)
        circle = np.sqrt(level * share) * np.stack([np.cos(angle), np.sin(angle)])
        state = np.linalg.solve(np.linalg.cholesky(matrix).T, circle)
        coasting, push = np.array([[1.0, period], [0.0, 1.0]]) @ state, np.array([[period**2], [period]])
        best = np.clip(-(push.T @ matrix @ coasting) / (push.T @ matrix @ push), -limit, limit)
        ahead = coasting + push * best
        fell = 1.0 - np.einsum("ib,ij,jb->b", ahead, matrix, ahead) / (level * share)
        proved = proved_decay(matrix, period, level, limit)
        assert (fell >= proved - 1e-9).all()
        tight += fell.min() < proved + 0.05
    assert tight > 20
