"""The recorder: the caller never waits, what it gave is in the journal, and what is lost is counted and told."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.datasets.journal import JournalWriter, row_dtypes
from onestride.datasets.journal_reader import Journal
from onestride.datasets.recording import Recorder
from onestride.datasets.ring import Ring
from onestride.hardware.errors import OneStrideError

from .journal_samples import CONTENT, SCHEMA, same, sample

TESTS = Path(__file__).resolve().parent


def give(recorder: Recorder, number: int, length: int = 6) -> None:
    """The rows of an episode, with their own timestamps."""
    episode = sample(number, length)
    for stream, clock in episode.timestamps.items():
        names = [one.name for one in SCHEMA.features if one.stream == stream]
        for row, stamp in enumerate(clock):
            values = {name: episode.data[name][row] for name in names}
            assert recorder.step(values, stream=stream, stamp=int(stamp))


def record(recorder: Recorder, number: int, length: int = 6) -> str:
    identity = recorder.start({"seed": number})
    give(recorder, number, length)
    return recorder.stop(final=sample(number).final) if length == 6 else recorder.stop() or identity


def test_what_is_given_is_in_the_journal(tmp_path: Path) -> None:
    with Recorder(tmp_path, SCHEMA, about={"robot": "toy"}) as recorder:
        assert not recorder.step({}), "nothing is taken outside of an episode"
        with pytest.raises(OneStrideError, match="unknown stream: got 'video', available: base, fast, slow"):
            recorder.step({}, stream="video")
        names = [record(recorder, number) for number in range(3)]
        assert recorder.wait()
        assert recorder.status()["committed"] == 3
    with Journal(recorder.path) as read:
        assert read.report == []
        assert [one.id for one in read.episodes] == names
        assert len(set(names)) == 3
        assert all(same(read.read(one), sample(number)) for number, one in enumerate(read.episodes))


def test_one_episode_at_a_time(tmp_path: Path) -> None:
    with Recorder(tmp_path, SCHEMA) as recorder:
        for act in (recorder.stop, recorder.discard, recorder.mark_success):
            with pytest.raises(OneStrideError, match="expected a"):
                act()
        recorder.start()
        with pytest.raises(OneStrideError, match="expected no running episode"):
            recorder.start()
        with pytest.raises(OneStrideError, match="expected JSON values"):
            recorder.stop({"seed": np.int64(1)})
        with pytest.raises(OneStrideError, match=r"final observation: expected shape \(3,\), got \(4,\)"):
            recorder.stop(final={"observation": np.zeros(4)})
        with pytest.raises(OneStrideError, match="available: observation, joints"):
            recorder.stop(final={"action": np.zeros(2)})
        recorder.stop()
    with pytest.raises(OneStrideError, match="the recorder is closed"):
        recorder.start()


def test_success_and_discard_in_time_and_afterwards(tmp_path: Path) -> None:
    with Recorder(tmp_path, SCHEMA) as recorder:
        for number, marks in enumerate(["success", "discard", "", ""]):
            recorder.start({"seed": number})
            give(recorder, number)
            if marks == "success":
                recorder.mark_success()
                assert recorder.succeeded
            if marks == "discard":
                recorder.discard()
                assert recorder.recording is None
                assert recorder.status()["last_discarded"]
                continue
            recorder.stop()
            if number == 2:
                recorder.mark_success()
            if number == 3:
                assert (recorder.status()["last_success"], recorder.status()["last_discarded"]) == (False, False)
                recorder.discard()
                assert recorder.status()["last_discarded"]
    with Journal(recorder.path) as read:
        told = [(one.attributes.get("success"), one.discarded) for one in read.episodes]
        assert told == [(True, False), (None, True), (True, False), (None, True)]


def test_closing_ends_a_running_episode_as_incomplete(tmp_path: Path) -> None:
    with Recorder(tmp_path, SCHEMA) as recorder:
        recorder.start({"seed": 0})
        give(recorder, 0)
    with Journal(recorder.path) as read:
        (one,) = read.episodes
        assert one.incomplete == ("the recorder was closed while it ran",)
        assert same(read.read(one), sample(0)) is False, "no final value was given"
        np.testing.assert_array_equal(read.read(one).data["joints"], sample(0).data["joints"])


def test_a_row_that_does_not_fit_is_lost_and_told_but_never_raised(tmp_path: Path) -> None:
    with Recorder(tmp_path, SCHEMA) as recorder:
        recorder.start()
        good = {"observation": [1, 2, 3], "action": (0.5, 1.0), "terminal": False}
        assert recorder.step(good)
        for wrong in ({"observation": 1.0}, {"observation": [1, 2]}, {"action": "ab"}, {"terminal": None}):
            assert recorder.step({**good, **wrong}) is (wrong == {"terminal": None})
        assert not recorder.step({"observation": [1, 2, 3]})
        recorder.stop()
    with Journal(recorder.path) as read:
        (reason,) = read.episodes[0].incomplete
        assert reason.startswith("4 rows of stream 'base' did not fit the schema, the last with KeyError: 'action'")


def test_time_that_goes_back_is_raised_and_counted(tmp_path: Path) -> None:
    with Recorder(tmp_path, SCHEMA) as recorder:
        recorder.start()
        for stamp in (100, 90, 95, 110):
            recorder.step({"observation": [1, 2, 3], "action": (0, 1), "terminal": False}, stamp=stamp)
        recorder.stop()
    with Journal(recorder.path) as read:
        (one,) = read.episodes
        assert read.read(one).timestamps["base"].tolist() == [100, 100, 100, 110]
        assert one.attributes["timestamps_raised"] == 2


class SlowDisk:
    """A disk that hangs until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        write = JournalWriter.rows

        def rows(writer: JournalWriter, stream: str, rows: np.ndarray) -> None:
            self.free.wait(20)
            write(writer, stream, rows)

        monkeypatch.setattr(JournalWriter, "rows", rows)


def test_a_disk_that_hangs_stalls_nobody_and_what_it_costs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, warnings = SlowDisk(monkeypatch), []
    with Recorder(tmp_path, SCHEMA, buffer_bytes=3 * 4000, warn=warnings.append) as recorder:
        room = 4000 // row_dtypes(CONTENT)["fast"].itemsize
        first = recorder.start({"seed": 0})
        slowest = 0.0
        for _ in range(3 * room):
            before = time.perf_counter()
            recorder.step({"joints": np.ones(4)}, stream="fast")
            slowest = max(slowest, time.perf_counter() - before)
        before = time.perf_counter()
        recorder.stop()
        second = recorder.start({"seed": 1})
        assert time.perf_counter() - before < 0.2
        assert slowest < 0.2, "the disk hangs for 20 s; anything shorter is the machine's load"
        assert not recorder.wait(0.2)
        status = recorder.status()
        assert status["lost_rows"]["fast"] == 2 * room
        assert status["waiting_rows"]["fast"] == room
        disk.free.set()
        assert recorder.wait()
        give(recorder, 1)
        recorder.stop()
    with Journal(recorder.path) as read:
        one, two = read.episodes
        assert (one.id, two.id) == (first, second)
        assert one.incomplete == (f"{2 * room} rows of stream 'fast' found no room: the disk is too slow",)
        assert one.rows["fast"] == room
        assert two.incomplete == ()
        np.testing.assert_array_equal(read.read(two).data["joints"], sample(1).data["joints"])
    assert warnings == [f"episode {first} is incomplete: {one.incomplete[0]}"]


def in_child(work) -> int:
    """Run `work` in a forked process and return its exit status."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def limit(size: int) -> None:
    """The kernel refuses writes beyond this file size half way, as a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("room", [0, 300, 5000])
def test_a_full_disk_costs_the_episode_at_hand_and_recording_goes_on(tmp_path: Path, room: int) -> None:
    def work() -> int:
        warnings: list[str] = []
        with Recorder(tmp_path, SCHEMA, warn=warnings.append) as recorder:
            record(recorder, 0)
            assert recorder.wait()
            limit(recorder.path.stat().st_size + room)
            recorder.start({"seed": 1})
            for _ in range(20):
                give(recorder, 1)
                time.sleep(0.01)
            recorder.stop()
            assert not recorder.wait(0.3) or room > 300
            assert warnings
            status = recorder.status()
            assert not status["on_disk"] or status["last_incomplete"][0].startswith("the disk refused: ")
            assert any("the disk refused" in line for line in recorder.status()["warnings"])
            limit(resource.RLIM_INFINITY)
            record(recorder, 2)
            assert recorder.wait()
            assert (recorder.status()["on_disk"], recorder.status()["last_incomplete"]) == (True, [])
        return 7

    assert in_child(work) == 7
    (path,) = tmp_path.glob("*.journal")
    with Journal(path) as read:
        assert read.damage == []
        finished = [one for one in read.episodes if not one.incomplete]
        assert [one.attributes["seed"] for one in finished] == [0, 2]
        assert all(same(read.read(one), sample(seed)) for one, seed in zip(finished, (0, 2), strict=True))
        lost = [one for one in read.episodes if one.incomplete]
        assert [one.attributes["seed"] for one in lost] == [1]
        for one in lost:
            assert one.incomplete[0].startswith("the disk refused: ")
            rows = read.read(one).data["joints"]
            np.testing.assert_array_equal(rows, np.tile(sample(1).data["joints"], (20, 1))[: len(rows)])


def test_what_the_disk_failed_to_flush_is_not_believed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux may drop what it could not write, and then says that all is written."""
    with Recorder(tmp_path, SCHEMA) as recorder:
        record(recorder, 0)
        assert recorder.wait()
        fsync, failures = os.fsync, iter([True] * 3)

        def failing(descriptor: int) -> None:
            if next(failures, False):
                raise OSError(5, "Input/output error")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", failing)
        record(recorder, 1)
        assert not recorder.wait(5.0)
        record(recorder, 2)  # its begin meets the second failure, its end the third
        record(recorder, 3)
        assert recorder.wait()
        assert recorder.status()["committed"] == 2
    with Journal(recorder.path) as read:
        told = ("the disk failed to flush it",)
        assert [one.incomplete for one in read.episodes] == [(), told, told, ()]


def test_no_episode_is_begun_without_room(tmp_path: Path) -> None:
    with Recorder(tmp_path, SCHEMA, least_free=1 << 60) as recorder:
        with pytest.raises(OneStrideError, match=r"expected at least .* MiB free to begin an episode, got"):
            recorder.start()
        assert recorder.recording is None


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OneStrideError, match="expected a writable place for the journal"):
        Recorder(tmp_path / "file" / "folder", SCHEMA)


def test_a_recorder_that_dies_says_so_and_takes_nobody_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JournalWriter, "rows", lambda *_: 1 / 0)
    with Recorder(tmp_path, SCHEMA) as recorder:
        recorder.start()
        give(recorder, 0)
        recorder.stop()
        assert not recorder.wait(2.0)
        assert recorder.status()["died"] == "ZeroDivisionError: division by zero"
        with pytest.raises(OneStrideError, match="the recorder is closed: ZeroDivisionError"):
            recorder.start()
        assert not recorder.step({})


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(1, 9), st.just(0)), max_size=40), st.integers(2, 8))
def test_a_ring_is_a_queue_that_forgets_what_finds_no_room(acts: list[int], capacity: int) -> None:
    """Put some rows, or (0) take all: against a plain list."""
    ring = Ring(row_dtypes(CONTENT)["fast"], capacity)
    kept, taken, lost = [], [], 0
    for act in acts:
        if act == 0:
            taken += [int(row["joints"][0]) for rows in ring.take(ring.head) for row in rows]
            kept.clear()
        for _ in range(act):
            value = len(taken) + len(kept) + lost
            fits = len(kept) < capacity
            assert ring.put({"joints": [value] * 4}, value) is fits
            kept, lost = ([*kept, value] if fits else kept), lost + (not fits)
    taken += [int(row["joints"][0]) for rows in ring.take(ring.head) for row in rows]
    assert taken == sorted(taken)
    assert (len(taken), ring.lost, ring.tail) == (ring.head, lost, ring.head)
    assert len(taken) + lost == sum(acts)


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from journal_samples import SCHEMA, sample
from onestride.datasets.recording import Recorder
recorder, number = Recorder(sys.argv[1], SCHEMA), int(sys.argv[2])
print("ready", flush=True)
while True:
    recorder.start({{"seed": number}})
    episode = sample(number, 20)
    for stream, clock in episode.timestamps.items():
        names = [one.name for one in SCHEMA.features if one.stream == stream]
        for row, stamp in enumerate(clock):
            recorder.step({{name: episode.data[name][row] for name in names}}, stream=stream, stamp=int(stamp))
            if row % 10 == 0:
                time.sleep(0.001)
    recorder.stop(final=episode.final)
    recorder.wait()
    print(number, flush=True)
    number += 1
"""


def killed_at_random(folder: Path, times: int) -> None:
    """Start recorders, kill them at random moments, and read every episode that was ever told to be finished."""
    chance, told = random.Random(1), 0
    for _ in range(times):
        first = told
        command = [sys.executable, "-c", SCRIPT.format(tests=str(TESTS)), str(folder / str(first)), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as recorder:
            assert recorder.stdout is not None
            recorder.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.25))
            recorder.kill()
            told = max([told, *(int(line) + 1 for line in recorder.stdout.read().split())])
        (path,) = (folder / str(first)).glob("*.journal")
        with Journal(path) as read:
            finished = [one for one in read.episodes if not one.incomplete]
            assert [one.attributes["seed"] for one in finished] == list(range(first, first + len(finished)))
            assert told - first <= len(finished) <= told - first + 1
            for number, one in enumerate(finished, start=first):
                assert same(read.read(one), sample(number, 20))
            unfinished = [one for one in read.episodes if one.incomplete]
            assert len(unfinished) <= 1
            named = [line for line in read.report if line.startswith("episode")]
            assert [line.split()[1].rstrip(":") for line in named] == [one.id for one in unfinished]
            assert len(read.damage) <= 1
            assert all(one.torn for one in read.damage)
        told = first + max(1, len(finished))


def test_kill_9_at_random_moments_loses_no_finished_episode(tmp_path: Path) -> None:
    killed_at_random(tmp_path, 20)


@pytest.mark.slow
def test_kill_9_at_200_random_moments_loses_no_finished_episode(tmp_path: Path) -> None:
    killed_at_random(tmp_path, 200)
