"""Exact parameter counts, keys and behaviours that are particular to one network."""

import pytest
import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import MODELS, create, published_input
from gridsight.models.resnet import Block
from gridsight.nn.inflate import inflate, sum_axis
from gridsight.nn.net import Net

# counted by the publishers: torchvision's `num_params`, He et al. 2015 table 6 (0.27 M to 1.7 M), LeNet-5 by hand
PARAMETERS = {
    "simple_cnn": 268_650,
    "lenet5": 61_706,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_published_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(create(name)) == parameters


def test_lenet_pads_digits_of_28_to_32() -> None:
    assert count(create("lenet5", spatial=28)) == count(create("lenet5", spatial=28, padding=2)) == 61_706
    assert count(create("lenet5", spatial=28, padding=0)) == 44_426
    assert create("lenet5", spatial=(28, 40)).conv1.padding == (2, 0)


def test_simple_cnn_has_the_named_modules() -> None:
    names = {key.rsplit(".", 1)[0] for key in create("simple_cnn").state_dict()}
    assert names == {"conv1", "conv2", "fc1", "fc2"}
    assert create("simple_cnn").fc1.in_features == 2048


def keys_of(depths: tuple[int, ...], convs: int, projected: tuple[int, ...], head: str) -> set[str]:
    def norm(key: str) -> set[str]:
        return {f"{key}.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}

    keys = {"conv1.weight", f"{head}.weight", f"{head}.bias"} | norm("bn1")
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            for conv in range(1, convs + 1):
                key = f"layer{stage}.{block}"
                keys |= {f"{key}.conv{conv}.weight"} | norm(f"{key}.bn{conv}")
        if stage in projected:
            keys |= {f"layer{stage}.0.downsample.0.weight"} | norm(f"layer{stage}.0.downsample.1")
    return keys


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("resnet18", ((2, 2, 2, 2), 2, (2, 3, 4), "fc")),
        ("resnet50", ((3, 4, 6, 3), 3, (1, 2, 3, 4), "fc")),
        ("resnet20", ((3, 3, 3), 2, (), "linear")),
    ],
)
def test_publishers_keys(name: str, layout: tuple) -> None:
    with torch.device("meta"):
        assert set(create(name).state_dict()) == keys_of(*layout)


@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_zero_init_makes_every_block_its_shortcut(pre: bool, bottleneck: bool) -> None:
    for zero in (True, False):
        torch.manual_seed(0)
        net = create("resnet18", pre=pre, bottleneck=bottleneck, width=4, zero_init=zero).double()
        blocks = [block for block in net.modules() if isinstance(block, Block) and not block.projects]
        assert blocks
        for block in blocks:
            x = noise(2, block.conv1.in_channels, 5, 5).relu()
            assert torch.equal(block(x), x) == zero


def test_pre_activation_order() -> None:
    net = create("preact_resnet20").double().train()
    x = noise(2, 3, 8, 8)
    stages = list(net.forward_stages(x))
    assert stages[0].min() == 0 and stages[-1].min() < 0  # a sum is left as it is, the stem is activated
    block = net.layer1[1]
    y = noise(2, 16, 8, 8)
    residual = block.conv2(block.bn2(block.conv1(block.bn1(y).relu())).relu())
    torch.testing.assert_close(block(y), y + residual)
    assert isinstance(net.layer1[0].bn1, nn.Identity)


@pytest.mark.parametrize("shortcut", ["project", "pad"])
def test_a_projecting_shortcut_reads_the_activated_tensor(shortcut: str) -> None:
    block = create("preact_resnet20", shortcut=shortcut).double().train().layer2[0]
    x = noise(2, 16, 8, 8)
    activated = block.bn1(x).relu()
    residual = block.conv2(block.bn2(block.conv1(activated)).relu())
    if shortcut == "pad":
        shorted = torch.cat([torch.zeros(2, 8, 4, 4), activated[:, :, ::2, ::2], torch.zeros(2, 8, 4, 4)], 1)
    else:
        shorted = torch.nn.functional.conv2d(activated, block.downsample.weight, stride=2)
    torch.testing.assert_close(block(x), shorted + residual)


@pytest.mark.parametrize("name", ["simple_cnn", "lenet5", "resnet18", "gridnet"])
def test_a_kernel_reaches_every_convolution(name: str) -> None:
    kernel = {"simple_cnn": "kernel", "lenet5": "kernel"}.get(name, "kernels")
    net = create(name, **{kernel: 7})
    assert {m.kernel_size for m in net.modules() if isinstance(m, nn.Conv2d)} - {(1, 1)} == {(7, 7)}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20", "preact_resnet18"])
def test_2d_on_one_column_is_1d(name: str) -> None:
    torch.manual_seed(0)
    plane = create(name, in_channels=2, num_classes=5, width=8).double().eval()
    line = create(name, ndim=1, in_channels=2, num_classes=5, width=8).double().eval()
    # padding hides all but the middle column of a kernel
    line.load_state_dict({k: w[..., w.shape[-1] // 2] if w.dim() == 4 else w for k, w in plane.state_dict().items()})
    x = noise(3, 2, 64)
    torch.testing.assert_close(plane(x[..., None]), line(x), rtol=1e-6, atol=1e-9)


def test_simple_cnn_2d_on_one_column_is_1d() -> None:
    plane = create("simple_cnn", spatial=(32, 1), pool=(2, 1)).double().eval()
    line = create("simple_cnn", ndim=1, spatial=32).double().eval()
    line.load_state_dict({k: w[..., 1] if w.dim() == 4 else w for k, w in plane.state_dict().items()})
    x = noise(3, 3, 32)
    torch.testing.assert_close(plane(x[..., None]), line(x), rtol=1e-6, atol=1e-9)


def test_kernels_strides_and_dilations_a_stage_and_an_axis() -> None:
    net = create(
        "resnet18",
        ndim=3,
        in_channels=1,
        width=4,
        stem_kernel=(1, 7, 7),
        stem_stride=(1, 2, 2),
        stem_pool=(1, 2, 2),
        kernels=((1, 3, 3), (1, 3, 3), 3, 3),
        strides=(1, (1, 2, 2), 2, 2),
        dilations=(1, 1, 1, (1, 2, 2)),
    )
    shapes = [tuple(stage.shape[2:]) for stage in net.forward_stages(torch.zeros(1, 1, 8, 64, 64))]
    assert shapes == [(8, 32, 32), (8, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)]
    assert net.layer1[0].conv1.kernel_size == (1, 3, 3) and net.layer3[1].conv2.kernel_size == (3, 3, 3)
    assert net.layer4[1].conv2.dilation == (1, 2, 2) and net.layer4[1].conv2.padding == (1, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "did you mean resnet1"),
        ({"widht": 8}, "did you mean width"),
        ({"ndim": 4}, "1, 2, 3, not 4"),
        ({"kernels": 4}, "odd"),
        ({"kernels": (3, 3)}, "2 entries for 4 stages"),
        ({"stem_kernel": (3, 3, 3)}, "3 numbers where 2 axes"),
        ({"shortcut": "A"}, "'project', 'pad' or 'none'"),
        ({"shortcut": "none", "zero_init": True}, "a block has none"),
        ({"name": "lenet5", "spatial": 12}, "at least 16 x 16"),
        ({"name": "simple_cnn", "spatial": (32, 3)}, "at least 4 x 4"),
    ],
)
def test_wrong_arguments_say_what_is_right(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(**{"name": "resnet18", **arguments})


def test_what_is_not_given_is_the_publishers() -> None:
    assert [published_input(name) for name in ("lenet5", "resnet20", "resnet18")] == [
        (2, 1, (32, 32)),
        (2, 3, (32, 32)),
        (2, 3, (224, 224)),
    ]
    assert published_input("resnet18", 3) == (3, 3, (224, 224, 224))
    assert create("resnet20").linear.out_features == 10 and create("resnet20", num_classes=4).linear.out_features == 4


@pytest.mark.parametrize("ndim", [True, 2.0, "2", 0, 4])
def test_ndim_is_a_whole_number_among_those_of_the_network(ndim: object) -> None:
    for ask in (create, published_input):
        with pytest.raises(UsageError, match=rf"^resnet18 works for ndim 1, 2, 3, not {ndim!r}$"):
            ask("resnet18", ndim=ndim)  # type: ignore[operator]


def test_channels_and_classes_are_whole_numbers() -> None:
    for key in ("in_channels", "num_classes"):
        with pytest.raises(UsageError, match=f"{key} must be a whole number of at least 1, not True"):
            create("resnet18", **{key: True})


def test_inflation_starts_from_the_middle_slice_and_refuses_another_network() -> None:
    plane, volume = create("lenet5"), create("lenet5", ndim=3)
    inflate(plane, volume)
    kernel = volume.conv1.weight
    assert torch.equal(kernel[:, :, 2], plane.conv1.weight) and kernel.abs().sum((0, 1, 3, 4)).count_nonzero() == 1
    with pytest.raises(UsageError, match="not the same network"):
        inflate(plane, create("simple_cnn", ndim=3))
    with pytest.raises(UsageError, match="does not become"):
        inflate(create("lenet5", num_classes=3), volume)
    with pytest.raises(UsageError, match="does not become"):
        inflate(create("resnet20", kernels=1), create("resnet20", ndim=3))


def test_averaging_inflation_would_be_wrong_at_the_borders() -> None:
    """The negative control of centre inflation: repeat and divide differs where zeros pad the new axis."""
    torch.manual_seed(0)
    plane = create("resnet20", width=4).eval()
    volume = inflate(plane, create("resnet20", ndim=3, width=4).eval())
    x = noise(2, 3, 16, 16).float()
    stack = x.unsqueeze(2).expand(-1, -1, 16, -1, -1)
    torch.testing.assert_close(volume(stack), plane(x), rtol=1e-5, atol=1e-6)
    averaged = {k: w.mean(2, keepdim=True).expand_as(w) if w.dim() == 5 else w for k, w in volume.state_dict().items()}
    volume.load_state_dict(averaged)
    error = (volume(stack) - plane(x)).norm() / plane(x).norm()
    assert error > 0.05


def test_summing_needs_the_circle() -> None:
    """The negative control: zeros pad the summed axis, so the plain 2-D network differs."""
    torch.manual_seed(0)
    plane = create("resnet20", width=4).eval()
    line = sum_axis(plane, create("resnet20", ndim=1, width=4).eval())
    x = noise(2, 3, 16).float()
    assert not torch.allclose(line(x), plane(x.unsqueeze(2).expand(-1, -1, 16, -1)), rtol=1e-2)


def test_a_duplicate_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="two models are called 'lenet5'"):
        MODELS.register("lenet5", ndims=(2,))(Net)
