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
        deadline = time.monotonic() + PATIENCE
        while (descriptor := self._attempt()) is None:
            if time.monotonic() > deadline:
                raise OneStrideError(
                    f"{self._path.parent}: expected to be the only writer, got another process appending to this "
                    "store; wait for it to finish or write to another store"
                )
            time.sleep(0.02)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _attempt(self) -> int | None:
        """The lock file, open and locked; None while another writer has it, or has just put another store here."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OneStrideError(f"expected a writable store, got {self._path}: {error.strerror}") from error
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                return descriptor
        os.close(descriptor)
        return None


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
