"""The guess of axes against a table, overrides, and arrays brought to (C, *spatial) against plain indexing."""

from pathlib import Path

import numpy as np
import pytest

from gridsight.artifact.inputs import read_inputs
from gridsight.core.errors import UsageError
from gridsight.data.axes import channels_first, check_axes, guess_axes, match_axes, stack_axes
from gridsight.data.sample import Sample
from gridsight.data.spec import DataSpec


@pytest.mark.parametrize(
    ("shape", "dtype", "axes"),
    [
        ((784,), "uint8", "L"),
        ((28, 28), "uint8", "HW"),
        ((28, 28), "float32", "HW"),
        ((80, 100), "float32", "HW"),  # a spectrogram
        ((64, 8), "uint8", "HW"),  # a narrow picture
        ((12, 1000), "float32", "CL"),  # 12-lead ECG
        ((1000, 12), "float32", "LC"),
        ((12, 29), "float64", "CL"),  # JapaneseVowels
        ((64, 3000), "int16", "CL"),  # EEG
        ((1, 187), "float32", "CL"),
        ((187, 1), "float32", "LC"),
        ((1, 784), "uint8", "CL"),
        ((28, 28, 1), "uint8", "HWC"),
        ((1, 28, 28), "uint8", "CHW"),
        ((32, 32, 3), "uint8", "HWC"),
        ((3, 32, 32), "float32", "CHW"),
        ((3, 224, 3), "uint8", "HWC"),
        ((28, 28, 28), "uint8", "DHW"),  # MedMNIST 3D
        ((4, 4, 4), "uint8", "DHW"),
        ((16, 112, 112, 3), "uint8", "DHWC"),  # video
        ((1, 28, 28, 28), "float32", "CDHW"),
        ((6, 28, 28, 28), "float32", "CDHW"),
        ((28, 28, 28, 6), "float32", "DHWC"),
    ],
)
def test_guess(shape: tuple[int, ...], dtype: str, axes: str) -> None:
    assert guess_axes(shape, dtype) == axes
    assert stack_axes(None, (9, *shape), dtype) == (True, axes)


def test_no_guess() -> None:
    for shape in ((), (2,) * 5):
        with pytest.raises(UsageError):
            guess_axes(shape, "uint8")


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ("NXL", "'X' is no axis"),
        ("NLL", "twice"),
        ("LNC", "N must come first"),
        ("NC", "no axis of space"),
        ("NLH", "mix L"),
        ("NCL", "name 3 axes, but the array has 4"),
    ],
)
def test_wrong_axes(axes: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_axes(axes, 4)


def test_override() -> None:
    assert stack_axes("nlc", (9, 28, 28), "uint8") == (True, "LC")
    assert stack_axes("LC", (9, 28, 28), "uint8") == (True, "LC")  # one axis more than named: N
    assert stack_axes("CHW", (9, 28, 28), "uint8") == (False, "CHW")  # all named: one item


def test_match() -> None:
    """What a model's items must look like decides between one item and many."""
    assert match_axes((28, 28), "uint8", 2, 1) == "HW"
    assert match_axes((10, 28, 28), "uint8", 2, 1) == "NHW"
    assert match_axes((1, 28, 28), "uint8", 2, 1) == "CHW"
    assert match_axes((3, 32, 32), "uint8", 2, 3) == "CHW"
    assert match_axes((3, 32, 3), "uint8", 2, 3) == "HWC"
    assert match_axes((5, 32, 32, 3), "uint8", 2, 3) == "NHWC"
    assert match_axes((100,), "float32", 1, 1) == "L"
    assert match_axes((7, 100), "float32", 1, 1) == "NL"
    assert match_axes((7, 100), "float32", 1, 7) == "CL"
    assert match_axes((7, 100, 12), "float32", 1, 12) == "NLC"
    assert match_axes((28, 28, 28), "uint8", 3, 1) == "DHW"
    assert match_axes((28, 28), "uint8", 2, 3) is None
    assert match_axes((), "uint8", 1, 1) is None


def test_axes_that_training_was_told_are_those_of_one_item_too(tmp_path: Path) -> None:
    assert match_axes((5, 28, 28, 3), "uint8", 2, 3, "NHWC") == "NHWC"
    assert match_axes((28, 28, 3), "uint8", 2, 3, "nhwc") == "hwc"
    assert match_axes((28, 28), "uint8", 2, 1, "HW") == "HW"
    for axes, shape, item in (("NHWC", (9, 7, 5, 3), (3, 7, 5)), ("NCL", (9, 2, 50), (2, 50))):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        spec = DataSpec("x", "image", len(item) - 1, item[0], item[1:], "float32", ("a", "b"), axes=axes)
        np.save(tmp_path / "many.npy", x)
        np.save(tmp_path / "one.npy", x[4])
        np.savez(tmp_path / "one.npz", x=x[4])
        wanted = channels_first(x[4], axes[1:])
        assert wanted.shape == item
        for given, at in ((x, 4), (x[4], 0), ("many.npy", 4), ("one.npy", 0), ("one.npz", 0)):
            found = list(read_inputs(tmp_path / given if isinstance(given, str) else given, spec))
            assert len(found) == (9 if at else 1)
            assert isinstance(found[at], Sample), found[at]
            np.testing.assert_array_equal(found[at].array, wanted)


def test_channels_first() -> None:
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    out = channels_first(array, "HWC")
    assert out.shape == (4, 2, 3)
    assert all(out[c, h, w] == array[h, w, c] for c in range(4) for h in range(2) for w in range(3))
    out = channels_first(array, "WDH")  # spatial axes come as D, H, W
    assert out.shape == (1, 3, 4, 2)
    assert all(out[0, d, h, w] == array[w, d, h] for w in range(2) for d in range(3) for h in range(4))
    np.testing.assert_array_equal(channels_first(array, "LC", stacked=True), array.transpose(0, 2, 1))
    np.testing.assert_array_equal(channels_first(array, "HW", stacked=True), array[:, None])
