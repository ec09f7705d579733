"""Where the moved frame is, and the action that keeps a robot where it was sent."""

from __future__ import annotations

import numpy as np

from onestride.deploy.contract import Contract
from onestride.deploy.kinematics import ForwardKinematics, wrap, yaw_of_matrix
from onestride.deploy.terms import ActionTerm
from onestride.hardware.state import Array, Measurement

#: Parts of a frame (4,) that a mode moves.
PARTS = {"effector_position_increment": slice(0, 3), "effector_yaw_increment": slice(3, 4)}


def placed(contract: Contract) -> list[tuple[slice, ActionTerm]]:
    """Where each term lies in an action."""
    ends = np.cumsum([term.size for term in contract.actions]).tolist()
    return [(slice(end - term.size, end), term) for end, term in zip(ends, contract.actions, strict=True)]


class Increments:
    """From joint targets to the increments of a contract: what `ActionMapper` does, turned round.

    A frame is its position [m] and yaw [rad] in the world, (4,).
    """

    def __init__(self, contract: Contract, forward: ForwardKinematics) -> None:
        self._terms, self._forward, self._size = contract.kinematics, forward, contract.action_size
        self._lower, self._upper = forward.robot.position_limits
        self._effector = [
            (place, PARTS[term.mode], term.uniform_scale) for place, term in placed(contract) if term.mode in PARTS
        ]
        self._joints = [
            (place, forward.robot.indices(term.joints), term.uniform_scale)
            for place, term in placed(contract)
            if term.joints
        ]

    def frame(self, position: Array) -> Array:
        """The moved frame at joints (n,) [rad]; zeros where the contract moves none."""
        if self._terms is None:
            return np.zeros(4)
        self._forward.place(position)
        return self._placed()

    def write_frame(self, action: Array, frame: Array, measurement: Measurement) -> None:
        """Write the increments from the measured frame to `frame` into `action` (Da,)."""
        if self._terms is None:
            return
        self._forward.place(measurement.position, measurement.velocity, self._terms.delay)
        increment = frame - self._placed()
        increment[3] = wrap(float(increment[3]))
        for place, part, scale in self._effector:
            action[place] = increment[part] / scale

    def write_joints(self, action: Array, targets: Array, measurement: Measurement) -> None:
        """Write the increments from the measured joints to `targets` (n,) [rad]; nothing for a target of NaN."""
        for place, joints, scale in self._joints:
            start = np.clip(measurement.position[joints], self._lower[joints], self._upper[joints])
            increment = (targets[joints] - start) / scale
            action[place] = np.where(np.isnan(increment), action[place], increment)

    def staying(self, measurement: Measurement, last_sent: Array, frame: Array | None = None) -> Array:
        """The action (Da,) that leaves the robot where it was sent.

        Increments count from what is measured. A loaded arm hangs below its target, so that an action of zeros would
        let it sink a little with every policy step, and a gripper open.

        Args:
            measurement: the newest.
            last_sent: joint targets (n,) [rad].
            frame: where the moved frame was sent (4,); default by `last_sent`, which is as exact as inverse
                kinematics was.
        """
        action = np.zeros(self._size)
        self.write_frame(action, self.frame(last_sent) if frame is None else frame, measurement)
        self.write_joints(action, last_sent, measurement)
        return action

    def sent(self, action: Array, measurement: Measurement) -> Array:
        """The frame (4,) to which an action (Da,) sends the moved frame; zeros where the contract moves none."""
        frame = np.zeros(4)
        if self._terms is None:
            return frame
        for place, part, scale in self._effector:
            frame[part] = action[place] * scale
        self._forward.place(measurement.position, measurement.velocity, self._terms.delay)
        frame += self._placed()
        frame[:3] = np.clip(frame[:3], *self._terms.workspace)
        return frame

    def _placed(self) -> Array:
        assert self._terms is not None
        yaw = yaw_of_matrix(self._forward.rotation(self._terms.frame))
        return np.append(self._forward.position(self._terms.frame), yaw)
