"""The verbs `models` and `describe`: the promised keys, the numbers, and errors in one line."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout

import pytest

from gridsight.__main__ import main
from gridsight.core.console import Console
from gridsight.core.errors import UsageError
from gridsight.models import MODELS
from gridsight.verbs.describe import DescribeSettings, describe, describe_model
from gridsight.verbs.models import ModelsSettings, list_models, one_or_each


def test_models_rows() -> None:
    rows = {row["name"]: row for row in list_models(ModelsSettings(), Console(quiet=True))}
    assert list(rows) == MODELS.names()
    keys = {"name", "ndims", "parameters", "macs", "receptive_field", "paper", "published"}
    assert all(row.keys() == keys for row in rows.values())
    resnet = rows["resnet50"]
    assert (resnet["parameters"], resnet["macs"], resnet["receptive_field"]) == (25_557_032, 4_089_184_256, 427)
    assert resnet["ndims"] == [1, 2, 3] and "76.13" in resnet["published"]
    assert rows["simple_cnn"]["published"] is None


def test_describe_as_json_is_one_object() -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        code = main(["describe", "lenet5", "--ndim", "1", "--size", "28", "--classes", "3", "--json"])
    (line,) = out.getvalue().splitlines()
    table = json.loads(line)
    assert code == 0 and table["name"] == "lenet5" and table["spatial"] == [28]
    assert table["layers"][0]["receptive_field"] == [5]
    assert table["parameters"] == 6 * 6 + 16 * 31 + 16 * 5 * 120 + 120 + 120 * 84 + 84 + 84 * 3 + 3


def test_describe_takes_arguments_of_the_network() -> None:
    settings = DescribeSettings("resnet20", ndim=3, channels=1, size=(8, 16, 16), arguments=("width=4", "shortcut=pad"))
    table = describe(settings, Console(quiet=True))
    assert table["in_channels"] == 1 and table["layers"][0]["shape"] == [4, 8, 16, 16]
    assert table["parameters"] == describe_model("resnet20", 3, 1, arguments={"width": 4})["parameters"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DescribeSettings("resnet81"), "did you mean resnet"),
        (DescribeSettings("resnet18", ndim=3, size=(8, 8)), "give one number, or 3"),
        (DescribeSettings("resnet18", arguments=("width",)), "NAME=VALUE"),
        (DescribeSettings("resnet18", arguments=("widht=3",)), "did you mean width"),
        (DescribeSettings("resnet18", arguments=("width=x",)), "cannot be built with width='x'"),
    ],
)
def test_wrong_use_says_what_is_right(settings: DescribeSettings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        describe(settings, Console(quiet=True))


def test_one_or_each() -> None:
    assert [one_or_each(v) for v in ((3, 3), (3, 5), (None, None))] == [3, [3, 5], None]


def test_settings_need_no_torch() -> None:
    code = "import gridsight.verbs.models, gridsight.verbs.describe, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
