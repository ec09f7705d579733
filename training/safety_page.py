"""The safety report of `onestride certify` as one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterable

from onestride.deploy.certify.report import Attacked, Claim, SafetyReport
from onestride.training import safety_plots as plots
from onestride.training.pages import GREEN, RED, document, side_by_side, table

LEVELS = """<p class="note"><b>proved</b>: by construction or proof, of the commands and on the model that the row
names. <b>monitored</b>: watched while it runs, with a declared reaction. <b>trained</b>: the policy was trained to it.
What is in none of the lines below is not claimed.</p>"""

KINEMATIC = """<p class="note">Attacks through the shipped chain, tick by tick, on the kinematic model: drives follow
their commands as a first-order lag and touch nothing. What was sent is judged by its own differences and distances,
apart from the filters, against the strictest limits of robot and contract. A refusal leads to the declared safe stop,
and the robot is then activated again. Legs are attacked on their plant instead, where they fall as they like.</p>"""


def build_page(report: SafetyReport) -> str:
    """Verdict, claims, what is not claimed, contract, attacks, energy, certificates, closed loop."""
    parts = (
        _verdict(report),
        f"<h2>Claims</h2>{LEVELS}{_wide(table(_claims(report.claims), _CLAIM_HEAD))}",
        f"<h2>Not claimed</h2>{_listed(report.not_claimed)}",
        _contract(report),
        _attacks(report),
        _energy(report),
        _certificates(report),
        _plant(report),
    )
    return document("onestride safety report", "\n".join(parts))


_CLAIM_HEAD = ("part", "level", "claim", "assumes", "when it cannot be kept", "held against", "violations")


def _verdict(report: SafetyReport) -> str:
    words, colour = ("No proved claim was violated", GREEN) if report.passed else ("Not certified", RED)
    settings = report.settings
    facts = [
        ("policy", f"{report.policy['name']}, {report.policy['algorithm']}, sha256 {report.policy['sha256'][:16]}…"),
        ("robot", f"{report.robot['title']} ({report.robot['id']})"),
        ("environment", report.environment or "none"),
        ("commands", f"{1.0 / settings.period:g} Hz"),
        ("made with", f"seed {settings.seed}, {settings.rollouts} runs of {settings.seconds:g} s for each attack"),
    ]
    return f"""<h1 style="color: {colour}">{words}</h1>
<p class="note">Everything on this page is <b>simulated</b>. A Python process is not a safety-rated device: the
emergency stop is hardware.</p>{table(facts)}{_listed(report.failures)}"""


def _listed(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _claims(claims: Iterable[Claim]) -> list[list[str]]:
    return [
        [
            _with_settings(claim),
            claim.level,
            claim.claim,
            claim.assumes,
            claim.otherwise,
            str(claim.held) if claim.held else "",
            str(claim.violations) if claim.held else "",
        ]
        for claim in claims
    ]


def _with_settings(claim: Claim) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in claim.settings.items() if value != "None")
    return f"{claim.name} ({settings})" if settings else claim.name


def _wide(text: str) -> str:
    """A table that may be wider than the page."""
    return f'<div style="overflow-x: auto">{text}</div>'


def _contract(report: SafetyReport) -> str:
    lines = [("differences to the robot", "; ".join(report.differences) or "none")]
    lines += [(f"monitor {one.name}", f"{one.meaning}, threshold {one.threshold:g}") for one in report.monitors]
    slope = report.lipschitz
    if slope:
        words = f"at least {slope.seen:.3g} (seen at {slope.samples} observations), at most {slope.bound:.3g}"
        lines.append(("Lipschitz constant", f"{words}, NFE {slope.nfe}"))
    return f"<h2>Contract</h2>{table(lines)}"


_ATTACK_HEAD = (
    "attack", "ticks", "changed", "by rows", "refused", "position", "speed", "acceleration", "jerk", "least room",
    "yielded", "violations",
)  # fmt: skip


def _attack_line(one: Attacked) -> list[str]:
    used = [f"{one.used[rule]:.4f}" for rule in ("position", "velocity", "acceleration", "jerk")]
    room = ", ".join(f"{name} {value:.3g}" for name, value in one.margins.items())
    broken = ", ".join(f"{name} {count}" for name, count in one.violations.items() if count)
    rates = (f"{one.interventions:.1%}", f"{one.by_rows:.1%}")
    return [one.name, str(one.ticks), *rates, str(one.refusals), *used, room, str(one.yielded), broken or "0"]


def _attacks(report: SafetyReport) -> str:
    results = [rollout.result for rollout in report.rollouts]
    curves = {name: None for rollout in report.rollouts for name in rollout.trail.curves if _is_room(name)}
    figures = [plots.margins(report.rollouts, name) for name in curves]
    figures += [plots.intervention_rates(results), plots.active_rules(_all_of(results))]
    return f"""<h2>Adversarial rollouts</h2>{KINEMATIC}
<p class="note">Shares are of each limit, 1 = all of it; an attack that stays far below was no attack.</p>
{_wide(table(map(_attack_line, results), _ATTACK_HEAD))}{_corners(report)}{_refusals(results)}{side_by_side(figures)}"""


def _is_room(curve: str) -> bool:
    return curve == "position margin" or curve.endswith(" distance")


def _all_of(results: list[Attacked]) -> Attacked:
    """The rules of all attacks together."""
    active: dict[str, int] = {}
    for one in results:
        for rule, count in one.active.items():
            active[rule] = active.get(rule, 0) + count
    ordered = dict(sorted(active.items(), key=lambda item: -item[1]))
    return results[0].model_copy(
        update={"name": "all attacks", "ticks": sum(one.ticks for one in results), "active": ordered}
    )


def _corners(report: SafetyReport) -> str:
    one = report.joints
    if one is None:
        return ""
    used = ", ".join(f"{name} {share:.4f}" for name, share in one.used.items())
    return f"""<p>The joints' rows alone, {one.states} states at their corners: {used}; {one.empty} states without a
permitted command, {one.violations} commands beyond a limit.</p>"""


def _refusals(results: list[Attacked]) -> str:
    return _listed(
        f"{one.name}: refused {count} times: {reason}" for one in results for reason, count in one.reasons.items()
    )


def _energy(report: SafetyReport) -> str:
    if not report.energy:
        return "<h2>Energy</h2><p>Not claimed: the robot declares no tank.</p>"
    rows = [(one.port, f"{one.bound:.4g}", f"{one.most:.4g}", str(one.runs), str(one.ticks)) for one in report.energy]
    heads = ("port", "bound [J]", "most that left [J]", "worlds", "ticks each")
    return f"""<h2>Energy</h2><p class="note">The tank's rows in worlds that move the joints as they like, to take as
much as they can; what left is force times way, apart from what the tank meters.</p>
{table(rows, heads)}{side_by_side(map(plots.energy, report.energy))}"""


def _certificates(report: SafetyReport) -> str:
    if not report.certificates:
        return ""
    figures = [draw(one) for one in report.certificates for draw in (plots.value_over_time, plots.region)]
    rows = [
        (
            one.name,
            one.certificate.system,
            f"{one.certificate.level:.4g}",
            f"{one.certificate.decay:g}",
            one.certificate.proof.method if one.certificate.proof else "not proved",
            f"{one.certificate.proof.share:.1%}" if one.certificate.proof else "",
        )
        for one in report.certificates
    ]
    heads = ("row", "system", "level", "decay", "proof", "share of the domain")
    return f"<h2>Certificates</h2>{table(rows, heads)}{side_by_side(figures)}"


def _plant(report: SafetyReport) -> str:
    if not report.plant:
        return f"<h2>Closed loop</h2><p>Left out: {html.escape(report.plant_skipped)}.</p>"
    rows = [
        (
            one.name,
            f"{one.solved} of {one.episodes}",
            f"{one.joint_excess:.3g}",
            f"{one.speed:.1%}",
            "; ".join(f"{count} x {reason}" for reason, count in one.faults.items()) or "none",
            ", ".join(f"{port} {joule:.3g}" for port, joule in one.energy.items()),
        )
        for one in report.plant
    ]
    heads = ("driven by", "solved", "measured beyond limits [rad]", "measured speed", "safe stops", "delivered [J]")
    bounds = {one.port: one.bound for one in report.energy}
    commands = [one.commands for one in report.plant]
    figures = [figure for one in report.plant for figure in plots.trail(one, bounds)]
    figures += [plots.intervention_rates(commands), *(plots.active_rules(one) for one in commands)]
    noise = report.settings.noise
    return f"""<h2>Closed loop on the simulated plant</h2>
<p class="note">The shipped controller on the scene of {html.escape(report.environment)}. The noise is Gaussian, its
deviation {noise:g} of half of each observation's range in the training data. The adversary's commands go through the
same chain. Measured beyond limits: the simulated joints themselves, negative = inside.</p>
{_wide(table(rows, heads))}{_wide(table(map(_attack_line, commands), _ATTACK_HEAD))}{side_by_side(figures)}"""
