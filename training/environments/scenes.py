"""Export an environment's scene once, so that the plant can load it without the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onestride.hardware.scene import (
    SCENE_FILE,
    STARTS_FILE,
    ContactSensor,
    ObjectAtTarget,
    Scene,
    SceneDescription,
    TrackedObject,
    save_starts,
    scene_folder,
    write_scene,
)
from onestride.training.environments.ogbench_cube import CubeEnvironment, make_cube

MODEL_FILE = "scene.xml"
SUCCESS_DISTANCE = 0.04  # [m], `CubeEnv._compute_successes`
CONTACT_FULL_SCALE = 50.0  # `ManipSpaceEnv.compute_ob_info`


def export_scene(environment: CubeEnvironment, folder: Path | None = None) -> Scene:
    """Write the scene of an environment, or reuse the one of the same package version.

    Args:
        environment: whose scene.
        folder: where to; default the user's cache, by environment and package version.
    """
    folder = folder or scene_folder(environment.name, environment.source)
    return write_scene(folder, lambda into: _write(environment, into))


def prepare_scene(name: str, starts: int = 20, seed: int = 1_000_000) -> Scene:
    """Export the scene of an environment by name, with the starts of `starts` episodes from `seed` on."""
    environment = make_cube(name)
    try:
        scene = export_scene(environment)
        seeds, states = list(range(seed, seed + starts)), []
        for one in seeds:
            environment.reset(one)
            states.append(environment.state())
        save_starts(scene.folder / STARTS_FILE, seeds, np.array(states))
    finally:
        environment.close()
    return scene


def _write(environment: CubeEnvironment, folder: Path) -> None:
    from ogbench.manipspace import mjcf_utils

    environment.reset(seed=0)
    mjcf_model = environment.inner.mjcf_model
    for name, content in mjcf_utils.get_assets(mjcf_model).items():
        (folder / name).write_bytes(content)
    (folder / MODEL_FILE).write_text(_with_gains(mjcf_utils.to_string(mjcf_model), environment), encoding="utf-8")
    (folder / SCENE_FILE).write_text(_describe(environment).model_dump_json(indent=2), encoding="utf-8")


def _with_gains(xml: str, environment: CubeEnvironment) -> str:
    """The XML with what the environment sets after compilation: actuator gains, colours and the time step."""
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue] - built in C, without stubs

    root, model = etree.fromstring(xml), environment.inner.model
    for element in root.find("actuator"):
        actuator = model.actuator(element.get("name"))
        element.set("gainprm", _numbers(actuator.gainprm))
        element.set("biasprm", _numbers(actuator.biasprm))
    for element in root.iter("geom"):
        if element.get("name"):
            element.set("rgba", _numbers(model.geom(element.get("name")).rgba))
    option = root.find("option")
    option.set("timestep", repr(float(model.opt.timestep)))
    return str(etree.tostring(root, pretty_print=True, encoding="unicode"))


def _numbers(values: Any) -> str:
    return " ".join(repr(float(value)) for value in values)


def _describe(environment: CubeEnvironment) -> SceneDescription:
    inner, blocks = environment.inner, range(environment.cubes)
    return SceneDescription(
        schema_version=1,
        environment=environment.name,
        source=environment.source,
        robot=environment.interface.robot,
        model=MODEL_FILE,
        physics_timestep=float(inner.model.opt.timestep),
        control_period=float(inner.control_timestep()),
        horizon=environment.horizon,
        judged="before" if inner._success_timing == "pre" else "after",
        objects={f"block_{i}": TrackedObject(joint=f"object_joint_{i}") for i in blocks},
        contacts={
            "gripper_contact": ContactSensor(body="ur5e/robotiq/right_pad", full_scale=CONTACT_FULL_SCALE),
        },
        success=tuple(
            ObjectAtTarget(object=f"block_{i}", target_body=f"object_target_{i}", tolerance=SUCCESS_DISTANCE)
            for i in blocks
        ),
        camera="front",
    )
