"""Evaluating a certificate with numpy alone: its value, and whether a state is in its region."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import explain
from onestride.hardware.safety.certificates import CertificateTerms, NetworkTerms, QuadraticTerms, StoppingTerms
from onestride.hardware.state import Array

Value = Callable[[Array], Array]


class Certificate:
    """A certificate's function, and its region.

    Attributes:
        terms: what is claimed.
    """

    def __init__(self, terms: CertificateTerms) -> None:
        self.terms = terms
        self._value = _value_of(terms.function)
        self._domain = np.array(terms.domain)

    def value(self, x: Array) -> Array:
        """V of states (..., n) -> (...)."""
        return self._value(x)

    def inside(self, x: Array) -> NDArray[np.bool_]:
        """Whether the claim holds from these states (..., n) -> (...)."""
        return np.asarray((self._value(x) < self.terms.level) & (np.abs(x) <= self._domain).all(axis=-1))


def _value_of(function: QuadraticTerms | NetworkTerms | StoppingTerms) -> Value:
    if isinstance(function, QuadraticTerms):
        return quadratic(np.array(function.matrix))
    if isinstance(function, StoppingTerms):
        return stopping(function.position, function.braking)
    return network(function)


def quadratic(matrix: Array) -> Value:
    """`xᵀ P x` of states (..., n)."""
    return lambda x: np.asarray(np.einsum("...i,ij,...j->...", x, matrix, x))


def stopping(position: float, braking: float) -> Value:
    """How far beyond `position` a joint (..., 2) comes to rest, on the worse side, if it brakes at once [rad]."""

    def value(x: Array) -> Array:
        p, v = x[..., 0], x[..., 1]
        beyond = np.maximum(p + np.maximum(v, 0.0) ** 2 / (2 * braking), np.minimum(v, 0.0) ** 2 / (2 * braking) - p)
        return np.asarray(beyond - position)

    return value


def network(terms: NetworkTerms) -> Value:
    """A learnt function of states (..., n), in float64, as it was proved."""
    root, floor = np.array(terms.root), terms.floor
    layers = [(np.array(layer.weight), np.array(layer.bias)) for layer in terms.layers]

    def phi(x: Array) -> Array:
        for weight, bias in layers[:-1]:
            x = np.tanh(x @ weight.T + bias)
        weight, bias = layers[-1]
        return np.asarray(x @ weight.T + bias)

    rest = phi(np.zeros(len(root)))

    def value(x: Array) -> Array:
        linear = x @ root.T
        bent = linear + phi(x) - rest
        return np.asarray(floor * (linear**2).sum(axis=-1) + (bent**2).sum(axis=-1))

    return value


def load_certificate(path: str | Path) -> Certificate:
    """Read a certificate that `onestride certificate` wrote.

    Raises:
        OneStrideError: missing, not JSON, or contradictory.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise OneStrideError(f"{path}: expected a certificate, got: {error.strerror}") from None
    try:
        return Certificate(CertificateTerms.model_validate_json(text))
    except ValidationError as error:
        raise OneStrideError(f"{path}: {explain(error)}") from None
