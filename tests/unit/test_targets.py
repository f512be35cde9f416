"""What labels mean, from the column to the command line: sets of classes, numbers and grades in 1-D, 2-D and 3-D."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, cohen_kappa_score, f1_score, mean_absolute_error, r2_score

from gridsight.__main__ import main
from gridsight.core.errors import DataError, ReadError, UsageError
from gridsight.data.files import File
from gridsight.data.labels import read_labels
from gridsight.data.readers.array import ArrayReader
from gridsight.data.readers.ts import TsReader
from gridsight.data.target import EMPTY, decide, encode, number, odd_texts, parts, singles, strata
from pages import page

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
SETS = st.lists(st.sets(st.sampled_from(["cat", "dog", "a b", "7"])), min_size=1, max_size=20)

# ---- the rules


@pytest.mark.parametrize(
    ("labels", "column", "task"),
    [
        (["cat", "dog"], "", "classify"),  # folders and names have no column
        (["1", "2"], "", "classify"),
        (["1.5", "2"], "", "classify"),
        (["a;b", "c"], "", "classify"),
        (["cat", "dog"], "grade", "classify"),  # names are classes, whatever the column is called
        (["1", "2"], "label", "classify"),
        (["0", "1"], "y", "classify"),
        (["0", "1"], "one-hot y", "classify"),
        (["0", "1"], "target class", "classify"),
        (["1.5", "2"], "label", "regress"),
        (["0.5", "1"], "y", "regress"),
        (["1", "2"], "grade", "grade"),
        (["1", "2"], "Severity", "grade"),
        (["1.5", "2"], "grade", "regress"),
        (["1", "2"], "age [years]", "regress"),
        (["1", "2"], "value", "regress"),
        (["cat", "dog"], "labels", "multilabel"),
        (["0", "1"], "Finding Labels", "multilabel"),
        (["a;b", "c"], "label", "multilabel"),
        (["1;2", "3"], "grade", "multilabel"),
    ],
)
def test_the_column_and_the_texts_decide(labels: list[str], column: str, task: str) -> None:
    assert decide(labels, column).task == task
    assert decide(labels[::-1] * 3, column) == decide(labels, column)  # neither order nor number of items matters


def test_a_unit_stands_in_brackets() -> None:
    for column in ("age [years]", "age (years)", "age[years] "):
        found = decide(["1", "2"], column)
        assert (found.name, found.unit) == ("age", "years")
    assert decide(["1", "2"], "age").unit == ""


def test_a_task_that_is_asked_for_overrides() -> None:
    assert decide(["1", "2"], "label", "regress").task == "regress"
    assert decide(["2", "10", "1"], "", "grade").classes == ("1", "2", "10")
    assert decide(["1.0", "2"], "", "grade").classes == ("1", "2")
    assert decide(["1.5", "2"], "age", "classify").classes == ("1.5", "2")
    assert decide(["cat"], "", "multilabel").classes == ("cat",)


@pytest.mark.parametrize(
    ("labels", "task", "words"),
    [
        (["2", "2.0"], "grade", "one grade only"),
        (["2", "2.0"], "regress", "the same number"),
        ([";", ";"], "multilabel", "no item has any label"),
    ],
)
def test_labels_that_a_task_cannot_learn_from(labels: list[str], task: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        decide(labels, "column", task)


@pytest.mark.parametrize(
    ("labels", "task", "words"),
    [
        (["1", "cat"], "regress", "--task regress needs a number .* 1 of 2 has none .first: 'cat'.; --task classify"),
        (["b", "1", "a", "b"], "regress", "3 of 4 have none .first: 'b'."),
        (["1", "cat", "1.5"], "grade", "needs a whole number .* 1 of 3 has none .first: 'cat'.; --task classify"),
        (["1", "1.5"], "grade", "needs a whole number .* 1 of 2 has none .first: '1.5'.; --task regress"),
        (["1", "nan"], "regress", "first: 'nan'"),
    ],
)
def test_a_task_that_labels_cannot_mean_is_wrong_use(labels: list[str], task: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        decide(labels, "column", task)


def test_few_texts_among_numbers_are_found() -> None:
    ages = [str(20 + i) for i in range(9)]
    assert odd_texts([*ages, "unknown"], "age [years]") == [9]
    assert odd_texts(["<20", *ages, "?"], "age") == [0, 10]
    assert odd_texts([*ages, "unknown"], "stage") == [9]  # grades else
    for labels, column in (
        (ages, "age"),  # numbers
        ([*ages, "unknown"], "label"),  # classes anyway
        ([*ages, "unknown"], ""),
        ([*ages, "a;b"], "age"),  # sets
        ([*ages[:4], "young", "old"], "age"),  # too many to be slips
        (["cat", "dog"] * 9, "age"),
    ):
        assert odd_texts(labels, column) == []


def test_an_unknown_task_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="regress"):
        decide(["1"], "", "regression")


@given(SETS)
def test_sets_come_back_from_their_encoding(sets: list[set[str]]) -> None:
    labels = [";".join(sorted(one)) or EMPTY for one in sets]
    if not any(sets):
        return
    target = decide(labels, "labels")
    y = encode(target, labels)
    assert y.dtype == np.float32 and set(np.unique(y)) <= {0.0, 1.0}
    assert [{target.classes[c] for c in np.flatnonzero(row)} for row in y] == sets
    assert set(target.classes) == set().union(*sets)  # no class without items
    assert [set(parts(label)) for label in labels] == sets


@given(st.lists(FINITE, min_size=2, max_size=50, unique=True))
def test_numbers_come_back_from_their_encoding(values: list[float]) -> None:
    labels = [repr(value) for value in values]
    target = decide(labels, "age [years]", "regress")
    assert target.classes == () and encode(target, labels).tolist() == values


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=50).filter(lambda found: len(set(found)) > 1))
def test_grades_are_counted_in_order(values: list[int]) -> None:
    labels = [str(value) for value in values]
    target = decide(labels, "grade")
    assert [int(name) for name in target.classes] == sorted(set(values))
    assert [int(target.classes[k]) for k in encode(target, labels)] == values


@given(st.text())
def test_any_text_is_a_finite_number_or_none(text: str) -> None:
    value = number(text)
    assert value is None or np.isfinite(value)


def test_splits_keep_what_is_rare_even() -> None:
    sets = decide(["a", "a;b", "a", ";"], "labels")
    assert strata(sets, encode(sets, ["a", "a;b", "a", ";"])) == ["a", "b", "a", "none"]
    values = np.arange(100.0)
    cut = strata(decide(["0", "1"], "age"), values)
    assert [cut.count(name) for name in sorted(set(cut))] == [10] * 10
    assert cut == sorted(cut)


# ---- arrays and .ts files


def test_what_arrays_of_labels_say() -> None:
    def said(values: Any, names: list[str] | None = None) -> tuple[list[str | None], str | None]:
        array = np.array(values)
        found = read_labels("y.npy", array, len(array), names)
        return found.texts, found.column

    assert said([3, 1]) == (["3", "1"], None)
    assert said([[3], [1]]) == (["3", "1"], None)
    assert said([1.0, np.nan]) == (["1", None], None)
    assert said([0, 1], ["cat", "dog"]) == (["cat", "dog"], None)
    assert said([0.1, 2, np.nan]) == (["0.1", "2.0", None], "y")
    assert said(np.array([0.1, 1e-7], np.float32)) == (["0.1", "1e-07"], "y")
    assert said(["cat", " "]) == (["cat", None], None)
    assert said(["cat;dog", "cat"]) == (["cat;dog", "cat"], "labels")
    assert said([b"caf\xc3\xa9", b"tea"]) == (["café", "tea"], None)
    assert said([[1, 0, 1], [0, 0, 0]]) == (["0;2", ";"], "labels")
    assert said([[1.0, 1.0], [0.0, 1.0]], ["cat", "dog"]) == (["cat;dog", "dog"], "labels")
    # one 1 in every row is most likely one class an item
    assert said([[True, False], [False, True]], ["cat", "dog"]) == (["cat", "dog"], "one-hot y")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((3, 2), 0.5), "other values than 0 and 1"),
        (np.zeros((3, 2), "U1"), "other values than 0 and 1"),
        (np.zeros((3, 2, 2)), "labels have shape"),
        (np.zeros(4), "4 labels for 3 items"),
        (np.array([0.5, 1, np.inf]), "infinite"),
        (np.zeros(3, complex), "complex"),
    ],
)
def test_arrays_that_are_no_labels(values: np.ndarray, words: str) -> None:
    with pytest.raises(ReadError, match=words):
        read_labels("y.npy", values, 3)


def test_ts_files_with_numbers(tmp_path: Path) -> None:
    path = tmp_path / "Pulse_TRAIN.ts"
    path.write_text("@problemName Pulse\n@univariate true\n@targetLabel true\n@data\n1,2,3:61.5\n4,5,6:70\n")
    labels = [(sample.label, sample.column) for sample in TsReader().read(File(path))]
    assert labels == [("61.5", "value"), ("70", "value")]
    assert decide(["61", "70"], "value").task == "regress"  # whole targets are no classes either


# ---- through the command line


SHAPES = {1: (24,), 2: (10, 12), 3: (6, 7, 8)}


def arrays(path: Path, task: str, ndim: int, n: int = 72) -> Path:
    """Noise whose halves are bright or not (sets), or whose brightness is the number or the grade."""
    rng = np.random.default_rng(ndim)
    x = rng.normal(100, 10, (n, *SHAPES[ndim]))
    half = SHAPES[ndim][-1] // 2
    if task == "multilabel":
        y = np.stack([np.arange(n) % 2, np.arange(n) // 2 % 2], 1)
        x[y[:, 0] == 1, ..., :half] += 60
        x[y[:, 1] == 1, ..., half:] += 60
        np.savez(path, x=x.astype(np.float32), y=y, classes=["left", "right"])
    else:
        y = np.arange(n) % 4 if task == "grade" else rng.uniform(-2, 2, n)
        x += 25 * y.reshape(-1, *[1] * ndim)
        np.savez(path, x=x.astype(np.float32), y=y)
    return path


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))

    def run(*words: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def stored(run: str = "run") -> dict[str, np.ndarray]:
    with np.load(Path(run) / "predictions.npz") as file:
        return dict(file)


CASES = [(task, ndim) for task in ("multilabel", "regress", "grade") for ndim in SHAPES]


@pytest.mark.parametrize(("task", "ndim"), CASES)
def test_train_eval_predict_and_report(command: Any, tmp_path: Path, task: str, ndim: int) -> None:
    from gridsight.core.run import RunFolder

    data = arrays(tmp_path / "data.npz", task, ndim)
    axes = ("--axes", "N" + "DHW"[-ndim:] if ndim > 1 else "NL")
    asked = ("--task", "grade") if task == "grade" else ()  # whole numbers without a name are classes
    # no averaging of weights: so few steps would not leave the first ones behind
    (printed,) = command(
        "train", str(data), "--out", "run", "--epochs", "14", "--average", "0", "--augment", "none", *axes, *asked
    )
    assert printed["task"] == task
    result, found = json.loads(Path("run/result.json").read_text()), stored()
    assert result["n"] == printed["n"] == len(found["target"])

    # the figures are scikit-learn's of the predictions kept
    metrics = {name: entry["value"] for name, entry in result["metrics"].items()}
    y = found["target"]
    if task == "regress":
        assert metrics["mae"] == pytest.approx(mean_absolute_error(y, found["value"]))
        assert metrics["r2"] == pytest.approx(r2_score(y, found["value"]))
        assert metrics["r2"] > 0.3
    elif task == "grade":
        said = found["probabilities"].argmax(1)
        assert metrics["quadratic_kappa"] == pytest.approx(cohen_kappa_score(y, said, weights="quadratic"))
        assert metrics["quadratic_kappa"] > 0.5
    else:
        said = found["probabilities"] >= 0.5
        assert metrics["f1_macro"] == pytest.approx(f1_score(y, said, average="macro", zero_division=0))
        assert metrics["average_precision"] == pytest.approx(average_precision_score(y, found["probabilities"]))
        assert metrics["average_precision"] > 0.8

    # eval of the run says the same again; eval of the file takes its labels as training did
    (again,) = command("eval", "run")
    for name, entry in result["metrics"].items():
        assert again["metrics"][name]["value"] == pytest.approx(entry["value"], rel=1e-5, abs=1e-6)
    (other,) = command("eval", "run", str(data), *axes)
    assert (other["task"], other["n"]) == (task, 72)

    items = command("predict", "run", str(data))
    assert len(items) == 72 and items[3]["path"] == f"{data}[3]"
    assert_form(task, items[0], found)

    # the report says what the result says
    text = page(RunFolder(Path("run"))).text
    first = {"regress": "mae", "grade": "quadratic_kappa", "multilabel": "average_precision"}[task]
    written = {"regress": "{:.4g}", "grade": "{:.3f}", "multilabel": "{:.2%}"}[task].format(metrics[first])
    assert written.replace("%", " %") in text.replace("\u00a0", " ")


def assert_form(task: str, item: dict[str, Any], found: dict[str, np.ndarray]) -> None:
    """The promised keys; and probabilities and labels that belong together."""
    common = {"path", "unsure", "reason", "novelty"}
    if task == "regress":
        assert set(item) == common | {"value", "low", "high", "unit"}
        margin = (found["high"] - found["low"])[0] / 2
        assert item["high"] - item["low"] == pytest.approx(2 * margin) and item["unit"] == ""
        assert (item["low"] + item["high"]) / 2 == pytest.approx(item["value"])
        return
    classes = found["classes"].tolist()
    assert list(item["probabilities"]) == classes
    if task == "multilabel":
        assert set(item) == common | {"labels", "probabilities"}
        assert item["labels"] == [name for name in classes if item["probabilities"][name] >= 0.5]
    else:
        assert set(item) == common | {"label", "probability", "probabilities", "expected"}
        assert item["label"] == max(item["probabilities"], key=item["probabilities"].get)
        assert item["probability"] == item["probabilities"][item["label"]]
        assert sum(item["probabilities"].values()) == pytest.approx(1)


def test_too_few_items_for_an_interval(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """95 % of new items cannot be promised from nine: no interval is null in JSON, and left out of the prose."""
    data = arrays(tmp_path / "data.npz", "regress", 1, n=12)
    command("train", str(data), "--out", "run", "--epochs", "1", "--axes", "NL")
    result = json.loads(Path("run/result.json").read_text())
    assert result["calibration"]["margin"] is None and "interval_coverage" not in result["metrics"]
    item = command("predict", "run", str(data))[0]
    assert item["low"] is item["high"] is None and isinstance(item["value"], float)
    assert main(["predict", "run", str(data)]) == 0
    out, err = capsys.readouterr()
    assert " to " not in out and "no intervals" in err
    assert main(["predict", "run", str(data), "--coverage", "0.5"]) == 2
    assert "says numbers" in capsys.readouterr().err
    assert "Answers come without an interval" in Path("run/report.html").read_text()


def test_prose_of_each_task(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gridsight.verbs.predict import _line

    probabilities = {"cat": 0.9, "dog": 0.6, "owl": 0.1}
    chosen = {"path": "a", "labels": ["cat", "dog"], "probabilities": probabilities, "unsure": False}
    assert _line(chosen, 3) == "a  cat 90.0%  dog 60.0%"
    assert _line(chosen | {"labels": []}, 3) == "a  none of the classes"
    value = {"path": "a", "value": 31.25, "low": 30.0, "high": 32.5, "unit": "years"}
    assert _line(value, 3) == "a  31.25 years  (30 to 32.5)"
    assert _line(value | {"low": float("nan"), "high": float("nan"), "unit": ""}, 3) == "a  31.25"
    graded = {"path": "a", "label": "cat", "probability": 0.9, "probabilities": probabilities, "unsure": False}
    assert _line(graded, 2) == "a  cat 90.0%  dog 60.0%"


def test_one_hot_labels_are_classes_with_a_note(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    x = np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32)
    y = np.eye(3)[np.arange(60) % 3]
    x += 3 * (np.arange(60) % 3)[:, None]
    np.savez(path, x=x, y=y, classes=["low", "middle", "high"])
    command("train", str(path), "--out", "one", "--epochs", "1", "--axes", "NL", "--no-report")
    spec = json.loads(Path("one/plan.json").read_text())["spec"]
    assert spec["task"] == "classify" and spec["classes"] == ["high", "low", "middle"]
    assert any("exactly one 1" in note for note in spec["notes"])
    command("train", str(path), "--out", "sets", "--epochs", "1", "--axes", "NL", "--task", "multilabel", "--no-report")
    spec = json.loads(Path("sets/plan.json").read_text())["spec"]
    assert spec["task"] == "multilabel" and not spec["notes"]


def test_one_text_among_numbers_is_named_and_check_takes_the_task(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    ages = [f"{20 + i / 2:g}" for i in range(30)]
    lines = [",".join([age, *map(str, rng.normal(size=9).round(3))]) for age in [*ages, "n.k."]]
    path = tmp_path / "ages.csv"
    path.write_text("\n".join(["age," + ",".join(f"f{i}" for i in range(9)), *lines]))
    asked = [str(path), "--target", "age"]
    train = ["train", *asked, "--epochs", "1", "--no-report"]
    assert main([*train, "--out", "wrong", "--task", "regress"]) == 2
    error = capsys.readouterr().err
    assert "--task regress needs a number" in error and "1 of 31 has none (first: 'n.k.')" in error
    main([*train, "--out", "classes"])
    error = capsys.readouterr().err
    assert f"'n.k.' (of {path}[30]) is no number, as 30 of 31 labels in age are" in error
    assert "--task classify" in error
    main([*train, "--out", "asked", "--task", "classify"])
    assert "is no number" not in capsys.readouterr().err

    def checked(*words: str) -> tuple[int, list[dict[str, Any]]]:
        code = main(["check", *asked, *words, "--json"])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    odd = [found for found in checked()[1] if found.get("problem") == "odd label"]
    assert [one["paths"] for one in odd] == [[f"{path}[30]"]] and "'n.k.' is no number" in odd[0]["detail"]
    assert not [found for found in checked("--task", "classify")[1] if found.get("problem") == "odd label"]
    assert checked("--task", "regress")[0] == 2
    path.write_text(path.read_text().replace("n.k.", "70"))
    assert checked()[1][-1]["classes"] == {}
    assert len(checked("--task", "classify")[1][-1]["classes"]) == 31


def test_classes_of_one_item_are_doubted() -> None:
    ages = [f"{20 + i / 2:g}" for i in range(30)]
    said = singles(decide([*ages, "20"], "age", "classify"), [*ages, "20"])
    assert said.startswith("29 of the 30 classes have one item") and said.endswith("--task regress")
    assert "--task" not in singles(decide(["a", "b", "c", "c"]), ["a", "b", "c", "c"])
    assert singles(decide(["a", "b", "b"]), ["a", "b", "b"]) == ""  # half of them
    assert singles(decide(ages, "age"), ages) == ""  # numbers


def test_an_array_file_reads_the_names_of_its_classes(tmp_path: Path) -> None:
    path = tmp_path / "sets.npz"
    np.savez(path, x=np.zeros((3, 8, 8)), y=[[1, 1], [0, 0], [0, 1]], classes=["cat", "dog"])
    found = [(sample.label, sample.column) for sample in ArrayReader().read(File(path))]
    assert found == [("cat;dog", "labels"), (";", "labels"), ("dog", "labels")]
