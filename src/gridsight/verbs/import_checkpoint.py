"""import: a foreign state dict becomes a model file, with the preprocessing that it was trained with."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from gridsight.core.console import Console, counted
from gridsight.core.errors import UsageError
from gridsight.core.settings import argument, option
from gridsight.models._catalogue import Published, published
from gridsight.verbs import VERBS


@dataclass(frozen=True)
class ImportSettings:
    """Turn a checkpoint of another program into a model file that eval and predict take.

    CHECKPOINT is a state dict (.pth, .pt, .th, .safetensors) of a network that `gridsight models` lists. Only tensors
    are read; a checkpoint that holds anything else is refused. MEAN and STD are of values from 0 to 1. Of a network
    whose published weights are known, size, mean, deviation and class names need not be given.

    examples:
      gridsight import resnet20.th --model resnet20 --size 32 --classes cat dog ... \\
          --mean .485 .456 .406 --std .229 .224 .225
      gridsight import resnet50-11ad3fa6.pth --model resnet50
      gridsight import net.safetensors --model resnet50 --classes imagenet_classes.txt --size 224
    """

    checkpoint: str = argument("the checkpoint file")
    model: str = option("", "network by name (gridsight models lists them)")
    classes: tuple[str, ...] = option((), "class names in the order of the outputs, or a text file with one a line")
    mean: tuple[float, ...] = option((), "mean a channel, of values from 0 to 1 (default 0)")
    std: tuple[float, ...] = option((), "deviation a channel, of values from 0 to 1 (default 1)")
    size: tuple[int, ...] = option((), "size of the input, one number or one an axis")
    channels: int | None = option(None, "input channels (default: read from the first layer)")
    ndim: int | None = option(None, "1 for signals, 2 for images, 3 for volumes (default: the publisher's)")
    dtype: str = option("uint8", "type of the raw items: uint8, uint16 or float32")
    out: str | None = option(None, "model file to write (default: the checkpoint's name with .model.safetensors)")
    json: bool = option(False, "print one JSON object")


@dataclass(frozen=True)
class Imported:
    """Where the model file is, and how many parameters it has."""

    path: Path
    parameters: int


@VERBS.register("import", settings=ImportSettings)
def import_checkpoint(settings: ImportSettings, console: Console) -> Imported:
    """Build the network, load the tensors, write the model file."""
    from gridsight.models import MODELS, published_input

    path = Path(settings.checkpoint)
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}")
    known = published(settings.model)
    missing = [] if settings.model else ["--model NAME (gridsight models lists them)"]
    missing += [] if settings.size or known else ["--size N (what the network was trained on)"]
    if missing:
        raise UsageError(f"a checkpoint says too little of itself; give {' and '.join(missing)}")
    MODELS.require(settings.model)
    ndim = published_input(settings.model)[0] if settings.ndim is None else settings.ndim
    size = settings.size or (known.spatial if known else ())
    if not settings.size and len(size) not in (1, ndim):
        shown = " ".join(map(str, size))
        raise UsageError(f"{settings.model} takes {ndim} axes, of which {shown} are published; give --size for all")
    if settings.dtype not in ("uint8", "uint16", "float32"):
        raise UsageError(f"--dtype is uint8, uint16 or float32, not {settings.dtype}")

    from gridsight.artifact.model_file import Model, save_model
    from gridsight.data.spec import DataSpec
    from gridsight.models import create
    from gridsight.nn.frontend import FrontEndSettings
    from gridsight.nn.nd import Nd
    from gridsight.nn.weights import load_state, matched, refuse_others
    from gridsight.verbs._start import sizes_of

    state = load_state(path)
    spatial = Nd(ndim).each(size[0] if len(size) == 1 else size)
    entry = MODELS.get(settings.model)
    state = matched(state, entry.item.renames)
    channels, outputs = sizes_of(settings.model, ndim, state, path)
    channels = settings.channels or channels
    if known is not None and (channels, outputs) != (len(known.mean), known.classes):
        known = None  # trained on other data than what was published
    classes = _classes(settings.classes) or (known.names if known else ()) or tuple(map(str, range(outputs)))
    arguments = {"spatial": spatial} if MODELS.accepts(settings.model, "spatial") else {}
    net = create(settings.model, ndim=ndim, in_channels=channels, num_classes=outputs, **arguments)
    state = net.fit_state(state)
    refuse_others(net, state, settings.model, path)
    if len(classes) != outputs:
        raise UsageError(f"--classes has {counted(len(classes), 'name')}, the checkpoint answers {outputs:,}")
    net.load_state_dict(net.state_dict() | state)
    mean = _each(settings.mean or (known.mean if known else ()), channels, 0.0, "mean")
    std = _each(settings.std or (known.std if known else ()), channels, 1.0, "std")
    if min(std) <= 0:
        raise UsageError(f"--std must be above 0, not {settings.std}")
    spec = DataSpec(
        name=path.stem,
        kind={1: "series", 2: "image", 3: "volume"}[ndim],  # type: ignore[arg-type]
        ndim=ndim,
        channels=channels,
        spatial=spatial,
        dtype=settings.dtype,
        classes=classes,
        fit="crop" if ndim > 1 else "exact",
    )
    if spec.full_scale > 1:  # floats have any scale
        _refuse_unscaled(settings, spec.full_scale)
    if known:
        _say_published(known, settings, spatial, console)
    out = Path(settings.out) if settings.out else path.with_name(f"{path.stem}.model.safetensors")
    front = FrontEndSettings(spec.full_scale, mean, std)
    save_model(out, Model(settings.model, arguments, ndim, channels, net.eval(), front, spec))
    parameters = sum(p.numel() for p in net.parameters())
    console.say(f"{out}: {settings.model}, {parameters:,} parameters, {len(classes)} classes")
    console.say(f"next: gridsight eval {out} DATA   or   gridsight predict {out} FILE ...")
    console.emit({"model": str(out), "parameters": parameters, "classes": list(classes)})
    return Imported(out, parameters)


def _say_published(known: Published, settings: ImportSettings, spatial: tuple[int, ...], console: Console) -> None:
    """What is taken from the publisher, and where our preparation of pictures differs from the publisher's."""
    from gridsight.nn.blocks import times

    given = {"mean (--mean)": settings.mean, "deviation (--std)": settings.std}
    if taken := [name for name, values in given.items() if not values]:
        console.say(f"{' and '.join(taken)} of the channels: taken from {known.weights} of {known.source}")
    if known.resize != (min(known.spatial),):
        side = "the shorter side" if len(known.resize) == 1 else "pictures"
        console.say(
            f"the publisher brings {side} to {times(known.resize)} and cuts out the middle {times(known.spatial)}; "
            f"here the largest middle part with the aspect of {times(spatial)} is brought to that size, so accuracy "
            f"may differ a little from the published {known.top1:.2f} %"
        )


def _refuse_unscaled(settings: ImportSettings, full_scale: float) -> None:
    for name, values in (("mean", settings.mean), ("std", settings.std)):
        if max(values, default=0) > 1:
            said = " ".join(f"{value:g}" for value in values)
            raise UsageError(f"--{name} {said} is not of values from 0 to 1: divide by {full_scale:,.0f}")


def _classes(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(words) == 1 and Path(words[0]).is_file():
        lines = Path(words[0]).read_text(encoding="utf-8").splitlines()
        words = tuple(line.strip() for line in lines if line.strip())
    if len(set(words)) < len(words):
        raise UsageError("--classes names a class twice")
    return words


def _each(values: tuple[float, ...], channels: int, default: float, name: str) -> tuple[float, ...]:
    if not all(map(isfinite, values)):
        raise UsageError(f"--{name} must be finite, not {values}")
    if not values:
        return (default,) * channels
    if len(values) == 1:
        return values * channels
    if len(values) != channels:
        raise UsageError(f"--{name} has {len(values)} values where the network takes {channels} channels")
    return values
