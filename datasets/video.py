"""Images as video: one H.264 file for each segment and feature, frame i = row i, decoded by row range.

Every episode begins with a key frame and no frame refers to a later one, so an episode is a run of packets that can
be decoded, checked and copied by itself. The clock of the file is nominal; the measured one is in `time/<stream>`.

Lossy, by `QUALITY` and by the chroma of yuv420p. Each file is decoded again before it is committed, and its PSNR is
stored beside it (`VideoNote`). Camera images keep 35 to 45 dB; pure noise and one-pixel colour edges keep less.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from onestride.datasets.schema import Array
from onestride.hardware.errors import OneStrideError

ENCODER = "libx264"
PIXELS = "yuv420p"
QUALITY = "18"
"""Constant rate factor: 18 is visually lossless for camera images."""
KEY_EVERY = 10
"""Frames from one key frame to the next: what reading a single frame may have to decode."""
SMPTE_170M, LIMITED_RANGE = 6, 1
"""The colour space of FFmpeg's conversion to yuv420p, in FFmpeg's numbers (`AVCOL_SPC_`, `AVCOL_RANGE_`)."""
EXACT = 99.0
"""What an exact copy counts as [dB]; its PSNR is infinite."""


class VideoNote(BaseModel):
    """What is known of one video file; an attribute of its segment's group `video`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: str
    rate: str
    """Nominal frames per second, a fraction."""
    frames: int
    height: int
    width: int
    psnr: float
    """Over all frames, against what was recorded [dB]."""
    psnr_min: float
    """Of the worst frame [dB]."""


def encode(path: Path, episodes: Sequence[Array], rate: float) -> VideoNote:
    """Write images (T, H, W, 3) uint8 of several episodes, one after the other, as a new file.

    Args:
        path: file to write.
        episodes: the images; an array on disk (`np.memmap`) is never read whole.
        rate: nominal rate [Hz].

    Raises:
        OneStrideError: PyAV is missing or lacks the encoder, or what was written does not decode to as many frames.
    """
    fraction = Fraction(rate).limit_denominator(1000) if rate >= 0.1 else Fraction(30)
    _write(path, episodes, fraction)
    worst, squares, count, pixels = 0.0, 0.0, 0, 1
    frames = (frame for images in episodes for frame in images)
    for original, decoded in zip(frames, _frames(path), strict=False):
        error = np.subtract(original, decoded[: original.shape[0], : original.shape[1]], dtype=np.int16)
        square = float(np.einsum("ijk,ijk->", error, error, dtype=np.int64))
        worst, squares, count, pixels = max(worst, square), squares + square, count + 1, error.size
    expected = sum(map(len, episodes))
    if count != expected:
        raise OneStrideError(f"{path}: expected {expected} frames after encoding, got {count}")
    return VideoNote(
        codec=f"{ENCODER} {PIXELS} crf {QUALITY}",
        rate=str(fraction),
        frames=count,
        height=episodes[0].shape[1],
        width=episodes[0].shape[2],
        psnr=_psnr(squares / max(1, count) / pixels),
        psnr_min=_psnr(worst / pixels),
    )


def decode(path: Path, note: VideoNote, start: int, stop: int) -> NDArray[np.uint8]:
    """Frames [start, stop) as (stop - start, H, W, 3) uint8.

    Raises:
        OneStrideError: PyAV is missing, or the file does not hold them.
    """
    images = np.empty((stop - start, note.height, note.width, 3), np.uint8)
    count = 0
    for image in _frames(path, start, stop):
        images[count] = image[: note.height, : note.width]
        count += 1
    if count != stop - start:
        raise OneStrideError(f"{path}: expected frames {start} to {stop - 1}, got {count} of them")
    return images


def packet_checksums(path: Path, lengths: Sequence[int]) -> list[int]:
    """CRC-32 over the packets of each episode; episodes whose packets are gone get what is left of them."""
    packets = _packets(path)
    checksums = []
    for length in lengths:
        checksum = 0
        for _, packet in zip(range(length), packets, strict=False):
            checksum = zlib.crc32(bytes(packet), checksum)
        checksums.append(checksum)
    return checksums


def key_frames(path: Path) -> frozenset[int]:
    """Rows that can be decoded without the rows before them."""
    return frozenset(row for row, packet in enumerate(_packets(path)) if packet.is_keyframe)


def copy_frames(source: Path, target: Path, ranges: Sequence[tuple[int, int]]) -> None:
    """Write rows [start, stop) of a file, one range after the other, to a new file without encoding them again.

    Raises:
        OneStrideError: a range does not begin at a key frame.
    """
    keys = key_frames(source)
    for start, stop in ranges:
        if start < stop and start not in keys:
            raise OneStrideError(f"{source}: expected a range that begins at a key frame, got row {start}")
    av = _av()
    with av.open(str(source)) as given, av.open(str(target), "w", format="mp4") as made:
        template = given.streams.video[0]
        stream = made.add_stream_from_template(template)
        packets = [packet for packet in given.demux(template) if packet.size]
        tick = round(1 / (template.average_rate * template.time_base))
        chosen = [row for start, stop in ranges for row in range(start, stop)]
        for number, row in enumerate(chosen):
            packet = packets[row]
            packet.stream = stream
            packet.pts = packet.dts = number * tick
            packet.duration = tick
            made.mux(packet)


def _write(path: Path, episodes: Sequence[Array], rate: Fraction) -> None:
    av = _av()
    height, width = (int(extent) for extent in episodes[0].shape[1:3])
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(ENCODER, rate=rate, options=_options())
        # yuv420p halves the chroma in both directions: an odd picture gets one more row or column.
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, PIXELS
        stream.codec_context.max_b_frames = 0
        stream.codec_context.gop_size = KEY_EVERY
        # Said in the file, so that every player converts the colours back the way they came.
        stream.codec_context.colorspace, stream.codec_context.color_range = SMPTE_170M, LIMITED_RANGE
        number = 0
        for images in episodes:
            for row, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(_even(image), format="rgb24")
                frame.pts, frame.time_base, number = number, 1 / rate, number + 1
                if row == 0:
                    frame.pict_type = av.video.frame.PictureType.I
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _options() -> dict[str, str]:
    # A forced key frame must be one that no later frame looks behind: `forced-idr`.
    return {"crf": QUALITY, "preset": "veryfast", "forced-idr": "1", "x264-params": "scenecut=0"}


def _even(image: Array) -> Array:
    odd = [(0, extent % 2) for extent in image.shape[:2]]
    padded = np.pad(image, [*odd, (0, 0)], mode="edge") if any(more for _, more in odd) else image
    return np.ascontiguousarray(padded)


def _frames(path: Path, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Decoded frames (H, W, 3) of rows [start, stop)."""
    if stop is not None and stop <= start:
        return
    av = _av()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            tick = 1 / (stream.average_rate * stream.time_base)
            if start:
                container.seek(round(start * tick), stream=stream)
            for frame in container.decode(stream):
                row = round(frame.pts / tick)
                if stop is not None and row >= stop:
                    return
                if row >= start:
                    yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError, TypeError, ZeroDivisionError) as error:
        raise OneStrideError(f"{path}: expected a video of ours, got: {error}") from error


def _packets(path: Path) -> Iterator[Any]:
    av = _av()
    try:
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                if packet.size:
                    yield packet
    except (av.FFmpegError, IndexError) as error:
        raise OneStrideError(f"{path}: expected a video of ours, got: {error}") from error


def _psnr(square: float) -> float:
    """Peak signal-to-noise ratio [dB] of a mean squared error."""
    return round(min(EXACT, 10 * math.log10(255**2 / square)), 2) if square else EXACT


def _av() -> Any:
    try:
        import av
        import av.logging
    except ModuleNotFoundError as error:
        raise OneStrideError(
            "expected PyAV for features with the codec 'video', got none: pip install 'onestride[video]'"
        ) from error
    # PyAV's own default: with any level, a decoding thread that logs waits for the GIL, and closing for the thread.
    av.logging.set_level(None)
    return av
