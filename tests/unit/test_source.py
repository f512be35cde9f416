"""What DATA means: which files, which labels, which split, and what is said where it cannot be understood."""

import gzip
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gridsight.core.errors import DataError, ReadError, UsageError
from gridsight.data import files as files_module
from gridsight.data.decoding import decode
from gridsight.data.names import Pattern, holds_labels, natural_order, propose, split_in
from gridsight.data.source import find

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real data of ../shared/data are not here")


def picture(path: Path, value: int = 0, suffix: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) + np.uint8(value)
    Image.fromarray(pixels).save(path, suffix)


def sound(path: Path, value: int = 0) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(400) * (0.1 + value)), 8000)


def zipped(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder).as_posix())


def table(source):
    """(path below the data, label, split) of every item."""
    return [("/".join(item.file.parts), item.label, item.split) for item in source.items]


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("GRIDSIGHT_DATA", raising=False)
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))


# ---- class folders


def test_class_folders(tmp_path):
    root = tmp_path / "photos"
    for name in ("b10/x.png", "b9/y.png", "b9/z.jpg", "B1/ä ü.png"):
        picture(root / name, suffix="JPEG" if name.endswith("jpg") else "PNG")
    source = find(str(root))
    assert table(source) == [
        ("B1/ä ü.png", "B1", None),
        ("b10/x.png", "b10", None),
        ("b9/y.png", "b9", None),
        ("b9/z.jpg", "b9", None),
    ]
    assert source.classes == ("B1", "b9", "b10")
    assert (source.name, source.split, source.fields, source.group) == ("photos", "", (), None)
    assert source.notes == ("classes with one item only: B1, b10",)
    assert list(source.readers) == ["image"]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "valid", "TESTING"), ("train", "validation", "eval")],
)
def test_split_folders_in_any_spelling(tmp_path, train, val, test):
    for part in (train, val, test):
        for label in ("cat", "dog"):
            picture(tmp_path / part / label / "1.png")
    source = find(str(tmp_path))
    splits = dict.fromkeys((train, val, test))
    splits.update({train: "train", val: "val", test: "test"})
    assert {(item.file.parts[0], item.split) for item in source.items} == set(splits.items())
    assert source.classes == ("cat", "dog")
    assert source.split == "folders " + "/".join(natural_order((train, val, test)))


def test_classes_may_be_called_test_and_train(tmp_path):
    for label in ("test", "control"):
        picture(tmp_path / "trial" / label / "1.png")
    source = find(str(tmp_path / "trial"))
    assert source.classes == ("control", "test") and source.split == ""
    for label in ("train", "bus"):
        picture(tmp_path / "traffic" / label / "1.png")
    assert find(str(tmp_path / "traffic")).classes == ("bus", "train")


def test_one_split_folder_alone(tmp_path):
    for label in ("cat", "dog"):
        picture(tmp_path / "test" / label / "1.png")
    source = find(str(tmp_path))
    assert source.classes == ("cat", "dog") and {item.split for item in source.items} == {"test"}
    assert source.split == "folder test"


def test_folders_around_and_below_the_classes(tmp_path):
    root = tmp_path / "all"
    for name in ("set/v1/cat/p1/1.png", "set/v1/cat/p2/2.png", "set/v1/dog/p3/3.png"):
        picture(root / name)
    source = find(str(root))
    assert [item.label for item in source.items] == ["cat", "cat", "dog"]
    assert any("3 files lie deeper than their class folder" in note for note in source.notes)
    grouped = find(str(root / "set" / "v1"), pattern="{label}/{patient}/{_}.png", group="patient")
    assert [item.fields for item in grouped.items] == [{"patient": "p1"}, {"patient": "p2"}, {"patient": "p3"}]
    assert grouped.group == "patient" and grouped.fields == ("patient",)


def test_empty_class_folders_are_named_and_left_out(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "cat" / "2.png")
    (tmp_path / "ghost").mkdir()
    source = find(str(tmp_path))  # one class is left: not stripped, because another folder lies beside it
    assert source.classes == ("cat",) and source.empty == ("ghost",)
    assert source.notes == ("class folders without any item, left out: ghost",)
    for part in ("train", "test"):
        picture(tmp_path / "split" / part / "dog" / "1.png")
        picture(tmp_path / "split" / part / "cat" / "1.png")
    (tmp_path / "split" / "test" / "ghost").mkdir()
    assert find(str(tmp_path / "split")).empty == ("test/ghost",)


def test_what_is_not_data_is_named(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "dog" / "1.png")
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "dog" / "zero").write_bytes(b"")
    (tmp_path / "dog" / "blob.xyz").write_bytes(b"what is this")
    picture(tmp_path / "loose.png")
    source = find(str(tmp_path))
    assert sorted(Path(name).name for name in source.ignored) == [".hidden.png", "README.md", "Thumbs.db"]
    assert sorted(str(error).removeprefix(f"{tmp_path}/") for error in source.bad) == [
        "dog/blob.xyz: is of no known format",
        "dog/zero: is empty (0 bytes)",
        "loose.png: lies outside of the class folders, so it has no label",
    ]
    assert len(source.items) == 2


def test_folders_beside_train_and_test_are_not_used_and_said(tmp_path):
    for part in ("train", "test", "unlabelled"):
        picture(tmp_path / part / "cat" / "1.png")
        picture(tmp_path / part / "dog" / "1.png")
    source = find(str(tmp_path))
    assert len(source.items) == 4 and len(source.ignored) == 2
    assert "2 files in unlabelled/ beside test/, train/ are not used" in source.notes


def test_mixed_kinds_are_counted(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "dog" / "1.png")
    sound(tmp_path / "dog" / "1.wav")
    with pytest.raises(UsageError, match="mixes 2 image files and 1 audio files"):
        find(str(tmp_path))


def test_a_suffix_that_nobody_knows_is_looked_into(tmp_path):
    picture(tmp_path / "cat" / "1.pngx")
    picture(tmp_path / "dog" / "noname")
    assert [item.reader for item in find(str(tmp_path)).items] == ["image", "image"]


def test_link_loops_end(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "dog" / "1.png")
    (tmp_path / "dog" / "again").symlink_to(tmp_path)
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = find(str(tmp_path))
    assert [name for name, _, _ in table(source)] == ["cat/1.png", "dog/1.png", "dog/gone.png"]
    assert any("a link that leads back up" in name for name in source.ignored)
    with pytest.raises(ReadError, match=r"gone.png"):
        source.items[2].file.read()


def test_a_folder_that_cannot_be_listed_is_bad_and_the_rest_goes_on(tmp_path, monkeypatch):
    for label in ("cat", "dog", "secret"):
        picture(tmp_path / label / "1.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(files_module.os, "scandir", refuse)
    source = find(str(tmp_path))
    assert source.classes == ("cat", "dog")
    assert [str(error) for error in source.bad] == [
        f"{tmp_path}/secret: this folder cannot be listed (permission denied)"
    ]


def test_relative_paths_and_the_working_folder(tmp_path, monkeypatch):
    picture(tmp_path / "set" / "cat" / "1.png")
    picture(tmp_path / "set" / "dog" / "1.png")
    monkeypatch.chdir(tmp_path / "set")
    assert find(".").classes == ("cat", "dog") and find(".").name == "set"
    monkeypatch.chdir(tmp_path)
    assert find("set").name == "set" and str(find("set/").items[0].file) == "set/cat/1.png"


# ---- archives


def test_a_zip_is_read_in_place_with_folders_around(tmp_path):
    picture(tmp_path / "a" / "photos" / "cat" / "1.png", 5)
    picture(tmp_path / "a" / "photos" / "dog" / "1.png", 9)
    zipped(tmp_path / "photos.zip", tmp_path / "a")
    source = find(str(tmp_path / "photos.zip"))
    assert [(item.file.member, item.label) for item in source.items] == [
        ("photos/cat/1.png", "cat"),
        ("photos/dog/1.png", "dog"),
    ]
    assert source.name == "photos"
    (sample,) = decode(source, source.items[1])
    assert sample.array[0, 0, 0] == 9 and sample.label == "dog"


@pytest.mark.parametrize("inside", [True, False])
def test_two_zips_one_a_split(tmp_path, inside):
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            picture(tmp_path / part / (part if inside else "") / label / "1.png")
        (tmp_path / "zips").mkdir(exist_ok=True)
        zipped(tmp_path / "zips" / f"set_{part}_jpg.zip", tmp_path / part)
    source = find(str(tmp_path / "zips"))
    assert [(item.label, item.split) for item in source.items] == [
        ("cat", "test"),
        ("dog", "test"),
        ("cat", "train"),
        ("dog", "train"),
    ]
    assert source.split == "archives set_test_jpg.zip, set_train_jpg.zip"


def test_several_zips_without_a_split_are_listed(tmp_path):
    for name in ("one", "two"):
        picture(tmp_path / name / "cat" / "1.png")
        zipped(tmp_path / f"{name}.zip", tmp_path / name)
    (tmp_path / "only").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"{name}.zip").rename(tmp_path / "only" / f"{name}.zip")
    with pytest.raises(UsageError, match=r"several archives \(one.zip, two.zip\); name one"):
        find(str(tmp_path / "only"))


def test_members_that_point_outside_are_bad(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name in ("cat/1.png", "dog/1.png", "../../evil/1.png", "/etc/1.png"):
            archive.writestr(name, b"\x89PNG\r\n")
    source = find(str(tmp_path / "evil.zip"))
    assert source.classes == ("cat", "dog")
    assert sorted(error.path for error in source.bad) == [
        f"{tmp_path}/evil.zip!../../evil/1.png",
        f"{tmp_path}/evil.zip!/etc/1.png",
    ]
    assert all("points outside the archive" in error.reason for error in source.bad)


def test_windows_zips_and_empty_folders_in_zips(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("cat\\1.png", b"x")
        archive.writestr("dog\\1.png", b"x")
        archive.writestr("ghost/", b"")
        archive.writestr("__MACOSX/cat/._1.png", b"x")
    source = find(str(tmp_path / "w.zip"))
    assert source.classes == ("cat", "dog") and source.empty == ("ghost",)
    assert len(source.ignored) == 1


def test_a_broken_zip(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises((UsageError, ReadError), match=r"bad\.zip"):
        find(str(tmp_path / "bad.zip"))


# ---- containers


def arrays(folder: Path, stem: str, split: str, count: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"X_{split}{stem}.npy", np.arange(count * 64, dtype=np.uint8).reshape(count, 8, 8))
    np.save(folder / f"y_{split}{stem}.npy", np.arange(count) % 2)


def test_arrays_with_labels_beside(tmp_path):
    arrays(tmp_path, "", "train")
    arrays(tmp_path, "", "test", 2)
    for given in (tmp_path, tmp_path / "X_train.npy", tmp_path / "X_test.npy"):
        source = find(str(given))
        assert [(item.file.name, item.label, item.split) for item in source.items] == [
            ("X_test.npy", None, "test"),
            ("X_train.npy", None, "train"),
        ]
        assert [file.name for file in source.companions] == ["y_test.npy", "y_train.npy"]
        assert source.split == "published by file names"
        samples = [sample for item in source.items for sample in decode(source, item)]
        assert [(sample.label, sample.split) for sample in samples] == [
            *[(str(i % 2), "test") for i in range(2)],
            *[(str(i % 2), "train") for i in range(4)],
        ]


def test_one_npz(tmp_path):
    np.savez(tmp_path / "set.npz", x=np.zeros((4, 8, 8), np.uint8), y=np.arange(4) % 2)
    (tmp_path / "notes.xyz").write_text("beside arrays, other files are no items that failed")
    source = find(str(tmp_path))
    assert [item.file.name for item in source.items] == ["set.npz"] and not source.bad
    assert source.ignored == (f"{tmp_path}/notes.xyz",)
    assert find(str(tmp_path / "set.npz")).name == "set"


def test_several_sets_in_one_folder_are_listed(tmp_path):
    for name in ("Gun", "Italy"):
        for split in ("TRAIN", "TEST"):
            (tmp_path / f"{name}_{split}.ts").write_text("@problemName x\n@classLabel true a b\n@data\n1,2,3:a\n")
    with pytest.raises(UsageError, match=r"several data sets: Gun, Italy; name one, such as .*/Gun "):
        find(str(tmp_path))
    source = find(str(tmp_path / "gun"))  # a prefix, in any case
    assert [(item.file.name, item.split) for item in source.items] == [
        ("Gun_TEST.ts", "test"),
        ("Gun_TRAIN.ts", "train"),
    ]
    assert [i.file.name for i in find(str(tmp_path / "Italy_TRAIN.ts")).items] == ["Italy_TEST.ts", "Italy_TRAIN.ts"]
    for name in ("Gun", "Italy"):
        (tmp_path / "sub" / name).mkdir(parents=True)
        for split in ("TRAIN", "TEST"):
            (tmp_path / f"{name}_{split}.ts").rename(tmp_path / "sub" / name / f"{name}_{split}.ts")
    with pytest.raises(UsageError, match="several data sets: Gun, Italy; name one"):
        find(str(tmp_path / "sub"))
    (tmp_path / "sub" / "Italy").rename(tmp_path / "Italy")
    assert len(find(str(tmp_path / "sub")).items) == 2  # a folder with one set in a folder


def test_class_folders_of_arrays_are_items(tmp_path):
    for label in ("a", "b"):
        for i in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            np.save(tmp_path / label / f"{i}.npy", np.full((5, 6), i, np.uint8))
    source = find(str(tmp_path))
    assert [item.label for item in source.items] == ["a", "a", "b", "b"]
    (sample,) = decode(source, source.items[3])
    assert sample.array.shape == (1, 5, 6) and sample.array[0, 0, 0] == 1


def test_one_picture_is_no_data_set(tmp_path):
    picture(tmp_path / "1.png")
    with pytest.raises(UsageError, match="is one item; a data set is a folder of them"):
        find(str(tmp_path / "1.png"))


def test_a_pickle_is_named_and_never_loaded(tmp_path):
    import pickle

    (tmp_path / "data.pkl").write_bytes(pickle.dumps({"x": [1, 2]}))
    with pytest.raises(UsageError, match=r"data.pkl: is a Python pickle, .* never loaded"):
        find(str(tmp_path))


# ---- labels in names


def test_a_flat_folder_needs_a_pattern_and_proposes_one(tmp_path):
    for digit in range(2):
        for speaker in ("ann", "bob"):
            for index in range(3):
                sound(tmp_path / f"{digit}_{speaker}_{index}.wav", digit)
    with pytest.raises(UsageError) as caught:
        find(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} is a flat folder of 12 files without class folders; when their names hold the label, "
        'say how: --pattern "{label}_{field2}_{index}.wav" (0_ann_0.wav)'
    )
    pattern = "{label}_{speaker}_{index}.wav"
    source = find(str(tmp_path), pattern=pattern)
    assert source.classes == ("0", "1") and source.fields == ("speaker", "index") and source.pattern == pattern
    assert source.items[-1].fields == {"speaker": "bob", "index": "2"}
    assert find(str(tmp_path), pattern=pattern, group="speaker").group == "speaker"
    with pytest.raises(UsageError, match="no column 'speker' for --group: it has speaker, index; did you mean speaker"):
        find(str(tmp_path), pattern=pattern, group="speker")
    with pytest.raises(UsageError, match=r"no file of .* fits --pattern"):
        find(str(tmp_path), pattern="{label}-{speaker}.wav")
    with pytest.raises(UsageError, match=r"has no {label}, and .* has no class folders"):
        find(str(tmp_path), pattern="{speaker}_{_}_{index}.wav")


def test_a_pattern_adds_columns_to_class_folders_and_reads_splits(tmp_path):
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            picture(tmp_path / part / label / f"p{part}-{label}_1.png")
    picture(tmp_path / "train" / "dog" / "odd.png")
    source = find(str(tmp_path), pattern="{patient}_{slice}.png")
    assert source.split == "folders test/train" and source.fields == ("patient", "slice")
    first = source.items[0]
    assert (first.label, first.split, first.fields["patient"]) == ("cat", "test", "ptest-cat")
    assert [str(error) for error in source.bad] == [
        f"{tmp_path}/train/dog/odd.png: its name does not fit the pattern '{{patient}}_{{slice}}.png'"
    ]
    by_path = find(str(tmp_path), pattern="{split}/{label}/{name}.png")
    assert [(item.label, item.split) for item in by_path.items][-1] == ("dog", "train")
    assert by_path.split == "the field split of the names"


def test_another_word_in_the_place_of_the_split_is_named_and_not_trained_on(tmp_path):
    for name in ("train_cat_1", "train_dog_1", "test_cat_2", "test_dog_2", "spare_dog_3"):
        picture(tmp_path / f"{name}.png")
    source = find(str(tmp_path), pattern="{split}_{label}_{n}.png")
    assert [item.split for item in source.items] == ["test", "test", "train", "train"]
    assert [str(error).partition(" is none of")[0] for error in source.bad] == [
        f"{tmp_path}/spare_dog_3.png: its split 'spare'"
    ]


def test_group_without_columns(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    picture(tmp_path / "dog" / "1.png")
    with pytest.raises(UsageError, match="no column 'patient' for --group: it has no columns; --pattern names them"):
        find(str(tmp_path), group="patient")


def test_patterns():
    pattern = Pattern("{label}_{speaker}_{index}.wav")
    assert pattern.match("sub/7_jackson_32.WAV") == {"label": "7", "speaker": "jackson", "index": "32"}
    assert Pattern("{label}.{index}").match("cat.12.jpg") == {"label": "cat", "index": "12"}
    assert Pattern("img({label})").match("img(a.b).png") == {"label": "a.b"}  # literal, not a regular expression
    with pytest.raises(ValueError, match="more than one way"):
        pattern.match("new_york_bob_3.wav")
    with pytest.raises(ValueError, match="does not fit"):
        pattern.match("7_jackson.wav")
    for wrong, words in (
        ("label", "needs fields in braces"),
        ("{label", "needs fields in braces"),
        ("{a}{b}", "need something between"),
        ("{a}_{a}", "twice"),
        ("{a b}_x", "is not a field name"),
    ):
        with pytest.raises(UsageError, match=words):
            Pattern(wrong)


def test_words_in_names():
    assert split_in("GunPoint_TRAIN.ts") == ("train", "gunpoint_*.ts")
    assert split_in("t10k-images-idx3-ubyte.gz") == ("test", "*-images-idx3-ubyte.gz")
    assert split_in("contest.npz") == (None, "contest.npz") and split_in("trainer.npy")[0] is None
    assert holds_labels("train-labels-idx1-ubyte.gz") and holds_labels("y_test.npy") and not holds_labels("yes.npy")
    assert natural_order(["10", "9", "a2", "a10", "B"]) == ["9", "10", "a2", "a10", "B"]
    assert natural_order(["m²", "²", "m10", "m9", "①"]) == ["m9", "m10", "m²", "²", "①"]  # digits that are no decimals
    assert propose(["cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg"]) == "{label}.{index}.jpg"
    assert propose(["a.png", "b.png"]) is None


# ---- names and errors


def test_what_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no file, folder or named set 'digts'; did you mean digits"):
        find("digts")
    picture(tmp_path / "photos" / "cat" / "1.png")
    with pytest.raises(UsageError, match=r"did you mean .*/photos\?"):
        find(str(tmp_path / "photo"))
    with pytest.raises(UsageError, match=r"the folder .*/nowhere does not exist"):
        find(str(tmp_path / "nowhere" / "x"))
    (tmp_path / "void").mkdir()
    with pytest.raises(UsageError, match="void is empty"):
        find(str(tmp_path / "void"))
    (tmp_path / "void" / "a.csv").write_text("1,2")
    with pytest.raises(UsageError, match=r"no pictures, sounds, arrays or series; it has a.csv"):
        find(str(tmp_path / "void"))
    monkeypatch.setenv("GRIDSIGHT_DATA", str(tmp_path))
    picture(tmp_path / "photos" / "dog" / "1.png")
    assert find("photos").classes == ("cat", "dog")


def test_a_path_goes_before_a_set_and_a_set_before_the_data_folder(tmp_path, monkeypatch):
    for label in ("cat", "dog"):
        picture(tmp_path / "data" / "digits" / label / "1.png")
    monkeypatch.setenv("GRIDSIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    assert find("digits").items[0].reader == "digits"
    monkeypatch.chdir(tmp_path / "data")
    assert find("digits").classes == ("cat", "dog")


def test_fingerprint(tmp_path):
    for label in ("cat", "dog"):
        picture(tmp_path / "a" / label / "1.png")
    zipped(tmp_path / "a.zip", tmp_path / "a")
    first, packed = find(str(tmp_path / "a")), find(str(tmp_path / "a.zip"))
    assert first.fingerprint() == find(str(tmp_path / "a")).fingerprint() and len(first.fingerprint()) == 32
    assert packed.fingerprint() != first.fingerprint()
    assert find(str(tmp_path / "a"), axes="HWC").fingerprint() != first.fingerprint()
    path = tmp_path / "a" / "dog" / "1.png"
    status = path.stat()
    before = first.fingerprint()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # equal size and time: the content tells
    assert find(str(tmp_path / "a")).fingerprint() != before
    (tmp_path / "a" / "dog").rename(tmp_path / "a" / "wolf")
    assert find(str(tmp_path / "a")).fingerprint() != before
    # bytes in the middle of a large file are seen by `whole` alone
    big = tmp_path / "big.npz"
    big.write_bytes(b"PK\x03\x04" + bytes(300_000))
    source = find(str(tmp_path / "a"))
    item = source.items[0].__class__(files_module.File(big), "array")
    large = source.__class__("x", (item,), {})
    short, long = large.fingerprint(), large.fingerprint(whole=True)
    status, data = big.stat(), bytearray(big.read_bytes())
    data[150_000] = 1
    big.write_bytes(data)
    os.utime(big, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert large.fingerprint() == short and large.fingerprint(whole=True) != long


# ---- named sets


def test_digits():
    source = find("digits")
    samples = list(decode(source, source.items[0]))
    assert len(samples) == 1797 and source.split == ""
    from sklearn.datasets import load_digits

    theirs = load_digits()
    assert [sample.label for sample in samples] == [str(digit) for digit in theirs.target]
    ours = np.stack([sample.array[0] for sample in samples])
    assert ours.dtype == np.uint8 and np.array_equal(ours, np.rint(theirs.images * 255 / 16))
    assert samples[12].path == "digits[12]"
    with pytest.raises(UsageError, match="a named set, which needs no --pattern"):
        find("digits", pattern="{label}.png")


def test_fsdd_by_the_publishers_rule_and_by_speaker(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "fsdd"
    for digit in range(2):
        for speaker in ("ann", "bob"):
            for index in (3, 5, 6, 7, 10, 11, 12):
                sound(folder / f"{digit}_{speaker}_{index}.wav", digit)
    monkeypatch.setenv("GRIDSIGHT_DATA", str(tmp_path / "data"))
    source = find("FSDD")
    assert {(item.fields["index"], item.split) for item in source.items} == {
        *[(index, "test") for index in ("3", "5", "6", "7", "10")],
        *[(index, "train") for index in ("11", "12")],
    }
    assert "3, 5, 6, 7, 10 are test" in source.split and source.group is None
    assert any("columns speaker, index exist and are not used" in note for note in source.notes)
    grouped = find("fsdd", group="speaker")
    assert {item.split for item in grouped.items} == {None} and (grouped.split, grouped.group) == ("", "speaker")
    assert grouped.fingerprint() != source.fingerprint()
    monkeypatch.setenv("GRIDSIGHT_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"fsdd is not here: download https://.* into .*/none/fsdd"):
        find("fsdd")


def test_ucr_says_which_files_go_where(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSIGHT_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"put GunPoint_TRAIN.ts and GunPoint_TEST.ts of https://.* into .*/ucr"):
        find("gunpoint")


def idx(path: Path, values: np.ndarray) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    data = gzip.compress(header + values.tobytes(), mtime=0)
    path.write_bytes(data)
    return data


def small_mnist(folder: Path) -> None:
    for part, count in (("train", 4), ("t10k", 2)):
        idx(folder / f"{part}-images-idx3-ubyte.gz", np.arange(count * 784, dtype=np.uint8).reshape(count, 28, 28))
        idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8))


def test_mnist_in_the_data_folder(tmp_path, monkeypatch):
    small_mnist(tmp_path / "mnist")
    monkeypatch.setenv("GRIDSIGHT_DATA", str(tmp_path))
    source = find("mnist")
    assert [(item.file.name, item.split) for item in source.items] == [
        ("train-images-idx3-ubyte.gz", "train"),
        ("t10k-images-idx3-ubyte.gz", "test"),
    ]
    samples = [sample for item in source.items for sample in decode(source, item)]
    assert [(sample.label, sample.split) for sample in samples] == [
        *[(str(i), "train") for i in range(4)],
        *[(str(i), "test") for i in range(2)],
    ]
    before = source.fingerprint()
    idx(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz", np.array([1, 0], np.uint8))
    assert find("mnist").fingerprint() != before  # the labels count


def test_mnist_is_downloaded_into_the_cache(tmp_path, monkeypatch):
    from gridsight.data.sets import mnist as module

    asked = []
    small_mnist(tmp_path / "server")

    def fetch(remote, folder):
        asked.append((remote.url, folder))
        return tmp_path / "server" / remote.name

    monkeypatch.setattr(module, "fetch", fetch)
    source = find("mnist")
    assert [url.rpartition("/")[2] for url, _ in asked] == [remote.name for remote in module.FILES]
    assert {folder for _, folder in asked} == {tmp_path / "cache" / "sets" / "mnist"}
    assert len(source.items) == 2


@needs_shared
def test_the_real_sets(monkeypatch):
    monkeypatch.setenv("GRIDSIGHT_DATA", str(SHARED))
    source = find("fsdd")
    assert len(source.items) == 2700 and sum(item.split == "test" for item in source.items) == 300
    source = find("cifar10_jpg")
    assert len(source.items) == 60_000 and len(source.classes) == 10
    assert sum(item.split == "test" for item in source.items) == 10_000
    assert [item.file.name for item in find("ucr/GunPoint").items] == ["GunPoint_TEST.ts", "GunPoint_TRAIN.ts"]
    assert find("JapaneseVowels").name == "JapaneseVowels"
    with pytest.raises(UsageError, match="GunPoint, ItalyPowerDemand, JapaneseVowels"):
        find("ucr")
