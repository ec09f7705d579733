"""The run directory: what was asked for, the contract's draft, and the snapshots to go on from.

``config.json`` (what was asked for), ``contract.json`` (the draft that export completes), ``checkpoints/`` (see
:mod:`onestride.training.snapshots`), ``metrics.csv``, ``evaluations.csv`` and ``tb/``; ``online.transitions`` of an
online run, ``multipliers.csv`` of a constrained agent, ``failures/`` of one whose losses were not finite.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from onestride.hardware.durable import write_atomic
from onestride.hardware.errors import OneStrideError
from onestride.policies.normaliser import Affine
from onestride.training import snapshots
from onestride.training.agents import catalogue
from onestride.training.agents.catalogue import Agent
from onestride.training.agents.state import AgentState
from onestride.training.origin import origin
from onestride.training.snapshots import Snapshot
from onestride.training.vision import conditioning

FORMAT = 1


@dataclass(frozen=True)
class RunConfig:
    """What a run was asked for; everything that decides its result.

    Attributes:
        agent: Name of the algorithm.
        settings: The agent's config as JSON values.
        dataset_id: Content hash of the store.
        data: Where the store was; not compared, a store may move.
        observations: Observation features, in order.
        observation_dim: Elements To * Do the network sees.
        action_dim: Elements Da of one action.
        steps: Gradient steps on the data alone.
        seed: Of the initial weights, the noise, the windows and the online episodes.
        start: Fingerprint of the policy it began from; empty where it began from nothing.
        env: Environment; empty where there is none.
        online_steps: Environment steps after the offline ones.
        updates_per_step: Gradient steps for each environment step.
        startup_steps: Environment steps before the first online update.
        environments: Environments that run at once.
        stop: What may end it early; empty = nothing.
        processes: That share every batch.
        vision: Pictures that the policy sees and its encoders; empty = none.
        format: Version of this file.
    """

    agent: str
    settings: dict[str, Any]
    dataset_id: str
    data: str
    observations: tuple[str, ...]
    observation_dim: int
    action_dim: int
    steps: int
    seed: int
    start: str = ""
    env: str = ""
    online_steps: int = 0
    updates_per_step: int = 1
    startup_steps: int = 0
    environments: int = 1
    stop: str = ""
    processes: int = 1
    vision: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def updates(self) -> int:
        """Gradient steps in all, start-up not deducted."""
        return self.steps + self.online_steps * self.updates_per_step

    @property
    def total_steps(self) -> int:
        """Gradient steps offline and environment steps online."""
        return self.steps + self.online_steps

    def differences(self, other: RunConfig) -> list[str]:
        """One line for each field that decides the result and differs, ``field: mine, not theirs``."""
        mine, theirs = self._flat(), other._flat()
        names = [*mine, *(name for name in theirs if name not in mine)]
        return [
            f"{name}: {mine.get(name)} there, {theirs.get(name)} asked for"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]

    def _flat(self) -> dict[str, Any]:
        values = asdict(self)
        values.pop("data")
        return {**values.pop("settings"), **values}


@dataclass(frozen=True)
class Run:
    """A run directory, loaded.

    Attributes:
        path: The directory.
        config: What was asked for.
        agent: The agent at its newest intact checkpoint.
        contract: The contract's draft, JSON text.
        step: Gradient steps taken.
        damaged: One line for each newer checkpoint that was damaged and passed over.
    """

    path: Path
    config: RunConfig
    agent: Agent
    contract: str
    step: int
    damaged: tuple[str, ...]


class RunDirectory:
    """The files of one run; see the module's docstring for the layout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.csv"
        self.evaluations = path / "evaluations.csv"
        self.multipliers = path / "multipliers.csv"
        self.transitions = path / "online.transitions"
        self.failures = path / "failures"
        self.tensorboard = path / "tb"
        self._config = path / "config.json"
        self._contract = path / "contract.json"
        self._origin = path / "origin.json"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only process that trains here; the kernel lets go even after ``kill -9``.

        Raises:
            OneStrideError: Another process is training here, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OneStrideError(f"expected a writable run directory, got {self.path}: {error}") from error
        try:
            self._acquire(descriptor)
            yield
        finally:
            os.close(descriptor)

    def claim(self, config: RunConfig) -> None:
        """Write the config into a fresh directory, or check that the run already here is the same one.

        Raises:
            OneStrideError: Another run lives here: names each field that differs, and what to do.
        """
        if not self._config.exists():
            self._write(self._origin, json.dumps(origin(), indent=2) + "\n")
            self._write(self._config, json.dumps(asdict(config), indent=2) + "\n")
            return
        differences = self.config().differences(config)
        if differences:
            raise OneStrideError(
                f"{self.path}: expected the run that lives here, got another one "
                f"({'; '.join(differences)}); choose another directory with --run, or remove this one"
            )

    def config(self) -> RunConfig:
        """What was asked for.

        Raises:
            OneStrideError: There is no run here, or its config cannot be read.
        """
        try:
            values = json.loads(self._config.read_bytes())
            values["observations"] = tuple(values["observations"])
            values["settings"] = catalogue.completed(values["agent"], values["settings"])
            config = RunConfig(**values)
        except FileNotFoundError as error:
            raise OneStrideError(f"expected a run directory, got {self.path}: no {self._config.name}") from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            names = ", ".join(field.name for field in fields(RunConfig))
            raise OneStrideError(f"{self._config}: expected fields {names}, got: {error}") from error
        if config.format != FORMAT:
            raise OneStrideError(f"{self._config}: expected format {FORMAT}, got {config.format}")
        return config

    def origin(self) -> dict[str, Any]:
        """Commit and device that the run began with; empty where they were not noted."""
        try:
            return dict(json.loads(self._origin.read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}

    def write_contract(self, text: str) -> None:
        """Replace the contract's draft."""
        self._write(self._contract, text)

    def contract(self) -> str:
        """The contract's draft.

        Raises:
            OneStrideError: It cannot be read.
        """
        try:
            return self._contract.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OneStrideError(f"{self._contract}: expected a contract's draft, got: {error}") from error

    def _acquire(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OneStrideError(
                f"{self.path}: expected to train here alone, got another process training here; "
                "wait for it, or choose another directory with --run"
            ) from error

    def _write(self, path: Path, text: str) -> None:
        try:
            write_atomic(path, text.encode(), self.path)
        except OSError as error:
            raise OneStrideError(f"{path}: expected to write it, got: {error}") from error


def load_run(path: str | Path, device: torch.device | str = "cpu") -> Run:
    """A run directory with its agent at the newest intact checkpoint.

    Raises:
        OneStrideError: Not a run, no intact checkpoint yet, or a file is damaged.
    """
    directory = RunDirectory(Path(path))
    config = directory.config()
    snapshot, damaged = snapshots.newest(directory.checkpoints)
    if snapshot is None:
        reasons = "; ".join(damaged) or "none yet"
        raise OneStrideError(f"{directory.checkpoints}: expected an intact checkpoint, got {reasons}")
    agent = build_agent(config, Affine.identity(config.observation_dim), Affine.identity(config.action_dim), device)
    restore_agent(agent, snapshot)
    return Run(directory.path, config, agent, directory.contract(), snapshot.step, damaged)


def build_agent(config: RunConfig, observation: Affine, action: Affine, device: torch.device | str = "cpu") -> Agent:
    """The agent a run was asked for, untrained, around its normalisers."""
    settings = catalogue.config_from_json(config.agent, config.settings)
    agent = catalogue.find(config.agent).agent
    seen = conditioning(observation, config.vision, settings.history, config.seed)
    return agent(settings, seen, action, steps=config.updates, seed=config.seed, device=device)


def restore_agent(agent: Agent, snapshot: Snapshot) -> None:
    """Put an agent where a snapshot was taken.

    Raises:
        OneStrideError: The snapshot is of another kind or size of agent.
    """
    try:
        agent.load_state_dict(AgentState(snapshot.tensors, snapshot.values["agent"]))
    except (RuntimeError, KeyError, ValueError) as error:
        raise OneStrideError(f"expected a checkpoint that fits the run's config, got: {error}") from error
