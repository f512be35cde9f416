"""Items at their own resolution: equal to one pass of the network over the conformed item; errors name the item."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gridsight.artifact.model_file import Model
from gridsight.artifact.predictor import Predictor
from gridsight.artifact.whole import whole_answers, whole_outputs
from gridsight.core.errors import ReadError, UsageError
from gridsight.data.sample import Sample
from gridsight.data.spec import DataSpec
from gridsight.models import create
from gridsight.nn.frontend import FrontEndSettings

SPEC = DataSpec("x", "image", 2, 3, (32, 32), "uint8", ("a", "b"), fit="crop")
FRONT = FrontEndSettings(255.0, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def predictor(name: str, spec: DataSpec = SPEC, front: FrontEndSettings = FRONT, **arguments: Any) -> Predictor:
    torch.manual_seed(0)
    net = create(name, ndim=spec.ndim, in_channels=spec.channels, num_classes=2, **arguments)
    return Predictor(Model(name, arguments, spec.ndim, spec.channels, net, front, spec), "cpu")


def picture(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@torch.no_grad()
def one_pass(p: Predictor, array: np.ndarray) -> np.ndarray:
    return p.net(p.front(torch.from_numpy(array)[None])).numpy()


@pytest.mark.parametrize("memory", [4 << 20, 256 << 20])
def test_a_picture_equals_one_pass(memory: int) -> None:
    p, array = predictor("resnet20"), picture(3, 211, 180)
    outputs = whole_outputs(p, Sample(array, "a.png"), memory=memory)
    assert outputs.shape == (1, 2) and outputs.dtype == np.float32
    assert np.abs(outputs - one_pass(p, array)).max() < 1e-5


def test_channels_and_type_are_conformed_in_every_tile() -> None:
    p, deep = predictor("resnet20"), picture(1, 150, 90, dtype="uint16")
    array = np.rint(deep.repeat(3, 0) / 257).astype(np.uint8)
    view = deep.transpose(0, 2, 1)[:, ::-1].transpose(0, 2, 1)  # not contiguous, as a turned picture
    outputs = whole_outputs(p, Sample(view, "deep.png"), memory=8 << 20)
    assert np.abs(outputs - one_pass(p, array[:, :, ::-1].copy())).max() < 1e-5


def test_a_volume_equals_one_pass() -> None:
    spec = replace(SPEC, kind="volume", ndim=3, channels=1, spatial=(8, 8, 8), dtype="float32", spacing=(2.0, 1.0, 1.0))
    p = predictor("gridnet", spec, FrontEndSettings(1.0, (0.1,), (2.0,)), widths=(4, 8), pools=(1, 2), blocks=1)
    array = np.random.default_rng(0).normal(size=(1, 20, 31, 27)).astype(np.float32)
    for spacing in (None, (2.0, 1.0, 1.0), (2.0, 1.0002, 1.0)):
        outputs = whole_outputs(p, Sample(array, "a.nii", spacing=spacing), memory=1 << 20)
        assert np.abs(outputs - one_pass(p, array)).max() < 1e-5
    with pytest.raises(ReadError, match=r"a\.nii: is of cells of \(1\.0, 1\.0, 1\.0\) mm, the training data \(2\.0,"):
        whole_outputs(p, Sample(array, "a.nii", spacing=(1.0, 1.0, 1.0)))


def test_a_fixed_size_takes_windows() -> None:
    p, array = predictor("lenet5", kernel=3), picture(3, 64, 80)
    places = [(i, j) for i in (0, 16, 32) for j in (0, 16, 32, 48)]
    mean = np.mean([one_pass(p, array[:, i : i + 32, j : j + 32].copy()) for i, j in places], 0)
    assert np.abs(whole_outputs(p, Sample(array, "a.png")) - mean).max() < 1e-5
    with pytest.raises(ReadError, match=r"a\.png: has 31 x 80 cells, less than one window of 32 x 32"):
        whole_outputs(p, Sample(array[:, :31], "a.png"))


def test_what_looks_at_the_whole_item_takes_windows_when_asked() -> None:
    p, array = predictor("gridnet", standardise=True), picture(3, 64, 64)
    with pytest.raises(UsageError, match="GridNet cannot be tiled"):
        whole_outputs(p, Sample(array, "a.png"))
    mean = np.mean([one_pass(p, array[:, i : i + 32, j : j + 32].copy()) for i in (0, 32) for j in (0, 32)], 0)
    assert np.abs(whole_outputs(p, Sample(array, "a.png"), overlap=0.0) - mean).max() < 1e-5


def test_answers_are_calibrated_and_what_cannot_be_read_is_one_of_them() -> None:
    p, array = predictor("resnet20"), picture(3, 100, 90)
    bad = ReadError("b.png", "is empty (0 bytes)")
    samples = [Sample(array, "a.png"), bad, Sample(array[:2], "c.png"), Sample(array[0], "d.npy")]
    first, *rest = whole_answers(p, samples)
    logits = one_pass(p, array)[0].astype(np.float64)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert first["path"] == "a.png" and first["probabilities"]["a"] == pytest.approx(expected[0], abs=1e-5)
    assert first["novelty"] is None and first["unsure"] is None
    usual = p.answers([Sample(array[:, :32, :32], "a.png")])
    assert first.keys() == next(usual).keys()
    assert rest == [
        {"path": "b.png", "error": "is empty (0 bytes)"},
        {"path": "c.png", "error": "has 2 channels where the data have 3"},
        {"path": "d.npy", "error": "is 1-D (90) where 2-D is wanted (image)"},
    ]
