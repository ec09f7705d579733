"""Formats whose libraries are optional: what to install is told where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onestride.hardware.errors import OneStrideError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around the import of a module of ours that needs the libraries of an extra.

    Raises:
        OneStrideError: one of them is not installed; says how to get it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "onestride":
            raise
        raise OneStrideError(
            f"expected the package {error.name} for this format, got none: pip install 'onestride[{extra}]'"
        ) from error
