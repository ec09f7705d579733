"""How fresh a stream's samples are, by their stamps: whatever holds them up on their way makes them older."""

from __future__ import annotations

#: How fast the clock of the stamps may run away from ours [s/s]: a way that lengthens no faster is not noticed.
#: Crystals differ by 1e-4 and less, disciplined clocks are slewed by 5e-4.
DRIFT = 1e-3


class Arrivals:
    """Compares each sample's way with the shortest so far, so that the two clocks need not agree."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: the next sample counts as fresh."""
        self._shortest, self._last = float("inf"), float("-inf")

    def received(self, arrival: float, stamp: float) -> float:
        """When a sample would have come, had its way been the shortest so far [s].

        Args:
            arrival: when it came, on our clock [s].
            stamp: when it was made, on any clock of nearly the same speed [s]; increasing.
        """
        way = arrival - stamp
        self._shortest = min(way, self._shortest + DRIFT * (arrival - self._last))
        self._last = arrival
        return arrival - (way - self._shortest)
