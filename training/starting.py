"""Begin a run from another run's policy: fine-tuning with the weights and the normalisers that acted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from onestride.hardware.errors import OneStrideError
from onestride.training.agents.catalogue import Agent
from onestride.training.agents.state import AgentState
from onestride.training.checkpoint import RunConfig, load_run

_ACTING = ("ema", "actor", "model")
"""Groups of an agent's state that may hold the policy that acts; the first one there is does."""


@dataclass(frozen=True)
class Start:
    """The policy a run begins from.

    Attributes:
        state: Of the agent that learnt it.
        fingerprint: SHA-256 over the acting weights and normalisers.
        normaliser: Fingerprint of the statistics that its normalisers were made from.
        config: What its run was asked for.
        path: Its run directory.
    """

    state: AgentState
    fingerprint: str
    normaliser: str
    config: RunConfig
    path: Path


def load_start(path: Path) -> Start:
    """Read the newest intact checkpoint of a run.

    Raises:
        OneStrideError: There is none.
    """
    run = load_run(path)
    state = run.agent.state_dict()
    digest = hashlib.sha256()
    acting = next(name for name in _ACTING if name in state.tensors)
    for name, tensor in sorted(state.tensors[acting].items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    normaliser = str(json.loads(run.contract)["dataset"]["statistics"])
    return Start(state, digest.hexdigest(), normaliser, run.config, run.path)


def begin(agent: Agent, config: RunConfig, start: Start) -> None:
    """Put a fresh agent where another run ended.

    Raises:
        OneStrideError: The other run's policy has other inputs, outputs or layers.
    """
    for name in ("agent", "observations", "observation_dim", "action_dim"):
        mine, theirs = getattr(config, name), getattr(start.config, name)
        if mine != theirs:
            raise OneStrideError(f"{start.path}: cannot begin from it: {name}: expected {mine}, got {theirs}")
    try:
        agent.begin_from(start.state)
    except RuntimeError as error:
        raise OneStrideError(f"{start.path}: cannot begin from it, its policy has another shape: {error}") from None
