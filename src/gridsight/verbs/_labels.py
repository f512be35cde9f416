"""check --labels: what networks that never saw an item say of its label; the statistics are in `measure/labels.py`.

A few folds of the default network, trained for a part of its usual epochs, answer for every item, whatever its
published split: a wrong label is wrong on either side. What they train is thrown away. A network's answer is the mean
over augmented views of the item, which made 73.5 % of CIFAR-10 right into 77.7 % (7,500 pictures, half the epochs).
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gridsight.core.console import Console, counted
from gridsight.core.device import pick_device
from gridsight.core.errors import DataError, UsageError
from gridsight.core.run import RunFolder
from gridsight.data.cache import Cached, cached
from gridsight.data.findings import Fact, Finding
from gridsight.data.source import Source, asked
from gridsight.measure.calibration import fit_temperature, softmax
from gridsight.measure.cost import cost
from gridsight.measure.labels import suspects
from gridsight.nn.frontend import FrontEnd
from gridsight.training.methods.supervised import Supervised
from gridsight.verbs._machine import measure, use_threads
from gridsight.verbs._phases import Answers, Phases, pool
from gridsight.verbs._plan import Plan, make_plan
from gridsight.verbs.check import CheckSettings
from gridsight.verbs.train import TrainSettings

FOLDS = 4
SHORT = 2
"""The folds have so many times fewer epochs than a training run."""
VIEWS = 16
"""Augmented views of an item that are asked about; where nothing is augmented, the item itself."""


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """`findings`, one a suspicious label, the most suspicious first; in words what was done, or why it was not.

    `figures` is what --json says: items, networks, epochs, seconds, how often the networks agree with the labels, how
    many labels are expected to be wrong, the margin up to which they are named, and whether more were expected.
    """

    words: str
    findings: list[Finding] = field(default_factory=list)
    figures: Mapping[str, Any] = field(default_factory=dict)


class Views(Phases):
    """Phases whose answers are the logarithms of mean probabilities over augmented views of each item."""

    @torch.no_grad()
    def predict(self, plan: Plan, state: Mapping[str, torch.Tensor], index: np.ndarray) -> Answers:
        """What a network with that state says of the items numbered `index`."""
        if plan.repeats or not plan.recipe.augment:
            return super().predict(plan, state, index)
        front = FrontEnd(plan.front, self.data.spec.ndim).to(self.device)
        net = self.network(plan, state).eval()
        views = Supervised(net, front, self.task(plan, index), plan.recipe.augment, plan.seed)
        found = []
        for batch in plan.loader(self.data, index, self.evaluation(plan)).in_order():
            there = batch.to(self.device)
            total = torch.zeros(())
            for view in range(VIEWS):
                total = total + net(*views.inputs(there, view)).double().softmax(1).cpu()
            found.append((total / VIEWS).clamp(min=1e-12).log().numpy())
        return Answers(index, np.concatenate(found))


def check_labels(settings: CheckSettings, source: Source, facts: list[Fact], console: Console) -> LabelCheck:
    """The suspicious labels of a source whose items' facts are known."""
    try:
        data = cached(source, Console(quiet=console.quiet, json=console.json), task=settings.task)
        if data.spec.task != "classify":
            what = {"regress": "numbers", "grade": "grades", "multilabel": "sets of classes"}[data.spec.task]
            return LabelCheck(f"labels were not checked: they are {what}, and only one class an item can be told wrong")
        return _checked(settings, data, facts, console)
    except (DataError, UsageError) as error:  # one class, too few items or groups a class
        return LabelCheck(f"labels were not checked: {error}")


def _checked(settings: CheckSettings, data: Cached, facts: list[Fact], console: Console) -> LabelCheck:
    train = TrainSettings(settings.data, **asked(settings), folds=FOLDS)
    device, threads = pick_device(train.device), torch.get_num_threads()
    common = np.bincount(data.y, minlength=data.spec.num_classes) >= FOLDS
    index = np.flatnonzero(common[data.y])
    if common.sum() < 2:
        raise DataError(f"fewer than two classes have {FOLDS} items")
    try:
        with tempfile.TemporaryDirectory() as name:
            phases = Views(RunFolder(Path(name)), train, data, device, console)
            plan = make_plan(train, data, index, console)
            plan = replace(plan, recipe=replace(plan.recipe, epochs=max(1, round(plan.recipe.epochs / SHORT, 1))))
            _say_cost(plan, data, len(index), device, console)
            answers = pool(phases.out_of_fold(plan, index, FOLDS, "labels"))
    finally:
        torch.set_num_threads(threads)
    given = data.y[answers.index]
    probabilities = softmax(answers.outputs, fit_temperature(answers.outputs, given))
    found, classes = suspects(probabilities, given), data.spec.classes
    numbers = {fact.path: number for number, fact in enumerate(facts)}
    findings = []
    for row, suggested in zip(found.items.tolist(), found.suggested.tolist(), strict=True):
        path, label, other = data.paths[answers.index[row]], classes[given[row]], classes[suggested]
        likely, unlikely = float(probabilities[row, suggested]), float(probabilities[row, given[row]])
        findings.append(
            Finding(
                "label",
                (path,),
                f"is labelled {label} ({unlikely:.1%} likely); {other} is {likely:.1%} likely",
                (numbers[path],) if path in numbers else (),
                {"given": label, "suggested": other, "probability": likely, "probability_given": unlikely},
            )
        )
    agree = float((probabilities.argmax(1) == given).mean())
    figures = {
        "items": len(index),
        "networks": FOLDS,
        "epochs": plan.recipe.epochs,
        "seconds": round(phases.seconds, 1),
        "agreement": agree,
        "suspicious": len(findings),
        "expected": found.expected,
        "threshold": found.threshold,
        "capped": found.capped,
    }
    left_out = len(data.y) - len(index)
    words = (
        f"{len(findings):,} of {len(index):,} labels are suspicious, no more than that: look at them. {FOLDS} "
        f"networks, each trained for {counted(plan.recipe.epochs, 'epoch')} on items that it did not judge, agree with "
        f"{agree:.1%} of the labels; about {found.expected:,.0f} are expected to be wrong"
        + (", more than are named: these networks are too often wrong themselves to say more" if found.capped else "")
        + (f"; {left_out:,} items of classes with fewer than {FOLDS} were not checked" if left_out else "")
    )
    return LabelCheck(words, findings, figures)


def _say_cost(plan: Plan, data: Cached, n: int, device: torch.device, console: Console) -> None:
    """What training will take, measured on a few steps, before it begins; sets the threads that suit such steps."""
    found = cost(plan.network(plan.seed), (plan.in_channels, *plan.spatial))
    use_threads(found.macs * plan.recipe.batch, torch.get_num_threads())
    speed = measure(plan, data, device)
    fold = n * (FOLDS - 1) // FOLDS * max(1, plan.repeats)
    seconds = FOLDS * (plan.recipe.epochs * -(-fold // plan.recipe.batch) * speed.step)
    took = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    console.say(
        f"labels: {FOLDS} networks ({plan.recipe.model}) are trained for {counted(plan.recipe.epochs, 'epoch')} of "
        f"{fold:,} items each: about {took}"
    )
