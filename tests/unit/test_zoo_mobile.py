"""MobileNet, ShuffleNet, EfficientNet, RegNet and ConvNeXt: what their papers state, beyond the contract."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.measure.cost import cost
from gridsight.models import MODELS, create, published_input
from gridsight.models.efficientnet import B0
from gridsight.models.mobilenet import separable
from gridsight.models.regnet import widths_and_depths
from gridsight.nn.blocks import ChannelNorm, channel_shuffle
from gridsight.nn.compound import Scale, compound_scale, predicted
from gridsight.nn.dropout import DropPath
from gridsight.nn.efficient import Fused
from gridsight.nn.gates import SqueezeExcite
from gridsight.nn.inverted import InvertedResidual
from gridsight.nn.nd import Nd
from gridsight.nn.net import Net
from gridsight.nn.weights import matched


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def on_meta(name: str, **arguments: Any) -> Net:
    with torch.device("meta"):
        return create(name, **arguments)


def of_type(net: nn.Module, kind: Any) -> list[Any]:
    return [module for module in net.modules() if isinstance(module, kind)]


# GMAC at the publisher's input: `_ops` of torchvision's weights; of MobileNet V1 the paper's table 6
MACS = {
    "mobilenet_v1": 0.569,
    "mobilenet_v1_x0_75": 0.325,
    "mobilenet_v1_x0_5": 0.149,
    "mobilenet_v1_x0_25": 0.041,
    "mobilenet_v2": 0.301,
    "mobilenet_v3_large": 0.217,
    "mobilenet_v3_small": 0.057,
    "shufflenet_v2_x0_5": 0.04,
    "shufflenet_v2_x1_0": 0.145,
    "shufflenet_v2_x2_0": 0.583,
    "efficientnet_b0": 0.386,
    "efficientnet_b3": 1.827,
    "efficientnet_b7": 37.746,
    "efficientnet_v2_s": 8.366,
    "regnet_x_400mf": 0.414,
    "regnet_y_400mf": 0.402,
    "regnet_x_32gf": 31.736,
    "regnet_y_32gf": 32.28,
    "convnext_tiny": 4.456,
    "convnext_large": 34.361,
}


@pytest.mark.parametrize(("name", "giga"), MACS.items())
def test_published_work(name: str, giga: float) -> None:
    _, channels, spatial = published_input(name)
    # published to three decimals
    assert cost(on_meta(name), (channels, *spatial)).macs / 1e9 == pytest.approx(giga, abs=6e-4)


@pytest.mark.parametrize(("name", "millions"), [("", 4.2), ("_x0_75", 2.6), ("_x0_5", 1.3), ("_x0_25", 0.5)])  # table 6
def test_parameters_of_thinner_mobilenets(name: str, millions: float) -> None:
    net = on_meta(f"mobilenet_v1{name}")
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("channels", "kernel"), [(64, 3), (256, 3), (32, 5)])
def test_a_separable_convolution_costs_one_nth_and_one_kth_square(ndim: int, channels: int, kernel: int) -> None:
    nd, shape = Nd(ndim), (16, *(8,) * ndim)
    parts = cost(separable(nd, 16, channels, kernel, 1), shape).macs
    full = cost(nd.Conv(16, channels, kernel, padding=kernel // 2, bias=False), shape).macs
    assert parts / full == pytest.approx(1 / channels + 1 / kernel**ndim, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("mobilenet_v1", [112, 56, 28, 14, 7]),
        ("mobilenet_v2", [112, 56, 28, 14, 7]),
        ("mobilenet_v3_large", [112, 56, 28, 14, 7]),
        ("mobilenet_v3_small", [112, 56, 28, 14, 7]),
        ("shufflenet_v2_x1_0", [112, 28, 14, 7]),
        ("efficientnet_b0", [112, 112, 56, 28, 14, 14, 7, 7, 7]),
        ("efficientnet_v2_s", [112, 112, 56, 28, 14, 14, 7, 7]),
        ("regnet_y_400mf", [112, 56, 28, 14, 7]),
        ("convnext_tiny", [56, 28, 14, 7]),
    ],
)
def test_stages(name: str, cells: list[int]) -> None:
    stages = on_meta(name).forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    assert [stage.shape[-1] for stage in stages] == cells


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mobilenet_v2", {"stem_stride": (1, 2), "rows": ((1, 16, 1, 1), (6, 24, 1, (1, 2)))}),
        ("efficientnet_b0", {"stem_stride": (1, 2), "rows": ((6, (3, 5), (1, 2), 24, 1),)}),
        ("regnet_x_400mf", {"stem_stride": (1, 2), "strides": ((1, 2), 1, 1, 1)}),
        ("shufflenet_v2_x0_5", {"stem_stride": 1, "strides": ((2, 4), 1, 1)}),
        ("convnext_tiny", {"patch": (1, 2), "strides": ((2, 4), 1, 1)}),
    ],
)
def test_strides_an_axis(name: str, arguments: dict[str, Any]) -> None:
    net = on_meta(name, ndim=2, **arguments)
    grids = [tuple(stage.shape[2:]) for stage in net.forward_stages(torch.empty(1, 3, 32, 64, device="meta"))]
    first, last = {
        "shufflenet_v2_x0_5": ((32, 64), (8, 8)),  # a pool of stride 2 between
        "convnext_tiny": ((32, 32), (16, 8)),
    }.get(name, ((32, 32), (32, 16)))
    assert (grids[0], grids[-1]) == (first, last)


# channels and blocks of each stage: the figures of the best networks in the paper's appendix
REGNETS = {
    "regnet_x_400mf": ((32, 64, 160, 384), (1, 2, 7, 12)),
    "regnet_x_800mf": ((64, 128, 288, 672), (1, 3, 7, 5)),
    "regnet_x_1_6gf": ((72, 168, 408, 912), (2, 4, 10, 2)),
    "regnet_x_3_2gf": ((96, 192, 432, 1008), (2, 6, 15, 2)),
    "regnet_x_8gf": ((80, 240, 720, 1920), (2, 5, 15, 1)),
    "regnet_x_16gf": ((256, 512, 896, 2048), (2, 6, 13, 1)),
    "regnet_x_32gf": ((336, 672, 1344, 2520), (2, 7, 13, 1)),
    "regnet_y_400mf": ((48, 104, 208, 440), (1, 3, 6, 6)),
    "regnet_y_800mf": ((64, 128, 320, 768), (1, 3, 8, 2)),
    "regnet_y_1_6gf": ((48, 120, 336, 888), (2, 6, 17, 2)),
    "regnet_y_3_2gf": ((72, 216, 576, 1512), (2, 5, 13, 1)),
    "regnet_y_8gf": ((168, 448, 896, 2016), (2, 4, 10, 1)),
    "regnet_y_16gf": ((224, 448, 1232, 3024), (2, 4, 11, 1)),
    "regnet_y_32gf": ((232, 696, 1392, 3712), (2, 5, 12, 1)),
}
# halves rounded up, and never below 90 %: of torchvision's networks, these are wider in a stage than the paper's
WIDER = {
    "regnet_x_400mf": (32, 64, 160, 400),
    "regnet_y_800mf": (64, 144, 320, 784),
    "regnet_y_8gf": (224, 448, 896, 2016),
}


@pytest.mark.parametrize("name", REGNETS)
def test_widths_of_regnets_follow_from_four_numbers(name: str) -> None:
    arguments = {k: v for k, v in MODELS.get(name).arguments.items() if k != "squeeze"}
    widths, depths = zip(*widths_and_depths(**arguments), strict=True)
    papers, blocks = REGNETS[name]
    assert (widths, depths) == (WIDER.get(name, papers), blocks)
    assert sum(depths) == arguments["depth"]
    assert all(width % min(width, arguments["group_width"]) == 0 for width in widths)


def test_a_regnet_grows() -> None:
    with pytest.raises(UsageError, match=r"wm above 1, not 24, 24\.48, 1\.0"):
        create("regnet_x_400mf", wm=1.0)
    assert widths_and_depths(24, 0.0, 2.0, 5, 8) == [(24, 5)]  # no slope: one stage


@pytest.mark.parametrize(("channels", "groups"), [(6, 2), (6, 3), (12, 4), (116, 2)])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_channel_shuffle(channels: int, groups: int, ndim: int) -> None:
    x = noise(2, channels, *(3,) * ndim)
    shuffled, size = channel_shuffle(x, groups), channels // groups
    expected = np.stack([x.numpy()[:, (i % groups) * size + i // groups] for i in range(channels)], 1)
    assert np.array_equal(shuffled.numpy(), expected)
    assert torch.equal(channel_shuffle(shuffled, size), x)
    assert not torch.equal(shuffled, x)


def test_one_group_is_no_shuffle() -> None:
    x = noise(2, 6, 4)
    assert torch.equal(channel_shuffle(x, 1), x) and torch.equal(channel_shuffle(x, 6), x)
    with pytest.raises(UsageError, match="6 channels do not make 4"):
        channel_shuffle(x, 4)


def test_a_shuffle_lets_the_halves_meet() -> None:
    """Half of the channels pass a block untouched; after the shuffle the next block convolves half of those."""
    torch.manual_seed(0)
    block = create("shufflenet_v2_x1_0").eval().stage2[1]
    x = noise(1, 116, 6, 6)
    assert torch.equal(block(x)[:, ::2], x[:, :58])
    assert not torch.equal(block(x)[:, 1::2], x[:, 58:])


def test_mobilenet_v2_has_linear_bottlenecks_and_relu6() -> None:
    torch.manual_seed(0)
    net = create("mobilenet_v2").eval()
    blocks = of_type(net, InvertedResidual)
    assert len(blocks) == 17 and sum(block.keeps_shape for block in blocks) == 10
    assert {type(block.block[-1][-1]) for block in blocks} == {nn.BatchNorm2d}
    assert {type(m) for m in net.modules() if "ReLU" in type(m).__name__} == {nn.ReLU6}
    block, x = blocks[2], 1e4 * noise(1, 24, 8, 8)
    wide = block.block[0](x)
    assert wide.min() == 0 and wide.max() == 6
    narrow = block.block(x)
    assert narrow.min() < 0 and torch.equal(block(x), x + narrow)


@pytest.mark.parametrize(("name", "gates", "hard"), [("large", 8, 21), ("small", 9, 19)])
def test_mobilenet_v3_has_its_gates_and_hard_swishes(name: str, gates: int, hard: int) -> None:
    net = on_meta(f"mobilenet_v3_{name}")
    assert len(of_type(net, SqueezeExcite)) == len(of_type(net, nn.Hardsigmoid)) == gates
    # two in a block that widens, and the stem, the last convolution and the head
    assert len(of_type(net, nn.Hardswish)) == hard


@pytest.mark.parametrize(
    ("name", "eps", "momentum"),
    [
        ("mobilenet_v1", 1e-5, 0.1),
        ("mobilenet_v2", 1e-5, 0.1),
        ("mobilenet_v3_small", 1e-3, 0.01),
        ("shufflenet_v2_x0_5", 1e-5, 0.1),
        ("efficientnet_b4", 1e-5, 0.1),
        ("efficientnet_b5", 1e-3, 0.01),
        ("efficientnet_v2_s", 1e-3, 0.1),
        ("regnet_y_400mf", 1e-5, 0.1),
    ],
)
def test_norms_are_the_publishers(name: str, eps: float, momentum: float) -> None:
    norms = of_type(on_meta(name), nn.BatchNorm2d)
    assert {(norm.eps, norm.momentum) for norm in norms} == {(eps, momentum)}


def test_compound_scaling_doubles_work() -> None:
    assert pytest.approx(2, rel=0.05) == 1.2 * 1.1**2 * 1.15**2  # section 3.3
    assert compound_scale(0) == Scale(1.0, 1.0, 224)
    assert compound_scale(2, 2.0, 1.5, 1.25, resolution=64) == Scale(2.25, 4.0, 100)
    with pytest.raises(UsageError, match="at least 1"):
        compound_scale(1, alpha=0.9)


@pytest.mark.parametrize(("name", "phi", "resolution"), [("b1", 0.5, 240), ("b2", 1, 260), ("b3", 2, 300)])
def test_published_efficientnets_are_scaled(name: str, phi: float, resolution: int) -> None:
    scale, arguments = compound_scale(phi), MODELS.get(f"efficientnet_{name}").arguments
    assert (round(scale.width, 1), round(scale.depth, 1)) == (arguments["width"], arguments["depth"])
    assert scale.resolution == pytest.approx(resolution, rel=0.02)


def measured(scale: Scale, ndim: int = 2) -> tuple[int, int]:
    net = on_meta("efficientnet_b0", ndim=ndim, width=scale.width, depth=scale.depth)
    total = cost(net, (3, *(scale.resolution,) * ndim))
    return total.parameters, total.macs


@pytest.mark.parametrize("phi", [0, 0.5, 1, 2, 3.3])
def test_the_scaler_predicts_what_is_measured(phi: float) -> None:
    scale = compound_scale(phi)
    assert predicted(B0, scale) == measured(scale)


@pytest.mark.parametrize("ndim", [1, 3])
def test_the_scaler_predicts_in_every_ndim(ndim: int) -> None:
    scale = compound_scale(1, resolution=61)
    assert predicted(B0, scale, ndim=ndim) == measured(scale, ndim)


def test_the_scaler_predicts_the_published_figures() -> None:
    for name, resolution, giga in (("b0", 224, 0.386), ("b4", 380, 4.394), ("b7", 600, 37.746)):
        entry = MODELS.get(f"efficientnet_{name}")
        scale = Scale(entry.arguments["width"], entry.arguments["depth"], resolution)
        parameters, macs = predicted(B0, scale)
        assert parameters == entry.tags["parameters_published"]
        assert macs / 1e9 == pytest.approx(giga, abs=6e-4)


def test_without_rounding_the_prediction_would_fail() -> None:
    """The negative control: alpha * beta^2 * gamma^2 to the power of phi misses by more than 5 %."""
    step, (_, base) = 1.2 * 1.1**2 * 1.15**2, predicted(B0, compound_scale(0))
    errors = [abs(base * step**phi / predicted(B0, compound_scale(phi))[1] - 1) for phi in (0.5, 1, 2)]
    assert max(errors) > 0.05


def test_early_stages_of_efficientnet_v2_are_fused() -> None:
    net = on_meta("efficientnet_v2_s")
    for number, stage in enumerate(net.features[1:-1]):
        kind = Fused if number < 3 else InvertedResidual
        assert {type(block) for block in stage} == {kind}
        grouped = [conv for conv in of_type(stage, nn.Conv2d) if conv.groups > 1]
        assert len(grouped) == len(of_type(stage, SqueezeExcite)) == (0 if number < 3 else len(stage))
    with pytest.raises(UsageError, match="no argument"):
        create("efficientnet_v2_s", width=2.0)


def test_branches_are_dropped_at_their_rate() -> None:
    torch.manual_seed(0)
    layer, x = DropPath(0.3), torch.ones(20_000, 2, 3)
    answer = layer(x)
    kept = answer[:, 0, 0] != 0
    assert torch.equal(answer[kept], x[kept] / torch.tensor(0.7)) and not answer[~kept].any()  # whole items
    assert kept.float().mean() == pytest.approx(0.7, abs=4 * math.sqrt(0.3 * 0.7 / 20_000))
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(DropPath(0.0).train()(x), x)


def test_rates_of_dropped_branches() -> None:
    rates = [layer.p for layer in of_type(on_meta("efficientnet_b0"), DropPath)]
    assert rates == pytest.approx([0.2 * i / 16 for i in range(16)])
    rates = [layer.p for layer in of_type(on_meta("convnext_tiny"), DropPath)]
    assert rates == pytest.approx([0.1 * i / 17 for i in range(18)])


def test_a_dropped_branch_leaves_the_shortcut() -> None:
    torch.manual_seed(0)
    block = create("convnext_tiny", depths=(1, 1, 1, 1), layer_scale=1.0).features[1][0]
    x = noise(64, 96, 5, 5)
    block.drop.p = 0.5
    same = (block(x) == x).flatten(1).all(1)
    assert 16 < same.sum() < 48
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


def test_layer_scale_starts_at_a_millionth() -> None:
    net = create("convnext_tiny", depths=(1, 1, 1, 1), widths=(8, 8, 8, 8)).eval()
    scales = [value for key, value in net.named_parameters() if key.endswith("layer_scale")]
    assert len(scales) == 4 and all(torch.equal(scale, torch.full((8,), 1e-6)) for scale in scales)
    block, x = net.features[1][0].double(), noise(1, 8, 9, 9).double()
    branch = block(x) - x
    assert 0 < branch.abs().max() < 1e-6
    block.layer_scale.data.fill_(1.0)
    torch.testing.assert_close(block(x) - x, 1e6 * branch, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_channel_norm_is_of_each_cell(ndim: int) -> None:
    norm, x = ChannelNorm(6, 1e-6), noise(2, 6, *(4, 3, 5)[:ndim])
    norm.weight.data, norm.bias.data = noise(6, seed=2), noise(6, seed=3)
    a, shape = x.numpy().astype(np.float64), (1, 6, *[1] * ndim)
    expected = (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 1e-6)
    expected = expected * norm.weight.data.numpy().reshape(shape) + norm.bias.data.numpy().reshape(shape)
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_convnext_takes_the_publishers_shapes() -> None:
    torch.manual_seed(0)
    net = create("convnext_tiny", widths=(8, 12), depths=(1, 1), num_classes=5)
    names = [
        (".norm.", ".block.2."),
        (".widen.", ".block.3."),
        (".narrow.", ".block.5."),
        ("classifier.1", "classifier.2"),
    ]
    state = {}
    for key, value in net.state_dict().items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        key = key.replace(".conv.", ".block.0.")
        if value.shape[2:] == (1, 1) and "block.0" not in key:
            value = value.flatten(1)
        state[key] = value.view(-1, 1, 1) if key.endswith("layer_scale") else value
    assert state["features.1.0.block.3.weight"].shape == (32, 8) and state["classifier.2.weight"].shape == (5, 12)
    other = create("convnext_tiny", widths=(8, 12), depths=(1, 1), num_classes=5).eval()
    x = noise(2, 3, 16, 16)
    assert not torch.equal(other(x), net.eval()(x))
    other.load_state_dict(other.fit_state(matched(state, other.renames)))
    assert torch.equal(other(x), net(x))


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("mobilenet_v2", "features.1.conv.1.weight", (16, 32, 1, 1)),
        ("mobilenet_v2", "features.1.conv.2.running_var", (16,)),
        ("mobilenet_v2", "features.18.1.bias", (1280,)),
        ("mobilenet_v2", "features.5.conv.1.0.weight", (192, 1, 3, 3)),
        ("mobilenet_v2", "features.5.conv.2.weight", (32, 192, 1, 1)),
        ("mobilenet_v2", "features.5.conv.3.bias", (32,)),
        ("mobilenet_v3_small", "features.1.block.1.fc1.weight", (8, 16, 1, 1)),
        ("shufflenet_v2_x0_5", "stage2.0.branch1.2.weight", (24, 24, 1, 1)),
        ("shufflenet_v2_x0_5", "stage2.0.branch2.6.bias", (24,)),
        ("efficientnet_b0", "features.2.0.block.2.fc2.bias", (96,)),
        ("efficientnet_v2_s", "features.2.0.block.1.0.weight", (48, 96, 1, 1)),
        ("regnet_y_400mf", "trunk_output.block2.block2-1.f.se.fc1.weight", (26, 104, 1, 1)),
        ("regnet_y_400mf", "trunk_output.block2.block2-0.proj.0.weight", (104, 48, 1, 1)),
        ("regnet_y_400mf", "trunk_output.block4.block4-5.f.c.1.weight", (440,)),
    ],
)
def test_the_publishers_keys_are_found(name: str, key: str, shape: tuple[int, ...]) -> None:
    net = on_meta(name)
    (ours,) = matched({key: torch.empty(0)}, net.renames)
    assert tuple(net.state_dict()[ours].shape) == shape
