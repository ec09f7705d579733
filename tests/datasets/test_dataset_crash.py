"""Whatever kills a writer, and whenever: committed episodes stay, the store opens and names what was dropped."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onestride.datasets.lock import AppendLock, is_locked
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], bool]

FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def _in_child(work: Callable[[], int]) -> int:
    """Run `work` in a forked process and return its exit status, -signal where it was killed."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _append_until(path: Path, episode: Episode, fatal: int | None) -> int:
    """Append, and be killed just before the file operation number `fatal`; without one, note how many there are."""
    store = Store.open(path)
    count = 0

    def watch(event: str, _arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in FILE_EVENTS:
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(10)

    sys.addaudithook(watch)
    store.append([episode])
    (path.parent / "operations").write_text(str(count))
    return 0


def test_killed_before_any_file_operation_of_an_append(
    tmp_path: Path, store: Store, make_episode: MakeEpisode, same_episode: Same
) -> None:
    store.append([make_episode(1), make_episode(2)])
    shutil.copytree(store.path, tmp_path / "whole")
    assert _in_child(lambda: _append_until(tmp_path / "whole", make_episode(3), None)) == 0
    operations = int((tmp_path / "operations").read_text())
    outcomes = []
    # The commit itself is at the end: there, every operation.
    for fatal in [*range(1, operations - 14, 30), *range(operations - 14, operations + 1)]:
        copy = tmp_path / f"copy{fatal}"
        shutil.copytree(store.path, copy)
        status = _in_child(lambda copy=copy, fatal=fatal: _append_until(copy, make_episode(3), fatal))
        assert status == -signal.SIGKILL
        after = Store.open(copy)
        after.verify()
        outcomes.append((after.num_episodes, any(name.startswith("segments/") for name in after.dropped)))
        for number in range(after.num_episodes):
            assert same_episode(after.read_episode(number), make_episode(number + 1))
        after.append([make_episode(4)])
        assert same_episode(Store.open(copy).read_episode(after.num_episodes - 1), make_episode(4))
        shutil.rmtree(copy)
    assert set(outcomes) == {(2, False), (2, True), (3, False)}, "before, between rename and manifest, after"


def test_a_segment_renamed_but_never_named_is_dropped_and_said_so(
    store: Store, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append([make_episode(1)])
    with monkeypatch.context() as patch:
        patch.setattr("onestride.datasets.committing.write_manifest", lambda *_: os._exit(1))
        assert _in_child(lambda: bool(store.append([make_episode(2)]))) == 1
    (store.path / ".staging" / "half").mkdir()
    after = Store.open(store.path)
    assert after.num_episodes == 1
    assert after.dropped[0] == ".staging/half"
    assert after.dropped[1].startswith("segments/000001-")
    # The same episode again takes the orphan's name.
    after.append([make_episode(2)])
    assert Store.open(store.path).dropped == (".staging/half",)
    Store.open(store.path).verify()


def test_everything_is_on_the_disk_before_it_is_named(
    store: Store, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` spares the page cache, a power cut does not: the order of fsync and rename is what counts."""
    log: list[tuple[str, str]] = []
    fsync = os.fsync

    def recorded_fsync(descriptor: int) -> None:
        fsync(descriptor)
        log.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))

    def recorded(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def moved(source: Path, target: Path) -> Path:
            log.append(("rename", str(target)))
            return move(source, target)

        return moved

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", recorded_fsync)
        patch.setattr(Path, "rename", recorded(Path.rename))
        patch.setattr(Path, "replace", recorded(Path.replace))
        identity = store.append([make_episode(1)])
    home = store.path / "segments" / identity
    named, committed = (("rename", str(path)) for path in (home, store.path / "manifest.json"))
    before = [name for kind, name in log[: log.index(named)] if kind == "fsync"]
    staged = min(before, key=len)
    assert {staged} | {f"{staged}/{path.relative_to(home)}" for path in home.rglob("*")} == set(before)
    between = log[log.index(named) + 1 : log.index(committed)]
    assert ("fsync", str(home.parent)) in between
    assert any(kind == "fsync" and "manifest.json" in name for kind, name in between)
    assert ("fsync", str(store.path)) in log[log.index(committed) :]


def test_a_writer_at_work_is_not_reported_as_dropped(store: Store) -> None:
    (store.path / ".staging" / "half").mkdir()
    with store.writer():
        assert Store.open(store.path).dropped == ()
    assert Store.open(store.path).dropped == (".staging/half",)


def test_the_lock_of_a_store_that_went_away_is_not_one_of_the_store_that_came(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another store takes its place after a writer opened the lock file and before it has the lock."""
    flock, swaps = fcntl.flock, iter([True])

    def swapped(descriptor: int, operation: int) -> None:
        if next(swaps, False):
            store.path.rename(tmp_path / "old")
            Store.create(store.path, store.schema, store.provenance)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", swapped)
    with AppendLock(store.path / ".lock"):
        assert is_locked(store.path / ".lock")
    assert (tmp_path / "old").is_dir()


def test_a_full_disk_is_one_error_and_leaves_no_trace(store: Store, make_episode: MakeEpisode) -> None:
    """A limit on file size makes the kernel refuse a write half way, as a full disk does."""
    store.append([make_episode(1)])

    def work() -> int:
        mine = Store.open(store.path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            mine.append([make_episode(2, length=4000)])
        except OneStrideError as error:
            return 7 if "what was committed is intact" in str(error) else 8
        return 0

    assert _in_child(work) == 7
    after = Store.open(store.path)
    after.verify()
    assert after.num_episodes == 1
    assert after.dropped == ()


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
from onestride.datasets.schema import Episode, synthetic_clock
from onestride.datasets.store import Store
store = Store.open({path!r})
number = store.num_episodes
while True:
    value = np.random.default_rng(number)
    data = {{
        one.name: value.normal(size=(50, *one.shape)).astype(one.dtype) for one in store.schema.features
    }}
    clocks = {{stream: synthetic_clock(50, 20.0) for stream in store.schema.streams}}
    store.append([Episode(data, clocks, {{}}, {{"seed": number}})])
    print(number, flush=True)
    number += 1
"""


def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path, store: Store) -> None:
    code = textwrap.dedent(SCRIPT.format(tests=str(tmp_path), path=str(store.path)))
    chance = random.Random(0)
    acknowledged = -1
    contents: dict[int, bytes] = {}
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = int(writer.stdout.readline())
            time.sleep(chance.uniform(0.0, 0.3))
            writer.kill()
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        after = Store.open(store.path)
        after.verify()
        assert acknowledged + 1 <= after.num_episodes <= acknowledged + 2
        for number, info in enumerate(after.episodes):
            assert info.attributes == {"seed": number}
            bits = after.read_episode(number).data["position"].tobytes()
            assert contents.setdefault(number, bits) == bits
    assert len(contents) >= 4
