"""Environments by name. A name's prefix says which family makes it; a simulator is imported only when one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.environments.interface import Environment, Interface

if TYPE_CHECKING:
    from onestride.datasets.store import Store  # loads zarr, which a process that only acts does without


class Family(Protocol):
    """What the module of a family offers. Importing it imports no simulator."""

    PATTERNS: tuple[str, ...]
    """Its names, for messages: variants in braces, optional parts in brackets."""

    def canonical(self, name: str) -> str | None:
        """The one name an environment goes by, for any name it is known by; None where there is no such one."""
        ...

    def create(self, name: str, settings: Mapping[str, Any] | None) -> Environment:
        """The environment of a canonical name."""
        ...

    def interface(self, name: str) -> Interface | None:
        """Observation and action of a canonical name in robot terms, where they are stated."""
        ...


class _Row(NamedTuple):
    module: str
    extra: str
    """Of this project, that installs the family's packages."""


_ROOM = "onestride.training.environments."

FAMILIES: dict[str, _Row] = {
    "ogbench/": _Row(_ROOM + "ogbench", "sim"),
    "robomimic/": _Row(_ROOM + "robosuite_tasks", "robomimic"),
    "gymnasium/": _Row(_ROOM + "gymnasium_tasks", "sim"),
    "safe/": _Row(_ROOM + "gymnasium_tasks", "sim"),
    "onestride/": _Row(_ROOM + "own_tasks", "sim"),
    "python/": _Row(_ROOM + "own", "sim"),
}
"""Prefix -> where its family is."""


def patterns() -> tuple[str, ...]:
    """All names, those of a kind as one pattern."""
    return tuple(dict.fromkeys(pattern for prefix in FAMILIES for pattern in _family(prefix).PATTERNS))


def canonical(name: str) -> str | None:
    """The one name an environment goes by; None where there is no such environment."""
    prefix = _prefix(name)
    return _family(prefix).canonical(name) if prefix else None


def make(name: str, settings: Mapping[str, Any] | None = None) -> Environment:
    """Create an environment by name.

    Args:
        name: environment id or another name of it.
        settings: what the environment was recorded with, JSON only (`settings_of`); None = its usual settings.

    Raises:
        OneStrideError: no such environment, or its package is not installed.
    """
    prefix, known = _prefix(name), canonical(name)
    if prefix is None or known is None:
        raise unknown("environment", name, patterns())
    try:
        return _family(prefix).create(known, settings)
    except ModuleNotFoundError as error:
        extra = FAMILIES[prefix].extra
        raise OneStrideError(f"{name} needs {error.name}: pip install 'onestride[{extra}]'") from None


def interface(name: str) -> Interface | None:
    """What a policy sees and does in an environment, without creating it; None where that is not stated."""
    prefix, known = _prefix(name), canonical(name)
    return _family(prefix).interface(known) if prefix and known else None


def settings_of(store: Store, observations: Sequence[str] = ()) -> dict[str, Any] | None:
    """The settings a store's environment was recorded with (robomimic's `env_args`); None where it says none.

    Args:
        store: the dataset.
        observations: features that the policy sees, in order; none = the environment's usual ones.
    """
    recorded = store.provenance.extra.get("env_args")
    if not isinstance(recorded, dict) or not recorded:
        return None
    return {**recorded, **({"observations": list(observations)} if observations else {})}


def _prefix(name: str) -> str | None:
    return next((prefix for prefix in FAMILIES if name.startswith(prefix)), None)


def _family(prefix: str) -> Family:
    return cast(Family, import_module(FAMILIES[prefix].module))
