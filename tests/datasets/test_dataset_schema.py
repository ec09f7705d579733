"""The schema refuses what does not fit together; an episode is refused by feature, element and step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]


def test_a_robot_can_import_it_without_any_file_format() -> None:
    code = "import sys, onestride.datasets.schema; sys.exit(bool({'zarr', 'h5py', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"names": ("x", "y")}, "expected 3 names, got 2"),
        ({"units": ("m",) * 4}, "expected 3 units, got 4"),
        ({"names": ("x", "x", "z")}, "distinct element names"),
        ({"dtype": "float31"}, "got 'float31'"),
        ({"name": "a/b"}, "got 'a/b'"),
        ({"name": "../up"}, "got '../up'"),
        ({"name": ".hidden"}, "got '.hidden'"),
        ({"stream": ""}, "got ''"),
        ({"shape": (0,)}, "positive extents"),
        ({"role": "wish"}, "role"),
        ({"scale": 2.0}, "scale"),
    ],
)
def test_a_feature_that_contradicts_itself_is_refused(wrong: dict[str, Any], says: str) -> None:
    right: dict[str, Any] = {"name": "p", "role": "observation", "shape": (3,), "dtype": "float32"}
    Feature(**right)
    with pytest.raises(ValidationError, match=says):
        Feature(**{**right, **wrong})


def _schema(features: list[Feature], label: str = "action") -> Schema:
    return Schema(features=tuple(features), control_rate=20.0, label=label, label_source="oracle")


def test_a_schema_that_contradicts_itself_is_refused() -> None:
    action = Feature(name="action", role="action", shape=(2,), dtype="float32")
    reward = Feature(name="reward", role="reward", shape=(), dtype="float32")
    with pytest.raises(ValidationError, match="action more than once"):
        _schema([action, action])
    with pytest.raises(ValidationError, match="at most one reward feature, got reward, cost"):
        _schema([action, reward, reward.model_copy(update={"name": "cost"})])
    with pytest.raises(ValidationError, match="label to be an action feature, got 'reward'"):
        _schema([action, reward], label="reward")
    with pytest.raises(ValidationError, match="on the stream 'base'"):
        _schema([action.model_copy(update={"stream": "slow"})])
    with pytest.raises(ValidationError, match="greater than 0"):
        Schema(features=(action,), control_rate=0.0, label="action", label_source="oracle")


def test_an_unknown_feature_or_role_lists_what_exists(schema: Schema) -> None:
    with pytest.raises(OneStrideError, match=r"'positon', available: position, state.qpos, action, reward"):
        schema.feature("positon")
    with pytest.raises(OneStrideError, match="unknown role: got 'obs', available: observation, action"):
        schema.by_role("obs")  # type: ignore[arg-type]  # the point of the test
    assert [one.name for one in schema.by_role("observation")] == ["position", "camera"]
    assert schema.streams == ("base", "video")


def test_a_schema_survives_json(schema: Schema) -> None:
    assert Schema.model_validate_json(schema.model_dump_json()) == schema


def test_a_sound_episode_passes(schema: Schema, make_episode: MakeEpisode) -> None:
    for number in range(5):
        make_episode(number).validate(schema)


def _nan(episode: Episode) -> None:
    episode.data["action"][3, 1] = np.nan


def _infinite_final(episode: Episode) -> None:
    episode.final["position"][2] = np.inf


def _short(episode: Episode) -> None:
    episode.data["reward"] = episode.data["reward"][:-1]


def _wide(episode: Episode) -> None:
    episode.data["reward"] = episode.data["reward"].astype(np.float64)


def _missing(episode: Episode) -> None:
    del episode.data["done"]


def _surplus(episode: Episode) -> None:
    episode.data["extra"] = episode.data["reward"]


def _clockless(episode: Episode) -> None:
    del episode.timestamps["video"]


def _backwards(episode: Episode) -> None:
    episode.timestamps["base"][4] = episode.timestamps["base"][3] - 1


def _float_clock(episode: Episode) -> None:
    seconds: Any = episode.timestamps["base"] / 1e9
    episode.timestamps["base"] = seconds


def _final_action(episode: Episode) -> None:
    episode.final["action"] = episode.data["action"][0]


def _unspeakable(episode: Episode) -> None:
    episode.attributes["when"] = object()  # type: ignore[assignment]  # the point of the test


def _nan_attribute(episode: Episode) -> None:
    episode.attributes["score"] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_nan, r"action\[1\] 'dy' at step 3: expected finite, got nan"),
        (_infinite_final, r"position\[2\] 'z' after the last step: expected finite, got inf"),
        (_short, r"feature 'reward': expected shape \(10,\), got \(9,\)"),
        (_wide, "feature 'reward': expected float32, got float64"),
        (_missing, "got missing: done, unexpected: none"),
        (_surplus, "got missing: none, unexpected: extra"),
        (_clockless, "got missing: video"),
        (_backwards, "stream 'base': expected never to decrease, got a step back at step 4"),
        (_float_clock, r"expected \(T,\) int64"),
        (_final_action, r"got 'action' \(action"),
        (_unspeakable, "expected JSON values"),
        (_nan_attribute, "expected JSON values"),
    ],
)
def test_a_spoilt_episode_is_refused_by_name(
    schema: Schema, make_episode: MakeEpisode, spoil: Callable[[Episode], None], says: str
) -> None:
    episode = make_episode(1, length=10)
    spoil(episode)
    with pytest.raises(OneStrideError, match=says):
        episode.validate(schema)


def test_an_empty_episode_is_refused(schema: Schema) -> None:
    data = {one.name: np.zeros((0, *one.shape), one.dtype) for one in schema.features}
    clocks = {stream: np.zeros(0, np.int64) for stream in schema.streams}
    with pytest.raises(OneStrideError, match="at least one step"):
        Episode(data, clocks).validate(schema)


def test_the_synthetic_clock_does_not_drift() -> None:
    clock = synthetic_clock(90_001, 30.0)
    assert clock[-1] == 3_000_000_000_000
    assert clock[1] == 33_333_333
