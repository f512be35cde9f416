"""What the training loop costs: Gridsight's loop against a bare PyTorch loop with the same network and batches.

Both train the default network on 28x28 pictures, batches already tensors, no augmentation, no average; they take turns,
and the ratio of each pair counts. Bar: the median ratio is at most 1.03.

    python benchmarks/bench_loop.py
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from bench_accuracy import matmul_rate
from torch.nn import functional as F

from gridsight.data.loader import Batch, Loader
from gridsight.models import create
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.tasks.classify import Classify
from gridsight.training.loop import Trainer
from gridsight.training.recipe import Recipe

BATCH, STEPS, ROUNDS = 256, 20, 31
ARGUMENTS = {"widths": (16, 32, 64, 64), "strides": (2, 1, 1, 1), "pools": (1, 2, 2, 1), "blocks": 0, "grid": 3}


class Ready(Loader):
    """The same batches for both loops, made before the clock starts."""

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        yield from BATCHES[start:]


class Through(FrontEnd):
    """Batches are what the network sees."""

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        return x


def make_batches() -> list[Batch]:
    """Random pictures with random labels, in channels-last memory."""
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.randn(BATCH, 1, 28, 28, generator=generator).contiguous(memory_format=torch.channels_last),
            torch.randint(0, 10, (BATCH,), generator=generator),
            torch.arange(BATCH),
        )
        for _ in range(STEPS)
    ]


def ours() -> float:
    """Seconds of one epoch in Gridsight's loop."""
    net = create("gridnet", ndim=2, in_channels=1, num_classes=10, **ARGUMENTS)
    x, y = np.zeros((BATCH * STEPS, 1, 1, 1), np.float32), np.zeros(BATCH * STEPS, np.int64)
    recipe = Recipe(2, ARGUMENTS, epochs=1, batch=BATCH, lr=0.1, weight_decay=5e-4)
    front = Through(FrontEndSettings(1.0, (0.0,), (1.0,)), 2)
    loader = Ready(x, y, np.arange(len(y)), BATCH)
    trainer = Trainer(
        net, front, Classify([str(i) for i in range(10)]), recipe, loader, None, seed=0, device=torch.device("cpu")
    )
    start = time.perf_counter()
    trainer.fit()
    return time.perf_counter() - start


def bare() -> float:
    """Seconds of the same epoch, written out."""
    net = create("gridnet", ndim=2, in_channels=1, num_classes=10, **ARGUMENTS).to(memory_format=torch.channels_last)
    net.train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    start = time.perf_counter()
    for batch in BATCHES:
        optimiser.zero_grad()
        loss = F.cross_entropy(net(batch.x), batch.y)
        loss.backward()
        optimiser.step()
        loss.item()
    return time.perf_counter() - start


BATCHES = make_batches()

if __name__ == "__main__":
    ours(), bare()
    pairs = [(ours(), bare()) for _ in range(ROUNDS)]
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, matmul {matmul_rate():.0f} GFLOP/s")
    print(f"a step: ours {a / STEPS * 1e3:.2f} ms, bare {b / STEPS * 1e3:.2f} ms (medians of {ROUNDS})")
    print(f"ratio: median {statistics.median(ratios):.3f}, from {ratios[0]:.3f} to {ratios[-1]:.3f}")
    sys.exit(statistics.median(ratios) > 1.03)
