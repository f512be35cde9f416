"""Volumes: NIfTI against nibabel, DICOM against files written with pydicom, one physical scale, and the simulators."""

import gzip
import itertools
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

from gridsight.__main__ import main
from gridsight.artifact.inputs import read_path
from gridsight.core.console import Console
from gridsight.core.errors import ReadError, UsageError
from gridsight.data import spacing
from gridsight.data.cache import cached
from gridsight.data.conform import conform
from gridsight.data.decoding import decode
from gridsight.data.files import File
from gridsight.data.orientation import upright, usable
from gridsight.data.readers import READERS
from gridsight.data.sample import Header, Sample
from gridsight.data.sets import SETS, _simulated
from gridsight.data.sets import lesions as lesions_module
from gridsight.data.sets import solids as solids_module
from gridsight.data.source import find
from gridsight.data.survey import survey
from gridsight.models import create
from gridsight.training.recipe import recipe

SHARED = Path(__file__).parents[3] / "shared" / "data" / "nifti_nibabel"
REAL = sorted(SHARED.glob("*.nii*"))
RNG = np.random.default_rng(0)
BODY = RNG.integers(-900, 1500, (4, 6, 5), dtype=np.int16)
"""An anatomy as we keep it: (feet to head, back to front, left to right), 3 x 2 x 1.5 mm."""
MM = (3.0, 2.0, 1.5)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GRIDSIGHT_DATA", raising=False)
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))


def nifti(path: Path) -> Sample:
    return READERS.create("nifti").read_single(File(path))


def stored(order: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[np.ndarray, np.ndarray]:
    """BODY with its axes (x, y, z) in another order and direction, and the affine that says so."""
    ras, steps = BODY.transpose(2, 1, 0), np.diag(MM[::-1])
    array, columns, origin = ras.transpose(order), steps[:, order].copy(), np.array([-7.0, 11.0, 3.0])
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis)
            origin = origin + columns[:, axis] * (array.shape[axis] - 1)
            columns[:, axis] *= -1
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    return array, affine


# ---- NIfTI


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_any_orientation_gives_the_same_array(order: tuple[int, ...], tmp_path: Path) -> None:
    for number, flips in enumerate(itertools.product((False, True), repeat=3)):
        array, affine = stored(order, flips)
        path = tmp_path / f"{number}.nii"
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
        got = nifti(path)
        np.testing.assert_array_equal(got.array[0], BODY)
        assert got.array.dtype == np.int16
        assert got.spacing == pytest.approx(MM)
        header = READERS.create("nifti").probe(File(path))
        assert (header.spatial, header.spacing) == (BODY.shape, got.spacing)


def test_oblique_volumes_are_turned_as_nibabel_turns_them(tmp_path: Path) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        tilt = Rotation.from_rotvec(rng.uniform(-0.35, 0.35, 3)).as_matrix()
        affine = np.eye(4)
        affine[:3, :3] = tilt @ np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3) * rng.uniform(0.5, 4, 3)
        path = tmp_path / f"{seed}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(rng.integers(0, 99, (3, 4, 5), dtype=np.uint8), affine), path)
        wanted = nibabel.as_closest_canonical(nibabel.load(path))
        got = nifti(path)
        np.testing.assert_array_equal(got.array[0], np.asarray(wanted.dataobj).transpose(2, 1, 0))
        assert got.spacing == pytest.approx(nibabel.affines.voxel_sizes(wanted.affine)[::-1], rel=1e-5)


@pytest.mark.skipif(not REAL, reason=f"{SHARED} is not on this machine")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_volumes_are_nibabels(path: Path) -> None:
    image = nibabel.as_closest_canonical(nibabel.load(path))
    wanted = np.asarray(image.dataobj)
    wanted = wanted[..., None] if wanted.ndim == 3 else wanted
    got = nifti(path)
    np.testing.assert_array_equal(got.array, wanted.transpose(3, 2, 1, 0).astype(got.array.dtype))
    assert got.array.dtype == (np.float32 if wanted.dtype == np.float64 else wanted.dtype.newbyteorder("="))
    assert got.spacing == pytest.approx(nibabel.affines.voxel_sizes(image.affine)[::-1], rel=1e-5)
    assert Header.of(got) == READERS.create("nifti").probe(File(path))


def test_a_slope_that_float32_cannot_hold_is_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(BODY, np.eye(4))
    image.header.set_slope_inter(1e37, 0)
    nibabel.save(image, tmp_path / "x.nii")
    with pytest.raises(ReadError, match="NaN or infinite"):
        nifti(tmp_path / "x.nii")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">i2", ">u4", "<i8", "f4", ">f8"])
def test_types_and_byte_orders(kind: Any, dtype: str, tmp_path: Path) -> None:
    array = RNG.integers(0, 100, (3, 4, 5)).astype(dtype)
    image = kind(array, np.eye(4), dtype=np.dtype(dtype).newbyteorder("="))
    image.header.set_data_dtype(dtype)
    nibabel.save(image, tmp_path / "x.nii")
    got = nifti(tmp_path / "x.nii").array
    kept = {"u1": "u1", "i1": "i2", "u2": "u2", "i2": "i2"}.get(dtype.strip("<>"), "f4")
    np.testing.assert_array_equal(got[0], array.transpose(2, 1, 0))
    assert got.dtype == np.dtype(kept)


def test_a_big_endian_file(tmp_path: Path) -> None:
    array = RNG.integers(-99, 99, (3, 4, 5), dtype=np.int16)
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2, 2, 1]), header), tmp_path / "x.nii")
    assert (tmp_path / "x.nii").read_bytes()[:4] == b"\0\0\1\x5c"
    np.testing.assert_array_equal(nifti(tmp_path / "x.nii").array[0], array.transpose(2, 1, 0))


def test_scaled_values_are_nibabels(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(RNG.integers(0, 4000, (3, 4, 5), dtype=np.int16), np.eye(4))
    image.header.set_slope_inter(0.0321, -7.5)
    nibabel.save(image, tmp_path / "x.nii")
    got = nifti(tmp_path / "x.nii").array
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0], nibabel.load(tmp_path / "x.nii").get_fdata().transpose(2, 1, 0), rtol=1e-6)


def test_further_axes_are_channels(tmp_path: Path) -> None:
    moving = RNG.integers(0, 99, (3, 4, 5, 2), dtype=np.uint8)
    nibabel.save(nibabel.Nifti1Image(moving, np.eye(4)), tmp_path / "time.nii")
    np.testing.assert_array_equal(nifti(tmp_path / "time.nii").array, moving.transpose(3, 2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(moving[:, :, :, None], np.eye(4)), tmp_path / "vector.nii")
    np.testing.assert_array_equal(nifti(tmp_path / "vector.nii").array, moving.transpose(3, 2, 1, 0))
    colours = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for i, name in enumerate("RGB"):
        colours[name] = RNG.integers(0, 256, (3, 4, 5)) // (i + 1)
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "colour.nii")
    got = nifti(tmp_path / "colour.nii").array
    for i, name in enumerate("RGB"):
        np.testing.assert_array_equal(got[i], colours[name].transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(moving[:, :, 0, 0], np.eye(4)), tmp_path / "flat.nii")
    np.testing.assert_array_equal(nifti(tmp_path / "flat.nii").array[0, 0], moving[:, :, 0, 0].T)
    many = nibabel.Nifti1Image(np.zeros((2, 2, 2, 2, 2), np.uint8), np.eye(4))
    nibabel.save(many, tmp_path / "many.nii")
    with pytest.raises(ReadError, match="5 axes"):
        nifti(tmp_path / "many.nii")


def test_where_the_orientation_comes_from(tmp_path: Path) -> None:
    array = RNG.integers(0, 99, (3, 4, 5), dtype=np.uint8)
    for name, sform, qform in (("both", 1, 1), ("q", 0, 1), ("none", 0, 0)):
        image = nibabel.Nifti1Image(array, np.diag([-2.0, 3, 4, 1]))
        image.header["sform_code"], image.header["qform_code"] = sform, qform
        path = tmp_path / f"{name}.nii"
        nibabel.save(image, path)
        wanted = nibabel.as_closest_canonical(nibabel.load(path))
        np.testing.assert_array_equal(nifti(path).array[0], np.asarray(wanted.dataobj).transpose(2, 1, 0))
        assert nifti(path).spacing == (4.0, 3.0, 2.0)
    image = nibabel.Nifti1Image(array, np.diag([2.0, 3, 4, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "micron.nii")
    assert nifti(tmp_path / "micron.nii").spacing == pytest.approx((0.004, 0.003, 0.002))
    image = nibabel.Nifti1Image(array, None)
    image.header["pixdim"][1:4] = 0
    nibabel.save(image, tmp_path / "unknown.nii")
    data = bytearray((tmp_path / "unknown.nii").read_bytes())
    data[80:92] = bytes(12)  # nibabel writes 1 where it has nothing
    (tmp_path / "unknown.nii").write_bytes(data)
    assert nifti(tmp_path / "unknown.nii").spacing is None


def test_a_pair_of_header_and_values(tmp_path: Path) -> None:
    for label, value in (("a", 10), ("b", 200)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(2):
            array = np.full((3, 4, 5), value + i, np.uint8)
            nibabel.save(nibabel.Nifti1Pair(array, np.eye(4)), tmp_path / "set" / label / f"{i}.hdr")
    source = find(str(tmp_path / "set"))
    assert len(source.items) == 4 and not source.bad
    assert all(next(iter(decode(source, item))).array.max() >= 10 for item in source.items)  # type: ignore[union-attr]
    before, image = source.fingerprint(), tmp_path / "set" / "b" / "1.img"
    image.write_bytes(bytes(60))
    os.utime(image, ns=(1, 1))
    assert find(str(tmp_path / "set")).fingerprint() != before
    (tmp_path / "set" / "b" / "1.img.gz").write_bytes(gzip.compress(bytes(range(60))))
    image.unlink()
    assert nifti(tmp_path / "set" / "b" / "1.hdr").array.max() == 59
    (tmp_path / "set" / "b" / "1.img.gz").unlink()
    with pytest.raises(ReadError, match=r"1\.img with the values is not beside it"):
        nifti(tmp_path / "set" / "b" / "1.hdr")


def test_a_declared_size_is_not_believed(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "x.nii")
    data = bytearray((tmp_path / "x.nii").read_bytes())
    data[42:48] = np.array([900, 900, 900], "<i2").tobytes()
    (tmp_path / "x.nii").write_bytes(data)
    (tmp_path / "y.nii.gz").write_bytes(gzip.compress(bytes(data)))
    (tmp_path / "z.nii.gz").write_bytes(gzip.compress(bytes(data) + bytes(40 << 20)))  # may hold it, for all one knows
    tracemalloc.start()
    for name in ("x.nii", "y.nii.gz"):
        with pytest.raises(ReadError, match="900x900x900"):
            nifti(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    with pytest.raises(ReadError, match="900x900x900"):
        nifti(tmp_path / "z.nii.gz")


def test_without_the_packages_the_error_says_what_to_install(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "x.nii")
    write(tmp_path / "x.dcm", np.zeros((4, 4), np.uint8))
    code = (
        "import sys; sys.modules['nibabel'] = sys.modules['pydicom'] = None\n"
        "from pathlib import Path\nfrom gridsight.data.files import File\n"
        "from gridsight.data.readers import find_reader\n"
        "for name in ('x.nii', 'x.dcm'):\n"
        f"    file = File(Path({str(tmp_path)!r}) / name)\n"
        "    try: find_reader(file)[1].read_single(file)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ReadError") and 'pip install "gridsight[volumes]"' in line for line in lines)


# ---- DICOM


def write(path: Path, pixels: np.ndarray, syntax: str = "", **elements: Any) -> None:
    """A file of (H, W), (frames, H, W) or (H, W, 3) pixels; `syntax` compresses it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset, bits = Dataset(), pixels.dtype.itemsize * 8
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    colour = pixels.shape[-1] == 3 and pixels.ndim == 3
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": "1.2.3",
        "PatientID": "Doe^Jane",
        "Rows": pixels.shape[0 if colour else -2],
        "Columns": pixels.shape[1 if colour else -1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
        **({"PlanarConfiguration": 0} if colour else {}),
        **({"NumberOfFrames": len(pixels)} if pixels.ndim == 3 and not colour else {}),
        **elements,
    }
    values.setdefault("HighBit", values["BitsStored"] - 1)
    for name, value in values.items():
        setattr(dataset, name, value)
    if syntax:
        dataset.compress(syntax)
    dataset.save_as(path, enforce_file_format=True)


def dicom(path: Path) -> Sample:
    return READERS.create("dicom").read_single(File(path))


@pytest.mark.parametrize(("frames", "words"), [(20_000_000, "100,000 frames"), (90_000, "is cut short")])
def test_frames_that_are_not_there_cost_nothing(tmp_path, frames, words):
    write(tmp_path / "x.dcm", np.zeros((1, 1), np.uint8), NumberOfFrames=frames, RescaleSlope=2, RescaleIntercept=0)
    with pytest.raises(ReadError, match=words):
        READERS.create("dicom").probe(File(tmp_path / "x.dcm"))


def test_values_are_those_of_the_rescaling(tmp_path: Path) -> None:
    raw = RNG.integers(0, 4096, (5, 6), dtype=np.uint16)
    signed = RNG.integers(-2000, 2000, (5, 6), dtype=np.int16)
    cases: list[tuple[np.ndarray, dict[str, Any], np.ndarray]] = [
        (raw, {"BitsStored": 12}, raw),
        (raw, {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}, raw.astype(np.int16) - np.int16(1024)),
        (raw, {"RescaleSlope": 1, "RescaleIntercept": -1024}, raw.astype(np.float32) - 1024),  # 16 bits do not fit
        (raw, {"BitsStored": 12, "RescaleSlope": 0.25, "RescaleIntercept": 3}, raw.astype(np.float32) / 4 + 3),
        (signed, {"BitsStored": 12}, signed),
        (raw | 0xF000, {"BitsStored": 12}, raw),  # an overlay in the spare bits
        (signed & 0x0FFF, {"BitsStored": 12}, signed),  # a sign that is not carried on
        (raw, {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1"}, 4095 - raw),
        (signed, {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1"}, -1 - signed),
        (raw.astype(np.uint8), {}, raw.astype(np.uint8)),
        ((raw.astype(np.uint32) << 12), {}, (raw.astype(np.uint32) << 12).astype(np.float32)),
    ]
    for i, (pixels, elements, wanted) in enumerate(cases):
        write(tmp_path / f"{i}.dcm", pixels, PixelSpacing=[0.5, 0.25], **elements)
        got = dicom(tmp_path / f"{i}.dcm")
        assert got.array.dtype == wanted.dtype, i
        np.testing.assert_array_equal(got.array, wanted[None], str(i))
        assert got.spacing == (0.5, 0.25)
        assert Header.of(got) == READERS.create("dicom").probe(File(tmp_path / f"{i}.dcm"))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"])
def test_compressed_without_loss(syntax: str, tmp_path: Path) -> None:
    scan, colour = RNG.integers(0, 4096, (64, 70), dtype=np.uint16), RNG.integers(0, 256, (64, 70, 3), dtype=np.uint8)
    write(tmp_path / "scan.dcm", scan, syntax, BitsStored=12)
    np.testing.assert_array_equal(dicom(tmp_path / "scan.dcm").array[0], scan)
    write(tmp_path / "colour.dcm", colour, syntax)
    np.testing.assert_array_equal(dicom(tmp_path / "colour.dcm").array, colour.transpose(2, 0, 1))
    cine = RNG.integers(0, 256, (3, 64, 70), dtype=np.uint8)
    write(tmp_path / "cine.dcm", cine, syntax)
    np.testing.assert_array_equal(dicom(tmp_path / "cine.dcm").array[0], cine)


def test_compressed_frames_larger_than_declared_are_not_unpacked(tmp_path: Path) -> None:
    write(tmp_path / "x.dcm", np.zeros((64, 70), np.uint8), "1.2.840.10008.1.2.4.90")
    changed(tmp_path / "x.dcm", Rows=32)
    with pytest.raises(ReadError, match="64 x 70 x 1 where the header declares 32 x 70 x 1"):
        dicom(tmp_path / "x.dcm")


def test_jpeg_within(tmp_path: Path) -> None:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(stream, "JPEG", quality=95)
    write(tmp_path / "x.dcm", np.zeros((16, 16), np.uint8))
    for name, rows, words in (("x", 16, None), ("lie", 8, "16 x 16 x 1 where the header declares 8 x 16 x 1")):
        dataset = pydicom.dcmread(tmp_path / "x.dcm")
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
        dataset.Rows, dataset.PixelData = rows, encapsulate([stream.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(tmp_path / f"{name}2.dcm")
        if words is None:
            wanted = np.asarray(Image.open(io.BytesIO(stream.getvalue())))
            np.testing.assert_array_equal(dicom(tmp_path / f"{name}2.dcm").array[0], wanted)
        else:
            with pytest.raises(ReadError, match=words):
                dicom(tmp_path / f"{name}2.dcm")


def planes(normal: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """BODY as slices (n, rows, columns) along one of our axes, and DICOM's directions of columns, rows and slices."""
    ours = np.array([[0, 0, 1.0], [0, -1.0, 0], [-1.0, 0, 0]])  # head, front and right of the patient in DICOM's axes
    row, column = (axis for axis in range(3) if axis != normal)
    # scanners show the front above and the right on the left: both axes of a slice turned round
    array = BODY.transpose(normal, row, column)[:, ::-1, ::-1]
    return array, -ours[column], -ours[row], ours[normal]


def series(folder: Path, normal: int = 0, **elements: Any) -> None:
    """BODY as a folder of slices in no order, its planes along axis `normal` of ours."""
    slices, columns, rows, along = planes(normal)
    row, column = (axis for axis in range(3) if axis != normal)
    for i, pixels in enumerate(slices):
        write(
            folder / f"{len(slices) - 1 - i:02}.dcm",
            np.ascontiguousarray(pixels),
            ImageOrientationPatient=[*columns, *rows],
            ImagePositionPatient=list(along * MM[normal] * i + [100.0, -50.0, 20.0]),
            PixelSpacing=[MM[row], MM[column]],
            SliceThickness=99,
            **elements,
        )


@pytest.mark.parametrize("normal", [0, 1, 2])
def test_a_series_is_the_volume_that_it_was_cut_from(normal: int, tmp_path: Path) -> None:
    series(tmp_path / "s", normal)
    (tmp_path / "s" / "notes.txt").write_text("no slice")
    got = dicom(tmp_path / "s")
    np.testing.assert_array_equal(got.array[0], BODY)
    assert got.spacing == pytest.approx(MM)
    assert got.path == str(tmp_path / "s")
    assert Header.of(got) == READERS.create("dicom").probe(File(tmp_path / "s"))


def test_the_same_volume_as_nifti_is_the_same_array(tmp_path: Path) -> None:
    """An oblique series, and the affine that the DICOM standard gives it (PS3.3, C.7.6.2.1.1), seen by nibabel."""
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    pixels = RNG.integers(0, 4096, (5, 6, 7), dtype=np.uint16)
    for i in range(5):
        write(
            tmp_path / "s" / f"{i}.dcm",
            pixels[i],
            ImageOrientationPatient=[*turn[:, 0], *turn[:, 1]],
            ImagePositionPatient=list(turn[:, 2] * 4.0 * i),
            PixelSpacing=[0.8, 0.6],
        )
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ turn * [0.6, 0.8, 4.0]
    nibabel.save(nibabel.Nifti1Image(pixels.transpose(2, 1, 0), affine), tmp_path / "x.nii")
    one, other = dicom(tmp_path / "s"), nifti(tmp_path / "x.nii")
    np.testing.assert_array_equal(one.array, other.array)
    assert one.spacing == pytest.approx(other.spacing, rel=1e-5)


def test_many_frames_with_places_are_a_volume(tmp_path: Path) -> None:
    slices, columns, rows, along = planes(0)
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = [MM[1], MM[2]], [*columns, *rows]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    frames = []
    order = [2, 0, 3, 1]
    for i in order:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = list(along * MM[0] * i)
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    write(
        tmp_path / "x.dcm",
        np.ascontiguousarray(slices[order]),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )
    got = dicom(tmp_path / "x.dcm")
    np.testing.assert_array_equal(got.array[0], BODY)
    assert got.spacing == pytest.approx(MM)
    assert Header.of(got) == READERS.create("dicom").probe(File(tmp_path / "x.dcm"))
    write(tmp_path / "cine.dcm", np.ascontiguousarray(slices))
    assert dicom(tmp_path / "cine.dcm").spacing is None
    np.testing.assert_array_equal(dicom(tmp_path / "cine.dcm").array[0], slices)


def copied(folder: Path) -> None:
    (folder / "copy.dcm").write_bytes((folder / "00.dcm").read_bytes())


def removed(folder: Path) -> None:
    (folder / "02.dcm").unlink()


def alone(folder: Path) -> None:
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()


def of_two_series(folder: Path) -> None:
    for name in ("00.dcm", "01.dcm"):
        changed(folder / name, SeriesInstanceUID="1.2.99")


def nowhere(folder: Path) -> None:
    write(folder / "02.dcm", np.zeros((6, 5), np.int16))


def of_another_size(folder: Path) -> None:
    write(folder / "02.dcm", np.zeros((9, 9), np.int16), **PLACE)


def turned(folder: Path) -> None:
    changed(folder / "02.dcm", ImageOrientationPatient=[1, 0, 0, 0, 0, 1])


def without_pixels(folder: Path) -> None:
    dataset = pydicom.dcmread(folder / "02.dcm")
    del dataset.PixelData
    dataset.save_as(folder / "02.dcm")


PLACE: dict[str, Any] = {
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [1, 1],
}


def changed(path: Path, **elements: Any) -> None:
    dataset = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (removed, "not evenly spaced: 6 mm from 03.dcm to 01.dcm, 3 mm as a rule (is a slice missing?)"),
        (copied, "00.dcm and copy.dcm lie at the same place"),
        (alone, "00.dcm: is the only slice in its folder"),
        (of_two_series, "holds 2 series (2 files such as 00.dcm; 2 files such as 02.dcm)"),
        (nowhere, "02.dcm: does not say where it lies"),
        (of_another_size, "02.dcm: is 9 x 9 where 00.dcm is 6 x 5"),
        (turned, "02.dcm: has another orientation or spacing than 00.dcm"),
        (without_pixels, "02.dcm: holds no pixel data"),
    ],
)
def test_faults_of_a_series_are_named(fault: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    series(tmp_path / "s")
    fault(tmp_path / "s")
    with pytest.raises(ReadError, match=re.escape(words)):
        dicom(tmp_path / "s")
    if fault is not without_pixels:  # which headers do not show
        with pytest.raises(ReadError, match=re.escape(words)):
            READERS.create("dicom").probe(File(tmp_path / "s"))


def test_folders_of_slices_are_items_and_patients_are_kept_together(tmp_path: Path) -> None:
    for label in ("healthy", "ill"):
        for patient in range(4):
            for scan in range(2):
                series(tmp_path / "set" / label / f"1.2.{patient}.{scan}", PatientID=f"{label} {patient}")
    (tmp_path / "set" / "ill" / "1.2.0.0" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    source = find(str(tmp_path / "set"), group="patient")
    assert len(source.items) == 16 and not source.bad and source.fields == ("patient",)
    assert {item.label for item in source.items} == {"healthy", "ill"}
    data = cached(source, Console(quiet=True))
    assert data.x.shape == (16, 1, *BODY.shape)
    np.testing.assert_array_equal(data.x[3, 0], BODY.astype(np.float32))
    assert len(set(data.groups)) == 8 and data.groups[0] == data.groups[1]
    assert not any("ill" in str(group) or "healthy" in str(group) for group in data.groups)  # the ID is not kept
    assert data.spec.spacing == pytest.approx(MM) and data.spec.fit == "exact"
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted((tmp_path / "set").rglob("*.dcm")):
            archive.write(path, path.relative_to(tmp_path / "set"))
    packed = find(str(tmp_path / "set.zip"))
    assert len(packed.items) == 16
    first = next(iter(decode(packed, packed.items[0])))
    assert isinstance(first, Sample) and first.path == f"{tmp_path / 'set.zip'}!healthy/1.2.0.0/"
    np.testing.assert_array_equal(first.array[0], BODY)
    named = find(str(tmp_path / "set"), pattern="{label}/1.2.{patient}.{scan}", group="scan")
    assert [item.fields["scan"] for item in named.items[:3]] == ["0", "1", "0"]
    before = source.fingerprint()
    (tmp_path / "set" / "ill" / "1.2.0.0" / "01.dcm").write_bytes(b"changed")
    assert find(str(tmp_path / "set"), group="patient").fingerprint() != before


def test_prediction_takes_a_folder_of_slices_as_one_item(tmp_path: Path) -> None:
    for patient in "12":
        series(tmp_path / "set" / patient)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted((tmp_path / "set").rglob("*.dcm")):
            archive.write(path, path.relative_to(tmp_path / "set"))
    spec = survey("x", [Header(1, BODY.shape, "int16", spacing=MM)], sound=False, size=None)
    for path in (tmp_path / "set", tmp_path / "set.zip"):
        got = list(read_path(path, spec))
        assert [Path(one.path).name for one in got if isinstance(one, Sample)] == [
            f"{'set.zip!' * (path.suffix != '')}{i}" for i in "12"
        ]
        assert len(got) == 2 and all(isinstance(one, Sample) and np.array_equal(one.array[0], BODY) for one in got)
    (single,) = read_path(tmp_path / "set" / "1" / "00.dcm", spec)
    assert isinstance(single, ReadError) and "give the folder of its series" in single.reason
    flat = survey("x", [Header(1, (6, 5), "int16")], sound=False, size=None)
    assert len(list(read_path(tmp_path / "set", flat))) == 8  # slices as pictures


def test_a_volume_that_does_not_say_its_patient_is_a_group_of_its_own(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for scan in range(4):
            series(tmp_path / "set" / label / f"1.2.{scan}", PatientID="" if scan > 1 else f"{label} {scan}")
    data = cached(find(str(tmp_path / "set"), group="patient"), Console(quiet=True))
    assert len(set(data.groups)) == 8 and None not in data.groups
    assert [group == path for group, path in zip(data.groups, data.paths, strict=True)] == [
        False,
        False,
        True,
        True,
    ] * 2
    assert "4 items without a patient, each a group of its own" in data.spec.notes


def test_pictures_in_folders_of_patients_are_no_series(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for patient in "12":
            for view in "xy":
                write(tmp_path / label / patient / f"{view}.dcm", RNG.integers(0, 9, (8, 8), dtype=np.uint8))
    source = find(str(tmp_path))
    assert len(source.items) == 8
    assert cached(source, Console(quiet=True)).x.shape == (8, 1, 8, 8)


def test_one_slice_a_patient_is_a_picture(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for patient in "12":
            write(tmp_path / label / patient / "x.dcm", np.zeros((8, 8), np.uint8), **PLACE)
    assert cached(find(str(tmp_path)), Console(quiet=True)).x.shape == (4, 1, 8, 8)


def test_a_missing_or_broken_slice_costs_one_item(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for patient in "123":
            series(tmp_path / "set" / label / patient)
    removed(tmp_path / "set" / "b" / "2")
    (tmp_path / "set" / "a" / "1" / "00.dcm").write_bytes(b"broken")  # the file that is looked at first
    data = cached(find(str(tmp_path / "set")), Console(quiet=True))
    assert len(data) == 4 and len(data.bad) == 2
    assert data.bad[0].startswith(str(tmp_path / "set" / "a" / "1" / "00.dcm") + ": is not a DICOM file")
    assert data.bad[1].startswith(str(tmp_path / "set" / "b" / "2") + ": its slices are not evenly spaced")


# ---- one physical scale


def ball(mm: tuple[float, ...], radius: float = 9.0, field: float = 30.0) -> np.ndarray:
    """(1, D, H, W): how much of each cell lies in a ball, at the centre of a field of so many mm."""
    places = [step * (np.arange(round(field / step)) + 0.5) - field / 2 for step in mm]
    z, y, x = np.meshgrid(*places, indexing="ij")
    edge = np.mean(mm)
    return np.clip(0.5 - (np.sqrt(z * z + y * y + x * x) - radius) / edge, 0, 1)[None].astype(np.float32)


def test_a_ball_is_the_same_at_any_spacing() -> None:
    headers = [Header(1, ball(mm).shape[1:], "float32", spacing=mm) for mm in ((1.0,) * 3, (1.5,) * 3, (2.0, 1.0, 1.0))]
    spec = survey("balls", headers, sound=False, size=None)
    assert spec.spacing == (1.5, 1.0, 1.0) and spec.spatial == (20, 30, 30) and spec.fit == "pad"
    assert spec.spacings == ((1.0, 1.0, 1.0), (2.0, 1.5, 1.5))
    items = [
        conform(Sample(ball(mm), "x", spacing=mm), spec)
        for mm in ((1.0,) * 3, (1.5,) * 3, (2.0, 1.0, 1.0), (0.7, 0.9, 0.5))
    ]
    volume = 4 / 3 * np.pi * 9**3
    for item in items:
        assert item.shape == (1, 20, 30, 30)
        assert item.sum() * 1.5 == pytest.approx(volume, rel=0.03)
        assert np.abs(item - items[0]).mean() < 0.015
    # as a picture of cells alone, half the spacing is twice the ball
    apart = conform(Sample(ball((1.0,) * 3), "x"), replace(spec, spacing=None, fit="crop"))
    assert np.abs(apart - conform(Sample(ball((1.5, 1.0, 1.0)), "x"), replace(spec, spacing=None))).mean() < 0.1


def test_fields_of_other_sizes_are_cut_and_given_margins_not_stretched() -> None:
    mm = (1.0, 1.0, 1.0)
    spec = survey("x", [Header(1, (30, 30, 30), "float32", spacing=mm)], sound=False, size=None)
    assert spec.fit == "exact" and spec.spacing == mm
    wanted = conform(Sample(ball(mm), "x", spacing=mm), spec)
    for field in (24.0, 40.0):
        got = conform(Sample(ball(mm, field=field) - 5, "x", spacing=mm), spec) + 5  # a margin of the lowest, not of 0
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_integers_stay_integers_when_resampled() -> None:
    array = RNG.integers(0, 256, (1, 8, 8, 8), dtype=np.uint8)
    out = spacing.resample(array, (2.0,) * 3, (1.0,) * 3, (16,) * 3, "x")
    assert out.dtype == np.uint8 and out.shape == (1, 16, 16, 16)
    assert out.mean() == pytest.approx(array.mean(), abs=1)


def test_many_cells_make_the_finest_axes_coarser() -> None:
    thick = [
        Header(1, (40, 400, 400), "int16", spacing=(5.0, 0.7, 0.7)),
        Header(1, (38, 400, 400), "int16", spacing=(5.0, 0.7, 0.7)),
    ]
    found = spacing.choose(thick, None, 48)
    assert found is not None
    assert np.prod(found.spatial) == pytest.approx(48**3, rel=0.05)
    assert found.spacing == pytest.approx((5.126,) * 3, abs=0.001)  # (190 * 280 * 280 mm / 48**3) ** (1 / 3)
    few = [
        Header(1, (12, 80, 80), "int16", spacing=(5.0, 0.7, 0.7)),
        Header(1, (12, 80, 90), "int16", spacing=(5.0, 0.7, 0.7)),
    ]
    kept = spacing.choose(few, None, 48)
    assert kept is not None and kept.spacing == (5.0, 0.7, 0.7) and kept.spatial == (12, 80, 80)
    given = spacing.choose(few, 6, 48)
    assert given is not None and given.spacing == (10.0, 1.4, 1.4) and given.spatial == (6, 40, 40)


def test_items_without_spacing_among_those_with_it() -> None:
    mm = (2.0, 1.0, 1.0)
    headers = [Header(1, (10, 20, 20), "float32", spacing=mm, count=9), Header(1, (12, 20, 20), "float32")]
    spec = survey("x", headers, sound=False, size=None)
    with pytest.raises(ReadError, match="says no spacing, and the data's volumes are brought to 2 x 1 x 1 mm"):
        conform(Sample(np.zeros((1, 12, 20, 20), np.float32), "x.npy"), spec)
    exact = np.ones((1, *spec.spatial), np.float32)
    np.testing.assert_array_equal(conform(Sample(exact, "x"), spec), exact)
    with pytest.raises(ReadError, match="makes no sense"):
        conform(Sample(exact, "x", spacing=(1e4,) * 3), spec)
    assert survey("x", headers, sound=False, size=None, fit="crop").spacing is None
    flat = survey("x", [Header(1, (10, 20), "uint8", spacing=(1.0, 1.0))], sound=False, size=None)
    assert flat.spacing is None  # pictures have no common scale


def test_thick_slices_are_pooled_last() -> None:
    plain = recipe(3, 1, (28, 28, 28), 2, 1000)
    assert recipe(3, 1, (28, 28, 28), 2, 1000, spacing=(0.9, 1.0, 1.1)) == plain
    arguments = recipe(3, 1, (16, 64, 64), 2, 1000, spacing=(5.0, 0.7, 0.7)).arguments
    assert arguments["strides"][0] == (1, 4, 4) and arguments["kernels"][0] == (1, 5, 5)
    cells = np.array([5.0, 0.7, 0.7])
    for step in (arguments["strides"][0], *arguments["pools"]):
        cells = cells * step
    assert cells.max() < 2 * cells.min()
    for mm, size in (((5.0, 0.7, 0.7), (16, 64, 64)), ((1.0, 4.0, 1.0), (30, 8, 30)), ((9.0, 1.0, 1.0), (3, 20, 20))):
        chosen = recipe(3, 1, size, 2, 1000, spacing=mm)
        create(chosen.model, ndim=3, in_channels=1, num_classes=2, **chosen.arguments)  # builds, and takes its size
        assert all(a <= b for a, b in zip(chosen.arguments["grid"], size, strict=True))


def test_directions() -> None:
    assert usable(np.eye(3)) and not usable(np.ones((3, 3))) and not usable(np.full((3, 3), np.nan))
    out, mm = upright(np.arange(24).reshape(1, 2, 3, 4), np.diag([-2.0, 3.0, 4.0]))
    assert out.shape == (1, 4, 3, 2) and mm == (4.0, 3.0, 2.0)
    assert out[0, 0, 0].tolist() == [12, 0]


def test_training_and_prediction_take_the_same_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gridsight

    rng = np.random.default_rng(0)
    for label, radius in (("large", 9.0), ("small", 4.0)):
        (tmp_path / "balls" / label).mkdir(parents=True)
        for i in range(12):
            mm = [(3.0,) * 3, (2.0,) * 3, (6.0, 3.0, 3.0)][i % 3]
            array = (200 * ball(mm, radius + rng.uniform(-1, 1))[0] + rng.uniform(0, 20)).astype(np.uint8)
            image = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([*mm[::-1], 1.0]))
            nibabel.save(image, tmp_path / "balls" / label / f"{i}.nii.gz")
    words = ["train", str(tmp_path / "balls"), "--out", str(tmp_path / "run"), "--epochs", "4", "--no-report"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "spacings from 2 x 2 x 2 to 6 x 3 x 3 mm: resampled to 3 x 3 x 3 mm" in said
    fine = ball((1.0,) * 3, 9.0)[0] * 200
    nibabel.save(nibabel.Nifti1Image(fine.transpose(2, 1, 0).astype(np.uint8), np.eye(4)), tmp_path / "fine.nii")
    coarse = ball((3.0,) * 3, 9.0)[0] * 200
    nibabel.save(
        nibabel.Nifti1Image(coarse.transpose(2, 1, 0).astype(np.uint8), np.diag([3.0, 3, 3, 1])),
        tmp_path / "coarse.nii",
    )
    answers = gridsight.predict(tmp_path / "run", [str(tmp_path / "fine.nii"), str(tmp_path / "coarse.nii")]).items
    assert answers[0]["probability"] == pytest.approx(answers[1]["probability"], abs=0.05)
    assert answers[0]["label"] == answers[1]["label"] == "large"


# ---- simulators


@pytest.mark.parametrize("name", ["solids", "lesions"])
def test_simulated_items_are_what_they_say(name: str) -> None:
    source = SETS.create(name, train=40, test=20)
    again, more = SETS.create(name, train=40, test=20), SETS.create(name, train=60, test=20)
    assert source.fingerprint() == again.fingerprint() != more.fingerprint()
    samples = [[s for s in decode(source, item) if isinstance(s, Sample)] for item in source.items]
    assert [len(part) for part in samples] == [40, 20]
    every = [s for part in samples for s in part]
    for item, part in zip(source.items, samples, strict=True):
        (header,) = source.readers[item.reader].headers(item.file)
        assert {replace(Header.of(s), count=header.count) for s in part} == {header}
        assert {s.split for s in part} == {item.split}
    (other, *_) = decode(more, more.items[0])
    np.testing.assert_array_equal(other.array, every[0].array)  # type: ignore[union-attr]
    assert len({s.array.tobytes() for s in every}) == 60 and len({s.path for s in every}) == 60
    if name == "lesions":
        assert source.group == "patient"
        assert not {s.group for s in samples[0]} & {s.group for s in samples[1]}


def test_bodies_have_equal_volumes_and_rotations_are_uniform() -> None:
    grid = np.stack(np.meshgrid(*[(np.arange(120) + 0.5) / 120 * 5.2 - 2.6] * 3, indexing="ij")).reshape(3, -1)
    grid = Rotation.from_rotvec([0.5, 0.7, 0.2]).as_matrix() @ grid  # no face lies along the cells
    for body in solids_module.CLASSES:
        volume = (solids_module.distance(body, grid) < 0).mean() * 5.2**3
        assert volume == pytest.approx(solids_module.SPHERE, rel=0.01), body
    turns = np.stack([_simulated.rotation(np.random.default_rng(i).uniform(size=3)) for i in range(4000)])
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    assert np.linalg.det(turns) == pytest.approx(1)
    assert np.abs(turns.mean(0)).max() < 0.04  # uniform: every entry has mean 0 and square 1/3
    assert np.abs((turns**2).mean(0) - 1 / 3).max() < 0.02
    angles = np.arccos((np.trace(turns, axis1=1, axis2=2) - 1) / 2)
    assert angles.mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.03)  # density (1 - cos a) / pi


def test_noise_of_the_simulators() -> None:
    drawn = np.concatenate([_simulated.Draws("x", i).normal("n", 10_000) for i in range(5)])
    assert drawn.mean() == pytest.approx(0, abs=0.02) and drawn.std() == pytest.approx(1, abs=0.02)
    assert (np.abs(drawn) > 1.959964).mean() == pytest.approx(0.05, abs=0.005)
    assert not np.array_equal(_simulated.Draws("x", 1).uniform("a", 9), _simulated.Draws("x", 1).uniform("b", 9))
    white = _simulated.Draws("x", 0).normal("w", int(np.prod(lesions_module.SHAPE))).reshape(lesions_module.SHAPE)
    smooth = lesions_module.texture(white, 2.0)
    assert (
        smooth.std() == pytest.approx(1)
        and np.abs(np.diff(smooth, axis=2)).mean() < 0.6 * np.abs(np.diff(white, axis=2)).mean()
    )


def test_a_simulated_set_takes_no_options_of_files() -> None:
    with pytest.raises(UsageError, match="named set"):
        find("solids", axes="NCDHW")
