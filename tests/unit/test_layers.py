"""The layers of any network: what they are called and see, their tensors, and maps placed where their cells look."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridsight.core.errors import UsageError
from gridsight.measure.layers import Layer, as_grid, cut, find_layer, layers, place, run_through, run_through_all
from gridsight.models import create
from gridsight.nn.geometry import Field, stage_fields
from gridsight.nn.undisturbed import undisturbed

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def field(ndim: int, size: int, jump: int, start: float) -> Field:
    return Field((size,) * ndim, (jump,) * ndim, (start,) * ndim)


def test_a_map_is_placed_as_computed_by_hand() -> None:
    # windows of 4 cells, 2 apart, one cell of padding: centres at 0.5, 2.5 and 4.5 of 6 cells
    grid = torch.tensor([[0.0, 4.0, 2.0]])
    placed = place(grid, field(1, 4, 2, 0.5), (6,))
    assert placed.tolist() == [[0.0, 1.0, 3.0, 3.5, 2.5, 2.0]]
    # windows of 3 without padding: centres at 1, 3 and 5 of 7 cells, and constant beyond them
    assert place(grid, field(1, 3, 2, 1.0), (7,)).tolist() == [[0.0, 0.0, 2.0, 4.0, 3.0, 2.0, 2.0]]
    # the same along each axis
    both = place(grid[:, :, None] * grid[:, None, :], field(2, 4, 2, 0.5), (6, 6))
    assert torch.allclose(both, placed[:, :, None] * placed[:, None, :])


def test_one_cell_and_unknown_fields() -> None:
    assert place(torch.tensor([[3.0]]), field(1, 9, 4, 2.0), (5,)).tolist() == [[3.0] * 5]
    unknown = Field((None,), (None,), (None,))  # spread evenly: centres at 0.5 and 2.5 of 4 cells
    assert place(torch.tensor([[0.0, 2.0]]), unknown, (4,)).tolist() == [[0.0, 0.5, 1.5, 2.0]]


class OnePlace(nn.Module):
    """Says what lies at one place: a layer whose windows count their middle alone, of which one cell is read."""

    def __init__(self, ndim: int, kernel: int, stride: int, padding: int, index: int) -> None:
        super().__init__()
        self.look = CONV[ndim](1, 1, kernel, stride, padding, bias=False)
        middle = slice((kernel - 1) // 2, kernel // 2 + 1)
        with torch.no_grad():
            self.look.weight.zero_()[(0, 0, *[middle] * ndim)] = 1
        self.index, self.ndim = index, ndim

    def forward(self, x: Tensor) -> Tensor:
        return self.look(x)[(slice(None), slice(None), *[self.index] * self.ndim)]


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 2, 0), (4, 2, 1), (3, 2, 1), (2, 2, 0), (8, 3, 0)])
@pytest.mark.parametrize("end", ["first", "middle", "last"])
def test_a_map_has_its_peak_where_the_unit_looks(ndim: int, kernel: int, stride: int, padding: int, end: str) -> None:
    size = 17
    cells = (size + 2 * padding - kernel) // stride + 1
    index = {"first": 0, "middle": cells // 2, "last": cells - 1}[end]
    net = OnePlace(ndim, kernel, stride, padding, index)
    x = torch.ones(1, 1, *(size,) * ndim, requires_grad=True)
    layer = find_layer(net, (1, *(size,) * ndim), "look")
    outputs, written = run_through(net, x, "look")
    slope, seen = torch.autograd.grad(outputs.sum(), [written, x])
    grid = (slope * written).sum(1).detach()
    for true, along in zip(_lines(seen[0, 0]), _lines(place(grid, layer.field, x.shape[2:])[0]), strict=True):
        looks, peak = true.nonzero().flatten(), (along > 0.99 * along.max()).nonzero().flatten()
        # beyond the first and the last centre a map is constant
        edges = {"first": (0, looks[0]), "middle": (looks[0], looks[-1]), "last": (looks[-1], size - 1)}
        assert (peak[0], peak[-1]) == edges[end]
        if (kernel, end) in ((7, "first"), (7, "last"), (8, "last")):  # the wrong way: stretched over the input
            stretched = F.interpolate(grid[None], (size,) * ndim, mode=("linear", "bilinear", "trilinear")[ndim - 1])
            assert _lines(stretched[0, 0])[0].argmax() not in looks


def _lines(values: Tensor) -> list[Tensor]:
    """The largest values along each axis."""
    axes = range(values.dim())
    return [values.movedim(axis, 0).reshape(len(values), -1).abs().amax(1) for axis in axes]


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_cut_is_exactly_what_a_cell_sees(ndim: int) -> None:
    torch.manual_seed(0)
    size = {1: 21, 2: 15, 3: 11}[ndim]
    net = nn.Sequential(CONV[ndim](2, 3, 4, 2, 1), nn.Tanh(), CONV[ndim](3, 2, 3, 1, 1)).double()
    x = torch.randn(1, 2, *(size,) * ndim, dtype=torch.float64, requires_grad=True)
    layer = find_layer(net, tuple(x.shape[1:]), "2")
    cells = layer.shape[1:]
    numbers = torch.arange(1, x[0, 0].numel() + 1, dtype=torch.float64).view(1, *x.shape[2:])
    for cell in {(0,) * ndim, tuple(n - 1 for n in cells), tuple(n // 2 for n in cells)}:
        (slope,) = torch.autograd.grad(net(x)[(0, slice(None), *cell)].sum(), x)
        patch = cut(numbers, layer.field, cell)
        assert patch.shape[1:] == layer.field.size
        seen = set(numbers[0][slope[0].abs().sum(0) > 0].tolist())
        assert set(patch[patch > 0].tolist()) == seen  # no cell outside has a gradient, and every one inside has
        # what lies beyond the item is zero, on the side where it is
        outside = sum(1 for i in cell if i == 0)
        assert (patch[(0, *(0,) * ndim)] == 0) == (outside > 0)


def test_a_cut_of_all_that_is_seen() -> None:
    item = torch.arange(12.0).view(1, 3, 4)
    assert torch.equal(cut(item, Field((None, 3), (None, 1), (None, 0.0)), (0, 0))[0, :, 0], torch.zeros(3))
    assert torch.equal(cut(item, Field((None, None), (2, 2), (None, None)), (1, 1)), item)
    # beyond the input altogether
    assert torch.equal(cut(item, Field((1, 1), (1, 1), (-2.0, 0.0)), (0, 0)), torch.zeros(1, 1, 1))


class Twice(nn.Module):
    """A shared activation that runs twice, and one that writes over what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 2, 3, padding=1), nn.Conv1d(2, 2, 3, 2, padding=1)
        self.act, self.fc = nn.ReLU(inplace=True), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        return self.fc(F.relu_(self.act(self.second(x)) - 0.1).mean(2))


def test_what_comes_next_does_not_write_over_a_layer() -> None:
    torch.manual_seed(0)
    net, x = Twice(), torch.randn(2, 1, 8)
    plain = net(x)
    for graph in (True, False):
        with torch.set_grad_enabled(graph):
            outputs, written = run_through(net, x, "first")
        assert torch.equal(outputs, plain)
        assert torch.equal(written, net.first(x)) and float(written.detach().min()) < 0
    # a module that runs twice is its last run, also in what it sees
    outputs, written = run_through(net, x, "act")
    assert written.shape == (2, 2, 4)
    assert find_layer(net, (1, 8), "act").field == find_layer(net, (1, 8), "second").field
    (slope,) = torch.autograd.grad(outputs[:, 0].sum(), written)
    held = (written > 0.1).float()
    assert torch.allclose(slope, held * net.fc.weight[0, :, None] / 4, atol=1e-6)


def test_several_layers_in_one_pass_have_the_gradients_of_each() -> None:
    torch.manual_seed(0)
    net = create("resnet20", num_classes=3).eval()
    x, names = torch.randn(2, 3, 32, 32), ["stage 2", "stage 3", "layer3.2"]
    with undisturbed(net):
        outputs, written = run_through_all(net, x, names)
        together = torch.autograd.grad(outputs[:, 1].sum(), [written[name] for name in names])
        for name, slope in zip(names, together, strict=True):
            outputs, alone = run_through(net, x, name)
            assert torch.equal(alone, written[name])
            assert torch.allclose(torch.autograd.grad(outputs[:, 1].sum(), alone)[0], slope, atol=1e-6)
            given = x.clone().requires_grad_()  # also from the input on
            outputs, alone = run_through(net, given, name)
            kept, through = torch.autograd.grad(outputs[:, 1].sum(), [alone, given])
            assert torch.allclose(kept, slope, atol=1e-6) and float(through.abs().max()) > 0
    assert "forward_stages" not in vars(net)
    assert not any(module._forward_hooks for module in net.modules())


class Foreign(nn.Module):
    """Of somebody else: a container, a layer that is never asked, a branch that leads nowhere, an array inside."""

    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3, 2, 1))
        self.spare, self.dead = nn.Conv2d(1, 1, 1), nn.Conv2d(6, 6, 1)
        self.head, self.how = nn.Linear(6, 3), how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "values" and float(x.detach().abs().max()) > 1e6:
            raise ValueError("too large")
        if self.how == "array":
            x = torch.from_numpy(np.tanh(x.detach().numpy()))
        if self.how == "window":
            x = x * torch.hann_window(x.shape[-1], dtype=x.dtype)
        if self.how == "frozen":
            with torch.no_grad():
                x = self.features(x)
        else:
            x = self.features(x)
        self.dead(x)
        return self.head(x.relu().mean((2, 3)))


@pytest.mark.parametrize("how", ["", "values", "array", "window", "frozen"])
def test_networks_of_others(how: str) -> None:
    torch.manual_seed(0)
    net, x = Foreign(how), torch.randn(2, 1, 16, 16)
    known = {layer.name: layer for layer in layers(net, (1, 16, 16))}
    assert list(known) == ["features.0", "features.1", "features.2", "features", "dead"]
    assert known["features"].shape == (6, 4, 4)
    seen = Field((None, None), (None, None), (None, None)) if how == "array" else Field((7, 7), (4, 4), (0.0, 0.0))
    assert known["features"].field == seen
    outputs, written = run_through(net, x, "features")
    (slope,) = torch.autograd.grad(outputs[:, 2].sum(), written)
    assert torch.allclose(slope, (written > 0) * net.head.weight[2].view(-1, 1, 1) / 16)
    with pytest.raises(UsageError, match="'spare' has no grid as its output; known: dead, features"):
        run_through(net, x, "spare")


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    net = Foreign()
    with pytest.raises(UsageError, match=r"there is no layer 'feature\.2'; did you mean features\.2"):
        find_layer(net, (1, 16, 16), "feature.2")
    with pytest.raises(UsageError, match=r"there is no layer 'feature\.2'; did you mean features\.2"):
        run_through(net, torch.zeros(1, 1, 16, 16), "feature.2")
    with pytest.raises(UsageError, match="'head' has no grid as its output"):
        find_layer(net, (1, 16, 16), "head")
    with pytest.raises(UsageError, match="'stage 9'; did you mean stage"):
        find_layer(create("resnet20"), (3, 32, 32), "stage 9")
    with pytest.raises(UsageError, match="no layer whose output keeps the 1 axis"):
        layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 4))
    # a container whose children run, but never itself
    with pytest.raises(UsageError, match=r"'layer3'.*layer3\.0"):
        find_layer(create("resnet20"), (3, 32, 32), "layer3")


def test_a_module_with_two_names_answers_to_both() -> None:
    conv = nn.Conv1d(1, 1, 3, padding=1)
    net = nn.Sequential(conv, nn.ReLU(), conv)
    first, second = find_layer(net, (1, 9), "0"), find_layer(net, (1, 9), "2")
    assert (first.field, second.name) == (second.field, "2") and first.field.size == (5,)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_tokens_are_turned_into_grids(name: str, ndim: int) -> None:
    small: dict[str, Any] = {"ndim": ndim, "in_channels": 1, "num_classes": 2}
    small |= {"width": 8, "depth": 2, "heads": 2, "patch": 4, "spatial": 12} if name == "vit_b_16" else {}
    small |= {"width": 8, "depths": (2, 1), "heads": (1, 2), "patch": 2, "window": 3} if name == "swin_t" else {}
    net, x = create(name, **small).eval(), torch.randn(2, 1, *(12,) * ndim)
    known = layers(net, tuple(x.shape[1:]))
    # blocks work on tokens, or on grids with their channels last: neither is a grid
    assert not any("block" in each.name or each.name.startswith("stages.") for each in known)
    stages = [each for each in known if each.kind == "stage"]
    with undisturbed(net):
        for stage, exact in zip(stages, stage_fields(net, 1, (12,) * ndim), strict=True):
            outputs, written = run_through(net, x, stage.name)
            grid = as_grid(net, written, stage.name)
            assert tuple(grid.shape[1:]) == stage.shape and stage.field == exact
            (slope,) = torch.autograd.grad(outputs[:, 0].sum(), written)
            assert as_grid(net, slope, stage.name).shape == grid.shape
        # a convolution of such a network is a grid as it is
        embed = find_layer(net, tuple(x.shape[1:]), "embed")
        _, written = run_through(net, x, "embed")
        assert tuple(as_grid(net, written, "embed").shape[1:]) == embed.shape
        assert math.prod(embed.shape[1:]) == (3**ndim if name == "vit_b_16" else 6**ndim)


def test_nothing_is_left_behind() -> None:
    net = create("resnet20").train()
    drawn = torch.get_rng_state()
    known = layers(net, (3, 32, 32))
    assert all(isinstance(each, Layer) for each in known) and net.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(module._forward_hooks for module in net.modules()) and "forward_stages" not in vars(net)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    # double precision is asked in double precision
    assert layers(net.double(), (3, 32, 32)) == known
