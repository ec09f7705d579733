"""What a run was made with, noted when it begins: checkout and machine may be others when it is read."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from onestride.datasets.provenance import git_commit


def origin() -> dict[str, Any]:
    """Commit of the checkout, whether files in it differ from that commit, and what this machine computes with."""
    return {"commit": git_commit(), "changed": _changed(), "device": device()}


def device() -> str:
    """The GPU, or the processor and the number of its cores."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _changed() -> bool | None:
    """Whether tracked files differ from the commit; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if git_commit() is None:
        return None
    command = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return bool(answer.stdout.strip()) if answer.returncode == 0 else None
