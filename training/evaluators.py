"""Evaluation beside training: episodes at fixed seeds, played from a copy of the policy, in processes of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from safetensors.torch import load as decode
from safetensors.torch import save as encode

from onestride.deploy.contract import parse_contract
from onestride.policies.normaliser import Affine
from onestride.training.acting import TorchPolicy
from onestride.training.checkpoint import RunConfig, build_agent
from onestride.training.environments.interface import Environment
from onestride.training.evaluation import Trial, run_episode
from onestride.training.workers import Worker, WorkerError


class EpisodeRequest(NamedTuple):
    """One episode of a policy: its weights as safetensors, the step they are of, and the episode's seed."""

    step: int
    weights: bytes
    seed: int


class EpisodePlayer:
    """Plays episodes in one process, which holds the environment and the policy's network."""

    def __init__(self, config: RunConfig, contract: str, create: Callable[[], Environment]) -> None:
        torch.set_num_threads(1)
        dims = (Affine.identity(config.observation_dim), Affine.identity(config.action_dim))
        draft = parse_contract(contract, "the run's contract")
        agent = build_agent(config, *dims)
        self._policy = TorchPolicy(draft, agent.as_exportable(draft.policy.nfe))
        self._environment, self._step = create(), -1

    def __call__(self, request: EpisodeRequest) -> Trial:
        """Play one episode."""
        if request.step != self._step:
            self._policy.load(decode(request.weights))
            self._step = request.step
        return run_episode(self._policy, self._environment, request.seed)


class _Seat(Protocol):
    """Where episodes are played: a process, or this one."""

    def send(self, request: Any) -> None: ...
    def ready(self) -> bool: ...
    def receive(self) -> Any: ...
    def close(self) -> None: ...


class _Here:
    """Plays in this process, while everything else waits."""

    def __init__(self, create: Callable[[], Callable[[Any], Any]]) -> None:
        threads = torch.get_num_threads()
        self._handler = create()
        torch.set_num_threads(threads)
        self._answers: deque[Any] = deque()

    def send(self, request: Any) -> None:
        self._answers.append(self._handler(request))

    def ready(self) -> bool:
        return bool(self._answers)

    def receive(self) -> Any:
        return self._answers.popleft()

    def close(self) -> None:
        pass


class Evaluators:
    """A crew that plays one evaluation at a time; each member has one episode in hand.

    Args:
        config: Of the run.
        contract: Its draft, JSON text.
        create: Makes an environment; called in each process.
        count: Processes; 0 = none, episodes are played in this one.
        timeout: Longest wait for an episode [s].

    Attributes:
        notes: One line for each death, for the owner to read and clear.
        restarts: Processes that were started again.
    """

    def __init__(
        self, config: RunConfig, contract: str, create: Callable[[], Environment], count: int, timeout: float
    ) -> None:
        player = partial(EpisodePlayer, config, contract, create)
        self._seats: list[_Seat] = [Worker(f"evaluator {i}", player, timeout) for i in range(count)]
        self._seats = self._seats or [_Here(player)]
        self._playing: dict[int, EpisodeRequest] = {}
        self._waiting: deque[EpisodeRequest] = deque()
        self._trials: dict[int, Trial] = {}
        self._seeds: tuple[int, ...] = ()
        self.notes: list[str] = []
        self.restarts = 0

    def begin(self, step: int, tensors: Mapping[str, torch.Tensor], seeds: tuple[int, ...]) -> None:
        """Start to play an episode for each seed with these weights."""
        weights = encode({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        self._seeds, self._trials = seeds, {}
        self._waiting = deque(EpisodeRequest(step, weights, seed) for seed in seeds)
        for number in range(len(self._seats)):
            self._next(number)

    def poll(self) -> list[Trial] | None:
        """Take what is done without waiting; the trials in the seeds' order once all are."""
        for number in list(self._playing):
            while number in self._playing and self._seats[number].ready():
                self._take(number)
        return self._result()

    def wait(self) -> list[Trial]:
        """The trials in the seeds' order, once all are played.

        Raises:
            OneStrideError: A process died too often over one episode.
        """
        while (trials := self._result()) is None:
            self._take(min(self._playing))
            self.poll()
        return trials

    def close(self) -> None:
        """End the processes."""
        for seat in self._seats:
            seat.close()

    def _result(self) -> list[Trial] | None:
        return [self._trials[seed] for seed in self._seeds] if len(self._trials) == len(self._seeds) else None

    def _next(self, number: int) -> None:
        """Give a seat its next episode, if there is one."""
        if not self._waiting:
            return
        self._playing[number] = self._waiting.popleft()
        try:
            self._seats[number].send(self._playing[number])
        except WorkerError as death:
            self._again(number, death)

    def _take(self, number: int) -> None:
        """Receive a seat's trial and give it the next episode."""
        try:
            trial: Trial = self._seats[number].receive()
        except WorkerError as death:
            return self._again(number, death)
        seat = self._seats[number]
        if isinstance(seat, Worker):
            seat.worked()
        self._trials[trial.seed] = trial
        del self._playing[number]
        return self._next(number)

    def _again(self, number: int, death: WorkerError) -> None:
        """Repeat the episode in a new process."""
        seat, play = self._seats[number], self._playing[number]
        if not isinstance(seat, Worker):
            raise death
        while True:
            self.notes.append(f"{death}: started again, its episode is repeated")
            seat.restart(death)
            self.restarts += 1
            try:
                return seat.send(play)
            except WorkerError as another:
                death = another
