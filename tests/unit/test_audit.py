"""check: planted faults are found, clean data are left in peace, and near-duplicates are told from look-alikes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gridsight.__main__ import main
from gridsight.core.console import Console
from gridsight.core.errors import UsageError
from gridsight.data import duplicates
from gridsight.data.audit import audit
from gridsight.data.duplicates import close_pairs, near_duplicates
from gridsight.data.source import find
from gridsight.verbs import as_function
from gridsight.verbs.check import CheckSettings, check

SHARED = Path(__file__).parents[3] / "shared" / "data"


def scene(seed: int, size: int = 48) -> np.ndarray:
    """(size, size, 3) uint8: blobs of colour, as different from one seed to the next as photographs are."""
    rng = np.random.default_rng(seed)
    grid = rng.uniform(0, 255, (7, 7, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC), float)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def brighter(pixels: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(np.rint(pixels * factor), 0, 255).astype(np.uint8)


COPIES = {
    "jpeg 75": lambda x: jpeg(x, 75),
    "jpeg 50": lambda x: jpeg(x, 50),
    "5 % brighter": lambda x: brighter(x, 1.05),
    "5 % darker": lambda x: brighter(x, 0.95),
    "three quarters": lambda x: resized(x, 36),
    "enlarged": lambda x: resized(x, 72),
    "aside": lambda x: jpeg(np.pad(x, ((0, 2), (1, 0), (0, 0)), mode="edge")[2:, :-1], 85),
    "5 % cut off": lambda x: jpeg(x[1:-1, 2:], 85),
    "mirrored": lambda x: jpeg(x[:, ::-1], 85),
}


def problems(found, name):
    return [finding for finding in found.findings if finding.problem == name]


def names(found, name):
    return {tuple(sorted(Path(path).name for path in finding.paths)) for finding in problems(found, name)}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """600 scenes in train/ and test/; 2 % corrupt, 2 % equal and 2 % near-copies of training items in test/."""
    root = tmp_path_factory.mktemp("planted")
    truth = {"corrupt": set(), "equal": set(), "near": {}}
    for i in range(600):
        part = "train" if i < 450 else "test"
        save(root / part / ("cat", "dog")[i % 2] / f"{i:03d}.png", scene(i))
    kinds = list(COPIES)
    for k in range(12):
        victim = root / "train" / ("cat", "dog")[k % 2] / f"{k:03d}.png"
        data = victim.read_bytes()
        victim.write_bytes((data[: len(data) // 2], b"", b"not a picture", data[:20])[k % 4])
        truth["corrupt"].add(victim.name)
        original = 100 + k
        save(root / "test" / ("cat", "dog")[original % 2] / f"equal{k:02d}.bmp", scene(original))
        truth["equal"].add((f"{original:03d}.png", f"equal{k:02d}.bmp"))
        original = 200 + k
        copy = COPIES[kinds[k % len(kinds)]](scene(original))
        save(root / "test" / ("cat", "dog")[original % 2] / f"near{k:02d}.png", copy)
        truth["near"][(f"{original:03d}.png", f"near{k:02d}.png")] = kinds[k % len(kinds)]
    return root, truth


def test_planted_faults_are_found_and_nothing_else(planted):
    root, truth = planted
    found = audit(find(str(root)))
    assert {Path(f.paths[0]).name for f in problems(found, "unreadable")} == truth["corrupt"] and found.bad == 12
    assert names(found, "duplicate") == truth["equal"]
    near = names(found, "near-duplicate")
    assert len(near & set(truth["near"])) >= 0.95 * len(truth["near"]), set(truth["near"]) - near
    assert near <= set(truth["near"])
    assert names(found, "leak") == truth["equal"] | (near & set(truth["near"]))
    assert not problems(found, "label conflict")
    assert found.stops == [
        "12 of 624 items cannot be read (more than 1%)",
        "24 of 174 test items are in the training data too (more than 1%)",
    ]
    assert found.classes == {"cat": 306, "dog": 306} and found.splits == {"train": 438, "test": 174}


def test_clean_data_are_left_in_peace(tmp_path):
    for i in range(60):
        save(tmp_path / ("train", "test")[i % 2] / ("cat", "dog")[i // 2 % 2] / f"{i}.jpg", scene(i), quality=95)
    result = check(CheckSettings(str(tmp_path)))
    assert (result.exit_code, result.findings, result.n, result.bad) == (0, (), 60, 0)


def test_single_faults(tmp_path):
    for i in range(40):
        save(tmp_path / ("cat", "dog")[i % 2] / f"{i:02d}.png", scene(i))
    save(tmp_path / "cat" / "gray.png", scene(90)[..., 0])
    save(tmp_path / "cat" / "wide.png", resized(scene(91), 48)[:4])
    save(tmp_path / "cat" / "huge.png", scene(92, 400))
    save(tmp_path / "cat" / "black.png", np.zeros((48, 48, 3), np.uint8))
    save(
        tmp_path / "cat" / "dull.png",
        np.full((48, 48, 3), 99, np.uint8) + (np.arange(48) % 2)[:, None].astype(np.uint8),
    )
    save(tmp_path / "dog" / "twin.png", scene(2))  # of a cat
    (tmp_path / "dog" / "really.jpg").write_bytes((tmp_path / "dog" / "01.png").read_bytes())
    save(tmp_path / "emu" / "1.png", scene(93))
    (tmp_path / "void").mkdir()
    found = audit(find(str(tmp_path)))
    assert names(found, "odd channels") == {("gray.png",)}
    assert names(found, "odd size") == {("wide.png",), ("huge.png",)}
    assert problems(found, "odd size")[0].detail == "has size 400 x 400 where 96% have 48 x 48"
    assert names(found, "constant") == {("black.png",)}
    assert names(found, "almost constant") == {("dull.png",)}
    assert names(found, "label conflict") == {("02.png", "twin.png")}
    assert names(found, "wrong suffix") == {("really.jpg",)}
    assert problems(found, "wrong suffix")[0].detail == "is PNG by content, not jpg"
    assert names(found, "duplicate") == {("02.png", "twin.png"), ("01.png", "really.jpg")}
    assert names(found, "class of one") == {("1.png",)}
    assert [f.paths for f in problems(found, "empty class")] == [("void",)]
    assert problems(found, "imbalance")[0].detail.startswith("class cat has 25 items and emu 1: 25 times")
    assert found.stops == []


def test_groups_and_classes_across_splits(tmp_path):
    for part in ("train", "test"):
        for i in range(20):
            who = f"p{i}" if i else f"{part}0"
            save(tmp_path / part / ("cat", "dog")[i % 2] / f"{who}_{i}.png", scene(i + 50 * (part == "test")))
    save(tmp_path / "test" / "emu" / "q_1.png", scene(300))
    save(tmp_path / "train" / "cat" / "r_1.png", scene(3))  # the picture of another patient
    found = audit(find(str(tmp_path), pattern="{patient}_{_}.png", group="patient"))
    assert len(problems(found, "group on two sides")) == 19
    assert "19 groups are on two sides of the split" in found.stops
    assert "classes that are never trained on: emu" in found.stops
    assert names(found, "in two groups") == {("p3_3.png", "r_1.png")}
    assert names(found, "label conflict") == {("p3_3.png", "r_1.png")}


def test_arrays_series_and_sounds(tmp_path):
    rng = np.random.default_rng(0)
    series = np.cumsum(rng.normal(size=(60, 2, 80)), axis=2).astype(np.float32)
    series[7] = series[3]
    series[9] = series[4] * 1.05 + 0.2 + rng.normal(0, 0.01, (2, 80))
    series[11, 0, 5] = np.nan
    series[12] = 3.0
    np.savez(tmp_path / "s.npz", x=series, y=np.arange(60) % 2)
    found = audit(find(str(tmp_path / "s.npz"), axes="NCL"))
    assert names(found, "duplicate") == {("s.npz[3]", "s.npz[7]")}
    assert names(found, "near-duplicate") == {("s.npz[4]", "s.npz[9]")}
    assert names(found, "label conflict") == {("s.npz[4]", "s.npz[9]")}
    assert names(found, "not finite") | {("s.npz[11]",)} == {("s.npz[11]",)}
    assert ("s.npz[12]",) in names(found, "constant")
    import soundfile

    for i in range(40):
        length = 4000 + 37 * i
        pitch = np.cumsum(np.interp(np.arange(length), np.linspace(0, length, 9), rng.uniform(200, 1500, 9))) / 8000
        wave = 0.5 * np.sin(2 * np.pi * pitch) * np.interp(np.arange(length), np.linspace(0, length, 7), rng.random(7))
        wave = np.rint(wave * 32767).astype(np.int16)  # wav and flac round in different ways
        path = tmp_path / "sounds" / "ab"[i % 2] / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, 8000)
        if i == 5:
            louder = wave / 32768 * 1.3 + rng.normal(0, 1e-3, length)
            soundfile.write(path.with_name("louder.wav"), louder, 8000)
            soundfile.write(path.with_name("other.flac"), wave, 8000)
        if i == 6:
            soundfile.write(path.with_name("long.wav"), np.tile(wave, 6), 8000)
    found = audit(find(str(tmp_path / "sounds")))
    assert names(found, "duplicate") == {("05.wav", "other.flac")}
    assert names(found, "near-duplicate") == {("05.wav", "louder.wav")}
    assert names(found, "odd length") == {("long.wav",)}


# ---- near-duplicates


def test_candidates_equal_a_plain_search():
    """The projection leaves no pair out: compared with all distances, each item with a bound of its own."""
    rng = np.random.default_rng(0)
    v = rng.normal(size=(1500, 64)).astype(np.float32)
    for i in range(200):
        v[1300 + i] = v[i] + rng.normal(0, 0.02 + 0.0015 * i, 64)
    v[1280:1290] = v[6] + rng.normal(0, 0.01, (10, 64))  # of ten nearly equal ones, the nearest are kept
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    v[1290:1300] = v[1000]  # of equal ones all
    bounds = rng.uniform(0.02, 0.15, 1500).astype(np.float32)
    a, b, complete = duplicates._candidates(v, bounds)
    squared = 2 - 2 * v.astype(float) @ v.T.astype(float)
    np.fill_diagonal(squared, 9)
    nearest = np.zeros((1500, 1500), bool)
    nearest[np.arange(1500)[:, None], np.argsort(squared, 1)[:, : duplicates.NEAREST]] = True
    within = (squared <= bounds) & (squared <= bounds[:, None])
    wanted = within & ((squared <= duplicates.EQUAL) | nearest | nearest.T)
    plain = [tuple(pair) for pair in np.argwhere(np.triu(wanted)).tolist()]
    assert complete and sorted(zip(a.tolist(), b.tolist(), strict=True)) == plain
    assert 100 < len(plain) < 250 and wanted.sum() + 20 < within.sum()


def test_look_alikes_are_no_near_duplicates():
    """Strokes that differ a little correlate at 0.95 and more, as MNIST's ones do; copies of one are still found."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:28, 0:28]

    def stroke():
        slant, thick, shift = rng.normal(0, 0.25), rng.uniform(1.2, 2.0), rng.normal(0, 0.3)
        wave = np.interp(np.arange(28), np.linspace(0, 27, 7), rng.normal(0, 0.4, 7))[:, None]  # a hand is not steady
        line = np.exp(-(((x - 14 - shift - slant * (y - 14) - wave) / thick) ** 2))
        return 255 * line * (abs(y - 14) < rng.uniform(8, 11))

    pictures = np.stack([stroke() for _ in range(800)])[:, None].astype(np.uint8)
    unit = pictures.reshape(800, -1) - pictures.reshape(800, -1).mean(1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    plain = int((np.triu(unit @ unit.T, 1) > 0.97).sum())
    assert plain > 1000  # a plain threshold cries wolf
    copies = [jpeg(picture[0], 95)[None] for picture in pictures[:50]]
    copies += [np.roll(picture, 1, axis=2) for picture in pictures[50:75]]
    copies += [picture[..., ::-1] for picture in pictures[75:100]]
    near = near_duplicates(np.concatenate([pictures, copies]))
    found = {tuple(pair) for pair in near.pairs.tolist()}
    planted = {(i, 800 + i) for i in range(100)}
    assert len(found & planted) >= 90 and len(found - planted) <= 0.02 * plain


@pytest.mark.skipif(not (SHARED / "mnist").exists(), reason="the real data of ../shared/data are not here")
@pytest.mark.parametrize("kind", ["jpeg 75", "5 % brighter", "three quarters", "aside", "5 % cut off", "mirrored"])
def test_copies_of_real_digits(kind, digits_of_mnist):
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(digits_of_mnist), 200, replace=False)
    copy = (
        COPIES
        | {  # one array holds one size
            "three quarters": lambda x: resized(resized(x, 21), 28),
            "aside": lambda x: np.roll(x, (1, -2), (0, 1)),
            "5 % cut off": lambda x: resized(x[1:, :-1], 28),
            "mirrored": lambda x: x[:, ::-1],
        }
    )
    copies = np.stack([copy[kind](digits_of_mnist[i, 0])[None] for i in chosen])
    near = near_duplicates(np.concatenate([digits_of_mnist, copies]))
    found = {tuple(pair) for pair in near.pairs.tolist()}
    planted = {(int(i), 10_000 + j) for j, i in enumerate(chosen)}
    # ones that lost detail are other ones
    assert len(found & planted) >= (0.9 if kind == "three quarters" else 0.95) * len(planted)
    assert len([pair for pair in found if pair[1] < 10_000]) <= 3


@pytest.fixture(scope="module")
def digits_of_mnist():
    from gridsight.data.files import File
    from gridsight.data.readers import READERS

    path = SHARED / "mnist" / "t10k-images-idx3-ubyte.gz"
    return np.stack([sample.array for sample in READERS.create("idx").read(File(path, None, path.parent))])


def test_constants_small_sets_and_limits(monkeypatch):
    assert near_duplicates(np.zeros((0, 1, 8, 8), np.uint8)).pairs.shape == (0, 2)
    assert len(near_duplicates(np.full((50, 1, 8, 8), 7, np.uint8)).pairs) == 0
    rng = np.random.default_rng(3)
    few = rng.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    few[2] = few[0]
    assert near_duplicates(few).pairs.tolist() == [[0, 2]]
    many = np.repeat(rng.integers(0, 256, (2, 1, 8, 8), dtype=np.uint8), 40, 0)
    assert len(near_duplicates(many).pairs) == 2 * 40 * 39 // 2  # equal ones are found however many they are
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 100)
    assert not near_duplicates(many).complete
    monkeypatch.setattr(duplicates, "LARGEST", 79)
    near = near_duplicates(many)
    assert len(near.pairs) == 0 and not near.complete


def test_volumes_and_a_changed_sampling_rate():
    rng = np.random.default_rng(4)
    volumes = rng.normal(size=(40, 1, 14, 14, 14)).astype(np.float32)
    volumes[30] = volumes[2] * 1.1 + 5
    assert near_duplicates(volumes).pairs.tolist() == [[2, 30]]
    from scipy.signal import resample_poly

    noise = rng.normal(size=(20, 1, 8000)).astype(np.float32) * np.linspace(0.1, 1, 8000, dtype=np.float32)
    tones = np.stack([np.convolve(n[0], np.hanning(5 + 4 * i), "same") for i, n in enumerate(noise)])[:, None]
    high = duplicates.signatures(tones.astype(np.float32), (1,), 16000, 8000)
    low = duplicates.signatures(resample_poly(tones, 1, 2, axis=-1).astype(np.float32), (1,), 8000, 8000)
    pairs = close_pairs(np.concatenate([high, low])).pairs.tolist()
    assert len([pair for pair in pairs if pair[1] - pair[0] == 20]) >= 19


# ---- the verb


def test_check_prints_writes_and_exits(tmp_path, capsys):
    for i in range(30):
        save(tmp_path / "data" / ("train", "test")[i % 2] / ("kätze", "犬")[i // 2 % 2] / f"{i:02d}.png", scene(i))
    save(tmp_path / "data" / "test" / "kätze" / "leak.png", scene(0))
    out = tmp_path / "out"
    result = check(CheckSettings(str(tmp_path / "data"), out=str(out)), Console())
    text = capsys.readouterr().out
    assert result.exit_code == 1 and result.problems == {"duplicate": 1, "leak": 1}
    assert "data: 31 items in 2 classes (kätze 17, 犬 14)" in text
    assert "do not train on this as it is: 1 of 16 test items are in the training data too (more than 1%)" in text
    written = json.loads((out / "check.json").read_text(encoding="utf-8"))
    assert written["findings"] == [dict(finding) for finding in result.findings] and written["n"] == 31
    with Image.open(out / "contact.png") as sheet:
        assert sheet.format == "PNG" and np.asarray(sheet.convert("L")).std() > 20
    check(CheckSettings(str(tmp_path / "data"), json=True), Console(json=True))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["problem"] == "duplicate" and len(lines[0]["paths"]) == 2
    assert lines[-1]["problems"] == {"duplicate": 1, "leak": 1} and lines[-1]["contact_sheet"] is None
    assert lines[-1]["stops"] == list(result.stops)


def test_check_says_where_the_rest_is(tmp_path, capsys):
    for i in range(12):
        save(tmp_path / "data" / "ab"[i % 2] / f"{i:02d}.png", scene(i // 2))
    for words, said in (({}, "--out DIR writes all"), ({"out": str(tmp_path / "out")}, "check.json has all")):
        check(CheckSettings(str(tmp_path / "data"), **words), Console())
        text = capsys.readouterr().out
        assert text.count(f"  and 3 more ({said}") == 2  # six duplicates, six label conflicts
    assert len(json.loads((tmp_path / "out" / "check.json").read_text())["findings"]) == 12


def test_check_in_python_and_wrong_use(tmp_path):
    result = as_function("check")("digits")
    assert (result.n, result.exit_code, result.problems) == (1797, 0, {})
    (tmp_path / "file").write_text("x")
    save(tmp_path / "d" / "a" / "1.png", scene(0))
    save(tmp_path / "d" / "b" / "1.png", scene(0))
    with pytest.raises(UsageError, match="cannot make"):
        check(CheckSettings(str(tmp_path / "d"), out=str(tmp_path / "file" / "x")))


def test_a_grade_has_one_spelling(tmp_path):
    rows = ["path,grade"]
    for i in range(24):
        save(tmp_path / f"{i}.png", scene(i))
        rows.append(f"{i}.png,{('1', '2', '2.0')[i % 3]}")
    save(tmp_path / "twin.png", scene(1))  # of a 2
    save(tmp_path / "other.png", scene(0))  # of a 1
    (tmp_path / "table.csv").write_text("\n".join([*rows, "twin.png,2.0", "other.png,2.0"]))
    found = audit(find(str(tmp_path / "table.csv")))
    assert found.task == "grade" and found.classes == {"1": 8, "2": 18}
    assert names(found, "duplicate") == {("1.png", "twin.png"), ("0.png", "other.png")}
    assert names(found, "label conflict") == {("0.png", "other.png")}


def test_one_class(tmp_path, capsys):
    save(tmp_path / "a" / "1.png", scene(0))
    save(tmp_path / "a" / "2.png", scene(1))
    assert audit(find(str(tmp_path))).stops == ["there is one class only; a classifier needs at least two"]
    assert main(["check", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "do not train on this as it is: there is one class only" in said and "nothing wrong" not in said


def test_nothing_readable(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_text("x")
    result = check(CheckSettings(str(tmp_path), out=str(tmp_path / "out")))
    assert (result.n, result.bad, result.problems, result.contact_sheet) == (0, 2, {"unreadable": 2}, None)
    assert result.stops == (
        "2 of 2 items cannot be read (more than 1%)",
        "there is no class; a classifier needs at least two",
    )
