"""Shapley values of regions: by their definition, by their axioms; estimators by what they say of their own error."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gridsight.attribution import Map, attribute
from gridsight.attribution._smooth import _covariances, _shapley_covariances, fitted
from gridsight.core.errors import UsageError


class Game(nn.Module):
    """A network of (N, 1, P) whose one output is a smooth function of all cells that is far from linear."""

    def __init__(self, count: int, seed: int = 0, *, dead: tuple[int, ...] = ()) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(count, 12, generator=generator))
        self.outer = nn.Parameter(torch.randn(12, 1, generator=generator))
        with torch.no_grad():
            self.inner[list(dead)] = 0

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.inner) @ self.outer


class OfSum(nn.Module):
    """A network that does not know the order of its cells."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).double().sum(1, keepdim=True)
        return torch.cat([torch.sin(total), total**3], 1).to(x.dtype)


def said(net: nn.Module, x: Tensor, **settings: Any) -> Map:
    """Every cell a region of its own, unless told otherwise."""
    cells = torch.arange(x[0, 0].numel()).view(x.shape[2:])
    return attribute(net, x, "shapley", 0, **{"regions": cells, **settings})


def by_definition(net: nn.Module, x: Tensor) -> np.ndarray:
    """The mean over all orders of what each cell of x (1, 1, P) adds."""
    count = x.shape[-1]
    total, orders = np.zeros(count), list(permutations(range(count)))
    values: dict[tuple[float, ...], float] = {}
    for order in orders:
        shown = torch.zeros_like(x)
        before = float(net(shown))
        for cell in order:
            shown[..., cell] = x[..., cell]
            key = tuple(shown.flatten().tolist())
            after = values[key] if key in values else float(net(shown))
            values[key] = after
            total[cell] += after - before
            before = after
    return total / len(orders)


def item(count: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 1, count, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_exact_is_the_mean_over_all_orders() -> None:
    net, x = Game(5), item(5)
    found = said(net, x, estimator="exact")
    assert found.parts is not None and found.error is None
    assert np.allclose(found.parts[0].numpy(), by_definition(net, x), atol=1e-6)
    assert found.passes == 32
    assert torch.allclose(found.values.double(), found.parts)


@pytest.mark.parametrize("estimator", ["exact", "permutation", "kernel"])
def test_parts_add_up(estimator: str) -> None:
    found = said(Game(11), torch.cat([item(11), item(11, 1)]), estimator=estimator, samples=400)
    assert found.residual is not None
    assert float(found.residual.max()) < 1e-10  # of 1e-5: sums are of float64
    assert found.gap is not None and found.parts is not None and found.parts.dtype == torch.float64


def test_twins_are_equal_and_those_that_never_matter_have_nothing() -> None:
    x = torch.tensor([[[0.5, 0.3, 0.5, -0.2, 0.3, 0.5]]])
    parts = said(OfSum(), x, estimator="exact").parts
    assert parts is not None
    scale = float(parts.abs().max())
    assert torch.allclose(parts[0, [0, 0, 1]], parts[0, [2, 5, 4]], rtol=0, atol=1e-6 * scale)
    parts = said(Game(7, dead=(1, 4)), item(7), estimator="exact").parts
    assert parts is not None
    assert parts[0, [1, 4]].tolist() == [0.0, 0.0] and bool((parts[0, [0, 2, 3, 5, 6]] != 0).all())


def test_values_of_a_sum_are_sums_of_values() -> None:
    first, second, x = Game(6), Game(6, 1), item(6)

    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return first(x) + second(x)

    parts = [said(net, x, estimator="exact").parts for net in (Both(), first, second)]
    assert torch.allclose(parts[0], parts[1] + parts[2], atol=1e-6)


def test_one_region_has_everything() -> None:
    net, x = Game(6), item(6)
    for estimator in ("exact", "permutation", "kernel"):
        found = said(net, x, regions=torch.zeros(6, dtype=torch.int64), estimator=estimator)
        with torch.no_grad():
            gap = float(net(x) - net(0 * x))
        assert found.parts is not None and found.parts.shape == (1, 1)
        assert float(found.parts) == pytest.approx(gap, abs=1e-6)
        assert torch.allclose(found.values, torch.full((1, 6), gap / 6), atol=1e-6)


def test_fourteen_regions_are_exact_and_fifteen_refused() -> None:
    x = item(14)
    found = said(Game(14, dead=(3,)), x, estimator="exact")
    assert found.passes == 2**14 and found.parts is not None and float(found.parts[0, 3]) == 0
    with pytest.raises(UsageError, match="15 regions are 2\\^15 sets: exact values are for up to 14"):
        said(Game(15), item(15), estimator="exact")


def test_auto_is_exact_where_that_fits_the_budget() -> None:
    assert said(Game(8), item(8), samples=256).passes == 256
    found = said(Game(8), item(8), samples=255, tolerance=0.0)
    assert found.error is not None and found.passes <= 255


def test_own_regions_may_have_gaps_and_differ_between_items() -> None:
    net, x = Game(6), torch.cat([item(6), item(6, 1)])
    regions = torch.tensor([[7, 7, -3, -3, 100, 7], [2, 2, 2, 2, 9, 9]])
    found = said(net, x, regions=regions)
    assert found.regions is not None and found.parts is not None and found.parts.shape == (2, 3)
    assert found.regions.tolist() == [[1, 1, 0, 0, 2, 1], [0, 0, 0, 0, 1, 1]]
    assert float(found.parts[1, 2]) == 0
    alone = said(net, x[1:], regions=regions[1])
    assert alone.parts is not None and torch.allclose(found.parts[1, :2], alone.parts[0])
    assert torch.allclose(found.values.double().sum(1), found.parts.sum(1), atol=1e-6)
    for wrong in (regions.float(), regions[:, :5], regions[0, :5]):
        with pytest.raises(UsageError, match="regions are whole numbers"):
            said(net, x, regions=wrong)


@pytest.mark.parametrize(("estimator", "samples"), [("permutation", 100), ("kernel", 62)])
def test_estimators_are_right_on_average_and_know_their_error(estimator: str, samples: int) -> None:
    net, x = Game(8, 3), item(8, 3)
    exact = said(net, x, estimator="exact").parts
    assert exact is not None
    rows, inside = [], []
    for seed in range(60):
        found = said(net, x, estimator=estimator, samples=samples, tolerance=0.0, seed=seed)
        assert found.parts is not None and found.error is not None and found.passes <= samples
        rows.append(found.parts[0])
        inside.append((found.parts - exact).abs()[0] <= found.error[0])
    off, spread = torch.stack(rows).mean(0) - exact[0], torch.stack(rows).std(0)
    assert float((off.abs() / (spread / 60**0.5)).max()) < 3.5  # of 8 regions: by chance less than once in 200
    assert 0.88 <= float(torch.stack(inside).double().mean()) <= 0.99  # of 480


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_more_samples_less_error(estimator: str) -> None:
    net, x = Game(12, 1), item(12, 1)
    exact = said(net, x, estimator="exact").parts
    assert exact is not None
    errors = []
    for samples in (60, 240, 960):
        each = [
            said(net, x, estimator=estimator, samples=samples, tolerance=0.0, seed=seed).parts for seed in range(12)
        ]
        errors.append(float((torch.cat(each) - exact).square().mean().sqrt()))
    # random orders lose half of their error with four times the passes
    assert errors[1] < 0.7 * errors[0] and errors[2] < 0.7 * errors[1], errors
    if estimator == "kernel":
        assert errors[2] < 0.1 * errors[0], errors


def test_the_kernel_needs_far_fewer_passes_than_orders() -> None:
    net, x = Game(12, 2), item(12, 2)
    exact = said(net, x, estimator="exact").parts
    assert exact is not None

    def error(estimator: str, samples: int) -> float:
        each = [
            said(net, x, estimator=estimator, samples=samples, tolerance=0.0, seed=seed).parts for seed in range(10)
        ]
        return float((torch.cat(each) - exact).square().mean().sqrt())

    assert error("kernel", 200) < error("permutation", 800)


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_they_stop_when_they_are_sure(estimator: str) -> None:
    net, x = Game(12), item(12)
    loose = said(net, x, estimator=estimator, samples=2000, tolerance=0.2)
    tight = said(net, x, estimator=estimator, samples=2000, tolerance=0.02)
    none = said(net, x, estimator=estimator, samples=200, tolerance=1e-6)
    assert loose.passes < tight.passes <= 2000 and not loose.notes
    for found, tolerance in ((loose, 0.2), (tight, 0.02)):
        assert found.error is not None and found.parts is not None
        if not found.notes:
            assert float(found.error.max() / found.parts.abs().sum()) <= tolerance
    assert none.passes <= 200 and "item 0: intervals of up to" in none.notes[0]
    # of a linear network the first sets say everything
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    found = said(linear, x, estimator=estimator, samples=2000)
    assert found.passes <= 70 and not found.notes and found.parts is not None
    expected = (linear[1].weight.detach()[0] * x[0, 0]).double()
    assert torch.allclose(found.parts[0], expected, atol=1e-6)


@pytest.mark.parametrize(("estimator", "least"), [("permutation", 30), ("kernel", 34)])
def test_a_budget_that_says_nothing_is_refused(estimator: str, least: int) -> None:
    with pytest.raises(UsageError, match=f"too few for 8 regions: at least {least}"):
        said(Game(8), item(8), estimator=estimator, samples=least - 1)
    found = said(Game(8), item(8), estimator=estimator, samples=least)
    assert found.passes <= least and found.error is not None and bool(found.error.isfinite().all())


def test_the_kernel_that_has_seen_every_set_is_exact() -> None:
    for count in (4, 5, 6):
        net, x = Game(count), item(count)
        exact = said(net, x, estimator="exact").parts
        found = said(net, x, estimator="kernel", samples=10_000, tolerance=0.0)
        assert exact is not None and found.parts is not None and found.passes == 2**count
        assert torch.allclose(found.parts, exact, atol=1e-5)


def test_a_constant_network_has_nothing_to_divide() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :1] * 0 + 2

    for estimator in ("exact", "permutation", "kernel"):
        found = said(Constant(), item(9), estimator=estimator)
        assert found.parts is not None and not bool(found.parts.any()) and not found.notes


def test_shapley_values_of_the_kernel_itself_by_their_definition() -> None:
    """The tables that need an integral, against sums over all sets."""
    count, rho = 6, 0.3
    sets = ((torch.arange(2**count)[:, None] >> torch.arange(count)) & 1).bool()
    apart = (sets[:, None] != sets).sum(2)
    kernel = torch.from_numpy(_covariances(count, rho))[apart].numpy()
    shapley = np.zeros((count, 2**count))
    for order in permutations(range(count)):
        shown = 0
        for region in order:
            shapley[region, shown | 1 << region] += 1 / 720
            shapley[region, shown] -= 1 / 720
            shown |= 1 << region
    with_it, without, own = _shapley_covariances(count, rho)
    size = sets.sum(1).numpy()
    expected = shapley @ kernel
    for region in range(count):
        assert np.allclose(expected[region], np.where(sets[:, region], with_it[size], without[size]), atol=1e-12)
    assert np.allclose(np.diag(expected @ shapley.T), own, atol=1e-12)


def test_hundreds_of_regions_are_fitted_without_overflow() -> None:
    generator = torch.Generator().manual_seed(0)
    count = 400
    sets = torch.rand(900, count, generator=generator) < 0.5
    sets[0] = True
    weights = torch.randn(count, generator=generator, dtype=torch.float64)
    half = (2 * sets.double() - 1) @ weights / 2
    parts, error, _ = fitted(sets, half)
    assert torch.allclose(parts, weights, atol=1e-8) and bool((error < 1e-6).all())


def test_a_volume_and_float64() -> None:
    net = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 64, 2)).double()
    x = torch.randn(2, 2, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = attribute(net, x, "shapley", torch.tensor([0, 1]), count=8)
    assert found.parts is not None and found.parts.shape == (2, 8) and found.values.dtype == torch.float64
    for i in range(2):
        kept = torch.zeros_like(x[:1])
        with torch.no_grad():
            assert found.gap is not None
            assert float(found.gap[i]) == pytest.approx(float((net(x[i : i + 1]) - net(kept))[0, i]), abs=1e-12)
