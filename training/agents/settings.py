"""What the configs of agents have in common: how a field is refused, and the fields that every agent of chunks has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from onestride.hardware.errors import OneStrideError

LearningRateDecay: TypeAlias = Literal["cosine", "none"]

LATER: dict[str, Any] = {"jacobian_penalty": 0.0, "lipschitz": None}
"""Settings that older runs do not name, with the values that mean what those runs did."""


def require(config: Any, field: str, holds: bool, expected: str) -> None:
    """Refuse a config's field by name.

    Raises:
        OneStrideError: ``holds`` is false.
    """
    if not holds:
        raise OneStrideError(f"{field}: expected {expected}, got {getattr(config, field)}")


def require_chunks(config: Any) -> None:
    """Refuse what cannot be trained with in the fields that every agent has."""
    require(config, "horizon", config.horizon >= 1, ">= 1")
    require(config, "n_action_steps", 1 <= config.n_action_steps <= config.horizon, "between 1 and horizon")
    require(config, "history", config.history >= 1, ">= 1")
    require(config, "nfe", _distinct_positive(config.nfe), "one or more distinct numbers >= 1")
    require(config, "hidden", bool(config.hidden) and min(config.hidden) >= 1, "one or more positive widths")
    require(config, "batch_size", config.batch_size >= 2, ">= 2")
    require(config, "lr", 0 < config.lr < math.inf, "> 0")
    require(config, "lr_decay", config.lr_decay in ("cosine", "none"), "cosine or none")
    require(config, "ema_decay", 0 <= config.ema_decay < 1, "in [0, 1)")
    require(config, "candidates", config.candidates >= 1, ">= 1")
    require(config, "normalise", config.normalise in ("standardise", "none"), "standardise or none")


def require_critic(config: Any) -> None:
    """Refuse what cannot be trained with in the fields of an agent with a critic."""
    hidden = config.critic_hidden
    require(config, "critic_hidden", bool(hidden) and min(hidden) >= 1, "one or more positive widths")
    require(config, "critic_lr", 0 < config.critic_lr < math.inf, "> 0")
    require(config, "critics", config.critics >= 1, ">= 1")
    require(config, "discount", 0 <= config.discount < 1, "in [0, 1)")
    require(config, "tau", 0 < config.tau <= 1, "in (0, 1]")
    require(config, "rank_dtype", config.rank_dtype in ("auto", "float32", "bfloat16"), "auto, float32 or bfloat16")


def require_smooth(config: Any) -> None:
    """Refuse what cannot be trained with in the fields that keep a policy smooth."""
    require(config, "jacobian_penalty", 0 <= config.jacobian_penalty < math.inf, ">= 0")
    bounded = config.lipschitz is None or 0 < config.lipschitz < math.inf
    require(config, "lipschitz", bounded, "> 0, or none for no bound")


def _distinct_positive(numbers: Sequence[int]) -> bool:
    return bool(numbers) and min(numbers) >= 1 and len(set(numbers)) == len(numbers)


def learning_rate(start: float, decay: LearningRateDecay, update: int, steps: int) -> float:
    """The rate at an update: constant, or along a half cosine to zero at ``steps``."""
    if decay == "none":
        return start
    return start * 0.5 * (1 + math.cos(math.pi * min(update / steps, 1.0)))
