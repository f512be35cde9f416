"""What networks start from: deviations layer by layer of He's, Xavier's and data-driven start values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gridsight
from gridsight.core.errors import UsageError
from gridsight.data.loader import Batch
from gridsight.models import MODELS, create
from gridsight.nn.lsuv import lsuv
from gridsight.nn.nd import glorot_init, he_init
from gridsight.verbs._phases import _unpadded


def deviations(start: Any) -> Tensor:
    """(50,): the deviation after each of 50 layers of 3 taps and ReLU; a circle, so that no border loses any."""
    torch.manual_seed(0)
    layers = [nn.Conv1d(384, 384, 3, padding=1, padding_mode="circular", bias=False) for _ in range(50)]
    x, found = torch.randn(8, 384, 12), []
    with torch.no_grad():
        for layer in layers:
            start(layer)
            x = layer(x)
            found.append(x.std())
            x = x.relu()
    return torch.stack(found)


def test_he_keeps_the_signal_through_fifty_layers_and_xavier_loses_it() -> None:
    he, xavier = deviations(he_init), deviations(glorot_init)
    assert he.min() > 0.5 and he.max() < 2
    # half the variance a layer: 2^-25 of the deviation after 50
    assert float((xavier[-1] / xavier[0]).log2()) == pytest.approx(-49 / 2, abs=1)


@pytest.mark.parametrize("name", ("vgg11", "resnet18", "tcn", "vit_b_16"))
def test_lsuv_gives_every_layer_outputs_of_deviation_one(name: str) -> None:
    ndim = 1 if name == "tcn" else 2
    torch.manual_seed(0)
    given = {"spatial": (16, 16), "patch": 4} if name.startswith("vit") else {}
    net = create(name, ndim=ndim, in_channels=2, num_classes=3, **MODELS.get(name).item.small | given).eval()
    x, before = 40 * torch.randn(16, 2, *(16,) * ndim) + 7, dict(net.named_buffers())
    before = {key: value.clone() for key, value in before.items()}
    found = lsuv(net, x)
    assert not net.training and all(torch.equal(value, before[key]) for key, value in net.named_buffers())
    assert len(found) > 4 and max(abs(value - 1) for value in found.values()) > 0.1, "it had something to do"
    deviations: dict[str, list[float]] = {}

    def look(name: str, layer: nn.Module, y: Tensor) -> None:
        bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (0 if isinstance(layer, nn.Linear) else ndim))
        deviations.setdefault(name, []).append(float((y - bias).detach().std()))

    for key in found:
        net.get_submodule(key).register_forward_hook(lambda m, _, y, key=key: look(key, m, y))
    for module in net.modules():
        module.training = not isinstance(module, nn.Dropout)
    net(x)
    assert deviations.keys() == found.keys()
    assert [values[0] for values in deviations.values()] == pytest.approx([1] * len(found), abs=1e-3)
    again = create(name, ndim=ndim, in_channels=2, num_classes=3, **MODELS.get(name).item.small | given).eval()
    again.load_state_dict(net.state_dict())
    lsuv(net, x)  # the seed alone decides the directions
    for (key, value), other in zip(again.state_dict().items(), net.state_dict().values(), strict=True):
        torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-4, msg=key)


def test_a_run_from_values_by_the_data(tmp_path: Path) -> None:
    def train(name: str, **more: Any) -> Any:
        return gridsight.train("digits", out=str(tmp_path / name), model="simple_cnn", epochs=3, report=False, **more)

    plain, scaled, again = train("plain"), train("scaled", lsuv=True), train("again", lsuv=True)
    assert scaled.metrics["accuracy"]["value"] > 0.5
    weights = [(run.path / "model.safetensors").read_bytes() for run in (plain, scaled, again)]
    assert weights[0] != weights[1] == weights[2]
    with pytest.raises(UsageError, match="--lsuv draws the first weights anew"):
        train("no", lsuv=True, pretrained=True)


def test_padding_takes_no_part_in_start_values() -> None:
    x = torch.arange(3 * 6.0).view(3, 1, 6)
    batch = Batch(x, torch.zeros(3, dtype=torch.int64), torch.arange(3), sizes=torch.tensor([[6], [4], [2]]))
    assert torch.equal(_unpadded(batch), x[:2, :, :4])
    apart = replace(batch, x=torch.ones(3, 1, 5, 5), sizes=torch.tensor([[5, 2], [2, 5], [3, 3]]))
    assert _unpadded(apart).shape == (3, 1, 2, 2), "one item alone is of the median size on both axes"
    assert _unpadded(replace(batch, sizes=None)) is x


def test_a_run_of_a_network_with_arguments(tmp_path: Path) -> None:
    def train(name: str, *arguments: str, **more: Any) -> Any:
        settings = {"model": "resnet20", "epochs": 1, "report": False, "arguments": arguments} | more
        return gridsight.train("digits", out=str(tmp_path / name), **settings)

    run = train("run", "width=4", "depths=(1,2)", "shortcut=pad")
    net = run.predictor().net
    assert net.conv1.out_channels == 4 and [len(net.layer1), len(net.layer2)] == [1, 2]
    assert gridsight.resume(run=str(run.path)).metrics == run.metrics
    for words, message in (
        (("widht=4",), "no argument 'widht'; did you mean width"),
        (("ndim=3",), "--arguments ndim: the data say it"),
        (("width",), "write NAME=VALUE"),
        (("width=4", "model"), "write NAME=VALUE"),
    ):
        with pytest.raises(UsageError, match=message):
            train("no", *words)
        assert not (tmp_path / "no").exists()
    with pytest.raises(UsageError, match="those of --model NAME"):
        train("no", "width=4", model="auto")
