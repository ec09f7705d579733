"""Each rule of the table, on both sides of its border."""

from __future__ import annotations

import math
from typing import Any

import pytest

from onestride.deploy.diagnostics import Glance, Severity, diagnose

PERIOD = 0.005
BEFORE: dict[str, Any] = {
    "mode": "active",
    "reason": "",
    "refusal": "",
    "ticks": 1000,
    "deadline_misses": 3,
    "warnings": 2,
    "wakeup_ms": {"p50": 0.1, "p99": 0.5, "max": 9.0},
    "tick_ms": {"p50": 0.5, "p99": 1.0, "max": 9.0},
    "nfe": 4,
    "counters": {"ticks": 1000, "interventions": 400, "limits.velocity": 400, "refusals": 1, "above_spread": 5},
    "streams": {"joints": {"taken": 2000, "stamp not newer": 7}, "velocity_command": {"taken": 3}},
    "readings": {"tank.arm": 1.5},
    "realtime": {"control": "SCHED_FIFO 40"},
}
AGES = {"joints": 0.004, "velocity_command": 3.0}
BOUNDS = {"joints": 0.02}


def glance(time: float, ages: dict[str, float] | None = None, refused: tuple[str, ...] = (), **status: Any) -> Glance:
    return Glance(time, {**BEFORE, **status}, ages or AGES, BOUNDS, PERIOD, refused)


def counters(**more: int) -> dict[str, int]:
    known = {"ticks": 1200, "interventions": 400, "limits.velocity": 400, "refusals": 1, "above_spread": 5}
    return {**known, **more}


def found(after: Glance, before: Glance | None = None) -> dict[str, Any]:
    return {finding.name: finding for finding in diagnose(after, before or glance(10.0))}


def healthy(**status: Any) -> Glance:
    return glance(11.0, **{"ticks": 1200, "counters": counters(), **status})


def test_where_nothing_is_wrong_everything_is_said_to_be_well():
    findings = found(healthy())
    assert {one.severity for one in findings.values()} == {Severity.OK}
    names = ["mode", "control loop", "stream joints", "stream velocity_command", "policy", "safety chain", "energy"]
    assert list(findings) == [*names, "realtime"]
    assert findings["control loop"].message == "200 Hz"
    assert findings["safety chain"].message == "changed 0 of 200 commands"
    assert findings["energy"].message == "at least 1.50 J"


WRONG = [
    ("mode", Severity.ERROR, "fault: the sky fell", {"mode": "fault", "reason": "the sky fell"}),
    ("mode", Severity.WARN, "cannot activate", {"refusal": "cannot activate"}),
    ("control loop", Severity.STALE, "no tick", {"ticks": 1000}),
    ("control loop", Severity.ERROR, "expected 200 Hz, got 179 Hz", {"ticks": 1179}),
    ("control loop", Severity.OK, "181 Hz", {"ticks": 1181}),
    ("control loop", Severity.WARN, "2 deadlines missed", {"deadline_misses": 5}),
    ("control loop", Severity.WARN, "wakes up late: p99 2.6 ms", {"wakeup_ms": {"p99": 2.6}}),
    ("control loop", Severity.OK, "200 Hz", {"wakeup_ms": {"p99": 2.4}}),
    ("control loop", Severity.OK, "not running", {"mode": "idle", "ticks": 1000}),
    ("policy", Severity.WARN, "above its threshold: spread", {"counters": counters(above_spread=6)}),
    (
        "policy",
        Severity.WARN,
        "too slow for 4 evaluations, takes 2",
        {"adaptive_nfe": {"wanted": 4, "now": 2, "late": 9}},
    ),
    ("policy", Severity.OK, "infers", {"adaptive_nfe": {"wanted": 4, "now": 4, "late": 9}}),
    ("safety chain", Severity.ERROR, "1 commands refused", {"counters": counters(refusals=2)}),
    ("safety chain", Severity.WARN, "warned in 3 ticks", {"warnings": 5}),
    ("safety chain", Severity.WARN, "changed 101 of 200 commands", {"counters": counters(interventions=501)}),
    ("safety chain", Severity.OK, "changed 100 of 200 commands", {"counters": counters(interventions=500)}),
    ("energy", Severity.ERROR, "empty: hand", {"readings": {"tank.arm": 1.0, "tank.hand": 0.0}}),
    ("energy", Severity.ERROR, "empty: arm", {"readings": {"tank.arm": math.nan}}),
    ("realtime", Severity.WARN, "memory: not permitted", {"refused": ("memory: not permitted",)}),
    ("realtime", Severity.OK, "usual scheduling", {"realtime": {}}),
    ("stream joints", Severity.STALE, "expected age <= 0.02 s, got 0.021 s", {"ages": {"joints": 0.021}}),
    ("stream joints", Severity.STALE, "nothing received", {"ages": {"joints": math.inf}}),
    ("stream velocity_command", Severity.OK, "no sample", {"ages": {"velocity_command": math.inf}}),
    (
        "stream joints",
        Severity.WARN,
        "not taken: 2 with stamp not newer",
        {"streams": {"joints": {"taken": 2100, "stamp not newer": 9}}},
    ),
]


@pytest.mark.parametrize(("name", "severity", "message", "wrong"), WRONG)
def test_every_rule_speaks_where_it_should_and_alone(name, severity, message, wrong):
    findings = found(healthy(**wrong))
    assert findings[name][1:3] == (severity, message)
    assert {one.severity for other, one in findings.items() if other != name} == {Severity.OK}


def test_without_an_energy_tank_nothing_is_said_of_one():
    assert "energy" not in found(healthy(readings={"clearance": 0.1}))


def test_what_was_counted_before_the_first_look_is_old_news():
    assert {one.severity for one in diagnose(glance(10.0))} == {Severity.OK}


def test_figures_that_were_reset_count_from_zero():
    findings = found(glance(11.0, ticks=190, deadline_misses=1, warnings=0, counters={"ticks": 190}))
    assert findings["control loop"].message == "1 deadlines missed"
    assert findings["safety chain"].message == "changed 0 of 190 commands"
