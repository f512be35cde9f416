"""Trained weights that a run starts from: published ones (`--pretrained`) or a file (`--weights FILE`).

A file is a state dict of the network that `--model` names, under our keys or the publisher's, or a model file of
Gridsight. With the weights come the mean and deviation that pictures had when they were trained, and the size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsight.core.console import Console, tuples
from gridsight.core.errors import UsageError, nearest
from gridsight.core.run import RunFolder
from gridsight.data.cache import cache_folder
from gridsight.data.download import Remote, fetch, sha256
from gridsight.models import MODELS, create, default_of, published_input
from gridsight.models._catalogue import Published, all_published, published

if TYPE_CHECKING:
    from gridsight.nn.net import Net
    from gridsight.nn.transfer import Trained
    from gridsight.verbs.train import TrainSettings

USUAL = "resnet18"
"""The network of `--pretrained` without `--model`."""
LEAST = 96
"""Smaller pictures are enlarged to this: published networks shrink theirs by 32, and one cell is too few."""


@dataclass(frozen=True)
class Start:
    """Where the weights are and what they are of; `side` bounds the shorter side of pictures, None leaves it open.

    `mean` and `std` a channel of values from 0 to 1 are () where the file does not say them.
    """

    path: str
    sha256: str
    origin: str
    model: str
    ndim: int
    in_channels: int
    num_classes: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    side: int | None = None

    @property
    def sides(self) -> tuple[int, int] | None:
        """The least and the most cells of the shorter side of pictures."""
        return None if self.side is None else (min(LEAST, self.side), self.side)

    def trained(self) -> "Trained":
        """The weights, under our keys; a file that has changed since is a `UsageError`."""
        import torch

        from gridsight.nn.transfer import Trained

        path = Path(self.path)
        if not path.is_file():
            raise UsageError(f"the file of weights that this run starts from is gone: {path}; put it back")
        if sha256(path) != self.sha256:
            raise UsageError(f"{path} is not the file that this run starts from (SHA-256 {self.sha256[:12]}...)")
        with torch.device("meta"):  # only its keys and shapes are asked for
            net = build(self, self.ndim, self.in_channels, self.num_classes)
        return Trained(_state(path, net, self.model), self.ndim, self.in_channels, self.num_classes)

    def refuse_axes(self, ndim: int) -> None:
        """Weights that cannot go to another number of axes are a `UsageError` with the reason."""
        reason = MODELS.get(self.model).tags.get("not_inflated")
        reason = reason.get(ndim) if isinstance(reason, Mapping) else reason
        if reason is None and MODELS.accepts(self.model, "spatial"):
            reason = "its layers fit one size"
        if ndim != self.ndim and reason is not None:
            raise UsageError(f"weights of {self.model} for {self.ndim} axes do not become those for {ndim}: {reason}")

    def into(self, target: "Net", ndim: int, in_channels: int, num_classes: int, arguments: Mapping[str, Any]) -> "Net":
        """`target`, built with these, with the weights in all but its head."""
        from gridsight.nn.transfer import transfer

        return transfer(partial(_build, self.model, arguments), self.trained(), target, ndim, in_channels, num_classes)


def build(start: Start, ndim: int, in_channels: int, num_classes: int) -> "Net":
    """The network that the weights are of."""
    return _build(start.model, start.arguments, ndim, in_channels, num_classes)


def _build(model: str, arguments: Mapping[str, Any], ndim: int, in_channels: int, num_classes: int) -> "Net":
    net: Net = create(model, ndim=ndim, in_channels=in_channels, num_classes=num_classes, **arguments)
    return net


def find_start(folder: RunFolder, settings: "TrainSettings", console: Console) -> Start | None:
    """What the settings ask to start from, downloaded where it is not here yet; None: random weights.

    A run that has a plan keeps to what that says.
    """
    stored = folder.read_json(folder.plan)
    if stored is not None and stored.get("start") is not None:
        return Start(**{name: tuples(value) for name, value in stored["start"].items()})
    if settings.weights is not None:
        found = _from_file(Path(settings.weights), settings.model)
    elif settings.pretrained:
        found = _from_publisher(settings.model, settings.offline, console)
    else:
        return None
    found.trained()  # what cannot be used is refused before anything is decoded
    return found


def _from_publisher(model: str, offline: bool, console: Console) -> Start:
    found = published(USUAL if model == "auto" else model)
    if found is None:
        known = [each.name for each in all_published()]
        raise UsageError(f"no weights of {model} are published that we know of; {nearest(model, known)}")
    path = fetch(Remote(found.url, found.size, found.sha256), cache_folder() / "weights", console, offline)
    return Start(
        path=str(path),
        sha256=sha256(path),
        origin=_words(found),
        model=found.name,
        ndim=published_input(found.name)[0],
        in_channels=len(found.mean),
        num_classes=found.classes,
        mean=found.mean,
        std=found.std,
        side=min(found.spatial),
    )


def _words(found: Published) -> str:
    stated = f"{found.top1:.2f} % of {found.data} as published"
    return f"{found.weights} of {found.source} ({stated}{'' if found.tried else ', untried by us'}; {found.licence})"


def _from_file(path: Path, model: str) -> Start:
    from gridsight.nn.weights import load_state, matched

    if not path.is_file():
        raise UsageError(f"there is no file of weights {path}")
    if (own := _of_gridsight(path)) is not None:
        return _from_model_file(path, own, model)
    if model == "auto":
        raise UsageError(f"{path} does not say what network it is of; give --model NAME (gridsight models lists them)")
    ndim, _, _ = published_input(model)
    state = matched(load_state(path), MODELS.get(model).item.renames)
    channels, classes = sizes_of(model, ndim, state, path)
    known = published(model)
    if known is not None and len(known.mean) != channels:
        known = None
    return Start(
        path=str(path.resolve()),
        sha256=sha256(path),
        origin=str(path),
        model=model,
        ndim=ndim,
        in_channels=channels,
        num_classes=classes,
        mean=known.mean if known else (),
        std=known.std if known else (),
        side=min(known.spatial) if known else None,
    )


def _from_model_file(path: Path, metadata: Mapping[str, Any], model: str) -> Start:
    from gridsight.artifact.model_file import load_model

    if model not in ("auto", metadata["architecture"]):
        raise UsageError(f"{path} is a {metadata['architecture']}, not a {model}; leave out --model")
    found = load_model(path)
    side = min(found.spec.spatial) if found.spec.kind == "image" else None
    classes = found.make_task().num_outputs
    whole = found.front.mel is None
    return Start(
        path=str(path.resolve()),
        sha256=sha256(path),
        origin=str(path),
        model=found.architecture,
        ndim=found.ndim,
        in_channels=found.in_channels,
        num_classes=classes,
        arguments=dict(found.arguments),
        mean=found.front.mean if whole else (),
        std=found.front.std if whole else (),
        side=side,
    )


def _of_gridsight(path: Path) -> Mapping[str, Any] | None:
    """The metadata of a model file, None for a file of another program."""
    from gridsight.core.errors import TrainingError
    from gridsight.training.snapshot import load_tensors

    with path.open("rb") as file:
        if file.read(9)[8:] != b"{":
            return None
    try:
        metadata = load_tensors(path)[1]
    except TrainingError:
        return None
    return metadata if "architecture" in metadata else None


def sizes_of(model: str, ndim: int, state: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Input channels and classes of the network that `state` belongs to, from the shapes that depend on them."""
    import torch

    channels, classes = default_of(model, "in_channels"), default_of(model, "num_classes")
    # from two channels on: for a single one some networks leave a layer out
    with torch.device("meta"):
        few, many = (_build(model, {}, ndim, channels + n, classes + n).state_dict() for n in (1, 2))

    def size(axis: int, smaller: int) -> int:
        keys = [key for key, value in few.items() if value.dim() > axis and many[key].shape[axis] > value.shape[axis]]
        key = next((key for key in keys if key in state and state[key].dim() > axis), None)
        if key is None:
            raise UsageError(
                f"{path} is not a checkpoint of {model}: it has none of {', '.join(keys[:3])}, "
                f"but {', '.join(list(state)[:3])}"
            )
        # a grouped or folded layer has a multiple of what it is given
        each = many[key].shape[axis] - few[key].shape[axis]
        return smaller + int(state[key].shape[axis] - few[key].shape[axis]) // each

    return size(1, channels + 1), size(0, classes + 1)


def _state(path: Path, net: "Net", name: str) -> Mapping[str, Any]:
    """The tensors of a file under the keys of `net`, all there and of its shapes."""
    from gridsight.nn.weights import load_state, matched, refuse_impossible, refuse_others
    from gridsight.training.snapshot import load_tensors

    if (own := _of_gridsight(path)) is not None:
        tensors = load_tensors(path)[0]
        state = {key: value for key, value in tensors.items() if not key.startswith(("test.", "novelty."))}
        refuse_impossible(state, path)
        name = own["architecture"]
    else:
        state = net.fit_state(matched(load_state(path), net.renames))
    refuse_others(net, state, name, path)
    return state
