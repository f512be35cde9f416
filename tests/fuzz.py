"""Feed readers mutated files for a while: anything but samples and `ReadError`s is a bug, and is kept with its file.

    python tests/fuzz.py nifti dicom --minutes 60 --out found/

Starts from each reader's own examples and from the bank of nasty files; flips bits, cuts, repeats, swaps and inserts
pieces, and writes extreme numbers over fields. A reader may take 10 seconds and 4 GB a file. The same seed gives the
same files. What was found belongs into tests/nasty.py as a regression test.
"""

import argparse
import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from gridsight.core.errors import ReadError
from gridsight.data.files import File
from gridsight.data.readers import READERS, Reader

SECONDS, BYTES = 10, 4 << 30
SMALL = 1 << 20  # bytes of an original
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight changes to the bytes; half of them near the start, where headers are."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if not out:
            return bytes(rng.integers(0, 256, 8, np.uint8))
        reach = min(len(out), 400) if rng.random() < 0.5 else len(out)
        at = int(rng.integers(0, reach))
        kind = rng.integers(0, 7)
        size = int(rng.integers(1, 17))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            del out[at : at + size]
        elif kind == 3:
            out[at:at] = out[at : at + size] * int(rng.integers(1, 5))
        elif kind == 4:
            out[at:at] = bytes(rng.integers(0, 256, size, np.uint8))
        elif kind == 5:
            width = int(rng.choice([1, 2, 4, 8]))
            value = int(EXTREMES[rng.integers(0, len(EXTREMES))]) & ((1 << 8 * width) - 1)
            out[at : at + width] = value.to_bytes(width, "little" if rng.random() < 0.5 else "big")
        else:
            other = int(rng.integers(0, len(out)))
            out[at : at + size] = out[other : other + size]
    return bytes(out)


def seeds(name: str, reader: Reader, folder: Path) -> Iterator[Path]:
    """The reader's own examples and what the bank of nasty files has for its suffixes."""
    import nasty

    (folder / "own").mkdir()
    for path, _ in reader.write_example(folder / "own"):
        yield path
    suffixes = tuple(READERS.get(name).tags["suffixes"])
    for case in nasty.build(folder / "bank"):
        small = case.member is None and os.path.isfile(case.path)  # noqa: PTH113 - Path.is_file raises on long names
        if small and 0 < case.path.stat().st_size < SMALL and case.path.name.lower().endswith(suffixes):
            yield case.path


def try_one(reader: Reader, path: Path) -> str:
    """What went wrong, "" where nothing did."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    file = File(path, None, path.parent)
    try:
        for way in (lambda: list(reader.read(file)), lambda: reader.read_single(file), lambda: reader.probe(file)):
            with contextlib.suppress(ReadError):
                way()
        return ""
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Fuzz the readers named, or all; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", default=READERS.names())
    parser.add_argument("--minutes", type=float, default=1.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-found"))
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    warnings.simplefilter("error")  # as in the tests
    failed = 0
    for name in given.readers:
        reader = READERS.create(name)
        rng = np.random.default_rng(given.seed)
        found: dict[str, Path] = {}
        tried, end = 0, time.monotonic() + 60 * given.minutes
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            originals = [(path.name, path.read_bytes()) for path in seeds(name, reader, folder)]
            while time.monotonic() < end:
                label, data = originals[int(rng.integers(0, len(originals)))]
                path = folder / label
                path.write_bytes(mutate(data, rng))
                wrong = try_one(reader, path)
                tried += 1
                kind = wrong.strip().splitlines()[-1][:80] if wrong else ""
                if wrong and kind not in found:
                    given.out.mkdir(parents=True, exist_ok=True)
                    kept = given.out / f"{name}-{len(found)}-{label}"
                    kept.write_bytes(path.read_bytes())
                    found[kind] = kept
                    print(f"{kept}\n{wrong}", flush=True)
        failed += len(found)
        print(f"{name}: {tried:,} mutated files of {len(originals)}, {len(found)} kinds of failure", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
