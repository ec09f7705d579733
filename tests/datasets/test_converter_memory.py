"""Conversions hold a stated amount in memory, shown on a file many times as large."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from onestride.datasets.converters.npz_rows import write_rows

BOUND = 384 << 20
"""Above what the imports alone take: a segment of 64 MB and its copy in the making, and the blocks of the arrays."""
LENGTH, WIDTH = 1001, 128

MEASURE = """
import resource, sys
from pathlib import Path
from onestride.datasets.converters import convert
import onestride.datasets.converters.ogbench, onestride.datasets.converters.robomimic_writer
import onestride.datasets.converters.ogbench_writer, onestride.datasets.converters.diffusion_policy_writer
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[2]), to=sys.argv[3])
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    source, store = tmp_path / "big.npz", tmp_path / "store"
    size = _make(source, episodes=1600)
    assert size > 2 * BOUND
    assert _peak(source, store, "store") < BOUND
    for target, to in ((tmp_path / "x.npz", "ogbench"), (tmp_path / "x.zarr", "diffusion_policy")):
        assert _peak(store, target, to) < BOUND, to
    assert _peak(store, tmp_path / "x.hdf5", "robomimic") < BOUND


def _make(path: Path, episodes: int) -> int:
    """A file made without holding it."""
    rows = np.random.default_rng(0).normal(size=(LENGTH, WIDTH)).astype(np.float32)
    ends = np.arange(LENGTH) == LENGTH - 1
    count = episodes * LENGTH
    with zipfile.ZipFile(path, "w") as archive:
        write_rows(archive, "observations", (count, WIDTH), rows.dtype, (rows for _ in range(episodes)))
        write_rows(archive, "actions", (count, 4), rows.dtype, (rows[:, :4] for _ in range(episodes)))
        write_rows(archive, "terminals", (count,), ends.dtype, (ends for _ in range(episodes)))
    return path.stat().st_size


def _peak(source: Path, target: Path, to: str) -> int:
    """Bytes of memory that a conversion takes at most, in a process of its own."""
    command = [sys.executable, "-c", MEASURE, str(source), str(target), to]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
