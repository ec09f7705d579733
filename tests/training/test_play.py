"""Play data: what a seed says and nothing else, in the package's own format, whole after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from play_samples import write_official

from onestride.hardware.errors import OneStrideError

pytest.importorskip("ogbench", reason="needs the extra `sim`")

from onestride.datasets.converters import convert
from onestride.datasets.store import Store
from onestride.training.environments.ogbench_manipulation import registered
from onestride.training.environments.ogbench_player import Player, _visible
from onestride.training.parallel import in_order
from onestride.training.play import Play, play

CUBE = "ogbench/cube-single-play"
KINDS = ("cube-double", "scene", "puzzle-3x3")
STEPS = 150


@pytest.fixture(scope="module", params=KINDS)
def player(request):
    made = Player(request.param, STEPS, 0.1, 0.5)
    yield made
    made.close()


def same(first, second) -> bool:
    return all(first.data[name].tobytes() == second.data[name].tobytes() for name in first.data)


def test_one_seed_is_one_episode_whatever_was_played_before(player):
    first = player(3)
    np.random.seed(0)
    assert not same(first, player(4))
    assert same(first, player(3))
    fresh = Player(player.kind, STEPS, 0.1, 0.5)
    assert same(first, fresh(3))
    fresh.close()


def test_the_recorded_actions_lead_through_the_recorded_states(player):
    """The package's environment alone, given the seed and the labels, passes through the same states to the bit."""
    episode = player(5)
    env = registered(f"{player.kind}-v0", mode="data_collection", terminate_at_goal=False, max_episode_steps=STEPS + 1)
    observation, _ = env.reset(seed=5)
    for number, action in enumerate(episode.data["action"]):
        np.testing.assert_array_equal(episode.data["observation"][number], observation.astype(np.float32))
        np.testing.assert_array_equal(episode.data["state.qpos"][number], env.unwrapped.data.qpos.astype(np.float32))
        observation, *_ = env.step(action)
    np.testing.assert_array_equal(episode.final["observation"], observation.astype(np.float32))
    np.testing.assert_array_equal(episode.final["state.qvel"], env.unwrapped.data.qvel.astype(np.float32))
    if "state.button_states" in episode.data:
        np.testing.assert_array_equal(episode.final["state.button_states"], env.unwrapped._cur_button_states)
    env.close()


def test_something_is_moved(player):
    episodes = [player(seed) for seed in range(3)]
    moved = np.concatenate([np.ptp(one.data["state.qpos"][:, 14:], axis=0) for one in episodes])
    assert moved.max() > 0.02
    assert all(np.abs(one.data["action"]).max() <= 1.0 for one in episodes)
    assert all(one.data["terminal"].tolist() == [False] * (STEPS - 1) + [True] for one in episodes)


def test_stacking_is_drawn_from_the_kinds_range(monkeypatch):
    drawn: list[float] = []
    for kind, (low, high) in {"cube-single": (0.0, 0.0), "cube-triple": (0.05, 0.35)}.items():
        made, drawn[:] = Player(kind, 120, 0.1, 0.5), []
        original = made.inner.set_new_target

        def noted(return_info=True, original=original, **settings):
            if return_info:  # the package's reset asks for none, with a probability of its own
                drawn.append(settings["p_stack"])
            return original(return_info, **settings)

        monkeypatch.setattr(made.inner, "set_new_target", noted)
        for seed in range(3):
            made(seed)
        made.close()
        assert drawn
        assert all(low <= value <= high for value in drawn)
        assert len(set(drawn)) == (1 if low == high else 3)


def test_a_scene_counts_as_visible_by_where_its_cube_was():
    def seen(y: float, z: float) -> bool:
        states = np.zeros((4, 25), np.float32)
        states[2, 15:17] = y, z
        return _visible(states)

    assert seen(0.0, 0.02)
    assert not seen(0.29, 0.02)
    assert not seen(-0.31, 0.02)
    assert seen(-0.31, 0.066)  # in the drawer
    assert not seen(-0.31, 0.09)


def test_the_content_does_not_depend_on_the_number_of_processes(tmp_path):
    asked = Play(CUBE, steps=20)
    alone = play(asked, tmp_path / "alone.zarr", 7)
    together = play(asked, tmp_path / "together.zarr", 7, jobs=2)
    assert alone.dataset_id == together.dataset_id
    assert (together.episodes, together.steps, together.reused) == (7, 140, 0)


def test_a_play_goes_on_where_it_was_cut(tmp_path):
    def interrupt(done: int, _steps: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    asked = Play(CUBE, steps=20, seed=4)
    whole = play(asked, tmp_path / "whole.zarr", 6)
    with pytest.raises(KeyboardInterrupt):
        play(asked, tmp_path / "cut.zarr", 6, jobs=2, progress=interrupt)
    assert Store.open(tmp_path / "cut.zarr").num_episodes == 3
    continued = play(asked, tmp_path / "cut.zarr", 6)
    assert (continued.reused, continued.episodes) == (3, 6)
    _assert_same_content(Path(whole.path), Path(continued.path))
    assert play(asked, tmp_path / "cut.zarr", 2).episodes == 6, "what is there is never deleted"


def _assert_same_content(first: Path, second: Path) -> None:
    one, other = Store.open(first), Store.open(second)
    assert [episode.attributes for episode in one.episodes] == [episode.attributes for episode in other.episodes]
    for feature in one.schema.features:
        np.testing.assert_array_equal(one.read(feature.name), other.read(feature.name))


def test_a_killed_play_leaves_no_process_and_is_continued(tmp_path):
    """`kill -9` in the middle: the workers go too, and what was committed is the beginning of the whole."""
    psutil = pytest.importorskip("psutil")
    path = tmp_path / "killed.zarr"
    words = ["collect", str(path), "--env", CUBE, "--play", "--steps", "5", "--episodes", "5000", "--jobs", "2"]
    running = subprocess.Popen([sys.executable, "-m", "onestride.deploy.cli", *words], stderr=subprocess.DEVNULL)
    try:
        until(lambda: path.exists() and Store.open(path).num_episodes >= 25, running)
        children = psutil.Process(running.pid).children(recursive=True)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert len(children) >= 2
    assert not psutil.wait_procs(children, timeout=30)[1]
    there = Store.open(path).num_episodes
    assert there % 25 == 0
    continued = play(Play(CUBE, steps=5), path, there + 2)
    assert continued.reused == there
    seeds = [episode.attributes["seed"] for episode in Store.open(path).episodes]
    assert seeds == list(range(there + 2))
    whole = play(Play(CUBE, steps=5), tmp_path / "whole.zarr", there + 2)
    _assert_same_content(Path(whole.path), path)


def until(reached, running: subprocess.Popen, seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    while not reached():
        assert running.poll() is None, "it ended by itself"
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_the_store_is_that_of_an_imported_dataset(tmp_path):
    """Regenerated here or brought over from the package's own file: the same features and numbers."""
    play(Play("ogbench/puzzle-3x3-play", steps=40), tmp_path / "play.zarr", 3)
    ours = Store.open(tmp_path / "play.zarr")
    file = write_official(ours, tmp_path / "puzzle-3x3-play-v0.npz")
    convert(file, tmp_path / "imported.zarr")
    theirs = Store.open(tmp_path / "imported.zarr")
    assert set(ours.schema.features) == set(theirs.schema.features)
    assert ours.schema.environment == theirs.schema.environment == "ogbench/puzzle-3x3-v0"
    assert ours.schema.control_rate == theirs.schema.control_rate == 20.0
    assert (ours.schema.label, ours.schema.label_source) == (theirs.schema.label, theirs.schema.label_source)
    for feature in ours.schema.features:  # their file is read twice: as training and as validation data
        np.testing.assert_array_equal(ours.read(feature.name), theirs.read(feature.name)[: ours.num_steps])
    np.testing.assert_array_equal(ours.read_final("observation")[0], theirs.read_final("observation")[0][:3])


def test_the_command_plays(tmp_path, monkeypatch, capsys):
    from onestride.deploy.cli import main

    monkeypatch.chdir(tmp_path)
    words = ["collect", "--env", "ogbench/cube-double-play", "--oracle", "plan", "--play", "--steps", "10"]
    assert main([*words, "--episodes", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["path"], said["episodes"], said["steps"]) == ("cube-double-play.zarr", 2, 20)
    assert main([*words, "--episodes", "2", "--noise", "0.3"]) == 1
    assert "holds another collection" in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_played_is_refused(tmp_path):
    with pytest.raises(OneStrideError, match=r"environment to play in: got 'ogbench/antmaze-medium-play'.*cube-single"):
        play(Play("ogbench/antmaze-medium-play"), tmp_path / "a.zarr", 1)
    with pytest.raises(OneStrideError, match="available: plan"):
        Play(CUBE, oracle="markov")
    with pytest.raises(OneStrideError, match="expected steps >= 1"):
        Play(CUBE, steps=0)
    with pytest.raises(OneStrideError, match="expected noise >= 0, got nan"):
        Play(CUBE, noise=float("nan"))
    with pytest.raises(OneStrideError, match="expected episodes >= 1"):
        play(Play(CUBE), tmp_path / "a.zarr", 0)
    with pytest.raises(OneStrideError, match="expected jobs >= 1"):
        play(Play(CUBE, steps=5), tmp_path / "a.zarr", 1, jobs=0)


class Killed:
    """Work that takes its process with it."""

    def __call__(self, seed: int) -> int:
        if seed == 2:
            signal.raise_signal(signal.SIGKILL)
        return seed


def test_a_killed_worker_is_said_in_one_sentence():
    results = in_order(Killed, range(4), jobs=2)
    with pytest.raises(OneStrideError, match="a process was killed"):
        list(results)
