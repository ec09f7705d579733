"""How strongly a network's outputs follow its inputs: the Jacobian's size, to be penalised or to be reported.

A policy whose actions jump with small changes of the observation passes sensor noise on to the motors. The squared
Frobenius norm of ``J = ∂a/∂s`` is what is penalised, because it has an unbiased estimate that costs one product with
``Jᵀ``: ``E ‖Jᵀ p‖² = ‖J‖_F²`` for random signs p.

References: the estimate, Hutchinson, Communications in Statistics 19(2), 1990; as a regulariser, arXiv:1908.02729.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from onestride.policies.products import fast_products


def squared_jacobian(
    function: Callable[[torch.Tensor], torch.Tensor], points: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Unbiased estimate of ``‖∂y/∂x‖_F²`` at each point, with gradient for the function's parameters.

    Args:
        function: From (B, S) to (B, D), row by row.
        points: (B, S); no gradient reaches what they come from.
        generator: Source of the random signs, on the points' device.

    Returns:
        (B,).
    """
    x = points.detach().requires_grad_()
    # The fast products have no second derivative.
    with fast_products(False):
        y = function(x)
        coins = torch.randint(0, 2, y.shape, generator=generator, device=y.device, dtype=y.dtype)
        (product,) = torch.autograd.grad(y, x, 2 * coins - 1, create_graph=True)
    return product.square().sum(-1)


def largest_stretch(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], points: torch.Tensor, noise: torch.Tensor
) -> float:
    """Largest singular value of ``∂y/∂x`` at any of the points: a lower bound of the function's Lipschitz constant.

    Args:
        function: From x (1, S) and noise (1, ...) to y (1, ...).
        points: (B, S).
        noise: (B, ...), held fixed while x varies.
    """

    def one(x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return function(x.unsqueeze(0), drawn.unsqueeze(0)).flatten()

    jacobians = torch.func.vmap(torch.func.jacrev(one))(points, noise)
    return float(torch.linalg.matrix_norm(jacobians, 2).max())
