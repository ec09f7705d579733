"""The written `.rrd` is read back by Rerun itself: every entity, and the numbers and clocks to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onestride.datasets.rerun import show
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store

MakeEpisode = Callable[..., Episode]

pytest.importorskip("rerun", reason="needs the extra `rerun`")


@pytest.fixture
def rrd(tmp_path: Path) -> Callable[..., str]:
    """What `rerun rrd …` prints; it keeps its own settings in a folder of the test."""
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "rerun", "rrd", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def tables(printed: str) -> dict[str, dict[str, list[str]]]:
    """Entity -> the printed rows of its chunk with a step for each row, as name -> cells."""
    found = {}
    for chunk in printed.split("Chunk(")[1:]:
        rows = [[cell.strip(" │") for cell in line.split("┆")] for line in chunk.splitlines() if "┆" in line]
        if "step" in (row[0] for row in rows):
            found[chunk.partition(" - /")[2].partition(" - ")[0]] = {row[0]: row[1:] for row in rows}
    return found


def seconds(duration: str) -> float:
    """Of an ISO 8601 duration below a minute."""
    return 0.0 if duration == "P0D" else float(duration.removeprefix("PT").removesuffix("S"))


def test_rerun_reads_what_was_written(
    store: Store, make_episode: MakeEpisode, tmp_path: Path, rrd: Callable[..., str]
) -> None:
    store.append([make_episode(number, length=12) for number in range(2)])
    file = tmp_path / "s.rrd"
    show(store, [1], file)
    assert "1 file verified without error" in rrd("verify", str(file))
    episode, found = store.read_episode(1), tables(rrd("print", "-vvv", "--transposed=true", str(file)))
    assert sorted(found) == sorted(f"episode_1/{feature.name}" for feature in store.schema.features)
    for feature in store.schema.features:
        printed, clock = found[f"episode_1/{feature.name}"], episode.timestamps[feature.stream]
        assert printed["step"] == [str(step) for step in range(len(clock))]
        np.testing.assert_allclose(
            [seconds(one) for one in printed["time"]], (clock - episode.timestamps["base"][0]) / 1e9, atol=5e-10
        )
        rows = episode.data[feature.name].reshape(len(clock), -1)
        if "Scalars:scalars" in printed:
            np.testing.assert_array_equal([json.loads(one) for one in printed["Scalars:scalars"]], rows)
        else:
            begun = [one.removeprefix("[[").partition(", …")[0].rstrip("]") for one in printed["Image:buffer"]]
            pixels = [[int(value) for value in one.split(",")] for one in begun]
            assert all(pixels)
            assert pixels == [list(row[: len(one)]) for row, one in zip(rows, pixels, strict=True)]
