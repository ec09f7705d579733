"""robomimic's tasks on robosuite 1.5, built from what their dataset was recorded with.

The policy sees the dataset's own low-dimensional observation and acts by the dataset's own controller. An episode
ends with the first success, by robosuite's own measure; the reward is robosuite's sparse one minus 1, the convention
of Q-chunking. `reward_offset` of the settings changes it.

Reference: arXiv:2108.03298 (robomimic), arXiv:2507.07969 (Q-chunking).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any
from xml.etree import ElementTree

import numpy as np

from onestride.datasets.converters import Report
from onestride.datasets.converters.robomimic_environment import quiet, upgraded
from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.environments.interface import Array, Interface, Step
from onestride.training.environments.robosuite_objects import legacy_object
from onestride.training.environments.robosuite_settings import TASKS, TaskSettings, read_settings

PREFIX = "robomimic/"
PATTERNS = ("robomimic/{Lift,PickPlaceCan,NutAssemblySquare}", "robomimic/{Can,Square}")


def canonical(name: str) -> str | None:
    """The name by robosuite's task, as a converted dataset's; None where there is no such task."""
    task = name.removeprefix(PREFIX)
    known = next((ours for ours, short in TASKS.items() if task in (ours, short)), None)
    return f"{PREFIX}{known}" if known and name.startswith(PREFIX) else None


def create(name: str, settings: Mapping[str, Any] | None) -> RobomimicEnvironment:
    """The environment of a canonical name.

    Raises:
        OneStrideError: robosuite is missing or refuses the settings.
    """
    return RobomimicEnvironment(read_settings(name.removeprefix(PREFIX), settings))


def interface(_name: str) -> Interface | None:
    """None: no robot here is stated in these terms."""
    return None


class RobomimicEnvironment:
    """One robomimic task.

    Attributes:
        name: canonical id, `robomimic/Lift` and its kin.
        settings: what it was made with.
        env: robosuite's own environment.
        horizon: steps before an episode is cut.
        policy_rate: environment steps per second [Hz].
        observation_dim: size of an observation.
        action_dim: size of an action.
        interface: None, no robot is stated in these terms.
    """

    def __init__(self, settings: TaskSettings) -> None:
        self.name, self.settings = PREFIX + settings.task, settings
        self.horizon, self.policy_rate = settings.horizon, settings.rate
        self.interface: Interface | None = None
        self._sizes: dict[str, str] = {}
        self.env = _robosuite(settings)
        self.env.set_xml_processor(self._with_sizes)
        self.observation_dim = len(self.reset(0))
        self.action_dim = int(self.env.action_dim)

    @property
    def source(self) -> str:
        """Package and version that define the environment."""
        return f"robosuite {version('robosuite')}"

    def reset(self, seed: int) -> Array:
        """Start the episode of `seed` and return its first observation (Do,).

        The scene, the placement samplers and the robot share one generator, whose state is what the seed decides.
        """
        self._sizes = {}
        return self._begin(seed)

    def restore(self, state: Array, model: str | None = None) -> Array:
        """Start an episode from a recorded state.

        Args:
            state: as in robomimic's files (1 + nq + nv): time, positions, velocities.
            model: the recorded model file. Its meshes and names are of robosuite's version of then; what differs
                between episodes are the sizes of the objects, which are taken over.

        Returns:
            The first observation (Do,).

        Raises:
            OneStrideError: The state is of another model.
        """
        self._sizes = _object_sizes(model) if model else {}
        self._begin(0)
        expected = 1 + self.env.sim.model.nq + self.env.sim.model.nv
        if state.shape != (expected,):
            raise OneStrideError(f"{self.name}: expected a state of shape ({expected},), got {state.shape}")
        self.env.sim.set_state_from_flattened(state)
        self.env.sim.forward()
        return self._refreshed()

    def step(self, action: Array) -> Step:
        """Take one action (Da,) in [-1, 1]."""
        seen, reward, _, _ = self.env.step(action)
        self._taken += 1
        success = bool(self.env._check_success())
        cut = self._taken >= self.horizon and not success
        return Step(self._vector(seen), float(reward) + self.settings.reward_offset, success, cut, success)

    def close(self) -> None:
        """Free the simulation."""
        self.env.close()

    def _begin(self, seed: int) -> Array:
        self.env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        with quiet():
            self.env.reset()
        self._taken = 0
        return self._refreshed()

    def _refreshed(self) -> Array:
        """The observation of the present state: twice, because relative poses follow from what was seen before."""
        self.env._get_observations(force_update=True)
        return self._vector(self.env._get_observations(force_update=True))

    def _vector(self, seen: Mapping[str, Array]) -> Array:
        parts = {**seen, "object": legacy_object(seen) if self.settings.legacy else seen["object-state"]}
        for key in self.settings.observations:
            if key not in parts:
                raise unknown(f"observation of {self.name}", key, parts)
        return np.concatenate([np.ravel(parts[key]) for key in self.settings.observations])

    def _with_sizes(self, xml: str) -> str:
        """The scene with the object sizes of a recording, where it is to begin from one."""
        if not self._sizes:
            return xml
        root = ElementTree.fromstring(xml)
        for geom in root.iter("geom"):
            if geom.get("name") in self._sizes:
                geom.set("size", self._sizes[str(geom.get("name"))])
        return ElementTree.tostring(root, encoding="unicode")


def _object_sizes(model: str) -> dict[str, str]:
    """Sizes of the boxes of all bodies that move freely, by name."""
    try:
        root = ElementTree.fromstring(model)
    except ElementTree.ParseError as error:
        raise OneStrideError(f"model file: expected XML, got: {error}") from None
    free = [body for body in root.iter("body") if any(joint.get("type") == "free" for joint in body.findall("joint"))]
    boxes = [geom for body in free for geom in body.iter("geom") if geom.get("type") == "box"]
    return {str(geom.get("name")): str(geom.get("size")) for geom in boxes}


def _robosuite(settings: TaskSettings) -> Any:
    """The environment of robosuite; what it refuses is told in one line."""
    with quiet():
        try:
            import robosuite
        except ModuleNotFoundError as error:
            raise OneStrideError(
                f"{settings.task} needs {error.name}: pip install --no-deps -r requirements/stage2.txt"
            ) from None
        if tuple(int(part) for part in version("robosuite").split(".")[:2]) < (1, 5):
            raise OneStrideError(f"expected robosuite >= 1.5, got {version('robosuite')}")
        arguments: dict[str, Any] = upgraded({"env_kwargs": settings.arguments}, Report())
        try:
            return robosuite.make(settings.task, **arguments["env_kwargs"])
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            raise OneStrideError(f"{settings.task}: robosuite refuses env_kwargs: {error}") from error
