"""What is taken away, and what stands in its place: regions, baselines, and the methods that judge by them."""

import resource
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn

from gridsight.attribution import attribute
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import masked_scores, set_scores
from gridsight.attribution._regions import regions_of, spread
from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError
from gridsight.nn.undisturbed import undisturbed


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net_of(x: Tensor) -> nn.Module:
    """A nonlinear network of inputs like x."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 8), nn.Tanh(), nn.Linear(8, 3))


class Cells(nn.Module):
    """The sum of a block of cells, for targets 0 and 1 with either sign."""

    def __init__(self, *block: slice) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        total = x[(slice(None), slice(None), *self.block)].flatten(1).sum(1, keepdim=True)
        return torch.cat([total, -total], 1)


# regions


@pytest.mark.parametrize(
    ("spatial", "count", "found"),
    [((16,), 4, 4), ((10,), 3, 3), ((8, 8), 16, 16), ((30, 10), 12, 12), ((6, 6, 6), 8, 8), ((2, 9), 18, 18)],
)
def test_a_grid_is_of_boxes_that_differ_by_a_cell_at_most(spatial: tuple[int, ...], count: int, found: int) -> None:
    regions = regions_of(torch.zeros(2, 3, *spatial), "grid", count)
    assert regions.shape == (2, *spatial) and torch.equal(regions[0], regions[1])
    sizes = []
    for number in range(found):
        cells = (regions[0] == number).nonzero()
        low, high = cells.amin(0), cells.amax(0) + 1
        assert len(cells) == int((high - low).prod())  # a full box
        sizes.append((high - low).tolist())
    assert int(regions.max()) + 1 == found
    assert all(max(axis) - min(axis) <= 1 for axis in zip(*sizes, strict=True))


@pytest.mark.parametrize("count", [0, -1, 65])
def test_impossible_numbers_of_regions_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} regions: an item of 64 cells has 1 to as many"):
        regions_of(torch.zeros(1, 1, 8, 8), "grid", count)


def test_pieces_follow_edges_in_one_two_and_three_axes() -> None:
    pytest.importorskip("skimage")
    for ndim, channels in product((1, 2, 3), (1, 3, 7)):
        side = {1: 64, 2: 24, 3: 12}[ndim]
        x = 0.05 * noise(1, channels, *[side] * ndim)
        inside = torch.zeros([side] * ndim, dtype=torch.bool)
        inside[tuple([slice(side // 4, side // 2)] * ndim)] = True
        x[:, :, inside] += 3
        regions = regions_of(x, "slic", 16)[0]
        assert regions.shape == inside.shape and 11 <= len(regions.unique()) <= 32
        assert regions.unique().tolist() == list(range(int(regions.max()) + 1))
        for number in regions.unique():
            share = float(inside[regions == number].double().mean())
            assert share < 0.15 or share > 0.85, (ndim, channels, int(number), share)


def test_pieces_of_constants_and_noise_are_still_pieces() -> None:
    pytest.importorskip("skimage")
    for x in (torch.ones(1, 1, 30, 50), noise(1, 12, 40, 40), noise(1, 1, 200), torch.full((1, 2, 9, 9, 9), -4.0)):
        count = len(regions_of(x, "slic", 16)[0].unique())
        assert 11 <= count <= 32, (tuple(x.shape), count)
    one = noise(1, 1, 20, 20)
    one[0, 0, 3, 3] = 1e6  # a broken cell does not hide all others
    assert len(regions_of(one, "slic", 9)[0].unique()) >= 6
    other = 0.1 * one.clamp(-2, 2)
    other[0, 0, 5:12, 2:9] += 5
    both = regions_of(torch.cat([other, one]), "slic", 9)  # each item's own
    assert torch.equal(both[1], regions_of(one, "slic", 9)[0]) and not torch.equal(both[0], both[1])


def test_without_scikit_image_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(UsageError, match=r'scikit-image, which is not installed; pip install "gridsight\[regions\]"'):
        attribute(net_of(x := noise(1, 1, 8, 8)), x, "lime", 0, regions="slic")


def test_unknown_regions_and_baselines_are_answered_with_the_nearest() -> None:
    x = noise(1, 1, 8, 8)
    for wrong, said in (("slick", "slic"), (3, "grid, slic")):
        with pytest.raises(UsageError, match=said):
            attribute(net_of(x), x, "shapley", 0, regions=wrong)
    for wrong, said in (("zeros", "zero"), (0.5, "blur, mean, zero")):
        with pytest.raises(UsageError, match=said):
            attribute(net_of(x), x, "occlusion", 0, baseline=wrong)
    with pytest.raises(UsageError, match="does not fit inputs"):
        baseline_of(x, torch.zeros(7))
    with pytest.raises(UsageError, match="baseline is not finite"):
        baseline_of(x, torch.tensor(float("nan")))


def test_evidence_is_spread_so_that_sums_stay() -> None:
    regions = torch.tensor([[0, 0, 1, 1, 1, 2]])
    assert spread(torch.tensor([[2.0, 3.0, -1.0]]), regions).tolist() == [[1, 1, 1, 1, 1, -1]]


# baselines


def test_baselines_are_what_their_names_say() -> None:
    x = noise(2, 3, 16, 16) + 1
    assert not bool(baseline_of(x, "zero").any())
    mean = baseline_of(x, "mean")
    assert torch.allclose(mean[1, 2], x[1, 2].mean().expand(16, 16))
    blurred = baseline_of(x, "blur")
    assert float(blurred.std()) < 0.3 * float(x.std()) and torch.allclose(blurred.mean(), x.mean(), atol=0.02)
    assert torch.allclose(baseline_of(torch.full((1, 1, 9), 2.0), "blur"), torch.tensor(2.0))
    assert torch.equal(baseline_of(x, torch.tensor(3)), torch.full_like(x, 3))
    assert torch.equal(baseline_of(x, x[:1]), x[:1].expand_as(x))


@pytest.mark.parametrize("name", ["shapley", "lime", "occlusion", "rise"])
@pytest.mark.parametrize("kind", ["zero", "mean", "blur", "own"])
def test_the_baseline_is_what_replaces_cells(name: str, kind: str) -> None:
    x, seen = noise(1, 2, 8, 8) + 2, []
    baseline: Any = noise(2, 8, 8, seed=1) if kind == "own" else kind
    base = baseline_of(x, baseline)

    class Watched(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            seen.append(given.clone())
            return given.flatten(1)[:, :2]

    settings: dict[str, Any] = {} if name == "occlusion" else {"samples": 100}
    attribute(Watched(), x, name, 0, baseline=baseline, **settings)
    inputs = torch.cat(seen).double()
    between = torch.minimum(x, base) - 1e-5, torch.maximum(x, base) + 1e-5
    assert bool(((inputs >= between[0]) & (inputs <= between[1])).all())
    if name != "rise":  # its masks are soft
        assert bool(((inputs == x) | (inputs == base)).all())
    assert bool((inputs - x).abs().amax(0).gt(0).all())  # every cell was replaced at some time


# passes


def test_masks_that_are_soft_or_sharp_are_mixed_exactly() -> None:
    x, base, masks = noise(2, 9), noise(2, 9, seed=1), torch.rand(7, 9, generator=torch.Generator().manual_seed(2))
    net, target = net_of(x[None]), torch.tensor(1)
    with undisturbed(net), torch.no_grad():
        for keep in (masks, masks < 0.5):
            share = keep[:, None].float()
            expected = net(share * x + (1 - share) * base)[:, 1].double()
            for most in (1, 3, 64):
                found = masked_scores(net, x, base, 7, keep.__getitem__, target, most)
                assert found.dtype == torch.float64 and torch.allclose(found, expected, atol=1e-6)
        sets, regions = masks[:, :4] < 0.5, torch.tensor([0, 3, 1, 1, 2, 2, 2, 0, 3])
        found = set_scores(net, x, base, regions, sets, target, 3)
        assert torch.allclose(found, net(torch.where(sets[:, None, regions], x, base))[:, 1].double(), atol=1e-6)


def test_a_network_that_answers_nothing_finite_is_refused() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1).sum(1, keepdim=True) - 15.5).sqrt()

    for name in ("shapley", "lime", "occlusion", "rise"):
        with pytest.raises(UsageError, match="nothing finite"):
            attribute(Root(), torch.ones(1, 1, 4, 4), name, 0)


def test_memory_holds_some_inputs_never_all() -> None:
    """2,000 pictures of 224 cells and three channels would be 1.2 GB, their masks alone 0.4."""
    x, most = noise(1, 3, 224, 224), []

    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            most.append(len(x))
            return x[:, :, ::32, ::32].flatten(1)[:, :2] * 1.0

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    columns = (torch.arange(224) // 16).expand(224, 224)
    found = attribute(Small(), x, "shapley", 0, regions=columns, samples=2000, estimator="kernel", tolerance=0.0)
    assert 1900 < found.passes <= 2000 and max(most) <= 64
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 250, f"{grown:.0f} MB"  # 64 inputs and masks are 51


# methods


@pytest.mark.parametrize("shape", [(12,), (6, 7), (4, 4, 5)])
def test_lime_is_a_weighted_linear_regression(shape: tuple[int, ...]) -> None:
    x = noise(1, 2, *shape)
    net = net_of(x)
    found = attribute(net, x, "lime", 2, count=6, samples=100, width=0.4, seed=5)
    assert found.regions is not None
    regions = found.regions[0]
    count = int(regions.max()) + 1
    sets = hashing.uniform(5, 0, torch.arange(100), "lime", count) < 0.5
    sets[0] = True
    with torch.no_grad():
        answers = net(x * sets[:, regions][:, None])[:, 2].numpy()
    cosine = (sets.double().sum(1) / (sets.double().norm(dim=1).clamp(min=1e-12) * count**0.5)).numpy()
    weight = np.exp(-((1 - cosine) ** 2) / 0.4**2)
    expected = LinearRegression().fit(sets.double().numpy(), answers, weight).coef_
    cells = [float(found.values[0][regions == i].sum()) for i in range(count)]
    assert np.allclose(cells, expected, atol=1e-5)
    assert found.passes == 100


def test_lime_refuses_what_it_cannot_fit() -> None:
    x = noise(1, 1, 8, 8)
    with pytest.raises(UsageError, match="too few for 16 regions: at least 32"):
        attribute(net_of(x), x, "lime", 0, samples=31)
    for wrong in ({"width": 0.0}, {"ridge": -1.0}):
        with pytest.raises(UsageError, match="width above 0 and a ridge from 0 on"):
            attribute(net_of(x), x, "lime", 0, **wrong)


@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [
        ((11,), 3, 3),  # the last window is cut
        ((11,), 4, 2),
        ((7, 5), 3, 2),
        ((7, 5), (2, 5), (1, 5)),
        ((8, 8), None, None),
        ((4, 5, 3), (2, 2, 3), (2, 1, 3)),
    ],
)
def test_occlusion_is_a_plain_loop(shape: tuple[int, ...], size: Any, stride: Any) -> None:
    x, ndim = noise(2, 2, *shape), len(shape)
    net = net_of(x)
    found = attribute(net, x, "occlusion", torch.tensor([1, 0]), size=size, stride=stride, baseline="mean")
    sizes = (1, 1) if size is None else (size,) * ndim if isinstance(size, int) else size
    steps = sizes if stride is None else (stride,) * ndim if isinstance(stride, int) else stride
    starts = [range(0, max(1, n - s + 1 + (-(n - s)) % t), t) for n, s, t in zip(shape, sizes, steps, strict=True)]
    base = x.mean(tuple(range(2, 2 + ndim)), keepdim=True).expand_as(x)
    passes = 0
    for i, target in enumerate((1, 0)):
        total, cover = torch.zeros(shape), torch.zeros(shape)
        passes += 1
        for corner in product(*starts):
            box = tuple(slice(c, c + s) for c, s in zip(corner, sizes, strict=True))
            hidden = x[i : i + 1].clone()
            hidden[(slice(None), slice(None), *box)] = base[i : i + 1][(slice(None), slice(None), *box)]
            with torch.no_grad():
                lost = float((net(x[i : i + 1]) - net(hidden))[0, target])
            total[box] += lost / total[box].numel()
            cover[box] += 1
            passes += 1
        assert bool((cover > 0).all())
        assert torch.allclose(found.values[i], total / cover, atol=1e-6)
    assert found.passes == passes
    assert (found.regions is not None) == (sizes == steps)


def test_windows_that_leave_cells_out_are_refused() -> None:
    x = noise(1, 1, 8, 8)
    with pytest.raises(UsageError, match="leave cells out"):
        attribute(net_of(x), x, "occlusion", 0, size=2, stride=3)
    for wrong in (0, 9, (1, 2, 3)):
        with pytest.raises(UsageError, match="number of cells, or one an axis"):
            attribute(net_of(x), x, "occlusion", 0, size=wrong)


@pytest.mark.parametrize(("shape", "block"), [((60,), (20, 32)), ((28, 28), (8, 16)), ((12, 12, 12), (3, 8))])
def test_rise_finds_the_block_of_cells_that_is_looked_at(shape: tuple[int, ...], block: tuple[int, int]) -> None:
    where = [slice(*block)] * len(shape)
    x, net = torch.ones(1, 1, *shape), Cells(*where)
    first, against = (attribute(net, x, "rise", target, samples=600).values[0] for target in (0, 1))
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[tuple(where)] = True
    assert bool(inside[np.unravel_index(int(first.argmax()), shape)])
    assert float(first[inside].mean()) > 4 * float(first[~inside].abs().mean())
    assert torch.allclose(first, -against, atol=1e-5)


def test_rise_refuses_masks_that_make_no_pairs() -> None:
    x = noise(1, 1, 8, 8)
    with pytest.raises(UsageError, match="even number of samples"):
        attribute(net_of(x), x, "rise", 0, samples=7)
    with pytest.raises(UsageError, match="2 or more cells an axis"):
        attribute(net_of(x), x, "rise", 0, cells=1)
    for seed in range(20):  # one mask is half open somewhere, which says nothing about the cell
        assert bool(attribute(net_of(x), x, "rise", 0, samples=2, cells=2, seed=seed).values.isfinite().all())
