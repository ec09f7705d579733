"""The solver answers as another one does, on problems from closed loops, and never says "infeasible" of a feasible one.

The other solver is Clarabel, an interior-point method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import clarabel
import numpy as np
import pytest
from geometry_samples import Geometry, Pushed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from scipy.optimize import nnls

from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.solver import INFEASIBLE, Solution, Solver
from onestride.hardware.state import Array

Problem = tuple[Array, Array, Array, Array]


def second_opinion(low: Array, high: Array, matrix: Array, bound: Array) -> Array | None:
    """The smallest change by Clarabel; None where it finds none."""
    bound, asks = np.where(np.isfinite(bound), bound, 0.0), np.isfinite(bound)
    n, eye = len(low), np.eye(len(low))
    rows = np.vstack([matrix[asks], eye[np.isfinite(high)], -eye[np.isfinite(low)]])
    bounds = np.concatenate([bound[asks], high[np.isfinite(high)], -low[np.isfinite(low)]])
    settings = clarabel.DefaultSettings()  # pyright: ignore[reportAttributeAccessIssue]
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-13
    # Scaled so that steps of milliradians are numbers around one.
    scale = 1.0 / max(float(np.abs(bounds).max(initial=0.0)), 1e-6)
    solver = clarabel.DefaultSolver(  # pyright: ignore[reportAttributeAccessIssue]
        sparse.csc_matrix(eye),
        np.zeros(n),
        sparse.csc_matrix(rows),
        bounds * scale,
        [clarabel.NonnegativeConeT(len(bounds))],  # pyright: ignore[reportAttributeAccessIssue]
        settings,
    )
    solution = solver.solve()
    if "Solved" not in str(solution.status):
        return None
    return np.array(solution.x) / scale


def change_of(solution: Solution) -> Array:
    """The change that there must be."""
    assert solution.change is not None, f"no solution, flag {solution.flag}"
    return solution.change


def unexplained(low: Array, high: Array, matrix: Array, bound: Array, change: Array) -> float:
    """How far a change is from being the smallest at most, by its optimality conditions.

    It must be a sum of the normals of what it touches, none of them negative; what is left of it is how much smaller
    a change could be.
    """
    normals = np.vstack([-matrix, np.eye(len(low)), -np.eye(len(low))])
    slack = np.concatenate([bound - matrix @ change, change - low, high - change])
    return (
        float(nnls(normals[slack <= 1e-10].T, change)[1]) if np.any(slack <= 1e-10) else float(np.linalg.norm(change))
    )


@dataclass
class Recording(Solver):
    """A solver that keeps what it was asked and what it said."""

    joints: int
    asked: list[tuple[Problem, Solution]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.joints)

    def smallest_change(self, low, high, matrix, bound, soft=None) -> Solution:
        solution = super().smallest_change(low, high, matrix, bound, soft)
        if soft is None or not soft.any():
            self.asked.append(((low, high, matrix.copy(), bound), solution))
        return solution


def from_closed_loops(forward: ForwardKinematics, count: int) -> Iterator[list[tuple[Problem, Solution]]]:
    """What the solver was asked while an arm was pushed against its workspace and itself, some hundred at a time."""
    geometry, rng = Geometry(forward), np.random.default_rng(0)
    pushed = Pushed(geometry.sources())
    lower, upper = geometry.robot.position_limits
    while count > 0:
        recording = pushed.projection._solver = Recording(7)
        while len(recording.asked) < min(count, 500):
            target = lower + rng.random(7) * (upper - lower)
            for _ in range(60):
                pushed.push(pushed.sent + np.clip(target - pushed.sent, -0.05, 0.05))
        count -= len(recording.asked)
        yield recording.asked


def agree(asked: list[tuple[Problem, Solution]]) -> None:
    wrong_refusals, apart, broken = 0, [0.0], 0.0
    for problem, ours in asked:
        theirs = second_opinion(*problem)
        low, high, matrix, bound = problem
        if ours.change is None:
            assert ours.flag == INFEASIBLE
            wrong_refusals += theirs is not None and float((matrix @ theirs - bound).max()) < -1e-9
            continue
        broken = max(broken, float((matrix @ ours.change - bound).max()), float((low - ours.change).max()))
        broken = max(broken, float((ours.change - high).max()))
        assert unexplained(*problem, ours.change) <= 1e-8
        if theirs is not None:
            apart.append(float(np.abs(ours.change - theirs).max()))
            assert ours.change @ ours.change <= theirs @ theirs + 1e-9, "the other found a smaller change"
    assert wrong_refusals == 0
    assert broken <= 1e-9
    assert np.percentile(apart, 95) <= 1e-8  # the other is less exact where rows are nearly parallel


def test_it_agrees_with_another_solver_on_problems_of_closed_loops(forward):
    solved = 0
    for asked in from_closed_loops(forward, 500):
        solved += sum(solution.change is not None for _, solution in asked)
        agree(asked)
    assert solved > 250


@pytest.mark.slow
def test_it_agrees_on_a_hundred_thousand_of_them(forward):
    for asked in from_closed_loops(forward, 100_000):
        agree(asked)


def random_problem(rng: np.random.Generator, rows: int = 30) -> tuple[Problem, Array]:
    """A problem and a command that is known to keep it."""
    inside = rng.normal(size=7) * 0.1
    matrix = rng.normal(size=(rows, 7))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    bound = matrix @ inside + rng.exponential(0.02, rows)
    low, high = inside - rng.exponential(0.1, 7), inside + rng.exponential(0.1, 7)
    quiet = rng.random(rows) < 0.2
    matrix[quiet], bound[quiet] = 0.0, np.inf
    return (low, high, matrix, bound), inside


def test_random_problems_to_eight_digits():
    rng, solver = np.random.default_rng(1), Solver(7)
    for _ in range(1000):
        problem, inside = random_problem(rng)
        change, other = change_of(solver.smallest_change(*problem)), second_opinion(*problem)
        assert other is not None
        np.testing.assert_allclose(change, other, rtol=0, atol=1e-8)
        assert change @ change <= inside @ inside + 1e-12


def test_memory_of_the_last_problem_changes_no_answer():
    """Warm starts from a problem that has nothing to do with the next, feasible or not."""
    rng, solver = np.random.default_rng(2), Solver(7)
    for index in range(2000):
        (low, high, matrix, bound), _ = random_problem(rng)
        if index % 3 == 0:
            bound = bound - 0.2
        warm = solver.smallest_change(low, high, matrix, bound)
        cold = Solver(7).smallest_change(low, high, matrix, bound)
        assert (warm.change is None) == (cold.change is None)
        if warm.change is not None and cold.change is not None:
            np.testing.assert_allclose(warm.change, cold.change, rtol=0, atol=1e-9)


@given(arrays(float, 7, elements=st.floats(-1, 1)), arrays(float, 7, elements=st.floats(0, 1)))
def test_without_rows_it_is_the_nearest_point_of_the_box(low, width):
    change = change_of(Solver(7).smallest_change(low, low + width, np.zeros((0, 7)), np.zeros(0)))
    np.testing.assert_allclose(change, np.clip(0.0, low, low + width), rtol=0, atol=1e-10)


def test_rows_of_zeros_ask_for_nothing_or_for_the_impossible():
    wide = np.full(7, 1.0)
    zeros = np.zeros((2, 7))
    solver = Solver(7)
    assert not change_of(solver.smallest_change(-wide, wide, zeros, np.array([np.inf, 0.0]))).any()
    assert solver.smallest_change(-wide, wide, zeros, np.array([np.inf, -1.0])) == Solution(None, INFEASIBLE)


def test_a_hand_computed_change():
    """From 0 to the plane x + y >= 1, with x at most 0.2."""
    matrix = -np.array([[1.0, 1.0]]) / np.sqrt(2.0)
    solution = Solver(2).smallest_change(np.full(2, -9.0), np.array([0.2, 9.0]), matrix, np.array([-np.sqrt(0.5)]))
    np.testing.assert_allclose(change_of(solution), [0.2, 0.8], rtol=0, atol=1e-12)


def test_nothing_that_is_not_a_number_is_solved():
    wide = np.full(7, 1.0)
    for spoilt in (np.nan, -np.inf):
        assert Solver(7).smallest_change(-wide, wide, np.eye(7)[:1], np.array([spoilt])).change is None


def test_rows_that_may_be_broken_are_broken_as_little_as_must_be():
    """A soft wall at 2, a hard bound at 1: as near to the wall as it gets, and no further in any other direction."""
    ends = np.array([1.0, 5.0])
    walls = -np.array([[1.0, 0.0], [0.0, 1.0]])
    solution = Solver(2).smallest_change(-ends, ends, walls, np.array([-2.0, -0.5]), np.array([True, False]))
    assert solution.change is not None
    np.testing.assert_allclose(solution.change, [1.0, 0.5], rtol=0, atol=1e-5)
