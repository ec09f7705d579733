"""The MVP gradient step, plainly: eager, float32, one network after the other, every candidate in full.

What the shipped step is compared with, for correctness and for speed. It takes its weights, its noise and its settings
from an agent, and nothing else: no piece of the agent computes anything here.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from onestride.training.agents.mvp import MVPAgent


class Critic(nn.Module):
    """One member of the ensemble: linear, GELU, layer norm, again and again."""

    def __init__(self, ensemble: Any, member: int) -> None:
        super().__init__()
        first = torch.cat([ensemble.of_s[member], ensemble.of_chunk[member]], dim=1)
        weights = [first, *(weight[member] for weight in ensemble.weights)]
        layers = []
        for weight, bias in zip(weights, ensemble.biases, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": bias[member]})
            layers += [layer, nn.GELU(), nn.LayerNorm(weight.shape[0], elementwise_affine=False)]
        self.layers = nn.Sequential(*layers[:-2])

    def forward(self, s: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([s, a], dim=-1)).squeeze(-1)


class ReferenceMVP:
    """Trains the same networks as an agent, from its present weights; a fresh optimiser."""

    def __init__(self, agent: MVPAgent) -> None:
        assert agent.critic is not None
        self.config, self.shape = agent.config, (agent.config.horizon, agent.actor.policy.flow.action_dim)
        self.actor = copy.deepcopy(agent.actor.policy.flow.network.layers).requires_grad_(True)
        self.ema = copy.deepcopy(agent.actor.acting.flow.network.layers)
        members = range(self.config.critics)
        self.critics = nn.ModuleList(Critic(agent.critic.online, member) for member in members)
        self.targets = nn.ModuleList(Critic(agent.critic.target, member) for member in members)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=self.config.lr)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=self.config.critic_lr)
        self.generator = torch.Generator().manual_seed(0)
        self.generator.set_state(agent.generator.get_state())
        self.updates = 0

    def u(self, network: nn.Module, z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return network(torch.cat([s, z, t, t - r], dim=-1))

    def best(self, s: torch.Tensor) -> torch.Tensor:
        """The best of N candidates, flattened."""
        n = self.config.candidates
        noise = torch.randn((len(s) * n, *self.shape), generator=self.generator).flatten(1)
        repeated, one = s.repeat_interleave(n, 0), torch.ones(len(noise), 1)
        chunks = (noise - self.u(self.ema, noise, one, 0 * one, repeated)).clamp(-1, 1)
        values = torch.stack([critic(repeated, chunks) for critic in self.critics]).mean(0).view(-1, n)
        return chunks.view(len(s), n, -1)[torch.arange(len(s)), values.argmax(1)]

    def critic_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        s, next_s = batch["observations"].flatten(1), batch["next_observations"].flatten(1)
        with torch.no_grad():
            best = self.best(next_s)
            value = torch.stack([target(next_s, best) for target in self.targets]).mean(0)
            target = self.config.discount ** self.shape[0] * batch["masks"][:, -1] * value
            for step in range(self.shape[0]):
                target = target + self.config.discount**step * batch["rewards"][:, step]
        a = batch["actions"].flatten(1)
        errors = torch.stack([critic(s, a) - target for critic in self.critics])
        return (errors.square() * batch["valid"][:, -1]).mean()

    def actor_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        s, a = batch["observations"].flatten(1), batch["actions"].flatten(1)
        half = len(s) // 2
        e = torch.randn(a.shape, generator=self.generator)
        pair = torch.sigmoid(torch.randn(len(s), 2, generator=self.generator) - 0.4)
        t, r = pair.amax(1, keepdim=True), pair.amin(1, keepdim=True)
        r[half:] = t[half:]
        acting = int(self.config.one_step_share * half)
        t[:acting], r[:acting] = 1.0, 0.0
        v = e - a
        z = a + t * v
        with torch.no_grad():
            tangents = v, torch.ones_like(t)
            du_dt = torch.func.jvp(lambda z_, t_: self.u(self.actor, z_, t_, r, s), (z, t), tangents)[1]
            target = v - (t - r) * du_dt
        squared = (self.u(self.actor, z, t, r, s) - target).square()
        weighted = squared * (squared.detach() + 1e-3) ** -self.config.weight_power
        return weighted[:half].mean() + self.config.ivc_weight * weighted[half:].mean()

    def update(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """One gradient step of critics and actor on a batch whose chunks are whole; both losses."""
        critic_loss = self.critic_loss(batch)
        self.critic_step(critic_loss)
        actor_loss = self.actor_loss(batch)
        self.actor_step(actor_loss)
        return critic_loss.detach(), actor_loss.detach()

    def critic_step(self, loss: torch.Tensor) -> None:
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        self.follow(self.targets, self.critics, self.config.tau)

    def actor_step(self, loss: torch.Tensor) -> None:
        self.actor_optimiser.zero_grad()
        loss.backward()
        self.actor_optimiser.step()
        self.follow(self.ema, self.actor, 1 - min(self.config.ema_decay, (1 + self.updates) / (10 + self.updates)))
        self.updates += 1

    @torch.no_grad()
    def follow(self, averages: nn.Module, sources: nn.Module, share: float) -> None:
        for average, source in zip(averages.parameters(), sources.parameters(), strict=True):
            average.lerp_(source, share)
