"""Child processes that answer requests: one thread each, watched, and never waited for without an end.

A worker that dies, hangs or fails is seen as :class:`WorkerError`; whoever owns it starts it again and repeats what it
was doing. What a user can mend (:class:`OneStrideError`) is passed on as it is.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

from onestride.hardware.errors import OneStrideError

Handler = Callable[[Any], Any]

ATTEMPTS = 3
"""Deaths over one piece of work after which a worker is given up."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerError(Exception):
    """The process ended, failed or did not answer in time; caught by the worker's owner."""


class Worker:
    """One child process and the pipe to it.

    Args:
        name: For messages, ``environment 3``.
        create: Makes the handler of requests, in the child; a picklable callable.
        timeout: Longest that an answer may take from its request on, and the worker to take more of a request [s].

    Attributes:
        restarts: How often it was started again.
    """

    def __init__(self, name: str, create: Callable[[], Handler], timeout: float) -> None:
        self.name, self.restarts = name, 0
        self._create, self._timeout, self._deaths = create, timeout, 0
        self._due = 0.0  # when the newest request must be answered, on the monotonic clock [s]
        self._start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid or 0

    def send(self, request: Any) -> None:
        """Hand over a request; it is worked on meanwhile.

        Raises:
            WorkerError: There is nobody to take it.
        """
        try:
            self._connection.send(request)
            self._due = time.monotonic() + self._timeout
        except BlockingIOError:
            raise self._died(f"took no request in {self._timeout:g} s") from None
        except OSError:
            raise self._died("ended") from None

    def ready(self) -> bool:
        """Whether :meth:`receive` would return, or raise, at once."""
        return self._connection.poll(0) or time.monotonic() >= self._due

    def receive(self) -> Any:
        """The answer to the oldest request.

        Raises:
            WorkerError: There will be none.
            OneStrideError: The worker refused the request.
        """
        try:
            if not self._connection.poll(max(0.0, self._due - time.monotonic())):
                raise self._died(f"gave no answer in {self._timeout:g} s")
            kind, answer = self._connection.recv()
        except BlockingIOError:
            raise self._died(f"stopped in its answer for {self._timeout:g} s") from None
        except (EOFError, OSError):
            raise self._died("ended") from None
        if kind == "refused":
            raise OneStrideError(answer)
        if kind == "failed":
            raise self._died(answer)
        return answer

    def worked(self) -> None:
        """Forget earlier deaths: what was asked for is done."""
        self._deaths = 0

    def restart(self, death: WorkerError) -> None:
        """Begin anew after a death.

        Raises:
            OneStrideError: It died too often in a row.
        """
        self._deaths += 1
        if self._deaths >= ATTEMPTS:
            self.close()
            raise OneStrideError(f"{death}, {self._deaths} times over the same work; given up")
        self._end()
        self.restarts += 1
        self._start()

    def close(self) -> None:
        """End the process."""
        self._end()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        _limit_waits(self._connection, self._timeout)
        self._process = context.Process(target=_serve, args=(theirs, self._create), name=self.name, daemon=True)
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(dict.fromkeys(THREADS, "1"))  # read by the child's libraries when they are loaded
        try:
            self._process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()

    def _end(self) -> None:
        self._connection.close()
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def _died(self, how: str) -> WorkerError:
        self._process.join(0.2)
        code = self._process.exitcode
        return WorkerError(f"worker {self.name} {how}" + ("" if code is None else f" (exit code {code})"))


def _limit_waits(connection: Connection, timeout: float) -> None:
    """Let reads and writes on a pipe's end fail where nothing moves for so long [s].

    A request larger than the pipe's buffer, such as a policy's weights, would otherwise wait for ever for a worker that
    does not read. Both ends of such a pipe are sockets, and sockets have time limits of their own.
    """
    with closing(socket.socket(fileno=os.dup(connection.fileno()))) as pipe:
        seconds = int(timeout)
        limit = struct.pack("ll", seconds, max(int(1e6 * (timeout - seconds)), 0 if seconds else 1))  # 0 = no limit
        for direction in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            pipe.setsockopt(socket.SOL_SOCKET, direction, limit)


def _serve(connection: Connection, create: Callable[[], Handler]) -> None:
    """Answer requests until the other side closes the pipe or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    handler: Handler | None = None
    while True:
        try:
            request = connection.recv()
            handler = handler or create()
            answer = ("done", handler(request))
        except (EOFError, ConnectionError):
            return
        except OneStrideError as error:
            answer = ("refused", str(error))
        except Exception as error:  # the parent tells of it and starts this worker again
            answer = ("failed", f"failed: {type(error).__name__}: {error}")
        try:
            connection.send(answer)
        except OSError:
            return
