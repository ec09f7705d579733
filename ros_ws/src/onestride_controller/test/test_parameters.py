"""The node's parameters, as `colcon test` runs it."""

from pathlib import Path

import rclpy
import yaml
from rclpy.context import Context

from onestride_controller.node import ControllerNode

CONFIG = Path(__file__).resolve().parents[1] / "config" / "controller.yaml"


def test_the_config_file_names_declared_parameters_with_their_defaults() -> None:
    """What the file says is what the node does without it."""
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["/**"]["onestride_controller"]["ros__parameters"]
    context = Context()
    rclpy.init(context=context)
    node = ControllerNode(context=context)
    try:
        assert {name: node.get_parameter(name).value for name in content} == content
    finally:
        node.close()
        context.try_shutdown()
