"""Alignment of small grids, against SciPy, NumPy's FFT and plain least squares."""

import numpy as np
import pytest
from scipy import ndimage

from gridsight.data import alignment
from gridsight.data.alignment import Waves, laplacian, left_over
from gridsight.data.duplicates import descriptors

GRIDS = [(1, 60), (3, 90), (1, 32, 28), (1, 9, 12), (1, 12, 12, 12)]


def smooth(shape: tuple[int, ...], seed: int, cells: float = 1.5) -> np.ndarray:
    """Noise (K, *grid) without detail finer than a few cells, as different from one seed to the next as can be."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, (0, *[cells] * (len(shape) - 1)), mode="nearest").astype(np.float32)


@pytest.mark.parametrize("shape", GRIDS)
def test_spectra_are_those_of_the_fft_of_the_windowed_grid(shape):
    grid = shape[1:]
    x, waves = smooth(shape, 0), Waves.of(grid)
    window = np.ones(())
    for size in grid:
        window = np.multiply.outer(window, np.sin(np.pi * (np.arange(size) + 0.5) / size))
    full = np.abs(np.fft.fftn(x * window, axes=tuple(range(1, x.ndim))))
    expected = full[(slice(None), *(waves.cycles.T % np.array(grid)[:, None]))]
    assert np.abs(waves.spectra(x[None]))[0] == pytest.approx(expected, abs=1e-3 * expected.max())
    either = {tuple(c) for c in waves.cycles.tolist()} | {tuple(-np.array(c)) for c in waves.cycles.tolist()}
    top = max(min(alignment.FREQUENCIES[len(grid)], (size - 1) // 2) for size in grid)
    ball = np.stack(np.meshgrid(*[np.arange(-top, top + 1)] * len(grid)), -1).reshape(-1, len(grid))
    fits = (np.abs(ball) <= (np.array(grid) - 1) // 2).all(1) & ((ball**2).sum(1) <= (top + 0.5) ** 2) & ball.any(1)
    assert either == {tuple(c) for c in ball[fits].tolist()}


@pytest.mark.parametrize("shape", GRIDS)
def test_a_mirrored_grid_has_the_mirrored_spectrum_and_the_same_descriptor(shape):
    x = smooth(shape, 1)[None]
    waves, other = Waves.of(shape[1:]), np.ascontiguousarray(x[..., ::-1])
    assert np.allclose(waves.mirrored(waves.spectra(x)), waves.spectra(other), atol=1e-4)
    assert np.allclose(descriptors(x), descriptors(other), atol=1e-3)
    assert (descriptors(x) ** 2).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", GRIDS)
def test_moving_equals_scipys_linear_interpolation(shape):
    rng, ndim = np.random.default_rng(2), len(shape) - 1
    x = rng.normal(size=(3, *shape)).astype(np.float32)
    moves = np.stack([rng.uniform(0.9, 1.1, (3, ndim)), rng.uniform(-2, 2, (3, ndim))], 2).astype(np.float32)
    moved, inside = alignment._moved(x, moves)
    middle = (np.array(shape[1:]) - 1) / 2
    for i in range(3):
        zoom, shift = moves[i].T.astype(float)
        for k in range(shape[0]):
            expected = ndimage.affine_transform(
                x[i, k].astype(float), zoom, middle + shift - zoom * middle, order=1, mode="constant", cval=np.nan
            )
            within = inside[i] > 0
            assert np.isfinite(expected[within]).all() and (within == np.isfinite(expected)).mean() > 0.98
            assert moved[i, k][within] == pytest.approx(expected[within], abs=1e-4)


@pytest.mark.parametrize("shape", GRIDS)
def test_the_laplacian_equals_scipys(shape):
    x = np.random.default_rng(3).normal(size=(2, *shape)).astype(np.float32)
    expected = [[ndimage.laplace(channel, mode="nearest") for channel in item] for item in x]
    assert np.allclose(laplacian(x), expected, atol=1e-4)


def test_what_is_left_over_equals_least_squares():
    rng = np.random.default_rng(1)
    grids = rng.normal(size=(6, 1, 9, 9)).astype(np.float32)
    grids[1] = grids[0] + rng.normal(0, 0.2, (1, 9, 9))
    a, b = np.array([0, 2, 4]), np.array([1, 3, 5])
    got = left_over(grids, a, b, aligned=False)
    bends = laplacian(grids).reshape(6, -1)
    for i, (first, second) in enumerate(zip(a, b, strict=True)):
        shares = []
        for x, y in ((first, second), (second, first)):
            design = np.stack([np.ones(81), grids[x].ravel(), bends[x]], 1)
            target = grids[y].ravel() - grids[y].mean()
            rest = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
            shares.append((rest**2).sum() / (target**2).sum())
        assert got[i] == pytest.approx(min(shares), abs=1e-4)


def cut(x: np.ndarray, low: float, zoom: float) -> np.ndarray:
    """x (K, *grid) read with cubic splines from `low` cells on in steps of `zoom`, which leaves its size alone."""
    return np.stack([ndimage.affine_transform(c, [zoom] * c.ndim, [low] * c.ndim, mode="nearest") for c in x])


@pytest.mark.parametrize("shape", [(1, 60), (1, 32, 28), (1, 12, 12, 12)])
def test_copies_leave_little_once_aligned_and_others_much(shape):
    items = [smooth(shape, seed) for seed in range(20)]
    copies = {
        "a cell aside": [cut(x, 1, 1) for x in items],
        "further, darker": [0.7 * cut(x, -0.06 * shape[1], 1) + 3 for x in items],
        "5 % cut off": [cut(x, 0.02 * shape[1], 0.95) for x in items],
        "mirrored and aside": [cut(x, 1, 1)[..., ::-1] for x in items],
    }
    for kind, copied in copies.items():
        grids = np.stack(items + copied)
        grids -= grids.mean(tuple(range(1, grids.ndim)), keepdims=True)
        first = np.arange(20)
        left = left_over(grids, first, first + 20)
        as_they_lie = left_over(grids, first, first + 20, aligned=False)
        if kind.startswith("mirrored") and len(shape) == 2:
            assert left.min() > 0.1  # a series read backwards is another one
            continue
        assert np.median(left) < 0.01 and left.max() < 0.05, kind
        assert np.median(as_they_lie) > 5 * np.median(left), kind
    strangers = left_over(grids, first, (first + 7) % 20)
    assert np.quantile(strangers, 0.1) > 0.2


def test_a_bound_saves_work_and_changes_no_verdict():
    grids = np.stack([smooth((1, 24, 24), seed) for seed in range(12)])
    grids[6:9] = np.roll(grids[:3], 1, axis=3)
    a, b = (index.ravel() for index in np.meshgrid(np.arange(6), np.arange(6, 12), indexing="ij"))
    free, bounded = left_over(grids, a, b), left_over(grids, a, b, 0.1)
    assert ((free <= 0.05) == (bounded <= 0.05)).all() and (free <= 0.05).sum() == 3
    assert left_over(grids, a[:0], b[:0]).shape == (0,)
