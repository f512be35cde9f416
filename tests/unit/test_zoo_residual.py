"""What is particular to the residual families: ResNet's descendants, video networks, FCN, InceptionTime and TCN."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import create, published_input
from gridsight.models.resnet_3d import middle_channels
from gridsight.nn.blurpool import BlurPool
from gridsight.nn.gates import Cbam, SqueezeExcite
from gridsight.nn.geometry import stage_fields
from gridsight.nn.nd import Nd
from gridsight.nn.residual import Block

# torchvision's `num_params`, osmr/imgclsmob's counts, and the papers' tables, rounded as there
PARAMETERS = {
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "wrn_28_10": 36_479_194,
    "se_resnet50": 28_088_024,
    "se_resnet101": 49_326_872,
    "cbam_resnet18": 11_779_392,
    "cbam_resnet50": 28_089_624,
    "r3d_18": 33_371_472,
    "mc3_18": 11_695_440,
    "r2plus1d_18": 31_505_325,
}
MILLIONS = {"wrn_16_4": 2.7, "wrn_28_10": 36.5, "se_resnet50": 28.1, "resnext50_32x4d": 25.0, "tcn": 0.07}
VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18")


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def count(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create(name, ndim=published_input(name)[0]).parameters())


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_published_parameters(name: str, parameters: int) -> None:
    assert count(name) == parameters


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items())
def test_parameters_round_to_those_of_the_paper(name: str, millions: float) -> None:
    assert round(count(name) / 1e6, 2 if millions < 1 else 1) == millions


def test_gates_add_a_tenth_of_the_parameters_and_a_blur_none() -> None:
    plain = count("resnet50")
    assert 0.09 < count("se_resnet50") / plain - 1 < 0.11
    assert count("cbam_resnet50") - count("se_resnet50") == 16 * (2 * 7 * 7 + 2)
    with torch.device("meta"):
        assert create("resnet18_antialiased").state_dict().keys() == create("resnet18").state_dict().keys()


@pytest.mark.parametrize("gate", [None, "se", "cbam"])
@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_zero_init_starts_every_block_as_the_identity(gate: str | None, pre: bool, bottleneck: bool) -> None:
    arguments = {"pre": pre, "bottleneck": bottleneck, "gate": gate, "groups": 2, "widen": 2, "blur": 3}
    for zero in (True, False):
        torch.manual_seed(0)
        net = create("resnet18", width=4, zero_init=zero, **arguments).double().train()
        blocks = [block for block in net.modules() if isinstance(block, Block) and not block.projects]
        assert len(blocks) >= 4
        for block in blocks:
            x = noise(2, block.c_out, 5, 5).relu()
            assert ((block(x) - x).abs().max() < 1e-7) == zero


@pytest.mark.parametrize(("bottleneck", "pre"), [(True, False), (False, False), (False, True)])
def test_groups_width_and_gates_reach_every_block(bottleneck: bool, pre: bool) -> None:
    net = create("resnet50", bottleneck=bottleneck, pre=pre, width=8, groups=4, widen=2, gate="se")
    blocks = [block for block in net.modules() if isinstance(block, Block)]
    assert len(blocks) == 16
    for number, block in enumerate(blocks):
        width = 16 << np.searchsorted([3, 7, 13], number, side="right")
        wide = [conv for conv in (block.conv1, block.conv2, block.conv3) if conv and conv.kernel_size == (3, 3)]
        narrow = [conv for conv in (block.conv1, block.conv2, block.conv3) if conv and conv.kernel_size == (1, 1)]
        assert len(wide) == (1 if bottleneck else 2) and len(narrow) == (2 if bottleneck else 0)
        assert {(conv.groups, conv.out_channels) for conv in wide} == {(4, width)}
        assert {conv.groups for conv in narrow} <= {1}
        assert isinstance(block.gate, SqueezeExcite) and block.gate.fc2.out_channels == block.c_out
        assert block.c_out == (2 * width if bottleneck else width)


def test_a_grouped_convolution_is_its_groups_side_by_side() -> None:
    conv = create("resnext50_32x4d").layer1[0].conv2.double()
    x = noise(1, 128, 6, 6)
    parts = [torch.nn.functional.conv2d(x[:, 4 * i : 4 * i + 4], conv.weight[4 * i : 4 * i + 4]) for i in range(32)]
    torch.testing.assert_close(conv(x)[:, :, 1:-1, 1:-1], torch.cat(parts, 1))


def test_wide_resnet_has_the_layers_of_its_name() -> None:
    with torch.device("meta"):
        net = create("wrn_28_10")
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 28 and {conv.out_channels for conv in convs} == {16, 160, 320, 640}
    assert net.layer1[0].downsample.kernel_size == (1, 1) and isinstance(net.layer1[1].downsample, nn.Identity)


def test_squeeze_and_excitation_is_one_gate_a_channel() -> None:
    torch.manual_seed(0)
    block = create("se_resnet50", width=16).double().eval().layer1[1]
    for parameter in block.gate.parameters():
        parameter.data = 0.3 * noise(*parameter.shape, seed=parameter.dim())
    x = noise(3, 64, 6, 5).relu()
    y = block.bn1(block.conv1(x)).relu()
    y = block.bn2(block.conv2(y)).relu()
    y = block.bn3(block.conv3(y))
    fc1, fc2 = block.gate.fc1, block.gate.fc2
    hidden = (y.mean((2, 3)) @ fc1.weight[:, :, 0, 0].T + fc1.bias).relu()
    gates = (hidden @ fc2.weight[:, :, 0, 0].T + fc2.bias).sigmoid()[..., None, None]
    torch.testing.assert_close(block.gate.gates(y), gates)
    assert gates.shape == (3, 64, 1, 1) and 0 < gates.min() < gates.max() < 1
    assert gates.flatten(1).std(1).min() > 0.01, "channels have gates of their own"
    torch.testing.assert_close(block(x), (x + y * gates).relu())


def test_cbam_gates_channels_and_then_cells() -> None:
    torch.manual_seed(0)
    cbam = Cbam(Nd(2), 8, 4).double().eval()
    nn.init.ones_(cbam.cell_gate.norm.weight)
    x = noise(2, 8, 9, 7)
    fc1, fc2, conv = cbam.channel_gate.fc1, cbam.channel_gate.fc2, cbam.cell_gate.conv

    def by_channel(x: Tensor) -> Tensor:
        both = x.mean((2, 3)), x.amax((2, 3))
        return sum(fc2(fc1(part).relu()) for part in both).sigmoid()[..., None, None]

    def by_cell(x: Tensor) -> Tensor:
        both = torch.stack([x.amax(1), x.mean(1)], 1)
        return cbam.cell_gate.norm(torch.nn.functional.conv2d(both, conv.weight, padding=3)).sigmoid()

    first = x * by_channel(x)
    assert by_channel(x).shape == (2, 8, 1, 1) and by_cell(first).shape == (2, 1, 9, 7)
    torch.testing.assert_close(cbam(x), first * by_cell(first))
    other = x * by_cell(x)
    assert not torch.allclose(cbam(x), other * by_channel(other), rtol=1e-3), "the other order gives something else"


def test_cbams_cell_gate_starts_as_one_half_everywhere() -> None:
    """As in Jongchan/attention-module: MODELS/cbam.py (BasicConv), MODELS/model_resnet.py (what SpatialGate holds)."""
    net = create("cbam_resnet18", width=8)
    gates = [module.cell_gate for module in net.modules() if isinstance(module, Cbam)]
    assert len(gates) == 8 and {gate.norm.momentum for gate in gates} == {0.01}
    x = noise(2, 8, 9, 7).float()
    torch.testing.assert_close(gates[0](x), torch.full((2, 1, 9, 7), 0.5))
    gates[0](x).pow(2).sum().backward()
    assert gates[0].norm.weight.grad is not None and gates[0].norm.weight.grad.abs() > 0, "it can leave that"


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("taps", [3, 5])
def test_blurpool_keeps_a_constant_and_is_binomial_inside(ndim: int, taps: int) -> None:
    blur = BlurPool(Nd(ndim), 2, taps).double()
    constant = torch.full((1, 2, *(9,) * ndim), 3.5, dtype=torch.float64)
    torch.testing.assert_close(blur(constant), torch.full((1, 2, *(5,) * ndim), 3.5, dtype=torch.float64))
    x = noise(1, 1, *(13,) * ndim)
    row = np.poly1d([0.5, 0.5]) ** (taps - 1)  # binomial coefficients / 2^(taps - 1)
    expected = x[0, 0].numpy()
    for axis in range(ndim):
        expected = np.apply_along_axis(np.convolve, axis, expected, row.coeffs, "same")
    inside = (slice(2, -2),) * ndim
    every = (slice(None, None, 2),) * ndim
    np.testing.assert_allclose(blur(x)[0, 0].numpy()[inside], expected[every][inside], rtol=1e-12, atol=1e-12)


def test_blurpool_of_some_axes_leaves_the_others() -> None:
    blur = BlurPool(Nd(2), (1, 2)).double()
    x = noise(1, 1, 4, 8)
    assert blur(x).shape == (1, 1, 4, 4)
    torch.testing.assert_close(blur(x)[0, 0, :, 1], (x[0, 0, :, 1:4] * torch.tensor([0.25, 0.5, 0.25])).sum(1))


@pytest.mark.parametrize("taps", [0, 1, 2, 4])
def test_a_blur_needs_a_centre(taps: int) -> None:
    with pytest.raises(UsageError, match=f"3, 5, 7 ... taps, not {taps}"):
        BlurPool(Nd(1), 2, taps)


def test_a_blur_makes_a_pool_follow_a_shift() -> None:
    """The toy signal of arXiv:1904.11486, figure 4, then noise: a shift by one cell must not change what is found."""
    signal = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(8)[None, None].double()
    pool, dense, blur = nn.MaxPool1d(2, 2), nn.MaxPool1d(2, 1), BlurPool(Nd(1), 2).double()
    still, moved = (pool(signal.roll(shift, -1))[0, 0, 2:-2] for shift in (0, 1))
    assert still.tolist() == [0, 1] * 6 and moved.tolist() == [1] * 12
    still, moved = (blur(dense(signal.roll(shift, -1)))[0, 0, 2:-2] for shift in (0, 1))
    assert still.tolist() == [0.5, 1] * 6 and moved[:11].tolist() == [0.75] * 11

    def drift(layer: nn.Module, x: Tensor) -> float:
        """Change of the mean answer over a circle when the circle turns by one cell, against its deviation."""
        long = x.roll(1, -1), x
        answers = [layer(torch.cat([part] * 3, -1))[..., 16:32].mean(-1) for part in long]
        return float((answers[0] - answers[1]).norm() / answers[1].norm())

    x = noise(64, 1, 32).abs()
    assert drift(nn.Sequential(nn.MaxPool1d(3, 1, 1), blur), x) < 0.3 * drift(nn.MaxPool1d(3, 2, 1), x)


def test_an_antialiased_network_strides_in_its_stem_and_its_blurs_only() -> None:
    for name in ("resnet18_antialiased", "resnet50_antialiased"):
        with torch.device("meta"):
            net = create(name)
        strides = {key: module.stride for key, module in net.named_modules() if isinstance(module, nn.Conv2d)}
        assert strides.pop("conv1") == (2, 2) and set(strides.values()) == {(1, 1)} and net.maxpool.stride == 1
        blurs = [key for key, module in net.named_modules() if isinstance(module, BlurPool)]
        assert blurs == ["blur", "layer2.0.blur", "layer3.0.blur", "layer4.0.blur"]


def field_after(layers: Iterable[tuple[int, int]]) -> int:
    """The recurrence of kernels and strides: Araujo, Norris and Sim 2019, equation 2."""
    size, jump = 1, 1
    for kernel, stride in layers:
        size, jump = size + (kernel - 1) * jump, jump * stride
    return size


def test_receptive_fields() -> None:
    def found(name: str) -> tuple[int | None, ...]:
        return stage_fields(create(name, width=16, groups=8), 3, (64, 64))[-1].size

    for name, size in (("resnet18", 435), ("resnet50", 427), ("resnet101", 971), ("wide_resnet50_2", 427)):
        assert found(name) == (size, size)
    stem, conv, blur = [(7, 2), (3, 1), (3, 2)], (3, 1), (3, 2)
    blurred = field_after([*stem, *[conv] * 4, *[conv, blur, conv, conv, conv] * 3])
    assert found("resnet18_antialiased") == (blurred, blurred)


@pytest.mark.parametrize("gate", ["se", "cbam"])
@pytest.mark.parametrize("ndim", [1, 2])
def test_a_gated_block_sees_everything(gate: str, ndim: int) -> None:
    net = create("resnet18", ndim=ndim, gate=gate, width=8)
    sizes = [field.size[0] for field in stage_fields(net, 3, (64,) * ndim)]
    assert sizes == [7, None, None, None, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gate": "eca"}, "'se' or 'cbam', not 'eca'"),
        ({"groups": 5}, "5 groups divide neither 64 channels nor 64"),
        ({"blur": 2}, "not 2"),
        ({"name": "r3d_18", "ndim": 1}, "works for ndim 2, 3, not 1"),
        ({"name": "r3d_18", "ndim": 3, "spans": ("all", "time", "all", "all")}, "all, space, split"),
        ({"name": "r3d_18", "ndim": 3, "spans": ("all",)}, "each of 4 groups"),
    ],
)
def test_wrong_arguments_say_what_is_right(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(**{"name": "resnet18", **arguments})


def test_middle_channels_keep_the_parameters() -> None:
    """Section 3.5 of arXiv:1711.11248; the published network's keys have 144, 230, 460 and 921."""
    for c_in, c_out, expected in ((64, 64, 144), (64, 128, 230), (128, 256, 460), (256, 512, 921)):
        middle = middle_channels((3, 3, 3), c_in, c_out)
        assert middle == expected
        split, full = 9 * c_in * middle + 3 * middle * c_out, 27 * c_in * c_out
        assert full - (9 * c_in + 3 * c_out) < split <= full
    with torch.device("meta"):
        net = create("r2plus1d_18", ndim=3)
    firsts = [net.get_submodule(f"layer{i}.0.conv1.0.0").out_channels for i in (1, 2, 3, 4)]
    assert firsts == [144, 230, 460, 921] and net.stem[0].out_channels == 45
    assert net.layer2[0].conv2[0][0].out_channels == 230, "as torchvision, not by the formula of its own channels"
    assert net.layer2[0].conv1[0][0].kernel_size == (1, 3, 3) and net.layer2[0].conv1[0][3].kernel_size == (3, 1, 1)


def test_with_two_axes_a_split_convolution_is_time_and_one_of_space() -> None:
    conv = create("r2plus1d_18", ndim=2).layer2[0].conv1[0]
    assert conv[0].kernel_size == (1, 3) and conv[0].stride == (1, 2)
    assert conv[0].out_channels == (3 * 3 * 64 * 128) // (3 * 64 + 3 * 128) == 128
    assert conv[3].kernel_size == (3, 1) and conv[3].stride == (2, 1)


@pytest.mark.parametrize("name", VIDEO)
def test_what_shrinks_in_a_video(name: str) -> None:
    with torch.device("meta"):
        net = create(name, ndim=3)
        shapes = [tuple(stage.shape[2:]) for stage in net.forward_stages(torch.empty(1, 3, 16, 112, 112))]
    times = [16] * 5 if name == "mc3_18" else [16, 16, 8, 4, 2]
    assert shapes == [(t, s, s) for t, s in zip(times, [56, 56, 28, 14, 7], strict=True)]


def test_mixed_convolutions_see_time_in_their_first_group_alone() -> None:
    with torch.device("meta"):
        net = create("mc3_18", ndim=3)
    kernels = [
        {m.kernel_size[0] for m in net.get_submodule(f"layer{i}").modules() if isinstance(m, nn.Conv3d)}
        for i in (1, 2, 3, 4)
    ]
    assert kernels == [{3}, {1}, {1}, {1}]


def test_an_even_kernel_pads_as_keras_does() -> None:
    """Keras, "same", 8 taps: 3 zeros before and 4 after."""
    net = create("fcn", ndim=1).double().eval()
    conv = net.stages[0][0]
    x = noise(1, 1, 20)
    padded = np.pad(x[0, 0].numpy(), (3, 4))
    kernels = conv.weight.detach().numpy()[:, 0]
    expected = [[padded[i : i + 8] @ kernel for i in range(20)] for kernel in kernels]
    np.testing.assert_allclose(net.stages[0][1](conv(x))[0].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_fcn_is_three_convolutions_and_a_mean() -> None:
    net = create("fcn", ndim=1).double().eval()
    x = noise(2, 1, 30)
    stages = list(net.forward_stages(x))
    assert [stage.shape for stage in stages] == [(2, 128, 30), (2, 256, 30), (2, 128, 30)]
    torch.testing.assert_close(net(x), net.fc(stages[-1].mean(2)))
    assert [field.size[0] for field in stage_fields(net, 1, (64,))] == [8, 12, 14]


@pytest.mark.parametrize(("name", "norms"), [("fcn", 3), ("inception_time", 6 + 2)])
def test_norms_of_the_series_networks_have_kerass_epsilon(name: str, norms: int) -> None:
    found = [module.eps for module in create(name, ndim=1).modules() if isinstance(module, nn.BatchNorm1d)]
    assert found == [1e-3] * norms


def test_inception_time_has_the_branches_of_the_paper() -> None:
    net = create("inception_time", ndim=1)
    assert [conv[0].kernel_size[0] for conv in net.stages[3].convs] == [40, 20, 10]
    assert isinstance(net.stages[0].bottleneck, nn.Identity) and net.stages[1].bottleneck.weight.shape == (32, 128, 1)
    assert create("inception_time", ndim=1, in_channels=2).stages[0].bottleneck.weight.shape == (32, 2, 1)
    assert [shortcut[0].in_channels for shortcut in net.shortcuts] == [1, 128]
    assert stage_fields(net, 1, (64,))[-1].size[0] == 1 + 6 * 39
    taps, width = 40 + 20 + 10, 32
    first = taps * width + width
    later = 128 * 32 + 32 * taps * width + 128 * width
    assert sum(p.numel() for p in net.parameters()) == (
        first + 5 * later + 6 * 2 * 128 + (1 + 128) * 128 + 2 * 2 * 128 + 128 * 5 + 5
    )


def test_inception_time_adds_every_third_module() -> None:
    net = create("inception_time", ndim=1, width=4, kernels=(4, 2)).double().eval()
    x = noise(2, 1, 25)
    _, second, third, fourth, fifth, sixth = net.forward_stages(x)
    torch.testing.assert_close(third, (net.stages[2](second) + net.shortcuts[0](x)).relu())
    torch.testing.assert_close(fourth, net.stages[3](third))
    torch.testing.assert_close(sixth, (net.stages[5](fifth) + net.shortcuts[1](third)).relu())


@pytest.mark.parametrize(("kernel", "blocks"), [(2, 3), (3, 4), (7, 8)])
def test_the_field_of_a_tcn_is_the_formula(kernel: int, blocks: int) -> None:
    net = create("tcn", ndim=1, widths=(4,) * blocks, kernel=kernel)
    field = stage_fields(net, 1, (64,))[-1]
    assert field.size[0] == 1 + 2 * (kernel - 1) * (2**blocks - 1)
    assert field.start[0] == -(field.size[0] - 1) / 2, "the last cell that is seen is the cell itself"


@pytest.mark.parametrize(("ndim", "kernel"), [(1, 2), (1, 7), (2, 3), (2, (2, 3)), (3, (3, 2, 3))])
def test_a_tcn_never_sees_what_comes_after(ndim: int, kernel: int | tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = create("tcn", ndim=ndim, widths=(6, 6, 6), kernel=kernel, in_channels=2).double().eval()
    x = noise(2, 2, *(5,) * (ndim - 1), 20)
    changed = x.clone()
    changed[..., 12:] = noise(2, 2, *(5,) * (ndim - 1), 8, seed=9)
    for before, after in zip(net.forward_stages(x), net.forward_stages(changed), strict=True):
        assert torch.equal(before[..., :12], after[..., :12])
        assert (before[..., 12:] != after[..., 12:]).any()
    *_, last = net.forward_stages(x)
    read = last[..., 11].flatten(2).mean(2) if ndim > 1 else last[..., 11]
    torch.testing.assert_close(net(x[..., :12]), net.fc(read))


def test_a_causal_kernel_ends_at_the_cell_itself() -> None:
    """The negative control of causality: the newest tap reads the cell, and the cell alone."""
    conv, trim = create("tcn", ndim=1, widths=(3,), kernel=3).double().stages[0].conv1
    x = noise(1, 1, 10)
    weight, bias = conv.weight.detach().numpy()[:, 0], conv.bias.detach().numpy()
    padded = np.pad(x[0, 0].numpy(), (2, 0))
    expected = [[padded[t : t + 3] @ w + b for t in range(10)] for w, b in zip(weight, bias, strict=True)]
    np.testing.assert_allclose(trim(conv(x))[0].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_weight_norm_gives_a_kernel_the_length_of_its_own_number() -> None:
    conv = create("tcn", ndim=1).stages[1].conv1[0]
    length, direction = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), length.flatten())
    with torch.no_grad():
        before = conv.weight.clone()
        direction *= 5
        torch.testing.assert_close(conv.weight, before)
        length *= 2
        torch.testing.assert_close(conv.weight, 2 * before)


def test_dropout_of_a_tcn_takes_whole_channels() -> None:
    torch.manual_seed(0)
    drop = create("tcn", ndim=1, dropout=0.5).stages[0].dropout1
    x = torch.ones(4, 25, 9)
    kept = drop.train()(x)
    assert set(kept.unique().tolist()) == {0, 2} and (kept == kept[..., :1]).all()
    assert torch.equal(drop.eval()(x), x)
