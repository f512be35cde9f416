"""Does a network that learns faces find arcs early, eyes later, and faces last, though no label names an arc or an eye?

Trains the default network on the set `faces`, asks every channel of every stage for every concept of the grammar on
800 scenes that it has never seen (`gridsight.measure.units`), and prints the whole histogram of AUCs a stage and
concept, next to that of untrained copies; then the best channel a stage, chosen on half of the scenes and measured on
the other half, with the best of each untrained copy (same choice) and of shuffled labels. Three questions: against
windows anywhere, which mostly show a bare wall; around other strokes and parts; and eyes against false eyes alone, the
same strokes put together otherwise. Bars: held out above 0.9 for arcs in stage 1 and for eyes in stage 2, and the best
of all untrained copies below that.

    python benchmarks/bench_units.py FOLDER             # three seeds, some minutes; runs in FOLDER are used again
    python benchmarks/bench_units.py FOLDER 1 20        # seeds and epochs

FOLDER receives the runs, units.csv with every row, and units.png.
"""

import csv
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gridsight
from gridsight.data.sets.faces import CONCEPTS, scenes
from gridsight.measure.units import Unit, best, histograms, search, untrained

SCENES, COPIES, BAR = 800, 5, 0.9
EYES = ("eye", "false eye")
QUESTIONS: dict[str, tuple[Sequence[str], Sequence[str] | None]] = {
    "anywhere": (CONCEPTS, None),
    "around other strokes and parts": (CONCEPTS, CONCEPTS),
    "around the other kind of eye": (EYES, EYES),
}
WANTED = {"arc": 1, "eye": 2}  # stages
SHOWN = ("arc", "eye", "face")
FIRST = 9  # of 20 bins: those below 0.45 are printed as one

Tables = dict[str, list[list[Unit]]]
"""Of each question the tables of the trained network, of each untrained copy, and with shuffled labels."""


def trained(folder: Path, seed: int, epochs: int) -> Any:
    """The predictor of a run on `faces`, trained unless it is there."""
    out = folder / f"faces-{seed}"
    if not (out / "model.safetensors").exists():
        gridsight.train("faces", out=str(out), seed=seed, epochs=epochs, report=False)
    return gridsight.load(out, device="cpu")


def tables(predictor: Any, x: torch.Tensor, truth: np.ndarray, seed: int) -> Tables:
    """The searches of one network and its controls, other copies for each `seed`."""
    copies = [untrained(predictor.net, x[: SCENES // 2], COPIES * seed + i) for i in range(COPIES)]
    found: Tables = {}
    for question, (concepts, against) in QUESTIONS.items():
        planes = truth[:, [CONCEPTS.index(name) for name in concepts]]
        found[question] = [
            search(predictor.net, x, planes, concepts, against),
            *(search(copy, x, planes, concepts, against, resamples=0) for copy in copies),
            search(predictor.net, x, planes, concepts, against, resamples=0, shuffled=True),
        ]
    return found


def say_histograms(units: list[Unit], controls: list[list[Unit]]) -> None:
    """Channels a bin of AUC on the half that was not searched; in brackets the mean of the untrained copies."""
    edges = ["<.45", *(f".{round(5 * i):02d}" for i in range(FIRST, 20))]
    print("channels by held-out AUC (each from the number on); in brackets the mean of the untrained copies")
    print(f"{'':16}" + "".join(f"{edge:>10}" for edge in edges))
    others = [histograms(control) for control in controls]
    for (stage, concept), counts in sorted(histograms(units).items(), key=lambda row: (CONCEPTS.index(row[0][1]), row)):
        if stage:
            mean = np.mean([other[stage, concept] for other in others], 0)
            merged = [np.concatenate([[row[:FIRST].sum()], row[FIRST:]]) for row in (counts, mean)]
            cells = [f"{int(n)} ({m:.1f})" if n or m else "-" for n, m in zip(*merged, strict=True)]
            print(f"{concept:10}{stage:5} " + "".join(f"{cell:>10}" for cell in cells))


def say_best(units: list[Unit], controls: list[list[Unit]], shuffled: list[Unit]) -> None:
    """A line a concept and stage: the channel that the searched half chose, on the other half."""
    chosen, none = best(units), best(shuffled)
    copies = [best(control) for control in controls]
    for concept in dict.fromkeys(unit.concept for unit in units):
        for stage in sorted({unit.stage for unit in units}):
            unit = chosen[stage, concept]
            over = [u for u in units if (u.stage, u.concept) == (stage, concept)]
            line = f"{unit.auc:.3f} [{unit.low:.3f}, {unit.high:.3f}]  channel {unit.channel:3} {'+-'[unit.sign < 0]}"
            name = f"{concept:10} stage {stage}" if stage else f"{concept:10} input  "
            random = [copy[stage, concept].auc for copy in copies]
            untaught = f"untrained {min(random):.3f} to {max(random):.3f}; " if stage else ""
            print(
                f"{name}  {line}  n {unit.n:,}, {unit.positives:,} with it; {sum(u.auc > BAR for u in over):2} of "
                f"{len(over):2} above {BAR}; {untaught}"
                f"shuffled {none[stage, concept].auc:.3f}"
            )


def say_bars(units: list[Unit], controls: list[list[Unit]]) -> None:
    """What the bars ask."""
    for concept, stage in WANTED.items():
        if all(unit.concept != concept for unit in units):
            continue
        mine = best(units)[stage, concept].auc
        theirs = max(best(control)[stage, concept].auc for control in controls)
        verdict = "above" if mine > BAR else "NOT above", "below" if theirs < BAR else "NOT below"
        print(f"bar: {concept} in stage {stage}: {mine:.3f}, {verdict[0]} {BAR}; untrained {theirs:.3f}, {verdict[1]}")


def draw(found: Tables, path: Path) -> None:
    """The histograms of three concepts: channels of the trained network, filled, and of the untrained copies, lines."""
    from matplotlib.figure import Figure
    from PIL import Image

    found = {question: each for question, each in found.items() if set(SHOWN) <= {unit.concept for unit in each[0]}}
    figure = Figure(figsize=(10, 4.4 * len(found)), layout="constrained")
    parts = figure.subfigures(len(found), 1, hspace=0.05)
    bins = np.linspace(0.3, 1, 29)
    for part, (question, (units, *controls, _)) in zip(np.atleast_1d(parts), found.items(), strict=True):
        part.suptitle(f"Concept against windows {question}", fontsize=11, x=0.01, ha="left", weight="bold")
        stages = sorted({unit.stage for unit in units if unit.stage})
        axes = part.subplots(len(SHOWN), len(stages), sharex=True)
        chosen = best(units)
        for row, concept in zip(axes, SHOWN, strict=True):
            for cell, stage in zip(row, stages, strict=True):
                mine, theirs = (
                    np.clip([u.auc for t in group for u in t if (u.stage, u.concept) == (stage, concept)], 0.3, 1)
                    for group in ([units], controls)
                )
                share = np.full(len(theirs), 1 / len(controls))
                cell.hist(mine, bins, color="#0067a8", alpha=0.75, label="trained network")
                cell.hist(theirs, bins, weights=share, histtype="step", color="#c94f00", label="untrained (mean)")
                cell.axvline(chosen[0, concept].auc, color="0.4", linestyle=":", linewidth=1.2, label="darkness alone")
                auc = chosen[stage, concept].auc
                cell.plot([auc], [0], "k^", clip_on=False, markersize=6, zorder=5, label="chosen on the other half")
                cell.set_title(f"{concept}, stage {stage}: {auc:.3f}", fontsize=9.5)
                cell.tick_params(labelsize=8)
                cell.yaxis.get_major_locator().set_params(integer=True)
                cell.spines[["top", "right"]].set_visible(False)
            row[0].set_ylabel("channels", fontsize=8.5)
        for cell in axes[-1]:
            cell.set_xlabel("AUC on held-out scenes", fontsize=8.5)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper right", ncols=4, fontsize=8.5, frameon=False)
    figure.savefig(path, dpi=75)
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)


def main(folder: Path, seeds: int, epochs: int) -> None:
    """Train, search, print, draw."""
    pictures, classes, truth = scenes(SCENES, 1)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        predictor = trained(folder, seed, epochs)
        x = predictor.front(torch.from_numpy(pictures))
        right = np.mean([predictor.outputs([p])[0].argmax() == k for p, k in zip(pictures, classes, strict=True)])
        print(f"\n== seed {seed}: {right:.1%} of {SCENES} new scenes right")
        found = tables(predictor, x, truth, seed)
        for question, (units, *controls, shuffled) in found.items():
            print(f"\n-- concept against windows {question}")
            say_histograms(units, controls)
            say_best(units, controls, shuffled)
            say_bars(units, controls)
            kinds = ["trained", *(f"untrained {i}" for i in range(COPIES)), "shuffled"]
            for kind, table in zip(kinds, (units, *controls, shuffled), strict=True):
                rows += [{"seed": seed, "against": question, "network": kind} | asdict(unit) for unit in table]
        if seed == 0:
            draw(found, folder / "units.png")
    with (folder / "units.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["seed", "against", "network", *(field.name for field in fields(Unit))])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    seeds, epochs = [int(word) for word in sys.argv[2:4]] + [3, 20][len(sys.argv[2:4]) :]
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else spare)
        folder.mkdir(parents=True, exist_ok=True)
        main(folder, seeds, epochs)
