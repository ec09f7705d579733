"""The file of transitions: what was flushed comes back, what was not counted is cut off, damage is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onestride.hardware.errors import OneStrideError
from onestride.training.transitions import Records, TransitionFile, layout


def some(count: int) -> Records:
    random, records = np.random.default_rng(0), np.zeros(count, layout(3, 2))
    for name in records.dtype.names or ():
        kind = records[name].dtype
        records[name] = (
            random.integers(0, 2, records[name].shape) if kind.kind == "b" else random.normal(size=records[name].shape)
        )
    return records


def write(path: Path, records: Records) -> None:
    file = TransitionFile(path, 3, 2)
    assert len(file.open(0)) == 0
    for part in np.array_split(records, 3):
        file.append(part)
    file.flush()
    assert file.count == len(records)
    file.close()


@pytest.mark.parametrize("count", [0, 4, 7])
def test_the_counted_come_back_and_the_rest_is_cut_off(tmp_path: Path, count: int) -> None:
    path, records = tmp_path / "t", some(7)
    write(path, records)
    with path.open("ab") as file:
        file.write(b"half a record")
    again = TransitionFile(path, 3, 2)
    assert np.array_equal(again.open(count), records[:count])
    again.append(records[5:6])
    again.flush()
    again.close()
    third = TransitionFile(path, 3, 2)
    assert np.array_equal(third.open(count + 1), np.concatenate([records[:count], records[5:6]]))
    third.close()


def test_every_altered_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write(path, some(2))
    whole = path.read_bytes()
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 0x10
        path.write_bytes(altered)
        number = place // (len(whole) // 2)
        with pytest.raises(OneStrideError, match=f"expected transition {number} as it was written"):
            TransitionFile(path, 3, 2).open(2)


def test_missing_records_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write(path, some(3))
    with pytest.raises(OneStrideError, match="expected 5 transitions, got 3"):
        TransitionFile(path, 3, 2).open(5)


def test_the_newest_are_read_beside_a_run(tmp_path: Path) -> None:
    path, records = tmp_path / "t", some(7)
    assert len(TransitionFile(path, 3, 2).newest(3)) == 0 and not path.exists()
    write(path, records)
    with path.open("ab") as file:
        file.write(b"half a record")
    before = path.read_bytes()
    assert np.array_equal(TransitionFile(path, 3, 2).newest(3), records[-3:])
    assert np.array_equal(TransitionFile(path, 3, 2).newest(100), records)
    assert path.read_bytes() == before
