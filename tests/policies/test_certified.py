"""Candidates that a certificate judges: the rule by hand, and the policy against a search one candidate at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.policies.certified import CandidateCertificate, judge, near_judged
from onestride.policies.critic import CriticEnsemble
from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.policy import ChunkPolicy
from onestride.policies.selection import BestOfN

S, H, D, N = 6, 3, 2, 5


def certified(limit: float, steps: int = 1) -> BestOfN:
    torch.manual_seed(0)
    policy = ChunkPolicy(Affine.identity(S), Affine.identity(D), MeanFlow(S, H, D, (32, 32)))
    certificate = CandidateCertificate(CriticEnsemble(S, steps * D, (32, 32)), limit, steps)
    return BestOfN(policy, CriticEnsemble(S, H * D, (32, 32)), N, certificate)


def draw(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, S, generator=g), torch.randn(batch * N, H, D, generator=g)


def test_the_rule_by_hand() -> None:
    values = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    violation = torch.tensor([[0.5, -0.1, -0.2], [-1.0, 0.0, 2.0], [0.3, 0.2, 0.9]])
    judged = judge(values, violation)
    assert judged.chosen.tolist() == [1, 0, 1]
    assert judged.kept.tolist() == [2.0, 2.0, 0.0]
    assert judged.least.tolist() == pytest.approx([-0.2, -1.0, 0.2])


@pytest.mark.parametrize("steps", [1, H])
def test_it_acts_with_the_best_of_those_that_keep_it(steps: int) -> None:
    """Spelled out, one candidate at a time; the limit is such that all three cases occur."""
    mine, (s, noise) = certified(0.0, steps), draw(60)
    assert isinstance(mine.certificate, CandidateCertificate)
    with torch.no_grad():
        mine.certificate.limit = float(mine.certificate(s, mine.values(s, noise)[0]).quantile(0.2))
        acted, seen = mine.act(s, noise), set()
        for row in range(60):
            drawn = [mine.policy.generate(s[row : row + 1], one[None]) for one in noise[row * N : row * N + N]]
            worst = [
                max(mine.certificate.critic(s[row : row + 1], one[:, None, :steps].flatten(2)).flatten().tolist())
                for one in drawn
            ]
            value = [float(mine.critic(s[row : row + 1], one.reshape(1, 1, -1)).mean()) for one in drawn]
            kept = [i for i in range(N) if worst[i] <= mine.certificate.limit]
            right = max(kept, key=value.__getitem__) if kept else min(range(N), key=worst.__getitem__)
            torch.testing.assert_close(acted[row], drawn[right][0])
            seen.add(len(kept))
    assert {0, 1} <= seen and max(seen) > 1


def test_a_loose_certificate_changes_nothing_and_a_strict_one_takes_the_least_violation() -> None:
    loose, strict, (s, noise) = certified(1e6), certified(-1e6), draw(20)
    with torch.no_grad():
        chunks, values = loose.values(s, noise)
        torch.testing.assert_close(loose.best(s, noise), chunks[torch.arange(20), values.argmax(1)])
        chunk, judged = strict.judged(s, noise)
        assert strict.certificate is not None
        least = strict.certificate(s, chunks).argmin(1)
        torch.testing.assert_close(chunk, chunks[torch.arange(20), least])
        assert judged.kept.tolist() == [0.0] * 20 and (judged.least > 0).all()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=6), st.integers(0, 2**31 - 1))
def test_whatever_rounding_chooses_was_told(pairs: list[tuple[float, float]], seed: int) -> None:
    slack, g = 1e-3, torch.Generator().manual_seed(seed)
    values, violation = torch.tensor(pairs, dtype=torch.float64).T
    near, counts = near_judged(values, violation, slack)
    for _ in range(20):
        error = 0.4 * slack * (2 * torch.rand(2, len(values), generator=g, dtype=torch.float64) - 1)
        judged = judge((values + error[0])[None], (violation + error[1])[None])
        assert near[judged.chosen]
        assert judged.kept.item() in counts.tolist()


def test_only_one_number_of_evaluations_can_be_watched() -> None:
    with pytest.raises(ValueError, match=r"one number of network evaluations, got \(1, 2\)"):
        Exportable(certified(0.0), (1, 2))
    assert [one.name for one in Exportable(certified(0.0), (1,)).monitors] == [
        "certified_candidates",
        "certificate_violation",
    ]
    with pytest.raises(ValueError, match="steps >= 1, got 0"):
        CandidateCertificate(CriticEnsemble(S, D, (8,)), 0.0, 0)
