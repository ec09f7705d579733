"""The permit of a real run, which a person gives and the node takes, and the button that is held meanwhile."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Model, Positive, explain

#: Speed of a real run, unless somebody asks for another, as a share of the robot's limits.
SPEED = 0.1

#: How long a permit is worth anything [s].
PERMIT_LASTS = 60.0

Share = Annotated[float, Field(gt=0, le=1)]


class Deadman(Model):
    """The button that a person holds while a robot may move.

    Attributes:
        topic: of its `sensor_msgs/Joy`.
        button: its number.
        stale: oldest message that counts [s].
    """

    topic: str = "/joy"
    button: int = Field(default=5, ge=0)
    stale: Positive = 0.2

    def problem(self, buttons: Sequence[int] | None, age: float) -> str:
        """Why the robot must not move now; empty if it may.

        Args:
            buttons: of the newest message; None where none has come.
            age: of that message [s].
        """
        if buttons is None:
            return f"the deadman was never heard on {self.topic}"
        if age > self.stale:
            return f"the deadman on {self.topic} has been silent for {age:.2f} s, expected at most {self.stale:g} s"
        if self.button >= len(buttons):
            return f"the deadman is button {self.button}, but {self.topic} has {len(buttons)} buttons"
        return "" if buttons[self.button] else f"the deadman, button {self.button} on {self.topic}, is not held"


class Permit(Model):
    """What the gate lets a node do, once and soon.

    Attributes:
        robot: id of the robot that was confirmed.
        policy_sha256: of the file that was shown.
        driver: the driver it talks to.
        speed: share of the robot's velocity and acceleration limits, or of the velocity commanded to legs.
        deadman: the person's button.
        boot: of the machine that gave it.
        given: on that machine's clock since boot [s].
    """

    robot: str
    policy_sha256: str
    driver: str
    speed: Share = SPEED
    deadman: Deadman = Deadman()
    boot: str
    given: float

    @classmethod
    def now(cls, robot: str, policy_sha256: str, driver: str, speed: float, deadman: Deadman) -> Permit:
        """A permit that begins to age."""
        return cls(
            robot=robot,
            policy_sha256=policy_sha256,
            driver=driver,
            speed=speed,
            deadman=deadman,
            boot=boot_id(),
            given=time.monotonic(),
        )

    def write(self, path: Path) -> None:
        """Into a new file that only its owner can read."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self.model_dump_json())

    def check(self, robot: str, policy_sha256: str, now: float) -> None:
        """Whether it is for this, now.

        Raises:
            OneStrideError: it is for another robot or policy, from another boot, or too old.
        """
        for what, wanted, found in (("robot", self.robot, robot), ("policy", self.policy_sha256, policy_sha256)):
            if wanted != found:
                raise OneStrideError(f"permit: expected {what} {wanted}, got {found}; pass the gate again")
        age = now - self.given
        if self.boot != boot_id() or not 0 <= age <= PERMIT_LASTS:
            raise OneStrideError(f"permit: expected one of the last {PERMIT_LASTS:g} s; pass the gate again")


def take_permit(path: Path) -> Permit:
    """Read a permit and remove it: each is good for one session.

    Raises:
        OneStrideError: there is none, or it is not readable.
    """
    try:
        text = path.read_text(encoding="utf-8")
        path.unlink()
    except OSError as error:
        raise OneStrideError(f"permit: cannot take {path}: {error.strerror}; onestride run --real gives one") from None
    try:
        return Permit.model_validate(json.loads(text))
    except (ValidationError, ValueError) as error:
        raise OneStrideError(f"permit: {explain(error) if isinstance(error, ValidationError) else error}") from None


def boot_id() -> str:
    """Names this boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
