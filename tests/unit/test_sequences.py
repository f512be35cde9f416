"""Sequences: letters to arrays and back, FASTA in every state, both strands of DNA, and what a run makes of them."""

import gzip
import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import gridsight
from gridsight.core.console import Console
from gridsight.core.errors import DataError, ReadError, UsageError
from gridsight.data.alphabet import ALPHABETS, LEVEL, conserved, guess, one_hot, to_text
from gridsight.data.augment import AUGMENTS, apply, check, guarded
from gridsight.data.cache import cached
from gridsight.data.conform import conform
from gridsight.data.decoding import decode
from gridsight.data.files import File
from gridsight.data.readers import READERS, find_reader
from gridsight.data.readers import fasta as fasta_module
from gridsight.data.sample import Sample
from gridsight.data.source import find
from gridsight.data.spec import DataSpec
from gridsight.models import create
from gridsight.nn.strand import StrandConv, reverse_complement
from gridsight.training.recipe import recipe

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real data of ../shared/data are not here")
COMPLEMENT = str.maketrans("ACGTRYSWKMBDHVN-", "TGCAYRSWMKVHDBN-")
IUPAC = {
    **{letter: letter for letter in "ACGT"},
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("GRIDSIGHT_DATA", raising=False)
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))


def read(path: Path) -> list[Sample | ReadError]:
    """All that reading gives, the error of the whole file last."""
    out: list[Sample | ReadError] = []
    try:
        out.extend(READERS.create("fasta").read(File(path)))
    except ReadError as error:
        out.append(error)
    return out


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def dna(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(list("ACGT"), length))


def planted(rng: np.random.Generator, length: int, strand: str = "+") -> str:
    """Random letters with one long site somewhere."""
    site = "TGACGTCATTGGCAGA"
    site = site if strand == "+" else site.translate(COMPLEMENT)[::-1]
    at = rng.integers(0, length - len(site) + 1)
    return dna(rng, at) + site + dna(rng, length - len(site) - at)


# ---- letters


def test_every_letter_of_dna_is_what_iupac_says():
    for letter, means in IUPAC.items():
        column = one_hot(letter, "dna")[:, 0]
        assert column.tolist() == [LEVEL // len(means) * (base in means) for base in "ACGT"], letter
        assert np.array_equal(one_hot(letter.lower(), "dna")[:, 0], column)
    assert np.array_equal(one_hot("UuXx", "dna"), one_hot("TTNN", "dna"))
    assert not one_hot("-.*", "dna").any()


def test_every_letter_of_a_protein():
    found = one_hot("ACDEFGHIKLMNPQRSTVWY", "protein")
    assert np.array_equal(found, LEVEL * np.eye(20, dtype=np.uint8))
    x = one_hot("BJZXUO*-", "protein")
    assert x.dtype == np.uint8 and x.sum(0).tolist() == [60] * 6 + [0, 0]
    of = {letter: i for i, letter in enumerate(ALPHABETS["protein"])}
    for column, means in enumerate(("DN", "IL", "EQ", ALPHABETS["protein"], "C", "K")):
        assert set(np.flatnonzero(x[:, column])) == {of[one] for one in means}


@pytest.mark.parametrize("alphabet", ["dna", "protein"])
def test_text_comes_back(alphabet):
    rng = np.random.default_rng(0)
    letters = ALPHABETS[alphabet] + ("N-" if alphabet == "dna" else "X-")
    text = "".join(rng.choice(list(letters), 500))
    assert to_text(one_hot(text, alphabet), alphabet) == text
    assert to_text(one_hot("RB"[alphabet == "protein"], alphabet), alphabet) == "NX"[alphabet == "protein"]
    spaced = " ".join(text[i : i + 10] for i in range(0, 500, 10)).lower()
    assert to_text(one_hot(spaced + "\n", alphabet), alphabet) == text


@pytest.mark.parametrize(
    ("text", "alphabet", "words"),
    [
        ("ACGTE", "dna", "'E' at position 5 is no letter of DNA or RNA"),
        ("AC GT1", "dna", "'1' at position 5"),
        ("MK?", "protein", "'?' at position 3 is no letter of protein"),
        ("M\0K", "protein", r"'\\x00' at position 2"),
        ("ACé", "dna", "'é' at position 3"),
        ("AC中", "dna", "'中' at position 3"),
        (" \n", "dna", "no letters"),
    ],
)
def test_other_characters_are_named_with_their_place(text, alphabet, words):
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        one_hot(text, alphabet)


def test_guess():
    assert guess(["ACGTNNNN-ACGU", "acgt"]) == "dna"
    assert guess(["ACGTL" * 1 + "ACGT" * 20]) == "dna"  # one wrong letter is an error there, not another alphabet
    assert guess(["MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSH"]) == "protein"
    assert guess(iter(["GAG", "CAT", "MKVLI" * 30])) == "protein"


def test_reverse_complement_is_the_letters_own():
    rng = np.random.default_rng(1)
    letters = "".join(rng.choice(list(IUPAC), 300))
    x = torch.from_numpy(one_hot(letters, "dna"))[None].float()
    other = one_hot(letters.translate(COMPLEMENT)[::-1], "dna")
    assert np.array_equal(reverse_complement(x)[0].numpy(), other)


# ---- FASTA

NASTY = [
    ("lines of any length", ">a\nAC\nGTAC\n\nG\n>b\nT\n", ["ACGTACG", "T"]),
    ("Windows line ends", ">a\r\nACG\r\n>b\r\nGG\r\n", ["ACG", "GG"]),
    ("old Mac line ends", ">a\rACG\r>b\rGG", ["ACG", "GG"]),
    ("a byte order mark", b"\xef\xbb\xbf>a\nACG\n", ["ACG"]),
    ("comments and blank lines", ";of 1988\n\n>a\n;inside\nAC\n\n;again\nGT\n", ["ACGT"]),
    ("blanks in and at the end of lines", ">a \nACG TAC \n\tGG\n", ["ACGTACGG"]),
    ("RNA", ">a\nAUGGCUUAA\n", ["ATGGCTTAA"]),
    ("lower case (masked repeats)", ">a\nacgtNNacgt\n", ["ACGTNNACGT"]),
    ("gaps", ">a\nAC--GT.\n", ["AC--GT-"]),
    ("ambiguity", ">a\nACGTACGTACGTACGTNRY\n", ["ACGTACGTACGTACGTNNN"]),
    ("no line end at the end", ">a\nACG", ["ACG"]),
    ("no name", ">\nACG\n>\nCCC\n", ["ACG", "CCC"]),
    ("one name twice", ">a\nACG\n>a\nCCC\n", ["ACG", "CCC"]),
    ("a record without letters", ">a\n>b\nACGT\n", ["line 1: has no letters", "ACGT"]),
    ("the last without letters", ">b\nACGT\n>a\n", ["ACGT", "line 3: has no letters"]),
    ("a digit", ">a\nACGT\n>b\nACG1\n", ["ACGT", "line 3: '1' at position 4"]),
    ("an amino acid in DNA", ">a\nACGTACGTACGT\n>b\nACGTLACGTACGT\n", ["ACGTACGTACGT", "line 3: 'l' at position 5"]),
    ("a stop in a protein", ">a\nMKVLIDEFGHPQRS*\n", ["MKVLIDEFGHPQRS-"]),
    ("a length that is right", ">a length=4\nAC\nGT\n", ["ACGT"]),
    ("a length that is not", ">a length=9\nACGT\n>b\nCC\n", ["4 letters where its header says length=9", "CC"]),
    ("an unknown split", ">a split=rest\nACGT\n>b split=dev\nCC\n", ["its split 'rest'", "CC"]),
    ("zero bytes", ">a\nAC\0GT\n", ["'\\x00' at position 3"]),
    ("nothing", "", ["empty (0 bytes)"]),
    ("blank lines only", "\n\n \n", ["no line starts with >"]),
    ("comments only", ";a\n;b\n", ["no line starts with >"]),
    ("letters without a header", "ACGT\n>a\nACGT\n", ["line 1 comes before"]),
    ("a web page", "<html><body>404 Not Found</body></html>\n", ["line 1 comes before"]),
    ("FASTQ", "@a\nACGT\n+\nIIII\n", ["line 1 comes before"]),
    ("bytes", bytes(range(256)) * 9, ["line 1 comes before"]),
    ("UTF-16", ">a\nACGT\n".encode("utf-16"), ["line 1 comes before"]),
    ("gzip", gzip.compress(b">a\nACGT\n"), ["ACGT"]),
    ("gzip cut short", gzip.compress(b">a\n" + bytes(np.random.default_rng(0).choice(list(b"ACGT"), 5000)))[:600],
     ["cut short"]),
    ("gzip with a wrong checksum", gzip.compress(b">a\nACGT\n")[:-8] + bytes(8), ["crc"]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "text", "wanted"), NASTY, ids=[case[0] for case in NASTY])
def test_nasty_files(what, text, wanted, tmp_path):
    path = write(tmp_path / "x.fasta", text)
    got = read(path)
    assert len(got) == len(wanted), got
    for one, expected in zip(got, wanted, strict=True):
        if isinstance(one, ReadError):
            assert expected in one.reason.lower(), one
            assert one.path.startswith(str(path)) and "\n" not in one.reason
        else:
            assert one.array.dtype == np.uint8 and one.alphabet in ALPHABETS
            assert to_text(one.array, one.alphabet) == expected


def test_names_of_records(tmp_path):
    path = write(tmp_path / "x.fa", ">a first\nAC\n>\nAC\n>a second\nAC\n>a\nAC\n>#2\nAC\n")
    names = [one.path.removeprefix(str(path)) for one in read(path)]
    assert names == ["[a]", "[#2]", "[a#2]", "[a#3]", "[#2#2]"]


def test_lines_of_megabytes(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    long = dna(rng, 1_300_000)
    path = write(tmp_path / "x.fa", f">{'h' * 1_500_000}\n{long}\n;{'c' * 1_100_000}\n>b\nACGT\n")
    got = read(path)
    assert [len(one.path) < 300 for one in got] == [True, True]
    assert to_text(got[0].array, "dna") == long and to_text(got[1].array, "dna") == "ACGT"
    # a block of a line that starts with ">" by chance is no header
    inside = "A" * fasta_module.BLOCK + ">" + "C" * 10
    got = read(write(tmp_path / "y.fa", f">a\n{inside}\n>b\nAC\n"))
    assert len(got) == 2 and "'>' at position 1,048,577" in got[0].reason
    monkeypatch.setattr(fasta_module, "MAX_LETTERS", 1000)
    got = read(write(tmp_path / "z.fa", f">a\n{long[:1001]}\n>b\n{long[:1000]}\n"))
    assert "more than 1,000 letters; cut it into windows" in got[0].reason and got[1].array.shape == (4, 1000)


def test_labels_splits_and_groups_of_headers(tmp_path):
    path = write(
        tmp_path / "x.fa",
        ">a label=EI split=training group=h1\nACGT\n>b LABEL='no site' group=h2 split=val\nAC\n"
        '>c class="x y" group="h 1"\nAC\n>d group=h3 xlabel=EI\nAC\n>e label=IE\nAC\n',
    )
    got = read(path)
    said = [(one.label, one.split, one.group, one.column) for one in got[:4]]
    assert said == [
        ("EI", "train", "h1", "label"),
        ("no site", "val", "h2", "label"),
        ("x y", None, "h 1", "class"),
        (None, None, "h3", None),
    ]
    assert "names no group" in got[4].reason
    assert find(str(path)).group == "group"
    # where a model predicts, nobody asks for groups
    assert all(isinstance(one, Sample) for one in READERS.create("fasta").read_as(File(path), 1, 4))


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        (["a|x", "b|y", "c|x", "d|y"], ["x", "y", "x", "y"]),
        (["a|x|train", "b|y|test", "c|x|train", "d|y|test"], ["x", "y", "x", "y"]),
        (["sp|P1|ONE_HUMAN", "sp|P2|TWO_HUMAN", "sp|P3|TRE_HUMAN", "sp|P4|FOR_HUMAN"], [None] * 4),
        (["a|x", "b|x", "c|x", "d|x"], [None] * 4),  # one class says nothing
        (["a|x", "b|y", "c|x", "d"], [None] * 4),
        (["a|x|", "b|y|", "c|x|", "d|x|"], [None] * 4),
        (["a|x", "b|y", "c|x label=z", "d|y"], [None, None, "z", None]),
    ],
)
def test_labels_of_ids(ids, labels, tmp_path):
    got = read(write(tmp_path / "x.fa", "".join(f">{one}\nACGT\n" for one in ids)))
    assert [one.label for one in got] == labels
    splits = ["train", "test", "train", "test"] if ids[0].endswith("train") else [None] * 4
    assert [one.split for one in got] == splits


def test_the_alphabet_of_a_file(tmp_path):
    peptide = ">a\nGATTACA\n>b\nCATTAG\n"  # amino acids too
    assert [one.alphabet for one in read(write(tmp_path / "x.fa", peptide))] == ["dna", "dna"]
    assert [one.alphabet for one in read(write(tmp_path / "x.faa", peptide))] == ["protein", "protein"]
    # a suffix decides before the letters do
    assert "no letter of DNA" in read(write(tmp_path / "x.fna", ">a\nMKVLI\n"))[0].reason
    file = File(tmp_path / "x.fa")
    for channels, alphabet in ((4, "dna"), (20, "protein")):
        got = list(READERS.create("fasta").read_as(file, 1, channels))
        assert {one.alphabet for one in got} == {alphabet} and got[0].array.shape[0] == channels


def test_sniffing_by_content(tmp_path):
    for text, name in ((">a\nACGT\n", "x.txt"), (";c\n>a\nACGT\n", "x"), (gzip.compress(b">a\nACGT\n"), "x.bin")):
        found = find_reader(File(write(tmp_path / name, text)))
        assert found is not None and found[0] == "fasta"
    for text in (b"> quoted text, as in mail\nand more (of it).\n", b">", b";\n[section]\nx = 1\n"):
        path = write(tmp_path / "x.txt", text)
        assert not READERS.create("fasta").sniff(File(path), text)


# ---- layouts


def table(source):
    return sorted((item.file.name, item.label, item.split, item.many) for item in source.items)


def test_a_file_a_class(tmp_path):
    write(tmp_path / "d" / "Exons.fasta", ">a\nACGT\n>b\nAC\n")
    write(tmp_path / "d" / "introns.fa.gz", gzip.compress(b">a\nGGGG\n"))
    source = find(str(tmp_path / "d"))
    assert table(source) == [("Exons.fasta", "Exons", None, True), ("introns.fa.gz", "introns", None, True)]
    assert [one.label for item in source.items for one in decode(source, item)] == ["Exons", "Exons", "introns"]
    assert source.classes == ("Exons", "introns") and not source.notes


def test_a_header_wins_over_the_file_and_the_file_over_a_guess(tmp_path):
    write(tmp_path / "d" / "a.fa", ">1|chr1\nACGT\n>2|chr2\nACGT\n>3|chr1\nACGT\n>4|chr2\nACGT\n")
    write(tmp_path / "d" / "b.fa", ">1 label=c\nACGT\n>2\nACGT\n")
    source = find(str(tmp_path / "d"))
    assert [one.label for item in source.items for one in decode(source, item)] == ["a", "a", "a", "a", "c", "b"]


def test_class_folders_splits_and_archives(tmp_path):
    for part, name in itertools.product(("train", "test"), ("a", "b")):
        write(tmp_path / "files" / part / f"{name}.fa", f">{name}{part}\nACGT\n>2\nAC\n")
        write(tmp_path / "folders" / part / name / "one.fa", f">{name}{part}\nACGT\n>2\nAC\n")
        write(tmp_path / "names" / f"{name.upper()}_{part}.fa", f">{name}{part}\nACGT\n>2\nAC\n")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in sorted((tmp_path / "files").rglob("*.fa")):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    for name in ("files", "folders", "names", "all.zip"):
        source = find(str(tmp_path / name))
        found = sorted((item.label.lower(), item.split) for item in source.items)
        assert found == [("a", "test"), ("a", "train"), ("b", "test"), ("b", "train")], name
        assert source.split and all(item.many for item in source.items)
        assert sum(1 for item in source.items for _ in decode(source, item)) == 8
    assert {item.label for item in find(str(tmp_path / "names")).items} == {"A", "B"}


def test_a_class_may_be_called_test_or_targets(tmp_path):
    for name in ("test", "control", "targets"):
        write(tmp_path / "d" / f"{name}.fa", ">a\nACGT\n")
    assert table(find(str(tmp_path / "d"))) == [
        (f"{name}.fa", name, None, True) for name in ("control", "targets", "test")
    ]
    assert [item.file.name for item in find(str(tmp_path / "d" / "control.fa")).items] == ["control.fa"]


def test_labels_in_headers_of_one_file_and_of_two_parts(tmp_path):
    text = "".join(f">{i} label={'ab'[i % 2]}\nACGT\n" for i in range(6))
    for name in ("x_train.fa", "x_test.fa"):
        write(tmp_path / name, text)
    source = find(str(tmp_path / "x_train.fa"))
    assert table(source) == [("x_test.fa", None, "test", False), ("x_train.fa", None, "train", False)]
    data = cached(source, Console())
    assert data.spec.kind == "sequence" and data.spec.alphabet == "dna" and data.spec.classes == ("a", "b")
    assert data.spec.full_scale == LEVEL and len(data) == 12


def test_what_cannot_be_trained_on_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="label=NAME"):
        cached(find(str(write(tmp_path / "x.fa", ">a\nACGT\n"))), Console())
    write(tmp_path / "m" / "a.fa", ">1\nACGTACGT\n")
    write(tmp_path / "m" / "b.fa", ">1\nMKVLIDEF\n")
    with pytest.raises(DataError, match="mixes sequences of different alphabets: 1 of dna, 1 of protein"):
        cached(find(str(tmp_path / "m")), Console())


def test_other_samples_are_refused(tmp_path):
    spec = DataSpec("x", "sequence", 1, 4, (8,), "uint8", ("a", "b"), alphabet="dna")
    sample = Sample(one_hot("ACGTACGT", "dna"), "p", alphabet="dna")
    assert np.array_equal(conform(sample, spec), sample.array)
    with pytest.raises(ReadError, match="is protein where the data are DNA or RNA"):
        conform(Sample(one_hot("MKVL", "protein"), "p", alphabet="protein"), spec)
    with pytest.raises(ReadError, match="no sequence of letters"):
        conform(Sample(np.ones((4, 8), np.uint8), "p"), spec)


# ---- both strands


def test_reverse_complement_twice_is_nothing_and_padding_stays():
    rng = np.random.default_rng(0)
    items = [dna(rng, n) for n in (12, 9, 1, 5)] + ["N" * 4, "ACGTNNNN"]
    x = torch.zeros(len(items) + 1, 4, 12)  # the last is all padding
    other = torch.zeros_like(x)
    for i, text in enumerate(items):
        x[i, :, : len(text)] = torch.from_numpy(one_hot(text, "dna"))
        other[i, :, : len(text)] = torch.from_numpy(one_hot(text.translate(COMPLEMENT)[::-1], "dna"))
    assert torch.equal(reverse_complement(x), other)
    assert torch.equal(reverse_complement(other), x)


def test_the_augmentation_takes_the_other_strand_of_half():
    x = torch.from_numpy(np.stack([one_hot(dna(np.random.default_rng(i), 30), "dna") for i in range(400)])).float()
    items = torch.arange(400)
    out = apply(x, items, 0, 3, [("reverse_complement", 1.0)])
    kept = (out == x).all(1).all(1)
    assert 160 <= int(kept.sum()) <= 240
    assert torch.equal(out[~kept], reverse_complement(x)[~kept])
    assert torch.equal(apply(x, items, 0, 3, [("reverse_complement", 2.0)]), reverse_complement(x))
    assert AUGMENTS.get("reverse_complement").tags["label_risk"]


def test_the_augmentation_is_for_dna_alone():
    check([("reverse_complement", 1.0)], 1, alphabet="dna")
    for alphabet in ("protein", None):
        with pytest.raises(UsageError, match="DNA and RNA alone"):
            check([("reverse_complement", 1.0)], 1, alphabet=alphabet)
    kept, messages = guarded([("reverse_complement", 1.0)], ("sense", "antisense"), "sequence")
    assert kept == () and "name a strand" in messages[0]
    assert guarded([("reverse_complement", 1.0)], ("+", "-"), "sequence")[0]
    assert "another molecule" in guarded([("flip", 1.0)], ("a", "b"), "sequence")[1][0]


def test_the_strand_convolution_is_a_loop():
    """Against plain loops: half two is half one computed on the other strand and read backwards."""
    torch.manual_seed(0)
    letters = torch.randn(2, 4, 11, dtype=torch.float64)
    first, second = StrandConv(4, 3, 5, first=True).double(), StrandConv(3, 2, 3, dilation=2).double()

    def plain(x: np.ndarray, weight: np.ndarray, dilation: int) -> np.ndarray:
        c_out, _, k = weight.shape
        out = np.zeros((c_out, x.shape[1]))
        for o, t, j in itertools.product(range(c_out), range(x.shape[1]), range(k)):
            if 0 <= (at := t + (j - k // 2) * dilation) < x.shape[1]:
                out[o, t] += weight[o, :, j] @ x[:, at]
        return out

    got = second(first(letters)).detach().numpy()
    w1, w2 = first.weight.detach().numpy(), second.weight.detach().numpy()
    for item, found in zip(letters.numpy(), got, strict=True):
        given, other = plain(item, w1, 1), plain(item[::-1, ::-1], w1, 1)  # each in its own direction
        # a strand reads its own features first, then the other strand's in its own direction
        ahead = plain(np.concatenate([given, other[:, ::-1]]), w2, 2)
        behind = plain(np.concatenate([other, given[:, ::-1]]), w2, 2)
        np.testing.assert_allclose(found, np.concatenate([ahead, behind[:, ::-1]]), atol=1e-12)


@pytest.mark.parametrize("length", [7, 30, 41])
@pytest.mark.parametrize("training", [True, False])
def test_strandnet_answers_both_strands_alike(length, training):
    torch.manual_seed(0)
    net = create("strandnet", ndim=1, num_classes=3, widths=(8, 8, 6), kernels=(7, 5, 3), dilations=(1, 2, 3), grid=2,
                 dropout=0.0)  # fmt: skip
    rng = np.random.default_rng(length)
    x = torch.from_numpy(np.stack([one_hot(dna(rng, length), "dna") for _ in range(5)])).float() / LEVEL
    for _ in range(3):  # norms with statistics and weights of their own
        net.train()(x)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    net.train(training)
    given, other = net(x), net(reverse_complement(x))
    assert (given - given.mean(0)).abs().max() > 0.01
    torch.testing.assert_close(other, given, rtol=0, atol=2e-6)
    for one, two in zip(net.forward_stages(x), net.forward_stages(reverse_complement(x)), strict=True):
        torch.testing.assert_close(two.roll(one.shape[1] // 2, 1).flip(2), one, rtol=0, atol=2e-5)
    # the control: one weight that is not shared
    plain = create("gridnet", ndim=1, in_channels=4, num_classes=3, widths=(8, 8), pools=1, blocks=0).eval()
    assert (plain(x) - plain(reverse_complement(x))).abs().max() > 1e-3


def test_strandnet_with_padding():
    torch.manual_seed(0)
    net = create("strandnet", ndim=1, num_classes=2, widths=(8, 8), kernels=(5, 3), dilations=(1, 2), dropout=0.0)
    lengths = [20, 13, 9]
    x, mask = torch.zeros(3, 4, 20), torch.zeros(3, 20, dtype=torch.bool)
    for i, n in enumerate(lengths):
        x[i, :, :n] = torch.from_numpy(one_hot(dna(np.random.default_rng(i), n), "dna")) / LEVEL
        mask[i, :n] = True
    for mode in (True, False):
        net.train(mode)
        torch.testing.assert_close(net(reverse_complement(x), mask), net(x, mask), rtol=0, atol=2e-6)


# ---- windows around a site


def test_conserved():
    rng = np.random.default_rng(0)

    def windows(texts):
        return np.stack([one_hot(text, "dna") for text in texts])

    rows = np.arange(500)
    anywhere = windows([planted(rng, 80) if i % 2 else dna(rng, 80) for i in range(500)])
    assert not conserved(anywhere, rows)
    site = "TATAAT"
    fixed = windows([dna(rng, 40) + (site if i % 3 == 0 else dna(rng, 6)) + dna(rng, 34) for i in range(500)])
    assert conserved(fixed, rows)
    assert not conserved(fixed, rows[rows % 3 != 0])
    assert not conserved(fixed[:, :, :40], rows)  # the windows without their site
    assert not conserved(fixed, rows[:4])  # chance would do that
    assert not conserved(np.zeros((9, 4, 5), np.uint8), np.arange(9))  # gaps alone


def test_recipes_of_sequences():
    site = recipe(1, 4, (60,), 3, 2500, alphabet="dna", aligned=True)
    assert site.augment == () and site.arguments["grid"] == 60 and site.arguments["pools"] == (1, 1)
    wide = recipe(1, 4, (1000,), 2, 2500, alphabet="dna", aligned=True)
    assert wide.arguments["grid"] == 125 and wide.arguments["pools"] == (8, 1)
    anywhere = recipe(1, 20, (300,), 2, 2500, alphabet="protein")
    assert anywhere.augment == () and anywhere.arguments["grid"] == (1,)
    for made, channels, length in ((site, 4, 60), (wide, 4, 1000), (anywhere, 20, 300)):
        net = create("gridnet", ndim=1, in_channels=channels, num_classes=2, **made.arguments).eval()
        assert net(torch.zeros(2, channels, length)).shape == (2, 2)


# ---- whole runs


@pytest.fixture
def strands(tmp_path):
    """A site on one strand in the training data, on the other in the test data."""
    rng = np.random.default_rng(0)
    for part, strand, count in (("train", "+", 150), ("test", "-", 100)):
        site = "".join(f">{i}\n{planted(rng, 50, strand)}\n" for i in range(count))
        write(tmp_path / "strands" / part / "site.fa", site)
        write(tmp_path / "strands" / part / "none.fa", "".join(f">{i}\n{dna(rng, 50)}\n" for i in range(count)))
    return tmp_path / "strands"


def accuracy(data: Path, out: Path, **settings: object) -> float:
    run = gridsight.train(str(data), out=str(out), report=False, **settings)
    return run.result["metrics"]["accuracy"]["value"]


def test_a_site_is_found_on_the_strand_that_was_never_seen(strands, tmp_path):
    assert accuracy(strands, tmp_path / "strandnet", model="strandnet", epochs=6) > 0.95
    # the control: a network that reads one strand cannot know
    assert accuracy(strands, tmp_path / "gridnet", epochs=6) < 0.75
    answers = gridsight.predict(str(tmp_path / "strandnet"), str(strands / "test" / "site.fa")).items
    assert len(answers) == 100 and all(answer["path"].endswith("]") for answer in answers)


def test_the_augmentation_finds_it_too(strands, tmp_path):
    assert accuracy(strands, tmp_path / "run", augment=("reverse_complement",), epochs=12) > 0.9


def test_a_run_on_proteins_of_unequal_length(tmp_path):
    rng = np.random.default_rng(0)
    letters = list(ALPHABETS["protein"])

    def protein(site: str) -> str:
        a, b = rng.integers(3, 20, 2)
        return "".join(rng.choice(letters, a)) + site + "".join(rng.choice(letters, b))

    text = "".join(f">p{i}|{'yes' if i % 2 else 'no'}\n{protein('CWHCWH' if i % 2 else '')}\n" for i in range(240))
    path = write(tmp_path / "p.fasta", text)
    run = gridsight.train(str(path), out=str(tmp_path / "run"), epochs=8)
    assert run.result["metrics"]["accuracy"]["value"] > 0.9
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["spec"]["kind"] == "sequence" and plan["spec"]["alphabet"] == "protein"
    assert (
        plan["front"]["mean"] == [0.0] * 20 and plan["front"]["std"] == [1.0] * 20 and plan["front"]["full_scale"] == 60
    )
    assert (tmp_path / "run" / "report.html").is_file()
    # DNA letters are amino acids to a model of proteins; letters that are none fail alone
    new = write(tmp_path / "new.fa", ">a\nGATTACA\n>b\nMKV1\n>c\nMKVLICWHCWHDE\n")
    answers = gridsight.predict(str(tmp_path / "run"), str(new)).items
    assert ["error" in answer for answer in answers] == [False, True, False] and answers[2]["label"] == "yes"
    with pytest.raises(UsageError, match="strandnet reads DNA letters"):
        gridsight.train(str(path), out=str(tmp_path / "no"), model="strandnet")
    with pytest.raises(UsageError, match="DNA and RNA alone"):
        gridsight.train(str(path), out=str(tmp_path / "no"), augment=("reverse_complement",))


# ---- named sets


@needs_shared
def test_splice_and_promoters(monkeypatch):
    monkeypatch.setenv("GRIDSIGHT_DATA", str(SHARED))
    splice = cached(find("splice"), Console())
    assert splice.spec.classes == ("EI", "IE", "N") and splice.x.shape == (3190, 4, 60)
    assert np.bincount(splice.y).tolist() == [767, 768, 1655]
    assert len(set(splice.groups)) == 3005 and splice.spec.group == "letters"
    first = (SHARED / "dna_splice" / "splice.data").read_text().splitlines()[0].rpartition(",")[2].strip()
    assert to_text(splice.x[0], "dna") == first == splice.groups[0]
    # donors begin with GT behind the exon, acceptors end with AG before it
    share = [np.asarray(splice.x[splice.y == k]).mean(0) / LEVEL for k in range(2)]
    assert share[0][2, 30] > 0.95 and share[0][3, 31] > 0.95 and share[1][0, 28] > 0.95 and share[1][2, 29] > 0.95
    promoters = cached(find("promoters"), Console())
    assert promoters.spec.classes == ("+", "-") and promoters.x.shape == (106, 4, 57)
    assert conserved(splice.x, np.arange(3190)) and conserved(promoters.x, np.arange(106))


def test_a_damaged_set_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSIGHT_DATA", str(tmp_path))
    lines = [f"{'+-'[i % 2]},n{i},\t\t{'acgt' * 14}a" for i in range(106)]
    lines[3], lines[4], lines[5] = "+,x,acg!", "?,x,acgt", "only letters"
    write(tmp_path / "promoters" / "promoters.data", "\n".join(lines))
    source = find("promoters")
    got = list(decode(source, source.items[0]))
    assert [i for i, one in enumerate(got) if isinstance(one, ReadError)] == [3, 4, 5]
    assert "line 4: '!' at position 4" in str(got[3]) and "is not a line of class" in str(got[4])
    write(tmp_path / "promoters" / "promoters.data", "\n".join(lines[:50]))
    with pytest.raises(DataError, match="has 50 items where UCI's file has 106"):
        cached(find("promoters"), Console())


def test_a_class_lost_with_its_bad_records_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "bad.fasta"
    path.write_text("".join(f">a{i} label=neg\nACGTACGTAC\n" for i in range(6)) + ">b1 label=pos\nACGT!!\n")
    with pytest.raises(DataError, match=r"one class only \('neg'\).*bad items, left out: 1 \(first: .*bad\.fasta.*b1"):
        cached(find(str(path)), Console(quiet=True))
