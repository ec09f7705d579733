"""Whatever happens to a store's files: one clear error; and what repair keeps is what was recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets.repair import repair
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], bool]
EXAMPLES = 25
HARMLESS = (".lock", "segments/zarr.json")
"""Nothing is read from these: their damage is none."""


@pytest.fixture
def recorded(store: Store, make_episode: MakeEpisode) -> Store:
    store.append([make_episode(number, length=10) for number in range(3)])
    store.append([make_episode(3, length=10)])
    return store


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutant_is_refused_in_one_error_and_repaired_without_inventing(
    recorded: Store, make_episode: MakeEpisode, same_episode: Same, tmp_path: Path, data: st.DataObject
) -> None:
    mutant = tmp_path / "mutant"
    shutil.rmtree(mutant, ignore_errors=True)
    shutil.copytree(recorded.path, mutant)
    files = sorted(path.relative_to(mutant).as_posix() for path in mutant.rglob("*") if path.is_file())
    name = data.draw(st.sampled_from(files))
    _mutate(mutant / name, data)
    try:
        store = Store.open(mutant)
        store.verify()
        assert name in HARMLESS, "damage that nobody notices"
        numbers = range(4)
    except OneStrideError as error:
        assert len(str(error).splitlines()) == 1
        try:
            repair(mutant)
        except OneStrideError as refusal:
            assert name == "zarr.json", refusal
            return
        store = Store.open(mutant)
        store.verify()
        # Two or more are left: each file belongs to one of two segments.
        numbers = [int(str(info.attributes["seed"])) for info in store.episodes]
        assert set(numbers) >= {0, 1, 2} or 3 in numbers
    for place, number in enumerate(numbers):
        assert same_episode(store.read_episode(place), make_episode(number, length=10))


def _mutate(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "remove", "zero"]))
    if how == "remove" or not content:
        path.unlink()
        return
    at = data.draw(st.integers(0, len(content) - 1))
    if how == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del content[at:]
    elif how == "grow":
        content += bytes(at + 1)
    else:
        content[at:] = bytes(x ^ 255 for x in content[at:])
    path.write_bytes(content)
