"""The plan of a run: DataSpec, settings and defaults in; network, recipe, cost and words for people out."""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from gridsight.core.console import Console
from gridsight.core.errors import UsageError
from gridsight.data.augment import AUGMENTS, check, guarded
from gridsight.data.cache import Cached
from gridsight.data.spec import DataSpec
from gridsight.data.split import Split
from gridsight.measure.cost import cost
from gridsight.models import MODELS, create
from gridsight.nn.frontend import FrontEnd, FrontEndSettings, MelSettings
from gridsight.nn.geometry import stage_fields
from gridsight.training.recipe import Recipe, recipe
from gridsight.verbs.train import TrainSettings

SMALL_STEP = 300_000_000
"""Multiply-accumulates of a forward pass of one batch below which one thread is used."""
STATISTICS = 4096
"""Items that mean and deviation are measured on, evenly spread over the training data."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides the numbers of a run, besides the data."""

    recipe: Recipe
    front: FrontEndSettings
    in_channels: int
    num_classes: int
    spatial: tuple[int, ...]
    seed: int

    def network(self, seed: int) -> Any:
        """The network with the initial weights of `seed`."""
        from gridsight.core import seed as hashing

        torch.manual_seed(hashing.key(seed, "weights"))
        return build(self.recipe, self.in_channels, self.num_classes, self.spatial)


def build(recipe: Recipe, in_channels: int, num_classes: int, spatial: tuple[int, ...]) -> Any:
    """The recipe's network; `spatial` is what it sees, for those that fix their input size."""
    return create(
        recipe.model,
        ndim=recipe.ndim,
        in_channels=in_channels,
        num_classes=num_classes,
        **arguments(recipe, spatial),
    )


def arguments(recipe: Recipe, spatial: tuple[int, ...]) -> dict[str, Any]:
    """The network's own arguments, with `spatial` for those that take it."""
    given = dict(recipe.arguments)
    if MODELS.accepts(recipe.model, "spatial"):
        given["spatial"] = spatial
    return given


def make_plan(settings: TrainSettings, data: Cached, train: np.ndarray, console: Console) -> Plan:
    """The recipe for these data with the settings' overrides, and the front end with its statistics."""
    spec = data.spec
    # a fold trains on what the others hold
    n_train = len(train) * (settings.folds - 1) // settings.folds if settings.folds else len(train)
    base = recipe(
        spec.ndim,
        spec.channels,
        spec.spatial,
        spec.num_classes,
        n_train,
        spec.rate,
        spec.kind == "image" and spec.channels == 3,
    )
    chosen = _override(base, settings)
    operations = _augmentations(settings.augment, base)
    check(operations, spec.ndim, spec.kind == "sound")
    allowed, messages = guarded(operations, spec.classes, spec.kind)
    if settings.augment != ("auto",):
        for message in messages:
            console.warn(message)
    chosen = replace(chosen, augment=tuple(allowed))
    front = front_end(chosen, data, train)
    with torch.no_grad():
        example = torch.from_numpy(np.array(data.x[train[:1]]))
        seen = FrontEnd(front, spec.ndim)(example)
    return Plan(chosen, front, seen.shape[1], spec.num_classes, tuple(seen.shape[2:]), settings.seed)


def _override(base: Recipe, settings: TrainSettings) -> Recipe:
    changes: dict[str, Any] = {
        name: value
        for name in ("epochs", "batch", "lr", "warmup", "weight_decay", "label_smoothing", "average", "clip")
        if (value := getattr(settings, name)) is not None
    }
    for name in ("optimizer", "schedule"):
        if (value := getattr(settings, name)) != "auto":
            changes[name] = value
    if changes.get("optimizer", base.optimizer) != base.optimizer and settings.lr is None:
        # a rate belongs to its optimiser; these are the usual ones where none is given
        changes["lr"] = {"sgd": 0.1, "adamw": 2e-3}[changes["optimizer"]]
        if settings.weight_decay is None:
            changes["weight_decay"] = {"sgd": 5e-4, "adamw": 0.01}[changes["optimizer"]]
    if settings.model not in ("auto", base.model):
        changes |= {"model": settings.model, "arguments": {}}
    return replace(base, **changes)


def _augmentations(words: tuple[str, ...], base: Recipe) -> list[tuple[str, float]]:
    if words == ("auto",):
        return list(base.augment)
    if words == ("none",):
        return []
    chosen = []
    for word in words:
        name, _, strength = word.partition("=")
        AUGMENTS.require(name)
        default = dict(base.augment).get(name, AUGMENTS.get(name).tags["default"])
        try:
            chosen.append((name, float(strength) if strength else default))
        except ValueError:
            raise UsageError(f"--augment {word}: the strength after = is a number, such as {name}=0.1") from None
    return chosen


def front_end(recipe: Recipe, data: Cached, train: np.ndarray) -> FrontEndSettings:
    """The front end with mean and deviation a channel of the training items alone, a few at a time."""
    spec = data.spec
    spread = np.sort(train[np.linspace(0, len(train) - 1, min(STATISTICS, len(train))).astype(np.int64)])
    total, squares, count = np.zeros(spec.channels), np.zeros(spec.channels), 0
    shift = np.asarray(data.x[spread[0]], np.float64).reshape(spec.channels, -1).mean(1)  # against cancellation
    for part in np.array_split(spread, -(-len(spread) // 64)):
        x = np.asarray(data.x[part], np.float64).reshape(len(part), spec.channels, -1) - shift[None, :, None]
        total, squares, count = total + x.sum((0, 2)), squares + (x * x).sum((0, 2)), count + x[:, 0].size
    mean = (shift + total / count) / spec.full_scale
    std = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0)) / spec.full_scale
    if spec.kind == "sound":
        mean = np.zeros_like(mean)  # silence stays zero
    std = np.where(std > 1e-8, std, 1.0)
    settings = FrontEndSettings(spec.full_scale, tuple(map(float, mean)), tuple(map(float, std)))
    if recipe.front_end is None or spec.rate is None:
        return settings
    found = recipe.front_end
    return replace(settings, mel=MelSettings(spec.rate, found.n_mels, found.window, found.hop, found.top_db))


def describe_data(spec: DataSpec, split: Split, data: Cached, console: Console) -> None:
    """What was understood, before anything is trained."""
    size = "x".join(map(str, spec.spatial))
    unit = {"sound": f" samples at {spec.rate:,.0f} Hz" if spec.rate else "", "series": " steps"}.get(spec.kind, "")
    channels = f"{spec.channels} channel" + ("s" if spec.channels > 1 else "")
    console.say(f"data     {spec.name}: {spec.kind}, {channels}, {size}{unit}, {spec.dtype}")
    if spec.fit != "exact" and spec.sizes:
        low, high = ("x".join(map(str, side)) for side in spec.sizes)
        how = {"crop": "cut to its aspect and resized", "pad": "padded with zeros or cut in the middle"}[spec.fit]
        console.say(f"         sizes {low if low == high else f'{low} to {high}'}: {how}")
    shown = ", ".join(spec.classes[:12]) + (", ..." if spec.num_classes > 12 else "")
    console.say(f"classes  {spec.num_classes}: {shown}")
    counts = np.bincount(data.y, minlength=spec.num_classes)
    if counts.min() < 0.5 * counts.max():
        few, many = int(counts.argmin()), int(counts.argmax())
        console.say(
            f"         imbalanced: {spec.classes[few]} has {counts[few]:,} items, {spec.classes[many]} {counts[many]:,}"
        )
    console.say("split    " + ", ".join(f"{name} {len(index):,}" for name, index in split.named()))
    console.say(f"         {split.words}")
    for note in spec.notes:
        console.say(f"note     {note}")


def describe_plan(
    plan: Plan, data: Cached, n_train: int, networks: int, threads: int | None, console: Console
) -> dict[str, Any]:
    """Print the network, its cost and the recipe; the same facts for plan.json. `threads`: of the run resumed.

    Cross-validation trains `networks` - 1 networks on a part of the items, and one on all.
    """
    recipe = plan.recipe
    net = plan.network(plan.seed)
    shape = (plan.in_channels, *plan.spatial)
    found = cost(net, shape)
    field = stage_fields(net, plan.in_channels, plan.spatial)[-1].size
    threads = use_threads(found.macs * recipe.batch, threads)
    steps = recipe.epochs * max(1, -(-n_train // recipe.batch))
    folds = networks - 1
    seconds = _measured_step(plan, data) * steps * (folds if folds else 1)
    memory = _peak_memory()
    seen, size = "x".join("all" if f is None else str(f) for f in field), "x".join(map(str, plan.spatial))
    console.say(
        f"model    {recipe.model}: {found.parameters:,} parameters, {found.macs / 1e6:,.1f} M MACs an item, "
        f"receptive field {seen} of {size}"
    )
    augment = ", ".join(f"{name} {strength:g}" for name, strength in recipe.augment) or "none"
    console.say(
        f"recipe   {recipe.optimizer}, rate {recipe.lr:g} ({recipe.schedule}), {recipe.epochs} epochs of {n_train:,} "
        f"items in batches of {min(recipe.batch, n_train)}; augmentation: {augment}"
    )
    console.say("         decay on convolution and linear weights only, not on norms and biases")
    what = f"for {networks} networks, " if folds else ""
    console.say(
        f"expect   about {_duration(seconds)} of training, {what}and {memory / 1e6:,.0f} MB of memory at the peak"
    )
    return {
        "model": recipe.model,
        "arguments": arguments(recipe, plan.spatial),
        "parameters": found.parameters,
        "macs": found.macs,
        "receptive_field": list(field),
        "recipe": asdict(recipe),
        "front": plan.front.to_dict(),
        "epochs": recipe.epochs,
        "steps": steps,
        "threads": threads,
        "spec": data.spec.to_dict(),
        "fingerprint": data.fingerprint,
        "seconds_expected": seconds,
        "memory_expected": memory,
    }


def use_threads(macs: int, before: int | None) -> int:
    """Set and return PyTorch's threads for steps of so many multiply-accumulates on the CPU; `before`: as in that run.

    A small step gains little from a second thread (8 ms against 8 to 10 ms for the digits) and loses much where another
    process wants the core: 400 s instead of 15 s for GunPoint (`LAB.md`). OMP_NUM_THREADS, where set, decides.
    """
    if before is not None:
        torch.set_num_threads(before)
    elif "OMP_NUM_THREADS" not in os.environ and macs < SMALL_STEP:
        torch.set_num_threads(1)
    return torch.get_num_threads()


def _peak_memory() -> int:
    """Bytes that this process has held at most: after the trial steps, what training will hold at most."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measured_step(plan: Plan, data: Cached) -> float:
    """Seconds of one step: the best of five after one to warm up, on a copy that is thrown away."""
    from gridsight.training.optimiser import make_optimiser

    net = plan.network(plan.seed).train()
    optimiser = make_optimiser(plan.recipe.optimizer, net, lr=0.0, weight_decay=0.0, momentum=plan.recipe.momentum)
    front = FrontEnd(plan.front, data.spec.ndim)
    rows = np.arange(min(plan.recipe.batch, len(data)))
    taken = []
    for _ in range(6):
        start = time.perf_counter()
        x = front(torch.from_numpy(np.array(data.x[rows])))
        loss = nn.functional.cross_entropy(net(x), torch.from_numpy(data.y[rows]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with tuples as lists, as JSON gives them back: for comparing with a stored plan."""
    import json

    from gridsight.core.console import dumps

    return dict(json.loads(dumps(value)))
