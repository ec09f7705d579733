"""Units by name, so that a wrong one is refused and never silently converted."""

from __future__ import annotations

from typing import Literal, get_args

Unit = Literal["1", "rad", "rad/s", "rad/s^2", "m", "m/s", "m/s^2", "Nm", "N", "s", "Hz", "pixel"]

UNITS: tuple[str, ...] = get_args(Unit)
