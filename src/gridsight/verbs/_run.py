"""A run from its settings to its result: decode, split, plan, train in phases, judge, write.

Every phase (a fold, then the final network) leaves a file when it ends, so that `resume` starts at the first unfinished
one; inside a phase the snapshot does. Nothing here reads a clock to decide what is computed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gridsight.artifact.model_file import Calibration, Model, save_model
from gridsight.artifact.predictor import Predictor, load
from gridsight.core import seed as hashing
from gridsight.core.console import Console, dumps
from gridsight.core.device import EXACT, environment, pick_device
from gridsight.core.errors import DataError, TrainingError, UsageError
from gridsight.core.run import RunFolder
from gridsight.data.cache import cached
from gridsight.data.loader import Loader
from gridsight.data.source import Source, find
from gridsight.data.split import Split, folds, split
from gridsight.measure.calibration import softmax
from gridsight.nn.frontend import FrontEnd
from gridsight.tasks.classify import Classify, class_weights
from gridsight.training.loop import Events, Stopped, Trainer, overfits, predict_logits
from gridsight.training.recipe import Recipe
from gridsight.training.snapshot import load_tensors, save_tensors
from gridsight.verbs._judge import Judged, fit_calibration, judge, say_result
from gridsight.verbs._plan import describe_data, describe_plan, make_plan, plain
from gridsight.verbs.train import TrainSettings

BAD_SHARE = 0.01
"""More unreadable items than this share stop a run unless the user accepts them."""
IN_MEMORY = 1 << 30
"""Decoded data above this many bytes are read ahead by threads; below, reading them costs nothing."""
OUT_OF_FOLD = 2e12
"""Multiply-accumulates that calibrating a small data set by short folds may cost: about a minute of two cores."""
SHORT = 3
"""The runs of those folds have so many times fewer epochs."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: `result` is result.json, `path` its folder."""

    path: Path
    result: Mapping[str, Any]
    exit_code: int = 0

    @property
    def model(self) -> Path:
        """The model file."""
        return self.path / "model.safetensors"

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """{"accuracy": {"value", "low", "high"}, ...} on the test data."""
        return self.result["metrics"]

    def predictor(self) -> Predictor:
        """What answers about new items."""
        return load(self.path)


def execute(folder: RunFolder, settings: TrainSettings, source: Source, console: Console) -> Run:
    """Train (or go on training) in a run folder; raises after saving when stopped or when the data cannot be used."""
    started = time.monotonic()
    with folder.lock():
        console.log = folder.log
        if not folder.environment.exists():
            folder.write_json(folder.environment, environment())
        try:
            return _Execution(folder, settings, source, console).run(started)
        except Stopped as stop:
            raise TrainingError(f"{stop}; gridsight resume {folder.path} goes on from there") from None
        except OSError as error:
            what = f"{error.strerror or error} ({error.filename or folder.path})"
            raise TrainingError(f"{what}; make room, then gridsight resume {folder.path}") from None


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of result.json that `--json` prints."""
    return {key: result[key] for key in ("task", "n", "skipped", "metrics", "run", "model", "seconds")}


def reevaluate(folder: RunFolder, settings: TrainSettings, part: str, device: str, console: Console) -> dict[str, Any]:
    """The figures of a finished run's model on a part of its own data; a reading of the test part is counted."""
    source = find(settings.data, pattern=settings.pattern, group=settings.group, axes=settings.axes)
    run = _Execution(folder, replace(settings, device=device), source, console)
    stored = folder.read_json(folder.result)
    if stored is None:
        raise UsageError(f"{folder.path} is not finished; gridsight resume {folder.path}")
    if settings.folds:
        raise UsageError(f"{folder.path} was cross-validated: its figures are in {folder.result}; give DATA to measure")
    result = run.measure(part)
    if part in ("auto", "test"):
        folder.write_json(folder.result, stored | {"test_reads": result["test_reads"]})
    return result


class _Execution:
    """One run under way; the methods are its chapters, in order."""

    def __init__(self, folder: RunFolder, settings: TrainSettings, source: Source, console: Console) -> None:
        self.folder, self.settings, self.console = folder, settings, console
        self.training_seconds = 0.0
        self.device = pick_device(settings.device)
        self.data = cached(source, console, size=settings.size, verify=settings.verify)
        self._refuse_bad()

    def run(self, started: float) -> Run:
        """All chapters; the finished run."""
        settings, data, console = self.settings, self.data, self.console
        parts = self._split()
        counts = {name: tuple(self._counts(index)) for name, index in parts.named()}
        data = self.data = replace(data, spec=replace(data.spec, counts=counts, split=parts.words))
        describe_data(data.spec, parts, data, console)
        duplicates = self._duplicates(parts)
        self.plan = make_plan(settings, data, parts.train, console)
        self._keep_plan(describe_plan(self.plan, data, len(parts.train), console))
        if settings.check:
            self._check(parts)
        console.say()
        if settings.folds:
            answers, calibration = self._cross_validate(parts)
            final = self._fit("final network", 0, parts.train, np.empty(0, np.int64))
        else:
            final = self._fit("training", 0, parts.train, parts.val)
            calibration = self._calibrate(final, parts)
            answers = self._predict(final, parts.test)
        model = self._model(final, calibration)
        result = self._judge(answers, calibration, parts, started, self.folder.predictions) | duplicates
        save_model(self.folder.model, replace(model, metrics=result["metrics"]))
        self.folder.write_json(self.folder.result, result)
        self.folder.resume.unlink(missing_ok=True)
        if settings.report:
            self._report()
        say_result(result, data.spec, self.folder.path, console)
        console.emit(summary(result))
        return Run(self.folder.path, result)

    def measure(self, part: str) -> dict[str, Any]:
        """The finished model's figures on one part of the run's data."""
        started, parts = time.monotonic(), self._split()
        index = {
            "auto": parts.test,
            "test": parts.test,
            "train": parts.train,
            "val": parts.val,
            "all": np.concatenate([parts.train, parts.val, parts.test]),
        }[part]
        predictor = load(self.folder.path, self.settings.device)
        loader = Loader(self.data.x, self.data.y, index, 256)
        logits, _ = predict_logits(predictor.net, predictor.front, loader, predictor.device)
        words = parts.words if part in ("auto", "test") else f"the {part} part of the data"
        return self._judge(
            _Answers(index, logits.numpy()), predictor.model.calibration, replace(parts, words=words), started, None
        )

    def _refuse_bad(self) -> None:
        bad, total = self.data.bad, len(self.data.bad) + len(self.data)
        for line in bad[:5]:
            self.console.warn(line)
        if len(bad) > 5:
            self.console.warn(f"... and {len(bad) - 5:,} more")
        if bad:
            self.console.say(f"bad      {len(bad):,} of {total:,} items cannot be used and are left out")
        if len(bad) > BAD_SHARE * total and not self.settings.accept_bad:
            raise DataError(
                f"{len(bad):,} of {total:,} items cannot be read ({len(bad) / total:.1%}, first: {bad[0]}); "
                f"gridsight check {self.settings.data} lists them, --accept-bad goes on without them"
            )

    def _split(self) -> Split:
        data, settings = self.data, self.settings
        groups = data.groups if data.spec.group else None
        published = data.splits if any(data.splits) and not settings.folds else None
        return split(self._names(np.arange(len(data))), groups, published, settings.seed)

    def _names(self, index: np.ndarray) -> list[str]:
        """Class names of the items numbered `index`; the splitter's messages are about names."""
        return [self.data.spec.classes[k] for k in self.data.y[index]]

    def _duplicates(self, parts: Split) -> dict[str, Any]:
        """Near-duplicates on both sides of the split: they make the figures too good, so they are counted and named."""
        from gridsight.data.duplicates import near_duplicates

        if self.settings.folds:
            return {}
        where = {int(i): name for name, index in parts.named() for i in index}
        data, found = self.data, near_duplicates(self.data.x, self.data.spec.rate)
        across = [(int(a), int(b)) for a, b in found.pairs if where[int(a)] != where[int(b)]]
        if not found.complete:
            self.console.say("note     too many items to look for near-duplicates; gridsight check says more")
        if across:
            a, b = across[0]
            self.console.warn(
                f"{len(across):,} pairs of near-duplicates lie in different parts of the split "
                f"(first: {data.paths[a]} and {data.paths[b]}); gridsight check {self.settings.data} lists them"
            )
        return {
            "duplicates": [
                {"a": data.paths[a], "b": data.paths[b], "splits": f"{where[a]} / {where[b]}"} for a, b in across[:100]
            ],
            "duplicates_count": len(across),
        }

    def _keep_plan(self, plan: Mapping[str, Any]) -> None:
        """Write plan.json once; a resumed run must find the same data and the same plan."""
        fresh, stored = plain(plan), self.folder.read_json(self.folder.plan)
        if stored is None:
            self.folder.write_json(self.folder.plan, fresh)
            return
        if stored["fingerprint"] != fresh["fingerprint"]:
            raise UsageError(
                f"the data have changed since {self.folder.path} was started; start a new run, or restore them"
            )
        timed = {"seconds_expected", "memory_expected"}
        if any(stored.get(key) != value for key, value in fresh.items() if key not in timed):
            raise UsageError(f"{self.folder.plan} was made by another version of gridsight; start a new run")
        before, now = self.folder.read_json(self.folder.environment) or {}, environment()
        changed = [f"{name} {before.get(name)} -> {now[name]}" for name in EXACT if before.get(name) != now[name]]
        if changed:
            self.console.warn(f"this machine differs ({', '.join(changed)}): the last bits of the weights may too")

    def _check(self, parts: Split) -> None:
        learned, share = overfits(self._trainer("check", 0, parts.train, parts.val, None))
        if not learned:
            raise TrainingError(
                f"the network learned only {share:.0%} of one batch by heart; look at the labels (gridsight check "
                f"{self.settings.data}), or take another --model"
            )
        self.console.say(f"check    one batch learned by heart ({share:.0%})")

    def _trainer(
        self,
        phase: str,
        seed: int,
        train: np.ndarray,
        val: np.ndarray,
        snapshot: Path | None,
        recipe: Recipe | None = None,
    ) -> Trainer:
        plan, data, settings = self.plan, self.data, self.settings
        recipe = recipe or plan.recipe
        task = Classify(
            data.spec.classes,
            label_smoothing=recipe.label_smoothing,
            weights=class_weights(self._counts(train)) if settings.class_weights else (),
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
            Loader(data.x, data.y, val, 256, workers) if len(val) else None,
            seed=own,
            device=self.device,
            accumulate=settings.accumulate,
            patience=settings.patience,
            phase=phase,
            snapshot=snapshot,
            save_every=settings.save_every,
            events=Events(self._row, self.console),
        )

    def _counts(self, index: np.ndarray) -> list[int]:
        """Items of each class among those numbered `index`."""
        return [int(n) for n in np.bincount(self.data.y[index], minlength=self.data.spec.num_classes)]

    def _row(self, row: Mapping[str, Any]) -> None:
        """Append to metrics.jsonl; after a resume, what the killed process wrote past the snapshot is cut off."""
        if row["event"] == "resumed":
            rows = self.folder.read_metrics()
            kept = [old for old in rows if old["phase"] != row["phase"] or old["step"] <= row["step"]]
            self.folder.metrics.write_text("".join(dumps(old) + "\n" for old in kept), encoding="utf-8")
        with self.folder.metrics.open("a", encoding="utf-8") as file:
            file.write(dumps(row) + "\n")
        if row["event"] == "epoch":
            val = f"  validation {row['val_accuracy']:.2%}" if "val_accuracy" in row else ""
            self.console.note(
                f"epoch {row['epoch']:>3}  loss {row['loss']:.4f}  training {row['accuracy']:.2%}{val}"
                f"  {row['items_per_second']:,.0f} items/s"
            )
        else:
            self.console.say(row["text"])

    def _fit(
        self, phase: str, seed: int, train: np.ndarray, val: np.ndarray, recipe: Recipe | None = None
    ) -> Mapping[str, torch.Tensor]:
        """The chosen state of one network, from its file if the phase has ended before."""
        done = self.folder.path / "phases" / f"{phase.replace(' ', '-')}.safetensors"
        if not done.exists():
            done.parent.mkdir(exist_ok=True)
            if not self.folder.resume.exists():
                self._forget_rows(phase)
            trainer = self._trainer(phase, seed, train, val, self.folder.resume, recipe)
            started = time.monotonic()
            state = trainer.fit()
            self.training_seconds += time.monotonic() - started
            save_tensors(done, state, {"phase": phase})
        return load_tensors(done)[0]

    def _forget_rows(self, phase: str) -> None:
        """A first phase that starts anew, without a snapshot, starts with no rows."""
        if not any((self.folder.path / "phases").iterdir()):
            self.folder.metrics.unlink(missing_ok=True)

    def _network(self, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        net = self.plan.network(self.settings.seed)
        net.load_state_dict(dict(state))
        return net.to(self.device)

    def _predict(self, state: Mapping[str, torch.Tensor], index: np.ndarray) -> "_Answers":
        front = FrontEnd(self.plan.front, self.data.spec.ndim).to(self.device)
        loader = Loader(self.data.x, self.data.y, index, 256)
        logits, _ = predict_logits(self._network(state), front, loader, self.device)
        return _Answers(index, logits.numpy())

    def _cross_validate(self, parts: Split) -> tuple["_Answers", Calibration]:
        """Out-of-fold answers for every item, pooled, and the calibration that they give."""
        data = self.data
        everything = np.concatenate([parts.train, parts.val, parts.test])
        answers = self._out_of_fold(everything, self.settings.folds, "fold")
        return answers, fit_calibration(answers.logits, data.y[answers.index], self.settings.coverage)

    def _out_of_fold(self, index: np.ndarray, k: int, name: str, recipe: Recipe | None = None) -> "_Answers":
        index = np.sort(index)
        groups = [self.data.groups[i] for i in index] if self.data.spec.group else None
        found = []
        for number, (inside, outside) in enumerate(folds(self._names(index), groups, k, self.settings.seed), 1):
            state = self._fit(f"{name} {number} of {k}", number, index[inside], np.empty(0, np.int64), recipe)
            found.append(self._predict(state, index[outside]))
        return _Answers(np.concatenate([part.index for part in found]), np.concatenate([part.logits for part in found]))

    def _calibrate(self, state: Mapping[str, torch.Tensor], parts: Split) -> Calibration:
        """From validation data; without any, from out-of-fold answers where these cost little; else not at all."""
        if len(parts.val):
            answers = self._predict(state, parts.val)
        else:
            smallest = min(self._counts(parts.train))
            plan = self.folder.read_json(self.folder.plan)
            short = replace(self.plan.recipe, epochs=max(1, self.plan.recipe.epochs // SHORT))
            # three folds of two thirds of the items, forward and twice backward
            work = 3 * 2 / 3 * 3 * plan["macs"] * len(parts.train) * short.epochs
            if smallest < 3 or work > OUT_OF_FOLD:
                return Calibration()
            self.console.say("calibration by three short folds of the training data")
            try:
                answers = self._out_of_fold(parts.train, 3, "calibration", short)
            except DataError as error:
                self.console.say(f"no calibration: {error}")
                return Calibration()
        return fit_calibration(answers.logits, self.data.y[answers.index], self.settings.coverage)

    def _model(self, state: Mapping[str, torch.Tensor], calibration: Calibration) -> Model:
        plan, data = self.plan, self.data
        net = self._network(state).cpu()
        return Model(
            plan.recipe.model,
            plan.architecture["arguments"],
            plan.recipe.ndim,
            plan.in_channels,
            net,
            plan.front,
            replace(data.spec, notes=()),
            calibration=calibration,
            fingerprint=data.fingerprint,
        )

    def _judge(
        self, answers: "_Answers", calibration: Calibration, parts: Split, started: float, file: Path | None
    ) -> dict[str, Any]:
        data = self.data
        probabilities = softmax(answers.logits, calibration.temperature)
        judged = Judged(
            probabilities=probabilities,
            uncalibrated=softmax(answers.logits),
            target=data.y[answers.index],
            paths=[data.paths[i] for i in answers.index],
            classes=data.spec.classes,
            groups=[data.groups[i] for i in answers.index] if data.spec.group else None,
            items=lambda rows: np.array(data.x[answers.index[rows]]),
        )
        how = f"{self.settings.folds} folds, every item predicted by a network that did not see it"
        before = self.folder.read_json(self.folder.result) or {}
        return judge(judged, calibration, file) | {
            "skipped": len(data.bad),
            "bad": data.bad[:100],
            "run": str(self.folder.path),
            "model": str(self.folder.model),
            "seconds": round(time.monotonic() - started, 2),
            "training_seconds": round(self.training_seconds, 2),
            "split": how if self.settings.folds else parts.words,
            "test_reads": int(before.get("test_reads", 0)) + 1,
        }

    def _report(self) -> None:
        from gridsight.verbs.report import ReportSettings, report

        report(ReportSettings(str(self.folder.path)), Console(quiet=True))


@dataclass(frozen=True, eq=False)
class _Answers:
    """Logits (n, K) of the items numbered `index` (n,)."""

    index: np.ndarray
    logits: np.ndarray
