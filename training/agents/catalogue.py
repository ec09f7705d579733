"""Which algorithms there are, and what the trainer asks of each.

A new algorithm is one file in this folder and, at the end of this one, a loader and its row in :data:`AGENTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.agents.settings import LATER

if TYPE_CHECKING:
    import torch

    from onestride.policies.normaliser import Affine
    from onestride.training.agents.state import AgentState


Normalise: TypeAlias = Literal["standardise", "none"]
"""Observations to zero mean and unit deviation of the data, or as they are."""


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

    @property
    def candidates(self) -> int:
        """Chunks N drawn and ranked by the critic when acting; 1 = none is ranked."""
        ...

    @property
    def normalise(self) -> Normalise:
        """What the observation's normaliser is made of."""
        ...


class Agent(Protocol):
    """What can be trained, saved, asked to act, and exported."""

    @property
    def config(self) -> AgentConfig:
        """The settings."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Batch keys beyond those of imitation: observations, actions, valid; a plain attribute of the class does.

        ``("rewards",)`` asks for all outcomes: rewards, masks, terminals and next_observations.
        """
        ...

    def update(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One gradient step of critic and actor on a batch on the agent's device.

        Returns:
            Scalar metrics, keyed ``actor/...``, ``critic/...`` or ``multiplier/...``; not looked at, so that a loss
            that is not finite shows here.
        """
        ...

    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """From (B, To * Do) and noise (B * N, h, Da), N = ``config.candidates``, to chunks (B, h, Da).

        All in dataset units. Noise of zeros is the mode of a Gaussian policy.
        """
        ...

    def as_exportable(self, nfe: Sequence[int] | None = None) -> torch.nn.Module:
        """The acting policy, a copy on the CPU: observation (1, To * Do), noise (N, h, Da) -> chunks (1, h, Da)."""
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
        observation: Any,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> Agent:
        """Build it around its normalisers, over ``steps`` gradient steps, from ``seed``.

        ``observation`` is an ``Affine``, or with pictures an ``Observer``: see :mod:`onestride.policies.conditioning`.
        """
        ...


class AgentEntry(NamedTuple):
    """One algorithm: its config dataclass and its class."""

    config: type[AgentConfig]
    agent: AgentClass


def _mvp() -> AgentEntry:
    from onestride.training.agents.mvp import MVPAgent, MVPConfig

    return AgentEntry(MVPConfig, MVPAgent)


def _bc_flow() -> AgentEntry:
    from onestride.training.agents.bc_flow import BCFlowAgent, BCFlowConfig

    return AgentEntry(BCFlowConfig, BCFlowAgent)


def _qc() -> AgentEntry:
    from onestride.training.agents.qc import QCAgent, QCConfig

    return AgentEntry(QCConfig, QCAgent)


def _bfn() -> AgentEntry:
    from onestride.training.agents.qc import BFNConfig, QCAgent

    return AgentEntry(BFNConfig, QCAgent)


def _fql() -> AgentEntry:
    from onestride.training.agents.fql import FQLAgent, FQLConfig

    return AgentEntry(FQLConfig, FQLAgent)


def _qc_fql() -> AgentEntry:
    from onestride.training.agents.fql import FQLAgent, QCFQLConfig

    return AgentEntry(QCFQLConfig, FQLAgent)


def _fmq() -> AgentEntry:
    from onestride.training.agents.fmq import FMQAgent, FMQConfig

    return AgentEntry(FMQConfig, FMQAgent)


def _sac() -> AgentEntry:
    from onestride.training.agents.sac import SACAgent, SACConfig

    return AgentEntry(SACConfig, SACAgent)


def _rlpd() -> AgentEntry:
    from onestride.training.agents.rlpd import RLPDAgent, RLPDConfig

    return AgentEntry(RLPDConfig, RLPDAgent)


def _dsact() -> AgentEntry:
    from onestride.training.agents.dsact import DSACTAgent, DSACTConfig

    return AgentEntry(DSACTConfig, DSACTAgent)


def _sac_lag() -> AgentEntry:
    from onestride.training.agents.sac_lag import SACLagAgent, SACLagConfig

    return AgentEntry(SACLagConfig, SACLagAgent)


def _fac() -> AgentEntry:
    from onestride.training.agents.fac import FACAgent, FACConfig

    return AgentEntry(FACConfig, FACAgent)


def _sac_alam() -> AgentEntry:
    from onestride.training.agents.sac_alam import SACALaMAgent, SACALaMConfig

    return AgentEntry(SACALaMConfig, SACALaMAgent)


def _lac() -> AgentEntry:
    from onestride.training.agents.lac import LACAgent, LACConfig

    return AgentEntry(LACConfig, LACAgent)


def _iql() -> AgentEntry:
    from onestride.training.agents.iql import IQLAgent, IQLConfig

    return AgentEntry(IQLConfig, IQLAgent)


AGENTS: dict[str, Callable[[], AgentEntry]] = {
    "mvp": _mvp,
    "bc_flow": _bc_flow,
    "qc": _qc,
    "bfn": _bfn,
    "fql": _fql,
    "qc_fql": _qc_fql,
    "fmq": _fmq,
    "sac": _sac,
    "rlpd": _rlpd,
    "dsact": _dsact,
    "sac_lag": _sac_lag,
    "fac": _fac,
    "sac_alam": _sac_alam,
    "lac": _lac,
    "iql": _iql,
}
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


def completed(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run, with those that came after it: they are off."""
    return {field: LATER[field] for field in find(name).config.__dataclass_fields__ if field in LATER} | dict(values)


def config_from_json(name: str, values: Mapping[str, Any]) -> AgentConfig:
    """An agent's config from what :func:`config_to_json` gave.

    Raises:
        OneStrideError: Unknown agent, or a field is missing, surplus or wrong.
    """
    config, values = find(name).config, completed(name, values)
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
