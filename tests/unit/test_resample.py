"""`resize` against PyTorch in 2-D, Pillow, and the filter written out in NumPy in 1-D and 3-D; rates of sounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from gridsight.core.errors import ReadError, UsageError
from gridsight.data.conform import conform
from gridsight.data.sample import Sample
from gridsight.data.spec import DataSpec
from gridsight.nn.resample import resize


def triangle(cells: int, wanted: int) -> np.ndarray:
    """(wanted, cells) weights: a triangle around each new centre, as wide as the old cells or the new, the larger."""
    scale = cells / wanted
    width = max(scale, 1.0)
    centres = (np.arange(wanted) + 0.5) * scale
    distance = np.abs(np.arange(cells) + 0.5 - centres[:, None]) / width
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(1, keepdims=True)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("cells", "wanted"), [(40, 16), (16, 40), (17, 5), (5, 17), (9, 1), (1, 4), (30, 29)])
def test_1d_is_the_triangle_filter(cells: int, wanted: int) -> None:
    x = noise(2, 3, cells)
    expected = np.einsum("ncl,wl->ncw", x.numpy(), triangle(cells, wanted))
    np.testing.assert_allclose(resize(x, (wanted,)).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("spatial", [(8, 6), (31, 40), (5, 40), (20, 30)])
def test_2d_is_interpolate(spatial: tuple[int, int]) -> None:
    x = noise(2, 3, 20, 30)
    expected = interpolate(x, spatial, mode="bilinear", antialias=True, align_corners=False)
    assert torch.equal(resize(x, spatial), expected)


@pytest.mark.parametrize("spatial", [(8, 6), (31, 40)])
def test_2d_is_pillow(spatial: tuple[int, int]) -> None:
    x = noise(1, 1, 20, 30).float()
    picture = Image.fromarray(x[0, 0].numpy()).resize(spatial[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(resize(x, spatial)[0, 0].numpy(), np.asarray(picture), atol=1e-6)


@pytest.mark.parametrize("spatial", [(4, 6, 20), (12, 9, 5), (9, 10, 11), (3, 10, 11), (9, 7, 11)])
def test_3d_is_the_triangle_filter_on_each_axis(spatial: tuple[int, int, int]) -> None:
    x = noise(2, 3, 9, 10, 11)
    filters = [triangle(cells, wanted) for cells, wanted in zip(x.shape[2:], spatial, strict=True)]
    expected = np.einsum("ncdhw,ad,bh,ew->ncabe", x.numpy(), *filters)
    np.testing.assert_allclose(resize(x, spatial).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(2, 1, 7), (2, 3, 5, 6), (1, 2, 4, 5, 6)])
def test_equal_size_is_the_tensor_itself(shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    assert resize(x, shape[2:]) is x


def test_fine_stripes_do_not_alias() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(64)[None, None]
    inner = resize(stripes, (40,))[..., 2:-2]
    assert (inner - 0.5).abs().max() < 0.1
    plain = interpolate(stripes, 40, mode="linear", align_corners=False)[..., 2:-2]
    assert (plain - 0.5).abs().max() > 0.3  # the negative control: without the filter they do


def test_gradients_flow() -> None:
    x = noise(1, 1, 4, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resize(x, (2, 7, 3)), (x,))


@pytest.mark.parametrize("spatial", [(4,), (4, 4, 4), (0, 4)])
def test_wrong_sizes_are_refused(spatial: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="one size an axis"):
        resize(noise(1, 1, 5, 5), spatial)


@pytest.mark.parametrize(("rate", "words"), [(20e6, "20,000,000 Hz"), (1.0, "1 Hz")])
def test_a_sampling_rate_that_makes_no_sense_is_an_error_of_its_file(rate: float, words: str) -> None:
    spec = DataSpec("x", "sound", 1, 1, (800,), "float32", ("a", "b"), fit="pad", rate=8000.0)
    sound = np.ones((1, 1000), np.float32)
    with pytest.raises(ReadError, match=f"^wrong.wav: its sampling rate of {words} makes no sense where .* 8,000 Hz"):
        conform(Sample(sound, "wrong.wav", rate=rate), spec)
    # one that is only unusual is followed: 200 of 1,000 samples at five times the rate, 64,000 at an eightieth
    for unusual, samples in ((40_000.0, 200), (125.0, 64_000)):
        whole = conform(Sample(sound, "x", rate=unusual), replace(spec, spatial=(samples,)))
        assert whole.shape == (1, samples) and whole[0, samples // 10 : -samples // 10] == pytest.approx(1, abs=0.05)
