"""Reach a function of a room that this one may not import: by name, at run time, and only when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from onestride.hardware.errors import OneStrideError


def load(target: str, extra: str) -> Any:
    """The object at `package.module:name`.

    Args:
        target: where.
        extra: the extra that installs what it needs.

    Raises:
        OneStrideError: its dependencies are not installed; says which extra has them.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("onestride"):
            raise
        raise OneStrideError(f"this needs {error.name}: pip install 'onestride[{extra}]'") from None
