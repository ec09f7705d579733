"""Windows of steps for training: uniform over steps, padded and marked at episode ends, resumable to the bit.

Low-dimensional datasets stay in memory; a batch is a handful of numpy gathers, no loop over its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.schema import BASE, Feature, Role
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError, unknown

Batch = dict[str, NDArray[np.float32]]
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class Windows:
    """Resident sampler of windows that start at any step of any episode.

    Args:
        store: where the steps are read from, once.
        observations: observation features to join into one vector, in this order; None = all of them in the
            schema's order.
        horizon: steps h of a window.
        history: observations To up to and including the window's first step; before an episode's start the
            first observation is repeated.
        seed: of the starts that are drawn.

    Raises:
        OneStrideError: an empty store, an unknown or unfit feature, or a length below 1.
    """

    def __init__(
        self,
        store: Store,
        *,
        observations: Sequence[str] | None,
        horizon: int,
        history: int = 1,
        seed: int = 0,
    ) -> None:
        if horizon < 1 or history < 1:
            raise OneStrideError(f"expected horizon and history of at least 1, got {horizon} and {history}")
        if store.num_steps == 0:
            raise OneStrideError(f"{store.path}: expected recorded episodes, got an empty store")
        self.horizon = horizon
        self.history = history
        self.observations = tuple(feature.name for feature in _chosen(store, observations))
        self._load(store)
        self._index(store.lengths)
        self._generator = np.random.default_rng(seed)

    @property
    def observation_dim(self) -> int:
        """Elements Do of one observation."""
        return int(self._observations.shape[1])

    @property
    def action_dim(self) -> int:
        """Elements Da of one action."""
        return int(self._actions.shape[1])

    @property
    def num_windows(self) -> int:
        """Number of different windows: one for each step."""
        return len(self._actions)

    @property
    def arrays(self) -> dict[str, Floats]:
        """What the windows gather from, N steps: observations (N, Do), actions (N, Da), the others (N,)."""
        return {
            "observations": self._observations[: self.num_windows],
            "actions": self._actions,
            "rewards": self._rewards,
            "terminals": self._terminals,
            "masks": self._masks,
        }

    def sample(self, batch_size: int) -> Batch:
        """Windows at starts drawn uniformly over all steps, see `at`."""
        return self.at(self._generator.integers(self.num_windows, size=batch_size))

    def at(self, starts: Indices) -> Batch:
        """The windows that start at the given steps (B,) of the concatenated episodes.

        Returns:
            `observations` (B, To, Do); `actions` (B, h, Da), the episode's last one repeated past its end;
            `rewards` and `terminals` (B, h) as recorded, 0 past the end; `masks` (B, h), the running minimum;
            `valid` (B, h), 0 past the end and after the first terminal; `next_observations` (B, To, Do) after the
            last valid step.

        Reference: arXiv:2507.07969 (Q-chunking), the chunk's masks and valid.
        """
        stops = self._stops[starts]
        steps = starts[:, None] + np.arange(self.horizon)
        inside = (steps < stops[:, None]).astype(np.float32)
        rows = np.minimum(steps, stops[:, None] - 1)
        terminals = self._terminals[rows] * inside
        ended = np.maximum.accumulate(terminals, axis=1)
        valid = inside.copy()
        valid[:, 1:] *= 1 - ended[:, :-1]
        after = starts + np.count_nonzero(valid, axis=1)
        return {
            "observations": self._histories(starts, starts),
            "actions": self._actions[rows],
            "rewards": self._rewards[rows] * inside,
            "masks": np.minimum.accumulate(self._masks[rows], axis=1),
            "terminals": terminals,
            "next_observations": self._histories(after, starts),
            "valid": valid,
        }

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, as JSON values."""
        return {"generator": self._generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Raises:
            OneStrideError: not such a state.
        """
        try:
            self._generator.bit_generator.state = state["generator"]
        except (KeyError, TypeError, ValueError) as error:
            raise OneStrideError(f"expected a sampler state with a PCG64 generator, got: {error}") from error

    def _load(self, store: Store) -> None:
        chosen = [store.schema.feature(name) for name in self.observations]
        # Rows N.. hold the observation after each episode's last action, so that one gather serves both.
        recorded = _flat(store, chosen)
        self._observations = np.concatenate([recorded, _after(store, chosen, recorded)])
        self._actions = _flat(store, [store.schema.feature(store.schema.label)])
        zeros = np.zeros(len(self._actions), np.float32)
        self._rewards = _scalar(store, "reward", zeros)
        self._terminals = _scalar(store, "terminal", zeros)
        self._masks = _scalar(store, "mask", 1 - self._terminals)

    def _index(self, lengths: Indices) -> None:
        stops = np.cumsum(lengths)
        self._starts = np.repeat(stops - lengths, lengths)
        self._stops = np.repeat(stops, lengths)
        self._episode = np.repeat(np.arange(len(lengths)), lengths)

    def _histories(self, steps: Indices, starts: Indices) -> Floats:
        """Observations (B, To, Do) up to `steps` (B,), each in the episode of `starts` (B,) or one past its end."""
        rows = steps[:, None] + np.arange(1 - self.history, 1)
        rows = np.maximum(rows, self._starts[starts][:, None])
        past = self.num_windows + self._episode[starts][:, None]
        histories: Floats = self._observations[np.where(rows == self._stops[starts][:, None], past, rows)]
        return histories


def _chosen(store: Store, names: Sequence[str] | None) -> list[Feature]:
    offered = [one for one in store.schema.by_role("observation") if one.stream == BASE]
    if names is None:
        names = [feature.name for feature in offered]
    if not names or len(set(names)) != len(names):
        raise OneStrideError(f"expected at least one observation, each once, got {list(names)}")
    by_name = {feature.name: feature for feature in offered}
    for name in names:
        if name not in by_name:
            raise unknown(f"observation on the stream {BASE!r}", name, by_name)
    return [by_name[name] for name in names]


def _flat(store: Store, features: Sequence[Feature]) -> Floats:
    """The features side by side (N, D)."""
    parts = [store.read(feature.name).reshape(-1, feature.size) for feature in features]
    joined: Floats = np.concatenate(parts, axis=1, dtype=np.float32, casting="unsafe")
    return joined


def _after(store: Store, features: Sequence[Feature], steps: Floats) -> Floats:
    """Observation after each episode's last action (E, D): recorded in all features, else the last of `steps`."""
    last = np.cumsum(store.lengths) - 1
    values, known = zip(*(store.read_final(feature.name) for feature in features), strict=True)
    flat = [value.reshape(len(last), feature.size) for value, feature in zip(values, features, strict=True)]
    final = np.concatenate(flat, axis=1, dtype=np.float32, casting="unsafe")
    # All or none: an observation of two instants would be one that never was.
    return np.where(np.all(known, axis=0)[:, None], final, steps[last])


def _scalar(store: Store, role: Role, default: Floats) -> Floats:
    """The store's feature of that role (N,), or the default."""
    features = store.schema.by_role(role)
    if not features:
        return default
    feature = features[0]
    if feature.size != 1 or feature.stream != BASE:
        raise OneStrideError(
            f"expected one {role} for each step of stream {BASE!r}, got {feature.name!r} of shape {feature.shape}"
        )
    return store.read(feature.name).reshape(-1).astype(np.float32)
