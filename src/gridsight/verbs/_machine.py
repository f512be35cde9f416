"""What this machine does with a plan: threads, seconds a step, memory; measured once, on a copy thrown away."""

import os
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gridsight.core.ranks import world_size
from gridsight.data.cache import Cached
from gridsight.nn.frontend import FrontEnd
from gridsight.nn.memory import is_out_of_memory
from gridsight.nn.nd import channels_last
from gridsight.tasks import make_task
from gridsight.training.methods.supervised import Supervised
from gridsight.training.optimiser import make_optimiser
from gridsight.verbs._plan import Plan

SMALL_STEP = 300_000_000
"""Multiply-accumulates of a forward pass of one batch below which one thread is used."""

AFTERWARDS = 90 << 20
"""Bytes that intervals, novelty and the figures of the report take on top: 22 to 143 MB in five runs."""


@dataclass(frozen=True)
class Speed:
    """Seconds of a training step and of an evaluation of as many items; bytes held at most, of a GPU or of the process.

    `parts` are those that a batch had to be computed in.
    """

    step: float
    evaluation: float
    memory: int
    parts: int


def use_threads(macs: int, most: int, before: int | None = None) -> int:
    """Set and return PyTorch's threads for steps of so many multiply-accumulates on the CPU: `most`, or one.

    `before`: as in that run.

    A small step gains little from a second thread (8 ms against 8 to 10 ms for the digits) and loses much where another
    process wants the core: 400 s instead of 15 s for GunPoint (`LAB.md`). OMP_NUM_THREADS, where set, decides.
    """
    small = "OMP_NUM_THREADS" not in os.environ and macs < SMALL_STEP
    torch.set_num_threads(before if before is not None else 1 if small else most)
    return torch.get_num_threads()


def measure(plan: Plan, data: Cached, device: torch.device, repeats: int = 5) -> Speed:
    """The best of `repeats` steps after one to warm up: front end, augmentation, forward, backward, update.

    Of several processes each computes its share of a batch, and a step takes as long. Memory that runs out doubles the
    parts of a batch, as in training.
    """
    while True:
        try:
            return _measure(plan, data, device, repeats)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or plan.accumulate >= min(plan.recipe.batch, len(data)):
                raise
        plan = replace(plan, accumulate=min(plan.recipe.batch, 2 * plan.accumulate))


def _measure(plan: Plan, data: Cached, device: torch.device, repeats: int) -> Speed:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # of other candidates, and of parts that did not fit
    net: Any = channels_last(plan.network(plan.seed).to(device))
    rows = np.arange(max(1, min(plan.recipe.batch, len(data)) // world_size()))
    batch = next(plan.loader(data, rows, len(rows)).in_order()).to(device)
    front = FrontEnd(plan.front, data.spec.ndim).to(device)
    if plan.recipe.whiten:
        net.whiten(front(batch.x))
    optimiser = make_optimiser(plan.recipe.optimizer, net, lr=0.0, weight_decay=0.0, momentum=plan.recipe.momentum)
    task = make_task(data.spec.task, data.spec.classes)
    method = Supervised(net, front, task, plan.recipe.augment, plan.seed, precision=plan.recipe.precision)
    evaluations = []

    def timed(shrunk: bool) -> float:
        start = _now(device)
        net.train()
        optimiser.zero_grad()
        method.step(batch, 0, min(plan.accumulate, len(rows)), shrunk)
        optimiser.step()
        return _now(device) - start

    whole = min([timed(False) for _ in range(repeats + 1)][1:])
    small = min([timed(True) for _ in range(repeats + 1)][1:]) if plan.recipe.shrunk else whole
    with torch.no_grad():
        net.eval()
        for part in (batch.rows(slice(0, -(-len(rows) // plan.accumulate))),) * 2:
            start = _now(device)
            net(front(part.x), part.mask)
            evaluations.append((_now(device) - start) * len(rows) / len(part.y))
    step = plan.recipe.shrunk * small + (1 - plan.recipe.shrunk) * whole
    return Speed(step, min(evaluations), peak_memory(device), plan.accumulate)


def peak_memory(device: torch.device) -> int:
    """Bytes that a run will hold at most: on a GPU those of tensors there, which training alone fills.

    Else what this process has held after the trial steps, and what follows.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) + AFTERWARDS


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
