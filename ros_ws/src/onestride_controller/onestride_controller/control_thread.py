"""The control thread: ticks the controller on absolute deadlines and sends what it answers.

It decides nothing. Whatever goes wrong in it becomes a fault with a reason and a safe stop, never a silent end.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from onestride.deploy.controller import Controller, Mode, Tick
from onestride.deploy.watchdog import LOOKS
from onestride.hardware.realtime import Realtime
from onestride.hardware.state import Array, Measurement
from onestride_controller.clocks import Clock, WallClock
from onestride_controller.report import Report
from onestride_controller.sweeping import Sweeper

#: What the threads of DDS, which go after this one where it is realtime, need to deliver what waits for them [s].
CATCH_UP = 0.02

#: A tick later than this many periods is no usual jitter.
JITTER = 3

#: Time between two words to the guard of a thread that has nothing to send [s].
IDLE_PERIOD = 0.5


def replaced_after(heartbeat: float, period: float) -> float:
    """How late a tick must be before a watchdog may have taken over since the last [s].

    The last heartbeat went out a `period` before the tick was due, or later. The watchdog looks `LOOKS` times in the
    time that `heartbeat` declares; the look that hears a heartbeat counts as silent, and one more may be early, so that
    it may take over `heartbeat * (1 - 2 / LOOKS)` after the heartbeat. With 0.1 s at 200 Hz: 0.08 - 0.005 = 0.075 s.

    Never less than `JITTER` periods, because every tick that late waits for `CATCH_UP`: where a robot declares
    a detection time under 5 periods, a tick may be sent after the watchdog took over; the next one finds it.

    Args:
        heartbeat: the robot's declared detection time [s].
        period: of the ticks [s].
    """
    return max(JITTER * period, heartbeat * (1 - 2 / LOOKS) - period)


class Source(Protocol):
    """Where measurements come from; see `streams.Streams`."""

    def poll(self) -> float:
        """Look for newer samples; the time of looking [s]."""
        ...

    def measurement(self) -> Measurement:
        """The newest samples."""
        ...


class Sink(Protocol):
    """Where commands go; see `commands.Commands`."""

    def send(self, command: Array, *, damping: bool = False) -> None:
        """Send joint targets (n,) [rad], or have every joint damped."""
        ...


class Watcher(Protocol):
    """Who is told of every tick; see `ticks.Ticks`."""

    def tick(self, tick: Tick, now: float, late: float, joints_received: float) -> None:
        """One tick that has sent its command; as `Report.tick`."""
        ...


class Guard(Protocol):
    """Who takes over when this thread dies; see `guardian.Guardian`."""

    @property
    def stopping(self) -> bool:
        """Whether it has taken over."""
        ...

    def objection(self, now: float) -> str:
        """Why this thread must not go on; empty if it may."""
        ...

    def beat(self, command: Array) -> None:
        """Joint targets (n,) [rad] were sent."""
        ...

    def idle(self) -> None:
        """Nothing is sent, in good order."""
        ...


class ControlThread:
    """Runs an activated controller until stopped.

    While it runs, the controller belongs to it: others use `post`.
    """

    def __init__(
        self,
        controller: Controller,
        streams: Source,
        commands: Sink,
        report: Report,
        watcher: Watcher | None = None,
        guard: Guard | None = None,
        realtime: Realtime | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._controller, self._streams, self._commands, self._report = controller, streams, commands, report
        self._watcher, self._guard = watcher, guard
        self._realtime, self._clock = realtime or Realtime(), clock or WallClock()
        self._requests: deque[Callable[[], None]] = deque()
        self._stopping, self._ticked = threading.Event(), threading.Event()
        self._sweeper = Sweeper()
        self._last = Tick(Mode.IDLE)
        self._detected: float | None = None
        self._joints_received = self._said_idle = float("-inf")
        self._thread = threading.Thread(target=self._run, name="onestride-control", daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it ticks."""
        return self._thread.is_alive()

    def post(self, request: Callable[[], None]) -> None:
        """Have the thread call `request` before its next tick."""
        self._requests.append(request)

    def fault(self, reason: str) -> None:
        """Have the thread fault for something found outside it."""
        found = time.monotonic()
        self.post(lambda: self._fault(reason, found))

    def await_tick(self) -> None:
        """Wait until it has ticked, but no longer than it should take: then there is time until its next tick."""
        self._ticked.clear()
        self._ticked.wait(2 * self._controller.period)

    def stop(self, timeout: float) -> bool:
        """Come to rest, then end; whether both succeeded, the rest within `timeout` [s].

        The tick in progress is finished, so that the safe command has been sent when this returns.
        """
        self.post(self._controller.hold)
        deadline = time.monotonic() + timeout * self._clock.slowest
        while self.running and not self._at_rest and time.monotonic() < deadline:
            time.sleep(self._controller.period / 2)
        at_rest = self._at_rest
        self._stopping.set()
        self._thread.join(timeout=1.0)
        return at_rest and not self.running

    @property
    def _at_rest(self) -> bool:
        return not self._requests and self._controller.at_rest

    def _run(self) -> None:
        self._realtime.keep_deadlines()
        period, index = self._controller.period, 0
        stalled = replaced_after(self._controller.robot.detection.heartbeat, period)
        start = now = self._clock.now()
        while not self._stopping.is_set():
            deadline, since = start + index * period, now
            self._clock.sleep_until(deadline, since, self._stopping)
            now = self._clock.now()
            if now < since:  # set back: the tick that sees it faults, and the stop needs deadlines of the new time
                start, index, deadline = now, 0, now
            if now - deadline > stalled:
                now = self._come_to()
            self._report.deadline_misses += max(0, math.floor((now - deadline) / period))
            self._once(now, now - deadline)
            index = max(index, math.floor((now - start) / period)) + 1
            self._ticked.set()
            self._sweeper.sweep(start + index * period - self._clock.now())

    def _come_to(self) -> float:
        """After a stall in which a watchdog may have taken over, let those threads run first that hear of it."""
        time.sleep(CATCH_UP)
        return self._clock.now()

    def _once(self, now: float, late: float) -> None:
        try:
            tick = self._tick()
        except Exception as error:  # a dead control thread would leave the robot to its last command
            tick = self._rescue(f"control thread: {type(error).__name__}: {error}", now)
        try:
            self._tell(tick, now, late)
        except Exception as error:  # the command has gone out; the next one begins the safe stop
            self._fault(f"report: {type(error).__name__}: {error}", now)
            self._report.changed(self._controller.mode, self._controller.reason)

    def _tell(self, tick: Tick, now: float, late: float) -> None:
        self._report.tick(tick, now, late, self._joints_received)
        if self._watcher is not None:
            self._watcher.tick(tick, now, late, self._joints_received)

    def _tick(self) -> Tick:
        while self._requests:
            self._requests.popleft()()
        before = self._controller.mode
        now, measurement = self._streams.poll(), self._streams.measurement()
        self._joints_received = measurement.received["joints"]
        if self._guard is not None and (objection := self._guard.objection(time.monotonic())):
            self._fault(objection, now)
        tick = self._controller.tick(now, measurement)
        if tick.mode is Mode.FAULT and before is not Mode.FAULT:
            self._detected = now
        self._send(tick)
        return tick

    def _send(self, tick: Tick) -> None:
        if tick.command is None:
            self._say_idle()
            return
        if self._guard is not None and self._guard.stopping:
            return
        self._commands.send(tick.command, damping=tick.damping)
        self._last = tick
        if self._guard is not None:
            self._guard.beat(tick.command)
        if self._detected is not None:
            self._report.stopped(self._detected)
            self._detected = None

    def _say_idle(self) -> None:
        """Nothing is sent, because the fault was cleared: the guard is told at once, and now and then."""
        now = time.monotonic()
        if self._guard is not None and now >= self._said_idle + IDLE_PERIOD:
            self._guard.idle()
            self._said_idle = now

    def _fault(self, reason: str, found: float) -> None:
        if self._controller.mode in (Mode.ACTIVE, Mode.HOLDING):
            self._controller.fault(reason)
            self._detected = found

    def _rescue(self, reason: str, found: float) -> Tick:
        """Send the safe stop without measurements; where even that throws, repeat the last command."""
        try:
            self._fault(reason, found)
            tick = self._controller.tick(found, self._streams.measurement())
            self._send(tick)
            return tick
        except Exception as error:
            reason = f"{reason}; then {type(error).__name__}: {error}"
            with contextlib.suppress(Exception):  # nothing is left to try, and the next tick tries anew
                self._send(self._last)
            return replace(self._last, mode=Mode.FAULT, reason=reason)
