"""The one root of every error a user may cause."""

from __future__ import annotations

from collections.abc import Iterable


class OneStrideError(Exception):
    """Something the user can mend: the message says what was expected, what came, and what exists.

    The command line prints it as one line and exits with 1; library callers catch it by this root.
    """


def unknown(what: str, got: object, available: Iterable[object]) -> OneStrideError:
    """The error for a name that does not exist, listing the names that do."""
    names = ", ".join(str(name) for name in available) or "none"
    return OneStrideError(f"unknown {what}: got {got!r}, available: {names}")
