"""How soon does Gridsight reach an accuracy, and how soon its peers? The same raw data, machine and hour.

Gridsight's commands (OURS) and the peers' programs (PEERS, in peers/) take turns, a process each: all of Gridsight's
commands with one seed, then a peer, and so on. Seconds are those of training, without imports, decoding and evaluation,
on both sides; Gridsight's are `training_seconds` of result.json, folds for calibration included. Gridsight has reached
a bar with a command whose mean accuracy is there, no seed more than a tenth of a point below; a peer has after the
first epoch at whose end it is there, which flatters the peer. The rate of a 2048-cubed product is measured
between the runs. Rows are kept as runs end; --plot-only judges and draws those that are there.

    make bench-peers
    python benchmarks/bench_accuracy.py [mnist|cifar|series] [--seeds 5] [--peers fastai keras pytorch]
        [--peer-seeds 1] [--brief] [--rows FILE] [--plot-only]

--brief stops the peers that can be stopped at the first bar. Bars: mnist 99.0 % within 4 s (mean of the seeds, each at
least 98.9), 3 times sooner than fastai, 20 times sooner than the examples of Keras and PyTorch, and 99.5 % within 18 s;
cifar 88 % after 10 minutes and 4 points above airbench94; series in a third of a plain loop's time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PYTHON = HERE.parent / ".venv-peers" / "bin" / "python"
Row = dict[str, Any]

OURS: dict[str, dict[str, tuple[str, ...]]] = {
    "mnist": {"0.6 epochs": ("mnist", "--epochs", "0.6"), "3 epochs": ("mnist", "--epochs", "3")},
    "cifar": {"10 minutes": ("cifar10_jpg", "--minutes", "10")},
    "series": {name: (name,) for name in ("gunpoint", "italypowerdemand", "fsdd")},
}
"""Task: name of a command: the arguments of `gridsight train`."""


@dataclass(frozen=True)
class Peer:
    """A program of peers/, and whether it needs the environment of `make bench-peers` and knows --until."""

    command: tuple[str, ...]
    own: bool = False
    stops: bool = False


PEERS: dict[str, dict[str, Peer]] = {
    "mnist": {
        "fastai": Peer(("fastai_mnist.py",), own=True),
        "fastai-3": Peer(("fastai_mnist.py", "--epochs", "3"), own=True),  # the shortest cycle that reaches 99.0 %
        "fastai-blocks": Peer(("fastai_mnist.py", "--blocks"), own=True),
        "keras": Peer(("keras_mnist.py",), own=True, stops=True),
        "pytorch": Peer(("pytorch_mnist.py",), own=True, stops=True),
    },
    "cifar": {"airbench94": Peer(("airbench94.py", "--minutes", "10"))},
    "series": {
        f"{net}-{name}": Peer(("plain_series.py", name, "--net", net, "--minutes", "10"), stops=True)
        for name in ("GunPoint", "ItalyPowerDemand", "fsdd")
        for net in ("fcn", "resnet")
    },
}
BARS = {
    "mnist": (0.990, 0.995),
    "cifar10_jpg": (0.88,),
    "gunpoint": (0.99,),
    "italypowerdemand": (0.955,),
    "fsdd": (0.99,),
}
"""Data: accuracies to reach."""
SECONDS = {("mnist", 0.990): 4.0, ("mnist", 0.995): 18.0}
TIMES = {"fastai": 3.0, "fastai-3": 3.0, "fastai-blocks": 3.0, "keras": 20.0, "pytorch": 20.0}
SERIES_TIMES, POINTS_ABOVE = 3.0, 0.04
SPARE = 0.001  # what one seed may be below a bar that the mean reaches
FLOOR = {"mnist": 0.97, "cifar10_jpg": 0.4}  # of the chart
COLOURS = ("#c94f00", "#00805f", "#a8479a", "#8a6a00", "#5b6570", "#1b2026")
INK, SOFT, RULE, OURS_COLOUR = "#1b2026", "#5b6570", "#d9dee4", "#0067a8"


def matmul_rate() -> float:
    """GFLOP/s of a 2048-cubed product in this minute."""
    import torch

    a = torch.randn(2048, 2048)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times) / 1e9


def run_ours(name: str, arguments: tuple[str, ...], seed: int) -> list[Row]:
    """Train in a process of this environment: one row."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "gridsight", "train", *arguments, "--seed", str(seed), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        result, plan = (json.loads((out / f).read_text(encoding="utf-8")) for f in ("result.json", "plan.json"))
    return [
        {
            "peer": f"gridsight {name}",
            "data": arguments[0],
            "seed": seed,
            "seconds": result["training_seconds"],
            "accuracy": result["metrics"]["accuracy"]["value"],
            "whole_seconds": result["seconds"],
            # forward once and backward twice, a multiplication and an addition each; progressive sizes not deducted
            "flops": 6 * plan["macs"] * plan["recipe"]["batch"] * plan["steps"],
        }
    ]


def run_peer(name: str, peer: Peer, seed: int, stop: float | None) -> list[Row]:
    """Train with a program of peers/: a row an epoch."""
    python = str(PYTHON) if peer.own else sys.executable
    if peer.own and not PYTHON.exists():
        raise SystemExit(f"{name} needs {PYTHON.parent.parent}: make bench-peers")
    command = [python, str(HERE / "peers" / peer.command[0]), *peer.command[1:], "--seed", str(seed)]
    if stop is not None and peer.stops:
        command += ["--until", str(stop)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    rows: list[Row] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for row in rows:
        row["peer"] = name
        if "flops_a_step" in row:
            row["flops"] = row["flops_a_step"] * row["steps"]
    return rows


def measure(task: str, seeds: int, peers: list[str], peer_seeds: int, brief: bool) -> Iterator[list[Row]]:
    """The rows of one run after the other, Gridsight and the peers by turns."""
    queue = [(name, PEERS[task][name], seed) for seed in range(peer_seeds) for name in peers]
    for seed, turn in zip_longest(range(seeds), queue):
        if seed is not None:
            for name, arguments in OURS[task].items():
                yield run_ours(name, arguments, seed)
        if turn is not None:
            name, peer, peer_seed = turn
            data = peer.command[1].lower() if task == "series" else OURS[task][next(iter(OURS[task]))][0]
            yield run_peer(name, peer, peer_seed, BARS[data][0] if brief or task == "series" else None)


def by_run(rows: list[Row]) -> dict[tuple[str, str, int], list[Row]]:
    """The rows of each run, in order."""
    runs: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        runs.setdefault((row["data"], row["peer"], row["seed"]), []).append(row)
    return runs


def time_to(rows: list[Row], bar: float) -> dict[str, float | None]:
    """Who: seconds to the bar, None where it was not reached; rows of one data set."""
    found: dict[str, float | None] = {}
    runs = by_run(rows)
    commands = sorted({row["peer"] for row in rows if row["peer"].startswith("gridsight")})
    reached = []
    for command in commands:
        last = [part[-1] for (_, who, _), part in runs.items() if who == command]
        accuracies = [row["accuracy"] for row in last]
        if statistics.mean(accuracies) >= bar and min(accuracies) >= bar - SPARE:
            reached.append(statistics.mean(row["seconds"] for row in last))
    if commands:
        found["gridsight"] = min(reached, default=None)
    for peer in sorted({row["peer"] for row in rows} - set(commands)):
        firsts = [
            next((row["seconds"] for row in part if row["accuracy"] >= bar), None)
            for (_, who, _), part in runs.items()
            if who == peer
        ]
        there = [seconds for seconds in firsts if seconds is not None]
        found[peer] = statistics.median(there) if len(there) == len(firsts) else None
    return found


def tell_runs(rows: list[Row]) -> None:
    """A line for each command and peer: the median at the end, and every seed."""
    runs = by_run(rows)
    for data, who in dict.fromkeys((data, who) for data, who, _ in runs):
        last = {seed: part[-1] for (d, w, seed), part in runs.items() if (d, w) == (data, who)}
        each = ", ".join(f"{100 * row['accuracy']:.2f} in {row['seconds']:.1f} s" for row in last.values())
        middle = [statistics.median(row[key] for row in last.values()) for key in ("accuracy", "seconds")]
        work = statistics.median(row.get("flops", 0) for row in last.values())
        more = f"; {work / 1e12:,.1f} TFLOP" if work else ""
        views = [row for row in last.values() if "views_accuracy" in row]
        for row in views:
            more += f"; six views {100 * row['views_accuracy']:.2f} in {row['views_seconds']:.0f} s"
        print(f"{data:17} {who:26} {100 * middle[0]:6.2f} % in {middle[1]:7.1f} s{more}   ({each})")


def verdicts(rows: list[Row], task: str) -> Iterator[tuple[str, bool | None]]:
    """Each bar in words, and whether it is met; None where there is nothing to meet."""
    for data in dict.fromkeys(row["data"] for row in rows):
        mine = [row for row in rows if row["data"] == data]
        if task == "cifar":
            yield from after_ten_minutes(mine)
            continue
        for bar in BARS[data]:
            times = time_to(mine, bar)
            ours = times.pop("gridsight", None)
            words, most = f"{data}, {100 * bar:.1f} %", SECONDS.get((data, bar))
            said = "not reached" if ours is None else f"{ours:.1f} s" + (f" (bar {most:g} s)" if most else "")
            yield f"{words}: gridsight {said}", ours is not None and (most is None or ours <= most)
            for peer, seconds in times.items():
                need = SERIES_TIMES if task == "series" else TIMES[peer] if bar == BARS[data][0] else None
                if seconds is None or ours is None:
                    yield f"{words}: {peer} {'not reached' if seconds is None else f'{seconds:.1f} s'}", None
                    continue
                line = f"{words}: {peer} {seconds:.1f} s, {seconds / ours:.1f} times as long"
                if need is None:
                    yield line, None
                    continue
                again = "; near it, measure again: --peer-seeds 2" if abs(seconds / ours / need - 1) <= 0.2 else ""
                yield f"{line} (bar {need:g}{again})", seconds / ours >= need


def after_ten_minutes(rows: list[Row]) -> Iterator[tuple[str, bool | None]]:
    """The same for what came of the same ten minutes."""
    ends: dict[str, list[float]] = {}
    for (_, who, _), part in by_run(rows).items():
        ends.setdefault("gridsight" if who.startswith("gridsight") else who, []).append(part[-1]["accuracy"])
    ours, (bar,) = ends.pop("gridsight", None), BARS["cifar10_jpg"]
    if ours is None:
        return
    mean = statistics.mean(ours)
    yield f"cifar10_jpg: gridsight {100 * mean:.2f} % (bar {100 * bar:.0f})", mean >= bar
    for who, theirs in ends.items():
        points = mean - statistics.mean(theirs)
        yield (
            (
                f"cifar10_jpg: {who} {100 * statistics.mean(theirs):.2f} %, {100 * points:.2f} points less "
                f"(bar {100 * POINTS_ABOVE:.0f})"
            ),
            points >= POINTS_ABOVE,
        )


def draw(rows: list[Row], path: Path) -> None:
    """Accuracy against seconds of training, a panel a data set; Gridsight a point a run, peers a line a run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    sets = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(7 if len(sets) == 1 else 4 * len(sets), 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for number, data in enumerate(sets):
        axes = figure.add_subplot(1, len(sets), number + 1)
        runs = {key[1:]: part for key, part in by_run(rows).items() if key[0] == data}
        peers = list(dict.fromkeys(who for who, _ in runs if not who.startswith("gridsight")))
        named = set()
        for (who, _), part in runs.items():
            ours = who.startswith("gridsight")
            name = "gridsight" if ours else who
            label = None if name in named else name
            named.add(name)
            x, y = [row["seconds"] for row in part], [100 * row["accuracy"] for row in part]
            if ours:
                axes.plot(x, y, "o", color=OURS_COLOUR, markersize=6, alpha=0.75, label=label, zorder=3)
            else:
                colour = COLOURS[peers.index(who) % len(COLOURS)]
                axes.plot(x, y, ".-", color=colour, linewidth=1.5, markersize=4, label=label)
        for bar in BARS[data]:
            axes.axhline(100 * bar, color=SOFT, linewidth=1, linestyle=(0, (2, 3)))
        best = max(100 * row["accuracy"] for row in rows if row["data"] == data)
        low = 100 * FLOOR.get(data, 0.8)
        axes.set(xscale="log", ylim=(low, max(best, 100 * BARS[data][-1]) + 0.05 * (100 - low)))
        axes.set_xlabel("seconds of training", color=INK)
        axes.set_ylabel("test accuracy, %", color=INK)
        axes.set_title(data, color=INK, fontsize=11, loc="left")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(RULE)
        axes.grid(True, color=RULE, linewidth=0.6, alpha=0.7)
        axes.tick_params(length=0, which="both", labelcolor=SOFT)
        axes.legend(frameon=False, labelcolor=INK, loc="lower right", fontsize=9)
    figure.savefig(path)


def work(task: str, peers: list[str], given: argparse.Namespace) -> bool:
    """Measure, tell, judge and draw one task; True where no bar is missed."""
    path = given.rows or Path("runs") / f"accuracy_{task}.jsonl"
    chart = HERE / f"accuracy_{task}.png" if given.rows is None else path.with_suffix(".png")
    if not given.plot_only:
        path.parent.mkdir(parents=True, exist_ok=True)
        seeds = given.seeds or (3 if task == "cifar" else 5)
        with path.open("w", encoding="utf-8") as file:
            rate = matmul_rate()
            for rows in measure(task, seeds, peers, given.peer_seeds, given.brief):
                after = matmul_rate()
                for row in rows:
                    file.write(json.dumps(row | {"matmul_before": rate, "matmul_after": after}) + "\n")
                file.flush()
                last = rows[-1]
                print(
                    f"{last['data']:17} {last['peer']:26} seed {last['seed']}: {100 * last['accuracy']:.2f} % in "
                    f"{last['seconds']:.1f} s; matmul {rate:.0f} and {after:.0f} GFLOP/s",
                    flush=True,
                )
                rate = after
    if not path.exists():
        raise SystemExit(f"there is no {path} yet: run without --plot-only")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rates = [row[key] for row in rows for key in ("matmul_before", "matmul_after")]
    threads = os.environ.get("OMP_NUM_THREADS", f"{os.cpu_count()} (all)")
    spread = f"{min(rates):.0f} to {max(rates):.0f}, median {statistics.median(rates):.0f}"
    print(f"\n{task}: {threads} threads, matmul {spread} GFLOP/s")
    tell_runs(rows)
    found = list(verdicts(rows, task))
    for words, met in found:
        print(f"{'      ' if met is None else 'met   ' if met else 'MISSED'}  {words}")
    draw(rows, chart)
    return not any(met is False for _, met in found)


def main() -> int:
    """One task or all; 1 when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=tuple(OURS), nargs="?", help="default: one after the other")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--peers", nargs="*")
    parser.add_argument("--peer-seeds", type=int, default=1)
    parser.add_argument("--brief", action="store_true")
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--plot-only", action="store_true")
    given = parser.parse_args()
    if given.task is None and (given.peers is not None or given.rows is not None):
        parser.error("--peers and --rows need a task")
    fine = True
    for task in OURS if given.task is None else (given.task,):
        known = PEERS[task]
        if unknown := [name for name in given.peers or () if name not in known]:
            parser.error(f"{', '.join(unknown)}: the peers of {task} are {', '.join(known)}")
        here = [name for name, peer in known.items() if PYTHON.exists() or not peer.own]
        if given.peers is None and (gone := [name for name in known if name not in here]):
            print(f"left out: {', '.join(gone)}, which need `make bench-peers`")
        fine = work(task, here if given.peers is None else given.peers, given) and fine
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
