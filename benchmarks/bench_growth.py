"""How does cost grow? Time and memory against items, classes, cells, channels, depth, batch and axes, with slopes.

Each point is a process of its own: processor seconds of what is measured (the least of some repeats where it is short),
the memory that it took on top of what was there before, and the bytes that it left behind. The slope is that of the
last two points in logarithms, where fixed costs weigh least; the most that it may be stands beside it: 1 where twice as
much must be looked at, 0 where nothing more must be kept, 2 for the weights between twice as many channels. A slope
above it by more than 0.3 is a defect. Start-up and the steps of 1-D, 2-D and 3-D networks with equally many cells
are single figures.

    python benchmarks/bench_growth.py [CURVE ...] [--scale 4] [--list]

--scale multiplies the largest points of curves over items and classes: 4 takes 100,000 files and 1,000 classes.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[], int | None]
SPARE = 0.3  # of a slope: what no longer fits into the caches takes longer, too
SMALL = 16e6  # bytes of memory that are mostly the allocator's steps
ENOUGH = 0.5  # seconds that a repeated measurement takes at least


@dataclass(frozen=True)
class Curve:
    """What is measured at which values; the most that the slopes of time, memory and bytes may be (None: not read)."""

    make: Callable[[int, Path], Work]
    values: tuple[int, ...]
    time: float = 1.0
    memory: float | None = None
    bytes: float | None = None
    scales: bool = False
    repeat: bool = False


def pictures(count: int, folder: Path, classes: int = 10) -> Path:
    """So many PNG files of 8x8 cells in folders of classes."""
    from PIL import Image

    x, y = items(count, classes)
    for name in np.unique(y):
        (folder / f"class{name}").mkdir(parents=True)
    for i, (array, name) in enumerate(zip(x, y, strict=True)):
        Image.fromarray(array[0]).save(folder / f"class{name}" / f"{i:06}.png")
    return folder


def items(count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy items (count, 1, 8, 8) uint8 about a pattern a class, and the numbers of their classes."""
    rng = np.random.default_rng(0)
    patterns, y = rng.integers(0, 256, (classes, 1, 8, 8)), np.arange(count) % classes
    return np.clip(patterns[y] + rng.normal(0, 40, (count, 1, 8, 8)), 0, 255).astype(np.uint8), y


def train(count: int, classes: int, folder: Path, report: bool = False) -> Path:
    """The run folder of a small network that took one pass over so many items of so many classes."""
    import gridsight

    x, y = items(count, classes)
    np.savez(folder / "data.npz", x=x, y=np.array([f"class{v:05}" for v in y]))
    run = folder / "run"
    gridsight.train(
        str(folder / "data.npz"), epochs=1, model="simple_cnn", augment=("none",), report=report, out=str(run)
    )
    return run


def cache(count: int, folder: Path, again: bool = False) -> Work:
    from gridsight.core.console import Console
    from gridsight.data.cache import cache_folder, cached
    from gridsight.data.source import find

    path, console = pictures(count, folder / "files"), Console(quiet=True)

    def work() -> int:
        cached(find(str(path)), console)
        return sum(file.stat().st_size for file in cache_folder().rglob("*") if file.is_file())

    if again:
        work()
    return work


def duplicates(count: int, folder: Path) -> Work:
    from gridsight.data.duplicates import near_duplicates

    x, _ = items(count, 10)

    def work() -> None:
        near_duplicates(x)

    return work


def split(count: int, folder: Path) -> Work:
    from gridsight.data.split import split

    names = [f"class{i % 10}" for i in range(count)]

    def work() -> None:
        split(names, None, None, 0, classes=True)

    return work


def measure(count: int, classes: int) -> Work:
    from gridsight.tasks import make_task

    rng = np.random.default_rng(0)
    y = np.arange(count) % classes
    logits = rng.normal(0, 1, (count, classes))
    logits[np.arange(count), y] += 3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    task = make_task("classify", [f"class{i:05}" for i in range(classes)])
    found = {"probabilities": p}
    return lambda: len(json.dumps(task.measure(found, found, y, None)))


def report(count: int, classes: int, folder: Path) -> Work:
    import gridsight

    run = train(count, classes, folder)

    def work() -> int:
        gridsight.report(str(run))
        return (run / "report.html").stat().st_size

    return work


def whole_run(count: int, classes: int, folder: Path) -> Work:
    def work() -> int:
        run = train(count, classes, folder, report=True)
        return sum(file.stat().st_size for file in run.rglob("*") if file.is_file())

    return work


def predict(count: int, folder: Path) -> Work:
    """As the command prints answers, keeping none."""
    from gridsight.core.console import Console
    from gridsight.verbs.predict import PredictSettings
    from gridsight.verbs.predict import predict as answer

    run, path = train(400, 10, folder), pictures(count, folder / "files")

    def work() -> None:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            console, before = Console(json=True), sys.stdout
            sys.stdout = nowhere
            try:
                answer(PredictSettings(str(run), (str(path),), json=True), console)
            finally:
                sys.stdout = before

    return work


def step(ndim: int = 2, side: int = 32, batch: int = 16, width: int = 32, depth: int = 4) -> Work:
    """One step of training: `depth` convolutions of `width` channels with norms, as networks here are built."""
    import torch
    from torch import nn

    from gridsight.core.allocator import keep_memory
    from gridsight.nn.blocks import conv_norm_act
    from gridsight.nn.nd import Nd, channels_last

    keep_memory()  # without it every tensor above 32 MB is mapped anew each time, which is a step in the curve
    nd = Nd(ndim)
    net = nn.Sequential(conv_norm_act(nd, 3, width), *(conv_norm_act(nd, width, width) for _ in range(depth)))
    x = torch.randn(batch, 3, *(side,) * ndim)
    if ndim > 1:
        net = channels_last(net)
    optimiser = torch.optim.SGD(net.parameters(), 0.01)

    def work() -> None:
        optimiser.zero_grad()
        net(x).square().mean().backward()
        optimiser.step()

    work()  # the first one makes plans and gradients
    return work


def head(classes: int) -> Work:
    """A step of a network whose only large part is the layer of its classes."""
    import torch

    from gridsight.models import create

    net = create("simple_cnn", ndim=2, in_channels=1, num_classes=classes)
    x, y = torch.randn(64, 1, 32, 32), torch.arange(64) % classes

    def work() -> None:
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()

    work()
    return work


FILES, MANY, CLASSES = (1000, 4000, 25000), (5000, 20000, 80000), (10, 50, 250)
CURVES = {
    "cache of files": Curve(lambda n, f: cache(n, f), FILES, memory=1.0, bytes=1.0, scales=True),
    "cache, opened again": Curve(lambda n, f: cache(n, f, again=True), FILES, memory=1.0, scales=True),
    "predict over files": Curve(predict, FILES, memory=0.0, scales=True),
    # all pairs are compared, up to 200,000 items: see data/duplicates.py
    "near-duplicates": Curve(duplicates, (2000, 8000, 20000), time=2.0, memory=1.0, scales=True),
    "split": Curve(split, MANY, memory=1.0, scales=True),
    "measure, by items": Curve(lambda n, f: measure(n, 10), (2000, 8000, 25000), memory=1.0, bytes=0.0, scales=True),
    "measure, by classes": Curve(lambda n, f: measure(5000, n), CLASSES, memory=1.0, bytes=1.0, scales=True),
    "report, by items": Curve(lambda n, f: report(n, 10, f), (1000, 4000, 25000), memory=1.0, bytes=0.0, scales=True),
    "report, by classes": Curve(lambda n, f: report(5000, n, f), CLASSES, memory=1.0, bytes=1.0, scales=True),
    "run, by items": Curve(lambda n, f: whole_run(n, 10, f), (1000, 4000, 25000), memory=1.0, bytes=1.0, scales=True),
    "run, by classes": Curve(lambda n, f: whole_run(5000, n, f), CLASSES, memory=1.0, bytes=1.0, scales=True),
    "step, by cells": Curve(lambda n, f: step(side=math.isqrt(n)), (1024, 4096, 16384), memory=1.0, repeat=True),
    "step, by batch": Curve(lambda n, f: step(batch=n), (8, 32, 128), memory=1.0, repeat=True),
    "step, by channels": Curve(lambda n, f: step(width=n), (32, 64, 128), time=2.0, memory=2.0, repeat=True),
    "step, by depth": Curve(lambda n, f: step(depth=n), (4, 16, 64), memory=1.0, repeat=True),
    "step, by classes": Curve(lambda n, f: head(n), (100, 1000, 10000), memory=1.0, repeat=True),
    "1-D step, by cells": Curve(lambda n, f: step(1, n), (1024, 4096, 16384), memory=1.0, repeat=True),
    "3-D step, by cells": Curve(lambda n, f: step(3, round(n ** (1 / 3)), 4), (4096, 32768), memory=1.0, repeat=True),
    "step of 4,096 cells, by axes": Curve(
        lambda n, f: step(n, round(4096 ** (1 / n))), (1, 2, 3), time=math.inf, repeat=True
    ),
}
STARTS = {
    "gridsight --help": ("-m", "gridsight", "--help"),
    "import gridsight": ("-c", "import gridsight"),
    "gridsight models": ("-m", "gridsight", "models"),
}


def resident(key: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) << 10
    return 0


def child(name: str, value: int) -> None:
    """Measure one point and print it."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRIDSIGHT_CACHE"] = f"{folder}/cache"
        curve = CURVES[name]
        work = curve.make(value, Path(folder))
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        times: list[float] = []
        left = None
        while not times or (curve.repeat and sum(times) < ENOUGH):
            start = time.process_time()
            left = work()
            times.append(time.process_time() - start)
        peak = max(0, resident("VmHWM") - before)
        print(json.dumps({"seconds": min(times), "memory": peak, "bytes": left}))


def point(name: str, value: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", name, str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} at {value}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def slope(values: tuple[int, ...], costs: list[float]) -> float:
    """Of the last two points, in logarithms."""
    a, b = (max(cost, 1e-9) for cost in costs[-2:])
    return math.log(b / a) / math.log(values[-1] / values[-2])


def said(key: str, cost: float) -> str:
    return f"{cost:.3g} s" if key == "seconds" else f"{cost / 1e6:.3g} MB"


def grow(name: str, scale: float) -> bool:
    """Measure and print a curve; True where no slope is too steep."""
    curve = CURVES[name]
    values = (*curve.values[:-1], round(curve.values[-1] * scale)) if curve.scales else curve.values
    try:
        rows, fine = [point(name, value) for value in values], True
    except RuntimeError as error:
        print(f"{error}\n{name}: FAILED", flush=True)
        return False
    for key, most in (("seconds", curve.time), ("memory", curve.memory), ("bytes", curve.bytes)):
        if most is None:
            continue
        costs = [float(row[key]) for row in rows]
        if key == "memory" and max(costs) < SMALL:
            verdict = "small"
        elif math.isinf(most):
            verdict = ""
        else:
            found = slope(values, costs)
            verdict = f"slope {found:5.2f}, at most {most:g}"
            if found > most + SPARE:
                fine, verdict = False, f"{verdict}: TOO STEEP"
        each = ", ".join(f"{value:,}: {said(key, cost)}" for value, cost in zip(values, costs, strict=True))
        print(f"{name if key == 'seconds' else '':30} {key:8} {verdict:36} {each}", flush=True)
    return fine


def start_up() -> None:
    """The least of five of each."""
    for name, arguments in STARTS.items():
        times = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        print(f"{name:30} {min(times):.3f} s")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("curves", nargs="*", help="default: all, and start-up")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--child", nargs=2)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], int(given.child[1]))
        return 0
    if given.list:
        print(*CURVES, sep="\n")
        return 0
    if unknown := [name for name in given.curves if name not in CURVES]:
        parser.error(f"there is no {', '.join(unknown)}; --list names the curves")
    if not given.curves:
        start_up()
    fine = [grow(name, given.scale) for name in given.curves or CURVES]
    return int(not all(fine))


if __name__ == "__main__":
    sys.exit(main())
