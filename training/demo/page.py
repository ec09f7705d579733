"""The demo's report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem; color: #1d2430; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td { padding: .15rem .9rem .15rem 0; font-variant-numeric: tabular-nums; }
.row { display: flex; flex-wrap: wrap; gap: 1.5rem; } .row > * { flex: 1 1 24rem; min-width: 0; max-width: 29rem; }
svg, img { max-width: 100%; height: auto; } .note { color: #5b6370; }
"""


def build_page(report: dict[str, Any], figures: list[str], film: Path | None, film_note: str) -> str:
    """The page: headline, film, figures, table.

    Args:
        report: see `build_report`.
        figures: SVG texts.
        film: a GIF of one episode; None where it could not be rendered.
        film_note: what the film shows, or why there is none.
    """
    picture = f'<img alt="{html.escape(film_note)}" src="{_embedded(film)}">' if film else ""
    headline = f"{report['success_rate']:.0%} of {report['episodes']} unseen episodes solved through the ROS 2 node"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>onestride demo</title><style>{STYLE}</style></head><body>
<h1>onestride demo: {headline}</h1>
<p class="note">Simulated robot. The same policy in the bare environment: {report["bare_env_success_rate"]:.0%}.</p>
<div class="row"><div>{picture}<p class="note">{html.escape(film_note)}</p></div><div>{_table(report)}</div></div>
<h2>Figures</h2><div class="row">{"".join(f"<div>{figure}</div>" for figure in figures)}</div>
</body></html>
"""


def rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The report as lines of a short table."""
    tick, age, policy = report["tick_ms"], report["observation_age_ms"], report["policy_us"]
    return [
        ("success through the node", f"{report['success_rate']:.0%} of {report['episodes']} (simulated)"),
        ("success in the bare environment", f"{report['bare_env_success_rate']:.0%}"),
        ("demonstrations", f"{report['demonstrations']} (dataset {report['dataset_id']})"),
        ("training", f"{report['train_steps']} steps in {report['train_s']:.0f} s"),
        ("policy rate", f"{report['policy_rate_hz']:.2f} Hz"),
        ("control rate", f"{report['control_rate_hz']:.2f} Hz"),
        ("control tick", f"p50 {tick['p50']:.2f}, p99 {tick['p99']:.2f}, max {tick['max']:.2f} ms"),
        ("observation age", f"p50 {age['p50']:.2f}, p99 {age['p99']:.2f} ms"),
        ("inference", f"p50 {policy['p50']:.0f}, p99 {policy['p99']:.0f} µs"),
        ("deadline misses", f"{report['deadline_misses']} of {report['control_ticks']} ticks"),
        ("filter interventions", f"{report['intervention_rate']:.1%} of ticks"),
        ("transport", str(report["transport"])),
        ("policy", f"sha256 {report['policy_sha256'][:16]}…"),
        ("whole demo", f"{report['total_s']:.0f} s"),
    ]


def _table(report: dict[str, Any]) -> str:
    cells = (f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows(report))
    return f"<table>{''.join(cells)}</table>"


def _embedded(path: Path) -> str:
    return f"data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}"
