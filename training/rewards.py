"""Rewards of a single task for a store that was recorded without it: OGBench's own relabelling of recorded states.

The reward of a step is that of the state before its action, as the package's single tasks judge: minus the number of
objects that are not where the task wants them (mazes: 0 at the goal, else -1). The mask is 0 where all are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.converters.ogbench_environment import Relabeller
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError
from onestride.training.environments import robosuite_tasks
from onestride.training.environments.global_random import GlobalRandom
from onestride.training.environments.ogbench import canonical, kind_of
from onestride.training.environments.robosuite_settings import REWARD_OFFSET

STATES = "state."
NEEDED = ("qpos", "button_states")
BLOCK = 1 << 18
"""Steps relabelled at a time, which bounds memory."""

Floats = NDArray[np.float32]


class Outcomes(NamedTuple):
    """What a task says of every step of a store; read-only."""

    rewards: Floats
    """(N,)."""
    masks: Floats
    """(N,), 0 where the task is solved and no value lies beyond."""


def outcomes(store: Store, env_name: str) -> Outcomes | None:
    """Rewards and masks of a task for a store's steps, or None where those recorded count.

    robomimic's count less 1, as its environment gives them. Those recorded count in every environment but these and
    OGBench's, in the very task the store was collected in, and where
    nothing can be computed because no states were recorded.

    Args:
        store: the dataset.
        env_name: the task.

    Raises:
        OneStrideError: the store is of another environment, of another task without its states, or its states do not
            fit the task; or the package is not installed.
    """
    if robosuite_tasks.canonical(env_name) is not None:
        return _sparse(store)
    task = canonical(env_name)
    if task is None or (store.schema.environment is not None and canonical(store.schema.environment) == task):
        return None
    _check_environment(store, task)
    names = {feature.name for feature in store.schema.features}
    if STATES + NEEDED[0] not in names:
        if store.schema.by_role("reward"):
            raise OneStrideError(
                f"{store.path}: expected rewards of {task}, got those of {store.schema.environment}, and no "
                f"{STATES}{NEEDED[0]} to compute others from"
            )
        return None
    return _relabelled(store.path, store.dataset_id, task)


def _sparse(store: Store) -> Outcomes | None:
    """What was recorded, its rewards moved as the environment moves them; None where no rewards were."""
    by_role = {role: store.schema.by_role(role) for role in ("reward", "mask", "terminal")}
    if not by_role["reward"]:
        return None
    columns = {role: store.read(found[0].name).astype(np.float32) for role, found in by_role.items() if found}
    rewards = columns["reward"].reshape(-1) + np.float32(REWARD_OFFSET)
    ended = columns["terminal"].reshape(-1) if "terminal" in columns else np.zeros_like(rewards)
    masks = columns["mask"].reshape(-1) if "mask" in columns else 1 - ended
    return Outcomes(rewards, masks)


@lru_cache(maxsize=4)
def _relabelled(path: Path, dataset_id: str, task: str) -> Outcomes:
    del dataset_id  # of the cache's key: an edited store is another one
    store = Store.open(path)
    known = [name for name in NEEDED if any(one.name == STATES + name for one in store.schema.features)]
    with GlobalRandom(0), warnings.catch_warnings():  # the package's reset draws from numpy's global generator
        warnings.simplefilter("ignore")  # gymnasium warns of float32 bounds, glfw of the missing display
        relabel = Relabeller(task)
    try:
        parts = [
            relabel({name: store.read_rows(STATES + name, start, stop) for name in known})
            for start, stop in _blocks(store.num_steps)
        ]
    finally:
        relabel.close()
    rewards, masks = (np.concatenate([np.zeros(0, np.float32), *part]) for part in zip(*parts, strict=True))
    for values in (rewards, masks):
        values.setflags(write=False)
    return Outcomes(rewards, masks)


def _blocks(count: int) -> Iterable[tuple[int, int]]:
    return ((start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _check_environment(store: Store, task: str) -> None:
    """The package would read other positions as those of its objects without a word."""
    recorded = store.schema.environment
    if recorded is not None and not recorded.removeprefix("ogbench/").startswith(f"{kind_of(task)}-"):
        raise OneStrideError(f"{store.path}: expected data of {kind_of(task)} for {task}, got data of {recorded}")
