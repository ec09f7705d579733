"""Learning a Lyapunov function with counterexamples: fit, attack, prove, and learn again from what broke it.

The network is first fitted to the cost to go of its controller, which decreases as fast as the claim asks wherever the
controller brings the system to rest. Then the claim itself is trained, on random states, on the worst states that
gradient ascent finds, and on the prover's counterexamples.

Reference: counterexample-guided Lyapunov functions, arXiv:2005.00611.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from onestride.hardware.state import Array
from onestride.training.certificates.claims import Control, Function, decrease
from onestride.training.certificates.jets import Column
from onestride.training.certificates.neural import FrozenLyapunov, NeuralLyapunov
from onestride.training.certificates.quadratic import Quadratic
from onestride.training.certificates.systems import State, System
from onestride.training.certificates.verifier import Effort, Progress, Verdict, verify

#: (rounds done, note)
Told = Callable[[int, str], None]


@dataclass(frozen=True)
class LearningConfig:
    """How a Lyapunov function is learnt.

    Attributes:
        decay: c of the claim, per step.
        hidden: widths of the network's layers.
        rounds: of learning and proving.
        steps: gradient steps in each.
        batch: states in each.
        rate: of learning.
        seed: of weights and states.
    """

    decay: float = 0.02
    hidden: tuple[int, ...] = (16, 16)
    rounds: int = 3
    steps: int = 800
    batch: int = 256
    rate: float = 3e-3
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Learnt:
    """What learning gave.

    Attributes:
        function: the best one, at a scale where the certified level is about 1.
        verdict: what was proved of it.
        share: certified share of the domain after each round.
    """

    function: FrozenLyapunov
    network: NeuralLyapunov
    verdict: Verdict
    share: tuple[float, ...]


def cost_to_go(system: System, control: Control, quadratic: Function, x: Array, decay: float) -> Array:
    """Discounted backwards, so that it decreases by `decay` and more; infinite where the system leaves or stays away.

    Args:
        system: Known.
        control: The controller.
        quadratic: Its value is the cost of a step, weighed by `decay`.
        x: States (n, B).
        decay: c: `J(f(x)) = (1 - c) (J(x) - c V(x))`.

    Returns:
        J (B,).
    """
    total, weight, half = np.zeros(x.shape[1]), 1.0, np.array(system.domain)[:, None]
    inside, first = np.ones(x.shape[1], dtype=bool), np.asarray(quadratic(list(x)))
    for _ in range(400):
        total += weight * decay * np.asarray(quadratic(list(x)))
        x = np.clip(np.stack(system.step(list(x), control(list(x)))), -2 * half, 2 * half)
        inside &= (np.abs(x) <= half).all(axis=0)
        weight /= 1.0 - decay
    arrived = np.asarray(quadratic(list(x))) < 1e-9 * (1.0 + first)
    return np.where(inside & arrived, total, np.inf)


def learn(
    system: System,
    control: Control,
    start: Quadratic,
    config: LearningConfig,
    effort: Effort | None = None,
    told: Told | None = None,
    progress: Progress | None = None,
) -> Learnt:
    """Learn a Lyapunov function for a controller whose certified region is as large as it gets.

    Args:
        system: Known.
        control: The controller, here of torch columns, too.
        start: Quadratic function of the same controller; its scale is chosen here.
        config: How.
        effort: Of each proof.
        told: Hears of each round.
        progress: Hears of each proof.
    """
    rng = np.random.default_rng(config.seed)
    half = np.array(system.domain)[:, None]
    pool = rng.uniform(-half, half, (len(half), 20_000))
    cost = cost_to_go(system, control, start, pool, config.decay)
    kept = np.isfinite(cost)
    scale = 1.0 / float(np.quantile(cost[kept], 0.95))
    network = NeuralLyapunov(start.scaled(scale), config.hidden, config.seed)
    training = _Training(system, control, network, config, pool[:, kept], cost[kept] * scale)
    best: Learnt | None = None
    shares: list[float] = []
    for round_ in range(config.rounds):
        training.run(fit=round_ == 0)
        function = network.frozen()
        claim = decrease(system, function, control, config.decay, allowance(config.decay))
        verdict = verify(function, [claim], system.domain, effort=effort, progress=progress)
        training.add(verdict.counterexamples)
        shares.append(verdict.share)
        if best is None or verdict.share > best.verdict.share:
            kept_network = NeuralLyapunov(start.scaled(scale), config.hidden, config.seed)
            kept_network.load_state_dict(network.state_dict())
            best = Learnt(function, kept_network, verdict, ())
        if told is not None:
            told(round_ + 1, f"certified {verdict.share:.1%} of the domain")
    assert best is not None
    return Learnt(best.function, best.network, best.verdict, tuple(shares))


def allowance(decay: float) -> float:
    """ε of the claim at the scale of a learnt function (level about 1): it comes to rest within `V <= 0.01`."""
    return 0.01 * decay


class _Training:
    """The network, its optimiser, and the states it learns from."""

    def __init__(
        self,
        system: System,
        control: Control,
        network: NeuralLyapunov,
        config: LearningConfig,
        pool: Array,
        cost: Array,
    ) -> None:
        self._system, self._control, self._network, self._config = system, control, network, config
        self._pool, self._cost = torch.from_numpy(pool.T.copy()), torch.from_numpy(cost)
        self._hard = self._pool[:0]
        self._half = torch.tensor(system.domain, dtype=torch.float64)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._optimiser = torch.optim.Adam(network.parameters(), lr=config.rate)

    def add(self, states: Array) -> None:
        """Learn from these (k, n), too, as far as the controller can bring them to rest."""
        if len(states):
            j = cost_to_go(self._system, self._control, _squared, states.T, self._config.decay)
            self._hard = torch.cat([self._hard, torch.from_numpy(states[np.isfinite(j)])])[-5000:]

    def run(self, fit: bool) -> None:
        """One round of gradient steps; the first is fitted to the cost to go as well."""
        steps = self._config.steps
        for group in self._optimiser.param_groups:
            group["lr"] = group["initial_lr"] = self._config.rate if fit else 0.2 * self._config.rate
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, steps)
        for step in range(steps):
            weight = 1.0 if fit and step < steps // 2 else 0.1
            loss = self._loss(weight)
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            schedule.step()

    def _loss(self, weight: float) -> torch.Tensor:
        index = torch.randint(len(self._pool), (self._config.batch,), generator=self._generator)
        x, wanted = self._pool[index], self._cost[index]
        value = self._network(x)
        fit = ((value + 0.01) / (wanted + 0.01)).log().square().mean()
        risky = torch.cat([x, self._some_hard(), self._worst(x[:32])])
        broken = torch.relu(self._growth(risky) + 0.2 * self._config.decay)
        loss: torch.Tensor = weight * fit + 10.0 * broken.mean()
        return loss

    def _some_hard(self) -> torch.Tensor:
        count = len(self._hard) and 128
        chosen = torch.randint(max(len(self._hard), 1), (count,), generator=self._generator)
        return self._hard[chosen]

    def _growth(self, x: torch.Tensor) -> torch.Tensor:
        """How much V grows beyond the claim, relative to V (B,)."""
        columns = list(x.unbind(1))
        ahead = torch.stack(self._system.step(columns, self._control(columns)), dim=1)
        value = self._network(x)
        decay = self._config.decay
        growth: torch.Tensor = (self._network(ahead) - (1.0 - decay) * value - allowance(decay)) / (value + 0.05)
        return growth

    def _worst(self, x: torch.Tensor) -> torch.Tensor:
        """Climb from `x` (B, n) to where the claim is broken most, within the domain and near the start."""
        step, start = 0.02 * self._half, x
        for _ in range(3):
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self._growth(x).sum(), x)
            x = (x + step * slope.sign()).clamp(-self._half, self._half)
        keep = self._network(x.detach()) < self._network(start) * 1.5
        return x.detach()[keep]


def _squared(x: State) -> Column:
    """Any cost that is zero at rest alone: it tells whether a state is brought there."""
    return sum(one**2 for one in x)
