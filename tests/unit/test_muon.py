"""Muon: orthogonal updates of convolutions, lengths that stay, AdamW for everything else."""

import pytest
import torch
from torch import nn

from gridsight.training.muon import ADAMW, COEFFICIENTS, STEPS, orthogonalised
from gridsight.training.optimiser import make_optimiser


@pytest.mark.parametrize("shape", [(1, 16, 27), (1, 64, 9), (4, 8, 18), (1, 32, 288)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    y = orthogonalised(x)
    values = torch.linalg.svdvals(y)
    assert float(values.min()) > 0.3 and float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    # the closest orthogonal matrix of x has the same singular vectors; the control is a random matrix of that shape
    inner = (y * (u @ v)).sum((1, 2)) / (y.norm(dim=(1, 2)) * (u @ v).norm(dim=(1, 2)))
    assert float(inner.min()) > 0.95
    other = torch.randn_like(x)
    assert float(((other * (u @ v)).sum((1, 2)) / other.norm(dim=(1, 2)) / (u @ v).norm(dim=(1, 2))).abs().max()) < 0.5


def test_the_iteration_is_that_of_the_paper() -> None:
    torch.manual_seed(5)
    x = torch.randn(2, 12, 40, dtype=torch.float64)
    y = x / x.norm(dim=(1, 2), keepdim=True)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        square = y @ y.mT
        y = a * y + (b * square + c * square @ square) @ y
    assert torch.allclose(orthogonalised(x), y, atol=1e-6)
    assert torch.allclose(orthogonalised(x.mT), y.mT, atol=1e-6)


def test_a_zero_gradient_gives_no_direction() -> None:
    assert not bool(orthogonalised(torch.zeros(2, 3, 5)).any())


def _stepped(net: nn.Module, gradients: dict[str, torch.Tensor], steps: int = 1, **options: float) -> nn.Module:
    optimiser = make_optimiser("muon", net, **({"lr": 0.1, "weight_decay": 0.01, "momentum": 0.9} | options))
    for _ in range(steps):
        for name, parameter in net.named_parameters():
            parameter.grad = gradients[name].clone().to(parameter.dtype)
        optimiser.step()
    return net


def test_a_step_turns_a_weight_by_the_rate_and_keeps_its_length() -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(8, 16, 3, bias=False)
    before = conv.weight.detach().clone()
    _stepped(conv, {"weight": torch.randn_like(before)}, lr=0.1)
    moved = conv.weight.detach() - before
    assert float(conv.weight.detach().norm()) == pytest.approx(float(before.norm()), rel=1e-6)
    assert float(moved.norm() / before.norm()) == pytest.approx(0.1, rel=0.1)


def test_a_weight_that_begins_at_zero_stays_finite() -> None:
    conv = nn.Conv1d(2, 3, 3, bias=False)
    nn.init.zeros_(conv.weight)
    _stepped(conv, {"weight": torch.randn_like(conv.weight)}, steps=3)
    assert bool(conv.weight.isfinite().all()) and float(conv.weight.detach().norm()) > 0


def test_all_but_convolutions_learn_as_by_adamw() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    gradients = {name: torch.randn_like(parameter) for name, parameter in net.named_parameters()}
    others = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters() if name != "0.weight"}
    groups = [
        {"params": [p for p in others.values() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in others.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    oracle = torch.optim.AdamW(groups, lr=0.1 * ADAMW, betas=(0.9, 0.999))
    for _ in range(3):
        for name, parameter in others.items():
            parameter.grad = gradients[name].clone()
        oracle.step()
    _stepped(net, gradients, steps=3)
    for name, parameter in net.named_parameters():
        if name != "0.weight":
            assert torch.allclose(parameter, others[name], rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_groups_are_turned_each_by_itself(kind: type[nn.Conv1d | nn.Conv2d | nn.Conv3d]) -> None:
    torch.manual_seed(3)
    conv = kind(8, 8, 3, groups=2, bias=False).double()
    before, gradient = conv.weight.detach().clone(), torch.randn_like(conv.weight)
    _stepped(conv, {"weight": gradient}, momentum=0.0)
    update = before - conv.weight.detach() * before.norm() / conv.weight.detach().norm()
    whole = orthogonalised(gradient.reshape(1, 8, -1)).reshape(2, 4, -1)
    apart = orthogonalised(gradient.reshape(2, 4, -1))

    def along(direction: torch.Tensor) -> float:
        flat = update.reshape(2, 4, -1)
        return float((flat * direction).sum() / flat.norm() / direction.norm())

    assert along(apart) > 0.97
    assert along(whole) < along(apart) - 0.01


def test_memory_order_says_nothing() -> None:
    torch.manual_seed(4)
    plain = nn.Conv2d(6, 8, 3, bias=False).double()
    last = nn.Conv2d(6, 8, 3, bias=False).double().to(memory_format=torch.channels_last)
    last.load_state_dict(plain.state_dict())
    gradient = torch.randn_like(plain.weight)
    _stepped(plain, {"weight": gradient}, steps=3)
    _stepped(last, {"weight": gradient.contiguous(memory_format=torch.channels_last)}, steps=3)
    assert torch.allclose(plain.weight, last.weight, rtol=1e-9)
