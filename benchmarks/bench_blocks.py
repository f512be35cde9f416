"""What do two blocks buy: the depthwise separable convolution, and the four branches of an inception module?

1. A small network (four convolutions, 32 to 96 channels) with full and with depthwise separable convolutions of 3 taps
   on scikit-learn's 8x8 digits, five splits: test accuracy of both and the paired difference, parameters and
   multiply-accumulates as `measure.cost` counts them, and milliseconds a pass of 64 digits. Bar: at most 2 points lost.
2. Four tasks on pictures of 20x20 cells that one cell, or 3 or 5 taps an axis, are needed for: points of equal sum
   that are bright and few, or dim and many; pairs of points, side by side or one above the other, 1 or 4 cells apart;
   and both kinds of pairs at random. No point is within 4 cells of a border: zeros beyond it would tell a row from a
   column. One inception module and the maximum over cells. Each branch alone is trained on each task (what can it
   see?); then the whole module is trained and loses one branch at a time (what does it use?): the branch's channels
   are replaced by their mean over the test data. Bars: the 1-tap branch alone is at chance with pairs, the 3-tap
   branch with pairs 4 apart, the 5-tap branch above 95 % everywhere; the module loses most without its 5-tap branch on
   pairs 4 apart.

    python benchmarks/bench_blocks.py [--seeds 5] [--epochs 20]     # about three minutes of one core
"""

import argparse
import sys

import torch
from small import accuracy, digits, fit, machine, milliseconds, said
from torch import Tensor, nn

from gridsight.measure.cost import cost
from gridsight.models.googlenet import inception
from gridsight.models.mobilenet import separable
from gridsight.nn.blocks import Branches, conv_norm_act
from gridsight.nn.nd import Nd, he_init

ND = Nd(2)
ROW = (8, 4, 8, 4, 8, 8)
BRANCHES = {"branch1": "1 tap", "branch2": "3 taps", "branch3": "5 taps", "branch4": "pool"}
TASKS = ("brightness", "1 apart", "4 apart", "1 or 4 apart")
CELLS, BORDER, POINTS = 20, 4, 8


def chain(block: str, seed: int) -> nn.Sequential:
    """A full convolution, then three of the kind named, two of which stride."""
    torch.manual_seed(seed)
    make = separable if block == "separable" else conv_norm_act
    layers = [conv_norm_act(ND, 1, 32), make(ND, 32, 64, 3, 2), make(ND, 64, 96, 3, 1), make(ND, 96, 96, 3, 2)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))
    he_init(net)
    return net


def swap(seeds: int, epochs: int) -> bool:
    """The first question; whether the bar is met."""
    right: dict[str, list[float]] = {"full": [], "separable": []}
    for seed in range(seeds):
        x, y, tx, ty = digits(seed)
        for block, found in right.items():
            net = chain(block, seed)
            fit(net, lambda part, _, x=x, y=y: ((x[part],), y[part]), len(x), epochs, seed, 3e-3)
            found.append(accuracy(net, (tx,), ty))
    counts = {block: cost(chain(block, 0), (1, 8, 8)) for block in right}
    took = {block: milliseconds(chain(block, 0), torch.randn(64, 1, 8, 8)) for block in right}
    for block, found in right.items():
        each = counts[block]
        print(
            f"{block:10} {said(found)} % right, {each.parameters:,} parameters, {each.macs:,} MACs, "
            f"{took[block]:.2f} ms for 64"
        )
    lost = [a - b for a, b in zip(right["full"], right["separable"], strict=True)]
    full, thin = counts["full"], counts["separable"]
    print(
        f"lost {said(lost)} points; {full.parameters / thin.parameters:.1f} times fewer parameters, "
        f"{full.macs / thin.macs:.1f} times fewer MACs, {took['full'] / took['separable']:.1f} times faster",
        flush=True,
    )
    return sum(lost) / len(lost) <= 2


def pictures(task: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(count, 1, 20, 20) on noise of deviation 0.1, and the class, 0 or 1."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (count,), generator=draw)
    x = 0.1 * torch.randn(count, CELLS, CELLS, generator=draw)
    for i in range(count):
        if task == "brightness":
            few = bool(y[i])
            rows, columns = torch.randint(BORDER, CELLS - BORDER, (2, POINTS // (1 + few)), generator=draw)
            x[i, rows, columns] += 1.0 + few
            continue
        apart = {"1 apart": 1, "4 apart": 4}.get(task) or (1, 4)[int(torch.randint(0, 2, (1,), generator=draw))]
        down, right = (apart, 0) if y[i] else (0, apart)
        rows = torch.randint(BORDER, CELLS - BORDER - down, (POINTS // 2,), generator=draw)
        columns = torch.randint(BORDER, CELLS - BORDER - right, (POINTS // 2,), generator=draw)
        x[i, rows, columns] += 1.0
        x[i, rows + down, columns + right] += 1.0
    return x[:, None], y


class Largest(nn.Module):
    """(N, C, *spatial) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).amax(2)


def module(seed: int, only: str | None = None) -> nn.Sequential:
    """One inception module, or one branch of it, and a linear layer."""
    torch.manual_seed(seed)
    whole = inception(ND, 1, ROW, 5)
    branches = whole if only is None else Branches({only: whole[only]})
    with torch.no_grad():
        width = branches.eval()(torch.zeros(1, 1, CELLS, CELLS)).shape[1]
    return nn.Sequential(branches, Largest(), nn.Linear(width, 2))


def without(net: nn.Sequential, branch: str, x: Tensor, y: Tensor) -> float:
    """Percent right when the maxima of one branch are replaced by their mean over `x`."""
    with torch.no_grad():
        net.eval()
        parts = {name: net[1](own(x)) for name, own in net[0].items()}
        parts[branch] = parts[branch].mean(0).expand_as(parts[branch])
        found = net[2](torch.cat(list(parts.values()), 1)).argmax(1)
    return 100 * float((found == y).double().mean())


def scales(epochs: int) -> bool:
    """The second question; whether the bars are met."""
    alone: dict[tuple[str, str], float] = {}
    lost: dict[tuple[str, str], float] = {}
    for task in TASKS:
        x, y = pictures(task, 2000, 1)
        tx, ty = pictures(task, 1000, 2)

        def batch(part: Tensor, _: torch.Generator, x: Tensor = x, y: Tensor = y) -> tuple[tuple[Tensor], Tensor]:
            return (x[part],), y[part]

        for branch in BRANCHES:
            net = module(0, branch)
            fit(net, batch, len(x), epochs, 0, 1e-2)
            alone[task, branch] = accuracy(net, (tx,), ty)
        net = module(0)
        fit(net, batch, len(x), epochs, 0, 1e-2)
        all_four = accuracy(net, (tx,), ty)
        for branch in BRANCHES:
            lost[task, branch] = all_four - without(net, branch, tx, ty)
        words = ", ".join(f"{name} {alone[task, branch]:.1f}" for branch, name in BRANCHES.items())
        falls = ", ".join(f"{name} {lost[task, branch]:.1f}" for branch, name in BRANCHES.items())
        print(f"{task}: alone {words}; all four {all_four:.1f}, points lost without: {falls}", flush=True)
    pairs = TASKS[1:]
    return (
        all(alone[task, "branch1"] < 60 for task in pairs)
        and alone["4 apart", "branch2"] < 60
        and all(alone[task, "branch3"] > 95 for task in TASKS)
        and max(BRANCHES, key=lambda branch: lost["4 apart", branch]) == "branch3"
    )


def main() -> int:
    """Both questions; 1 when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    kept, seen = swap(given.seeds, given.epochs), scales(given.epochs)
    missed = [name for name, ok in (("separable", kept), ("inception", seen)) if not ok]
    print(f"bars missed: {', '.join(missed) or 'none'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
