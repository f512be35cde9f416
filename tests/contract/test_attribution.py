"""What every explainer must do, whatever it is: a new file in `attribution/` is found and tested without an edit."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map, attribute
from gridsight.core.errors import UsageError
from gridsight.models import MODELS, create
from gridsight.nn.undisturbed import undisturbed

SPATIAL = {1: (16,), 2: (8, 8), 3: (6, 6, 6)}
CASES = [(entry.name, ndim) for entry in EXPLAINERS.entries() for ndim in entry.tags["ndims"]]


GRIDNET: tuple[str, dict[str, Any]] = ("gridnet", {"widths": (8, 12), "blocks": (0, 1), "pools": (2, 1)})


def _net(ndim: int, name: str = "gradient", channels: int = 2) -> nn.Module:
    """A network that the method `name` can explain: gridnet, unless its tag `network` says which."""
    torch.manual_seed(0)
    model, shape = EXPLAINERS.get(name).tags.get("network", GRIDNET)
    size = {"spatial": SPATIAL[ndim]} if MODELS.accepts(model, "spatial") else {}
    net = create(model, ndim=ndim, in_channels=channels, num_classes=3, **shape, **size)
    for module in net.modules():  # norms that do something
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def _said(name: str, net: nn.Module, x: Tensor, target: Any) -> Map:
    """By the settings with which a method is cheap enough, where it names any."""
    return attribute(net, x, name, target, **EXPLAINERS.get(name).tags.get("contract", {}))


def _x(ndim: int, count: int = 2, channels: int = 2) -> Tensor:
    return torch.randn(count, channels, *SPATIAL[ndim], generator=torch.Generator().manual_seed(1))


class Linear(nn.Module):
    """w x + b for each of two outputs, over all cells."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(2, 2, *SPATIAL[ndim], generator=generator))
        self.bias = nn.Parameter(torch.tensor([0.3, -0.2]))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.flatten(1).T + self.bias


@pytest.mark.parametrize(("name", "ndim"), CASES)
def test_one_map_an_item_of_the_shape_of_the_input(name: str, ndim: int) -> None:
    net, x = _net(ndim, name), _x(ndim)
    found = _said(name, net, x, 1)
    assert found.values.shape == (2, *SPATIAL[ndim])
    assert bool(found.values.isfinite().all()) and float(found.values.std()) > 0
    assert found.passes >= len(x)
    if found.channels is not None:
        assert found.channels.shape == x.shape
    # each item by itself, and the same again
    alone = _said(name, net, x[1:], 1)
    scale = float(found.values.abs().max())
    assert torch.allclose(found.values[1:], alone.values, atol=1e-4 * scale)
    assert torch.equal(found.values, _said(name, net, x, 1).values)


@pytest.mark.parametrize(("name", "ndim"), CASES)
def test_nothing_about_the_network_changes(name: str, ndim: int) -> None:
    net, x = _net(ndim, name).train(), _x(ndim)
    net.get_submodule("").register_forward_hook(lambda *a: None)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before = _state(net)
    torch.manual_seed(3)
    drawn = torch.get_rng_state()
    with torch.no_grad():
        found = _said(name, net, x, 0)
    assert not found.values.requires_grad
    assert _state(net) == before and torch.equal(torch.get_rng_state(), drawn)
    calls, last = 0, 10_000

    def fail(*given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == last:
            raise KeyboardInterrupt

    handle = net.register_forward_pre_hook(fail)
    _said(name, net, x, 0)
    calls, last = 0, calls
    before = _state(net)
    with pytest.raises(KeyboardInterrupt):
        _said(name, net, x, 0)
    assert _state(net) == before
    handle.remove()


def _state(net: nn.Module) -> list[Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [(m.training, [list(getattr(m, h)) for h in hooks], vars(m).get("inplace")) for m in net.modules()]
    values = [(p.requires_grad, p.dtype, p.detach().clone().flatten().tolist()) for p in net.parameters()]
    gradients = [None if p.grad is None else p.grad.flatten().tolist() for p in net.parameters()]
    return [modules, values, gradients, [b.flatten().tolist() for b in net.buffers()]]


@pytest.mark.parametrize(("name", "ndim"), CASES)
def test_training_mode_and_in_place_activations_change_nothing(name: str, ndim: int) -> None:
    net, x = _net(ndim, name), _x(ndim)
    expected = _said(name, net, x, 2).values
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    given = x.clone()
    assert torch.equal(_said(name, net.train(), given, 2).values, expected)
    assert torch.equal(given, x)


@pytest.mark.parametrize(("name", "ndim"), CASES)
def test_complete_ones_add_up(name: str, ndim: int) -> None:
    entry = EXPLAINERS.get(name)
    found = _said(name, _net(ndim, name), _x(ndim), 1)
    assert entry.tags["complete"] == (found.residual is not None)
    if found.residual is not None:
        assert float(found.residual.max()) < 1e-3


@pytest.mark.parametrize(("name", "ndim"), CASES)
def test_right_about_a_linear_network(name: str, ndim: int) -> None:
    tags = EXPLAINERS.get(name).tags
    if not tags["linear"]:
        assert len(tags["nonlinear"]) > 20
        return
    net, x = Linear(ndim), _x(ndim)
    target = torch.tensor([1, 0])
    found = _said(name, net, x, target)
    weights = net.weight.detach()[target]
    terms = weights * x  # the baseline is zero
    if tags["linear"] == "weights":
        expected = weights.sum(1)
    elif tags["linear"] == "terms":
        expected = terms.sum(1)
    else:
        assert found.regions is not None
        expected = _over_regions(terms.sum(1), found)
    assert torch.allclose(found.values, expected, atol=1e-4 * float(expected.abs().max()))


def _over_regions(terms: Tensor, found: Map) -> Tensor:
    """Of each cell the mean over its region, (N, *spatial): `values` spread a region's evidence over its cells."""
    assert found.regions is not None
    rows = []
    for each, regions in zip(terms, found.regions, strict=True):
        flat, count = regions.flatten(), int(regions.max()) + 1
        total = torch.zeros(count).index_add_(0, flat, each.flatten())
        rows.append((total / torch.bincount(flat, minlength=count))[flat].view(each.shape))
    return torch.stack(rows)


@pytest.mark.parametrize(("name", "ndim"), CASES)
def test_other_weights_give_another_map(name: str, ndim: int) -> None:
    tags = EXPLAINERS.get(name).tags
    net, x = _net(ndim, name), _x(ndim)
    first, alike = _said(name, net, x, 0).values, []
    weights = [p.detach().clone() for p in net.parameters()]
    for seed in range(4):
        order = torch.Generator().manual_seed(seed)
        for p, own in zip(net.parameters(), weights, strict=True):
            p.data = own.flatten()[torch.randperm(own.numel(), generator=order)].view(own.shape)
        second = _said(name, net, x, 0).values
        alike.append(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]))
    if tags["sound"]:
        assert abs(sum(alike)) < 0.8 * len(alike), alike
    else:
        assert len(tags["unsound"]) > 20


@pytest.mark.parametrize("name", EXPLAINERS.names())
def test_bad_input_is_refused(name: str) -> None:
    ndim = EXPLAINERS.get(name).tags["ndims"][0]
    net, x = _net(ndim, name), _x(ndim)
    for wrong, message in ((3, "outputs are 0 to 2"), (-1, "outputs are 0 to 2"), (0.5, "number of an output")):
        with pytest.raises(UsageError, match=message):
            attribute(net, x, name, wrong)
    with pytest.raises(UsageError, match="finite"):
        attribute(net, x * float("nan"), name)
    with pytest.raises(UsageError, match="no argument"):
        attribute(net, x, name, 0, sttings=1)
    with pytest.raises(UsageError, match="outputs"):
        attribute(nn.Identity(), x, name, 0)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="gradient"):
        attribute(_net(2), _x(2), "gradeint", 0)


def test_undisturbed_cleans_up_after_what_it_calls() -> None:
    net = _net(2).train()
    before = _state(net)
    with pytest.raises(RuntimeError, match="half-way"), undisturbed(net):
        assert not net.training and not any(p.requires_grad for p in net.parameters())
        net.register_forward_hook(lambda *a: None)
        torch.rand(3)
        raise RuntimeError("half-way")
    assert _state(net) == before
