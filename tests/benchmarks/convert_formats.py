"""What `bench_convert` converts: for each format a source, and its arrays as they are copied raw.

robomimic, OGBench and diffusion-policy files hold plain arrays: the raw copy reads and writes them with the format's
own library (h5py, numpy, zarr). In LeRobot's parquet files, in MCAP and in rosbag2 the numbers lie in rows of tables or
in messages, which no library copies as arrays: there the raw copy is that of the same arrays by h5py and zarr, one
uncompressed HDF5 data set for each feature on the other side. What more such a format demands say its `convert_floors`.
The files themselves are made by our own writers and by `rosbags`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
import zarr
from zarr.codecs import BloscCodec

from onestride.datasets.converters import Options, convert
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Role, Schema
from onestride.datasets.segments import CHUNK_BYTES
from onestride.datasets.store import Store
from onestride.datasets.zarr_files import LEVEL

LENGTH = 200
"""Steps of an episode, where nothing else is said."""
PLAY_LENGTH = 1000
"""Steps of an episode of OGBench's play datasets, of which there are 1000."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Format:
    """One format to convert from and, unless there is no such writer, to."""

    make: Callable[[Path, int], int]
    """Make a source at a path, of so many episodes; the size of its arrays in bytes."""
    load: Callable[[Path], Arrays]
    """The raw arrays, read as the module says."""
    save: Callable[[Path, Arrays], None]
    """The raw arrays, written as the module says."""
    suffix: str
    raw: str
    """What the raw copy is."""
    target: str | None
    """Name for `--to`; None = it can only be read."""
    share: float = 1.0
    """Of the steps that are asked for: recordings are made message by message, which takes long."""
    length: int = LENGTH
    """Steps of an episode."""
    options: Callable[[Path], Options] = lambda _: Options()
    """What a user says about the source at a path."""


def walk(random: np.random.Generator, rows: int, columns: int, dtype: Any) -> np.ndarray:
    """Rows that hang together as a robot's do: a random walk."""
    return (np.cumsum(random.normal(size=(rows, columns)), axis=0) * 0.01).astype(dtype)


def save_zarr(target: Path, arrays: Arrays) -> None:
    """One Zarr v3 array for each key, chunked and compressed as in a store."""
    group = zarr.create_group(str(target), zarr_format=3)
    for key, array in arrays.items():
        row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        chunks = (min(len(array), CHUNK_BYTES // row_bytes), *array.shape[1:])
        codec = BloscCodec(cname="zstd", clevel=LEVEL)
        group.create_array(key.replace("/", "."), data=array, chunks=chunks, compressors=codec)


def load_zarr(source: Path) -> Arrays:
    """Every array of a Zarr group."""
    group: Any = zarr.open_group(str(source), mode="r")
    return {key: array[...] for key, array in group.arrays()}


def make_robomimic(path: Path, episodes: int) -> int:
    """The keys of robomimic's Lift, float64."""
    random, size = np.random.default_rng(0), 0
    widths = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10, "robot0_joint_pos": 7}
    with h5py.File(path, "w") as file:
        for number in range(episodes):
            demo = file.create_group(f"data/demo_{number}")
            rows = {"actions": walk(random, LENGTH, 7, float), "states": walk(random, LENGTH, 32, float)}
            rows |= {"rewards": np.zeros(LENGTH), "dones": np.zeros(LENGTH, np.int64)}
            for key, width in widths.items():
                both = walk(random, LENGTH + 1, width, float)
                rows |= {f"obs/{key}": both[:-1], f"next_obs/{key}": both[1:]}
            for key, array in rows.items():
                demo[key] = array
                size += array.nbytes
            demo.attrs["num_samples"] = LENGTH
    return size


def load_robomimic(source: Path) -> Arrays:
    """Every data set, read by h5py, those of all demonstrations after each other."""
    found: dict[str, list[np.ndarray]] = {}
    with h5py.File(source, "r") as file:
        data: Any = file["data"]
        for demo in data.values():
            demo.visititems(
                lambda name, node: found.setdefault(name, []).append(node[...]) if hasattr(node, "shape") else None
            )
    return {name: np.concatenate(parts) for name, parts in found.items()}


def save_robomimic(target: Path, arrays: Arrays) -> None:
    """Every data set of every demonstration, written by h5py."""
    with h5py.File(target, "w") as file:
        for number in range(len(next(iter(arrays.values()))) // LENGTH):
            for key, array in arrays.items():
                path = f"data/demo_{number}/{key.replace('.', '/')}"
                file[path] = array[number * LENGTH : (number + 1) * LENGTH]


def make_ogbench(path: Path, episodes: int, length: int = PLAY_LENGTH) -> int:
    """The keys of OGBench's cube-double, float32, not compressed."""
    random, count = np.random.default_rng(0), episodes * (length + 1)
    arrays: dict[str, Any] = {
        "observations": walk(random, count, 37, np.float32),
        "actions": walk(random, count, 5, np.float32),
        "terminals": np.arange(count) % (length + 1) == length,
        "qpos": walk(random, count, 28, np.float32),
        "qvel": walk(random, count, 26, np.float32),
    }
    np.savez(path, **arrays)
    return sum(array.nbytes for array in arrays.values())


def load_ogbench(source: Path) -> Arrays:
    """Every array, read by numpy."""
    with np.load(source) as file:
        return {key: file[key] for key in file.files}


def save_ogbench(target: Path, arrays: dict[str, Any]) -> None:
    """Every array, written by numpy."""
    np.savez(target, **arrays)


def make_diffusion_policy(path: Path, episodes: int) -> int:
    """The vectors of Push-T, float32, compressed as Diffusion Policy compresses."""
    random, count, size = np.random.default_rng(0), episodes * LENGTH, 0
    root = zarr.create_group(str(path), zarr_format=2)
    data = root.create_group("data")
    for key, width in {"action": 2, "state": 20, "keypoint": 18}.items():
        rows = walk(random, count, width, np.float32)
        data.create_array(key, data=rows, chunks=(20_000, width), compressors=_blosc())
        size += rows.nbytes
    root.create_group("meta").create_array("episode_ends", data=np.arange(1, episodes + 1) * LENGTH)
    return size


def load_diffusion_policy(source: Path) -> Arrays:
    """Every array of `data`, read by zarr."""
    return load_zarr(source / "data")


def save_diffusion_policy(target: Path, arrays: Arrays) -> None:
    """Every array, written by zarr with Diffusion Policy's compression."""
    data = zarr.create_group(str(target), zarr_format=2).create_group("data")
    for key, array in arrays.items():
        data.create_array(key, data=array, chunks=(20_000, array.shape[1]), compressors=_blosc())


def _blosc() -> Any:
    import numcodecs

    return numcodecs.Blosc("zstd", 5, numcodecs.Blosc.BITSHUFFLE)


def arm_store(path: Path, episodes: int) -> Store:
    """Two arms of seven joints at 50 Hz, measured times, as ALOHA has them: float32."""
    names = tuple(f"{side}_{number}" for side in ("left", "right") for number in range(7))
    roles: dict[str, tuple[Role, str]] = {
        "observation.state": ("observation", "rad"),
        "observation.velocity": ("observation", "rad/s"),
        "observation.effort": ("observation", "N m"),
        "action": ("action", "rad"),
    }
    features = tuple(
        Feature(name=name, role=role, shape=(14,), dtype="float32", names=names, units=(unit,) * 14)
        for name, (role, unit) in roles.items()
    )
    schema = Schema(features=features, control_rate=50.0, label="action", label_source="human")
    store, random = Store.create(path, schema, Provenance.now("bench")), np.random.default_rng(0)
    with store.writer() as writer:
        for number in range(episodes):
            data = {one.name: walk(random, LENGTH, 14, np.float32) for one in features}
            clock = np.arange(LENGTH) * 20_000_000 + random.integers(0, 10**6, LENGTH)
            writer.add(Episode(data, {"base": clock + 10**9 * (1 + 5 * number)}, {}, {"task": "insert the peg"}))
    return store


def make_lerobot(path: Path, episodes: int) -> int:
    """A folder of LeRobot v3.0."""
    return _made(path, episodes, lambda store: convert(store.path, path, to="lerobot"))


def make_mcap(path: Path, episodes: int) -> int:
    """One message for each row of each feature."""
    return _made(path, episodes, lambda store: convert(store.path, path, to="mcap"))


def make_rosbag2(path: Path, episodes: int) -> int:
    """A folder of rosbag2 with sqlite3: joint states with their names, and commands; a mapping beside it."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    def record(store: Store) -> None:
        types = get_typestore(Stores.ROS2_JAZZY)
        with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
            kinds = {"/joint_states": "sensor_msgs/msg/JointState", "/command": "std_msgs/msg/Float64MultiArray"}
            connections = {topic: writer.add_connection(topic, kind, typestore=types) for topic, kind in kinds.items()}
            for topic, time, message in _messages(store, types):
                content = types.serialize_cdr(message, kinds[topic])
                writer.write(connections[topic], time, content)
        _mapping(path).write_text(yaml.safe_dump(MAPPING))

    return _made(path, episodes, record)


MAPPING: dict[str, Any] = {
    "base": "/joint_states",
    "topics": {
        "/joint_states": {
            "features": {
                "observation.state": {"role": "observation", "field": "position", "unit": "rad"},
                "observation.velocity": {"role": "observation", "field": "velocity", "unit": "rad/s"},
                "observation.effort": {"role": "observation", "field": "effort", "unit": "N m"},
            }
        },
        "/command": {"align": "next", "features": {"action": {"role": "action", "field": "data"}}},
    },
    "episodes": {"by": "gap", "seconds": 0.5},
}


def _messages(store: Store, types: Any) -> Iterator[tuple[str, int, Any]]:
    """What such an arm's driver and its controller publish; a command 2 ms after each state."""
    kinds, names = types.types, list(store.schema.feature("action").names)
    layout = kinds["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    for number in range(store.num_episodes):
        episode = store.read_episode(number)
        rows = {name: array.astype(np.float64) for name, array in episode.data.items()}
        for step, time in enumerate(episode.timestamps["base"].tolist()):
            stamp = kinds["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
            measured = kinds["sensor_msgs/msg/JointState"](
                header=kinds["std_msgs/msg/Header"](stamp=stamp, frame_id="arm"),
                name=names,
                position=rows["observation.state"][step],
                velocity=rows["observation.velocity"][step],
                effort=rows["observation.effort"][step],
            )
            yield "/joint_states", time, measured
            command = kinds["std_msgs/msg/Float64MultiArray"](layout=layout, data=rows["action"][step])
            yield "/command", time + 2_000_000, command


def _mapping(path: Path) -> Path:
    return path.with_suffix(".yaml")


def _made(path: Path, episodes: int, write: Callable[[Store], object]) -> int:
    """Write a store in a format, and its arrays beside that as HDF5; their size."""
    store = arm_store(path.with_suffix(".arm"), episodes)
    write(store)
    arrays = {feature.name: store.read(feature.name) for feature in store.schema.features}
    save_hdf5(path.with_suffix(".arm.h5"), arrays)
    return sum(array.nbytes for array in arrays.values())


def load_beside(source: Path) -> Arrays:
    """The arrays of a source that `_made` made, read by h5py."""
    with h5py.File(source.with_suffix(".arm.h5"), "r") as file:
        return {name: dataset[...] for name, dataset in file.items()}


def save_hdf5(target: Path, arrays: Arrays) -> None:
    """One uncompressed data set for each array, written by h5py."""
    with h5py.File(target, "w") as file:
        for key, array in arrays.items():
            file[key] = array


_NUMPY, _H5PY = "the arrays of the npz, by numpy", "every data set of every demonstration, by h5py"
_ZARR, _FLAT = "the arrays of `data`, by zarr", "the same arrays as flat HDF5 data sets, by h5py"

FORMATS: dict[str, Format] = {
    "robomimic": Format(make_robomimic, load_robomimic, save_robomimic, ".hdf5", _H5PY, "robomimic"),
    "ogbench": Format(make_ogbench, load_ogbench, save_ogbench, ".npz", _NUMPY, "ogbench", 5.0, PLAY_LENGTH),
    "ogbench, short episodes": Format(
        lambda path, count: make_ogbench(path, count, LENGTH), load_ogbench, save_ogbench, ".npz", _NUMPY, "ogbench"
    ),
    "diffusion_policy": Format(
        make_diffusion_policy, load_diffusion_policy, save_diffusion_policy, ".zarr", _ZARR, "diffusion_policy"
    ),
    "lerobot": Format(make_lerobot, load_beside, save_hdf5, ".lerobot", _FLAT, "lerobot"),
    "mcap": Format(make_mcap, load_beside, save_hdf5, ".mcap", _FLAT, "mcap", 0.5),
    "rosbag2 sqlite3": Format(
        make_rosbag2,
        load_beside,
        save_hdf5,
        ".bag",
        _FLAT,
        None,
        0.2,
        options=lambda path: Options(mapping=_mapping(path)),
    ),
}
