"""The demo's report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from onestride.training.pages import document, side_by_side, table


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
    shown = f'{picture}<p class="note">{html.escape(film_note)}</p>'
    body = f"""<h1>onestride demo: {headline}</h1>
<p class="note">Simulated robot. The same policy in the bare environment: {report["bare_env_success_rate"]:.0%}.</p>
{side_by_side([shown, table(rows(report))])}
<h2>Figures</h2>{side_by_side(figures)}"""
    return document("onestride demo", body)


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


def _embedded(path: Path) -> str:
    return f"data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}"
