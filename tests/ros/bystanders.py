"""A robot that forgives a busy machine, and a witness of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from onestride.hardware import description

from .recorder import ARM, GRIPPER, Participant

SHIPPED = Path(description.__file__).parent / "robots" / "ur5e_2f85.yaml"


def patient_robot(path: Path, **changes: Any) -> Path:
    """The shipped robot with detection bounds that half a second's stall of the machine does not reach."""
    content = yaml.safe_load(SHIPPED.read_text())
    content["detection"] = dict.fromkeys(("joints_stale", "objects_stale", "policy_stall", "heartbeat"), 0.6)
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


class Witness(Participant):
    """Looks at the graph all the time: who was ever seen publishing on a command topic, and which nodes there were."""

    def __init__(self, namespace: str, environment: Mapping[str, str]) -> None:
        super().__init__("witness", namespace, environment)
        self.writers: set[str] = set()
        self.nodes: set[str] = set()
        self.node.create_timer(0.02, self._look)

    def _look(self) -> None:
        self.nodes |= set(self.node.get_node_names())
        for topic in (ARM, GRIPPER):
            full = self.node.resolve_topic_name(topic)
            self.writers |= {info.node_name for info in self.node.get_publishers_info_by_topic(full)}
