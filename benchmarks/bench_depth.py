"""What do shortcuts do for deep networks? The slim residual networks for small pictures on scikit-learn's 8x8 digits.

Every network is `resnet20` with other depths: widths 4, 8, 16, batch norm after each convolution, He's initialisation.
Its plain twin (`shortcut="none"`) is the same network without the shortcuts, of equal parameters, trained by the same
recipe: SGD, momentum 0.9, decay 1e-4, a warm-up and a cosine, batches of 64, no augmentation. What is compared is the
loss of training, in training mode, mean of the last epoch: the accuracy of test data would speak of overfitting.

1. A hundred layers: 110 layers reach a loss below 0.1, the plain twin stays above 0.5 (best of three learning rates).
2. Degradation: over seeds, plain-44 is worse than plain-8 in training, and residual-44 is not worse than residual-8.
3. Gradients at the start, in one stage of equal blocks: the norm of the gradient of the first block's first
   convolution over that of the last block's. At 200 layers it stays below 1,000 with shortcuts, and is above a million
   without. (The band from 0.1 to 10 that a "gradient superhighway" suggests is printed too, and missed.)
4. 1,001 layers, bottlenecks with pre-activation: one pass forward and backward takes less than a minute.

    python benchmarks/bench_depth.py [--seeds 5] [--epochs 15]     # about four minutes of one core
"""

import argparse
import sys
import time

import torch
from small import digits, fit, machine, said
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gridsight.models import create
from gridsight.nn.residual import Block

LR = 0.1
FORMS = (("pre-activation", True, "pad"), ("post-activation", False, "pad"), ("plain", False, "none"))


def slim(layers: int, shortcut: str, seed: int) -> nn.Module:
    """The network of 6 n + 2 layers."""
    torch.manual_seed(seed)
    depth = (layers - 2) // 6
    return create("resnet20", depths=(depth,) * 3, width=4, in_channels=1, shortcut=shortcut)


def final_loss(layers: int, shortcut: str, seed: int, epochs: int, lr: float = LR) -> float:
    x, y, _, _ = digits(seed)
    net = slim(layers, shortcut, seed)
    return fit(net, lambda part, _: ((x[part],), y[part]), len(x), epochs, seed, lr, adam=False)[-1]


def gradient_ratio(seed: int, pre: bool, shortcut: str, blocks: int) -> float:
    """First block over last."""
    x, y, _, _ = digits(seed)
    torch.manual_seed(seed)
    net = create("resnet20", depths=(blocks,), width=8, in_channels=1, pre=pre, shortcut=shortcut)
    cross_entropy(net(x[:128]), y[:128]).backward()
    norms = [float(block.conv1.weight.grad.norm()) for block in net.modules() if isinstance(block, Block)]
    return norms[0] / norms[-1]


def thousand() -> tuple[float, int, bool]:
    """Seconds of a pass both ways, layers, and whether every gradient is finite."""
    x, y, _, _ = digits(0)
    torch.manual_seed(0)
    net = create("preact_resnet164", depths=(111,) * 3, width=4, in_channels=1)
    layers = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules())
    start = time.perf_counter()
    cross_entropy(net(x[:64]), y[:64]).backward()
    seconds = time.perf_counter() - start
    return seconds, layers, all(finite(p.grad) for p in net.parameters())


def finite(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all())


def main() -> int:
    """Ask all four questions; 1 when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    verdicts = []

    deep = final_loss(110, "pad", 0, given.epochs)
    plain = {lr: final_loss(110, "none", 0, given.epochs, lr) for lr in (0.1, 0.01, 0.001)}
    verdicts.append(deep < 0.1 and min(plain.values()) > 0.5)
    rates = ", ".join(f"{loss:.3f} at {lr:g}" for lr, loss in plain.items())
    print(f"110 layers: residual {deep:.4f}; plain {rates}", flush=True)

    losses = {
        (shortcut, layers): [final_loss(layers, shortcut, seed, given.epochs) for seed in range(given.seeds)]
        for shortcut in ("none", "pad")
        for layers in (8, 44)
    }
    for (shortcut, layers), values in losses.items():
        print(f"{'plain' if shortcut == 'none' else 'residual'}-{layers}: training loss {said(values, 4)}", flush=True)
    worse = [b - a for a, b in zip(losses["none", 8], losses["none", 44], strict=True)]
    better = [b - a for a, b in zip(losses["pad", 8], losses["pad", 44], strict=True)]
    verdicts.append(min(worse) > 0 and sum(better) <= 0)
    print(f"44 minus 8 layers: plain {said(worse, 4)}, residual {said(better, 4)}")

    highest = {}
    for name, pre, shortcut in FORMS:
        for blocks in (9, 24, 49, 99):
            ratios = [gradient_ratio(seed, pre, shortcut, blocks) for seed in range(given.seeds)]
            highest[name] = max(ratios)
            inside = "within" if min(ratios) >= 0.1 and max(ratios) <= 10 else "NOT within"
            print(
                f"{2 * blocks + 2} layers, {name}: first over last {min(ratios):.3g} to {max(ratios):.3g}, "
                f"{inside} 0.1 and 10",
                flush=True,
            )
    verdicts.append(highest["pre-activation"] < 1e3 and highest["plain"] > 1e6)

    seconds, layers, good = thousand()
    verdicts.append(seconds < 60 and good)
    print(f"{layers} layers: forward and backward of 64 digits in {seconds:.1f} s, gradients finite: {good}")
    names = ("a hundred layers", "degradation", "gradients", "a thousand layers")
    missed = [name for name, ok in zip(names, verdicts, strict=True) if not ok]
    print(f"bars missed: {', '.join(missed) or 'none'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
