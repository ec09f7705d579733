"""Record a person at the controls of a simulated robot: demonstrations, or interventions in a policy's run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onestride.datasets.journal_commit import commit
from onestride.datasets.merging import schema_difference
from onestride.datasets.store import Store
from onestride.deploy.contract import Contract
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.recorded import recorded_schema
from onestride.deploy.rooms import load
from onestride.deploy.runtime import load_contract
from onestride.deploy.teleop.mapping import Mapping, load_mapping
from onestride.deploy.teleop.operator import DEVICES, Device, Operator
from onestride.deploy.teleop.supervised import NoPolicy, SupervisedController
from onestride.deploy.ticks import TickLayout
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.scene import STARTS_FILE, Scene, save_starts
from onestride.training.demonstrations import demonstration
from onestride.training.environments.ogbench_cube import make_cube
from onestride.training.environments.scenes import export_scene

#: Different starts of a session; further episodes begin with the first again.
MOST_STARTS = 100

MODULE = "onestride_controller.teleoperated"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Teleoperation:
    """A session.

    Attributes:
        env: environment whose scene is simulated; with a policy, the policy's own.
        device: what moves the robot.
        policy: exported policy that acts while the person does not; None for demonstrations.
        mapping: YAML file: what sticks and buttons mean; None for the defaults.
        topic: of the device; empty for its own.
        buttons: topic of the joystick with the deadman, beside a twist or a leader arm.
        notes: kept with every episode.
        robot: robot description, by id or file; None means the contract's.
        seed: of the first start.
        time_limit: an episode ends then [s].
        domain: DDS domain; None means one that nobody has.
    """

    env: str
    device: Device
    policy: Path | None = None
    mapping: Path | None = None
    topic: str = ""
    buttons: str = "/joy"
    notes: str = ""
    robot: str | None = None
    seed: int = 0
    time_limit: float = 120.0
    domain: int | None = None


@dataclass(frozen=True)
class Teleoperated:
    """What came of a session.

    Attributes:
        path: the store.
        dataset_id: its content hash; empty where nothing was recorded.
        committed: episodes added.
        steps: likewise.
        left_out: episodes that were not, and why.
        journals: folder of the journals, which stay.
    """

    path: str
    dataset_id: str
    committed: int
    steps: int
    left_out: list[str]
    journals: str


def teleoperate(
    wanted: Teleoperation, path: str | Path, episodes: int, say: Say, progress: Callable[[Any], None]
) -> Teleoperated:
    """Record until `episodes` are kept or Ctrl-C ends the session, and commit what was kept, also where it fails.

    Args:
        wanted: the session.
        path: the store; made if there is none.
        episodes: how many.
        say: told what the person should do next.
        progress: called with each `onestride_controller.teleoperated.Demonstration`.

    Raises:
        OneStrideError: the device, the mapping, the environment, the policy or the store is refused, or a process
            died or did not answer; the message says what was committed.
    """
    if episodes < 1 or not wanted.time_limit > 0:
        raise OneStrideError(f"expected episodes >= 1 and time limit > 0, got {episodes} and {wanted.time_limit}")
    if wanted.device not in DEVICES:
        raise unknown("device of teleoperation", wanted.device, DEVICES)
    path = Path(path)
    store = Store.open(path) if path.exists() else None
    contract = demonstration(wanted.env, wanted.device) if wanted.policy is None else load_contract(wanted.policy)[0]
    folder = path.with_suffix(".journals") / time.strftime("%Y%m%d-%H%M%S")
    scene = _scene(wanted, contract, folder, episodes, 0 if store is None else store.num_episodes)
    mapping = _rehearse(wanted, contract, scene, store)
    try:
        _record(wanted, contract, scene, mapping, folder, episodes, say, progress)
    except KeyboardInterrupt:
        say("ended")
    except OneStrideError as error:
        if not list(folder.glob("*.journal")):
            raise
        raise OneStrideError(f"{error}; {_rescued(folder, path)}") from error
    return _committed(folder, path)


def _committed(folder: Path, path: Path) -> Teleoperated:
    """Commit the finished episodes of the journals in `folder`, if there are any, to the store at `path`."""
    if not list(folder.glob("*.journal")):
        return Teleoperated(str(path), Store.open(path).dataset_id if path.exists() else "", 0, 0, [], str(folder))
    report = commit(folder, path)
    return Teleoperated(str(path), report.dataset_id, len(report.committed), report.steps, report.left_out, str(folder))


def _rescued(folder: Path, path: Path) -> str:
    """What could be committed of a session that failed, in words."""
    try:
        done = _committed(folder, path)
    except OneStrideError as error:
        return f"nothing was committed ({error}), the journals stay in {folder}"
    return f"committed before: {done.committed} episodes of {done.steps} steps, the journals stay in {folder}"


def _scene(wanted: Teleoperation, contract: Contract, folder: Path, episodes: int, offset: int) -> Scene:
    """The environment's scene; in `folder`, starts that continue where the store's episodes end."""
    name = contract.environment
    if name is None or contract.robot is None:
        raise OneStrideError(f"{wanted.policy} names no environment or no robot: it cannot be run")
    environment = make_cube(name)
    try:
        scene = export_scene(environment)
        first = wanted.seed + offset
        seeds, states = list(range(first, first + min(episodes, MOST_STARTS))), []
        for seed in seeds:
            environment.reset(seed)
            states.append(environment.state())
    finally:
        environment.close()
    folder.mkdir(parents=True, exist_ok=True)
    save_starts(folder / STARTS_FILE, seeds, np.array(states))
    (folder / "contract.json").write_text(contract.model_dump_json(), encoding="utf-8")
    return scene


def _rehearse(wanted: Teleoperation, contract: Contract, scene: Scene, store: Store | None) -> Mapping:
    """The mapping, after everything that could be refused later was tried in this process.

    Hours of recording must not end at a store of another kind.
    """
    robot = load_robot(_robot(wanted, contract))
    forward = ForwardKinematics.load(scene.model_path, robot)
    mapping = load_mapping(wanted.mapping, contract)
    operator = Operator(contract, mapping, forward, wanted.device, supervises=wanted.policy is not None)
    controller = SupervisedController(contract, robot, forward, NoPolicy(), operator)
    schema = recorded_schema(TickLayout.of(controller, "", wanted.device))
    difference = None if store is None else schema_difference(store.schema, schema)
    if difference:
        raise OneStrideError(
            f"expected a store of teleoperated episodes, got {store and store.path}: {difference}; "
            "record into another store and join the two with `onestride merge --common`"
        )
    return mapping


def _robot(wanted: Teleoperation, contract: Contract) -> str:
    return wanted.robot or (contract.robot.id if contract.robot else "")


def _record(
    wanted: Teleoperation,
    contract: Contract,
    scene: Scene,
    mapping: Mapping,
    folder: Path,
    episodes: int,
    say: Say,
    progress: Callable[[Any], None],
) -> None:
    parameters: dict[str, Any] = {
        "teleop": wanted.device,
        "teleop_buttons": wanted.buttons,
        "teleop_topic": wanted.topic,
        "teleop_mapping": wanted.mapping and wanted.mapping.resolve(),
        "contract": None if wanted.policy else (folder / "contract.json").resolve(),
    }
    run = load("onestride_controller.simulated:SimulatedRun", "ros")(
        policy=wanted.policy,
        robot=_robot(wanted, contract),
        scene=scene.folder,
        episodes=episodes,
        logs=folder / "log",
        starts=folder / STARTS_FILE,
        seed=wanted.seed,
        record=folder,
        notes=wanted.notes,
        horizon=max(1, round(wanted.time_limit * contract.execution.policy_rate)),
        parameters={name: value for name, value in parameters.items() if value},
        domain=wanted.domain,
    )
    load(f"{MODULE}:run_teleoperated", "ros")(run, mapping, say, progress)
