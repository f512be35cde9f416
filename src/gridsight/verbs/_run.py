"""A run from its settings to its result: decode, split, plan, train in phases, judge, write.

Every phase (a fold, then the final network) leaves a file when it ends, so that `resume` starts at the first unfinished
one; inside a phase the snapshot does. No clock decides what is computed, except under --minutes. Several processes
(`core.ranks`) go through it side by side; what one of them measured or found counts for all.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gridsight.artifact.model_file import Model, save_model
from gridsight.artifact.predictor import Predictor, load
from gridsight.core.allocator import keep_memory
from gridsight.core.console import Console
from gridsight.core.device import EXACT, environment, pick_device
from gridsight.core.errors import DataError, TrainingError, UsageError
from gridsight.core.ranks import Ended, Ranks
from gridsight.core.run import RunFolder
from gridsight.data.source import Source, asked, find
from gridsight.data.split import Split
from gridsight.measure.calibration import Calibration
from gridsight.measure.cost import cost
from gridsight.nn.frontend import FrontEndSettings
from gridsight.nn.memory import free_memory, parts_that_fit
from gridsight.training.budget import recipe_from
from gridsight.training.overfit import overfits
from gridsight.training.stopping import Stopped
from gridsight.verbs._budget import plan_in_time
from gridsight.verbs._data import decoded, describe_data, parts_of
from gridsight.verbs._duplicates import duplicates_across
from gridsight.verbs._gallery import keep_gallery
from gridsight.verbs._judge import Judged, Kept, judge, say_result
from gridsight.verbs._machine import measure, use_threads
from gridsight.verbs._novelty import learn_known
from gridsight.verbs._phases import EVALUATION, Answers, Phases, pool
from gridsight.verbs._plan import Known, Plan, arguments, describe_plan, make_plan, plain
from gridsight.verbs._start import find_start
from gridsight.verbs.train import TrainSettings

BAD_SHARE = 0.01
"""More unreadable items than this share stop a run unless the user accepts them."""


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


def execute(
    folder: RunFolder, settings: TrainSettings, source: Source, console: Console, ranks: Ranks | None = None
) -> Run:
    """Train (or go on training) in a run folder; raises after saving when stopped or when the data cannot be used."""
    started, threads = time.monotonic(), torch.get_num_threads()
    ranks = ranks or Ranks()
    with ExitStack() as held:

        def claim() -> None:
            held.enter_context(folder.lock())
            console.log = folder.log
            folder.sweep()

        ranks.from_first(claim)
        try:
            return _Execution(folder, settings, source, console, ranks).run(started)
        except Stopped as stop:
            raise TrainingError(f"{stop}; gridsight resume {folder.path} goes on from there") from None
        except Ended as end:
            raise TrainingError(f"{end}; {folder.remedy}") from None
        except OSError as error:
            what = f"{error.strerror or error} ({error.filename or folder.path})"
            raise TrainingError(f"{what}; once that is mended, {folder.remedy}") from None
        finally:
            torch.set_num_threads(threads)


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of result.json that `--json` prints."""
    return {key: result[key] for key in ("task", "n", "skipped", "metrics", "run", "model", "seconds")}


def reevaluate(folder: RunFolder, settings: TrainSettings, part: str, device: str, console: Console) -> dict[str, Any]:
    """The figures of a finished run's model on a part of its own data; a reading of the test part is counted."""
    source = find(settings.data, **asked(settings))
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

    def __init__(
        self,
        folder: RunFolder,
        settings: TrainSettings,
        source: Source,
        console: Console,
        ranks: Ranks | None = None,
    ) -> None:
        self.folder, self.settings, self.console = folder, settings, console
        self.ranks, self.threads = ranks or Ranks(), torch.get_num_threads()
        self.device = pick_device(settings.device)
        self.start = self.ranks.first_then_all(lambda: find_start(folder, settings, console))
        self.data = self.ranks.first_then_all(lambda: decoded(source, settings, self.start, console))
        self.phases = Phases(folder, settings, self.data, self.device, console, self.ranks)
        self._refuse_bad()
        self.phases.refuse_settings()

    def run(self, started: float) -> Run:
        """All chapters; the finished run."""
        settings, data, console, ranks = self.settings, self.data, self.console, self.ranks
        keep_memory()  # before anything is timed
        parts = self._split()
        if settings.patience and not len(parts.val):
            console.warn("--patience has no effect without validation data")
        counts = {name: tuple(self.phases.counts(index)) for name, index in parts.named()}
        data = self.data = self.phases.data = replace(data, spec=replace(data.spec, counts=counts, split=parts.words))
        describe_data(data.spec, parts, data, console)
        duplicates = ranks.from_first(lambda: duplicates_across(self.data, parts, self.settings, self.console))
        self.plan = make_plan(settings, data, parts.train, console, self.start)
        stored = ranks.from_first(lambda: self.folder.read_json(self.folder.plan))
        if stored is not None and stored["fingerprint"] == data.fingerprint:
            # the statistics as they were measured first: another machine may sum them to other last bits
            self.plan = replace(
                self.plan,
                front=FrontEndSettings.from_dict(stored["front"]),
                recipe=replace(self.plan.recipe, precision=stored["recipe"]["precision"]),
            )
        if settings.minutes is not None:
            self.plan = self._in_time(started, parts, stored)
        known = self._know_machine(stored)
        self.plan = ranks.from_first(lambda: self.plan)
        folds = None
        if not (len(parts.val) or settings.folds):
            folds = self.phases.short(self.plan, parts.train, known.cost.macs)
        found = describe_plan(self.plan, data, len(parts.train), 1 + settings.folds, known, console, folds)
        ranks.from_first(lambda: self._keep_plan(found, stored))
        self.task = self.phases.task(self.plan, parts.train)
        if settings.check:
            self._check(parts)
        console.say()
        if settings.folds:
            judged, calibration = self._cross_validate(parts)
            final = self.phases.fit(self.plan, "final network", 0, parts.train, np.empty(0, np.int64))
        else:
            final = self.phases.fit(self.plan, "training", 0, parts.train, parts.val)
            calibration = self._calibrate(final, parts)
            judged = self._judged(self.phases.predict(self.plan, final, parts.test), calibration)
        result = ranks.from_first(lambda: self._finish(final, judged, calibration, parts, started, duplicates))
        return Run(self.folder.path, result)

    def _finish(
        self,
        final: Mapping[str, torch.Tensor],
        judged: Judged,
        calibration: Calibration,
        parts: Split,
        started: float,
        duplicates: dict[str, Any],
    ) -> dict[str, Any]:
        """The model file, the figures and the report, of which the first process alone takes care; result.json."""
        known = learn_known(self.phases, self.plan, final, parts)
        model = replace(self._model(final, calibration, parts.train), novelty=known)
        result = self._judge(judged, calibration, parts, started, self.folder.predictions) | duplicates
        save_model(self.folder.model, replace(model, metrics=result["metrics"]))
        self.folder.write_json(self.folder.result, result)
        self.folder.resume.unlink(missing_ok=True)
        self.console.emit(summary(result))
        if self.settings.report:
            if not self.settings.folds:  # whose final network has seen every item
                keep_gallery(self.folder, self.console)
            write_report(self.folder)
        say_result(result, self.task, self.folder.path, self.console)
        return result

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
        if not len(index):
            raise UsageError(f"there is no {part} part to measure in {self.folder.path} ({parts.words})")
        predictor = load(self.folder.path, self.settings.device, folded=False)  # the figures must be those of training
        batches = np.array_split(index, max(1, -(-len(index) // EVALUATION)))
        outputs = np.concatenate([predictor.outputs([self.data.x[int(i)] for i in part]) for part in batches])
        self.task, calibration = predictor.task, predictor.model.calibration
        words = parts.words if part in ("auto", "test") else f"the {part} part of the data"
        judged = self._judged(Answers(index, outputs), calibration)
        result = self._judge(judged, calibration, replace(parts, words=words), started, None)
        return result if part in ("auto", "test") else result | {"test_reads": 0}

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
        return parts_of(self.data, self.settings)

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
            # a batch norm of another number of processes sees other shares of a batch
            more = "" if before.get("processes") == now["processes"] else ", and with batch norms more than these"
            self.console.warn(
                f"this machine differs ({', '.join(changed)}): the last bits of the weights may too{more}"
            )

    def _in_time(self, started: float, parts: Split, stored: Mapping[str, Any] | None) -> Plan:
        """The plan that makes the most of --minutes; of a resumed run the one that was made then."""
        if stored is not None:
            times = {"seconds": stored["seconds"], "expected": stored["seconds_expected"]}
            return replace(self.plan, recipe=recipe_from(stored["recipe"]), **times)
        assert self.settings.minutes is not None
        left = 60 * self.settings.minutes - (time.monotonic() - started)
        return plan_in_time(self.plan, self.data, parts, left, self.settings, self.device, self.console)

    def _know_machine(self, stored: Mapping[str, Any] | None) -> Known:
        """Threads, parts of a batch and speed for the plan; of a resumed run as they were."""
        plan = self.plan
        found = cost(plan.network(plan.seed), (plan.in_channels, *plan.spatial))
        threads = use_threads(found.macs * plan.recipe.batch, self.threads, stored["threads"] if stored else None)
        parts = (
            stored["accumulate"]
            if stored
            else parts_that_fit(found.activation_bytes, plan.recipe.batch, free_memory(self.device), plan.accumulate)
        )
        self.plan = replace(plan, accumulate=parts)
        speed = measure(self.plan, self.data, self.device)
        # a resumed run keeps its parts: where memory runs out all the same, training goes over to more of them
        self.plan = replace(self.plan, accumulate=parts if stored else speed.parts)
        return Known(found, threads, speed, self.device)

    def _check(self, parts: Split) -> None:
        learned, share = overfits(self.phases.trainer(self.plan, "check", 0, parts.train, parts.val, None))
        if not learned:
            what = f"the network learned only {max(share, 0.0):.0%} of one batch by heart"
            raise TrainingError(f"{what}; look at the labels (gridsight check), or take another --model")
        self.console.say(f"check    one batch learned by heart ({share:.0%})")

    def _cross_validate(self, parts: Split) -> tuple[Judged, Calibration]:
        """Out-of-fold answers for every item, pooled, and the calibration that they give.

        The answers are judged with a calibration that each fold takes from the others; the model keeps that of all.
        """
        y = self.data.y
        answered = self.phases.out_of_fold(self.plan, parts.train, self.settings.folds, "fold")
        pooled, task, coverage = pool(answered), self.task, self.settings.coverage
        predicted = []
        for k, answers in enumerate(answered):
            others = pool([part for other, part in enumerate(answered) if other != k])
            fitted = task.calibrate(others.outputs, y[others.index], coverage)
            predicted.append(task.predict(answers.outputs, fitted))
        joined = {name: np.concatenate([part[name] for part in predicted]) for name in predicted[0]}
        return Judged(pooled.index, joined, task.predict(pooled.outputs, Calibration())), task.calibrate(
            pooled.outputs, y[pooled.index], coverage
        )

    def _calibrate(self, state: Mapping[str, torch.Tensor], parts: Split) -> Calibration:
        """From validation data; without any, from out-of-fold answers where these cost little; else not at all."""
        if len(parts.val):
            answers = self.phases.predict(self.plan, state, parts.val)
        else:
            if (
                short := self.phases.short(self.plan, parts.train, self.folder.read_json(self.folder.plan)["macs"])
            ) is None:
                return Calibration()
            self.console.say("calibration by three short folds of the training data")
            try:
                answers = pool(self.phases.out_of_fold(short, parts.train, 3, "calibration"))
            except (DataError, UsageError) as error:  # too few items or groups a class for three folds
                self.console.say(f"no calibration: {error}")
                return Calibration()
        return self.task.calibrate(answers.outputs, self.data.y[answers.index], self.settings.coverage)

    def _model(self, state: Mapping[str, torch.Tensor], calibration: Calibration, train: np.ndarray) -> Model:
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
            task_options=self.phases.task_options(train),
            calibration=calibration,
            fingerprint=data.fingerprint,
        )

    def _pictured(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The raw items numbered `rows` for the report, with their sizes where these differ; of items larger than
        patches their middles."""
        if not len(rows):
            return np.empty((0, self.data.spec.channels, *self.data.spec.spatial)), None
        batch = next(self.plan.loader(self.data, rows, len(rows)).in_order())
        return batch.x.numpy(), None if batch.sizes is None else batch.sizes.numpy()

    def _judged(self, answers: Answers, calibration: Calibration) -> Judged:
        predict = self.task.predict
        return Judged(answers.index, predict(answers.outputs, calibration), predict(answers.outputs, Calibration()))

    def _judge(
        self, judged: Judged, calibration: Calibration, parts: Split, started: float, file: Path | None
    ) -> dict[str, Any]:
        data, index = self.data, judged.index
        groups = [data.groups[i] for i in index] if data.spec.group else None
        kept = Kept(file, [data.paths[i] for i in index], lambda rows: self._pictured(index[rows]))
        how = f"{self.settings.folds} folds, every item predicted by a network that did not see it"
        before = self.folder.read_json(self.folder.result) or {}
        return judge(self.task, judged, data.y[index], groups, calibration, kept) | {
            "task": data.spec.task,
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
