"""`onestride collect --teleop`: a person at the controls of the simulated robot."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from onestride.hardware.errors import OneStrideError
from onestride.training.commands import say


@dataclass
class Teleop:
    """Settings of `--teleop`. The mapping's defaults, buttons and all, are in docs/teleop.md."""

    teleop: Literal["joy", "twist", "leader"] | None = None
    """A person acts, by `sensor_msgs/Joy`, `geometry_msgs/Twist` or a leader arm's `sensor_msgs/JointState`. Hold the
    deadman (button 5) to act; button 7 starts an episode, 3 ends it as a success, 6 ends it, 2 discards it."""
    policy: Path | None = None
    """Exported policy that acts while the deadman is not held: interventions instead of demonstrations."""
    topic: str = ""
    """Topic of the device; default /joy, /cmd_vel or /leader/joint_states."""
    buttons: str = "/joy"
    """Topic of the joystick with the deadman, beside a twist or a leader arm."""
    mapping: Path | None = None
    """YAML file: what sticks, buttons and joints mean."""
    notes: str = ""
    """Kept with every episode."""
    robot: str | None = None
    """Robot description, by id or YAML file; default the contract's."""
    time_limit: float = 120.0
    """An episode ends then [s]."""
    domain: int | None = None
    """ROS_DOMAIN_ID of the session; default one that nobody has."""

    def refuse_alone(self) -> None:
        """Refuse the other settings without `--teleop`.

        Raises:
            OneStrideError: there are some.
        """
        given = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        if self.teleop is None and given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise OneStrideError(f"{options}: expected --teleop with it")

    def record(self, env: str, store: Path, episodes: int, seed: int, *, json: bool) -> int:
        """Record and commit, and say what is in the store."""
        from onestride.training.teleoperation import Teleoperation, teleoperate

        assert self.teleop is not None
        wanted = Teleoperation(
            env=env,
            device=self.teleop,
            policy=self.policy,
            mapping=self.mapping,
            topic=self.topic,
            buttons=self.buttons,
            notes=self.notes,
            robot=self.robot,
            seed=seed,
            time_limit=self.time_limit,
            domain=self.domain,
        )
        say(asdict(teleoperate(wanted, store, episodes, _tell, _report)), "recorded", json)
        return 0


def _tell(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, markup=False, highlight=False, soft_wrap=True).print(text)


def _report(done: Any) -> None:
    outcome = f"fault: {done.fault}" if done.fault else done.outcome
    success, kept = "success" if done.success else "no success", "kept" if done.kept else "discarded"
    _tell(f"episode {done.episode}: {outcome}, {success}, {kept}, {done.time:.1f} s")
