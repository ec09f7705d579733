"""The table of agents, and configs through JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from onestride.hardware.errors import OneStrideError
from onestride.training.agents import catalogue
from onestride.training.agents.mvp import MVPAgent, MVPConfig


def test_every_row_loads_and_names_its_config() -> None:
    for name in catalogue.AGENTS:
        entry = catalogue.find(name)
        assert catalogue.name_of(entry.config()) == name
    assert catalogue.find("mvp") == (MVPConfig, MVPAgent)


def test_an_unknown_agent_lists_those_there_are() -> None:
    with pytest.raises(OneStrideError, match="unknown agent: got 'foo', available: mvp"):
        catalogue.find("foo")


def test_a_foreign_config_is_refused() -> None:
    @dataclass(frozen=True)
    class Other(MVPConfig):
        pass

    with pytest.raises(OneStrideError, match="unknown agent config: got 'Other'"):
        catalogue.name_of(Other())


def test_config_round_trip_through_json() -> None:
    config = MVPConfig(hidden=(7, 9), lr=1 / 3, nfe=(1, 8))
    text = json.dumps(catalogue.config_to_json(config))
    assert catalogue.config_from_json("mvp", json.loads(text)) == config


@pytest.mark.parametrize("change", [{"surplus": 1}, {"lr": None}, {"horizon": "five"}])
def test_a_foreign_config_file_is_refused(change: dict[str, object]) -> None:
    values = {**catalogue.config_to_json(MVPConfig()), **change}
    with pytest.raises(OneStrideError, match="config of mvp: expected"):
        catalogue.config_from_json("mvp", values)


def test_a_missing_field_is_refused() -> None:
    values = catalogue.config_to_json(MVPConfig())
    del values["lr"]
    with pytest.raises(OneStrideError, match="config of mvp: expected"):
        catalogue.config_from_json("mvp", values)
