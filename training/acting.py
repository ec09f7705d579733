"""A run's policy as evaluation sees it, before it is exported."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onestride.deploy.contract import Contract, parse_contract
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array
from onestride.policies.policy import ChunkFlow, ChunkPolicy
from onestride.policies.selection import BestOfN
from onestride.training.checkpoint import Run

Floats = NDArray[np.float32]


class TorchPolicy:
    """An agent's acting policy in torch, with the noise that the exported file would be given.

    Args:
        contract: What it expects and promises; a draft will do.
        module: The agent's exportable.
        nfe: Network evaluations per chunk; default the contract's first.

    Attributes:
        contract: As given.
        nfe: Network evaluations per chunk.
    """

    def __init__(self, contract: Contract, module: nn.Module, nfe: int | None = None) -> None:
        self.contract, self._module = contract, module
        self.nfe = contract.policy.nfe[0] if nfe is None else nfe
        if self.nfe not in contract.policy.nfe:
            raise unknown("NFE of the run", self.nfe, contract.policy.nfe)
        self._output = contract.policy.nfe.index(self.nfe)
        self._noise = np.zeros(contract.noise_shape, np.float32)
        self.reset(0)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over weights and normalisers."""
        self._module.load_state_dict(dict(tensors))

    def reset(self, seed: int) -> None:
        """Start the noise sequence of ``seed``."""
        self._generator = np.random.default_rng(seed)

    @torch.inference_mode()
    def infer(self, observation: Array) -> Floats:
        """The chunk (h, Da) for an observation (To * Do,)."""
        self._generator.standard_normal(out=self._noise, dtype=np.float32)
        seen = torch.from_numpy(np.asarray(observation, np.float32)[None])
        chunk: Floats = self._module(seen, torch.from_numpy(self._noise))[self._output][0].numpy()
        return chunk


def policy_of(run: Run, nfe: int | None = None, candidates: int | None = None) -> TorchPolicy:
    """The policy of a run at its newest intact checkpoint.

    Args:
        run: The run.
        nfe: Network evaluations per chunk; default the run's first.
        candidates: Chunks drawn and ranked, instead of the run's number; 1 = what the policy draws, unranked.

    Raises:
        OneStrideError: No such NFE, or a number of candidates that a policy without a critic cannot have.
    """
    contract = parse_contract(run.contract, str(run.path / "contract.json"))
    module = run.agent.as_exportable(contract.policy.nfe)
    if candidates is not None and candidates != contract.policy.candidates:
        module.policy = ranked(module.policy, candidates)
        terms = contract.policy.model_copy(update={"candidates": candidates})
        contract = Contract.model_validate(contract.model_dump() | {"policy": terms.model_dump()})
    return TorchPolicy(contract, module, nfe)


def ranked(policy: nn.Module | torch.Tensor, candidates: int) -> ChunkPolicy[ChunkFlow] | BestOfN:
    """A policy that draws and ranks another number of candidates; 1 = what it draws, unranked.

    Raises:
        OneStrideError: It ranks nothing, or the number is below 1.
    """
    if not isinstance(policy, BestOfN):
        raise OneStrideError(f"candidates: expected 1 for a policy that ranks nothing, got {candidates}")
    if candidates < 1:
        raise OneStrideError(f"candidates: expected >= 1, got {candidates}")
    if candidates == 1:
        return policy.policy
    return BestOfN(policy.policy, policy.critic, candidates, policy.certificate)
