"""Environments that run at once, each in its own process, and what they live through as records for the replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from onestride.training.environment_server import Description, Outcome, RemoteEnvironment
from onestride.training.environments.interface import Environment
from onestride.training.transitions import Records, layout

Floats = NDArray[np.float32]


class Finished(NamedTuple):
    """A finished episode.

    Attributes:
        reward: Summed.
        success: By the environment's own measure, at any step.
        length: Steps.
        cost: Summed.
    """

    reward: float
    success: bool
    length: int
    cost: float


@dataclass
class Lane:
    """The running episode of one environment.

    Attributes:
        environment: Where it runs.
        past: The last To observations (To, Do), the first one repeated before the episode's start.
        fresh: Whether no step was taken yet.
        chunk: What is left of the chunk being executed (n, Da).
        begun: Episodes begun so far.
        reward: Summed so far.
        cost: Likewise.
        length: Steps so far.
        success: Whether it succeeded at any step.
    """

    environment: RemoteEnvironment
    past: Floats
    chunk: Floats
    fresh: bool = True
    begun: int = 0
    reward: float = 0.0
    cost: float = 0.0
    length: int = 0
    success: bool = False

    def begin(self, observation: Floats) -> None:
        """A new episode starts here."""
        self.past = np.repeat(observation[None], len(self.past), axis=0)
        self.fresh, self.reward, self.cost, self.length, self.success = True, 0.0, 0.0, 0, False
        self.chunk, self.begun = self.chunk[:0], self.begun + 1

    def add(self, record: np.void) -> None:
        """A step was taken."""
        self.past = np.concatenate([self.past[1:], record["successor"][None]])
        self.fresh, self.length, self.success = False, self.length + 1, self.success or bool(record["success"])
        self.reward, self.cost = self.reward + float(record["reward"]), self.cost + float(record["cost"])


class Rollouts:
    """As many environments as there are lanes; all take a step at the same time.

    Args:
        create: Makes one environment; called in each child process.
        lanes: How many.
        history: Observation steps To that the policy sees.
        seed: Of the episodes: each is a function of this, its lane and its number.
        timeout: Longest wait for a process [s].

    Attributes:
        description: Of the environment.
        finished: Episodes that ended since this list was last emptied by the owner.
    """

    def __init__(
        self, create: Callable[[], Environment], *, lanes: int, history: int, seed: int, timeout: float
    ) -> None:
        environments = [RemoteEnvironment(f"environment {number}", create, timeout) for number in range(lanes)]
        self.description: Description = environments[0].describe()
        past = np.zeros((history, self.description.observation_dim), np.float32)
        chunk = np.zeros((0, self.description.action_dim), np.float32)
        self._seed, self.lanes = seed, [Lane(one, past, chunk) for one in environments]
        self._layout = layout(self.description.observation_dim, self.description.action_dim)
        self.finished: list[Finished] = []

    @property
    def waiting(self) -> list[int]:
        """Lanes whose chunk is used up."""
        return [number for number, lane in enumerate(self.lanes) if not len(lane.chunk)]

    @property
    def restarts(self) -> int:
        """Processes that were started again."""
        return sum(lane.environment.restarts for lane in self.lanes)

    def start(self) -> None:
        """Begin the first episode in every lane."""
        for number, lane in enumerate(self.lanes):
            lane.begin(lane.environment.begin(self._next_seed(number))[0])

    def resume(self, records: Records, tensors: Mapping[str, torch.Tensor]) -> list[str]:
        """Go on after these records, by living each running episode again.

        Returns:
            One line for each lane whose environment did not give the recorded observation again.
        """
        lines = []
        for number, lane in enumerate(self.lanes):
            lived = records[number :: len(self.lanes)]
            lane.begun = int(lived["begins"].sum()) - 1
            running = lived[np.flatnonzero(lived["begins"])[-1] :]
            if running["ends"][-1]:
                lane.begun, running = lane.begun + 1, running[:0]
            seen = lane.environment.begin(self._next_seed(number), list(running["action"]))
            if len(running) and not np.array_equal(seen[-1], running["successor"][-1]):
                lines.append(f"environment {number} is not where it was: its episode is not a function of its seed")
            self._relive(lane, running, seen[0])
            left = int(tensors["left"][number])
            lane.chunk = tensors["chunks"][number, :left].numpy().copy()
        return lines

    def state_dict(self, n_action_steps: int) -> dict[str, torch.Tensor]:
        """What the records do not say: the chunks being executed (L, n, Da), and what is left of each (L,)."""
        chunks = np.zeros((len(self.lanes), n_action_steps, self.description.action_dim), np.float32)
        for chunk, lane in zip(chunks, self.lanes, strict=True):
            chunk[: len(lane.chunk)] = lane.chunk
        left = torch.tensor([len(lane.chunk) for lane in self.lanes])
        return {"chunks": torch.from_numpy(chunks), "left": left}

    def observations(self, lanes: list[int]) -> Floats:
        """What the policy sees in these lanes (n, To * Do)."""
        return np.stack([self.lanes[number].past.ravel() for number in lanes])

    def load(self, lanes: list[int], chunks: Floats) -> None:
        """Execute these chunks (n, k, Da) in these lanes from now on."""
        for number, chunk in zip(lanes, np.clip(chunks, -1, 1), strict=True):
            self.lanes[number].chunk = chunk

    def send(self) -> None:
        """Begin the next action in every lane."""
        for number, lane in enumerate(self.lanes):
            lane.environment.send(lane.chunk[0], self._next_seed(number))

    def receive(self) -> Records:
        """What the actions led to, one record for each lane."""
        records = np.zeros(len(self.lanes), self._layout)
        for record, lane in zip(records, self.lanes, strict=True):
            self._receive(record, lane)
        return records

    def notes(self) -> list[str]:
        """One line for each process that died since the last call."""
        lines = [line for lane in self.lanes for line in lane.environment.notes]
        for lane in self.lanes:
            lane.environment.notes.clear()
        return lines

    def close(self) -> None:
        """End the processes."""
        for lane in self.lanes:
            lane.environment.close()

    def _receive(self, record: np.void, lane: Lane) -> None:
        outcome: Outcome = lane.environment.receive()
        step, action = outcome.step, lane.chunk[0]
        record["observation"], record["action"], record["successor"] = lane.past[-1], action, step.observation
        record["reward"], record["cost"], record["begins"] = step.reward, step.cost, lane.fresh
        record["success"] = step.success
        record["mask"], record["terminal"], record["ends"] = not step.terminal, step.terminal, step.terminal or step.cut
        lane.chunk = lane.chunk[1:]
        lane.add(record)
        if outcome.first is not None:
            self.finished.append(Finished(lane.reward, lane.success, lane.length, lane.cost))
            lane.begin(outcome.first)

    def _relive(self, lane: Lane, running: Records, first: Floats) -> None:
        lane.begin(np.asarray(first, np.float32))
        for record in running:
            lane.add(record)

    def _next_seed(self, number: int) -> int:
        """Of the episode that a lane begins next; below 2^31, which every simulator takes."""
        words = np.random.SeedSequence([self._seed, number, self.lanes[number].begun]).generate_state(1)
        return int(words[0] >> 1)
