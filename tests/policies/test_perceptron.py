"""The perceptron in one operation against the layers one by one: values, gradients, and what is not computed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onestride.policies import products
from onestride.policies.ensemble import Ensemble
from onestride.policies.networks import MLP
from onestride.policies.products import fast_products

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

pytestmark = pytest.mark.skipif(not HAS_ONEDNN, reason="this torch has no oneDNN")


@pytest.fixture(autouse=True, scope="module")
def onednn() -> Any:
    """Take oneDNN whatever the processor: what is tested is the operation, not the gain."""
    patch = pytest.MonkeyPatch()
    patch.setattr(products, "_onednn_is_faster", lambda: True)
    yield
    patch.undo()


def both_ways(network: nn.Module, x: torch.Tensor, wanted: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Output and gradients of a random direction, fast and then plain."""
    found = []
    for fast in (True, False):
        with fast_products(fast):
            output = network(x)
        direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
        gradients = torch.autograd.grad((output * direction).sum(), wanted) if wanted else ()
        found.append([output.detach(), *gradients])
    return found


def is_one_operation(output: torch.Tensor) -> bool:
    """Whether it came out of the perceptron in one operation, but for the axis of members."""
    last: Any = output.grad_fn
    return any("_Perceptrons" in type(one).__name__ for one in (last, last.next_functions[0][0]))


def assert_same(found: list[list[torch.Tensor]]) -> None:
    for mine, theirs in zip(*found, strict=True):
        assert mine.stride() == theirs.stride()
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    fan_in=st.integers(1, 40),
    hidden=st.lists(st.integers(16, 40), min_size=1, max_size=3),
    fan_out=st.sampled_from([1, 2, 15, 16, 30]),
    members=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_the_layers(
    rows: int, fan_in: int, hidden: list[int], fan_out: int, members: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(rows, fan_in, requires_grad=True)
    for network in (MLP(fan_in, hidden, fan_out, activation=nn.ReLU), Ensemble(members, fan_in, hidden, fan_out)):
        assert_same(both_ways(network, x, [x, *network.parameters()]))


def networks() -> list[Any]:
    torch.manual_seed(0)
    return [MLP(5, (32, 48), 3, activation=nn.ReLU), Ensemble(2, 5, (32, 48))]


@pytest.mark.parametrize("index", [0, 1])
def test_only_what_is_asked_for_is_computed(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data has no gradient, and neither have parameters that are held still: so many products less."""
    network, x, members = networks()[index], torch.randn(7, 5), index + 1
    assert_same(both_ways(network, x, list(network.parameters())))
    plain, calls = products.product, []

    def counted(*given: Any) -> torch.Tensor:
        calls.append(given)
        return plain(*given)

    monkeypatch.setattr(products, "product", counted)
    with fast_products():
        output = network(x)
        assert len(calls) == 2 * members
        torch.autograd.grad(output.sum(), list(network.parameters()))
        # Of both hidden layers' weights, and of what the second one sees; the last layer is too narrow for oneDNN.
        assert len(calls) == 5 * members
        network.requires_grad_(False)
        point = x.clone().requires_grad_()
        output, calls = network(point), []
        torch.autograd.grad(output.sum(), [point])
        assert len(calls) == 2 * members
    assert_same(both_ways(network, point, [point]))


@pytest.mark.parametrize("index", [0, 1])
def test_views_follow_their_parameters(index: int) -> None:
    """An optimiser's step, a loaded state, a copy, a way through another precision: never what was before."""
    network, x = networks()[index], torch.randn(7, 5)
    for change in (
        lambda: [parameter.data.mul_(1.1) for parameter in network.parameters()],
        lambda: network.load_state_dict(networks()[index].double().state_dict()),
        lambda: network.double().float(),
    ):
        both_ways(network, x, [])
        twin = copy.deepcopy(network)
        change()
        assert_same(both_ways(network, x, list(network.parameters())))
        for parameter in twin.parameters():
            parameter.data.add_(0.1)
        assert_same(both_ways(twin, x, list(twin.parameters())))


@pytest.mark.parametrize("index", [0, 1])
def test_no_graph_is_built_where_none_is_wanted(index: int) -> None:
    network, x = networks()[index], torch.randn(7, 5)
    with fast_products(), torch.no_grad():
        silent = network(x)
    with fast_products():
        spoken = network(x)
    assert silent.grad_fn is None and is_one_operation(spoken)
    assert torch.equal(silent, spoken)


def test_a_gradient_with_gaps_is_put_together_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a slice or an expanded scalar: oneDNN would take a thousand times longer, so it must not see one."""
    plain, network = products.product, MLP(5, (32, 48), 20, activation=nn.ReLU)

    def checked(x: torch.Tensor, weight: torch.Tensor, *others: Any) -> torch.Tensor:
        assert all(one.is_contiguous() or one.t().is_contiguous() for one in (x, weight))
        return plain(x, weight, *others)

    monkeypatch.setattr(products, "product", checked)
    wide = torch.randn(7, 10)
    for reduced in (lambda y: y.sum(), lambda y: y[:, ::2].square().sum(), lambda y: y.t().square()[3].sum()):
        found = []
        for fast in (True, False):
            with fast_products(fast):
                found.append(torch.autograd.grad(reduced(network(wide[:, ::2])), list(network.parameters())))
        for mine, theirs in zip(*found, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_other_networks_and_inputs_go_layer_by_layer() -> None:
    """Other activations, normalised layers, narrow ones, further axes and other precisions."""
    x = torch.randn(6, 5)
    rectified = MLP(5, (32,), 3, activation=nn.ReLU)
    with fast_products():
        taken = [
            is_one_operation(network(given))
            for network, given in (
                (rectified, x),
                (MLP(5, (32,), 3), x),
                (Ensemble(2, 5, (32,), layer_norm=True), x),
                (Ensemble(2, 5, (32,), activation=torch.tanh), x),
                (Ensemble(2, 5, (8,)), x),
                (rectified, x[None]),
                (MLP(5, (32,), 3, activation=nn.ReLU).double(), x.double()),
            )
        ]
    assert taken == [True, False, False, False, False, False, False]
