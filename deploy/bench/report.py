"""The bench's report as data: what was measured, on what, and what could not be had and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Model, explain

FORMAT = 2

#: Stages of one inference; `policy` is all of it.
POLICY_STAGES = ("copy_in", "infer", "copy_out", "policy")

#: Stages of one control tick; `rest` is what no other stage covers, such as inverse kinematics and interpolation.
TICK_STAGES = ("observe", "copy_in", "infer", "copy_out", "filters", "publish", "rest", "tick")


class Figures(Model):
    """Percentiles of a series of durations [us].

    Attributes:
        n: how many durations.
        p999: the 99.9th percentile.
    """

    n: int
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float
    mean: float


class Paced(Model):
    """A series on absolute deadlines, as a control loop runs.

    Attributes:
        rate_hz: deadlines per second.
        stages: what each stage took.
        wakeup: from a deadline until the loop ran.
        overruns: deadlines that passed while a turn ran, and got none.
        longest_run: most of them one after the other, by turns that follow each other.
    """

    rate_hz: float
    stages: dict[str, Figures]
    wakeup: Figures
    overruns: int
    longest_run: int


class NumericError(Model):
    """How far a variant's actions are from those of float32 on the CPU, relative to actions beyond 1.

    Attributes:
        samples: observations compared.
        p50: median over the observations of the largest difference in the chunk.
        p99: likewise.
        max: likewise.
        tolerance: what `max` may be.
        same_choice: share of observations where the ranking took the same candidate; None without a ranking, whose
            candidates are made alike for the figures above.
        to_torch: the largest difference to torch that `max` and the parity recorded at export leave possible; None
            where no parity is recorded.
    """

    samples: int
    p50: float
    p99: float
    max: float
    tolerance: float
    same_choice: float | None = None
    to_torch: float | None = None

    @property
    def within(self) -> bool:
        """Whether the tolerance holds."""
        return self.max <= self.tolerance


class Variant(Model):
    """One way to run the policy.

    Attributes:
        provider: of onnxruntime, the one in use.
        precision: of the products.
        nfe: network evaluations per action.
        load_ms: to verify, convert and load the file, first call included.
        first_call_us: the first inference, which allocates, and with TensorRT builds or loads the engine.
        back_to_back: stages without a pause between turns.
        paced: stages at the control rate.
        error: against float32.
    """

    provider: str
    precision: str
    nfe: int
    load_ms: float
    first_call_us: float
    back_to_back: dict[str, Figures]
    paced: Paced
    error: NumericError

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.provider} {self.precision}, NFE {self.nfe}"


class FullTick(Model):
    """The control tick of the real controller on the robot that the contract names, in closed loop with its plant.

    Attributes:
        robot: its id.
        scene: that moved it.
        sink: where commands went: `memory`, or `dds`.
        n_inferences: ticks in which the policy was asked.
        inferring: the whole of those ticks alone.
        paced: all ticks.
        faults: why the controller stopped, and how often; it was activated again.
    """

    robot: str
    scene: str
    sink: str
    n_inferences: int
    inferring: Figures
    paced: Paced
    faults: dict[str, int]


class Skipped(Model):
    """Something that was not measured.

    Attributes:
        what: it is.
        why: not.
    """

    what: str
    why: str


class Condition(Model):
    """What tells a slow clock from a slow program, at one moment.

    Attributes:
        governor: of the first processor.
        khz: present clock of each processor [kHz].
        temperatures: of each thermal zone [degC].
        throttling: cooling devices that are at work, and how hard.
        load: averages of 1, 5 and 15 minutes.
    """

    governor: str | None
    khz: tuple[int, ...]
    temperatures: dict[str, float]
    throttling: dict[str, int]
    load: tuple[float, float, float]


class Clocks(Model):
    """What `jetson_clocks --show` says.

    Attributes:
        pinned: whether every processor and the GPU run between equal limits.
        khz: lowest, highest and present clock of each processor [kHz].
        gpu_hz: of the GPU [Hz].
        emc_hz: of the memory [Hz].
    """

    pinned: bool
    khz: dict[str, tuple[int, int, int]]
    gpu_hz: tuple[int, int, int] | None = None
    emc_hz: tuple[int, int, int] | None = None


class Jetson(Model):
    """What only a Jetson has; None where it was skipped.

    Attributes:
        l4t: release of Jetson Linux.
        jetpack: version.
        power_mode: of nvpmodel.
        clocks: of jetson_clocks.
    """

    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    clocks: Clocks | None


class Power(Model):
    """Electrical power while the bench ran, by tegrastats.

    Attributes:
        samples: lines read.
        mean_mw: of each rail [mW].
        max_mw: of each rail [mW].
    """

    samples: int
    mean_mw: dict[str, float]
    max_mw: dict[str, float]


class Machine(Model):
    """The machine and the software that were measured.

    Attributes:
        device: its name: of the device tree, else the processor's, or what `--device` says.
        machine: architecture.
        processor: its model.
        cores: how many the machine has.
        affinity: those that the bench may use.
        pinned: whether the processors run between equal lowest and highest clocks; None where nothing says.
        jetson: what only a Jetson has.
    """

    device: str
    machine: str
    processor: str | None
    cores: int | None
    affinity: tuple[int, ...]
    pinned: bool | None
    system: str
    python: str
    numpy: str
    onnxruntime: str
    onestride: str
    jetson: Jetson | None


class Policy(Model):
    """Which policy was measured.

    Attributes:
        file: its name.
        sha256: of it.
        candidates: chunks that are ranked at each inference.
        parity: difference to torch recorded at export.
    """

    file: str
    sha256: str
    name: str
    algorithm: str
    observation: int
    horizon: int
    action: int
    candidates: int
    parity: float | None


class Report(Model):
    """One run of the bench.

    Attributes:
        measured: when, UTC.
        busy: processes that ran beside it to load the machine.
        threads: of each session.
        full_tick: None where it was skipped.
        power: None where it was skipped.
        skipped: what could not be had, and why.
    """

    format: Literal[2] = 2
    measured: str
    policy: Policy
    machine: Machine
    before: Condition
    after: Condition
    busy: int
    threads: int = 1
    variants: tuple[Variant, ...] = Field(min_length=1)
    full_tick: FullTick | None
    power: Power | None
    skipped: tuple[Skipped, ...]

    @property
    def data(self) -> dict[str, Any]:
        """As JSON holds it."""
        return self.model_dump(mode="json")


def read_report(path: Path) -> Report:
    """A report from its JSON file.

    Raises:
        OneStrideError: unreadable, of another format, or no report.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OneStrideError(f"{path}: expected a JSON report of `onestride bench`, got: {error}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise OneStrideError(f"{path}: expected bench format {FORMAT}, got {found}; measure anew")
    try:
        return Report.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise OneStrideError(f"{path}: expected a JSON report of `onestride bench`, got: {explain(error)}") from None
