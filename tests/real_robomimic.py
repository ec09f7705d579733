"""The real `robomimic`, made importable where torchvision does not fit the installed torch and mujoco_py is gone.

Stubs for the test environment only: nothing of the sort is in the package.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from real_lerobot import _import_torchvision


def sequence_dataset(path: Path, obs_keys: list[str], dataset_keys: list[str], **settings: Any) -> Any:
    """robomimic's own `SequenceDataset` of a file; skips where robomimic is not installed."""
    _import_torchvision()
    sys.modules.setdefault("mujoco_py", types.ModuleType("mujoco_py"))
    module = pytest.importorskip(
        "robomimic.utils.dataset", reason="needs robomimic (requirements/stage2.txt)", exc_type=ImportError
    )
    observations = pytest.importorskip("robomimic.utils.obs_utils", exc_type=ImportError)
    pictures = [key for key in obs_keys if key.endswith("_image")]
    vectors = [key for key in obs_keys if key not in pictures]
    observations.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": vectors, "rgb": pictures}})
    return module.SequenceDataset(
        hdf5_path=str(path),
        obs_keys=obs_keys,
        dataset_keys=dataset_keys,
        **{"hdf5_cache_mode": None, "load_next_obs": True, **settings},
    )
