"""What moves a unit: patches cut by the exact receptive field, effective fields, dreams beside real data."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError
from gridsight.inside.dream import dream, survey
from gridsight.inside.patches import top_patches
from gridsight.inside.receptive import box, effective
from gridsight.models import create

SPATIAL = {1: (40,), 2: (18, 15), 3: (10, 9, 11)}
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


def _net(ndim: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        CONV[ndim](2, 5, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        CONV[ndim](5, 6, 3, padding=2, dilation=2),
        nn.ELU(),
    )


def _x(ndim: int, count: int = 40) -> Tensor:
    return torch.randn(count, 2, *SPATIAL[ndim], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_best_patches_by_brute_force_whatever_the_batches(ndim: int) -> None:
    net, x = _net(ndim), _x(ndim)
    found = top_patches(net, x, "2", k=5)
    with torch.no_grad():
        said = net[:3](x)
    top, cell = said.flatten(2).max(2)
    order = top.argsort(dim=0, descending=True, stable=True)[:5]
    assert found.n == 40 and found.units == tuple(range(6))
    assert np.array_equal(found.items, order.T.numpy())
    assert np.array_equal(found.values, top.gather(0, order).T.numpy())
    flat = np.ravel_multi_index(tuple(np.moveaxis(found.cells, -1, 0)), tuple(said.shape[2:]))
    assert np.array_equal(flat, cell.gather(0, order).T.numpy())
    assert all(len(set(row)) == 5 for row in found.items.tolist())  # one an item
    pieces = top_patches(net, ((part, torch.zeros(len(part))) for part in x.split([1, 17, 2, 20])), "2", k=5)
    assert np.array_equal(pieces.items, found.items) and np.array_equal(pieces.cells, found.cells)
    for row, other in zip(found.rows, pieces.rows, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(row, other, strict=True))
    some = top_patches(net, x, "2", [4, 1], k=50)
    assert some.values.shape == (2, 40) and np.array_equal(some.items[:, :5], found.items[[4, 1]])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_patches_are_all_that_a_unit_sees_and_no_more(ndim: int) -> None:
    net, x = _net(ndim), _x(ndim)
    found = top_patches(net, x, "2", k=4)
    for row, rank in itertools.product(range(6), range(4)):
        item = x[int(found.items[row, rank])][None].clone().requires_grad_()
        cell: Any = (0, found.units[row], *found.cells[row, rank].tolist())
        value = net[:3](item)[cell]
        assert float(value.detach()) == pytest.approx(float(found.values[row, rank]), abs=1e-6)
        edges, patch = found.box(row, rank), found.rows[row][rank]
        assert patch.shape == (2, *(high - low for low, high in edges))
        # cells of the patch are those of the item, zero beyond it
        for place in itertools.product(*(range(low, high) for low, high in edges)):
            within = all(0 <= i < size for i, size in zip(place, x.shape[2:], strict=True))
            here = patch[(slice(None), *(i - low for i, (low, _) in zip(place, edges, strict=True)))]
            assert torch.equal(here, item[(0, slice(None), *place)].detach() if within else torch.zeros(2))
        (slope,) = torch.autograd.grad(value, item)
        inside: Any = (0, slice(None), *(slice(max(0, low), high) for low, high in edges))
        rest = slope.clone()
        rest[inside] = 0
        assert float(rest.abs().max()) == 0


def test_whole_items_are_kept_where_a_unit_sees_everything() -> None:
    net = create("gridnet", ndim=2, in_channels=2, num_classes=3, widths=(8, 12), blocks=(0, 1), pools=(2, 1))
    x = _x(2)[:, :, :12, :12]
    found = top_patches(net, x, "stage 2", k=3)
    sizes = [high - low for low, high in found.box(0, 0)]
    assert found.rows[0][0].shape == (2, *sizes) and min(sizes) > 12
    low, high = zip(*found.box(0, 0), strict=True)
    seen: Any = (slice(None), *(slice(max(0, a), min(12, b)) for a, b in zip(low, high, strict=True)))
    here: Any = (slice(None), *(slice(max(0, -a), min(12, b) - a) for a, b in zip(low, high, strict=True)))
    assert torch.equal(found.rows[0][0][here], x[int(found.items[0, 0])][seen])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_effective_field_is_the_mean_gradient_and_lies_within_its_box(ndim: int) -> None:
    net, x = _net(ndim), _x(ndim, 5)
    cell = (2,) * ndim
    found = effective(net, x.split(2), "2", unit=3, cell=cell)
    given = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net[:3](given)[(slice(None), 3, *cell)].sum(), given)
    heat = slope.abs().sum(1).mean(0)
    assert found.n == 5 and torch.allclose(found.heat, heat / heat.max(), atol=1e-6)
    outside = found.heat.clone()
    outside[tuple(slice(max(0, low), high) for low, high in found.box)] = 0
    assert float(outside.max()) == 0
    assert found.box == tuple((2 * 2 - 4 - 1, 2 * 2 + 4 + 2) for _ in range(ndim))
    assert 0.1 < found.share <= 1
    every = effective(net, x, "2")
    assert every.cell == tuple(size // 2 for size in net[:3](x).shape[2:]) and float(every.heat.max()) == 1


def test_an_effective_field_is_smaller_than_the_field() -> None:
    # equal weights many times over: nearly a Gaussian, whose width grows with the root of the depth
    layers = [nn.Conv1d(1, 1, 3, padding=1, bias=False) for _ in range(20)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / 3)
    found = effective(nn.Sequential(*layers), torch.ones(1, 1, 101), "19", 0)
    assert found.box == ((30, 71),)
    where = torch.arange(101.0) - 50
    width = float((found.heat * where**2).sum() / found.heat.sum()) ** 0.5
    assert width == pytest.approx((20 * 2 / 3) ** 0.5, rel=1e-3)
    assert found.share == pytest.approx(2 * 2.486 * width / 41, abs=2 / 41)  # above exp(-z^2 / 2) = 0.0455: z = 2.486


def _signals(ndim: int, count: int) -> Tensor:
    """Smooth items in the range of real ones."""
    waves = hashing.uniform(0, 0, torch.arange(count), "phase", 2 * ndim) * 6.3
    axes = torch.meshgrid(*[torch.linspace(0, 6.3, size) for size in SPATIAL[ndim]], indexing="ij")
    rows = [
        torch.stack([sum(torch.sin((1 + c) * a + w[2 * d + c]) for d, a in enumerate(axes)) for c in (0, 1)])
        for w in waves
    ]
    return torch.stack(rows)


@pytest.mark.parametrize(("layer", "unit", "how"), [("2", 4, "mean"), ("2", 0, "max"), (None, 2, "mean")])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_dreams_reach_what_one_item_of_a_thousand_does(ndim: int, layer: str | None, unit: int, how: str) -> None:
    net = nn.Sequential(*_net(ndim), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    x = _signals(ndim, 200)
    found = dream(net, layer, unit, x.split(64), how=how, steps=48)
    assert found.reached and found.percentile == 100 and found.figure > found.start
    # the figure is the input's own, and so are those of the data
    with torch.no_grad():

        def said(given: Tensor) -> Tensor:
            each = (net if layer is None else net[:3])(given)[:, unit].reshape(len(given), -1)
            return each.mean(1) if how == "mean" else each.amax(1)

        assert float(said(found.x[None])) == pytest.approx(found.figure, rel=1e-4)
        assert found.aim == pytest.approx(np.percentile(said(x).double().numpy(), 99.9), rel=1e-5)
    (low, high), own = x.transpose(0, 1).flatten(1).aminmax(dim=1), found.x.flatten(1).T
    assert bool((own >= low - 1e-5).all() and (own <= high + 1e-5).all())
    again = dream(net, layer, unit, x, how=how, steps=48)
    assert torch.equal(again.x, found.x) and again.curve == found.curve
    assert not torch.equal(dream(net, layer, unit, x, how=how, steps=48, seed=1).x, found.x)


def test_a_unit_that_says_nothing_of_noise_is_dreamt_from_its_best_item() -> None:
    net, x = nn.Sequential(_net(1)[0], nn.ReLU()), _x(1, 50)
    with torch.no_grad():
        top = net[0](x)[:, 3].flatten().sort(descending=True).values
        net[0].bias[3] -= top[4]  # five cells of all are above 0
    found = dream(net, "1", 3, x, steps=30, how="max")
    assert found.reached and found.figure >= float(top[0] - top[4]) and found.origin == "the best real item"
    many = survey(net, "1", [0, 3], x.split(9), "max")
    again = dream(net, "1", 3, many, steps=30, how="max")
    assert torch.equal(again.x, found.x) and np.allclose(again.real, found.real)
    assert torch.equal(many.best[1], x[int(found.real.argmax())])
    with pytest.raises(UsageError, match="the survey is of max of units"):
        dream(net, "1", 2, many, how="max")


def test_dreams_start_from_an_item_and_run_without_data() -> None:
    net, x = _net(2), _x(2)
    with torch.no_grad():
        own = float(net[:3](x[:1])[0, 1].mean())
    bounds = (x.amin((0, 2, 3)) - 3, x.amax((0, 2, 3)) + 3)
    still = dream(net, "2", 1, start=x[0], bounds=bounds, steps=1, rate=1e-9)
    assert still.start == pytest.approx(own, abs=1e-4) and torch.allclose(still.x, x[0], atol=1e-4)
    moved = dream(net, "2", 1, start=x[0], bounds=bounds, steps=30)
    assert moved.figure > moved.start + 0.1 and moved.reached is None and np.isnan(moved.percentile)
    free = dream(net.double(), "2", 1, shape=(2, 18, 15), steps=30, smooth=2.0)
    assert free.x.dtype == torch.float64 and float(free.x.abs().max()) <= 2
    # damping: finer waves are weaker
    rough = dream(net, "2", 1, shape=(2, 18, 15), steps=30, smooth=0.0)
    assert _fine(free.x) < 0.5 * _fine(rough.x)


def _fine(x: Tensor) -> float:
    """How much neighbours differ, for how much cells differ."""
    return float(x.diff(dim=-1).square().mean() / x.var())


def test_what_cannot_be_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsight.inside.patches.free_memory", lambda device: 1000)
    with pytest.raises(UsageError, match="name fewer units"):
        top_patches(_net(2), _x(2), "2")


def test_boxes_of_what_sees_everything_are_the_input() -> None:
    from gridsight.nn.geometry import Field

    assert box(Field((None, 3), (None, 2), (None, 0.0)), (0, 1), (7, 9)) == ((0, 7), (1, 4))
