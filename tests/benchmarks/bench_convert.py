"""Import and export of low-dimensional data against the raw copy rate of h5py, zarr and numpy; JSON on stdout.

The raw copy knows nothing of episodes: for an import it reads every array with the library of the source's format and
writes one Zarr array for each key, with the store's compression; for an export it reads those and writes the format.
Both flush to the disk, as a conversion does, and neither checks anything. Rates are of the arrays' bytes; each figure
is the median of a few runs, copies and conversions taking turns.

    python tests/benchmarks/bench_convert.py --steps 200000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from zarr.codecs import BloscCodec

from onestride.datasets.converters import convert
from onestride.hardware.durable import sync_tree

TARGET = 0.5
LENGTH = 200
"""Steps of an episode."""


def main() -> int:
    """Measure every format, print the figures, and say by the exit code whether all reach the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; a temporary folder otherwise")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        figures = [figure for kind in KINDS for figure in measure(kind, Path(folder), chosen.steps, chosen.repeats)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told = {
        "steps": chosen.steps,
        "cpus": os.cpu_count(),
        "target": TARGET,
        "peak_memory_bytes": peak,
        "figures": figures,
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return 0 if all(figure["share"] >= TARGET for figure in figures) else 1


def measure(kind: str, folder: Path, steps: int, repeats: int) -> list[dict[str, Any]]:
    """Import and export of one format."""
    make, load, save, suffix = KINDS[kind]
    source, store, out = folder / f"{kind}{suffix}", folder / f"{kind}.store", folder / f"{kind}.out{suffix}"
    size, raw, back = make(source, steps // LENGTH), folder / f"{kind}.raw", folder / f"{kind}.back{suffix}"
    actions: dict[str, Callable[[], object]] = {
        "raw import": lambda: copied(raw, lambda: save_zarr(raw, load(source))),
        "import": lambda: convert(source, store, overwrite=True),
        "raw export": lambda: copied(back, lambda: save(back, load_zarr(raw))),
        "export": lambda: convert(store, out, to=kind, overwrite=True),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            times[name].append(timed(action))
    seconds = {name: statistics.median(found) for name, found in times.items()}
    return [
        {
            "format": kind,
            "direction": direction,
            "megabytes": round(size / 1e6, 1),
            "megabytes_per_second": round(size / seconds[direction] / 1e6, 1),
            "raw_megabytes_per_second": round(size / seconds[f"raw {direction}"] / 1e6, 1),
            "share": round(seconds[f"raw {direction}"] / seconds[direction], 3),
        }
        for direction in ("import", "export")
    ]


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def copied(target: Path, copy: Callable[[], None]) -> None:
    """A raw copy, flushed to the disk."""
    remove(target)
    copy()
    sync_tree(target)


def save_zarr(target: Path, arrays: dict[str, np.ndarray]) -> None:
    """One Zarr v3 array for each key, compressed as in a store."""
    group = zarr.create_group(str(target), zarr_format=3)
    for key, array in arrays.items():
        row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        chunks = (min(len(array), (4 << 20) // row_bytes), *array.shape[1:])
        codec = BloscCodec(cname="zstd", clevel=5)
        group.create_array(key.replace("/", "."), data=array, chunks=chunks, compressors=codec)


def load_zarr(source: Path) -> dict[str, np.ndarray]:
    """Every array of a Zarr group."""
    group: Any = zarr.open_group(str(source), mode="r")
    return {key: array[...] for key, array in group.arrays()}


def remove(path: Path) -> None:
    """Whatever is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def walk(random: np.random.Generator, rows: int, columns: int, dtype: Any) -> np.ndarray:
    """Rows that hang together as a robot's do: a random walk."""
    return (np.cumsum(random.normal(size=(rows, columns)), axis=0) * 0.01).astype(dtype)


def make_robomimic(path: Path, episodes: int) -> int:
    """The keys of robomimic's Lift, float64; the size of its arrays in bytes."""
    random, size = np.random.default_rng(0), 0
    widths = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10, "robot0_joint_pos": 7}
    with h5py.File(path, "w") as file:
        for number in range(episodes):
            demo = file.create_group(f"data/demo_{number}")
            rows = {"actions": walk(random, LENGTH, 7, float), "states": walk(random, LENGTH, 32, float)}
            rows |= {"rewards": np.zeros(LENGTH), "dones": np.zeros(LENGTH, np.int64)}
            for key, width in widths.items():
                both = walk(random, LENGTH + 1, width, float)
                rows |= {f"obs/{key}": both[:-1], f"next_obs/{key}": both[1:]}
            for key, array in rows.items():
                demo[key] = array
                size += array.nbytes
            demo.attrs["num_samples"] = LENGTH
    return size


def load_robomimic(source: Path) -> dict[str, np.ndarray]:
    """Every data set, read by h5py, those of all demonstrations after each other."""
    found: dict[str, list[np.ndarray]] = {}
    with h5py.File(source, "r") as file:
        data: Any = file["data"]
        for demo in data.values():
            demo.visititems(
                lambda name, node: found.setdefault(name, []).append(node[...]) if hasattr(node, "shape") else None
            )
    return {name: np.concatenate(parts) for name, parts in found.items()}


def save_robomimic(target: Path, arrays: dict[str, np.ndarray]) -> None:
    """Every data set of every demonstration, written by h5py."""
    with h5py.File(target, "w") as file:
        for number in range(len(next(iter(arrays.values()))) // LENGTH):
            for key, array in arrays.items():
                path = f"data/demo_{number}/{key.replace('.', '/')}"
                file[path] = array[number * LENGTH : (number + 1) * LENGTH]


def make_ogbench(path: Path, episodes: int) -> int:
    """The keys of OGBench's cube-double, float32, not compressed."""
    random, count = np.random.default_rng(0), episodes * (LENGTH + 1)
    arrays: dict[str, Any] = {
        "observations": walk(random, count, 37, np.float32),
        "actions": walk(random, count, 5, np.float32),
        "terminals": np.arange(count) % (LENGTH + 1) == LENGTH,
        "qpos": walk(random, count, 28, np.float32),
        "qvel": walk(random, count, 26, np.float32),
    }
    np.savez(path, **arrays)
    return sum(array.nbytes for array in arrays.values())


def load_ogbench(source: Path) -> dict[str, np.ndarray]:
    """Every array, read by numpy."""
    with np.load(source) as file:
        return {key: file[key] for key in file.files}


def save_ogbench(target: Path, arrays: dict[str, Any]) -> None:
    """Every array, written by numpy."""
    np.savez(target, **arrays)


def make_diffusion_policy(path: Path, episodes: int) -> int:
    """The vectors of Push-T, float32, compressed as Diffusion Policy compresses."""
    random, count, size = np.random.default_rng(0), episodes * LENGTH, 0
    root = zarr.create_group(str(path), zarr_format=2)
    data = root.create_group("data")
    for key, width in {"action": 2, "state": 20, "keypoint": 18}.items():
        rows = walk(random, count, width, np.float32)
        data.create_array(key, data=rows, chunks=(20_000, width), compressors=_blosc())
        size += rows.nbytes
    root.create_group("meta").create_array("episode_ends", data=np.arange(1, episodes + 1) * LENGTH)
    return size


def load_diffusion_policy(source: Path) -> dict[str, np.ndarray]:
    """Every array of `data`, read by zarr."""
    return load_zarr(source / "data")


def save_diffusion_policy(target: Path, arrays: dict[str, np.ndarray]) -> None:
    """Every array, written by zarr with Diffusion Policy's compression."""
    data = zarr.create_group(str(target), zarr_format=2).create_group("data")
    for key, array in arrays.items():
        data.create_array(key, data=array, chunks=(20_000, array.shape[1]), compressors=_blosc())


def _blosc() -> Any:
    import numcodecs

    return numcodecs.Blosc("zstd", 5, numcodecs.Blosc.BITSHUFFLE)


Load = Callable[[Path], "dict[str, np.ndarray]"]
Save = Callable[[Path, "dict[str, np.ndarray]"], None]
KINDS: dict[str, tuple[Callable[[Path, int], int], Load, Save, str]] = {
    "robomimic": (make_robomimic, load_robomimic, save_robomimic, ".hdf5"),
    "ogbench": (make_ogbench, load_ogbench, save_ogbench, ".npz"),
    "diffusion_policy": (make_diffusion_policy, load_diffusion_policy, save_diffusion_policy, ".zarr"),
}

if __name__ == "__main__":
    sys.exit(main())
