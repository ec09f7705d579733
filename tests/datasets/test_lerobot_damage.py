"""LeRobot datasets that are spoilt: one clear error each or no matter, the source untouched, no half store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_samples import (
    CAMERA,
    edit_info,
    edit_rows,
    write_v21,
)

from onestride.datasets.converters import Options, convert
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

pa = pytest.importorskip("pyarrow", reason="needs the extra `lerobot`")
pq = pytest.importorskip("pyarrow.parquet")
av = pytest.importorskip("av", reason="needs the extra `lerobot`")


@pytest.fixture
def v21(tmp_path: Path) -> Path:
    """A dataset in the v2.1 layout; lerobot's own script takes it, see `test_lerobot_reader`."""
    return write_v21(tmp_path / "v21")


def _list_of(values: Any, width: int) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(values, np.float32).ravel()), width)


def _nan(columns: dict[str, Any]) -> None:
    columns["action"] = _list_of([[0, 1], [2, 3], [4, np.nan], [6, 7]], 2)


def _wide(columns: dict[str, Any]) -> None:
    columns["action"] = _list_of(np.zeros((4, 5)), 5)


def _ragged(columns: dict[str, Any]) -> None:
    columns["action"] = pa.array([[1.0, 2.0], [1.0], [1.0, 2.0, 3.0], [1.0, 2.0]], pa.list_(pa.float32()))


def _null(columns: dict[str, Any]) -> None:
    columns["action"] = pa.array([[1.0, 2.0], None, [1.0, 2.0], [1.0, 2.0]], pa.list_(pa.float32(), 2))


def _backwards(columns: dict[str, Any]) -> None:
    columns["timestamp"] = pa.array(np.array([0.0, 0.3, 0.2, 0.5], np.float32))


def _twice(columns: dict[str, Any]) -> None:
    columns["episode_index"] = pa.array([0, 0, 0, 0])


def _words(columns: dict[str, Any]) -> None:
    columns["action"] = pa.array(["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_nan, r"episode 1, action\[1\]: expected finite numbers, got nan at step 2"),
        (_wide, r"episode 1, action: expected rows of shape \(2,\), got 5 values"),
        (_ragged, "episode 1, action: expected rows of shape .*different lengths"),
        (_null, "episode 1, action: expected a value in every row, got none in 1"),
        (_backwards, "episode 1: expected time never to go back, got a step back at row 2"),
        (_twice, "expected the rows of episode 0 together"),
        (_words, "expected column action of"),
    ],
)
def test_spoilt_rows_are_one_error_and_no_half_store(
    v21: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    shutil.rmtree(v21 / "videos")
    edit_rows(v21, change)
    _refused(v21, tmp_path, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda info: info.pop("fps"), "expected usable fps"),
        (lambda info: info.pop("features"), "expected usable features"),
        (lambda info: info.pop("codebase_version"), "expected usable codebase_version"),
        (lambda info: info.update(codebase_version="v1.6"), "expected codebase_version v2.0, v2.1, v3.0, got 'v1.6'"),
        (lambda info: info.update(fps=0), "expected usable fps"),
        (lambda info: info["features"].pop("action"), "expected a column action or actions"),
        (lambda info: info["features"]["action"].update(shape=[0]), "expected"),
        (lambda info: info["features"][CAMERA].update(shape=[48, 64, 1]), r"expected a camera of shape \(H, W, 3\)"),
        (lambda info: info["features"][CAMERA].update(shape=[64, 48, 3]), "expected frames of"),
        (lambda info: info.update(chunks_size=0), "expected usable chunks_size"),
    ],
)
def test_spoilt_information_is_one_error_and_no_half_store(
    v21: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    edit_info(v21, change)
    _refused(v21, tmp_path, says)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize(
    "name",
    [
        "meta/info.json",
        "meta/tasks.jsonl",
        "meta/episodes.jsonl",
        "data/chunk-000/episode_000001.parquet",
        f"videos/chunk-000/{CAMERA}/episode_000001.mp4",
    ],
)
def test_a_truncated_file_is_one_error_or_does_not_matter(v21: Path, tmp_path: Path, name: str, share: float) -> None:
    """Of JSON lines a cut may fall between two, and the last bytes of an mp4 are a remark; the rest is refused."""
    content = (v21 / name).read_bytes()
    (v21 / name).write_bytes(content[: int(len(content) * share)])
    if name.endswith(".jsonl") or (name.endswith(".mp4") and share > 0.99):
        _refused_or_sound(v21, tmp_path)
    else:
        _refused(v21, tmp_path, Path(name).name)


def test_noise_in_any_file_is_never_a_foreign_traceback(v21: Path, tmp_path: Path) -> None:
    """Overwritten stretches either do not matter, or are one error of ours."""
    files = sorted(path for path in v21.rglob("*") if path.is_file())
    random = np.random.default_rng(3)
    refused = 0
    for trial in range(60):
        path = files[trial % len(files)]
        content = path.read_bytes()
        length = int(random.integers(1, 64))
        place = int(random.integers(0, max(1, len(content) - length)))
        path.write_bytes(content[:place] + random.bytes(length) + content[place + length :])
        refused += _refused_or_sound(v21, tmp_path)
        path.write_bytes(content)
    assert refused > 10


def test_an_image_outside_the_dataset_is_not_read(tmp_path: Path) -> None:
    """Rows may name image files beside them; a name that leads elsewhere leads nowhere."""
    from onestride.datasets.converters.lerobot_rows import images

    (tmp_path / "root").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"i": pa.array([{"bytes": None, "path": "../secret.png"}], kind)})
    with pytest.raises(OneStrideError, match="i at row 0: expected an image, got none"):
        images(table, "i", (1, 1, 3), tmp_path / "root", "i")


def _refused(root: Path, tmp_path: Path, says: str) -> None:
    before = _content(root)
    with pytest.raises(OneStrideError, match=says):
        convert(root, tmp_path / "half", options=Options(codec="lossless"))
    assert _content(root) == before
    assert not [path for path in tmp_path.iterdir() if "half" in path.name]


def _refused_or_sound(root: Path, tmp_path: Path) -> bool:
    destination = tmp_path / "made"
    before = _content(root)
    try:
        convert(root, destination, options=Options(codec="lossless"))
    except OneStrideError:
        assert not [path for path in tmp_path.iterdir() if "made" in path.name]
        return True
    finally:
        assert _content(root) == before
    Store.open(destination).verify()
    shutil.rmtree(destination)
    return False


def _content(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
