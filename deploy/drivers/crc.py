"""The checksum of Unitree's low-level messages, at the speed of the standard library.

It is CRC-32/MPEG-2 (polynomial 0x04c11db7, most significant bit first, begun with ones, nothing inverted at the end)
over little-endian 32-bit words, each taken from its most significant byte on. `zlib` computes the mirror image of
it: mirror every byte, and the result, and both agree.
"""

from __future__ import annotations

import zlib

import numpy as np

_ONES = 0xFFFFFFFF
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc32_mpeg2(data: bytes) -> int:
    """CRC-32/MPEG-2 of `data`."""
    mirrored = zlib.crc32(data.translate(_MIRRORED)) ^ _ONES
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")


def word_crc(data: bytes) -> int:
    """The same over little-endian 32-bit words.

    Raises:
        ValueError: `data` is not a whole number of words.
    """
    if len(data) % 4:
        raise ValueError(f"expected a whole number of 32-bit words, got {len(data)} bytes")
    return crc32_mpeg2(np.frombuffer(data, dtype="<u4").byteswap().tobytes())
