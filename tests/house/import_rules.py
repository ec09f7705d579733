"""Who may import whom: the tables, and the checker that reads a file's syntax tree."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Room -> what else of onestride it may import.
ARROWS: dict[str, tuple[str, ...]] = {
    "hardware": (),
    "datasets": ("hardware",),
    "policies": (),
    "deploy": ("hardware", "datasets.schema", "datasets.journal", "datasets.recording", "datasets.store"),
    "training": ("hardware", "datasets", "policies", "deploy"),
    "ros_ws": ("hardware", "datasets", "deploy"),
}
LEARNING = frozenset({"torch", "torchvision", "onnx", "onnxscript", "gymnasium", "ogbench", "robosuite", "robomimic"})
STORAGE = frozenset({"zarr", "h5py", "lerobot"})
UNSAFE = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"})
# A robot has none of these: they may not be imported there, not even inside a function.
ROBOT_SIDE = ("hardware", "deploy", "ros_ws")
# Its top-level imports come from its own dependencies; anything else is imported where it is used.
ROBOT_DEPENDENCIES = frozenset({"numpy", "pydantic", "mujoco", "onnxruntime", "yaml", "daqp", "tyro", "rich"})
ROS = frozenset({"rclpy", "launch", "launch_ros", "ament_index_python"})
# Files that a robot reads from a room that a robot does not have.
ROBOT_FILES = {
    "datasets/schema.py": frozenset({"numpy", "pydantic"}),
    "datasets/journal.py": frozenset({"numpy"}),
    "datasets/journal_reader.py": frozenset({"numpy", "pydantic"}),
    "datasets/recording.py": frozenset({"numpy"}),
    "datasets/recording_thread.py": frozenset({"numpy"}),
    "datasets/ring.py": frozenset({"numpy"}),
}
POLICY_DEPENDENCIES = frozenset({"torch"})
# The one file where the trained network becomes a file for the robot, importable on the robot all the same.
EXPORT = "deploy/export.py"
EXPORT_MAY = frozenset({"torch", "onnx", "onnxscript"})
# Files that import by name, from a table of their own. The modules in a table count as imported, except in the
# command line's: a command of any room is chosen there, so that no arrow is an import statement.
COMMAND_TABLE = "deploy/cli.py"
# `deploy/rooms.py` reaches other rooms for the commands of this one, and the ROS nodes for `training/`; nothing else
# of this room may use it.
ROOM_LOADER = "deploy/rooms.py"
LOADED_BY = re.compile(r"deploy/commands\w*\.py")
NAME_TABLES = frozenset({COMMAND_TABLE, ROOM_LOADER, "datasets/converters/__init__.py"})
MODULE_NAME = re.compile(r"(onestride(?:\.\w+)+)(?::\w+)?")
# Reading it loads zarr, which the robot does not have: only inside the functions that need it.
ONLY_LAZILY = "onestride.datasets.store"
OUR_NAMES = frozenset(
    {
        "onestride",
        "onestride_controller",
        "onestride_plant",
        "onestride_recorder",
        "onestride_watchdog",
        "onestride_drivers",
    }
)


@dataclass(frozen=True)
class Import:
    """One imported name; `module` is `None` where the name is computed."""

    module: str | None
    line: int
    lazy: bool

    @property
    def root(self) -> str:
        return (self.module or "").partition(".")[0]


def package_of(path: str) -> str:
    """The package a file belongs to: `deploy/safety/chain.py` -> `onestride.deploy.safety`."""
    parts = Path(path).parent.parts
    return ".".join(parts[3:] if parts[0] == "ros_ws" else ("onestride", *parts))


def imports(source: str, path: str) -> Iterator[Import]:
    """Every import statement and import call of a file, with relative ones made absolute."""
    tree = ast.parse(source)
    yield from _walk(tree, package_of(path), lazy=False)
    if path in NAME_TABLES - {COMMAND_TABLE}:
        yield from _tabled(tree)


def _tabled(tree: ast.AST) -> Iterator[Import]:
    """The modules that a name table may load."""
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    for text in texts:
        if found := MODULE_NAME.fullmatch(str(text.value)):
            yield Import(found.group(1), text.lineno, lazy=True)


def _walk(node: ast.AST, package: str, *, lazy: bool) -> Iterator[Import]:
    for module in _imported(node, package):
        yield Import(module, getattr(node, "lineno", 0), lazy)
    inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or _for_typing(node)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, package, lazy=inside)


def _for_typing(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:` without an else: an arrow, but nothing that runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not node.orelse


def _imported(node: ast.AST, package: str) -> list[str | None]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and _called(node.func) in {"import_module", "__import__"}:
        name = node.args[0] if node.args else None
        known = isinstance(name, ast.Constant) and isinstance(name.value, str)
        return [str(name.value) if known and isinstance(name, ast.Constant) else None]
    return []


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def violations(source: str, path: str) -> list[str]:
    """What a file imports against the rules, one sentence each."""
    room = Path(path).parts[0]
    found = [_violation(room, path, one) for one in imports(source, path)]
    return [f"{path}:{one}" for one in found if one]


def _violation(room: str, path: str, one: Import) -> str:
    if one.module is None:
        hidden = room != "training" and path not in NAME_TABLES
        return f"{one.line} imports a computed name; only {', '.join(sorted(NAME_TABLES))} do" if hidden else ""
    reason = _of_ours(room, path, one) if one.root in OUR_NAMES else _of_others(room, path, one)
    return f"{one.line} imports {one.module}: {reason}" if reason else ""


def _of_ours(room: str, path: str, one: Import) -> str:
    module = one.module or ""
    if room == "ros_ws" and _within(module, package_of(path)):
        return ""
    if room in ROBOT_SIDE and _within(module, ONLY_LAZILY) and not one.lazy:
        return "only inside a function, it needs zarr"
    if _within(module, "onestride.deploy.rooms") and room == "deploy" and not LOADED_BY.fullmatch(path):
        return "only the commands of deploy reach other rooms by name"
    allowed = [f"onestride.{name}" for name in (room, *ARROWS[room])]
    if path == EXPORT and one.lazy:
        allowed.append("onestride.policies")
    if path in ROBOT_FILES:
        allowed = [
            "onestride.hardware",
            *(f"onestride.{name[:-3].replace('/', '.')}" for name in ROBOT_FILES),
        ]
    return "" if any(_within(module, name) for name in allowed) else f"{room} may import {', '.join(allowed)}"


def _within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _of_others(room: str, path: str, one: Import) -> str:
    if one.root in UNSAFE:
        return "nothing is pickled here"
    if one.root in sys.stdlib_module_names:
        return ""
    if room == "policies" and one.root not in POLICY_DEPENDENCIES:
        return "policies know torch only"
    if path in ROBOT_FILES and one.root not in ROBOT_FILES[path]:
        return f"this file knows {', '.join(sorted(ROBOT_FILES[path]))} only"
    if room in ROBOT_SIDE and not (path == EXPORT and one.lazy and one.root in EXPORT_MAY):
        return _on_the_robot(room, one)
    return ""


def _on_the_robot(room: str, one: Import) -> str:
    if one.root in LEARNING | STORAGE:
        return "not on the robot side"
    messages = room == "ros_ws" and (one.root in ROS or one.root.endswith(("_msgs", "_srvs")))
    if one.lazy or messages or one.root in ROBOT_DEPENDENCIES:
        return ""
    return "not a dependency of the robot side, import it where it is used"
