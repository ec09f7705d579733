"""How an exported policy chooses: among how many candidates, and by which certificate of a known system."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from onestride.deploy.contract import Contract
from onestride.deploy.safety.certificate import load_certificate
from onestride.hardware.errors import OneStrideError
from onestride.policies.exportable import Exportable
from onestride.policies.selection import BestOfN
from onestride.training.acting import ranked
from onestride.training.certificates.candidates import candidate_certificate


def select(draft: Contract, candidates: int | None, certificate: str | Path | None) -> Contract:
    """A run's contract with another number of candidates, or with a certificate that they have to keep.

    With a certificate the file draws with the run's first number of network evaluations alone.

    Args:
        draft: of the run.
        candidates: chunks drawn and ranked; None = the run's number.
        certificate: file of `onestride certificate`; None for none.

    Raises:
        OneStrideError: fewer candidates than 1, or than 2 with a certificate; no such file, or a damaged one.
    """
    count = draft.policy.candidates if candidates is None else candidates
    if count < 1:
        raise OneStrideError(f"candidates: expected >= 1, got {count}")
    terms = draft.policy.model_copy(update={"candidates": count})
    if certificate is not None:
        judge = load_certificate(certificate).terms
        if count < 2:
            raise OneStrideError(f"{certificate}: expected 2 or more candidates of a run with a critic, got {count}")
        terms = terms.model_copy(update={"certificate": judge, "nfe": terms.nfe[:1]})
    return draft.model_copy(update={"policy": terms})


def selecting(exportable: nn.Module, contract: Contract) -> nn.Module:
    """A run's exportable that chooses as a contract says; itself where it already does.

    Raises:
        OneStrideError: it has no critic to choose by, or the certificate does not fit it.
    """
    policy, terms = exportable.policy, contract.policy
    if terms.certificate is None and terms.candidates == getattr(policy, "candidates", 1):
        return exportable
    chosen = ranked(policy, terms.candidates)
    if terms.certificate is not None and isinstance(chosen, BestOfN):
        inner = chosen.policy
        chosen.certificate = candidate_certificate(terms.certificate, contract, inner.observation, inner.action)
    return Exportable(chosen, terms.nfe)
