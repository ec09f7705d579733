"""Which algorithms there are, and what the trainer asks of each.

A new algorithm is one file in this folder and, at the end of this one, a loader and its row in :data:`AGENTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from onestride.hardware.errors import OneStrideError, unknown

if TYPE_CHECKING:
    import torch

    from onestride.policies.normaliser import Affine
    from onestride.training.agents.state import AgentState


class AgentConfig(Protocol):
    """Settings of an agent: a frozen dataclass; these fields are the trainer's, the rest the agent's own."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def horizon(self) -> int:
        """Steps in a predicted chunk, h."""
        ...

    @property
    def n_action_steps(self) -> int:
        """Steps executed before the next inference."""
        ...

    @property
    def history(self) -> int:
        """Observation steps the policy sees, To."""
        ...

    @property
    def nfe(self) -> tuple[int, ...]:
        """Network evaluations per chunk that the exported file offers."""
        ...

    @property
    def batch_size(self) -> int:
        """Windows per gradient step."""
        ...


class Agent(Protocol):
    """What can be trained, saved, asked to act, and exported."""

    @property
    def config(self) -> AgentConfig:
        """The settings."""
        ...

    def update(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One gradient step on a batch on the agent's device; scalar metrics, keyed ``actor/...``."""
        ...

    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """From (B, To * Do) and noise (B, h, Da) to chunks (B, h, Da), in dataset units."""
        ...

    def as_exportable(self, nfe: Sequence[int] | None = None) -> torch.nn.Module:
        """The acting policy as a function of (observation, noise), a copy on the CPU."""
        ...

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's acting policy, normalisers included."""
        ...

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        ...

    def load_state_dict(self, state: AgentState) -> None:
        """Undo ``state_dict``."""
        ...


class AgentClass(Protocol):
    """How an agent is built."""

    def __call__(
        self,
        config: Any,
        observation: Affine,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> Agent:
        """Build it around its normalisers, over ``steps`` gradient steps, from ``seed``."""
        ...


class AgentEntry(NamedTuple):
    """One algorithm: its config dataclass and its class."""

    config: type[AgentConfig]
    agent: AgentClass


def _mvp() -> AgentEntry:
    from onestride.training.agents.mvp import MVPAgent, MVPConfig

    return AgentEntry(MVPConfig, MVPAgent)


AGENTS: dict[str, Callable[[], AgentEntry]] = {"mvp": _mvp}
"""Name on the command line -> its loader, which imports torch only when that agent is asked for."""


def find(name: str) -> AgentEntry:
    """The agent of that name.

    Raises:
        OneStrideError: There is none; lists those there are.
    """
    if name not in AGENTS:
        raise unknown("agent", name, AGENTS)
    return AGENTS[name]()


def name_of(config: AgentConfig) -> str:
    """The name of the agent that a config belongs to.

    Raises:
        OneStrideError: It is no agent's config.
    """
    for name in AGENTS:
        if type(config) is find(name).config:
            return name
    raise unknown("agent config", type(config).__name__, AGENTS)


def config_from_json(name: str, values: Mapping[str, Any]) -> AgentConfig:
    """An agent's config from what :func:`config_to_json` gave.

    Raises:
        OneStrideError: Unknown agent, or a field is missing, surplus or wrong.
    """
    config = find(name).config
    expected = config.__dataclass_fields__
    if set(values) != set(expected):
        raise OneStrideError(f"config of {name}: expected {sorted(expected)}, got {sorted(values)}")
    try:
        return config(**{field: tuple(v) if isinstance(v, list) else v for field, v in values.items()})
    except TypeError as error:
        raise OneStrideError(f"config of {name}: expected values of the fields' types, got: {error}") from error


def config_to_json(config: AgentConfig) -> dict[str, Any]:
    """JSON values of an agent's config; tuples become lists."""
    return {field: list(v) if isinstance(v, tuple) else v for field, v in asdict(config).items()}
