"""The chain: which filters a robot's commands go through, in the order of the tick."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from onestride.hardware.model import Model
from onestride.hardware.safety.certificates import BarrierRow, DecreaseFilter, LyapunovRow, RegionFilter
from onestride.hardware.safety.energy import TankRow
from onestride.hardware.safety.geometry import CollisionRow, WorkspaceRow
from onestride.hardware.safety.guards import (
    ClockGuard,
    EnvelopeGuard,
    FiniteGuard,
    FrozenGuard,
    FrozenImuGuard,
    OverspeedGuard,
    PolicyGuard,
    RateGuard,
    SignGuard,
    StreamsGuard,
    TiltGuard,
    TrackingGuard,
)
from onestride.hardware.safety.joints import ApproachFilter, ImpedanceRow, JointRows

RowTerms = Annotated[
    JointRows | ImpedanceRow | TankRow | WorkspaceRow | CollisionRow | LyapunovRow | BarrierRow,
    Field(discriminator="row"),
]


class ProjectionFilter(Model):
    """The closest command that keeps every row, found as one quadratic program.

    Attributes:
        rows: what is kept; the order is that of reports only.
    """

    filter: Literal["projection"] = "projection"
    rows: tuple[RowTerms, ...] = (JointRows(),)


FilterTerms = Annotated[
    FiniteGuard
    | StreamsGuard
    | PolicyGuard
    | ClockGuard
    | EnvelopeGuard
    | FrozenGuard
    | FrozenImuGuard
    | SignGuard
    | RateGuard
    | OverspeedGuard
    | TrackingGuard
    | TiltGuard
    | RegionFilter
    | DecreaseFilter
    | ApproachFilter
    | ProjectionFilter,
    Field(discriminator="filter"),
]

#: Filters that change a command. None may come after the projection: it would undo what is certified.
MODIFYING = (ApproachFilter, ProjectionFilter)

#: Rows of which a second one would contradict or repeat the first.
SINGLE = (JointRows, ImpedanceRow, TankRow, CollisionRow)

USUAL_CHAIN: tuple[FilterTerms, ...] = (
    FiniteGuard(),
    StreamsGuard(),
    PolicyGuard(),
    ApproachFilter(),
    ProjectionFilter(),
)


def checked(chain: Sequence[FilterTerms], frames: Collection[str], *, impedance: bool = False) -> None:
    """Refuse a chain that contradicts itself or the robot with these frames, whose drives take `impedance` or not.

    Raises:
        ValueError: the first filter is not `finite`, there is not exactly one projection with the row of the drives in
            it, a tank is for other drives, something modifies commands after it, or a frame is unknown.
    """
    names = [terms.filter for terms in chain]
    if names[:1] != ["finite"]:
        raise ValueError(f"safety: expected finite as the first filter, got {names[0] if names else 'none'}")
    if names.count("projection") != 1:
        raise ValueError(f"safety: expected exactly one projection, got {names.count('projection')}")
    projection = next(terms for terms in chain if isinstance(terms, ProjectionFilter))
    for terms in chain[chain.index(projection) + 1 :]:
        if isinstance(terms, MODIFYING):
            raise ValueError(f"safety: {terms.filter} modifies commands, expected it before the projection")
    _rows_agree(projection.rows, *(("impedance", "joints") if impedance else ("joints", "impedance")))
    _tank_fits(projection.rows, "impedance" if impedance else "position")
    _frames_exist((*chain, *projection.rows), frames)


def _rows_agree(rows: Sequence[RowTerms], wanted: str, other: str) -> None:
    names = [terms.row for terms in rows]
    if wanted not in names:
        raise ValueError(f"safety: expected the row {wanted} in the projection, got {', '.join(names) or 'no rows'}")
    if other in names:
        raise ValueError(f"safety: expected no row {other} beside {wanted}: it is for other drives")
    for terms in rows:
        if isinstance(terms, SINGLE) and names.count(terms.row) > 1:
            raise ValueError(f"safety: expected the row {terms.row} once, got it {names.count(terms.row)} times")


def _tank_fits(rows: Sequence[RowTerms], command_mode: str) -> None:
    tanks = [terms for terms in rows if isinstance(terms, TankRow)]
    if tanks and command_mode == "impedance":
        raise ValueError(
            "safety: expected no row tank with command_mode impedance: "
            "it bounds what drives with held gains deliver, and knows no stop by damping"
        )
    for terms in tanks:
        if terms.drive == "effort":
            raise ValueError(f"safety: tank: expected drive impedance with command_mode {command_mode}, got effort")


def _frames_exist(parts: Iterable[Model], frames: Collection[str]) -> None:
    for terms in parts:
        named = (getattr(terms, "frame", None), *getattr(terms, "frames", ()))
        for frame in named:
            if frame is not None and frame not in frames:
                raise ValueError(f"safety: unknown frame: got {frame!r}, available: {', '.join(frames)}")
