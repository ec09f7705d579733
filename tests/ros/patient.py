"""Robots that forgive the stalls of a busy machine, for tests that are about other things."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path


def patient_robot(name: str, folder: Path) -> Path:
    """A shipped robot's description with wide detection bounds, as a file in `folder`."""
    shipped = (resources.files("onestride.hardware") / "robots" / f"{name}.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\n  heartbeat: .*", "", shipped)
    text = re.sub(r"(joints_stale|objects_stale|policy_stall): .*", r"\1: 0.6", text)
    path = folder / "patient.yaml"
    path.write_text(text.replace("policy_stall: 0.6", "policy_stall: 0.6\n  heartbeat: 0.4"), encoding="utf-8")
    return path
