"""The predictor: from raw items to calibrated answers; the one path that evaluate, predict, report and serve share.

decode -> conform (size, type, channels) -> front end -> network -> logits / temperature -> softmax.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gridsight.artifact.model_file import Model, load_model
from gridsight.core.device import pick_device
from gridsight.core.errors import GridsightError, ReadError, UsageError
from gridsight.data.conform import conform
from gridsight.data.sample import Sample
from gridsight.measure.calibration import softmax
from gridsight.tasks.classify import Classify

BATCH = 64


class Predictor:
    """Answers of one model: `predict` takes paths, folders and arrays."""

    def __init__(self, model: Model, device: str = "auto") -> None:
        self.model, self.device = model, pick_device(device)
        self.net = model.net.to(self.device).eval()
        self.front = model.front_end().to(self.device)
        self.task = Classify(model.spec.classes)
        self.resized = 0  # items so far of another size than all training items had

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that it chooses among."""
        return self.model.spec.classes

    @torch.no_grad()
    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits (N, K) float32 of conformed items (N, C, *spatial)."""
        return self.net(self.front(torch.from_numpy(x).to(self.device))).float().cpu().numpy()

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (N, K) float64 of conformed items."""
        return softmax(self.logits(x), self.model.calibration.temperature)

    def predict(self, inputs: Any, *, coverage: float | None = None) -> list[dict[str, Any]]:
        """One answer an item: of a path, a folder, an array (one item or a stack), or a list of these.

        `coverage` chooses another `unsure` threshold than the stored one (needs a calibrated model).
        """
        return list(self.answers(read_inputs(inputs, self), coverage=coverage))

    def answers(
        self, samples: Iterable[Sample | ReadError], *, coverage: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Answers in the order of the samples, in batches; what cannot be read gives {"path", "error"}."""
        threshold = self.threshold(coverage)
        waiting: list[dict[str, Any]] = []
        arrays: list[np.ndarray] = []
        for sample in samples:
            if isinstance(sample, Sample):
                spec = self.model.spec
                try:
                    arrays.append(conform(sample, spec))
                    self.resized += spec.fit == "exact" and sample.array.shape[1:] != spec.spatial
                    waiting.append({"path": sample.path})
                except ReadError as error:
                    waiting.append({"path": error.path, "error": error.reason})
            else:
                waiting.append({"path": sample.path, "error": sample.reason})
            if len(waiting) >= BATCH:
                yield from self._answer(waiting, arrays, threshold)
                waiting, arrays = [], []
        yield from self._answer(waiting, arrays, threshold)

    def threshold(self, coverage: float | None) -> float | None:
        """The probability below which an answer is unsure, for the stored coverage or another one."""
        stored = self.model.calibration
        if coverage is None:
            return stored.threshold
        if not 0 < coverage <= 1:
            raise UsageError(f"--coverage is a share above 0 and at most 1, not {coverage}")
        if not stored.calibrated or not stored.quantiles:
            raise UsageError("this model was trained without validation data, so no coverage can be chosen")
        # quantiles[i] is the probability that a share i / (len - 1) of the validation items stays below
        grid = np.linspace(0, 1, len(stored.quantiles))
        return float(np.interp(1 - coverage, grid, stored.quantiles))

    def _answer(
        self, waiting: Sequence[dict[str, Any]], arrays: Sequence[np.ndarray], threshold: float | None
    ) -> Iterator[dict[str, Any]]:
        decoded = iter(self.task.decode(self.probabilities(np.stack(arrays)), threshold) if arrays else [])
        for entry in waiting:
            yield entry if "error" in entry else entry | next(decoded)


def load(path: str | Path, device: str = "auto") -> Predictor:
    """The predictor of a run folder or a model file."""
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not path.exists():
        raise UsageError(f"there is no run or model file at {path}")
    if not file.exists():
        raise UsageError(f"{path} holds no model.safetensors; gridsight resume {path} finishes a run")
    return Predictor(load_model(file), device)


def read_inputs(inputs: Any, predictor: Predictor) -> Iterator[Sample | ReadError]:
    """Samples of whatever `predict` accepts: paths, folders, archives, arrays, lists of these."""
    if isinstance(inputs, str | Path):
        yield from read_path(Path(inputs), predictor)
    elif isinstance(inputs, np.ndarray) or torch.is_tensor(inputs):
        yield from _read_array(np.asarray(inputs), predictor)
    elif isinstance(inputs, Iterable):
        for item in inputs:
            yield from read_inputs(item, predictor)
    else:
        raise UsageError(f"predict takes paths and arrays, not {type(inputs).__name__}")


def read_path(path: Path, predictor: Predictor) -> Iterator[Sample | ReadError]:
    """Every item of a file, folder or archive; a file of an unknown format gives a `ReadError`."""
    from gridsight.data.files import exists, walk
    from gridsight.data.readers import find_reader

    if not exists(path):
        yield ReadError(path, "there is no such file or folder")
        return
    spec = predictor.model.spec
    empty = True
    try:
        for file in walk(path):
            empty = False
            try:
                found = find_reader(file)
                if found is None:
                    yield ReadError(file, "is of no known format")
                    continue
                yield from found[1].read_as(file, spec.ndim, spec.channels, spec.axes)
            except GridsightError as error:
                yield error if isinstance(error, ReadError) else ReadError(file, str(error))
    except ReadError as error:
        yield error
    else:
        if empty:
            yield ReadError(path, "is a folder without files")


def _read_array(array: np.ndarray, predictor: Predictor) -> Iterator[Sample | ReadError]:
    """One item or a stack of them, as the model's axes and channels say."""
    from gridsight.data import rows
    from gridsight.data.axes import match_axes, stack_axes

    spec = predictor.model.spec
    axes = spec.axes or match_axes(array.shape, array.dtype, spec.ndim, spec.channels)
    if axes is None:
        raise UsageError(
            f"an array of shape {array.shape} is neither one item nor a stack of items with {spec.ndim} axes and "
            f"{spec.channels} channels"
        )
    many, letters = stack_axes(axes, array.shape, array.dtype)
    stack = array if many else array[None]
    layout = rows.Layout(stack.shape, stack.dtype)
    rows.check_layout("array", layout)
    yield from rows.samples("array", [stack], letters, rows.target_dtype(layout, lambda: [stack]), None, None)
