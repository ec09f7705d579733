"""The node's findings as `diagnostic_msgs/DiagnosticArray`; what they are is in `onestride.deploy.diagnostics`."""

from __future__ import annotations

import json
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from onestride.deploy.diagnostics import Finding, Glance, diagnose

#: Where everybody looks, and where a simulated run keeps it to itself.
REAL, SIMULATED = "/diagnostics", "diagnostics"
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class Diagnostics:
    """Publishes what there is to say since the last time.

    Args:
        node: owns the publisher; its name comes before each finding's.
        simulated: keep it in the node's namespace.
        robot: id of the hardware.
    """

    def __init__(self, node: Node, simulated: bool, robot: str) -> None:
        self._node, self._robot = node, robot
        self._publisher = node.create_publisher(DiagnosticArray, SIMULATED if simulated else REAL, RELIABLE)
        self._before: Glance | None = None

    def publish(self, now: Glance) -> None:
        """Say what a glance shows."""
        findings, self._before = diagnose(now, self._before), now
        message = DiagnosticArray(status=[self._status(finding) for finding in findings])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _status(self, finding: Finding) -> Any:
        return DiagnosticStatus(
            level=bytes([finding.severity]),
            name=f"{self._node.get_name()}: {finding.name}",
            message=finding.message,
            hardware_id=self._robot,
            values=[KeyValue(key=key, value=_text(value)) for key, value in finding.values.items()],
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
