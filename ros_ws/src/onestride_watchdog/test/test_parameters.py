"""The node's parameters, as `colcon test` runs it."""

from pathlib import Path

import rclpy
import yaml
from rclpy.context import Context

from onestride_watchdog.node import WatchdogNode

CONFIG = Path(__file__).resolve().parents[1] / "config" / "watchdog.yaml"


def test_the_config_file_names_declared_parameters_with_their_defaults() -> None:
    """What the file says is what the node does without it."""
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["/**"]["onestride_watchdog"]["ros__parameters"]
    context = Context()
    rclpy.init(context=context)
    node = WatchdogNode(context=context)
    try:
        assert {name: node.get_parameter(name).value for name in content} == content
    finally:
        node.destroy_node()
        context.try_shutdown()
