"""Who else is on the command topics, and who is on a person's, by the ROS graph."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rclpy.node import Node

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError

Endpoint = tuple[int, ...]
"""What DDS tells one publisher from another by."""

#: The owner of an endpoint whose participant has not introduced its nodes (yet).
UNKNOWN = "a nameless participant"

#: How long to look at the graph before believing that nobody else is there [s]. In simulated sessions neighbours
#: are found within 0.5 s, see `onestride.deploy.confinement.PROFILE`.
DISCOVERY_TIME = 1.0

#: How long a participant may take to introduce its nodes; afterwards it counts as foreign [s].
INTRODUCTION_TIME = 4.0


class Neighbours:
    """Watches who publishes on and subscribes to the command topics.

    Args:
        node: looks at the graph.
        robot: whose command topics are watched.
        readers: nodes that may subscribe; in the node's namespace unless absolute.
        writers: nodes that may publish besides this one, with one endpoint on each topic: the one that was there when
            `recognise` was called. Another of the same name is foreign.
    """

    def __init__(self, node: Node, robot: RobotDescription, readers: Sequence[str], writers: Sequence[str]) -> None:
        self._node, self._topics = node, [group.topic for group in robot.commands]
        self._readers = {self._absolute(name) for name in readers}
        self._writers = {self._absolute(name) for name in writers}
        self._unknown_since: float | None = None
        self._known: dict[tuple[str, Endpoint], str] = {}

    def _absolute(self, name: str) -> str:
        return name if name.startswith("/") else _join(self._node.get_namespace(), name)

    def refuse_foreign(self, born: float, ours: int) -> None:
        """Look until the graph is known, and refuse strangers. Declared writers may have been restarted since.

        Args:
            born: when the node joined the graph, on the monotonic clock [s].
            ours: publishers that this node has on each command topic.

        Raises:
            OneStrideError: a stranger publishes on or subscribes to a command topic.
        """
        self._known = {}
        time.sleep(max(0.0, born + DISCOVERY_TIME - time.monotonic()))
        deadline = time.monotonic() + INTRODUCTION_TIME
        while True:
            found = self.foreign_writers(ours) + self.foreign_readers()
            if not any(UNKNOWN in one for one in found) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if found:
            raise OneStrideError(
                f"expected the command topics to be this node's alone, but {'; '.join(found)}; "
                "end it, or declare it in declared_peers (readers) or declared_writers"
            )

    def recognise(self) -> None:
        """Remember the declared writers' endpoints: from now on only these are theirs."""
        self._known = {}
        for topic in self._topics:
            for info in self._node.get_publishers_info_by_topic(topic):
                if owner(info) in self._writers:
                    self._known[topic, tuple(info.endpoint_gid)] = owner(info)

    def second_writers(self, ours: int) -> list[str]:
        """Undeclared publishers, as `foreign_writers`; declared ones get the time to introduce themselves."""
        found, now = self.foreign_writers(ours), time.monotonic()
        if not self._awaited or not any(UNKNOWN in one for one in found):
            self._unknown_since = None
            return found
        self._unknown_since = self._unknown_since or now
        if now - self._unknown_since > INTRODUCTION_TIME:
            return found
        return [one for one in found if UNKNOWN not in one]

    def foreign_writers(self, ours: int) -> list[str]:
        """Undeclared publishers on the command topics, when this node has `ours` on each topic."""
        me = self._node.get_fully_qualified_name()
        found = []
        for topic in self._topics:
            infos = self._node.get_publishers_info_by_topic(topic)
            names = Counter(owner(info) for info in infos if (topic, tuple(info.endpoint_gid)) not in self._known)
            names[me] -= ours
            found += [f"{name} publishes on {topic}" for name in (+names) if name not in self._awaited]
        return found

    @property
    def _awaited(self) -> set[str]:
        """Declared writers of which no endpoint is known yet."""
        return self._writers - set(self._known.values())

    def foreign_readers(self) -> list[str]:
        """Undeclared subscribers to the command topics."""
        found = []
        for topic in self._topics:
            names = {owner(info) for info in self._node.get_subscriptions_info_by_topic(topic)}
            found += [f"{name} subscribes to {topic}" for name in sorted(names - self._readers)]
        return found


def rivals(node: Node, topics: Iterable[str]) -> list[str]:
    """Topics on which more than one publishes, with everybody who does: only one person may be at the controls."""
    found = []
    for topic in dict.fromkeys(topics):
        names = sorted(map(owner, node.get_publishers_info_by_topic(topic)))
        if len(names) > 1:
            found.append(f"{' and '.join(names)} publish on {topic}")
    return found


def owner(info: Any) -> str:
    """The full name of an endpoint's node."""
    if info.node_name == "_NODE_NAME_UNKNOWN_":  # what rmw reports
        return UNKNOWN
    return _join(info.node_namespace, info.node_name)


def _join(namespace: str, name: str) -> str:
    return f"{namespace.rstrip('/')}/{name}"
