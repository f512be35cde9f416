"""Which formulation of a convolution is the CPU's fastest? Depthwise, grouped, 1-D and 3-D ones, forward and backward.

Every formulation computes the same (checked before the clock starts) and gets its input in the memory that it likes
best, as the layer before would leave it; only "1-D by row, converted" pays for bringing channels-first memory there
and back. They take turns; milliseconds of processor time are medians, forward without gradients / forward and backward.
The table in `src/gridsight/nn/convolution.py` follows from what this prints.

    python benchmarks/bench_conv.py [--only depthwise-2d ...] [--rounds 5] [--compile]

--compile adds torch.compile, with the seconds of its first call. --networks compares whole networks instead, with
PyTorch's own layers and with ours.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from bench_accuracy import matmul_rate
from bench_step import CASES as STEPS
from bench_step import by_case
from small import machine
from torch import Tensor
from torch.nn import functional as F

from gridsight.core.allocator import keep_memory
from gridsight.models import create
from gridsight.nn import convolution
from gridsight.nn.convolution import formulation, row, taps

CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
LAST: dict[int, Any] = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True)
class Case:
    """A convolution with "same" padding: axes, items, channels in and out, cells and taps an axis, stride, groups."""

    ndim: int
    items: int
    c_in: int
    c_out: int
    cells: int
    taps: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        groups = {1: "", self.c_in: "depthwise "}.get(self.groups, f"in {self.groups} groups ")
        stride = f" stride {self.stride}" if self.stride > 1 else ""
        return (
            f"{self.ndim}-D {groups}{self.taps} taps{stride}, {self.c_in} to {self.c_out} channels, "
            f"{self.cells} cells, batch {self.items}"
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a forward pass."""
        out = math.ceil(self.cells / self.stride) ** self.ndim
        return self.items * out * self.c_out * self.c_in // self.groups * self.taps**self.ndim


def depthwise(ndim: int, *rows: tuple[int, ...]) -> list[Case]:
    """Rows are items, channels, cells, taps, and perhaps a stride."""
    return [Case(ndim, n, c, c, cells, k, *stride, groups=c) for n, c, cells, k, *stride in rows]


CASES = {
    "depthwise-2d": depthwise(2, (16, 32, 112, 3), (16, 96, 112, 3, 2), (16, 144, 56, 3), (16, 144, 56, 5),
                              (16, 144, 56, 5, 2), (16, 96, 56, 7), (32, 192, 28, 3), (16, 192, 28, 7),
                              (64, 384, 14, 3), (32, 384, 14, 5), (64, 512, 7, 3), (64, 480, 7, 5), (16, 768, 7, 7),
                              (16, 576, 4, 5)),
    "depthwise-1d": depthwise(1, (64, 64, 1000, 3), (16, 64, 1000, 9), (16, 64, 1000, 15), (16, 64, 1000, 39),
                              (64, 256, 250, 3), (16, 96, 256, 7)),
    "depthwise-3d": depthwise(3, (8, 64, 16, 3), (8, 64, 16, 3, 2), (4, 32, 32, 3), (8, 256, 4, 3), (4, 64, 16, 5)),
    "grouped": [Case(2, 16, c, c, cells, 3, groups=32) for c, cells in ((128, 56), (256, 28), (512, 14), (1024, 7))],
    "series": [Case(1, *row) for row in ((64, 32, 32, 1000, 3), (32, 128, 128, 1000, 3), (32, 64, 64, 1000, 9),
                                         (16, 32, 32, 1000, 39), (64, 32, 32, 250, 39), (16, 128, 128, 500, 8),
                                         (64, 256, 256, 250, 5), (16, 64, 64, 5000, 3), (4, 64, 64, 5000, 39))],
    "volumes": [Case(3, *row) for row in ((16, 16, 16, 32, 3), (8, 32, 32, 32, 3), (16, 64, 64, 16, 3),
                                          (4, 16, 16, 64, 3))],
}  # fmt: skip
NETWORKS: dict[str, tuple[str, tuple[int, ...], int, dict[str, Any]]] = {
    "resnet18 1-D, 5,000": ("resnet18", (5000,), 16, {}),
    "default 1-D, 60": ("gridnet", (60,), 16, dict(by_case(STEPS["default 1-D, 500 samples"]).arguments)),
    "default 1-D, 500": ("gridnet", (500,), 64, dict(by_case(STEPS["default 1-D, 500 samples"]).arguments)),
    "inception_time, 500": ("inception_time", (500,), 16, {}),
    "tcn, 500": ("tcn", (500,), 16, {}),
    "fcn, 500": ("fcn", (500,), 16, {}),
    "mobilenet_v2 1-D, 5,000": ("mobilenet_v2", (5000,), 16, {}),
    "mobilenet_v2 3-D, 32": ("mobilenet_v2", (32, 32, 32), 8, {}),
    "mobilenet_v2, 128": ("mobilenet_v2", (128, 128), 16, {}),
    "mobilenet_v3_small, 128": ("mobilenet_v3_small", (128, 128), 16, {}),
    "efficientnet_b0, 128": ("efficientnet_b0", (128, 128), 8, {}),
    "convnext_tiny, 96": ("convnext_tiny", (96, 96), 8, {}),
    "resnext50_32x4d, 96": ("resnext50_32x4d", (96, 96), 8, {}),
}


def last(x: Tensor) -> Tensor:
    """Channels-last memory; of a series (N, C, L) with strides (L C, 1, C)."""
    return (
        x.transpose(1, 2).contiguous().transpose(1, 2) if x.ndim == 3 else x.contiguous(memory_format=LAST[x.ndim - 2])
    )


def shifts(x: Tensor, case: Case) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Each tap's place and the cells it reads."""
    x = F.pad(x, (case.taps // 2,) * 2 * case.ndim)
    out = (x.shape[-1] - case.taps) // case.stride + 1
    for tap in itertools.product(range(case.taps), repeat=case.ndim):
        yield tap, x[(..., *(slice(t, t + (out - 1) * case.stride + 1, case.stride) for t in tap))]


def formulations(case: Case) -> dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]]:
    """(function of input and weights, whether it wants channels-last memory) by name."""
    stride, padding, groups = (case.stride,) * case.ndim, (case.taps // 2,) * case.ndim, case.groups
    ones = (1,) * case.ndim

    def own(x: Tensor, w: Tensor) -> Tensor:
        return CONV[case.ndim](x, w, None, stride, padding, 1, groups)

    def added(x: Tensor, w: Tensor) -> Tensor:
        weights = w.view(1, case.c_out, *w.shape[2:], *ones)
        y = None
        for tap, cells in shifts(x, case):
            weight = weights[(slice(None), slice(None), *tap)]
            y = cells * weight if y is None else torch.addcmul(y, cells, weight)
        assert y is not None
        return y

    def stacked(x: Tensor, w: Tensor) -> Tensor:
        return torch.einsum("knc...,ck->nc...", torch.stack([cells for _, cells in shifts(x, case)]), w.flatten(1))

    def unfolded(x: Tensor, w: Tensor) -> Tensor:
        cells = torch.cat([cells for _, cells in shifts(x, case)], 1)
        return torch.einsum("nk...,ok->no...", cells, w.movedim(1, -1).flatten(1))

    def column(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x.unsqueeze(3), w.unsqueeze(3), None, (*stride, 1), (*padding, 0), 1, groups).squeeze(3)

    def fourier(x: Tensor, w: Tensor) -> Tensor:
        size = x.shape[2] + case.taps
        product = "ncf,cf->ncf" if groups > 1 else "nif,oif->nof"
        weights = torch.fft.rfft(w[:, 0] if groups > 1 else w, size).conj()
        y = torch.fft.irfft(torch.einsum(product, torch.fft.rfft(F.pad(x, padding * 2), size), weights), size)
        return y[..., : x.shape[2]]

    def planes(x: Tensor, w: Tensor) -> Tensor:
        x, depth, total = F.pad(x, (0, 0, 0, 0, *padding[:1] * 2)), -(-x.shape[2] // case.stride), None
        for tap in range(case.taps):
            read = x[:, :, tap : tap + (depth - 1) * case.stride + 1 : case.stride].transpose(1, 2).flatten(0, 1)
            y = F.conv2d(read, w[:, :, tap], None, stride[1:], padding[1:], 1, groups)
            total = y if total is None else total + y
        assert total is not None
        return total.unflatten(0, (len(x), depth)).transpose(1, 2)

    def products(x: Tensor, w: Tensor) -> Tensor:
        cells = torch.stack([cells for _, cells in shifts(x, case)], 2).unflatten(1, (groups, -1))  # N G I K H W
        weights = w.flatten(2).unflatten(0, (groups, -1))  # G O I K
        return torch.einsum("ngikhw,goik->ngohw", cells, weights).flatten(1, 2)

    def merged(x: Tensor, w: Tensor) -> Tensor:
        each = case.c_in // groups
        many = max(1, 16 // each)
        blocks = torch.einsum("gaoi...,ab->gaobi...", w.view(groups // many, many, each, *w.shape[1:]), torch.eye(many))
        return F.conv2d(
            x, last(blocks.reshape(len(w), many * each, *w.shape[2:])), None, stride, padding, 1, groups // many
        )

    found = {"as it is": (own, False)}
    single = groups == case.c_in
    if case.ndim > 1:
        found["channels-last"] = (own, True)
    else:
        found["row"] = (lambda x, w: row(x, w, None, stride, padding, (1,), groups), True)
        found["row, converted"] = (lambda x, w: row(x, w, None, stride, padding, (1,), groups).contiguous(), False)
        found["column"], found["column, channels-last"] = (column, False), (column, True)
        if case.taps > 14:
            found["row by taps"] = (lambda x, w: row(x, w, None, stride, padding, (1,), groups, True), True)
            if case.stride == 1:
                found["Fourier"] = (fourier, False)
    if single:
        found |= {"added": (added, False), "added, channels-last": (added, True), "stacked": (stacked, False)}
        if case.ndim > 1:
            found["taps"] = (lambda x, w: taps(x, w, None, stride, padding, groups), True)
    elif groups == 1:
        found["unfolded"] = (unfolded, True)
    else:
        found |= {"products": (products, False), "merged": (merged, True)}
    if case.ndim == 3:
        found["planes"] = (planes, True)
    return found


def measure(case: Case, rounds: int, compiled: bool) -> dict[str, tuple[float, float]]:
    """(forward, forward and backward) in milliseconds by formulation."""
    torch.manual_seed(0)
    x = torch.randn(case.items, case.c_in, *[case.cells] * case.ndim)
    w = torch.randn(case.c_out, case.c_in // case.groups, *[case.taps] * case.ndim)
    ways = formulations(case)
    if compiled:
        ways["compiled"] = (torch.compile(ways["as it is"][0]), case.ndim > 1)
    expected = ways["as it is"][0](x, w)
    runs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    for name, (compute, channels_last) in ways.items():
        given = last(x) if channels_last else x.clone()
        given, weight = (
            given.requires_grad_(),
            (last(w) if channels_last and case.ndim > 1 else w.clone()).requires_grad_(),
        )
        start = time.perf_counter()
        y = compute(given, weight)
        if name == "compiled":
            print(f"    compiled: first call {time.perf_counter() - start:.1f} s")
        error = float((y - expected).detach().abs().max() / expected.abs().max())
        assert error < 1e-5, f"{name} of {case} is wrong by {error:.1e}"
        upstream = torch.randn_like(y)

        def forward(compute: Any = compute, given: Tensor = given, weight: Tensor = weight) -> None:
            with torch.no_grad():
                compute(given, weight)

        def both(compute: Any = compute, given: Tensor = given, weight: Tensor = weight, g: Tensor = upstream) -> None:
            torch.autograd.grad(compute(given, weight), (given, weight), g)

        runs[name] = (forward, both)
    return {name: (a, b) for name, (a, b) in alternate(runs, rounds).items()}


def alternate(runs: dict[str, tuple[Callable[[], object], ...]], rounds: int) -> dict[str, tuple[float, ...]]:
    """The median milliseconds of processor time of each function, after a turn to warm up."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in each] for name, each in runs.items()}
    for turn in range(rounds + 1):
        for name, each in runs.items():
            for found, run in zip(times[name], each, strict=True):
                start = time.process_time()
                run()
                if turn:
                    found.append(time.process_time() - start)
    return {name: tuple(1e3 * statistics.median(found) for found in each) for name, each in times.items()}


def chosen(case: Case) -> str:
    """What `nn/convolution.py` takes, by its name here."""
    ndim = case.ndim
    found = formulation(
        (case.c_in, case.c_out), case.groups, *((n,) * ndim for n in (case.taps, case.stride, 1, case.cells))
    )
    return {"row": "row", "plain": "channels-last"}.get(found, "row by taps" if ndim == 1 else "taps")


def networks(rounds: int, only: list[str]) -> None:
    """Training steps of whole networks, with PyTorch's own layers and with ours."""
    for name, (model, spatial, items, arguments) in NETWORKS.items():
        if only and name not in only:
            continue
        torch.manual_seed(0)
        net = create(model, ndim=len(spatial), in_channels=3, num_classes=10, **arguments).train()
        x, y = torch.randn(items, 3, *spatial), torch.randint(0, 10, (items,))
        if len(spatial) > 1:
            net, x = net.to(memory_format=LAST[len(spatial)]), last(x)

        def step(net: Any = net, x: Tensor = x, y: Tensor = y) -> None:
            net.zero_grad()
            F.cross_entropy(net(x), y).backward()

        def own(step: Callable[[], None] = step) -> None:
            with mock.patch.object(convolution, "_free", lambda x, weight: False):
                step()

        found = alternate({"own": (own,), "ours": (step,)}, rounds)
        a, b = found["own"][0], found["ours"][0]
        print(f"{name:26} PyTorch's layers {a:8.1f} ms, ours {b:8.1f} ms, gain {a / b:.2f}", flush=True)


def main() -> None:
    """Print a block a case; the formulation that is chosen is marked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=[], help=f"of {', '.join(CASES)}; with --networks, of its names")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--networks", action="store_true")
    given = parser.parse_args()
    keep_memory()
    print(f"{machine()}; matmul {matmul_rate():.0f} GFLOP/s")
    if given.networks:
        networks(given.rounds, given.only)
        return
    for kind, cases in CASES.items():
        for case in cases if not given.only or kind in given.only else ():
            found = measure(case, given.rounds, given.compile)
            reference, rate = found["as it is"], case.macs / found["as it is"][0] / 1e6
            print(f"{case} ({case.macs / 1e6:,.0f} M multiply-accumulates, {rate:.1f} G/s as it is)", flush=True)
            for name, (forward, both) in sorted(found.items(), key=lambda entry: entry[1][1]):
                mark = "*" if name == chosen(case) else " "
                print(
                    f"  {mark} {name:24} {forward:8.1f} / {both:8.1f} ms   gain {reference[1] / both:.2f}", flush=True
                )


if __name__ == "__main__":
    main()
