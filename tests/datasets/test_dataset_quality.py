"""What `inspect` finds is what is there: clocks, gaps, duplicates, coverage and quality against hand-made data."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onestride.datasets import coverage
from onestride.datasets.commands_inspect import Inspect
from onestride.datasets.editing import delete
from onestride.datasets.plots import _intervals, plot
from onestride.datasets.provenance import Provenance
from onestride.datasets.quality import assess
from onestride.datasets.rerun import show
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
NewStore = Callable[..., Store]


@pytest.fixture
def new_store(tmp_path: Path) -> NewStore:
    schema = Schema(
        features=(
            Feature(name="x", role="observation", shape=(2,), dtype="float32", units=("m", "m")),
            Feature(name="action", role="action", shape=(1,), dtype="float32"),
            Feature(name="reward", role="reward", shape=(), dtype="float32"),
        ),
        control_rate=10.0,
        label="action",
        label_source="human",
    )

    def make(name: str, *episodes: Episode) -> Store:
        store = Store.create(tmp_path / name, schema, Provenance.now("test"))
        for episode in episodes:
            store.append([episode])
        return store

    return make


def _episode(x: object, action: object, reward: object, clock: object = None) -> Episode:
    rows = np.asarray(x, np.float32)
    times = synthetic_clock(len(rows), 10.0) if clock is None else np.asarray(clock, np.int64)
    data = {
        "x": rows,
        "action": np.asarray(action, np.float32).reshape(-1, 1),
        "reward": np.asarray(reward, np.float32),
    }
    return Episode(data, {"base": times})


def test_clocks_are_measured_within_episodes(new_store: NewStore) -> None:
    """Period 100 ms; one interval of 250 ms, one of 0, one of 130 ms. The pause between episodes is none."""
    ms = 1_000_000
    first = np.array([0, 100, 200, 450, 550, 650]) * ms
    second = np.array([9000, 9100, 9100, 9230, 9330, 9430]) * ms
    zeros, moves = np.zeros(6), np.arange(12.0).reshape(6, 2)
    store = new_store("s", _episode(moves, zeros, zeros, first), _episode(moves + 1, zeros, zeros, second))
    clock = assess(store).clocks["base"]
    assert clock.rate == pytest.approx(10.0)
    assert (clock.rows, clock.gaps, clock.gap_episodes, clock.repeated) == (12, 1, (0,), 1)
    assert clock.longest_gap == pytest.approx(0.25)
    assert clock.jitter_max == pytest.approx(0.15)
    assert clock.jitter_p50 == 0
    np.testing.assert_array_equal(
        _intervals(store, "base"), np.concatenate([np.diff(first), np.diff(second)]), err_msg="as the plot shows them"
    )
    problems = assess(store).problems
    assert any("1 gaps, the longest 0.25 s, episodes 0" in one for one in problems)
    assert any("1 timestamps are repeated" in one for one in problems)


def test_a_rate_that_is_not_the_schemas_is_a_problem(new_store: NewStore) -> None:
    zeros, moves = np.zeros(5), np.arange(10.0).reshape(5, 2)
    store = new_store("s", _episode(moves, zeros, zeros, synthetic_clock(5, 12.0)))
    assert any("expected 10 Hz, got 12 Hz" in one for one in assess(store).problems)


def test_the_same_episode_twice_is_found(new_store: NewStore) -> None:
    moves, zeros = np.arange(10.0).reshape(5, 2), np.zeros(5)
    one, other = _episode(moves, zeros, zeros), _episode(moves, zeros + 1, zeros)
    again = _episode(moves, zeros, zeros, synthetic_clock(5, 10.0) + 77)
    found = assess(new_store("s", one, other, again))
    assert found.duplicates == ((0, 2),)
    assert "episodes 0, 2 are the same" in found.problems


def test_elements_that_never_change_are_named(new_store: NewStore) -> None:
    moves = np.stack([np.arange(5.0), np.full(5, 3.0)], axis=1)
    found = assess(new_store("s", _episode(moves, np.zeros(5), np.zeros(5))))
    assert found.constant == ("x[1]", "action[0]")
    assert found.problems == ()


def test_nan_is_found_where_another_program_wrote_it(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our own writer refuses NaN; a store may come from elsewhere."""
    rows = np.ones((4, 2))
    rows[1, 0], rows[3, 1] = np.nan, np.inf
    monkeypatch.setattr(Episode, "validate", lambda *_: None)
    store = new_store("s", _episode(rows, np.zeros(4), np.zeros(4)))
    found = assess(store)
    assert found.non_finite == {"x": 2}
    assert "x: 2 values are NaN or infinite" in found.problems
    assert Inspect(store.path, json=True)() == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"no JSON: {word}"))
    assert told["features"][0]["max"] == [None, None]


def test_saco_counts_unique_pairs(new_store: NewStore) -> None:
    """Bins of a tenth of the range 0 to 10: 0.2 and 0.7 are the same, 1.2 is another."""
    x = [[0, 0], [0.2, 0], [0.7, 0], [1.2, 0], [10, 10], [0, 0]]
    action = [0, 0, 0, 0, 10, 10]
    store = new_store("s", _episode(x, action, np.zeros(6)))
    found = assess(store).coverage
    assert found.unique_pairs == 4
    assert (found.saco, found.saco_reference) == (pytest.approx(4 / 6), "steps")
    reference = new_store("r", _episode([*x, [5, 5]], [*action, 5], np.zeros(7)))
    found = assess(store, reference=reference).coverage
    assert (found.saco, found.saco_reference) == (pytest.approx(4 / 5), reference.dataset_id)
    assert assess(store, reference=store).coverage.saco == 1


def test_saco_agrees_with_a_plain_count(new_store: NewStore) -> None:
    random = np.random.default_rng(0)
    x, action = random.uniform(size=(3000, 2)), random.uniform(size=3000)
    found = assess(new_store("s", _episode(x, action, np.zeros(3000)))).coverage
    rows = np.concatenate([np.asarray(x, np.float32), np.asarray(action, np.float32)[:, None]], axis=1).astype(float)
    low, high = rows.min(axis=0), rows.max(axis=0)
    bins = np.minimum((rows - low) * (coverage.BINS / (high - low)), coverage.BINS - 1).astype(int)
    assert found.unique_pairs == len({tuple(row) for row in bins.tolist()})


def test_tq_is_the_relative_return(new_store: NewStore) -> None:
    moves = np.arange(6.0).reshape(3, 2)
    store = new_store("s", *(_episode(moves + k, np.zeros(3), [0, k, k]) for k in (0, 1, 3)))
    found = assess(store, returns=(-4.0, 12.0)).coverage
    assert found.tq == pytest.approx((8 / 3 + 4) / 16)
    own = assess(store).coverage
    assert own.tq == pytest.approx((8 / 3) / 6)
    assert "own worst and best" in own.tq_reference


def test_tq_without_rewards_is_the_success_rate(store: Store, make_episode: MakeEpisode) -> None:
    plain = store.schema.model_copy(
        update={"features": tuple(one for one in store.schema.features if one.role != "reward")}
    )
    other = Store.create(store.path.with_name("plain"), plain, store.provenance)
    for number in range(4):
        episode = make_episode(number, length=5)
        del episode.data["reward"]
        other.append([episode])
    found = assess(other).coverage
    assert (found.tq, found.tq_reference) == (0.5, "success, from 0 to 1")


def test_deleted_episodes_are_not_assessed(new_store: NewStore) -> None:
    moves, zeros = np.arange(10.0).reshape(5, 2), np.zeros(5)
    store = new_store("s", *(_episode(moves, zeros, zeros) for _ in range(2)))
    delete(store, [1])
    assert assess(store).duplicates == ()


def test_strict_fails_for_problems_only(new_store: NewStore, capsys: pytest.CaptureFixture[str]) -> None:
    moves, zeros = np.arange(10.0).reshape(5, 2), np.zeros(5)
    good = new_store("good", _episode(moves, zeros, zeros))
    bad = new_store("bad", _episode(moves, zeros, zeros), _episode(moves, zeros, zeros))
    assert (Inspect(good.path, strict=True)(), Inspect(bad.path, strict=True)(), Inspect(bad.path)()) == (0, 1, 0)
    assert "episodes 0, 1 are the same" in capsys.readouterr().out
    (good.path / ".staging" / "half").mkdir()
    assert Inspect(good.path, strict=True, json=True)() == 1
    told = json.loads(capsys.readouterr().out)
    assert told["quality"]["problems"] == ["not committed: .staging/half"]
    assert Inspect(good.path, strict=True, repair=True, json=True)() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["repair"]["removed"] == [".staging/half"]
    assert Inspect(good.path, repair=True)() == 0
    assert "repair: nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture_shows_every_panel(store: Store, make_episode: MakeEpisode, tmp_path: Path, suffix: str) -> None:
    for number in range(4):
        store.append([make_episode(number, length=25)])
    path = tmp_path / f"p{suffix}"
    plot(store, path)
    if suffix == ".svg":
        drawn = path.read_text()
        for text in ("stream base: 20 Hz", "stream video: 9 Hz", "position: 4 of 4 episodes", "action: 100 steps"):
            assert text in drawn
    else:
        image = pytest.importorskip("PIL.Image").open(path)
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


def test_what_cannot_be_drawn_is_said(store: Store, make_episode: MakeEpisode, tmp_path: Path) -> None:
    with pytest.raises(OneStrideError, match="empty store"):
        plot(store, tmp_path / "p.png")
    store.append([make_episode(1, length=1)])
    plot(store, tmp_path / "p.png")
    with pytest.raises(OneStrideError, match=r"\.png, \.pdf, \.svg, got 'p\.gif'"):
        plot(store, tmp_path / "p.gif")
    with pytest.raises(OneStrideError, match="writable place"):
        plot(store, tmp_path / "nowhere" / "p.png")


def test_rerun_is_told_every_feature_on_its_own_clock(
    store: Store, make_episode: MakeEpisode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rerun = pytest.importorskip("rerun", reason="needs the extra `rerun`")
    store.append([make_episode(number, length=12) for number in range(2)])
    sent: dict[str, list[int]] = {}
    send = rerun.send_columns

    def watched(path: str, indexes: list[Any], columns: Any, **more: Any) -> None:
        indexes = list(indexes)
        sent[path] = [len(index.as_arrow_array()) for index in indexes]
        send(path, indexes, columns, **more)

    monkeypatch.setattr(rerun, "send_columns", watched)
    show(store, [1], tmp_path / "s.rrd")
    rows = {"base": 12, "video": 6}
    assert sent == {f"episode_1/{one.name}": [rows[one.stream]] * 2 for one in store.schema.features}
    content = (tmp_path / "s.rrd").read_bytes()
    assert content[:3] == b"RRF"
    assert b"episode_1" in content
    with pytest.raises(OneStrideError, match="from 0 to 1, got 7"):
        show(store, [7], tmp_path / "t.rrd")
    with pytest.raises(OneStrideError, match="writable place"):
        show(store, [0], tmp_path / "nowhere" / "t.rrd")


def test_a_viewer_that_does_not_start_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rerun = pytest.importorskip("rerun", reason="needs the extra `rerun`")

    def refuse(_: object) -> None:
        raise RuntimeError("Failed to find Rerun Viewer\nand forty more lines")

    monkeypatch.setattr(rerun.RecordingStream, "spawn", refuse)
    with pytest.raises(OneStrideError, match=r"--rerun-file needs none\), got: Failed to find Rerun Viewer$"):
        show(store, [])


def test_without_rerun_the_extra_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> object:
        if name == "rerun":
            raise ModuleNotFoundError("No module named 'rerun'", name="rerun")
        return imported(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "rerun", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(OneStrideError, match=r"onestride\[rerun\]"):
        show(store, [])
