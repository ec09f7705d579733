"""A worker's handler in a module of its own, so that a spawned process finds it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from onestride.hardware.errors import OneStrideError


def echo() -> Callable[[Any], Any]:
    """A worker that answers, fails, refuses, ends or sleeps as it is told."""

    def handle(request: Any) -> Any:
        if request == "fail":
            raise ValueError("no such number")
        if request == "refuse":
            raise OneStrideError("expected another request")
        if request == "end":
            os._exit(3)
        if request == "sleep":
            time.sleep(3600)
        return request, os.environ["OMP_NUM_THREADS"]

    return handle
