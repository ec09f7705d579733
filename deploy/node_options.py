"""Flags of `onestride run` that become parameters of its node: how it keeps its deadlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onestride.hardware.errors import OneStrideError
from onestride.hardware.realtime import Realtime


@dataclass
class NodeOptions:
    """How the node keeps its deadlines."""

    realtime: int = 40
    """Priority of the control thread under SCHED_FIFO where the system permits it, inference 10 below; 0 for the usual
    scheduling."""
    chunk_blend: int = 0
    """Policy steps before a chunk's end at which the next is asked for, and over which both are blended."""
    adaptive_nfe: bool = False
    """Take fewer network evaluations while inference is late, where the policy offers fewer."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the node, by name.

        Raises:
            OneStrideError: there is no such priority or number of steps.
        """
        if self.chunk_blend < 0:
            raise OneStrideError(f"chunk blend: expected 0 policy steps or more, got {self.chunk_blend}")
        return {
            "realtime_priority": Realtime(self.realtime).priority,
            "chunk_blend": self.chunk_blend,
            "adaptive_nfe": self.adaptive_nfe,
        }
