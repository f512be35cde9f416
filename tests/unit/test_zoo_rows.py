"""What is taught of the parts of networks, each as a number: 1-tap, separable, depthwise and dilated convolutions,
norms, dropout, and the plain twin of a residual network."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.measure.cost import cost
from gridsight.models import MODELS, create
from gridsight.models.mobilenet import ROWS
from gridsight.nn.blocks import conv_norm_act, make_norm, same_conv
from gridsight.nn.dropout import Dropout, numbered, sampling
from gridsight.nn.nd import Nd
from gridsight.nn.residual import Block
from gridsight.nn.separable import outer, rank_one, separated

NDIMS = pytest.mark.parametrize("ndim", (1, 2, 3))
SIZE = (7, 5, 6)
BINOMIAL, SOBEL, EDGE = [1.0, 4, 6, 4, 1], [1.0, 2, 1], [-1.0, 0, 1]


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vectors(*rows: list[float]) -> list[Tensor]:
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


# ---- 1-tap convolutions


@NDIMS
def test_a_one_tap_convolution_is_a_linear_layer_at_every_cell(ndim: int) -> None:
    conv, linear = same_conv(Nd(ndim), 4, 3, 1, bias=True).double(), nn.Linear(4, 3).double()
    conv.bias.data = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
    linear.weight.data, linear.bias.data = conv.weight.data.flatten(1), conv.bias.data
    x = noise(2, 4, *SIZE[:ndim])
    torch.testing.assert_close(conv(x), linear(x.movedim(1, -1)).movedim(-1, 1), rtol=1e-6, atol=1e-12)


@NDIMS
def test_fewer_channels_before_a_wide_kernel_save_work(ndim: int) -> None:
    """As in an inception module or a bottleneck: 64 channels to 16 by one tap, then 5 taps an axis back to 64."""
    nd, shape, cells, taps = Nd(ndim), (64, *(8,) * ndim), 8**ndim, 5**ndim
    narrow = cost(nn.Sequential(same_conv(nd, 64, 16, 1), same_conv(nd, 16, 64, 5)), shape)
    full = cost(same_conv(nd, 64, 64, 5), shape)
    assert (full.macs, full.parameters) == (cells * 64 * 64 * taps, 64 * 64 * taps)
    assert narrow.macs == cells * narrow.parameters == cells * (64 * 16 + 16 * 64 * taps)
    assert full.macs / narrow.macs == pytest.approx({1: 3.33, 2: 3.85, 3: 3.97}[ndim], abs=0.005)


# ---- separable kernels


@pytest.mark.parametrize(
    "factors",
    [
        (BINOMIAL,),
        (BINOMIAL, BINOMIAL),
        (SOBEL, EDGE),
        (EDGE, SOBEL),
        (SOBEL, SOBEL, EDGE),
        (BINOMIAL, EDGE, SOBEL),
        ([0.0, -3, 0], [2.0, -5], EDGE),
    ],
)
def test_blurs_and_edges_separate(factors: tuple[list[float], ...]) -> None:
    kernel = outer(vectors(*factors))
    assert kernel.shape == tuple(map(len, factors))
    found, error = rank_one(kernel)
    assert error < 1e-12
    torch.testing.assert_close(outer(found), kernel, rtol=0, atol=1e-12)
    for vector, factor in zip(found, vectors(*factors), strict=True):
        assert abs(float(torch.nn.functional.cosine_similarity(vector, factor, 0))) == pytest.approx(1, abs=1e-12)


def test_the_best_error_of_a_matrix_is_that_of_its_singular_values() -> None:
    kernel = noise(5, 7)
    values = np.linalg.svd(kernel.numpy(), compute_uv=False)
    assert rank_one(kernel)[1] == pytest.approx(np.sqrt((values[1:] ** 2).sum() / (values**2).sum()), rel=1e-12)
    assert rank_one(torch.zeros(3, 3))[1] == 0
    # a Laplacian is a sum of two products: its singular values are (2 + 6^0.5) and (6^0.5 - 2), by hand
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    assert rank_one(laplacian)[1] == pytest.approx((6**0.5 - 2) / 20**0.5, abs=1e-7)


def test_no_product_of_three_vectors_is_nearer() -> None:
    """From 40 random starts, none reaches a smaller error; and the unfoldings bound it from below."""
    kernel = noise(3, 4, 3)
    error = rank_one(kernel)[1]
    norm = float(kernel.norm())
    for seed in range(40):
        tried = [noise(n, seed=10 * seed + n + axis) for axis, n in enumerate(kernel.shape)]
        for _, axis in product(range(40), range(3)):
            others = [v for a, v in enumerate(tried) if a != axis]
            letters = "abc".replace("abc"[axis], "")
            tried[axis] = torch.einsum(f"abc,{letters[0]},{letters[1]}->{'abc'[axis]}", kernel, *others)
            tried[axis] /= tried[axis].norm()
        size = float(torch.einsum("abc,a,b,c->", kernel, *tried))
        assert (norm**2 - size**2) ** 0.5 / norm > error - 1e-6
    for axis in range(3):
        values = torch.linalg.svdvals(kernel.movedim(axis, 0).flatten(1))
        assert error > float(values[1:].norm()) / norm


@pytest.mark.parametrize("ndim", (2, 3))
@pytest.mark.parametrize("taps", (3, 5))
def test_separated_convolutions_are_the_convolution_for_less_work(ndim: int, taps: int) -> None:
    nd, c = Nd(ndim), 3
    conv: Any = same_conv(nd, c, 2 * c, taps, 1, groups=c, bias=True).double()
    conv.weight.data = torch.stack([outer([noise(taps, seed=9 * i + a) for a in range(ndim)]) for i in range(2 * c)])[
        :, None
    ]
    x = noise(2, c, *(9, 8, 7)[:ndim])
    torch.testing.assert_close(separated(conv)(x), conv(x), rtol=1e-6, atol=1e-12)
    one: Any = same_conv(nd, c, c, taps, groups=c)
    one.weight.data = conv.weight.data[::2].float()
    shape = (c, *(8,) * ndim)
    parts, whole = cost(separated(one), shape), cost(one, shape)
    assert whole.macs / parts.macs == taps**ndim / (taps * ndim) == whole.parameters / parts.parameters


def test_separated_keeps_stride_dilation_and_padding() -> None:
    conv = nn.Conv2d(2, 2, (3, 5), (2, 1), (1, 3), (1, 2), groups=2).double()
    conv.weight.data = torch.stack([outer(vectors(SOBEL, BINOMIAL)), outer(vectors(EDGE, BINOMIAL))])[:, None]
    parts, x = separated(conv), noise(1, 2, 9, 12)
    assert [tuple(part.kernel_size) for part in parts] == [(3, 1), (1, 5)]
    torch.testing.assert_close(parts(x), conv(x), rtol=1e-6, atol=1e-12)


def test_what_does_not_separate_is_refused_with_its_best_error() -> None:
    conv = nn.Conv2d(3, 3, 3, groups=3).double()
    conv.weight.data = torch.stack([outer(vectors(SOBEL, EDGE)), noise(3, 3), outer(vectors(EDGE, SOBEL))])[:, None]
    error = rank_one(conv.weight[1, 0])[1]
    assert 0.2 < error < 0.8
    with pytest.raises(UsageError, match=rf"channel 1 \(3 x 3 taps\) .* {error:.2g} of its norm"):
        separated(conv)
    assert len(separated(conv, tolerance=error + 0.01)) == 2
    for other, words in (
        (nn.Conv2d(4, 4, 3), "depthwise"),
        (nn.Conv2d(2, 2, 3, groups=2, padding="same"), "padding"),
        (nn.Conv2d(2, 2, 3, groups=2, padding_mode="circular"), "padding"),
    ):
        with pytest.raises(UsageError, match=words):
            separated(other)


# ---- depthwise separable convolutions


@pytest.mark.parametrize(("channels", "times"), [(64, 7.9), (256, 8.7), (512, 8.8)])
def test_a_depthwise_separable_convolution_is_eight_to_nine_times_cheaper(channels: int, times: float) -> None:
    nd, shape = Nd(2), (32, 10, 10)
    parts = cost(nn.Sequential(same_conv(nd, 32, 32, 3, groups=32), same_conv(nd, 32, channels, 1)), shape)
    full = cost(same_conv(nd, 32, channels, 3), shape)
    exactly = 1 / (1 / channels + 1 / 9)
    assert full.macs / parts.macs == pytest.approx(exactly, rel=1e-12)
    assert full.parameters / parts.parameters == pytest.approx(exactly, rel=1e-12)
    assert round(exactly, 1) == times


def test_mobilenet_with_full_convolutions_has_the_published_cost() -> None:
    """Table 4 of arXiv:1704.04861: 4,866 M multiply-adds and 29.3 M parameters, 569 M and 4.2 M as it is."""
    nd, c = Nd(2), 32
    with torch.device("meta"):
        layers = [conv_norm_act(nd, 3, c, 3, 2)]
        for channels, stride in ROWS:
            layers.append(conv_norm_act(nd, c, channels, 3, stride))
            c = channels
        full = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 1000))
        thin = create("mobilenet_v1")
    full_cost, thin_cost = cost(full, (3, 224, 224)), cost(thin, (3, 224, 224))
    assert full_cost.macs / 1e6 == pytest.approx(4866, rel=5e-4) and round(full_cost.parameters / 1e6, 1) == 29.3
    assert (round(thin_cost.macs / 1e6), round(thin_cost.parameters / 1e6, 1)) == (569, 4.2)


# ---- dilation


def reached(dilations: tuple[int, ...], ndim: int, cells: int) -> Tensor:
    """(*cells) bool: which cells move the middle one after 3-tap convolutions of these dilations."""
    layers = nn.Sequential(*(same_conv(Nd(ndim), 1, 1, 3, 1, d) for d in dilations)).double()
    for layer in layers:
        layer.weight.data.fill_(1.0)
    x = torch.zeros(1, 1, *(cells,) * ndim, dtype=torch.float64, requires_grad=True)
    layers(x)[(0, 0, *(cells // 2,) * ndim)].backward()
    assert x.grad is not None
    return x.grad[0, 0] != 0


@NDIMS
def test_a_dilation_of_two_covers_five_cells_an_axis_with_three_taps(ndim: int) -> None:
    found = reached((2,), ndim, 11)
    places = found.nonzero()
    assert (places.amin(0) == 3).all() and (places.amax(0) == 7).all()
    assert sorted(map(tuple, places.tolist())) == list(product((3, 5, 7), repeat=ndim)), (
        "and the cells between are holes"
    )
    assert sum(p.numel() for p in same_conv(Nd(ndim), 1, 1, 3, 1, 2).parameters()) == 3**ndim == len(places)


@pytest.mark.parametrize(("ndim", "layers"), [(1, 1), (1, 4), (1, 7), (2, 2), (2, 4), (3, 3)])
def test_doubling_dilations_see_two_to_the_layers_and_no_holes(ndim: int, layers: int) -> None:
    field = 2 ** (layers + 1) - 1
    found = reached(tuple(2**i for i in range(layers)), ndim, field + 2)
    inside = (slice(1, -1),) * ndim
    assert found[inside].all() and found.sum() == field**ndim, "the border around them is not reached"


@NDIMS
def test_equal_dilations_leave_a_grid_of_cells_that_are_never_read(ndim: int) -> None:
    """The gridding artefact: three dilations of 2 see 13 cells an axis and read 7 of them; 1, 2, 3 read them all."""
    grid, dense = reached((2, 2, 2), ndim, 13), reached((1, 2, 3), ndim, 13)
    assert grid.sum() == 7**ndim and grid[(slice(None, None, 2),) * ndim].all()
    assert dense.sum() == 13**ndim


# ---- norms


@NDIMS
def test_batch_norm_keeps_the_statistics_of_the_population(ndim: int) -> None:
    """64 batches of one data set; evaluation then uses them, training the batch's own."""
    scale, shift = torch.tensor([0.5, 2.0, 1.0]), torch.tensor([3.0, -1.0, 0.0])
    shape = (1, 3, *[1] * ndim)
    x = noise(64 * 64, 3, *(16, 4, 3)[:ndim]) * scale.view(shape) + shift.view(shape)
    norm = Nd(ndim).BatchNorm(3, momentum=None).double()
    for batch in x.split(64):
        norm(batch)
    rows = x.movedim(1, 0).flatten(1)
    mean, variance = rows.mean(1), rows.var(1, correction=0)
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-3, atol=1e-3)
    by_hand = (x[:9] - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
    torch.testing.assert_close(norm.eval()(x[:9]), by_hand, rtol=2e-3, atol=2e-3)
    own = norm.train()(x[:9]).movedim(1, 0).flatten(1)
    torch.testing.assert_close(own.mean(1), torch.zeros(3, dtype=own.dtype), rtol=0, atol=1e-6)


def test_the_momentum_of_a_batch_norm_is_the_share_of_the_new_value() -> None:
    norm = conv_norm_act(Nd(1), 1, 1, momentum=0.25)[1].double()
    norm(torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]], dtype=torch.float64))
    assert norm.running_mean.item() == 0.25 * 4
    assert norm.running_var.item() == pytest.approx(0.75 + 0.25 * 20 / 3, rel=1e-12)  # of 3 degrees of freedom


@NDIMS
@pytest.mark.parametrize("kind", ("layer", "instance", "group", "batch"))
def test_norms_of_an_item_do_not_see_its_batch_mates(kind: str, ndim: int) -> None:
    norm = make_norm(Nd(ndim), kind, 8).double().train()
    x, mates = noise(1, 8, *SIZE[:ndim]), 5 * noise(3, 8, *SIZE[:ndim], seed=2) + 1
    alone, together = norm(x)[0], norm(torch.cat([x, mates]))[0]
    if kind == "batch":
        assert (alone - together).abs().max() > 0.1, "the control"
    else:
        assert torch.equal(alone, together)


# ---- dropout


@pytest.mark.parametrize("by_item", (False, True))
@pytest.mark.parametrize("p", (0.1, 0.5, 0.8))
def test_dropout_keeps_its_share_and_the_expectation(p: float, by_item: bool) -> None:
    torch.manual_seed(0)
    layer, x = Dropout(p), noise(500, 8, 5, 5).abs() + 0.5
    if by_item:
        with numbered(layer, 3, 0, torch.arange(len(x))):
            dropped = layer(x)
    else:
        dropped = layer(x)
    kept = dropped != 0
    assert binomtest(int(kept.sum()), kept.numel(), 1 - p).pvalue > 0.01
    torch.testing.assert_close(dropped[kept], x[kept] / (1 - p), rtol=1e-4, atol=0)
    deviation = float((x.square().sum() * p / (1 - p)).sqrt()) / x.numel()
    assert abs(float((dropped - x).mean())) < 3 * deviation
    counts = kept.flatten(2).sum(2).double()  # cells are dropped, not channels: of 25 each, a binomial spread
    assert float(counts.var()) == pytest.approx(25 * p * (1 - p), rel=0.1)
    assert layer.eval()(x) is x


def test_monte_carlo_passes_differ_as_the_weights_dropped_do() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(6), Dropout(0.5), nn.Linear(6, 1)).double().eval()
    x = noise(3, 6)
    plain = net(x)
    with sampling(net):
        assert net[1].training and not net[0].training
        many = torch.stack([net(x) for _ in range(4000)])
    terms = net[0](x) * net[2].weight[0]  # each is there twice or not at all: variance is the sum of their squares
    deviation = terms.square().sum(1).sqrt()
    torch.testing.assert_close(many.var(0)[:, 0], deviation**2, rtol=0.1, atol=0)
    assert ((many.mean(0) - plain)[:, 0].abs() < 4 * deviation / 4000**0.5).all()
    assert torch.equal(net(x), plain) and int(net[0].num_batches_tracked) == 0
    with pytest.raises(UsageError, match="ResNet drops nothing"), sampling(create("resnet20")):
        pass


# ---- the plain twin of a residual network


@pytest.mark.parametrize("ndim", (1, 2))
def test_a_plain_network_is_its_residual_twin_without_shortcuts(ndim: int) -> None:
    def build(shortcut: str, **more: Any) -> Any:
        torch.manual_seed(0)
        return create("resnet20", ndim=ndim, width=4, shortcut=shortcut, **more).double().eval()

    plain, twin = build("none"), build("pad")
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in twin.state_dict().items()}
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), twin.parameters(), strict=True)), "the same start"
    x = noise(2, 3, *(16,) * ndim)
    blocks = [m for m in plain.modules() if isinstance(m, Block)]
    y = plain.bn1(plain.conv1(x)).relu()
    for block in blocks:
        y = block.bn1(block.conv1(y)).relu()
        y = block.bn2(block.conv2(y)).relu()
    torch.testing.assert_close(plain(x), plain.linear(y.flatten(2).mean(2)))
    assert not torch.allclose(plain(x), twin(x), rtol=1e-2)
    first = build("none", pre=True).layer2[0]  # a stage's first: nothing is joined where the shape changes either
    y = noise(2, 4, *(8,) * ndim)
    torch.testing.assert_close(first(y), first.conv2(first.bn2(first.conv1(first.bn1(y).relu())).relu()))


# ---- one definition for every number of axes


@pytest.mark.parametrize(
    "name",
    (
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "efficientnet_v2_s",
        "regnet_y_400mf",
        "shufflenet_v2_x0_5",
        "se_resnet50",
        "cbam_resnet18",
    ),
)
def test_a_2d_network_on_one_column_is_the_1d_network(name: str) -> None:
    """Of an odd kernel with zeros on both sides one column sees the middle taps alone."""
    small = {**MODELS.get(name).item.small, "in_channels": 2, "num_classes": 5}
    if "gate" in MODELS.get(name).arguments:
        small["width"] = 8
    torch.manual_seed(0)
    plane, line = create(name, **small).double(), create(name, ndim=1, **small).double().eval()
    x = noise(6, 2, 40)
    for module in plane.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        plane(x[..., None]), plane.eval()  # norms have the statistics of this batch, so that its items differ
        shapes = {key: value.shape for key, value in line.state_dict().items()}
        cut = {key: w if w.shape == shapes[key] else w[..., w.shape[-1] // 2] for key, w in plane.state_dict().items()}
        line.load_state_dict(cut)
        torch.testing.assert_close(plane(x[..., None]), line(x), rtol=1e-6, atol=1e-9)
        assert line(x).std(0).min() > 0.02 * line(x).abs().max()
