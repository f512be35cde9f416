"""The plan of a run: DataSpec, settings and defaults in; network, recipe, cost and words for people out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gridsight.core.console import Console, counted
from gridsight.core.device import computes_bfloat16, pick_device
from gridsight.core.errors import UsageError
from gridsight.data.alphabet import conserved
from gridsight.data.augment import AUGMENTS, check, guarded
from gridsight.data.cache import Cached
from gridsight.data.loader import Loader
from gridsight.data.ragged import Ragged
from gridsight.measure.cost import Cost
from gridsight.models import MODELS, create
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.nn.geometry import stage_fields
from gridsight.tasks import make_task
from gridsight.training.recipe import Recipe, Tuning, recipe, tuned
from gridsight.verbs._arguments import given_arguments
from gridsight.verbs._front_end import front_end
from gridsight.verbs._start import Start
from gridsight.verbs.train import TrainSettings

if TYPE_CHECKING:
    from gridsight.verbs._machine import Speed

MOST_PATCHES = 64
"""Patches an item and epoch, at most."""
USUAL: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "weight_decay": 5e-4},
    "adamw": {"lr": 2e-3, "weight_decay": 0.01},
    "muon": {"lr": 0.1, "weight_decay": 0.01},
}
"""Rate and decay of each optimiser, where the recipe is of another one."""


@dataclass(frozen=True)
class Known:
    """What was measured of a plan on this machine."""

    cost: Cost
    threads: int
    speed: "Speed"
    device: torch.device


@dataclass(frozen=True)
class Plan:
    """Everything that decides the numbers of a run, besides the data.

    `padded` is the size that items of unequal size are padded to where the network takes no mask; `accumulate` the
    parts that a batch is computed in; `seconds` the time that training has, None for as long as it takes, and
    `expected` what it was chosen to take of them, all networks together;
    `repeats` the patches that an epoch cuts from each item, 0 where items are taken whole; `start` the trained weights
    to start from.
    """

    recipe: Recipe
    front: FrontEndSettings
    in_channels: int
    num_outputs: int
    spatial: tuple[int, ...]
    seed: int
    padded: tuple[int, ...] | None = None
    accumulate: int = 1
    seconds: float | None = None
    repeats: int = 0
    expected: float | None = None
    start: Start | None = None

    def loader(self, data: Cached, index: np.ndarray, size: int, workers: int = 0) -> Loader:
        """Batches of the items numbered `index`, as this plan's network takes them."""
        if not self.repeats:
            return Loader(data.x, data.y, index, size, workers, self.padded)
        return Loader(data.x, data.y, index, size, workers, patch=data.spec.spatial, repeats=self.repeats)

    def network(self, seed: int) -> Any:
        """The network with random weights of `seed`."""
        from gridsight.core import seed as hashing

        torch.manual_seed(hashing.key(seed, "weights"))
        return build(self.recipe, self.in_channels, self.num_outputs, self.spatial)

    def initial(self, seed: int) -> Any:
        """The network as training begins: random, but where the plan starts from trained weights only in its head."""
        net = self.network(seed)
        if self.start is None:
            return net
        given = arguments(self.recipe, self.spatial)
        return self.start.into(net, self.recipe.ndim, self.in_channels, self.num_outputs, given)


def build(recipe: Recipe, in_channels: int, num_outputs: int, spatial: tuple[int, ...]) -> Any:
    """The recipe's network; `spatial` is what it sees, for those that fix their input size."""
    return create(
        recipe.model,
        ndim=recipe.ndim,
        in_channels=in_channels,
        num_classes=num_outputs,
        **arguments(recipe, spatial),
    )


def arguments(recipe: Recipe, spatial: tuple[int, ...]) -> dict[str, Any]:
    """The network's own arguments, with `spatial` for those that take it."""
    given = dict(recipe.arguments)
    if MODELS.accepts(recipe.model, "spatial"):
        given["spatial"] = spatial
    return given


def make_plan(
    settings: TrainSettings, data: Cached, train: np.ndarray, console: Console, start: Start | None = None
) -> Plan:
    """The recipe for these data with the settings' overrides, and the front end with its statistics."""
    spec = data.spec
    # a fold trains on what the others hold
    n_train = len(train) * (settings.folds - 1) // settings.folds if settings.folds else len(train)
    repeats = _patches_an_item(data, train) if spec.fit == "patch" else 0
    aligned = spec.alphabet is not None and spec.fit == "exact" and conserved(data.x, train)
    base = recipe(
        spec.ndim,
        spec.channels,
        spec.spatial,
        spec.num_classes,
        n_train * max(1, repeats),
        spec.rate,
        spec.kind == "image" and spec.channels == 3,
        spec.alphabet,
        spec.spacing,
        aligned,
    )
    balanced = settings.class_weights or settings.balanced_sampling
    if (spec.task == "regress" or balanced) and base.optimizer == "sgd":
        # SGD's rate is for cross-entropy on even classes. It throws squared errors about: R squared -139 after 6
        # epochs, 0.99 after 100. Balanced, few items make up half of every gradient: 1:99 pictures ended at chance
        base = replace(base, optimizer="adamw", **USUAL["adamw"])
    if start is not None:
        start.refuse_axes(spec.ndim)
        base = replace(tuned(base, n_train), model=start.model, arguments=start.arguments)
    chosen = _override(base, settings)
    if MODELS.get(chosen.model).tags.get("alphabet", spec.alphabet) != spec.alphabet:
        raise UsageError(
            f"{chosen.model} reads DNA letters, and {spec.name} holds {spec.alphabet or spec.kind} data: leave out "
            "--model for the usual network, or choose another of gridsight models"
        )
    if aligned and chosen.model == base.model:
        console.say("         letters repeat at fixed places: windows around a site, read place by place")
    operations = _augmentations(settings.augment, base)
    check(operations, spec.ndim, spec.kind == "sound", spec.alphabet)
    allowed, messages = guarded(operations, spec.classes, spec.kind)
    if settings.augment != ("auto",):
        for message in messages:
            console.warn(message)
    chosen = replace(chosen, augment=tuple(allowed))
    if spec.fit == "patch" and "grid" in chosen.arguments:
        # where something lies in a patch says nothing about where it lies in the item
        chosen = replace(chosen, arguments={**chosen.arguments, "grid": 1})
    if spec.fit in ("patch", "mask") and "padding" in chosen.arguments:
        chosen = replace(chosen, arguments={**chosen.arguments, "padding": "same"})
    front = front_end(chosen, data, train, start)
    with torch.no_grad():
        shape = (1, spec.channels, *spec.spatial)
        seen = FrontEnd(front, spec.ndim)(torch.zeros(shape))
    unmasked = spec.fit == "mask" and not MODELS.get(chosen.model).tags["masked"]
    return Plan(
        chosen,
        front,
        seen.shape[1],
        make_task(spec.task, spec.classes).num_outputs,
        tuple(seen.shape[2:]),
        settings.seed,
        spec.spatial if unmasked else None,
        settings.accumulate,
        repeats=repeats,
        start=start,
    )


def _patches_an_item(data: Cached, train: np.ndarray) -> int:
    """How many patches cover an item of the usual size: so many are cut from each in an epoch."""
    assert isinstance(data.x, Ragged)
    cells = np.median(data.x.sizes[train].prod(1))
    return int(np.clip(round(cells / np.prod(data.spec.spatial)), 1, MOST_PATCHES))


def _precision(settings: TrainSettings) -> str:
    """What was asked for; else bfloat16 where a GPU computes it."""
    if settings.precision != "auto":
        return settings.precision
    device = pick_device(settings.device)
    return "bfloat16" if device.type == "cuda" and computes_bfloat16(device) else "float32"


def _override(base: Recipe, settings: TrainSettings) -> Recipe:
    changes: dict[str, Any] = {
        name: value
        for name in ("epochs", "batch", "lr", "warmup", "weight_decay", "label_smoothing", "average", "clip", "mixup")
        if (value := getattr(settings, name)) is not None
    }
    for name in ("optimizer", "schedule"):
        if (value := getattr(settings, name)) != "auto":
            changes[name] = value
    changes["precision"] = _precision(settings)
    if base.tuning is not None:
        frozen = base.tuning.frozen if settings.frozen is None else settings.frozen
        if settings.frozen is None and settings.epochs is not None:
            frozen = min(frozen, int(settings.epochs // 2))
        changes["tuning"] = Tuning(frozen, base.tuning.spread if settings.spread is None else settings.spread)
    if changes.get("optimizer", base.optimizer) != base.optimizer:
        # rate and decay belong to their optimiser
        changes = USUAL[changes["optimizer"]] | changes
    if settings.model not in ("auto", base.model):
        changes |= {"model": settings.model, "arguments": {}, "whiten": False, "shrunk": 0.0}
    if settings.arguments:
        changes["arguments"] = changes.get("arguments", base.arguments) | given_arguments(settings.arguments)
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


def describe_plan(
    plan: Plan,
    data: Cached,
    n_train: int,
    networks: int,
    known: "Known",
    console: Console,
    folds_after: Plan | None = None,
) -> dict[str, Any]:
    """Print the network, its cost and the recipe; the same facts for plan.json.

    Cross-validation trains `networks` - 1 networks on a part of the items, and one on all. `folds_after` is the plan of
    the three folds that calibrate the network afterwards.
    """
    recipe, found = plan.recipe, known.cost
    field = stage_fields(plan.network(plan.seed), plan.in_channels, plan.spatial)[-1].size
    steps = max(1, round(recipe.epochs * max(1, -(-n_train * max(1, plan.repeats) // recipe.batch))))
    folds = networks - 1
    # one measurement, not two: under --minutes the one that the plan was chosen by
    seconds = known.speed.step * steps * max(1, folds) if plan.expected is None else plan.expected
    memory = known.speed.memory
    seen, size = "x".join("all" if f is None else str(f) for f in field), "x".join(map(str, plan.spatial))
    console.say(
        f"model    {recipe.model}: {found.parameters:,} parameters, {found.macs / 1e6:,.1f} M MACs an item, "
        f"receptive field {seen} of {size}"
    )
    augment = ", ".join(f"{name} {strength:g}" for name, strength in recipe.augment) or "none"
    console.say(
        f"recipe   {recipe.optimizer}, rate {recipe.lr:g} ({recipe.schedule}), {counted(recipe.epochs, 'epoch')} of "
        f"{n_train * max(1, plan.repeats):,} {'patches' if plan.repeats else 'items'} in batches of "
        f"{min(recipe.batch, n_train * max(1, plan.repeats))}; augmentation: {augment}"
        + (f"; {recipe.precision}" if recipe.precision != "float32" else "")
    )
    if each := _each_axis(recipe):
        console.say(f"         thick slices shrink later than the axes within them: {each}")
    console.say("         decay on convolution and linear weights only, not on norms and biases")
    if plan.repeats and sum((data.spec.counts or {}).get("validation", ())):
        console.say("         epochs are compared by the middle patch of each validation item, all else is whole items")
    if plan.start is not None and recipe.tuning is not None:
        console.say(f"start    {plan.start.origin}")
        frozen, whole = recipe.tuning.frozen, f"the first stage at {recipe.tuning.spread:g} of the rate"
        first = "epoch" if frozen == 1 else f"{frozen} epochs"
        learns = f"it alone learns in the first {first}, then all stages do" if frozen else "all stages learn at once"
        probe = frozen >= recipe.epochs
        console.say("         a new head, which alone learns" if probe else f"         a new head; {learns}, {whole}")
    if plan.accumulate > 1:
        console.say(f"memory   a batch is computed in {plan.accumulate} parts, with the gradient of the whole")
    what = f"for {networks} networks, " if folds else ""
    where = "the GPU's memory" if known.device.type == "cuda" else "memory"
    # each of three folds trains on two thirds of the items
    more = 0.0 if folds_after is None else 2 * seconds * folds_after.recipe.epochs / recipe.epochs
    after = f"then {_duration(more)} of short folds to calibrate it, " if more else ""
    console.say(
        f"expect   about {_duration(seconds)} of training, {what}{after}"
        f"and {memory / 1e6:,.0f} MB of {where} at the peak"
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
        "threads": known.threads,
        "accumulate": plan.accumulate,
        "seconds": plan.seconds,
        "repeats": plan.repeats,
        "start": asdict(plan.start) if plan.start is not None else None,
        "spec": data.spec.to_dict(),
        "fingerprint": data.fingerprint,
        "seconds_expected": seconds,
        "memory_expected": memory,
    }


def _each_axis(recipe: Recipe) -> str:
    """The strides and pools of each stage where they differ from axis to axis, else nothing."""
    shown = {name: recipe.arguments[name] for name in ("strides", "pools") if name in recipe.arguments}
    if not any(
        isinstance(entry, tuple) for entries in shown.values() if isinstance(entries, tuple) for entry in entries
    ):
        return ""
    return ", ".join(
        f"{name} {' '.join('x'.join(map(str, e)) if isinstance(e, tuple) else str(e) for e in entries)}"
        for name, entries in shown.items()
    )


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
