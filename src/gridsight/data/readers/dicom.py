"""DICOM: a picture, a volume of many frames, or the series of slices that fills a folder. Needs pydicom.

Format: https://www.dicomstandard.org (part 10 files: "DICM" at byte 128). A file of one frame is (C, H, W) as stored,
C 1 or 3 (RGB; YBR is converted), spacing (row, column) in mm where the file says it. A series, or a file of many frames
with positions, is (C, D, H, W) in the orientation of `data/orientation.py`, as the same volume in NIfTI would be; its
slices are sorted along their normal by ImagePositionPatient, and their distances are the spacing. Frames without
positions (cine) keep their order and have no spacing.

Values are those of the rescale slope and intercept: int16 where whole numbers fit (Hounsfield units), uint8 or uint16
without rescaling, else float32; MONOCHROME1 is turned round, so that bright is more everywhere. Windows, modality
look-up tables, overlays and palettes are not applied; gantry tilt is not sheared back. `group` is a hash of the patient
ID: it keeps a patient's items together, and the ID itself is kept nowhere.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gridsight.core.errors import ReadError
from gridsight.data import rows
from gridsight.data.dicom import Facts, dataset_of, facts_of, hashed, pixels_of
from gridsight.data.files import File
from gridsight.data.orientation import upright
from gridsight.data.readers import READERS, Reader
from gridsight.data.sample import Header, Sample
from gridsight.data.slices import in_order

SUFFIXES = (".dcm", ".dicom")


@READERS.register("dicom", suffixes=SUFFIXES, ndims=(2, 3), many=False, kind="picture or volume", columns=("patient",))
class DicomReader(Reader):
    """One picture or volume a file, or one volume a folder."""

    def sniff(self, file: File, head: bytes) -> bool:
        return head[128:132] == b"DICM"

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        yield self.read_single(file)

    def read_single(self, file: File, axes: str | None = None) -> Sample:
        if slices := _slices(file):
            return _series(file, slices)
        dataset = dataset_of(file, pixels=True)
        facts = facts_of(file, dataset)
        array = pixels_of(facts, dataset)
        if facts.frames == 1:
            return Sample(array[:, 0], str(file), group=facts.group, spacing=facts.pixel)
        array, spacing = _turned(array, facts)
        return Sample(array, str(file), group=facts.group, spacing=spacing)

    def read_as(self, file: File, ndim: int, channels: int, axes: str | None = None) -> Iterator[Sample | ReadError]:
        sample = self.read_single(file)
        if ndim == 3 and sample.array.ndim == 3:
            raise ReadError(file, "is one slice where a volume is wanted; give the folder of its series")
        yield sample

    def probe(self, file: File, axes: str | None = None) -> Header:
        if slices := _slices(file):
            found = [facts_of(one, dataset_of(one, pixels=False)) for one in slices]
            first, dtype = found[0], _joint(found)
            _, steps = _sorted(file, found)
            out, spacing = upright(_blank(first, len(slices)), steps)
            return Header(first.channels, out.shape[1:], dtype.name, spacing=spacing)
        facts = facts_of(file, dataset_of(file, pixels=False))
        if facts.frames == 1:
            return Header(facts.channels, (facts.rows, facts.columns), facts.dtype.name, spacing=facts.pixel)
        out, turned = _turned(_blank(facts, facts.frames), facts)
        return Header(facts.channels, out.shape[1:], facts.dtype.name, spacing=turned)

    def in_series(self, file: File) -> bool:
        try:
            facts = facts_of(file, dataset_of(file, pixels=False))
        except ReadError:
            return False  # reading it will say what is wrong
        return facts.place is not None and facts.frames == 1

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        rng = np.random.default_rng(0)
        scan = rng.integers(0, 1 << 12, (1, 6, 7), dtype=np.uint16)
        colour = rng.integers(0, 256, (3, 6, 7), dtype=np.uint8)
        cine = rng.integers(0, 256, (1, 4, 8, 6), dtype=np.uint8)
        _write(folder / "scan.dcm", scan[0], RescaleSlope=1, RescaleIntercept=-1024, PixelSpacing=[0.5, 0.25])
        _write(folder / "colour.dcm", colour.transpose(1, 2, 0), compress="1.2.840.10008.1.2.5")
        _write(folder / "cine.dcm", cine[0], NumberOfFrames=4)
        group = hashed("example")
        return [
            (folder / name, [Sample(array, str(folder / name), group=group)])
            for name, array in (
                ("scan.dcm", scan.astype(np.int16) - np.int16(1024)),
                ("colour.dcm", colour),
                ("cine.dcm", cine),
            )
        ]


# ---- slices


def _turned(array: np.ndarray, facts: Facts) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """The frames of one file as a volume: in place where they say where they are, else in their order."""
    if facts.place is None or len(set(facts.place.positions)) == 1:
        known = facts.between is not None and facts.pixel is not None
        return array, (facts.between, *facts.pixel) if known else None  # type: ignore[misc, arg-type]
    names = [f"frame {i + 1}" for i in range(facts.frames)]
    order, steps = in_order(str(facts.file), names, facts.place)
    return upright(array[:, order], steps)


def _slices(folder: File) -> list[File]:
    """The DICOM files that lie in a folder but for its directory; none where it is a file."""
    sniff = DicomReader().sniff
    files = [file for file in folder.inside() if file.name.lower().endswith(SUFFIXES) or sniff(file, file.head())]
    files = [file for file in files if file.name.lower() != "dicomdir"]
    if len(files) == 1:
        raise ReadError(files[0], "is the only slice in its folder; a volume has at least two")
    return files


def _series(folder: File, files: Sequence[File]) -> Sample:
    found, arrays = [], []
    for file in files:
        dataset = dataset_of(file, pixels=True)
        facts = facts_of(file, dataset)
        if facts.rows * facts.columns * facts.channels * facts.dtype.itemsize * len(files) > rows.MAX_ITEM:
            raise ReadError(file, f"is one of {len(files):,} slices of {facts.rows:,} x {facts.columns:,}: too many")
        found.append(facts)
        arrays.append(pixels_of(facts, dataset))
    order, steps = _sorted(folder, found)
    array, spacing = upright(np.concatenate([arrays[i] for i in order], 1, dtype=_joint(found)), steps)
    return Sample(array, str(folder), group=found[0].group, spacing=spacing)


def _sorted(folder: File, slices: Sequence[Facts]) -> tuple[list[int], np.ndarray]:
    """The order of a series' slices and the steps from cell to cell, once they are known to be one volume."""
    first = slices[0]
    series = Counter(facts.series for facts in slices)
    if len(series) > 1:
        where = {facts.series: facts.file.name for facts in reversed(slices)}
        listed = "; ".join(f"{count:,} files such as {where[uid]}" for uid, count in series.most_common(4))
        raise ReadError(folder, f"holds {len(series)} series ({listed}); put each into a folder of its own")
    positions: list[tuple[float, ...]] = []
    for facts in slices:
        if facts.frames > 1 or facts.place is None or first.place is None:
            raise ReadError(facts.file, "does not say where it lies (position, orientation and spacing of one slice)")
        size, wanted = (facts.rows, facts.columns), (first.rows, first.columns)
        if size != wanted or facts.channels != first.channels:
            raise ReadError(
                facts.file, f"is {size[0]:,} x {size[1]:,} where {first.file.name} is {wanted[0]:,} x {wanted[1]:,}"
            )
        here, there = facts.place, first.place
        if not np.allclose(here.plane, there.plane, atol=1e-3) or not np.allclose(here.pixel, there.pixel, rtol=1e-3):
            raise ReadError(facts.file, f"has another orientation or spacing than {first.file.name}")
        positions += here.positions
    names = [facts.file.name for facts in slices]
    assert first.place is not None
    return in_order(str(folder), names, replace(first.place, positions=tuple(positions)))


def _blank(facts: Facts, depth: int) -> np.ndarray:
    """An array of a volume's shape that takes no memory."""
    return np.broadcast_to(np.uint8(0), (facts.channels, depth, facts.rows, facts.columns))


def _joint(slices: Sequence[Facts]) -> np.dtype:
    """The type of all, float32 where they differ."""
    found = {facts.dtype for facts in slices}
    return found.pop() if len(found) == 1 else np.dtype(np.float32)


# ---- writing examples


def _write(path: Path, pixels: np.ndarray, *, compress: str = "", **elements: Any) -> None:
    """A small file: pixels (H, W), (frames, H, W) or (H, W, 3), and elements by keyword."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    colour = pixels.ndim == 3 and "NumberOfFrames" not in elements
    bits = pixels.dtype.itemsize * 8
    values: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
        "SOPInstanceUID": "1.2.3.4",
        "PatientID": "example",
        "SeriesInstanceUID": "1.2.3",
        "Rows": pixels.shape[0 if colour else -2],
        "Columns": pixels.shape[1 if colour else -1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits if bits == 8 else 12,
        "HighBit": (bits if bits == 8 else 12) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    if colour:
        values["PlanarConfiguration"] = 0
    for name, value in {**values, **elements}.items():
        setattr(dataset, name, value)
    if compress:
        dataset.compress(compress)
    dataset.save_as(path, enforce_file_format=True)
