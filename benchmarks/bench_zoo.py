"""Does every architecture learn, in 1-D, 2-D and 3-D? One small variant of each, from scratch, on the same digits.

The 1,797 digits of scikit-learn (8x8, 16 gray levels; 1,437 train, 360 test, split by class at random, seed 0) come in
three shapes: pictures of 32x32 cells (bilinear), series of 32 steps in 8 channels (the rows), and volumes of 16x16x16
cells in which the picture is four cells thick, at a depth of its own, over noise of deviation 0.15. Each network has
the arguments `small` of its file put over those of its first variant, and the same recipe: AdamW, one cycle, no
augmentation, no dropout. The smallest have two thousand weights: one that has not learned 95 % of its own training
data is trained anew for four times the epochs. Latency is one item, one thread, the median of 30 passes. A line a
network as it ends; --write FILE puts the table between the marks of a page.

    python benchmarks/bench_zoo.py [NAME ...] [--ndim 2] [--epochs 15] [--seed 0] [--write docs/zoo.md] [--rows FILE]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from gridsight.core.registry import Entry
from gridsight.data.loader import Loader
from gridsight.measure.cost import cost
from gridsight.measure.intervals import wilson
from gridsight.models import MODELS
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.tasks import make_task
from gridsight.training.answers import predict_logits
from gridsight.training.loop import Trainer
from gridsight.training.recipe import Recipe

BAR = 90.0
"""Test accuracy in percent below which a network has not learnt the digits."""
LEARNED = 0.95
"""Share of the training data that a network has learned when its epochs were enough."""
MARKS = "<!-- table -->", "<!-- end of table -->"
SHAPES = {1: (32,), 2: (32, 32), 3: (16, 16, 16)}


def digits(ndim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Items (1797, C, *spatial) float32 from 0 to 1, labels, and the numbers of those to train on and to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    x = torch.from_numpy(found.images.astype(np.float32) / 16)
    if ndim == 1:
        x = interpolate(x, 32, mode="linear")
    elif ndim == 2:
        x = interpolate(x[:, None], (32, 32), mode="bilinear")
    else:
        rng = np.random.default_rng(0)
        flat = interpolate(x[:, None], (16, 16), mode="bilinear")[:, 0]
        x = torch.from_numpy(rng.normal(0, 0.15, (len(flat), 1, 16, 16, 16)).astype(np.float32))
        for volume, picture, depth in zip(x, flat, rng.integers(0, 13, len(flat)), strict=True):
            volume[0, depth : depth + 4] += picture
    index = np.arange(len(x))
    train, test = train_test_split(index, test_size=360, stratify=found.target, random_state=0)
    return x.numpy(), found.target.astype(np.int64), train, test


def small(entry: Entry, ndim: int, channels: int) -> Any:
    """The small variant, as the contract test builds it, but without dropout, which half of 16 cells does not bear."""
    arguments = {**entry.arguments, **entry.item.small, "in_channels": channels, "num_classes": 10}
    accepted = inspect.signature(entry.item).parameters
    if "spatial" in accepted:
        arguments["spatial"] = SHAPES[ndim]
    if "dropout" in accepted:
        arguments["dropout"] = 0.0
    return entry.item(ndim=ndim, **arguments)


def latency(net: Any, x: torch.Tensor) -> float:
    """Milliseconds an item."""
    with torch.inference_mode():
        times = []
        for _ in range(33):
            start = time.perf_counter()
            net(x)
            times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[3:]))


def learn(entry: Entry, ndim: int, epochs: int, seed: int, patient: bool = False) -> dict[str, Any]:
    """Train one network, for longer where it has not learned its training data; its row of the table."""
    x, y, train, test = digits(ndim)
    device = torch.device("cpu")
    torch.manual_seed(seed)
    net = small(entry, ndim, x.shape[1])
    found = cost(net, x.shape[1:])
    recipe = Recipe(ndim, {}, epochs, 32, 3e-3, 0.01, entry.name, "adamw", label_smoothing=0.1, average=0.98)
    front = FrontEnd(FrontEndSettings(1.0, (float(x.mean()),) * x.shape[1], (float(x.std()),) * x.shape[1]), ndim)
    task = make_task("classify", tuple(map(str, range(10))))
    start = time.perf_counter()
    trainer = Trainer(net, front, task, recipe, Loader(x, y, train, 32), None, seed=seed, device=device)
    net.load_state_dict(trainer.fit())
    seconds = time.perf_counter() - start
    own, test_logits = (predict_logits(net, front, Loader(x, y, part, 128), device)[0] for part in (train, test))
    if not patient and (own.argmax(1).numpy() == y[train]).mean() < LEARNED:
        return learn(entry, ndim, 4 * epochs, seed, patient=True)
    right = int((test_logits.argmax(1).numpy() == y[test]).sum())
    low, high = wilson(right, len(test))
    return {
        "name": entry.name,
        "ndim": ndim,
        "epochs": epochs,
        "accuracy": 100 * right / len(test),
        "low": 100 * low,
        "high": 100 * high,
        "parameters": found.parameters,
        "macs": found.macs,
        "seconds": seconds,
        "latency": latency(net.eval(), torch.from_numpy(x[:1])),
        "published": entry.tags["published"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, a network a line, its numbers of axes side by side."""
    lines = [
        "| network | 1-D | 2-D | 3-D | parameters (2-D) | million MACs | training, s | latency, ms | published |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    least = min(row["epochs"] for row in rows)
    names = dict.fromkeys(row["name"] for row in rows)
    for name in sorted(names):
        own = {row["ndim"]: row for row in rows if row["name"] == name}
        cells = [
            f"{own[n]['accuracy']:.1f} ({own[n]['low']:.1f} to {own[n]['high']:.1f})"
            + (f", {own[n]['epochs']} epochs" if own[n]["epochs"] > least else "")
            if n in own
            else "–"
            for n in (1, 2, 3)
        ]
        flat = own.get(2) or next(iter(own.values()))
        took = ", ".join(f"{own[n]['seconds']:.0f}" for n in sorted(own))
        waits = ", ".join(f"{own[n]['latency']:.1f}" for n in sorted(own))
        lines.append(
            f"| `{name}` | {' | '.join(cells)} | {flat['parameters']:,} | {flat['macs'] / 1e6:.2f} | "
            f"{took} | {waits} | {flat['published'] or '–'} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Train all that were named; 1 when one of them stays below the bar."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ndim", type=int, nargs="+", choices=(1, 2, 3), default=(1, 2, 3))
    parser.add_argument("--rows", type=Path, help="JSON lines: what is there is not trained again")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    done = (
        [json.loads(line) for line in given.rows.read_text().splitlines()] if given.rows and given.rows.exists() else []
    )
    rows = list(done)
    for family in MODELS.families():
        entry = min(family, key=lambda entry: len(entry.arguments))
        if given.names and not {one.name for one in family} & set(given.names):
            continue
        for ndim in set(entry.tags["ndims"]) & set(given.ndim):
            if "alphabet" in entry.tags or any(r["name"] == entry.name and r["ndim"] == ndim for r in done):
                continue
            row = learn(entry, ndim, given.epochs, given.seed)
            rows.append(row)
            print(
                f"{row['name']:24} {ndim}-D  {row['accuracy']:5.1f} %  {row['parameters']:>8,} parameters  "
                f"{row['seconds']:5.1f} s  {row['latency']:.2f} ms",
                flush=True,
            )
            if given.rows:
                with given.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    if given.write:
        before, _, rest = given.write.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        given.write.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}", encoding="utf-8")
    below = [f"{row['name']} in {row['ndim']}-D" for row in rows if row["accuracy"] < BAR]
    print(f"{len(rows)} networks; below {BAR:g} %: {', '.join(below) or 'none'}")
    return int(bool(below))


if __name__ == "__main__":
    sys.exit(main())
