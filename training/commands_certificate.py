"""``onestride certificate``: a Lyapunov or barrier function of a known system, proved and written as a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from onestride.training.commands import progress_bar, say

if TYPE_CHECKING:
    from onestride.training.certificates.recipes import Issued, Request
    from onestride.training.certificates.verifier import Verdict

#: Steps of a proof's progress bar.
STEPS = 1000


@dataclass
class Certificate:
    """Make, prove and write a certificate of a known system, or prove a written one again.

    For instance `onestride certificate pendulum --form network -o pendulum.json --plot pendulum.png`. Exits with 1 if
    the claim is not proved.
    """

    system: tyro.conf.Positional[str]
    """Known system (`commanded_joint`, `double_integrator`, `pendulum`, `two_link_arm`, `cart_pole`), or a file of
    this command, to be proved again."""
    form: Literal["usual", "quadratic", "network", "stopping_distance", "ellipsoid"] = "usual"
    """Of the function; the usual one is the system's first."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File to write, JSON; nothing is written of a claim that is not proved."""
    plot: Path | None = None
    """Picture of the region to write, PNG."""
    period: float | None = None
    """Of the system's discrete time [s]; default the system's."""
    limit: tuple[float, ...] | None = None
    """Largest input of either sign; default the system's."""
    domain: tuple[float, ...] | None = None
    """Largest state of either sign; default the system's."""
    decay: float | None = None
    """c of the claim, per step; default the form's."""
    disturbance: tuple[float, ...] = ()
    """Largest push per step on each element of the state, of either sign; default none."""
    cells: int = 2_000_000
    """Cells that a proof may bound."""
    rounds: int = 3
    """Of a network: rounds of learning and proving."""
    seed: int = 0
    """Of learning, and of the states tried at random."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Prove, write, and say what was found."""
        if self.system.endswith(".json"):
            return self._again(Path(self.system))
        from onestride.training.certificates.recipes import issue

        request = self._request()
        with _proving() as progress:
            issued = issue(request, None, progress)
        summary = {"system": request.system.name, "form": request.chosen, **_told(issued.verdict)}
        summary["proved"] = issued.terms is not None
        summary |= self._written(issued)
        say(summary, "certificate", self.json)
        return 0 if issued.terms is not None else 1

    def _request(self) -> Request:
        from onestride.training.certificates.learning import LearningConfig
        from onestride.training.certificates.recipes import Request
        from onestride.training.certificates.systems import system_named
        from onestride.training.certificates.verifier import Effort

        return Request(
            system_named(self.system, period=self.period, limit=self.limit, domain=self.domain),
            self.form,
            self.decay,
            self.disturbance,
            LearningConfig(rounds=self.rounds, seed=self.seed),
            Effort(cells=self.cells, seed=self.seed),
        )

    def _written(self, issued: Issued) -> dict[str, Any]:
        from onestride.hardware.durable import write_atomic
        from onestride.hardware.errors import OneStrideError
        from onestride.training.certificates.picture import draw

        files: dict[str, Any] = {}
        if self.output is not None and issued.terms is not None:
            try:
                self.output.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self.output, issued.terms.model_dump_json(indent=1).encode(), self.output.parent)
            except OSError as error:
                raise OneStrideError(f"{self.output}: expected to write it, got: {error}") from error
            files["certificate"] = str(self.output)
        if self.plot is not None:
            draw(issued, self.plot)
            files["plot"] = str(self.plot)
        return files

    def _again(self, path: Path) -> int:
        from onestride.deploy.safety.certificate import load_certificate
        from onestride.training.certificates.recipes import prove_again
        from onestride.training.certificates.verifier import Effort

        terms = load_certificate(path).terms
        with _proving() as progress:
            verdict = prove_again(terms, Effort(cells=self.cells, seed=self.seed), progress)
        say({"system": terms.system, "proved": verdict.accepted, **_told(verdict)}, "proved again", self.json)
        return 0 if verdict.accepted else 1


def _told(verdict: Verdict) -> dict[str, Any]:
    """What is said of a proof. What a free level sank below does not speak against the region."""
    against = verdict.counterexamples[:0] if verdict.accepted else verdict.counterexamples
    first = against[:1].round(4).tolist()
    return {
        "level": float(verdict.level),
        "share_of_domain": float(verdict.share),
        "volume": float(verdict.volume),
        "cells": verdict.cells,
        "undecided": verdict.undecided,
        "counterexamples": len(against),
        "counterexample": first[0] if first else None,
        "seconds": round(verdict.seconds, 3),
    }


@contextmanager
def _proving() -> Iterator[Any]:
    """A progress bar that hears which share of the domain is decided."""
    with progress_bar("prove", STEPS) as advance:
        yield lambda share, note: advance(int(share * STEPS), note)
