"""Ctrl-C and SIGTERM wait for the gradient step in hand, so that what is saved is a whole state."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Context manager that turns the two signals into a question to ask between steps.

    A second signal does not wait. Outside the main thread, where Python delivers no signals, it does nothing.

    Attributes:
        pending: The signal received, or None.
    """

    def __init__(self) -> None:
        self.pending: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back to whoever had them."""
        self._restore()

    def raise_pending(self) -> None:
        """Let the signal have its usual effect now.

        Raises:
            KeyboardInterrupt: Ctrl-C was received.
            SystemExit: SIGTERM was received; with code 143, as a shell reports it.
        """
        if self.pending is None:
            return
        if self.pending is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.pending)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        again, self.pending = self.pending is not None, signal.Signals(number)
        if again:
            self._restore()
            self.raise_pending()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
