"""Filters, maps and pools: what a hook sees, winners by brute force, random filters; and no trace of any look."""

import itertools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridsight.core.errors import UsageError
from gridsight.inside.concepts import find_concepts
from gridsight.inside.detectors import detectors
from gridsight.inside.dream import dream
from gridsight.inside.filters import Filters, filters
from gridsight.inside.maps import feature_maps
from gridsight.inside.mutagenesis import mutagenesis
from gridsight.inside.patches import top_patches
from gridsight.inside.pooled import pooled
from gridsight.inside.receptive import effective
from gridsight.inside.similarity import similarity
from gridsight.models import create

SPATIAL = {1: (24,), 2: (12, 10), 3: (8, 6, 7)}
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class Shared(nn.Module):
    """A plain module, no `Net`: one in-place activation that runs twice, a max pool, dropout, a functional mean."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[ndim]
        self.first, self.second = CONV[ndim](2, 6, 3, padding=1), CONV[ndim](6, 8, 3)
        self.norm, self.act, self.pool = norm(6), nn.ReLU(inplace=True), POOL[ndim](2)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.norm(self.first(x))))
        return self.fc(self.drop(self.act(self.second(x)).flatten(2).mean(2)))


def _x(ndim: int, count: int = 8) -> Tensor:
    return torch.randn(count, 2, *SPATIAL[ndim], generator=torch.Generator().manual_seed(1))


LOOKS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "maps": lambda net, x: feature_maps(net, x[0], ["norm", "act"])[0].values,
    "pooled": lambda net, x: pooled(net, x[0]).winner,
    "patches": lambda net, x: torch.from_numpy(top_patches(net, x, "second", k=2).values),
    "receptive": lambda net, x: effective(net, x, "second").heat,
    "dream": lambda net, x: dream(net, "second", 1, x, steps=3).x,
    "output": lambda net, x: dream(net, None, 1, x, steps=3).x,
    "similarity": lambda net, x: torch.from_numpy(similarity(net, x, ["first", "second", "fc"]).values),
    "concepts": lambda net, x: torch.from_numpy(find_concepts(net, x, "act", 2, controls=2).effect),
}


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("look", LOOKS)
def test_no_trace_is_left_and_modes_change_nothing(look: str, ndim: int) -> None:
    net, x = Shared(ndim).eval(), _x(ndim)
    expected = LOOKS[look](net, x)
    assert not expected.requires_grad
    net.train().first.register_forward_hook(lambda *given: None)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before, given = _state(net), x.clone()
    torch.manual_seed(3)
    drawn = torch.get_rng_state()
    with torch.inference_mode():
        found = LOOKS[look](net, x.clone())
    assert torch.equal(found, expected)
    assert _state(net) == before and torch.equal(torch.get_rng_state(), drawn)
    LOOKS[look](net, x)
    assert torch.equal(x, given)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_no_trace_is_left_after_an_error(look: str, error: type[BaseException]) -> None:
    net, x = Shared(2).train(), _x(2)
    calls = itertools.count()

    def fail(*given: Any) -> None:
        if next(calls) >= (look not in ("maps", "similarity")):
            raise error("stop")

    handle = net.fc.register_forward_pre_hook(fail)
    before = _state(net)
    with pytest.raises(error):
        LOOKS[look](net, x)
    assert _state(net) == before
    handle.remove()


def _state(net: nn.Module) -> list[Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [(m.training, [list(getattr(m, h)) for h in hooks], vars(m).get("inplace")) for m in net.modules()]
    values = [(p.requires_grad, p.dtype, p.detach().flatten().tolist()) for p in net.parameters()]
    gradients = [None if p.grad is None else p.grad.flatten().tolist() for p in net.parameters()]
    return [modules, values, gradients, [b.flatten().tolist() for b in net.buffers()]]


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_maps_are_what_a_hook_sees(ndim: int) -> None:
    net = create("gridnet", ndim=ndim, in_channels=2, num_classes=3, widths=(8, 12), blocks=(0, 1), pools=(2, 1))
    item, seen = _x(ndim)[0], {}
    net.eval()
    names = [name for name, module in net.named_modules() if name and not list(module.children())]
    grids = [name for name in names if "fc" not in name and "head" not in name]
    handles = [
        net.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: seen.update({name: o.detach().clone()})
        )
        for name in grids
    ]
    with torch.no_grad():
        net(item[None])
    for handle in handles:
        handle.remove()
    grids = [name for name in grids if seen.get(name) is not None and seen[name].dim() == ndim + 2]
    found = feature_maps(net, item, [*grids, "stage 1", "stage 2"])
    assert len(grids) > 3
    for maps in found[:-2]:
        assert torch.equal(maps.values, seen[maps.layer][0])
        assert maps.scale == float(seen[maps.layer].abs().max())
    with torch.no_grad():
        for stage, maps in zip(net.forward_stages(item[None]), found[-2:], strict=True):
            assert torch.equal(maps.values, stage[0])


@pytest.mark.parametrize(
    ("ndim", "settings"),
    [
        (1, {"kernel_size": 3, "stride": 2, "padding": 1}),
        (1, {"kernel_size": 2, "stride": 3, "ceil_mode": True}),
        (2, {"kernel_size": 2}),
        (2, {"kernel_size": 3, "stride": 2, "padding": 1}),
        (2, {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "dilation": (2, 1), "ceil_mode": True}),
        (3, {"kernel_size": 2, "stride": (1, 2, 2)}),
        (3, {"kernel_size": (3, 2, 3), "stride": 2, "padding": (1, 1, 0), "dilation": (1, 1, 2)}),
    ],
)
def test_the_winner_of_a_window_is_its_first_largest_cell(ndim: int, settings: dict[str, Any]) -> None:
    net = nn.Sequential(POOL[ndim](**settings))
    item = _x(ndim)[0].mul(2).round()  # with many ties
    found = pooled(net, item)
    assert torch.equal(found.after, net(item[None])[0]) and torch.equal(found.before, item)
    out = found.after.shape[1:]
    for c, *cell in itertools.product(range(2), *map(range, out)):
        best, where = -math.inf, None
        for offset in itertools.product(*map(range, found.kernel)):
            place = [
                i * s - p + o * d
                for i, s, p, o, d in zip(cell, found.stride, found.padding, offset, found.dilation, strict=True)
            ]
            if all(0 <= i < size for i, size in zip(place, item.shape[1:], strict=True)) and item[(c, *place)] > best:
                best, where = float(item[(c, *place)]), place
        assert found.winner[(c, *cell)].tolist() == where
    assert torch.equal(found.pixels, found.winner.double())  # it pools the input itself


def test_arrows_end_at_the_pixels_that_the_winner_sees() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 5, stride=2), nn.MaxPool2d(3, 2, 1))
    x = _x(2)[:1].requires_grad_()
    found = pooled(net, x[0].detach())
    assert found.layer == "1"
    after = net(x)
    for c, i, j in ((0, 0, 0), (1, 1, 1), (3, 1, 0)):
        (slope,) = torch.autograd.grad(after[0, c, i, j], x, retain_graph=True)
        cells = slope[0].abs().sum(0).nonzero()
        middle = (cells.amin(0) + cells.amax(0)) / 2
        assert found.pixels[c, i, j].tolist() == middle.tolist()


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_filters_of_any_convolution(ndim: int, groups: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ReLU(), CONV[ndim](4, 8, 3, groups=groups))
    found = filters(net)
    assert found.layer == "1" and found.groups == groups and found.weights.shape == (8, 4 // groups, *[3] * ndim)
    assert found.scale == float(net[1].weight.detach().abs().max())
    lengths = [float(w.square().sum()) for w in net[1].weight.detach()]
    assert found.order == sorted(range(8), key=lambda i: -lengths[i])
    turned = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[ndim](4, 8, 3, groups=groups)
    own = filters(turned).weights
    # what filter i writes about a single cell of its group's first channel is its own weights there
    x = torch.zeros(1, 4, *[1] * ndim)
    x[0, 0] = 1
    with torch.no_grad():
        said = turned(x)[0] - turned.bias.view(-1, *[1] * ndim)
    assert torch.allclose(said[: 8 // groups], own[: 8 // groups, 0], atol=1e-6)


def _gratings(count: int = 20, noise: float = 0.0) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Filters (count, 3, 7, 7), grey, of known angle and frequency."""
    ys, xs = torch.meshgrid(torch.arange(7.0) - 3, torch.arange(7.0) - 3, indexing="ij")
    rows, angles, frequencies = [], [], []
    for i in range(count):
        turn, frequency = math.pi * i / count, 0.15 + 0.1 * (i % 3)
        wave = 2 * math.pi * frequency * (math.cos(turn) * xs + math.sin(turn) * ys) + i
        rows.append(torch.exp(-(xs**2 + ys**2) / 8) * wave.cos())
        angles.append((math.degrees(turn) + 90) % 180)
        frequencies.append(frequency)
    grey = torch.stack(rows)[:, None].expand(-1, 3, -1, -1)
    return (
        grey + noise * torch.randn(grey.shape, generator=torch.Generator().manual_seed(0)),
        np.array(angles),
        np.array(frequencies),
    )


def test_gratings_are_found_with_angle_and_frequency_and_are_no_luck() -> None:
    weights, angles, frequencies = _gratings()
    found = detectors(Filters("c", "Conv2d", weights, 1))
    assert found.fit.min() > 0.995
    assert np.abs((found.degrees - angles + 90) % 180 - 90).max() < 2
    assert np.abs(found.frequency - frequencies).max() < 0.01
    assert found.opponency.max() < 1e-6
    assert found.orientation.p < 0.001 and found.orientation.trained > 0.99 > 0.3 > found.orientation.random
    upright = detectors(Filters("c", "Conv2d", torch.tensor([-1.0, 0, 1]).expand(1, 1, 3, 3), 1))
    assert upright.degrees[0] == pytest.approx(90, abs=5)


def test_colour_is_told_from_grey_and_noise_is_neither() -> None:
    weights, _, _ = _gratings()
    opponent = weights * torch.tensor([1.0, 0, -1]).view(1, 3, 1, 1)
    mixed = torch.cat([weights[:10], opponent[10:], torch.zeros(1, 3, 7, 7)])
    found = detectors(Filters("c", "Conv2d", mixed, 1))
    assert found.opponency[:10].max() < 1e-6 and found.opponency[10:20].min() > 1 - 1e-6
    assert found.live.tolist() == [True] * 20 + [False] and math.isnan(found.fit[20])
    assert np.allclose(np.abs(found.colour[10:20] @ [0.5**0.5, 0, -(0.5**0.5)]), 1)
    assert found.colours is not None and found.colours.p < 0.001
    # random filters against random filters: the level of the test holds
    drawn = torch.randn(12, 12, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    said = [detectors(Filters("c", "Conv2d", w, 1), permutations=499, seed=i) for i, w in enumerate(drawn)]
    assert sum(each.orientation.p < 0.05 for each in said) <= 2
    assert sum(each.colours.p < 0.05 for each in said if each.colours) <= 2
    assert all(np.isnan(detectors(Filters("c", "Conv1d", torch.randn(4, 1, 9), 1)).opponency))


@pytest.mark.parametrize("shape", [(6, 2, 15), (4, 1, 5, 5, 5)])
def test_gabors_are_fitted_in_one_and_three_dimensions(shape: tuple[int, ...]) -> None:
    ndim = len(shape) - 2
    axes = torch.meshgrid(*[torch.arange(float(k)) - (k - 1) / 2 for k in shape[2:]], indexing="ij")
    wave = torch.tensor([0.2, 0.1, 0.15][:ndim])
    phase = 2 * math.pi * sum(w * a for w, a in zip(wave, axes, strict=True))
    one = torch.exp(-sum(a**2 for a in axes) / 8) * torch.cos(phase + 0.5)
    found = detectors(Filters("c", "Conv", one.expand(*shape), 1))
    assert found.fit.min() > 0.97
    assert np.abs(found.wave * np.sign(found.wave[:, -1:]) - wave.numpy()).max() < 0.02


def test_published_filters_are_detectors() -> None:
    path = Path(os.environ.get("GRIDSIGHT_DATA", "")) / "ckpt_resnet_cifar10/resnet20-12fca82f.th"
    if "GRIDSIGHT_DATA" not in os.environ or not path.exists():
        pytest.skip("$GRIDSIGHT_DATA has no published ResNet-20")
    weights = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]["module.conv1.weight"]
    found = detectors(Filters("conv1", "Conv2d", weights, 1))
    assert found.orientation.p < 0.001 and found.orientation.trained > found.orientation.random + 0.2
    assert found.colours is not None and found.colours.p < 0.001


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: filters(nn.Sequential(nn.Linear(2, 2))), "has no convolution"),
        (lambda: filters(Shared(2), "frist"), "there is no layer 'frist'; did you mean first"),
        (lambda: filters(Shared(2), "norm"), "is BatchNorm2d, no convolution; known: first, second"),
        (lambda: filters(nn.Sequential(nn.Sequential(nn.Conv1d(1, 1, 1))), "0"), "in it are 0.0"),
        (lambda: filters(nn.Sequential(nn.LazyConv2d(4, 3))), "has no weights yet"),
        (lambda: feature_maps(Shared(2), _x(2)[0], ["secnd"]), "there is no layer 'secnd'; did you mean second"),
        (lambda: feature_maps(Shared(2), _x(2)[0], ["fc"]), "has no grid of 2 axes"),
        (lambda: feature_maps(Shared(2), _x(2), ["first"]), r"one item \(C, height, width\)"),
        (lambda: feature_maps(Shared(2), _x(2)[0].long(), ["first"]), "floating-point"),
        (lambda: feature_maps(create("gridnet"), torch.zeros(3, 28, 28), ["stage 9"]), "does not run"),
        (lambda: pooled(nn.Sequential(nn.Conv2d(2, 2, 1)), _x(2)[0]), "has no max pool"),
        (lambda: pooled(Shared(2), _x(2)[0], "first"), "is Conv2d, no max pool; known: pool"),
        (lambda: detectors(filters(nn.Conv2d(3, 3, 2))), "2 x 2 cells is too small"),
        (lambda: detectors(Filters("c", "Conv2d", torch.zeros(3, 3, 3, 3), 1)), "all filters of 'c' are zero"),
        (lambda: top_patches(Shared(2), _x(2), "second", [8]), "unit 8: second has units 0 to 7"),
        (lambda: top_patches(Shared(2), [], "second"), "there is no data"),
        (lambda: top_patches(Shared(2), [_x(2), _x(2)[..., :8]], "second"), r"the first batch has \(2, 12, 10\)"),
        (lambda: top_patches(Shared(2), _x(2), "secand"), "did you mean second"),
        (lambda: top_patches(Shared(2), _x(2)[0], "second"), r"a batch \(N, C, height, width\), not \(2, 12, 10\)"),
        (lambda: effective(Shared(2), _x(2), "second", cell=(9, 0)), "second has 4 x 3 cells"),
        (lambda: dream(Shared(2), "second", 9, _x(2)), "unit 9: second has units 0 to 7"),
        (lambda: dream(Shared(2), None, 3, _x(2)), "unit 3: Shared has units 0 to 2"),
        (lambda: dream(Shared(2), "second", 0), "give data, a start or the shape"),
        (lambda: dream(Shared(2), "second", 0, how="maxx", shape=(2, 8, 8)), "did you mean max"),
        (lambda: similarity(Shared(2), _x(2)[:3], ["first"]), "3 items: similarity takes at least 4"),
        (lambda: similarity(Shared(2), torch.ones(8, 2, 8, 8), ["first"]), "says the same of all 8 items"),
        (lambda: find_concepts(Shared(2), _x(2), "act", 9), "8 channels: it cannot be made of 9"),
        (lambda: find_concepts(Shared(2), _x(2)[:1], "act", 2), "at least 2 items"),
        (lambda: mutagenesis(Shared(1), torch.rand(2, 2, 9)), "sequence 0 is not one-hot at position 0"),
        (lambda: mutagenesis(Shared(1), F.one_hot(torch.zeros(1, 9).long(), 2).mT.float(), 3), "outputs are 0 to 2"),
    ],
)
def test_bad_requests_say_what_is_right(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()
