"""Folded networks answer as before: every registered one, its stages, with masks, and at other sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_models import Small, masked_and_ndim, noise, padded, scale, small_and_ndim, trained, unequal
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import MODELS, create
from gridsight.nn import fold as folding
from gridsight.nn.blocks import Trim
from gridsight.nn.fold import NORMS, fold


def close(found: Tensor, expected: Tensor, share: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=share * scale(expected))


@small_and_ndim
def test_a_folded_network_answers_as_before(small: Small, ndim: int) -> None:
    x = small.x(ndim)
    net = trained(small.build(ndim), x)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folded = fold(net, x[:1])
    with torch.no_grad():
        close(folded.net(x), net(x))
        for found, expected in zip(folded.net.forward_stages(x), net.forward_stages(x), strict=True):
            close(found, expected)
    norms = [name for name, module in net.named_modules() if isinstance(module, NORMS)]
    left = [name for name, module in folded.net.named_modules() if isinstance(module, NORMS)]
    assert sorted(left) == sorted(folded.left) and all(folded.left.values())
    assert len(norms) == len(left) + len(folded.pairs)
    after = net.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in folded.net.modules())


@masked_and_ndim
def test_a_folded_network_takes_masks(small: Small, ndim: int) -> None:
    items = unequal(ndim)
    net = trained(small.build(ndim).double(), noise(4, 2, *(16,) * ndim, dtype=torch.float64))
    folded = fold(net, items[0][None]).net
    alone = torch.cat([net(item[None]) for item in items])
    for extra in (0, 6):
        torch.testing.assert_close(folded(*padded(items, extra)), alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "left"),
    [("resnet18", 0), ("gridnet", 0), ("mobilenet_v2", 0), ("fcn", 0), ("vgg11_bn", 0), ("efficientnet_b0", 0)],
)
def test_batch_norms_that_are_left(name: str, left: int) -> None:
    small = Small(MODELS.get(name))
    ndim = small.entry.tags["ndims"][0]
    assert len(fold(small.build(ndim).eval(), small.x(ndim)).left) == left


def test_a_wrong_fold_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without the variance in the scale the answers must differ."""
    absorb: Callable[[Any, Any], None] = folding._absorb

    def wrong(conv: Any, norm: Any) -> None:
        norm.running_var.fill_(1.0)
        absorb(conv, norm)

    monkeypatch.setattr(folding, "_absorb", wrong)
    with pytest.raises(AssertionError):
        test_a_folded_network_answers_as_before(Small(MODELS.get("resnet20")), 2)


def uneven_norm(norm: Any) -> Any:
    """A batch norm in eval mode with statistics and weights of its own, all gammas above 0."""
    for number, values in enumerate((norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var)):
        values.copy_(0.5 + noise(len(values), seed=number).abs())
    return norm.eval()


class Pieces(nn.Module):
    """A convolution and a norm, joined by `way`."""

    def __init__(self, way: Callable[["Pieces", Tensor], Tensor], **changes: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.conv = nn.Conv2d(4, 4, 3, **changes)
        self.norm, self.other = uneven_norm(nn.BatchNorm2d(4)), uneven_norm(nn.BatchNorm2d(4))
        self.pool, self.trim = nn.MaxPool2d(2), Trim([1, 0], [0, 2])

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def runs(way: Callable[[Pieces, Tensor], Tensor], **changes: Any) -> tuple[dict[str, str], int]:
    """What is left of the norms that run, and how many pairs were folded; the answer must stay in any case."""
    net, x = Pieces(way, **changes).eval(), noise(2, 4, 9, 8)
    folded = fold(net, x)
    with torch.no_grad():
        close(folded.net(x), net(x))
    return {name: why for name, why in folded.left.items() if "does not run" not in why}, len(folded.pairs)


@pytest.mark.parametrize(
    ("way", "changes"),
    [
        (lambda m, x: m.norm(m.conv(x)), {}),
        (lambda m, x: m.norm(m.conv(x)), {"bias": False, "padding_mode": "reflect", "padding": 1}),
        (lambda m, x: m.norm(m.conv(x)), {"groups": 4, "stride": 2}),
        (lambda m, x: m.norm(m.pool(m.trim(m.conv(x)))), {}),
        (lambda m, x: m.norm(m.conv(x)) + m.conv.weight.shape[0] + x.mean(), {}),
    ],
)
def test_pairs_that_are_folded(way: Callable[[Pieces, Tensor], Tensor], changes: dict[str, Any]) -> None:
    assert runs(way, **changes) == ({}, 1)


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (lambda m, x: m.norm(m.conv(x)) + m.norm(m.conv(x.flip(2))), "runs 2 times"),
        (lambda m, x: m.norm(y := m.conv(x)) + y, "read elsewhere"),
        (lambda m, x: m.norm(m.conv(x).relu_()), "read elsewhere"),
        (lambda m, x: m.norm(m.conv(x).relu()), "follows no convolution"),
        (lambda m, x: m.norm(m.conv(x)) + m.other(m.conv(x)), "runs 2 times"),
        (lambda m, x: m.norm(m.conv(x)) * m.norm.weight.sum(), "read elsewhere"),
        (lambda m, x: m.norm(m.conv(x)) + m.conv.weight.mean(), "read elsewhere"),
        (lambda m, x: m.norm(m.pool(y := m.conv(x))) + y.mean(), "read elsewhere"),
        (lambda m, x: m.norm(x), "follows no convolution"),
    ],
)
def test_pairs_that_are_not(way: Callable[[Pieces, Tensor], Tensor], reason: str) -> None:
    left, folded = runs(way)
    assert folded == 0 and left and all(reason in why for why in left.values())


def test_a_pool_before_a_norm_that_turns_a_channel_over() -> None:
    net, x = Pieces(lambda m, x: m.norm(m.pool(m.conv(x)))).eval(), noise(2, 4, 9, 8)
    net.norm.weight.data[1] = -0.7
    folded = fold(net, x)
    assert "max pool" in folded.left["norm"] and not folded.pairs
    with torch.no_grad():
        close(folded.net(x), net(x))


def test_a_stage_that_is_shown_between_the_two_is_not_folded() -> None:
    class Shown(Small(MODELS.get("simple_cnn")).item):  # type: ignore[misc]
        def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Any:
            x = self.first(x)
            yield x
            yield self.norm(x)

        def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x.mean((2, 3))

    net = Shown(ndim=2, in_channels=3, num_classes=4)
    net.first, net.norm = nn.Conv2d(3, 4, 3), uneven_norm(nn.BatchNorm2d(4))
    x = noise(2, 3, 20, 20)
    folded = fold(net.eval(), x)
    assert folded.pairs == () and "read elsewhere" in folded.left["norm"]


def test_weights_that_are_computed_become_constants() -> None:
    net, x = create("tcn", ndim=1, in_channels=2, num_classes=3).eval(), noise(2, 2, 40)
    folded = fold(net, x)
    assert len(folded.constants) == sum("parametrizations.weight.original0" in name for name in net.state_dict())
    assert not any("parametrizations" in name for name in folded.net.state_dict())
    with torch.no_grad():
        close(folded.net(x), net(x), 1e-6)
        assert net(x).isfinite().all()  # the original still computes its own


def test_training_mode_is_refused() -> None:
    net = create("resnet20").train()
    with pytest.raises(UsageError, match="eval"):
        fold(net, noise(1, 3, 32, 32))


def test_memory_is_shared_and_the_original_can_move_alone() -> None:
    net = create("resnet20").eval()
    folded = fold(net, noise(1, 3, 32, 32)).net
    assert folded.linear.weight.data_ptr() == net.linear.weight.data_ptr()
    net.double()
    assert folded.linear.weight.dtype == torch.float32 and not any(p.requires_grad for p in folded.parameters())
    assert all(p.requires_grad for p in net.parameters())
