"""train: from a path or a name to a model, its figures with intervals, and a report."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gridsight.core.console import Console
from gridsight.core.errors import GridsightError, UsageError
from gridsight.core.ranks import join
from gridsight.core.run import RunFolder, atomic_write
from gridsight.core.settings import argument, option, to_toml
from gridsight.verbs import VERBS
from gridsight.verbs._arguments import given_arguments

if TYPE_CHECKING:
    from gridsight.verbs._run import Run


@dataclass(frozen=True)
class TrainSettings:
    """Train a model on DATA and say how good it is, with n and an interval.

    DATA is a name (digits, mnist, fsdd, GunPoint, ...) or a path: a folder with one folder a class, with or without
    train/val/test folders on top; a zip or tar of that; a CSV or Parquet table of files with labels, of series or of
    sequences; FASTA; .npz or .npy arrays; IDX; CIFAR's binary archive; wav or flac; .ts; TIFF of any bands; NIfTI;
    DICOM, of which a folder of slices is one volume.

    examples:
      gridsight train digits
      gridsight train photos/ --minutes 10
      gridsight train photos/ --out runs/photos --epochs 30
      gridsight train recordings.zip --pattern "{label}_{speaker}_{index}.wav" --group speaker
      gridsight train labels.csv --target grade --group patient
      gridsight train clips/ --frames
      gridsight train arrays.npz --axes NCL --folds 5
      gridsight train photos/ --model resnet18 --optimizer adamw --lr 1e-3
      gridsight train photos/ --model resnet20 --arguments width=32
      gridsight train photos/ --model resnet50 --pretrained
      gridsight train scans/ --weights runs/photos/model.safetensors
      gridsight train --settings runs/photos/settings.toml --seed 1

    --settings FILE takes the options of another run; those on the command line go before them.
    """

    data: str = argument("a path or the name of a data set")
    out: str | None = option(None, "run folder to make (default runs/DATA-N)", metavar="DIR")
    seed: int = option(0, "every random choice follows from it")
    model: str = option("auto", "network by name (gridsight models lists them); auto chooses by the data")
    arguments: tuple[str, ...] = option((), "arguments of --model, such as width=32", metavar="NAME=VALUE")
    pretrained: bool = option(False, "start from published weights, of resnet18 unless --model names another network")
    weights: str | None = option(None, "start from a file: a state dict of --model, or a model file", metavar="FILE")
    offline: bool = option(False, "download nothing: published weights must be in the cache")
    frozen: int | None = option(None, "with such weights: epochs in which only the new head learns (default a fifth)")
    spread: float | None = option(None, "with such weights: rate of the first stage over the head's (default 0.01)")
    lsuv: bool = option(False, "scale the first weights so that each layer's outputs deviate by 1 on training items")
    minutes: float | None = option(None, "make the best model that this time allows; it chooses width and epochs")
    epochs: float | None = option(None, "passes over the training data, such as 20, or 0.5 for half of one")
    batch: int | None = option(None, "items a step")
    lr: float | None = option(None, "largest learning rate")
    optimizer: Literal["auto", "sgd", "adamw", "muon"] = option(
        "auto", "sgd is with Nesterov momentum; muon is of convolutions, with adamw for the rest"
    )
    schedule: Literal["auto", "onecycle", "cosine", "step", "constant"] = option("auto", "course of the learning rate")
    warmup: float | None = option(None, "share of the steps over which the learning rate rises")
    weight_decay: float | None = option(None, "decay of convolution and linear weights (norms and biases: none)")
    label_smoothing: float | None = option(None, "share of the target spread over all classes")
    class_weights: bool = option(False, "weigh every class the same in the loss, however rare")
    balanced_sampling: bool = option(False, "meet equally many items of each class in an epoch, however rare")
    natural_prior: bool = option(
        False, "after either of these: probabilities for classes as frequent as in the training data"
    )
    augment: tuple[str, ...] = option(("auto",), "auto, none, or operations with strengths such as shift=0.1 flip")
    mixup: float | None = option(None, "blend items in training, by shares from Beta(X, X), such as 0.2; 0 for none")
    average: float | None = option(None, "decay a step of the average of the weights; 0 uses the last weights")
    clip: float | None = option(None, "largest norm of the gradient; 0 for none")
    accumulate: int = option(1, "parts that a batch is computed in, to save memory")
    patience: int = option(0, "stop after so many evaluations without a better one, and keep the best; 0 never")
    folds: int = option(0, "cross-validate over so many folds and pool what they predict; 0 for one split", metavar="K")
    group: str | None = option(None, "column that must not be split (speaker, patient, ...)", metavar="NAME")
    pattern: str | None = option(None, 'fields of a file name, such as "{label}_{speaker}_{index}.wav"')
    target: str | None = option(
        None, "column of a table that holds the labels (default label, class, ...)", metavar="NAME"
    )
    frames: bool = option(False, "each folder of pictures is one clip, its pictures the frames in natural order")
    task: Literal["auto", "classify", "multilabel", "regress", "grade"] = option(
        "auto", "what a label is: one class, several, a number or an ordered grade; auto decides by the labels' column"
    )
    fit: Literal["auto", "crop", "pad", "mask"] = option(
        "auto", "items of many sizes: crop and resize, pad with zeros, or keep their size under a mask"
    )
    patch: int | None = option(
        None, "train on patches of so many cells an axis, at full resolution; the model answers about whole items"
    )
    axes: str | None = option(None, "order of array axes, such as NHWC or NCL, where the guess is wrong")
    size: int | None = option(None, "shorter side of pictures and volumes; samples of sounds and series")
    workers: int | None = option(None, "threads that read ahead; the result is the same for any number")
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "of training; auto is float32, and bfloat16 on GPUs, and under --minutes on CPUs, where that is faster"
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, ...", metavar="NAME")
    coverage: float = option(0.95, "share of validation items that is to be answered; the rest is 'unsure'")
    check: bool = option(False, "first make sure that the network can learn one batch by heart")
    accept_bad: bool = option(False, "go on although more than 1 % of the files cannot be read")
    verify: bool = option(False, "hash every file whole, not only its ends, to notice changed data")
    save_every: float = option(20.0, "seconds between snapshots that resume can start from")
    report: bool = option(True, "write report.html at the end")
    json: bool = option(False, "print the result as one JSON object")


@VERBS.register("train", settings=TrainSettings, processes=True)
def train(settings: TrainSettings, console: Console) -> "Run":
    """Make a run folder and train in it; the finished run."""
    from gridsight.data.augment import AUGMENTS
    from gridsight.data.source import asked, find
    from gridsight.models import MODELS

    _check(settings)
    for word in settings.augment:
        if word not in ("auto", "none"):
            AUGMENTS.require(word.partition("=")[0])
    if settings.model != "auto":
        MODELS.require(settings.model)
    ranks = join()
    if not ranks.first:
        console = Console(quiet=True)
    if settings.batch is not None and settings.batch < ranks.world:
        raise UsageError(
            f"--batch {settings.batch} is too few for {ranks.world} processes, each of which takes one item"
        )
    source = ranks.first_then_all(lambda: find(settings.data, **asked(settings)))
    a_path = ranks.from_first(Path(settings.data).exists)  # asked before the new folder can bear a named set's name
    folder = ranks.from_first(lambda: RunFolder.create(settings.out, source.name))
    if a_path:
        # so that resume and eval find the data from any folder
        settings = replace(settings, data=str(Path(settings.data).resolve()))
    if settings.weights is not None:
        settings = replace(settings, weights=str(Path(settings.weights).resolve()))
    ranks.from_first(lambda: atomic_write(folder.settings, to_toml(replace(settings, out=None))))
    if not folder.settings.exists():
        raise UsageError(f"process {ranks.rank} does not see {folder.path}: all processes must share its file system")

    from gridsight.verbs._run import execute

    try:
        return execute(folder, settings, source, console, ranks)
    except GridsightError:
        if ranks.first and not folder.plan.exists():  # nothing was begun that could be resumed
            folder.discard()
        raise


def _check(settings: TrainSettings) -> None:
    """Refuse values that no run could use, before anything is read."""
    for name, low in (
        ("batch", 1),
        ("accumulate", 1),
        ("size", 1),
        ("patch", 1),
        ("patience", 0),
        ("frozen", 0),
        ("workers", 0),
    ):
        value = getattr(settings, name)
        if value is not None and value < low:
            raise UsageError(f"--{name} must be at least {low}, not {value}")
    for name in ("weight_decay", "clip", "mixup"):
        value = getattr(settings, name)
        if value is not None and value < 0:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 0, not {value}")
    if settings.patch is not None and (settings.size is not None or settings.fit != "auto"):
        raise UsageError("--patch keeps items at their own size; leave out --size and --fit")
    if settings.class_weights and settings.balanced_sampling:
        raise UsageError("--class-weights and --balanced-sampling both balance the classes: together they do it twice")
    if settings.natural_prior and not (settings.class_weights or settings.balanced_sampling):
        raise UsageError("--natural-prior takes back what --class-weights or --balanced-sampling did; give one of them")
    if settings.pretrained and settings.weights is not None:
        raise UsageError("--pretrained takes published weights and --weights a file: give one of the two")
    if settings.arguments and (settings.model == "auto" or settings.pretrained or settings.weights is not None):
        raise UsageError("--arguments are those of --model NAME; networks that are trained already have theirs")
    for name in given_arguments(settings.arguments).keys() & {"ndim", "in_channels", "num_classes", "spatial"}:
        raise UsageError(f"--arguments {name}: the data say it")
    if settings.lsuv and (settings.pretrained or settings.weights is not None):
        raise UsageError("--lsuv draws the first weights anew; leave it out with --pretrained or --weights")
    for name in ("frozen", "spread", "offline"):
        if getattr(settings, name) not in (None, False) and not settings.pretrained and settings.weights is None:
            raise UsageError(f"--{name} is for a start from trained weights; give --pretrained or --weights FILE too")
    if settings.frozen is not None and settings.epochs is not None and settings.frozen > settings.epochs:
        raise UsageError(f"--frozen {settings.frozen} is more than the --epochs {settings.epochs:g} of the run")
    if settings.spread is not None and not 0 < settings.spread <= 1:
        raise UsageError(f"--spread must be above 0 and at most 1, not {settings.spread}")
    if settings.minutes is not None and settings.epochs is not None:
        raise UsageError("--minutes chooses the epochs; give one of the two")
    for name in ("epochs", "lr", "save_every", "minutes"):
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {value}")
    for name in ("warmup", "label_smoothing", "average", "coverage"):
        value = getattr(settings, name)
        if value is not None and not 0 <= value <= (1 if name == "coverage" else 0.9999):
            raise UsageError(f"--{name.replace('_', '-')} must lie between 0 and 1, not {value}")
    if settings.folds == 1 or settings.folds < 0:
        raise UsageError(f"--folds takes at least 2, not {settings.folds}; leave it out for one split")
