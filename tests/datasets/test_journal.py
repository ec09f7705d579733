"""The journal: what is written is read, and no accident costs more than the episode it happens in."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.datasets.journal import FRAME, Frame, JournalWriter, Kind
from onestride.datasets.journal_reader import UNFINISHED, Journal
from onestride.hardware.errors import OneStrideError

from .journal_samples import CONTENT, SCHEMA, journal, packed, same, sample, write

COUNT = 4


def whole(path: Path) -> dict[str, bool]:
    """Id -> whether it is what was written, of every whole episode."""
    with Journal(path) as read:
        return {
            one.id: same(read.read(one), sample(int(one.id[1:])))
            for one in read.episodes
            if not (one.incomplete or one.discarded)
        }


def records(path: Path) -> list[tuple[int, int, Frame]]:
    """Start, end and frame of every record of a sound journal."""
    content, found, offset = path.read_bytes(), [], 0
    while offset < len(content):
        frame = Frame.unpack(content[offset : offset + FRAME.size])
        assert frame is not None
        found.append((offset, offset + FRAME.size + frame.length, frame))
        offset = found[-1][1]
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return journal(tmp_path_factory.mktemp("journal") / "a.journal", range(COUNT))


def test_what_is_written_is_read(sound: Path) -> None:
    assert whole(sound) == {f"e{number}": True for number in range(COUNT)}
    with Journal(sound) as read:
        assert read.schema == SCHEMA
        assert (read.id, read.about, read.report) == ("a", {"robot": "toy"}, [])
        first = read.episodes[0]
        assert (first.started, first.length, first.rows) == (1000, 6, {"base": 6, "fast": 24, "slow": 3})
        read.read(first).validate(read.schema)


def test_an_existing_file_is_not_touched(sound: Path) -> None:
    before = sound.read_bytes()
    with pytest.raises(OneStrideError, match="expected a new path"):
        JournalWriter(sound, CONTENT)
    assert sound.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"PK\3\4 something else", os.urandom(5000)])
def test_what_is_no_journal_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.journal").write_bytes(content)
    with pytest.raises(OneStrideError, match=f"expected a journal, got {len(content)} bytes without a sound header"):
        Journal(tmp_path / "x.journal")
    with pytest.raises(OneStrideError, match="expected a journal at"):
        Journal(tmp_path / "none.journal")


@settings(deadline=None, max_examples=150)
@given(share=st.floats(0, 1, exclude_max=True))
def test_cut_anywhere_earlier_episodes_are_intact(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    content, frames = sound.read_bytes(), records(sound)
    size = int(share * len(content))
    cut = tmp_path_factory.mktemp("cut") / "a.journal"
    cut.write_bytes(content[:size])
    if size < frames[0][1]:
        with pytest.raises(OneStrideError, match="without a sound header"):
            Journal(cut)
        return
    ends = [end for _, end, frame in frames if frame.kind == Kind.END]
    begins = [end for _, end, frame in frames if frame.kind == Kind.BEGIN]
    finished, begun = (sum(end <= size for end in some) for some in (ends, begins))
    assert whole(cut) == {f"e{number}": True for number in range(finished)}
    with Journal(cut) as read:
        torn = size not in {end for _, end, _ in frames}
        assert [one.torn for one in read.damage] == [True] * torn
        assert sum(one.length for one in read.damage) == (size - max(e for _, e, _ in frames if e <= size)) * torn
        names = [line.split()[1].rstrip(":") for line in read.report if line.startswith("episode")]
        assert names == [f"e{number}" for number in range(finished, begun)]


@settings(deadline=None, max_examples=300)
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_changed_byte_costs_one_episode_and_is_named(
    sound: Path, tmp_path_factory, share: float, flip: int
) -> None:
    content = bytearray(sound.read_bytes())
    place = int(share * len(content))
    content[place] ^= flip
    changed = tmp_path_factory.mktemp("flip") / "a.journal"
    changed.write_bytes(content)
    (hit,) = [(start, frame) for start, end, frame in records(sound) if start <= place < end]
    expected = {f"e{number}" for number in range(COUNT)} - {f"e{hit[1].episode - 1}"}
    assert whole(changed) == dict.fromkeys(sorted(expected), True)
    with Journal(changed) as read:
        assert [(one.offset, one.torn) for one in read.damage] == [
            (hit[0], hit[1].kind == Kind.END and hit[1].episode == COUNT)
        ]
        named = [one.number for one in read.episodes if one.incomplete]
        assert named == [hit[1].episode] * (hit[1].kind != Kind.HEADER)
        lost_name = hit[1].kind == Kind.BEGIN
        lines = [line for line in read.report if line.startswith("episode")]
        name = f"number {hit[1].episode}" if lost_name else f"e{hit[1].episode - 1}"
        assert all(line.startswith(f"episode {name}: ") for line in lines)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_hole_or_foreign_bytes_in_the_middle(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A sector that comes back as zeros, or a piece of another file: everything that lies elsewhere is read."""
    content = sound.read_bytes()
    start = data.draw(st.integers(0, len(content) - 1))
    size = data.draw(st.integers(1, 4096))
    filling = data.draw(st.sampled_from([b"\0", b"\xa5oj\x1a", b"\xff"]))
    stop = min(len(content), start + size)
    changed = tmp_path_factory.mktemp("hole") / "a.journal"
    changed.write_bytes(content[:start] + (filling * size)[: stop - start] + content[stop:])
    touched = {frame.episode - 1 for begin, end, frame in records(sound) if begin < stop and end > start}
    headers = [end for _, end, frame in records(sound) if frame.kind == Kind.HEADER]
    if start < headers[0] and stop > headers[0]:
        return  # both copies of the header are hit
    kept = whole(changed)
    assert all(kept.values())
    assert {f"e{number}" for number in range(COUNT) if number not in touched} <= kept.keys()


def test_unfinished_is_said_so_and_its_rows_can_be_had(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "a.journal", CONTENT)
    write(writer, 0)
    writer.begin("e1", 5, {"seed": 1})
    rows = packed(sample(1), "base")
    writer.rows("base", rows[:4])
    writer.close()
    with Journal(writer.path) as read:
        assert read.report == [f"episode e1: {UNFINISHED}"]
        found = read.read(read.episodes[1])
        np.testing.assert_array_equal(found.data["observation"], sample(1).data["observation"][:4])


def test_amendments_hold_after_the_end(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "a.journal", CONTENT)
    write(writer, 0)
    write(writer, 1)
    writer.amend({"episode": "e0", "attributes": {"success": True}, "discarded": False})
    writer.amend({"episode": "e1", "attributes": {}, "discarded": True})
    writer.close()
    with Journal(writer.path) as read:
        first, second = read.episodes
        assert (first.attributes["success"], first.discarded, second.discarded) == (True, False, True)
        assert read.read(first).data["terminal"].tolist() == [False] * 5 + [True]
        assert read.report == ["episode e1: discarded"]


def test_rows_larger_than_a_record_are_split(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "a.journal", CONTENT)
    write(writer, 7, length=60_000)
    writer.close()
    lengths = [frame.length for _, _, frame in records(writer.path)]
    assert len(lengths) > 12
    assert max(lengths) <= (1 << 20) + 2
    with Journal(writer.path) as read:
        assert same(read.read(read.episodes[0]), sample(7, 60_000))


def test_every_episode_is_flushed_before_its_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), flushed.append(os.fstat(file).st_size)))
    writer = JournalWriter(tmp_path / "a.journal", CONTENT)
    for number in range(3):
        write(writer, number)
        assert flushed[-1] == writer.size == writer.path.stat().st_size
    writer.close()


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


def test_a_full_disk_leaves_whole_records_and_can_be_got_over(tmp_path: Path) -> None:
    """A limit on file size makes the kernel refuse a write half way, as a full disk does."""
    path = tmp_path / "a.journal"

    def work() -> int:
        writer = JournalWriter(path, CONTENT)
        write(writer, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (writer.size + 700, resource.RLIM_INFINITY))
        try:
            write(writer, 1, length=50)
        except OSError:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            write(writer, 2)
            return 7
        return 0

    assert in_child(work) == 7
    assert whole(path) == {"e0": True, "e2": True}
    with Journal(path) as read:
        assert read.damage == []
        assert read.report == [f"episode e1: {UNFINISHED}"]
