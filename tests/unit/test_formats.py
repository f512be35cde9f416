"""Readers against oracles: Pillow's pixels, soundfile's samples, numpy's arrays, and real data parsed by hand."""

import gzip
import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from gridsight.core.errors import ReadError
from gridsight.data.files import File, walk
from gridsight.data.readers import READERS
from gridsight.data.sample import Header, Sample

DATA = Path(__file__).parents[3] / "shared" / "data"


def needs(name: str) -> Any:
    """Skip where the real data are absent."""
    return pytest.mark.skipif(not (DATA / name).exists(), reason=f"{DATA / name} is not on this machine")


def items(name: str, path: Path, axes: str | None = None) -> list[Sample]:
    """All items, none of them bad."""
    got = list(READERS.create(name).read(File(path), axes))
    assert not [one for one in got if isinstance(one, ReadError)]
    return [one for one in got if isinstance(one, Sample)]


def stacked(samples: list[Sample]) -> np.ndarray:
    return np.stack([sample.array for sample in samples])


# ---- pictures


@needs("bccd")
def test_photographs_have_pillows_pixels() -> None:
    reader = READERS.create("image")
    for file in (*list(walk(DATA / "bccd" / "JPEGImages"))[:20], *list(walk(DATA / "isbi_membrane" / "train"))[:10]):
        wanted = np.asarray(Image.open(file.path))
        wanted = wanted[None] if wanted.ndim == 2 else wanted.transpose(2, 0, 1)
        got = reader.read_single(file).array
        np.testing.assert_array_equal(got, wanted)
        assert reader.probe(file) == Header(wanted.shape[0], wanted.shape[1:], "uint8")


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 17), (333, 500)])
def test_jpeg_of_any_kind(quality: int, subsampling: int, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    path = tmp_path / "x.jpg"
    Image.fromarray(pixels).save(path, quality=quality, subsampling=subsampling, progressive=quality == 30)
    got = READERS.create("image").read_single(File(path)).array
    np.testing.assert_array_equal(got, np.asarray(Image.open(path)).transpose(2, 0, 1))


def test_probe_of_turned_and_deep_pictures(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.png", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.tif", tiffinfo={0x0112: 6})
    Image.new("I;16", (30, 20)).save(tmp_path / "deep.png")
    Image.new("P", (30, 20)).save(tmp_path / "palette.png")
    Image.new("CMYK", (30, 20)).save(tmp_path / "cmyk.jpg")
    reader = READERS.create("image")
    got = {path.name: reader.probe(File(path)) for path in sorted(tmp_path.iterdir())}
    assert got == {
        "turned.jpg": Header(3, (30, 20), "uint8"),
        "turned.png": Header(3, (30, 20), "uint8"),
        "turned.tif": Header(3, (30, 20), "uint8"),
        "deep.png": Header(1, (20, 30), "uint16"),
        "palette.png": Header(1, (20, 30), "uint8"),  # all entries gray
        "cmyk.jpg": Header(3, (20, 30), "uint8"),
    }


def test_probe_of_a_picture_whose_size_comes_after_a_large_profile(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    large = tmp_path / "large.jpg"
    Image.new("RGB", (30, 20)).save(large, exif=exif, icc_profile=bytes(300_000))
    assert READERS.create("image").probe(File(large)) == Header(3, (30, 20), "uint8")
    large.write_bytes(large.read_bytes()[:290_000])
    with pytest.raises(ReadError, match="jpeg"):
        READERS.create("image").probe(File(large))


# ---- sounds


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_sound_as_soundfile_reads_it(subtype: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    sound = np.random.default_rng(0).uniform(-1, 1, (500, channels))
    soundfile.write(path, sound, 22_050, subtype=subtype)
    got = READERS.create("audio").read_single(File(path))
    wanted, rate = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(got.array, wanted.T)
    assert got.rate == rate == 22_050 and got.array.flags.c_contiguous
    # float64 holds every coding exactly: what is read is within the coding's own step
    assert np.abs(got.array - sound.T).max() < {"PCM_U8": 1 / 100, "ULAW": 1 / 30}.get(subtype, 1e-4)
    assert READERS.create("audio").probe(File(path)) == Header(channels, (500,), "float32", 22_050.0)


def test_wav_with_chunks_before_and_after_the_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.arange(100) / 200, 8000, subtype="PCM_16")
    data = (tmp_path / "x.wav").read_bytes()
    at = data.index(b"data")
    extra = b"LIST" + (5).to_bytes(4, "little") + b"INFO!\0"  # an odd size is padded
    body = data[8:at] + extra + data[at:] + extra[:9]  # the last one is cut, the sound is not
    (tmp_path / "x.wav").write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    got = READERS.create("audio").read_single(File(tmp_path / "x.wav")).array
    np.testing.assert_allclose(got[0], np.arange(100) / 200, atol=2**-15)


@needs("fsdd")
def test_fsdd_from_the_zip() -> None:
    files = [file for file in walk(DATA / "fsdd" / "recordings_train.zip") if file.name.endswith(".wav")]
    assert len(files) == 2700
    archive = zipfile.ZipFile(files[0].path)
    for file in files[::90]:
        wanted, rate = soundfile.read(io.BytesIO(archive.read(str(file.member))), dtype="float32")
        got = READERS.create("audio").read_single(file)
        np.testing.assert_array_equal(got.array[0], wanted)
        assert got.rate == rate == 8000


# ---- arrays


@pytest.mark.parametrize(
    ("dtype", "gives"),
    [
        ("bool", "uint8"),
        ("uint8", "uint8"),
        ("int8", "int16"),
        ("uint16", "uint16"),
        (">u2", "uint16"),
        ("int16", "int16"),
        ("int32", "uint8"),
        ("uint64", "uint8"),
        (">i8", "uint8"),
        ("float16", "float32"),
        ("float32", "float32"),
        (">f8", "float32"),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_of_arrays(dtype: str, gives: str, order: Any, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 120, (5, 6, 7, 3)).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    got = stacked(items("array", tmp_path / "a.npy"))
    assert got.dtype == gives
    np.testing.assert_array_equal(got, array.transpose(0, 3, 1, 2).astype(gives))
    single = READERS.create("array").read_single(File(tmp_path / "a.npy"))
    np.testing.assert_array_equal(single.array, array.transpose(3, 0, 1, 2).astype(gives))  # DHWC: one volume
    header = READERS.create("array").probe(File(tmp_path / "a.npy"))
    assert (header.channels, *header.spatial) == single.array.shape and header.dtype == gives


def test_one_type_for_all_items(tmp_path: Path) -> None:
    """The last item alone leaves 0 to 255, and all become float32."""
    array = np.zeros((1000, 40, 40), np.int64)
    array[-1, 0, 0] = -1
    np.save(tmp_path / "a.npy", array)
    got = items("array", tmp_path / "a.npy")
    assert {sample.array.dtype.name for sample in got} == {"float32"} and got[-1].array[0, 0, 0] == -1


@pytest.mark.parametrize(
    ("keys", "splits"),
    [
        ({"x": 5, "y": 0}, {None: 5}),
        ({"images": 5, "labels": 0}, {None: 5}),
        ({"data": 5, "target": 0}, {None: 5}),
        ({"X": 5, "Y": 0}, {None: 5}),
        ({"x_train": 5, "y_train": 0, "x_test": 3, "y_test": 0}, {"train": 5, "test": 3}),
        (
            {"x_test": 3, "y_test": 0, "x_val": 2, "y_val": 0, "x_train": 5, "y_train": 0},
            {"train": 5, "val": 2, "test": 3},
        ),
        ({"train_images": 5, "train_labels": 0, "test_images": 3, "test_labels": 0}, {"train": 5, "test": 3}),
        ({"X_train": 5, "Y_train": 0, "X_valid": 2, "Y_valid": 0}, {"train": 5, "val": 2}),
        ({"train": 5, "train_labels": 0}, {"train": 5}),
    ],
)
def test_names_in_npz(keys: dict[str, int], splits: dict[str | None, int], tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    images = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    counts = list(splits.values())
    given = [key for key, count in keys.items() if count]
    for key, count in keys.items():
        arrays[key] = images[:count] if count else np.arange(keys[given[len([k for k in arrays if not keys[k]])]])
    np.savez(tmp_path / "a.npz", **arrays)
    got = items("array", tmp_path / "a.npz")
    assert [sum(sample.split == split for sample in got) for split in splits] == counts
    for split, count in splits.items():
        part = [sample for sample in got if sample.split == split]
        np.testing.assert_array_equal(stacked(part)[:, 0], images[:count])
        assert [sample.label for sample in part] == [str(i) for i in range(count)]


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (np.array([3, 0, 10]), ["3", "0", "10"]),
        (np.array([[3], [0], [10]], np.uint8), ["3", "0", "10"]),
        (np.array([3.0, 0.0, 10.0]), ["3", "0", "10"]),
        (np.array([True, False, True]), ["1", "0", "1"]),
        (np.array(["cat", "süß ", "dog"]), ["cat", "süß", "dog"]),
        (np.array([b"cat", "süß".encode(), b"dog"]), ["cat", "süß", "dog"]),
    ],
)
def test_labels(labels: np.ndarray, texts: list[str], tmp_path: Path) -> None:
    images = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", x=images, y=labels)
    assert [sample.label for sample in items("array", tmp_path / "a.npz")] == texts
    for data, name in (
        ("x.npy", "y.npy"),
        ("X_train.npy", "y_train.npy"),
        ("images_test.npy", "labels_test.npy"),
        ("cells.npy", "cells_labels.npy"),
    ):
        np.save(tmp_path / data, images)
        np.save(tmp_path / name, labels)
        assert [sample.label for sample in items("array", tmp_path / data)] == texts


def test_class_names_in_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4, 4)), y=[1, 0, 1], class_names=["cat", "dog"])
    assert [sample.label for sample in items("array", tmp_path / "a.npz")] == ["dog", "cat", "dog"]


def test_lengths_in_npz_cut_items_to_their_own_size(tmp_path: Path) -> None:
    """Series that are padded to one size, with zeros or NaN: what is padding is never read."""
    x = np.arange(3 * 2 * 30, dtype=np.float32).reshape(3, 2, 30)
    x[1, :, 20:] = np.nan
    lengths = np.array([30, 20, 1])
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1, 0], lengths=lengths)
    np.savez(tmp_path / "b.npz", x_train=x, y_train=[0, 1, 0], x_train_lengths=lengths[:, None], x_test=x[:1])
    for name in ("a", "b"):
        got = items("array", tmp_path / f"{name}.npz")[:3]
        assert [sample.array.shape for sample in got] == [(2, 30), (2, 20), (2, 1)]
        for sample, padded, length in zip(got, x, lengths, strict=True):
            np.testing.assert_array_equal(sample.array, padded[:, :length])
    headers = list(READERS.create("array").headers(File(tmp_path / "a.npz")))
    assert [header.spatial for header in headers] == [(30,), (20,), (1,)]
    predicted = list(READERS.create("array").read_as(File(tmp_path / "a.npz"), 1, 2))
    assert [one.array.shape[1] for one in predicted if isinstance(one, Sample)] == [30, 20, 1]
    # of pictures: the cells along each axis, channels last as they are in the array
    pictures = np.arange(2 * 5 * 6 * 3, dtype=np.uint8).reshape(2, 5, 6, 3)
    np.savez(tmp_path / "c.npz", images=pictures, labels=[0, 1], lengths=[[5, 6], [2, 4]])
    got = items("array", tmp_path / "c.npz")
    np.testing.assert_array_equal(got[1].array, pictures[1, :2, :4].transpose(2, 0, 1))
    assert got[0].array.shape == (3, 5, 6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"lengths": [30, 20]}, r"lengths have shape \(2,\); what is wanted is \(3,\)"),
        ({"lengths": [30, 20.5, 1]}, "whole numbers"),
        ({"lengths": ["a", "b", "c"]}, "whole numbers"),
        ({"lengths_test": [30, 20, 1]}, "lengths_test says the lengths of no other array"),
        ({"lengths": [30, 31, 0]}, "its length is 31, and the array has 30 cells"),
    ],
)
def test_lengths_that_make_no_sense_are_named(arrays: dict[str, list], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2, 30), np.float32), y=[0, 1, 0], **arrays)
    with pytest.raises(ReadError, match=words):
        found = list(READERS.create("array").read(File(tmp_path / "a.npz")))
        assert isinstance(found[0], Sample)  # items with a wrong length are errors of their own
        assert str(found[2]).endswith("its length is 0, and the array has 30 cells an item")
        raise next(one for one in found if isinstance(one, ReadError))
    with pytest.raises(ReadError, match="length"):
        READERS.create("array").read_single(File(tmp_path / "a.npz"))


def test_axes_given(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(6, 20, 20)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(stacked(items("array", tmp_path / "a.npy", "NLC")), array.transpose(0, 2, 1))
    np.testing.assert_array_equal(stacked(items("array", tmp_path / "a.npy", "CL")), array)
    (one,) = items("array", tmp_path / "a.npy", "CHW")
    np.testing.assert_array_equal(one.array, array)
    assert one.path == str(tmp_path / "a.npy")
    with pytest.raises(ReadError, match=r"a\.npy: axes 'NCDHW' name 5 axes, but the array has 3"):
        items("array", tmp_path / "a.npy", "NCDHW")


@pytest.mark.parametrize("suffix", ["npy", "npz", "zip"])
def test_large_arrays_come_row_by_row(suffix: str, tmp_path: Path) -> None:
    """Memory follows the block, not the array: 96 MB read in under 12 MB."""
    array = np.zeros((12_000, 1000), np.float64)
    array[:, 0] = np.arange(12_000)
    path, member = tmp_path / f"a.{suffix}", None
    if suffix == "npz":
        np.savez_compressed(path, x=array)
    else:
        np.save(tmp_path / "a.npy", array)
    if suffix == "zip":
        member = "a.npy"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.write(tmp_path / "a.npy", member)
    del array
    tracemalloc.start()
    total = count = 0
    for sample in READERS.create("array").read(File(path, member)):
        assert isinstance(sample, Sample)
        total += int(sample.array[0, 0])
        count += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, total) == (12_000, 12_000 * 11_999 // 2)
    assert peak < 12 << 20


# ---- published sets


@needs("mnist")
@pytest.mark.parametrize(("stem", "split", "count"), [("train", "train", 60_000), ("t10k", "test", 10_000)])
def test_mnist(stem: str, split: str, count: int) -> None:
    path = DATA / "mnist" / f"{stem}-images-idx3-ubyte.gz"
    images = np.frombuffer(gzip.decompress(path.read_bytes())[16:], np.uint8).reshape(-1, 1, 28, 28)
    labels = gzip.decompress((DATA / "mnist" / f"{stem}-labels-idx1-ubyte.gz").read_bytes())[8:]
    got = items("idx", path)
    assert len(got) == count and got[7].path == f"{path}[7]"
    np.testing.assert_array_equal(stacked(got), images)
    assert [sample.label for sample in got] == [str(label) for label in labels]
    assert {sample.split for sample in got} == {split}


@needs("ucr")
@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("GunPoint", (1, 150), (50, 150)),
        ("ItalyPowerDemand", (1, 24), (67, 1029)),
        ("JapaneseVowels", (12, None), (270, 370)),
    ],
)
def test_ucr_by_hand(name: str, shape: tuple[int, int | None], counts: tuple[int, int], split: str) -> None:
    path = DATA / "ucr" / f"{name}_{split}.ts"
    got = items("ts", path)
    lines = path.read_text().split("@data\n")[1].split()
    assert len(got) == len(lines) == counts[split == "TEST"]
    for line, sample in zip(lines, got, strict=True):
        *dimensions, label = line.split(":")
        wanted = np.array([[np.float32(value) for value in text.split(",")] for text in dimensions])
        np.testing.assert_array_equal(sample.array, wanted)
        assert sample.array.shape[0] == shape[0] and shape[1] in (None, sample.array.shape[1])
        assert (sample.label, sample.split) == (label, split.lower())


@needs("cifar10_jpg")
def test_members_are_read_as_zipfile_reads_them() -> None:
    """Our own reading of members, which threads can share, against zipfile's."""
    path = DATA / "cifar10_jpg" / "cifar10_test_jpg.zip"
    archive = zipfile.ZipFile(path)
    files = list(walk(path))[::97]
    for file in files:
        assert file.read() == archive.read(str(file.member))
    assert READERS.create("image").probe(files[0]) == Header(3, (32, 32), "uint8")


def test_long_extra_field_of_a_member(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            info = zipfile.ZipInfo(f"{method}.bin")
            info.extra, info.compress_type = b"\x99\x99" + (500).to_bytes(2, "little") + bytes(500), method
            archive.writestr(info, bytes(range(256)))
    # what comes before an archive, such as a program that unpacks it, moves all its offsets
    path.write_bytes(b"#!/bin/sh\n" * 50 + path.read_bytes())
    assert [file.read() for file in walk(path)] == [bytes(range(256))] * 2
