"""Sounds: wav, flac, ogg, through libsndfile. One file is one item (C, T) float32 with its sampling rate.

Integer samples become [-1, 1) (divided by their full scale); float ones are kept as they are, also beyond 1. All
channels are kept. NaN and infinite samples, no samples at all, and files that are cut short are errors: libsndfile
reads the latter without a word, so what the header promises is compared with what is there (RIFF: Microsoft's
"Multimedia Programming Interface and Data Specifications 1.0"; Ogg: RFC 3533; FLAC: RFC 9639).
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from gridsight.core.errors import ReadError
from gridsight.data.files import File
from gridsight.data.readers import READERS, Reader
from gridsight.data.sample import Header, Sample

MAX_BYTES = 2 << 30
MAX_VALUES = 500_000_000  # 2 GB as float32
BLOCK = 1 << 20  # frames decoded at once: memory follows what is there, not what the header declares
UNKNOWN = (0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF, 0xFFFFF000)  # "until the end", written by programs that stream


@READERS.register("audio", suffixes=(".wav", ".wave", ".flac", ".ogg", ".oga"), ndims=(1,), many=False)
class AudioReader(Reader):
    """One sound a file."""

    def sniff(self, file: File, head: bytes) -> bool:
        return _is_wav(head) or head.startswith((b"fLaC", b"OggS"))

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        yield self.read_single(file, axes)

    def read_single(self, file: File, axes: str | None = None) -> Sample:
        with _open(file, file.read(MAX_BYTES)) as sound:
            blocks, there = [], 0
            while there < sound.frames and len(block := _decode(file, sound)):
                blocks.append(block)
                there += len(block)
                if there * sound.channels > MAX_VALUES:
                    raise ReadError(file, f"holds more than {MAX_VALUES:,} samples; cut it into shorter sounds")
            if there == 0:
                raise ReadError(file, "has no samples (0 seconds)")
            if there < sound.frames < 1 << 62:  # libsndfile's word for an unknown length is 2**63 - 1
                raise ReadError(file, f"is cut short: {sound.frames:,} samples were promised and {there:,} are there")
            rate = float(sound.samplerate)
        array = np.ascontiguousarray((blocks[0] if len(blocks) == 1 else np.concatenate(blocks)).T)
        if bad := array.size - np.count_nonzero(np.isfinite(array)):
            raise ReadError(file, f"{bad:,} of {array.size:,} values {'is' if bad == 1 else 'are'} NaN or infinite")
        return Sample(array, str(file), rate=rate)

    def probe(self, file: File, axes: str | None = None) -> Header:
        with _open(file, file.read(MAX_BYTES)) as sound:
            if not 0 < sound.frames < 1 << 62:
                return super().probe(file, axes)
            return Header(sound.channels, (sound.frames,), "float32", float(sound.samplerate))

    def write_example(self, folder: Path) -> list[tuple[Path, list[Sample]]]:
        steps = np.random.default_rng(0).integers(-(2**15), 2**15, (300, 2)).astype(np.int16)
        out = []
        for name, sound, rate in (
            ("stereo.wav", steps, 44_100),
            ("mono.wav", steps[:, :1], 8_000),
            ("mono.flac", steps[:, :1], 16_000),
        ):
            soundfile.write(folder / name, sound, rate, subtype="PCM_16")
            array = (sound / 2.0**15).T.astype(np.float32)
            out.append((folder / name, [Sample(array, str(folder / name), rate=float(rate))]))
        soundfile.write(folder / "mono.ogg", steps[:, :1] / 2.0**16, 16_000)
        array, _ = soundfile.read(folder / "mono.ogg", dtype="float32")  # lossy
        out.append((folder / "mono.ogg", [Sample(array[None], str(folder / "mono.ogg"), rate=16_000.0)]))
        return out


def _is_wav(head: bytes) -> bool:
    return head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE"


def _open(file: File, data: bytes) -> soundfile.SoundFile:
    if data.startswith((b"RIFF", b"RIFX")) and _is_wav(data):
        _check_wav(file, data)
    elif data.startswith(b"OggS"):
        _check_ogg(file, data)
    elif not data.startswith((b"fLaC", b"RF64")):
        raise ReadError(file, "is not a sound: its content is none of wav, flac, ogg")
    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        raise _broken(file, error) from None


def _decode(file: File, sound: soundfile.SoundFile) -> np.ndarray:
    """The next frames (T, C)."""
    try:
        return sound.read(BLOCK, "float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise _broken(file, error) from None


def _broken(file: File, error: Exception) -> ReadError:
    words = str(getattr(error, "error_string", error)).strip().rstrip(".").removeprefix("Error : ")
    return ReadError(file, f"is a broken or cut sound ({words})")


def _check_wav(file: File, data: bytes) -> None:
    """Refuse a wav whose data chunk promises more bytes than there are."""
    order = "big" if data.startswith(b"RIFX") else "little"
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], order)  # type: ignore[arg-type]
        there = len(data) - position - 8
        if data[position : position + 4] == b"data":
            if size > there and size not in UNKNOWN:
                raise ReadError(file, f"is cut short: {size:,} bytes of sound were promised and {there:,} are there")
            return
        position += 8 + size + size % 2
    raise ReadError(file, "is cut short: it has no sound data")


def _check_ogg(file: File, data: bytes) -> None:
    """Refuse an Ogg stream whose last page is not complete, or not marked as the last."""
    last = data.rfind(b"OggS")
    segments = data[last + 26] if len(data) > last + 26 else 0
    end = last + 27 + segments + sum(data[last + 27 : last + 27 + segments])
    if len(data) < end or not segments or not data[last + 5] & 4:
        raise ReadError(file, "is cut short: its last page is missing")
