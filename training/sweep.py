"""Many runs of one kind: seeds and settings, each a resumable `train` process, several at a time.

A sweep is a folder with a run directory for each trial. Running the sweep again goes on where it was cut: finished
trials are left as they are, the others resume.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onestride.hardware.errors import OneStrideError

POLL = 0.2
"""Between looks at the running processes [s]."""
_FIELDS = ("agent", "common", "settings", "seeds")

Progress = Callable[["Outcome"], None]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        name: Of its run directory.
        arguments: Of `onestride train`, without `--run`.
    """

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        trial: Its name.
        code: Exit code of its process; 0 = well.
        result: What `train --json` printed; empty where it failed.
        message: The last line it wrote where it failed.
    """

    trial: str
    code: int
    result: dict[str, Any] = field(default_factory=dict)
    message: str = ""


def trials(
    agent: str, common: Sequence[str], settings: Mapping[str, Sequence[Any]], seeds: Sequence[int]
) -> list[Trial]:
    """Every combination of settings with every seed.

    Args:
        agent: Name of the algorithm.
        common: Arguments of `train` that all trials share.
        settings: Flag, without dashes in front -> its values.
        seeds: Of the trials.

    Raises:
        OneStrideError: Two trials would share a run directory.
    """
    found: list[Trial] = []
    for values in itertools.product(*settings.values()):
        chosen = dict(zip(settings, values, strict=True))
        words = [word for name, value in chosen.items() for word in flags(name, value)]
        told = [f"{name}={_short(value)}" for name, value in chosen.items()]
        for seed in seeds:
            name = ",".join([agent, *told, f"seed={seed}"])
            if any(trial.name == name for trial in found):
                raise OneStrideError(f"expected trials of different names, got {name} twice")
            found.append(Trial(name, (agent, *common, *words, "--seed", str(seed))))
    return found


def read_sweep(path: Path, seeds: Sequence[int] = ()) -> list[Trial]:
    """The trials of a sweep file.

    Args:
        path: YAML with `agent`, `common` (flag -> value), `settings` (flag -> list of values) and `seeds`.
        seeds: Instead of the file's.

    Raises:
        OneStrideError: Not such a file, or two of its trials would share a run directory.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OneStrideError(f"{path}: expected a sweep file in YAML, got: {error}") from error
    if not isinstance(content, dict) or not set(content) <= set(_FIELDS) or not isinstance(content.get("agent"), str):
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise OneStrideError(f"{path}: expected agent (a name), common, settings and seeds, got {got}")
    common, settings = content.get("common") or {}, content.get("settings") or {}
    chosen = list(seeds) or content.get("seeds") or [0]
    if not isinstance(common, dict) or not isinstance(settings, dict):
        raise OneStrideError(f"{path}: expected common and settings as flag: value, got {common!r} and {settings!r}")
    for name, values in settings.items():
        if not isinstance(values, list) or not values:
            raise OneStrideError(f"{path}: settings.{name}: expected a list of values to try, got {values!r}")
    if not isinstance(chosen, list) or not all(isinstance(seed, int) and seed >= 0 for seed in chosen):
        raise OneStrideError(f"{path}: seeds: expected a list of whole numbers >= 0, got {chosen!r}")
    words = [word for name, value in common.items() for word in flags(name, value)]
    return trials(content["agent"], words, settings, chosen)


def flags(name: str, value: Any) -> list[str]:
    """A setting as words of a command line: a flag and its values; a list is several values of one flag."""
    flag = f"--{str(name).replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, *(str(one) for one in (value if isinstance(value, list) else [value]))]


def command(trial: Trial, folder: Path) -> list[str]:
    """The process of a trial."""
    arguments = [*trial.arguments, "--run", str(folder / trial.name), "--json"]
    return [sys.executable, "-m", "onestride.deploy.cli", "train", *arguments]


def run_trial(trial: Trial, folder: Path) -> Outcome:
    """Run a trial to its end; what it writes goes to a log beside its run directory."""
    process, close = _begin(trial, folder)
    process.wait()
    close()
    return _outcome(trial, folder, process.returncode)


def run_all(every: Sequence[Trial], folder: Path, jobs: int, progress: Progress | None = None) -> list[Outcome]:
    """Run trials, `jobs` at a time; one that fails does not stop the others. In the trials' order.

    On Ctrl-C the processes are asked to save and end, and waited for.

    Raises:
        OneStrideError: Fewer than one job.
    """
    if jobs < 1:
        raise OneStrideError(f"jobs: expected >= 1, got {jobs}")
    done: dict[str, Outcome] = {}
    for outcome in _spread(every, folder, jobs):
        done[outcome.trial] = outcome
        if progress:
            progress(outcome)
    return [done[trial.name] for trial in every]


def _spread(every: Sequence[Trial], folder: Path, jobs: int) -> Iterator[Outcome]:
    waiting, running = list(every), dict[str, tuple[Trial, subprocess.Popen[bytes], Callable[[], None]]]()
    with ExitStack() as stack:
        stack.callback(_end, running)
        while waiting or running:
            while waiting and len(running) < jobs:
                trial = waiting.pop(0)
                running[trial.name] = (trial, *_begin(trial, folder))
            for name, (trial, process, close) in list(running.items()):
                if process.poll() is not None:
                    close()
                    del running[name]
                    yield _outcome(trial, folder, process.returncode)
            if running:
                time.sleep(POLL)


def _end(running: Mapping[str, tuple[Trial, subprocess.Popen[bytes], Callable[[], None]]]) -> None:
    """Ask what still runs to save and end, and wait for it."""
    for _, process, close in running.values():
        with suppress(ProcessLookupError):
            process.terminate()
        process.wait()
        close()


def _begin(trial: Trial, folder: Path) -> tuple[subprocess.Popen[bytes], Callable[[], None]]:
    """Start a trial's process; also gives what closes its files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [(folder / f"{trial.name}.{kind}").open("wb") for kind in ("json", "log")]
    except OSError as error:
        raise OneStrideError(f"{folder}: expected a folder to write in, got: {error}") from error
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    process = subprocess.Popen(
        command(trial, folder),
        stdout=files[0],
        stderr=files[1],
        env=environment,
        start_new_session=True,  # Ctrl-C is for the sweep, which then asks its trials to save and end
        preexec_fn=_end_with_parent,
    )

    def close() -> None:
        for file in files:
            file.close()

    return process, close


def _end_with_parent() -> None:
    """In the child, before it begins: be asked to save and end when the sweep is killed (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _outcome(trial: Trial, folder: Path, code: int) -> Outcome:
    said = (folder / f"{trial.name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    try:
        result = json.loads((folder / f"{trial.name}.json").read_bytes())
    except ValueError:
        return Outcome(trial.name, code or 1, message=said[-1] if said else "")
    return Outcome(trial.name, code, result)


def _short(value: Any) -> str:
    """A value as part of a folder's name."""
    text = "x".join(str(one) for one in value) if isinstance(value, list) else str(value)
    return "".join(letter if letter.isalnum() or letter in ".-+_" else "-" for letter in text)
