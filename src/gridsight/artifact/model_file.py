"""The model file: one safetensors file that holds all a model is, and nothing that differs between two equal runs.

Tensors: the network's state under its own keys, `test.x` (raw items) and `test.logits` (what the network says of them),
and under `novelty.` what its stages say of the training data.
Metadata: JSON under the one key `gridsight`: format version, architecture and arguments, DataSpec, front end,
calibration, metrics, data fingerprint, versions. Time, date, path and host go to environment.json. No pickle anywhere.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.core.console import tuples
from gridsight.core.errors import UsageError
from gridsight.data.spec import DataSpec
from gridsight.measure.calibration import Calibration
from gridsight.measure.novelty import Novelty
from gridsight.models import create
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.tasks import Task, make_task
from gridsight.training.snapshot import below, load_tensors, save_tensors, under

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Model:
    """A network with all it needs to read a raw item and answer."""

    architecture: str
    arguments: Mapping[str, Any]
    ndim: int
    in_channels: int
    net: nn.Module
    front: FrontEndSettings
    spec: DataSpec
    task_options: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    novelty: Novelty | None = None

    def make_task(self) -> Task:
        """What turns the network's outputs into answers."""
        return make_task(self.spec.task, self.spec.classes, unit=self.spec.unit, **self.task_options)

    def front_end(self) -> FrontEnd:
        """The front end as a layer."""
        return FrontEnd(self.front, self.spec.ndim)


def save_model(path: Path, model: Model) -> None:
    """Write the model with a test vector: two raw items of random numbers and their logits."""
    from gridsight.core import seed as hashing

    shape = (2, model.spec.channels, *model.spec.spatial)
    cells = torch.tensor(shape[1:]).prod()
    noise = hashing.uniform(0, 0, torch.arange(2), "test vector", int(cells)).view(shape)
    dtype = getattr(torch, model.spec.dtype)
    x = (noise * model.spec.full_scale).to(dtype)
    metadata = {
        "format": FORMAT,
        "architecture": model.architecture,
        "arguments": dict(model.arguments),
        "ndim": model.ndim,
        "in_channels": model.in_channels,
        "task": model.spec.task,
        "task_options": dict(model.task_options),
        "spec": model.spec.to_dict(),
        "front": model.front.to_dict(),
        "calibration": asdict(model.calibration),
        "metrics": dict(model.metrics),
        "fingerprint": model.fingerprint,
        "novelty": None,
        "versions": {"gridsight": _version(), "torch": torch.__version__.split("+")[0]},
    }
    tensors = model.net.state_dict() | under("test", {"x": x, "logits": _logits(model, x)})
    if (known := model.novelty) is not None:
        metadata["novelty"] = {
            "scales": known.scales,
            "threshold": known.threshold,
            "from_training": known.from_training,
        }
        for i, (mean, whiten) in enumerate(zip(known.means, known.whitens, strict=True)):
            stage = {"mean": torch.from_numpy(mean), "whiten": torch.from_numpy(whiten)}
            tensors |= under(f"novelty.{i}", stage)
    save_tensors(path, tensors, metadata)


def load_model(path: Path) -> Model:
    """The model that `save_model` wrote; a file of another program or of a newer format is a `UsageError`."""
    if not path.is_file():
        raise UsageError(f"there is no model file {path}")
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none (is it a resume file?)")
        raise UsageError(f"{path} has model format {found}; this gridsight reads {FORMAT}")
    try:
        return _rebuild(tensors, metadata)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is damaged or was written by another version of gridsight ({first})") from None


def _rebuild(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Model:
    spec = DataSpec.from_dict(metadata["spec"])
    net = create(
        metadata["architecture"],
        ndim=metadata["ndim"],
        in_channels=metadata["in_channels"],
        num_classes=make_task(spec.task, spec.classes).num_outputs,
        **tuples(metadata["arguments"]),
    )
    net.load_state_dict({n: value for n, value in tensors.items() if not n.startswith(("test.", "novelty."))})
    return Model(
        metadata["architecture"],
        tuples(metadata["arguments"]),
        metadata["ndim"],
        metadata["in_channels"],
        net.eval(),
        FrontEndSettings.from_dict(metadata["front"]),
        spec,
        metadata.get("task_options", {}),
        Calibration(**tuples(metadata["calibration"])),
        metadata["metrics"],
        metadata["fingerprint"],
        _novelty(tensors, metadata.get("novelty")),
    )


def _novelty(tensors: Mapping[str, Tensor], said: Mapping[str, Any] | None) -> Novelty | None:
    if said is None:
        return None
    stages = range(len(said["scales"]))
    return Novelty(
        tuple(tensors[f"novelty.{i}.mean"].numpy() for i in stages),
        tuple(tensors[f"novelty.{i}.whiten"].numpy() for i in stages),
        tuples(said["scales"]),
        said["threshold"],
        said["from_training"],
    )


def vector_error(path: Path) -> float:
    """Largest difference between the logits stored in a model file and those computed here."""
    tensors, _ = load_tensors(path)
    test = below("test", tensors)
    return float((_logits(load_model(path), test["x"]) - test["logits"]).abs().max())


@torch.no_grad()
def _logits(model: Model, x: Tensor) -> Tensor:
    training = model.net.training
    model.net.eval()
    logits = model.net(model.front_end()(x)).float()
    model.net.train(training)
    return logits


def _version() -> str:
    from importlib.metadata import version

    return version("gridsight")
