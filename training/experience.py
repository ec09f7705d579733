"""What a store knows of its steps, as the replay takes it: neighbours and outcomes, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.columns import (
    Column,
    ColumnReader,
    Indices,
    Timeline,
    chosen_observations,
    finals_known,
    scalar,
)
from onestride.datasets.schema import BASE, Feature, Role
from onestride.datasets.sources import load
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

Floats = NDArray[np.float32]

SLACK = 1e-5
"""How far inside an environment's box [-1, 1] actions are clipped, so that the inverse of a squashed policy stays
finite, as in Q-chunking's code."""

EXECUTED = "action_executed"
"""Name of the feature that holds the action that was executed, where the label is another: what an expert would have
done in its place, or its action before noise. Rewards and what followed are of the executed one."""

COST = "cost"
"""Name of the feature that holds the cost of a step; the store has no role for it."""


@dataclass(frozen=True)
class Experience:
    """N steps of whole episodes, one after the other.

    Attributes:
        observations: (N, Do).
        successors: What was observed after each step (N, Do); the last observation where that is not recorded.
        actions: Those executed (N, Da).
        rewards: (N,).
        masks: 0 where no value lies beyond the step (N,).
        terminals: 1 where the task ended (N,).
        costs: Of safe reinforcement learning (N,).
        lengths: Steps of each episode (E,).
        answered: Whether what was observed after the last step is recorded (E,).
    """

    observations: Floats
    successors: Floats
    actions: Floats
    rewards: Floats
    masks: Floats
    terminals: Floats
    costs: Floats
    lengths: Indices
    answered: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of steps N."""
        return len(self.actions)


def load_experience(
    store: Store, observations: Sequence[str] | None, env: str | None, needs: Sequence[str]
) -> Experience:
    """Read a store's steps into memory.

    Args:
        store: The dataset.
        observations: Observation features, in order; None = all but pictures.
        env: The task whose rewards count, where the store is of play data; None = those recorded.
        needs: What the agent asks of a batch beyond imitation's keys.

    Raises:
        OneStrideError: The agent needs rewards or costs that there are not.
    """
    features = chosen_observations(store, observations)
    answered = finals_known(store, features)
    timeline = Timeline(store.lengths, answered)
    reader = ColumnReader(store, timeline)
    columns = [Column.vector("observations", features), Column.vector("actions", [executed(store)])]
    rows = load(columns, reader, timeline).arrays
    here = np.arange(timeline.num_steps) + np.repeat(np.arange(len(store.lengths)), store.lengths)
    after = np.minimum(here + 1, np.repeat(timeline.last_rows, store.lengths))
    actions = rows["actions"][here]
    rewards, masks, terminals = _outcomes(store, env, "rewards" in needs)
    return Experience(
        observations=rows["observations"][here],
        successors=rows["observations"][after],
        actions=np.clip(actions, SLACK - 1, 1 - SLACK) if env else actions,
        rewards=rewards,
        masks=masks,
        terminals=terminals,
        costs=_costs(store, "costs" in needs),
        lengths=store.lengths,
        answered=answered,
    )


def executed(store: Store) -> Feature:
    """The actions that led from each observation to the next: the label, unless the store has executed ones apart."""
    label = store.schema.feature(store.schema.label)
    apart = [one for one in store.schema.features if one.name == EXECUTED]
    return next((one for one in apart if (one.shape, one.stream) == (label.shape, BASE)), label)


def check_horizon(lengths: Indices, horizon: int) -> str | None:
    """Refuse chunks that no episode is long enough for; a line of warning where some are too short.

    Raises:
        OneStrideError: Names the horizon and the longest episode.
    """
    shortest, longest = int(lengths.min()), int(lengths.max())
    if horizon > longest:
        raise OneStrideError(
            f"horizon: expected at most {longest}, the longest episode's steps, got {horizon}: "
            "the critic would never see a whole chunk"
        )
    if horizon <= shortest:
        return None
    short = int((lengths < horizon).sum())
    return (
        f"horizon {horizon} is longer than the shortest episode ({shortest} steps): "
        f"{short} of {len(lengths)} episodes hold no whole chunk, and the critic learns nothing from them"
    )


def _outcomes(store: Store, env: str | None, needed: bool) -> tuple[Floats, Floats, Floats]:
    """Rewards, masks and terminals (N,)."""
    terminals = _role(store, "terminal")
    relabelled = None
    if env is not None and needed:
        from onestride.training.rewards import outcomes

        relabelled = outcomes(store, env)
    if relabelled is not None:
        return relabelled.rewards, relabelled.masks, terminals
    if needed and scalar(store, "reward") is None:
        raise OneStrideError(
            f"{store.path}: expected rewards, because this agent learns from them, got none recorded, and none that "
            f"{env or '--env'} computes from its states; available without rewards: imitation"
        )
    masks = 1 - terminals if scalar(store, "mask") is None else _role(store, "mask")
    return _role(store, "reward"), masks, terminals


def _costs(store: Store, needed: bool) -> Floats:
    names = [feature.name for feature in store.schema.features]
    if COST in names:
        return _column(store, store.schema.feature(COST))
    if needed:
        raise OneStrideError(
            f"{store.path}: expected a feature {COST!r}, which this agent needs, got {', '.join(names)}"
        )
    return np.zeros(store.num_steps, np.float32)


def _role(store: Store, role: Role) -> Floats:
    """The store's feature of that role (N,); zeros where it has none."""
    feature = scalar(store, role)
    return np.zeros(store.num_steps, np.float32) if feature is None else _column(store, feature)


def _column(store: Store, feature: Feature) -> Floats:
    if feature.size != 1 or feature.stream != BASE:
        raise OneStrideError(f"expected one {feature.name} for each step of stream {BASE!r}, got shape {feature.shape}")
    return store.read(feature.name).reshape(-1).astype(np.float32)
