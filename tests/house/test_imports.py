"""Who may import whom, imports inside functions included."""

from __future__ import annotations

from pathlib import Path

import pytest

from .import_rules import ARROWS, EXPORT, EXPORT_MAY, NAME_TABLES, Import, imports, violations

ROOT = Path(__file__).resolve().parents[2]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def shipped(room: str) -> list[Path]:
    """A room's files that are installed; the packaging and tests of a ROS package are not."""
    if room != "ros_ws":
        return sorted((ROOT / room).rglob("*.py"))
    modules = (path for package in (ROOT / "ros_ws/src").iterdir() for path in (package / package.name).rglob("*.py"))
    return sorted(modules)


@pytest.mark.parametrize("room", ARROWS)
def test_room_imports_only_what_it_may(room: str) -> None:
    paths = shipped(room)
    assert paths, f"{room}/ holds no Python files: the rule checks nothing"
    found = [one for path in paths for one in violations(path.read_text(encoding="utf-8"), name_of(path))]
    assert not found, "\n".join(found)


def test_arrows_have_no_circle() -> None:
    """Each room's arrows reach rooms that do not reach back."""

    def reach(room: str) -> set[str]:
        direct = {name.partition(".")[0] for name in ARROWS[room]}
        return direct.union(*(reach(name) for name in direct)) if direct else direct

    assert all(room not in reach(room) for room in ARROWS)


def imports_of(path: str) -> list[Import]:
    return list(imports((ROOT / path).read_text(encoding="utf-8"), path))


# An exception that nothing uses any more would hide the next offence.
def test_export_needs_its_exception() -> None:
    assert any(one.lazy and one.root in EXPORT_MAY for one in imports_of(EXPORT))


@pytest.mark.parametrize("path", sorted(NAME_TABLES))
def test_name_table_needs_its_exception(path: str) -> None:
    assert any(one.module is None for one in imports_of(path))


OFFENDING = [
    (
        "hardware/plant.py",
        "from onestride.datasets.schema import Schema",
        "hardware may import onestride.hardware",
    ),
    ("hardware/plant.py", "import ogbench", "not on the robot side"),
    ("hardware/plant.py", "def f():\n    import gymnasium", "not on the robot side"),
    ("hardware/plant.py", "import matplotlib", "import it where it is used"),
    ("hardware/plant.py", "from ..deploy import contract", "hardware may import onestride.hardware"),
    ("datasets/store.py", "from onestride.deploy import contract", "datasets may import"),
    ("datasets/store.py", "import pickle", "nothing is pickled here"),
    ("datasets/schema.py", "def f():\n    import zarr", "this file knows numpy, pydantic only"),
    ("datasets/schema.py", "from onestride.datasets import store", "datasets may import"),
    ("policies/policy.py", "import numpy", "policies know torch only"),
    ("policies/policy.py", "from onestride.hardware.errors import OneStrideError", "policies may import"),
    (
        "deploy/runtime.py",
        "class A:\n    def f(self):\n        import torch.nn as nn",
        "not on the robot side",
    ),
    ("deploy/runtime.py", "from onestride import training", "deploy may import"),
    ("deploy/runtime.py", "from onestride.datasets.windows import Windows", "deploy may import"),
    ("deploy/runtime.py", "from onestride.datasets.store import Store", "only inside a function"),
    ("deploy/runtime.py", "if TYPE_CHECKING:\n    import torch", "not on the robot side"),
    ("deploy/runtime.py", "if True:\n    import zarr", "not on the robot side"),
    ("deploy/safety/chain.py", "from ...policies import policy", "deploy may import"),
    (
        "deploy/runtime.py",
        "import importlib\nimportlib.import_module('onestride.training.trainer')",
        "deploy may import",
    ),
    ("deploy/runtime.py", "def f(name):\n    return __import__(name)", "imports a computed name"),
    ("datasets/converters/__init__.py", "READERS = {'x': 'onestride.training.trainer'}", "datasets may import"),
    ("deploy/runtime.py", "from onestride.deploy.rooms import load", "only the commands of deploy"),
    ("deploy/export.py", "def f():\n    from onestride.training import trainer", "deploy may import"),
    ("deploy/export.py", "import torch", "not on the robot side"),
    ("deploy/export.py", "from onestride.policies.policy import Exportable", "deploy may import"),
    ("ros_ws/src/onestride_plant/onestride_plant/node.py", "import onestride.training", "ros_ws may import"),
    ("ros_ws/src/onestride_plant/onestride_plant/node.py", "import torch", "not on the robot side"),
    (
        "ros_ws/src/onestride_plant/onestride_plant/node.py",
        "import onestride_controller",
        "ros_ws may import",
    ),
]


@pytest.mark.parametrize(("path", "source", "reason"), OFFENDING)
def test_checker_sees_an_offence(path: str, source: str, reason: str) -> None:
    found = violations(source, path)
    assert len(found) == 1
    assert reason in found[0]


INNOCENT = [
    (
        "hardware/plant.py",
        "import math, mujoco\nimport numpy as np\nfrom onestride.hardware.errors import unknown",
    ),
    ("datasets/store.py", "import zarr\nfrom onestride.hardware import errors\nfrom .schema import Schema"),
    ("datasets/schema.py", "import pydantic\nfrom onestride.hardware.errors import OneStrideError"),
    ("policies/policy.py", "import torch\nfrom torch import nn\nfrom .networks import MLP"),
    (
        "deploy/export.py",
        "def f():\n    import onnx, torch\n    from onestride.policies.policy import Exportable",
    ),
    ("deploy/report.py", "def f():\n    import matplotlib.pyplot as plt"),
    ("deploy/commit.py", "def f():\n    from onestride.datasets.store import Store"),
    ("deploy/commit.py", "if TYPE_CHECKING:\n    from onestride.datasets.store import Store"),
    ("datasets/converters/__init__.py", "READERS = {'x': 'onestride.datasets.converters.robomimic'}"),
    ("deploy/cli.py", "TABLE = {'train': 'onestride.training.commands_train:Train'}"),
    ("deploy/commands.py", "from onestride.deploy.rooms import load"),
    ("deploy/cli.py", "from importlib import import_module\n\ndef f(name):\n    return import_module(name)"),
    ("training/trainer.py", "import torch\nfrom onestride.deploy.export import export"),
    (
        "ros_ws/src/onestride_plant/onestride_plant/node.py",
        "import rclpy\nfrom . import topics\nimport onestride.deploy",
    ),
]


@pytest.mark.parametrize(("path", "source"), INNOCENT)
def test_checker_accepts_what_is_allowed(path: str, source: str) -> None:
    assert violations(source, path) == []
