"""Figures of the safety report, as SVG text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from onestride.deploy.certify.report import Attacked, Curve, KeptCertificate, Played, Rollout, Spent
from onestride.hardware.safety.certificates import QuadraticTerms
from onestride.training.pages import BLUE, COLOURS, GREEN, GREY, RED, new_figure, svg

#: Rules that a figure has room for.
RULES = 10

#: Letters of a rule's name.
LONGEST = 38


def line(axes: Any, time: Iterable[float], values: Curve, **style: Any) -> None:
    """A curve with gaps where there is no value."""
    axes.plot(list(time), [np.nan if value is None else value for value in values], linewidth=1.1, **style)


def margins(rollouts: Iterable[Rollout], curve: str) -> str:
    """One distance over time, a line for each attack."""
    figure, axes = new_figure()
    for index, rollout in enumerate(rollouts):
        if curve in rollout.trail.curves:
            colour = COLOURS[index % len(COLOURS)]
            line(axes, rollout.trail.time, rollout.trail.curves[curve], color=colour, label=rollout.result.name)
    axes.axhline(0.0, color=RED, linestyle="--", linewidth=1)
    axes.set(xlabel="time [s]", ylabel=_unit(curve), title=f"{curve}, first run of each attack")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def _unit(curve: str) -> str:
    return "rad" if curve == "position margin" else "m" if curve.endswith("distance") else ""


def active_rules(one: Attacked) -> str:
    """In how many ticks each rule was active."""
    figure, axes = new_figure()
    names = list(one.active)[:RULES][::-1]
    shares = [100.0 * one.active[name] / max(one.ticks, 1) for name in names]
    axes.barh([_short(name) for name in names], shares, color=BLUE, height=0.6)
    axes.set(xlabel="share of ticks [%]", xlim=(0, 100), title=f"Active rules: {one.name}")
    axes.tick_params(axis="y", labelsize=8)
    return svg(figure)


def _short(rule: str) -> str:
    """A rule's name, without what goes without saying, and without its middle where it is long."""
    name = rule.removeprefix("projection.")
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 :]}"


def intervention_rates(attacked: Iterable[Attacked]) -> str:
    """How much of what was asked for had to be changed."""
    figure, axes = new_figure()
    shown = list(attacked)[::-1]
    names, at = [one.name for one in shown], np.arange(len(shown))
    axes.barh(at + 0.2, [100.0 * one.interventions for one in shown], 0.36, color=GREY, label="any filter")
    axes.barh(at - 0.2, [100.0 * one.by_rows for one in shown], 0.36, color=BLUE, label="rows of the projection")
    axes.set_yticks(at, names, fontsize=8)
    axes.set(xlabel="share of ticks [%]", xlim=(0, 100), title="Commands changed")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return svg(figure)


def energy(spent: Spent) -> str:
    """What left a port in the worst world, against its bound."""
    figure, axes = new_figure()
    axes.plot(spent.time, spent.delivered, color=BLUE, linewidth=1.2, label="delivered")
    axes.plot(spent.time, spent.left, color=GREEN, linewidth=1.2, label="left in the tank")
    axes.axhline(spent.bound, color=RED, linestyle="--", linewidth=1, label="bound")
    axes.set(xlabel="time [s]", ylabel="J", title=f"Port {spent.port}, worst of {spent.runs} worlds")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def value_over_time(kept: KeptCertificate) -> str:
    """V, or h, of the worst joint along the first attack."""
    figure, axes = new_figure()
    level, values = kept.certificate.level, np.array(kept.value)
    barrier = kept.name.startswith("barrier")
    axes.plot(kept.time, level - values if barrier else values, color=BLUE, linewidth=1.2)
    axes.axhline(0.0 if barrier else level, color=RED, linestyle="--", linewidth=1)
    what = "h = level - V" if barrier else "V"
    axes.set(xlabel="time [s]", ylabel=what, title=f"{kept.name}: {what} of the worst joint, dashed its bound")
    return svg(figure)


def region(kept: KeptCertificate) -> str:
    """The certified region of a joint, and states that attacks took joints to."""
    figure, axes = new_figure()
    terms = kept.certificate
    assert isinstance(terms.function, QuadraticTerms)
    p = np.array(terms.function.matrix)
    far, fast = 1.3 * np.sqrt(terms.level * np.diag(np.linalg.inv(p)))
    q, v = np.meshgrid(np.linspace(-far, far, 201), np.linspace(-fast, fast, 201))
    value = p[0, 0] * q**2 + 2 * p[0, 1] * q * v + p[1, 1] * v**2
    axes.contourf(q, v, value, levels=[0.0, terms.level], colors=["#9ecae1"])
    states = np.array(kept.states)
    axes.plot(states[:, 0], states[:, 1], ".", color=GREY, markersize=2)
    axes.set(xlim=(-far, far), ylim=(-fast, fast), xlabel="distance to the goal [rad]", ylabel="speed [rad/s]")
    axes.set_title(f"{kept.name}: certified region, states under attack")
    return svg(figure)


def trail(played: Played, bounds: Mapping[str, float]) -> list[str]:
    """The first episode: room left, with the ticks in which rows changed something; energies; other readings."""
    kinds: dict[str, dict[str, Curve]] = {}
    for name, curve in played.trail.curves.items():
        kinds.setdefault(_kind(name), {})[name] = curve
    return [_curves(played, kind, kinds[kind], bounds) for kind in KINDS if kind in kinds]


#: What curves are about, and their units.
KINDS = {"room of the joints": "rad", "room in space": "m", "energy": "J", "other readings": ""}


def _kind(curve: str) -> str:
    if curve == "position margin":
        return "room of the joints"
    if curve.endswith(" distance"):
        return "room in space"
    return "energy" if curve.startswith(("tank.", "delivered by ")) else "other readings"


def _curves(played: Played, kind: str, curves: Mapping[str, Curve], bounds: Mapping[str, float]) -> str:
    figure, axes = new_figure()
    for index, (name, curve) in enumerate(curves.items()):
        line(axes, played.trail.time, curve, color=COLOURS[index % len(COLOURS)], label=name)
        port = name.removeprefix("delivered by ")
        if port in bounds and port != name:
            axes.axhline(bounds[port], color=RED, linestyle="--", linewidth=1, label=f"bound of {port}")
    if kind.startswith("room"):
        axes.axhline(0.0, color=RED, linestyle="--", linewidth=1)
        changed = [at for at, one in zip(played.trail.time, played.trail.changed, strict=True) if one]
        axes.plot(changed, [0.0] * len(changed), "|", color=GREY, markersize=6, label="changed by rows")
    axes.set(xlabel="time [s]", ylabel=KINDS[kind], title=f"{played.name}: {kind}")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)
