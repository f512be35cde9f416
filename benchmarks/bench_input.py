"""How fast do files of photographs become batches? Gridsight, torchvision and bare simplejpeg take turns.

1,000 JPEG photographs (`photos.py`) to float32 batches of 64 at 224 pixels: random windows of 70 to 100 % of the side,
mirrors, ImageNet's mean and deviation. Gridsight's first pass looks at the files, decodes, fills the cache and makes
the batches; later passes read the cache, which keeps each picture's middle square at 224 pixels. torchvision
(`peers/torchvision_input.py`) decodes in every pass. simplejpeg decodes bytes that lie in memory, and does no more.

Bars: the first pass at least 2 times torchvision's rate and 0.7 of simplejpeg's; later passes at least 8 times
torchvision's. Wall time counts on a quiet machine; processor time is printed beside it, for others.

    make bench-peers; pip install -c constraints.txt scikit-image
    python benchmarks/bench_input.py [--rounds 7] [--threads 2] [--peer .venv-peers/bin/python]
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from photos import photos

from gridsight.core.console import Console
from gridsight.data.augment import prepared
from gridsight.data.cache import Cached, cached
from gridsight.data.loader import Loader
from gridsight.data.source import find
from gridsight.nn.frontend import FrontEnd, FrontEndSettings

HERE = Path(__file__).parent
RECIPE = (("crop", 0.3), ("flip", 1.0))
FRONT = FrontEnd(FrontEndSettings(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 2)
Seconds = tuple[float, float]
"""Wall and processor time."""


def timed(work: Callable[[], object]) -> Seconds:
    """What `work` took."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def decoded(folder: Path) -> Cached:
    """The photographs in the cache, made anew where that is empty."""
    return cached(find(str(folder)), Console(quiet=True), size=224)


def batches(data: Cached, epoch: int) -> None:
    """One pass over what the network is given."""
    for batch in Loader(data.x, data.y, np.arange(len(data)), 64).epoch(0, epoch):
        prepared(batch.x, batch.items, 0, epoch, RECIPE, FRONT.scale)


def first_pass(folder: Path) -> None:
    """From files to batches with an empty cache."""
    kept = os.environ.get("GRIDSIGHT_CACHE")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["GRIDSIGHT_CACHE"] = empty
        batches(decoded(folder), 0)
    os.environ.pop("GRIDSIGHT_CACHE")
    if kept is not None:
        os.environ["GRIDSIGHT_CACHE"] = kept


def bare(blobs: list[bytes], threads: int) -> None:
    """Decoding alone."""

    def decode(part: list[bytes]) -> None:
        for blob in part:
            simplejpeg.decode_jpeg(blob)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, (blobs[start : start + 25] for start in range(0, len(blobs), 25))))


def peer(process: subprocess.Popen[str]) -> Seconds:
    """One pass of torchvision's."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = json.loads(process.stdout.readline())
    return line["wall"], line["cpu"]


def matmul_rate() -> float:
    """GFLOP/s of a 2048-cubed product in this minute."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / min(timed(lambda: a @ a)[0] for _ in range(5)) / 1e9


def main() -> int:
    """Measure, print, and say by the exit status whether the bars hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer", default=str(HERE.parent / ".venv-peers" / "bin" / "python"))
    given = parser.parse_args()
    if not Path(given.peer).exists():
        raise SystemExit(f"there is no {given.peer}: make bench-peers, or give --peer a Python that has torchvision")
    torch.set_num_threads(given.threads)
    folder = photos()
    blobs = [path.read_bytes() for path in sorted(folder.glob("*/*.jpg"))]
    command = [given.peer, str(HERE / "peers" / "torchvision_input.py"), str(folder), "--workers", str(given.threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        data = decoded(folder)
        ways: dict[str, Callable[[int], Seconds]] = {
            "torchvision": lambda _: peer(process),
            "first pass": lambda _: timed(lambda: first_pass(folder)),
            "later pass": lambda i: timed(lambda: batches(data, i)),
            "simplejpeg": lambda _: timed(lambda: bare(blobs, given.threads)),
            "simplejpeg, one thread": lambda _: timed(lambda: bare(blobs, 1)),
        }
        found: dict[str, list[Seconds]] = {name: [] for name in ways}
        for number in range(given.rounds + 1):
            for name, way in ways.items():
                seconds = way(number)
                if number:  # the first round warms up
                    found[name].append(seconds)
    count = len(blobs)
    print(f"{count:,} photographs, {given.threads} threads and workers, matmul {matmul_rate():.0f} GFLOP/s")
    for name, values in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:24}{count / wall:8,.0f} a second {1e3 * cpu / count:8.2f} ms of processor time each")
    good = True
    for name, other, bar in (
        ("first pass", "torchvision", 2.0),
        ("first pass", "simplejpeg", 0.7),
        ("later pass", "torchvision", 8.0),
    ):
        pairs = list(zip(found[name], found[other], strict=True))
        wall, cpu = (statistics.median(b[i] / a[i] for a, b in pairs) for i in (0, 1))
        good &= wall >= bar
        print(f"{name} against {other}: {wall:.2f} times as fast, {cpu:.2f} by processor time; bar {bar:g}")
    return not good


if __name__ == "__main__":
    sys.exit(main())
