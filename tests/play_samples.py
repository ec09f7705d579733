"""Our stores as the files that OGBench itself hands out, written without our converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onestride.datasets.store import Store

KEYS = {"observation": "observations", "action": "actions"}


def write_official(store: Store, path: Path) -> Path:
    """A trajectory is its transitions and one row after the last, whose action nobody took."""
    rows: dict[str, list[np.ndarray]] = {}
    for number in range(store.num_episodes):
        episode = store.read_episode(number)
        for name, values in episode.data.items():
            if name == "terminal":
                continue
            last = episode.final[name] if name in episode.final else np.zeros_like(values[-1])
            key = KEYS.get(name, name.removeprefix("state."))
            rows.setdefault(key, []).append(np.concatenate([values, last[None]]))
        ends = np.zeros(episode.length + 1, bool)
        ends[-1] = True
        rows.setdefault("terminals", []).append(ends)
    arrays: dict[str, Any] = {key: np.concatenate(parts) for key, parts in rows.items()}
    for beside in (path, path.with_name(f"{path.stem}-val.npz")):
        np.savez_compressed(beside, **arrays)
    return path
