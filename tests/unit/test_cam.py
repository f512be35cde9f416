"""Methods that read a layer: equal to a published implementation, exact where they claim it, their layer chosen."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gridsight.attribution import attribute
from gridsight.attribution._faithful import faithfulness
from gridsight.attribution._layer import candidates
from gridsight.core.errors import UsageError
from gridsight.measure.layers import find_layer, place
from gridsight.models import MODELS, create
from gridsight.nn.undisturbed import undisturbed

# pytorch-grad-cam 1.5.7: `get_cam_image` below 0 cut off, of `_fixed()` for the targets 2 and 0. Its Grad-CAM++ adds
# 1e-6 to a quotient's lower part; the last weights are large so that this does not show.
PUBLISHED = {
    ("grad_cam", "1"): (
        (0.0, 18.8097879, 0.0, 0.0, 16.96673665, 0.0, 0.0, 21.24335879, 0.0),
        (0.0, 13.32809494, 0.0, 0.0, 11.24641939, 0.0, 0.0, 14.81446094, 0.0),
    ),
    ("grad_cam", "3"): (
        (0.0, 18.11087341, 0.0, 18.81481835, 0.0, 0.0, 14.51896807, 0.0, 0.0),
        (0.0, 0.0, 0.98697716, 0.0, 6.40646369, 4.57196681, 0.0, 11.90011297, 0.0),
    ),
    ("grad_cam_plus_plus", "1"): (
        (1.70968646, 1.92466546, 0.88501291, 1.24485195, 1.73607975, 1.18378421, 1.76757873, 2.17367464, 0.91733229),
        (0.44594258, 3.71528603, 0.46237021, 0.36526489, 3.78657851, 0.53108828, 0.43039401, 4.10115667, 0.50476372),
    ),
    ("grad_cam_plus_plus", "3"): (
        (8.15058692, 0.0, 4.46839158, 8.29333932, 0.0, 8.1225288, 7.71713266, 0.0, 8.25000084),
        (8.24211297, 1.40421968, 0.0, 8.49407732, 0.0, 0.0, 8.4646389, 0.0, 3.07813138),
    ),
    ("layer_cam", "1"): (
        (33.62341816, 22.17877464, 2.69350584, 15.71750004, 79.67818288, 11.7537636, 8.06749546, 18.28376685, 0.0),
        (1.92734083, 18.90336948, 15.73220995, 0.0, 27.50387926, 0.0, 0.0, 55.91474944, 3.52327324),
    ),
    ("layer_cam", "3"): (
        (44.20887373, 0.0, 22.6762029, 4.4733486, 11.05064607, 0.0, 0.0, 14.09724795, 2.79217701),
        (37.31056486, 26.92961125, 0.0, 0.0, 36.65949253, 0.0, 0.0, 26.32758722, 0.0),
    ),
}


def _fixed() -> tuple[nn.Module, Tensor]:
    """A network and inputs whose numbers no random generator makes."""
    ends = nn.Flatten(), nn.Linear(36, 3)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), *ends).double()
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            wave = torch.sin(torch.arange(1.0, p.numel() + 1, dtype=torch.float64) * (k + 2))
            p.copy_(wave.view(p.shape) * (50 if k > 3 else 1))
    return net, torch.cos(torch.arange(100, dtype=torch.float64) * 1.7).view(2, 2, 5, 5)


@pytest.mark.parametrize(("method", "layer"), list(PUBLISHED))
def test_equal_to_a_published_implementation(method: str, layer: str) -> None:
    net, x = _fixed()
    found = attribute(net, x, method, [2, 0], layer=layer)
    want = torch.tensor(PUBLISHED[method, layer], dtype=torch.float64).view(2, 3, 3)
    assert found.layer == layer and found.grid is not None and found.grid.dtype == torch.float64
    assert torch.allclose(found.grid, want, atol=1e-6)
    # placed where the layer's cells look, which here is not what stretching gives
    assert torch.equal(found.values, place(found.grid, find_layer(net, (2, 5, 5), layer).field, (5, 5)))
    assert found.values[0, 0, 0] == found.grid[0, 0, 0] and found.values[0, 2, 2] == found.grid[0, 1, 1]
    assert (found.passes, found.backward, found.notes) == (2, 2, ())


def test_grad_cam_of_a_mean_and_a_linear_layer_is_cam() -> None:
    net, x = _small("resnet18", 2), _noise(2, size=40)
    cam = attribute(net, x, "cam", 1)
    grad = attribute(net, x, "grad_cam", 1, layer=cam.layer, positive=False)
    assert cam.grid is not None and grad.grid is not None
    assert torch.allclose(cam.grid, grad.grid, atol=1e-6)


def _small(name: str, ndim: int, **changes: Any) -> Any:
    torch.manual_seed(0)
    entry = MODELS.get(name)
    arguments: dict[str, Any] = {**entry.arguments, **entry.item.small, "in_channels": 2, "num_classes": 3, **changes}
    return entry.item(ndim=ndim, **arguments).eval()


def _noise(ndim: int, count: int = 2, size: int | None = None) -> Tensor:
    size = size or {1: 64, 2: 40, 3: 24}[ndim]
    return torch.randn(count, 2, *(size,) * ndim, generator=torch.Generator().manual_seed(1))


MEANS = [
    ("resnet18", 1), ("resnet18", 2), ("resnet18", 3), ("densenet121", 1), ("densenet121", 2), ("googlenet", 2),
    ("squeezenet1_1", 2), ("squeezenet1_1", 3), ("fcn", 1), ("inception_time", 1), ("mc3_18", 3), ("mobilenet_v2", 2),
    ("efficientnet_b0", 2), ("regnet_x_16gf", 2), ("shufflenet_v2_x0_5", 2), ("inception_v3", 2), ("swin_s", 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ndim"), MEANS)
def test_cam_adds_up_to_the_logit(name: str, ndim: int) -> None:
    net, x = _small(name, ndim), _noise(ndim)
    found = attribute(net, x, "cam", [2, 0])
    assert found.parts is not None and found.grid is not None and found.gap is not None and found.residual is not None
    logits = net(x).detach()[torch.arange(2), torch.tensor([2, 0])].double()
    assert torch.allclose(found.gap, logits, atol=1e-6)
    assert float(found.residual.max()) < 1e-5
    assert found.parts.shape[1] == found.grid[0].numel() + 1 and found.grid[0].numel() > 1


def test_cam_of_the_default_network_with_one_cell() -> None:
    net = _small("gridnet", 2, grid=1)
    found = attribute(net, _noise(2), "cam", 1)
    assert found.residual is not None and float(found.residual.max()) < 1e-5


class Functional(nn.Module):
    """A global mean after functional calls alone, one of which writes over what it is given; no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 5, 3, 2), nn.Linear(5, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x += 0.5
        return self.fc(nn.functional.adaptive_avg_pool2d(x.relu_(), 1).flatten(1))


def test_cam_of_functional_calls() -> None:
    net, x = Functional(), _noise(2, size=9)
    found = attribute(net, x, "cam", 0)
    grid = (net.conv(x) + 0.5).relu().detach()
    terms = (grid * net.fc.weight[0].detach().view(1, -1, 1, 1)).sum(1) / 16
    assert found.grid is not None and torch.allclose(found.grid, terms, atol=1e-6)
    assert found.layer == "the grid before the mean"


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "vit_b_16", "simple_cnn", "convnext_base", "mobilenet_v3_large"])
def test_cam_refuses_other_networks(name: str) -> None:
    net = _small(name, 2)
    size = net.spatial[0] if net.spatial else net.cells[0] * net.patch[0] if name == "vit_b_16" else 64
    with pytest.raises(UsageError, match=r"global mean and one linear layer, and \w+ does not: take grad_cam"):
        attribute(net, _noise(2, size=size), "cam", 0)


def test_cam_refuses_a_pool_to_several_cells_and_a_grid_of_one() -> None:
    with pytest.raises(UsageError, match="GridNet does not"):
        attribute(_small("gridnet", 2, grid=3), _noise(2), "cam", 0)
    with pytest.raises(UsageError, match=r"the last grid of ResNet has one cell for \(8, 8\)"):
        attribute(_small("resnet18", 2), _noise(2, size=8), "cam", 0)


class Planted(nn.Module):
    """The answer is how much of a pattern lies in the left half; its first grid knows where, its last is mixed up."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Conv2d(1, 1, 4, 4, bias=False), nn.Conv2d(1, 1, 4, 1, padding=2, bias=False)
        nn.init.constant_(self.early.weight, 1 / 16)
        nn.init.constant_(self.late.weight, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.early(x).relu()
        left = torch.zeros_like(x)
        left[..., : x.shape[-1] // 2] = 1
        # the second layer has a part in the answer, but a small one
        value = (x * left).sum((1, 2, 3)) + 1e-3 * self.late(x)[..., 2:, 4:].sum((1, 2, 3))
        return torch.stack([value, -value], 1)


def test_the_most_faithful_layer_is_chosen_and_the_reason_said() -> None:
    net, x = Planted(), torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0)) + 0.1
    found = attribute(net, x, "layer_cam", 0)
    assert found.layer == "early"
    (note,) = found.notes
    said = re.fullmatch(r"early was the most faithful layer: (-?\d\.\d\d) \(others: late (-?\d\.\d\d)\)", note)
    assert said and float(said[1]) > float(said[2]) + 0.1
    # what the note says is what the network does
    with undisturbed(net):
        base, target = torch.zeros_like(x[0]), torch.tensor(0)
        other = attribute(net, x, "layer_cam", 0, layer="late")
        scores = faithfulness(net, x[0], base, target, torch.cat([found.values, other.values]), 64, 16)
    assert float(scores[0]) > float(scores[1])
    assert found.passes == 1 + 2 + 3 + 2 * 2 * 8  # the map, a look at the network, maps and ends, two layers
    # a layer that is named is taken without a word
    assert other.layer == "late" and other.notes == () and other.passes == 1


def test_where_nothing_tells_layers_apart_the_last_is_taken() -> None:
    found = attribute(_small("resnet18", 2), torch.zeros(1, 2, 40, 40), "grad_cam", 0)  # the item is its baseline
    assert found.layer == "stage 3"
    assert found.notes == ("stage 3 was the most faithful layer: 0.00 (others: stage 1 0.00, stage 2 0.00)",)


def test_of_a_foreign_network_the_last_layer_of_each_grid_is_tried() -> None:
    body = nn.Sequential(*[nn.Sequential(nn.Conv1d(c, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2)) for c in (2, 4, 4)])
    net = nn.Sequential(body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2))
    tried = [layer.name for layer in candidates(net, (2, 32))]
    assert tried == ["0.0.1", "0.1.1", "0.2.1", "0"]
    assert attribute(net, _noise(1, size=32), "grad_cam", 0).layer in tried


class Branches(nn.Module):
    """A branch that is computed and thrown away, one that is never computed, an answer without a gradient."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.conv, self.dead, self.never = nn.Conv2d(2, 4, 3, 2), nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
        self.fc, self.frozen = nn.Linear(4, 3), frozen

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.fc(self.conv(x).mean((2, 3)))


def test_layers_without_a_part_in_the_answer() -> None:
    net, x = Branches(), _noise(2, size=12)
    with pytest.raises(UsageError, match="'dead' has no part in the answer of Branches: take another"):
        attribute(net, x, "grad_cam", 0, layer="dead")
    with pytest.raises(UsageError, match="'never' has no grid as its output; known: conv, dead"):
        attribute(net, x, "grad_cam", 0, layer="never")
    with pytest.raises(UsageError, match="no layer 'cnov'; did you mean conv"):
        attribute(net, x, "grad_cam", 0, layer="cnov")
    with pytest.raises(UsageError, match="'fc' has no grid as its output"):
        attribute(net, x, "grad_cam", 0, layer="fc")
    found = attribute(net, x, "grad_cam", 0)
    assert found.layer == "conv" and found.notes == ("conv is the only layer with a grid of more than one cell",)
    with pytest.raises(UsageError, match="no layer of more than one cell with a part in the answer"):
        attribute(Branches(frozen=True), x, "grad_cam", 0)
    with pytest.raises(UsageError, match="no layer of more than one cell: take integrated_gradients"):
        attribute(nn.Sequential(nn.Conv1d(2, 2, 8), nn.Flatten()), _noise(1, size=8), "grad_cam", 0)


def test_a_batch_is_cut_into_parts_of_one_size_or_another(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = _small("resnet18", 2), _noise(2, count=5)
    whole = attribute(net, x, "layer_cam", 1, layer="stage 2")
    monkeypatch.setattr("gridsight.attribution._layer.at_once", lambda net, x: 2)
    parts = attribute(net, x, "layer_cam", 1, layer="stage 2")
    assert torch.allclose(whole.values, parts.values, atol=1e-6)


def test_the_class_token_is_no_cell() -> None:
    net = _small("vit_b_16", 2, spatial=12, patch=4)
    found = attribute(net, _noise(2, size=12), "grad_cam", 0, layer="stage 1", positive=False)
    assert found.grid is not None and found.grid.shape == (2, 3, 3)


FAMILIES = [
    (min(entries, key=lambda entry: len(entry.arguments)), ndim)
    for entries in MODELS.families()
    for ndim in entries[0].tags["ndims"]
]


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "ndim"), FAMILIES, ids=[f"{entry.name}-{ndim}d" for entry, ndim in FAMILIES])
def test_a_layer_is_found_in_every_network(entry: Any, ndim: int) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
    from test_models import Small

    small = Small(entry)
    net = small.build(ndim).eval()
    x = _noise(ndim, size=small.arguments["spatial"] if small.sized else None)
    for method in ("grad_cam", "grad_cam_plus_plus", "layer_cam"):
        found = attribute(net, x, method, 1)
        assert found.grid is not None and found.grid[0].numel() > 1 and len(found.notes) == 1
        assert found.values.shape == (2, *x.shape[2:]) and bool(found.values.isfinite().all())
        assert found.passes <= len(x) * 40
        again = attribute(net, x, method, 1, layer=found.layer)
        assert torch.equal(again.values, found.values)


def test_of_a_wrapped_network_the_layers_are_those_inside() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = create("resnet20", num_classes=3)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x / 2).log_softmax(1)

    found = attribute(Scaled().eval(), torch.rand(1, 3, 32, 32), "layer_cam", 0)
    assert found.layer is not None and re.fullmatch(r"net\.layer[123]\.2", found.layer)
