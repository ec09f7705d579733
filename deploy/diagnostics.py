"""How the node is doing, as the levels of `/diagnostics`: one finding for each part of it, by stated rules.

| finding | WARN | ERROR | STALE |
|---|---|---|---|
| mode | the last transition was refused | a fault is latched | |
| control loop | a deadline missed, or a wake-up p99 above half a period | below 90 % of its rate | no tick |
| stream … | messages that were not taken | | nothing, or nothing as new as the bound |
| policy | a monitor above its threshold, or fewer evaluations than wanted | | |
| safety chain | a filter warned, or commands changed in more than half of the ticks | a command refused | |
| energy | | a tank is empty | |
| realtime | something is not permitted | | |

Whatever counts events looks at those since the findings before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

#: Share of the wanted control rate below which the loop is broken, and of the period that a wake-up may take.
RATE_SHARE, WAKEUP_SHARE = 0.9, 0.5

#: Share of ticks in which the chain may change the command before somebody should know.
CHANGED_SHARE = 0.5


class Severity(IntEnum):
    """How a finding is meant, with the numbers of `diagnostic_msgs/DiagnosticStatus`."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


class Finding(NamedTuple):
    """One part of the node.

    Attributes:
        name: of the part.
        severity: by the rules above.
        message: in words.
        values: the figures behind it.
    """

    name: str
    severity: Severity
    message: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Glance:
    """What the node says of itself at a moment.

    Attributes:
        time: of it [s].
        status: as in `~/status`.
        ages: of the newest sample of each stream [s]; infinite before the first.
        bounds: above which an age is a fault [s]; a stream without one may be of any age.
        period: of the control loop [s].
        refused: what the system does not permit.
    """

    time: float
    status: Mapping[str, Any]
    ages: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, float] = field(default_factory=dict)
    period: float = math.inf
    refused: tuple[str, ...] = ()


def diagnose(now: Glance, before: Glance | None = None) -> list[Finding]:
    """What is to be said of a glance, and of what happened since the one before."""
    return [
        _mode(now),
        _control_loop(now, before),
        *_streams(now, before),
        _policy(now, before),
        _safety_chain(now, before),
        *_energy(now),
        _realtime(now),
    ]


def _mode(now: Glance) -> Finding:
    mode, reason, refusal = now.status["mode"], now.status.get("reason", ""), now.status.get("refusal", "")
    if mode == "fault":
        return Finding("mode", Severity.ERROR, f"fault: {reason}", {})
    return Finding("mode", Severity.WARN, refusal, {}) if refusal else Finding("mode", Severity.OK, mode, {})


def _control_loop(now: Glance, before: Glance | None) -> Finding:
    status, name = now.status, "control loop"
    values = {figure: status.get(figure) for figure in ("control_rate_hz", "wakeup_ms", "tick_ms", "deadline_misses")}
    if status["mode"] == "idle":
        return Finding(name, Severity.OK, "not running", values)
    if before is None or before.status["mode"] == "idle":
        return Finding(name, Severity.OK, "begun", values)
    rate = _grown(now, before, "ticks") / max(now.time - before.time, 1e-9)
    values["rate_hz"] = round(rate, 1)
    if rate == 0:
        return Finding(name, Severity.STALE, "no tick", values)
    if rate < RATE_SHARE / now.period:
        return Finding(name, Severity.ERROR, f"expected {1 / now.period:.0f} Hz, got {rate:.0f} Hz", values)
    if missed := _grown(now, before, "deadline_misses"):
        return Finding(name, Severity.WARN, f"{missed} deadlines missed", values)
    wakeup = (status.get("wakeup_ms") or {}).get("p99") or 0.0
    if wakeup > WAKEUP_SHARE * now.period * 1e3:
        return Finding(name, Severity.WARN, f"wakes up late: p99 {wakeup:g} ms", values)
    return Finding(name, Severity.OK, f"{rate:.0f} Hz", values)


def _streams(now: Glance, before: Glance | None) -> Iterator[Finding]:
    counts = now.status.get("streams", {})
    for stream, age in now.ages.items():
        bound, name = now.bounds.get(stream, math.inf), f"stream {stream}"
        values = {"age_s": round(age, 4), "bound_s": bound, **counts.get(stream, {})}
        earlier = {} if before is None else before.status.get("streams", {}).get(stream, {})
        untaken = {why: n - earlier.get(why, 0) for why, n in counts.get(stream, {}).items() if why != "taken"}
        if age == math.inf and bound < math.inf:
            yield Finding(name, Severity.STALE, "nothing received", values)
        elif age > bound:
            yield Finding(name, Severity.STALE, f"expected age <= {bound:g} s, got {age:.3f} s", values)
        elif before is not None and any(untaken.values()):
            said = ", ".join(f"{n} with {why}" for why, n in untaken.items() if n)
            yield Finding(name, Severity.WARN, f"not taken: {said}", values)
        else:
            yield Finding(name, Severity.OK, "no sample" if age == math.inf else f"{age * 1e3:.0f} ms old", values)


def _policy(now: Glance, before: Glance | None) -> Finding:
    status, name = now.status, "policy"
    values = {figure: status.get(figure) for figure in ("policy_rate_hz", "policy_us", "nfe", "monitors")}
    above = [what.removeprefix("above_") for what in _counters_grown(now, before) if what.startswith("above_")]
    if above:
        return Finding(name, Severity.WARN, f"above its threshold: {', '.join(above)}", values)
    adaptive = status.get("adaptive_nfe") or {}
    if adaptive.get("now", 0) < adaptive.get("wanted", 0):
        message = f"too slow for {adaptive['wanted']} evaluations, takes {adaptive['now']}"
        return Finding(name, Severity.WARN, message, {**values, "adaptive_nfe": adaptive})
    return Finding(name, Severity.OK, "infers" if status.get("nfe") else "none", values)


def _safety_chain(now: Glance, before: Glance | None) -> Finding:
    name, grown = "safety chain", _counters_grown(now, before)
    warnings = 0 if before is None else _grown(now, before, "warnings")
    values = {**grown, "intervention_rate": now.status.get("intervention_rate")}
    if refused := grown.get("refusals", 0):
        return Finding(name, Severity.ERROR, f"{refused} commands refused", values)
    if warnings:
        return Finding(name, Severity.WARN, f"warned in {warnings} ticks", values)
    changed, ticks = grown.get("interventions", 0), grown.get("ticks", 0)
    severity = Severity.WARN if changed > CHANGED_SHARE * ticks else Severity.OK
    return Finding(name, severity, f"changed {changed} of {ticks} commands", values)


def _energy(now: Glance) -> Iterator[Finding]:
    tanks = {name: joule for name, joule in now.status.get("readings", {}).items() if name.startswith("tank.")}
    if not tanks:
        return
    empty = [name.removeprefix("tank.") for name, joule in tanks.items() if not joule > 0]
    said = {name: f"{joule:.3f} J" for name, joule in tanks.items()}
    if empty:
        yield Finding("energy", Severity.ERROR, f"empty: {', '.join(empty)}", said)
    else:
        yield Finding("energy", Severity.OK, f"at least {min(tanks.values()):.2f} J", said)


def _realtime(now: Glance) -> Finding:
    granted = dict(now.status.get("realtime", {}))
    if now.refused:
        return Finding("realtime", Severity.WARN, "; ".join(now.refused), granted)
    said = ", ".join(f"{what} {how}" for what, how in granted.items())
    return Finding("realtime", Severity.OK, said or "usual scheduling", granted)


def _grown(now: Glance, before: Glance, figure: str) -> int:
    """By how much a count grew; from zero where the figures were reset in between."""
    count, earlier = int(now.status.get(figure) or 0), int(before.status.get(figure) or 0)
    return count - earlier if count >= earlier else count


def _counters_grown(now: Glance, before: Glance | None) -> dict[str, int]:
    counters = now.status.get("counters", {})
    earlier = counters if before is None else before.status.get("counters", {})
    grown = {name: n - earlier.get(name, 0) if n >= earlier.get(name, 0) else n for name, n in counters.items()}
    return {name: n for name, n in grown.items() if n}
