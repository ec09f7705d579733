"""What was sent, tick by tick, and what can be told from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.certify.limits import ROUNDING as SAME_COMMAND
from onestride.deploy.certify.limits import RULES, JointBounds, uses
from onestride.deploy.certify.report import Attacked, Trail
from onestride.deploy.safety.apart import ROUNDING, Clearing
from onestride.deploy.safety.lyapunov import JointCertificate
from onestride.deploy.safety.types import Certified
from onestride.hardware.safety.certificates import BarrierRow, LyapunovRow
from onestride.hardware.state import Array

#: What rounding may add to V, as a share of the certified level.
SAME_VALUE = 1e-6

#: Points of a curve on the page.
POINTS = 400


@dataclass
class Trace:
    """One run through a chain.

    Attributes:
        period: of the commands [s].
        commands: sent, the robot resting at the first (T + 1, n) [rad].
        answers: of the chain; None in ticks of a stop.
        reasons: of refusals.
        late_stops: stops that took longer than declared.
        distances: of every command but the first, once they were measured; see `Judge.distances`.
        broken: commands that broke a claim which only who drove the robot could see, by the claim's name and rule.
        rooms: the least that was left of other limits, by name.
    """

    period: float
    commands: list[Array]
    answers: list[Certified | None] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    late_stops: int = 0
    distances: dict[str, Array] | None = None
    broken: Counter[str] = field(default_factory=Counter)
    rooms: dict[str, float] = field(default_factory=dict)

    def note(self, command: Array, answer: Certified | None) -> None:
        """One tick: what was sent, and the answer if the chain gave one that was sent."""
        self.commands.append(command)
        self.answers.append(answer)

    @property
    def sent(self) -> Array:
        """All commands (T + 1, n) [rad]."""
        return np.array(self.commands)

    @property
    def stopping(self) -> NDArray[np.bool_]:
        """Ticks of a stop (T,)."""
        return np.array([answer is None for answer in self.answers], bool)

    @property
    def yielded(self) -> NDArray[np.bool_]:
        """Ticks in which a claim was reported to yield, and those of a stop that began in such a state (T,)."""
        flags: list[bool] = []
        for answer in self.answers:
            reported = answer is not None and any(rule.endswith(".yielded") for rule in answer.active)
            stopping = answer is None and bool(flags) and flags[-1]
            flags.append(reported or stopping)
        return np.array(flags, bool)


@dataclass(frozen=True)
class Judge:
    """Holds traces against what is claimed.

    Attributes:
        bounds: of the joints.
        near: what measures distances, by the row's name.
        certificates: that the chain keeps, by the row's name, each with its terms.
        drives: the row that keeps the joints' limits.
        deceleration: that the safe stop declares [rad/s^2].
    """

    bounds: JointBounds
    near: Mapping[str, Clearing]
    certificates: Mapping[str, tuple[LyapunovRow | BarrierRow, JointCertificate]]
    drives: str = "joints"
    deceleration: float = np.inf

    def violations(self, trace: Trace) -> dict[str, int]:
        """How many commands broke which claim: `joints.position`, `workspace`, ..."""
        if not trace.answers:
            return {}
        sent = trace.sent
        finite = np.isfinite(sent[1:]).all(axis=-1)
        found = {"finite": int((~finite).sum()), "safe_stop": trace.late_stops + int(self._harsh(trace).sum())}
        beyond = uses(sent, trace.period, self.bounds).beyond
        excused = {"jerk": trace.yielded, "acceleration": trace.yielded & ~trace.stopping}
        for rule in RULES:
            found[f"{self.drives}.{rule}"] = int((beyond[rule] & ~excused.get(rule, np.False_)).sum())
        for name, distances in self.distances(trace).items():
            found[name] = int((~(distances >= -ROUNDING)).sum())
        for name in self.certificates:
            found[name] = int(self._grows(name, trace).sum())
        return {name: found.get(name, 0) + trace.broken[name] for name in (*found, *trace.broken)}

    def _harsh(self, trace: Trace) -> NDArray[np.bool_]:
        """Ticks of a stop that brake harder than it declares, and than the tick before, which it may let go of (T,)."""
        sent = trace.sent[:, self.bounds.moving]
        change = np.abs(np.diff(sent, n=2, axis=0, prepend=sent[[0, 0]]))
        before = np.concatenate([np.zeros_like(change[:1]), change[:-1]])
        most = np.maximum(self.deceleration * trace.period**2, before) + SAME_COMMAND
        return np.asarray((~(change <= most)).any(axis=-1))[1:] & trace.stopping

    def distances(self, trace: Trace) -> dict[str, Array]:
        """The smallest of each kind at every command but the first (T,) [m], less its margin; measured once."""
        if trace.distances is None:
            trace.distances = {
                name: np.array([clearing.at(one[None]).distance.min(initial=np.inf) for one in trace.commands[1:]])
                for name, clearing in self.near.items()
            }
        return trace.distances

    def values(self, name: str, trace: Trace) -> Array:
        """V of each joint at every command (T + 1, n)."""
        sent, joints = trace.sent, self.certificates[name][1]
        velocity = np.diff(sent, axis=0, prepend=sent[:1]) / trace.period
        return joints.value(sent - joints.goal, velocity)

    def _grows(self, name: str, trace: Trace) -> NDArray[np.bool_]:
        """Certified ticks after which a joint's V is above what is claimed from within the certified level (T,)."""
        terms, joints = self.certificates[name]
        values = self.values(name, trace)
        before, after = values[:-1], values[1:]
        level, given = joints.level, np.array([answer is not None for answer in trace.answers])
        if isinstance(terms, BarrierRow):
            allowed = level - terms.reserve - (1.0 - terms.rate) * (level - before)
        else:
            allowed = (1.0 - terms.certificate.decay) * before + terms.certificate.allowance
            given = given & ~trace.yielded
        over = (after > allowed + SAME_VALUE * level) & (before < level)
        return np.asarray((over & joints.spoken_of).any(axis=1) & given)

    def attacked(self, name: str, traces: Sequence[Trace]) -> Attacked:
        """All of that, of the runs of one attack."""
        answers = [answer for trace in traces for answer in trace.answers if answer is not None]
        used, margins = self._used(traces)
        return Attacked(
            name=name,
            ticks=sum(len(trace.answers) for trace in traces),
            interventions=sum(bool(answer.active) for answer in answers) / max(len(answers), 1),
            by_rows=sum(_by_rows(answer) for answer in answers) / max(len(answers), 1),
            refusals=sum(len(trace.reasons) for trace in traces),
            reasons=dict(Counter(reason for trace in traces for reason in trace.reasons).most_common(5)),
            used=used,
            margins=margins,
            yielded=sum(int(trace.yielded.sum()) for trace in traces),
            violations=self._broken(traces),
            active=dict(Counter(rule for answer in answers for rule in answer.active).most_common()),
        )

    def _broken(self, traces: Sequence[Trace]) -> dict[str, int]:
        found: Counter[str] = Counter()
        for trace in traces:
            found.update(self.violations(trace))
        return dict(found)

    def _used(self, traces: Sequence[Trace]) -> tuple[dict[str, float], dict[str, float]]:
        used, margins = dict.fromkeys(RULES, 0.0), dict[str, float]()
        for trace in (one for one in traces if one.answers):
            found = uses(trace.sent, trace.period, self.bounds)
            for rule in RULES:
                used[rule] = max(used[rule], float(np.nan_to_num(found.used[rule], nan=np.inf, posinf=np.inf).max()))
            least = {"position": float(found.margin.min())}
            least |= {name: float(d.min()) for name, d in self.distances(trace).items()} | trace.rooms
            margins = {name: min(margins.get(name, np.inf), value) for name, value in least.items()}
        return {name: min(value, 1e9) for name, value in used.items()}, margins

    def trail(self, trace: Trace, further: Mapping[str, Array] | None = None) -> Trail:
        """The curves of a run, thinned: margin, largest V, readings, and `further` ones (T,)."""
        count = len(trace.answers)
        index = np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(int)) if count else np.zeros(0, int)
        curves = self._curves(trace) | dict(further or {})
        return Trail(
            time=tuple(float(one) for one in (index + 1) * trace.period),
            curves={name: tuple(_or_none(float(values[at])) for at in index) for name, values in curves.items()},
            changed=tuple(answer is not None and _by_rows(answer) for answer in (trace.answers[at] for at in index)),
        )

    def _curves(self, trace: Trace) -> dict[str, Array]:
        if not trace.answers:
            return {}
        curves = {"position margin": uses(trace.sent, trace.period, self.bounds).margin}
        curves |= {f"{name} distance": values for name, values in self.distances(trace).items()}
        curves |= {f"V of {name}": self.values(name, trace)[1:].max(axis=1) for name in self.certificates}
        names = dict.fromkeys(name for answer in trace.answers if answer for name in answer.readings)
        for name in (one for one in names if not one.endswith((".distance", ".value"))):  # are known already
            read = [answer.readings.get(name, np.nan) if answer else np.nan for answer in trace.answers]
            curves[name] = np.array(read)
        return curves


def _by_rows(answer: Certified) -> bool:
    return any(rule.startswith("projection.") for rule in answer.active)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
