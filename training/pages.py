"""HTML pages that need nothing else: one style, and figures as SVG text."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

GREEN, RED, BLUE, GREY = "#2a9d5c", "#d1495b", "#2f6f9f", "#8a8f98"
COLOURS = (BLUE, RED, GREEN, "#e09f3e", "#7b5ea7", "#3aa6a6", GREY)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem; color: #1d2430; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .9rem .15rem 0; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; }
.row { display: flex; flex-wrap: wrap; gap: 1.5rem; } .row > * { flex: 1 1 24rem; min-width: 0; max-width: 29rem; }
svg, img { max-width: 100%; height: auto; } .note { color: #5b6370; }
"""


def document(title: str, body: str) -> str:
    """A page."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
{body}
</body></html>
"""


def table(rows: Iterable[Sequence[str]], heading: Sequence[str] = ()) -> str:
    """A table of texts, which are escaped."""
    head = f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in heading)}</tr>" if heading else ""
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{head}{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def side_by_side(parts: Iterable[str]) -> str:
    """Parts in a row that wraps where the window is narrow."""
    return f'<div class="row">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def new_figure() -> tuple[Any, Any]:
    """An empty figure and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg(figure: Any) -> str:
    """A figure as text that a page can hold."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
