"""Writing Zarr v3 straight to its files: what the library would write, chunks to the byte, without its bookkeeping.

The library spends a few milliseconds of Python on every array it creates and every chunk it writes. A segment is
written once, in whole chunks and into a new folder, so none of that is needed. Reading goes through the library.

Reference: the Zarr v3 specification, https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc

from onestride.datasets.schema import Array

LEVEL = 3
"""Of zstd: 2.5 times as fast as level 5 on joint states, for files 7 % larger (550 and 215 MB/s on one core)."""


def write_group(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """Make the folder of a new group.

    Raises:
        OSError: it exists, or the disk refuses.
    """
    path.mkdir()
    describe_group(path, attributes)


def describe_group(path: Path, attributes: Mapping[str, Any] | None) -> None:
    """Make a group of a folder that is there."""
    _describe(path, attributes, {"zarr_format": 3, "node_type": "group"})


class ArrayWriter:
    """A new array (N, *shape) in chunks of whole rows, compressed by Blosc; chunks may be written from several threads.

    Args:
        path: its folder, which must not exist.
        shape: of the whole array.
        dtype: a little-endian number or bool.
        rows: of a chunk.
        attributes: JSON values.

    Raises:
        OSError: the folder exists, or the disk refuses.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        rows: int,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self._path, self._chunk, self._dtype = path, (rows, *shape[1:]), dtype
        self._codec = Blosc("zstd", LEVEL, Blosc.SHUFFLE if dtype.itemsize > 1 else Blosc.BITSHUFFLE)
        path.mkdir()
        _describe(path, attributes, _array(shape, self._chunk, dtype))

    def write(self, number: int, rows: Array) -> None:
        """Write one chunk, of which the array's last may have fewer rows than the others."""
        chunk = np.ascontiguousarray(rows)
        if chunk.shape != self._chunk:
            chunk = np.zeros(self._chunk, self._dtype)
            chunk[: len(rows)] = rows
        name = ".".join(["c", str(number), *["0"] * (len(self._chunk) - 1)])
        (self._path / name).write_bytes(self._codec.encode(chunk))


def _describe(path: Path, attributes: Mapping[str, Any] | None, about: dict[str, Any]) -> None:
    (path / "zarr.json").write_text(json.dumps({"attributes": dict(attributes or {}), **about}, allow_nan=False))


def _array(shape: tuple[int, ...], chunk: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """The description of an array, less its attributes."""
    order = {"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {}
    blosc = {
        "typesize": dtype.itemsize,
        "cname": "zstd",
        "clevel": LEVEL,
        "shuffle": "shuffle" if dtype.itemsize > 1 else "bitshuffle",
        "blocksize": 0,
    }
    return {
        "shape": shape,
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": np.zeros((), dtype).item(),
        "codecs": [{"name": "bytes", **order}, {"name": "blosc", "configuration": blosc}],
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
