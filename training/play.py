"""Generate play data: an environment's plan oracles go from target to target, with no task in mind.

One such store serves every task of its environment: rewards are computed from the recorded states (`rewards`).
Generating the same play again goes on where it was cut, and the content does not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Schema
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.collection import SEGMENT, Collected, continued, next_seed
from onestride.training.environments.ogbench import PREFIX, play_kind, play_names
from onestride.training.environments.ogbench_player import Player
from onestride.training.parallel import in_order

COMMAND = "collect --play"


@dataclass(frozen=True)
class Play:
    """What to generate; the same play has the same content. The defaults are the package's own.

    Attributes:
        env: `ogbench/cube-single-play` and its kin.
        oracle: who plays; only `plan`.
        steps: transitions in an episode (the package's files hold one row more, the state after the last).
        noise: of the oracle's plans, as a share of the action's range.
        noise_smoothing: width of the filter over that noise [steps].
        seed: of the first episode; each takes the next.
    """

    env: str
    oracle: str = "plan"
    steps: int = 1000
    noise: float = 0.1
    noise_smoothing: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.oracle != "plan":
            raise unknown("oracle at play", self.oracle, ["plan"])
        if self.steps < 1 or self.seed < 0:
            raise OneStrideError(f"expected steps >= 1 and seed >= 0, got {self.steps} and {self.seed}")
        for name, value in (("noise", self.noise), ("noise_smoothing", self.noise_smoothing)):
            if not 0 <= value < np.inf:
                raise OneStrideError(f"expected {name} >= 0, got {value}")


def play(
    asked: Play,
    path: str | Path,
    episodes: int,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Play until the store holds `episodes` episodes.

    Args:
        asked: what to generate.
        path: the store; made if missing, continued if it holds the same play.
        episodes: how many the store shall hold.
        jobs: processes at work.
        progress: called with episodes and steps after each, in order.

    Raises:
        OneStrideError: no such play, its package is not installed, or the store holds something else.
    """
    if episodes < 1:
        raise OneStrideError(f"expected episodes >= 1, got {episodes}")
    prepare = _prepare(asked)
    store = continued(Path(path), COMMAND, asdict(asked)) or _create(asked, prepare, Path(path))
    reused = store.num_episodes
    if reused < episodes:
        _play(asked, prepare, store, episodes, jobs, progress)
    return Collected(str(path), store.dataset_id, store.num_episodes, store.num_steps, reused, failures=0)


def _play(
    asked: Play,
    prepare: Callable[[], Player],
    store: Store,
    episodes: int,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Play the seeds that are missing. What is done is kept on Ctrl-C."""
    first, missing = next_seed(store, asked.seed), range(store.num_episodes, episodes)
    seeds, steps = range(first, first + len(missing)), store.num_steps
    with store.writer() as writer:
        for done, episode in zip(missing, in_order(prepare, seeds, jobs), strict=True):
            writer.add(episode)
            steps += episode.length
            if (done + 1) % SEGMENT == 0:
                writer.flush()
            if progress:
                progress(done + 1, steps)


def _prepare(asked: Play) -> Callable[[], Player]:
    kind = play_kind(asked.env)
    if kind is None:
        raise unknown("environment to play in", asked.env, play_names())
    return partial(Player, kind, asked.steps, asked.noise, asked.noise_smoothing)


def _create(asked: Play, prepare: Callable[[], Player], path: Path) -> Store:
    try:
        player = prepare()
    except ModuleNotFoundError as error:
        raise OneStrideError(f"{asked.env} needs {error.name}: pip install 'onestride[sim]'") from None
    environment = f"{PREFIX}{player.kind}-v0"
    schema = Schema(
        features=player.features,
        control_rate=player.rate,
        label="action",
        label_source="oracle",
        environment=environment,
    )
    provenance = Provenance.now(
        COMMAND,
        packages=["ogbench", "mujoco", "gymnasium"],
        environment=environment,
        seed=asked.seed,
        extra={"collection": asdict(asked), "clock": "simulated time", "executed": "action"},
    )
    player.close()
    return Store.create(path, schema, provenance)
