"""Policies of a real size with random weights, exported as any other: what latency is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from policy_samples import ROBOT, cube_contract

from onestride.deploy.contract import Contract, RobotTerms
from onestride.deploy.export import export_policy
from onestride.hardware.description import load_robot
from onestride.policies.critic import CriticEnsemble
from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.plain_flow import PlainFlow
from onestride.policies.policy import ChunkPolicy
from onestride.policies.selection import BestOfN
from onestride.training.environments.ogbench_interface import cube_interface

OBSERVATION, HORIZON, ACTION = 37, 5, 5
HIDDEN, STEPS, CANDIDATES, MEMBERS = (512,) * 4, 10, 32, 2


def double_cube_contract(name: str, nfe: tuple[int, ...], candidates: int = 1) -> Contract:
    """The double-cube task's contract: 37 observed numbers, chunks of 5 actions of 5 numbers."""
    known, sample = cube_interface(2), cube_contract()
    size = len(known.observation_names)
    dataset = sample.dataset.model_copy(
        update={
            "observation_names": known.observation_names,
            "observation_units": known.observation_units,
            "action_names": known.action_names,
            "minimum": tuple(np.linspace(-1.0, -0.1, size).tolist()),
            "maximum": tuple(np.linspace(0.1, 1.0, size).tolist()),
        }
    )
    policy = sample.policy.model_copy(update={"name": name, "nfe": nfe, "candidates": candidates})
    changes = {
        "policy": policy,
        "robot": RobotTerms.of(load_robot(ROBOT)),
        "environment": "ogbench/cube-double-singletask-task2-v0",
        "observations": known.observations,
        "dataset": dataset,
    }
    return Contract.model_validate(sample.model_copy(update=changes).model_dump())


def make_policies() -> dict[str, Exportable]:
    """One step, ten steps of a plain flow, and the best of 32 candidates by two critics."""
    torch.manual_seed(0)

    def policy(flow: Any) -> ChunkPolicy[Any]:
        return ChunkPolicy(Affine.identity(OBSERVATION), Affine.identity(ACTION), flow)

    one_step = policy(MeanFlow(OBSERVATION, HORIZON, ACTION, HIDDEN))
    critic = CriticEnsemble(OBSERVATION, HORIZON * ACTION, HIDDEN, MEMBERS)
    return {
        "one-step": Exportable(one_step, (1,)),
        "ten-step-flow": Exportable(policy(PlainFlow(OBSERVATION, HORIZON, ACTION, HIDDEN)), (STEPS,)),
        "best-of-32": Exportable(BestOfN(one_step, critic, CANDIDATES), (1,)),
    }


def write_policies(policies: dict[str, Exportable], folder: Path) -> dict[str, Path]:
    """Export them, as any other policy is."""
    paths = {name: folder / f"{name}.onnx" for name in policies}
    for name, module in policies.items():
        contract = double_cube_contract(name, module.nfe, module.policy.candidates)
        export_policy(module, contract, paths[name], np.empty((0, OBSERVATION)))
    return paths
