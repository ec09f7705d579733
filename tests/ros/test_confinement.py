"""Simulated sessions keep to themselves: domains, environment, network."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from onestride.deploy import confinement
from onestride.deploy.confinement import (
    claim_domain,
    environment_applied,
    simulated_environment,
    unique_namespace,
    without_shared_memory,
)
from onestride.hardware.errors import OneStrideError


def test_sessions_claim_different_domains_until_none_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(confinement, "DOMAINS", range(1, 6))
    with ExitStack() as sessions:
        claimed = {sessions.enter_context(claim_domain(tmp_path)) for _ in range(5)}
        assert claimed == set(range(1, 6))
        with pytest.raises(OneStrideError, match="no free DDS domain: ids 1 to 5 are locked"), claim_domain(tmp_path):
            pass
    with claim_domain(tmp_path) as again:
        assert again in range(1, 6)


def test_a_session_may_want_one_domain_and_no_other(tmp_path):
    with claim_domain(tmp_path, wanted=17) as domain:
        assert domain == 17
        with pytest.raises(OneStrideError, match="no free DDS domain: id 17 is locked"), claim_domain(tmp_path, 17):
            pass
    with pytest.raises(OneStrideError, match="domain from 1 to 100, got 101"), claim_domain(tmp_path, 101):
        pass


def test_a_killed_session_frees_its_domain(tmp_path, monkeypatch):
    monkeypatch.setattr(confinement, "DOMAINS", range(7, 8))
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from onestride.deploy import confinement as c\n"
            "c.DOMAINS = range(7, 8)\n"
            "with c.claim_domain(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(OneStrideError), claim_domain(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with claim_domain(tmp_path) as domain:
        assert domain == 7


def test_a_child_does_not_inherit_the_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(confinement, "DOMAINS", range(1, 2))
    command = [sys.executable, "-c", "print('here', flush=True); input()"]
    with claim_domain(tmp_path):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
    with claim_domain(tmp_path):
        pass
    child.communicate(b"\n")


def test_the_environment_is_applied_and_restored(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "3")
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    before = dict(os.environ)
    with environment_applied(simulated_environment(42)):
        assert os.environ["ROS_DOMAIN_ID"] == "42"
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert dict(os.environ) == before


def test_humble_gets_the_variable_it_knows(monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "humble")
    assert simulated_environment(1)["ROS_LOCALHOST_ONLY"] == "1"
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert "ROS_LOCALHOST_ONLY" not in simulated_environment(1)


def test_namespaces_are_valid_and_differ():
    names = {unique_namespace() for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("/onestride_") and name[1:].isidentifier() for name in names)


class Wire(threading.Thread):
    """Counts RTPS packets that pass a network interface."""

    def __init__(self, interface: str) -> None:
        super().__init__(daemon=True)
        every_protocol = socket.ntohs(3)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, every_protocol)
        self._socket.bind((interface, 0))
        self._socket.settimeout(0.2)
        self.packets, self.listening = 0, True

    def run(self) -> None:
        while self.listening:
            try:
                self.packets += b"RTPS" in self._socket.recv(65535)[:128]
            except TimeoutError:
                continue


def is_up(interface: Path) -> bool:
    return bool(int((interface / "flags").read_text(), 16) & 1)


def shares_memory(pid: int) -> bool:
    """Whether a process listens on Fast DDS's shared memory, by the names of its threads."""
    return any(name.read_text().startswith("dds.shm") for name in Path(f"/proc/{pid}/task").glob("*/comm"))


def test_the_watchdog_takes_no_lock_that_a_stopped_controller_may_hold(session, ground):
    pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")
    plant, watchdog, supervisor = session.plant(ground), session.watchdog("ur5e_2f85"), session.supervisor()
    supervisor.trigger("onestride_plant/progress", timeout=20.0)
    supervisor.trigger("onestride_watchdog/status", timeout=20.0)
    assert shares_memory(plant.pid), "threads have other names now, so the test shows nothing"
    assert not shares_memory(watchdog.pid)


def test_off_this_machine_fast_dds_itself_is_told_to_do_without_shared_memory():
    assert without_shared_memory({}) == {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
    confined = without_shared_memory(simulated_environment(42))
    assert confined.pop("ROS_AUTOMATIC_DISCOVERY_RANGE") == "SYSTEM_DEFAULT"  # else shared memory is added
    assert {Path(path).name for path in confined.values()} == {"datagrams.xml"}


def test_nothing_leaves_the_machine(session, ground):
    """DDS talks over loopback (and shared memory) only, seen on the wire of every interface."""
    pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")
    try:
        wires = {path.name: Wire(path.name) for path in Path("/sys/class/net").iterdir() if is_up(path)}
    except (PermissionError, AttributeError) as error:
        pytest.skip(f"cannot listen on the network interfaces: {error}")
    for wire in wires.values():
        wire.start()
    session.plant(ground)
    session.watchdog("ur5e_2f85")
    supervisor = session.supervisor()
    supervisor.trigger("onestride_plant/progress", timeout=20.0)
    supervisor.trigger("onestride_watchdog/status", timeout=20.0)
    time.sleep(0.5)
    for wire in wires.values():
        wire.listening = False
        wire.join()
    assert wires["lo"].packets > 0, "DDS was not seen at all, so the test shows nothing"
    assert {name: wire.packets for name, wire in wires.items() if name != "lo" and wire.packets} == {}
