"""bench: which way to run a trained network is the fastest here, for one item and for many."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsight.core.console import Console
from gridsight.core.errors import UsageError, nearest
from gridsight.core.settings import argument, option
from gridsight.verbs import VERBS

if TYPE_CHECKING:
    from torch import Tensor

    from gridsight.artifact.engines import Answer
    from gridsight.artifact.predictor import Predictor
    from gridsight.measure.cost import Cost


@dataclass(frozen=True)
class BenchSettings:
    """Measure the network of a run on this machine in several engines, and say which to use here.

    Engines take turns, on one item and on a batch; each must answer as plain PyTorch does, or is refused. With PATH the
    whole way from that file to its answer is timed too, against decoding it and the network. With --train a step of its
    training is timed as well. A run folder keeps the figures as bench.json and bench.svg.

    examples:
      gridsight bench runs/photos-1
      gridsight bench runs/photos-1 one.jpg
      gridsight bench runs/digits-1 --engines eager folded compiled --batch 256
      gridsight bench runs/digits-1 --train
      gridsight bench model.safetensors --seconds 60 --out speed --json
    """

    run: str = argument("a run folder or a model file")
    path: str | None = argument("a file to time the whole way on, from decoding to the answer", default=None)
    engines: tuple[str, ...] = option((), "engines to measure (default: all that run here)", metavar="NAME")
    batch: int | None = option(None, "items of a batch (default: 64, fewer where these take over a second or memory)")
    train: bool = option(False, "time a step of training too, part by part, in batches as the run had them")
    seconds: float = option(20.0, "time to measure, for one item and for the batch together")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...", metavar="NAME")
    out: str | None = option(None, "folder for bench.json and bench.svg (default: the run folder)", metavar="DIR")
    json: bool = option(False, "print the result as one JSON object")


MACS = 3e10
"""Multiply-accumulates of a batch that a processor does in about a second."""
MANY = {"cpu": 64, "cuda": 256}
GPU_TOLERANCE = 1e-2
"""Of the largest logit, on a GPU: PyTorch's convolutions there round their inputs to 10 bits (TF32)."""


@VERBS.register("bench", settings=BenchSettings)
def bench(settings: BenchSettings, console: Console) -> dict[str, Any]:
    """Engines with their figures, which to use, and the whole way of one file; see `docs/commands.md`."""
    import torch

    from gridsight.artifact.engines import ENGINES
    from gridsight.artifact.predictor import load
    from gridsight.core.device import environment
    from gridsight.measure.cost import cost
    from gridsight.measure.speed import matmul_rate

    for name in settings.engines:
        if name not in ENGINES:
            raise UsageError(f"there is no engine {name!r}; {nearest(name, ENGINES)}")
    if settings.batch is not None and settings.batch < 2:
        raise UsageError(f"--batch is at least 2, not {settings.batch}: one item is measured anyway")
    if settings.seconds <= 0:
        raise UsageError(f"--seconds must be above 0, not {settings.seconds:g}")
    predictor = load(settings.run, settings.device)
    names = [name for name in ENGINES if name in settings.engines or not settings.engines or name == "eager"]
    total = cost(predictor.model.net, tuple(predictor.example().shape[1:]))
    with torch.no_grad():
        many = settings.batch or _batch(predictor, total)
        measured = {n: _measure(predictor, names, n, settings.seconds / 2, console) for n in (1, many)}
        whole = _whole(predictor, settings.path, settings.seconds / 4) if settings.path is not None else None
    training = _training(predictor, settings, console) if settings.train else None
    around, peak = environment(predictor.device), matmul_rate(predictor.device)
    share = 2 * total.macs / (1e9 * peak)
    result = {
        "run": settings.run,
        "network": predictor.model.architecture,
        "input": list(predictor.example().shape[1:]),
        "batch": many,
        "engines": [_row(name, measured[1], measured[many], many, share) for name in names],
        "use": {"one": _choice(measured[1]), "many": _choice(measured[many])},
        "whole": whole,
        "training": training,
        "macs": total.macs,
        "matmul_gflops": peak,
        "machine": {key: around[key] for key in ("processor", "cores", "threads", "device", "torch")},
    }
    _say(result, console)
    if (folder := _folder(settings)) is not None:
        _keep(result, folder, console)
    console.emit(result)
    return result


@dataclass(frozen=True)
class _Measured:
    """Of inputs of one size: seconds to make each engine ready, its largest difference, its turns, or why it has none.

    `refused` are measured, but answer otherwise than plain PyTorch.
    """

    ready: dict[str, float]
    difference: dict[str, float]
    turns: dict[str, Any]
    why: dict[str, str]
    refused: dict[str, str]


def _measure(predictor: "Predictor", names: list[str], items: int, seconds: float, console: Console) -> _Measured:
    import time

    from gridsight.artifact.engines import ENGINES, Unavailable, make
    from gridsight.measure.speed import take_turns

    x, net = predictor.front(_raw(predictor, items)), predictor.model.net
    on_gpu = predictor.device.type == "cuda"
    calls: dict[str, Answer] = {}
    found = _Measured({}, {}, {}, {}, {})
    for name in names:
        console.note(f"{name} for {items:,} {'item' if items == 1 else 'items'} ...")
        start = time.perf_counter()
        try:
            calls[name] = make(name, net, x)
        except Unavailable as reason:
            found.why[name] = str(reason)
            continue
        found.ready[name] = time.perf_counter() - start
        expected, logits = calls["eager"]().float(), calls[name]().float()
        difference = float((logits.to(expected.device) - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        found.difference[name] = difference
        most = GPU_TOLERANCE if on_gpu else ENGINES[name].tolerance
        if not difference <= most:
            found.refused[name] = f"answers differ by {difference:.1g} of the largest logit, more than {most:g}"
    found.turns.update(take_turns(calls, seconds, predictor.device))
    return found


def _raw(predictor: "Predictor", items: int) -> "Tensor":
    """Items of random numbers as they are decoded; padded ones are not, so they have no mask."""
    import torch

    spec = predictor.model.spec
    numbers = torch.Generator().manual_seed(0)
    raw = torch.rand(items, spec.channels, *spec.spatial, generator=numbers) * spec.full_scale
    return raw.to(getattr(torch, spec.dtype)).to(predictor.device)


def _training(predictor: "Predictor", settings: BenchSettings, console: Console) -> dict[str, Any]:
    """The speed of the run's training; `verbs/_training_speed.py`."""
    import json

    from gridsight.training.budget import recipe_from
    from gridsight.verbs._training_speed import training_speed

    plan = Path(settings.run) / "plan.json"
    if not plan.exists():
        raise UsageError(f"{settings.run} has no plan.json: --train times the recipe of a run folder")
    written = json.loads(plan.read_text(encoding="utf-8"))
    recipe = recipe_from(written["recipe"])
    raw = _raw(predictor, recipe.batch)
    return training_speed(predictor, recipe, raw, min(written["accumulate"], len(raw)), settings.seconds / 2, console)


def _batch(predictor: "Predictor", total: "Cost") -> int:
    """Items that take about a second at most, and fit into memory."""
    from gridsight.nn.memory import free_memory, parts_that_fit

    most = MANY.get(predictor.device.type, MANY["cpu"])
    while predictor.device.type == "cpu" and most > 2 and most * total.macs > MACS:
        most //= 2
    return max(2, most // parts_that_fit(total.activation_bytes, most, free_memory(predictor.device)))


def _whole(predictor: "Predictor", path: str, seconds: float) -> dict[str, Any]:
    """Milliseconds to decode the first item of a file, to run the network on it, and from the file to its answer."""
    import numpy as np

    from gridsight.artifact.inputs import read_path
    from gridsight.core.errors import ReadError
    from gridsight.data.conform import conform
    from gridsight.measure.speed import take_turns

    spec = predictor.model.spec
    items = list(read_path(Path(path), spec))
    if len(items) != 1 or isinstance(items[0], ReadError):
        raise UsageError(f"{items[0] if len(items) == 1 else path + ' holds several items'}; give a file of one item")
    seen = predictor.seen([conform(items[0], spec)])
    calls = {
        "decode": lambda: list(read_path(Path(path), spec)),
        "network": lambda: predictor.net(*seen),
        "whole": lambda: predictor.predict(path),
    }
    turns = take_turns(calls, seconds, predictor.device)
    parts = turns["decode"].seconds + turns["network"].seconds
    return {
        "path": path,
        **{f"{name}_ms": 1e3 * each.median for name, each in turns.items()},
        "p99_ms": 1e3 * float(np.quantile(turns["whole"].seconds, 0.99)),
        "ratio": float(np.median(turns["whole"].seconds / parts)),
    }


def _row(name: str, one: _Measured, many: _Measured, items: int, share: float) -> dict[str, Any]:
    """The figures of one engine; `error` says why it has none, or why it is refused.

    `share`: what one item a second is of the speed of a product of matrices.
    """
    row: dict[str, Any] = {"engine": name}
    for key, found, count in (("one", one, 1), ("many", many, items)):
        if name not in found.turns:
            row[key] = None
            continue
        turns = found.turns[name]
        low, high = turns.quartiles
        row[key] = {
            "ms": 1e3 * turns.median,
            "low_ms": 1e3 * low,
            "high_ms": 1e3 * high,
            "items_per_second": count / turns.median,
            "of_peak": share * count / turns.median,
            "ratio": turns.ratio(found.turns["eager"]),
            "turns": len(turns.seconds),
            "ready_seconds": found.ready[name],
        }
    differences = [found.difference[name] for found in (one, many) if name in found.difference]
    row["difference"] = max(differences) if differences else None
    row["error"] = next((text for found in (one, many) for text in _problem(found, name)), None)
    return row


def _problem(found: _Measured, name: str) -> list[str]:
    return [said[name] for said in (found.why, found.refused) if name in said]


def _choice(found: _Measured) -> dict[str, Any]:
    """The simplest of the engines that cannot be told from the fastest, which is named, and the others."""
    from gridsight.artifact.engines import ENGINES
    from gridsight.measure.speed import equal_to_best

    sound = {name: turns for name, turns in found.turns.items() if name not in found.refused}
    equal, fastest = equal_to_best(sound), min(sound, key=lambda name: sound[name].median)
    return {"engine": equal[0], "how": ENGINES[equal[0]].use, "as_fast": equal[1:], "fastest": fastest}


def _say(result: Mapping[str, Any], console: Console) -> None:
    from gridsight.measure.speed import WARM_UP

    shape, machine = " x ".join(map(str, result["input"])), result["machine"]
    console.say(
        f"{result['network']} on {shape}, {machine['device']} ({machine['processor']}, {machine['threads']} threads), "
        f"{result['matmul_gflops']:.0f} GFLOP/s in a product of matrices"
    )
    rows = []
    for row in result["engines"]:
        cells: dict[str, Any] = {"engine": row["engine"]}
        if row["one"]:
            cells |= {"ms for 1": row["one"]["ms"], "half within": _between(row["one"])}
            cells |= {"x eager": round(row["one"]["ratio"], 2)}
        if row["many"]:
            cells |= {f"items/s of {result['batch']}": round(row["many"]["items_per_second"])}
            cells |= {"x eager ": round(row["many"]["ratio"], 2), "of peak": f"{row['many']['of_peak']:.0%}"}
            cells |= {"ready in s": round(row["many"]["ready_seconds"], 2)}
        rows.append(cells | {"difference": row["difference"] and f"{row['difference']:.0e}"})
    console.table(rows, max((list(cells) for cells in rows), key=len))
    for row in result["engines"]:
        if row["error"]:
            console.say(f"{row['engine']}: {row['error']}")
    turns = result["engines"][0]["one"]["turns"], result["engines"][0]["many"]["turns"]
    console.say(
        f"medians of {turns[0]} and {turns[1]} turns; not counted: making ready, the first {WARM_UP} calls of "
        "each, one before each turn"
    )
    for key, what in (("one", "one item"), ("many", f"{result['batch']} items")):
        choice = result["use"][key]
        also = ""
        if choice["as_fast"]:
            fastest = "itself" if choice["fastest"] == choice["engine"] else choice["fastest"]
            also = (
                f"; within the noise as fast: {', '.join(choice['as_fast'])} (fastest: {fastest}; --seconds tells more)"
            )
        console.say(f"for {what}: {choice['engine']} ({choice['how']}){also}")
    if (whole := result["whole"]) is not None:
        console.say(
            f"{whole['path']}: {whole['whole_ms']:.3g} ms to its answer (99 % within {whole['p99_ms']:.3g}), "
            f"{whole['ratio']:.2f} times decoding ({whole['decode_ms']:.3g}) and network ({whole['network_ms']:.3g})"
        )


def _between(figures: Mapping[str, Any]) -> str:
    return f"{figures['low_ms']:.4g} to {figures['high_ms']:.4g}"


def _folder(settings: BenchSettings) -> Path | None:
    """Where the figures are kept: --out, else the run folder; a model file alone has none."""
    if settings.out is None:
        return Path(settings.run) if Path(settings.run).is_dir() else None
    folder = Path(settings.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}; give another --out DIR") from None
    return folder


def _keep(result: Mapping[str, Any], folder: Path, console: Console) -> None:
    from gridsight.core.console import dumps
    from gridsight.core.run import atomic_write
    from gridsight.reporting.bars import draw

    ran = [row for row in result["engines"] if row["one"] and row["many"]]
    names = [row["engine"] for row in ran]
    picture = draw(
        f"{result['network']}, {result['machine']['processor']}, {result['machine']['threads']} threads",
        names,
        {
            "one item, ms (less is better)": [row["one"]["ms"] for row in ran],
            f"{result['batch']} items, items a second": [row["many"]["items_per_second"] for row in ran],
        },
    )
    atomic_write(folder / "bench.json", dumps(result, indent=1) + "\n")
    atomic_write(folder / "bench.svg", picture)
    console.say(f"figures: {folder / 'bench.json'}, {folder / 'bench.svg'}")
