"""What a run learns from: a dataset, an environment, or both; how large things are, and how they are normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch

from onestride.datasets.columns import chosen_observations, is_image
from onestride.datasets.statistics import statistics
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError
from onestride.policies.normaliser import Affine
from onestride.policies.vision import Picture
from onestride.training.agents import catalogue
from onestride.training.batches import Batches, ReplayBatches, WindowBatches
from onestride.training.checkpoint import RunConfig
from onestride.training.contracts import Lived
from onestride.training.environment_server import Description, creator, describe
from onestride.training.environments import registry
from onestride.training.environments.interface import Environment, check_rate
from onestride.training.experience import SLACK, check_horizon, load_experience
from onestride.training.normalisers import action_normaliser, observation_normaliser
from onestride.training.options import TrainOptions
from onestride.training.replay import Replay
from onestride.training.vision import check_sight, picture_batches, sight


class Material:
    """The dataset and the environment of a run.

    Args:
        options: Of the run.
        rank: This process's number among `options.processes`.

    Attributes:
        store: The dataset; None = there is none.
        env: Canonical name of the environment; empty = there is none.
        environment: What it is; None = there is none.
        create: Makes the environment, in any process.
        observations: Features that the policy sees, but pictures; empty without a dataset.
        pictures: Those that are pictures, and their sizes.
        observation_dim: Do.
        action_dim: Da.

    Raises:
        OneStrideError: No such data or environment, or they do not fit each other.
    """

    def __init__(self, options: TrainOptions, rank: int = 0) -> None:
        self._options, self._rank = options, rank
        self.store = Store.open(options.data) if options.data else None
        if self.store is not None and self.store.num_steps == 0:
            raise OneStrideError(f"{self.store.path}: expected recorded episodes, got an empty store")
        self.env = (registry.canonical(options.env) or options.env) if options.env else ""
        self.environment, self.create = self._environment()
        self.observations, self.observation_dim, self.action_dim = self._sizes()
        self.pictures = self._pictures()
        self._fit()

    def request(self, start: str) -> RunConfig:
        """What the run is asked for, beginning from the policy of that fingerprint."""
        options = self._options
        return RunConfig(
            agent=catalogue.name_of(options.config),
            settings=catalogue.config_to_json(options.config),
            dataset_id=self.store.dataset_id if self.store else "",
            data=str(options.data.resolve()) if options.data else "",
            observations=self.observations,
            observation_dim=options.config.history * self.observation_dim,
            action_dim=self.action_dim,
            steps=options.offline_steps,
            seed=options.seed,
            start=start,
            env=self.env,
            online_steps=options.online_steps,
            updates_per_step=options.updates_per_step,
            startup_steps=options.startup if options.online_steps else 0,
            environments=options.environments if options.online_steps else 1,
            stop=_stop(options),
            processes=options.processes,
            vision=sight(self.pictures, options.vision),
        )

    def normalisers(self) -> tuple[Affine, Affine]:
        """Of the flattened observation (To * Do,) and of one action (Da,)."""
        config, identity = self._options.config, Affine.identity(self.action_dim)
        plain = Affine.identity(config.history * self.observation_dim)
        if self.store is None:
            if config.normalise != "none":
                raise OneStrideError(f"normalise: expected none where there is no data, got {config.normalise}")
            return plain, identity
        label = self.store.schema.label
        found = statistics(self.store, [*self.observations, label])
        seen = observation_normaliser(found, self.observations, config.history)
        return (
            plain if config.normalise == "none" else seen,
            identity if self.environment else action_normaliser(found, label),
        )

    def batches(self, needs: Sequence[str], device: torch.device, note: Callable[[str], None]) -> Batches:
        """Windows of the store for imitation, the replay for agents that need outcomes.

        Raises:
            OneStrideError: The data lacks what is needed, or cannot be read in that mode.
        """
        options, config = self._options, self._options.config
        if (needs or options.online_steps) and not self.pictures:
            return ReplayBatches(self._replay(needs, device, note))
        if self.store is None:
            raise OneStrideError(f"{catalogue.name_of(config)}: expected data to imitate with --data, got none")
        windows: dict[str, Any] = {
            "observations": options.observations or None,
            "horizon": config.horizon,
            "history": config.history,
            "seed": options.seed,
            "mode": options.mode,
            "rank": self._rank,
            "ranks": options.processes,
        }
        if needs:
            self._check_horizon(self.store, note)
        if self.pictures:
            return picture_batches(self.store, windows, self.pictures, needs, device)
        return WindowBatches(Windows(self.store, **windows, successors=False, outcomes=False), device)

    def lived(self, replay: Replay | None) -> Lived:
        """What a run without a dataset has seen of its environment."""
        if self.environment is None or replay is None:
            raise OneStrideError("expected an environment and a replay, got none")
        low, high = replay.bounds()
        rate = self.environment.policy_rate
        return Lived(low, high, replay.episodes, len(replay), self.action_dim, rate)

    def _replay(self, needs: Sequence[str], device: torch.device, note: Callable[[str], None]) -> Replay:
        options, config = self._options, self._options.config
        if not needs:
            raise OneStrideError(
                f"online_steps: expected 0 for {catalogue.name_of(config)}, which imitates data alone, "
                f"got {options.online_steps}; available: agents with a critic"
            )
        if options.mode != "resident":
            raise OneStrideError(f"mode: expected resident for an agent that needs outcomes, got {options.mode}")
        online_share = getattr(config, "online_share", None)  # of agents that mix both halves themselves
        experience = None
        if self.store is not None:
            experience = load_experience(self.store, self.observations, self.env or None, needs)
            self._check_horizon(self.store, note)
        return Replay(
            experience,
            observation_dim=self.observation_dim,
            action_dim=self.action_dim,
            horizon=config.horizon,
            history=config.history,
            room=options.online_steps,
            lanes=options.environments,
            offline_share=None if online_share is None else 1 - online_share,
            seed=options.seed,
            rank=self._rank,
            ranks=options.processes,
            device=device,
        )

    def _check_horizon(self, store: Store, note: Callable[[str], None]) -> None:
        if warning := check_horizon(store.lengths, self._options.config.horizon):
            note(warning)

    def _environment(self) -> tuple[Description | None, Callable[[], Environment]]:
        if not self.env:
            return None, _no_environment
        settings: dict[str, Any] | None = (
            registry.settings_of(self.store, self._options.observations) if self.store else None
        )
        create = creator(self.env, settings)
        with closing(create()) as environment:
            return describe(environment), create

    def _sizes(self) -> tuple[tuple[str, ...], int, int]:
        if self.store is not None:
            features = chosen_observations(self.store, self._options.observations or None)
            seen = [feature for feature in features if not is_image(feature)]
            label = self.store.schema.feature(self.store.schema.label)
            return tuple(one.name for one in seen), sum(one.size for one in seen), label.size
        if self.environment is None:
            raise OneStrideError("expected data or an environment, got neither")
        if self._options.observations:
            raise OneStrideError("observations: expected none without data: the environment's are seen as they are")
        return (), self.environment.observation_dim, self.environment.action_dim

    def _pictures(self) -> dict[str, Picture]:
        options = self._options
        if self.store is None:
            return {}
        features = chosen_observations(self.store, options.observations or None)
        seen = [feature for feature in features if is_image(feature)]
        rest = [feature for feature in features if not is_image(feature)]
        found = check_sight(catalogue.name_of(options.config), seen, rest)
        if found and self.environment:
            raise OneStrideError(f"env: expected none, because environments show no pictures yet, got {options.env}")
        return found

    def _fit(self) -> None:
        if self.environment is None or self.store is None:
            return
        offered = self.environment.observation_dim, self.environment.action_dim
        recorded = self.observation_dim, self.action_dim
        if offered != recorded:
            raise OneStrideError(
                f"{self.env}: expected data of {offered[0]} observation and {offered[1]} action elements, "
                f"got {recorded[0]} and {recorded[1]} in {self.store.path}; choose features with --observations"
            )
        if self.store.schema.control_rate:
            check_rate(str(self.store.path), self.store.schema.control_rate, self.env, self.environment.policy_rate)
        label = self.store.schema.label
        found = statistics(self.store, [label]).features[label]
        for element, (low, high) in enumerate(zip(found.min, found.max, strict=True)):
            if not (low >= -1 - SLACK and high <= 1 + SLACK):
                raise OneStrideError(
                    f"{self.store.path}: expected actions in [-1, 1], the box of {self.env}, "
                    f"got {low:.4g} to {high:.4g} in element {element} of {label!r}"
                )


def _stop(options: TrainOptions) -> str:
    """The rule that may end a run early, with what it depends on; empty = none."""
    if not options.stops_early:
        return ""
    evaluated = f"{options.episodes} episodes from seed {options.evaluation_seed} every {options.evaluate_every} steps"
    return f"success {options.stop_at_success}, patience {options.patience}, {evaluated}"


def _no_environment() -> Environment:
    raise OneStrideError("expected an environment with --env, got none")
