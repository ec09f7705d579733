"""Pictures of a long episode: on disk while they are converted, the same to the byte, and no memory for good."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.datasets.converters import spilling
from onestride.datasets.converters.spilling import Growing, picked, room
from onestride.hardware.errors import OneStrideError


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.sampled_from((1, 64, 1 << 20)), st.sampled_from(("uint8", "float32")))
def test_rows_come_back_as_they_went(count: int, most: int, dtype: str) -> None:
    rows = np.random.default_rng(count).integers(0, 99, (count, 3, 2)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spilling, "MOST", most)
        patch.setattr(spilling, "_BLOCK", 50)
        growing = Growing((3, 2), dtype)
        for some in np.array_split(rows, 7):
            growing.extend(some)
        taken = growing.taken()
        assert isinstance(taken, np.memmap) == (rows.nbytes > most)
        np.testing.assert_array_equal(taken, rows)
        order = np.random.default_rng(1).permutation(count)[: count // 2]
        np.testing.assert_array_equal(picked(taken, order), rows[order])
        assert picked(taken, np.arange(count)) is taken
        filled = room(rows.shape, dtype)
        filled[...] = rows
        np.testing.assert_array_equal(filled, rows)


def test_a_full_disk_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OneStrideError, match=r"expected room for .* bytes of pictures.*No space left.*TMPDIR"):
        room((spilling.MOST + 1,), "uint8")


FRAMES, HEIGHT, WIDTH = 1200, 480, 640
BOUND = 384 << 20
"""As in `test_converter_memory`, though the pictures of the one episode are 1.1 GB."""
MEASURE = """
import sys, threading, time
from pathlib import Path
from onestride.datasets.converters import Options, convert
import onestride.datasets.converters.lerobot_reader, onestride.datasets.converters.rosbag2_reader
def anonymous():
    line = next(one for one in open("/proc/self/status") if one.startswith("RssAnon"))
    return int(line.split()[1]) * 1024
before, seen, done = anonymous(), [], threading.Event()
def watch():
    while not done.wait(0.01):
        seen.append(anonymous())
thread = threading.Thread(target=watch)
thread.start()
mapping = Path(sys.argv[3]) if len(sys.argv) > 3 else None
convert(Path(sys.argv[1]), Path(sys.argv[2]), options=Options(mapping=mapping))
done.set()
thread.join()
print(max(seen) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
@pytest.mark.parametrize("kind", ["lerobot", "rosbag2"])
def test_memory_does_not_grow_with_the_longest_episode(tmp_path: Path, kind: str) -> None:
    """Of pages that cannot be given back; those of files are the system's to take."""
    if "tmpfs" in _file_system(tempfile.gettempdir()):
        pytest.skip("temporary files are memory here")
    source, more = _lerobot(tmp_path) if kind == "lerobot" else _rosbag2(tmp_path)
    assert FRAMES * HEIGHT * WIDTH * 3 > 2 * BOUND
    command = [sys.executable, "-c", MEASURE, str(source), str(tmp_path / "store"), *more]
    assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]) < BOUND


def _file_system(folder: str) -> str:
    command = ["stat", "--file-system", "--format=%T", folder]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def _pixels(number: int) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), number % 256, np.uint8)
    picture[::16] = number // 256
    return picture


def _lerobot(folder: Path) -> tuple[Path, list[str]]:
    """One long episode in PNG images."""
    pytest.importorskip("pyarrow", reason="needs the extra `lerobot`")
    from onestride.datasets.converters import convert
    from onestride.datasets.provenance import Provenance
    from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
    from onestride.datasets.store import Store

    features = (
        Feature(name="camera", role="observation", shape=(HEIGHT, WIDTH, 3), dtype="uint8"),
        Feature(name="action", role="action", shape=(2,), dtype="float32"),
    )
    schema = Schema(features=features, control_rate=30.0, label="action", label_source="human")
    store = Store.create(folder / "made", schema, Provenance.now("test"))
    frames = np.memmap(folder / "frames", np.uint8, "w+", shape=(FRAMES, HEIGHT, WIDTH, 3))
    for number in range(FRAMES):
        frames[number] = _pixels(number)
    data = {"camera": frames, "action": np.zeros((FRAMES, 2), np.float32)}
    store.append([Episode(data, {"base": synthetic_clock(FRAMES, 30.0)}, {}, {})])
    convert(store.path, folder / "out", to="lerobot")
    return folder / "out", []


def _rosbag2(folder: Path) -> tuple[Path, list[str]]:
    """One long recording of raw images and commands."""
    bags = pytest.importorskip("bags", reason="needs the extra `rosbag`")
    import yaml

    def messages() -> object:
        for number in range(FRAMES):
            time = 10**9 + number * 33_000_000
            yield "/camera", time, bags.image(_pixels(number), "rgb8")
            yield "/command", time + 1000, bags.floats(number, 1)

    action = {"action": {"role": "action", "field": "data"}}
    content = {
        "base": "/camera",
        "topics": {
            "/camera": {"features": {"camera": {"role": "observation"}}},
            "/command": {"align": "next", "features": action},
        },
    }
    (folder / "mapping.yaml").write_text(yaml.safe_dump(content))
    return bags.write_bag(folder / "bag", messages()), [str(folder / "mapping.yaml")]
