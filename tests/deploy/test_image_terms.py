"""Cameras in the contract: inputs of the graph, refusals by name, and contracts from before there were any."""

from __future__ import annotations

from typing import Any

import pytest
from policy_samples import changed, cube_contract, parse

from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError

WRIST: dict[str, Any] = {
    "name": "wrist",
    "source": {"kind": "camera", "camera": "d435", "topic": "wrist/image_raw"},
    "width": 64,
    "height": 48,
}


def with_images(*images: dict[str, Any]) -> dict[str, Any]:
    return changed(cube_contract(), lambda content: content.update(images=list(images), history=2))


def test_pictures_are_inputs_behind_observation_and_noise() -> None:
    contract = parse(with_images(WRIST, {**WRIST, "name": "mono", "encoding": "mono8"}))
    assert list(contract.inputs.items()) == [
        ("observation", (1, 2 * 28)),
        ("noise", (1, 5, 5)),
        ("image.wrist", (1, 2, 48, 64, 3)),
        ("image.mono", (1, 2, 48, 64, 1)),
    ]
    assert contract.observation_size == 28, "pictures are no elements of the observation"
    assert parse(contract.model_dump(mode="json")) == contract


def test_a_contract_of_before_has_no_pictures() -> None:
    content = changed(cube_contract(), lambda content: content.pop("images"))
    assert parse(content) == cube_contract()
    assert list(parse(content).inputs) == ["observation", "noise"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoding": "bgr8"}, "images.0.encoding"),
        ({"width": 0}, "images.0.width"),
        ({"max_age": 0.0}, "images.0.max_age"),
        ({"source": {"kind": "camera"}}, "images.0.source.camera"),
        ({"depth": 3}, "images.0.depth"),
    ],
)
def test_wrong_terms_are_refused_by_field(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OneStrideError, match=message):
        parse(with_images({**WRIST, **wrong}))


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(OneStrideError, match="images: expected each name once, got more for wrist"):
        parse(with_images(WRIST, WRIST))


def test_no_robot_runs_a_policy_that_nothing_shows_pictures() -> None:
    contract = parse(with_images(WRIST))
    assert contract.differences(load_robot("ur5e_2f85")) == [
        "image wrist: the controller feeds no cameras to a policy yet"
    ]
