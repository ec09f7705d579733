"""Fine-tuning: a run that begins from another run's policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onestride.deploy.contract import parse_contract
from onestride.hardware.errors import OneStrideError
from onestride.training.checkpoint import load_run
from onestride.training.trainer import TrainOptions, train

from .toy_store import SMALL, make_store


@pytest.fixture
def first(tmp_path: Path) -> TrainOptions:
    store = make_store(tmp_path / "first.zarr")
    options = TrainOptions(SMALL, store.path, tmp_path / "first", steps=40, device="cpu", checkpoint_every=20)
    train(options)
    return options


@pytest.fixture
def second(first: TrainOptions, tmp_path: Path) -> TrainOptions:
    """Another dataset, begun from the first run's policy."""
    store = make_store(tmp_path / "second.zarr", episodes=5)
    return replace(first, data=store.path, run=tmp_path / "second", steps=1, start=first.run)


def acting(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_run(path).agent.state_dict().tensors["ema"])


def test_it_goes_on_from_the_acting_policy(first: TrainOptions, second: TrainOptions) -> None:
    """With a vanishing learning rate the second run's policy is the first's."""
    train(replace(second, config=replace(SMALL, lr=1e-12)))
    before, after = acting(first.run), acting(second.run)
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-7) for name in before)


def test_the_normaliser_stays_and_the_contract_says_whose_it_is(first: TrainOptions, second: TrainOptions) -> None:
    train(second)
    before, after = acting(first.run), acting(second.run)
    buffers = [name for name in before if name.startswith(("observation.", "action.", "low", "high"))]
    assert buffers
    assert all(torch.equal(before[name], after[name]) for name in buffers)
    one, two = (parse_contract((run / "contract.json").read_text(), "draft") for run in (first.run, second.run))
    assert two.dataset.statistics == one.dataset.statistics
    assert two.dataset.id != one.dataset.id


def test_it_resumes_and_knows_another_start(second: TrainOptions) -> None:
    train(replace(second, steps=30, checkpoint_every=10))
    assert train(replace(second, steps=30, checkpoint_every=10)).resumed_from == 30
    with pytest.raises(OneStrideError, match=r"another one \(start: "):
        train(replace(second, steps=30, start=None))


def test_another_shape_is_refused(second: TrainOptions) -> None:
    with pytest.raises(OneStrideError, match="its policy has another shape"):
        train(replace(second, config=replace(SMALL, hidden=(8, 8))))


def test_a_start_that_is_no_run_is_refused(second: TrainOptions, tmp_path: Path) -> None:
    with pytest.raises(OneStrideError, match="expected a run directory"):
        train(replace(second, start=tmp_path / "nowhere"))
