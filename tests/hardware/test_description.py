"""Robot descriptions refuse contradictions by name."""

from __future__ import annotations

from importlib import resources

import pytest
import yaml

from onestride.hardware.description import available_robots, load_robot, parse_robot
from onestride.hardware.errors import OneStrideError


@pytest.fixture
def content():
    text = (resources.files("onestride.hardware") / "robots" / "ur5e_2f85.yaml").read_text()
    return yaml.safe_load(text)


def test_every_shipped_robot_loads():
    for name in available_robots():
        assert load_robot(name).id == name


def test_joint_limits_are_the_ur5es():
    robot = load_robot("ur5e_2f85")
    assert robot.velocity_limits[:6] == pytest.approx([3.1416] * 6)
    assert robot.position_limits[1][2] == pytest.approx(3.1415)


def test_unknown_robot_lists_the_known():
    with pytest.raises(OneStrideError, match=r"unknown robot: got 'r2d2', available: .*ur5e_2f85"):
        load_robot("r2d2")


def test_missing_file(tmp_path):
    with pytest.raises(OneStrideError, match="not found"):
        load_robot(tmp_path / "none.yaml")


def spoil(content, change):
    change(content)
    return yaml.safe_dump(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("safe_stop"), "safe_stop: Field required"),
        (lambda c: c.update(colour="blue"), "colour: Extra inputs"),
        (lambda c: c["joints"][0].update(position=[1.0, -1.0]), "expected lower < upper"),
        (lambda c: c["joints"][0].update(default=9.0), "expected default within"),
        (lambda c: c["joints"][0].update(velocity=-1.0), "velocity"),
        (lambda c: c["joints"].append(dict(c["joints"][0])), "expected every joint once"),
        (lambda c: c["commands"].pop(), "expected command topics for exactly the joints"),
        (lambda c: c["safe_stop"].update(completes_within=0.01), "braking from the highest speed takes"),
    ],
)
def test_contradictions_are_named(content, change, message):
    with pytest.raises(OneStrideError, match=message):
        parse_robot(spoil(content, change), source="test.yaml")


def test_yaml_is_read_safely():
    with pytest.raises(OneStrideError, match="not readable as YAML"):
        parse_robot("!!python/object/apply:os.system ['true']", source="evil.yaml")
