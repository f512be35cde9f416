"""Is the verdict right where the evidence is known? Sound methods on clean networks, and explainers that are broken.

Small GridNets learn planted patterns (`attribution.judge.planted`) in 1-D, 2-D and 3-D, to 97 % and more of new items.
Each class has an output of its own against all else, so that an answer depends on its pattern and on nothing else: with
softmax it may also go up and down with what every class has. Then, for each of 20 networks and 10 new items:

- every method explains the right class: how many maps are red, and by which check; whether the map's highest cell (of
  regions: one of them) lies in the pattern, and for how many items the middle does; the overlap with the pattern
  (intersection over union) at the best threshold. A gradient's sizes are taken, of the others what is above 0.
- explainers that are broken: cells or regions dealt out anew; the map moved by half of each axis; the evidence for
  another class; edges of the input; the same map for all; guided backpropagation of a network with shuffled weights.

    python benchmarks/bench_verdict.py [1 2 3] [--seeds 20] [--items 10] [--methods cam ...]

Bars: at most 3 of 200 false reds of each method that is tagged sound; pointing 0.9 of green maps; overlap 0.6 of
methods that judge single cells. About 10, 20 and 20 minutes of one core for 1, 2 and 3 axes.
"""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from small import fit
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from gridsight.attribution import EXPLAINERS, Explainer, Map
from gridsight.attribution._regions import spread
from gridsight.attribution.judge import judge, says_sizes
from gridsight.attribution.judge.planted import CLASSES, planted
from gridsight.attribution.judge.randomised import shuffled
from gridsight.core import seed as hashing
from gridsight.models import create

ITEMS, EPOCHS = 512, 12
BREAKABLE = ("integrated_gradients", "grad_cam", "shapley")
Made = Callable[[Explainer, Map, nn.Module, Tensor, Tensor], Map]


def trained(ndim: int, seed: int) -> nn.Module:
    """A GridNet that has learned the patterns."""
    x, y, _ = planted(ndim, ITEMS, 10_000 + seed)
    torch.manual_seed(seed)
    net = create(
        "gridnet",
        ndim=ndim,
        in_channels=1,
        num_classes=len(CLASSES),
        widths=(8, 16),
        blocks=(0, 1),
        pools=(2, 2) if ndim < 3 else (2, 1),
    )

    def batch(rows: Tensor, _: torch.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        return (x[rows],), one_hot(y[rows], len(CLASSES)).float()

    fit(net, batch, ITEMS, EPOCHS, seed, 0.03, loss=binary_cross_entropy_with_logits)
    return net.eval()


# ---- explainers that are broken


@dataclass(frozen=True)
class Broken:
    """What another method says, made wrong by `made`."""

    own: Explainer
    made: Made

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        return self.made(self.own, self.own(net, x, target), net, x, target)


def dealt(own: Explainer, found: Map, net: nn.Module, x: Tensor, target: Tensor) -> Map:
    """Cells, or regions, in another order, the same for every item."""
    if found.regions is not None and found.parts is not None:
        order = torch.from_numpy(hashing.permutation(0, 1, found.parts.shape[1]))
        return Map(values=spread(found.parts[:, order], found.regions).float(), regions=found.regions)
    flat = found.values.flatten(1)
    return Map(values=flat[:, torch.from_numpy(hashing.permutation(0, 1, flat.shape[1]))].view(found.values.shape))


def elsewhere(own: Explainer, found: Map, net: nn.Module, x: Tensor, target: Tensor) -> Map:
    """Moved by half of each axis."""
    axes = tuple(range(1, found.values.dim()))
    return Map(values=found.values.roll([found.values.shape[axis] // 2 for axis in axes], axes))


def other_class(own: Explainer, found: Map, net: nn.Module, x: Tensor, target: Tensor) -> Map:
    """Of the next class."""
    return Map(values=own(net, x, (target + 1) % len(CLASSES)).values)


def edges(own: Explainer, found: Map, net: nn.Module, x: Tensor, target: Tensor) -> Map:
    """Where the input changes."""
    slopes = torch.gradient(x[:, 0], dim=list(range(1, x.dim() - 1)))
    return Map(values=torch.stack([slope.abs() for slope in slopes]).sum(0))


def same(own: Explainer, found: Map, net: nn.Module, x: Tensor, target: Tensor) -> Map:
    """The middle, whatever the item."""
    axes = [torch.linspace(-1, 1, n) for n in x.shape[2:]]
    return Map(values=(-torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0)).expand(x[:, 0].shape))


def broken(net: nn.Module, seed: int) -> Iterator[tuple[str, Explainer]]:
    """Names and explainers."""
    for name in BREAKABLE:
        own = EXPLAINERS.create(name)
        for made in (dealt, elsewhere, other_class):
            yield f"{name}, {made.__name__}", Broken(own, made)
    gradient, other = EXPLAINERS.create("gradient"), shuffled(net, 99 + seed)
    guided = EXPLAINERS.create("guided_backprop")
    yield "edges", Broken(gradient, edges)
    yield "the middle", Broken(gradient, same)
    yield "guided, of shuffled weights", Broken(gradient, lambda own, found, net, x, t: guided(other, x, t))


# ---- figures


def points(values: Tensor, truth: Tensor, regions: Tensor | None) -> tuple[bool, bool]:
    """Whether the highest cell, or a cell of the highest region, is in the pattern; and whether the middle is."""
    middle = tuple(n // 2 for n in truth.shape)
    if regions is None:
        return bool(truth.flatten()[values.argmax()]), bool(truth[middle])
    best = regions.flatten()[values.argmax()]
    return bool(truth[regions == best].any()), bool(truth[regions == regions[middle]].any())


def overlap(values: Tensor, truth: Tensor) -> float:
    """Intersection over union at the best threshold."""
    inside = truth.flatten()[values.flatten().argsort(descending=True)].double().cumsum(0)
    return float((inside / (torch.arange(1, len(inside) + 1) + truth.sum() - inside)).max())


def run(ndim: int, seeds: int, items: int, names: list[str]) -> None:
    """One table for methods, one for broken explainers."""
    start, table, reasons = time.perf_counter(), defaultdict[str, list[tuple[float, ...]]](list), Counter[str]()
    wrong, alike, right = defaultdict[str, Counter[str]](Counter), defaultdict[str, list[float]](list), []
    for seed in range(seeds):
        net = trained(ndim, seed)
        x, y, truth = planted(ndim, 500, 20_000 + seed)
        with torch.no_grad():
            right.append(float((net(x).argmax(1) == y).double().mean()))
        x, y, truth = x[:items], y[:items], truth[:items]
        for name in names:
            own = EXPLAINERS.create(name)
            found = own(net, x, y)
            for i, verdict in enumerate(judge(net, x, y, own, found, seed=seed)):
                values = found.values[i].abs() if says_sizes(own) else found.values[i]
                regions = None if found.regions is None else found.regions[i]
                hit, middle = points(values, truth[i], regions)
                green = verdict.colour == "green"
                table[name].append(
                    (verdict.colour == "red", green, hit, hit and green, middle, overlap(values, truth[i]))
                )
                alike[name].append(verdict.checks[2].value or 0.0)
                reasons.update(f"{name}: {c.name} {c.colour}" for c in verdict.checks if c.colour != "green")
        for name, own in broken(net, seed):
            found = own(net, x, y)
            wrong[name].update(verdict.colour for verdict in judge(net, x, y, own, found, seed=seed))
        own, other = EXPLAINERS.create("guided_backprop"), shuffled(net, 99 + seed)
        found = own(other, x, y)
        wrong["guided, its map of shuffled weights"].update(v.colour for v in judge(net, x, y, own, found, seed=seed))
    minutes = (time.perf_counter() - start) / 60
    print(f"\n{ndim}-D {tuple(x.shape[2:])}: {seeds} networks, {items} items each, {minutes:.0f} minutes; ", end="")
    print(f"right on {min(right):.1%} and more of new items")
    print(f"{'method':22s} sound   red  green  points  of green  middle  overlap  alike: median and most")
    for name, rows in table.items():
        red, green, hit, both, middle, over = (sum(column) for column in zip(*rows, strict=True))
        n, like, sound = len(rows), torch.tensor(alike[name]), EXPLAINERS.get(name).tags["sound"]
        print(
            f"{name:22s} {'yes' if sound else 'no':5s} {red:5.0f} {green:6.0f} {hit / n:7.2f} "
            f"{both / max(1, green):9.2f} {middle / n:7.2f} {over / n:8.2f} "
            f"{float(like.median()):8.2f} {float(like.max()):5.2f}"
        )
    for reason, count in sorted(reasons.items()):
        print(f"  {reason}: {count}")
    print(f"{'broken':40s}  red amber green")
    for name, colours in wrong.items():
        print(f"{name:40s} {colours['red']:4d} {colours['amber']:5d} {colours['green']:5d}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ndims", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--items", type=int, default=10)
    parser.add_argument("--methods", nargs="*", default=EXPLAINERS.names())
    given = parser.parse_args()
    for ndim in given.ndims:
        run(ndim, given.seeds, given.items, given.methods)
