"""Figures of sets, grades and numbers: values against scikit-learn, intervals and conformal coverage by simulation."""

import warnings

import numpy as np
import pytest
from scipy.stats import binom
from sklearn import metrics as theirs

from gridsight.measure import labelsets, ordinal, regression
from gridsight.measure.calibration import Calibration
from gridsight.measure.intervals import wilson
from gridsight.tasks import make_task

SEEDS = range(6)


def sets(seed: int, n: int = 80, k: int = 4, skill: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, K), some of them equal, and sets (n, K)."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, k)) < rng.uniform(0.1, 0.6, k)
    return np.round(rng.random((n, k)) * (1 - skill) + skill * y * rng.random((n, k)), 2), y.astype(int)


@pytest.mark.parametrize("seed", SEEDS)
def test_sets_equal_scikit_learn(seed: int) -> None:
    p, y = sets(seed)
    said = (p >= 0.5).astype(int)
    found, rows = labelsets.measure(p, y, list("abcd"))
    for name, value in {
        "accuracy": theirs.accuracy_score(y, said),
        "hamming_loss": theirs.hamming_loss(y, said),
        "f1_macro": theirs.f1_score(y, said, average="macro", zero_division=0),
        "f1_micro": theirs.f1_score(y, said, average="micro"),
        "average_precision": theirs.average_precision_score(y, p, average="macro"),
        "roc_auc": theirs.roc_auc_score(y, p, average="macro"),
    }.items():
        assert found[name]["value"] == pytest.approx(value), name
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"], name
    precision, recall, f1, support = theirs.precision_recall_fscore_support(y, said, zero_division=np.nan)
    for c, row in enumerate(rows):
        assert (row["class"], row["n"]) == ("abcd"[c], support[c])
        for name, value in (("precision", precision[c]), ("recall", recall[c]), ("f1", f1[c])):
            assert row[name]["value"] == pytest.approx(value, nan_ok=True)
        each = theirs.average_precision_score(y[:, c], p[:, c])
        assert row["average_precision"]["value"] == pytest.approx(each)
        assert row["average_precision"]["low"] < each < row["average_precision"]["high"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [2, 5])
def test_kappa_and_distance_equal_scikit_learn(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, 90)
    p = np.eye(k)[np.clip(y + rng.integers(-1, 2, 90), 0, k - 1)]
    said = p.argmax(1)
    found = ordinal.summary(p, y)
    assert found["quadratic_kappa"]["value"] == pytest.approx(theirs.cohen_kappa_score(y, said, weights="quadratic"))
    assert found["mae"]["value"] == pytest.approx(theirs.mean_absolute_error(y, said))
    assert all(entry["low"] < entry["value"] < entry["high"] for entry in found.values())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_numbers_equal_scikit_learn(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=70) + shift
    said = y + rng.normal(0, 0.5, 70)
    found = regression.summary(said, said - 1, said + 1, y)
    for name, value in {
        "mae": theirs.mean_absolute_error(y, said),
        "rmse": theirs.root_mean_squared_error(y, said),
        "r2": theirs.r2_score(y, said),
        "interval_coverage": np.mean(np.abs(y - said) <= 1),
    }.items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-6), name
        assert found[name]["low"] < found[name]["value"] <= found[name]["high"], name
    nothing = np.full(70, np.nan)
    assert "interval_coverage" not in regression.summary(said, nothing, nothing, y)


def test_classes_without_items_have_no_ranking_and_do_not_count() -> None:
    p, y = sets(0)
    empty = np.zeros((len(y), 1), int)
    with_empty, rows = labelsets.measure(np.c_[p, empty], np.c_[y, empty], list("abcde"))
    without, _ = labelsets.measure(p, y, list("abcd"))
    for name in ("average_precision", "roc_auc", "f1_macro"):
        assert with_empty[name]["value"] == pytest.approx(without[name]["value"])
    assert rows[4]["n"] == 0 and "average_precision" not in rows[4]
    alone, _ = labelsets.measure(p[:, :1], np.ones((len(y), 1)), ["a"])
    assert "average_precision" not in alone and "accuracy" in alone


def test_perfect_answers_are_not_certain() -> None:
    """No resample can doubt what is exactly 0 or 1: Wilson's bound of the counts does."""
    _, y = sets(1)
    found, rows = labelsets.measure(y * 0.9 + 0.05, y, list("abcd"))
    inside = y.sum(0)
    for c, row in enumerate(rows):
        assert row["average_precision"]["value"] == row["average_precision"]["high"] == 1
        assert row["average_precision"]["low"] == pytest.approx(wilson(inside[c], inside[c])[0])
    for name in ("average_precision", "f1_macro", "f1_micro", "roc_auc", "accuracy"):
        assert found[name]["value"] == found[name]["high"] == 1
        assert 0.8 < found[name]["low"] < 1
    assert found["hamming_loss"]["value"] == found["hamming_loss"]["low"] == 0 < found["hamming_loss"]["high"]
    # two classes always right, two never said: each has a width although no resample has
    p = y * np.array([0.9, 0.9, 0.1, 0.1])
    macro = labelsets.measure(p, y, list("abcd"))[0]["f1_macro"]
    assert macro["value"] == 0.5 and macro["low"] < 0.49 and macro["high"] > 0.51
    grades = np.arange(60) % 4
    graded = ordinal.summary(np.eye(4)[grades], grades)
    assert graded["quadratic_kappa"]["value"] == 1 and 0.9 < graded["quadratic_kappa"]["low"] < 1
    assert graded["mae"]["value"] == 0 and graded["mae"]["high"] == pytest.approx(1 - wilson(60, 60)[0])


def test_bounds_stay_on_their_scale_where_few_units_differ() -> None:
    y = np.repeat([0, 1], [495, 5])
    found = ordinal.summary(np.eye(2)[y], y, groups=np.arange(500) // 100)
    assert found["quadratic_kappa"]["value"] == 1 and found["quadratic_kappa"]["low"] == -1
    # of resamples of one number alone only rounding is left
    y = np.repeat([31.1, 40.2, 57.3], 50)
    value = y + np.random.default_rng(0).normal(0, 1, 150)
    r2 = regression.summary(value, y, y - 3, y + 3, groups=np.repeat(["a", "b", "c"], 50))["r2"]
    assert 0 < r2["low"] < r2["value"]


def test_groups_widen_intervals() -> None:
    """Ten copies of each item are ten times the items and no more evidence."""
    rng = np.random.default_rng(3)
    y = rng.normal(size=40)
    said = y + rng.normal(0, 0.5, 40)
    many = [np.repeat(values, 10) for values in (said, said - 1, said + 1, y)]

    def width(found: dict[str, dict[str, float]], name: str = "mae") -> float:
        return found[name]["high"] - found[name]["low"]

    one, naive = regression.summary(said, said - 1, said + 1, y), regression.summary(*many)
    grouped = regression.summary(*many, groups=np.repeat(np.arange(40), 10))
    assert width(grouped) == pytest.approx(width(one), rel=0.05)
    assert width(naive) < 0.5 * width(grouped)
    assert width(naive, "interval_coverage") < 0.6 * width(grouped, "interval_coverage")
    p, sets_ = (np.repeat(part, 10, 0) for part in sets(4))
    grouped = labelsets.measure(p, sets_, list("abcd"), groups=np.repeat(np.arange(80), 10))[0]
    naive = labelsets.measure(p, sets_, list("abcd"))[0]
    for name in ("average_precision", "f1_macro", "accuracy"):
        assert width(naive, name) < 0.5 * width(grouped, name)


@pytest.mark.parametrize("name", ["mae", "f1_macro", "average_precision", "quadratic_kappa"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(name: str) -> None:
    """Of 100 samples of 120 items each, nearly 95 have a 95 % interval that holds the value of 300,000 items."""
    rng = np.random.default_rng(5)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        if name == "mae":
            y = rng.normal(size=n)
            return y + rng.standard_t(4, n) * 0.3, y
        if name == "quadratic_kappa":
            y = rng.integers(0, 4, n)
            return np.clip(y + rng.choice([-1, 0, 0, 0, 1], n), 0, 3), y
        y = rng.random((n, 3)) < [0.5, 0.3, 0.2]
        return 1 / (1 + np.exp(-2.5 * (y - 0.5) - rng.normal(size=(n, 3)))), y

    def measured(said: np.ndarray, y: np.ndarray) -> dict[str, float]:
        if name == "mae":
            return regression.summary(said, said, said, y)[name]
        if name == "quadratic_kappa":
            return ordinal.summary(np.eye(4)[said], y)[name]
        return labelsets.measure(said, y, list("abc"))[0][name]

    said, y = drawn(300_000)
    if name == "mae":
        truth = float(np.abs(said - y).mean())
    elif name == "quadratic_kappa":
        truth = theirs.cohen_kappa_score(y, said, weights="quadratic")
    elif name == "f1_macro":
        truth = theirs.f1_score(y, said >= 0.5, average="macro")
    else:
        truth = theirs.average_precision_score(y, said)
    entries = [measured(*drawn(120)) for _ in range(100)]
    inside = sum(entry["low"] <= truth <= entry["high"] for entry in entries)
    assert inside >= 86


# ---- conformal intervals


def covered(n: int, coverage: float, repeats: int, corrected: bool = True) -> int:
    """How often an interval fitted on n errors holds one new error; without the (n + 1) correction as a control."""
    rng = np.random.default_rng(n)
    inside = 0
    for _ in range(repeats):
        errors = rng.standard_exponential(n + 1)
        margin = regression.conformal_margin(errors[:n], coverage)
        if not corrected:
            margin = float(np.sort(errors[:n])[int(np.ceil(n * coverage - 1e-9)) - 1])
        assert margin is not None
        inside += errors[n] <= margin
    return inside


@pytest.mark.parametrize("n", [9, 19, 50, 200])
def test_intervals_hold_what_they_promise(n: int) -> None:
    """Of 4,000 repeats, at least 90 % and at most 90 % + 1 / (n + 1), as far as chance allows."""
    inside = covered(n, 0.9, 4000)
    assert inside >= binom.ppf(0.0005, 4000, 0.9)
    assert inside <= binom.ppf(0.9995, 4000, 0.9 + 1 / (n + 1))


def test_without_the_correction_few_errors_promise_too_much() -> None:
    inside = covered(10, 0.9, 4000, corrected=False)
    assert inside < binom.ppf(0.0005, 4000, 0.9)  # 9 / 11 of them in the long run
    assert inside == pytest.approx(4000 * 9 / 11, rel=0.05)


def test_too_few_errors_give_no_interval() -> None:
    assert regression.conformal_margin(np.arange(8.0), 0.9) is None
    assert regression.conformal_margin(np.arange(9.0), 0.9) == 8
    assert regression.conformal_margin(np.arange(0.0), 0.5) is None


def test_the_task_uses_the_margin_in_the_datas_own_unit() -> None:
    rng = np.random.default_rng(6)
    task = make_task("regress", (), unit="mm", center=100.0, scale=20.0)
    y = rng.normal(100, 20, 400)
    outputs = ((y - 100) / 20 + rng.normal(0, 0.1, 400)).astype(np.float32)[:, None]
    fitted = task.calibrate(outputs[:200], y[:200], 0.8)
    errors = np.sort(np.abs(outputs[:200, 0].astype(np.float64) * 20 + 100 - y[:200]))
    assert fitted.margin == pytest.approx(errors[161 - 1])  # ceil(201 * 0.8)
    predicted = task.predict(outputs[200:], fitted)
    inside = (predicted["low"] <= y[200:]) & (y[200:] <= predicted["high"])
    assert binom.ppf(0.001, 200, 0.8) <= inside.sum() <= binom.ppf(0.999, 200, 0.8)
    assert np.isnan(task.predict(outputs, Calibration())["low"]).all()


def test_multilabel_is_unsure_where_a_class_is_near_one_half() -> None:
    task = make_task("multilabel", ("cat", "dog"))
    p = np.array([[0.99, 0.02], [0.99, 0.45]])
    assert [item["unsure"] for item in task.decode({"probabilities": p}, 0.9)] == [False, True]
    assert [item["unsure"] for item in task.decode({"probabilities": p}, None)] == [None, None]
    rng = np.random.default_rng(7)
    outputs = rng.normal(0, 4, (300, 2))
    y = (rng.random((300, 2)) < 1 / (1 + np.exp(-outputs / 2))).astype(np.float32)
    fitted = task.calibrate(outputs, y, 0.7)
    assert fitted.temperature == pytest.approx(2, rel=0.2)
    answers = task.decode(task.predict(outputs, fitted), fitted.threshold)
    assert sum(not item["unsure"] for item in answers) == 210


def test_nothing_warns_where_classes_are_empty() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = labelsets.measure(np.zeros((5, 2)), np.zeros((5, 2)), ["a", "b"])
        ordinal.summary(np.eye(3)[[1, 1, 1]], np.array([1, 1, 1]))
    assert np.isnan(found["f1_macro"]["value"]) and found["accuracy"]["value"] == 1
