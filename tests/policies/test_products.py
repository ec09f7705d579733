"""The fast product is the same product, with the same gradients; precision is chosen by rule."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from onestride.policies import products
from onestride.policies.products import are_fast, fast_products, linear, rank_dtype

CPU = torch.device("cpu")
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take oneDNN whatever the processor: what is tested is the product, not the gain."""
    if not HAS_ONEDNN:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: True)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize(("rows", "fan_in", "fan_out"), [(1, 3, 16), (64, 62, 48), (33, 17, 100)])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients_are_torchs(rows: int, fan_in: int, fan_out: int, biased: bool) -> None:
    g = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*shape, generator=g) for shape in ((rows, fan_in), (fan_out, fan_in), (fan_out,)))
    direction = torch.randn(rows, fan_out, generator=g)
    results = []
    for product in (linear, functional.linear):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        with fast_products():
            y = product(leaves[0], leaves[1], leaves[2] if biased else None)
            (y * direction).sum().backward()
        results.append([y.detach(), *(leaf.grad for leaf in leaves[: 3 if biased else 2])])
    for mine, theirs in zip(*results, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("onednn")
def test_it_is_taken_within_and_nowhere_else() -> None:
    x, w = torch.randn(4, 8, requires_grad=True), torch.randn(32, 8)
    taken = [type(linear(x, w).grad_fn).__name__]
    with fast_products():
        taken.append(type(linear(x, w).grad_fn).__name__)
        with fast_products(False):
            taken.append(type(linear(x, w).grad_fn).__name__)
        assert are_fast()
    assert not are_fast()
    assert ["_Linear" in name for name in taken] == [False, True, False]


@pytest.mark.usefixtures("onednn")
def test_a_gradient_with_gaps_is_the_same() -> None:
    """Rows that lie apart, as of a slice or an expanded scalar, are put together first."""
    g = torch.Generator().manual_seed(0)
    wide, w = torch.randn(20, 30, generator=g), torch.randn(24, 60, generator=g)
    x, narrow = wide[:, ::2].requires_grad_(), w[:, 15:30]
    with fast_products():
        (mine,) = torch.autograd.grad(linear(x, narrow).sum(), x)
    (theirs,) = torch.autograd.grad(functional.linear(x, narrow).sum(), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("vendor", "features", "expected"),
    [
        ("AuthenticAMD", {"avx2"}, False),
        ("AuthenticAMD", {"avx512f"}, HAS_ONEDNN),
        ("GenuineIntel", {"avx512f"}, False),
        ("", set(), False),
    ],
)
def test_onednn_is_for_avx512_that_mkl_leaves_alone(
    monkeypatch: pytest.MonkeyPatch, vendor: str, features: set[str], expected: bool
) -> None:
    monkeypatch.setattr(products, "_processor", lambda: (vendor, frozenset(features)))
    assert products._onednn_is_faster() is expected


@pytest.mark.parametrize("feature", ["amx_bf16", "avx512_bf16"])
def test_native_bfloat16_needs_no_measurement(monkeypatch: pytest.MonkeyPatch, feature: str) -> None:
    monkeypatch.setattr(products, "_processor", lambda: ("", frozenset({feature})))
    monkeypatch.setattr(products, "_duration", lambda _: pytest.fail("measured"))
    assert rank_dtype("auto", CPU) == (torch.bfloat16, f"the processor has {feature}")


@pytest.mark.parametrize(("slow", "expected"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_elsewhere_the_faster_one_is_measured_once_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, slow: torch.dtype, expected: torch.dtype
) -> None:
    asked = []

    def duration(dtype: torch.dtype) -> float:
        asked.append(dtype)
        return 2e-3 if dtype == slow else 1e-3

    monkeypatch.setattr(products, "_processor", lambda: ("", frozenset()))
    monkeypatch.setattr(products, "_duration", duration)
    products._faster.cache_clear()
    for _ in range(2):
        dtype, why = rank_dtype("auto", CPU)
        assert dtype == expected
        assert why.startswith("measured, as the processor has neither AMX nor avx512_bf16: float32 ")
    assert len(asked) == 2
    (line,) = caplog.messages
    assert line.startswith(f"candidates are ranked in {str(expected).removeprefix('torch.')}: measured")
    products._faster.cache_clear()


def test_the_measurement_measures() -> None:
    assert 0 < products._duration(torch.float32) < 10


def test_what_is_asked_for_is_taken() -> None:
    assert rank_dtype("float32", CPU)[0] == torch.float32
    assert rank_dtype("bfloat16", CPU)[0] == torch.bfloat16
