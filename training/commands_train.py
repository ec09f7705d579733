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
    configs = {name: catalogue.find(name).config for name in catalogue.AGENTS}
    defaults = {name: config() for name, config in configs.items()}
    told = {name: str(config.__doc__).splitlines()[0] for name, config in configs.items()}
    return tyro.extras.subcommand_type_from_defaults(defaults, descriptions=told)


@dataclass
class Train:
    """Train a policy on a dataset, in an environment, or first on the one and then in the other.

    Running it again resumes. For instance `onestride train mvp --data cube.zarr --run runs/cube`.
    """

    agent: Annotated[Any, tyro.conf.arg(constructor_factory=_agent_configs)]
    """Algorithm and its settings."""
    run: Path
    """Run directory: checkpoints, metrics, contract draft."""
    data: Path | None = None
    """Dataset store to learn from; none = learn online only."""
    steps: int = 6000
    """Gradient steps on the data, before the first online step."""
    env: str | None = None
    """Environment to act and evaluate in."""
    online_steps: int = 0
    """Environment steps after the offline ones."""
    updates_per_step: int = 1
    """Gradient steps for each environment step."""
    startup_steps: int | None = None
    """Environment steps before the first online update; default none with data, 1000 random ones without."""
    environments: int = 1
    """Environments that run at once, each in a process."""
    evaluate_every: int = 10_000
    """Steps between evaluations; the last step is always evaluated."""
    episodes: int = 50
    """Episodes of an evaluation, at the same seeds every time."""
    evaluation_seed: int = 1_000_000
    """Seed of an evaluation's first episode; each takes the next."""
    evaluators: int = 1
    """Processes that evaluate beside training; 0 = training waits and evaluates itself."""
    stop_at_success: float | None = None
    """Success rate at which training ends early."""
    patience: int | None = None
    """Evaluations without a better one after which training ends early."""
    worker_timeout: float = 300.0
    """Longest wait for an answer of an environment or an evaluator [s]."""
    seed: int = 0
    """Seed of the initial weights, the noise, the order of the data and the online episodes."""
    observations: tuple[str, ...] = ()
    """Observation features, in order; none = all of the dataset's but pictures."""
    log_every: int = 50
    """Steps between log lines."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where there is one."""
    threads: int = 1
    """CPU threads; more than one pays off for wide networks only."""
    processes: int = 1
    """Processes that share every batch and average their gradients, offline only; on GPUs each takes one."""
    start: Path | None = None
    """Run to begin from: its policy and normalisers, with a fresh optimiser (fine-tuning)."""
    mode: Literal["resident", "mapped", "streaming"] = "resident"
    """How the data is read: all in memory, from a memory-mapped cache, or through a bounded buffer."""
    image_features: int = 64
    """Numbers that stand for each picture, where --observations names any."""
    image_widths: tuple[int, ...] = (16, 32, 32)
    """Channels of each stage of a picture's encoder; each stage halves the picture."""
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
        from onestride.training.vision import Vision

        shared = {field.name: getattr(self, field.name) for field in fields(self)}
        del shared["json"]
        vision = Vision(shared.pop("image_features"), shared.pop("image_widths"))
        return TrainOptions(config=shared.pop("agent"), vision=vision, **shared)


def _summary(result: TrainResult) -> dict[str, Any]:
    losses = {name: value for name, value in result.metrics.items() if "/" in name}
    shown = {name: value for name, value in asdict(result).items() if name != "metrics"}
    return {**shown, **losses}
