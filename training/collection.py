"""Roll an oracle in an environment into a store: noisy actions are executed, the oracle's clean ones are the labels.

The noise takes the robot off the oracle's path, the labels show the way back. Where a policy acts in the oracle's
place, they show the way back from where that policy gets (DAgger, arXiv:1011.0686). Running the same collection again
goes on where it was cut.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onestride.datasets.layout import LOCK
from onestride.datasets.lock import AppendLock
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError
from onestride.training.environments.oracles import Demonstrable, demonstrable
from onestride.training.learner import Learner

COMMAND = "collect"

#: Episodes committed at once: what a `kill -9` can cost.
SEGMENT = 25


@dataclass(frozen=True)
class Collection:
    """What to collect; the same collection has the same content.

    Attributes:
        env: environment id.
        oracle: the environment's scripted expert.
        noise: standard deviation of the Gaussian noise on executed actions, in action units ([-1, 1]).
        seed: of the first episode; each attempt takes the next.
        keep_failures: store unsolved episodes too.
        policy: who acts in the oracle's place, a policy file or a run; empty = the oracle itself.
    """

    env: str
    oracle: str = "markov"
    noise: float = 0.2
    seed: int = 0
    keep_failures: bool = False
    policy: str = ""

    @property
    def recorded(self) -> dict[str, Any]:
        """As a store's provenance has it, which named no policy before there could be one."""
        return {name: value for name, value in asdict(self).items() if name != "policy" or value}


@dataclass(frozen=True)
class Collected:
    """What is in the store now.

    Attributes:
        path: the store.
        dataset_id: its content hash.
        episodes: stored, those from earlier runs included.
        steps: likewise.
        reused: episodes that were there before.
        failures: attempts of this run that were not solved.
    """

    path: str
    dataset_id: str
    episodes: int
    steps: int
    reused: int
    failures: int


def collect(
    collection: Collection, path: str | Path, episodes: int, progress: Callable[[int, int], None] | None = None
) -> Collected:
    """Collect until the store holds `episodes` episodes.

    Args:
        collection: what to collect.
        path: the store; made if missing, continued if it holds the same collection.
        episodes: how many the store shall hold.
        progress: called with episodes and steps after each.

    Raises:
        OneStrideError: unknown environment or oracle, or the store holds something else.
    """
    if episodes < 1 or not 0 <= collection.noise < np.inf:
        raise OneStrideError(f"expected episodes >= 1 and noise >= 0, got {episodes} and {collection.noise}")
    with closing(demonstrable(collection.env)) as environment:
        environment.reset(collection.seed)
        environment.oracle(collection.oracle, collection.seed)  # a name that there is not leaves no store behind
        learner = Learner(collection.policy, environment) if collection.policy else None
        store = _open(collection, environment, Path(path))
        reused, failures = store.num_episodes, 0
        if reused < episodes:
            failures = _roll(collection, environment, learner, store, episodes, progress)
    return Collected(str(path), store.dataset_id, store.num_episodes, store.num_steps, reused, failures)


def _roll(
    collection: Collection,
    environment: Demonstrable,
    learner: Learner | None,
    store: Store,
    episodes: int,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Attempt seeds until the store is full; the number of failures. What was rolled is kept on Ctrl-C."""
    seed, count, steps, failures = next_seed(store, collection.seed), store.num_episodes, store.num_steps, 0
    with store.writer() as writer:
        while count < episodes:
            episode = rollout(environment, collection.oracle, collection.noise, seed, learner)
            if episode.attributes["success"] or collection.keep_failures:
                writer.add(episode)
                count, steps = count + 1, steps + episode.length
            if count % SEGMENT == 0:
                writer.flush()
            failures += not episode.attributes["success"]
            if failures > 10 * episodes:
                raise OneStrideError(f"{failures} attempts failed: the oracle cannot solve this with so much noise")
            seed += 1
            if progress:
                progress(count, steps)
    return failures


def next_seed(store: Store, first: int) -> int:
    """The seed after those of a store's episodes; `first` for an empty one."""
    seeds = [int(episode.attributes["seed"]) for episode in store.episodes]  # type: ignore[arg-type]
    return max(seeds, default=first - 1) + 1


def rollout(
    environment: Demonstrable, oracle_name: str, noise: float, seed: int, learner: Learner | None = None
) -> Episode:
    """One episode under noise, until solved, lost or cut: of an oracle, or of a learner that the oracle corrects."""
    observation = environment.reset(seed)
    oracle, rng = environment.oracle(oracle_name, seed), np.random.default_rng(seed)
    if learner:
        learner.begin(seed)
    rows: dict[str, list[Any]] = {feature.name: [] for feature in _features(environment)}
    solved = over = False
    while not over:
        data, clean = environment.physics[1], oracle.act()
        acted = learner.act(observation) if learner else clean
        executed = np.clip(acted + noise * rng.standard_normal(clean.shape), -1.0, 1.0).astype(np.float32)
        before = {"observation": observation, "state.qpos": data.qpos.copy(), "state.qvel": data.qvel.copy()}
        step = environment.step(executed.astype(np.float64))
        observation, solved, over = step.observation, step.success, step.success or step.cut or step.terminal
        row = before | {"action": clean, "action_executed": executed, "reward": step.reward, "terminal": step.terminal}
        for name, value in row.items():
            rows[name].append(value)
    return _episode(environment, rows, observation, seed, solved)


def _episode(environment: Demonstrable, rows: dict[str, list[Any]], last: Any, seed: int, solved: bool) -> Episode:
    dtypes = {feature.name: feature.dtype for feature in _features(environment)}
    arrays = {name: np.asarray(values, dtypes[name]) for name, values in rows.items()}
    return Episode(
        data=arrays,
        timestamps={"base": synthetic_clock(len(arrays["action"]), environment.policy_rate)},
        final={"observation": np.asarray(last, np.float32)},
        attributes={"seed": seed, "success": solved, "task": environment.name},
    )


def _features(environment: Demonstrable) -> tuple[Feature, ...]:
    known, model = environment.interface, environment.physics[0]
    names = known.action_names if known else ()
    actions = {"shape": (environment.action_dim,), "dtype": "float32", "names": names}
    return (
        Feature(
            name="observation",
            role="observation",
            shape=(environment.observation_dim,),
            dtype="float32",
            names=known.observation_names if known else (),
            units=known.observation_units if known else (),
        ),
        Feature(name="action", role="action", **actions),
        Feature(name="action_executed", role="info", **actions),
        Feature(name="reward", role="reward", shape=(), dtype="float32"),
        Feature(name="terminal", role="terminal", shape=(), dtype="bool"),
        Feature(name="state.qpos", role="state", shape=(model.nq,), dtype="float64"),
        Feature(name="state.qvel", role="state", shape=(model.nv,), dtype="float64"),
    )


def continued(path: Path, command: str, wanted: dict[str, Any]) -> Store | None:
    """The store at a path, if it holds what is wanted; None where nothing is, or nothing but another one's beginning.

    Raises:
        OneStrideError: it holds something else, or another process is about to write it.
    """
    if not path.exists():
        return None
    store = Store.open(path)
    if store.provenance.command != command or store.provenance.extra.get("collection") != wanted:
        if store.provenance.command == command and _removed_empty(path):
            return None
        found = store.provenance.extra.get("collection", store.provenance.command)
        raise OneStrideError(f"{path} holds another collection: expected {wanted}, got {found}; choose another path")
    return store


def _removed_empty(path: Path) -> bool:
    """Whether a store never held an episode; it is removed then, unless another process has begun to write it."""
    with AppendLock(path / LOCK):
        empty = not Store.open(path).segments
        if empty:
            shutil.rmtree(path)
        return empty


def _open(collection: Collection, environment: Demonstrable, path: Path) -> Store:
    wanted = collection.recorded
    if (store := continued(path, COMMAND, wanted)) is not None:
        return store
    schema = Schema(
        features=_features(environment),
        control_rate=environment.policy_rate,
        label="action",
        label_source="oracle",
        environment=environment.name,
        robot=environment.interface.robot if environment.interface else None,
    )
    provenance = Provenance.now(
        COMMAND,
        packages=list(environment.packages),
        environment=environment.name,
        seed=collection.seed,
        noise=collection.noise,
        extra={"collection": wanted, "clock": "simulated time", "executed": "action_executed (label plus noise)"},
    )
    return Store.create(path, schema, provenance)
