"""The adapters' parameters, as `colcon test` runs it."""

from pathlib import Path

import yaml

from onestride_drivers import trajectory, unitree

CONFIG = Path(__file__).resolve().parents[1] / "config" / "drivers.yaml"


def test_the_config_file_names_declared_parameters_with_their_defaults() -> None:
    """What the file says is what the nodes do without it."""
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["/**"]
    for module in (unitree, trajectory):
        declared = {name: default for name, (default, _) in module.PARAMETERS.items()}
        assert content[module.NODE_NAME]["ros__parameters"] == declared
