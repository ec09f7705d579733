"""The contract of a policy on the Go1's legs, and measurements for it, without a policy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from onestride.deploy.contract import Contract, RobotTerms, parse_contract
from onestride.deploy.foreign import unknown_data
from onestride.deploy.terms import ActionTerm, ObservationTerm
from onestride.hardware.description import load_robot
from onestride.hardware.state import Inertial, Measurement

ROBOT = load_robot("go1")
JOINTS = list(ROBOT.joint_names)
POSE = [joint.default for joint in ROBOT.joints]


def term(name: str, source: dict[str, Any], unit: str | None, **shaping: Any) -> dict[str, Any]:
    return {"name": name, "source": source, "unit": unit, **shaping}


def joystick_terms(names: list[str]) -> list[dict[str, Any]]:
    """What a joystick policy sees, in the Playground's order."""
    command = {"kind": "velocity_command", "low": [-0.5, -0.4, -1.0], "high": [1.0, 0.4, 1.0]}
    return [
        term("base_velocity", {"kind": "base_velocity", "origin": "estimator"}, "m/s"),
        term("angular_velocity", {"kind": "imu", "field": "angular_velocity"}, "rad/s"),
        term("gravity", {"kind": "imu", "field": "gravity"}, "1"),
        term("position", {"kind": "joint", "field": "position", "joints": JOINTS}, "rad", offset=POSE),
        term("velocity", {"kind": "joint", "field": "velocity", "joints": JOINTS}, "rad/s"),
        term("action", {"kind": "last_action", "names": names}, "1"),
        term("command", command, None),
    ]


def legged_content(
    *,
    observations: list[dict[str, Any]] | None = None,
    joints: list[str] | None = None,
    pose: list[float] | None = None,
    scale: Any = 0.5,
    clip: list[float] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """A contract's JSON content; what is not given is the joystick policy's."""
    joints, pose = joints or JOINTS, pose or POSE
    action = {"name": "legs", "mode": "joint_position", "unit": "rad", "joints": joints, "names": joints}
    action |= {"offset": pose, "scale": scale, "clip": clip}
    seen = joystick_terms([f"legs.{joint}" for joint in joints]) if observations is None else observations
    terms = [ObservationTerm.model_validate(one) for one in seen]
    return {
        "schema_version": 1,
        "policy": {"name": "walk", "algorithm": "ppo", "nfe": [1], "seed": 0, "steps": 0, "config": {}},
        "environment": None,
        "robot": RobotTerms.of(ROBOT).model_dump(mode="json"),
        "history": 1,
        "observations": seen,
        "actions": [action],
        "execution": {
            "control_rate": 200.0,
            "policy_rate": 50.0,
            "horizon": 1,
            "n_action_steps": 1,
            "interpolation": "hold",
        },
        "dataset": unknown_data(terms, [ActionTerm.model_validate(action)]).model_dump(mode="json"),
        **fields,
    }


def legged_contract(**changes: Any) -> Contract:
    """The contract of `legged_content`.

    Raises:
        OneStrideError: the changes contradict each other.
    """
    return parsed(legged_content(**changes))


def parsed(content: dict[str, Any]) -> Contract:
    return parse_contract(json.dumps(content), "legs.json")


def legged_measurement(**parts: Any) -> Measurement:
    """The Go1 standing still, unless `parts` say otherwise; whatever is measured has just come."""
    found: dict[str, Any] = {
        "position": np.array(POSE),
        "velocity": np.zeros(12),
        "imu": Inertial(np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3), np.array([0.0, 0.0, 9.81])),
        "vectors": {},
        **parts,
    }
    now = dict.fromkeys(("joints", "imu", *found["vectors"]), 10.0)
    return Measurement(**{"received": now, **found})
