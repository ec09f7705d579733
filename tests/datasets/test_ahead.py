"""Working ahead: the same items in the same order, one ahead and no more, all of it in one thread that ends."""

from __future__ import annotations

import threading
from collections.abc import Generator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.datasets.ahead import ahead, portions
from onestride.datasets.schema import Episode


class Log:
    """A generator that notes what it does, and in which thread."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.made: list[int] = []
        self.closed = False
        self.threads: set[int] = set()
        self.begun = [threading.Event() for _ in range(count + 1)]
        self._count, self._fails_at = count, fails_at

    def items(self) -> Generator[int, None, None]:
        try:
            for number in range(self._count):
                self.threads.add(threading.get_ident())
                self.begun[number].set()
                if number == self._fails_at:
                    raise ValueError("damaged")
                self.made.append(number)
                yield number
            self.begun[self._count].set()
        finally:
            self.threads.add(threading.get_ident())
            self.closed = True


def others() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_item_comes_in_order(count: int) -> None:
    log = Log(count)
    with ahead(log.items()) as found:
        assert list(found) == list(range(count))
    assert log.closed and not others()
    assert len(log.threads) <= 1 and threading.get_ident() not in log.threads


def test_the_next_item_is_made_meanwhile_and_no_more() -> None:
    """The first at once, each further one when the one before it is taken."""
    log = Log(5)
    with ahead(log.items()) as found:
        assert log.begun[0].wait(10)
        assert not log.begun[1].is_set()
        assert next(found) == 0
        assert log.begun[1].wait(10)
        assert not log.begun[2].wait(0.05)
        assert next(found) == 1
    assert log.closed and not others()
    assert log.made[-1] <= 2
    assert len(log.threads) == 1


def test_an_error_comes_where_its_item_would_have_been() -> None:
    log = Log(5, fails_at=2)
    seen = []
    with pytest.raises(ValueError, match="damaged"), ahead(log.items()) as found:
        for item in found:
            seen.append(item)
    assert seen == [0, 1]
    assert log.closed and not others()


def test_an_error_of_the_user_ends_the_thread() -> None:
    log = Log(5)
    with pytest.raises(KeyboardInterrupt), ahead(log.items()) as found:
        next(found)
        raise KeyboardInterrupt
    assert log.closed and not others()


def test_an_error_while_cleaning_up_is_told() -> None:
    def items() -> Generator[int, None, None]:
        try:
            yield 1
            yield 2
        finally:
            raise ValueError("cannot be closed")

    with pytest.raises(ValueError, match="cannot be closed"), ahead(items()) as found:
        assert next(found) == 1


@given(st.lists(st.integers(1, 9)), st.integers(1, 20))
def test_portions_are_as_large_as_they_may_be(lengths: list[int], most: int) -> None:
    given_ = [Episode({"x": np.full(length, number, np.uint8)}, {}) for number, length in enumerate(lengths)]
    found = list(portions(given_, most))
    assert [id(one) for portion in found for one in portion] == [id(one) for one in given_]
    sizes = [sum(one.nbytes for one in portion) for portion in found]
    assert all(size <= most or len(portion) == 1 for size, portion in zip(sizes, found, strict=True))
    assert all(size + after[0].nbytes > most for size, after in zip(sizes, found[1:], strict=False))


def test_portions_close_what_they_are_made_of_in_their_own_thread() -> None:
    threads: list[int] = []

    def episodes() -> Generator[Episode, None, None]:
        try:
            while True:
                yield Episode({"x": np.zeros(4, np.uint8)}, {})
        finally:
            threads.append(threading.get_ident())

    kept = episodes()
    with ahead(portions(kept, 8)) as found:
        assert len(next(found)) == 2
    assert len(threads) == 1 and threads != [threading.get_ident()]
