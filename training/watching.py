"""A learnt Lyapunov function beside an exported policy: learnt on the run's own data, kept in the run's folder.

It sees what the policy sees. Monitored, never proved: see `certificates.on_data`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array
from onestride.policies.gaussian_export import Monitor
from onestride.policies.normaliser import Affine
from onestride.policies.watched import LearntLyapunov
from onestride.training.certificates.on_data import Measured, OnDataConfig, learn_on_data

NAME, FILE = "lyapunov", "lyapunov.safetensors"
_HIDDEN = (64, 64)


def learn_watch(
    store: Store, features: tuple[str, ...], history: int, folder: Path, told: Callable[[int], None] | None = None
) -> Measured:
    """Learn V on a store's successful episodes, and keep it in a run's folder.

    Args:
        store: What the run learnt from.
        features: That make up one step of the policy's observation.
        history: Steps that the policy sees.
        folder: Of the run.
        told: Hears of each gradient step.

    Raises:
        OneStrideError: Too few episodes are known to have succeeded.
    """
    found = learn_on_data(successful(store, features, history), OnDataConfig(hidden=_HIDDEN), told)
    about = {"decreased": found.decreased, "longest": found.longest, "episodes": found.episodes}
    save_file(found.function.state_dict(), folder / FILE, {"measured": json.dumps(about)})
    return found


def load_watch(folder: Path) -> tuple[LearntLyapunov, Monitor]:
    """The function kept in a run's folder, and what is told of it.

    Raises:
        OneStrideError: There is none, or it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise OneStrideError(
            f"{folder}: expected {FILE}, a learnt Lyapunov function; onestride export --watch makes it"
        )
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            measured = json.loads(file.metadata()["measured"])
        function = LearntLyapunov(Affine.identity(len(weights["observation.offset"])), _HIDDEN)
        function.load_state_dict(weights)
        meaning = _meaning(**measured)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise OneStrideError(f"{path}: expected a learnt Lyapunov function, got: {error}") from error
    return function, Monitor(NAME, meaning, 1.0)


def _meaning(decreased: float, longest: int, episodes: int) -> str:
    return (
        "learnt share of the way to go; not proved: "
        f"fell in {decreased:.1%} of the steps of {episodes} held-out episodes, grew {longest} in a row at most"
    )


def successful(store: Store, features: tuple[str, ...], history: int) -> list[Array]:
    """Of each episode that is known to have succeeded what the policy would have seen (T, To * Do).

    Raises:
        OneStrideError: Fewer than two did.
    """
    steps = np.concatenate([store.read(name).reshape(store.num_steps, -1) for name in features], axis=1)
    lengths = [info.length for info in store.episodes]
    parts = np.split(steps.astype(np.float64), np.cumsum(lengths)[:-1])
    found = [
        seen_with_history(part, history)
        for info, part in zip(store.episodes, parts, strict=True)
        if info.attributes.get("success") is True and info.length > 1
    ]
    if len(found) < 2:
        raise OneStrideError(
            f"{store.path}: expected 2 or more episodes whose attribute `success` is true to learn from, "
            f"got {len(found)} of {len(lengths)}"
        )
    return found


def seen_with_history(steps: Array, history: int) -> Array:
    """Steps (T, Do) with those before them, oldest first; the first stands for what was before it (T, To * Do)."""
    rows = np.arange(len(steps))[:, None] + np.arange(1 - history, 1)
    return np.asarray(steps[np.maximum(rows, 0)].reshape(len(steps), -1))
