"""Camera streams of a LeRobot dataset: frames by time out of an mp4, and frames into one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from onestride.datasets.converters.spilling import room
from onestride.datasets.video import LIMITED_RANGE, SMPTE_170M
from onestride.hardware.errors import OneStrideError

CODEC = "libx264"
CRF = 18
"""Constant quality of what is written, for PSNR see docs/formats/lerobot.md."""
KEY_EVERY = 2
"""Frames from one key frame to the next, as LeRobot has it: training reads frames in any order."""


def read_frames(path: Path, times: NDArray[np.float64], fps: float, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The frames shown at `times` (T,) [s], as (T, H, W, 3) RGB.

    Args:
        path: the video.
        times: ascending, on the clock of the video.
        fps: its rate [Hz]; a frame counts as shown at a time that is less than half a period away.
        shape: (H, W, 3) as the dataset says.

    Raises:
        OneStrideError: damaged, another size, or no frame at one of the times.
    """
    container: Any = None
    # PyAV's own default: with any level, a decoding thread that logs waits for the GIL, and closing for the thread.
    av.logging.set_level(None)
    try:
        container = av.open(str(path))
        if not container.streams.video:
            raise OneStrideError(f"{path}: expected a video stream, got none")
        return _matched(path, container, times, fps, shape)
    # Where the header is damaged, PyAV's own attributes are missing.
    except (FFmpegError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise OneStrideError(f"{path}: expected a readable video, got: {error}") from error
    finally:
        if container is not None:
            container.close()


def _matched(
    path: Path, container: Any, times: NDArray[np.float64], fps: float, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    if (stream.height, stream.width, 3) != tuple(shape):
        raise OneStrideError(f"{path}: expected frames of {tuple(shape)}, got {(stream.height, stream.width, 3)}")
    out = room((len(times), *shape), np.uint8)
    near, row = 0.5 / fps, 0
    container.seek(max(0, int((times[0] - near) / stream.time_base)), stream=stream)
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise OneStrideError(f"{path}: expected a readable video, got a damaged frame at {frame.time} s")
        shown = float(frame.time)
        if shown <= times[row] - near:
            continue
        pixels = None
        while row < len(times) and abs(times[row] - shown) < near:
            pixels = frame.to_ndarray(format="rgb24") if pixels is None else pixels
            out[row] = pixels
            row += 1
        if row == len(times):
            return out
        if shown > times[row] + near:
            break
    raise OneStrideError(f"{path}: expected a frame at {times[row]:.4f} s, got none")


def _created(path: Path) -> Any:
    return av.open(str(path), "w", format="mp4")


class VideoFile:
    """An mp4 that grows frame by frame at a constant rate."""

    def __init__(self, path: Path, fps: float, height: int, width: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.frames = 0
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container = _created(path)
        settings = {"crf": str(CRF), "preset": "veryfast"}
        self._stream: Any = self._container.add_stream(CODEC, rate=self._rate, options=settings)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        context = self._stream.codec_context
        context.max_b_frames, context.gop_size = 0, KEY_EVERY
        # Said in the file, so that every player converts the colours back the way they came.
        context.colorspace, context.color_range = SMPTE_170M, LIMITED_RANGE

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Append frames (T, H, W, 3) RGB.

        Raises:
            OneStrideError: the encoder or the disk refuses.
        """
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = self.frames, 1 / self._rate
            self._mux(frame)
            self.frames += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            OneStrideError: the encoder or the disk refuses.
        """
        try:
            self._mux(None)
        finally:
            self._container.close()

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except FFmpegError as error:
            raise OneStrideError(f"{self.path.name}: expected to encode a video, got: {error}") from error

    @property
    def bytes(self) -> int:
        """What is on the disk so far."""
        return self.path.stat().st_size if self.path.exists() else 0
