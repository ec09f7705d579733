"""A report as one HTML page that needs nothing else: tables, tails, and a bar for every stage."""

from __future__ import annotations

import html
from collections.abc import Iterable

from onestride.deploy.bench.report import Condition, Figures, FullTick, Paced, Report, Variant
from onestride.deploy.bench.tails import draw_tails

COLUMNS = ("min", "p50", "p90", "p95", "p99", "p999", "max")
COLOURS = {
    "observe": "#7aa6c2",
    "copy_in": "#b8c9a9",
    "infer": "#3b6ea5",
    "copy_out": "#93b48b",
    "filters": "#c98c5a",
    "publish": "#8d7aa8",
    "rest": "#bbbbbb",
}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}h2{margin-top:2rem}.note{color:#666}.bad{color:#b00020}
div.wide{overflow-x:auto}table.facts td{text-align:left}"""


def build_page(report: Report) -> str:
    """Machine, variants, control tick, and what was skipped."""
    parts = (
        f"<h1>{_safe(report.policy.name)} on {_safe(report.machine.device)}</h1>",
        f"<h2>Machine</h2>{_table(_facts(report), kind='facts')}",
        f"<h2>Inference</h2>{_inference_tails(report)}{''.join(map(_variant, report.variants))}",
        _tick(report.full_tick) if report.full_tick else "",
        f"<h2>Before and after</h2>{_table(_conditions(report), ('', 'before', 'after'))}",
        _power(report),
        _skipped(report),
    )
    title = f"onestride bench: {_safe(report.machine.device)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    policy, machine, jetson = report.policy, report.machine, report.machine.jetson
    facts = [
        ("policy", f"{policy.file}, sha256 {policy.sha256}"),
        ("shape", f"{policy.observation} to {policy.horizon} × {policy.action}, {_candidates(policy.candidates)}"),
        ("processor", f"{machine.processor or machine.machine}, {machine.cores} cores, on {_list(machine.affinity)}"),
        ("clocks pinned", "not known" if machine.pinned is None else str(machine.pinned).lower()),
        ("software", f"onnxruntime {machine.onnxruntime}, numpy {machine.numpy}, Python {machine.python}"),
        ("system", machine.system),
        ("measured", f"{report.measured} by onestride {machine.onestride}, {report.busy} busy neighbours"),
    ]
    if jetson:
        facts.append(("Jetson Linux, JetPack", f"{jetson.l4t or 'not known'}, {jetson.jetpack or 'not known'}"))
        facts.append(("nvpmodel", jetson.power_mode or "not known"))
        facts.append(("jetson_clocks", "not known" if jetson.clocks is None else f"pinned: {jetson.clocks.pinned}"))
    return facts


def _candidates(count: int) -> str:
    return "one candidate" if count == 1 else f"{count} candidates"


def _inference_tails(report: Report) -> str:
    """A whole inference of each variant at the control rate: what a robot waits for."""
    series = {one.title.replace("ExecutionProvider", ""): one.paced.stages["policy"] for one in report.variants}
    caption = "A whole inference at the control rate, from its median to its worst."
    return f'{draw_tails(series)}<p class="note">{caption}</p>'


def _variant(variant: Variant) -> str:
    error, paced = variant.error, variant.paced
    mark = "" if error.within else ' class="bad"'
    same = "" if error.same_choice is None else f", same candidate in {error.same_choice:.1%}"
    return f"""<h3>{_safe(variant.title)}</h3>
{_stages("back to back", variant.back_to_back)}{_stages(f"paced at {paced.rate_hz:g} Hz", _with_wakeup(paced))}
<p class="note">first call {variant.first_call_us / 1e3:.1f} ms, {paced.overruns} overruns, longest run
{paced.longest_run}. <span{mark}>Largest action error against float32 {error.max:.2g}, tolerance
{error.tolerance:g}</span> (p50 {error.p50:.2g}, {error.samples} observations{same}).</p>"""


def _tick(tick: FullTick) -> str:
    paced, faults = tick.paced, ", ".join(f"{count} × {reason}" for reason, count in tick.faults.items())
    return f"""<h2>Control tick of {_safe(tick.robot)}</h2>{_bar(paced)}
{draw_tails({"tick": paced.stages["tick"], "wake-up": paced.wakeup, "tick with inference": tick.inferring})}
{_stages(f"paced at {paced.rate_hz:g} Hz", _with_wakeup(paced))}{_stages("with inference", {"tick": tick.inferring})}
<p class="note">{paced.overruns} overruns, longest run {paced.longest_run}; commands to {_safe(tick.sink)}; faults:
{_safe(faults or "none")}.</p>"""


def _with_wakeup(paced: Paced) -> dict[str, Figures]:
    return {**paced.stages, "wake-up": paced.wakeup}


def _stages(title: str, stages: dict[str, Figures]) -> str:
    rows = [(name, *(f"{getattr(one, column):.1f}" for column in COLUMNS), str(one.n)) for name, one in stages.items()]
    head = (f"{title} [µs]", *(column.replace("p999", "p99.9") for column in COLUMNS), "n")
    return f'<div class="wide">{_table(rows, head)}</div>'


def _bar(paced: Paced, width: int = 900) -> str:
    """The mean tick as one bar, a colour for each stage."""
    turns = paced.stages["tick"].n
    shares = {name: one.mean * one.n / turns for name, one in paced.stages.items() if name in COLOURS}
    whole, at, parts = sum(shares.values()) or 1.0, 0.0, []
    for name, mean in shares.items():
        part = width * mean / whole
        label = f"<title>{name}: {mean:.1f} µs per tick</title>"
        parts.append(f'<rect x="{at:.1f}" width="{part:.1f}" height="26" fill="{COLOURS[name]}">{label}</rect>')
        if part > 60:
            parts.append(f'<text x="{at + 6:.1f}" y="18" font-size="13" fill="#fff">{name} {mean:.0f}</text>')
        at += part
    caption = '<p class="note">The mean tick, by stage [µs].</p>'
    return f'<svg viewBox="0 0 {width} 26" width="100%" role="img">{"".join(parts)}</svg>{caption}'


def _conditions(report: Report) -> list[tuple[str, str, str]]:
    def of(name: str) -> tuple[str, str]:
        return _condition(report.before, name), _condition(report.after, name)

    return [(name, *of(name)) for name in ("governor", "clock", "temperature", "throttling", "load")]


def _condition(one: Condition, name: str) -> str:
    clocks = f"{min(one.khz) / 1e3:.0f} to {max(one.khz) / 1e3:.0f} MHz" if one.khz else "not known"
    hottest = max(one.temperatures.items(), key=lambda zone: zone[1], default=None)
    texts = {
        "governor": one.governor or "not known",
        "clock": clocks,
        "temperature": f"{hottest[1]:.0f} °C ({hottest[0]})" if hottest else "not known",
        "throttling": ", ".join(one.throttling) or "none seen",
        "load": " ".join(f"{value:.2f}" for value in one.load),
    }
    return texts[name]


def _power(report: Report) -> str:
    if report.power is None:
        return ""
    rows = [(rail, f"{mean:.0f}", f"{report.power.max_mw[rail]:.0f}") for rail, mean in report.power.mean_mw.items()]
    return f"<h2>Power [mW]</h2>{_table(rows, ('rail', 'mean', 'largest'))}"


def _skipped(report: Report) -> str:
    if not report.skipped:
        return ""
    rows = [(one.what, one.why) for one in report.skipped]
    return f"<h2>Skipped</h2>{_table(rows, ('what', 'why'))}"


def _table(rows: Iterable[tuple[str, ...]], head: tuple[str, ...] = (), kind: str = "") -> str:
    top = f"<tr>{''.join(f'<th>{_safe(cell)}</th>' for cell in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}">{top}{body}</table>'


def _list(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values)) or "any"


def _safe(text: str) -> str:
    return html.escape(text)
