"""The training loop: forward, backward, step, evaluate, save.

A run is a pure function of its settings: step t of epoch e sees the batch, the augmentation and the dropout that
(seed, e, t) give, whatever was computed before. A snapshot therefore needs no random state, and a run killed anywhere
ends with the same weights after `resume`. Clocks decide when to save, never what is computed.

Which weights are kept: the last, unless an earlier epoch was better on the validation data by more than one standard
error of its accuracy (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3); with `patience`, the
best ones. Averages and norm statistics belong to the weights.
"""

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.core import seed as hashing
from gridsight.core.console import Console
from gridsight.core.errors import TrainingError, UsageError
from gridsight.data.loader import Batch, Loader
from gridsight.nn.frontend import FrontEnd
from gridsight.tasks.classify import Classify
from gridsight.training.average import Average
from gridsight.training.methods.supervised import Supervised
from gridsight.training.optimiser import make_optimiser
from gridsight.training.recipe import Recipe
from gridsight.training.schedule import factor
from gridsight.training.snapshot import (
    below,
    first_bad_layer,
    load_tensors,
    optimiser_tensors,
    restore_optimiser,
    save_tensors,
    under,
)

EVALUATIONS = 25
"""At most so many evaluations a run: more only cost time where epochs are short."""


class Stopped(TrainingError):
    """The user asked to stop: a snapshot was saved, and `resume` goes on from there."""


@dataclass
class Progress:
    """Where a run is: the next step, and what the evaluations have shown."""

    epoch: int = 0
    batch: int = 0
    best_epoch: int = -1
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    last_accuracy: float = -1.0
    waited: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0


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
        task: Classify,
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
        events: Events | None = None,
    ) -> None:
        self.device = device
        self.net, self.front, self.task = _channels_last(net.to(device)), front.to(device), task
        self.recipe, self.train, self.validation, self.seed = recipe, train, validation, seed
        self.accumulate, self.patience = accumulate, patience
        self.phase, self.snapshot, self.save_every = phase, snapshot, save_every
        self.events = events or Events()
        self.method = Supervised(self.net, self.front, task, recipe.augment, seed)
        self.optimiser = make_optimiser(
            recipe.optimizer, self.net, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
        self.average = Average(self.net, recipe.average) if recipe.average else None
        self.best: dict[str, Tensor] | None = None
        self.at = Progress()
        self.total = recipe.epochs * len(train)
        self._evaluate_every = max(1, recipe.epochs // EVALUATIONS)
        self._eval_net = copy.deepcopy(self.net) if self.average else self.net

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return self.at.epoch * len(self.train) + self.at.batch

    def fit(self) -> dict[str, Tensor]:
        """Train to the end, from the snapshot if there is one; the chosen state of the network."""
        self._restore()
        saved = time.monotonic()
        with _stoppable() as stop, self.events.console.progress(self.phase, self.total) as bar:
            while self.at.epoch < self.recipe.epochs:
                started, first = time.monotonic(), self.at.batch
                for batch in self.train.epoch(self.seed, self.at.epoch, first):
                    self._step(batch)
                    self._count(bar, started, first)
                    if stop:
                        self._save()
                        raise Stopped(f"stopped at step {self.step:,} of {self.total:,}")
                    if time.monotonic() - saved > self.save_every:
                        self._save()
                        saved = time.monotonic()
                if self._end_of_epoch(started, first):
                    break
            if stop:  # asked for during the last evaluation
                self._save()
                raise Stopped(f"stopped at step {self.step:,} of {self.total:,}")
        return self._chosen()

    def _step(self, batch: Batch) -> None:
        at, recipe = self.at, self.recipe
        lr = recipe.lr * factor(recipe.schedule, self.step, self.total, recipe.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        torch.manual_seed(hashing.key(self.seed, "dropout", self.step))
        if self.device.type != "cpu":
            batch = Batch(batch.x.to(self.device), batch.y.to(self.device), batch.items.to(self.device))
        self.net.train()
        self.optimiser.zero_grad(set_to_none=True)
        loss, correct = self.method.step(batch, at.epoch, min(self.accumulate, len(batch.y)))
        value = float(loss)
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
        at.loss_sum += value * len(batch.y)
        at.correct += int(correct)
        at.seen += len(batch.y)

    def _count(self, bar: Any, started: float, first: int) -> None:
        """Move the progress bar."""
        at = self.at
        rate = (at.batch - first) * self.train.size / max(time.monotonic() - started, 1e-9)
        bar.update(self.step, f"loss {at.loss_sum / at.seen:.3f}  {at.correct / at.seen:.1%}  {rate:,.0f} items/s")

    def _end_of_epoch(self, started: float, first: int) -> bool:
        """Evaluate where it is due, write the epoch's row; whether to stop early."""
        at, seconds = self.at, time.monotonic() - started
        steps = at.batch - first
        lr = self.recipe.lr * factor(self.recipe.schedule, self.step - 1, self.total, self.recipe.warmup)
        at.epoch, at.batch = at.epoch + 1, 0
        row: dict[str, Any] = {
            "event": "epoch",
            "phase": self.phase,
            "epoch": at.epoch,
            "step": self.step,
            "loss": at.loss_sum / at.seen,
            "accuracy": at.correct / at.seen,
            "lr": lr,
            "items_per_second": steps * self.train.size / max(seconds, 1e-9),
            "seconds": seconds,
        }
        at.loss_sum, at.correct, at.seen = 0.0, 0, 0
        due = at.epoch % self._evaluate_every == 0 or at.epoch == self.recipe.epochs
        if self.validation is not None and due:
            scores = self.evaluate(self.validation)
            row |= {"val_loss": scores["loss"], "val_accuracy": scores["accuracy"]}
            self._remember(scores)
        self.events.row(row)
        if self.patience and at.waited >= self.patience:
            text = f"no better validation accuracy in {self.patience} evaluations; epoch {at.best_epoch} is kept"
            self._tell("early_stop", text)
            return True
        return False

    def _remember(self, scores: Mapping[str, float]) -> None:
        at = self.at
        at.last_accuracy = scores["accuracy"]
        scores = {name: value if math.isfinite(value) else math.inf for name, value in scores.items()}
        if (scores["accuracy"], -scores["loss"]) > (at.best_accuracy, -at.best_loss):
            at.best_epoch, at.best_accuracy, at.best_loss, at.waited = at.epoch, scores["accuracy"], scores["loss"], 0
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
        n = len(self.validation.index)
        share = min(at.best_accuracy, 1 - 1 / n)  # a perfect score has an error too
        error = math.sqrt(max(share * (1 - share), 0.0) / n)
        if self.patience or at.last_accuracy < at.best_accuracy - error:
            return self.best
        return self._current()

    def evaluate(self, data: Loader) -> dict[str, float]:
        """The task's scores of the current (averaged) weights."""
        if self.average:
            self._eval_net.load_state_dict(self.average.state)
        logits, y = predict_logits(self._eval_net, self.front, data, self.device)
        return self.task.score(logits, y)

    def _diverged(self, batch: Batch) -> None:
        """Name the layer, record the event, keep the last snapshot, say what to try."""
        torch.manual_seed(hashing.key(self.seed, "dropout", self.step))
        with torch.no_grad():
            x = self.method.inputs(batch, self.at.epoch)
            if not bool(x.isfinite().all()):
                layer = "the input"
            else:
                layer = first_bad_layer(self.net, x)
        if layer == "the loss":
            bad = [
                n for n, p in self.net.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
            ]
            layer = f"the gradient of {bad[-1]}" if bad else layer
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
        if self.snapshot is None:
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


@torch.no_grad()
def predict_logits(net: nn.Module, front: FrontEnd, data: Loader, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (n, K) float32 and targets (n,) of every item in order, both on the CPU; the network is left as it was."""
    training = net.training
    net.eval()
    logits, targets = [], []
    try:
        for batch in data.in_order():
            logits.append(net(front(batch.x.to(device))).float().cpu())
            targets.append(batch.y)
    finally:
        net.train(training)
    return torch.cat(logits), torch.cat(targets)


def overfits(trainer: Trainer, steps: int = 100) -> tuple[bool, float]:
    """Whether the network can learn one batch by heart (at least 99 % right), and the last share right.

    Works on a copy: the trainer's own network is untouched. A network or recipe that cannot is not worth a long run.
    """
    net = copy.deepcopy(trainer.net)
    method = Supervised(net, trainer.front, trainer.task, (), trainer.seed)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # it is there to keep a network from learning by heart
    optimiser = make_optimiser("adamw", net, lr=2e-3, weight_decay=0.0, momentum=0.9)
    batch = next(trainer.train.epoch(trainer.seed, 0))
    batch = Batch(batch.x[:64].to(trainer.device), batch.y[:64].to(trainer.device), batch.items[:64])
    share = 0.0
    net.train()
    torch.manual_seed(hashing.key(trainer.seed, "overfit"))
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        _, correct = method.step(batch, 0)
        optimiser.step()
        share = int(correct) / len(batch.y)
        if share == 1.0:
            break
    return share >= 0.99, share


def _channels_last(net: nn.Module) -> nn.Module:
    """Convolution weights in channels-last memory, which is what the CPU's and the GPU's fast kernels read."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return net


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """A list that the first Ctrl-C or termination signal makes non-empty; a second Ctrl-C stops at once.

    Saving inside a step would tear the state, so the loop looks at the list between steps.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
