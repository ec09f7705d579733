"""What keeps to the joints' own limits; the limits themselves are declared joint by joint."""

from __future__ import annotations

from typing import Literal

from onestride.hardware.model import Model


class ApproachFilter(Model):
    """Makes nominal commands reachable: a joint with an acceleration limit nears its nominal without overshooting."""

    filter: Literal["approach"] = "approach"


class JointRows(Model):
    """Position, speed, acceleration and jerk of every joint's command, and the way to stop before its limits."""

    row: Literal["joints"] = "joints"


class ImpedanceRow(Model):
    """For drives with impedance: targets inside the position limits that ask no drive for more than its effort."""

    row: Literal["impedance"] = "impedance"
