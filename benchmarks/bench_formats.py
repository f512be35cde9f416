"""How fast do sounds, sequences and volumes become batches? Gridsight and a plain per-item Dataset take turns.

- wav to log-mel: 1,000 spoken digits of `fsdd`, 40 bands. Peer: soundfile and librosa.
- FASTA to one-hot: 2 files of 2,000 random sequences of 1,000 letters. Peer: Biopython, a NumPy table an item.
- NIfTI to patches: 24 volumes of 96 cells an axis (gzip), 8 patches of 32 each a pass. Peer: nibabel.

The peers' Datasets open their file for every item, or hold all records of a FASTA file, as their manuals show; they are
read by PyTorch's DataLoader with 0 and with 2 workers, and the better counts. First pass: Gridsight's with an empty
cache; a peer's passes cost the same. Bar: later passes at least 5 times the peer's rate; the first is printed too.

    pip install -c constraints.txt -r benchmarks/requirements.txt
    python benchmarks/bench_formats.py [--rounds 5] [--threads 2]
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

import argparse
import resource
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from bench_input import matmul_rate
from torch.utils.data import DataLoader, Dataset

from gridsight.core.console import Console
from gridsight.data.augment import prepared
from gridsight.data.cache import Cached, cached
from gridsight.data.loader import Loader
from gridsight.data.source import find
from gridsight.nn.frontend import FrontEnd, FrontEndSettings, MelSettings
from gridsight.training.recipe import FrontEnd as Mel

DATA = Path(os.environ.get("GRIDSIGHT_DATA", Path(__file__).parents[2] / "shared" / "data"))
BATCH, PATCH, REPEATS = 64, 32, 8
MEL = Mel()


class Case(NamedTuple):
    """What is read: `front` of the network, how `cached` is asked, and the peer's Dataset."""

    folder: Path
    front: FrontEnd
    size: int | None
    fit: str
    peer: Dataset[tuple[torch.Tensor, int]]


class Sounds(Dataset[tuple[torch.Tensor, int]]):
    """soundfile, zeros at the end, librosa's mel spectrogram, its logarithm."""

    def __init__(self, folder: Path, length: int) -> None:
        self.paths, self.length = sorted(folder.glob("*/*.wav")), length

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        import librosa
        import soundfile

        x, rate = soundfile.read(self.paths[i], dtype="float32")
        x = np.pad(x[: self.length], (0, max(0, self.length - len(x))))
        window, hop = round(MEL.window * rate), round(MEL.hop * rate)
        mel = librosa.feature.melspectrogram(
            y=x, sr=rate, n_fft=window, hop_length=hop, n_mels=MEL.n_mels, pad_mode="constant"
        )
        return torch.from_numpy(librosa.power_to_db(mel))[None], int(self.paths[i].parent.name)


class Sequences(Dataset[tuple[torch.Tensor, int]]):
    """Biopython's records, one-hot by a table."""

    def __init__(self, folder: Path) -> None:
        from Bio import SeqIO

        self.records = [
            (record, label)
            for label, path in enumerate(sorted(folder.glob("*.fasta")))
            for record in SeqIO.parse(path, "fasta")
        ]
        self.table = np.zeros((256, 4), np.float32)
        for place, letter in enumerate(b"ACGT"):
            self.table[letter, place] = 1

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        record, label = self.records[i]
        letters = np.frombuffer(str(record.seq).encode(), np.uint8)
        return torch.from_numpy(self.table[letters].T.copy()), label


class Patches(Dataset[tuple[torch.Tensor, int]]):
    """nibabel's volume, normalised, a random cube of it; `REPEATS` visits a volume and pass."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*/*.nii.gz"))

    def __len__(self) -> int:
        return len(self.paths) * REPEATS

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        import nibabel

        path = self.paths[i % len(self.paths)]
        volume = nibabel.load(path).get_fdata(dtype=np.float32)
        start = [int(torch.randint(side - PATCH + 1, ())) for side in volume.shape]
        part = volume[tuple(slice(a, a + PATCH) for a in start)]
        return torch.from_numpy((part - 300) / 100)[None], int(path.parent.name)


def sounds(folder: Path) -> Case:
    """A folder a digit."""
    with zipfile.ZipFile(DATA / "fsdd" / "recordings_train.zip") as archive:
        for name in sorted(archive.namelist())[::2][:1000]:
            path = folder / name[0] / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(archive.read(name))
    mel = MelSettings(8000.0, MEL.n_mels, MEL.window, MEL.hop, MEL.top_db)
    return Case(folder, FrontEnd(FrontEndSettings(1.0, (0.0,), (0.1,), mel), 1), None, "auto", Sounds(folder, 6400))


def sequences(folder: Path) -> Case:
    """A file a class."""
    rng = np.random.default_rng(0)
    for name in ("coding", "other"):
        letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), (2000, 1000))
        lines = (f">{name}-{i}\n{row.tobytes().decode()}\n" for i, row in enumerate(letters))
        (folder / f"{name}.fasta").write_text("".join(lines))
    front = FrontEnd(FrontEndSettings(1.0, (0.0,) * 4, (1.0,) * 4), 1)
    return Case(folder, front, 1000, "auto", Sequences(folder))


def volumes(folder: Path) -> Case:
    """Two folders of smooth noise."""
    import nibabel
    from scipy.ndimage import zoom

    rng = np.random.default_rng(0)
    for i in range(24):
        volume = (300 + 100 * zoom(rng.normal(size=(24, 24, 24)), 4, order=1)).astype(np.int16)
        path = folder / str(i % 2) / f"{i}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    return Case(folder, FrontEnd(FrontEndSettings(1.0, (300.0,), (100.0,)), 3), PATCH, "patch", Patches(folder))


def used() -> float:
    """Seconds of processor time, of workers that have ended too."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), used()
    work()
    return time.perf_counter() - wall, used() - cpu


def data_of(case: Case) -> Cached:
    """The case's items from the cache, or decoded into it."""
    return cached(find(str(case.folder)), Console(quiet=True), size=case.size, fit=case.fit)


def batches(case: Case, data: Cached, epoch: int) -> int:
    """One pass; how many items."""
    patch = (PATCH,) * 3 if case.fit == "patch" else None
    spatial = None if case.fit == "patch" else data.spec.spatial
    loader = Loader(
        data.x, data.y, np.arange(len(data)), BATCH, spatial=spatial, patch=patch, repeats=REPEATS if patch else 1
    )
    seen = 0
    for batch in loader.epoch(0, epoch):
        seen += len(case.front.transform(prepared(batch.x, batch.items, 0, epoch, (), case.front.scale)))
    return seen


def first(case: Case) -> None:
    """A pass with an empty cache."""
    kept = os.environ.get("GRIDSIGHT_CACHE", "")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["GRIDSIGHT_CACHE"] = empty
        batches(case, data_of(case), 0)
    os.environ["GRIDSIGHT_CACHE"] = kept


def main() -> int:
    """Measure, print, and say by the exit status whether the bars hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.threads} threads, matmul {matmul_rate():.0f} GFLOP/s")
    good = True
    for make in (sounds, sequences, volumes):
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
            os.environ["GRIDSIGHT_CACHE"] = cache
            case = make(Path(folder))
            data = data_of(case)
            ways: dict[str, Callable[[int], object]] = {
                "peer, 0 workers": lambda _, case=case: [len(x) for x, _ in DataLoader(case.peer, BATCH, True)],
                "peer, 2 workers": lambda _, case=case: [
                    len(x) for x, _ in DataLoader(case.peer, BATCH, True, num_workers=2)
                ],
                "first pass": lambda _, case=case: first(case),
                "later pass": lambda i, case=case, data=data: batches(case, data, i),
            }
            count = batches(case, data, 0)
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for number in range(given.rounds + 1):
                for name, way in ways.items():
                    seconds = timed(lambda way=way, number=number: way(number))
                    if number:  # the first round warms up
                        found[name].append(seconds)
            for name, values in found.items():
                wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
                print(f"{make.__name__:10} {name:16} {count / wall:10,.0f} a second {1e3 * cpu / count:9.3f} ms of CPU")
            for name in ("first pass", "later pass"):
                three = list(zip(*(found[way] for way in (*list(ways)[:2], name)), strict=True))
                ratios = [[min(a[i], b[i]) / own[i] for a, b, own in three] for i in (0, 1)]
                wall, cpu = map(statistics.median, ratios)
                good &= wall >= 5 or name == "first pass"
                print(f"{make.__name__:10} {name} {wall:.1f} times the better peer, {cpu:.1f} by processor time")
    return not good


if __name__ == "__main__":
    sys.exit(main())
