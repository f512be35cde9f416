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
from gridsight.core.console import Console
from gridsight.core.device import EXACT, environment, pick_device
from gridsight.core.errors import DataError, TrainingError, UsageError
from gridsight.core.run import RunFolder
from gridsight.data.cache import cached
from gridsight.data.loader import Loader
from gridsight.data.source import Source, find
from gridsight.data.split import Split, split
from gridsight.measure.calibration import fit_temperature, softmax
from gridsight.nn.frontend import FrontEndSettings
from gridsight.training.loop import Stopped, overfits, predict_logits
from gridsight.verbs._judge import Judged, fit_calibration, judge, say_result
from gridsight.verbs._phases import EVALUATION, Answers, Phases, pool
from gridsight.verbs._plan import arguments, describe_data, describe_plan, make_plan, plain
from gridsight.verbs.train import TrainSettings

BAD_SHARE = 0.01
"""More unreadable items than this share stop a run unless the user accepts them."""
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
    started, threads = time.monotonic(), torch.get_num_threads()
    with folder.lock():
        console.log = folder.log
        folder.sweep()
        try:
            return _Execution(folder, settings, source, console).run(started)
        except Stopped as stop:
            raise TrainingError(f"{stop}; gridsight resume {folder.path} goes on from there") from None
        except OSError as error:
            what = f"{error.strerror or error} ({error.filename or folder.path})"
            raise TrainingError(f"{what}; once that is mended, gridsight resume {folder.path}") from None
        finally:
            torch.set_num_threads(threads)


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
    if run.data.fingerprint != (folder.read_json(folder.plan) or {}).get("fingerprint"):
        raise UsageError(f"the data have changed since {folder.path} was trained; give DATA to measure on them")
    result = run.measure(part)
    if part in ("auto", "test"):
        folder.write_json(folder.result, stored | {"test_reads": result["test_reads"]})
    return result


class _Execution:
    """One run under way; the methods are its chapters, in order."""

    def __init__(self, folder: RunFolder, settings: TrainSettings, source: Source, console: Console) -> None:
        self.folder, self.settings, self.console = folder, settings, console
        self.device = pick_device(settings.device)
        self.data = cached(source, console, size=settings.size, verify=settings.verify)
        self.phases = Phases(folder, settings, self.data, self.device, console)
        self._refuse_bad()

    def run(self, started: float) -> Run:
        """All chapters; the finished run."""
        settings, data, console = self.settings, self.data, self.console
        parts = self._split()
        if settings.patience and not len(parts.val):
            console.warn("--patience has no effect without validation data")
        counts = {name: tuple(self.phases.counts(index)) for name, index in parts.named()}
        data = self.data = self.phases.data = replace(data, spec=replace(data.spec, counts=counts, split=parts.words))
        describe_data(data.spec, parts, data, console)
        duplicates = self._duplicates(parts)
        self.plan = make_plan(settings, data, parts.train, console)
        stored = self.folder.read_json(self.folder.plan)
        if stored is not None and stored["fingerprint"] == data.fingerprint:
            # the statistics as they were measured first: another machine may sum them to other last bits
            self.plan = replace(self.plan, front=FrontEndSettings.from_dict(stored["front"]))
        threads = stored["threads"] if stored else None
        found = describe_plan(self.plan, data, len(parts.train), 1 + settings.folds, threads, console)
        self._keep_plan(found, stored)
        if settings.check:
            self._check(parts)
        console.say()
        if settings.folds:
            answers, calibration = self._cross_validate(parts)
            final = self.phases.fit(self.plan, "final network", 0, parts.train, np.empty(0, np.int64))
        else:
            final = self.phases.fit(self.plan, "training", 0, parts.train, parts.val)
            calibration = self._calibrate(final, parts)
            answers = self.phases.predict(self.plan, final, parts.test)
        model = self._model(final, calibration)
        result = self._judge(answers, calibration, parts, started, self.folder.predictions) | duplicates
        save_model(self.folder.model, replace(model, metrics=result["metrics"]))
        self.folder.write_json(self.folder.result, result)
        self.folder.resume.unlink(missing_ok=True)
        console.emit(summary(result))
        if settings.report:
            write_report(self.folder)
        say_result(result, self.folder.path, console)
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
        loader = Loader(self.data.x, self.data.y, index, EVALUATION)
        logits, _ = predict_logits(predictor.net, predictor.front, loader, predictor.device)
        words = parts.words if part in ("auto", "test") else f"the {part} part of the data"
        return self._judge(
            Answers(index, logits.numpy()), predictor.model.calibration, replace(parts, words=words), started, None
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
        if settings.folds:
            none = np.empty(0, np.int64)
            return Split(np.arange(len(data)), none, none, f"{settings.folds} folds, each tested once")
        groups = data.groups if data.spec.group else None
        published = data.splits if any(data.splits) else None
        return split(self.phases.names(np.arange(len(data))), groups, published, settings.seed)

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
                f"near-duplicates lie in different parts of the split: {len(across):,} of them "
                f"(first: {data.paths[a]} and {data.paths[b]}); gridsight check {self.settings.data} lists them"
            )
        return {
            "duplicates": [
                {"a": data.paths[a], "b": data.paths[b], "splits": f"{where[a]} / {where[b]}"} for a, b in across[:100]
            ],
            "duplicates_count": len(across),
        }

    def _keep_plan(self, plan: Mapping[str, Any], stored: Mapping[str, Any] | None) -> None:
        """Write plan.json once; a resumed run must find the same data and the same plan."""
        fresh = plain(plan)
        if stored is None:
            self.folder.write_json(self.folder.environment, environment(self.device))
            self.folder.write_json(self.folder.plan, fresh)
            return
        if stored["fingerprint"] != fresh["fingerprint"]:
            raise UsageError(
                f"the data have changed since {self.folder.path} was started; start a new run, or restore them"
            )
        timed = {"seconds_expected", "memory_expected"}
        if any(stored.get(key) != value for key, value in fresh.items() if key not in timed):
            raise UsageError(f"{self.folder.plan} was made by another version of gridsight; start a new run")
        before, now = self.folder.read_json(self.folder.environment) or {}, environment(self.device)
        changed = [f"{name} {before.get(name)} -> {now[name]}" for name in EXACT if before.get(name) != now[name]]
        if changed:
            self.console.warn(f"this machine differs ({', '.join(changed)}): the last bits of the weights may too")

    def _check(self, parts: Split) -> None:
        learned, share = overfits(self.phases.trainer(self.plan, "check", 0, parts.train, parts.val, None))
        if not learned:
            raise TrainingError(
                f"the network learned only {share:.0%} of one batch by heart; look at the labels (gridsight check "
                f"{self.settings.data}), or take another --model"
            )
        self.console.say(f"check    one batch learned by heart ({share:.0%})")

    def _cross_validate(self, parts: Split) -> tuple["Answers", Calibration]:
        """Out-of-fold answers for every item, pooled, and the calibration that they give.

        The answers are judged with temperatures that each fold takes from the others'; the model keeps that of all.
        """
        y = self.data.y
        answered = self.phases.out_of_fold(self.plan, parts.train, self.settings.folds, "fold")
        pooled = pool(answered)
        temperatures = []
        for k, answers in enumerate(answered):
            others = pool([part for other, part in enumerate(answered) if other != k])
            temperatures.append(np.full(len(answers.index), fit_temperature(others.logits, y[others.index])))
        calibration = fit_calibration(pooled.logits, y[pooled.index], self.settings.coverage)
        return replace(pooled, temperatures=np.concatenate(temperatures)), calibration

    def _calibrate(self, state: Mapping[str, torch.Tensor], parts: Split) -> Calibration:
        """From validation data; without any, from out-of-fold answers where these cost little; else not at all."""
        if len(parts.val):
            answers = self.phases.predict(self.plan, state, parts.val)
        else:
            smallest = min(self.phases.counts(parts.train))
            plan = self.folder.read_json(self.folder.plan)
            epochs = max(1, self.plan.recipe.epochs // SHORT)
            short = replace(self.plan, recipe=replace(self.plan.recipe, epochs=epochs))
            # three folds of two thirds of the items, forward and twice backward
            work = 3 * 2 / 3 * 3 * plan["macs"] * len(parts.train) * epochs
            if smallest < 3 or work > OUT_OF_FOLD:
                return Calibration()
            self.console.say("calibration by three short folds of the training data")
            try:
                answers = pool(self.phases.out_of_fold(short, parts.train, 3, "calibration"))
            except (DataError, UsageError) as error:  # too few items or groups a class for three folds
                self.console.say(f"no calibration: {error}")
                return Calibration()
        return fit_calibration(answers.logits, self.data.y[answers.index], self.settings.coverage)

    def _model(self, state: Mapping[str, torch.Tensor], calibration: Calibration) -> Model:
        plan, data = self.plan, self.data
        net = self.phases.network(self.plan, state).cpu()
        return Model(
            plan.recipe.model,
            arguments(plan.recipe, plan.spatial),
            plan.recipe.ndim,
            plan.in_channels,
            net,
            plan.front,
            replace(data.spec, name="", notes=(), split=""),
            calibration=calibration,
            fingerprint=data.fingerprint,
        )

    def _judge(
        self, answers: "Answers", calibration: Calibration, parts: Split, started: float, file: Path | None
    ) -> dict[str, Any]:
        data = self.data
        cooled = answers.logits / (
            calibration.temperature if answers.temperatures is None else answers.temperatures[:, None]
        )
        judged = Judged(
            probabilities=softmax(cooled),
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
            "training_seconds": round(self.phases.seconds, 2),
            "split": how if self.settings.folds else parts.words,
            "test_reads": int(before.get("test_reads", 0)) + 1,
        }


def write_report(folder: RunFolder) -> None:
    """report.html of a run."""
    from gridsight.verbs.report import ReportSettings, report

    report(ReportSettings(str(folder.path)), Console(quiet=True))
