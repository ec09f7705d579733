"""`onestride demo`: the main job end to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

    from onestride.training.demo.stages import Workshop

Result = TypeVar("Result")


@dataclass
class Demo:
    """The main job end to end: collect, train, export, check, run in ROS 2 on a simulated arm, report.

    Running it again reuses what is there and says so; interrupted, it goes on where it was.
    """

    out: Path = Path("runs/demo")
    """Folder of everything the demo makes."""
    demonstrations: int = 200
    """Demonstrations to collect."""
    steps: int = 6000
    """Gradient steps."""
    episodes: int = 20
    """Unseen evaluation episodes through the node."""
    seed: int = 0
    """Seed of collection, training and evaluation."""
    film: bool = True
    """Render one episode for the report (skipped where EGL is absent)."""
    json: bool = False
    """Print the report as JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Do every stage and write the report."""
        from rich.console import Console

        from onestride.hardware.errors import OneStrideError

        if min(self.demonstrations, self.steps, self.episodes) < 1:
            raise OneStrideError("expected demonstrations, steps and episodes >= 1")
        console = Console(stderr=True)
        report = self._stages(console)
        if self.json:
            from onestride.deploy.commands import print_json

            print_json(report)
        else:
            _print_table(report, self.out)
        return 0

    def _stages(self, console: Console) -> dict[str, Any]:
        from onestride.training.demo import stages
        from onestride.training.demo.report import build_report
        from onestride.training.demo.robot import robot_stage

        started = time.monotonic()
        self.out.mkdir(parents=True, exist_ok=True)
        shop = stages.Workshop(
            self.out, self.demonstrations, self.steps, self.episodes, self.seed, lambda text: console.print(f"  {text}")
        )
        collected = _stage(console, "1/7 collect", lambda: stages.collect_stage(shop))
        trained = _stage(console, "2/7 train", lambda: stages.train_stage(shop))
        digest = _stage(console, "3/7 export", lambda: stages.export_stage(shop, trained))
        _stage(console, "4/7 check", lambda: stages.check_stage(shop))
        scene, bare = _stage(console, "5/7 evaluate in the bare environment", lambda: stages.bare_stage(shop))
        robot = _stage(console, "6/7 run through the ROS 2 node", lambda: robot_stage(shop, scene))
        report = build_report(collected, trained, bare, robot, digest, time.monotonic() - started)
        _stage(console, "7/7 report", lambda: self._write(shop, report, robot, scene.folder))
        return report

    def _write(self, shop: Workshop, report: dict[str, Any], robot: Any, scene: Path) -> None:
        from onestride.training.demo import film, page, plots, stages
        from onestride.training.demo.robot import film_of

        note, picture = "no film asked for", None
        if self.film:
            number = next((e.episode for e in robot.episodes if e.success), robot.episodes[0].episode)
            picture = shop.out / "episode.gif"
            note = film.render(scene, film_of(shop), picture, number)
            if note:
                picture = None
                shop.say(note)
            else:
                note = f"Episode {number} on the simulated robot, through the node, in real time."
        figures = [
            plots.success_chart(report["trials"]),
            plots.loss_curve(shop.run / "metrics.csv"),
            plots.latency_histogram(robot.figures["tick_ms_histogram"], report["tick_ms"]),
        ]
        (shop.out / "report.html").write_text(page.build_page(report, figures, picture, note), encoding="utf-8")
        stages.save_json(shop.out / "report.json", report)
        shop.say(f"{shop.out / 'report.html'} and {shop.out / 'report.json'}")


def _stage(console: Console, title: str, work: Callable[[], Result]) -> Result:
    console.print(f"[bold]{title}[/]")
    return work()


def _print_table(report: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from onestride.training.demo.page import rows

    table = Table(show_header=False, title="onestride demo", title_justify="left", box=None, padding=(0, 1))
    for name, value in rows(report):
        table.add_row(name, value)
    Console().print(table)
    Console().print(f"look at [bold]{out / 'report.html'}[/]")
