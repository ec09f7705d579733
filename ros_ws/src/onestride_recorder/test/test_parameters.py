"""The node's parameters, as `colcon test` runs it."""

from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.context import Context

from onestride.hardware.errors import OneStrideError
from onestride_recorder.node import RecorderNode

CONFIG = Path(__file__).resolve().parents[1] / "config" / "recorder.yaml"


def test_the_config_file_names_declared_parameters_with_their_defaults() -> None:
    """What the file says is what the node does without it, and without a folder it does nothing."""
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["/**"]["onestride_recorder"]["ros__parameters"]
    context = Context()
    rclpy.init(context=context)
    node = RecorderNode(context=context)
    try:
        assert {name: node.get_parameter(name).value for name in content} == content
        with pytest.raises(OneStrideError, match="parameter directory: expected a folder, got none"):
            node.check()
    finally:
        node.close()
        context.try_shutdown()
