"""Does the novelty score tell what has nothing to do with the data, and only that? Areas under the ROC curve.

Each set is trained once with its defaults (--run SET=FOLDER takes a finished run instead). Against its test items stand
300 items of each kind that is unrelated: noise of every value, smooth noise, a constant, cells of test items in random
order, test items upside down in value, and items of the other sets of as many axes, brought to the set's size and
channels as `predict` would. Also the share of test items beyond the threshold, which is set for 1 % of the validation
items, and a control: one half of the test items against the other must not be told apart (0.5).

    python benchmarks/bench_novelty.py [digits mnist cifar10_jpg gunpoint ...] [--run cifar10_jpg=FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

import gridsight
from gridsight.artifact.predictor import Predictor
from gridsight.core.console import Console
from gridsight.core.errors import ReadError
from gridsight.data.cache import Cached, cached
from gridsight.data.conform import conform
from gridsight.data.sample import Sample
from gridsight.data.source import find
from gridsight.data.split import split

COUNT = 300
SETS = ("digits", "mnist", "cifar10_jpg", "gunpoint", "italypowerdemand", "solids", "lesions")


def held_out(data: Cached) -> np.ndarray:
    """The test items of a run with seed 0, (n, C, *spatial), at most 2,000."""
    published = data.splits if any(data.splits) else None
    index = split(data.strata, None, published, 0).test
    chosen = np.random.default_rng(0).permutation(index)[:2000]
    return np.stack([data.x[int(i)] for i in chosen])


def unrelated(x: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Kinds of items like `x` (n, C, *spatial) in size and range alone."""
    low, high, some = float(x.min()), float(x.max()), x[:COUNT]
    noise = rng.uniform(low, high, some.shape)
    smooth = gaussian_filter(noise, (0, 0, *[size / 8 for size in x.shape[2:]]))
    axes = tuple(range(1, x.ndim))
    smooth = (smooth - smooth.min(axes, keepdims=True)) / np.ptp(smooth, axes, keepdims=True)
    flat = rng.uniform(low, high, (len(some), *[1] * (x.ndim - 1)))
    shuffled = rng.permuted(some.reshape(*some.shape[:2], -1), axis=2).reshape(some.shape)
    made = {
        "noise": noise,
        "smooth noise": low + (high - low) * smooth,
        "constant": np.broadcast_to(flat, some.shape),
        "shuffled cells": shuffled,
        "inverted values": low + high - some.astype(np.float64),
    }
    return {name: items.astype(x.dtype) for name, items in made.items()}


def brought(x: np.ndarray, predictor: Predictor) -> list[np.ndarray]:
    """Items of another set as `predict` would bring them to the size of this one; none where it refuses them."""
    out = []
    for item in x[:COUNT]:
        try:
            out.append(conform(Sample(item, "item"), predictor.model.spec))
        except ReadError:
            return []
    return out


def scores(predictor: Predictor, items: list[np.ndarray]) -> np.ndarray:
    """How unlike the training data they are, (n,)."""
    parts = [predictor.outputs_and_novelty(items[i : i + 64])[1] for i in range(0, len(items), 64)]
    return np.minimum(np.concatenate(parts), 1e9)


def main() -> None:
    """A line a set and kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--run", nargs="*", default=[])
    given = parser.parse_args()
    runs = dict(pair.split("=", 1) for pair in given.run)
    tests = {name: held_out(cached(find(name), Console(quiet=True))) for name in given.sets}
    for name, x in tests.items():
        with tempfile.TemporaryDirectory() as folder:
            path = runs.get(name) or gridsight.train(name, out=str(Path(folder) / "run"), report=False).path
            predictor = gridsight.load(path)
            known = predictor.model.novelty
            if known is None:
                print(f"{name}: no novelty (too few data)")
                continue
            usual = scores(predictor, list(x))
            half = len(usual) // 2
            control = roc_auc_score(np.repeat([0, 1], [half, len(usual) - half]), usual)
            beyond = (usual > known.threshold).mean()
            print(f"{name}: {beyond:.2%} of {len(usual):,} test items beyond the threshold, control {control:.3f}")
            kinds = {kind: list(items) for kind, items in unrelated(x, np.random.default_rng(1)).items()}
            kinds |= {other: brought(y, predictor) for other, y in tests.items() if other != name and y.ndim == x.ndim}
            for kind, items in kinds.items():
                if items:
                    strange = scores(predictor, items)
                    area = roc_auc_score(
                        np.repeat([0, 1], [len(usual), len(strange)]), np.concatenate([usual, strange])
                    )
                    told = (strange > known.threshold).mean()
                    print(f"  {kind:16} AUC {area:.3f}, {told:6.1%} beyond the threshold", flush=True)


if __name__ == "__main__":
    main()
