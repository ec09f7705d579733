"""From journals into a store: what was finished, once, whatever interrupts it; and stores joined by what they share."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.datasets.commands_commit import Commit
from onestride.datasets.compaction import compact
from onestride.datasets.editing import delete, relabel
from onestride.datasets.joining import join
from onestride.datasets.journal import JournalWriter
from onestride.datasets.journal_commit import commit
from onestride.datasets.provenance import Provenance
from onestride.datasets.recording import Recorder
from onestride.datasets.schema import Episode, Feature, Schema
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

from .journal_samples import CONTENT, SCHEMA, journal, packed, same, sample, write


def ids(store: Store) -> list[str]:
    return [str(info.attributes["episode_id"]) for info in store.episodes]


def test_everything_finished_is_committed_bit_for_bit(tmp_path: Path) -> None:
    folder = tmp_path / "journals"
    for name, numbers in (("a", range(3)), ("b", range(3, 5))):
        journal(folder / f"{name}.journal", numbers)
    told: list[tuple[int, int]] = []
    report = commit(folder, tmp_path / "store", progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 5) for done in range(1, 6)]
    assert report.committed == [f"e{number}" for number in range(5)]
    assert (report.already, report.left_out, report.damage, report.steps) == ([], [], [], 30)
    store = Store.open(tmp_path / "store")
    store.verify()
    assert report.dataset_id == store.dataset_id
    for number in range(5):
        episode = store.read_episode(number)
        assert same(episode, sample(number))
        assert episode.attributes["journal"] == ("a" if number < 3 else "b")
        assert episode.attributes["label_source"] == "nominal"
    sources = [source.name for source in store.provenance.sources]
    assert (store.provenance.command, sources) == ("commit", ["a.journal", "b.journal"])
    assert store.schema == SCHEMA


def test_repeated_it_adds_only_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    writer = JournalWriter(path, CONTENT)
    for number in range(3):
        write(writer, number)
        report = commit(path, tmp_path / "store")
        assert report.committed == [f"e{number}"]
        assert report.already == [f"e{earlier}" for earlier in range(number)]
    writer.close()
    assert ids(Store.open(tmp_path / "store")) == ["e0", "e1", "e2"]


def test_an_episode_that_was_deleted_does_not_come_back(tmp_path: Path) -> None:
    path = journal(tmp_path / "a.journal", range(3))
    commit(path, tmp_path / "store")
    delete(Store.open(tmp_path / "store"), [1])
    report = commit(path, tmp_path / "store")
    assert (report.committed, len(report.already)) == ([], 3)
    assert ids(Store.open(tmp_path / "store")) == ["e0", "e2"]


def test_what_is_not_wanted_whole_or_fit_is_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    writer = JournalWriter(path, CONTENT)
    write(writer, 0)
    write(writer, 1)
    writer.amend({"episode": "e1", "attributes": {}, "discarded": True})
    writer.begin("empty", 1, {})
    writer.end({"rows": {}, "incomplete": [], "discarded": False, "attributes": {}})
    writer.begin("nan", 1, {})
    rows = packed(sample(2), "base")
    rows["observation"][3, 1] = np.nan
    writer.rows("base", rows)
    writer.end({"rows": {"base": 6}, "incomplete": [], "discarded": False, "attributes": {}})
    writer.begin("torn", 1, {"seed": 9})
    writer.rows("base", packed(sample(9), "base")[:4])
    writer.close()
    path.write_bytes(path.read_bytes() + b"\xa5oj\x1a half a frame")

    report = commit(path, tmp_path / "store")
    assert report.committed == ["e0"]
    assert report.left_out == [
        "e1: discarded",
        "empty: empty: no step of the policy was recorded",
        "nan: observation[1] 'y' at step 3: expected finite, got nan",
        "torn: unfinished: the recorder was killed, or the disk refused its end",
    ]
    assert report.damage == ["a.journal: torn tail: 17 bytes at " + str(path.stat().st_size - 17)]
    more = commit(path, tmp_path / "store", include_incomplete=True)
    assert (more.committed, more.already) == (["torn"], ["e0"])
    store = Store.open(tmp_path / "store")
    assert store.episode(1).attributes["incomplete"]
    np.testing.assert_array_equal(store.read_episode(1).data["action"], sample(9).data["action"][:4])


def begun(writer: JournalWriter, number: int, length: int = 4) -> None:
    """The beginning of an episode that goes on."""
    writer.begin(f"e{number}", 1000 + number, {"seed": number})
    writer.rows("base", packed(sample(number), "base")[:length])


def test_an_episode_that_was_taken_while_it_ran_is_taken_anew_when_it_is_whole(tmp_path: Path) -> None:
    path, store = tmp_path / "a.journal", tmp_path / "store"
    writer = JournalWriter(path, CONTENT)
    write(writer, 0)
    begun(writer, 1)
    assert commit(path, store, include_incomplete=True).committed == ["e0", "e1"]
    relabel(Store.open(store), [1], {"task": "mine"})
    assert commit(path, store, include_incomplete=True).already == ["e0", "e1"]
    writer.rows("base", packed(sample(1), "base")[4:])
    for stream in ("fast", "slow"):
        writer.rows(stream, packed(sample(1), stream))
    writer.final("observation", sample(1).final["observation"])
    rows = {stream: len(clock) for stream, clock in sample(1).timestamps.items()}
    writer.end({"rows": rows, "incomplete": [], "discarded": False, "attributes": {}})
    writer.close()
    whole = commit(path, store)
    assert (whole.committed, whole.already) == (["e1"], ["e0"])
    assert whole.hidden == ["e1: as it was before it was finished or marked as a success"]
    after = Store.open(store)
    assert whole.dataset_id == after.dataset_id
    assert ids(after) == ["e0", "e1"]
    assert same(after.read_episode(1), sample(1))
    assert "incomplete" not in after.episode(1).attributes
    assert after.episode(1).attributes["task"] == "mine", "labels go on"
    again = commit(path, store)
    assert (again.committed, again.hidden, len(again.already)) == ([], [], 2)


def test_killed_before_the_old_version_was_hidden_it_is_hidden_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = tmp_path / "a.journal", tmp_path / "store"
    writer = JournalWriter(path, CONTENT)
    begun(writer, 1)
    commit(path, store, include_incomplete=True)
    writer.end({"rows": {"base": 4}, "incomplete": [], "discarded": False, "attributes": {}})
    writer.close()
    with monkeypatch.context() as patch:
        patch.setattr("onestride.datasets.journal_commit.bring_up_to_date", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            commit(path, store)
    assert ids(Store.open(store)) == ["e1", "e1"]
    assert commit(path, store).committed == []
    assert ids(Store.open(store)) == ["e1"]
    assert "incomplete" not in Store.open(store).episode(0).attributes


def test_what_is_said_of_a_committed_episode_reaches_the_store(tmp_path: Path) -> None:
    path, store = tmp_path / "a.journal", tmp_path / "store"
    writer = JournalWriter(path, CONTENT)
    for number in range(3):
        write(writer, number)
    commit(path, store)
    writer.amend({"episode": "e0", "attributes": {}, "discarded": True})
    writer.amend({"episode": "e2", "attributes": {"success": True}, "discarded": False})
    writer.close()
    report = commit(path, store)
    assert report.committed == ["e2"]
    assert [line.split(":")[0] for line in report.hidden] == ["e0", "e2"]
    after = Store.open(store)
    assert ids(after) == ["e1", "e2"]
    assert after.episode(1).attributes["success"] is True
    assert after.read_episode(1).data["terminal"].tolist() == [False] * 5 + [True]
    relabel(after, [1], {"success": False})
    compact(store, tmp_path / "compacted")
    for one in (store, tmp_path / "compacted"):
        commit(path, one)
        assert [info.attributes.get("success") for info in Store.open(one).episodes] == [None, False], "its last word"


def test_only_successes(tmp_path: Path) -> None:
    with Recorder(tmp_path / "journals", SCHEMA) as recorder:
        for success in (True, False):
            recorder.start({"seed": 1, "success": success})
            recorder.step({"observation": [1, 2, 3], "action": (0, 1), "terminal": success})
            recorder.stop()
    report = commit(tmp_path / "journals", tmp_path / "store", successes_only=True)
    assert (len(report.committed), len(report.left_out)) == (1, 1)
    assert report.left_out[0].endswith("not marked as a success")


def test_refusals_name_both_sides_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(OneStrideError, match=r"expected journals \(\*\.journal\) in .*, got none"):
        commit(tmp_path, tmp_path / "store")
    other = SCHEMA.model_copy(update={"robot": "another"})
    journal(tmp_path / "j" / "a.journal", range(1))
    JournalWriter(tmp_path / "j" / "b.journal", other.model_dump(mode="json")).close()
    with pytest.raises(OneStrideError, match="robot is 'toy' and 'another'"):
        commit(tmp_path / "j", tmp_path / "store")
    assert not (tmp_path / "store").exists()
    Store.create(tmp_path / "store", other, Provenance.now("test"))
    with pytest.raises(OneStrideError, match="robot is 'another' and 'toy'"):
        commit(tmp_path / "j" / "a.journal", tmp_path / "store")
    mine = Store.create(tmp_path / "mine", SCHEMA, Provenance.now("test"))
    with mine.writer(), pytest.raises(OneStrideError, match="expected to be the only writer"):
        commit(tmp_path / "j" / "a.journal", mine.path)


def _commit_until(path: Path, store: Path, fatal: int) -> None:
    """Commit, and be killed just before file operation number `fatal`."""
    count = 0

    def watch(event: str, _arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(10)

    sys.addaudithook(watch)
    commit(path, store)


def test_killed_at_any_moment_it_can_be_repeated(tmp_path: Path) -> None:
    path = journal(tmp_path / "a.journal", range(3))
    killed = 0
    for fatal in [*range(3, 200, 23), *range(200, 2000, 97)]:
        store = tmp_path / f"store{fatal}"
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            try:
                _commit_until(path, store, fatal)
            finally:
                os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        killed += status == -signal.SIGKILL
        commit(path, store)
        after = Store.open(store)
        after.verify()
        assert ids(after) == ["e0", "e1", "e2"]
        assert all(same(after.read_episode(number), sample(number)) for number in range(3))
        if status == 0:
            break
    assert killed >= 5


@settings(deadline=None, max_examples=20)
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_journal_gives_what_is_sound(
    tmp_path_factory: pytest.TempPathFactory, share: float, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = journal(folder / "a.journal", range(3))
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= flip
    path.write_bytes(content)
    report = commit(path, folder / "store")
    store = Store.open(folder / "store")
    assert len(report.committed) >= 2
    assert report.damage
    assert len(report.committed) + len(report.left_out) == 3
    assert all(same(store.read_episode(n), sample(int(name[1:]))) for n, name in enumerate(ids(store)))


def test_the_command_prints_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal(tmp_path / "a.journal", range(2))
    assert Commit(tmp_path / "a.journal", tmp_path / "store", json=True)() == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["committed"], report["steps"]) == (["e0", "e1"], 12)
    assert Commit(tmp_path / "a.journal", tmp_path / "store")() == 0
    assert "already there" in capsys.readouterr().out


OTHER = Schema(
    features=(
        SCHEMA.features[0],
        SCHEMA.features[1],
        Feature(name="reward", role="reward", shape=(), dtype="float32"),
        SCHEMA.features[2],
    ),
    **{name: getattr(SCHEMA, name) for name in ("control_rate", "label", "environment", "robot")},
    label_source="oracle",
)


def other_store(path: Path, schema: Schema = OTHER) -> Store:
    store, base = Store.create(path, schema, Provenance.now("test")), sample(8)
    data = {**base.data, "reward": np.ones(6, np.float32)}
    chosen = {one.name: data[one.name] for one in schema.features}
    store.append([Episode(chosen, {"base": base.timestamps["base"]}, base.final, {"seed": 8})])
    return store


def test_joining_keeps_what_all_have(tmp_path: Path) -> None:
    commit(journal(tmp_path / "a.journal", range(2)), tmp_path / "own")
    other = other_store(tmp_path / "other")
    report = join([other.path, tmp_path / "own"], tmp_path / "both")
    assert report.features == ("observation", "action", "terminal")
    assert report.left_out == ("reward", "joints", "camera")
    both = Store.open(tmp_path / "both")
    assert both.schema.label_source == "unknown"
    assert [info.attributes["label_source"] for info in both.episodes] == ["oracle", "nominal", "nominal"]
    for number, expected in enumerate((8, 0, 1)):
        episode = both.read_episode(number)
        np.testing.assert_array_equal(episode.data["observation"], sample(expected).data["observation"])
        np.testing.assert_array_equal(episode.final["observation"], sample(expected).final["observation"])
        np.testing.assert_array_equal(episode.timestamps["base"], sample(expected).timestamps["base"])
    assert both.provenance.parents == (other.dataset_id, Store.open(tmp_path / "own").dataset_id)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"robot": "another"}, "expected robot 'toy' as .*, got 'another'"),
        ({"control_rate": 10.0}, "expected control_rate 20.0"),
        ({"features": OTHER.features[1:]}, "expected 'observation' as .* has it, got .*, which lacks it"),
    ],
)
def test_joining_refuses_what_no_policy_could_learn_from(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    commit(journal(tmp_path / "a.journal", range(1)), tmp_path / "own")
    other = Schema.model_validate({**OTHER.model_dump(), **change})
    if "features" in change:
        data = {name: sample(8).data[name] for name in ("action", "terminal")} | {"reward": np.ones(6, np.float32)}
        store = Store.create(tmp_path / "other", other, Provenance.now("test"))
        store.append([Episode(data, {"base": sample(8).timestamps["base"]})])
    else:
        other_store(tmp_path / "other", other)
    with pytest.raises(OneStrideError, match=words):
        join([tmp_path / "own", tmp_path / "other"], tmp_path / "both")
    assert not (tmp_path / "both").exists()
