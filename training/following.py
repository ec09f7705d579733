"""What the ranks from 1 on do: the same gradient steps as rank 0, on their share of the batches."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onestride.training.agents.catalogue import Agent
from onestride.training.agents.state import AgentState
from onestride.training.batches import Batches
from onestride.training.checkpoint import build_agent
from onestride.training.material import Material
from onestride.training.options import TrainOptions
from onestride.training.ranks import END, RANDOM, SAVE, Ranks, noise_group, together

_SEED_STEP = 1_000_003
"""Between the seeds of two ranks' noise."""


def follow(rank: int, meeting: Path, options: TrainOptions, start: str) -> None:
    """Train along until rank 0 says that it is over; what a person has to know is told by rank 0."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # rank 0 decides what they mean
    torch.set_num_threads(options.threads)
    device = options.torch_device(rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # else something of every rank would lie on the first one
    material = Material(options, rank)
    request = replace(material.request(start), seed=options.seed + rank * _SEED_STEP)
    agent = build_agent(request, *material.normalisers(), device)
    batches = material.batches(agent.needs, device, lambda _: None)
    with together(rank, options.processes, meeting, device, options.worker_timeout) as ranks:
        take_over(ranks.tell(None), rank, agent, batches)
        _go_along(ranks, agent, batches, options.share)


def hand_over(agent: Agent, batches: Batches, resumed: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """What the other ranks need to stand where rank 0 stands: the agent, the order, and their noise if it was kept."""
    state = agent.state_dict()
    shared = {name: _on_cpu(group) for name, group in state.tensors.items() if name != RANDOM}
    return {
        "tensors": shared,
        "values": dict(state.values),
        "order": (dict(batches.tensors()), dict(batches.values())),
        "noise": {name: group for name, group in resumed.items() if name.startswith(RANDOM)},
    }


def take_over(message: Mapping[str, Any], rank: int, agent: Agent, batches: Batches) -> None:
    """Stand where rank 0 stands, with this rank's own noise."""
    noise = message["noise"].get(noise_group(rank), agent.state_dict().tensors.get(RANDOM, {}))
    agent.load_state_dict(AgentState({**message["tensors"], RANDOM: noise}, message["values"]))
    batches.load(*message["order"])


def _go_along(ranks: Ranks, agent: Agent, batches: Batches, share: int) -> None:
    order = 0
    while not order & END:
        agent.update(batches.sample(share))
        order = ranks.order()
        if order & SAVE:
            ranks.gather_noise(agent.state_dict().tensors)


def _on_cpu(group: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in group.items()}
