"""What the experiments on small data share: digits, a plain loop of training, and intervals over seeds.

Nothing here is part of the package: an experiment about a block must not depend on the recipes that its users get.
"""

import math
import platform
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = Callable[[Tensor, torch.Generator], tuple[tuple[Tensor, ...], Tensor]]
"""From the numbers of items and a generator to what the network is given, and the labels."""


def digits(seed: int, test: int = 360) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's 1,797 digits (N, 1, 8, 8) of mean 0 and deviation 1, and labels: training, then `test` items."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = torch.from_numpy(found.images.astype(np.float32))[:, None], torch.from_numpy(found.target)
    x = (x - x.mean()) / x.std()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order[test:]], y[order[test:]], x[order[:test]], y[order[:test]]


def fit(
    net: nn.Module,
    batch: Batch,
    items: int,
    epochs: int,
    seed: int,
    lr: float,
    size: int = 64,
    adam: bool = True,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> list[float]:
    """Train: AdamW, or SGD with momentum 0.9 and decay 1e-4; the rate rises for a tenth of the steps, then falls to 0
    along a cosine. The mean loss of each epoch, in training mode."""
    params = net.parameters()
    optimiser: torch.optim.Optimizer = (
        torch.optim.AdamW(params, lr, weight_decay=0.01)
        if adam
        else torch.optim.SGD(params, lr, momentum=0.9, weight_decay=1e-4, nesterov=True)
    )
    numbers = torch.Generator().manual_seed(seed)
    steps, taken, losses = epochs * (items // size), 0, []
    net.train()
    for _ in range(epochs):
        total = 0.0
        for part in torch.randperm(items, generator=numbers)[: items // size * size].split(size):
            rate = min(1.0, 10 * (taken + 1) / steps) * 0.5 * (1 + math.cos(math.pi * taken / steps))
            for group in optimiser.param_groups:
                group["lr"] = lr * rate
            inputs, labels = batch(part, numbers)
            now = loss(net(*inputs), labels)
            optimiser.zero_grad()
            now.backward()
            optimiser.step()
            total += float(now.detach())
            taken += 1
        losses.append(total / (items // size))
    return losses


@torch.no_grad()
def accuracy(net: nn.Module, inputs: Sequence[Tensor], labels: Tensor) -> float:
    """Percent right in evaluation mode."""
    net.eval()
    found = torch.cat([net(*parts).argmax(1) for parts in zip(*(x.split(256) for x in inputs), strict=True)])
    return 100 * float((found == labels).double().mean())


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t, the runs being what varies."""
    from scipy.stats import t

    a = np.asarray(values, float)
    half = float(t.ppf(0.975, len(a) - 1) * a.std(ddof=1) / math.sqrt(len(a))) if len(a) > 1 else math.nan
    return float(a.mean()), float(a.mean()) - half, float(a.mean()) + half


def said(values: Sequence[float], digits: int = 2) -> str:
    """The mean with its interval in words."""
    mean, low, high = interval(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def milliseconds(net: nn.Module, *inputs: Tensor, passes: int = 50) -> float:
    """The median of a pass in evaluation mode."""
    net.eval()
    times = []
    with torch.inference_mode():
        for _ in range(passes + 5):
            start = time.perf_counter()
            net(*inputs)
            times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[5:]))


def machine() -> str:
    """Processor, threads and PyTorch, for the record."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} thread, torch {torch.__version__}"


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().splitlines()
    except OSError:
        return []
