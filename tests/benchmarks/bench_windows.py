"""Windows of 256 from 100k steps: ours in every mode, a plain numpy gather, robomimic's and LeRobot's loaders.

Run by `make bench-data`, or `PYTHONPATH=tests python tests/benchmarks/bench_windows.py`. All take turns in one process,
so that a busy machine slows them alike. Figures are medians over many short samples, by the wall clock and by the
process's CPU time, which a neighbour on the machine disturbs less; the ratios are what counts. JSON goes to standard
output. A peer that is not installed is left out, with the reason.

What is compared, for windows of h steps:

- `numpy`: `observations[rows], actions[rows]` at random starts, no padding, no masks: (256, h, 37) and (256, h, 5).
- `numpy take`: the same with `ndarray.take`, its fastest way.
- `chunk <mode>`: what agents train on: 1 observation, the next one, h actions, rewards, masks, terminals, valid.
- `sequence <mode>`: as many observations as numpy and LeRobot give: h of them, and all the rest but the next ones.
- `imitation <mode>`: h observations, h actions and valid: the contents of `robomimic least`, and the padding mask.
- `full <mode>`: h observations and h next ones: the contents of `robomimic`.
- `robomimic`: `SequenceDataset` with all its windows cached in memory, its fastest way, and the contents that its own
  settings ask for: observations, next observations, actions, rewards, dones, padding mask.
- `robomimic least`: the same with observations and actions only.
- `lerobot`: `LeRobotDataset` with `delta_timestamps`, observations and actions only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from real_lerobot import lerobot_dataset
from real_robomimic import sequence_dataset

from onestride.datasets.converters import convert
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.sources import MODES
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError

EPISODES, LENGTH, OBSERVATION, ACTION, RATE = 500, 200, 37, 5, 20
BATCH = 256
HORIZONS = (5, 16)
BUFFER = 4 << 20
"""Of the streaming mode: a fifth of the data, so that it has to read again."""

PEERS = ("numpy", "numpy take", "robomimic", "robomimic least", "lerobot")
WANTED = (
    ("chunk", "numpy", 0.5),
    ("sequence", "numpy", 0.5),
    ("full", "robomimic", 20.0),
    ("imitation", "robomimic least", 20.0),
    ("chunk", "lerobot", 20.0),
    ("sequence", "lerobot", 20.0),
)
"""Least ratio of ours, from memory, to another that gives no more than it."""

Draw = Callable[[], object]


@dataclass
class Case:
    """One way to get batches."""

    name: str
    draw: Draw
    batches: int
    """In a sample."""
    samples: int
    """In a round; a slow case has few."""
    wall: list[float] = field(default_factory=list)
    """Seconds for each batch."""
    processor: list[float] = field(default_factory=list)

    def measure(self) -> None:
        for _ in range(self.samples):
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(self.batches):
                self.draw()
            self.processor.append((time.process_time() - processor) / self.batches)
            self.wall.append((time.perf_counter() - wall) / self.batches)


def make_store(path: Path) -> Store:
    """Random walks with a terminal at the end of each episode."""
    random = np.random.default_rng(0)
    features = (
        Feature(name="observation", role="observation", shape=(OBSERVATION,), dtype="float32"),
        Feature(name="action", role="action", shape=(ACTION,), dtype="float32"),
        Feature(name="reward", role="reward", shape=(), dtype="float32"),
        Feature(name="done", role="terminal", shape=(), dtype="bool"),
    )
    schema = Schema(features=features, control_rate=RATE, label="action", label_source="oracle")
    store = Store.create(path, schema, Provenance.now("benchmark"))
    with store.writer() as writer:
        for _ in range(EPISODES):
            done = np.arange(LENGTH) == LENGTH - 1
            data = {
                "observation": random.normal(size=(LENGTH, OBSERVATION)).astype(np.float32),
                "action": random.normal(size=(LENGTH, ACTION)).astype(np.float32),
                "reward": done.astype(np.float32),
                "done": done,
            }
            writer.add(Episode(data, {"base": synthetic_clock(LENGTH, RATE)}, attributes={"task": "walk"}))
    return store


def numpy_cases(store: Store, horizon: int) -> Iterator[Case]:
    observations, actions = store.read("observation"), store.read("action")
    random = np.random.default_rng(0)
    steps = np.arange(horizon)

    def rows() -> NDArray[np.int64]:
        starts: NDArray[np.int64] = random.integers(len(actions) - horizon, size=BATCH)
        return starts[:, None] + steps

    def plain() -> object:
        wanted = rows()
        return observations[wanted], actions[wanted]

    def take() -> object:
        wanted = rows()
        return observations.take(wanted, axis=0), actions.take(wanted, axis=0)

    yield Case("numpy", plain, 10, 10)
    yield Case("numpy take", take, 10, 10)


def our_cases(store: Store, horizon: int, cache: Path) -> Iterator[Case]:
    for mode in MODES:
        options: dict[str, Any] = {"observations": None, "horizon": horizon, "mode": mode, "cache": cache}
        if mode == "streaming":
            options["buffer"] = BUFFER
        chunk = Windows(store, **options)
        sequence = Windows(store, history=horizon, successors=False, **options)
        imitation = Windows(store, history=horizon, successors=False, outcomes=False, **options)
        full = Windows(store, history=horizon, **options)
        # Streaming is measured over whole passes: reading is part of it.
        sizes = (store.num_steps // BATCH, 1) if mode == "streaming" else (10, 10)
        yield Case(f"chunk {mode}", lambda windows=chunk: windows.sample(BATCH), *sizes)
        yield Case(f"sequence {mode}", lambda windows=sequence: windows.sample(BATCH), *sizes)
        yield Case(f"imitation {mode}", lambda windows=imitation: windows.sample(BATCH), *sizes)
        yield Case(f"full {mode}", lambda windows=full: windows.sample(BATCH), *sizes)


def robomimic_cases(store: Store, horizon: int, path: Path, workers: int) -> Iterator[Case]:
    file = path / "walk.hdf5"
    if not file.exists():
        _write_robomimic(store, file)
    settings: dict[str, Any] = {"seq_length": horizon, "hdf5_cache_mode": "all"}
    keys = ["actions", "rewards", "dones"]
    usual = sequence_dataset(file, ["observation"], keys, get_pad_mask=True, load_next_obs=True, **settings)
    yield Case("robomimic", _loader(usual, workers), 1, 5)
    least = sequence_dataset(file, ["observation"], keys[:1], load_next_obs=False, **settings)
    yield Case("robomimic least", _loader(least, workers), 1, 5)


def _write_robomimic(store: Store, file: Path) -> None:
    with h5py.File(file, "w") as handle:
        for number in range(EPISODES):
            data = store.read_episode(number).data
            demo = handle.create_group(f"data/demo_{number}")
            demo.attrs["num_samples"] = LENGTH
            demo["obs/observation"] = data["observation"]
            demo["next_obs/observation"] = np.append(data["observation"][1:], data["observation"][-1:], axis=0)
            demo["actions"], demo["rewards"], demo["dones"] = data["action"], data["reward"], data["done"].astype(int)


def lerobot_cases(store: Store, horizon: int, path: Path, workers: int) -> Iterator[Case]:
    module = lerobot_dataset()
    folder = path / "lerobot"
    if not folder.exists():
        convert(store.path, folder, to="lerobot")
    info = json.loads((folder / "meta" / "info.json").read_text())
    keys = [key for key, one in info["features"].items() if list(one["shape"]) in ([OBSERVATION], [ACTION])]
    times = [step / RATE for step in range(horizon)]
    dataset = module.LeRobotDataset("local/walk", root=folder, delta_timestamps=dict.fromkeys(keys, times))
    sample = dataset[0]
    shapes = sorted(tuple(sample[key].shape) for key in keys)
    if shapes != [(horizon, ACTION), (horizon, OBSERVATION)]:
        raise OneStrideError(f"expected observations and actions from LeRobot, got {shapes}")
    yield Case("lerobot", _loader(dataset, workers), 1, 1)


def _loader(dataset: Any, workers: int) -> Draw:
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True)

    def forever() -> Iterator[object]:
        while True:
            yield from loader

    batches = forever()
    return lambda: next(batches)


def measure(store: Store, horizon: int, folder: Path, rounds: int, workers: int) -> dict[str, Any]:
    cases = [*numpy_cases(store, horizon), *our_cases(store, horizon, folder / "cache")]
    skipped = {}
    for name, make in (("robomimic", robomimic_cases), ("lerobot", lerobot_cases)):
        try:
            cases.extend(make(store, horizon, folder, workers))
        except (pytest.skip.Exception, OneStrideError) as error:
            skipped[name] = str(error)
    for case in cases:
        case.draw()
    for number in range(rounds):
        for case in cases:
            if case.samples > 1 or number % 5 == 0:
                case.measure()
    return {
        "skipped": skipped,
        "wall": figures({case.name: float(np.median(case.wall)) for case in cases}),
        "processor": figures({case.name: float(np.median(case.processor)) for case in cases}),
    }


def figures(medians: dict[str, float]) -> dict[str, Any]:
    """Batches a second, how many times as fast each of our ways is as each other one, and whether that is enough."""
    others = [name for name in PEERS if name in medians]
    table = {
        one: {other: round(medians[other] / medians[one], 2) for other in others}
        for one in medians
        if one not in others
    }
    met = {
        f"{form} {mode}: {least} x {other}": table[f"{form} {mode}"][other] >= least
        for form, other, least in WANTED
        for mode in ("resident", "mapped")
        if other in others
    }
    return {
        "batches_per_s": {name: round(1 / seconds, 1) for name, seconds in medians.items()},
        "ratios": table,
        "met": met,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0, help="of the peers' DataLoaders; in memory they lose by it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "benchmark": "windows",
        "data": {"steps": EPISODES * LENGTH, "observation": OBSERVATION, "action": ACTION, "batch": BATCH},
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "rounds": arguments.rounds,
        "workers": arguments.workers,
        "wanted": WANTED,
    }
    with ExitStack() as stack:
        # The peers print as they load: standard output is for the JSON alone.
        stack.enter_context(redirect_stdout(sys.stderr))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = make_store(folder / "store.zarr")
        result["horizons"] = {
            str(horizon): measure(store, horizon, folder, arguments.rounds, arguments.workers) for horizon in HORIZONS
        }
    result["load_after"] = os.getloadavg()[0]
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
