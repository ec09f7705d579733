"""`onestride bench`: measure, print, compare, and fail over budget or beyond a tolerance."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from onestride.deploy.rooms import load
from onestride.hardware.errors import OneStrideError

if TYPE_CHECKING:
    from onestride.deploy.bench.bench import BenchOptions
    from onestride.deploy.bench.budgets import Budget
    from onestride.deploy.bench.full_tick import Cell, Send
    from onestride.deploy.bench.report import Report
    from onestride.deploy.contract import Contract
    from onestride.hardware.description import RobotDescription
    from onestride.hardware.scene import Scene


@dataclass
class Bench:
    """Latency and jitter of a policy file and of the control tick around it, on this machine.

    Exits with 1 if a budget is exceeded; with --strict also if a tolerance is, or a way that was asked for is skipped.
    """

    policy: Annotated[Path | None, tyro.conf.Positional] = None
    """Exported policy file."""
    sample: bool = False
    """Measure a policy of a usual size with random weights, the same on every device, in place of a file."""
    contract: Path | None = None
    """Contract of a policy that does not carry its own: a file, or the name of one that comes with onestride."""
    robot: str | None = None
    """Robot that the control tick is measured on, by id or YAML file; default the contract's."""
    scene: Path | None = None
    """Folder of an exported scene, whose plant moves that robot; default the contract's environment's."""
    model: Path | None = None
    """MuJoCo XML of that robot, for one whose model no installed package has."""
    sink: Literal["auto", "memory", "dds", "none"] = "auto"
    """Where the tick's commands go: through DDS to another process, or nowhere; none leaves the tick out."""
    calls: int = 5000
    """Timed calls of each back-to-back series."""
    seconds: float = 3.0
    """Length of each paced series."""
    rate: float | None = None
    """Pace in Hz; default the contract's control rate (its policy rate where no robot is named)."""
    nfe: tuple[int, ...] = ()
    """Network evaluations to measure; default all that the file offers."""
    providers: tuple[str, ...] = ("cpu",)
    """cpu, cuda, tensorrt, or onnxruntime's own names; a missing one is an error."""
    precisions: tuple[str, ...] = ("fp32",)
    """fp32, fp16, int8."""
    tolerance: tuple[str, ...] = ()
    """Largest difference of actions from float32's, by precision: fp16=0.01."""
    strict: bool = False
    """Fail where a tolerance is exceeded, or something that was asked for is skipped."""
    cuda_graph: bool = False
    """Have a GPU replay its kernels as one graph."""
    affinity: tuple[int, ...] = ()
    """Processors to run on; default those that the system gives."""
    load: int = 0
    """Processes that keep the machine busy meanwhile, on the same processors."""
    budget: tuple[str, ...] = ()
    """Longest time of a stage at the control rate: p99=500us, filters.p99=60us, tick.p99.9=1ms."""
    device: str | None = None
    """What to call this machine in the report; default what it says itself."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Write the JSON report to this file too."""
    html: Path | None = None
    """Write the report to this file as a page that needs nothing else."""
    compare: Path | None = None
    """An earlier JSON report; ratios are printed."""
    table: Path | None = None
    """Instead of measuring: print the JSON reports of this folder as one table."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Measure and report."""
        from onestride.deploy.bench.bench import bench
        from onestride.deploy.bench.budgets import parse_budget
        from onestride.deploy.bench.report import read_report

        if self.table is not None:
            return _print_table(self.table)
        self.policy = self._policy()
        options, budgets = self._options(), [parse_budget(text) for text in _split(self.budget)]
        earlier = read_report(self.compare) if self.compare else None
        self._prepare()
        with _progress() as say, self._cell() as cell:
            report = bench(options, cell, say)
        self._write(report)
        if self.json:
            sys.stdout.write(report.model_dump_json(indent=2) + "\n")
        else:
            from onestride.deploy.bench.printing import print_report

            print_report(report, earlier)
        return _verdict([*self._failures(report), *_over(report, budgets)])

    def _policy(self) -> Path:
        from onestride.deploy.bench.sample import sample_policy

        if self.sample == (self.policy is not None):
            raise OneStrideError("expected one of them: onestride bench policy.onnx, --sample, or --table FOLDER")
        return self.policy or sample_policy()

    def _options(self) -> BenchOptions:
        from onestride.deploy.bench.bench import BenchOptions

        assert self.policy is not None
        if self.calls < 1 or self.load < 0 or not 0 < self.seconds <= 3600 or not (self.rate is None or self.rate > 0):
            numbers = f"{self.calls}, {self.seconds}, {self.rate}, {self.load}"
            raise OneStrideError(f"expected calls, seconds and rate > 0 and load >= 0, got {numbers}")
        return BenchOptions(
            policy=self.policy,
            contract=self.contract,
            calls=self.calls,
            seconds=self.seconds,
            rate=self.rate,
            nfe=self.nfe,
            providers=_split(self.providers),
            precisions=_split(self.precisions),
            tolerances=dict(map(_tolerance, _split(self.tolerance))),
            cuda_graph=self.cuda_graph,
            affinity=self.affinity,
            busy=self.load,
            device=self.device,
        )

    def _prepare(self) -> None:
        """Make the folders now: a report that cannot be written is not worth waiting for."""
        for path in (self.output, self.html):
            try:
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(path, error) from None

    def _write(self, report: Report) -> None:
        from onestride.deploy.bench.page import build_page
        from onestride.hardware.durable import write_atomic

        for path, page in ((self.output, False), (self.html, True)):
            try:
                if path is not None:
                    text = build_page(report) if page else report.model_dump_json(indent=2) + "\n"
                    write_atomic(path, text.encode(), path.parent)
            except OSError as error:
                raise _unwritable(path, error) from None

    def _failures(self, report: Report) -> list[str]:
        """What --strict does not let pass."""
        if not self.strict:
            return []
        beyond = [one for one in report.variants if not one.error.within]
        lines = [f"{one.title}: action error {one.error.max:.2g} > {one.error.tolerance:g}" for one in beyond]
        return lines + [f"skipped {one.what}: {one.why}" for one in report.skipped if "NFE" in one.what]

    @contextmanager
    def _cell(self) -> Iterator[Cell | str]:
        """The robot that the control tick is measured on, or why there is none."""
        from onestride.deploy.bench.full_tick import Cell
        from onestride.deploy.runtime import load_contract
        from onestride.hardware.description import load_robot

        assert self.policy is not None
        contract, _ = load_contract(self.policy, self.contract)
        name = self.robot or (contract.robot.id if contract.robot else None)
        if self.sink == "none" or name is None:
            yield "left out by --sink none" if self.sink == "none" else "the policy names no robot"
            return
        robot = load_robot(name)
        try:
            scene = self._scene(contract, robot)
        except OneStrideError as error:
            yield str(error)
            return
        with self._sink(robot) as send:
            yield Cell(robot, scene, send)

    def _scene(self, contract: Contract, robot: RobotDescription) -> Scene:
        from onestride.hardware.models import robot_scene
        from onestride.hardware.scene import Scene

        if self.scene is not None:
            return Scene.load(self.scene)
        environment, alone = contract.environment, f"robot/{robot.id}"
        if environment is None or environment == alone or self.model is not None or robot.base is not None:
            return robot_scene(robot, self.model)
        return _scene_of(environment)

    @contextmanager
    def _sink(self, robot: RobotDescription) -> Iterator[Send | None]:
        if self.sink == "memory":
            yield None
            return
        try:
            dds = load("onestride_controller.bench_sink:dds_sink", "ros")
        except OneStrideError:
            if self.sink == "dds":
                raise
            yield None
            return
        with dds(robot) as send:
            yield send


def _split(values: tuple[str, ...]) -> tuple[str, ...]:
    """Values with blanks or commas between them."""
    return tuple(part for value in values for part in value.split(",") if part)


def _tolerance(text: str) -> tuple[str, float]:
    from onestride.deploy.bench.variants import precision_of

    name, _, value = text.partition("=")
    try:
        largest = float(value)
    except ValueError:
        largest = -1.0
    if not 0.0 < largest < float("inf"):
        raise OneStrideError(f"tolerance: expected PRECISION=NUMBER > 0, as fp16=0.01, got {text!r}")
    return precision_of(name), largest


def _scene_of(environment: str) -> Scene:
    """The scene of the policy's environment, exported now if the environment is installed."""
    from onestride.hardware.scene import find_scene

    try:
        return find_scene(environment)
    except OneStrideError:
        prepared: Scene = load("onestride.training.environments.scenes:prepare_scene", "sim")(environment)
        return prepared


def _unwritable(path: Path | None, error: OSError) -> OneStrideError:
    return OneStrideError(f"{path}: expected to write the report there, got: {error}")


def _over(report: Report, budgets: list[Budget]) -> list[str]:
    from onestride.deploy.bench.budgets import over_budget

    return [f"over budget: {line}" for budget in budgets for line in over_budget(report, budget)]


def _verdict(failures: list[str]) -> int:
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False)
    for line in failures:
        console.print(f"[red]FAIL[/] {escape(line)}", soft_wrap=True)
    return 1 if failures else 0


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    from rich.console import Console

    with Console(stderr=True).status("measuring") as status:
        yield lambda what: status.update(f"measuring {what}")


def _print_table(folder: Path) -> int:
    from onestride.deploy.bench.table import table_of

    sys.stdout.write(table_of(folder))
    return 0
