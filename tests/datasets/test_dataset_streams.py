"""Several rates, images of both codecs and row ranges: what is read is what was recorded, and only that is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets import segment_reader, segments, video
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], bool]


def _scene(frames: int, height: int, width: int, seed: int) -> np.ndarray:
    """Images (T, H, W, 3) as a camera might see them: smooth, with a bright square that moves."""
    y, x = np.mgrid[:height, :width]
    images = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        for channel in range(3):
            images[t, :, :, channel] = 120 + 80 * np.sin((x + 2 * t) / 23 + channel) * np.cos(y / 17 + seed)
        images[t, 4 + t % 8 : 14 + t % 8, 6:18] = (230, 40, 60)
    return images


def _schema(height: int, width: int, codec: str) -> Schema:
    return Schema(
        features=(
            Feature(name="action", role="action", shape=(2,), dtype="float32"),
            Feature.model_validate(
                {
                    "name": "image",
                    "role": "observation",
                    "shape": (height, width, 3),
                    "dtype": "uint8",
                    "stream": "camera",
                    "codec": codec,
                }
            ),
            Feature(name="wrench", role="observation", shape=(6,), dtype="float64", stream="force"),
        ),
        control_rate=20.0,
        label="action",
        label_source="human",
    )


def _episode(schema: Schema, steps: int, seed: int, frames: int | None = None) -> Episode:
    random = np.random.default_rng(seed)
    height, width, _ = schema.feature("image").shape
    frames = steps // 2 if frames is None else frames
    jitter = random.integers(0, 3_000_000, steps)
    clocks = {
        "base": synthetic_clock(steps, 20.0) + jitter,
        "camera": synthetic_clock(frames, 10.0) + 7_000_000,
        "force": synthetic_clock(25 * steps, 500.0),
    }
    data = {
        "action": random.normal(size=(steps, 2)).astype(np.float32),
        "image": _scene(frames, height, width, seed),
        "wrench": random.normal(size=(25 * steps, 6)),
    }
    return Episode(data, clocks, {}, {"seed": seed})


@pytest.mark.parametrize("codec", ["lossless", "video"])
@pytest.mark.parametrize("size", [(84, 84), (97, 131), (480, 640)])
def test_images_beside_a_fast_sensor(tmp_path: Path, codec: str, size: tuple[int, int]) -> None:
    schema = _schema(*size, codec)
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    written = [_episode(schema, steps, seed) for seed, steps in enumerate((13, 4, 22))]
    store.append(written[:2])
    store.append(written[2:])
    again = Store.open(store.path)
    again.verify()
    images = np.concatenate([episode.data["image"] for episode in written])
    for number, episode in enumerate(written):
        read = again.read_episode(number)
        for stream, clock in episode.timestamps.items():
            np.testing.assert_array_equal(read.timestamps[stream], clock)
        for name in ("action", "wrench"):
            np.testing.assert_array_equal(read.data[name], episode.data[name])
    _close(again.read("image"), images, codec)
    everything = again.read("image")
    for start, stop in ((0, 1), (5, 9), (7, 8), (3, len(images)), (4, 4)):
        np.testing.assert_array_equal(again.read_rows("image", start, stop), everything[start:stop])
    np.testing.assert_array_equal(np.concatenate([again.read_episode(n).data["image"] for n in range(3)]), everything)
    assert again.num_rows("camera") == len(images)
    assert again.stream_lengths("force").tolist() == [325, 100, 550]


def _close(read: np.ndarray, recorded: np.ndarray, codec: str) -> None:
    assert read.shape == recorded.shape
    assert read.dtype == np.uint8
    if codec == "lossless":
        np.testing.assert_array_equal(read, recorded)
    else:
        assert 34 < 10 * np.log10(255**2 / np.mean((read.astype(float) - recorded) ** 2)) < 60


def test_every_step_knows_the_last_row_of_each_stream(tmp_path: Path) -> None:
    schema = _schema(8, 8, "lossless")
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    written = [_episode(schema, steps, seed) for seed, steps in enumerate((9, 2, 14))]
    with store.writer(target_bytes=0) as writer:
        for episode in written:
            writer.add(episode)
    for stream in ("camera", "force"):
        index, clock, base = store.read_index(stream), store.read_time(stream), store.read_time()
        assert len(index) == len(base) == 25
        bounds = np.cumsum([0, *store.stream_lengths(stream)])
        for step, row in enumerate(index):
            episode = int(np.searchsorted(np.cumsum(store.lengths), step, side="right"))
            mine = np.arange(bounds[episode], bounds[episode + 1])
            seen = mine[clock[mine] <= base[step]]
            assert row == (seen[-1] if len(seen) else -1)
    assert -1 in store.read_index("camera")
    assert store.read_index("base").tolist() == list(range(25))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_range_of_rows_is_that_slice(data: st.DataObject, two_rates: Store) -> None:
    name = data.draw(st.sampled_from(["position", "camera", "done"]))
    whole = two_rates.read(name)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    read = two_rates.read_rows(name, start, stop)
    assert read.dtype == whole.dtype
    np.testing.assert_array_equal(read, whole[start:stop])


@pytest.fixture
def two_rates(store: Store, make_episode: MakeEpisode) -> Store:
    for numbers in ((0, 1, 2), (3,), (4, 5, 6, 7)):
        store.append([make_episode(number) for number in numbers])
    return store


def test_rows_that_are_not_there_are_refused(two_rates: Store) -> None:
    for start, stop in ((-1, 2), (3, 2), (0, two_rates.num_steps + 1)):
        with pytest.raises(OneStrideError, match=f"rows from 0 to {two_rates.num_steps}, got {start} to {stop}"):
            two_rates.read_rows("position", start, stop)
    with pytest.raises(OneStrideError, match="available: base, video"):
        two_rates.num_rows("lidar")


def test_a_row_range_decompresses_its_chunks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 3 of 40 frames of 640×480 lies in one chunk of four frames; the other chunks are gone and not missed."""
    schema = _schema(480, 640, "lossless")
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    episode = _episode(schema, 80, 1)
    identity = store.append([episode])
    again = Store.open(store.path)
    again.read_rows("image", 0, 0)
    monkeypatch.setattr(segment_reader, "tree_sha256", lambda _: again._segments[0].entry.checksum)
    chunks = sorted((store.path / "segments" / identity / "data" / "image").glob("c.*"))
    assert len(chunks) == 10
    for chunk in chunks:
        if chunk.name != "c.0.0.0.0":
            chunk.unlink()
    np.testing.assert_array_equal(again.read_rows("image", 3, 4)[0], episode.data["image"][3])


def test_one_episode_is_read_without_its_neighbours_segments(two_rates: Store, make_episode: MakeEpisode) -> None:
    """Damage elsewhere does not keep an episode from being read, nor the list of episodes from being shown."""
    for info in two_rates.episodes[:3]:
        for chunk in (two_rates.path / "segments" / info.segment / "data").rglob("c.*"):
            chunk.write_bytes(b"")
    again = Store.open(two_rates.path)
    assert [info.attributes["seed"] for info in again.episodes] == list(range(8))
    np.testing.assert_array_equal(again.read_episode(3).data["position"], make_episode(3).data["position"])
    with pytest.raises(OneStrideError, match="altered"):
        again.read_episode(0)


def test_an_array_on_disk_is_written_chunk_by_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """An episode larger than memory: what is held at once is bounded by `CHUNK_BYTES`."""
    schema = _schema(32, 32, "lossless")
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    monkeypatch.setattr(segments, "CHUNK_BYTES", 10 * 3072)
    episode = _episode(schema, 20, 1, frames=95)
    on_disk = np.memmap(tmp_path / "frames", np.uint8, "w+", shape=(95, 32, 32, 3))
    on_disk[:] = episode.data["image"]
    episode.data["image"] = on_disk
    held: list[int] = []
    block = segments._block
    monkeypatch.setattr(segments, "_block", lambda *arguments: (made := block(*arguments), held.append(made.nbytes))[0])
    store.append([episode])
    assert max(held) <= 10 * 3072
    np.testing.assert_array_equal(Store.open(store.path).read("image"), on_disk)


def test_segments_close_at_their_size(tmp_path: Path) -> None:
    schema = _schema(480, 640, "lossless")
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    with store.writer(target_bytes=8 << 20) as writer:
        for seed in range(5):
            writer.add(_episode(schema, 10, seed))
    assert [info.index for info in store.episodes] == [0, 1, 0, 1, 0]


def test_only_colour_images_can_be_video() -> None:
    for shape, dtype in (((84, 84), "uint8"), ((84, 84, 1), "uint8"), ((84, 84, 3), "float32")):
        with pytest.raises(ValueError, match="uint8 images"):
            Feature(name="depth", role="observation", shape=shape, dtype=dtype, codec="video")


def test_a_lossless_feature_is_written_as_before_there_were_codecs() -> None:
    """Headers and dataset ids of stores that exist must not change."""
    plain = Feature(name="x", role="state", shape=(1,), dtype="float32")
    assert "codec" not in plain.model_dump(mode="json")
    assert Feature.model_validate(plain.model_dump(mode="json")) == plain
    filmed = Feature(name="x", role="observation", shape=(8, 8, 3), dtype="uint8", codec="video")
    assert Feature.model_validate(filmed.model_dump(mode="json")) == filmed


def test_the_stated_psnr_is_what_reading_gives(tmp_path: Path) -> None:
    schema = _schema(84, 84, "video")
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    episode = _episode(schema, 40, 3)
    store.append([episode])
    (note,) = Store.open(store.path).video_notes["image"]
    error = (store.read("image").astype(float) - episode.data["image"]) ** 2
    assert note.psnr == pytest.approx(10 * np.log10(255**2 / error.mean()), abs=0.01)
    assert note.psnr_min == pytest.approx(10 * np.log10(255**2 / error.mean(axis=(1, 2, 3)).max()), abs=0.01)
    assert (note.frames, note.height, note.width, note.rate) == (20, 84, 84, "10")
    assert "h264" in note.codec or "libx264" in note.codec


def test_real_camera_images_keep_their_psnr(shared_data: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the extra `train`")
    source = shared_data / "robomimic" / "lift_ph_10demos.hdf5"
    if not source.is_file():
        pytest.skip(f"no robomimic file at {source}")
    with h5py.File(source) as file:
        demos = [file[f"data/demo_{number}/obs/agentview_image"][:] for number in (0, 4)]
    note = video.encode(tmp_path / "v.mp4", demos, 20.0)
    assert note.psnr > 38
    assert note.psnr_min > 36
    assert (tmp_path / "v.mp4").stat().st_size < sum(demo.nbytes for demo in demos) / 40
    # Each demonstration begins with a key frame, so that it can be read and copied by itself.
    assert {0, len(demos[0])} <= video.key_frames(tmp_path / "v.mp4")


def test_copied_frames_are_the_same_frames(tmp_path: Path) -> None:
    episodes = [_scene(frames, 64, 64, seed) for seed, frames in enumerate((25, 13, 31))]
    source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
    note = video.encode(source, episodes, 30.0)
    video.copy_frames(source, target, [(38, 69), (0, 20)])
    expected = np.concatenate([video.decode(source, note, 38, 69), video.decode(source, note, 0, 20)])
    np.testing.assert_array_equal(video.decode(target, note, 0, 51), expected)
    np.testing.assert_array_equal(video.decode(target, note, 34, 36), expected[34:36])
    assert video.packet_checksums(target, [31])[0] == video.packet_checksums(source, [25, 13, 31])[2]
    with pytest.raises(OneStrideError, match="key frame, got row 3"):
        video.copy_frames(source, tmp_path / "c.mp4", [(3, 9)])


def test_a_file_that_is_no_video_is_one_error(tmp_path: Path) -> None:
    note = video.encode(tmp_path / "v.mp4", [_scene(12, 16, 16, 0)], 30.0)
    whole = (tmp_path / "v.mp4").read_bytes()
    for content in (b"", b"not a video", whole[: len(whole) // 2]):
        (tmp_path / "v.mp4").write_bytes(content)
        with pytest.raises(OneStrideError, match=r"v\.mp4: expected"):
            video.decode(tmp_path / "v.mp4", note, 0, 12)


def test_a_stream_without_rows_is_empty_not_missing(tmp_path: Path) -> None:
    schema = _schema(16, 16, "video")
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    store.append([_episode(schema, 3, 0, frames=0)])
    assert store.read("image").shape == (0, 16, 16, 3)
    assert store.read_episode(0).data["image"].shape == (0, 16, 16, 3)
    assert store.read_index("camera").tolist() == [-1, -1, -1]
    store.append([_episode(schema, 3, 1, frames=2)])
    assert store.read("image").shape == (2, 16, 16, 3)


def test_a_store_from_before_checksums_of_episodes_is_still_read(
    store: Store, make_episode: MakeEpisode, same_episode: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = segments.write_segment

    def old(path: Path, *rest: Any) -> None:
        write(path, *rest)
        shutil.rmtree(path / "meta" / "checksums")

    monkeypatch.setattr("onestride.datasets.store.write_segment", old)
    identity = store.append([make_episode(1), make_episode(2)])
    assert not (store.path / "segments" / identity / "meta" / "checksums").exists()
    manifest = store._manifest
    entry = manifest.segments[0].model_copy(update={"meta": ""})
    assert "meta" not in entry.model_dump(mode="json")
    store._use(manifest.model_copy(update={"segments": (entry,)}))
    assert same_episode(store.read_episode(1), make_episode(2))
    chunk = next((store.path / "segments" / identity / "data" / "action").glob("c.*"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(OneStrideError, match="any of episodes 0 to 1"):
        Store(store.path, store.schema, store.provenance, store._manifest).verify()
