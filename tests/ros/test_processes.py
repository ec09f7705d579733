"""Children that never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onestride.deploy.processes import Child
from onestride.hardware.errors import OneStrideError

SLEEPER = "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"
POLITE = (
    "import signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(3))\n"
    "print('ready', flush=True)\ntime.sleep(60)\n"
)
STUBBORN = (
    "import signal, time\nfor name in (signal.SIGINT, signal.SIGTERM): signal.signal(name, signal.SIG_IGN)\n"
    "print('ready', flush=True)\nwhile True: time.sleep(60)\n"
)
FAILING = "import sys\nfor line in range(40): print('line', line)\nsys.exit('the reason')\n"


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"expected {what} within {timeout} s"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., Child]:
    """Makes a module of some source and a child that runs it."""

    def make(source: str, patience: float = 3.0) -> Child:
        (tmp_path / "child_module.py").write_text(source)
        environment = {"PYTHONPATH": str(tmp_path)}
        return Child("child_module", log=tmp_path / "child.log", environment=environment, patience=patience)

    return make


def ready(child: Child) -> None:
    wait_for(lambda: "ready" in child.tail(), "the child to be ready")


def test_a_polite_child_ends_on_the_first_request(module):
    with module(POLITE) as child:
        ready(child)
        assert child.running
    assert not child.running
    assert child.exit_code == 3


def test_a_stubborn_child_is_killed_in_bounded_time(module):
    child = module(STUBBORN, patience=0.3)
    child.start()
    ready(child)
    begun = time.monotonic()
    assert child.stop() == -signal.SIGKILL
    assert time.monotonic() - begun < 2.0


def test_a_child_that_died_is_explained_by_its_log(module):
    with module(FAILING) as child:
        wait_for(lambda: not child.running, "the child to end")
        with pytest.raises(OneStrideError, match=r"child_module ended with code 1; its log .*child\.log") as caught:
            child.check()
    assert "the reason" in str(caught.value)
    assert "line 39" in str(caught.value)
    assert "line 5\n" not in str(caught.value)


def test_a_second_start_is_refused(module):
    with module(SLEEPER) as child, pytest.raises(OneStrideError, match="running already"):
        child.start()


def test_an_interrupted_stop_still_kills(module, monkeypatch):
    child = module(STUBBORN)
    child.start()
    ready(child)

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("onestride.deploy.processes._ended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        child.stop()
    assert not child.running


PARENT = """
import sys, time
from pathlib import Path
from onestride.deploy.processes import Child
with Child("child_module", log=Path(sys.argv[1]), environment={"PYTHONPATH": sys.argv[2]}) as child:
    while "ready" not in child.tail(): time.sleep(0.02)
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_child_survives_its_parent(tmp_path, end):
    (tmp_path / "child_module.py").write_text(SLEEPER)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "child.log"), str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    os.kill(parent.pid, end)
    parent.communicate()
    wait_for(lambda: not alive(child), "the child to be gone")
