"""The base's velocity from its inertial sensor and its legs: what a robot without odometry knows of how fast it goes.

A foot that carries weight stands still, so its leg says how the base moves over it; between such moments the specific
force is integrated. Both are weighed by a Kalman filter whose state is the velocity in the base's frame. All noise is
taken to be the same in every direction, so that its covariance is one number.

Reference: Bloesch et al., "State estimation for legged robots: consistent fusion of leg kinematics and IMU" (2012).
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from onestride.deploy.kinematics import ForwardKinematics
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.readings import identify
from onestride.hardware.state import Array, Inertial, Measurement

GRAVITY = 9.81

#: Deviation of the acceleration between two samples from what they say, impacts above all [m/s^2].
IMPACTS = 2.0

#: Deviation of the integrated acceleration, per root of a second: the sensor's noise and its tilt [m/s].
DRIFT = 0.15

#: Deviation of the velocity that a leg says that carries its share of the weight [m/s]. More than its sensors have:
#: feet that slip or roll say the same wrong thing for as long as they do.
LEG = 0.3

#: Share of the weight on one leg [1]: none of the leg's word below the first, all of it above the second.
CONTACT = (0.06, 0.2)

#: Deviation of the velocity before anything was measured [m/s].
UNKNOWN = 1.0


class LegMotion(NamedTuple):
    """What the legs say; k feet.

    Attributes:
        velocity: of the base, were each foot to stand still (k, 3) [m/s].
        load: share of the robot's weight on each foot (k,) [1].
    """

    velocity: Array
    load: Array


class Legs:
    """Positions and Jacobians of feet in the frame of the inertial sensor.

    Args:
        robot: with a floating base.
        forward: its kinematics; the base stays where its model has it.
    """

    def __init__(self, robot: RobotDescription, forward: ForwardKinematics) -> None:
        if robot.base is None:
            raise OneStrideError(f"robot {robot.id}: expected a floating base to estimate its velocity, got none")
        self._forward, model = forward, forward.model
        self._site = identify(model, mujoco.mjtObj.mjOBJ_SITE, robot.base.imu)
        self._geoms = [identify(model, mujoco.mjtObj.mjOBJ_GEOM, foot.geom) for foot in robot.base.feet]
        self._bodies = [int(model.geom_bodyid[geom]) for geom in self._geoms]
        self._radii = [float(model.geom_size[geom, 0]) for geom in self._geoms]
        self._joints = [robot.indices(foot.joints) for foot in robot.base.feet]
        self._weight = GRAVITY * float(model.body_subtreemass[model.site_bodyid[self._site]])
        self._stale = robot.detection.joints_stale
        self._jacobian = np.empty((3, model.nv))

    def sound(self, measurement: Measurement, imu: Inertial) -> bool:
        """Whether the readings are numbers, one for each joint."""
        joints = (measurement.position, measurement.velocity)
        readings = (*joints, imu.orientation, imu.angular_velocity, imu.acceleration)
        shapes = {np.shape(values) for values in joints}
        fits = shapes == {self._forward.qpos.shape} and bool(np.any(imu.orientation))
        return fits and all(np.isfinite(reading).all() for reading in readings)

    def motion(self, measurement: Measurement, imu: Inertial, down: Array) -> LegMotion:
        """What the legs say at a measurement; `down` is the direction of gravity (3,) in the sensor's frame."""
        data = self._forward.data
        self._forward.place(measurement.position)
        mujoco.mj_comPos(self._forward.model, data)
        rotation = data.site_xmat[self._site].reshape(3, 3)
        published = self._published(measurement)
        feet = range(len(self._geoms))
        velocity, load = np.empty((len(feet), 3)), np.empty(len(feet))
        for foot in feet:
            offset, jacobian = self._touching(foot, rotation, rotation @ down)
            swing = jacobian @ measurement.velocity[self._joints[foot]] + _cross(imu.angular_velocity, offset)
            velocity[foot] = -swing
            load[foot] = self._carried(jacobian, foot, measurement, down) if published is None else published[foot]
        return LegMotion(velocity, load / self._weight)

    def _touching(self, foot: int, rotation: Array, down: Array) -> tuple[Array, Array]:
        """Where the foot's lowest point is, and its Jacobian by the leg's joints (3, 3), in the sensor's frame."""
        model, data = self._forward.model, self._forward.data
        point = data.geom_xpos[self._geoms[foot]] + self._radii[foot] * down
        mujoco.mj_jac(model, data, self._jacobian, None, point, self._bodies[foot])
        leg = self._jacobian[:, self._forward.dofs[self._joints[foot]]]
        return rotation.T @ (point - data.site_xpos[self._site]), rotation.T @ leg

    def _published(self, measurement: Measurement) -> Array | None:
        """The forces [N] that the feet's sensors say (k,); None where they are no numbers, or older than the legs."""
        forces, received = measurement.vectors.get("foot_forces"), measurement.received
        if forces is None or np.shape(forces) != (len(self._geoms),) or not np.isfinite(forces).all():
            return None
        behind = received.get("joints", np.nan) - received.get("foot_forces", np.nan)
        return forces if behind <= self._stale else None

    def _carried(self, jacobian: Array, foot: int, measurement: Measurement, down: Array) -> float:
        """The force [N] that the joints' efforts press the foot down with, were the leg without weight."""
        if measurement.effort is None or not np.isfinite(measurement.effort).all():
            return 0.0
        effort = measurement.effort[self._joints[foot]]
        force, *_ = np.linalg.lstsq(jacobian.T, effort, rcond=0.1)
        return float(force @ down)


class BaseVelocityEstimator:
    """Estimates the velocity of the base, which is that of its inertial sensor, in its own frame.

    Args:
        robot: with a floating base.
        forward: its kinematics.

    Raises:
        OneStrideError: the robot has no floating base, or the model lacks a part of it.
    """

    def __init__(self, robot: RobotDescription, forward: ForwardKinematics) -> None:
        self._legs, self._stale = Legs(robot, forward), robot.detection.joints_stale
        self.reset()

    def reset(self) -> None:
        """Know nothing, as at an activation."""
        self._velocity, self._variance = np.zeros(3), UNKNOWN**2
        self._acceleration: Array | None = None
        self._received: float | None = None

    def velocity(self, measurement: Measurement) -> Array:
        """The velocity (3,) [m/s] as of the last update."""
        del measurement
        return self._velocity.copy()

    def follow(self, measurement: Measurement) -> None:
        """Take a measurement if its inertial sample is new, however often it is seen, by the time between samples.

        A sample that comes after a longer silence than the robot allows its streams stands for no more than that.
        """
        received, before = measurement.received.get("imu"), self._received
        if received is None or (before is not None and received <= before):
            return
        self.update(measurement, 0.0 if before is None else min(received - before, self._stale))
        self._received = received

    def update(self, measurement: Measurement, dt: float) -> Array:
        """Take a measurement, `dt` [s] after the last one.

        Returns:
            The velocity (3,) [m/s] in the base's frame; where the measurement is none, as it was.
        """
        imu = measurement.imu
        if imu is None or not self._legs.sound(measurement, imu):
            return self._velocity.copy()
        down = _down(imu.orientation)
        self._integrate(imu, down, dt)
        self._correct(self._legs.motion(measurement, imu, down))
        return self._velocity.copy()

    def _integrate(self, imu: Inertial, down: Array, dt: float) -> None:
        """`v' = f + g - w x v`, with the specific force `f` and gravity `g` in the base's frame; by trapezoids."""
        now = imu.acceleration + GRAVITY * down - _cross(imu.angular_velocity, self._velocity)
        before = now if self._acceleration is None else self._acceleration
        self._velocity, self._acceleration = self._velocity + 0.5 * dt * (before + now), now
        self._variance = min(self._variance + (IMPACTS * dt) ** 2 + DRIFT**2 * dt, UNKNOWN**2)

    def _correct(self, legs: LegMotion) -> None:
        """Believe each leg by the weight it carries, and the less, the further its word is from what is expected."""
        none, all_of_it = CONTACT
        trust = np.clip((legs.load - none) / (all_of_it - none), 0.0, 1.0)
        for said, trusted in zip(legs.velocity, trust, strict=True):
            if trusted > 0.0:
                noise, error = (LEG / trusted) ** 2, said - self._velocity
                noise *= max(1.0, float(error @ error) / (3.0 * (self._variance + noise)))
                gain = self._variance / (self._variance + noise)
                self._velocity = self._velocity + gain * error
                self._variance *= 1.0 - gain


def _cross(a: Array, b: Array) -> Array:
    """The cross product of two vectors (3,), ten times as fast as numpy's, which is made for many."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _down(orientation: Array) -> Array:
    """The direction of gravity (3,) in the frame of `orientation` (4,) wxyz."""
    inverse, down = np.empty(4), np.empty(3)
    mujoco.mju_negQuat(inverse, orientation / np.linalg.norm(orientation))
    mujoco.mju_rotVecQuat(down, np.array([0.0, 0.0, -1.0]), inverse)
    return down
