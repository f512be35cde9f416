"""The same items through folders, zip, tar and manifests; TIFF of any bands and types; clips."""

import io
import sys
import tarfile
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import nasty
from gridsight.artifact.inputs import read_path
from gridsight.core.console import Console
from gridsight.core.errors import DataError, ReadError, UsageError
from gridsight.data import archives
from gridsight.data.cache import cached
from gridsight.data.decoding import decode
from gridsight.data.files import File, walk
from gridsight.data.readers.image import ImageReader
from gridsight.data.sample import Header, Sample
from gridsight.data.source import Source, find
from gridsight.data.spec import DataSpec
from gridsight.data.split import split

QUIET = Console(quiet=True)
PACKED = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("GRIDSIGHT_DATA", raising=False)
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))


def pictures(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 6, size: int = 9) -> Path:
    rng = np.random.default_rng(0)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for i in range(count):
            array = rng.integers(0, 256, (size, size + 3, 3), dtype=np.uint8)
            Image.fromarray(array).save(folder / label / f"{i}.png")
    return folder


def tarred(path: Path, folder: Path, top: str = "", **options) -> Path:
    mode = next(mode for suffix, mode in PACKED.items() if path.name.endswith(suffix))
    with tarfile.open(path, mode, **options) as out:
        for file in sorted(folder.rglob("*")):
            out.add(file, top + file.relative_to(folder).as_posix(), recursive=False)
    return path


def zipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for file in sorted(folder.rglob("*")):
            out.write(file, file.relative_to(folder).as_posix())
    return path


def samples(source: Source) -> list[Sample]:
    found = [sample for item in source.items for sample in decode(source, item)]
    assert all(isinstance(sample, Sample) for sample in found), found
    return found  # type: ignore[return-value]


def same_arrays(one: list[Sample], other: list[Sample]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a.label, a.array.dtype) == (b.label, b.array.dtype)
        np.testing.assert_array_equal(a.array, b.array)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_packed_by_bzip2_and_lzma_are_read_no_further_than_they_declare(tmp_path, method):
    text = bytes(range(256)) * 40
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as out:
        out.writestr("fine.bin", text)
        out.writestr("liar.bin", bytes(50 << 20))
        out.writestr("empty.bin", b"")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"liar.bin", data.index(b"PK\1\2"))
    data[at - 22 : at - 18] = (100).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    fine, liar, empty = (File(tmp_path / "a.zip", f"{name}.bin") for name in ("fine", "liar", "empty"))
    assert fine.read() == text == fine.open().read() and fine.head(5) == text[:5] and empty.head() == b""
    tracemalloc.start()
    for action in (liar.read, liar.head):
        with pytest.raises(ReadError, match="its size or checksum differs"):
            action()
    assert tracemalloc.get_traced_memory()[1] < 20 << 20  # LZMA has a window of 8 MiB
    tracemalloc.stop()


# ---- archives


def test_folder_zip_tar_and_manifest_are_the_same_data(tmp_path):
    folder = pictures(tmp_path / "photos")
    wanted = find(str(folder))
    first = cached(wanted, QUIET)
    ways = [zipped(tmp_path / "photos.zip", folder)]
    ways += [tarred(tmp_path / f"photos{suffix}", folder) for suffix in PACKED]
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
    rows = "".join(f"{name},{name.partition('/')[0]}\n" for name in names)
    (tmp_path / "list.csv").write_text("path,label\n" + rows)  # found in photos/, beside the table
    (folder / "labels.tsv").write_text("file\tclass\n" + rows.replace(",", "\t"))
    inside = "".join(f"photos.tar.gz!{name},{name.partition('/')[0]}\n" for name in names)
    (tmp_path / "inside.csv").write_text("path,label\n" + inside)
    ways += [tmp_path / "list.csv", folder / "labels.tsv", tmp_path / "inside.csv"]
    for way in ways:
        source = find(str(way))
        assert not source.bad and source.classes == ("cat", "dog"), way
        same_arrays(samples(source), samples(wanted))
        again = cached(source, QUIET)
        assert again.fingerprint == first.fingerprint, way
        assert again.x.tobytes() == first.x.tobytes() and again.spec.spatial == first.spec.spatial
        assert (again.y == first.y).all()
    assert samples(find(str(ways[1])))[0].path == f"{tmp_path}/photos.tar!cat/0.png"
    assert not [name for name in (tmp_path / "cache").iterdir() if name.is_file()]  # nothing unpacked is left


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_in_each_form_of_tar(tmp_path, form):
    long = "d" * 90 + "/" + "ü" * 60
    for name in ("cat/x.png", f"cat/{long}.png" if form != tarfile.USTAR_FORMAT else "cat/y.png", "dog/z.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), len(name), np.uint8)).save(path)
    source = find(str(tarred(tmp_path / "a.tar", tmp_path / "in", "./", format=form)))
    assert [item.file.member for item in source.items] == sorted(
        file.relative_to(tmp_path / "in").as_posix() for file in (tmp_path / "in").rglob("*.png")
    )
    assert [sample.array[0, 0, 0] for sample in samples(source)] == [
        len(item.file.member or "") for item in source.items
    ]


def test_a_tar_is_read_by_threads_and_its_splits_and_empty_folders_are_seen(tmp_path):
    pictures(tmp_path / "in" / "train")
    pictures(tmp_path / "in" / "test")
    (tmp_path / "in" / "test" / "ghost").mkdir()
    source = find(str(tarred(tmp_path / "a.tgz", tmp_path / "in")))
    assert source.split == "folders test/train" and source.empty == ("test/ghost",)
    wanted = samples(find(str(tmp_path / "in")))
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: samples(source), range(8)):
            same_arrays(found, wanted)
    stream = source.items[3].file.open()
    whole = source.items[3].file.read()
    stream.seek(5)
    assert stream.read(10) == whole[5:15] and source.items[3].file.size() == len(whole)
    assert source.items[3].file.sibling("0.png") == File(tmp_path / "a.tgz", "test/cat/0.png")


def test_two_tars_one_a_split_and_a_tar_within_a_folder(tmp_path):
    (tmp_path / "tars").mkdir()
    for part in ("train", "test"):
        tarred(tmp_path / "tars" / f"{part}.tar.xz", pictures(tmp_path / part))
    source = find(str(tmp_path / "tars"))
    assert source.split == "archives test.tar.xz, train.tar.xz" and len(source.items) == 24
    (tmp_path / "tars" / "test.tar.xz").unlink()
    assert {item.split for item in find(str(tmp_path / "tars")).items} == {None}


def test_predicting_a_tar_gives_its_items_and_cifars_archive_stays_one_file(tmp_path):
    spec = DataSpec("x", "image", 2, 3, (9, 12), "uint8", ("cat", "dog"))
    archive = tarred(tmp_path / "a.tar.bz2", pictures(tmp_path / "in"))
    got = list(read_path(archive, spec))
    assert [sample.path for sample in got] == [str(file) for file in walk(archive)] and len(got) == 12
    from gridsight.data.readers.cifar import CifarReader

    (tmp_path / "cifar").mkdir()
    path, wanted = CifarReader().write_example(tmp_path / "cifar")[-1]
    spec = DataSpec("x", "image", 2, 3, (32, 32), "uint8", ("cat", "dog"))
    assert [sample.path for sample in read_path(path, spec)] == [sample.path for sample in wanted]
    assert [item.reader for item in find(str(path)).items] == ["cifar"]


def test_a_tar_that_unpacks_to_too_much(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "bomb.tar.bz2", "w:bz2") as out:
        info = tarfile.TarInfo("cat/zeros.png")
        info.size = 64 << 20
        out.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(ReadError, match="unpacks to more than 1,000 times its packed size"):
        find(str(tmp_path / "bomb.tar.bz2"))
    good = tarred(tmp_path / "a.tar.gz", pictures(tmp_path / "in"))
    monkeypatch.setattr(archives, "MAX_TOTAL", 5000)
    with pytest.raises(ReadError, match=r"a.tar.gz: not a readable tar archive \(unpacks to more than the 5,000"):
        find(str(good))
    monkeypatch.setattr(archives, "MAX_TOTAL", 1 << 30)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(ReadError, match="holds 4 entries; at most 3"):
        find(str(good))
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    monkeypatch.setattr(archives, "MAX_MEMBER", 100)
    source = find(str(good))
    (error,) = decode(source, source.items[0])
    assert isinstance(error, ReadError) and "at most 100 are read" in error.reason


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_a_tar_cut_short_says_so(tmp_path, suffix, share):
    archive = tarred(tmp_path / f"a{suffix}", pictures(tmp_path / "in"))
    data = archive.read_bytes()
    if suffix == ".tar":
        data = data.rstrip(b"\0")
    archive.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ReadError, match="not a readable tar archive"):
        find(str(archive))


def test_flipped_bytes_of_a_tar_give_errors_and_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in (".tar", ".tar.gz", ".tar.xz"):
        archive = tarred(tmp_path / f"a{suffix}", pictures(tmp_path / f"in{suffix}"))
        data, noticed = archive.read_bytes(), 0
        whole = [one for item in find(str(archive)).items for one in decode(find(str(archive)), item)]
        assert whole and all(isinstance(one, Sample) for one in whole)
        for _ in range(40):
            changed = bytearray(data)
            changed[rng.integers(len(data))] = rng.integers(256)
            archive.write_bytes(changed)
            try:
                source = find(str(archive))
            except (ReadError, UsageError, DataError):
                noticed += 1
                continue
            found = [one for item in source.items for one in decode(source, item)]
            assert all(isinstance(one, Sample | ReadError) for one in found)
            noticed += bool(source.bad) or any(isinstance(one, ReadError) for one in found)
        assert noticed > 0, f"no damage to a {suffix} was noticed"


# ---- TIFF


def tiff(path: Path, array: np.ndarray, **options) -> File:
    tifffile.imwrite(path, array, metadata=None, **options)
    return File(path)


def read(file: File, axes: str | None = None) -> np.ndarray:
    return ImageReader().read_single(file, axes).array


KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
KEPT = {"uint8": "uint8", "int8": "int16", "uint16": "uint16", "int16": "int16"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bands", range(1, 8))
def test_tiff_of_any_bands_and_type_bit_for_bit(tmp_path, bands, kind):
    rng = np.random.default_rng(bands)
    size = (bands, 20, 35)
    if np.dtype(kind).kind == "f":
        array = rng.normal(0, 100, size).astype(kind)
    else:
        limits = np.iinfo(kind)
        low, high = max(limits.min, -(1 << 24)), min(limits.max, 1 << 24)
        array = rng.integers(low, high, size, endpoint=True).astype(kind)
    wanted = array.astype(KEPT.get(kind, "float32"))
    ways = {
        "planes": {"planarconfig": "separate"} if bands > 1 else {},
        "deflate": {"compression": "zlib", "rowsperstrip": 7},
        "lzw": {"compression": "lzw", "tile": (16, 16), "predictor": np.dtype(kind).kind != "f"},
        "packbits": {"compression": "packbits"} if array.dtype.itemsize == 1 else {"compression": "zstd"},
        "big-endian": {"byteorder": ">", "bigtiff": True},
    }
    for name, options in ways.items():
        apart = options.get("planarconfig") == "separate" or bands == 1
        stored = (array[0] if bands == 1 else array) if apart else array.transpose(1, 2, 0)
        if bands > 1 and not apart:
            options = {**options, "planarconfig": "contig"}
        got = read(tiff(tmp_path / f"{name}.tif", stored, photometric="minisblack", **options))
        assert got.dtype == wanted.dtype, name
        np.testing.assert_array_equal(got, wanted, err_msg=name)


def test_tiff_pictures_of_three_bands_stay_what_they_were(tmp_path):
    rgb = nasty.picture()
    for name, options in (
        ("plain", {}),
        ("deflate", {"compression": "zlib"}),
        ("planes", {"planarconfig": "separate"}),
    ):
        stored = rgb.transpose(2, 0, 1) if "planarconfig" in options else rgb
        np.testing.assert_array_equal(
            read(tiff(tmp_path / f"{name}.tif", stored, photometric="rgb", **options)), nasty.first(rgb)
        )
    deep = rgb.astype(np.uint16) * 257 + 3
    np.testing.assert_array_equal(read(tiff(tmp_path / "deep.tif", deep, photometric="rgb")), nasty.first(deep))
    alpha = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    file = tiff(tmp_path / "alpha.tif", alpha, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read(file), nasty.first(rgb))
    wide = np.dstack([deep, np.full(rgb.shape[:2], 0x7FFF, np.uint16)])
    file = tiff(tmp_path / "half.tif", wide, photometric="rgb", extrasamples=["unassalpha"])
    assert np.abs(read(file) - (nasty.first(deep) / 2 + 65535 / 2)).max() < 2
    infrared = np.dstack([rgb, rgb[..., :1]])
    file = tiff(tmp_path / "infrared.tif", infrared, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(read(file), nasty.first(infrared))


def test_tiff_pages_are_a_stack_and_with_axes_bands(tmp_path):
    stack = np.random.default_rng(0).integers(0, 60_000, (5, 12, 17), dtype=np.uint16)
    file = tiff(tmp_path / "stack.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(read(file), stack[None])
    np.testing.assert_array_equal(read(file, "CHW"), stack)
    colours = np.random.default_rng(0).integers(0, 255, (4, 6, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        read(tiff(tmp_path / "c.tif", colours, photometric="rgb")), colours.transpose(3, 0, 1, 2)
    )
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as out:
        out.write(stack[0], metadata=None)
        out.write(stack[0, ::2, ::2], subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read(File(tmp_path / "pyramid.tif")), stack[:1])
    with tifffile.TiffWriter(tmp_path / "odd.tif") as out:
        out.write(stack[0], metadata=None)
        out.write(stack[0, ::2], metadata=None)
    with pytest.raises(ReadError, match=r"pages of different kinds: page 2 is 17 x 6, .* and the first 17 x 12"):
        read(File(tmp_path / "odd.tif"))


def test_bands_train_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("field", "water"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(3):
            array = rng.integers(0, 10_000, (6, 16, 16), dtype=np.uint16)
            tiff(tmp_path / "set" / label / f"{i}.tif", array, photometric="minisblack", planarconfig="separate")
    found = cached(find(str(tmp_path / "set")), QUIET)
    assert (found.spec.kind, found.spec.channels, found.spec.dtype, found.spec.spatial) == (
        "image",
        6,
        "uint16",
        (16, 16),
    )
    assert len(found) == 6 and not found.bad


def test_tiff_without_tifffile_says_what_to_install(tmp_path, monkeypatch):
    file = tiff(tmp_path / "five.tif", np.zeros((5, 4, 4), np.uint8), photometric="minisblack", planarconfig="separate")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ReadError, match=r'pip install "gridsight\[tiff\]"'):
        read(file)
    plain = tmp_path / "plain.tif"
    Image.fromarray(nasty.picture()).save(plain)
    assert read(File(plain)).shape == (3, 16, 24)


# ---- clips


def clip(frames: int = 5, height: int = 8, width: int = 10, seed: int = 0) -> np.ndarray:
    """(C, T, H, W) of few colours, so that GIF keeps them."""
    return np.random.default_rng(seed).integers(0, 3, (3, frames, height, width), dtype=np.uint8) * 100


def save_frames(folder: Path, array: np.ndarray, name: str = "frame_{}.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(array.shape[1]):
        Image.fromarray(array[:, i].transpose(1, 2, 0)).save(folder / name.format(i))


def save_animation(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray(array[:, i].transpose(1, 2, 0)) for i in range(array.shape[1])]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **lossless)


def test_each_folder_of_frames_is_a_clip_in_natural_order(tmp_path):
    root, arrays = tmp_path / "clips", {}
    for label in ("wave", "nod"):
        for i in range(3):
            arrays[label, f"take{i}"] = clip(12, seed=len(arrays))
            save_frames(root / label / f"take{i}", arrays[label, f"take{i}"])  # frame_10 comes after frame_9
    (root / "wave" / "take0" / "Thumbs.db").write_bytes(b"x")
    source = find(str(root), frames=True)
    assert source.clips and [item.label for item in source.items] == ["nod"] * 3 + ["wave"] * 3
    for item, sample in zip(source.items, samples(source), strict=True):
        np.testing.assert_array_equal(sample.array, arrays[item.label, item.file.name])
        assert Header.of(sample) == source.readers["image"].probe(item.file)
    first = cached(source, QUIET)
    assert (first.spec.kind, first.spec.ndim, first.spec.spatial) == ("video", 3, (12, 8, 10))
    for archive in (zipped(tmp_path / "clips.zip", root), tarred(tmp_path / "clips.tar.gz", root)):
        packed = cached(find(str(archive), frames=True), QUIET)
        assert packed.fingerprint == first.fingerprint
    long = find(str(root), frames=True, pattern="{label}/{kind}e{number}", group="number")
    assert [item.fields for item in long.items] == [{"kind": "tak", "number": str(i)} for i in range(3)] * 2
    by_name = find(str(root), frames=True, pattern="{take}", group="take")
    assert [item.fields["take"] for item in by_name.items] == ["take0", "take1", "take2"] * 2
    parts = split(
        [item.label for item in by_name.items], [i.fields["take"] for i in by_name.items], None, 0, holdout=0.4
    )
    takes = {name: {by_name.items[i].fields["take"] for i in index} for name, index in parts.named()}
    assert not takes["train"] & takes["test"]
    rows = "".join(f"clips/{label}/{take},{label}\n" for label, take in arrays)
    (tmp_path / "clips.csv").write_text("path,label\n" + rows)
    listed = find(str(tmp_path / "clips.csv"), frames=True)
    assert {str(item.file) for item in listed.items} == {str(item.file) for item in source.items}
    with pytest.raises(UsageError, match="is a folder; --frames"):
        find(str(tmp_path / "clips.csv"))
    before = source.fingerprint()
    save_frames(root / "wave" / "take0", clip(12, seed=99))
    assert find(str(root), frames=True).fingerprint() != before
    spec = first.spec
    assert [sample.path for sample in read_path(root / "nod", spec)] == [
        str(root / "nod" / f"take{i}") for i in range(3)
    ]
    (one,) = read_path(root / "nod" / "take1", spec)
    np.testing.assert_array_equal(one.array, arrays["nod", "take1"])
    (error,) = read_path(root / "nod" / "take1" / "frame_0.png", spec)
    assert isinstance(error, ReadError) and "is a still picture" in error.reason


def test_frames_do_not_change_ordinary_pictures(tmp_path):
    root = tmp_path / "photos"
    for label in ("cat", "dog"):
        save_frames(root / label / "patient1", clip(3))
    assert [item.file.name for item in find(str(root)).items] == [f"frame_{i}.png" for i in range(3)] * 2
    save_frames(root / "cat" / "patient2", clip(2))
    with pytest.raises(UsageError, match=r"2 folders of frames and no class folders"):
        find(str(root / "cat"), frames=True)


def test_what_is_wrong_with_frames(tmp_path):
    root = tmp_path / "clips"
    for label in ("a", "b"):
        for i in range(2):
            save_frames(root / label / str(i), clip(4))
    Image.fromarray(np.zeros((9, 10, 3), np.uint8)).save(root / "a" / "0" / "frame_2.png")
    Image.fromarray(np.full((8, 10), 7, np.uint8)).save(root / "a" / "1" / "frame_2.png")
    (root / "b" / "0" / "frame_3.png").write_bytes(b"no picture")
    source = find(str(root), frames=True)
    got = [found for item in source.items for found in decode(source, item)]
    assert isinstance(got[0], ReadError) and "frame_2.png is 10 x 9 uint8, and frame_0.png is 10 x 8" in got[0].reason
    assert got[0].path == str(root / "a" / "0")
    assert isinstance(got[1], Sample) and (got[1].array[:, 2] == 7).all()  # a gray frame is repeated
    assert isinstance(got[2], ReadError) and got[2].path.endswith("frame_3.png")
    Image.fromarray(np.zeros((9, 10, 3), np.uint8)).save(root / "loose.png")
    with pytest.raises(UsageError, match=r"loose.png lies in no folder"):
        find(str(root), frames=True)
    np.save(root / "a" / "x.npy", np.zeros((4, 4)))
    with pytest.raises(UsageError, match=r"mixes|takes folders of pictures"):
        find(str(root), frames=True)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animated_pictures_are_clips_where_all_are(tmp_path, suffix):
    root, arrays = tmp_path / "clips", {}
    for label in ("a", "b"):
        for i in range(2):
            arrays[f"{label}/{i}{suffix}"] = clip(4 + i, seed=len(arrays))
            save_animation(root / label / f"{i}{suffix}", arrays[f"{label}/{i}{suffix}"])
    source = find(str(root))
    assert source.clips
    for sample, name in zip(samples(source), sorted(arrays), strict=True):
        np.testing.assert_array_equal(sample.array, arrays[name])
    spec = cached(source, QUIET).spec
    assert spec.kind == "video" and spec.spatial == (4, 8, 10)
    (answer,) = read_path(root / "a" / f"0{suffix}", spec)
    np.testing.assert_array_equal(answer.array, arrays[f"a/0{suffix}"])
    assert len(list(read_path(root, spec))) == 4
    before = source.fingerprint()
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(root / "b" / f"2{suffix}")
    still = find(str(root))
    assert not still.clips and any("the first frame is taken" in note for note in still.notes)
    assert samples(still)[0].array.shape[1:] == (8, 10)
    (root / "b" / f"2{suffix}").unlink()
    assert find(str(root)).fingerprint() == before


def test_clips_of_many_lengths_keep_all_of_their_time(tmp_path):
    for label, count in (("a", 6), ("b", 12)):
        for i in range(2):
            array = np.zeros((3, count, 10, 10), np.uint8)
            array[:, -1] = 200  # the last frame would be lost by a cut in the middle
            save_frames(tmp_path / "clips" / label / str(i), array)
    found = cached(find(str(tmp_path / "clips"), frames=True), QUIET)
    assert found.spec.spatial == (6, 10, 10) and found.spec.fit == "crop"
    assert (np.asarray(found.x)[:, :, -1] > 60).all() and (np.asarray(found.x)[:, :, 0] == 0).all()
