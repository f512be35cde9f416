"""The verbs `models` and `describe`: the promised keys, the numbers, and errors in one line."""

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path

import pytest

from gridsight.__main__ import main
from gridsight.core.console import Console
from gridsight.core.errors import UsageError
from gridsight.models import MODELS
from gridsight.reporting.markup import memory
from gridsight.verbs.describe import DescribeSettings, describe, describe_model
from gridsight.verbs.models import ModelsSettings, list_models, measured, one_or_each, recorded


def test_models_rows() -> None:
    rows = {row["name"]: row for row in list_models(ModelsSettings(), Console(quiet=True))}
    assert sorted(rows) == MODELS.names()
    keys = {
        "name",
        "ndims",
        "parameters",
        "macs",
        "receptive_field",
        "paper",
        "published",
        "family",
        "input",
        "weights",
    }
    assert all(row.keys() == keys for row in rows.values())
    resnet = rows["resnet50"]
    assert (resnet["parameters"], resnet["macs"], resnet["receptive_field"]) == (25_557_032, 4_089_184_256, 427)
    assert resnet["ndims"] == [1, 2, 3] and resnet["input"] == [3, 224, 224] and "76.13" in resnet["published"]
    assert resnet["weights"]["url"].endswith(".pth") and "BSD" in resnet["weights"]["licence"]
    assert rows["simple_cnn"]["published"] is None and rows["simple_cnn"]["weights"] is None


def test_models_of_one_paper_stand_together_the_smallest_first() -> None:
    rows = list_models(ModelsSettings("resnet"), Console(quiet=True))
    groups = [(row["family"], row["paper"]) for row in rows]
    assert [row["name"] for row in rows if row["paper"] == "arXiv:1512.03385"][:3] == [
        "resnet20",
        "resnet32",
        "resnet44",
    ]
    assert len(set(groups)) == 1 + sum(before != after for before, after in pairwise(groups))
    assert all(a["parameters"] <= b["parameters"] for a, b in pairwise(rows) if a["paper"] == b["paper"])


def test_models_by_pattern() -> None:
    def names(pattern: str) -> list[str]:
        return [row["name"] for row in list_models(ModelsSettings(pattern), Console(quiet=True))]

    assert names("lenet5") == ["lenet5"] and "googlenet" in names("lenet")
    assert names("vgg1?_bn") == ["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
    with pytest.raises(UsageError, match="no network is called 'resnt50'; did you mean resnet50"):
        names("resnt50")


def test_the_table_of_models_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    (line,) = [line for line in lines if line.startswith("resnet50 ")]
    assert [part for part in re.split(" {2,}", line) if part not in ("(pytorch.org)", "pytorch.org")] == [
        "resnet50", "1 2 3", "25.6 M", "4.09 G", "427", "arXiv:1512.03385", "76.13 % top-1, ImageNet",
    ]  # fmt: skip


# the rest are slow together; `python tests/costs.py NAME` records a network that has changed
QUICK = ("crnn", "gridnet", "lenet5", "mobilenet_v2", "resnet18", "resnet20", "simple_cnn", "strandnet", "vit_b_32")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in recorded()])
def test_recorded_costs_are_those_measured(name: str) -> None:
    assert recorded()[name] == measured(name)


def test_a_network_that_is_not_recorded_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list_models(ModelsSettings("lenet5"), Console(quiet=True))
    monkeypatch.setattr("gridsight.verbs.models.recorded", dict)
    assert list_models(ModelsSettings("lenet5"), Console(quiet=True)) == expected


def test_describe_as_json_is_one_object() -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        code = main(["describe", "lenet5", "--ndim", "1", "--spatial", "28", "--classes", "3", "--json"])
    (line,) = out.getvalue().splitlines()
    table = json.loads(line)
    assert code == 0 and table["name"] == "lenet5" and table["spatial"] == [28]
    assert table["layers"][0]["receptive_field"] == [5]
    assert table["parameters"] == 6 * 6 + 16 * 31 + 16 * 5 * 120 + 120 + 120 * 84 + 84 + 84 * 3 + 3


@pytest.mark.parametrize(
    ("words", "expected"), [("32", [32, 32]), ("32,24", [32, 24]), ("32 24", [32, 24]), ("8,9,10", [8, 9, 10])]
)
def test_describe_takes_sizes_with_commas_and_spaces(
    words: str, expected: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", "resnet20", "--spatial", *words.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spatial"] == expected


@pytest.mark.parametrize("words", ["32x32", "32,", "wide"])
def test_describe_refuses_what_is_no_size(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "resnet20", "--spatial", words]) == 2
    assert f"--spatial: '{words}' is not one whole number, or several as 24,128,128" in capsys.readouterr().err


def test_describe_takes_arguments_of_the_network() -> None:
    settings = DescribeSettings(
        "resnet20", ndim=3, channels=1, spatial=(8, 16, 16), arguments=("width=4", "shortcut=pad")
    )
    table = describe(settings, Console(quiet=True))
    assert table["in_channels"] == 1 and table["layers"][0]["shape"] == [4, 8, 16, 16]
    assert table["parameters"] == describe_model("resnet20", 3, 1, arguments={"width": 4})["parameters"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DescribeSettings("resnet81"), "did you mean resnet"),
        (DescribeSettings("resnet18", ndim=3, spatial=(8, 8)), "--spatial 8,8 does not fit 3 axes"),
        (DescribeSettings("resnet18", arguments=("width",)), "NAME=VALUE"),
        (DescribeSettings("resnet18", arguments=("widht=3",)), "did you mean width"),
        (DescribeSettings("resnet18", arguments=("width=x",)), "cannot be built with .*width='x'"),
        (DescribeSettings("resnet20", arguments=("ndim=3",)), "ndim is no argument .*--ndim"),
        (DescribeSettings("resnet20", arguments=("num_classes=3",)), "num_classes is no argument .*--classes"),
        (DescribeSettings("resnet20", arguments=("in_channels=3",)), "in_channels is no argument .*--channels"),
        (DescribeSettings("resnet20", arguments=("name=x",)), "name is no argument .*MODEL"),
        (DescribeSettings("lenet5", arguments=("spatial=(64,64)",)), "spatial is no argument .*--spatial"),
        (DescribeSettings("resnet20", arguments=("groups=0",)), "cannot be built with .*groups=0: integer modulo"),
        (DescribeSettings("efficientnet_b0", arguments=("rows=()",)), r"cannot be built with .*rows=\(\): tuple index"),
        (
            DescribeSettings("mobilenet_v3_small", arguments=("rows=((3,16,16,False,'XX',1),)",)),
            "cannot be built with .*'XX'",
        ),
        (DescribeSettings("deit_tiny", arguments=("patch=0",)), "cannot be built with .*patch=0.*: integer division"),
        # what the user did not give (channels, ndim, classes) is not blamed
        (DescribeSettings("resnet18", arguments=("width=x",)), "cannot be built with width='x': "),
        (DescribeSettings("resnet18", classes=10**17), f"cannot be built with num_classes={10**17}: Storage size"),
        (
            DescribeSettings("resnet18", channels=3, arguments=("depths=3",)),
            "built with in_channels=3, depths=3: object",
        ),
        (DescribeSettings("resnet18", ndim=4), "resnet18 works for ndim 1, 2, 3, not 4"),
        (DescribeSettings("alexnet", spatial=(8, 8)), "at least 63 x 63; train --size 63 enlarges the items"),
        (DescribeSettings("crnn", arguments=("pool=0",)), "crnn cannot be run with pool=0: max_pool"),
        (DescribeSettings("resnet18", arguments=("stem_stride=0",)), "resnet18 cannot be run with stem_stride=0: int"),
    ],
)
def test_wrong_use_says_what_is_right(settings: DescribeSettings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        describe(settings, Console(quiet=True))


def test_describe_says_memory_in_fitting_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "resnet18", "--spatial", "1000000,1000000"]) == 0
    assert "MACs, 656 TB of activations an item" in capsys.readouterr().out
    assert [memory(size) for size in (None, 12, 61_234, 28_480_000, 999_900_000, 2.5e9)] == [
        "–", "12 B", "61.2 kB", "28.5 MB", "1 GB", "2.5 GB",
    ]  # fmt: skip


def test_a_defect_is_not_blamed_on_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails without arguments is ours, and keeps its traceback."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("this\nthat")

    monkeypatch.setattr("gridsight.measure.cost.cost", broken)
    with pytest.raises(ZeroDivisionError):
        describe_model("lenet5")
    with pytest.raises(UsageError, match=r"lenet5 cannot be run with kernel=3: this$"):
        describe_model("lenet5", arguments={"kernel": 3})


def test_one_or_each() -> None:
    assert [one_or_each(v) for v in ((3, 3), (3, 5), (None, None))] == [3, [3, 5], None]


def test_settings_need_no_torch() -> None:
    code = "import gridsight.verbs.models, gridsight.verbs.describe, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_drawing_that_cannot_be_written_is_refused_before_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path, tmp_path / "none" / "x.svg"):
        assert main(["describe", "lenet5", "--svg", str(place)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and f"--svg {place} cannot be written" in err


def test_an_unknown_pattern_is_told_near_names_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "qqqqq"]) == 2
    assert "no network is called 'qqqqq'; gridsight models lists them all" in capsys.readouterr().err
    assert main(["describe", "Resnet18"]) == 2
    assert "did you mean resnet18?" in capsys.readouterr().err
