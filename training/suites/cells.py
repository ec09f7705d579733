"""A cell of a benchmark: one agent on one task from one seed, and where its data comes from."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from onestride.hardware.errors import unknown


@dataclass(frozen=True)
class Data:
    """How a store is made; making it again goes on where it was cut.

    Attributes:
        name: Of the store in the suite's data folder.
        commands: Words of `onestride`, in order; `{data}` stands for the folder, `{store}` for the store.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Cell:
    """One training of a suite.

    Attributes:
        task: Short name, a row of the table.
        agent: Name of the algorithm and its variant, a column of the table.
        seed: Of the training.
        words: Of `onestride train`, without data, run and seed.
        data: What it learns from; None = online only.
        candidates: Also evaluated with so many candidates for each chunk, from the same weights.
        after: Agent whose cell of the same task and seed it begins from; empty = from nothing.
    """

    task: str
    agent: str
    seed: int
    words: tuple[str, ...]
    data: Data | None = None
    candidates: tuple[int, ...] = ()
    after: str = ""

    @property
    def name(self) -> str:
        """Of its run directory."""
        return f"{self.task},{self.agent},seed={self.seed}"

    @property
    def command(self) -> str:
        """The training as a command line; data and start stand for what the suite makes."""
        agent, *rest = self.words
        given = ["--data", self.data.name] if self.data else []
        start = ["--start", self.start] if self.start else []
        return shlex.join(["onestride", "train", agent, *given, *start, *rest, "--seed", str(self.seed)])

    @property
    def start(self) -> str:
        """Name of the cell it begins from; empty = none."""
        return self.after and replace(self, agent=self.after).name

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from the other cells of its suite and scale."""
        return self.task, self.agent, self.seed


@dataclass(frozen=True)
class Suite:
    """A benchmark.

    Attributes:
        name: On the command line.
        title: Of its page.
        scales: Name of a scale -> the cells of given seeds, those that tell most first.
        seeds: Of a scale, unless others are asked for.
        measure: Column of the evaluations that the table shows: `success`, or `return` with its `cost`.
    """

    name: str
    title: str
    scales: dict[str, Callable[[Sequence[int]], list[Cell]]]
    seeds: dict[str, tuple[int, ...]]
    measure: str = "success"

    def cells(self, scale: str, seeds: Sequence[int] = (), only: Sequence[str] = ()) -> list[Cell]:
        """The cells of a scale.

        Args:
            scale: One of :attr:`scales`.
            seeds: Instead of the scale's own.
            only: Tasks and agents to keep; none = all of them.

        Raises:
            OneStrideError: No such scale, task or agent.
        """
        if scale not in self.scales:
            raise unknown(f"scale of {self.name}", scale, self.scales)
        every = self.scales[scale](seeds or self.seeds[scale])
        tasks, agents = _distinct(cell.task for cell in every), _distinct(cell.agent for cell in every)
        for name in only:
            if name not in (*tasks, *agents):
                raise unknown(f"task or agent of {self.name}", name, (*tasks, *agents))
        wanted_tasks = [name for name in only if name in tasks] or tasks
        wanted_agents = [name for name in only if name in agents] or agents
        return [cell for cell in every if cell.task in wanted_tasks and cell.agent in wanted_agents]


def words(**settings: object) -> tuple[str, ...]:
    """Settings as words of a command line: `steps=5` is `--steps 5`, a tuple gives several values of one flag."""
    found: list[str] = []
    for name, value in settings.items():
        found.append("--" + name.replace("_", "-"))
        found.extend(str(one) for one in (value if isinstance(value, tuple) else (value,)))
    return tuple(found)


def play(env: str, episodes: int, steps: int = 1000) -> Data:
    """Play data of an OGBench environment, regenerated with the package's plan oracle."""
    name = f"{env.split('/')[-1]}-{episodes}x{steps}.zarr"
    settings = words(env=env, oracle="plan", episodes=episodes, steps=steps)
    return Data(name, (("collect", "{store}", "--play", *settings),))


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
