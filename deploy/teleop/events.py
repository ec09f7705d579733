"""What a person says about episodes, by buttons that were just pressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from onestride.deploy.teleop.mapping import EpisodeButtons

Event = Literal["start", "success", "end", "discard"]


class Events:
    """Notices buttons that go down; one that is held from the beginning says nothing."""

    def __init__(self, buttons: EpisodeButtons) -> None:
        self._buttons: dict[Event, int] = {
            "start": buttons.start,
            "success": buttons.success,
            "end": buttons.end,
            "discard": buttons.discard,
        }
        self._down = dict.fromkeys(self._buttons, True)

    def hear(self, buttons: Sequence[int]) -> list[Event]:
        """What the newest `sensor_msgs/Joy.buttons` say that the one before did not; none of one that is too short."""
        if len(buttons) <= max(self._buttons.values()):
            return []
        pressed = np.asarray(buttons) > 0
        before = self._down
        self._down = {event: bool(pressed[button]) for event, button in self._buttons.items()}
        return [event for event in self._buttons if self._down[event] and not before[event]]
