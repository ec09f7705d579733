"""Plain flow matching: a velocity field, and Euler steps along it; and the one-step map that can be distilled from it.

Flow time is that of :mod:`onestride.policies.mean_flow`: noise at t = 1, data at t = 0, ``v = e - a``. So a step goes
``z <- z - f(z, t, s) / K``, from t = 1 down.

References: flow matching, arXiv:2210.02747; Q-chunking, arXiv:2507.07969; FQL, arXiv:2502.02538.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from onestride.policies.jacobian import squared_jacobian
from onestride.policies.lipschitz import ObservationBound, slope_bound
from onestride.policies.mean_flow import integrate
from onestride.policies.networks import MLP


class PlainFlow(ObservationBound):
    """The velocity ``f(z, t, s)`` of action chunks of shape (h, Da), on normalised values."""

    def __init__(
        self,
        observation_dim: int,
        horizon: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        lipschitz: float | None = None,
    ) -> None:
        """Build the network.

        Args:
            observation_dim: S, length of the flattened observation s.
            horizon: h, steps in a chunk.
            action_dim: Da, values in one action.
            hidden: Widths of the hidden layers.
            lipschitz: L, the most that the velocity moves per distance in s; None = not bounded.
        """
        super().__init__()
        self.observation_dim, self.horizon, self.action_dim = observation_dim, horizon, action_dim
        self.chunk_dim, self.limit = horizon * action_dim, lipschitz
        self.network = MLP(observation_dim + self.chunk_dim + 1, hidden, self.chunk_dim)

    def forward(self, z: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Velocity (B, h * Da) at points z (B, h * Da) of time t (B, 1), at observation s (B, S)."""
        v: torch.Tensor = self.network(torch.cat([self.admitted(s), z, t], dim=-1))
        return v

    def sample(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 10) -> torch.Tensor:
        """Walk from noise to a chunk in ``nfe`` Euler steps.

        Args:
            s: (B, S) observation.
            noise: (B, h, Da) standard normal.
            nfe: Steps K, at least 1.

        Returns:
            (B, h, Da), not clipped.
        """
        reached = integrate(lambda z, t, _, s_: self(z, t, s_), noise.flatten(1), s, nfe)
        return reached.reshape(noise.shape)

    def loss(
        self,
        s: torch.Tensor,
        actions: torch.Tensor,
        valid: torch.Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Velocity regression with fresh noise and uniform times, over the valid elements.

        Args:
            s: (B, S) observation.
            actions: (B, h, Da) chunk to imitate.
            valid: (B, h) 1 where the step exists, 0 after the episode's end.
            generator: Source of noise and times, on the tensors' device.

        Returns:
            The scalar loss, and ``flow_mse``, the same detached.
        """
        a = actions.flatten(1)
        elements = valid.unsqueeze(-1).expand_as(actions).flatten(1)
        e = torch.randn(a.shape, generator=generator, device=a.device, dtype=a.dtype)
        t = torch.rand(len(a), 1, generator=generator, device=a.device, dtype=a.dtype)
        loss = flow_loss(self, s, a, e, t, elements)
        return loss, {"flow_mse": loss.detach()}

    def sensitivity(
        self, s: torch.Tensor, actions: torch.Tensor, valid: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Mean of ``‖∂f/∂s‖_F²`` over the batch, estimated, of the velocity at fresh points between noise and data.

        Not that of the chunk, which is what several steps of this velocity lead to.

        Args:
            s: (B, S) observation.
            actions: (B, h, Da) chunks that the flow leads to.
            valid: (B, h).
            generator: Source of noise, times and the estimate, on the tensors' device.

        Returns:
            Scalar, with gradient for the parameters.
        """
        e = torch.randn(len(s), self.chunk_dim, generator=generator, device=s.device, dtype=s.dtype)
        t = torch.rand(len(s), 1, generator=generator, device=s.device, dtype=s.dtype)
        exists = valid.unsqueeze(-1).expand_as(actions).flatten(1) > 0
        z = e + (1 - t) * torch.where(exists, actions.flatten(1) - e, 0.0)
        return squared_jacobian(lambda x: self(z, t, x), s, generator).mean()


def flow_loss(
    flow: PlainFlow,
    s: torch.Tensor,
    actions: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    valid: torch.Tensor,
) -> torch.Tensor:
    """``mean (f(z_t, t, s) - (e - a))²`` over the valid elements.

    As in the mean-flow loss, an invalid element takes its noise for its action, so that padding reaches no network.

    Args:
        flow: The velocity.
        s: (B, S) observation.
        actions: (B, D) flattened chunk a.
        noise: (B, D) e.
        t: (B, 1) flow time.
        valid: (B, D) 1 where the element exists.
    """
    actions = torch.where(valid > 0, actions, noise)
    v = noise - actions
    squared = (flow(actions + t * v, t, s) - v).square()
    loss: torch.Tensor = (squared * valid).sum() / valid.sum().clamp_min(1)
    return loss


class OneStepMap(nn.Module):
    """``μ(s, e)``: noise to a chunk directly, with one network evaluation and no flow time."""

    def __init__(self, observation_dim: int, horizon: int, action_dim: int, hidden: Sequence[int]) -> None:
        """Build the network; arguments as of :class:`PlainFlow`."""
        super().__init__()
        self.observation_dim, self.horizon, self.action_dim = observation_dim, horizon, action_dim
        chunk = horizon * action_dim
        self.network = MLP(observation_dim + chunk, hidden, chunk)

    @torch.no_grad()
    def lipschitz(self, nfe: int = 1) -> float:
        """An upper bound of the chunk's Lipschitz constant in s, for all s and noise."""
        del nfe  # there is one step only
        return slope_bound(self.network, slice(0, self.observation_dim)).item()

    def sample(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """From s (B, S) and noise (B, h, Da) to chunks (B, h, Da), not clipped.

        Raises:
            ValueError: ``nfe`` is not 1.
        """
        if nfe != 1:
            raise ValueError(f"expected nfe = 1 of a one-step map, got {nfe}")
        chunks: torch.Tensor = self.network(torch.cat([s, noise.flatten(1)], dim=-1)).reshape(noise.shape)
        return chunks
