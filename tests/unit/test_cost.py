"""Parameters, MACs and memory against closed forms and the figures that torchvision publishes."""

import pytest
import torch
from torch import Tensor, nn

from gridsight.measure.cost import cost, describe
from gridsight.models import create


# torchvision's own `_ops` of its weights (GMAC) at 224 x 224, and the paper's count of ResNet-20
@pytest.mark.parametrize(
    ("name", "shape", "macs"),
    [
        ("resnet18", (3, 224, 224), 1.814e9),
        ("resnet50", (3, 224, 224), 4.089e9),
        ("resnet152", (3, 224, 224), 11.514e9),
        ("resnet20", (3, 32, 32), 40.55e6),
    ],
)
def test_published_macs(name: str, shape: tuple[int, ...], macs: float) -> None:
    assert cost(create(name), shape).macs == pytest.approx(macs, rel=3e-4)


def test_simple_cnn_by_hand() -> None:
    total = cost(create("simple_cnn"), (3, 32, 32))
    rows = {layer.name: layer for layer in total.layers}
    assert list(rows) == ["conv1", "pool1", "conv2", "pool2", "fc1", "fc2", ""]
    assert rows["conv1"].macs == 16 * 32 * 32 * 3 * 9
    assert rows["conv2"].macs == 32 * 16 * 16 * 16 * 9
    assert (rows["fc1"].macs, rows["fc2"].macs) == (2048 * 128, 1280)
    assert total.macs == sum((442_368, 1_179_648, 262_144, 1_280))
    assert total.parameters == 268_650 == sum(layer.parameters for layer in total.layers)
    assert [layer.shape for layer in total.layers] == [
        (16, 32, 32),
        (16, 16, 16),
        (32, 16, 16),
        (32, 8, 8),
        (128,),
        (10,),
        (10,),
    ]
    # the network itself computes the three relus
    assert rows[""].activation_bytes == 4 * (16 * 32 * 32 + 32 * 16 * 16 + 128)
    written = 2 * 16 * 32 * 32 + 16 * 16 * 16 + 2 * 32 * 16 * 16 + 32 * 8 * 8 + 2 * 128 + 10
    assert total.activation_bytes == 4 * written == sum(layer.activation_bytes for layer in total.layers)
    assert total.uncounted == ("max_pool2d_with_indices", "relu")


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_convolutions_in_every_ndim(ndim: int) -> None:
    conv = getattr(nn, f"Conv{ndim}d")(4, 6, 3, stride=2, padding=1, groups=2)
    back = getattr(nn, f"ConvTranspose{ndim}d")(6, 4, 2, stride=2)
    total = cost(nn.Sequential(conv, back), (4, *(8,) * ndim))
    assert [layer.macs for layer in total.layers] == [6 * 4**ndim * 2 * 3**ndim, 6 * 4**ndim * 4 * 2**ndim]


def test_functional_calls_and_attention_count() -> None:
    class Attend(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x @ x.transpose(1, 2)).softmax(-1) @ x

    total = cost(Attend(), (10, 4))
    assert total.macs == 2 * 10 * 10 * 4
    assert total.uncounted == ("_softmax",)


def test_shared_parameters_count_once_and_their_work_twice() -> None:
    layer = nn.Linear(5, 5)
    total = cost(nn.Sequential(layer, nn.ReLU(), layer), (5,))
    assert (total.parameters, total.macs) == (30, 50)
    tied = nn.Linear(5, 5)
    tied.weight = layer.weight
    total = cost(nn.Sequential(layer, tied), (5,))
    assert [row.parameters for row in total.layers] == [30, 5] and total.parameters == 35


def test_half_precision_halves_the_memory() -> None:
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU())
    assert cost(net, (1, 10)).activation_bytes == 4 * 2 * 2 * 8
    assert cost(net.to(torch.bfloat16), (1, 10), torch.bfloat16).activation_bytes == 2 * 2 * 2 * 8


def test_counting_leaves_the_network_alone() -> None:
    net = create("resnet20").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    cost(net, (3, 32, 32))
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_table_of_layers() -> None:
    rows = {row["name"]: row for row in describe(create("resnet18", ndim=1, in_channels=1), 1, (512,))}
    stem = rows["conv1"]
    assert (stem["shape"], stem["receptive_field"], stem["jump"], stem["start"]) == ([64, 256], [7], [2], [0.0])
    assert rows["layer4.1"]["receptive_field"] == [435] and rows["layer4.1"]["kind"] == "Block"
    assert rows["fc"]["receptive_field"] is None
    assert list(rows)[-1] == "" and rows[""]["shape"] == [1000]


def test_stages_of_a_net_and_of_another_module() -> None:
    assert [field.size for field in cost(create("lenet5"), (1, 32, 32)).stages] == [(6, 6), (16, 16)]
    assert cost(nn.Conv1d(1, 1, 3), (1, 8)).stages == ()
