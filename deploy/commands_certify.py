"""`onestride certify`: what is claimed of a policy on a robot, claim by claim, and what became of it under attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from onestride.deploy.rooms import load
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.chain import ProjectionFilter
from onestride.hardware.safety.geometry import CollisionRow, WorkspaceRow
from onestride.hardware.scene import Scene, find_scene

if TYPE_CHECKING:
    from onestride.deploy.certify.certify import Request
    from onestride.deploy.certify.report import SafetyReport
    from onestride.deploy.contract import Contract
    from onestride.hardware.description import RobotDescription

JSON_FILE, PAGE_FILE = "safety.json", "safety.html"


@dataclass
class Certify:
    """Attack a robot's safety chain and a policy behind it, in simulation, and write a safety report.

    Writes `safety.json`, and `safety.html` with plots where matplotlib is installed. Exits with 1 if a proved claim was
    violated, or if the policy does not fit the robot.
    """

    policy: tyro.conf.Positional[Path]
    """Exported policy file."""
    robot: str | None = None
    """Robot description, by id or YAML file; default the contract's."""
    scene: Path | None = None
    """Folder of an exported scene, whose plant the policy drives; rows of geometry take its model."""
    plant: bool = False
    """Take the scene of the contract's environment, exported if need be."""
    episodes: int = 2
    """Episodes on the plant, each for the policy, the policy with noise on what it sees, and an adversary."""
    rollouts: int = 3
    """Runs of each attack on the kinematic model."""
    seconds: float = 2.0
    """Simulated length of each of these runs."""
    noise: float = 0.05
    """Deviation of the noise on the observation, in halves of each element's range in the training data."""
    seed: int = 0
    """Of everything random."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/certify")
    """Folder for the report."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Gather the evidence, write the report, and say how it ended."""
        from onestride.deploy.certify.certify import Certification
        from onestride.deploy.commands import print_json

        request = self._request()
        self._prepare()
        with _progress(request.steps) as advance:
            report = Certification(request, advance).gather()
        page = self._write(report)
        if self.json:
            print_json(report.model_dump(mode="json"))
        else:
            _print(report, self.output / JSON_FILE, page)
        return 0 if report.passed else 1

    def _request(self) -> Request:
        from onestride.deploy.certify.certify import Request
        from onestride.deploy.runtime import load_contract
        from onestride.hardware.description import load_robot

        self._check()
        contract, sha256 = load_contract(self.policy)
        if contract.robot is None and self.robot is None:
            raise OneStrideError(f"{self.policy} names no robot (actions as in its dataset): expected --robot")
        robot = load_robot(self.robot or (contract.robot.id if contract.robot else ""))
        scene = self._scene(contract, robot)
        if scene is None and _needs_a_model(robot):
            raise OneStrideError(f"robot {robot.id}: rows of geometry need a model, expected --scene or --plant")
        settings = (self.rollouts, self.seconds, self.episodes, self.noise, self.seed)
        return Request(self.policy, sha256, contract, robot, scene, *settings)

    def _scene(self, contract: Contract, robot: RobotDescription) -> Scene | None:
        """What was asked for; the robot alone on a floor for legs, which are attacked on their plant in any case."""
        if self.scene:
            return Scene.load(self.scene)
        if robot.command_mode == "impedance":
            from onestride.hardware.models import robot_scene

            return robot_scene(robot)
        return _scene_of(contract) if self.plant else None

    def _check(self) -> None:
        if self.rollouts < 1 or self.episodes < 0:
            raise OneStrideError(f"expected rollouts >= 1 and episodes >= 0, got {self.rollouts} and {self.episodes}")
        if not 0.1 <= self.seconds <= 600.0:
            raise OneStrideError(f"expected seconds within 0.1 and 600, got {self.seconds:g}")
        if not 0.0 <= self.noise <= 10.0 or self.seed < 0:
            raise OneStrideError(f"expected noise within 0 and 10 and seed >= 0, got {self.noise:g} and {self.seed}")

    def _prepare(self) -> None:
        """Make the folder now: a report that cannot be written is not worth waiting for."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _write(self, report: SafetyReport) -> Path | None:
        """Both files; the page's path, or None where plots cannot be drawn."""
        from onestride.hardware.durable import write_atomic

        page = _page(report)
        try:
            write_atomic(self.output / JSON_FILE, report.model_dump_json(indent=2).encode(), self.output)
            if page is not None:
                write_atomic(self.output / PAGE_FILE, page.encode(), self.output)
        except OSError as error:
            raise self._unwritable(error) from None
        return None if page is None else self.output / PAGE_FILE

    def _unwritable(self, error: OSError) -> OneStrideError:
        return OneStrideError(f"{self.output}: expected to write the report there, got: {error}")


def _page(report: SafetyReport) -> str | None:
    try:
        import matplotlib  # noqa: F401  (a robot may do without)
    except ModuleNotFoundError:
        return None
    text: str = load("onestride.training.safety_page:build_page", "train")(report)
    return text


def _needs_a_model(robot: RobotDescription) -> bool:
    projections = (terms for terms in robot.safety if isinstance(terms, ProjectionFilter))
    return any(isinstance(row, WorkspaceRow | CollisionRow) for terms in projections for row in terms.rows)


def _scene_of(contract: Contract) -> Scene:
    if contract.environment is None:
        raise OneStrideError("the policy names no environment: expected --scene")
    try:
        return find_scene(contract.environment)
    except OneStrideError:
        prepared: Scene = load("onestride.training.environments.scenes:prepare_scene", "sim")(contract.environment)
        return prepared


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("attacking", total=steps)
        yield lambda: progress.advance(task)


def _print(report: SafetyReport, data: Path, page: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for heading in ("claim", "level", "held against", "violations"):
        table.add_column(heading)
    for claim in report.claims:
        held = f"{claim.held} commands" if claim.held else "-"
        table.add_row(claim.name, claim.level, held, str(claim.violations) if claim.held else "-")
    console.print(table)
    for line in report.not_claimed:
        console.print(f"[dim]not claimed[/]  {escape(line)}", soft_wrap=True)
    for played in report.plant:
        faults = "; ".join(f"{count} x {reason}" for reason, count in played.faults.items())
        sent = played.commands
        rate = f"{sent.interventions:.1%} of ticks changed, {sent.by_rows:.1%} by rows"
        console.print(
            escape(f"plant, {played.name}: {played.solved} of {played.episodes} solved, {rate} {faults}"),
            soft_wrap=True,
        )
    for failure in report.failures:
        console.print(f"[red]FAIL[/] {escape(failure)}", soft_wrap=True)
    verdict = "[green]no proved claim was violated[/]" if report.passed else "[red]not certified[/]"
    console.print(f"{verdict} (simulated, {report.wall_seconds:.0f} s): {escape(str(page or data))}", soft_wrap=True)
