"""Certificates as data, and the filters and rows that keep them: a function of the state and what is claimed of it.

`onestride certificate` writes one as JSON, which is YAML too: it is pasted into the robot's description, so that the
proof travels with the robot and with every contract made for it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from onestride.hardware.model import Model, Positive

Floats = tuple[float, ...]
Matrix = tuple[Floats, ...]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

#: The system whose certificates the rows keep: a joint's command and its speed, moved by a bounded acceleration.
COMMANDED_JOINT = "commanded_joint"


class QuadraticTerms(Model):
    """`V(x) = xᵀ P x`.

    Attributes:
        matrix: P, symmetric and positive definite (n, n).
    """

    form: Literal["quadratic"] = "quadratic"
    matrix: Matrix

    @model_validator(mode="after")
    def _positive_definite(self) -> QuadraticTerms:
        if any(len(row) != len(self.matrix) for row in self.matrix):
            raise ValueError(f"matrix: expected {len(self.matrix)} columns, got {[len(row) for row in self.matrix]}")
        p = np.array(self.matrix)
        if not np.allclose(p, p.T) or np.linalg.eigvalsh(p).min() <= 0.0:
            raise ValueError("matrix: expected it symmetric and positive definite")
        return self


class LayerTerms(Model):
    """One layer of a network: `weight x + bias`.

    Attributes:
        weight: (m, d).
        bias: (m,).
    """

    weight: Matrix
    bias: Floats


class NetworkTerms(Model):
    """`V(x) = floor |R x|² + |R x + φ(x) - φ(0)|²`, φ with tanh behind each layer but the last.

    Attributes:
        root: R (n, n).
        floor: share of the quadratic part that is never learnt away.
        layers: of φ.
    """

    form: Literal["network"] = "network"
    root: Matrix
    floor: Positive
    layers: tuple[LayerTerms, ...] = Field(min_length=1)


class StoppingTerms(Model):
    """Of one joint: `V = -h = max(p + max(v, 0)² / 2b, -p + min(v, 0)² / 2b) - position`.

    Attributes:
        position: largest position of either sign [rad].
        braking: deceleration b that it counts with [rad/s^2].
    """

    form: Literal["stopping_distance"] = "stopping_distance"
    position: Positive
    braking: Positive


class ProofTerms(Model):
    """How the claim was proved.

    Attributes:
        method: `algebra` for linear systems, `cells` by bounds on cells.
        share: of the domain that the region fills, estimated by sampling.
        cells: bounded.
        undecided: of them, all at or above the level.
        seconds: it took.
    """

    method: Literal["algebra", "cells"]
    share: Share
    cells: int = 0
    undecided: int = 0
    seconds: NotNegative = 0.0


Claim = Literal["lyapunov", "barrier"]


def keeps(claim: Claim, level: float, decay: float, allowance: float) -> bool:
    """Whether `V+ <= (1 - decay) V + allowance` keeps a state in `V < level`: a Lyapunov function's sinks from there.

    With a larger allowance the inequality may hold of every state, and the region is left all the same.
    """
    room = decay * level - allowance
    return room > 0.0 if claim == "lyapunov" else room >= 0.0


class CertificateTerms(Model):
    """A claim about a system: from every state of the domain with `V < level` there is an input within its limits with
    `V(f(x, u) + w) <= (1 - decay) V(x) + allowance`, and the next state is in the domain.

    For a barrier h it is written with `V = -h` and the level 0.

    Attributes:
        schema_version: version of this format.
        claim: `lyapunov` or `barrier`.
        system: as `onestride certificate` names it.
        states: names of the state's elements, with their units.
        period: of the system's discrete time [s].
        domain: largest state of either sign (n,).
        limit: largest input of either sign (m,).
        disturbance: largest push w per step on each element, of either sign; empty for none.
        function: V.
        level: see above.
        decay: c, per step.
        allowance: ε, below `decay * level`; of a barrier zero.
        proof: None = not proved: nothing may rely on it.
    """  # noqa: D205

    schema_version: Literal[1] = 1
    claim: Claim
    system: str
    states: tuple[str, ...]
    period: Positive
    domain: tuple[Positive, ...]
    limit: tuple[Positive, ...]
    disturbance: tuple[NotNegative, ...] = ()
    function: Annotated[QuadraticTerms | NetworkTerms | StoppingTerms, Field(discriminator="form")]
    level: float
    decay: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    allowance: NotNegative = 0.0
    proof: ProofTerms | None = None

    @model_validator(mode="after")
    def _keeps_its_region(self) -> CertificateTerms:
        if not keeps(self.claim, self.level, self.decay, self.allowance):
            wanted = f"{'below' if self.claim == 'lyapunov' else 'at most'} decay * level = {self.decay * self.level:g}"
            raise ValueError(f"allowance: expected it {wanted}, or the region is left, got {self.allowance:g}")
        return self


class _KeptByJoints(Model):
    """A certificate of one commanded joint, kept by several.

    Attributes:
        certificate: of the system `commanded_joint`, proved.
        goal: position of each of the robot's joints at which the certificate's state is zero [rad]; None = the
            default pose.
    """

    certificate: CertificateTerms
    goal: Floats | None = None

    @model_validator(mode="after")
    def _of_a_joint(self) -> _KeptByJoints:
        terms = self.certificate
        if terms.system != COMMANDED_JOINT or not isinstance(terms.function, QuadraticTerms):
            found = f"{terms.function.form} of {terms.system}"
            raise ValueError(f"certificate: expected a quadratic one of {COMMANDED_JOINT}, got a {found}")
        if terms.proof is None:
            raise ValueError("certificate: expected a proved one, got one without proof")
        if terms.claim != "lyapunov" or any(terms.disturbance):
            raise ValueError(
                "certificate: expected the claim lyapunov without disturbance (the barrier row has a reserve), "
                f"got {terms.claim} with disturbance {terms.disturbance}"
            )
        sizes = len(terms.function.matrix), len(terms.domain), len(terms.limit)
        if sizes != (2, 2, 1):
            raise ValueError(f"certificate: expected 2 rows of the matrix, 2 of the domain and 1 limit, got {sizes}")
        return self


class LyapunovRow(_KeptByJoints):
    """Every joint's V decreases as its certificate claims; where V is above the level nothing is asked.

    Joints whose drives limit their own speed are left alone.
    """

    row: Literal["lyapunov"] = "lyapunov"


class BarrierRow(_KeptByJoints):
    """Every joint stays in the certified region around its goal: `h = level - V`, `h+ >= (1 - rate) h + reserve`.

    Attributes:
        rate: share of h that one step may use up.
        reserve: kept for what pushes the command's own state, in the unit of V.
    """

    row: Literal["barrier"] = "barrier"
    rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    reserve: NotNegative = 0.0


class RegionFilter(_KeptByJoints):
    """Refuses a state outside the certified region, so that no mode begins whose certificate does not hold there."""

    filter: Literal["region"] = "region"


class DecreaseFilter(Model):
    """Watches a learnt Lyapunov function that the policy file computes beside its chunks. Monitored, not proved.

    Attributes:
        monitor: its name among the contract's monitors.
        grows_for: inferences in a row over which it may grow.
        above: growth at lower values is not looked at, near the goal it is noise.
        reaction: `warn` counts and goes on, `stop` refuses.
    """

    filter: Literal["decrease"] = "decrease"
    monitor: str
    grows_for: int = Field(default=5, ge=1)
    above: NotNegative = 0.0
    reaction: Literal["warn", "stop"] = "stop"
