"""The training loop: forward, backward, step, evaluate, save.

A run is a pure function of its settings: step t of epoch e sees the batch, the augmentation and the dropout that
(seed, e, t) give, whatever was computed before. A snapshot therefore needs no random state, and a run killed anywhere
ends with the same weights after `resume`. Clocks decide when to save, never what is computed unless `seconds` says so.

Which weights are kept: the last, unless an earlier epoch was better on the validation data by more than one standard
error of its score (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3); with `patience`, the
best ones. Averages and norm statistics belong to the weights.

Several processes (`core.ranks`) each compute their share of every batch; what they exchange once a step makes it the
step of one process. Batch norms alone see the statistics of a share, and their running statistics are the mean of all.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.core import seed as hashing
from gridsight.core.console import Console, counted
from gridsight.core.errors import TrainingError, UsageError
from gridsight.core.ranks import Ranks
from gridsight.data.loader import Batch, Loader
from gridsight.nn.frontend import FrontEnd
from gridsight.nn.memory import Buffers, is_out_of_memory
from gridsight.nn.nd import channels_last
from gridsight.tasks import Task
from gridsight.training.answers import predict_logits
from gridsight.training.average import Average
from gridsight.training.budget import epochs_that_fit
from gridsight.training.exchange import exchange, refuse_too_many
from gridsight.training.methods.supervised import Supervised
from gridsight.training.optimiser import make_optimiser
from gridsight.training.recipe import Recipe
from gridsight.training.schedule import bent, factor
from gridsight.training.snapshot import (
    below,
    first_bad_layer,
    load_tensors,
    optimiser_tensors,
    restore_optimiser,
    save_tensors,
    under,
)
from gridsight.training.stopping import Stopped, stoppable
from gridsight.training.tuning import Tuned

EVALUATIONS = 25
"""At most so many evaluations a run: more only cost time where epochs are short."""


@dataclass
class Progress:
    """Where a run is: the next step, what the evaluations have shown, the parts that a batch is computed in.

    A run with a time budget that proves too slow ends after `epochs`; its rate falls in a line from step `bend` on, or
    (`bend_factor` below 0) takes its whole course anew from there.
    """

    epoch: int = 0
    batch: int = 0
    best_epoch: int = -1
    best: float = -math.inf
    best_error: float = 0.0
    best_loss: float = math.inf
    last: float = -math.inf
    waited: int = 0
    loss_sum: float = 0.0
    good: float = 0.0
    seen: int = 0
    parts: int = 1
    epochs: float = 0
    spent: float = 0.0
    bend: int = -1
    bend_factor: float = 1.0


@dataclass(frozen=True)
class Events:
    """Where the loop tells what happens: `row` gets each row of metrics.jsonl, `console` draws the bar."""

    row: Callable[[Mapping[str, Any]], None] = lambda row: None
    console: Console = field(default_factory=lambda: Console(quiet=True))


class Trainer:
    """Trains one network by one recipe; `fit` returns the state that was chosen."""

    def __init__(
        self,
        net: nn.Module,
        front: FrontEnd,
        task: Task,
        recipe: Recipe,
        train: Loader,
        validation: Loader | None,
        *,
        seed: int,
        device: torch.device,
        accumulate: int = 1,
        patience: int = 0,
        phase: str = "training",
        snapshot: Path | None = None,
        save_every: float = 20.0,
        seconds: float | None = None,
        events: Events | None = None,
        ranks: Ranks | None = None,
        tuned: Tuned | None = None,
    ) -> None:
        self.device, self.ranks = device, ranks or Ranks()
        self.net, self.front, self.task = channels_last(net.to(device)), front.to(device), task
        self.train = replace(train, rank=self.ranks.rank, world=self.ranks.world, chained=recipe.mixup > 0)
        self.recipe, self.validation, self.seed, self.patience = recipe, validation, seed, patience
        self.phase, self.snapshot, self.save_every, self.seconds = phase, snapshot, save_every, seconds
        self.events = events or Events()
        self.method = Supervised(self.net, self.front, task, recipe.augment, seed, recipe.mixup, recipe.precision)
        self.tuned, scale = tuned, tuned.scale if tuned else lambda name: 1.0
        rates = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "momentum": recipe.momentum}
        self.optimiser = make_optimiser(recipe.optimizer, self.net, scale=scale, **rates)
        self.average = Average(self.net, recipe.average) if recipe.average else None
        self.best: dict[str, Tensor] | None = None
        self.at = Progress(parts=accumulate, epochs=recipe.epochs)
        self._buffers = Buffers(list(self.net.buffers()))
        self._asked: list[int] = []
        self._agreed = False
        refuse_too_many(self.ranks, self.train)
        self._evaluate_every = max(1, int(recipe.epochs) // EVALUATIONS)
        self._eval_net = copy.deepcopy(self.net) if self.average else self.net

    @property
    def total(self) -> int:
        """Steps of the whole run, whose last epoch may be a part of one."""
        return max(1, round(self.at.epochs * len(self.train)))

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return min(self.at.epoch * len(self.train) + self.at.batch, self.total)

    @property
    def _shrunk(self) -> bool:
        """Whether the step under way sees small items: early on, coarse things are learned as well from these."""
        return self.step < self.recipe.shrunk * self.total

    def fit(self) -> dict[str, Tensor]:
        """Train to the end, from the snapshot if there is one; the chosen state of the network."""
        self._restore()
        saved = time.monotonic()
        with stoppable() as self._asked, self.events.console.progress(self.phase, self.total) as bar:
            while self.at.epoch < self.at.epochs and not self._waited:
                started, first = time.monotonic(), self.at.batch
                for batch in islice(self.train.epoch(self.seed, self.at.epoch, first), self.total - self.step):
                    self._step(batch)
                    self._count(bar, started, first)
                    if self._stops:
                        self._save()
                        raise Stopped(f"stopped at step {self.step:,} of {self.total:,}")
                    if time.monotonic() - saved > self.save_every:
                        self._save()
                        saved = time.monotonic()
                self._end_of_epoch(started, first)
            if any(self.ranks.gather(bool(self._asked))):  # during the last evaluation
                self._save()
                raise Stopped(f"stopped at step {self.step:,} of {self.total:,}")
        return self._chosen()

    def _step(self, batch: Batch) -> None:
        at, recipe, rate = self.at, self.recipe, self._rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        batch = batch.to(self.device)
        if not self.net.training:  # it calls every module
            self.net.train()
        if self.tuned is not None:
            self.tuned.begin(at.epoch)
        loss, good_sum = self._gradient(batch)
        value, good, self._agreed = exchange(self.net, self.ranks, loss, good_sum, bool(self._asked))
        if not math.isfinite(value):
            self._diverged(batch)
        if recipe.clip:
            norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip)
            if not bool(norm.isfinite()):
                self._diverged(batch)
        self.optimiser.step()
        if self.average:
            self.average.update(self.step)
        at.batch += 1
        at.loss_sum += value * len(batch.targets)
        at.good += good
        at.seen += len(batch.targets)

    def _gradient(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(loss, goodness) of a batch, its gradient in the parameters; in smaller parts where memory runs out."""
        at, count = self.at, len(batch.y)
        self._buffers.keep()
        while True:
            # for what draws numbers of its own (`nn.dropout` does not): others in each process
            hashing.reseed(hashing.key(self.seed, "dropout", self.step) + self.ranks.rank, self.device)
            self.optimiser.zero_grad(set_to_none=True)
            try:
                return self.method.step(batch, at.epoch, min(at.parts, count), self._shrunk)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if at.parts >= count:
                    raise TrainingError(
                        f"out of memory with one item a part; take a smaller --size or another --model ({error})"
                    ) from None
            # outside the handler, whose traceback would hold on to what was allocated
            self._buffers.restore()
            at.parts = min(count, 2 * at.parts)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._tell(
                "out_of_memory",
                f"out of memory at step {self.step:,}: the batch of {count} is computed in {at.parts} parts from here "
                "on, with the same gradient",
            )
            self._save()  # a process that goes on from here must compute the same parts

    @property
    def _stops(self) -> bool:
        """Whether to stop after this step: several processes do so after the same one."""
        return self._agreed if self.ranks.world > 1 else bool(self._asked)

    def _count(self, bar: Any, started: float, first: int) -> None:
        """Move the progress bar."""
        at = self.at
        rate = (at.batch - first) * self.train.size / max(time.monotonic() - started, 1e-9)
        bar.update(
            self.step,
            f"loss {at.loss_sum / at.seen:.3f}  {self.task.progress(at.good / at.seen)}  {rate:,.0f} items/s",
        )

    @property
    def _waited(self) -> bool:
        """Whether to stop early, which a run that is resumed right then does too."""
        return bool(self.patience) and self.at.waited >= self.patience

    def _end_of_epoch(self, started: float, first: int) -> None:
        """Evaluate where it is due, write the epoch's row."""
        at, seconds = self.at, time.monotonic() - started
        steps = at.batch - first
        lr = self._rate(self.step - 1)
        at.epoch, at.batch = at.epoch + 1, 0
        row: dict[str, Any] = {
            "event": "epoch",
            "phase": self.phase,
            "epoch": at.epoch,
            "step": self.step,
            "loss": at.loss_sum / at.seen,
            self.task.metric: at.good / at.seen,
            "lr": lr,
            "items_per_second": steps * self.train.size / max(seconds, 1e-9),
            "seconds": seconds,
        }
        at.loss_sum, at.good, at.seen = 0.0, 0.0, 0
        due = at.epoch % self._evaluate_every == 0 or at.epoch >= at.epochs
        if self.validation is not None and due:
            scores = self.evaluate(self.validation)
            row |= {"val_loss": scores["loss"], f"val_{self.task.metric}": scores[self.task.metric]}
            self._remember(scores)
        self.events.row(row)
        at.spent = self.ranks.from_first(lambda: at.spent + time.monotonic() - started)
        self._keep_to_time()
        if self._waited:
            kept = f"epoch {at.best_epoch} is kept ({self.task.progress(at.best)})"
            self._tell("early_stop", f"no better on validation data in {self.patience} evaluations; {kept}")

    def _keep_to_time(self) -> None:
        """Plan fewer epochs where the machine proves slower than when the plan was made; a recorded event."""
        at = self.at
        if self.seconds is None or at.epoch >= at.epochs:
            return
        epochs = epochs_that_fit(self.recipe, at.epoch, at.epochs, at.spent, self.seconds)
        if epochs >= at.epochs:
            return
        # cut while it still rises, the rate was never what was planned: then the whole course begins again
        start = at.bend if at.bend_factor < 0 else 0
        risen = self.step - start >= self.recipe.warmup * (self.total - start)
        before, at.bend_factor = at.epochs, self._rate(self.step) / self.recipe.lr if risen else -1.0
        at.bend, at.epochs = self.step, epochs
        self._tell("overrun", f"slower than planned: {counted(epochs, 'epoch')} instead of {before}, to end in time")
        self._save()

    def _rate(self, step: int) -> float:
        """The learning rate at a step."""
        at, recipe = self.at, self.recipe
        if at.bend >= 0 and step >= at.bend:
            if at.bend_factor < 0:
                return recipe.lr * factor(recipe.schedule, step - at.bend, self.total - at.bend, recipe.warmup)
            return recipe.lr * bent(at.bend_factor, step, at.bend, self.total)
        return recipe.lr * factor(recipe.schedule, step, self.total, recipe.warmup)

    def _remember(self, scores: Mapping[str, float]) -> None:
        at = self.at
        at.last = scores[self.task.metric] if math.isfinite(scores[self.task.metric]) else -math.inf
        loss = scores["loss"] if math.isfinite(scores["loss"]) else math.inf
        if (at.last, -loss) > (at.best, -at.best_loss):
            at.best_epoch, at.best, at.best_error, at.best_loss, at.waited = at.epoch, at.last, scores["error"], loss, 0
            self.best = {name: value.clone() for name, value in self._current().items()}
        else:
            at.waited += 1

    def _current(self) -> dict[str, Tensor]:
        """The state that is evaluated: the average where there is one."""
        if self.average:
            return self.average.state
        return {name: value.detach() for name, value in self.net.state_dict().items()}

    def _chosen(self) -> dict[str, Tensor]:
        at = self.at
        if self.validation is None or self.best is None:
            return self._current()
        if self.patience or at.last < at.best - at.best_error:
            return self.best
        return self._current()

    def evaluate(self, data: Loader) -> dict[str, float]:
        """The task's scores of the current (averaged) weights."""
        if self.average:
            self._eval_net.load_state_dict(self.average.state)
        logits, y = predict_logits(self._eval_net, self.front, data, self.device, self.ranks)
        return self.task.score(logits, y)

    def _diverged(self, batch: Batch) -> None:
        """Name the layer, record the event, keep the last snapshot, say what to try."""
        hashing.reseed(hashing.key(self.seed, "dropout", self.step), self.device)
        with torch.no_grad():
            x, mask = self.method.inputs(batch, self.at.epoch, self._shrunk)
            if not bool(x.isfinite().all()):
                layer = "the input"
            else:
                layer = first_bad_layer(self.net, *((x,) if mask is None else (x, mask)))
        if layer == "the loss":
            bad = [
                n for n, p in self.net.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
            ]
            layer = f"the gradient of {bad[-1]}" if bad else layer
        # the items that did it are one process's; the gradient is bad in all
        layer = min(self.ranks.gather(layer), key=lambda found: found.startswith(("the gradient", "the loss")))
        text = f"not finite at step {self.step:,}: first in {layer}"
        self._tell("nan", text)
        where = ""
        if self.snapshot is not None and self.snapshot.exists():
            where = f" Weights up to the last snapshot are in {self.snapshot}."
        raise TrainingError(
            f"training diverged, {text}.{where} Try a smaller --lr (now {self.recipe.lr:g}), "
            f"--clip 1, or a longer --warmup; gridsight check shows extreme values in the data"
        )

    def _save(self) -> None:
        if self.snapshot is None or not self.ranks.first:
            return
        tensors = under("net", self.net.state_dict()) | under("optimiser", optimiser_tensors(self.optimiser))
        if self.average:
            tensors |= under("average", self.average.state)
        if self.best is not None:
            tensors |= under("best", self.best)
        try:
            # infinities have no JSON: a loss that was never measured is left out
            counters = {name: value for name, value in vars(self.at).items() if math.isfinite(value)}
            save_tensors(self.snapshot, tensors, {"phase": self.phase, "step": self.step, "at": counters})
        except OSError as error:
            self.events.console.warn(f"no snapshot at step {self.step:,}: {error.strerror or error}")

    def can_resume(self) -> bool:
        """Whether there is a snapshot of this phase; one of an earlier fold of the same run, which is done, is none."""
        if self.snapshot is None or not self.snapshot.exists():
            return False
        return bool(load_tensors(self.snapshot)[1]["phase"] == self.phase)

    def _restore(self) -> None:
        if not self.can_resume():
            return
        assert self.snapshot is not None
        tensors, metadata = load_tensors(self.snapshot)
        try:
            self.net.load_state_dict(below("net", tensors))
            restore_optimiser(self.optimiser, below("optimiser", tensors))
            if self.average:
                for name, value in below("average", tensors).items():
                    self.average.state[name].copy_(value)
        except (KeyError, RuntimeError, ValueError):
            raise UsageError(f"{self.snapshot} belongs to another network; remove it to start again") from None
        best = below("best", tensors)
        self.best = {name: value.to(self.device) for name, value in best.items()} or None
        self.at = replace(Progress(), **metadata["at"])
        self._tell("resumed", f"resumed at step {self.step:,}")

    def _tell(self, event: str, text: str) -> None:
        self.events.row({"event": event, "phase": self.phase, "step": self.step, "epoch": self.at.epoch, "text": text})
