"""Questions and their answers: fine, to be known, or to be mended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How an answer is meant."""

    PASS = "pass"
    WARN = "warn"
    """Works, but somebody should know."""
    FAIL = "fail"
    """Must be mended first."""


@dataclass(frozen=True)
class Answer:
    """One question answered.

    Attributes:
        question: what was looked at.
        level: how it is meant.
        detail: what was found; for what must be mended, what was expected as well.
    """

    question: str
    level: Level
    detail: str

    def to_json(self) -> dict[str, str]:
        """As JSON values."""
        return {"question": self.question, "level": self.level.value, "detail": self.detail}


def failed(answers: Iterable[Answer]) -> list[Answer]:
    """Those that must be mended."""
    return [answer for answer in answers if answer.level is Level.FAIL]
