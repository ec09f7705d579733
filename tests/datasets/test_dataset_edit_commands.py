"""`merge`, `edit` and `compact` as they are typed, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro

from onestride.datasets.commands_edit import Compact, Edit, Merge
from onestride.datasets.commands_inspect import Inspect
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)


def _run(command: type, *words: object) -> int:
    parsed: Callable[[], int] = tyro.cli(command, args=list(map(str, words)), config=CONFIG)
    return parsed()


@pytest.fixture
def recorded(store: Store, make_episode: MakeEpisode) -> Store:
    for number in range(4):
        store.append([make_episode(number, length=10)])
    return store


def test_a_session_of_editing(recorded: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded.path
    assert _run(Edit, "delete", path, "0", "2-3") == 0
    assert f"{path}: 1 episodes, 10 steps" in capsys.readouterr().out
    assert _run(Edit, "restore", path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["steps"], told["dataset_id"]) == (4, 40, recorded.dataset_id)
    assert _run(Edit, "split", path, "1", "--at", "3", "7") == 0
    assert _run(Edit, "relabel", path, "1-3", "--set", "success=true", "task=lift the cube", "--unset", "note") == 0
    again = Store.open(path)
    assert again.lengths.tolist() == [10, 3, 4, 3, 10, 10]
    assert again.episodes[2].attributes == {"seed": 1, "success": True, "task": "lift the cube"}
    assert _run(Edit, "delete", path, "0") == 0
    capsys.readouterr()
    assert Inspect(path, json=True)() == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["command"].split()[0] for one in told["edits"]] == ["delete", "restore", "split", "relabel", "delete"]
    assert (told["hidden_steps"], told["tasks"]) == (10, {"lift the cube": 3})
    assert Inspect(path)() == 0
    assert "edited" in capsys.readouterr().out
    assert _run(Compact, path, tmp_path / "small", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["steps"], told["segments"]) == (5, 30, 1)


def test_merge_from_the_command_line(
    recorded: Store, tmp_path: Path, make_episode: MakeEpisode, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Store.create(tmp_path / "other", recorded.schema, recorded.provenance)
    other.append([make_episode(9, length=6)])
    (other.path / ".staging" / "half").mkdir()
    assert _run(Merge, recorded.path, other.path, "-o", tmp_path / "all") == 0
    shown = capsys.readouterr().out
    assert "5 episodes, 46 steps in 1 segments (from 5)" in shown
    assert f"not committed, left out: {other.path}/.staging/half" in shown
    with pytest.raises(OneStrideError, match="which exists"):
        _run(Merge, recorded.path, other.path, "--output", tmp_path / "all")


def test_merge_of_different_schemas_keeps_what_they_share_when_asked(
    recorded: Store, tmp_path: Path, make_episode: MakeEpisode, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = next(f.name for f in recorded.schema.features if f.role == "info" or f.role == "reward")
    kept = tuple(f for f in recorded.schema.features if f.name != extra)
    schema = recorded.schema.model_copy(update={"features": kept})
    other = Store.create(tmp_path / "other", schema, recorded.provenance)
    episode = make_episode(9, length=6)
    del episode.data[extra]
    other.append([episode])
    with pytest.raises(OneStrideError, match="merge --common"):
        _run(Merge, recorded.path, other.path, "-o", tmp_path / "all")
    assert _run(Merge, recorded.path, other.path, "-o", tmp_path / "all", "--common") == 0
    shown = capsys.readouterr().out
    assert "5 episodes, 46 steps" in shown
    assert f"left out, not in all of them: {extra}" in shown
    base = tuple(feature for feature in kept if feature.stream == "base")
    assert Store.open(tmp_path / "all").schema.features == base


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["delete", "x-3"], "episode numbers such as 3 or 7-9, got 'x-3'"),
        (["delete", "3-1"], "got '3-1'"),
        (["delete", "9"], "from 0 to 3, got 9"),
        (["relabel", "0", "--set", "task"], "expected name=value, got 'task'"),
        (["relabel", "0"], "to set or to remove"),
    ],
)
def test_what_cannot_be_meant_is_refused(recorded: Store, words: list[str], match: str) -> None:
    command, *rest = words
    with pytest.raises(OneStrideError, match=match):
        _run(Edit, command, recorded.path, *rest)
    assert Store.open(recorded.path).manifest.history == ()
