"""One writer at a time: an advisory lock that the kernel releases even after `kill -9`."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from onestride.hardware.errors import OneStrideError

PATIENCE = 1.0
"""How long a second writer waits before it gives up [s]; covers a short append or a reader's probe."""


class AppendLock:
    """Context manager that holds a store's append lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def __enter__(self) -> AppendLock:
        """Take the lock.

        Raises:
            OneStrideError: another writer holds it, or the store cannot be written.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OneStrideError(f"expected a writable store, got {self._path}: {error.strerror}") from error
        if not _acquire(descriptor):
            os.close(descriptor)
            raise OneStrideError(
                f"{self._path.parent}: expected to be the only writer, got another process appending to this "
                "store; wait for it to finish or write to another store"
            )
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(path: Path) -> bool:
    """Whether some writer holds the lock now; False where the lock file cannot be read."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _acquire(descriptor: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
