"""The real `lerobot`, made importable where torchvision's compiled operators do not fit the installed torch.

Stubs for the test environment only: nothing of the sort is in the package.
"""

from __future__ import annotations

import json
import os
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def lerobot_dataset() -> Any:
    """The module `lerobot.datasets.lerobot_dataset`; skips where lerobot is not installed."""
    pytest.importorskip("pyarrow", reason="needs the extra `lerobot`")
    os.environ["HF_HUB_OFFLINE"] = "1"
    _import_torchvision()
    return pytest.importorskip(
        "lerobot.datasets.lerobot_dataset", reason="needs lerobot (requirements/stage2.txt)", exc_type=ImportError
    )


def lerobot_conversion() -> Any:
    """lerobot's own conversion from v2.1 to v3.0."""
    lerobot_dataset()
    sys.modules.setdefault("jsonlines", _jsonlines())
    return pytest.importorskip("lerobot.datasets.v30.convert_dataset_v21_to_v30", exc_type=ImportError)


def _import_torchvision() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    try:
        import torchvision
    except RuntimeError:
        # Beside a CPU torch its operators are not registered, and their fakes refuse to be.
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401


_KEPT: list[Any] = []
"""A library's definitions live as long as it does."""


def _jsonlines() -> types.ModuleType:
    """What lerobot's script uses of `jsonlines`."""

    @contextmanager
    def open_lines(path: Path, mode: str) -> Any:
        assert mode == "r"
        yield [json.loads(line) for line in Path(path).read_text().splitlines()]

    module = types.ModuleType("jsonlines")
    module.__dict__["open"] = open_lines
    return module
