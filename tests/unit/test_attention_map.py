"""Attention as evidence: against a network that reads one known cell, rollout by hand, and clear refusals."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridsight.attribution import attribute
from gridsight.core.errors import UsageError
from gridsight.models import create


class Reader(nn.Module):
    """Every cell of (N, 1, *spatial) is a token; a first one asks for the largest, and the answer is its value."""

    def forward(self, x: Tensor) -> Tensor:
        cells = x.flatten(1)[:, None, :, None]  # (N, 1 head, T, 1)
        asked = torch.cat([torch.full_like(cells[:, :, :1], 9.0), cells], 2)
        read = F.scaled_dot_product_attention(torch.full_like(asked, 4.0), asked.clamp(max=8) - 9 * (asked == 9), asked)
        return torch.cat([read[:, 0, 0], -read[:, 0, 0]], 1)


@pytest.mark.parametrize("spatial", [(12,), (5, 5), (3, 3, 3)])
def test_the_cell_that_was_read_has_the_relevance(spatial: tuple[int, ...]) -> None:
    x = torch.zeros(2, 1, *spatial)
    x[0].view(-1)[7] = 5.0
    x[1].view(-1)[3] = 5.0
    for gradient in (True, False):
        found = attribute(Reader(), x, "attention", 0, gradient=gradient).values
        assert found.flatten(1).argmax(1).tolist() == [7, 3]
    # what is read speaks for one output and against the other, which rollout cannot tell
    assert float(attribute(Reader(), x, "attention", 1).values.abs().max()) == 0
    rollout = [attribute(Reader(), x, "attention", k, gradient=False).values for k in (0, 1)]
    assert torch.equal(*rollout)


def test_rollout_is_the_product_of_half_attentions() -> None:
    torch.manual_seed(0)
    net = create(
        "deit_tiny", ndim=2, in_channels=1, num_classes=3, width=16, depth=2, heads=2, patch=2, spatial=8
    ).eval()
    x = torch.randn(1, 1, 8, 8)
    seen: list[Tensor] = []
    for module in net.modules():
        if hasattr(module, "matrix"):
            module.register_forward_pre_hook(lambda m, given: seen.append(m.matrix(*given)[0].mean(0)))
    with torch.no_grad():
        net(x)
    first, second = ((m + torch.eye(17)) / 2 for m in seen)
    expected = (second @ first)[0, 1:].view(4, 4)
    found = attribute(net, x, "attention", 0, gradient=False)
    assert found.grid is not None and torch.allclose(found.grid[0], expected, atol=1e-6)


def test_networks_without_it_are_told_what_to_take() -> None:
    x = torch.randn(1, 3, 32, 32)
    with pytest.raises(UsageError, match="no scaled_dot_product_attention"):
        attribute(create("resnet20").eval(), x, "attention", 0)
    with pytest.raises(UsageError, match="within windows"):
        attribute(create("swin_t", num_classes=3).eval(), torch.randn(1, 3, 64, 64), "attention", 0)
