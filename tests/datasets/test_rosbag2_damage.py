"""Mappings that do not fit and bags that are damaged: one clear error each, the source untouched, no half store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bag_samples import ARM, content_of, mapping_file, plain_messages, read_bag
from bags import joints, write_bag

from onestride.datasets.converters import Options, convert
from onestride.hardware.errors import OneStrideError

pytest.importorskip("mcap.reader", reason="needs the extra `rosbag`")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"base": "/other"}, "expected the base topic among topics, got '/other', has: /state, /command"),
        ({"clock": "mine"}, "expected a usable clock"),
        ({"episodes": {"by": "luck"}}, "expected a usable episodes"),
        ({"episodes": {"by": "gap"}}, "expected a usable episodes.gap.seconds"),
        ({"label": "q"}, "expected the label among the action features, got 'q'"),
        ({"surprise": 1}, "expected a usable surprise"),
        ({"topics": {}}, "expected a usable topics"),
        ({"label_source": "me"}, "expected a usable label_source"),
    ],
)
def test_a_mapping_that_means_nothing_is_one_error(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    bag = write_bag(tmp_path / "bag", plain_messages())
    with pytest.raises(OneStrideError, match=says):
        read_bag(bag, tmp_path, **changes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t["/command"].pop("align"), "expected align hold or next, for it holds the label action"),
        (lambda t: t["/state"].update(align="hold"), "expected no align for the base topic"),
        (lambda t: t.update({"/no": t["/state"]}), "expected distinct feature names, got q more than once"),
        (
            lambda t: t["/state"]["features"]["q"].update(field="posture"),
            "expected a field 'posture'.*available: header",
        ),
        (lambda t: t["/state"]["features"]["q"].update(joints=["z"]), "'q' in a message on /state, got none: without"),
        (lambda t: t["/state"]["features"]["q"].update(field="name", joints=[]), "expected numbers, got list"),
        (lambda t: t["/state"]["features"]["q"].pop("field"), "expected a field to be named, available: header, name"),
        (lambda t: t["/state"]["features"]["q"].update(units=["rad"]), "expected usable features, got: .*2 units"),
        (lambda t: t["/command"]["features"]["action"].update(joints=["a"]), "expected joint names"),
        (
            lambda t: t.update({"/absent": {"features": {"x": {"role": "info"}}}}),
            "unknown topic: got '/absent', available",
        ),
    ],
)
def test_a_mapping_that_does_not_fit_is_one_error(tmp_path: Path, change: Callable[[Any], Any], says: str) -> None:
    bag = write_bag(tmp_path / "bag", plain_messages())
    topics = yaml.safe_load(mapping_file(tmp_path / "m").read_text())["topics"]
    change(topics)
    with pytest.raises(OneStrideError, match=says):
        read_bag(bag, tmp_path, topics=topics)
    assert not (tmp_path / "s").exists()


def test_a_mapping_is_plain_data(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", plain_messages())
    for content in ("!!python/object/apply:os.system [echo]", "base: [", "- 1", "\x00"):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(OneStrideError, match=r"bad\.yaml: expected"):
            convert(bag, tmp_path / "s", options=Options(mapping=tmp_path / "bad.yaml"))


def test_numbers_that_are_none_are_one_error(tmp_path: Path) -> None:
    messages = [*plain_messages(), ("/state", 2 * 10**9, joints(ARM, (0, np.nan)))]
    with pytest.raises(OneStrideError, match=r"/state at 2000000000 ns: q\[1\] 'b': expected finite, got nan"):
        read_bag(write_bag(tmp_path / "bag", messages), tmp_path)
    assert not (tmp_path / "s").exists()


def test_damage_to_the_metadata_is_told_with_a_way_out(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", plain_messages())
    expected, _ = read_bag(bag, tmp_path)
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    with pytest.raises(OneStrideError, match="without it, the files are read as they are"):
        read_bag(bag, tmp_path)
    (bag / "metadata.yaml").unlink()
    store, _ = read_bag(bag, tmp_path)
    assert store.dataset_id == expected.dataset_id
    about = {"relative_file_paths": ["bag.mcap", "bag_1.mcap"], "compression_mode": "none"}
    (bag / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": about}))
    with pytest.raises(OneStrideError, match=r"got none of the name bag_1\.mcap"):
        read_bag(bag, tmp_path)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("share", [0.001, 0.2, 0.7, 0.99])
def test_a_truncated_bag_is_one_error(tmp_path: Path, storage: str, share: float) -> None:
    bag = write_bag(tmp_path / "bag", plain_messages(200), storage)
    file = next(path for path in bag.iterdir() if path.suffix != ".yaml")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    before = content_of(bag)
    with pytest.raises(OneStrideError, match=rf"{file.name}"):
        read_bag(bag, tmp_path)
    assert content_of(bag) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".s", "s"))]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_noise_in_a_bag_is_never_a_foreign_traceback(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path / "bag", plain_messages(40), storage)
    files = sorted(bag.iterdir())
    random = np.random.default_rng(5)
    refused = 0
    for trial in range(60):
        file = files[trial % len(files)]
        content = file.read_bytes()
        length = int(random.integers(1, 40))
        place = int(random.integers(0, len(content) - length))
        file.write_bytes(content[:place] + random.bytes(length) + content[place + length :])
        before = content_of(bag)
        try:
            read_bag(bag, tmp_path)
        except OneStrideError:
            refused += 1
            assert not (tmp_path / "s").exists()
        assert content_of(bag) == before
        file.write_bytes(content)
    assert refused > 10
