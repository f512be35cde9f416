"""What gradients, integrated gradients, DeepLift, guided backpropagation and occlusion cost: Gridsight against captum.

Same network, same inputs, same target, one thread. They take turns, and the ratio of each pair of processor times
counts. "our sum" and "their sum": how far it is off, of f(x) - f(baseline). "to 1e-3": steps
are doubled from 16 until every item's sum is right to 1e-3, or 256; of ours that is the default. Occlusion takes the
same windows, of theirs eight to a pass (one is their default). "off by" is the largest difference of both maps, of the
largest value. "plain" networks call every rectifier as a module of its own and once, as theirs needs for DeepLift and
guided backpropagation; of others only what is the same work is compared. Bar: no median ratio above 1.05.

    pip install captum
    python benchmarks/bench_attribution.py [NETWORK ...]
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from bench_accuracy import matmul_rate
from torch import nn

from gridsight.attribution import attribute
from gridsight.models import create

BAR, SECONDS = 1.05, 3.0
STEPS, TOLERANCE = (16, 32, 64, 128, 256), 1e-3
CASES: tuple[tuple[str, dict[str, Any], tuple[int, ...], int], ...] = (
    # network, its arguments, an input's channels and axes, items
    ("plain", {}, (3, 64, 64), 1),
    ("plain", {}, (3, 64, 64), 8),
    ("plain", {}, (1, 1024), 4),
    ("gridnet", {"in_channels": 1, "num_classes": 10}, (1, 28, 28), 1),
    ("inception_time", {"ndim": 1, "in_channels": 1, "num_classes": 5}, (1, 512), 4),
    ("resnet18", {}, (3, 224, 224), 1),
)

Said = tuple[torch.Tensor, torch.Tensor | None]
"""A map, and how far its sum is off, (N,), where it has one."""


def theirs(net: Any, x: torch.Tensor, window: tuple[int, ...]) -> dict[str, Callable[[], Said]]:
    """What they say, by the name that a method has here."""
    try:
        from captum import attr
    except ImportError as error:
        sys.exit(f"captum is needed to compare with ({error}): pip install captum")

    def integrated(steps: int) -> Said:
        return attr.IntegratedGradients(net).attribute(x, target=1, n_steps=steps, return_convergence_delta=True)

    def to_tolerance() -> Said:
        with torch.no_grad():
            gap = (net(x) - net(torch.zeros_like(x)))[:, 1]
        for steps in STEPS:
            found, off = integrated(steps)
            if bool((off.abs() <= TOLERANCE * gap.abs()).all()):
                break
        return found, off

    occluded = {"sliding_window_shapes": window, "strides": window, "perturbations_per_eval": 8}
    return {
        "gradient": lambda: (attr.Saliency(net).attribute(x, target=1, abs=False), None),
        "integrated_gradients, 32": lambda: integrated(32),
        "integrated_gradients, to 1e-3": to_tolerance,
        "deeplift": lambda: attr.DeepLift(net).attribute(x, target=1, return_convergence_delta=True),
        "guided_backprop": lambda: (attr.GuidedBackprop(net).attribute(x, target=1), None),
        "occlusion": lambda: (attr.Occlusion(net).attribute(x, target=1, **occluded) / prod(window), None),
    }


def ours(net: Any, x: torch.Tensor, name: str, window: tuple[int, ...]) -> Any:
    settings: dict[str, dict[str, Any]] = {
        "integrated_gradients, 32": {"steps": 32, "most": 32},
        "occlusion": {"size": window[1:]},
    }
    return attribute(net, x, name.partition(",")[0], 1, **settings.get(name, {}))


def seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def ratio_of(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float, float]:
    """Median processor times in milliseconds, and the median ratio of pairs."""
    first(), second()
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(pairs) < 3:
        pairs.append((seconds(first), seconds(second)))
    a, b = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    return a, b, statistics.median(x / y for x, y in pairs)


def plain(shape: tuple[int, ...]) -> nn.Module:
    """Six convolutions with norms, a pool after each second one."""
    ndim, channels, layers = len(shape) - 1, shape[0], list[nn.Module]()
    conv, norm, pool, mean = (
        getattr(nn, f"{kind}{ndim}d") for kind in ("Conv", "BatchNorm", "MaxPool", "AdaptiveAvgPool")
    )
    for number, width in enumerate((32, 32, 64, 64, 128, 128)):
        layers += [conv(channels, width, 3, padding=1), norm(width), nn.ReLU()]
        layers += [pool(2)] if number % 2 else []
        channels = width
    return nn.Sequential(*layers, mean(1), nn.Flatten(), nn.Linear(channels, 10))


def trained(name: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> Any:
    """The network with norms and biases off their start values, at which many a path is straight."""
    torch.manual_seed(0)
    net = (plain(shape) if name == "plain" else create(name, **arguments)).train()
    for parameter in net.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    with torch.no_grad():
        for _ in range(10):
            net(torch.randn(8, *shape))
    return net.eval()


def main(only: list[str]) -> bool:
    """Whether every case keeps the bar."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # theirs, about hooks and gradients
    print(f"1 thread, torch {torch.__version__}, matmul {matmul_rate():.0f} GFLOP/s; milliseconds of processor time")
    columns = f"{'ours':>8} {'theirs':>8} {'ratio':>6} {'off by':>7} {'our sum':>8} {'their sum':>9}"
    print(f"{'network':15} {'input':12} {'N':>3} {'method':30} {columns}")
    kept = True
    for name, arguments, shape, count in CASES:
        if only and name not in only:
            continue
        net, x = trained(name, arguments, shape), torch.randn(count, *shape)
        window = (shape[0], *(side // 8 for side in shape[1:]))
        for method, peer in theirs(net, x, window).items():
            too_long = method.endswith("1e-3") and x.numel() > 5_000
            if too_long or (name != "plain" and method in ("deeplift", "guided_backprop")):
                continue
            mine = ours(net, x, method, window)
            sums = "" if mine.residual is None else f"{float(mine.residual.max()):8.0e}"
            row = f"{name:15} {'x'.join(map(str, shape)):12} {count:3} {method:30}"
            try:
                other, delta = peer()
            except (RuntimeError, AssertionError) as error:
                print(f"{row} they fail: {str(error).splitlines()[0][:60]} {sums}", flush=True)
                continue
            other = other.sum(1).detach()
            if delta is not None:
                sums += f" {float((delta.detach().abs() / mine.gap.abs()).max()):9.0e}"
            off = float((mine.values - other).abs().max() / other.abs().max())
            a, b, ratio = ratio_of(partial(ours, net, x, method, window), peer)
            kept &= ratio <= BAR
            print(f"{row} {a:8.1f} {b:8.1f} {ratio:6.2f} {off:7.0e} {sums}", flush=True)
    return kept


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1:]))
