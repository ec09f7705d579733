"""Go over from one chunk to the next by degrees.

The next chunk is asked for while actions of the old one are left, so that inference never keeps the robot waiting.
Where both have an action for the same policy step, their mean is taken, with a weight of the old chunk's that falls
from step to step: the averaging of overlapping chunks by a soft mask, without the guidance of the sampler that makes
the new chunk agree with the old one.

Reference: arXiv:2506.07339 (real-time chunking; its soft masking, not its inpainting).
"""

from __future__ import annotations

import numpy as np

from onestride.hardware.state import Array


def weights(steps: int) -> Array:
    """Of the old chunk at each of the overlapping steps (L,): falling evenly, all above 0 and below 1."""
    return 1.0 - np.arange(1, steps + 1) / (steps + 1)


def blended(left: Array, chunk: Array, start: int, most: int) -> Array:
    """A chunk (h, Da) whose actions from `start` on are blended with what is left of the old one.

    Args:
        left: actions (k, Da) of the old chunk for the same policy steps, also those beyond what it was asked for.
        chunk: the new one (h, Da); not changed.
        start: its first action that has not been consumed.
        most: steps that may be blended.
    """
    overlap = min(most, len(left), len(chunk) - start)
    if overlap <= 0:
        return chunk
    mixed, old = chunk.copy(), weights(overlap)[:, None]
    steps = slice(start, start + overlap)
    mixed[steps] = old * left[:overlap] + (1.0 - old) * chunk[steps]
    return mixed
