"""``onestride certificate``: from a system's name to a proved file and a picture, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onestride.deploy.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["certificate", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_certificate_is_made_drawn_and_proved_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, picture = tmp_path / "pendulum.json", tmp_path / "pictures" / "pendulum.png"
    code, out, _ = run(capsys, "pendulum", "-o", str(file), "--plot", str(picture), "--json")
    told = json.loads(out)
    assert code == 0 and told["proved"] and told["form"] == "quadratic" and told["counterexamples"] == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    content = json.loads(file.read_text())
    assert content["level"] == told["level"] and content["proof"]["method"] == "cells"
    code, out, _ = run(capsys, str(file), "--json")
    assert code == 0 and json.loads(out)["proved"]

    content["level"] *= 1.2  # a forged file is found out
    file.write_text(json.dumps(content))
    code, out, _ = run(capsys, str(file), "--json")
    again = json.loads(out)
    assert code == 1 and not again["proved"] and again["counterexample"] is not None

    content["allowance"] = 10 * content["decay"] * content["level"]  # with it the inequality says nothing
    file.write_text(json.dumps(content))
    code, _, err = run(capsys, str(file))
    assert code == 1 and "allowance: expected it below decay * level" in err and "Traceback" not in err


def test_a_claim_that_is_refuted_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, picture = tmp_path / "cart.json", tmp_path / "cart.png"
    code, out, _ = run(capsys, "cart_pole", "-o", str(file), "--plot", str(picture), "--json")
    told = json.loads(out)
    assert code == 1 and not told["proved"] and told["counterexamples"] > 100 and len(told["counterexample"]) == 4
    assert not file.exists() and picture.exists()


def test_other_constants_are_taken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "joint.json"
    code, _, _ = run(capsys, "commanded_joint", "--period", "0.01", "--limit", "5", "-o", str(file))
    content = json.loads(file.read_text())
    assert code == 0 and (content["period"], content["limit"]) == (0.01, [5.0])
    assert run(capsys, str(file))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["penulum"], "unknown system: got 'penulum', available: commanded_joint"),
        (["pendulum", "--limit", "-1"], "limit: expected 1 positive numbers, got (-1.0,)"),
        (["pendulum", "--form", "stopping_distance"], "unknown form: got stopping_distance"),
        (["none.json"], "none.json: expected a certificate, got: No such file"),
        (["pendulum", "--decay", "2"], "decay: expected it between 0 and 1, got 2.0"),
        (["pendulum", "--plot", "/dev/null/x.png"], "expected to write it, got"),
    ],
)
def test_what_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert message in err and "Traceback" not in err
