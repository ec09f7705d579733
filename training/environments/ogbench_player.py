"""OGBench's plan oracles at play: one target after the other, with no task in mind.

The settings are those of the package's own generation of its `play` datasets: oracles that follow a precomputed plan
with temporally correlated noise (standard deviation 0.1 of the action's range per element, smoothed over 0.5 steps), no
random actions, a new random target as soon as a plan is at its end, and a probability of stacking drawn for each
episode. The action that was executed is the label.

Reference: arXiv:2410.20092, appendix on dataset collection.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onestride.datasets.schema import BASE, Array, Episode, Feature, synthetic_clock
from onestride.training.environments.global_random import GlobalRandom
from onestride.training.environments.ogbench import interface
from onestride.training.environments.ogbench_manipulation import registered

STACKING = {"cube-single": (0.0, 0.0), "cube-double": (0.0, 0.25), "cube-triple": (0.05, 0.35)} | {
    "cube-quadruple": (0.1, 0.5)
}
"""Kind -> range from which an episode's probability of stacking is drawn."""
USUAL_STACKING = (0.5, 0.5)

RIGHT, LEFT = 0.29, -0.3  # [m]
DRAWER = (0.06, 0.08)  # [m]
"""Where the scene's cube stays visible: between right and left, further left only at the drawer's height."""
CUBE = slice(14, 17)


class Player:
    """Plays whole episodes; the seed determines all of one, whatever was played before.

    Attributes:
        rate: environment steps per second [Hz].
        features: what is recorded; names, roles and types are those of an imported dataset of the package.
    """

    def __init__(self, kind: str, steps: int, noise: float, noise_smoothing: float) -> None:
        """Make the environment and its oracles.

        Args:
            kind: `cube-double`, `scene` or `puzzle-3x3` and their kin.
            steps: transitions in an episode.
            noise: of the oracles' plans.
            noise_smoothing: width of the filter over it [steps].
        """
        self.kind, self.steps = kind, steps
        # The package ends an episode at its horizon; it goes on for as long as we step it.
        settings = {"mode": "data_collection", "terminate_at_goal": False, "max_episode_steps": steps + 1}
        self.env = registered(f"{kind}-v0", **settings)
        self.inner: Any = self.env.unwrapped
        self.rate = 1.0 / float(self.inner.control_timestep())
        self._oracles = _oracles(kind, {"env": self.env, "noise": noise, "noise_smoothing": noise_smoothing})
        self._has_buttons = hasattr(self.inner, "_cur_button_states")
        self.env.reset(seed=0)  # compiles the model, whose sizes the features need
        self.features = self._features()

    def __call__(self, seed: int) -> Episode:
        """The episode of a seed.

        A scene whose cube leaves the places where it can be seen is played again with a seed drawn from this one.
        """
        attempts = (seed if not attempt else _derived(seed, attempt) for attempt in range(1_000_000))
        rows = next(rows for rows in map(self._play, attempts) if self.kind != "scene" or _visible(rows["state.qpos"]))
        terminal = np.zeros(self.steps, bool)
        terminal[-1] = True
        return Episode(
            data={name: values[: self.steps] for name, values in rows.items()} | {"terminal": terminal},
            timestamps={BASE: synthetic_clock(self.steps, self.rate)},
            final={name: values[-1] for name, values in rows.items() if name != "action"},
            attributes={"split": ["train"], "seed": seed},
        )

    def close(self) -> None:
        """Free the simulation."""
        self.env.close()

    def _play(self, seed: int) -> dict[str, Array]:
        """Rows before each step, and for all but the action those after the last."""
        p_stack = np.random.default_rng(seed).uniform(*STACKING.get(self.kind, USUAL_STACKING))
        rows: dict[str, list[Any]] = {one.name: [] for one in self.features if one.role != "terminal"}
        with GlobalRandom(seed):  # the oracles draw from numpy's global generator
            observation, info = self.env.reset(seed=seed)
            oracle = self._oracle(observation, info)
            for _ in range(self.steps):
                self._note(rows, observation)
                action = np.clip(oracle.select_action(observation, info), -1.0, 1.0).astype(np.float32)
                rows["action"].append(action)
                observation, _, _, _, info = self.env.step(action)
                if oracle.done:
                    oracle = self._oracle(*self.inner.set_new_target(p_stack=p_stack))
            self._note(rows, observation)
        dtypes = {one.name: one.dtype for one in self.features}
        return {name: np.asarray(values, dtypes[name]) for name, values in rows.items()}

    def _oracle(self, observation: Array, info: dict[str, Any]) -> Any:
        """The oracle of the present target, at the beginning of its plan."""
        oracle = self._oracles[str(info["privileged/target_task"])]
        oracle.reset(observation, info)
        return oracle

    def _note(self, rows: dict[str, list[Any]], observation: Array) -> None:
        rows["observation"].append(observation)
        rows["state.qpos"].append(self.inner.data.qpos.copy())
        rows["state.qvel"].append(self.inner.data.qvel.copy())
        if self._has_buttons:
            rows["state.button_states"].append(self.inner._cur_button_states.copy())

    def _features(self) -> tuple[Feature, ...]:
        model, known = self.inner.model, interface(f"ogbench/{self.kind}-singletask-v0")
        size = self.env.observation_space.shape
        named: dict[str, Any] = {"names": known.observation_names, "units": known.observation_units} if known else {}
        acting: dict[str, Any] = {"names": known.action_names} if known else {}
        features = [
            Feature(name="observation", role="observation", shape=size, dtype="float32", **named),
            Feature(name="action", role="action", shape=self.env.action_space.shape, dtype="float32", **acting),
            Feature(name="terminal", role="terminal", shape=(), dtype="bool"),
            Feature(name="state.qpos", role="state", shape=(model.nq,), dtype="float32"),
            Feature(name="state.qvel", role="state", shape=(model.nv,), dtype="float32"),
        ]
        if self._has_buttons:
            count = (len(self.inner._cur_button_states),)
            features.append(Feature(name="state.button_states", role="state", shape=count, dtype="int64"))
        return tuple(features)


def _oracles(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Target -> who reaches it."""
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

    if kind.startswith("cube-"):
        return {"cube": CubePlanOracle(**settings)}
    if kind.startswith("puzzle-"):
        return {"button": ButtonPlanOracle(gripper_always_closed=True, **settings)}
    oracles = {"cube": CubePlanOracle, "button": ButtonPlanOracle}
    oracles |= {"drawer": DrawerPlanOracle, "window": WindowPlanOracle}
    return {target: oracle(**settings) for target, oracle in oracles.items()}


def _visible(positions: Array) -> bool:
    """Whether the cube stayed where a picture shows it, in all states (T, nq)."""
    _, y, z = positions[:, CUBE].T
    outside = (z < DRAWER[0]) | (z > DRAWER[1])
    return not bool((y >= RIGHT).any() or ((y <= LEFT) & outside).any())


def _derived(seed: int, attempt: int) -> int:
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
