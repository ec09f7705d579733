"""Half an hour of faults at random, at 500 Hz: nothing dies, nothing leaks, and every fault is in the log.

ONESTRIDE_SOAK_MINUTES=30 ONESTRIDE_SOAK_OUT=docs/benchmarks pytest -m slow tests/ros/test_soak.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.hardware.description import load_robot
from onestride_controller.supervisor import WATCHDOG

from .injection import ARM_CASES, Case
from .patient import patient_robot
from .soak import NEIGHBOURS, UNSEEN, Soak
from .soak_plot import plot
from .touchy_policy import write_touchy

RATE = 500.0
MINUTES = float(os.environ.get("ONESTRIDE_SOAK_MINUTES", "30"))

#: The shipped robot waits for its policy for 0.1 s only: no need to burn a core for more.
CASES = {**ARM_CASES, "policy stalls": replace(ARM_CASES["policy stalls"], fault="stuck gripper_contact 25")}

#: Turns the wrists steadily; a calm of 2.5 s leaves it within the workspace.
TURNING = (0.3, 0.15, -0.1, 0.6, 0.4)

#: What memory may grow by in half an hour beyond what it scatters by [MB]. A leak of one object of 100 bytes in every
#: tick, at 500 Hz, would be 90 MB.
GROWTH = 1.0

#: What a loaded machine brings about by itself.
OF_THE_MACHINE = ("is stale", "policy stalled", "the clock jumped", "has taken over", "was not heard")


@pytest.fixture
def soak(session, ground, tmp_path):
    """Makes a soak of a robot."""

    def make(robot: str, cases: Mapping[str, Case]) -> Soak:
        policy = write_touchy(tmp_path / "touchy.onnx", TURNING, control_rate=RATE)
        plant, watchdog = session.plant(ground), session.watchdog(robot)
        node = session.controller(ground, policy=policy, robot=robot, watchdog=WATCHDOG)
        supervisor = session.supervisor(plant, watchdog, node)
        supervisor.wait_for_services()
        supervisor.trigger(f"{WATCHDOG}/status", timeout=20.0)
        supervisor.transition("configure")
        children = {"node": node, "plant": plant, "watchdog": watchdog}
        return Soak(supervisor, children, load_robot(robot), cases, session.environment, session.namespace)

    return make


def assert_accounted(soak, found):
    """Every fault is in the log, with the reason that was told, and nobody provoked no fault but the machine."""
    told = [event.reason for event in soak.events if event.reason]
    assert soak.logged() == [reason.splitlines()[0] for reason in told]
    assert found["tracebacks"] == 0
    assert not [event for event in soak.events if event.kind == UNSEEN]
    strange = [event for event in soak.events if not event.kind and not any(s in event.reason for s in OF_THE_MACHINE)]
    assert not strange


def test_some_faults_in_a_row_are_seen_logged_and_rearmed(soak, tmp_path):
    made = soak(str(patient_robot("ur5e_2f85", tmp_path)), ARM_CASES)
    found = made.run(6.0)
    assert_accounted(made, found)
    assert found["activations"] >= 2


@pytest.mark.slow
def test_a_long_soak_neither_leaks_nor_loses_a_fault(soak):
    made = soak("ur5e_2f85", CASES)
    found = made.run(60.0 * MINUTES)
    out = os.environ.get("ONESTRIDE_SOAK_OUT")
    if out:
        record = {"benchmark": "soak", "robot": "ur5e_2f85", "rate_hz": RATE, "cpus": os.cpu_count()}
        record |= {"load_after": round(os.getloadavg()[2], 2), "seed": made.seed, **found}
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
        Path(out, "soak.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
        plot(record, Path(out, "soak.png"))
    assert_accounted(made, found)
    if MINUTES >= 5:
        assert set(found["faults"]) >= {*ARM_CASES, *NEIGHBOURS}
    for name, memory in found["memory_mb"].items():
        assert memory["slope_per_half_hour"] < GROWTH + memory["scatter"], name
