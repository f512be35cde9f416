"""Are planted faults found in real data, and clean data left in peace? Corrupt files, near-copies, patients, labels.

CIFAR-10's JPEG files, MNIST and the digits as PNG, spoken digits as wav; a folder each with train/ and test/, and a
patient (a speaker) in the file names. Planted: 2 % corrupt files, 2 % near-copies of training items in test/, patients
on both sides, and (with --labels) 3 % labels flipped to another class. Every figure is of what `gridsight check` says.
False alarms are pairs that were neither planted nor found before anything was planted; pairs found before are counted
on their own, because many of them are true (CIFAR-10 holds hundreds of near-copies).

    python benchmarks/bench_faults.py [cifar mnist digits fsdd] [--seeds 3]
    python benchmarks/bench_faults.py --labels [cifar mnist digits fsdd] [--seeds 1] [--controls]

Bars: corrupt and near-copies 95 %, patients all, under 1 false pair per 1,000 items; labels 80 % at 5 % of the clean.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

import argparse
import io
import shutil
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from gridsight.core.console import Console
from gridsight.data.audit import Audit, audit
from gridsight.data.decoding import decode
from gridsight.data.source import find
from gridsight.verbs.check import CheckSettings, check

DATA = Path(os.environ.get("GRIDSIGHT_DATA", Path(__file__).parents[2] / "shared" / "data"))
SIZES = {"cifar": (6000, 2000), "mnist": (6000, 2000), "digits": (1300, 497), "fsdd": (2100, 600)}
PATIENTS = 200
RATE = 8000


# ---- near-copies: pictures (h, w) or (h, w, 3) uint8 to the same, or a whole file


def encoded(x: np.ndarray, quality: int) -> bytes:
    """A JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture at another size."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(x)).resize((width, height), Image.Resampling.BICUBIC))


def clipped(x: np.ndarray) -> np.ndarray:
    """Rounded to uint8."""
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def shifted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """By 1 or 2 pixels along one axis or both, borders repeated."""
    down, right = rng.choice([(a, b) for a in range(-2, 3) for b in range(-2, 3) if a or b])
    padded = np.pad(x, ((2, 2), (2, 2)) + ((0, 0),) * (x.ndim - 2), mode="edge")
    return padded[2 + down : 2 + down + x.shape[0], 2 + right : 2 + right + x.shape[1]]


def cropped(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Without 5 % of rows and columns, wherever they are taken from, at its old size or at what is left."""
    height, width = (size - max(1, round(0.05 * size)) for size in x.shape[:2])
    top, left = rng.integers(0, x.shape[0] - height + 1), rng.integers(0, x.shape[1] - width + 1)
    part = x[top : top + height, left : left + width]
    return resized(part, *x.shape[:2]) if rng.random() < 0.5 else np.ascontiguousarray(part)


def scaled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """To 90, 95, 105 or 110 % of its size."""
    factor = rng.choice([0.9, 0.95, 1.05, 1.1])
    return resized(x, *(max(1, round(factor * size)) for size in x.shape[:2]))


def brighter(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Contrast by up to a fifth, brightness by up to 20."""
    return clipped((x.astype(float) - 128) * rng.uniform(0.8, 1.2) + 128 + rng.uniform(-20, 20))


Picture = Callable[[np.ndarray, np.random.Generator], np.ndarray | bytes]
PICTURES: dict[str, Picture] = {
    "equal": lambda x, rng: x,
    "JPEG 60 to 90": lambda x, rng: encoded(x, int(rng.integers(60, 91))),
    "brightness, contrast": brighter,
    "noise": lambda x, rng: clipped(x + rng.normal(0, 4, x.shape)),
    "90 to 110 %": scaled,
    "1 or 2 pixels aside": shifted,
    "5 % cut off": cropped,
    "mirrored": lambda x, rng: np.ascontiguousarray(x[:, ::-1]),
}
"""Near-copies of pictures."""


def resampled(x: np.ndarray, rate: int) -> np.ndarray:
    """A sound at another rate."""
    from scipy.signal import resample_poly

    return resample_poly(x, rate, RATE)


Sound = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, int, str]]
SOUNDS: dict[str, Sound] = {
    "equal": lambda x, rng: (x, RATE, "PCM_16"),
    "8 bits a sample": lambda x, rng: (x, RATE, "PCM_U8"),
    "mu-law": lambda x, rng: (x, RATE, "ULAW"),
    "louder, softer": lambda x, rng: (x * rng.uniform(0.7, 1.0), RATE, "PCM_16"),
    "noise at 30 dB": lambda x, rng: (x + rng.normal(0, x.std() / 31.6, len(x)), RATE, "PCM_16"),
    "at 16 kHz": lambda x, rng: (resampled(x, 16000), 16000, "PCM_16"),
    "5 % cut off": lambda x, rng: (x[int(0.025 * len(x)) : -int(0.025 * len(x)) or None], RATE, "PCM_16"),
    "10 ms of silence first": lambda x, rng: (np.concatenate([np.zeros(80), x]), RATE, "PCM_16"),
}
"""Near-copies of sounds, with rate and encoding."""


# ---- the data


def write(path: Path, value: np.ndarray | bytes) -> None:
    """A picture by its suffix, or the bytes of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, bytes):
        path.write_bytes(value)
    elif path.suffix == ".jpg":
        path.write_bytes(encoded(value, 92))
    else:
        Image.fromarray(value).save(path)


def place(root: Path, part: str, label: str, number: int, suffix: str) -> Path:
    """Where item `number` goes: the first three quarters of the patients are trained on."""
    trained = PATIENTS * 3 // 4
    patient = number % trained if part == "train" else trained + number % (PATIENTS - trained)
    return root / part / label / f"p{patient:03d}_{number:05d}{suffix}"


def build(name: str, root: Path, rng: np.random.Generator) -> None:
    """The clean data of one set."""
    train, test = SIZES[name]
    if name == "cifar":
        for part, count in (("train", train), ("test", test)):
            with zipfile.ZipFile(DATA / "cifar10_jpg" / f"cifar10_{part}_jpg.zip") as archive:
                names = sorted(n for n in archive.namelist() if n.endswith(".jpg"))
                for number, i in enumerate(rng.choice(len(names), count, replace=False)):
                    write(place(root, part, Path(names[i]).parent.name, number, ".jpg"), archive.read(names[i]))
        return
    source = find(name)
    samples = [sample for item in source.items for sample in decode(source, item)]
    for number, i in enumerate(rng.choice(len(samples), train + test, replace=False)):
        sample, part = samples[i], "train" if number < train else "test"
        if name == "fsdd":  # speakers are the patients, and never on both sides
            label, speaker, index = Path(sample.path.rpartition("!")[2]).stem.split("_")
            side = "test" if speaker in ("jackson", "theo") else "train"
            path = root / side / label / f"{speaker}_{index}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sample.array[0], RATE)
        else:
            write(place(root, part, str(sample.label), number, ".png"), sample.array[0])


@dataclass
class Planted:
    """What was planted: corrupt paths, pairs of paths by kind, patients."""

    corrupt: set[str] = field(default_factory=set)
    pairs: dict[str, set[frozenset[str]]] = field(default_factory=lambda: defaultdict(set))
    patients: set[str] = field(default_factory=set)


def plant(name: str, root: Path, rng: np.random.Generator) -> Planted:
    """Spoil the data: 2 % near-copies in test/, 2 % corrupt files (others), and patients moved to the other side."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    truth, count = Planted(), round(0.02 * len(files))
    trained = [path for path in files if path.relative_to(root).parts[0] == "train"]
    chosen = [trained[i] for i in rng.choice(len(trained), 2 * count, replace=False)]
    kinds = list(SOUNDS if name == "fsdd" else PICTURES)
    for number, path in enumerate(chosen[:count]):
        kind = kinds[number % len(kinds)]
        copy = root / "test" / path.parent.name
        copy /= f"jackson_copy{number}.wav" if name == "fsdd" else f"p{PATIENTS - 1}_copy{number}{path.suffix}"
        if name == "fsdd":
            wave, rate, subtype = SOUNDS[kind](soundfile.read(path)[0], rng)
            soundfile.write(copy, wave, rate, subtype=subtype)
        elif kind == "equal":
            shutil.copy(path, copy)
        else:
            write(copy, PICTURES[kind](np.asarray(Image.open(path)), rng))
        truth.pairs[kind].add(frozenset((str(path), str(copy))))
    for number, path in enumerate(chosen[count:]):
        content = path.read_bytes()
        spoilt = (
            content[: len(content) // 2],
            b"",
            rng.bytes(len(content)),
            content[:24],
            b"<html>404 not found</html>",
        )
        path.write_bytes(spoilt[number % len(spoilt)])
        truth.corrupt.add(str(path))
    untouched = [path for path in trained if path not in set(chosen)]
    patients = sorted({path.name.split("_")[0] for path in untouched})
    for patient in rng.choice(patients, 1 if name == "fsdd" else 10, replace=False):
        own = [path for path in untouched if path.name.split("_")[0] == patient]
        for path in own[: max(1, len(own) // 4)]:
            other = root / "test" / path.parent.name / path.name
            path.rename(other)
        truth.patients.add(str(patient))
    return truth


def look(root: Path) -> tuple[Audit, float]:
    """What check says, and seconds."""
    suffix = next(path.suffix for path in sorted(root.rglob("*")) if path.is_file())
    start = time.perf_counter()
    found = audit(find(str(root), pattern="{patient}_{_}" + suffix, group="patient"))
    return found, time.perf_counter() - start


def pairs_of(found: Audit) -> set[frozenset[str]]:
    """All pairs that are called equal or nearly equal, by their names: what was moved is still the same."""
    return {
        frozenset((a, b))
        for one in found.findings
        if one.problem in ("duplicate", "near-duplicate")
        for i, a in enumerate(one.paths)
        for b in one.paths[:i]
    }


def named(pairs: set[frozenset[str]]) -> set[frozenset[str]]:
    """Pairs of file names."""
    return {frozenset(Path(path).name for path in pair) for pair in pairs}


def faults(name: str, seeds: int) -> None:
    """Plant all but labels, several times; print what was found."""
    right, total, alarms, natural, items, took = defaultdict(int), defaultdict(int), 0, 0, 0, []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            build(name, root, rng)
            before, _ = look(root)
            known = named(pairs_of(before))
            alarms_before = sum(one.problem == "unreadable" for one in before.findings)
            truth = plant(name, root, rng)
            found, seconds = look(root)
            took.append(seconds)
        bad = {one.paths[0] for one in found.findings if one.problem == "unreadable"}
        right["corrupt"] += len(bad & truth.corrupt)
        total["corrupt"] += len(truth.corrupt)
        alarms += len(bad - truth.corrupt) + alarms_before
        pairs = named(pairs_of(found))
        for kind, planted in truth.pairs.items():
            right[kind] += len(pairs & named(planted))
            total[kind] += len(planted)
        planted_all = set().union(*map(named, truth.pairs.values()))
        copies = {a: b for pair in planted_all for a in pair for b in pair if a != b and "copy" in a}
        # a pair with a copy stands for the same pair with its original
        originals = {frozenset(copies.get(path, path) for path in pair) for pair in pairs - planted_all}
        alarms += len({pair for pair in originals if len(pair) == 2} - known)
        natural += len(known)
        items += len(found.facts)
        two = {one.detail.split()[1] for one in found.findings if one.problem == "group on two sides"}
        right["patient on two sides"] += len(two & truth.patients)
        total["patient on two sides"] += len(truth.patients)
        alarms += len(two - truth.patients)
    copied = [kind for kind in total if kind not in ("corrupt", "patient on two sides")]
    right["near-copies, all"], total["near-copies, all"] = (sum(part[k] for k in copied) for part in (right, total))
    print(f"{name}: {items // seeds:,} items, {seeds} times, {np.median(took):.1f} s a check")
    for kind in total:
        print(f"  {kind:24} {right[kind]:>4} of {total[kind]:>4} ({right[kind] / total[kind]:.1%})")
    print(f"  false alarms             {alarms} in {items:,} items ({1000 * alarms / items:.2f} per 1,000)")
    print(f"  found before planting    {natural} pairs ({1000 * natural / items:.2f} per 1,000)", flush=True)


# ---- labels


def labels(name: str, seed: int, share: float | None) -> None:
    """Flip a share of the labels (None: shuffle all), ask `check --labels`, print what was found."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        root, flipped = Path(folder) / "data", set()
        build(name, root, rng)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        classes = sorted({path.parent.name for path in files})
        number = len(files) if share is None else round(share * len(files))
        for i in rng.choice(len(files), number, replace=False):
            others = classes if share is None else [c for c in classes if c != files[i].parent.name]
            target = files[i].parent.parent / str(rng.choice(others)) / f"x{i}_{files[i].name}"
            if target.parent != files[i].parent:
                flipped.add(str(target))
            files[i].rename(target)
        start = time.perf_counter()
        result = check(CheckSettings(str(root), labels=True), Console(quiet=True))
        seconds = time.perf_counter() - start
    named = {one["paths"][0] for one in result.findings if one["problem"] == "label"}
    clean = len(files) - len(flipped)
    what = "labels shuffled" if share is None else f"{share:.0%} flipped"
    recall = f"{len(named & flipped) / len(flipped):.1%} of {len(flipped):,} found, " if flipped else ""
    figures = result.labels or {}
    print(
        f"{name}, {what}: {recall}{len(named - flipped) / max(1, clean):.2%} of {clean:,} clean ones named; "
        f"{figures['expected']:,.0f} expected, agreement {figures['agreement']:.1%}, margin up to "
        f"{figures['threshold']:.2f}{', capped' if figures['capped'] else ''}; {figures['networks']} networks of "
        f"{figures['epochs']} epochs, {figures['seconds']:.0f} s of training, {seconds:.0f} s in all",
        flush=True,
    )


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SIZES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--controls", action="store_true")
    given = parser.parse_args()
    for name in given.sets:
        if not given.labels:
            faults(name, given.seeds)
            continue
        for seed in range(given.seeds):
            labels(name, seed, 0.03)
        if given.controls:
            labels(name, 0, 0.0)
            labels(name, 0, None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
