"""Commands of this room: check, bench, run, doctor."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from onestride.deploy.rooms import load
from onestride.hardware.errors import OneStrideError

if TYPE_CHECKING:
    from onestride.deploy.check import Finding

Policy = Annotated[Path | None, tyro.conf.Positional]


@dataclass
class Check:
    """Check a policy file: integrity, contract, graph, and its fit to a robot, to data and to its training run.

    Exits with 1 if any check fails.
    """

    policy: Policy = None
    """Exported policy file, or an ONNX file of another origin with `--contract`."""
    contract: Path | None = None
    """Contract of a policy that onestride did not export, a file or a shipped name such as `go1_joystick`; it names the
    policy by its hash."""
    robot: str | None = None
    """Robot description to compare with: an id such as `ur5e_2f85`, or a YAML file; its safety chain is listed."""
    data: Path | None = None
    """Store whose observations should be those that the contract names."""
    run: Path | None = None
    """Training run to compare with afresh; without it the parity recorded at export is reported."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""
    schema: bool = False
    """Print the JSON schema of the contract and exit."""

    def __call__(self) -> int:
        """Ask every question and print the answers."""
        from onestride.deploy.check import check_data, check_file, check_robot, check_safety
        from onestride.deploy.contract import Contract

        if self.schema:
            print_json(Contract.model_json_schema())
            return 0
        if self.policy is None:
            raise OneStrideError("expected a policy file: onestride check policy.onnx")
        findings, contract = check_file(self.policy, self.contract)
        if contract is not None:
            findings += [check_robot(contract, self.robot), *check_safety(self.robot)] if self.robot else []
            findings += check_data(contract, self.data) if self.data else []
            if self.run:
                findings.append(load("onestride.training.exporting:fresh_parity", "train")(self.policy, self.run))
        if self.json:
            print_json({"passed": all(f.passed for f in findings), "findings": [asdict(f) for f in findings]})
        else:
            _print_findings(findings)
        return 0 if all(finding.passed for finding in findings) else 1


def print_json(content: object) -> None:
    """One JSON document on the standard output."""
    import sys

    sys.stdout.write(jsonlib.dumps(content, indent=2) + "\n")


def _print_findings(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 1))
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        mark = "[green]pass[/]" if finding.passed else "[red]FAIL[/]"
        table.add_row(mark, f"[bold]{finding.question}[/]", escape(finding.detail))
    Console().print(table)
