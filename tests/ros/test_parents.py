"""A session that is interrupted or killed leaves no process behind, and its children end as they should."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from .recorder import wait_for

PARENT = """
import sys
from pathlib import Path
from onestride_controller.simulated import SimulatedRun, run_simulated
policy, scene, logs = map(Path, sys.argv[1:])
run_simulated(SimulatedRun(policy=policy, robot="ur5e_2f85", scene=scene, episodes=9, logs=logs))
"""

#: By itself, or because its watchdog, which was told to end as well, was faster to say so.
STOPPED = re.compile("mode holding|mode fault: onestride_watchdog is ending")


def fields(process: Path) -> list[str]:
    return (process / "stat").read_text().rpartition(")")[2].split()


def children(parent: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(fields(process)[1]) == parent:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def gone(pid: int) -> bool:
    try:
        return fields(Path("/proc") / str(pid))[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_process_survives_a_session(ground, tmp_path, end):
    command = [sys.executable, "-c", PARENT, str(ground.policy), str(ground.scene), str(tmp_path)]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    node_log = tmp_path / "node.log"
    wait_for(lambda: node_log.is_file() and "mode active" in node_log.read_text(), "an episode", timeout=40.0)
    started = children(parent.pid)
    assert len(started) == 3
    time.sleep(0.3)
    os.kill(parent.pid, end)
    parent.communicate(timeout=20)
    wait_for(lambda: all(gone(pid) for pid in started), "plant, watchdog and node to be gone")
    wait_for(lambda: STOPPED.search(node_log.read_text()), "the node to have stopped the robot first", timeout=1.0)
    assert "stopped: " in (tmp_path / "plant.log").read_text()
    assert "Traceback" not in node_log.read_text() + (tmp_path / "plant.log").read_text()
