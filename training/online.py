"""The online stage: act in the environments, keep what was lived through, and hand it to the replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from onestride.training.agents.catalogue import Agent
from onestride.training.environments.interface import Environment
from onestride.training.options import TrainOptions
from onestride.training.replay import Replay
from onestride.training.rollouts import Rollouts
from onestride.training.transitions import TransitionFile

_STATE = "environments"
"""Tensor group of a checkpoint."""


class OnlineStage:
    """Environments, their record on disk, and the noise of acting.

    Args:
        options: Of the run.
        agent: Who acts.
        replay: What it learns from.
        create: Makes an environment.
        file: The record.

    Attributes:
        steps: Environment steps taken, all lanes together.
    """

    def __init__(
        self,
        options: TrainOptions,
        agent: Agent,
        replay: Replay,
        create: Callable[[], Environment],
        file: TransitionFile,
    ) -> None:
        self._options, self._agent, self._replay, self._file = options, agent, replay, file
        self._rollouts = Rollouts(
            create,
            lanes=options.environments,
            history=options.config.history,
            seed=options.seed,
            timeout=options.worker_timeout,
        )
        self._generator = torch.Generator().manual_seed(options.seed)

    @property
    def steps(self) -> int:
        """Environment steps taken, all lanes together."""
        return self._file.count

    @property
    def learning(self) -> bool:
        """Whether start-up is over and there is something to learn from."""
        return self.steps >= self._options.startup and len(self._replay) > 0

    @property
    def restarts(self) -> int:
        """Processes that were started again."""
        return self._rollouts.restarts

    def begin(self, count: int, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> list[str]:
        """Go on after `count` records, with the tensors that a checkpoint kept.

        Returns:
            Lines worth telling.
        """
        records = self._file.open(count)
        if not count:
            self._rollouts.start()
            return []
        self._replay.extend(records)
        state = tensors[_STATE]
        self._generator.set_state(state["noise"])
        return self._rollouts.resume(records, state)

    def send(self) -> None:
        """Choose the next actions and let the environments begin with them."""
        if waiting := self._rollouts.waiting:
            self._rollouts.load(waiting, self._chunks(waiting))
        self._rollouts.send()

    def receive(self) -> list[str]:
        """Take what the actions led to; one line for each process that died meanwhile."""
        records = self._rollouts.receive()
        self._file.append(records)
        self._replay.extend(records)
        return self._rollouts.notes()

    def metrics(self) -> dict[str, float]:
        """Means over the episodes that ended since the last call; empty where none did."""
        finished, self._rollouts.finished = self._rollouts.finished, []
        if not finished:
            return {}
        means = np.mean(np.array(finished, np.float64), axis=0)
        names = ("return", "success", "length", "cost")
        found = {f"environment/{name}": float(mean) for name, mean in zip(names, means, strict=True)}
        return {**found, "environment/restarts": float(self._rollouts.restarts)}

    def tensors(self) -> dict[str, Mapping[str, torch.Tensor]]:
        """What a checkpoint keeps; everything lived through is on the disk afterwards."""
        self._file.flush()
        chunks = self._rollouts.state_dict(self._options.config.n_action_steps)
        return {_STATE: {**chunks, "noise": self._generator.get_state()}}

    def close(self) -> None:
        """End the processes and close the file."""
        self._rollouts.close()
        self._file.close()

    def _chunks(self, lanes: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """The actions (n, n_action_steps, Da) to execute next in these lanes."""
        config, count = self._options.config, len(lanes)
        dim = self._rollouts.description.action_dim
        if self.steps < self._options.startup and self._options.start is None:
            return (torch.rand(count, config.n_action_steps, dim, generator=self._generator) * 2 - 1).numpy()
        device = self._options.torch_device()
        noise = torch.randn(count * config.candidates, config.horizon, dim, generator=self._generator)
        observation = torch.from_numpy(self._rollouts.observations(lanes))
        chunks = self._agent.act(observation.to(device), noise.to(device), config.nfe[0])
        return chunks[:, : config.n_action_steps].float().cpu().numpy()
