"""Feed a recording to a policy again, through the code that ran it, and say what comes out differently.

Open loop: what was observed goes in, what comes out is compared with what was done, and moves nothing. A node's
recording is replayed twice. Its observations go through runtime and chunks, which must give the recorded actions.
Its measurements go through the whole controller, which must build the recorded observations and send the recorded
commands. Any other data with the policy's observations can be replayed too; how its actions differ is then no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onestride.datasets.schema import BASE, Episode, Schema
from onestride.deploy.chunks import ChunkExecutor
from onestride.deploy.contract import Contract
from onestride.deploy.controller import Actor
from onestride.deploy.recorded import TICKS
from onestride.deploy.runtime import PolicyRuntime
from onestride.deploy.terms import ActionTerm, ObservationTerm
from onestride.deploy.ticks import ACTORS
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

#: Largest difference of an action that another machine or another version may make.
TOLERANCE = 1e-5

_POLICY = ACTORS.index(Actor.POLICY)


@dataclass(frozen=True)
class Part:
    """Some neighbouring elements of a comparison, such as a contract's term.

    Attributes:
        name: for people.
        place: of its elements.
    """

    name: str
    place: slice


@dataclass(frozen=True)
class Difference:
    """What was recorded, and what came again.

    Attributes:
        recorded: (T, D).
        again: (T, D).
        parts: what the elements are.
    """

    recorded: Array
    again: Array
    parts: tuple[Part, ...]

    @cached_property
    def _absolute(self) -> Array:
        """Infinite where one of the two is no number and the other is."""
        gap = np.abs(self.again - self.recorded)
        return np.where(np.isnan(gap), np.where(np.isnan(self.again) & np.isnan(self.recorded), 0.0, np.inf), gap)

    @property
    def largest(self) -> float:
        """The largest difference of any element."""
        return float(self._absolute.max(initial=0.0))

    @property
    def identical(self) -> bool:
        """Whether every bit is the same."""
        return np.array_equal(self.recorded, self.again, equal_nan=True)

    def first(self, tolerance: float) -> int | None:
        """The first step in which any element differs by more than `tolerance`; None where none does."""
        beyond = np.flatnonzero((self._absolute > tolerance).any(axis=1))
        return int(beyond[0]) if len(beyond) else None

    def summary(self, tolerance: float = 0.0) -> dict[str, Any]:
        """Figures as JSON."""
        return {
            "steps": len(self.recorded),
            "identical": self.identical,
            "max": self.largest,
            "mean": float(self._absolute.mean()) if self._absolute.size else 0.0,
            "first_step_that_differs": self.first(tolerance),
            "terms": {part.name: self._of(part) for part in self.parts},
        }

    def _of(self, part: Part) -> dict[str, Any]:
        gap = self._absolute[:, part.place]
        if not gap.size:
            return {"max": 0.0, "mean": 0.0, "at_step": None}
        return {"max": float(gap.max()), "mean": float(gap.mean()), "at_step": int(gap.max(axis=1).argmax())}


def parts_of(terms: Sequence[ObservationTerm | ActionTerm]) -> tuple[Part, ...]:
    """Where each term lies among the elements."""
    ends = np.cumsum([term.size for term in terms]).tolist()
    return tuple(Part(term.name, slice(end - term.size, end)) for term, end in zip(terms, ends, strict=True))


@dataclass(frozen=True)
class Steps:
    """The steps of a policy, as recorded.

    Attributes:
        observations: (T, Do), one step each.
        actions: (T, Da).
        attributes: of the episode.
        by_node: whether a controller of ours recorded them while this contract's policy ran, rather than that they
            are any data with the same observations.
        supervised: whether anyone but the policy acted in any of them.
    """

    observations: Array
    actions: Array
    attributes: dict[str, Any]
    by_node: bool
    supervised: bool = False


def read_steps(contract: Contract, schema: Schema, episode: Episode) -> Steps:
    """The steps of an episode, by the contract's names.

    Raises:
        OneStrideError: an observation or action of the contract is not in the data, or has another name there.
    """
    names = {feature.name: feature.element_names for feature in schema.features if feature.stream == BASE}
    order = _features_of(contract.observation_names, names, "observation")
    label = schema.feature(schema.label)
    if label.element_names != contract.action_names:
        raise OneStrideError(
            f"action: the contract has {', '.join(contract.action_names)}, the data {', '.join(label.element_names)}"
        )
    observations = np.concatenate([episode.data[name].reshape(episode.length, -1) for name in order], axis=1)
    by_node = TICKS in schema.streams and order == ["observation"]
    return Steps(
        observations.astype(np.float64),
        episode.data[schema.label].reshape(episode.length, -1).astype(np.float64),
        dict(episode.attributes),
        by_node,
        "actor" in episode.data and bool((episode.data["actor"] != _POLICY).any()),
    )


def _features_of(wanted: tuple[str, ...], features: dict[str, tuple[str, ...]], what: str) -> list[str]:
    """The features whose element names, one after the other, are those wanted."""
    order: list[str] = []
    at = 0
    while at < len(wanted):
        found = next((name for name, have in features.items() if have and wanted[at : at + len(have)] == have), None)
        if found is None:
            available = ", ".join(f"{name} ({', '.join(have)})" for name, have in features.items() if have)
            raise OneStrideError(f"{what} {wanted[at]!r} of the contract begins no feature; available: {available}")
        order.append(found)
        at += len(features[found])
    return order


def replay_actions(policy: PolicyRuntime, steps: Steps, seed: int) -> Difference:
    """Infer anew from the recorded observations, chunk by chunk, with the noise of `seed`."""
    policy.reset(seed)
    contract = policy.contract
    executor, again = ChunkExecutor(contract.execution), np.empty_like(steps.actions)
    for index in range(len(again)):
        if executor.empty:
            chunk = policy.infer(history(contract, steps.observations, index))
            executor.load(chunk.astype(np.float64), executor.consumed)
        again[index] = executor.next()
    return Difference(steps.actions, again, parts_of(contract.actions))


def history(contract: Contract, observations: Array, index: int) -> Array:
    """What the policy is asked with at a step (To * Do,): the steps before the first one are like it."""
    rows = observations[np.maximum(np.arange(index - contract.history + 1, index + 1), 0)]
    return np.asarray(rows.ravel()[np.array(contract.flat_order)])


@dataclass(frozen=True)
class Judgement:
    """Whether a replay is as it must be, and why it was asked to be.

    Attributes:
        tolerance: largest difference allowed; None where none is promised and differences are told only.
        why: in words.
    """

    tolerance: float | None
    why: str

    def passed(self, difference: Difference) -> bool:
        """Whether the actions are as promised."""
        if self.tolerance is None:
            return True
        return difference.identical if self.tolerance == 0 else difference.largest <= self.tolerance


def judge(steps: Steps, sha256: str, runtime: str, wanted: float | None = None) -> Judgement:
    """What a replay of these steps by a policy file promises.

    Args:
        steps: as recorded.
        sha256: of the policy file.
        runtime: what it runs on, see `runtime_identity`.
        wanted: tolerance that the user asks for, whatever the recording is.
    """
    if wanted is not None:
        return Judgement(wanted, "as asked")
    if not steps.by_node:
        return Judgement(None, "this data was not recorded from a running policy")
    if steps.attributes.get("policy_sha256") != sha256:
        return Judgement(None, f"another policy file was recorded, {steps.attributes.get('policy_sha256')}")
    if steps.supervised:
        return Judgement(None, "a person was at the controls")
    if varied := steps.attributes.get("varied"):
        return Judgement(None, f"the actions depended on how long each inference took: {varied}")
    recorded = steps.attributes.get("runtime")
    if recorded == runtime:
        return Judgement(0.0, f"same file, same runtime ({runtime})")
    return Judgement(TOLERANCE, f"same file, recorded with {recorded or 'an unnamed runtime'}, replayed with {runtime}")
