"""From pictures to batches: what is fast must be what is plain: resized bytes, the cache's order, scale, windows."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_resample import triangle

from gridsight.artifact.inputs import read_path
from gridsight.core.console import Console
from gridsight.core.errors import ReadError
from gridsight.data.augment import apply, prepared
from gridsight.data.cache import cached
from gridsight.data.conform import conform
from gridsight.data.decoding import WAITING, decode, in_threads
from gridsight.data.files import File
from gridsight.data.ragged import channels_last, gather
from gridsight.data.readers import READERS
from gridsight.data.sample import Sample
from gridsight.data.source import Item, find
from gridsight.data.spec import DataSpec
from gridsight.nn.frontend import FrontEnd, FrontEndSettings
from gridsight.nn.warp import window

FRONT = FrontEnd(FrontEndSettings(255.0, (0.4, 0.5, 0.3), (0.2, 0.25, 0.1)), 2)
WINDOWS = (("crop", 0.5), ("flip", 1.0))


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """(C, H, W) bytes."""
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)


def batch(count: int, side: int) -> torch.Tensor:
    """(N, 3, side, side) bytes, channels last, as a loader gives them."""
    pixels = np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize(("have", "want"), [((60, 47), (20, 20)), ((20, 31), (33, 33)), ((50, 50), (50, 50))])
def test_bytes_are_resized_as_the_filter_says(channels: int, have: tuple[int, int], want: tuple[int, int]) -> None:
    x = picture(*have, channels)
    spec = DataSpec("x", "image", 2, channels, want, "uint8", ("a", "b"), fit="crop")
    side = min(have)
    top, left = ((n - side) // 2 for n in have)
    middle = x[:, top : top + side, left : left + side].astype(float)
    expected = np.einsum("chw,ih,jw->cij", middle, triangle(side, want[0]), triangle(side, want[1]))
    got = conform(Sample(x, "x"), spec)
    assert np.abs(got - expected).max() <= 1.01 and np.abs(got - expected).mean() < 0.4
    turned = np.ascontiguousarray(x.transpose(1, 2, 0)[::-1])[::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(turned, x)
    np.testing.assert_array_equal(conform(Sample(turned, "x"), spec), got)


def test_cached_pictures_are_what_conform_gives_and_a_changed_cell_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))
    for i in range(11):
        path = tmp_path / "data" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(30 + i, 40, seed=i).transpose(1, 2, 0)).save(path)
    data = cached(find(str(tmp_path / "data")), Console(quiet=True), size=16)
    assert isinstance(data.x, np.ndarray) and data.x.shape == (11, 3, 16, 16)
    assert channels_last(data.x).flags.c_contiguous
    reader = READERS.create("image")
    for i, path in enumerate(data.paths):
        np.testing.assert_array_equal(data.x[i], conform(reader.read_single(File(Path(path))), data.spec))
    rows = np.array([7, 0, 7])
    found, sizes = gather(data.x, rows)
    np.testing.assert_array_equal(found, np.asarray(data.x)[rows])
    assert sizes is None and torch.from_numpy(found).is_contiguous(memory_format=torch.channels_last)
    changed = picture(33, 40, seed=3)
    changed[:, 16:18, 20:22] ^= 128
    Image.fromarray(changed.transpose(1, 2, 0)).save(tmp_path / "data" / "1" / "3.png")
    assert cached(find(str(tmp_path / "data")), Console(quiet=True), size=16).fingerprint != data.fingerprint


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_scale_of_bytes_is_the_formula(channels: int) -> None:
    mean, std = tuple(0.1 * i for i in range(channels)), tuple(0.2 + 0.1 * i for i in range(channels))
    front = FrontEnd(FrontEndSettings(255.0, mean, std), 2)
    x = torch.from_numpy(np.stack([picture(300, 200, channels, seed) for seed in range(9)]))
    before, shape = x.clone(), (1, channels, 1, 1)
    expected = (x.double() / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    for lying in (x, x.contiguous(memory_format=torch.channels_last)):
        got = front.scale(lying)
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)
        assert got.is_contiguous(memory_format=torch.channels_last) and got.dtype == torch.float32
        assert torch.equal(got, front.scale(lying.float()))  # floats, which are not ours to write into
    assert torch.equal(x, before)


def test_letters_stay_as_they_are_and_floats_are_not_written_into() -> None:
    front = FrontEnd(FrontEndSettings(1.0, (0.0, 0.0), (1.0, 1.0)), 1)
    x = torch.tensor([[[0, 1, 0], [1, 0, 1]]], dtype=torch.uint8)
    assert torch.equal(front.scale(x), x.float())
    other = FrontEnd(FrontEndSettings(2.0, (0.5, 0.5), (1.0, 1.0)), 1)
    given = x.float()
    assert torch.equal(other.scale(given), x / 2 - 0.5) and torch.equal(given, x.float())
    assert torch.equal(other.scale(x), x / 2 - 0.5)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_window_is_the_resize_of_its_cells(threads: int) -> None:
    x = batch(3, 64)
    # half the height from the top, three quarters of the width at the right, the second mirrored, the third whole
    matrix = torch.tensor(
        [
            [[0.5, 0.0, -16.0], [0.0, 0.75, 8.0]],
            [[0.5, 0.0, -16.0], [0.0, -0.75, 8.0]],
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        ]
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = window(x, matrix)
    finally:
        torch.set_num_threads(before)
    cells = x[0, :, :32, 16:].double().numpy()
    expected = np.einsum("chw,ih,jw->cij", cells, triangle(32, 64), triangle(48, 64))
    assert np.abs(got[0].double().numpy() - expected).max() <= 1.01
    assert torch.equal(got[2], x[2])
    x[1] = x[0]
    assert torch.equal(window(x, matrix)[1], got[0].flip(2))


@pytest.mark.parametrize(
    "operations", [(), (("flip", 1.0),), (("contrast", 0.2), ("flip", 1.0)), (("affine", 1.0), ("shift", 0.1))]
)
@pytest.mark.parametrize("side", [40, 300])  # at 300 cells a batch is worked on in parts of three items
def test_prepared_is_apply_of_scale(operations: tuple[tuple[str, float], ...], side: int) -> None:
    x, items = batch(8, side), torch.arange(8) * 5
    got = prepared(x, items, 3, 1, operations, FRONT.scale)
    expected = apply(FRONT.scale(x), items, 3, 1, operations)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_windows_of_bytes_are_those_of_floats_to_a_cell_and_do_not_depend_on_the_batch() -> None:
    ramp = torch.linspace(0, 250, 200).expand(12, 3, 200, 200).byte()
    x, items = torch.cat([ramp, ramp.transpose(2, 3)]), torch.arange(24)
    got = prepared(x, items, 0, 0, WINDOWS, FRONT.scale)
    expected = apply(FRONT.scale(x), items, 0, 0, WINDOWS)
    cell = 250 / 199 / 255 / 0.1  # what one cell of the ramp is worth, in the channel of the smallest deviation
    assert (got - expected).abs().max() < 1.5 * cell
    alone = prepared(x[5:7], items[5:7], 0, 0, WINDOWS, FRONT.scale)
    assert torch.equal(alone, got[5:7])
    small = batch(4, 32)  # half a cell is much of a small picture
    exact = apply(FRONT.scale(small), items[:4], 0, 0, WINDOWS)
    assert torch.equal(prepared(small, items[:4], 0, 0, WINDOWS, FRONT.scale), exact)


def test_threads_keep_the_order_hand_errors_on_and_hold_few_results() -> None:
    items = [Item(File(Path(str(i))), "image") for i in range(5 * WAITING)]
    started, lock = [], threading.Lock()

    def work(item: Item) -> int:
        with lock:
            started.append(item)
        if item.file.name == "303":
            raise ReadError("303", "is bad")
        return int(item.file.name)

    stream = in_threads(work, items)
    assert next(stream) == 0 and len(started) <= WAITING + 4
    with pytest.raises(ReadError, match="303"):
        for expected, found in enumerate(stream, 1):
            assert found == expected
    assert expected == 299  # the task of 300 to 303 failed whole


def test_a_comment_that_speaks_of_exif_hides_no_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = np.zeros((8, 16, 3), np.uint8)
    shown[:, :8] = 255
    Image.fromarray(shown).save(tmp_path / "a.jpg", exif=exif, quality=100)
    data = (tmp_path / "a.jpg").read_bytes()
    comment = b"\xff\xfe\x00\x0eExif\0\0 is it"
    (tmp_path / "b.jpg").write_bytes(data[:2] + comment + data[2:])
    reader = READERS.create("image")
    plain, commented = (reader.read_single(File(tmp_path / name)).array for name in ("a.jpg", "b.jpg"))
    assert plain.shape == (3, 16, 8) and plain[0, 2, 4] > 250 > 5 > plain[0, 12, 4]
    np.testing.assert_array_equal(commented, plain)


def _photograph(path: Path, height: int, width: int, orientation: int = 1) -> None:
    """Smooth in the large, with details, like a photograph."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
    picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = (picture + rng.integers(-20, 21, picture.shape)).clip(0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noisy).save(path, quality=90, exif=exif)


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_are_decoded_smaller_but_never_below_twice_what_is_needed(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.jpg"
    _photograph(path, 1200, 1600, orientation)
    whole = READERS.get("image").item()
    upright = (1200, 1600) if orientation == 1 else (1600, 1200)
    assert whole.read_single(File(path)).array.shape[1:] == upright
    for wanted in ((32, 32), (224, 224), (100, 290), (290, 100), (224, 500)):
        spec = DataSpec("made", "image", 2, 3, wanted, "uint8", ("a", "b"), fit="crop")
        small = whole.fitting(wanted).read_single(File(path))
        shape = small.array.shape[1:]
        shares = [n / m for n, m in zip(shape, upright, strict=True)]
        assert shares[0] == pytest.approx(shares[1], rel=0.02) and shares[0] in (0.125, 0.25, 0.375, 0.5, 1.0)
        assert all(n >= 2 * m for n, m in zip(shape, wanted, strict=True)) or shares[0] == 1
        # smaller by an eighth would not do
        assert shares[0] > 0.5 or any((s - 0.125) * n < 2 * m for s, n, m in zip(shares, upright, wanted, strict=True))
        given, full = (conform(s, spec).astype(int) for s in (small, whole.read_single(File(path))))
        # the noise has a deviation of 12, and where a box is cut may move by half a cell
        assert np.abs(given - full).mean() < 3 and np.abs(given - full).max() < 30


def test_prediction_and_cache_decode_alike_and_whole_items_are_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        _photograph(tmp_path / "data" / name / "1.jpg", 600, 800)
    source = find(str(tmp_path / "data"))
    spec = DataSpec("made", "image", 2, 3, (48, 48), "uint8", ("a", "b"), fit="crop")
    path = tmp_path / "data" / "a" / "1.jpg"
    trained = next(iter(decode(source, source.items[0], spec)))
    asked = next(iter(read_path(path, spec)))
    assert trained.array.shape[1:] == asked.array.shape[1:] == (150, 200)
    assert np.array_equal(conform(trained, spec), conform(asked, spec))
    assert next(iter(read_path(path, replace(spec, fit="patch")))).array.shape[1:] == (600, 800)
    assert next(iter(decode(source, source.items[0]))).array.shape[1:] == (600, 800)
