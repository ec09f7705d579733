"""What is written past the Zarr library is what the library would have written, and what it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec

from onestride.datasets.schema import DTYPES, Array
from onestride.datasets.zarr_files import LEVEL, ArrayWriter, describe_group, write_group

ATTRIBUTES = {"present": [True, False], "näme": {"deep": [1, 2.5, None]}}


def by_the_library(path: Path, values: Array, rows: int) -> None:
    group = zarr.create_group(str(path), zarr_format=3)
    array = group.create_array(
        "x",
        shape=values.shape,
        dtype=values.dtype,
        chunks=(rows, *values.shape[1:]),
        compressors=BloscCodec(cname="zstd", clevel=LEVEL),
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes=ATTRIBUTES,
        config={"write_empty_chunks": True},
    )
    array[...] = values


def by_us(path: Path, values: Array, rows: int) -> None:
    write_group(path)
    writer = ArrayWriter(path / "x", values.shape, values.dtype, rows, ATTRIBUTES)
    for number, start in reversed(list(enumerate(range(0, len(values), rows)))):
        writer.write(number, values[start : start + rows])


def content(path: Path) -> dict[str, Any]:
    """Every file, descriptions as what they say and chunks as their bytes."""
    files = {one.relative_to(path).as_posix(): one.read_bytes() for one in path.rglob("*") if one.is_file()}
    return {name: json.loads(text) if name.endswith(".json") else text for name, text in files.items()}


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    length=st.integers(0, 40),
    shape=st.lists(st.integers(1, 5), max_size=3),
    rows=st.integers(1, 17),
    seed=st.integers(0, 99),
    zeros=st.booleans(),
)
def test_the_files_are_those_of_the_library(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    length: int,
    shape: list[int],
    rows: int,
    seed: int,
    zeros: bool,
) -> None:
    """Any bits, NaN and -0.0 among them, in any chunks; the last one is filled up with zeros."""
    size = (length, *shape)
    count = int(np.prod(size)) * np.dtype(dtype).itemsize
    bits = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 256, count, np.uint8)
    values = np.zeros(size, dtype) if zeros else bits.view(dtype).reshape(size)
    folder = tmp_path_factory.mktemp("z")
    by_the_library(folder / "theirs", values, rows)
    by_us(folder / "ours", values, rows)
    assert content(folder / "ours") == content(folder / "theirs")
    group: Any = zarr.open(str(folder / "ours"), mode="r")
    assert np.asarray(group["x"][...]).tobytes() == values.tobytes()


def test_a_group_is_described_with_its_attributes(tmp_path: Path) -> None:
    write_group(tmp_path / "g", ATTRIBUTES)
    assert dict(zarr.open_group(str(tmp_path / "g"), mode="r").attrs) == ATTRIBUTES
    describe_group(tmp_path / "g", {})
    assert dict(zarr.open_group(str(tmp_path / "g"), mode="r").attrs) == {}
    with pytest.raises(FileExistsError):
        write_group(tmp_path / "g")
    ArrayWriter(tmp_path / "g" / "x", (3,), np.dtype("float32"), 2)
    with pytest.raises(FileExistsError):
        ArrayWriter(tmp_path / "g" / "x", (3,), np.dtype("float32"), 2)
