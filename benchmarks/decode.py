"""How fast are pictures decoded through the reader, compared with bare simplejpeg on bytes in memory, by threads?

Two sets: CIFAR-10's 32x32 JPEGs read in place from their zip (skipped when absent) and 300 synthetic 500x375 JPEGs on
disk. Each round times every way once, in turn, so that another busy process hits all alike; the best round counts.
Run: `OMP_NUM_THREADS=1 python benchmarks/decode.py`.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from gridsight.data.files import File, walk
from gridsight.data.readers import READERS

ROUNDS = 5
CHUNK = 64  # items a task of the pool
CIFAR = Path(os.environ.get("GRIDSIGHT_DATA", Path(__file__).parents[2] / "shared" / "data"))
CIFAR = CIFAR / "cifar10_jpg" / "cifar10_train_jpg.zip"


def synthetic(folder: Path, count: int = 300) -> list[File]:
    """JPEGs of 500x375 with detail like a photograph's: smooth shapes and noise that falls with frequency."""
    rng = np.random.default_rng(0)
    for i in range(count):
        layers = [
            np.kron(rng.normal(size=(375 // s + 1, 500 // s + 1, 3)), np.ones((s, s, 1)))[:375, :500] * s**0.5
            for s in (1, 4, 16, 64)
        ]
        picture = np.clip(128 + 12 * sum(layers), 0, 255).astype(np.uint8)
        (folder / f"{i}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, quality=85))
    return list(walk(folder))


def seconds(work: Callable[[Any], Any], items: Sequence[Any], threads: int) -> float:
    """Seconds to do `work` on all items."""

    def chunk(start: int) -> None:
        for item in items[start : start + CHUNK]:
            work(item)

    start = time.perf_counter()
    if threads == 1:
        for item in items:
            work(item)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(chunk, range(0, len(items), CHUNK)))
    return time.perf_counter() - start


def measure(name: str, files: list[File]) -> None:
    """Print images a second of each way, the best of the rounds, and the reader's share of the bare decoder."""
    reader = READERS.create("image")
    blobs = [file.read() for file in files]
    ways = {
        "bare simplejpeg": (simplejpeg.decode_jpeg, blobs),
        "reading only": (File.read, files),
        "reader": (reader.read_single, files),
        "header (probe)": (reader.probe, files),
    }
    best: dict[tuple[str, int], float] = {}
    for _ in range(ROUNDS):
        for threads in (1, 2, 4):
            for way, (work, items) in ways.items():
                rate = len(items) / seconds(work, items, threads)
                best[way, threads] = max(best.get((way, threads), 0.0), rate)
    print(f"{name}: {len(files):,} pictures, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for way in ways:
        rates = "  ".join(f"{threads} threads {best[way, threads]:>9,.0f}/s" for threads in (1, 2, 4))
        print(f"  {way:16} {rates}  of bare {best[way, 1] / best['bare simplejpeg', 1]:.2f}")


if __name__ == "__main__":
    if CIFAR.exists():
        measure("CIFAR-10 JPEG, 32x32, from the zip", list(walk(CIFAR)))
    with tempfile.TemporaryDirectory() as name:
        measure("synthetic JPEG, 500x375", synthetic(Path(name)))
