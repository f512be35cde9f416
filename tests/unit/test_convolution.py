"""Convolutions on the CPU: every formulation equals PyTorch's own in values and gradients, and shapes alone choose."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridsight.models import create
from gridsight.nn import convolution
from gridsight.nn.convolution import formulation, row, taps
from gridsight.nn.nd import Nd

SPATIAL = {1: (60,), 2: (15, 14), 3: (5, 6, 7)}
PLAIN = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def numbers(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype).requires_grad_()


def compare(ours: Callable[[], Tensor], own: Callable[[], Tensor], inputs: tuple[Tensor, ...], within: float) -> None:
    """Values and gradients of both, to `within` of the largest."""
    found, expected = ours(), own()
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=expected.dtype)
    pairs = [(found, expected)]
    pairs += zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    )
    for a, b in pairs:
        assert a.shape == b.shape and a.dtype == b.dtype
        assert float((a - b).detach().abs().max()) <= within * float(b.detach().abs().max())


@pytest.mark.parametrize("kernel", [1, 2, 3, 9, 16])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 3, 1, 2), (3, 2, 2, 4)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_row_equals_the_convolution_of_a_series(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, biased: bool
) -> None:
    x, weight, bias = numbers(3, 4, 37), numbers(8, 4 // groups, kernel), numbers(8) if biased else None
    how = (stride,), (padding,), (dilation,), groups
    given = (x, weight) if bias is None else (x, weight, bias)
    compare(lambda: row(x, weight, bias, *how), lambda: F.conv1d(x, weight, bias, *how), given, 1e-10)
    if dilation == 1 and groups == 1:
        compare(lambda: row(x, weight, bias, *how, True), lambda: F.conv1d(x, weight, bias, *how), given, 1e-10)


@pytest.mark.parametrize(
    ("spatial", "kernel", "stride", "padding"),
    [
        ((9, 9), (5, 5), (1, 1), (2, 2)),
        ((11, 8), (7, 7), (2, 2), (3, 3)),
        ((12, 13), (2, 6), (1, 3), (1, 2)),
        ((10, 9), (5, 4), (2, 1), (0, 5)),
        ((1, 50), (1, 39), (1, 1), (0, 19)),
        ((6, 7, 5), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((7, 7, 8), (3, 5, 4), (1, 2, 1), (1, 0, 2)),
        ((7, 9, 6), (5, 1, 3), (2, 2, 2), (2, 0, 1)),
        ((5, 6, 7), (3, 3, 3), (1, 1, 1), (3, 0, 2)),
    ],
)
def test_taps_equal_a_depthwise_convolution(
    spatial: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> None:
    x, weight, bias = numbers(2, 3, *spatial), numbers(3, 1, *kernel), numbers(3)
    own = PLAIN[len(spatial)]
    compare(
        lambda: taps(x, weight, bias, stride, padding, 3),
        lambda: own(x, weight, bias, stride, padding, groups=3),
        (x, weight, bias),
        1e-10,
    )


def test_gradients_of_gradients_are_right() -> None:
    x, weight = numbers(1, 2, 3, 5), numbers(2, 1, 1, 5)
    assert torch.autograd.gradgradcheck(lambda x, w: taps(x, w, None, (1, 1), (0, 2), 2), (x, weight))


def test_what_needs_no_gradient_gets_none() -> None:
    x, layer = numbers(2, 3, 8, 8, dtype=torch.float32).detach(), Nd(2).Conv(3, 3, 5, padding=2, groups=3)
    layer(x).sum().backward()
    assert layer.weight.grad is not None and x.grad is None
    layer.requires_grad_(False)
    assert not layer(x).requires_grad
    assert layer(x.requires_grad_()).sum().backward() is None and x.grad is not None and layer.weight.grad is not None


LAYERS = [
    (1, {"in_channels": 5, "out_channels": 6, "kernel_size": 9, "padding": 4}, "row"),
    (1, {"in_channels": 5, "out_channels": 6, "kernel_size": 3, "padding": 2, "dilation": 2, "stride": 2}, "row"),
    (1, {"in_channels": 4, "out_channels": 8, "kernel_size": 17, "groups": 2, "bias": False}, "row"),
    (1, {"in_channels": 3, "out_channels": 6, "kernel_size": 39, "padding": 19}, "taps"),
    (1, {"in_channels": 4, "out_channels": 4, "kernel_size": 15, "padding": 7, "groups": 4, "stride": 2}, "taps"),
    (1, {"in_channels": 4, "out_channels": 4, "kernel_size": 7, "padding": 3, "groups": 4}, "row"),
    (2, {"in_channels": 4, "out_channels": 4, "kernel_size": 5, "padding": 2, "groups": 4}, "taps"),
    (2, {"in_channels": 4, "out_channels": 4, "kernel_size": 5, "padding": 2, "groups": 4, "stride": 2}, "plain"),
    (2, {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4}, "plain"),
    (2, {"in_channels": 4, "out_channels": 8, "kernel_size": 5, "padding": 2, "groups": 4}, "plain"),
    (2, {"in_channels": 1, "out_channels": 1, "kernel_size": 5, "padding": 2}, "plain"),
    (2, {"in_channels": 4, "out_channels": 4, "kernel_size": 7, "dilation": 2, "groups": 4}, "plain"),
    (3, {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4}, "taps"),
    (3, {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4, "stride": 2}, "plain"),
    (3, {"in_channels": 4, "out_channels": 4, "kernel_size": (3, 1, 1), "groups": 4}, "plain"),
    (3, {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, "plain"),
]


@pytest.mark.parametrize(("ndim", "arguments", "expected"), LAYERS)
def test_layers_choose_by_shape_and_equal_pytorchs(ndim: int, arguments: dict[str, object], expected: str) -> None:
    torch.manual_seed(0)
    ours, own = getattr(nn, f"Conv{ndim}d")(**arguments), Nd(ndim).Conv(**arguments)
    own.load_state_dict(ours.state_dict())
    x = numbers(17, ours.in_channels, *SPATIAL[ndim], dtype=torch.float32)
    for given in (x, x.transpose(1, -1).contiguous().transpose(1, -1)):  # the same in another memory
        assert own.chosen(given, own.weight) == expected
    for values in (x, numbers(20, ours.in_channels, *SPATIAL[ndim], dtype=torch.float32)):
        found, wanted = own(values), ours(values)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=2e-6)
        assert isinstance(own, type(ours))


@pytest.mark.parametrize(
    ("ndim", "kernel", "groups"), [(1, 9, 1), (1, 39, 1), (1, 39, 4), (2, 5, 4), (2, 7, 4), (3, 3, 4)]
)
def test_gradients_in_float32_are_those_of_float64(ndim: int, kernel: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = Nd(ndim).Conv(4, 4, kernel, padding=kernel // 2, groups=groups)
    exact = getattr(nn, f"Conv{ndim}d")(4, 4, kernel, padding=kernel // 2, groups=groups).double()
    exact.load_state_dict(layer.state_dict())
    x = numbers(17 if ndim == 1 else 3, 4, *SPATIAL[ndim]).detach()
    small = x.float().requires_grad_()
    large = small.detach().double().requires_grad_()
    upstream = torch.randn(exact(large).shape, generator=torch.Generator().manual_seed(1)).double()
    exact(large).backward(upstream)
    layer(small).backward(upstream.float())
    for found, wanted in [
        (small.grad, large.grad),
        *((a.grad, b.grad) for a, b in zip(layer.parameters(), exact.parameters(), strict=True)),
    ]:
        assert float((found.double() - wanted).abs().max()) <= 1e-6 * float(wanted.abs().max())


def test_elsewhere_pytorchs_own_is_asked() -> None:
    layer = Nd(1).Conv(3, 4, 5)
    x = torch.zeros(100, 3, 10)
    assert layer.chosen(x, layer.weight) == "row"
    assert layer.chosen(x[:99], layer.weight) == "plain"  # too few cells
    assert layer.chosen(x[0], layer.weight) == "plain"  # an item without a batch
    assert layer(x[0]).shape == (4, 6)
    assert layer.chosen(x.to("meta"), layer.weight) == "plain"
    assert layer.chosen(x.double(), layer.weight) == "plain"
    assert Nd(1).Conv(3, 4, 5, padding="same").chosen(x, layer.weight) == "plain"
    assert Nd(1).Conv(3, 4, 5, padding_mode="circular").chosen(x, layer.weight) == "plain"
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.chosen(x, layer.weight) == "plain"
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("ndim", "arguments"),
    [(1, (3, 4, 5)), (1, (4, 4, 15, 1, 7, 1, 4)), (2, (4, 4, 5, 1, 2, 1, 4)), (3, (4, 4, 3, 1, 1, 1, 4))],
)
def test_export_sees_one_plain_convolution(ndim: int, arguments: tuple[int, ...]) -> None:
    layer = nn.Sequential(Nd(ndim).Conv(*arguments), Nd(ndim).BatchNorm(4)).eval()
    x = torch.zeros(64, arguments[0], *(16, 8, 8)[:ndim])
    exported = torch.export.export(layer, (x,))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert targets[0] == f"aten.conv{ndim}d.default" and "batch_norm" in targets[1] and len(targets) == 2
    traced = torch.fx.symbolic_trace(layer)
    torch.testing.assert_close(traced(x), layer(x))


def test_a_norm_of_a_row_stays_in_its_memory() -> None:
    ours, own = Nd(1).BatchNorm(4), nn.BatchNorm1d(4)
    x = numbers(5, 4, 7, dtype=torch.float32).detach()
    in_row = x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    x.requires_grad_()
    for _ in range(2):
        found, wanted = ours(in_row), own(x)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
        assert found.stride() == in_row.stride()
        (found**3).sum().backward()
        (wanted**3).sum().backward()
    torch.testing.assert_close(in_row.grad, x.grad, rtol=1e-5, atol=1e-5)
    for name, value in own.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-6, atol=1e-6)
    assert list(ours.state_dict()) == list(own.state_dict())
    ours.eval(), own.eval()
    torch.testing.assert_close(ours(in_row), own(x), rtol=1e-6, atol=1e-6)
    assert ours(x[..., :1].flatten(1)).shape == (5, 4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_series_network_answers_and_has_gradients_as_with_pytorchs_layers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = create(name, ndim=1, in_channels=2, num_classes=3)
    x = numbers(24, 2, 96, dtype=torch.float32).detach()

    def learned() -> tuple[Tensor, Tensor]:
        net.zero_grad()
        out = net(x)
        out.square().sum().backward()
        return out.detach(), torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])

    net.eval()
    assert next(iter(net.forward_stages(x))).stride(1) == 1  # the memory of a row
    found = learned()
    monkeypatch.setattr(convolution, "_free", lambda x, weight: False)
    for a, b in zip(found, learned(), strict=True):
        assert float((a - b).norm()) <= 1e-5 * float(b.norm())


def test_the_choice_is_a_function_of_shapes_alone() -> None:
    def all_shapes() -> list[str]:
        return [
            formulation((c, c * m), g, (k,) * ndim, (s,) * ndim, (d,) * ndim, (n,) * ndim)
            for ndim in (1, 2, 3) for c in (1, 4) for m in (1, 2) for g in (1, c) for k in (1, 3, 5, 15)
            for s in (1, 2) for d in (1, 2) for n in (4, 40)
        ]  # fmt: skip

    assert all_shapes() == all_shapes()
    assert set(all_shapes()) == {"plain", "row", "taps"}


FAULTS = """
import resource
from gridsight.core.allocator import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 80_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults(), faults()
print(keep_memory(), *given_back, faults(), faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted as Linux does")
def test_memory_is_kept_where_the_c_library_can() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, first, second, third, fourth = done.stdout.split()
    assert min(int(first), int(second), int(third)) > 10 * int(fourth) or kept == "False"
