"""Gradient methods against closed forms, sums that must come out, and networks on which others are wrong."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridsight.attribution import Map, attribute
from gridsight.core.errors import UsageError
from gridsight.nn.undisturbed import undisturbed


class Net(nn.Module):
    """Modules by their names, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(net: nn.Module) -> nn.Module:
    """In float64, with norms and biases that are not at their start values."""
    net = net.double()
    for number, (name, values) in enumerate(sorted(net.state_dict().items())):
        if values.is_floating_point():
            scale = 1 if values.dim() < 2 else (values[0].numel()) ** -0.5
            values.copy_(scale * noise(*values.shape, seed=number))
            if "var" in name:
                values.square_().add_(0.5)
    return net


def adds_up(net: nn.Module, x: Tensor, method: str = "deeplift", bar: float = 1e-9, **settings: Any) -> Map:
    """The map, whose sum is the network's own difference."""
    found = attribute(net, x, method, 1, **settings)
    base = settings.get("baseline", torch.zeros_like(x))
    with undisturbed(net), torch.no_grad():
        expected = (net(x) - net(base.expand_as(x)))[:, 1]
    assert torch.allclose(found.gap, expected.double(), rtol=1e-6)
    assert float(found.residual.max()) < bar, found.residual
    assert found.notes == ()
    return found


# integrated gradients


def test_integrated_gradients_of_a_quadratic_form_are_its_closed_form() -> None:
    matrix = noise(6, 6)
    matrix = matrix + matrix.T
    base, x = noise(1, 2, 3, seed=1), noise(3, 2, 3, seed=2)
    net = Net(lambda net, x: torch.stack([x.flatten(1).sum(1), ((x.flatten(1) @ matrix) * x.flatten(1)).sum(1)], 1))
    found = adds_up(net, x, "integrated_gradients", 1e-12, baseline=base)
    a, b = x.flatten(1), base.flatten(1)
    assert torch.allclose(found.channels.flatten(1), (a - b) * ((a + b) @ matrix))  # the mean slope is that half-way


def test_integrated_gradients_of_a_maximum_go_to_each_winner_for_as_long_as_it_wins() -> None:
    # from (1, 0) to (2, 3) the second is larger from t = 1/2 on: (2 - 1)/2 and (3 - 0)/2
    net = Net(lambda net, x: torch.stack([x[:, 0].sum(1), x[:, 0].amax(1)], 1))
    x, base = torch.tensor([[[2.0, 3.0]]]), torch.tensor([[[1.0, 0.0]]])
    found = adds_up(net, x, "integrated_gradients", 1e-3, baseline=base)
    assert torch.allclose(found.values, torch.tensor([[0.5, 1.5]]), atol=5e-3)


def test_a_baseline_that_is_the_input_gives_no_evidence() -> None:
    net, x = filled(nn.Sequential(nn.Conv1d(1, 2, 3), nn.SiLU(), nn.Flatten(), nn.Linear(8, 2))), noise(2, 1, 6)
    for method in ("integrated_gradients", "deeplift", "input_x_gradient"):
        found = attribute(net, x, method, 1, baseline=x)
        assert not bool(found.values.any()) and found.notes == ()


def test_a_sum_that_is_not_reached_is_said() -> None:
    net = Net(lambda net, x: torch.stack([(40 * x).floor().sum((1, 2)) + x.sum((1, 2)), x.sum((1, 2))], 1))
    found = attribute(net, torch.rand(2, 1, 5) + 1, "integrated_gradients", 0)
    assert "2 of 2 items do not add up to 0.001" in found.notes[0]
    found = attribute(net, torch.rand(2, 1, 5) + 1, "deeplift", 0)
    assert "2 of 2 items do not add up to 0.001" in found.notes[0]


def test_items_are_explained_as_if_alone_however_many_steps_each_takes() -> None:
    net = filled(nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)))
    x = torch.cat(
        [noise(2, 1, 8), 1e-3 * noise(1, 1, 8)]
    )  # the last is so near to the baseline that no kink is between
    together = attribute(net, x, "integrated_gradients", 1)
    alone = [attribute(net, item[None], "integrated_gradients", 1) for item in x]
    assert torch.allclose(together.values, torch.cat([each.values for each in alone]))
    assert together.passes == sum(each.passes for each in alone)


# the plain ones


def test_gradients_of_a_quadratic_form() -> None:
    net = Net(lambda net, x: torch.stack([x.sum((1, 2)), x.square().sum((1, 2))], 1))
    x = noise(2, 3, 5)
    assert torch.allclose(attribute(net, x, "gradient", 1).channels, 2 * x)
    assert torch.allclose(attribute(net, x, "gradient", 1, reduce="largest").values, (2 * x).abs().amax(1))
    assert torch.allclose(attribute(net, x, "input_x_gradient", 1).channels, 2 * x * x)
    assert torch.allclose(
        attribute(net, x, "input_x_gradient", 1, baseline="mean").channels, 2 * x * (x - x.mean(2, keepdim=True))
    )
    # pairs of opposite noise cancel what is linear in it, and the slope is linear
    assert torch.allclose(attribute(net, x, "smooth_grad", 1).channels, 2 * x)


def test_smooth_grad_averages_over_its_noise() -> None:
    # E[cos(x + s e)] = cos(x) exp(-s^2 / 2), s the share of the range
    net = Net(lambda net, x: torch.stack([x.sum((1, 2)), x.sin().sum((1, 2))], 1))
    x = torch.linspace(0, 2, 9, dtype=torch.float64).view(1, 1, 9)
    found = attribute(net, x, "smooth_grad", 1, samples=4000, noise=0.4)
    assert torch.allclose(found.channels, x.cos() * np.exp(-0.32), atol=0.03)


def test_guided_backpropagation_drops_what_is_below_zero_at_every_rectifier() -> None:
    first, second = noise(3, 4), noise(2, 3, seed=1)
    net = Net(lambda net, x: F.relu(x.flatten(1) @ first.T) @ second.T)
    x = noise(5, 1, 4, seed=2)
    slope = second[1].clamp(min=0) * (x.flatten(1) @ first.T > 0)
    found = attribute(net, x, "guided_backprop", 1)
    assert torch.allclose(found.channels.flatten(1), slope @ first)


# DeepLift


def test_deeplift_of_a_rectifier_is_the_difference_over_the_difference() -> None:
    first, bias, second = noise(3, 4), noise(3, seed=3), noise(2, 3, seed=1)
    net = Net(lambda net, x: F.relu(x.flatten(1) @ first.T + bias) @ second.T)
    x, base = noise(5, 1, 4, seed=2), noise(1, 1, 4, seed=4)
    a, a0 = (v.flatten(1) @ first.T + bias for v in (x, base))
    many = (second[1] * (a.clamp(min=0) - a0.clamp(min=0)) / (a - a0)) @ first
    found = adds_up(net, x, baseline=base)
    assert torch.allclose(found.channels.flatten(1), many * (x - base).flatten(1))


def test_deeplift_of_a_maximum_gains_by_its_winner_and_loses_by_the_former_one() -> None:
    net = Net(lambda net, x: F.max_pool1d(x, 3).flatten(1).repeat(1, 2))
    x, base = torch.tensor([[[1.0, 5.0, 2.0]]]), torch.tensor([[[3.0, 0.0, 1.0]]])
    found = adds_up(net, x, baseline=base)  # 5 is reached from 3 by the second cell, though its own change is 5
    assert found.values.tolist() == [[0.0, 2.0, 0.0]]
    found = adds_up(net, base, baseline=x)  # from 5 down to 3: the second cell gave the maximum up
    assert found.values.tolist() == [[0.0, -2.0, 0.0]]


def test_deeplift_of_a_product_takes_half_of_each_side() -> None:
    net = Net(lambda net, x: (x[:, 0] * x[:, 1]).repeat(1, 2))
    x, base = torch.tensor([[[3.0], [5.0]]]), torch.tensor([[[1.0], [2.0]]])
    found = adds_up(net, x, baseline=base)
    assert found.channels.flatten().tolist() == [2 * 3.5, 3 * 2.0]


class Written(nn.Module):
    """The same network, its rectifiers written in several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.convs = nn.ModuleList([nn.Conv1d(2, 2, 3, padding=1) for _ in range(4)])
        self.head = nn.Linear(2, 2)
        self.shared = nn.ReLU(inplace=how == "in place")
        self.own = nn.ModuleList([nn.ReLU() for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        for conv, own in zip(self.convs, self.own, strict=True):
            y = conv(x)
            if self.how in ("shared", "in place"):
                y = self.shared(y)
            elif self.how == "functional":
                y = F.relu(y)
            elif self.how == "functional in place":
                y = F.relu(y, True)
            elif self.how == "method in place":
                y.relu_()
            elif self.how == "clamp":
                y = y.clamp(min=0)
            elif self.how == "made on the way":
                y = nn.ReLU()(y)
            else:
                y = own(y)
            y += x
            x = y
        return self.head(x.mean(2))


@pytest.mark.parametrize(
    "how", ("shared", "in place", "functional", "functional in place", "method in place", "clamp", "made on the way")
)
def test_deeplift_does_not_care_how_a_rectifier_is_written(how: str) -> None:
    """captum #1082: another answer than that of the same network with a module for each use."""
    x = noise(3, 2, 9, seed=5)
    expected = adds_up(filled(Written("own")), x, baseline=noise(1, 2, 9, seed=6))
    found = adds_up(filled(Written(how)).train(), x, baseline=noise(1, 2, 9, seed=6))
    assert torch.allclose(found.channels, expected.channels)


def _gates(net: Any, x: Tensor) -> Tensor:
    x = net.conv(x)
    return net.head((x * net.gate(x.mean((2, 3), keepdim=True)) + x * net.gate(net.conv2(x))).mean((2, 3)))


def test_captum_199_a_gate_that_several_streams_share() -> None:
    gate = nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 1), nn.Sigmoid())
    net = Net(_gates, conv=nn.Conv2d(1, 4, 3), conv2=nn.Conv2d(4, 4, 1), gate=gate, head=nn.Linear(4, 2))
    adds_up(filled(net), noise(2, 1, 7, 7))


def test_captum_200_a_pool_that_is_used_twice() -> None:
    net = Net(
        lambda net, x: net.head(net.pool(net.b(net.pool(F.relu(net.a(x))))).flatten(1)),
        a=nn.Conv2d(1, 3, 3),
        b=nn.Conv2d(3, 4, 3),
        pool=nn.MaxPool2d(2, 2),
        head=nn.Linear(16, 2),
    )
    adds_up(filled(net), noise(2, 1, 14, 14))


class Words(nn.Module):
    """A recurrent layer, then attention, with time before items, as both are by default."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent = kind(3, 4, num_layers=2, bidirectional=True)
        self.attention = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.recurrent(x.permute(2, 0, 1))
        return self.head(self.attention(steps).mean(0))


@pytest.mark.parametrize("kind", (nn.LSTM, nn.GRU, nn.RNN))
def test_captum_578_a_recurrent_layer_and_a_transformer(kind: type[nn.RNNBase]) -> None:
    adds_up(filled(Words(kind)).train(), noise(3, 3, 5), bar=1e-4)


def test_captum_1085_functions_that_are_no_modules() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.linear(x.flatten(1))
        x = x - x.mean(-1, keepdim=True)
        share = torch.exp(x) / torch.exp(x).sum(-1, keepdim=True)
        return torch.stack([x.sum(1), (share * x).sum(1) + torch.logsumexp(x, 1) + F.log_softmax(x, 1)[:, 0]], 1)

    adds_up(filled(Net(forward, linear=nn.Linear(8, 5))), noise(3, 2, 4), bar=1e-4)


def test_captum_1104_a_rectifier_right_after_a_pool() -> None:
    net = nn.Sequential(
        nn.Conv1d(4, 6, 5, padding="same", bias=False),
        nn.BatchNorm1d(6),
        nn.MaxPool1d(3),
        nn.ReLU(),
        nn.Conv1d(6, 6, 3),
        nn.MaxPool1d(2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(18, 2),
    )
    adds_up(filled(net), noise(2, 4, 26), baseline=noise(1, 4, 26, seed=1))


def test_shap_3938_a_plain_network_for_digits() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(10, 20, 5), nn.Dropout(), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        *(nn.Flatten(), nn.Linear(320, 50), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(50, 10)),
    )
    torch.manual_seed(0)
    x = torch.rand(4, 1, 28, 28) * (torch.rand(4, 1, 28, 28) > 0.8)  # mostly the same as the baseline, as digits are
    found = adds_up(filled(net).float().train(), x, bar=1e-4)
    assert found.values.dtype == torch.float32 and net.training


POOLS: list[tuple[int, nn.Module]] = [
    *((1, pool) for pool in (nn.MaxPool1d(2), nn.MaxPool1d(3, 1, 1, ceil_mode=True), nn.AdaptiveMaxPool1d(2))),
    *((2, pool) for pool in (nn.MaxPool2d((3, 2), 2, 1), nn.MaxPool2d(3, 1, dilation=2), nn.AdaptiveMaxPool2d((2, 3)))),
    *((3, pool) for pool in (nn.MaxPool3d(2), nn.MaxPool3d(3, 2, 1), nn.AdaptiveMaxPool3d(2))),
]


@pytest.mark.parametrize(("ndim", "pool"), POOLS)
def test_deeplift_adds_up_over_pools(ndim: int, pool: nn.Module) -> None:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.pool(net.conv(x)).flatten(2)
        return torch.stack([x.sum((1, 2)), x.square().sum((1, 2))], 1)

    net = filled(Net(forward, conv=convolution(2, 3, 3), pool=pool))
    adds_up(net, noise(2, 2, *(7,) * ndim), baseline=noise(1, 2, *(7,) * ndim, seed=1))


def _operations() -> dict[str, Callable[[Tensor], Tensor]]:
    """Of (N, 4, 6)."""
    attention = filled(nn.MultiheadAttention(6, 2, batch_first=True)).requires_grad_(False)
    weight = noise(4, 4)
    return {
        "silu after a norm": filled(nn.Sequential(nn.BatchNorm1d(4), nn.SiLU())),
        "gelu": nn.GELU(),
        "gelu tanh": nn.GELU("tanh"),
        "leaky relu": nn.LeakyReLU(0.2, inplace=True),
        "prelu": filled(nn.PReLU(4)),
        "hardswish": nn.Hardswish(inplace=True),
        "hardtanh": lambda x: F.hardtanh_(x.clone(), -0.5, 0.3),
        "relu6": nn.ReLU6(),
        "elu": nn.ELU(inplace=True),
        "softplus": nn.Softplus(),
        "layer norm": filled(nn.LayerNorm(6)),
        "group norm": filled(nn.GroupNorm(2, 4)),
        "instance norm": nn.InstanceNorm1d(4),
        "softmax": lambda x: x.softmax(-1),
        "masked softmax": lambda x: x.masked_fill(torch.eye(4, 6) > 0, -torch.inf).softmax(-1),
        "attention": lambda x: F.scaled_dot_product_attention(x, x.flip(1), x),
        "attention, causal": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
        "attention, a module": lambda x: attention(x, x, x)[0],
        "attention by hand": lambda x: torch.einsum("nij,njd->nid", (x @ x.mT).softmax(-1), x),
        "largest": lambda x: x * x.amax((1, 2), keepdim=True),
        "largest, with its place": lambda x: x.max(1, keepdim=True).values - x.min(2)[0][:, :1, None],
        "larger of two": lambda x: torch.maximum(x, x.flip(1)) + torch.min(x, x.flip(2)),
        "normalised": lambda x: F.normalize(x, dim=1),
        "deviation": lambda x: x / (x.std(2, keepdim=True) + 1),
        "norm of responses": lambda x: x * (x.norm(2, 2, keepdim=True) / x.norm(2, 2, keepdim=True).mean(1, True)),
        "quotient": lambda x: 2 / (1 + x.square()) + x / (1 + x.abs()),
        "power": lambda x: x**3 + 2**x,
        "product in place": lambda x: (x + 0).mul_(x.sigmoid()),
        "product in place of a dependent one": lambda x: _times(x + 0, x.sigmoid()),
        "written over": lambda x: _over(x.tanh()),
        "written over later": lambda x: _later(x + 0),
        "cumulative product": lambda x: x.cumprod(2),
        "bilinear": lambda x: torch.einsum("nid,ij,njd->nij", x, weight, x),
        "sorted": lambda x: x.sort(2).values * torch.arange(6),
        "linear, unknown": lambda x: torch.fft.rfft(x).real + torch.kron(x[..., :4], x.new_ones(1)),
        "time before items": lambda x: torch.tanh(x.transpose(0, 1) * x.transpose(0, 1).sigmoid()).transpose(0, 1),
    }


def _times(x: Tensor, y: Tensor) -> Tensor:
    x *= y
    return x


def _over(x: Tensor) -> Tensor:
    y = x * x
    z = torch.sin(y)
    y[:, :2] = 1.5  # sin remembers what it was given
    return y + z


def _later(x: Tensor) -> Tensor:
    y = torch.relu(x)
    x += 1
    return x.exp() * y


KINKED = {"sorted": 0.05}
"""Those that have no rule of their own and kinks: near the truth, and a note."""


@pytest.mark.parametrize("name", _operations())
def test_deeplift_adds_up_over(name: str) -> None:
    operation = _operations()[name]

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(operation(net.conv(x)).flatten(1))

    inside = {"operation": operation} if isinstance(operation, nn.Module) else {}
    width = operation(noise(1, 4, 6)).flatten(1).shape[1]
    net = filled(Net(forward, conv=nn.Conv1d(3, 4, 1), head=nn.Linear(width, 2), **inside))
    x, base = noise(2, 3, 6, seed=7), noise(1, 3, 6, seed=8)
    if name not in KINKED:
        adds_up(net, x, bar=2e-4, baseline=base)
        return
    found = attribute(net, x, "deeplift", 1, baseline=base)
    assert float(found.residual.max()) < KINKED[name]
    assert (name[:4] in found.notes[0]) == (float(found.residual.max()) > 1e-3)


def test_what_the_rule_cannot_know_is_named() -> None:
    def branch(net: Any, x: Tensor) -> Tensor:
        y = net.linear(x.flatten(1))
        return torch.where(y > 0, y, 0.1 * y - 1)

    found = attribute(filled(Net(branch, linear=nn.Linear(6, 2))), noise(4, 2, 3), "deeplift", 1)
    wrong = float(found.residual.max()) > 1e-3
    assert wrong and "gt" in found.notes[0] and "where" in found.notes[0]

    def cut(net: Any, x: Tensor) -> Tensor:
        y = net.linear(x.flatten(1))
        return y + y.detach().tanh()

    found = attribute(filled(Net(cut, linear=nn.Linear(6, 2))), noise(4, 2, 3), "deeplift", 1)
    assert float(found.residual.max()) > 1e-3 and "detach" in found.notes[0]


# what callers do

METHODS = ("gradient", "input_x_gradient", "smooth_grad", "integrated_gradients", "guided_backprop", "deeplift")


@pytest.mark.parametrize("method", METHODS)
def test_modes_and_kinds_of_input_change_nothing(method: str) -> None:
    net = filled(
        nn.Sequential(
            nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.SiLU(inplace=True), nn.Dropout(), nn.Flatten(), nn.Linear(24, 2)
        )
    )
    x = noise(2, 2, 8)
    expected = attribute(net.eval(), x, method, 1).values
    assert expected.dtype == torch.float64 and bool(expected.any())
    net.train()
    with torch.no_grad():
        assert torch.equal(attribute(net, x, method, 1).values, expected)
    with torch.inference_mode():
        given = x.clone()
        assert torch.equal(attribute(net, given, method, 1).values, expected)
    given = x.clone().requires_grad_()
    assert torch.equal(attribute(net, given * 1, method, 1).values, expected)
    assert given.grad is None
    assert torch.allclose(attribute(net.float(), x.float(), method, 1).values.double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_no_gradient_is_refused(method: str) -> None:
    net = Net(lambda net, x: x.flatten(1).sign()[:, :2].detach())
    with pytest.raises(UsageError, match="no gradient in its input: take occlusion or shapley"):
        attribute(net, noise(2, 1, 4), method, 1)


@pytest.mark.slow
def test_every_family_adds_up_or_says_why() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
    from test_models import families, trained

    for small, *_ in families():
        for ndim in small.entry.tags["ndims"]:
            x = small.x(ndim)
            net = trained(small.build(ndim), x).double()
            found = attribute(net, x[:2].double(), "deeplift", 1)
            assert float(found.residual.max()) < 1e-3, (small.entry.name, ndim, found.notes)
            found = attribute(net, x[:2].double(), "integrated_gradients", 1)
            silent = float(found.residual.max()) > 1e-3 and not found.notes
            assert not silent, (small.entry.name, ndim)
            assert float(found.residual.max()) < 0.3, (small.entry.name, ndim)


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "deeplift", "occlusion", "rise", "shapley"])
def test_a_network_that_writes_over_its_input_is_explained_and_the_input_stays(name: str) -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.sub_(0.5).div_(2)
            return x.flatten(1)[:, :3].relu()

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ((x - 0.5) / 2).flatten(1)[:, :3].relu()

    x = torch.rand(2, 1, 12, generator=torch.Generator().manual_seed(0)) + 0.6
    given = x.clone()
    found, expected = (attribute(net, given, name) for net in (Writes(), Reads()))
    assert torch.equal(given, x)
    assert torch.allclose(found.values, expected.values, atol=1e-6)
