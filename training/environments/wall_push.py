"""Push a heavy block against a wall that suddenly gives way, and leave it at a target.

A pusher that takes forces in a plane must get behind the block, push it, and bring it to rest within a centimetre of
a target that lies behind the wall. The wall is stiff and stands for a random time, so that whoever leans on it hard
is thrown forward when it goes. The forces go through a metered port (`energy_port`): with `-filtered` in its name the
task is played through the energy tank that robots ship, with `-aware` the policy sees the energy left and pays for
what it delivers beyond most of the bound.
"""

from __future__ import annotations

from importlib import resources
from importlib.metadata import version

import mujoco
import numpy as np

from onestride.deploy.safety.ports import EffortPort, Members
from onestride.deploy.safety.tank import Budget, EnergyTank
from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.environments.energy_port import EnergySettings, MeteredPort, State
from onestride.training.environments.interface import Array, Interface, Step
from onestride.training.environments.push_oracle import GENTLE, PushOracle

FORCE = 40.0
"""Of the action 1, in each direction [N]."""
FASTEST = 2.5
"""Speed that the pusher's own damping keeps it below [m/s]."""
PERIOD = 0.002
"""Of the force commands [s]."""
TICKS = 10
"""Commands in a step."""
ENERGY, LEAST = 5.0, 0.2
"""What the tank begins with, and what remains in it [J]; see docs/passivity.md for how they were sized."""
CLOSE, SLOW = 0.01, 0.05
"""From the target [m] and speed [m/s], at which the block counts as placed."""


def wall_push_tank(energy: float = ENERGY) -> EnergyTank:
    """Both directions in one port; 10 N of braking are always kept.

    Raises:
        OneStrideError: the energy is not above what must remain.
    """
    if not LEAST < energy < np.inf:
        raise OneStrideError(f"expected energy > {LEAST} J, got {energy}")
    both = np.ones(2)
    port = EffortPort(Members(both[None], both / 2), FASTEST * both, 10.0 * both, 100.0 * both)
    return EnergyTank(port, Budget(("pusher",), np.array([energy]), np.array([LEAST]), np.array([energy])))


class WallPush:
    """One such task.

    Attributes:
        name: canonical id.
        port: through which the forces go; it tells what was delivered.
        horizon: steps before an episode is cut.
        policy_rate: steps per second [Hz].
        observation_dim: position and velocity of the pusher (x, y), the same of the block (x), from the pusher to the
            block's face, from the block to its target; and the energy left, if asked.
        action_dim: force in x and y.
        interface: None, no real robot is stated in these terms.
        packages: whose versions decide what an episode is.
        released: whether the wall has given way.
    """

    horizon = 150
    policy_rate = 1.0 / (TICKS * PERIOD)
    action_dim = 2
    interface: Interface | None = None
    packages = ("onestride", "mujoco")

    def __init__(self, name: str, settings: EnergySettings, energy: float = ENERGY) -> None:
        self.name = name
        text = (resources.files("onestride.training.environments") / "wall_push.xml").read_text(encoding="utf-8")
        self._model = mujoco.MjModel.from_xml_string(text)
        self._data = mujoco.MjData(self._model)
        self._wall = self._model.geom("wall")
        self._substeps = round(PERIOD / self._model.opt.timestep)
        self.port = MeteredPort(wall_push_tank(energy), settings)
        self.observation_dim = 8 + settings.observed

    @property
    def source(self) -> str:
        """Package and version that define the environment."""
        return f"onestride {version('onestride')}"

    def reset(self, seed: int) -> Array:
        """Start the episode of `seed` and return its first observation (Do,)."""
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:2] = rng.uniform((-0.05, -0.12), (0.02, 0.12))
        self._target = rng.uniform(0.10, 0.18)
        self._release, self._steps = rng.uniform(0.2, 0.8), 0
        self._stand(True)
        mujoco.mj_forward(self._model, self._data)
        self.port.reset(self._pusher())
        return self.seen()

    def step(self, action: Array) -> Step:
        """Take one action (Da,) in [-1, 1]; a placed block ends the episode."""
        force = FORCE * np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        cost = self.port.run(force, TICKS, self._pusher, self._apply)
        self._steps += 1
        off, placed = abs(self._target - self._data.qpos[2]), self._placed()
        reward = -10.0 * off - np.hypot(*self._to_face()) - 0.1 + 10.0 * placed - self.port.settings.penalty * cost
        cut = self._steps >= self.horizon and not placed
        return Step(self.seen(), float(reward), placed, cut, placed, cost)

    @property
    def physics(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The simulation: MuJoCo model and data."""
        return self._model, self._data

    def oracle(self, name: str, seed: int) -> PushOracle:
        """The scripted pusher for the running episode; it draws nothing from `seed`.

        Raises:
            OneStrideError: there is no such expert.
        """
        del seed
        if name != "push":
            raise unknown(f"oracle of {self.name}", name, ["push"])
        return PushOracle(self.seen, GENTLE, FORCE)

    def close(self) -> None:
        """Free the simulation: nothing is held."""

    def _apply(self, force: Array) -> None:
        self._data.ctrl[:] = force
        if not self.released and self._data.time >= self._release:
            self._stand(False)
        mujoco.mj_step(self._model, self._data, self._substeps)

    def _stand(self, stands: bool) -> None:
        """Whether the wall touches anything."""
        self.released = not stands
        self._wall.contype[:] = self._wall.conaffinity[:] = int(stands)

    def _placed(self) -> bool:
        block, speed = self._data.qpos[2], self._data.qvel[2]
        return bool(abs(self._target - block) < CLOSE and abs(speed) < SLOW)

    def _pusher(self) -> State:
        return State(self._data.qpos[:2].copy(), self._data.qvel[:2].copy(), PERIOD)

    def _to_face(self) -> Array:
        """From the pusher's rim to the middle of the block's near face (2,) [m]."""
        x, y, block = self._data.qpos[:3]
        return np.array([block + 0.15 - 0.05 - 0.02 - x, -y])

    def seen(self) -> Array:
        """The observation (Do,) of the present state."""
        positions, speeds = self._data.qpos[:3], self._data.qvel[:3]
        rest = np.concatenate([self._to_face(), [self._target - positions[2]]])
        seen = np.concatenate([positions[:2] / 0.1, speeds, rest / 0.1])
        return np.append(seen, self.port.share_left) if self.port.settings.observed else seen
