"""The replay: a dataset's steps and those lived through since, on the agent's device, drawn as windows.

Windows are those of :class:`onestride.datasets.windows.Windows` to the bit; only where they come from differs.
Several environments run at once, so the steps of an online episode lie a constant stride apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onestride.training.experience import Experience
from onestride.training.transitions import Records

Batch = dict[str, torch.Tensor]

_REWARD, _MASK, _TERMINAL, _COST = range(4)
"""Columns of the outcomes."""


class Replay:
    """Steps in device memory, and a generator that draws windows from them.

    Args:
        experience: The dataset to begin with; None = nothing.
        observation_dim: Do.
        action_dim: Da.
        horizon: Steps h of a window.
        history: Observations To up to and including the window's first step.
        room: Online steps to come at most.
        lanes: Environments that run at once; each appends one step at a time.
        offline_share: Share of every batch that is drawn from the dataset once there are online steps, as RLPD does;
            None = all steps alike.
        seed: Of the draws.
        rank: This process's number of `ranks`, which share every batch without overlap.
        ranks: Processes that train together.
        device: Where everything lies.

    Attributes:
        starts: Where the windows of the last batch begin (B,), on the device.
        online: Online steps held.
    """

    def __init__(
        self,
        experience: Experience | None,
        *,
        observation_dim: int,
        action_dim: int,
        horizon: int,
        history: int = 1,
        room: int = 0,
        lanes: int = 1,
        offline_share: float | None = None,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self._offline = len(experience) if experience else 0
        self._rank, self._ranks = rank, ranks
        self._lanes, self._share, self._history, self._device = lanes, offline_share, history, torch.device(device)
        rows, episodes = self._offline + room, (len(experience.lengths) if experience else 0) + room
        self._observations = self._empty(rows, observation_dim)
        self._successors = self._empty(rows, observation_dim)
        self._actions = self._empty(rows, action_dim)
        self._outcomes = self._empty(rows, 4)
        self._episode_of = self._empty(rows, dtype=torch.int64)
        self._first, self._last = (self._empty(episodes, dtype=torch.int64) for _ in range(2))
        self._answered = torch.ones(episodes, dtype=torch.bool, device=device)
        self._steps = torch.arange(horizon, device=device)
        self._back = torch.arange(1 - history, 1, device=device)
        self._generator = torch.Generator(device).manual_seed(seed)
        self._episodes, self._running = 0, np.zeros(lanes, np.int64)
        self.online, self.starts = 0, torch.empty(0, dtype=torch.int64)
        if experience:
            self._fill(experience)

    def __len__(self) -> int:
        """Steps held, each of which may begin a window."""
        return self._offline + self.online

    @property
    def episodes(self) -> int:
        """Episodes begun, those of the dataset included."""
        return self._episodes

    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Smallest and largest observation elements (Do,) held; zeros where there are none."""
        held = self._observations[: len(self)] if len(self) else torch.zeros_like(self._observations[:1])
        return held.amin(dim=0).cpu().numpy(), held.amax(dim=0).cpu().numpy()

    def extend(self, records: Records) -> None:
        """Take online steps, one of each lane in turn, as many rounds as there are."""
        rounds, start = records.reshape(-1, self._lanes), len(self)
        rows = np.arange(start, start + len(records)).reshape(rounds.shape)
        ids = self._number(rounds["begins"])
        # An episode goes on until its lane's next record is of another one.
        ends = np.concatenate([ids[1:] != ids[:-1], np.ones((1, self._lanes), bool)])
        place = slice(start, start + len(records))
        self._observations[place] = self._sent(records["observation"])
        self._successors[place] = self._sent(records["successor"])
        self._actions[place] = self._sent(records["action"])
        names = ("reward", "mask", "terminal", "cost")
        self._outcomes[place] = self._sent(np.stack([records[name] for name in names], axis=1))
        self._episode_of[place] = self._sent(ids.ravel())
        self._first[self._sent(ids[rounds["begins"]])] = self._sent(rows[rounds["begins"]])
        self._last[self._sent(ids[ends])] = self._sent(rows[ends])
        self.online += len(records)

    def sample(self, batch_size: int) -> Batch:
        """This rank's windows of the next `ranks * batch_size`, at starts drawn with replacement."""
        drawn = self._draw(batch_size * self._ranks)
        self.starts = drawn[self._rank * batch_size : (self._rank + 1) * batch_size]
        return self.at(self.starts)

    def at(self, starts: torch.Tensor) -> Batch:
        """The windows that start at the given steps (B,), as ``Windows.at`` gives them, and ``costs`` (B, h).

        An episode that is still running counts as far as it is known.
        """
        stride = torch.where(starts < self._offline, 1, self._lanes)
        episodes = self._episode_of[starts]
        left = (self._last[episodes] - starts) // stride + 1
        first = self._first[episodes]
        rows = starts[:, None] + stride[:, None] * torch.minimum(self._steps, left[:, None] - 1)
        inside = (self._steps < left[:, None]).to(torch.float32)
        outcomes = self._outcomes[rows]
        terminals = outcomes[..., _TERMINAL] * inside
        masks = outcomes[..., _MASK].cummin(dim=1).values
        counts = 1 + (inside[:, 1:] * (1 - terminals.cummax(dim=1).values[:, :-1])).sum(dim=1).long()
        counts -= ((counts == left) & ~self._answered[episodes] & (masks[:, -1] != 0)).long()
        end = starts + stride * (counts - 1)
        return {
            "observations": self._observations[self._past(starts, stride, first)],
            "actions": self._actions[rows],
            "rewards": outcomes[..., _REWARD] * inside,
            "masks": masks,
            "terminals": terminals,
            "costs": outcomes[..., _COST] * inside,
            "next_observations": self._after(end, stride, first),
            "valid": (self._steps < counts[:, None]).to(torch.float32),
        }

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """Where the draws are. The online steps are the transition file's."""
        return {"replay": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Undo :meth:`state_dict`."""
        self._generator.set_state(state["replay"])

    def _fill(self, experience: Experience) -> None:
        place = slice(0, self._offline)
        self._observations[place] = self._sent(experience.observations)
        self._successors[place] = self._sent(experience.successors)
        self._actions[place] = self._sent(experience.actions)
        columns = (experience.rewards, experience.masks, experience.terminals, experience.costs)
        self._outcomes[place] = self._sent(np.stack(columns, axis=1))
        self._episodes = len(experience.lengths)
        self._episode_of[place] = self._sent(np.repeat(np.arange(self._episodes), experience.lengths))
        stops = np.cumsum(experience.lengths)
        self._first[: self._episodes] = self._sent(stops - experience.lengths)
        self._last[: self._episodes] = self._sent(stops - 1)
        self._answered[: self._episodes] = self._sent(experience.answered)

    def _number(self, begins: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The episode of each record (R, L): one that begins takes the next number, the others their lane's."""
        fresh = np.where(begins, self._episodes - 1 + np.cumsum(begins).reshape(begins.shape), -1)
        ids = np.maximum.accumulate(np.concatenate([self._running[None], fresh]), axis=0)[1:]
        self._episodes, self._running = self._episodes + int(begins.sum()), ids[-1]
        return np.asarray(ids, np.int64)

    def _draw(self, count: int) -> torch.Tensor:
        if self._share is None or not self.online or not self._offline:
            return self._integers(0, len(self), count)
        prior = round(self._share * count)
        parts = (self._integers(0, self._offline, prior), self._integers(self._offline, len(self), count - prior))
        return torch.cat(parts)

    def _integers(self, low: int, high: int, count: int) -> torch.Tensor:
        return torch.randint(low, high, (count,), generator=self._generator, device=self._device)

    def _past(self, rows: torch.Tensor, stride: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Rows (B, To) up to the given ones, the episode's first repeated before it."""
        if self._history == 1:
            return rows[:, None]
        return torch.maximum(rows[:, None] + stride[:, None] * self._back, first[:, None])

    def _after(self, end: torch.Tensor, stride: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Observations (B, To, Do) up to the one after the given rows."""
        if self._history == 1:
            return self._successors[torch.maximum(end, first)][:, None]
        rows = end[:, None] + stride[:, None] * self._back
        begin = self._observations[first][:, None]
        found = self._successors[torch.maximum(rows, first[:, None])]
        return torch.where((rows < first[:, None])[..., None], begin, found)

    def _empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self._device)

    def _sent(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.array(values)).to(self._device)
