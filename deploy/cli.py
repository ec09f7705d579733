"""The command line: one table of commands, each imported only when it is chosen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Any, NamedTuple

from onestride.deploy.usage import UsageError, parse
from onestride.hardware.errors import OneStrideError


class Command(NamedTuple):
    """Where a command lives and what it needs.

    Attributes:
        target: `package.module:Class` of a dataclass whose instances are called to run the command.
        help: one line.
        extra: the extra that installs what it imports.
    """

    target: str
    help: str
    extra: str = ""


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "onestride.training.demo.command:Demo",
        "the main job end to end: collect, train, export, check, run in ROS 2, report",
        "train,sim,ros,cpu",
    ),
    "collect": Command(
        "onestride.training.commands_collect:Collect", "an oracle's or a person's episodes into a store", "sim"
    ),
    "commit": Command("onestride.datasets.commands_commit:Commit", "bring recorded journals into a store", "train"),
    "convert": Command("onestride.datasets.commands_convert:Convert", "a dataset from one format to another", "train"),
    "download": Command("onestride.datasets.commands_download:Download", "fetch an official dataset, with resume"),
    "inspect": Command(
        "onestride.datasets.commands_inspect:Inspect", "summary, quality and integrity of a store", "train"
    ),
    "merge": Command("onestride.datasets.commands_edit:Merge", "several stores into a new one", "train"),
    "edit": Command("onestride.datasets.commands_edit:Edit", "delete, split or relabel episodes of a store", "train"),
    "compact": Command(
        "onestride.datasets.commands_edit:Compact", "rewrite a store without what was edited away", "train"
    ),
    "train": Command(
        "onestride.training.commands_train:Train", "train a policy on data, in an environment, or both", "train"
    ),
    "sweep": Command("onestride.training.commands_sweep:Sweep", "train over seeds and settings", "train"),
    "bench-train": Command(
        "onestride.training.commands_suite:BenchTrain", "benchmarks of learning, one resumable training a cell", "train"
    ),
    "eval": Command("onestride.training.commands:Eval", "success of a policy file or a run in an environment", "sim"),
    "smooth": Command(
        "onestride.training.commands_smooth:Smooth",
        "return under observation noise, certified against attacks",
        "train,sim",
    ),
    "certificate": Command(
        "onestride.training.commands_certificate:Certificate",
        "a Lyapunov or barrier function of a known system, proved",
        "train",
    ),
    "risk-map": Command(
        "onestride.training.commands_risk:RiskPicture",
        "where a constrained policy is at risk, as a picture",
        "train",
    ),
    "report": Command("onestride.training.commands_report:Report", "curves of runs as one HTML file", "train"),
    "export": Command("onestride.training.commands:Export", "one ONNX file with the contract inside", "train"),
    "check": Command("onestride.deploy.commands:Check", "integrity, contract, fit to robot and data, parity", "cpu"),
    "import-contract": Command(
        "onestride.deploy.commands_import:ImportContract",
        "the contract of a policy from rsl_rl, mjlab or unitree_rl_lab",
        "cpu",
    ),
    "certify": Command(
        "onestride.deploy.commands_certify:Certify", "attack the safety chain of a robot and a policy: a report", "cpu"
    ),
    "bench": Command(
        "onestride.deploy.commands_bench:Bench", "latency and jitter of a policy and its control tick", "cpu"
    ),
    "replay": Command(
        "onestride.deploy.commands_replay:Replay", "a recording through the same code again, differences told", "cpu"
    ),
    "scene": Command(
        "onestride.deploy.commands_scene:ExportScene", "an environment's or a robot's scene for the plant"
    ),
    "run": Command(
        "onestride.deploy.commands_run:Run",
        "run a policy: on a simulated robot, confined to this machine; --real: on a robot",
        "ros,cpu",
    ),
    "calibrate-latency": Command(
        "onestride.deploy.commands_calibrate:CalibrateLatency", "a robot's delays, by a small motion", "ros,cpu"
    ),
    "doctor": Command("onestride.deploy.commands_doctor:Doctor", "what is installed, what is missing for which job"),
}

USAGE_ERROR = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it went."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_help()
        return 0 if arguments else USAGE_ERROR
    if arguments[0] == "--version":
        sys.stdout.write(f"onestride {metadata.version('onestride')}\n")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        return _fail(f"unknown command: got {name!r}, available: {', '.join(COMMANDS)}", USAGE_ERROR)
    return _run(name, rest)


def _run(name: str, arguments: list[str]) -> int:
    try:
        return _parse(name, arguments)()
    except UsageError as error:
        return _fail(str(error), USAGE_ERROR)
    except OneStrideError as error:
        return _fail(str(error), 1)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("onestride"):
            raise
        return _fail(f"`onestride {name}` needs {error.name}: {install_hint(COMMANDS[name].extra)}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nothing more to say
        return 1


def _parse(name: str, arguments: list[str]) -> Callable[[], int]:
    """The command with its options. A command with `accept(arguments)` may refuse them first, in its own words."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    command: Any = getattr(import_module(module), attribute)
    if hasattr(command, "accept"):
        command.accept(arguments)
    return parse(command, f"onestride {name}", arguments)


def install_hint(extra: str) -> str:
    """How to install an extra."""
    return f"pip install 'onestride[{extra}]'" if extra else "pip install --upgrade onestride"


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"onestride: {message}\n")
    return code


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("usage: [bold]onestride COMMAND[/] \\[options]\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, command in COMMANDS.items():
        table.add_row(f"[bold]{name}[/]", command.help)
    console.print(table)
    console.print("\n[bold]onestride COMMAND --help[/] tells the options of each.")


if __name__ == "__main__":
    sys.exit(main())
