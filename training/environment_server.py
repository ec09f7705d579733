"""An environment in a process of its own: what may be asked of it, and how it is recovered when the process dies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.training.environments.interface import Environment, Step
from onestride.training.environments.registry import make
from onestride.training.workers import Worker, WorkerError

Floats = NDArray[np.float32]


class Description(NamedTuple):
    """An environment's sizes and names."""

    name: str
    source: str
    horizon: int
    observation_dim: int
    action_dim: int
    policy_rate: float


class Repeat(NamedTuple):
    """Start the episode of a seed and take these actions (T, Da); answered by the observations (T + 1, Do)."""

    seed: int
    actions: Floats


class Act(NamedTuple):
    """Take one action (Da,), and start the episode of `next_seed` if it ends this one; answered by `Outcome`."""

    action: Floats
    next_seed: int


class Outcome(NamedTuple):
    """What the action led to, and the first observation (Do,) of the next episode where one began."""

    step: Step
    first: Floats | None


class EnvironmentServer:
    """Answers the requests above, in the child."""

    def __init__(self, create: Callable[[], Environment]) -> None:
        self._environment = create()

    def __call__(self, request: Repeat | Act | None) -> Floats | Outcome | Description:
        """The answer to a request; to None, a description."""
        if request is None:
            return describe(self._environment)
        if isinstance(request, Act):
            return self._act(request)
        observations = [self._environment.reset(request.seed)]
        observations += [self._environment.step(_double(action)).observation for action in request.actions]
        return np.array(observations, np.float32)

    def _act(self, request: Act) -> Outcome:
        step = self._environment.step(_double(request.action))
        over = step.terminal or step.cut
        first = np.asarray(self._environment.reset(request.next_seed), np.float32) if over else None
        return Outcome(step, first)


class RemoteEnvironment:
    """One environment in a child process; a death is made good by living the episode again, action by action.

    That is exact, because an environment's episode is a function of its seed and actions.
    """

    def __init__(self, name: str, create: Callable[[], Environment], timeout: float) -> None:
        self._worker = Worker(name, partial(EnvironmentServer, create), timeout)
        self._seed, self._actions = 0, list[Floats]()
        self._pending: Act | None = None
        self.notes: list[str] = []
        """One line for each death; for the owner to read and clear."""

    @property
    def restarts(self) -> int:
        """How often its process was started again."""
        return self._worker.restarts

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._worker.pid

    def describe(self) -> Description:
        """Its sizes and names."""
        description: Description = self._asked(None)
        return description

    def begin(self, seed: int, actions: Sequence[Floats] = ()) -> Floats:
        """Start the episode of a seed, and take these actions; the observations (T + 1, Do)."""
        self._seed, self._actions = seed, list(actions)
        observations: Floats = self._asked(self._past())
        return observations

    def send(self, action: Floats, next_seed: int) -> None:
        """Begin to take an action; if it ends the episode, that of `next_seed` begins."""
        self._pending = Act(action, next_seed)
        try:
            self._worker.send(self._pending)
        except WorkerError as death:
            self._recover(death, self._pending)

    def receive(self) -> Outcome:
        """What it led to."""
        if self._pending is None:
            raise ValueError("expected send before receive")
        pending = self._pending
        outcome = self._outcome(pending)
        self._worker.worked()
        self._pending = None
        if outcome.first is None:
            self._actions.append(pending.action)
        else:
            self._seed, self._actions = pending.next_seed, []
        return outcome

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def _outcome(self, pending: Act) -> Outcome:
        while True:
            try:
                outcome: Outcome = self._worker.receive()
                return outcome
            except WorkerError as death:
                self._recover(death, pending)

    def _past(self) -> Repeat:
        return Repeat(self._seed, np.array(self._actions, np.float32))

    def _recover(self, death: WorkerError, pending: Act) -> None:
        """Bring a new process to where the old one was, with the pending action on its way."""
        while True:
            self._restart(death)
            try:
                self._worker.send(self._past())
                self._worker.receive()
                return self._worker.send(pending)
            except WorkerError as again:
                death = again

    def _asked(self, request: Repeat | None) -> Any:
        while True:
            try:
                self._worker.send(request)
                answer = self._worker.receive()
            except WorkerError as death:
                self._restart(death)
            else:
                self._worker.worked()
                return answer

    def _restart(self, death: WorkerError) -> None:
        self.notes.append(f"{death}: started again, its episode is repeated")
        self._worker.restart(death)


def describe(environment: Environment) -> Description:
    """An environment's sizes and names."""
    return Description(*(getattr(environment, field) for field in Description._fields))


def creator(name: str, settings: Mapping[str, Any] | None = None) -> Callable[[], Environment]:
    """Makes an environment by name; to be called in another process."""
    return partial(make, name, settings)


def _double(action: Floats) -> NDArray[np.float64]:
    return np.asarray(action, np.float64)
