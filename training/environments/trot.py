"""A scripted expert that trots: diagonal legs swing in turn, the other two carry the base.

Legs on the ground share the force and the turning moment that the base needs to keep level and to go as commanded;
legs in the air swing to where they will stand half a stance ahead. Both become joint targets through the drives'
own stiffness. It knows the true velocity of the base, which a policy that learns from it does not see.

The clock of the gait follows the legs: whoever moves them, the expert says what to do in the phase that they are in.

Reference: foot placement, M. Raibert, Legged Robots That Balance, 1986; force distribution, arXiv:2004.04374.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array
from onestride.training.environments.quadruped import Legs

LATE = np.array([0.0, 0.5, 0.5, 0.0])
"""Share of a stride by which front right, front left, rear right and rear left leg begin to swing later."""
DIAGONAL = np.array([0.5, -0.5, -0.5, 0.5])
"""Mean of the legs that swing first less mean of the others."""


@dataclass(frozen=True)
class Gait:
    """How to trot. The gains of the base are per mass, those of its attitude and turning are of the Go2.

    Attributes:
        frequency: strides per second [Hz].
        lift: how high feet are lifted [m].
        height: of the base above the ground [m].
        step: how far a foot is put ahead for each m/s of speed too much [s].
        sink: how far below the ground swinging feet aim at the end [m].
        follow: force for each m/s of speed too little, per mass [1/s].
        overdrive: share by which more is asked for than wanted, because stiff legs brake.
        rise, rise_damping: of the height, per mass [1/s^2, 1/s].
        level, level_damping: moment of roll and pitch [Nm/rad, Nm s/rad].
        turn: moment for each rad/s of turning too little [Nm s].
        friction: most of a foot's force that may be sideways, of what it carries [1].
        lead: how far ahead the targets of swinging legs are, because the drives lag [s].
        damping: of a joint, drive and gear together [Nm s/rad].
        listen: share of the way to the phase of the legs that the clock takes in a step.
    """

    frequency: float = 2.5
    lift: float = 0.06
    height: float = 0.285
    step: float = 0.05
    sink: float = 0.01
    follow: float = 12.0
    overdrive: float = 0.3
    rise: float = 80.0
    rise_damping: float = 8.0
    level: float = 150.0
    level_damping: float = 10.0
    turn: float = 30.0
    friction: float = 0.5
    lead: float = 0.07
    damping: float = 2.5
    listen: float = 0.1


@dataclass(frozen=True)
class BaseState:
    """What the expert knows, in a frame that turns with the base but stays level.

    Attributes:
        rotation: `R_LB` (3, 3) of the base in the level frame.
        velocity: of the base (3,) [m/s].
        turning: its angular velocity (3,) [rad/s].
        angles: of the legs (4, 3) [rad].
        speeds: of the legs' joints (4, 3) [rad/s].
    """

    rotation: Array
    velocity: Array
    turning: Array
    angles: Array
    speeds: Array

    @classmethod
    def of(cls, rotation: Array, velocity: Array, turning: Array, angles: Array, speeds: Array) -> BaseState:
        """From the rotation `R_WB`, the base's velocities in its own frame (3,), and the joints' (12,)."""
        yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
        cos, sin = np.cos(yaw), np.sin(yaw)
        level = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ rotation
        return cls(level, level @ velocity, level @ turning, angles.reshape(4, 3), speeds.reshape(4, 3))

    @property
    def tilt(self) -> Array:
        """Roll and pitch (2,) [rad]."""
        pitch = np.arctan2(-self.rotation[2, 0], np.hypot(self.rotation[2, 1], self.rotation[2, 2]))
        return np.array([np.arctan2(self.rotation[2, 1], self.rotation[2, 2]), pitch])


class Trot:
    """Joint targets of a trot, one step after the other.

    Args:
        robot: legs front right, front left, rear right, rear left, of abduction, thigh and calf each.
        legs: their dimensions.
        mass: of the whole robot [kg].
        period: from one step to the next [s].
        gait: how to trot.
    """

    def __init__(
        self, robot: RobotDescription, legs: Legs, mass: float, period: float, gait: Gait | None = None
    ) -> None:
        self.gait, self._legs, self._mass, self._period = gait or Gait(), legs, mass, period
        self._stiffness = np.array([joint.stiffness for joint in robot.joints]).reshape(4, 3)
        self._under = legs.hips + np.stack([0 * legs.offsets, legs.offsets, 0 * legs.offsets], axis=1)
        self.phase, self._lifted, self._swung = 0.0, np.zeros((4, 3)), np.zeros(4, dtype=bool)

    def targets(self, state: BaseState, command: Array) -> Array:
        """Joint targets (12,) [rad] of the step that begins, towards vx, vy [m/s], wz [rad/s] (3,)."""
        feet = self._feet(state)
        self._tick(state)
        share: Array = 2.0 * np.mod(self.phase + LATE, 1.0)
        swinging = share < 1.0
        self._lifted = np.where((swinging & ~self._swung)[:, None], feet, self._lifted)
        self._swung = swinging
        asked = (1.0 + self.gait.overdrive) * command
        standing = self._carrying(state, self._forces(state, feet, ~swinging, asked))
        swung = self._swinging(state, share, asked)
        targets: Array = np.where(swinging[:, None], swung, standing).ravel()
        return targets

    def _feet(self, state: BaseState) -> Array:
        """From the base in the level frame (4, 3) [m]."""
        feet: Array = (self._legs.hips + self._legs.feet(state.angles)) @ state.rotation.T
        return feet

    def _tick(self, state: BaseState) -> None:
        """One period on, and a little towards the phase in which the diagonals' heights and speeds are."""
        rate = 2 * np.pi * self.gait.frequency
        moving = np.einsum("lij,lj->li", self._legs.jacobians(state.angles), state.speeds)
        height = DIAGONAL @ (self._legs.feet(state.angles) @ state.rotation.T)[:, 2] / self.gait.lift
        speed = DIAGONAL @ (moving @ state.rotation.T)[:, 2] / (self.gait.lift * rate)
        behind = np.angle(np.exp(1j * (np.arctan2(height, speed) - 2 * np.pi * self.phase))) / (2 * np.pi)
        heard = self.gait.listen * min(1.0, float(np.hypot(height, speed)))
        self.phase = (self.phase + heard * behind + self.gait.frequency * self._period) % 1.0

    def _forces(self, state: BaseState, feet: Array, standing: NDArray[np.bool_], asked: Array) -> Array:
        """On the base by each foot (4, 3) [N], level frame; zero for those in the air."""
        gait, count = self.gait, int(standing.sum())
        height = self._legs.radius - feet[standing, 2].mean()
        lifting = 9.81 + gait.rise * (gait.height - height) - gait.rise_damping * state.velocity[2]
        pushing = gait.follow * (asked[:2] - state.velocity[:2])
        levelling = -gait.level * state.tilt - gait.level_damping * state.turning[:2]
        turning = gait.turn * (asked[2] - state.turning[2])
        wanted = np.array([*(self._mass * np.array([*pushing, lifting])), *levelling, turning])
        arms = np.concatenate([np.concatenate([np.eye(3), _cross(arm)]) for arm in feet[standing]], axis=1)
        weights = np.array([1.0, 1.0, 5.0, 20.0, 10.0, 5.0])[:, None]
        least = arms.T @ (weights * arms) + 1e-3 * np.eye(3 * count)
        found = np.linalg.solve(least, arms.T @ (weights[:, 0] * wanted)).reshape(count, 3)
        found[:, 2] = np.clip(found[:, 2], 10.0, 200.0)
        most = gait.friction * found[:, 2:]
        found[:, :2] = np.clip(found[:, :2], -most, most)
        forces = np.zeros((4, 3))
        forces[standing] = found
        return forces

    def _carrying(self, state: BaseState, forces: Array) -> Array:
        """Targets (4, 3) at which the drives make the feet push the base like that, in the middle of the period."""
        torques = -np.einsum("lij,li->lj", self._legs.jacobians(state.angles), forces @ state.rotation)
        drag = self.gait.damping * state.speeds
        targets: Array = state.angles + (torques + drag) / self._stiffness + 0.5 * self._period * state.speeds
        return targets

    def _swinging(self, state: BaseState, share: Array, asked: Array) -> Array:
        """Targets (4, 3) on the way to the next stand, ahead of it by what the drives lag."""
        here = self._legs.angles(self._way(state, share, asked))
        soon = self._legs.angles(self._way(state, share + 2.0 * self.gait.frequency * self._period, asked))
        return here + self.gait.lead * (soon - here) / self._period

    def _way(self, state: BaseState, share: Array, asked: Array) -> Array:
        """Where swinging feet should be (4, 3) [m] at a share (4,) of their swing, from their abduction axes."""
        gait, share = self.gait, np.minimum(share, 1.0)[:, None]
        going = self._over_ground(np.array([*state.velocity[:2], state.turning[2]]))
        wanted = self._over_ground(asked)
        landing = self._under[:, :2] + going / (4.0 * gait.frequency) + gait.step * (going - wanted)
        gone = 0.5 - 0.5 * np.cos(np.pi * share)
        way = np.empty((4, 3))
        way[:, :2] = (1 - gone) * self._lifted[:, :2] + gone * landing
        ground = self._legs.radius - gait.height
        way[:, 2:] = ground + gait.lift * np.sin(np.pi * share) - gait.sink * gone
        return way @ state.rotation - self._legs.hips

    def _over_ground(self, twist: Array) -> Array:
        """Velocity (4, 2) [m/s] of the places under the hips, of a base that goes vx, vy, wz (3,)."""
        velocity: Array = twist[:2] + twist[2] * np.stack([-self._under[:, 1], self._under[:, 0]], axis=1)
        return velocity


def _cross(arm: Array) -> Array:
    """The matrix (3, 3) that turns a force at `arm` (3,) into its moment."""
    x, y, z = arm
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
