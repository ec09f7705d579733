"""Import and export of low-dimensional data against the raw copy rate of h5py, zarr and numpy; JSON on stdout.

The raw copy knows nothing of episodes: for an import it reads every array and writes one Zarr array for each key, with
the store's chunks and compression; for an export it reads those and writes the arrays. `convert_formats` says with
which library, and so does `raw` in the JSON. Both flush to the disk, as a conversion does, and neither checks anything.
Rates are of the arrays' bytes; each figure is the median of a few runs, copies and conversions taking turns.
What the run before has made is removed before the clock starts, so that nothing is overwritten.

Where the raw copy's format and the converter's have little in common there is also a `floor`, which is what every
converter of that format has to do: the format's own library reads or writes the same content, without a look at it, and
zarr the other side as in the raw copy. The share that the floor reaches is the most that could be had.

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

from convert_floors import FLOORS, Floor
from convert_formats import FORMATS, Format, load_zarr, save_zarr

from onestride.datasets.converters import convert
from onestride.hardware.durable import sync_tree

TARGET = 0.5
Action = tuple[Path, Callable[[], object]]
"""What is made, and by what."""


def main() -> int:
    """Measure the formats, print the figures, and say by the exit code whether all reach the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--folder", type=Path, default=None, help="where to write; a temporary folder otherwise")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        figures = [one for kind in chosen.formats for one in measure(kind, Path(folder), chosen.steps, chosen.repeats)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told = {
        "steps": chosen.steps,
        "repeats": chosen.repeats,
        "cpus": os.cpu_count(),
        "target": TARGET,
        "peak_memory_bytes": peak,
        "load_after": round(os.getloadavg()[0], 1),
        "figures": figures,
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return 0 if all(figure["share"] >= TARGET for figure in figures) else 1


def measure(kind: str, folder: Path, steps: int, repeats: int) -> list[dict[str, Any]]:
    """Import and export of one format."""
    about, load_before = FORMATS[kind], os.getloadavg()[0]
    source, store = folder / f"source{about.suffix}", folder / "store"
    out, raw, back = folder / f"out{about.suffix}", folder / "raw", folder / f"back{about.suffix}"
    steps = int(steps * about.share)
    size = about.make(source, steps // about.length)
    options = about.options(source)
    actions: dict[str, Action] = {
        "raw import": (raw, lambda: flushed(raw, lambda: save_zarr(raw, about.load(source)))),
        "import": (store, lambda: convert(source, store, options=options)),
    }
    if about.target is not None:
        actions |= {
            "raw export": (back, lambda: flushed(back, lambda: about.save(back, load_zarr(raw)))),
            "export": (out, lambda: convert(store, out, to=about.target)),
        }
    if kind in FLOORS:
        actions |= floors(about, FLOORS[kind], folder, source, store, raw)
    seconds, processor = medians(actions, repeats)
    for path in folder.iterdir():
        remove(path)
    return [
        {
            "format": kind,
            "direction": direction,
            "raw": about.raw,
            "steps": steps,
            "steps_of_an_episode": about.length,
            "megabytes": round(size / 1e6, 1),
            "megabytes_per_second": round(size / seconds[direction] / 1e6, 1),
            "raw_megabytes_per_second": round(size / seconds[f"raw {direction}"] / 1e6, 1),
            "share": round(seconds[f"raw {direction}"] / seconds[direction], 3),
            "share_of_processor_time": round(processor[f"raw {direction}"] / processor[direction], 3),
            "load_before": round(load_before, 1),
            **floor_of(kind, direction, seconds),
        }
        for direction in ("import", "export")
        if direction in actions
    ]


def floors(about: Format, floor: Floor, folder: Path, source: Path, store: Path, raw: Path) -> dict[str, Action]:
    """What any import has to do, and any export."""
    least = folder / "least"

    def bring() -> None:
        floor.load(source)
        save_zarr(least, arrays)

    arrays = about.load(source)
    actions: dict[str, Action] = {"floor import": (least, lambda: flushed(least, bring))}
    if about.target is not None:
        convert(source, store, options=about.options(source))
        convert(store, folder / f"made{about.suffix}", to=about.target)
        save_zarr(raw, arrays)
        write = floor.save(folder / f"made{about.suffix}", folder / f"least{about.suffix}")
        if write is not None:
            target, save = folder / f"least{about.suffix}", write
            actions["floor export"] = (target, lambda: flushed(target, lambda: (load_zarr(raw), save())))
    return actions


def floor_of(kind: str, direction: str, seconds: dict[str, float]) -> dict[str, Any]:
    """What the raw copy's time is of the floor's."""
    if f"floor {direction}" not in seconds:
        return {}
    share = seconds[f"raw {direction}"] / seconds[f"floor {direction}"]
    return {"floor": FLOORS[kind].told, "share_of_the_floor": round(share, 3)}


def medians(actions: dict[str, Action], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds that each action takes, by the clock and of the processor; they take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, (target, action) in actions.items():
            remove(target)
            times[name].append(timed(action))
    clock = {name: statistics.median(one for one, _ in found) for name, found in times.items()}
    return clock, {name: statistics.median(one for _, one in found) for name, found in times.items()}


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds that an action takes, by the clock and of the processor."""
    began, used = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - began, time.process_time() - used


def flushed(target: Path, copy: Callable[[], object]) -> None:
    """A raw copy, flushed to the disk."""
    copy()
    sync_tree(target)


def remove(path: Path) -> None:
    """Whatever is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
