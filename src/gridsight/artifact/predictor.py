"""The predictor: from raw items to calibrated answers; the one path that evaluate, predict, report and serve share.

decode -> conform (size, type, channels) -> front end -> network -> the task's calibrated answer.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gridsight.artifact.inputs import read_inputs
from gridsight.artifact.model_file import Model, load_model
from gridsight.core.device import pick_device
from gridsight.core.errors import ReadError, UsageError
from gridsight.data.conform import conform
from gridsight.data.ragged import stack
from gridsight.data.sample import Sample
from gridsight.measure.novelty import novelty
from gridsight.models import MODELS
from gridsight.nn.features import Features
from gridsight.nn.fold import fold
from gridsight.nn.masked import mask_of
from gridsight.nn.memory import in_parts
from gridsight.nn.nd import channels_last
from gridsight.nn.whole import WholeItems
from gridsight.tasks import Predicted

BATCH = 64
NOT_FINITE = "the network's answer is not finite (NaN or infinite)"


class Predictor:
    """Answers of one model: `predict` takes paths, folders and arrays.

    `folded` takes the network in the form that is fast here; without it answers are, to the last bit, those that
    training measured.
    """

    def __init__(self, model: Model, device: str = "auto", *, folded: bool = True) -> None:
        self.model, self.device, self.folded = model, pick_device(device), folded
        model.net.to(self.device).eval()
        self.front = model.front_end().to(self.device)
        self.task = model.make_task()
        self.masked = model.spec.fit == "mask" and bool(MODELS.get(model.architecture).tags["masked"])
        self.resized = 0  # items so far of another size than all training items had

    @cached_property
    def net(self) -> Any:
        """The network as it answers here, equal to rounding to the one that was trained (`model.net`).

        Batch norms are folded into convolutions, and 2-D weights lie as their input does: one item takes 1.1 to 2
        times less time, a batch up to 3.5 times less. One volume alone would take twice as long in that memory.
        """
        with torch.inference_mode(False):  # the first to ask may be in it, and its tensors take no gradients later
            if not self.folded:
                return channels_last(self.model.net)
            net = fold(self.model.net, self.example()).net
            return channels_last(net) if self.model.ndim == 2 else net

    def example(self) -> torch.Tensor:
        """One item as the network sees it, of zeros: (1, in_channels, *spatial)."""
        spec = self.model.spec
        with torch.no_grad():
            return self.front(torch.zeros(1, spec.channels, *spec.spatial, device=self.device))

    @cached_property
    def features(self) -> Features:
        """The network, with what its stages say."""
        return Features(self.net, self.model.in_channels, self.model.ndim)

    @cached_property
    def whole(self) -> WholeItems | None:
        """How a network that was trained on patches answers about whole items; None of the others."""
        if self.model.spec.fit != "patch":
            return None
        return WholeItems(self.net, self.front, self.model.in_channels, self.model.spec.spatial)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that it chooses among; none where it says a number."""
        return self.model.spec.classes

    @torch.no_grad()
    def outputs(self, items: Sequence[np.ndarray]) -> np.ndarray:
        """What the network says of conformed items (C, *spatial), float32 (N, num_outputs)."""
        if self.whole is not None:
            return np.concatenate([self.whole.logits(item).float().cpu().numpy() for item in items])
        with torch.inference_mode():
            return np.concatenate(in_parts(lambda part: self.net(*self.seen(part)).float().cpu().numpy(), items))

    def predicted(self, items: Sequence[np.ndarray]) -> Predicted:
        """The task's calibrated predictions of conformed items, as arrays."""
        return self.task.predict(self.outputs(items), self.model.calibration)

    @torch.no_grad()
    def outputs_and_novelty(self, items: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """Outputs of conformed items, and how unlike the training data they are (N,); None where that is not known."""
        known = self.model.novelty
        if known is None or self.whole is not None:
            return self.outputs(items), None

        def ask(part: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            logits, features = self.features(*self.seen(part))
            return logits.float().cpu().numpy(), novelty(known, [stage.cpu().numpy() for stage in features])

        with torch.inference_mode():  # a twentieth less of one item's time than without gradients alone
            outputs, strange = zip(*in_parts(ask, items), strict=True)
        return np.concatenate(outputs), np.concatenate(strange)

    def seen(self, items: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the network gets: the items after the front end, and a mask where they are of unequal size."""
        x, sizes = stack(items, None if self.masked else self.model.spec.spatial)
        mask = mask_of(torch.from_numpy(sizes).to(self.device), x.shape[2:]) if self.masked else None
        return self.front(torch.from_numpy(x).to(self.device)), mask

    def predict(self, inputs: Any, *, coverage: float | None = None) -> list[dict[str, Any]]:
        """One answer an item: of a path, a folder, an array (one item or a stack), or a list of these.

        `coverage` chooses another `unsure` threshold than the stored one (needs a calibrated model).
        """
        return list(self.answers(read_inputs(inputs, self.model.spec), coverage=coverage))

    def answers(
        self, samples: Iterable[Sample | ReadError], *, coverage: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Answers in the order of the samples, in batches; what cannot be read or answered gives {"path", "error"}."""
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
            if len(waiting) >= (BATCH if self.whole is None else 1):
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
        if self.model.spec.task == "regress":
            raise UsageError("this model says numbers: how many its intervals hold was chosen by train --coverage")
        if not stored.calibrated or not stored.quantiles:
            raise UsageError("this model was trained without validation data, so no coverage can be chosen")
        # quantiles[i] is the probability that a share i / (len - 1) of the validation items stays below
        grid = np.linspace(0, 1, len(stored.quantiles))
        return float(np.interp(1 - coverage, grid, stored.quantiles))

    def _answer(
        self, waiting: Sequence[dict[str, Any]], arrays: Sequence[np.ndarray], threshold: float | None
    ) -> Iterator[dict[str, Any]]:
        decoded = iter(self._decode(arrays, threshold) if arrays else [])
        for entry in waiting:
            yield entry if "error" in entry else entry | next(decoded)

    def _decode(self, arrays: Sequence[np.ndarray], threshold: float | None) -> list[dict[str, Any]]:
        """The task's answers, each with why it is unsure: "low probability", or "unlike the training data".

        Outputs that are not finite give {"error"}: no class is more probable than another by them.
        """
        outputs, strange = self.outputs_and_novelty(arrays)
        sound = np.flatnonzero(np.isfinite(outputs).all(1))
        answers: list[dict[str, Any]] = [{"error": NOT_FINITE} for _ in outputs]
        if not len(sound):
            return answers
        decoded = self.task.decode(self.task.predict(outputs[sound], self.model.calibration), threshold)
        for i, answer in zip(sound, decoded, strict=True):
            answer["reason"] = "low probability" if answer.get("unsure") else None
            answer["novelty"] = None if strange is None else float(strange[i])
            if strange is not None and self.model.novelty is not None and strange[i] > self.model.novelty.threshold:
                answer |= {"unsure": True, "reason": "unlike the training data"}
            answer.setdefault("unsure", None if strange is None else False)
            answers[i] = answer
        return answers


def load(path: str | Path, device: str = "auto", *, folded: bool = True) -> Predictor:
    """The predictor of a run folder or a model file; `folded` as in `Predictor`."""
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not path.exists():
        raise UsageError(f"there is no run or model file at {path}")
    if not file.exists():
        raise UsageError(f"{path} holds no model.safetensors; gridsight resume {path} finishes a run")
    return Predictor(load_model(file), device, folded=folded)
