"""Where a dataset comes from: enough to say who made it, from what, with which versions, and to make it again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from onestride.hardware.durable import file_sha256

T = TypeVar("T")


class Source(BaseModel):
    """A file that the dataset was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """File name without its folder: a folder says nothing on another machine."""
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Source:
        """The record of an existing file."""
        return cls(name=path.name, sha256=file_sha256(path))


class Ancestor(BaseModel):
    """A dataset that another one was made from, and where it came from itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_id: str
    provenance: Provenance


class Provenance(BaseModel):
    """The origin of a dataset, written once when its store is created."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    created: str
    """ISO 8601, UTC."""
    onestride_version: str
    command: str
    """The command or converter that made it, for instance `convert robomimic`."""
    command_version: int = 1
    """Raised when the converter's output changes for the same input."""
    sources: tuple[Source, ...] = ()
    parents: tuple[str, ...] = ()
    """Dataset ids of the stores it was made from."""
    lineage: tuple[Ancestor, ...] = ()
    """The parents' own provenance, back to the first recording or source file."""
    environment: str | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    """Package -> version of what shaped the data."""
    seed: int | None = None
    noise: float | None = None
    """Standard deviation of the noise on executed actions, in action units."""
    git_commit: str | None = None
    """Commit of the onestride checkout, where it was run from one."""
    extra: dict[str, JsonValue] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_an_empty_lineage(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        if not self.lineage:
            content.pop("lineage", None)
        return content

    @classmethod
    def derived(cls, command: str, parents: Sequence[tuple[str, Provenance]], **fields: Any) -> Provenance:
        """The provenance of a dataset made from others of ours.

        Args:
            command: what made it.
            parents: dataset id and provenance of each.
            fields: any other field of this class.
        """
        origins = [provenance for _, provenance in parents]
        return cls.now(
            command,
            sources=tuple(dict.fromkeys(source for one in origins for source in one.sources)),
            parents=tuple(identity for identity, _ in parents),
            lineage=tuple(Ancestor(dataset_id=identity, provenance=origin) for identity, origin in parents),
            environment=_shared([one.environment for one in origins]),
            seed=_shared([one.seed for one in origins]),
            noise=_shared([one.noise for one in origins]),
            **fields,
        )

    @classmethod
    def now(cls, command: str, *, packages: Iterable[str] = (), **fields: Any) -> Provenance:
        """A provenance stamped with the time, our version and commit, and the named packages' versions.

        Args:
            command: the command or converter.
            packages: distributions whose installed versions are recorded, besides numpy and zarr.
            fields: any other field of this class.
        """
        return cls(
            created=now(),
            onestride_version=_installed("onestride") or "unknown",
            command=command,
            packages=_versions(packages),
            git_commit=git_commit(),
            **fields,
        )


def now() -> str:
    """The time, ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _shared(values: Sequence[T]) -> T | None:
    """What all agree on; None where they do not."""
    return values[0] if values and all(value == values[0] for value in values) else None


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {name: _installed(name) for name in ("numpy", "zarr", *packages)}
    return {name: number for name, number in found.items() if number is not None}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The checkout's commit; None for an installed wheel, a tree without commits or without git."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
