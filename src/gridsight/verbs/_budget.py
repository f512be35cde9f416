"""--minutes: measure candidates for a few seconds, choose the plan that makes the most of the time, say it."""

from collections.abc import Callable
from dataclasses import replace

import torch

from gridsight.core.console import Console, counted
from gridsight.core.device import computes_bfloat16
from gridsight.data.cache import Cached
from gridsight.data.split import Split
from gridsight.measure.cost import cost
from gridsight.nn.memory import free_memory, parts_that_fit
from gridsight.training.budget import fit_time
from gridsight.training.loop import EVALUATIONS
from gridsight.training.recipe import Recipe
from gridsight.verbs._machine import Speed, measure, use_threads
from gridsight.verbs._novelty import MOST
from gridsight.verbs._plan import Plan
from gridsight.verbs.train import TrainSettings

AFTER = 4.0
"""Seconds kept for what follows training besides evaluation: intervals, the report, files."""
SHORT_FOLDS = 5 / 3
"""Small data are calibrated by three short folds, which take two thirds of the time of training."""


def plan_in_time(
    plan: Plan,
    data: Cached,
    parts: Split,
    seconds: float,
    settings: TrainSettings,
    device: torch.device,
    console: Console,
) -> Plan:
    """The plan whose training and everything after it end within `seconds`; width and epochs are chosen."""
    speeds: dict[str, Speed] = {}
    threads = torch.get_num_threads()
    answered = len(parts.val) + len(parts.test) + (len(data) if settings.folds else 0)
    known = min(MOST, len(parts.train)) + min(MOST, len(parts.val) or len(parts.train) // 3)
    # whole items are as many patches as an epoch cuts from each, and have no novelty
    evaluated = answered * plan.repeats if plan.repeats else answered + known

    def epoch(recipe: Recipe) -> float:
        """Seconds of a pass over the training data with its evaluation; of cross-validation, over all its networks."""
        trial = replace(plan, recipe=recipe)
        found = cost(trial.network(plan.seed), (plan.in_channels, *plan.spatial))
        use_threads(found.macs * recipe.batch, threads)
        fitting = parts_that_fit(found.activation_bytes, recipe.batch, free_memory(device), plan.accumulate)
        if (key := f"{recipe.arguments} {recipe.precision}") not in speeds:
            speeds[key] = measure(replace(trial, accumulate=fitting), data, device, repeats=3)
        speed = speeds[key]
        every = max(1, recipe.epochs // EVALUATIONS)
        # each fold trains on the others, the final network on all: as much as `folds` networks on all
        batches = -(-len(parts.train) * max(1, plan.repeats) // recipe.batch) * max(1, settings.folds)
        return batches * speed.step + len(parts.val) / recipe.batch * speed.evaluation / every

    def left(recipe: Recipe) -> float:
        """Seconds that training may take when this network is evaluated afterwards."""
        after = AFTER + evaluated / recipe.batch * speeds[f"{recipe.arguments} {recipe.precision}"].evaluation
        return (seconds - after) / (1.0 if len(parts.val) or settings.folds else SHORT_FOLDS)

    plan = _faster_precision(plan, settings, device, epoch)
    epoch(plan.recipe)
    budget = left(plan.recipe)
    choice = fit_time(plan.recipe, budget, epoch)
    budget = min(budget, left(choice.recipe))
    if choice.seconds > budget:
        console.warn(
            f"one pass over the data takes about {choice.seconds:.0f} s, more than the {max(budget, 0):.0f} s that "
            "--minutes leaves for training; a smaller --size or fewer data would fit"
        )
    widths = choice.recipe.arguments.get("widths")
    wide = f"widths {' '.join(map(str, widths))} ({choice.factor:g} of the default), " if widths else ""
    console.say(
        f"time     {seconds:.0f} s are left: {wide}{counted(choice.recipe.epochs, 'epoch')} "
        f"(default {plan.recipe.epochs})"
    )
    return replace(plan, recipe=choice.recipe, seconds=max(budget, 1.0), expected=choice.seconds)


def _faster_precision(
    plan: Plan, settings: TrainSettings, device: torch.device, epoch: Callable[[Recipe], float]
) -> Plan:
    """On a CPU with units for bfloat16: the faster of the two, by a tenth at least; the user's word goes before."""
    if settings.precision != "auto" or device.type == "cuda" or not computes_bfloat16(device):
        return plan
    mixed = replace(plan.recipe, precision="bfloat16")
    return replace(plan, recipe=mixed) if epoch(mixed) < 0.9 * epoch(plan.recipe) else plan
