"""What the peers' programs share: the raw data, a clock that runs while they train, and a line of JSON an epoch.

Each program stands for the users of one library and imports nothing of Gridsight. `GRIDSIGHT_DATA` is the folder with
mnist/, cifar10_jpg/, fsdd/ and ucr/. A row has the seconds of training so far (`seconds`, without imports, loading and
evaluation; `processor_seconds` are those that the processor worked in them), the accuracy on the test data, and
`loading_seconds` from the raw files to what the program trains on.
"""

import gzip
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np

MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class Clock:
    """Seconds of training, of the clock and of the processor; started and stopped around each stretch of it."""

    def __init__(self) -> None:
        self.seconds = self.processor = 0.0
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        self._since = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        assert self._since is not None
        self.seconds += time.perf_counter() - self._since[0]
        self.processor += time.process_time() - self._since[1]
        self._since = None


class Report:
    """Prints the rows of one run."""

    def __init__(self, peer: str, data: str, seed: int, loading: float) -> None:
        self.fixed = {"peer": peer, "data": data, "seed": seed, "loading_seconds": round(loading, 3)}

    def row(self, epoch: float, clock: Clock, accuracy: float, **more: float) -> None:
        """One row; `more` are figures that only this peer has."""
        times = {"seconds": round(clock.seconds, 4), "processor_seconds": round(clock.processor, 4)}
        print(json.dumps(self.fixed | {"epoch": epoch, "accuracy": accuracy} | times | more), flush=True)


def folder(name: str) -> Path:
    """A folder of `GRIDSIGHT_DATA`."""
    root = os.environ.get("GRIDSIGHT_DATA")
    if root is None or not (Path(root) / name).is_dir():
        raise SystemExit(f"set GRIDSIGHT_DATA to a folder that holds {name}/ (it is {root})")
    return Path(root) / name


def idx_bytes(name: str) -> bytes:
    """A file of MNIST, unpacked."""
    path = folder("mnist") / name
    return path.read_bytes() if path.is_file() else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())


def mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training pictures (60000, 28, 28) uint8 and labels (60000,) uint8, then 10,000 to test on."""
    parts = []
    for name in MNIST:
        content = idx_bytes(name)
        sizes = np.frombuffer(content, ">u4", content[3], 4)  # the fourth byte is the number of axes
        parts.append(np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes)).reshape(tuple(sizes)))
    return parts[0], parts[1], parts[2], parts[3]


def cifar() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training pictures (50000, 32, 32, 3) uint8 and labels int64, then 10,000 to test on: every JPEG decoded once."""
    import simplejpeg

    parts: list[np.ndarray] = []
    for part in ("train", "test"):
        with zipfile.ZipFile(folder("cifar10_jpg") / f"cifar10_{part}_jpg.zip") as file:
            names = sorted(name for name in file.namelist() if name.endswith(".jpg"))
            classes = sorted({name.split("/")[1] for name in names})
            pictures = np.empty((len(names), 32, 32, 3), np.uint8)
            for i, name in enumerate(names):
                pictures[i] = simplejpeg.decode_jpeg(file.read(name))
        parts += [pictures, np.array([classes.index(name.split("/")[1]) for name in names])]
    return parts[0], parts[1], parts[2], parts[3]


def ucr(problem: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training series (N, 1, T) float32 and labels int64, then those to test on; .ts files of one dimension."""
    parts: list[np.ndarray] = []
    for part in ("TRAIN", "TEST"):
        lines = (folder("ucr") / f"{problem}_{part}.ts").read_text().splitlines()
        rows = [line.split(":") for line in lines if line and line[0] not in "#@"]
        classes = sorted({label for _, label in rows})
        series = np.array([np.array(values.split(","), np.float32) for values, _ in rows])
        parts += [series[:, None], np.array([classes.index(label) for _, label in rows])]
    return parts[0], parts[1], parts[2], parts[3]
