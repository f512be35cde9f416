"""Every registered augmentation keeps the contract of `gridsight.data.augment`."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from gridsight.core import seed
from gridsight.core.registry import Entry
from gridsight.data.augment import AUGMENTS, apply, drawn
from gridsight.nn.warp import compose, warp, warp_exact

SIZES = {1: (41,), 2: (17, 22), 3: (9, 14, 11)}
CASES = [
    pytest.param(entry, ndim, id=f"{entry.name}-{ndim}d")
    for entry in AUGMENTS.entries()
    for ndim in entry.tags["ndims"]
]
GEOMETRIC = [case for case in CASES if "matrix" in case.values[0].tags]
DOMAINS = {"grid", "signal", "spectrum"}


def batch(ndim: int, count: int = 6, channels: int = 2) -> Tensor:
    return torch.randn(count, channels, *SIZES[ndim], generator=torch.Generator().manual_seed(ndim)) + 0.3


def numbers(entry: Entry, ndim: int, items: Tensor, epoch: int = 0) -> Tensor:
    return seed.uniform(3, epoch, items, entry.name, entry.tags["count"](ndim))


def strong(entry: Entry) -> float:
    return min(1.0, entry.tags["most"])


@pytest.mark.parametrize("entry", AUGMENTS.entries(), ids=lambda e: e.name)
def test_tags_are_complete(entry: Entry) -> None:
    assert set(entry.tags["domains"]) <= DOMAINS and entry.tags["domains"]
    assert set(entry.tags["ndims"]) <= {1, 2, 3} and entry.tags["most"] > 0
    assert isinstance(entry.tags["label_risk"], str)
    assert ("matrix" in entry.tags) == ("exact" in entry.tags)
    assert entry.item.__doc__ and entry.item.__doc__.startswith("(N, C, ")


@pytest.mark.parametrize(("entry", "ndim"), CASES)
def test_strength_zero_changes_nothing_and_one_changes_something(entry: Entry, ndim: int) -> None:
    x, u = batch(ndim), numbers(entry, ndim, torch.arange(6))
    still, changed = entry.item(x, u, 0.0), entry.item(x, u, strong(entry))
    if entry.tags.get("exact", True):
        assert torch.equal(still, x)
    else:  # interpolation at the cells themselves
        torch.testing.assert_close(still, x, rtol=0, atol=2e-5)
    assert changed.shape == x.shape and changed.dtype == x.dtype and changed.isfinite().all()
    assert not torch.allclose(changed, x, atol=0.05)


@pytest.mark.parametrize(("entry", "ndim"), CASES)
def test_an_item_never_depends_on_its_batch(entry: Entry, ndim: int) -> None:
    x, items, s = batch(ndim), torch.tensor([4, 0, 7, 123456789, 2, 9]), strong(entry)
    before = x.clone()
    random_state = torch.get_rng_state()
    whole = entry.item(x, numbers(entry, ndim, items), s)
    assert torch.equal(x, before), "the batch itself was written to"
    assert torch.equal(torch.get_rng_state(), random_state), "it drew from the generator"
    assert torch.equal(whole, entry.item(x, numbers(entry, ndim, items), s))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.equal(whole[order], entry.item(x[order], numbers(entry, ndim, items[order]), s))
    for i in range(len(x)):
        alone = entry.item(x[i : i + 1], numbers(entry, ndim, items[i : i + 1]), s)
        assert torch.equal(alone[0], whole[i])
    assert not torch.equal(whole, entry.item(x, numbers(entry, ndim, items, epoch=1), s))


@pytest.mark.parametrize(("entry", "ndim"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_float_type(entry: Entry, ndim: int, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and entry.tags.get("exact") is False:
        dtype = torch.float64  # grid_sample has no bfloat16 kernel on CPU
    x, u = batch(ndim).to(dtype), numbers(entry, ndim, torch.arange(6))
    out = entry.item(x, u, strong(entry))
    assert out.dtype == dtype and out.isfinite().all()


@pytest.mark.parametrize(("entry", "ndim"), CASES)
def test_extremes_of_the_random_numbers_and_tiny_grids(entry: Entry, ndim: int) -> None:
    count = entry.tags["count"](ndim)
    top = float(torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)))
    for value, size in itertools.product((0.0, 0.5, top), (1, 2, 5)):
        x = torch.randn(2, 1, *[size] * ndim)
        out = entry.item(x, torch.full((2, count), value), entry.tags["most"])
        assert out.shape == x.shape and out.isfinite().all()


@pytest.mark.parametrize(("entry", "ndim"), GEOMETRIC)
def test_a_planted_point_moves_where_the_matrix_says(entry: Entry, ndim: int) -> None:
    size = [33] * ndim
    items = torch.arange(8)
    u = numbers(entry, ndim, items)
    strength = min(0.25 if entry.name in ("shift", "crop") else 1.0, entry.tags["most"])
    matrix = entry.tags["matrix"](u, strength, tuple(size))
    assert matrix.shape == (8, ndim, ndim + 1)
    # a small Gaussian hill at `source`, in cells from the middle, away from the edges
    source = torch.tensor([2.0, -3.0, 1.0][:ndim])
    cells = torch.stack(torch.meshgrid(*[torch.arange(33.0) - 16] * ndim, indexing="ij"))
    hill = torch.exp(-((cells - source.view(-1, *[1] * ndim)) ** 2).sum(0) / (2 * 1.5**2))
    out = entry.item(hill.expand(8, 1, *size), u, strength)[:, 0]
    centre = (out[:, None] * cells).flatten(2).sum(2) / out.flatten(1).sum(1)[:, None]
    back = (matrix[:, :, :-1] @ centre[:, :, None])[:, :, 0] + matrix[:, :, -1]
    torch.testing.assert_close(back, source.expand(8, ndim), rtol=0, atol=0.03)
    assert (centre - source).abs().max() > 0.1


@pytest.mark.parametrize(("entry", "ndim"), [case for case in GEOMETRIC if case.values[1] > 1])
def test_a_mask_moves_as_scipy_moves_it(entry: Entry, ndim: int) -> None:
    size = {2: (64, 80), 3: (32, 40, 36)}[ndim]
    mask = np.zeros(size, np.float32)
    mask[tuple(slice(n // 4, n // 4 + n // 3) for n in size)] = 1
    u = numbers(entry, ndim, torch.arange(5))
    ours = entry.item(torch.from_numpy(mask).expand(5, 1, *size), u, min(1.0, 0.4 * entry.tags["most"]))[:, 0] > 0.5
    middle = (np.array(size) - 1) / 2
    for item, matrix in zip(
        ours.numpy(), entry.tags["matrix"](u, min(1.0, 0.4 * entry.tags["most"]), size).double().numpy(), strict=True
    ):
        a, t = matrix[:, :-1], matrix[:, -1]
        expected = ndimage.affine_transform(mask, a, middle + t - a @ middle, order=1, mode="nearest") > 0.5
        union = (item | expected).sum()
        assert union == 0 or (item & expected).sum() / union >= 0.99


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_merged_geometry_is_one_resampling_of_the_product(ndim: int) -> None:
    x, items = batch(ndim), torch.arange(6)
    recipe = [("shift", 0.2), ("affine", 1.0), ("flip", 1.0)]
    size = tuple(x.shape[2:])
    shift, affine, flip = (
        AUGMENTS.get(name).tags["matrix"](drawn(items, 5, 1, name, ndim), strength, size) for name, strength in recipe
    )
    merged = apply(x, items, 5, 1, recipe)
    torch.testing.assert_close(merged, warp(x, compose(compose(shift, affine), flip)))
    # on a straight ramp interpolation is exact, so the three steps one by one agree wherever no edge was touched
    cells = torch.meshgrid(*[torch.arange(float(n)) for n in size], indexing="ij")
    ramp = sum(c * (i + 1) for i, c in enumerate(cells)).expand(6, 1, *size)
    stepped = warp_exact(warp(warp_exact(ramp, shift), affine), flip)
    inner = (slice(None), slice(None), *[slice(int(0.35 * n), n - int(0.35 * n)) for n in size])
    torch.testing.assert_close(apply(ramp, items, 5, 1, recipe)[inner], stepped[inner], rtol=0, atol=1e-3)
