"""The memory-mapped copy: made once, whole or not at all, verified, and only for the content it was made from."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from windows_samples import PICTURES, VECTORS, sample_store

from onestride.datasets.columns import ColumnReader
from onestride.datasets.memmap_cache import cache_folders
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError

ALL = (*VECTORS, *PICTURES)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return sample_store(tmp_path / "s.zarr", [5, 9, 4])


def mapped(store: Store, cache: Path | None = None) -> Windows:
    return Windows(store, observations=ALL, horizon=3, mode="mapped", cache=cache)


def expected(store: Store) -> bytes:
    return Windows(store, observations=ALL, horizon=3).sample(64)["wrist"].tobytes()


def test_it_is_made_once_beside_the_store_and_plain_numpy_reads_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped(store)
    folder = store.path.with_name("s.zarr.cache") / store.dataset_id
    files = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    pictures = np.load(next(folder.glob("wrist-*.npy")), allow_pickle=False)
    assert pictures.shape == (5 + 1 + 9 + 1 + 4 + 1, 4, 3, 3)
    np.testing.assert_array_equal(np.delete(pictures, [5, 15, 20], axis=0), store.read("wrist"))

    monkeypatch.setattr(ColumnReader, "fill", lambda *_: pytest.fail("read the store again"))
    again = mapped(store)
    assert files == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.undo()
    assert again.sample(64)["wrist"].tobytes() == expected(store)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "no note", "note of another"])
def test_damage_is_found_and_mended(store: Store, tmp_path: Path, damage: str) -> None:
    mapped(store, tmp_path / "cache")
    file = next((tmp_path / "cache" / store.dataset_id).glob("wrist-*.npy"))
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-7] ^= 1
    elif damage == "truncate":
        content = content[:-7]
    elif damage == "empty":
        content = bytearray()
    file.write_bytes(content)
    note = file.with_suffix(".json")
    if damage == "no note":
        note.unlink()
    elif damage == "note of another":
        note.write_text(json.dumps({"sha256": "0" * 64}))
    assert mapped(store, tmp_path / "cache").sample(64)["wrist"].tobytes() == expected(store)


def test_new_content_and_other_features_have_files_of_their_own(store: Store) -> None:
    mapped(store)
    before = store.dataset_id
    store.append([store.read_episode(0)])
    assert store.dataset_id != before
    assert mapped(store).sample(64)["wrist"].tobytes() == expected(store)
    fewer = Windows(store, observations=("force",), horizon=3, mode="mapped")
    np.testing.assert_array_equal(fewer.at(np.arange(5))["observations"].ravel(), store.read("force")[:5])


def test_a_new_one_replaces_those_of_the_stores_former_contents_and_no_others(store: Store, tmp_path: Path) -> None:
    """All in one folder, as in the user's cache; a window that was opened before goes on."""
    cache = tmp_path / "cache"
    other = sample_store(tmp_path / "other.zarr", [5, 9], seed=3)
    mapped(other, cache)
    former, first = mapped(store, cache), store.dataset_id
    right = expected(store)
    (cache / first / "notes.txt").write_text("somebody's own")
    store.append([store.read_episode(0)])
    assert mapped(store, cache).sample(64)["wrist"].tobytes() == expected(store)
    assert {path.name for path in cache.iterdir()} == {other.dataset_id, store.dataset_id, first}
    assert [path.name for path in (cache / first).iterdir()] == ["notes.txt"]
    assert former.sample(64)["wrist"].tobytes() == right
    assert mapped(other, cache).sample(64)["wrist"].tobytes() == expected(other)


def test_one_that_is_being_made_is_left_alone(store: Store, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    mapped(store, cache)
    before = store.dataset_id
    with (cache / before / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store.append([store.read_episode(0)])
        mapped(store, cache)
    assert list((cache / before).glob("wrist-*.npy"))
    store.append([store.read_episode(0)])
    mapped(store, cache)
    assert [path.name for path in cache.iterdir()] == [store.dataset_id]


def test_what_a_killed_process_left_is_cleared(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / store.dataset_id
    folder.mkdir(parents=True)
    leftover = folder / "wrist-0123.npy.unfinished"
    leftover.write_bytes(b"half")
    mapped(store, tmp_path / "cache")
    assert not leftover.exists()
    assert not list(folder.glob("*.unfinished"))


def test_a_store_that_cannot_be_written_beside_uses_the_users_cache(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the way refuses even root."""
    store.path.with_name("s.zarr.cache").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert mapped(store).sample(64)["wrist"].tobytes() == expected(store)
    assert (cache_folders(store)[1] / store.dataset_id).is_dir()
    assert cache_folders(store)[1] == tmp_path / "home" / "onestride" / "windows"
    with pytest.raises(OneStrideError, match=r"expected a writable folder .* use the mode 'streaming'"):
        mapped(store, store.path.with_name("s.zarr.cache"))


_FULL = """
import resource, sys
from pathlib import Path
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError

resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))
try:
    Windows(Store.open(sys.argv[1]), observations=None, horizon=3, mode="mapped", cache=Path(sys.argv[2]))
except OneStrideError as error:
    print(error)
"""


def test_a_full_disk_leaves_nothing_and_says_what_to_do(store: Store, tmp_path: Path) -> None:
    """The kernel refuses to let any file grow over 256 bytes, as it refuses on a full disk."""
    command = [sys.executable, "-c", _FULL, str(store.path), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "expected to write 336 bytes of memory-mapped rows, got:" in done.stdout
    assert "use the mode 'streaming'" in done.stdout
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock"]


_RANK = """
import sys
from pathlib import Path
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
options = dict(observations=None, horizon=3, mode="mapped", cache=Path(sys.argv[2]))
windows = Windows(Store.open(sys.argv[1]), rank=int(sys.argv[3]), ranks=2, **options)
print(windows.sample(32)["observations"].tobytes().hex())
"""


def test_ranks_that_start_together_wait_for_each_other(store: Store, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _RANK, str(store.path), str(tmp_path / "cache")]
    both = [subprocess.Popen([*arguments, str(rank)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    shares = [one.communicate(timeout=60)[0].strip() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    alone = Windows(store, observations=None, horizon=3).sample(64)["observations"]
    assert "".join(shares) == alone.tobytes().hex()
