"""Tables: how they are read as text, manifests of files, and tables whose cells are the data."""

import csv
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import nasty
from gridsight.artifact.inputs import read_path
from gridsight.core.console import Console
from gridsight.core.errors import DataError, ReadError, UsageError
from gridsight.data.alphabet import one_hot
from gridsight.data.audit import audit
from gridsight.data.cache import cached
from gridsight.data.columns import has_header, roles
from gridsight.data.decoding import decode
from gridsight.data.files import File
from gridsight.data.names import SPLITS
from gridsight.data.readers.table import TableReader
from gridsight.data.sample import Sample
from gridsight.data.source import Source, find
from gridsight.data.spec import DataSpec
from gridsight.data.split import split
from gridsight.data.table import Table
from gridsight.data.target import decide

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real data of ../shared/data are not here")
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("GRIDSIGHT_DATA", raising=False)
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))


def table(path: Path, text: str | bytes) -> Table:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Table(File(path))


def picture(path: Path, value: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) + np.uint8(value)).save(path)
    return path.name


def said(source: Source) -> list[tuple[str, str | None, str | None]]:
    return [(item.file.name, item.label, item.split) for item in source.items]


def samples(source: Source) -> list[Sample]:
    found = [sample for item in source.items for sample in decode(source, item)]
    assert all(isinstance(sample, Sample) for sample in found), found
    return found  # type: ignore[return-value]


# ---- text


def test_cells_are_those_that_csv_gives(tmp_path):
    rng = np.random.default_rng(0)
    letters = ["a", "ü", " ", ",", ";", "\n", '"', "x1", "\t", "."]
    for mark in ",;\t|":
        rows = [["name", "label", "note"]]
        rows += [["".join(rng.choice(letters, 6)).strip() or "z" for _ in range(3)] for _ in range(60)]
        text = io.StringIO()
        csv.writer(text, delimiter=mark, lineterminator="\n").writerows(rows)
        found = table(tmp_path / "t.csv", text.getvalue())
        assert found.separator == mark and found.names == ["name", "label", "note"]
        assert [row.cells for row in found.rows()] == [[cell.strip() for cell in row] for row in rows[1:]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_line_ends_and_blank_lines(tmp_path, encoding, end):
    text = end.join(["", "path,label", "", "ä.png,süß", " , ", "b.png , x ", ""])
    found = table(tmp_path / "t.csv", text.encode(encoding))
    assert [(row.place, row.cells) for row in found.rows()] == [
        ("line 4", ["ä.png", "süß"]),
        ("line 6", ["b.png", "x"]),
    ]


def test_a_wrong_row_never_takes_others_along(tmp_path):
    found = table(
        tmp_path / "t.csv",
        'path,label\na,1\nb\nc,3,4\n"d,5\ne,6\n"f",7\n"g"x,8\n"h\nh",9\ni "inch",10\n',
    )
    assert [(row.place, row.cells, row.problem[:32]) for row in found.rows()] == [
        ("line 2", ["a", "1"], ""),
        ("line 3", [], "it has 1 cells where 2 are wanted"[:32]),
        ("line 4", [], "it has 3 cells where 2 are wanted"[:32]),
        ("line 5", [], "a quote is opened and not closed"),
        ("line 6", ["e", "6"], ""),
        ("line 7", ["f", "7"], ""),
        ("line 8", [], "its quotes make no sense (',' ex"),
        ("line 9", ["h\nh", "9"], ""),
        ("line 11", ['i "inch"', "10"], ""),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b"\n\n \n", "has no rows"),
        (b"path,label\na,b\0c\n", "line 2 holds zero bytes"),
        ("path,label\nä,ß\n".encode("latin-1"), "is no UTF-8 text after line"),
        (b"path,path\na,b\n", "two columns called 'path'"),
        (b'"path,label\na,b\n', "line 1: a quote is opened"),
    ],
)
def test_what_is_no_table(tmp_path, text, words):
    with pytest.raises(ReadError, match=words) as caught:
        table(tmp_path / "t.csv", text)
    assert caught.value.path == str(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("first", "rest", "header"),
    [
        ("path label", ["a.png cat", "b.png dog"], True),
        ("a.png cat", ["b.png dog", "c.png cat"], False),
        ("id x y", ["1 2 3", "4 5 6"], True),
        ("1 2 3", ["4 5 6"], False),
        ("kind 0 1 2", ["a 1 2 3", "b 4 5 6"], True),
        ("photo diagnosis", ["p1 nevus", "p2 nevus"], True),
        ("+ S10 tactagcaatacgcttgcgttcggtggttaag", ["+ AMPC tgctatcctgacagttgtcacgctgattggt"], False),
        ("EI ATRINS CCAGCTGCATCACAGGAGGCCAGCGAGCAGG", ["IE BABAPOE GAGGTGAAGGACGTCCTTCCCCAGGAGCCGG"], False),
        ("a.png b.png", [], False),
        ("file kind", [], True),
    ],
)
def test_headers_are_guessed(first, rest, header):
    assert has_header(first.split(), [row.split() for row in rest]) is header


def test_parquet_gives_what_csv_gives(tmp_path):
    columns = {"path": ["a.png", "b.png"], "grade": [1, 2], "age": [40.0, None], "new": [True, False]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = Table(File(tmp_path / "t.parquet"))
    assert found.names == list(columns) and [(row.place, row.cells) for row in found.rows()] == [
        ("row 1", ["a.png", "1", "40", "True"]),
        ("row 2", ["b.png", "2", "", "False"]),
    ]
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as out:
        out.write(tmp_path / "t.parquet", "in/t.parquet")
    again = Table(File(tmp_path / "t.zip", "in/t.parquet"))
    assert [row.cells for row in again.rows()] == [row.cells for row in found.rows()]
    parquet.write_table(pa.table({"image": [{"bytes": b"x"}], "label": [1]}), tmp_path / "nested.parquet")
    with pytest.raises(ReadError, match=r"its column 'image' holds struct<bytes: binary>"):
        Table(File(tmp_path / "nested.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    parquet.write_table(pa.table({"path": ["a"], "label": ["b"]}), tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ReadError, match=r'pip install "gridsight\[tables\]"'):
        Table(File(tmp_path / "t.parquet"))


# ---- columns


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("path label split group", (0, 1, 2)),
        ("id File_Name Class", (1, 2, None)),
        ("split path target y", (1, 2, 0)),
        ("path age", (0, 1, None)),
        ("path age[years] grade", (0, 2, None)),
        ("filename labels set", (0, 1, None)),
    ],
)
def test_columns_by_their_names(names, wanted):
    columns = names.split()
    found = roles(columns, [["train" if name == "split" else f"{name}{i}" for name in columns] for i in range(5)])
    assert (found.files, found.label, found.split) == wanted


def test_the_label_is_asked_for_where_it_is_not_clear():
    rows = [["a.png", "red", "big"], ["b.png", "red", "small"], ["c.png", "blue", "big"], ["d.png", "red", "big"]]
    with pytest.raises(UsageError, match="which column is the label, colour, format\\? say it: --target NAME"):
        roles(["path", "colour", "format"], rows)
    assert roles(["path", "colour", "format"], rows, target="Colour").label == 1
    with pytest.raises(UsageError, match="no column 'color' for --target; did you mean colour"):
        roles(["path", "colour", "format"], rows, target="color")


# ---- manifests


def test_a_manifest_with_splits_and_groups(tmp_path):
    for i in range(4):
        picture(tmp_path / "images" / f"{i}.png", i)
    (tmp_path / "list.csv").write_text(
        "path,label,split,patient,age\nimages/0.png,cat,train,p1,3\nimages/1.png,dog,Training,p2,4\n"
        "images/2.png,cat,TEST,p3,5\nimages/3.png,dog,valid,,6\n"
    )
    source = find(str(tmp_path / "list.csv"))
    assert said(source) == [
        ("0.png", "cat", "train"),
        ("1.png", "dog", "train"),
        ("2.png", "cat", "test"),
        ("3.png", "dog", "val"),
    ]
    assert (source.fields, source.group, source.target) == (("patient", "age"), None, "label")
    assert (source.name, source.split) == ("list", "the column split") and not source.bad
    assert source.items[0].fields == {"patient": "p1", "age": "3"}
    assert source.items[3].fields == {"patient": str(tmp_path / "images" / "3.png"), "age": "6"}  # a group of its own
    assert not [note for note in source.notes if "have no" in note]  # nobody groups by it
    grouped = find(str(tmp_path / "list.csv"), group="patient")
    assert grouped.group == "patient"
    assert "1 rows of list.csv have no patient; each is a group of its own" in grouped.notes
    with pytest.raises(UsageError, match="no column 'patients' for --group: it has patient, age"):
        find(str(tmp_path / "list.csv"), group="patients")
    ages = find(str(tmp_path / "list.csv"), target="age")
    assert ages.target == "age" and [item.label for item in ages.items] == ["3", "4", "5", "6"]
    assert decide([item.label for item in ages.items], ages.target).task == "regress"
    assert "label" in ages.fields
    with pytest.raises(UsageError, match="no column 'color' for --target"):
        find(str(tmp_path / "list.csv"), target="color")
    assert source.fingerprint() != ages.fingerprint()


def test_a_column_called_group_keeps_its_items_together(tmp_path):
    rows = "".join(f"{picture(tmp_path / f'{i}.png', i)},{'ab'[i % 2]},g{i // 4}\n" for i in range(16))
    (tmp_path / "list.csv").write_text("path,label,group\n" + rows)
    source = find(str(tmp_path / "list.csv"))
    assert source.group == "group" and "the column group keeps its items together" in source.notes
    groups = [item.fields["group"] for item in source.items]
    parts = split([item.label for item in source.items], groups, None, 0)
    assert not {groups[i] for i in parts.train} & {groups[i] for i in parts.test}
    assert cached(source, QUIET).groups == groups
    assert not [note for note in source.notes if "have no" in note]
    (tmp_path / "list.csv").write_text("path,label,group\n" + rows.replace(",g3", ","))
    source = find(str(tmp_path / "list.csv"))
    assert "4 rows of list.csv have no group; each is a group of its own" in source.notes


def test_sets_of_classes_and_the_empty_set(tmp_path):
    rows = [("a.png", "cat;dog"), ("b.png", ""), ("c.png", "dog; "), ("d.png", "bird")]
    for name, _ in rows:
        picture(tmp_path / name)
    (tmp_path / "list.csv").write_text("file,tags\n" + "".join(f"{name},{label}\n" for name, label in rows))
    source = find(str(tmp_path / "list.csv"))
    assert [item.label for item in source.items] == ["cat;dog", ";", "dog", "bird"] and not source.bad
    target = decide([item.label for item in source.items], source.target)
    assert (target.task, target.classes) == ("multilabel", ("bird", "cat", "dog"))


def test_every_wrong_row_is_named_with_its_line_and_the_others_go_on(tmp_path):
    for name in ("ok.png", "two.png", "again.png", "split.png"):
        picture(tmp_path / name)
    (tmp_path / "bad.txt").write_text("text")
    (tmp_path / "list.csv").write_text(
        "path,label,split\nok.png,cat,\n,dog,\nmissing.png,dog,\ntwo.png,cat,\ntwo.png,dog,\n"
        "again.png,dog,train\n./again.png,dog,train\nok.png,,\nsplit.png,cat,tset\nbad.txt,cat,\nshort,row\n"
        "split.png,dog,train\nsplit.png,dog,test\n"
    )
    source = find(str(tmp_path / "list.csv"))
    assert said(source) == [("ok.png", "cat", None), ("again.png", "dog", "train")]
    two = f"{tmp_path / 'two.png'} is 'cat' on line 5 and 'dog' on line 6"
    sides = f"{tmp_path / 'split.png'} is 'train' on line 13 and 'test' on line 14"
    assert sorted(str(error).removeprefix(f"{tmp_path / 'list.csv'}: ") for error in source.bad) == sorted(
        [
            "line 3: has no path",
            f"line 4: there is no file missing.png in {tmp_path}",
            f"line 5: two labels for one file: {two}",
            f"line 6: two labels for one file: {two}",
            "line 9: its label is missing",
            f"line 10: its split 'tset' is none of {', '.join(SPLITS)}",
            "line 11: bad.txt is no file of data",
            "line 12: it has 2 cells where 3 are wanted",
            f"line 13: two splits for one file: {sides}",
            f"line 14: two splits for one file: {sides}",
        ]
    )
    assert "1 rows name a file again with the same label; each file counts once" in source.notes
    assert any("3 rows of list.csv have no split" in note for note in source.notes)
    assert sum(finding.problem == "unreadable" for finding in audit(source, QUIET).findings) == len(source.bad)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\n", r"no row of .*list.csv can be used; it has a header and no rows"),
        ("path,label\nx.png,cat\ny.png,dog\n", r"no row of .* can be used; .*line 2: there is no file x.png in"),
        ("name,kind\nx,cat\ny,dog\n", "has no column of paths.*it has name, kind.*a manifest has path,label"),
        ("path\nok.png\n", "has no column of labels; a manifest has path,label"),
        ("path,a,b\nok.png,1,2\nx,1,2\n", "which column is the label, a, b"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, text, words):
    picture(tmp_path / "ok.png")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        find(str(tmp_path / "list.csv"))


def test_nasty_manifests(tmp_path):
    for what, (path, left, errors) in nasty.manifests(tmp_path / "set").items():
        source = find(str(path))
        assert sorted(item.file.name for item in source.items) == left, what
        assert len(source.bad) == len(errors), what
        for error, words in zip(source.bad, errors, strict=True):
            assert error.path == str(path) and words in error.reason, what
    (tmp_path / "set" / "pipe.csv").write_text("path,label\na.png,x\npipe.png,y\n")
    pipe = find(str(tmp_path / "set" / "pipe.csv"))
    (error,) = decode(pipe, pipe.items[1])
    assert isinstance(error, ReadError) and "empty (0 bytes)" in error.reason


def test_a_class_that_is_only_tested_is_refused_by_name(tmp_path):
    rows = [("a", "cat", "train"), ("b", "dog", "train"), ("c", "bird", "test")]
    for name, _, _ in rows:
        picture(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_text("path,label,split\n" + "".join(f"{n}.png,{c},{s}\n" for n, c, s in rows))
    source = find(str(tmp_path / "list.csv"))
    with pytest.raises(DataError, match="only in the test data, so never trained on: bird"):
        split([item.label for item in source.items], None, [item.split for item in source.items], 0)


def test_paths_into_archives_and_out_of_them(tmp_path):
    picture(tmp_path / "in" / "x.png", 7)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.write(tmp_path / "in" / "x.png", "deep/x.png")
        out.write(tmp_path / "in" / "x.png", "deep/y.png")
        out.writestr("deep/labels.csv", "path,label\nx.png,cat\ny.png,dog\n../../etc/passwd,dog\n")
    (tmp_path / "list.csv").write_text(
        f"path,label\na.zip!deep/x.png,cat\n{tmp_path}/in/x.png,dog\na.zip!../in/x.png,cat\na.zip!/in/x.png,cat\n"
        "a.zip!deep/z.png,cat\nin\\x.png,dog\n"
    )
    source = find(str(tmp_path / "list.csv"))
    assert [str(item.file) for item in source.items] == [f"{tmp_path}/a.zip!deep/x.png", f"{tmp_path}/in/x.png"]
    assert [error.reason.partition(": ")[2][:50] for error in source.bad] == [
        "a.zip!../in/x.png: its name points outside the arc"[:50],
        "a.zip!/in/x.png: its name points outside the archi"[:50],
        f"there is no file a.zip!deep/z.png in {tmp_path}"[:50],
    ]
    assert samples(source)[0].array[0, 0, 0] == 7
    inside = find(str(tmp_path / "a.zip"))
    assert [item.label for item in inside.items] == ["cat", "dog"]
    assert "points outside" in inside.bad[0].reason


def test_a_folder_with_one_table_that_lists_its_files(tmp_path):
    root = tmp_path / "set"
    for i in range(4):
        picture(root / "images" / f"{i}.png", i)
    (root / "metadata.csv").write_text("file_name,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(3)))
    (root / "notes.csv").write_text("who,when\nme,today\n")
    source = find(str(root))
    assert said(source) == [("0.png", "a", None), ("1.png", "b", None), ("2.png", "a", None)]
    note = "metadata.csv lists the files and their labels; 1 files that it does not list are left alone"
    assert source.notes[0] == note and source.name == "set"
    (root / "more.csv").write_text((root / "metadata.csv").read_text())
    with pytest.raises(UsageError, match=r"several tables \(metadata.csv, more.csv\); name one of them"):
        find(str(root))
    assert len(find(str(root / "more.csv")).items) == 3


def test_train_and_test_tables_beside_folders(tmp_path):
    root = tmp_path / "set"
    for part, count in (("train", 3), ("test", 2)):
        rows = "".join(f"{picture(root / part / f'{part}{i}.png', i)},{'ab'[i % 2]}\n" for i in range(count))
        (root / f"{part}.csv").write_text("image,label\n" + rows)
    for given in (root, root / "train.csv"):
        source = find(str(given))
        assert [(item.file.name, item.split) for item in source.items] == [
            *[(f"test{i}.png", "test") for i in range(2)],
            *[(f"train{i}.png", "train") for i in range(3)],
        ]
        assert source.split == "published by file names"
    (root / "train.csv").write_text((root / "train.csv").read_text() + "../test/test0.png,a\n")
    leaked = find(str(root))
    assert len(leaked.bad) == 2 and all("two splits for one file" in error.reason for error in leaked.bad)
    (root / "test.csv").write_text("image\ntest0.png\ntest1.png\n")
    alone = find(str(root))
    assert {item.split for item in alone.items} == {"train"}
    assert any("test.csv has no column of labels and is not used" in note for note in alone.notes)


def test_class_folders_go_before_tables_and_that_is_said(tmp_path):
    for label in ("cat", "dog"):
        picture(tmp_path / label / "1.png")
    (tmp_path / "labels.csv").write_text("path,label\ncat/1.png,x\ndog/1.png,y\n")
    source = find(str(tmp_path))
    assert source.classes == ("cat", "dog") and source.ignored == (str(tmp_path / "labels.csv"),)
    assert any("class folders give the labels; labels.csv is not used" in note for note in source.notes)
    assert find(str(tmp_path / "labels.csv")).classes == ("x", "y")
    with pytest.raises(UsageError, match=r"--target names a column of a table; .* has class folders"):
        find(str(tmp_path), target="label")
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(UsageError, match=r"--target names a column of a table, and .* is none"):
        find(str(tmp_path), target="label")


def test_a_table_beside_an_archive_of_its_files(tmp_path):
    picture(tmp_path / "in" / "x.png")
    picture(tmp_path / "in" / "y.png", 3)
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set" / "images.zip", "w") as out:
        out.write(tmp_path / "in" / "x.png", "images/x.png")
        out.write(tmp_path / "in" / "y.png", "images/y.png")
    (tmp_path / "set" / "labels.csv").write_text("id,label\nx.png,a\ny.png,b\n")
    source = find(str(tmp_path / "set"))
    assert [str(item.file) for item in source.items] == [f"{tmp_path}/set/images.zip!images/{n}.png" for n in "xy"]


def test_predicting_what_a_table_lists(tmp_path):
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "b.png", 2)
    (tmp_path / "new.csv").write_text("path\nb.png\na.png\nnone.png\n")
    spec = DataSpec("x", "image", 2, 1, (8, 8), "uint8", ("a", "b"))
    got = list(read_path(tmp_path / "new.csv", spec))
    assert [found.path for found in got] == [
        str(tmp_path / "b.png"),
        str(tmp_path / "a.png"),
        str(tmp_path / "new.csv"),
    ]
    assert isinstance(got[2], ReadError) and got[2].reason == f"line 4: there is no file none.png in {tmp_path}"
    assert got[0].array[0, 0, 0] == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["backup.tar.gz", "broken.zip"])
def test_a_broken_archive_beside_a_table_is_left_out(tmp_path, name):
    picture(tmp_path / "x.png")
    picture(tmp_path / "y.png", 3)
    whole = tmp_path / "whole.tar.gz"
    with tarfile.open(whole, "w:gz") as out:
        out.addfile(tarfile.TarInfo("a.bin"))
    broken = {"backup.tar.gz": whole.read_bytes()[:-20], "broken.zip": b"PK\5\6" + b"\xff" * 16 + b"\0\0"}
    whole.unlink()
    (tmp_path / name).write_bytes(broken[name])
    for paths, bad in (("xy", 0), ("xz", 1)):  # found in the folder, and half of them
        rows = "".join(f"{one}.png,{label}\n" for one, label in zip(paths, "ab", strict=True))
        (tmp_path / "labels.csv").write_text("file,label\n" + rows)
        source = find(str(tmp_path / "labels.csv"))
        assert (len(source.items), len(source.bad)) == (2 - bad, bad)
    (tmp_path / "labels.csv").write_text(f"file,label\nx.png,a\n{name}!x.png,b\n{name}!y.png,b\n")
    source = find(str(tmp_path / "labels.csv"))
    assert len(source.items) == 1 and len(source.bad) == 2
    assert all("is no readable archive" in bad.reason for bad in source.bad)


def test_archives_beside_a_table_stay_closed_where_its_folder_has_the_files(tmp_path, monkeypatch):
    picture(tmp_path / "x.png")
    picture(tmp_path / "y.png", 3)
    with tarfile.open(tmp_path / "backup.tar.gz", "w:gz") as out:
        out.add(tmp_path / "x.png", "x.png")
    (tmp_path / "labels.csv").write_text("name,label\nx.png,a\ny.png,b\n")
    monkeypatch.setattr("gridsight.data.manifest.archive_at", None)
    assert len(find(str(tmp_path / "labels.csv")).items) == 2


def test_archives_beside_a_table_that_lists_no_files_stay_closed(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "backup.tar.gz", "w:gz") as out:
        for name in ("x.png", "y.png"):
            picture(tmp_path / name)
            out.add(tmp_path / name, name)
            (tmp_path / name).unlink()
    rng = np.random.default_rng(0)
    rows = [[f"{value:.3f}" for value in row] for row in rng.normal(size=(20, 12))]
    (tmp_path / "series.csv").write_text("\n".join(",".join([*row, "ab"[i % 2]]) for i, row in enumerate(rows)))
    letters = ["".join(rng.choice([*"ACGT"], 40)) for _ in range(20)]
    (tmp_path / "letters.csv").write_text("\n".join(f"{row},{'ab'[i % 2]}" for i, row in enumerate(letters)))
    (tmp_path / "list.csv").write_text("name,label\nx.png,a\ny.png,b\n")
    assert len(find(str(tmp_path / "list.csv")).items) == 2  # these lie in the archive alone
    monkeypatch.setattr("gridsight.data.manifest.archive_at", None)
    for name in ("series", "letters"):
        assert [item.reader for item in find(str(tmp_path / f"{name}.csv")).items] == ["table"]
    with pytest.raises(TypeError):
        find(str(tmp_path / "list.csv"))  # the control


# ---- tables that are the data


def write(path: Path, rows: list[list[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def test_one_series_a_row(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 12)).astype(np.float32)
    header = ["id", "patient", *[f"t{i}" for i in range(12)], "label", "split"]
    rows = [
        [i, f"p{i // 4}", *map(repr, map(float, values[i])), "ab"[i % 2], "train" if i < 15 else "test"]
        for i in range(20)
    ]
    path = write(tmp_path / "ecg.csv", [header, *rows])
    source = find(str(path))
    assert source.fields == ("id", "patient") and source.split == "the column split" and source.target == "label"
    assert "each row is one series of 12 steps (t0 to t11), its label label" in source.notes
    found = samples(source)
    np.testing.assert_array_equal(np.stack([sample.array for sample in found]), values[:, None])
    assert [(s.label, s.split, s.column) for s in found[14:16]] == [("a", "train", "label"), ("b", "test", "label")]
    grouped = find(str(path), group="patient")
    assert [sample.group for sample in samples(grouped)] == [f"p{i // 4}" for i in range(20)]
    assert grouped.fingerprint() != source.fingerprint()
    spec = cached(source, QUIET).spec
    assert (spec.kind, spec.channels, spec.spatial, spec.target, spec.task) == ("series", 1, (12,), "label", "classify")
    by_patient = find(str(path), target="patient")
    assert {sample.label for sample in samples(by_patient)} == {f"p{i}" for i in range(5)}
    bare = write(tmp_path / "new.csv", [row[2:14] for row in rows])
    np.testing.assert_array_equal(np.stack([s.array[0] for s in read_path(bare, spec)]), values)  # type: ignore[union-attr]
    frame = pa.table(
        {name: [row[i] for row in rows] for i, name in enumerate(header[:2])}
        | {f"t{i}": values[:, i] for i in range(12)}
        | {"label": [row[14] for row in rows]}
    )
    parquet.write_table(frame, tmp_path / "ecg.parquet")
    for one, other in zip(samples(find(str(tmp_path / "ecg.parquet"))), found, strict=True):
        np.testing.assert_array_equal(one.array, other.array)


def test_a_row_without_a_group_is_a_group_of_its_own(tmp_path):
    header = ["patient", *[f"f{i}" for i in range(10)], "label"]
    rows = [[who, *range(i, i + 10), "ab"[i % 2]] for i, who in enumerate(["p1", "p1", "", "", "p2", "NA"])]
    path = write(tmp_path / "a.csv", [header, *rows])
    got = [sample.group for sample in samples(find(str(path), group="patient"))]
    assert got == ["p1", "p1", f"{path}[2]", f"{path}[3]", "p2", f"{path}[5]"]


def test_a_column_called_group_keeps_rows_together_too(tmp_path):
    header = ["group", *[f"f{i}" for i in range(10)], "label"]
    rows = [[f"g{i // 2}" if i < 38 else "", *range(i, i + 10), "ab"[i % 2]] for i in range(40)]
    path = write(tmp_path / "a.csv", [header, *rows])
    source = find(str(path))
    assert source.group == "group"
    assert [one.group for one in samples(source)[:38]] == [f"g{i // 2}" for i in range(38)]
    notes = cached(source, QUIET).spec.notes
    assert "2 items without a group, each a group of its own" in notes


def test_other_rows_are_measured_with_and_without_their_groups(tmp_path):
    import gridsight

    rng = np.random.default_rng(0)
    header = [*[f"t{i}" for i in range(10)], "label", "site"]
    # a quarter of the sites says the opposite, so that mistakes come together
    rows = [
        [*(rng.normal(size=10) + 2 * (i % 2)).round(3), "ab"[(i + (i // 4 % 4 == 0)) % 2], i // 4] for i in range(80)
    ]
    path = write(tmp_path / "a.csv", [header, *rows])
    run = gridsight.train(str(path), group="site", out=str(tmp_path / "run"), epochs=9, report=False, device="cpu")
    assert run.predictor().model.spec.spatial == (10,)  # a site is no step
    plain, by_site = (
        gridsight.evaluate(run=str(run.path), data=str(path), group=group, device="cpu").result
        for group in (None, "site")
    )
    assert plain["n"] == by_site["n"] == 80 and plain["skipped"] == 0
    value, grouped = plain["metrics"]["accuracy"], by_site["metrics"]["accuracy"]
    assert value["value"] == grouped["value"]
    assert grouped["high"] - grouped["low"] > 1.2 * (value["high"] - value["low"])


def test_a_measure_of_what_was_trained_on_is_warned_of(tmp_path, capsys):
    import gridsight
    from gridsight.__main__ import main

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 1, 20)).astype(np.float32), np.arange(60) % 2
    for name, n in (("train", 40), ("test", 20)):
        np.savez(tmp_path / f"two_{name}.npz", x=x[:n] + y[:n, None, None], y=y[:n])
    options = {"epochs": 1, "report": False, "device": "cpu"}
    warned = {}
    for name, more in (("published", {}), ("folds", {"folds": 2})):
        run = gridsight.train(str(tmp_path / "two"), out=str(tmp_path / name), **options, **more)
        capsys.readouterr()
        assert main(["eval", str(run.path), str(tmp_path / "two"), "--device", "cpu"]) == 0
        said = capsys.readouterr()
        assert "test of two" in said.out
        warned[name] = "was trained on these data" in said.err
    assert warned == {"published": False, "folds": True}
    plan = (tmp_path / "folds" / "plan.json").read_text()
    assert "2 folds, each tested once; the published split is not used" in plan


def test_decay_belongs_to_the_optimiser_that_was_named(tmp_path):
    import gridsight

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(40, 1, 20)).astype(np.float32), y=np.arange(40) % 2)
    decay = {}
    for name, more in (("sgd", {}), ("adamw", {}), ("own", {"weight_decay": 0.3})):
        options = {"optimizer": "sgd" if name == "own" else name, "lr": 0.01, "epochs": 1, "report": False} | more
        run = gridsight.train(str(tmp_path / "x.npz"), out=str(tmp_path / name), device="cpu", **options)
        plan = json.loads((run.path / "plan.json").read_text())
        decay[name] = (plan["recipe"]["weight_decay"], plan["recipe"]["lr"])
    assert decay == {"sgd": (5e-4, 0.01), "adamw": (0.01, 0.01), "own": (0.3, 0.01)}


def test_columns_that_are_no_data_are_left_out_when_predicting(tmp_path):
    rng = np.random.default_rng(0)
    header = ["id", *[f"f{i}" for i in range(10)], "outcome"]
    rows = [[i, *rng.normal(size=10).round(3), i % 2] for i in range(20)]
    path = write(tmp_path / "a.csv", [header, *rows])
    with pytest.raises(UsageError, match="--target NAME"):
        find(str(path))  # not by its id
    spec = cached(find(str(path), target="outcome"), QUIET).spec
    assert (spec.spatial, spec.target) == ((10,), "outcome")
    for name, new in (
        ("whole.csv", rows),
        ("unknown.csv", [[*row[:-1], ""] for row in rows]),
        ("bare.csv", [row[:-1] for row in rows]),
    ):
        got = list(read_path(write(tmp_path / name, [header[: len(new[0])], *new]), spec))
        assert [one.array.shape for one in got] == [(1, 10)] * 20  # type: ignore[union-attr]


def test_the_place_of_the_label_is_remembered_where_there_is_no_header(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[i % 2, *rng.normal(size=9).round(3), 3 + i % 2] for i in range(20)]
    path = write(tmp_path / "a.csv", rows)
    with pytest.raises(UsageError, match="the first or the last"):
        find(str(path))
    data = cached(find(str(path), target="1"), QUIET)
    assert (data.spec.task, data.spec.spatial, data.spec.target) == ("classify", (10,), "column 1")
    for name, new in (("whole.csv", rows), ("few.csv", rows[:3])):
        got = list(read_path(write(tmp_path / name, new), data.spec))
        for i, one in enumerate(got):
            np.testing.assert_array_equal(one.array, data.x[i])  # type: ignore[union-attr]
        assert len(got) == len(new)
    # as many columns as steps: the label is not there, and the first column is data
    (bare,) = read_path(write(tmp_path / "bare.csv", [rows[0][1:]]), data.spec)
    np.testing.assert_array_equal(bare.array, data.x[0])  # type: ignore[union-attr]
    assert find(str(path), usual=data.spec.target).place == "column 1"  # as eval asks


def test_the_alphabet_when_predicting_is_the_models(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("id,sequence\na,GATTACAGATTACA\nb,ACGTACGTACGTAA\n")
    spec = DataSpec("x", "sequence", 1, 20, (14,), "uint8", ("a", "b"), alphabet="protein")
    assert [one.array.shape for one in read_path(path, spec)] == [(20, 14)] * 2  # type: ignore[union-attr]


def test_what_cannot_be_told_of_a_table_is_an_error_of_its_own(tmp_path):
    rows = [[i % 2, *[i + j + 0.5 for j in range(10)], i % 3] for i in range(40)]
    path = write(tmp_path / "x.csv", rows)
    spec = DataSpec("x", "series", 1, 1, (10,), "float32", ("a", "b"))
    (got,) = read_path(path, spec)
    assert isinstance(got, ReadError) and "the first or the last?" in got.reason


def test_tables_as_ucr_has_them(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("TRAIN", 12), ("TEST", 8)):
        rows = [[1 + i % 2, *map(repr, rng.normal(size=10).tolist())] for i in range(count)]
        rows[1][8:] = ["NaN"] * 3  # a shorter series
        text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
        (tmp_path / f"Wave_{part}.tsv").write_text(text)
    source = find(str(tmp_path / "Wave"))
    found = samples(source)
    assert [sample.split for sample in found] == ["test"] * 8 + ["train"] * 12
    assert {sample.label for sample in found} == {"1", "2"} and source.target == ""
    assert found[0].array.shape == (1, 10) and found[1].array.shape == (1, 7)
    assert decide([sample.label or "" for sample in found], source.target).task == "classify"
    last = [[*row[1:], row[0]] for row in (line.split("\t") for line in text.splitlines())]
    moved = write(tmp_path / "moved.csv", last)
    assert [sample.label for sample in samples(find(str(moved)))] == [sample.label for sample in found[:8]]


def test_wrong_rows_of_series(tmp_path):
    names = [f"t{i}" for i in range(8)]
    good = list(range(8))
    rows = [[*names, "label"], [*good, "a"], [*good[:7], "x", "b"], [1, "", *good[2:], "a"], [*good, ""], [*good, "b"]]
    rows += [
        [*good[:7], "inf", "a"],
        ["1,5".replace(",", "."), *good[1:], "b"],
        [*[""] * 8, "a"],
        [*good[:7], "1e300", "a"],
    ]
    path = write(tmp_path / "t.csv", rows)
    got = list(TableReader().read(File(path)))
    reasons = {i: found.reason for i, found in enumerate(got) if isinstance(found, ReadError)}
    assert reasons == {
        1: "line 3: 'x' is not a number",
        2: "line 4: 1 of 8 values is missing",
        3: "line 5: its label is missing",
        5: "line 7: 1 of 8 values is NaN or infinite",
        7: "line 9: it has no values",
        8: "line 10: 1 of 8 values is NaN or infinite",
    }
    path.write_text(";".join(names) + ";label\n" + "1,5;2;3;4;5;6;7;8;a\n" + "1;2;3;4;5;6;7;8;b\n" * 30)
    wrong = next(iter(TableReader().read(File(path))))
    assert isinstance(wrong, ReadError) and "is not a number (write decimals with a point)" in wrong.reason


def test_one_sequence_a_row(tmp_path):
    texts = ["ACGTTGCATGCA", "NNNNACGTACGTAA", "acgtacgtacgtacgt", "TTTTTTTTTTTT"]
    rows = [["name", "dna", "species"], *[[f"s{i}", text, "xy"[i % 2]] for i, text in enumerate(texts)]]
    path = write(tmp_path / "genes.csv", [*rows, ["s4", "ACGT1", "x"]])
    got = list(TableReader().read(File(path)))
    for sample, text in zip(got[:4], texts, strict=True):
        assert isinstance(sample, Sample) and (sample.alphabet, sample.column) == ("dna", "species")
        np.testing.assert_array_equal(sample.array, one_hot(text, "dna"))
    assert isinstance(got[4], ReadError) and got[4].reason.startswith("line 6: '1' at position 5")
    spec = cached(find(str(path)), QUIET).spec
    assert (spec.kind, spec.alphabet, spec.channels) == ("sequence", "dna", 4)


@needs_shared
def test_real_sequences():
    source = find(str(SHARED / "dna_promoters"))
    found = samples(source)
    assert len(found) == 106 and {sample.label for sample in found} == {"+", "-"}
    assert {sample.array.shape for sample in found} == {(4, 57)} and source.target == ""
    lines = (SHARED / "dna_promoters" / "promoters.data").read_text().splitlines()
    for sample, line in zip(found, lines, strict=True):
        np.testing.assert_array_equal(sample.array, one_hot(line.split(",")[2], "dna"))
    splice = samples(find(str(SHARED / "dna_splice" / "splice.data")))
    assert len(splice) == 3190 and {sample.label for sample in splice} == {"EI", "IE", "N"}
    assert {sample.array.shape for sample in splice} == {(4, 60)}


def test_a_table_a_file_in_class_folders(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for label in ("run", "walk"):
        for i in range(3):
            values = rng.normal(size=(40 + i, 3)).astype(np.float32)
            arrays[label, i] = values.T
            rows = [[0.02 * t, *map(repr, map(float, row))] for t, row in enumerate(values)]
            write(tmp_path / "acc" / label / f"{i}.csv", [["time", "x", "y", "z"], *rows])
    source = find(str(tmp_path / "acc"))
    for sample, wanted in zip(samples(source), arrays.values(), strict=True):
        np.testing.assert_array_equal(sample.array, wanted)
    note = "each table is one item: 3 channels (x, y, z), a step a row; time counts the steps and is left out"
    assert note in source.notes
    assert cached(source, QUIET).spec.channels == 3
    spec = cached(source, QUIET).spec
    (one,) = read_path(tmp_path / "acc" / "run" / "1.csv", spec)
    np.testing.assert_array_equal(one.array, arrays["run", 1])


def test_columns_of_time_are_left_out_and_others_are_not(tmp_path):
    def channels(text: str) -> np.ndarray:
        path = tmp_path / "t.csv"
        path.write_text(text)
        return TableReader().read_single(File(path)).array

    ramp = [(i, i * i) for i in range(30)]
    assert channels("time,x\n" + "".join(f"{a},{b}\n" for a, b in ramp)).shape == (1, 30)
    assert channels("".join(f"{0.1 * a},{b}\n" for a, b in ramp)).shape == (1, 30)
    assert channels("".join(f"{b},{a}\n" for a, b in ramp)).shape == (2, 30)
    assert channels("load,x\n" + "".join(f"{a},{b}\n" for a, b in ramp)).shape == (2, 30)
    assert channels("t,x\n" + "".join(f"{-a},{b}\n" for a, b in ramp)).shape == (2, 30)
    assert channels("timestamp,x\n" + "".join(f"2020-01-{a + 1:02},{b}\n" for a, b in ramp)).shape == (1, 30)
    assert channels("".join(f"{b}\n" for _, b in ramp)).shape == (1, 30)
    with pytest.raises(ReadError, match="line 3: 'oops' is not a number"):
        channels("x,y\n1,2\noops,3\n")
    with pytest.raises(ReadError, match="line 2: 1 of 2 values is missing"):
        channels("x,y\n1,\n4,3\n")
    with pytest.raises(ReadError, match="line 3: it has 1 cells where 2"):
        channels("x,y\n1,2\n3\n4,5\n")


def test_few_numbers_are_no_series(tmp_path):
    path = write(
        tmp_path / "iris.csv", [["a", "b", "c", "d", "species"], *[[1, 2, 3, 4, "xy"[i % 2]] for i in range(9)]]
    )
    with pytest.raises(UsageError, match="not eight numeric columns or more"):
        find(str(path))


# ---- the verbs


def test_check_knows_numbers_and_sets(tmp_path):
    rows = ["path,age,tags"]
    for i in range(12):
        array = np.random.default_rng(i // 2).integers(0, 256, (12, 12, 3), dtype=np.uint8)  # each twice
        Image.fromarray(array).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{20 + i}.5,{'a;b' if i % 4 < 2 else 'b;a' if i < 11 else ''}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    numbers = audit(find(str(tmp_path / "list.csv"), target="age"), QUIET)
    assert (numbers.task, numbers.classes, numbers.stops) == ("regress", {}, [])
    assert set(numbers.problems) == {"duplicate"}
    sets = audit(find(str(tmp_path / "list.csv"), target="tags"), QUIET)
    assert (sets.task, sets.classes) == ("multilabel", {"a": 11, "b": 11})
    assert set(sets.problems) == {"duplicate", "label conflict"} and sets.problems["label conflict"] == 1


@pytest.mark.parametrize("kind", ["manifest", "clips"])
def test_a_run_finds_its_table_and_its_clips_again(tmp_path, kind):
    import gridsight

    rng = np.random.default_rng(0)
    rows = ["path,age,label"]
    for i in range(16):
        folder = tmp_path / "set" / "ab"[i % 2] / str(i)
        folder.mkdir(parents=True)
        for t in range(3):
            array = rng.integers(0, 120, (8, 8), dtype=np.uint8) + np.uint8(100 * (i % 2))
            Image.fromarray(array).save(folder / f"{t}.png")
        rows.append(f"set/{'ab'[i % 2]}/{i}/0.png,{30 + 10 * (i % 2) + i / 8},{'ab'[i % 2]}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    asked = {"data": str(tmp_path / "list.csv"), "target": "age"} if kind == "manifest" else {}
    asked = asked or {"data": str(tmp_path / "set"), "frames": True}
    run = gridsight.train(**asked, out=str(tmp_path / "run"), epochs=1, report=False, device="cpu")
    spec = run.predictor().model.spec
    assert (spec.kind, spec.task) == (("image", "regress") if kind == "manifest" else ("video", "classify"))
    name = "mae" if kind == "manifest" else "accuracy"
    again = gridsight.evaluate(run=str(run.path), device="cpu")
    assert again.metrics[name]["value"] == run.metrics[name]["value"]
    other = gridsight.evaluate(run=str(run.path), data=asked["data"], device="cpu")  # the column trained on; clips
    assert other.result["n"] == 16
    if kind == "clips":  # what names and tables say is of the folders, as the model's items are
        by_name = gridsight.evaluate(run=str(run.path), data=asked["data"], pattern="{label}/{n}", device="cpu")
        table = "path,label\n" + "".join(f"set/{'ab'[i % 2]}/{i},{'ab'[i % 2]}\n" for i in range(16))
        (tmp_path / "clips.csv").write_text(table)
        listed = gridsight.evaluate(run=str(run.path), data=str(tmp_path / "clips.csv"), device="cpu")
        for found in (by_name, listed):
            assert found.result["n"] == 16
            assert found.metrics["log_loss"]["value"] == pytest.approx(other.metrics["log_loss"]["value"])
    assert gridsight.resume(run=str(run.path)).metrics[name] == run.metrics[name]
    whole = gridsight.check(**asked)
    assert whole.n == 16 and whole.bad == 0
