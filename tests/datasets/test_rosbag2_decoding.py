"""Messages decoded many at once against the same messages decoded one by one: rows, times, counts and complaints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_samples import ARM, MS, read_bag
from bags import floats, header, joints, make, write_bag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets.converters import Report
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

decoding = pytest.importorskip(
    "onestride.datasets.converters.rosbag2_decoding", reason="needs the extra `rosbag`", exc_type=ImportError
)
from onestride.datasets.converters.rosbag2_bag import Bag  # noqa: E402

NAMES = st.sampled_from((ARM, ARM[::-1], (*ARM, "c"), (), ("a",)))
VALUES = st.floats(-1e9, 1e9, width=32)


@st.composite
def states(draw: st.DrawFn) -> Any:
    """Joint states whose names come and go, in runs."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        names, stamped = draw(NAMES), draw(st.booleans())
        for _ in range(draw(st.integers(1, 12))):
            time = 10**9 + len(found) * 10 * MS
            values = draw(st.lists(VALUES, min_size=len(names), max_size=len(names)))
            velocity = values if stamped else ()
            found.append(("/state", time, joints(names, values, time + 1 if stamped else 0, velocity)))
            if draw(st.integers(0, 5)):
                found.append(("/command", time + 2 * MS, floats(*values[:2], *(0.5,) * (2 - len(values[:2])))))
    return found


def _both(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> list[tuple[Store, Report] | str]:
    """What many at once give, and what one by one gives."""
    found: list[tuple[Store, Report] | str] = []
    for forms in (decoding.FORMS, 0):
        folder = tmp_path / str(forms)
        folder.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "FORMS", forms)
            try:
                found.append(read_bag(bag, folder, **changes))
            except OneStrideError as error:
                found.append(str(error).replace(str(folder), ""))
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=states(), stamped=st.booleans())
def test_many_at_once_give_what_one_by_one_gives(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, messages: Any, stamped: bool
) -> None:
    folder = tmp_path_factory.mktemp("both")
    bag = write_bag(folder / "bag", messages)
    fast, general = _both(bag, folder, monkeypatch, clock="stamped" if stamped else "received", **_held(stamped))
    if isinstance(fast, str) or isinstance(general, str):
        assert fast == general
        return
    assert fast[0].schema == general[0].schema
    assert sorted(fast[1].left_out) == sorted(general[1].left_out)
    assert (fast[1].kept, fast[1].changed) == (general[1].kept, general[1].changed)
    for feature in general[0].schema.features:
        assert fast[0].read(feature.name).tobytes() == general[0].read(feature.name).tobytes(), feature.name
    np.testing.assert_array_equal(fast[0].read_time(), general[0].read_time())


def _held(stamped: bool) -> dict[str, Any]:
    """The command has no stamp, so that its clock is the recorder's."""
    command = {"align": "hold", "clock": "received", "features": {"action": {"role": "action", "field": "data"}}}
    state = {"features": {"q": {"role": "observation", "field": "position", "joints": list(ARM)}}}
    return {"topics": {"/state": state, "/command": command}} if stamped else {}


def test_messages_of_one_form_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing is gained; a pose leaves as (x, y, z, w, x, y, z) in the house's order."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 7))
    messages: list[tuple[str, int, Any]] = []
    for number, row in enumerate(rows):
        time = 10**9 + number * 10 * MS
        position = make("geometry_msgs/Point", x=row[0], y=row[1], z=row[2])
        turned = make("geometry_msgs/Quaternion", w=row[3], x=row[4], y=row[5], z=row[6])
        pose = make("geometry_msgs/Pose", position=position, orientation=turned)
        messages.append(("/state", time, make("geometry_msgs/PoseStamped", header=header(time), pose=pose)))
        messages.append(("/command", time + MS, floats(*row[:2])))
    bag = write_bag(tmp_path / "bag", messages)
    decoded: list[str] = []
    decode = Bag.decode

    def counted(self: Bag, message: Any) -> Any:
        decoded.append(message.topic)
        return decode(self, message)

    monkeypatch.setattr(Bag, "decode", counted)
    command = {"align": "next", "features": {"action": {"role": "action", "field": "data"}}}
    store, _ = read_bag(
        bag,
        tmp_path,
        topics={"/state": {"features": {"pose": {"role": "observation"}}}, "/command": command},
    )
    np.testing.assert_array_equal(store.read("pose"), rows)
    np.testing.assert_array_equal(store.read("action"), rows[:, :2])
    assert len(decoded) < 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_told_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    messages = [("/state", 10**9 + n * MS, joints(ARM, (n, value if n == 17 else 0))) for n in range(30)]
    messages += [("/command", 10**9, floats(1, 2))]
    bag = write_bag(tmp_path / "bag", sorted(messages, key=lambda one: one[1]))
    fast, general = _both(bag, tmp_path, monkeypatch)
    assert fast == general
    assert "/state at 1017000000 ns" in str(fast)
    assert "expected finite" in str(fast)


def test_bytes_at_the_end_that_some_writers_append_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bags import Raw, rosbag2, types

    kinds = {"/state": "sensor_msgs/msg/JointState", "/command": "std_msgs/msg/Float64MultiArray"}
    plain = [("/state", 10**9 + n * MS, joints(ARM, (n, -n))) for n in range(20)]
    plain += [("/command", 10**9 + n * MS, floats(n, 2)) for n in range(20)]
    with rosbag2.Writer(tmp_path / "bag", version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        links = {topic: writer.add_connection(topic, kind, typestore=types()) for topic, kind in kinds.items()}
        for number, (topic, time, message) in enumerate(sorted(plain, key=lambda one: one[1])):
            content = Raw(types().serialize_cdr(message, kinds[topic])) + bytes(number % 4)
            writer.write(links[topic], time, content)
    fast, general = _both(tmp_path / "bag", tmp_path, monkeypatch)
    assert not isinstance(fast, str)
    assert not isinstance(general, str)
    assert fast[0].dataset_id == general[0].dataset_id
    np.testing.assert_array_equal(fast[0].read("q")[:, 0], np.arange(20))
