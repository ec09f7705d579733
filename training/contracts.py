"""Draft the contract of a policy that learns from a store: the one place where it is written."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.columns import is_image
from onestride.datasets.provenance import git_commit
from onestride.datasets.schema import Feature
from onestride.datasets.statistics import statistics
from onestride.datasets.store import Store
from onestride.deploy.contract import Contract, DatasetTerms, ExecutionTerms, PolicyTerms, RobotTerms
from onestride.deploy.terms import ActionTerm, CameraSource, DatasetSource, ImageTerm, ObservationTerm
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.training.environments.interface import Interface, check_rate
from onestride.training.environments.registry import interface, settings_of


class Asked(TypedDict):
    """What a run was asked for, as a contract states it."""

    algorithm: str
    """Agent name."""
    nfe: Sequence[int]
    """Network evaluations per action to offer."""
    horizon: int
    """Actions in a chunk."""
    n_action_steps: int
    """Actions executed before the next inference."""
    config: dict[str, Any]
    """The agent's settings, JSON only."""
    seed: int
    """Training seed."""
    step: int
    """Steps taken."""
    history: NotRequired[int]
    """Observation steps the policy sees; default 1."""
    candidates: NotRequired[int]
    """Chunks drawn and ranked at each inference; default 1."""


class Lived(NamedTuple):
    """What a run without a dataset has seen of its environment."""

    minimum: NDArray[np.float32]
    """Of each observation element (Do,)."""
    maximum: NDArray[np.float32]
    """Likewise."""
    episodes: int
    """Begun."""
    steps: int
    """Taken."""
    action_dim: int
    """Da."""
    rate: float
    """Steps per second [Hz]."""


def draft(
    store: Store,
    observations: Sequence[str],
    *,
    normaliser: str | None = None,
    environment: str | None = None,
    rate: float | None = None,
    **asked: Unpack[Asked],
) -> Contract:
    """The contract of a policy trained on `store`, without what only export can add.

    Where the environment's interface is stated, the terms are that environment's and a robot can run the policy.
    Elsewhere they are the dataset's own features and the contract's robot is null.

    Args:
        store: the training data.
        observations: observation features the policy sees, concatenated in this order; pictures apart.
        normaliser: fingerprint of the statistics that the normaliser was made from, where they are not the store's.
        environment: what the policy is for; None = the environment that the store names.
        rate: the environment's steps per second [Hz], for a store that states no rate; None = as its interface states.
        asked: what the run was asked for.

    Raises:
        OneStrideError: the store's names, units or rate are not the environment's.
    """
    chosen = [store.schema.feature(name) for name in observations]
    features = [feature for feature in chosen if not is_image(feature)]
    environment = environment or store.schema.environment
    known = interface(environment) if environment else None
    if known is not None and environment:
        _same_interface(store, features, known, environment)
    return Contract(
        policy=_policy(environment or Path(store.path).stem, asked),
        environment=environment,
        environment_settings=settings_of(store, [feature.name for feature in features]),
        observations=_dataset_terms(features) if known is None else known.observations,
        images=tuple(_image_term(feature) for feature in chosen if is_image(feature)),
        actions=(_dataset_action(store),) if known is None else known.actions,
        dataset=_dataset(store, features, normaliser, known),
        **_execution(known, store.schema.control_rate or rate or _usual_rate(known), asked),
    )


def draft_online(environment: str, lived: Lived, **asked: Unpack[Asked]) -> Contract:
    """The contract of a policy that learnt in an environment alone, without what only export can add.

    Where no interface is stated, elements have numbers for names and no units.
    """
    known = interface(environment)
    count = len(lived.minimum)
    names = known.observation_names if known else tuple(f"observation/{index}" for index in range(count))
    units = known.observation_units if known else ("",) * count
    actions = known.action_names if known else tuple(f"action/{index}" for index in range(lived.action_dim))
    source = DatasetSource(feature="observation", names=names, units=units)
    seen = ObservationTerm(name="observation", source=source, unit=None)
    done = ActionTerm(name="action", mode="dataset", unit=None, clip=(-1.0, 1.0), names=actions)
    return Contract(
        policy=_policy(environment, asked),
        environment=environment,
        observations=(seen,) if known is None else known.observations,
        actions=(done,) if known is None else known.actions,
        dataset=DatasetTerms(
            id="online",
            statistics="",
            episodes=lived.episodes,
            steps=lived.steps,
            observation_names=names,
            observation_units=units,
            action_names=actions,
            minimum=tuple(lived.minimum.astype(np.float64).tolist()),
            maximum=tuple(lived.maximum.astype(np.float64).tolist()),
        ),
        **_execution(known, lived.rate, asked),
    )


def _policy(learnt_from: str, asked: Asked) -> PolicyTerms:
    return PolicyTerms(
        name=f"{asked['algorithm']} on {learnt_from}",
        algorithm=asked["algorithm"],
        nfe=tuple(asked["nfe"]),
        seed=asked["seed"],
        steps=asked["step"],
        config=asked["config"],
        commit=git_commit(),
        candidates=asked.get("candidates", 1),
    )


def _execution(known: Interface | None, rate: float, asked: Asked) -> Any:
    """The contract's fields on how chunks are executed, and by which robot."""
    return {
        "schema_version": 1,
        "robot": None if known is None else RobotTerms.of(load_robot(known.robot)),
        "history": asked.get("history", 1),
        "kinematics": None if known is None else known.kinematics,
        "execution": ExecutionTerms(
            control_rate=None if known is None else known.control_rate,
            policy_rate=rate,
            horizon=asked["horizon"],
            n_action_steps=asked["n_action_steps"],
            interpolation="linear" if known is None else known.interpolation,
        ),
    }


def _usual_rate(known: Interface | None) -> float:
    return 20.0 if known is None else known.policy_rate


def _dataset(store: Store, features: list[Feature], normaliser: str | None, stated: Interface | None) -> DatasetTerms:
    """What was learnt from; elements that the data does not name are named as the environment states them."""
    label = store.schema.feature(store.schema.label)
    known = statistics(store, [*(feature.name for feature in features), label.name])
    names = tuple(name for feature in features for name in feature.element_names)
    units = tuple(unit for feature in features for unit in feature.element_units)
    lowest = np.concatenate([known.features[feature.name].min for feature in features])
    highest = np.concatenate([known.features[feature.name].max for feature in features])
    return DatasetTerms(
        id=store.dataset_id,
        statistics=normaliser or known.fingerprint,
        episodes=store.num_episodes,
        steps=store.num_steps,
        observation_names=stated.observation_names if stated else names,
        observation_units=stated.observation_units if stated else units,
        action_names=stated.action_names if stated else label.element_names,
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


def _image_term(feature: Feature) -> ImageTerm:
    height, width, channels = feature.shape
    encoding: Literal["rgb8", "mono8"] = "rgb8" if channels == 3 else "mono8"
    return ImageTerm(
        name=feature.name, source=CameraSource(camera=feature.name), width=width, height=height, encoding=encoding
    )


def _dataset_action(store: Store) -> ActionTerm:
    label = store.schema.feature(store.schema.label)
    recorded = store.read(label.name).reshape(-1, label.size)
    clip = (min(-1.0, float(recorded.min())), max(1.0, float(recorded.max())))
    return ActionTerm(name=label.name, mode="dataset", unit=None, clip=clip, names=label.element_names)


def _same_interface(store: Store, features: list[Feature], known: Interface, environment: str) -> None:
    """Compare what the data states; for what it leaves open, as OGBench's files do, the environment's word is taken."""
    label = store.schema.feature(store.schema.label)
    sides = (
        ("observations", features, known.observation_names, known.observation_units),
        ("actions", [label], known.action_names, known.action_units),
    )
    for what, chosen, names, units in sides:
        where = f"{store.path}: {what} are not those of {environment}"
        _same_names(where, chosen, names)
        _same_units(where, chosen, names, units)
    if store.schema.control_rate:
        check_rate(str(store.path), store.schema.control_rate, environment, known.policy_rate)


def _same_names(where: str, features: list[Feature], names: tuple[str, ...]) -> None:
    recorded = tuple(name for feature in features for name in feature.element_names)
    if len(recorded) == len(names) and not any(feature.names for feature in features):
        return
    for index, (ours, theirs) in enumerate(zip_longest(names, recorded)):
        if ours != theirs:
            raise OneStrideError(f"{where}: expected {ours or 'nothing'} as element {index}, got {theirs or 'nothing'}")


def _same_units(where: str, features: list[Feature], names: tuple[str, ...], units: tuple[str, ...]) -> None:
    recorded = (unit for feature in features for unit in feature.element_units)
    for name, ours, theirs in zip(names, units, recorded, strict=True):
        if theirs not in ("", ours):
            raise OneStrideError(f"{where}: expected {name} in {ours!r}, got {theirs!r}")
