"""What a robomimic task was recorded with (`env_args`), read for robosuite 1.5 without a simulator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onestride.datasets.converters.robomimic_features import STANDARD_OBSERVATIONS
from onestride.hardware.errors import OneStrideError, unknown

TASKS = {"Lift": "Lift", "PickPlaceCan": "Can", "NutAssemblySquare": "Square"}
"""robosuite's name, which a dataset's `env_name` is -> robomimic's."""

HORIZON = 400
"""Steps of an episode, robomimic's own for these three tasks; Q-chunking cuts Lift and Can at 300."""

REWARD_OFFSET = -1.0
"""Added to robosuite's reward, 1 on success: every step before it costs 1, and success ends the episode."""

# Of robomimic's own release for robosuite 1.5 (`low_dim_v15.hdf5`), the same for the three tasks.
_OFFICIAL: dict[str, Any] = {
    "robots": ["Panda"],
    "control_freq": 20,
    "reward_shaping": False,
    # The demonstrations were given before robosuite 1.5 left out a forward pass of each physics step.
    "lite_physics": False,
    "controller_configs": {
        "type": "BASIC",
        "body_parts": {
            "right": {
                "type": "OSC_POSE",
                "input_max": 1,
                "input_min": -1,
                "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
                "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
                "kp": 150,
                "damping_ratio": 1,
                "impedance_mode": "fixed",
                "kp_limits": [0, 300],
                "damping_ratio_limits": [0, 10],
                "position_limits": None,
                "orientation_limits": None,
                "uncouple_pos_ori": True,
                "input_type": "delta",
                "input_ref_frame": "world",
                "interpolation": None,
                "ramp_ratio": 0.2,
                "gripper": {"type": "GRIP"},
            }
        },
    },
}
_VERSION = "1.5.1"

# Whatever was recorded: no pictures, robosuite's own cut is not used, and every reset builds the scene anew,
# which is what makes it a function of the seed.
_FORCED: dict[str, Any] = {
    "has_renderer": False,
    "has_offscreen_renderer": False,
    "use_camera_obs": False,
    "use_object_obs": True,
    "ignore_done": True,
    "hard_reset": True,
}
_PICTURES = re.compile(r"camera_.*|render_.*|renderer.*|horizon|seed")


@dataclass(frozen=True)
class TaskSettings:
    """One task as it was recorded.

    Attributes:
        task: robosuite's name.
        arguments: keyword arguments of `robosuite.make`; the controller may be in the form before robosuite 1.5.
        version: robosuite's, of the recording; None where the file does not say, as before 1.4.
        observations: keys of the observation, in order.
        horizon: steps before an episode is cut.
        reward_offset: added to robosuite's reward.
    """

    task: str
    arguments: dict[str, Any] = field(default_factory=dict)
    version: str | None = None
    observations: tuple[str, ...] = STANDARD_OBSERVATIONS
    horizon: int = HORIZON
    reward_offset: float = REWARD_OFFSET

    @property
    def legacy(self) -> bool:
        """Whether the observation `object` is laid out as before robosuite 1.5."""
        return self.version is None or tuple(int(part) for part in re.findall(r"\d+", self.version)[:2]) < (1, 5)

    @property
    def rate(self) -> float:
        """Environment steps per second [Hz]."""
        return float(self.arguments["control_freq"])


def read_settings(task: str, settings: Mapping[str, Any] | None) -> TaskSettings:
    """The settings of a task.

    Args:
        task: robosuite's name.
        settings: robomimic's `env_args`, and where wanted `observations`, `horizon` or `reward_offset` beside them;
            without `env_kwargs` those of robomimic's release for robosuite 1.5.

    Raises:
        OneStrideError: They are of another task, or not of the form expected.
    """
    given = dict(settings or {})
    if given.get("env_name", task) != task:
        raise unknown("env_name of the settings", str(given["env_name"]), [task])
    recorded = given.get("env_kwargs", _OFFICIAL)
    version = given.get("env_version") if "env_kwargs" in given else _VERSION
    if not isinstance(recorded, Mapping) or not isinstance(version, str | None):
        raise OneStrideError(f"{task}: expected env_kwargs as an object and env_version as text, got {given}")
    kept = {key: value for key, value in recorded.items() if not _PICTURES.fullmatch(key)}
    if not isinstance(kept.setdefault("control_freq", 20), int | float):
        raise OneStrideError(f"{task}: expected control_freq as a number, got {kept['control_freq']!r}")
    known = TaskSettings(task, {**kept, **_FORCED}, version, **_own(task, given))
    if known.legacy:
        known.arguments.setdefault("lite_physics", False)
    return known


def _own(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is ours in the settings, checked."""
    own = {key: given[key] for key in ("observations", "horizon", "reward_offset") if key in given}
    names, horizon, offset = own.get("observations", ()), own.get("horizon", 1), own.get("reward_offset", 0.0)
    if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
        raise OneStrideError(f"{task}: expected observations as a list of keys, got {names!r}")
    if not isinstance(horizon, int) or horizon < 1 or not isinstance(offset, int | float):
        raise OneStrideError(
            f"{task}: expected horizon >= 1 and reward_offset as a number, got {horizon!r}, {offset!r}"
        )
    return {**own, "observations": tuple(names)} if names else own
