"""What a training step costs: Gridsight's Trainer against the best PyTorch loop that we can write by hand.

Both train the same network on the same uint8 items in memory, by the same optimiser at a constant rate; they take
turns in one process, and the ratio of each pair counts. The loop by hand has PyTorch's own layers, channels-last
memory, the fused optimiser, its batches gathered ahead of the clock and no word from the loss until the end. Ours is
what `train` runs: batches from the loader, the front end, a look at each loss, the progress bar.

    python benchmarks/bench_step.py [--quick] [--only NAME ...] [--processor]

Bar: at least 0.97 of the items a second of the loop by hand in each row, the median of the pairs. Ratios are of wall
time, with --processor of processor time, which other work on the machine disturbs less.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from bench_accuracy import matmul_rate
from small import machine
from torch import Tensor, nn
from torch.nn import functional as F

from gridsight.core.allocator import keep_memory
from gridsight.data.loader import Loader
from gridsight.models import create
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.tasks.classify import Classify
from gridsight.training.loop import Trainer
from gridsight.training.recipe import Recipe, recipe

CLASSES = 10
BAR = 0.97
Clock = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """A network (None: the default one for such data), its input, items a batch and batches a turn."""

    model: str | None
    channels: int
    spatial: tuple[int, ...]
    batch: int
    steps: int


CASES = {
    "resnet18, 224 px": Case("resnet18", 3, (224, 224), 32, 2),
    "mobilenet_v2, 224 px": Case("mobilenet_v2", 3, (224, 224), 32, 2),
    "default, 28 px": Case(None, 1, (28, 28), 256, 20),
    "default, 32 px in colour": Case(None, 3, (32, 32), 256, 6),
    "default, 64 px in colour": Case(None, 3, (64, 64), 64, 12),
    "resnet18 1-D, 5,000 samples": Case("resnet18", 1, (5000,), 32, 2),
    "default 1-D, 500 samples": Case(None, 1, (500,), 64, 12),
    "resnet18 3-D, 64 cubed": Case("resnet18", 1, (64, 64, 64), 4, 2),
}


def by_case(case: Case) -> Recipe:
    """The default network for such data, of one epoch, nothing but the step: no augmentation, no average.

    By SGD at full size on both sides: PyTorch has no Muon for convolutions, and what Muon costs is another question.
    """
    found = recipe(len(case.spatial), case.channels, case.spatial, CLASSES, 10_000, colour=case.channels == 3)
    found = replace(
        found,
        batch=case.batch,
        epochs=1,
        augment=(),
        average=0.0,
        label_smoothing=0.0,
        schedule="constant",
        optimizer="sgd",
        lr=0.01,
        shrunk=0.0,
    )
    return found if case.model is None else replace(found, model=case.model, arguments={})


def turns(case: Case, clock: Clock) -> tuple[Callable[[], float], Callable[[], float]]:
    """(ours, by hand): seconds of a turn."""
    ndim, plan = len(case.spatial), by_case(case)
    count = case.batch * case.steps
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, case.channels, *case.spatial), np.uint8)
    y = rng.integers(0, CLASSES, count)
    torch.manual_seed(0)
    net = create(plan.model, ndim=ndim, in_channels=case.channels, num_classes=CLASSES, **plan.arguments)
    settings = FrontEndSettings(255.0, (0.5,) * case.channels, (0.25,) * case.channels)

    def ours() -> float:
        front, task = FrontEnd(settings, ndim), Classify([str(i) for i in range(CLASSES)])
        loader = Loader(x, y, np.arange(count), case.batch)
        cpu = torch.device("cpu")
        trainer = Trainer(copy.deepcopy(net), front, task, plan, loader, None, seed=0, device=cpu)
        start = clock()
        trainer.fit()
        return clock() - start

    def by_hand() -> float:
        own = plain(copy.deepcopy(net))
        memory: Any = {2: torch.channels_last, 3: torch.channels_last_3d}.get(ndim, torch.contiguous_format)
        own = own.train() if ndim == 1 else own.to(memory_format=memory).train()
        optimiser = make(plan, own)
        batches = [
            (torch.from_numpy(x[i :: case.steps]), torch.from_numpy(y[i :: case.steps])) for i in range(case.steps)
        ]
        start = clock()
        for items, labels in batches:
            given = items.to(torch.float32, memory_format=memory).mul_(1 / 63.75).sub_(2.0)
            optimiser.zero_grad()
            F.cross_entropy(own(given), labels).backward()
            optimiser.step()
        return clock() - start

    return ours, by_hand


def plain(net: nn.Module) -> nn.Module:
    """The network with PyTorch's own layers in place of ours."""
    for module in net.modules():
        kind = type(module)
        if kind.__module__ == "gridsight.nn.convolution":
            module.__class__ = getattr(nn, kind.__name__)
    return net


def make(plan: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's fused optimiser as the recipe has it, one group: what few decay and what not costs nothing."""
    parameters: list[Tensor] = list(net.parameters())
    if plan.optimizer == "sgd":
        given = {"momentum": plan.momentum, "nesterov": True, "weight_decay": plan.weight_decay, "fused": True}
        return torch.optim.SGD(parameters, plan.lr, **given)
    betas = (plan.momentum, 0.999)
    return torch.optim.AdamW(parameters, plan.lr, betas=betas, weight_decay=plan.weight_decay, fused=True)


def main() -> int:
    """One row a case; 1 where the bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="three pairs a row instead of nine")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--processor", action="store_true", help="count processor time")
    parser.add_argument("--returned", action="store_true", help="freed memory goes back to the system, as by default")
    given = parser.parse_args()
    clock: Clock = time.process_time if given.processor else time.perf_counter
    if not given.returned:
        keep_memory()
    print(f"{machine()}; matmul {matmul_rate():.0f} GFLOP/s")
    missed = []
    for name in given.only:
        case = CASES[name]
        ours, by_hand = turns(case, clock)
        ours(), by_hand()
        pairs = [(ours(), by_hand()) for _ in range(3 if given.quick else 9)]
        ratios = sorted(b / a for a, b in pairs)
        count, middle = case.batch * case.steps, statistics.median(ratios)
        rates = [count / statistics.median(column) for column in zip(*pairs, strict=True)]
        print(
            f"{name:28} ours {rates[0]:9,.1f} items/s, by hand {rates[1]:9,.1f}; "
            f"ratio {middle:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
            flush=True,
        )
        missed += [name] * (middle < BAR)
    print(f"below {BAR}: {', '.join(missed) or 'none'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
