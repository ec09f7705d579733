"""`kill -9` at random moments of recording, editing and merging: nothing that was committed is lost or altered.

The short versions run always, the long ones (200 kills of recording, 200 of merging) with `make test-all`.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onestride.datasets.editing import delete, relabel, restore
from onestride.datasets.merging import merge
from onestride.datasets.provenance import Provenance
from onestride.datasets.repair import repair
from onestride.datasets.schema import Episode, Schema
from onestride.datasets.store import Store
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], bool]
Tell = Callable[[int], None]

FEW, MANY = 8, 200


def _killed(work: Callable[[Tell], None], after: float) -> list[int]:
    """Run `work` in a forked process, kill it `after` seconds after its first word, and return all its words.

    What it tells is written to a pipe by one system call: told means done, whatever happens next.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(120)
        try:
            work(lambda number: (os.write(writing, struct.pack("<q", number)), None)[1])
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        first = pipe.read(8)
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
        words = first + pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == -signal.SIGKILL, "the work is endless: it ends by our hand or is wrong"
    return [word for (word,) in struct.iter_unpack("<q", words)]


def _kills(count: int) -> object:
    return pytest.param(count, marks=pytest.mark.slow if count == MANY else ())


@pytest.mark.parametrize("kills", [_kills(FEW), _kills(MANY)])
def test_recording_is_killed(
    tmp_path: Path, schema: Schema, make_episode: MakeEpisode, same_episode: Same, kills: int
) -> None:
    chance = random.Random(kills)
    torn = 0
    for round_ in range(kills):
        if round_ % 10 == 0:  # a store of its own for every ten, so that checking all of it stays quick
            path = tmp_path / f"s{round_}"
            Store.create(path, schema, Provenance.now("record"))
        before = Store.open(path).num_episodes

        def record(tell: Tell, path: Path = path, number: int = before) -> None:
            store = Store.open(path)
            tell(number)
            while True:
                store.append([make_episode(number, length=20)])
                number += 1
                tell(number)

        committed = _killed(record, chance.uniform(0.0, 0.25))[-1]
        after = Store.open(path)
        after.verify()
        assert committed <= after.num_episodes <= committed + 1
        torn += bool(after.dropped)
        _check_recorded(after, make_episode, same_episode)
        if round_ % 3 == 2:
            report = repair(path)
            assert bool(after.dropped) == report.changed
            repaired = Store.open(path)
            assert repaired.dropped == ()
            assert after.num_episodes <= repaired.num_episodes <= after.num_episodes + 1
            _check_recorded(repaired, make_episode, same_episode)
    assert torn >= kills // 10, "most moments are within an append: their leftovers are named"


def _check_recorded(store: Store, make_episode: MakeEpisode, same_episode: Same) -> None:
    for number in range(store.num_episodes):
        assert same_episode(store.read_episode(number), make_episode(number, length=20))


@pytest.mark.parametrize("kills", [_kills(FEW), _kills(MANY)])
def test_merging_is_killed(tmp_path: Path, schema: Schema, make_episode: MakeEpisode, kills: int) -> None:
    paths = []
    for part in range(3):
        store = Store.create(tmp_path / f"part{part}", schema, Provenance.now("record"))
        with store.writer(target_bytes=0) as writer:
            for number in range(4):
                writer.add(make_episode(10 * part + number, length=20))
        paths.append(store.path)
    merge(paths, tmp_path / "expected")
    expected, before = Store.open(tmp_path / "expected").dataset_id, [tree_sha256(path) for path in paths]
    chance = random.Random(kills)
    target, interrupted = tmp_path / "merged", 0
    for _ in range(kills):

        def work(tell: Tell) -> None:
            tell(0)
            while True:
                merge(paths, target)
                tell(1)
                shutil.rmtree(target)
                tell(2)

        words = _killed(work, chance.uniform(0.0, 0.4))
        assert [tree_sha256(path) for path in paths] == before
        left = sorted(tmp_path.glob(".merged.*.unfinished"))
        interrupted += bool(left)
        if target.exists() and words[-1] != 1:  # not while it was being removed by the test itself
            merged = Store.open(target)
            merged.verify()
            assert merged.dataset_id == expected
        shutil.rmtree(target, ignore_errors=True)
        if left:
            assert set(map(str, left)) <= set(merge(paths, target).dropped)
            assert Store.open(target).dataset_id == expected
        for path in (target, *left):
            shutil.rmtree(path, ignore_errors=True)
    assert interrupted >= kills // 4


@pytest.mark.parametrize("kills", [_kills(FEW), _kills(MANY)])
def test_editing_is_killed(store: Store, make_episode: MakeEpisode, same_episode: Same, kills: int) -> None:
    store.append([make_episode(number, length=20) for number in range(4)])
    segments = tree_sha256(store.path / "segments")
    seen = {0: store.dataset_id}
    for number, edit in enumerate((_delete, _relabel, restore), start=1):
        edit(store)
        seen[number] = store.dataset_id
    assert seen[3] == seen[0]

    def work(tell: Tell) -> None:
        mine = Store.open(store.path)
        tell(0)
        while True:
            for number, edit in enumerate((_delete, _relabel, restore), start=1):
                edit(mine)
                tell(number)

    chance = random.Random(kills)
    for _ in range(kills):
        last = _killed(work, chance.uniform(0.0, 0.05))[-1]
        after = Store.open(store.path)
        after.verify()
        assert after.dataset_id in (seen[last], seen[(last % 3) + 1]), "before the edit or after it, nothing else"
        assert tree_sha256(store.path / "segments") == segments
        restore(after)
        _check_recorded(after, make_episode, same_episode)
        repair(store.path)


def _delete(store: Store) -> None:
    delete(store, [1])


def _relabel(store: Store) -> None:
    relabel(store, [0, 1], {"task": "lift"})


@pytest.mark.parametrize("limit", [300, 3_000, 20_000])
def test_a_full_disk_ends_a_merge_without_a_trace(
    tmp_path: Path, schema: Schema, make_episode: MakeEpisode, limit: int
) -> None:
    """A limit on file size makes the kernel refuse a write half way, as a full disk does."""
    paths = []
    for part in range(2):
        store = Store.create(tmp_path / f"part{part}", schema, Provenance.now("record"))
        store.append([make_episode(part, length=4000)])
        paths.append(store.path)
    before = [tree_sha256(path) for path in paths]
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            merge(paths, tmp_path / "merged")
            status = 0
        except OneStrideError as error:
            status = 7 if "expected" in str(error) else 8
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert not list(tmp_path.glob("*merged*"))
    assert [tree_sha256(path) for path in paths] == before
