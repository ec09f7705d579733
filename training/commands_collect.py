"""`onestride collect`: episodes of an oracle or a person in an environment, into a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from onestride.training.commands import progress_bar, say
from onestride.training.commands_teleop import Teleop

if TYPE_CHECKING:
    from onestride.training.collection import Collected


@dataclass
class Collect:
    """Roll an oracle in an environment into a store. Running it again goes on where it was cut.

    For instance `onestride collect cube.zarr --episodes 200`. With `--play` the oracle goes from target to target with
    no task in mind: `onestride collect play.zarr --env ogbench/cube-single-play --oracle plan --play --jobs 2`.
    With `--teleop joy` a person acts, through the node and its safety chain; see docs/teleop.md.
    """

    store: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="[STORE]")]] = None
    """Store to write; default the environment's name with .zarr, in this folder."""
    env: str = "ogbench/cube-single-singletask-task2-v0"
    """Environment id."""
    oracle: str | None = None
    """The environment's scripted expert; default `markov`, at play `plan`; when walking `trot`, at the wall `push`."""
    episodes: int = 200
    """Episodes the store shall hold; with `--teleop`, to record now."""
    noise: float | None = None
    """Standard deviation of the noise on executed actions (labels stay clean), in action units; default 0.2. At play
    it is in the oracle's plan and the executed action is the label; default 0.1."""
    seed: int = 0
    """Seed of the first episode; each attempt takes the next."""
    keep_failures: bool = False
    """Store unsolved episodes too; at play there is nothing to solve."""
    learner: Path | None = None
    """Who acts in the oracle's place, a policy file or a run; the oracle's answers stay the labels."""
    play: bool = False
    """Generate play data as OGBench does, for all tasks of an environment."""
    steps: int = 1000
    """Steps of an episode at play."""
    jobs: int = 1
    """Processes at play; the content does not depend on it."""
    person: Teleop = field(default_factory=Teleop)
    """A person at the controls."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Collect and say what is in the store."""
        path = self.store or Path(f"{self.env.split('/')[-1]}.zarr")
        if self.person.teleop is not None:
            return self.person.record(self.env, path, self.episodes, self.seed, json=self.json)
        self.person.refuse_alone()
        with progress_bar("play" if self.play else "collect", self.episodes) as advance:
            work = self._play if self.play else self._collect
            result = work(path, lambda count, steps: advance(count, f"{steps} steps"))
        say(asdict(result), "collected", self.json)
        return 0

    def _collect(self, path: Path, progress: Callable[[int, int], None]) -> Collected:
        from onestride.training.collection import Collection, collect

        noise = 0.2 if self.noise is None else self.noise
        learner = str(self.learner.resolve()) if self.learner else ""
        wanted = Collection(self.env, self.oracle or "markov", noise, self.seed, self.keep_failures, learner)
        return collect(wanted, path, self.episodes, progress)

    def _play(self, path: Path, progress: Callable[[int, int], None]) -> Collected:
        from onestride.training.play import Play, play

        noise = {} if self.noise is None else {"noise": self.noise}
        wanted = Play(self.env, self.oracle or "plan", self.steps, seed=self.seed, **noise)
        return play(wanted, path, self.episodes, self.jobs, progress)
