"""Generate and select: the best is the best, fast or not, in torch or in ONNX."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from onestride.policies.critic import CriticEnsemble
from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.plain_flow import OneStepMap, PlainFlow
from onestride.policies.policy import ChunkPolicy
from onestride.policies.ranking import Ranker
from onestride.policies.selection import BestOfN, take

S, H, D, N = 6, 3, 2, 5
LOW, HIGH = torch.tensor([-2.0, 0.5]), torch.tensor([4.0, 0.75])
FLOWS = {"mean": MeanFlow, "plain": PlainFlow, "one step": OneStepMap}


def best_of_n(flow: str = "mean", candidates: int = N, hidden: tuple[int, ...] = (32, 32)) -> BestOfN:
    torch.manual_seed(0)
    observation = Affine.standardise(torch.arange(6.0), torch.arange(6.0))
    policy = ChunkPolicy(observation, Affine.unit_box(LOW, HIGH), FLOWS[flow](S, H, D, hidden))
    return BestOfN(policy, CriticEnsemble(S, H * D, hidden), candidates)


def draw(batch: int, candidates: int = N, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, S, generator=g), torch.randn(batch * candidates, H, D, generator=g)


@pytest.mark.parametrize("flow", FLOWS)
def test_it_acts_with_the_candidate_the_critic_values_most(flow: str) -> None:
    """Spelled out: one observation and one candidate at a time."""
    mine, (observation, noise) = best_of_n(flow), draw(4)
    with torch.no_grad():
        acted = mine.act(observation, noise)
        for row in range(4):
            s = mine.policy.condition(observation[row : row + 1])
            drawn = [mine.policy.generate(s, one.unsqueeze(0)) for one in noise[row * N : row * N + N]]
            values = [mine.critic(s, chunk.reshape(1, 1, -1)).mean().item() for chunk in drawn]
            chosen = drawn[int(np.argmax(values))]
            torch.testing.assert_close(acted[row], mine.policy.to_dataset(chosen)[0])
    assert (acted >= LOW).all() and (acted <= HIGH).all()


def test_one_candidate_is_the_policy_itself() -> None:
    mine, (observation, noise) = best_of_n(candidates=1), draw(4, 1)
    with torch.no_grad():
        assert torch.equal(mine.best(observation, noise), mine.policy.generate(observation, noise))


def test_take_by_hand() -> None:
    chunks = torch.arange(2 * 3 * 1 * 2.0).reshape(2, 3, 1, 2)
    assert take(chunks, torch.tensor([2, 0])).tolist() == [[[4.0, 5.0]], [[6.0, 7.0]]]


def test_candidates_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="candidates >= 1, got 0"):
        best_of_n(candidates=0)


@pytest.mark.parametrize("flow", FLOWS)
def test_low_precision_only_decides_which(flow: str) -> None:
    """What comes out is, to the bit of full precision, one of the candidates, and about as good as the best."""
    mine, (s, noise) = best_of_n(flow, hidden=(128, 128)), draw(500)
    ranker = Ranker(mine, torch.bfloat16)
    with torch.no_grad():
        chunks, values = mine.values(s, noise)
    found, index = ranker.best(s, noise), ranker.index(s, noise)
    torch.testing.assert_close(found, take(chunks, index), rtol=0, atol=1e-5)
    agreement = (index == values.argmax(1)).float().mean()
    lost = (values.amax(1) - values[torch.arange(500), index]).mean() / values.std(1).mean()
    assert agreement > 0.9
    assert lost < 0.01


def test_the_ranker_follows_what_it_was_made_of() -> None:
    mine, (s, noise) = best_of_n(hidden=(128, 128)), draw(200)
    ranker = Ranker(mine, torch.bfloat16)
    before = ranker.index(s, noise)
    with torch.no_grad():
        for parameter in mine.critic.parameters():
            parameter.mul_(-1.0)
        expected = mine.values(s, noise)[1].argmax(1)
    after = ranker.index(s, noise)
    assert (after != before).float().mean() > 0.5
    assert (after == expected).float().mean() > 0.9


def test_full_precision_ranks_as_the_policy_acts() -> None:
    mine, (s, noise) = best_of_n(), draw(20)
    with torch.no_grad():
        assert torch.equal(Ranker(mine, torch.float32).best(s, noise), mine.best(s, noise))
        assert torch.equal(Ranker(mine, torch.float32).index(s, noise), mine.values(s, noise)[1].argmax(1))


def test_ties_are_told() -> None:
    """Two candidates from the same noise are valued alike; the others are not."""
    mine, (observation, noise) = best_of_n(), draw(1)
    with torch.no_grad():
        best = mine.values(mine.policy.condition(observation), noise)[1].argmax()
        noise[(best + 1) % N] = noise[best]
        near = mine.near_best(observation, noise, 1, slack=1e-6)
        assert len(near) == 2
        torch.testing.assert_close(near[0], mine.act(observation, noise)[0])
        assert len(mine.near_best(observation, noise, 1, slack=1e6)) == N


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flow", FLOWS)
def test_onnx_ranks_like_torch(flow: str) -> None:
    mine = best_of_n(flow)
    exportable = Exportable(mine, (1,))
    program = torch.onnx.export(
        exportable,
        exportable.example_inputs(),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["observation", "noise"],
    )
    assert program is not None
    data = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    chosen = set()
    for seed in range(30):
        observation, noise = draw(1, seed=seed)
        (found,) = session.run(None, {"observation": observation.numpy(), "noise": noise.numpy()})
        assert np.asarray(found).shape == (1, H, D)
        with torch.no_grad():
            (near,) = exportable.near_best(observation, noise, 1e-5)
            chosen.add(int(mine.values(mine.policy.condition(observation), noise)[1].argmax()))
        assert np.abs(near.numpy() - found).max((1, 2)).min() < 1e-5
    assert len(chosen) == N  # the ranking did something
