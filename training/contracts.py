"""Draft the contract of a policy that learns from a store: the one place where it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onestride.datasets.provenance import git_commit
from onestride.datasets.schema import Feature
from onestride.datasets.statistics import statistics
from onestride.datasets.store import Store
from onestride.deploy.contract import Contract, DatasetTerms, ExecutionTerms, PolicyTerms, RobotTerms
from onestride.deploy.terms import ActionTerm, DatasetSource, ObservationTerm
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.training.environments.interface import Interface
from onestride.training.environments.registry import interface


def draft(
    store: Store,
    observations: Sequence[str],
    *,
    algorithm: str,
    nfe: Sequence[int],
    horizon: int,
    n_action_steps: int,
    config: dict[str, Any],
    seed: int,
    step: int,
    history: int = 1,
    normaliser: str | None = None,
) -> Contract:
    """The contract of a policy trained on `store`, without what only export can add.

    Where the store names an environment whose interface is stated, the terms are that environment's and a robot
    can run the policy. Elsewhere they are the dataset's own features and the contract's robot is null.

    Args:
        store: the training data.
        observations: observation features the policy sees, concatenated in this order.
        algorithm: agent name.
        nfe: network evaluations per action to offer.
        horizon: actions in a chunk.
        n_action_steps: actions executed before the next inference.
        config: the agent's settings, JSON only.
        seed: training seed.
        step: gradient steps taken.
        history: observation steps the policy sees.
        normaliser: fingerprint of the statistics that the normaliser was made from, where they are not the store's.

    Raises:
        OneStrideError: the store's names or units are not the environment's.
    """
    features = [store.schema.feature(name) for name in observations]
    known = interface(store.schema.environment) if store.schema.environment else None
    if known is not None:
        _same_interface(store, features, known)
    return Contract(
        schema_version=1,
        policy=PolicyTerms(
            name=f"{algorithm} on {store.schema.environment or Path(store.path).stem}",
            algorithm=algorithm,
            nfe=tuple(nfe),
            seed=seed,
            steps=step,
            config=config,
            commit=git_commit(),
        ),
        environment=store.schema.environment,
        robot=None if known is None else RobotTerms.of(load_robot(known.robot)),
        history=history,
        observations=_dataset_terms(features) if known is None else known.observations,
        actions=(_dataset_action(store),) if known is None else known.actions,
        kinematics=None if known is None else known.kinematics,
        execution=ExecutionTerms(
            control_rate=None if known is None else known.control_rate,
            policy_rate=store.schema.control_rate or 20.0,
            horizon=horizon,
            n_action_steps=n_action_steps,
        ),
        dataset=_dataset(store, features, normaliser),
    )


def _dataset(store: Store, features: list[Feature], normaliser: str | None) -> DatasetTerms:
    label = store.schema.feature(store.schema.label)
    known = statistics(store, [*(feature.name for feature in features), label.name])
    lowest = np.concatenate([known.features[feature.name].min for feature in features])
    highest = np.concatenate([known.features[feature.name].max for feature in features])
    return DatasetTerms(
        id=store.dataset_id,
        statistics=normaliser or known.fingerprint,
        episodes=store.num_episodes,
        steps=store.num_steps,
        observation_names=tuple(name for feature in features for name in feature.element_names),
        observation_units=tuple(unit for feature in features for unit in feature.element_units),
        action_names=label.element_names,
        minimum=tuple(lowest.tolist()),
        maximum=tuple(highest.tolist()),
    )


def _dataset_terms(features: list[Feature]) -> tuple[ObservationTerm, ...]:
    return tuple(
        ObservationTerm(
            name=feature.name,
            source=DatasetSource(feature=feature.name, names=feature.element_names, units=feature.element_units),
            unit=None,
        )
        for feature in features
    )


def _dataset_action(store: Store) -> ActionTerm:
    label = store.schema.feature(store.schema.label)
    recorded = store.read(label.name).reshape(-1, label.size)
    clip = (min(-1.0, float(recorded.min())), max(1.0, float(recorded.max())))
    return ActionTerm(name=label.name, mode="dataset", unit=None, clip=clip, names=label.element_names)


def _same_interface(store: Store, features: list[Feature], known: Interface) -> None:
    recorded = tuple(name for feature in features for name in feature.element_names)
    if recorded != known.observation_names:
        differing = sorted(set(recorded) ^ set(known.observation_names)) or ["their order"]
        raise OneStrideError(
            f"{store.path}: observations are not those of {store.schema.environment}: {', '.join(differing[:4])} differ"
        )
