"""What a robot installs is enough for `onestride.hardware` and `onestride.deploy`, on the Pythons that robots have."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .environments import Environment, create
from .import_rules import EXPORT, LEARNING, ROBOT_DEPENDENCIES, ROBOT_FILES, STORAGE, imports

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = {"3.10": "robot-py310.txt", "3.12": "robot.txt"}
ABSENT = sorted(LEARNING | STORAGE | {"rclpy"})
PROBE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import onestride.deploy, onestride.hardware
early = {"tyro", "rich"} & set(sys.modules)
assert not early, f"import onestride.deploy loads the command line: {early}"
names = ["onestride.deploy", "onestride.hardware"]
for room in (onestride.deploy, onestride.hardware):
    names += [module.name for module in pkgutil.walk_packages(room.__path__, room.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(" ".join(names))
"""


def candidates(version: str) -> Iterator[str]:
    """Where such an interpreter may be: on PATH, or among pyenv's versions (its shims may lead nowhere)."""
    name = f"python{version}"
    if found := shutil.which(name):
        yield found
    yield from map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}")))


def interpreter(version: str) -> str:
    """An interpreter of that version which really runs and can make virtual environments."""
    for python in candidates(version):
        done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return python
    pytest.skip(f"no Python {version} with venv on PATH or in ~/.pyenv/versions")


@pytest.fixture(scope="module", params=REQUIREMENTS)
def robot(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The project as on a robot: the pinned robot side, the wheel without dependencies, the test tools."""
    python = interpreter(request.param)
    environment = create(python, tmp_path_factory.mktemp("robot") / "venv")
    pins = [ROOT / "requirements" / name for name in (REQUIREMENTS[request.param], "robot-tests.txt")]
    environment.install("--requirement", pins[0], "--requirement", pins[1])
    environment.install("--no-deps", wheel)
    return environment


def test_robot_has_no_learning_and_no_storage_library(robot: Environment) -> None:
    """Otherwise the imports below would prove nothing."""
    done = robot.python(f"import importlib.util as u; print([m for m in {ABSENT} if u.find_spec(m)])")
    assert done.stdout.strip() == "[]", done.stderr


def test_every_module_imports(robot: Environment) -> None:
    done = robot.python(IMPORT_EVERYTHING)
    assert done.returncode == 0, done.stderr
    rooms = [ROOT / room for room in ("hardware", "deploy")]
    assert len(done.stdout.split()) == sum(1 for room in rooms for _ in room.rglob("*.py"))


@pytest.mark.parametrize("path", [path for path in ROBOT_FILES if (ROOT / path).exists()])
def test_schema_and_journal_import(robot: Environment, path: str) -> None:
    done = robot.run("python", "-c", f"import onestride.{path[:-3].replace('/', '.')}")
    assert done.returncode == 0, done.stderr


RECORD = """
import sys
from onestride.datasets.journal_reader import Journal
from onestride.datasets.recording import Recorder
from onestride.datasets.schema import Feature, Schema
features = Feature(name="q", role="observation", shape=(3,), dtype="float32"), Feature(
    name="action", role="action", shape=(), dtype="float64")
schema = Schema(features=features, control_rate=50.0, label="action", label_source="nominal")
with Recorder(sys.argv[1], schema) as recorder:
    recorder.start({"seed": 1})
    for index in range(100):
        assert recorder.step({"q": [index] * 3, "action": index / 7})
    recorder.stop(final={"q": [9, 9, 9]})
with Journal(recorder.path) as journal:
    (episode,) = journal.episodes
    assert not journal.report, journal.report
    read = journal.read(episode)
    read.validate(journal.schema)
    assert read.data["action"].tolist() == [index / 7 for index in range(100)]
assert not {"zarr", "torch"} & set(sys.modules)
"""


def test_a_robot_can_record(robot: Environment, tmp_path: Path) -> None:
    done = robot.run("python", "-c", RECORD, tmp_path)
    assert done.returncode == 0, done.stderr


SIZE = """
import compileall, site
from pathlib import Path
from importlib.metadata import distributions
from importlib.util import cache_from_source
compileall.compile_dir(site.getsitepackages()[0], quiet=2)
size = 0
for one in distributions():
    if one.metadata["Name"].lower() in TOOLS:
        continue
    for file in one.files or ():
        path = file.locate()
        paths = [path, Path(cache_from_source(str(path)))] if path.suffix == ".py" else [path]
        size += sum(each.stat().st_size for each in paths if each.is_file())
print(size / 1e6)
"""
# In the environment for the tests' sake.
TOOLS = {"pip", "setuptools", "pytest", "pluggy", "iniconfig", "hypothesis", "sortedcontainers", "attrs"}
MEGABYTES = {"3.10": 280, "3.12": 250}


@pytest.mark.slow
def test_install_is_small(robot: Environment) -> None:
    """Bytecode included, without pip and what the tests brought along."""
    done = robot.python(f"TOOLS = {TOOLS!r}\n{SIZE}")
    assert done.returncode == 0, done.stderr
    version = robot.python("import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    assert 50 < float(done.stdout) <= MEGABYTES[version], f"{done.stdout.strip()} MB on {version}"


def test_a_robot_can_bench(robot: Environment, tmp_path: Path) -> None:
    """Without onnx, ROS and a scene it says what it leaves out, and measures the rest."""
    pytest.importorskip("onnx", reason="the policy is made with it")
    from policy_samples import cube_contract, sample_graph, signed

    contract = cube_contract()
    policy = tmp_path / "policy.onnx"
    policy.write_bytes(signed(sample_graph(contract), contract))
    short = ["--calls", "50", "--seconds", "0.1", "--scene", tmp_path, "--precisions", "fp32,int8"]
    done = robot.run("onestride", "bench", policy, *short, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [one["precision"] for one in report["variants"]] == ["fp32", "fp32"]  # one for each NFE
    skipped = {one["what"]: one["why"] for one in report["skipped"]}
    assert "pip install 'onestride[bench]'" in skipped["CPUExecutionProvider int8, NFE 1"]
    assert "scene.json" in skipped["full tick"]


def runs_on_a_robot(path: Path) -> bool:
    """Whether a test file imports nothing that a robot lacks."""
    name = path.relative_to(ROOT).as_posix()
    modules = [one.module or "" for one in imports(path.read_text(encoding="utf-8"), name)]
    return all(_on_a_robot(module) for module in modules)


def _on_a_robot(module: str) -> bool:
    ours = (
        "onestride.hardware",
        "onestride.deploy",
        *(f"onestride.{name[:-3].replace('/', '.')}" for name in ROBOT_FILES),
    )
    if module.startswith(f"onestride.{EXPORT[:-3].replace('/', '.')}"):
        return False
    others = ROBOT_DEPENDENCIES | {"pytest", "hypothesis"} | sys.stdlib_module_names
    return module.partition(".")[0] in others or module.startswith(ours)


def test_tests_of_the_robot_side_pass(robot: Environment) -> None:
    every = [path for room in ("hardware", "deploy") for path in sorted((ROOT / "tests" / room).glob("test_*.py"))]
    chosen = [path for path in every if runs_on_a_robot(path)]
    assert chosen, "no test of the robot side runs on a robot"
    options: list[str | Path] = [
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        ROOT,
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        "-q",
    ]
    done = robot.run("pytest", *options, *chosen)
    assert done.returncode == 0, done.stdout[-4000:]


def test_choice_of_tests_is_not_blind() -> None:
    assert not runs_on_a_robot(ROOT / "tests" / "house" / "test_requirements.py")
    assert runs_on_a_robot(ROOT / "tests" / "hardware" / "test_description.py")
    assert not _on_a_robot("torch")
    assert not _on_a_robot("onestride.deploy.export.export")
    assert not _on_a_robot("onestride.training.trainer")
    assert _on_a_robot("onestride.deploy.contract.Contract")
