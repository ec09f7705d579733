"""Fixtures of the ROS tests: real rclpy over real DDS, each test in a domain of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onestride.deploy.confinement import claim_domain, simulated_environment, unique_namespace
from onestride.deploy.processes import Child
from onestride.hardware.scene import Scene, save_starts

from .tiny_policy import ENVIRONMENT, write_policy

#: Moves the arm steadily, a little, without ever reaching the workspace's edge in a few seconds.
STEADY = (0.1, 0.05, 0.0, 0.1, 0.1)


@dataclass
class Ground:
    """Files that every ROS test shares."""

    scene: Path
    starts: Path
    policy: Path
    seeds: list[int]


@dataclass
class Session:
    """A confined session: its domain, its namespace and the processes in it."""

    domain: int
    folder: Path
    namespace: str = field(default_factory=unique_namespace)
    children: ExitStack = field(default_factory=ExitStack)

    @property
    def environment(self) -> dict[str, str]:
        return simulated_environment(self.domain)

    def child(self, module: str, *arguments: str) -> Child:
        """Start a module in this session; it is stopped at the end of the test."""
        log = self.folder / f"{module.split('.')[0]}.log"
        ros = ["--ros-args", "-r", f"__ns:={self.namespace}"]
        child = Child(module, [*arguments, *ros], log=log, environment=self.environment)
        return self.children.enter_context(child)

    def plant(self, ground: Ground, *arguments: str) -> Child:
        """Start the plant."""
        return self.child("onestride_plant", "--scene", str(ground.scene), "--starts", str(ground.starts), *arguments)

    def controller(self, ground: Ground, **parameters: Any) -> Child:
        """Start the controller node."""
        values = {"policy": ground.policy, "scene": ground.scene, **parameters}
        given = [text for name, value in values.items() for text in ("-p", f"{name}:={value}")]
        return self.child("onestride_controller.node", "--ros-args", *given)

    def watchdog(self, robot: str | Path) -> Child:
        """Start the watchdog."""
        return self.child("onestride_watchdog", "--ros-args", "-p", f"robot:={robot}")

    def supervisor(self, *children: Child) -> Any:
        """A supervisor that fails as soon as one of `children` has died."""
        from onestride_controller.supervisor import Supervisor

        def alive() -> None:
            for child in children:
                child.check()

        return self.children.enter_context(Supervisor(self.namespace, self.environment, alive))


@pytest.fixture(scope="session")
def ground(cube_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A scene, starts and a policy."""
    from onestride.training.environments.ogbench_cube import make_cube

    folder = tmp_path_factory.mktemp("ground")
    environment, seeds, states = make_cube(ENVIRONMENT), [31, 32, 33], []
    for seed in seeds:
        environment.reset(seed=seed)
        states.append(environment.state())
    environment.close()
    save_starts(folder / "starts.json", seeds, np.array(states))
    return Ground(cube_scene.folder, folder / "starts.json", write_policy(folder / "policy.onnx", STEADY), seeds)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A domain and a namespace that no other session has."""
    with claim_domain() as domain:
        one = Session(domain, tmp_path)
        with one.children:
            yield one
