"""The phases of a run: the networks that it trains, one after the other, each leaving a file when it is done.

A phase is a fold or the final network. `resume` takes what finished phases left and goes on inside the one under way.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gridsight.core import seed as hashing
from gridsight.core.console import Console, dumps
from gridsight.core.errors import UsageError
from gridsight.core.ranks import Ranks
from gridsight.core.run import RunFolder, atomic_write
from gridsight.data.cache import Cached
from gridsight.data.loader import Batch
from gridsight.data.split import folds
from gridsight.nn.features import Features
from gridsight.nn.frontend import FrontEnd
from gridsight.nn.lsuv import lsuv
from gridsight.nn.nd import channels_last
from gridsight.nn.whole import WholeItems
from gridsight.tasks import TASKS, Task, class_weights, make_task
from gridsight.training.answers import each_batch, predict_logits
from gridsight.training.loop import Events, Trainer
from gridsight.training.recipe import shortened
from gridsight.training.snapshot import load_tensors, save_tensors
from gridsight.training.tuning import Tuned
from gridsight.verbs._data import CHOICES
from gridsight.verbs._front_end import front_end
from gridsight.verbs._plan import Plan
from gridsight.verbs.train import TrainSettings

EVALUATION = 256
"""Items a batch where nothing is trained."""
OUT_OF_FOLD = 2e12
"""Multiply-accumulates that calibrating a small data set by short folds may cost: about a minute of two cores."""
SHORT = 3
"""The runs of those folds have so many times fewer epochs, but not fewer than LEAST or than the run itself."""
LEAST = 20
LSUV = 64
"""Items, evenly spread over the training data, by which first weights are scaled."""
WHITEN = 2000
"""Items, evenly spread, by which a first stage whitens."""
IN_MEMORY = 1 << 30
"""Decoded data above this many bytes are read ahead by threads; below, reading them costs nothing."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Outputs (n, K) of networks about the items numbered `index` (n,)."""

    index: np.ndarray
    outputs: np.ndarray


def pool(answers: Sequence[Answers]) -> Answers:
    """The answers of several networks, about different items, as one."""
    return Answers(np.concatenate([part.index for part in answers]), np.concatenate([part.outputs for part in answers]))


def _unpadded(batch: Batch) -> torch.Tensor:
    """Items without their padding: where they differ in size, those of at least the median size, cut to it."""
    if batch.sizes is None:
        return batch.x
    for size in (batch.sizes.median(0).values, batch.sizes.min(0).values):
        kept = batch.x[(batch.sizes >= size).all(1)]
        if len(kept) > 1:
            break
    real: tuple[Any, ...] = (..., *(slice(int(cells)) for cells in size))
    return kept[real]


class Phases:
    """Trains and asks the networks of one run; `seconds` counts the training of this process.

    Of several processes (`core.ranks`) all come here together, and the first alone writes.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: TrainSettings,
        data: Cached,
        device: torch.device,
        console: Console,
        ranks: Ranks | None = None,
    ) -> None:
        self.folder, self.settings, self.data = folder, settings, data
        self.device, self.console, self.seconds = device, console, 0.0
        self.ranks = ranks or Ranks()

    def counts(self, index: np.ndarray) -> list[int]:
        """Items of each class among those numbered `index`; of a number all of them."""
        y, spec = self.data.y[index], self.data.spec
        if spec.task == "regress":
            return [len(y)]
        return [int(n) for n in (y.sum(0) if y.ndim == 2 else np.bincount(y, minlength=spec.num_classes))]

    def refuse_settings(self) -> None:
        """Options that the task of the data cannot use are an error, before anything is measured or written."""
        task, settings = self.data.spec.task, self.settings
        if (settings.balanced_sampling or settings.natural_prior) and task != "classify":
            raise UsageError(f"--balanced-sampling and --natural-prior are for one class an item, not for {task}")
        if task == "regress" and settings.class_weights:
            raise UsageError("--class-weights is for classes; a number has none")
        if task == "regress" and settings.label_smoothing:
            raise UsageError("--label-smoothing is for classes; a number has none")

    def names(self, index: np.ndarray) -> list[str]:
        """What splits keep even, of the items numbered `index`; the splitter's messages are about these names."""
        return [self.data.strata[i] for i in index]

    def task_options(self, train: np.ndarray) -> dict[str, Any]:
        """How a number is learned, in deviations from the mean of the training data; the classes' shares of these."""
        spec = self.data.spec
        if self.settings.natural_prior:
            counts = self.counts(train)
            return {"prior": tuple(n / sum(counts) for n in counts)}
        if spec.task != "regress":
            return {}
        y = self.data.y[train]
        return {"center": float(y.mean()), "scale": float(y.std()) or 1.0}

    def task(self, plan: Plan, train: np.ndarray) -> Task:
        """The task as it is learned from the items numbered `train`."""
        spec = self.data.spec
        weights: tuple[float, ...] = ()
        if self.settings.class_weights:
            counts = self.counts(train)
            weights = class_weights(counts)
            if spec.task == "multilabel":  # what is there costs as much as what is not
                weights = tuple((len(train) - n) / n if n else 1.0 for n in counts)
        return make_task(
            spec.task,
            spec.classes,
            label_smoothing=plan.recipe.label_smoothing,
            weights=weights,
            unit=spec.unit,
            balanced=self.settings.class_weights or self.settings.balanced_sampling,
            **self.task_options(train),
        )

    def evaluation(self, plan: Plan) -> int:
        """Items a batch of evaluation, which keeps no activations: some more than a part of a training batch."""
        return min(EVALUATION, 4 * max(1, plan.recipe.batch // plan.accumulate))

    def trainer(
        self, plan: Plan, phase: str, seed: int, train: np.ndarray, val: np.ndarray, snapshot: Path | None
    ) -> Trainer:
        """What trains one network; `seed` 0 is the run's own, others follow from it."""
        data, settings, recipe = self.data, self.settings, plan.recipe
        workers = settings.workers
        if workers is None:
            workers = 0 if data.x.nbytes < IN_MEMORY else 2
        own = hashing.key(settings.seed, seed) if seed else settings.seed
        net = plan.initial(own)
        if settings.lsuv:
            some = train[np.linspace(0, len(train) - 1, min(LSUV, len(train))).astype(np.int64)]
            batch = next(plan.loader(data, some, LSUV, 0).in_order())
            lsuv(net, FrontEnd(plan.front, data.spec.ndim)(_unpadded(batch)), seed=own)
        if recipe.whiten:
            some = train[np.linspace(0, len(train) - 1, min(WHITEN, len(train))).astype(np.int64)]
            batch = next(plan.loader(data, some, WHITEN, 0).in_order())
            net.whiten(FrontEnd(plan.front, data.spec.ndim)(_unpadded(batch)))
        tuned = Tuned(net, recipe.tuning, plan.in_channels, plan.spatial) if recipe.tuning else None
        return Trainer(
            net,
            FrontEnd(plan.front, data.spec.ndim),
            self.task(plan, train),
            recipe,
            replace(plan.loader(data, train, recipe.batch, workers), balanced=settings.balanced_sampling),
            plan.loader(data, val, self.evaluation(plan), workers) if len(val) else None,
            seed=own,
            device=self.device,
            accumulate=plan.accumulate,
            patience=settings.patience,
            phase=phase,
            snapshot=snapshot,
            save_every=settings.save_every,
            seconds=self._seconds(plan, phase, len(train)),
            events=Events(self._row, self.console) if self.ranks.first else None,
            ranks=self.ranks,
            tuned=tuned,
        )

    def _seconds(self, plan: Plan, phase: str, count: int) -> float | None:
        """What --minutes leaves for a network that trains on `count` items; --folds share it by their items.

        Without --minutes, and for a check or a calibration, whose time was set aside, there is no limit.
        """
        if plan.seconds is None or not phase.startswith(("training", "fold", "final")):
            return None
        # each fold trains on the others, the final network on all: as much as `folds` networks on all
        k = self.settings.folds
        return plan.seconds * count / (k * len(self.data)) if k else plan.seconds

    def short(self, plan: Plan, train: np.ndarray, macs: int) -> Plan | None:
        """The plan of the three folds that calibrate small data; None where they would take too long, or where a class
        has too few items. `macs` are those of an item."""
        # a network that has hardly learned says nothing of the certainty of one that has
        epochs = min(plan.recipe.epochs, max(LEAST, plan.recipe.epochs // SHORT))
        # three folds of two thirds of the items, forward and twice backward
        work = 3 * 2 / 3 * 3 * macs * len(train) * max(1, plan.repeats) * epochs
        if min(self.counts(train)) < 3 or work > OUT_OF_FOLD:
            return None
        return replace(plan, recipe=shortened(plan.recipe, epochs))

    def fit(self, plan: Plan, phase: str, seed: int, train: np.ndarray, val: np.ndarray) -> Mapping[str, torch.Tensor]:
        """The chosen state of one network, from its file if the phase has ended before."""
        done = self.folder.path / "phases" / f"{phase.replace(' ', '-')}.safetensors"
        if not self.ranks.from_first(done.exists):
            trainer = self.trainer(plan, phase, seed, train, val, self.folder.resume)
            if self.ranks.first:
                done.parent.mkdir(exist_ok=True)
                if not trainer.can_resume():
                    self._keep_rows(lambda old: old["phase"] != phase)  # of a process killed before its first snapshot
            started = time.monotonic()
            state = trainer.fit()
            self.seconds += time.monotonic() - started
            self.ranks.from_first(lambda: save_tensors(done, state, {"phase": phase}))
        return load_tensors(done)[0]

    def network(self, plan: Plan, state: Mapping[str, torch.Tensor]) -> Any:
        """The network with a chosen state."""
        net = plan.network(self.settings.seed)
        net.load_state_dict(dict(state))
        return channels_last(net.to(self.device))

    def predict(self, plan: Plan, state: Mapping[str, torch.Tensor], index: np.ndarray) -> Answers:
        """What a network with that state says of the items numbered `index`."""
        front, net = FrontEnd(plan.front, self.data.spec.ndim).to(self.device), self.network(plan, state)
        if plan.repeats:
            whole = WholeItems(net.eval(), front, plan.in_channels, self.data.spec.spatial)
            own = np.array_split(index, self.ranks.world)[self.ranks.rank]
            shares = self.ranks.gather([whole.logits(self.data.x[int(i)]).cpu().numpy() for i in own])
            return Answers(index, np.concatenate([logits for share in shares for logits in share]))
        loader = plan.loader(self.data, index, self.evaluation(plan))
        outputs, _ = predict_logits(net, front, loader, self.device, self.ranks)
        return Answers(index, outputs.numpy())

    @torch.no_grad()
    def features(self, plan: Plan, state: Mapping[str, torch.Tensor], index: np.ndarray) -> list[np.ndarray]:
        """What every stage of a network says of the items numbered `index`, as `nn.features` sums it up."""
        front = FrontEnd(plan.front, self.data.spec.ndim).to(self.device)
        loader = plan.loader(self.data, index, self.evaluation(plan))
        features = Features(self.network(plan, state).eval(), plan.in_channels, self.data.spec.ndim)

        def said(batch: Batch) -> list[np.ndarray]:
            return [stage.cpu().numpy() for stage in features(front(batch.x), batch.mask)[1]]

        return [np.concatenate(stage) for stage in zip(*each_batch(loader, self.device, said), strict=True)]

    def out_of_fold(self, plan: Plan, index: np.ndarray, k: int, name: str) -> list[Answers]:
        """What k networks say of the items that they did not see; nor did their front ends."""
        groups = [self.data.groups[i] for i in index] if self.data.spec.group else None
        found = []
        parts = folds(self.names(index), groups, k, self.settings.seed, classes=self.data.spec.task in CHOICES)
        for number, (inside, outside) in enumerate(parts, 1):
            own = replace(plan, front=front_end(plan.recipe, self.data, index[inside], plan.start))
            state = self.fit(own, f"{name} {number} of {k}", number, index[inside], np.empty(0, np.int64))
            answers = self.predict(own, state, index[outside])
            if self.data.spec.task == "regress":
                # learned in the deviations of its own items; answers are pooled in those of all
                its, common = self.task_options(index[inside]), self.task_options(index)
                values = answers.outputs * its["scale"] + its["center"]
                answers = replace(answers, outputs=(values - common["center"]) / common["scale"])
            found.append(answers)
        return found

    def _row(self, row: Mapping[str, Any]) -> None:
        """Append to metrics.jsonl; after a resume, what the killed process wrote past the snapshot is cut off."""
        if row["event"] == "resumed":
            self._keep_rows(
                lambda old: (
                    old["phase"] != row["phase"]
                    or (old["step"] <= row["step"] and (old["event"] != "epoch" or old["epoch"] <= row["epoch"]))
                )
            )
        with self.folder.metrics.open("a", encoding="utf-8") as file:
            file.write(dumps(row) + "\n")
        if row["event"] == "epoch":
            task = TASKS.get(self.data.spec.task).item
            said = f"training {task.progress(row[task.metric])}"
            if (value := row.get(f"val_{task.metric}")) is not None:
                said += f"  validation {task.progress(value)}"
            self.console.note(
                f"{row['phase']}: epoch {row['epoch']:>3}  loss {row['loss']:.4f}  {said}"
                f"  {row['items_per_second']:,.0f} items/s"
            )
        else:
            self.console.say(row["text"])

    def _keep_rows(self, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Rewrite metrics.jsonl with the rows that `keep` says; a line torn by a kill goes too."""
        if self.folder.metrics.exists():
            rows = [row for row in self.folder.read_metrics() if keep(row)]
            atomic_write(self.folder.metrics, "".join(dumps(row) + "\n" for row in rows))
