"""``onestride train AGENT``: train a policy on a dataset."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from onestride.training.agents import catalogue
from onestride.training.commands import say

if TYPE_CHECKING:
    from onestride.training.trainer import TrainOptions, TrainResult


def _agent_configs() -> Any:
    """A sub-command for each agent, whose flags are its config's fields; imports the agents."""
    defaults = {name: catalogue.find(name).config() for name in catalogue.AGENTS}
    return tyro.extras.subcommand_type_from_defaults(defaults)


@dataclass
class Train:
    """Train a policy on a dataset; running it again resumes.

    For instance `onestride train mvp --data cube.zarr --run runs/cube`.
    """

    agent: Annotated[Any, tyro.conf.arg(constructor_factory=_agent_configs)]
    """Algorithm and its settings."""
    data: Path
    """Dataset store to learn from."""
    run: Path
    """Run directory: checkpoints, metrics, contract draft."""
    steps: int = 6000
    """Gradient steps in all."""
    seed: int = 0
    """Seed of the initial weights, the noise and the order of the data."""
    observations: tuple[str, ...] = ()
    """Observation features, in order; none = all of the dataset's."""
    log_every: int = 50
    """Steps between log lines."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where there is one."""
    threads: int = 1
    """CPU threads; more than one pays off for wide networks only."""
    start: Path | None = None
    """Run to begin from: its policy and normalisers, with a fresh optimiser (fine-tuning)."""
    mode: Literal["resident", "mapped", "streaming"] = "resident"
    """How the data is read: all in memory, from a memory-mapped cache, or through a bounded buffer."""
    json: bool = False
    """Print the result as JSON and nothing else on the standard output."""

    @staticmethod
    def accept(arguments: list[str]) -> None:
        """Refuse an agent that does not exist by listing those that do."""
        if arguments and not arguments[0].startswith("-"):
            catalogue.find(arguments[0])

    def __call__(self) -> int:
        """Train, then say what came of it."""
        from onestride.training.reporter import RichReporter
        from onestride.training.trainer import train

        options = self._options()
        with RichReporter() as reporter:
            result = train(options, reporter)
        say(asdict(result) if self.json else _summary(result), "trained", self.json)
        return 0

    def _options(self) -> TrainOptions:
        from onestride.training.trainer import TrainOptions

        shared = {field.name: getattr(self, field.name) for field in fields(self)}
        del shared["json"]
        return TrainOptions(config=shared.pop("agent"), **shared)


def _summary(result: TrainResult) -> dict[str, Any]:
    losses = {name: value for name, value in result.metrics.items() if "/" in name}
    shown = {name: value for name, value in asdict(result).items() if name != "metrics"}
    return {**shown, **losses}
