"""MeanFlow: the average velocity of a flow, learnt so that one network evaluation gives an action chunk.

Flow time, here and everywhere: ``z_t = (1 - t) a + t e`` with noise ``e ~ N(0, I)`` at t = 1 and data ``a``
at t = 0, velocity ``v = e - a``, and ``0 <= r <= t <= 1``. The network is the average velocity between r and
t, ``u(z_t, t, r, s) = (z_t - z_r) / (t - r)``: so ``z_r = z_t - (t - r) u``, and ``a = e - u(e, 1, 0, s)``.

References: MeanFlow, arXiv:2505.13447 (the identity: Eq. 6); MVP, arXiv:2602.13810 (the instantaneous
velocity constraint: Eq. 15; the sum of both losses: Eq. 19).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch

from onestride.policies import products
from onestride.policies.jacobian import squared_jacobian
from onestride.policies.lipschitz import ObservationBound
from onestride.policies.networks import MLP

Velocity: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""``u(z (B, D), t (B, 1), r (B, 1), s (B, S)) -> (B, D)``: a network, or a formula in a test."""

TimeLaw: TypeAlias = Literal["logit_normal", "uniform", "to_data"]
"""How flow times are drawn, see :func:`draw_times`."""

TIME_LAWS: tuple[TimeLaw, ...] = get_args(TimeLaw)

TIME_LOGIT_MEAN = -0.4
"""Of the logit-normal times: more often near the data, where the map bends."""

WEIGHT_FLOOR = 1e-3
"""Keeps the adaptive weight finite where the error vanishes."""


class MeanFlow(ObservationBound):
    """The average velocity ``u(z, t, r, s)`` of action chunks of shape (h, Da), on normalised values."""

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
            lipschitz: L, the most that u, and so the one-step chunk, moves per distance in s; None = not bounded.
        """
        super().__init__()
        self.observation_dim, self.horizon, self.action_dim = observation_dim, horizon, action_dim
        self.chunk_dim, self.limit = horizon * action_dim, lipschitz
        self.network = MLP(observation_dim + self.chunk_dim + 2, hidden, self.chunk_dim)

    def forward(self, z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Average velocity between r and t at z.

        Args:
            z: (B, h * Da) point on the flow at time t.
            t: (B, 1) flow time.
            r: (B, 1) earlier flow time, r <= t.
            s: (B, S) observation.

        Returns:
            (B, h * Da).
        """
        u: torch.Tensor = self.network(torch.cat([self.admitted(s), z, t, t - r], dim=-1))
        return u

    def derivative(
        self, z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """``du/dt`` along a trajectory of velocity v, tangents (v, 1, 0) for (z, t, r): the products spelled out.

        What `torch.func.jvp` gives, less its dispatch, which costs more than the products themselves.

        Args:
            z: (B, h * Da) point on the flow at time t.
            t: (B, 1) flow time.
            r: (B, 1) earlier flow time.
            s: (B, S) observation.
            v: (B, h * Da) velocity.

        Returns:
            (B, h * Da), without gradient.
        """
        one = torch.ones_like(t)
        inputs = torch.cat([self.admitted(s), z, t, t - r], dim=-1)
        return self.network.tangent(inputs, torch.cat([torch.zeros_like(s), v, one, one], dim=-1))

    def sample(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Walk from noise to a chunk in ``nfe`` equal steps; nfe = 1 is the one-step policy.

        Args:
            s: (B, S) observation.
            noise: (B, h, Da) standard normal.
            nfe: Network evaluations K.

        Returns:
            (B, h, Da), not clipped.
        """
        return integrate(self, noise.flatten(1), s, nfe).reshape(noise.shape)

    def loss(
        self,
        s: torch.Tensor,
        actions: torch.Tensor,
        valid: torch.Tensor,
        *,
        ivc_weight: float = 1.0,
        weight_power: float = 0.5,
        one_step_share: float = 0.0,
        time_law: TimeLaw = "logit_normal",
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """MeanFlow loss plus instantaneous velocity constraint of one batch, with fresh noise and times.

        Args:
            s: (B, S) observation.
            actions: (B, h, Da) chunk to imitate.
            valid: (B, h) 1 where the step exists, 0 after the episode's end.
            ivc_weight: λ.
            weight_power: p of the adaptive weight.
            one_step_share: see :func:`draw_times`.
            time_law: likewise.
            generator: Source of noise and times, on the tensors' device.

        Returns:
            The scalar loss and the metrics of :func:`mean_flow_loss`.

        Raises:
            ValueError: A shape does not fit, or the batch has fewer than 2 rows.
        """
        self._check(s, actions, valid)
        a = actions.flatten(1)
        elements = valid.unsqueeze(-1).expand_as(actions).flatten(1)
        e = torch.randn(a.shape, generator=generator, device=a.device, dtype=a.dtype)
        t, r = draw_times(len(a), one_step_share, time_law, generator=generator, device=a.device, dtype=a.dtype)
        return mean_flow_loss(self, s, a, e, t, r, elements, ivc_weight=ivc_weight, weight_power=weight_power)

    def sensitivity(self, s: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Mean of ``‖∂a/∂s‖_F²`` over the batch, estimated, of the one-step chunk ``a = e - u(e, 1, 0, s)``.

        Args:
            s: (B, S) observation.
            generator: Source of the noise e and of the estimate, on the tensors' device.

        Returns:
            Scalar, with gradient for the parameters.
        """
        noise = torch.randn(len(s), self.chunk_dim, generator=generator, device=s.device, dtype=s.dtype)
        return squared_jacobian(lambda x: integrate(self, noise, x, 1), s, generator).mean()

    def _check(self, s: torch.Tensor, actions: torch.Tensor, valid: torch.Tensor) -> None:
        batch = len(s)
        expected = [
            (batch, self.observation_dim),
            (batch, self.horizon, self.action_dim),
            (batch, self.horizon),
        ]
        got = [tuple(s.shape), tuple(actions.shape), tuple(valid.shape)]
        if batch < 2 or got != expected:
            raise ValueError(f"expected s, actions, valid of shapes {expected} with B >= 2, got {got}")


def integrate(velocity: Velocity, z: torch.Tensor, s: torch.Tensor, nfe: int) -> torch.Tensor:
    """Follow an average velocity from t = 1 to t = 0 on a uniform grid, ``z <- z - (t - r) u(z, t, r, s)``.

    Args:
        velocity: The average velocity.
        z: (B, D) noise.
        s: (B, S) observation.
        nfe: Number of steps, at least 1.

    Returns:
        (B, D) the point reached at t = 0.

    Raises:
        ValueError: ``nfe`` is below 1.
    """
    if nfe < 1:
        raise ValueError(f"expected nfe >= 1, got {nfe}")
    for k in range(nfe, 0, -1):
        t, r = (torch.full_like(z[:, :1], i / nfe) for i in (k, k - 1))
        z = z - velocity(z, t, r, s) / nfe
    return z


def draw_times(
    batch: int,
    one_step_share: float = 0.0,
    law: TimeLaw = "logit_normal",
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flow times: the first half of the batch has r < t, the second half r = t.

    One-step acting evaluates the map at (t, r) = (1, 0) only, where the logit-normal draw, the reference's, almost
    never comes. With few gradient steps it pays to put a share of the first half exactly there. `uniform` times come
    near it by themselves. `to_data` trains the first half at r = 0 and uniform t, all the way from data to noise:
    the derivative at (1, 0) is along t, so these are the only pairs that one-step acting rests on.

    Args:
        batch: B.
        one_step_share: share of the first half at (1, 0).
        law: of the times.
        generator: Source of the draws.
        device: Of the result.
        dtype: Of the result.

    Returns:
        t (B, 1) and r (B, 1): the sorted pair of two draws, or one draw and 0.
    """
    options: Any = {"generator": generator, "device": device, "dtype": dtype}
    if law == "logit_normal":
        pair = torch.sigmoid(torch.randn(batch, 2, **options) + TIME_LOGIT_MEAN)
    else:
        pair = torch.rand(batch, 2, **options)
    if law == "to_data":
        t, r = pair[:, :1], torch.zeros_like(pair[:, :1])
    else:
        t, r = pair.amax(1, keepdim=True), pair.amin(1, keepdim=True)
    split = batch // 2
    t, r = t.clone(), torch.cat([r[:split], t[split:]])
    acting = int(one_step_share * split)
    t[:acting], r[:acting] = 1.0, 0.0
    return t, r


def average_velocity_target(
    velocity: Velocity,
    z: torch.Tensor,
    t: torch.Tensor,
    r: torch.Tensor,
    s: torch.Tensor,
    v: torch.Tensor,
) -> torch.Tensor:
    """The MeanFlow identity solved for u: ``v - (t - r) du/dt``, without gradient.

    du/dt is the total derivative along the trajectory, a Jacobian-vector product with tangents (v, 1, 0) for
    (z, t, r): about the price of one more forward pass, and nothing is kept for a backward pass.

    Args:
        velocity: The average velocity.
        z: (B, D) points at time t.
        t: (B, 1) flow time.
        r: (B, 1) earlier flow time.
        s: (B, S) observation.
        v: (B, D) velocity e - a.

    Returns:
        (B, D) regression target for ``velocity(z, t, r, s)``.

    Reference: arXiv:2505.13447, Eq. 6.
    """
    with torch.no_grad():
        # A GPU waits for the host, and torch's own product keeps that busy several times as long.
        if isinstance(velocity, MeanFlow) and (products.are_fast() or z.device.type != "cpu"):
            du_dt = velocity.derivative(z, t, r, s, v)
        else:
            tangents = (v, torch.ones_like(t))
            du_dt = torch.func.jvp(lambda z_, t_: velocity(z_, t_, r, s), (z, t), tangents)[1]
        target: torch.Tensor = v - (t - r) * du_dt
    return target


def adaptive_weight(squared_error: torch.Tensor, power: float) -> torch.Tensor:
    """``1 / (e² + 1e-3)^p`` per element, without gradient.

    At p = 0 all errors count alike, and the minimiser is the conditional mean of the target. At p = 1/2 the
    gradient is that of about |e|: outliers pull less, the minimiser leans toward the conditional median, and
    the loss says little about progress, so the raw squared errors are logged beside it.

    Reference: arXiv:2505.13447, adaptive loss weighting, here per element.
    """
    return (squared_error.detach() + WEIGHT_FLOOR).pow(-power)


def mean_flow_loss(
    velocity: Velocity,
    s: torch.Tensor,
    actions: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    r: torch.Tensor,
    valid: torch.Tensor,
    *,
    ivc_weight: float = 1.0,
    weight_power: float = 0.5,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """``L_MF + λ L_IVC`` with the first half of the batch for L_MF (r < t) and the second for L_IVC (r = t).

    At r = t the target is v whatever du/dt is, so only the first half pays for the Jacobian-vector product.

    An invalid element takes its noise for its action: then z = e and v = 0 there, so neither the content of
    the padding nor its tangent reaches the network, and its error is left out of the means.

    Args:
        velocity: The average velocity.
        s: (B, S) observation.
        actions: (B, D) flattened chunk a.
        noise: (B, D) e.
        t: (B, 1) flow time.
        r: (B, 1) earlier flow time, equal to t in the second half.
        valid: (B, D) 1 where the element exists, 0 in the padding.
        ivc_weight: λ.
        weight_power: p of the adaptive weight.

    Returns:
        The scalar loss, and ``loss``, ``mean_flow_mse``, ``instantaneous_mse`` (raw, unweighted) as detached
        scalars.

    Reference: arXiv:2602.13810, Eq. 9, 15 and 19.
    """
    actions = torch.where(valid > 0, actions, noise)
    v = noise - actions
    z = actions + t * v
    split = len(s) // 2
    target = average_velocity_target(velocity, z[:split], t[:split], r[:split], s[:split], v[:split])
    squared = (velocity(z, t, r, s) - torch.cat([target, v[split:]])).square()
    weighted = adaptive_weight(squared, weight_power) * squared
    mean_flow, instantaneous = _masked_means(weighted, valid, split)
    loss = mean_flow + ivc_weight * instantaneous
    raw_mean_flow, raw_instantaneous = _masked_means(squared.detach(), valid, split)
    metrics = {
        "loss": loss.detach(),
        "mean_flow_mse": raw_mean_flow,
        "instantaneous_mse": raw_instantaneous,
    }
    return loss, metrics


def _masked_means(values: torch.Tensor, valid: torch.Tensor, split: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over the valid elements of each half of (B, D); 0 for a half without any."""
    kept = values * valid
    first, second = kept[:split].sum(), kept[split:].sum()
    return first / valid[:split].sum().clamp_min(1), second / valid[split:].sum().clamp_min(1)
