"""The command line: every command has its help, and every way to fail has its exit code and one line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from onestride.deploy import cli
from onestride.deploy.cli import COMMANDS, Command, main
from onestride.hardware.errors import OneStrideError

HELP_OF_ALL = """
import contextlib, io, json, sys
from onestride.deploy.cli import COMMANDS, main
heavy = {"torch", "zarr", "mujoco", "ogbench", "onnx", "onnxruntime", "rclpy", "h5py", "matplotlib", "gymnasium"}
seen = {}
for name in COMMANDS:
    output, code, before = io.StringIO(), "none", set(sys.modules)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = main([name, "--help"])
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    seen[name] = {"code": code, "help": output.getvalue(), "heavy": sorted(heavy & (set(sys.modules) - before))}
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, dict]:
    """What `--help` of every command does, in one fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", HELP_OF_ALL], capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(helps, name):
    if name == "train":
        pytest.importorskip("torch", reason="needs the extra `train`")
    found = helps[name]
    assert found["code"] == 0, found["help"] or found["code"]
    assert f"usage: onestride {name}" in found["help"]
    assert "--help" in found["help"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_heavy(helps, name):
    """`train` offers the agents' settings, which stand beside their losses: it needs torch to tell them."""
    if name == "train":
        pytest.importorskip("torch", reason="needs the extra `train`")
    assert helps[name]["heavy"] == (["torch"] if name == "train" else [])


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_lists_every_command(arguments, capsys):
    assert main(arguments) == 0
    output = capsys.readouterr().out
    for name in COMMANDS:
        assert name in output


def test_nothing_asked_is_a_usage_error_with_help(capsys):
    assert main([]) == 2
    assert "onestride COMMAND" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"onestride {version('onestride')}\n"


def test_an_unknown_command_lists_those_that_exist(capsys):
    assert main(["tran"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("onestride: unknown command: got 'tran', available: ")
    assert all(name in error for name in COMMANDS)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["check", "--no-such-thing"],
            "unknown option: got --no-such-thing; `onestride check --help` lists all options",
        ),
        (
            ["check", "--dat=x"],
            "unknown option: got --dat, nearest: --data; `onestride check --help` lists all options",
        ),
        (["check", "--data"], "Missing value for argument '--data'. Expected 1 values; `onestride check --help` "),
        (["check", "a", "b"], "Unrecognized options: b; `onestride check --help` lists all options"),
        (["run"], "Missing from onestride run: PATH Exported policy file"),
        (["run", "p.onnx", "--episodes", "x"], "Error parsing --episodes: invalid literal for int()"),
    ],
)
def test_wrong_options_are_a_usage_error_in_one_line(arguments, line, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"onestride: {line}")
    assert said.err.count("\n") == 1


def test_a_misspelt_setting_of_an_agent_is_answered_with_the_nearest(capsys):
    pytest.importorskip("torch", reason="needs the extra `train`")
    for typed, nearest in (("--dat", "--data"), ("--candidate", "--candidates")):
        assert main(["train", "mvp", typed, "x"]) == 2
        told = f"unknown option: got {typed}, nearest: {nearest}; `onestride train mvp --help` lists all options"
        assert capsys.readouterr().err == f"onestride: {told}\n"


def test_help_tells_what_each_agent_is(helps):
    pytest.importorskip("torch", reason="needs the extra `train`")
    told = " ".join(helps["train"]["help"].replace("│", " ").split())
    assert "• sac Soft actor-critic: maximises return and entropy." in told
    assert "• bc_flow Imitation with a plain flow" in told


@pytest.fixture
def command(monkeypatch):
    """Puts a command called `probe` into the table, which does what it is told."""

    def install(does) -> None:
        @dataclass
        class Probe:
            """Does as it is told."""

            def __call__(self) -> int:
                return does()

        module = ModuleType("probe_of_the_command_line")
        vars(module)["Probe"] = Probe
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(COMMANDS, "probe", Command(f"{module.__name__}:Probe", "for tests", "train"))

    return install


def raising(error: BaseException):
    def does() -> int:
        raise error

    return does


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_commands_own_exit_code_is_passed_on(command, code):
    command(lambda: code)
    assert main(["probe"]) == code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OneStrideError("expected a, got b"), 1, "expected a, got b"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            ModuleNotFoundError("No module named 'zarr'", name="zarr"),
            1,
            "`onestride probe` needs zarr: pip install 'onestride[train]'",
        ),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(command, capsys, error, code, line):
    command(raising(error))
    assert main(["probe"]) == code
    output = capsys.readouterr()
    assert output.err == f"onestride: {line}\n"
    assert output.out == ""


@pytest.mark.parametrize("error", [ZeroDivisionError("our bug"), ModuleNotFoundError("x", name="onestride.policies.x")])
def test_our_own_bugs_are_not_hidden(command, error):
    command(raising(error))
    with pytest.raises(type(error)):
        main(["probe"])


def test_a_missing_extra_found_on_import_is_named_too(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "probe", Command("surely_not_installed.commands:Probe", "for tests", "ros"))
    assert main(["probe"]) == 1
    assert "needs surely_not_installed: pip install 'onestride[ros]'" in capsys.readouterr().err


def test_the_entry_point_of_the_package_is_this_one():
    from importlib.metadata import entry_points

    (script,) = (point for point in entry_points(group="console_scripts") if point.name == "onestride")
    assert script.load() is cli.main


def test_a_reader_that_leaves_early_is_no_crash():
    """As in `onestride check --schema | head -1`."""
    script = f"set -o pipefail; {sys.executable} -m onestride.deploy.cli check --schema | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
