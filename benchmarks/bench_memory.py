"""Is data larger than memory read steadily? 4 GB of cached items, three passes, at most 400 MB of anonymous memory.

A file as the cache writes it (uint8 items, memory-mapped) is read in shuffled batches by Gridsight's loader and by
PyTorch's DataLoader over the same file; they take turns, a process each. The kernel refuses any process more than
400 MB (RLIMIT_DATA: all private writable memory, libraries' included, so that it is a bound on anonymous memory too).
The file is dropped from the page cache before each process: the first pass reads the disk. Where memory is not to spare
for the page cache either, run it in a control group with a limit, and give --seconds to stop a pass that takes longer.

    python benchmarks/bench_memory.py [--gigabytes 4] [--passes 3] [--seconds S] [--folder DIR]

Bars, for the loader as `train` uses it (two threads): no pass after the first is slower than another by more than a
fifth, and the passes together are not slower than the DataLoader's.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 400_000_000
SHAPE = (3, 64, 64)
BATCH = 256
PARTS = 20  # points a pass
WAYS = ("loader", "loader, 2 threads", "DataLoader")


def anonymous() -> int:
    """Bytes of anonymous memory that this process holds now."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))


def write(path: Path, count: int) -> None:
    """Random items, a thousand at a time, all on the disk and none in the page cache."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, count, 1000):
            file.write(rng.bytes(min(1000, count - start) * int(np.prod(SHAPE))))
        file.flush()
        os.fsync(file.fileno())


def batches(way: str, x: np.ndarray, number: int) -> Iterator[Any]:
    """The shuffled batches of one pass."""
    y = np.zeros(len(x), np.int64)
    if way.startswith("loader"):
        from gridsight.data.loader import Loader

        yield from Loader(x, y, np.arange(len(x)), BATCH, 2 if "threads" in way else 0).epoch(0, number)
        return
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Mapped(Dataset):
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return torch.from_numpy(np.array(x[i])), int(y[i])

    yield from DataLoader(Mapped(), BATCH, shuffle=True)


def child(way: str, path: Path, count: int, passes: int, most: float) -> None:
    """Read all passes under the bound, each for `most` seconds; a line of JSON for each part of each."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    x = np.memmap(path, np.uint8, "r", shape=(count, *SHAPE))
    step = -(-count // PARTS)
    for number in range(passes):
        done = told = 0
        began = started = time.perf_counter()
        for batch in batches(way, x, number):
            done += len(batch[0] if isinstance(batch, list) else batch.x)
            now = time.perf_counter()
            late = now - began > most
            if done - told >= step or done == count or late:
                row = {"pass": number, "done": done, "items": done - told, "seconds": now - started}
                print(json.dumps(row | {"anonymous": anonymous()}))
                told, started = done, time.perf_counter()
            if late:
                break


def draw(curves: dict[str, list[dict[str, float]]], count: int, path: Path) -> None:
    """Items a second against items read, a line a way."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for way, rows in curves.items():
        axes.plot(
            [row["pass"] + row["done"] / count for row in rows],
            [row["items"] / row["seconds"] for row in rows],
            label=way,
        )
    axes.set(xlabel="passes", ylabel="items a second", ylim=(0, None))
    axes.legend()
    figure.savefig(path)


def main() -> int:
    """Write the file, run each way in a process of its own, print and draw; 1 when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--folder")
    parser.add_argument("--child")
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    count = int(given.gigabytes * 1e9 / np.prod(SHAPE))
    if given.child:
        child(given.child, given.file, count, given.passes, given.seconds)
        return 0
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        free = shutil.disk_usage(folder).free
        if free < 1.5e9 * given.gigabytes:
            print(
                f"{folder} has {free / 1e9:.1f} GB free, {1.5 * given.gigabytes:.1f} GB are needed; give --folder DIR"
            )
            return 2
        path = folder / "x.bin"
        write(path, count)
        curves, passes = {}, {}
        for way in WAYS:
            command = [sys.executable, __file__, "--child", way, "--file", str(path)]
            command += ["--gigabytes", str(given.gigabytes), "--passes", str(given.passes)]
            command += ["--seconds", str(given.seconds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows = curves[way] = [json.loads(line) for line in done.stdout.splitlines()]
            each = [[row for row in rows if row["pass"] == number] for number in range(given.passes)]
            passes[way] = [sum(r["items"] for r in part) / sum(r["seconds"] for r in part) for part in each]
            slowest = min(row["items"] / row["seconds"] for row in rows if row["pass"] or given.passes == 1)
            print(
                f"{way:18} {', '.join(f'{rate:,.0f}' for rate in passes[way])} items/s in passes 1 to {given.passes} "
                f"(slowest twentieth after the first {slowest:,.0f}); anonymous memory "
                f"{max(row['anonymous'] for row in rows) / 1e6:.0f} MB of {LIMIT / 1e6:.0f}",
                flush=True,
            )
        draw(curves, count, Path(__file__).with_name("memory.png"))
    finally:
        shutil.rmtree(folder)
    ours, theirs = passes["loader, 2 threads"], passes["DataLoader"]
    ratios = ", ".join(f"{a / b:.2f}" for a, b in zip(ours, theirs, strict=True))
    print(f"{count:,} items, {given.gigabytes:g} GB; loader with 2 threads / DataLoader, by pass: {ratios}")
    whole = sum(1 / rate for rate in theirs) / sum(1 / rate for rate in ours)
    return int(min(ours[1:], default=1.0) < 0.8 * max(ours[1:], default=1.0) or whole < 1)


if __name__ == "__main__":
    sys.exit(main())
