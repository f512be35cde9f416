"""How much sooner are Shapley values of regions right than by shap and captum? Processor time to equal error.

A network is trained on the digits (--run takes a finished run of any set). All are asked for the same values: the same
network, items, regions, baseline, and the same function that answers for sets of regions 64 at a time (Gridsight's
own, so that peers do not pay for masking). Errors are measured against the exact values: root mean square over items
and seeds, relative to the size of the values. For each budget of a peer the time at which Gridsight's line of (error,
time) crosses the peer's error is read off, with straight lines between its budgets in logarithms; where Gridsight's
least budget is better already, its time counts in full. Ratios are the peer's time over that.

    python -m venv --system-site-packages .venv-shap && .venv-shap/bin/pip install shap==0.50.0 captum==0.8.0
    .venv-shap/bin/python benchmarks/bench_shapley.py [--run FOLDER --set NAME] [--regions 12] [--items 3] [--seeds 5]

A peer that is not installed is left out, with a message. Bar: 3 times sooner than each estimator of the peers at errors
up to 5 % (by default Gridsight stops at 3 to 4 %). Rougher ones are printed too: they take so few passes that what does
not depend on their number decides.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gridsight
from gridsight.attribution._passes import set_scores
from gridsight.attribution._regions import regions_of
from gridsight.attribution.shapley import Shapley
from gridsight.core.console import Console
from gridsight.data.cache import cached
from gridsight.data.source import find
from gridsight.nn.undisturbed import undisturbed

BUDGETS = (64, 128, 256, 512, 1024, 2048)
BAR, ROUGH = 3.0, 0.05
Case = tuple[Any, Tensor, Tensor, Tensor]
"""Network, item (1, C, *spatial), target (1,), regions (1, *spatial)."""
Method = Callable[[Case, int, int], np.ndarray]
"""(case, passes, seed) -> values (P,)."""


def ours(estimator: str) -> Method:
    """Gridsight's estimator; it uses its whole budget."""

    def ask(case: Case, passes: int, seed: int) -> np.ndarray:
        net, x, target, regions = case
        method = Shapley(regions, estimator=estimator, samples=passes, tolerance=0.0, seed=seed)
        found = method(net, x, target).parts
        assert found is not None
        return found[0].numpy()

    return ask


def of_sets(case: Case) -> Callable[[np.ndarray], np.ndarray]:
    """What the network says of sets (M, P) of zeros and ones."""
    net, x, target, regions = case
    base = torch.zeros_like(x[0])

    def ask(sets: np.ndarray) -> np.ndarray:
        shown = torch.from_numpy(np.asarray(sets) > 0.5)
        with torch.no_grad():
            return set_scores(net, x[0], base, regions[0], shown, target[0], 64).numpy()

    return ask


def peers() -> dict[str, Method]:
    """Those that are installed."""
    found: dict[str, Method] = {}
    try:
        import shap
    except ImportError:
        print("shap is not installed: left out (see the head of this file)")
    else:

        def count(case: Case) -> int:
            return int(case[3].max()) + 1

        def permutation(case: Case, passes: int, seed: int) -> np.ndarray:
            n = count(case)
            explainer = shap.PermutationExplainer(of_sets(case), np.zeros((1, n)), seed=seed)
            return explainer(np.ones((1, n)), max_evals=max(passes, 2 * n + 1), silent=True).values[0]

        def kernel(case: Case, passes: int, seed: int) -> np.ndarray:
            n = count(case)
            np.random.seed(seed)  # noqa: NPY002 (what it draws from)
            explainer = shap.KernelExplainer(of_sets(case), np.zeros((1, n)))
            return explainer.shap_values(np.ones((1, n)), nsamples=passes, silent=True, l1_reg=0)[0]

        def exact(case: Case, passes: int, seed: int) -> np.ndarray:
            n = count(case)
            explainer = shap.ExactExplainer(of_sets(case), np.zeros((1, n)))
            return explainer(np.ones((1, n)), max_evals=2**n, silent=True).values[0]

        found |= {"shap permutation": permutation, "shap kernel": kernel, "shap exact": exact}
    try:
        from captum import attr
    except ImportError:
        print("captum is not installed: left out (see the head of this file)")
    else:

        def of_captum(case: Case, method: Any, **settings: Any) -> np.ndarray:
            net, x, target, regions = case
            found = method(net).attribute(x, target=int(target), feature_mask=regions[:, None], **settings)
            each = torch.zeros(int(regions.max()) + 1)
            return each.scatter_(0, regions.flatten(), found[:, 0].flatten()).numpy()

        def sampling(case: Case, passes: int, seed: int) -> np.ndarray:
            torch.manual_seed(seed)
            orders = max(1, passes // (int(case[3].max()) + 1))
            return of_captum(case, attr.ShapleyValueSampling, n_samples=orders, perturbations_per_eval=64)

        def kernel_shap(case: Case, passes: int, seed: int) -> np.ndarray:
            torch.manual_seed(seed)
            return of_captum(case, attr.KernelShap, n_samples=passes, perturbations_per_eval=64)

        found |= {"captum sampling": sampling, "captum kernel": kernel_shap}
    return found


def line(method: Method, cases: list[Case], truth: list[np.ndarray], budget: int, seeds: int) -> tuple[float, float]:
    """(seconds of processor time an item, error) at one budget."""
    errors, seconds = [], 0.0
    for case, exact in zip(cases, truth, strict=True):
        for seed in range(seeds):
            begun = time.process_time()
            said = method(case, budget, seed)
            seconds += time.process_time() - begun
            errors.append(np.square(said - exact).sum() / np.square(exact).sum())
    return seconds / len(errors), float(np.sqrt(np.mean(errors)))


def time_at(error: float, lines: list[tuple[float, float]]) -> float:
    """Seconds at which lines of (seconds, error) reach an error; NaN where they do not."""
    if error >= lines[0][1]:
        return lines[0][0]
    for (slow, high), (slower, low) in pairwise(lines):
        if low <= error < high:
            share = np.log(high / error) / np.log(high / low)
            return float(np.exp((1 - share) * np.log(slow) + share * np.log(slower)))
    return float("nan")


def main() -> None:
    """A table of lines, and of ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run")
    parser.add_argument("--set", default="digits")
    parser.add_argument("--regions", type=int, default=12)
    parser.add_argument("--items", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or gridsight.train(given.set, out=str(Path(folder) / "run"), epochs=3, report=False).path
        predictor = gridsight.load(run)
        net = predictor.net
    data = cached(find(given.set), Console(quiet=True))
    some = np.random.default_rng(0).permutation(len(data.x))[: given.items]
    cases: list[Case] = []
    with undisturbed(net), torch.no_grad():
        for i in some:
            x = predictor.front(torch.from_numpy(np.stack([data.x[int(i)]])))
            cases.append((net, x, net(x).argmax(1), regions_of(x, "grid", given.regions)))
        exact = [time_of(case) for case in (cases[0], *cases)][1:]  # the first call of all is slow
        truth = [values for values, _ in exact]
        print(f"{given.set}: {len(truth[0])} regions, {given.items} items, {given.seeds} seeds")
        print(f"{'gridsight exact':20} {np.mean([seconds for _, seconds in exact]) * 1e3:8.1f} ms")
        mine = {}
        for name in ("kernel", "permutation"):
            mine[name] = [line(ours(name), cases, truth, budget, given.seeds) for budget in BUDGETS]
            show(f"gridsight {name}", mine[name], None)
        for name, method in peers().items():
            method(cases[0], BUDGETS[0], 0)
            if name == "shap exact":
                seconds, error = line(method, cases, truth, 0, 1)
                ratio = seconds / np.mean([seconds for _, seconds in exact])
                print(f"{name:20} {seconds * 1e3:8.1f} ms, error {error:.1e}, {ratio:.2f} times Gridsight's exact")
                continue
            lines = [line(method, cases, truth, budget, given.seeds) for budget in BUDGETS]
            show(name, lines, mine["kernel"])


def time_of(case: Case) -> tuple[np.ndarray, float]:
    """(exact values, seconds)."""
    begun = time.process_time()
    values = ours("exact")(case, 0, 0)
    return values, time.process_time() - begun


def show(name: str, lines: list[tuple[float, float]], mine: list[tuple[float, float]] | None) -> None:
    """A method's lines, with the ratios to Gridsight's."""
    for budget, (seconds, error) in zip(BUDGETS, lines, strict=True):
        said = ""
        if mine is not None:
            ratio = seconds / time_at(error, mine)
            said = f", ratio {ratio:5.1f}{' BELOW THE BAR' if ratio < BAR and error <= ROUGH else ''}"
        print(f"{name:20} {budget:5} passes: {seconds * 1e3:8.1f} ms, error {error:.4f}{said}", flush=True)


if __name__ == "__main__":
    main()
