"""The contract of a demonstration: an environment's own terms, with a person where the policy would be."""

from __future__ import annotations

from onestride.datasets.provenance import git_commit
from onestride.deploy.contract import Contract, DatasetTerms, ExecutionTerms, PolicyTerms, RobotTerms
from onestride.deploy.teleop.operator import Device
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.environments.registry import canonical, interface, patterns


def demonstration(environment: str, device: Device) -> Contract:
    """What a person sees and does in an environment, by a device: one action at a time, from no dataset.

    Raises:
        OneStrideError: there is no such environment, or its observation and action are not stated in robot terms.
    """
    name, known = canonical(environment), interface(environment)
    if name is None:
        raise unknown("environment", environment, patterns())
    if known is None:
        raise OneStrideError(
            f"{environment}: a person can only act where observation and action are stated in robot terms; "
            "expected one of the cube environments"
        )
    names, units = known.observation_names, known.observation_units
    return Contract(
        schema_version=1,
        policy=PolicyTerms(
            name=f"a person by {device}",
            algorithm="teleoperation",
            nfe=(1,),
            seed=0,
            steps=0,
            config={"device": device},
            commit=git_commit(),
        ),
        environment=name,
        robot=RobotTerms.of(load_robot(known.robot)),
        history=1,
        observations=known.observations,
        actions=known.actions,
        kinematics=known.kinematics,
        execution=ExecutionTerms(
            control_rate=known.control_rate, policy_rate=known.policy_rate, horizon=1, n_action_steps=1
        ),
        dataset=DatasetTerms.unknown(names, units, known.action_names),
    )
