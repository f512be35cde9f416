"""The whitening layer: equal spread, no correlation, both signs; the control is a random layer."""

import pytest
import torch

from gridsight.models.gridnet import GridNet
from gridsight.nn.nd import Nd
from gridsight.nn.whiten import NOISE, whiten


def _correlated(ndim: int, channels: int) -> torch.Tensor:
    """Smooth noise, brought to deviation 1."""
    torch.manual_seed(0)
    x = Nd(ndim).AvgPool(3, 1)(torch.randn(40, channels, *[{1: 200, 2: 20, 3: 10}[ndim]] * ndim))
    x = x + 0.5 * x.mean(1, keepdim=True)
    return (x - x.mean()) / x.std()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_outputs_are_uncorrelated_and_spread_alike(ndim: int) -> None:
    x, channels = _correlated(ndim, 3), 3 * 3**ndim
    conv = Nd(ndim).Conv(3, 2 * channels + 2, 3, bias=False)
    before = conv.weight.detach().clone()

    def covariance() -> torch.Tensor:
        return conv(x).detach().movedim(1, 0).flatten(1)[:channels].double().cov()

    random = covariance()
    whiten(conv, x)
    found, off = covariance(), 1 - torch.eye(channels)
    spread = found.diagonal()
    assert float((found * off).abs().max()) < 0.02 * float(spread.max())
    assert float((random * off).abs().max()) > 0.2 * float(random.diagonal().max())  # the control
    # v / (v + noise), the largest first
    assert 0.9 < float(spread[0]) < 1.001 and bool((spread.diff() < 1e-3).all())
    assert float(spread.min()) > 0 and NOISE < 0.01
    weight = conv.weight
    assert torch.equal(weight[:channels], -weight[channels : 2 * channels])
    assert torch.equal(weight[2 * channels :], before[2 * channels :])  # no component is left for these


def test_gridnet_whitens_and_freezes_its_first_stage_alone() -> None:
    torch.manual_seed(1)
    net, x = GridNet((6, 8), ndim=2, in_channels=3, num_classes=2, blocks=0, pools=1), _correlated(2, 3)
    net.whiten(x)
    first = dict(net.stages[0].named_parameters())
    assert not any(parameter.requires_grad for parameter in first.values())
    assert all(p.requires_grad for name, p in net.named_parameters() if not name.startswith("stages.0"))
    net.train()(x).sum().backward()
    assert net.stages[1].conv.weight.grad is not None
    assert int(net.stages[0].norm.num_batches_tracked) == 1  # its statistics go on
