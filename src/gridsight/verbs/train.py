"""train: from a path or a name to a model, its figures with intervals, and a report."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gridsight.core.console import Console
from gridsight.core.errors import GridsightError, UsageError
from gridsight.core.run import RunFolder, atomic_write
from gridsight.core.settings import argument, option, to_toml
from gridsight.verbs import VERBS

if TYPE_CHECKING:
    from gridsight.verbs._run import Run


@dataclass(frozen=True)
class TrainSettings:
    """Train a model on DATA and say how good it is, with n and an interval.

    DATA is a name (digits, mnist, fsdd, GunPoint, ...) or a path: a folder with one folder a class, with or without
    train/val/test folders on top; a zip of that; .npz or .npy arrays; IDX; CIFAR's binary archive; wav or flac; .ts.

    examples:
      gridsight train digits
      gridsight train photos/ --out runs/photos --epochs 30
      gridsight train recordings.zip --pattern "{label}_{speaker}_{index}.wav" --group speaker
      gridsight train arrays.npz --axes NCL --folds 5
      gridsight train photos/ --model resnet18 --optimizer adamw --lr 1e-3
      gridsight train --settings runs/photos/settings.toml --seed 1
    """

    data: str = argument("a path or the name of a data set")
    out: str | None = option(None, "run folder to make (default runs/DATA-N)", metavar="DIR")
    seed: int = option(0, "every random choice follows from it")
    model: str = option("auto", "network by name (gridsight models lists them); auto chooses by the data")
    epochs: int | None = option(None, "passes over the training data")
    batch: int | None = option(None, "items a step")
    lr: float | None = option(None, "largest learning rate")
    optimizer: Literal["auto", "sgd", "adamw"] = option("auto", "sgd is with Nesterov momentum")
    schedule: Literal["auto", "onecycle", "cosine", "step", "constant"] = option("auto", "course of the learning rate")
    warmup: float | None = option(None, "share of the steps over which the learning rate rises")
    weight_decay: float | None = option(None, "decay of convolution and linear weights (norms and biases: none)")
    label_smoothing: float | None = option(None, "share of the target spread over all classes")
    class_weights: bool = option(False, "weigh every class the same in the loss, however rare")
    augment: tuple[str, ...] = option(("auto",), "auto, none, or operations with strengths such as shift=0.1 flip")
    average: float | None = option(None, "decay a step of the average of the weights; 0 uses the last weights")
    clip: float | None = option(None, "largest norm of the gradient; 0 for none")
    accumulate: int = option(1, "parts that a batch is computed in, to save memory")
    patience: int = option(0, "stop after so many evaluations without a better one, and keep the best; 0 never")
    folds: int = option(0, "cross-validate over so many folds and pool what they predict; 0 for one split", metavar="K")
    group: str | None = option(None, "column that must not be split (speaker, patient, ...)", metavar="NAME")
    pattern: str | None = option(None, 'fields of a file name, such as "{label}_{speaker}_{index}.wav"')
    axes: str | None = option(None, "order of array axes, such as NHWC or NCL, where the guess is wrong")
    size: int | None = option(None, "shorter side of pictures and volumes; samples of sounds and series")
    workers: int | None = option(None, "threads that read ahead; the result is the same for any number")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...", metavar="NAME")
    coverage: float = option(0.95, "share of validation items that is to be answered; the rest is 'unsure'")
    check: bool = option(False, "first make sure that the network can learn one batch by heart")
    accept_bad: bool = option(False, "go on although more than 1 % of the files cannot be read")
    verify: bool = option(False, "hash every file whole, not only its ends, to notice changed data")
    save_every: float = option(20.0, "seconds between snapshots that resume can start from")
    report: bool = option(True, "write report.html at the end")
    json: bool = option(False, "print the result as one JSON object")


@VERBS.register("train", settings=TrainSettings)
def train(settings: TrainSettings, console: Console) -> "Run":
    """Make a run folder and train in it; the finished run."""
    from gridsight.data.augment import AUGMENTS
    from gridsight.data.source import find
    from gridsight.models import MODELS

    _check(settings)
    for word in settings.augment:
        if word not in ("auto", "none"):
            AUGMENTS.require(word.partition("=")[0])
    if settings.model != "auto":
        MODELS.require(settings.model)
    source = find(settings.data, pattern=settings.pattern, group=settings.group, axes=settings.axes)
    folder = RunFolder.create(settings.out, source.name)
    if Path(settings.data).exists():
        # so that resume and eval find the data from any folder
        settings = replace(settings, data=str(Path(settings.data).resolve()))
    atomic_write(folder.settings, to_toml(settings))

    from gridsight.verbs._run import execute

    try:
        return execute(folder, settings, source, console)
    except GridsightError:
        if not folder.plan.exists():  # nothing was begun that could be resumed
            folder.discard()
        raise


def _check(settings: TrainSettings) -> None:
    """Refuse values that no run could use, before anything is read."""
    for name, low in (("epochs", 1), ("batch", 1), ("accumulate", 1), ("size", 1), ("patience", 0), ("workers", 0)):
        value = getattr(settings, name)
        if value is not None and value < low:
            raise UsageError(f"--{name} must be at least {low}, not {value}")
    for name in ("weight_decay", "clip"):
        value = getattr(settings, name)
        if value is not None and value < 0:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 0, not {value}")
    for name in ("lr", "save_every"):
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {value}")
    for name in ("warmup", "label_smoothing", "average", "coverage"):
        value = getattr(settings, name)
        if value is not None and not 0 <= value <= (1 if name == "coverage" else 0.9999):
            raise UsageError(f"--{name.replace('_', '-')} must lie between 0 and 1, not {value}")
    if settings.folds == 1 or settings.folds < 0:
        raise UsageError(f"--folds takes at least 2, not {settings.folds}; leave it out for one split")
