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
from gridsight.core.run import RunFolder, atomic_write
from gridsight.data.cache import Cached
from gridsight.data.loader import Loader
from gridsight.data.split import folds
from gridsight.nn.frontend import FrontEnd
from gridsight.tasks.classify import Classify, class_weights
from gridsight.training.loop import Events, Trainer, predict_logits
from gridsight.training.snapshot import load_tensors, save_tensors
from gridsight.verbs._plan import Plan, front_end
from gridsight.verbs.train import TrainSettings

EVALUATION = 256
"""Items a batch where nothing is trained."""
IN_MEMORY = 1 << 30
"""Decoded data above this many bytes are read ahead by threads; below, reading them costs nothing."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Logits (n, K) of the items numbered `index` (n,); `temperatures` (n,) where not all have the model's."""

    index: np.ndarray
    logits: np.ndarray
    temperatures: np.ndarray | None = None


def pool(answers: Sequence[Answers]) -> Answers:
    """The answers of several networks, about different items, as one."""
    return Answers(np.concatenate([part.index for part in answers]), np.concatenate([part.logits for part in answers]))


class Phases:
    """Trains and asks the networks of one run; `seconds` counts the training of this process."""

    def __init__(
        self, folder: RunFolder, settings: TrainSettings, data: Cached, device: torch.device, console: Console
    ) -> None:
        self.folder, self.settings, self.data = folder, settings, data
        self.device, self.console, self.seconds = device, console, 0.0

    def counts(self, index: np.ndarray) -> list[int]:
        """Items of each class among those numbered `index`."""
        return [int(n) for n in np.bincount(self.data.y[index], minlength=self.data.spec.num_classes)]

    def names(self, index: np.ndarray) -> list[str]:
        """Class names of the items numbered `index`; the splitter's messages are about names."""
        return [self.data.spec.classes[k] for k in self.data.y[index]]

    def evaluation(self, plan: Plan) -> int:
        """Items a batch of evaluation, which keeps no activations: some more than a part of a training batch."""
        return min(EVALUATION, 4 * max(1, plan.recipe.batch // self.settings.accumulate))

    def trainer(
        self, plan: Plan, phase: str, seed: int, train: np.ndarray, val: np.ndarray, snapshot: Path | None
    ) -> Trainer:
        """What trains one network; `seed` 0 is the run's own, others follow from it."""
        data, settings, recipe = self.data, self.settings, plan.recipe
        task = Classify(
            data.spec.classes,
            label_smoothing=recipe.label_smoothing,
            weights=class_weights(self.counts(train)) if settings.class_weights else (),
        )
        workers = settings.workers
        if workers is None:
            workers = 0 if data.x.nbytes < IN_MEMORY else 2
        own = hashing.key(settings.seed, seed) if seed else settings.seed
        return Trainer(
            plan.network(own),
            FrontEnd(plan.front, data.spec.ndim),
            task,
            recipe,
            Loader(data.x, data.y, train, recipe.batch, workers),
            Loader(data.x, data.y, val, self.evaluation(plan), workers) if len(val) else None,
            seed=own,
            device=self.device,
            accumulate=settings.accumulate,
            patience=settings.patience,
            phase=phase,
            snapshot=snapshot,
            save_every=settings.save_every,
            events=Events(self._row, self.console),
        )

    def fit(self, plan: Plan, phase: str, seed: int, train: np.ndarray, val: np.ndarray) -> Mapping[str, torch.Tensor]:
        """The chosen state of one network, from its file if the phase has ended before."""
        done = self.folder.path / "phases" / f"{phase.replace(' ', '-')}.safetensors"
        if not done.exists():
            done.parent.mkdir(exist_ok=True)
            trainer = self.trainer(plan, phase, seed, train, val, self.folder.resume)
            if not trainer.can_resume():
                self._keep_rows(lambda old: old["phase"] != phase)  # of a process killed before its first snapshot
            started = time.monotonic()
            state = trainer.fit()
            self.seconds += time.monotonic() - started
            save_tensors(done, state, {"phase": phase})
        return load_tensors(done)[0]

    def network(self, plan: Plan, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        """The network with a chosen state."""
        net = plan.network(self.settings.seed)
        net.load_state_dict(dict(state))
        return net.to(self.device)

    def predict(self, plan: Plan, state: Mapping[str, torch.Tensor], index: np.ndarray) -> Answers:
        """What a network with that state says of the items numbered `index`."""
        front = FrontEnd(plan.front, self.data.spec.ndim).to(self.device)
        loader = Loader(self.data.x, self.data.y, index, self.evaluation(plan))
        logits, _ = predict_logits(self.network(plan, state), front, loader, self.device)
        return Answers(index, logits.numpy())

    def out_of_fold(self, plan: Plan, index: np.ndarray, k: int, name: str) -> list[Answers]:
        """What k networks say of the items that they did not see; nor did their front ends."""
        groups = [self.data.groups[i] for i in index] if self.data.spec.group else None
        found = []
        for number, (inside, outside) in enumerate(folds(self.names(index), groups, k, self.settings.seed), 1):
            own = replace(plan, front=front_end(plan.recipe, self.data, index[inside]))
            state = self.fit(own, f"{name} {number} of {k}", number, index[inside], np.empty(0, np.int64))
            found.append(self.predict(own, state, index[outside]))
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
            val = f"  validation {row['val_accuracy']:.2%}" if "val_accuracy" in row else ""
            self.console.note(
                f"{row['phase']}: epoch {row['epoch']:>3}  loss {row['loss']:.4f}  training {row['accuracy']:.2%}{val}"
                f"  {row['items_per_second']:,.0f} items/s"
            )
        else:
            self.console.say(row["text"])

    def _keep_rows(self, keep: Callable[[Mapping[str, Any]], bool]) -> None:
        """Rewrite metrics.jsonl with the rows that `keep` says; a line torn by a kill goes too."""
        if self.folder.metrics.exists():
            rows = [row for row in self.folder.read_metrics() if keep(row)]
            atomic_write(self.folder.metrics, "".join(dumps(row) + "\n" for row in rows))
