"""Child processes that never outlive their parent, and whose end is always explained.

A child gets its own session, so that Ctrl-C reaches the parent alone, which then stops its children in order. A
parent that is killed takes them along: on Linux the system tells the child (`PR_SET_PDEATHSIG`); elsewhere that is
not promised.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from onestride.hardware.errors import OneStrideError

_PR_SET_PDEATHSIG = 1
_TAIL = 12  # lines of the log that explain an early end


class Child:
    """A Python module run as a process, as a context manager.

    Start children from a thread that lives as long as they shall: Linux ties them to the thread that started them.

    Args:
        module: what `python -m` runs.
        arguments: its command line.
        log: file that takes its output.
        environment: variables on top of this process's own.
        patience: how long each polite request to stop may take [s].
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        patience: float = 3.0,
    ) -> None:
        self.module, self.arguments, self.log = module, tuple(arguments), Path(log)
        self._environment, self._patience = dict(environment or {}), patience
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id.

        Raises:
            OneStrideError: it was never started.
        """
        if self._process is None:
            raise OneStrideError(f"{self.module} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process.

        Raises:
            OneStrideError: it runs already.
        """
        if self.running:
            raise OneStrideError(f"{self.module} is running already, as process {self.pid}")
        command = [sys.executable, "-m", __name__, str(os.getpid()), self.module, *self.arguments]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment},
                start_new_session=True,
            )

    def check(self) -> None:
        """Make sure that it is alive.

        Raises:
            OneStrideError: it ended; the message carries the last lines of its log.
        """
        if not self.running:
            raise OneStrideError(
                f"{self.module} ended with code {self.exit_code}; its log {self.log} ends:\n{self.tail()}"
            )

    def tail(self, lines: int = _TAIL) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        return ""

    def stop(self) -> int | None:
        """Ask it to end, more firmly each time, and kill it at last; its exit code.

        A second Ctrl-C meanwhile kills it at once.
        """
        process = self._process
        if process is None:
            return None
        try:
            for request in (signal.SIGINT, signal.SIGTERM):
                if _ended(process, request, self._patience):
                    return process.returncode
        finally:
            _kill(process)
        return process.returncode

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            _kill(self._process)


def _ended(process: subprocess.Popen[bytes], request: signal.Signals, patience: float) -> bool:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(request)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    return process.poll() is not None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and whatever it started in its session."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _run(parent: int, module: str, arguments: Sequence[str]) -> None:
    """In the child, before anything else: tie it to its parent, then become the module."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request above was in force
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
