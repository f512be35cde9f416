"""Metrics against scikit-learn, their intervals, and the confusion in words."""

import doctest
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from gridsight.measure import words
from gridsight.measure.metrics import Curves, confusion_matrix, headline, per_class, scores, summary
from gridsight.measure.words import confusion_in_words
from gridsight.tasks import STATED, measure_choices
from gridsight.tasks.classify import Classify

Case = tuple[NDArray[np.float64], NDArray[np.int64]]


def random_case(seed: int) -> Case:
    """Probabilities and targets: 2 to 6 classes, 5 to 60 items, often ties, sometimes classes without items."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(2, 7)), int(rng.integers(5, 60))
    y = rng.integers(0, k, n) if rng.random() < 0.7 else rng.choice(rng.permutation(k)[: max(2, k - 1)], n)
    raw = rng.random((n, k)) + rng.random() * 2 * np.eye(k)[y]
    if rng.random() < 0.5:
        raw = np.round(raw * 3) + 1  # many equal scores
    return raw / raw.sum(1, keepdims=True), y


def names(k: int) -> list[str]:
    return [f"class {i}" for i in range(k)]


def one_against_rest(function, p: NDArray[np.float64], y: NDArray[np.int64]) -> float:  # type: ignore[no-untyped-def]
    """Mean over the classes that have items inside and outside; of two classes only the second."""
    k = p.shape[1]
    with_both = [c for c in ([1] if k == 2 else range(k)) if 0 < (y == c).sum() < len(y)]
    return float(function(y[:, None] == with_both, p[:, with_both], average="macro"))


@pytest.mark.parametrize("block", range(10))
def test_values_equal_scikit_learn_on_1000_random_cases(block: int) -> None:
    """Shares and losses on all of them, areas under curves on 250."""
    compared = 0
    for seed in range(100 * block, 100 * block + 100):
        p, y = random_case(seed)
        k, predicted = p.shape[1], p.argmax(1)
        if len(np.unique(y)) < 2:
            continue
        compared += 1
        found = scores(p, y, names(k))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # predicted classes that have no items
            expected = {
                "accuracy": sk.accuracy_score(y, predicted),
                "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
                "f1_macro": sk.f1_score(y, predicted, average="macro"),
                "log_loss": sk.log_loss(y, p, labels=range(k)),
                "brier_score_loss": sk.brier_score_loss(y, p if k > 2 else p[:, 1], labels=range(k)),
            }
            if seed % 4 == 0:  # scikit-learn takes 30 ms for the areas of one case
                expected["roc_auc"] = one_against_rest(sk.roc_auc_score, p, y)
                expected["average_precision"] = one_against_rest(sk.average_precision_score, p, y)
            if seed % 10 == 0 and k > 2 and len(np.unique(y)) == k:
                assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr", average="macro"))
                assert found["average_precision"] == pytest.approx(sk.average_precision_score(y, p, average="macro"))
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)

        counts = confusion_matrix(predicted, y, k)
        assert (counts == sk.confusion_matrix(y, predicted, labels=range(k))).all()
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            y, predicted, labels=range(k), zero_division=np.nan
        )
        with np.errstate(invalid="ignore"):
            rest = sk.multilabel_confusion_matrix(y, predicted, labels=range(k))[:, 0]
            specificities = rest[:, 0] / rest.sum(1)
        for c, row in enumerate(per_class(counts, names(k))):
            assert row["class"] == f"class {c}" and row["n"] == support[c]
            for name, value in (("precision", precision[c]), ("recall", recall[c]), ("specificity", specificities[c])):
                assert row[name]["value"] == pytest.approx(value, nan_ok=True)
            assert row["f1"]["value"] == pytest.approx(f1[c], nan_ok=True)
            for name in ("precision", "recall", "specificity", "f1"):
                metric = row[name]
                if np.isnan(metric["value"]):
                    assert np.isnan(metric["low"]) and np.isnan(metric["high"])
                else:
                    assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1
                    assert metric["low"] < metric["high"]
    assert compared > 90


def test_curves_under_weights_are_those_of_the_repeated_items() -> None:
    for seed in range(60):
        p, y = random_case(seed)
        rng = np.random.default_rng(seed)
        weights = rng.integers(0, 4, (len(y), 3)).astype(np.float64)
        found = Curves(p, y)(weights)
        for b in range(3):
            drawn = np.repeat(np.arange(len(y)), weights[:, b].astype(int))
            if len(np.unique(y[drawn])) == len(np.unique(y)) > 1:
                expected = [
                    one_against_rest(f, p[drawn], y[drawn]) for f in (sk.roc_auc_score, sk.average_precision_score)
                ]
                np.testing.assert_allclose(found[b], expected, atol=1e-12)


def test_undefined_is_nan_not_a_number() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2]])
    found = summary(p, np.array([0, 0]), ["a", "b"])
    assert np.isnan(found["roc_auc"]["value"]) and np.isnan(found["roc_auc"]["low"])
    assert np.isnan(found["average_precision"]["value"])
    assert found["accuracy"]["value"] == found["balanced_accuracy"]["value"] == found["f1_macro"]["value"] == 1
    rows = per_class(confusion_matrix(np.array([0, 0]), np.array([0, 0]), 2), ["a", "b"])
    assert np.isnan(rows[1]["recall"]["value"]) and np.isnan(rows[1]["precision"]["high"])
    assert rows[1]["specificity"]["value"] == 1
    assert np.isnan(rows[0]["specificity"]["value"])


def test_summary_is_seeded_and_brackets_its_values() -> None:
    p, y = random_case(4)
    first, again, other = (summary(p, y, names(p.shape[1]), seed=s) for s in (0, 0, 1))
    assert first == again != other
    for metric in first.values():
        assert metric["low"] <= metric["value"] <= metric["high"] and metric["low"] < metric["high"]


def test_a_perfect_score_still_has_an_interval() -> None:
    y = np.repeat(np.arange(3), 20)
    found = summary(np.eye(3)[y] * 0.7 + 0.1, y, names(3))
    for name in ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "average_precision"):
        assert found[name]["value"] == found[name]["high"] == 1
        assert 0.85 < found[name]["low"] < 0.96
    few = summary(np.eye(3)[y] * 0.7 + 0.1, y, names(3), groups=np.tile(np.arange(4), 15))
    assert few["accuracy"]["low"] < 0.6, "four speakers are four, however much each of them says"


def test_one_answer_to_everything_is_not_certain() -> None:
    y = np.repeat([0, 1], [11, 11])
    found = summary(np.tile([0.8, 0.2], (22, 1)), y, names(2))["balanced_accuracy"]
    # two recalls of 11 items each, 1 and 0: as wide as the accuracy of 22 items at a half
    assert found["value"] == 0.5 and 0.3 < found["low"] < 0.4 and 0.6 < found["high"] < 0.7


def test_groups_widen_the_intervals_when_items_of_a_group_are_alike() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 40)
    p = np.full((40, 2), 0.3)
    right = rng.random(40) < 0.7
    p[np.arange(40), np.where(right, y, 1 - y)] = 0.7
    alone = summary(p, y, ["a", "b"])
    ten_times = [np.repeat(each, 10, axis=0) for each in (p, y, np.arange(40))]
    grouped = summary(ten_times[0], ten_times[1], ["a", "b"], groups=ten_times[2])
    ignored = summary(ten_times[0], ten_times[1], ["a", "b"])
    for name, metric in alone.items():
        width = metric["high"] - metric["low"]
        assert grouped[name]["value"] == pytest.approx(metric["value"])
        assert grouped[name]["high"] - grouped[name]["low"] == pytest.approx(width, rel=0.2)
        assert ignored[name]["high"] - ignored[name]["low"] < 0.5 * width


def test_a_perfect_area_is_as_uncertain_as_its_groups_are_few() -> None:
    y = np.tile([0, 1, 2], 20)
    p = np.eye(3)[y] * 0.7 + 0.1
    # every group has all classes, or each one alone; then the fewest groups beside a class are those of two classes
    mixed = summary(p, y, names(3), groups=np.arange(60) // 3)["roc_auc"]
    apart = summary(p, y, names(3), groups=y * 10 + np.arange(60) % 5)["roc_auc"]
    alone = summary(p, y, names(3))["roc_auc"]
    assert mixed["low"] == alone["low"] > apart["low"], "20 units a class twice, then 5"


def test_of_many_classes_the_whole_confusion_is_not_stated() -> None:
    for count in (STATED, STATED + 1):
        y = np.repeat(np.arange(count), 2)
        p = np.full((len(y), count), 0.5 / (count - 1))
        p[np.arange(len(y)), y] = 0.5
        result = measure_choices(names(count), p, p, y, None)
        assert (result["confusion"] is None) == (count > STATED)
        assert Classify(names(count)).headline(result) == ["accuracy"]


def test_headline_never_leaves_accuracy_alone_on_uneven_classes() -> None:
    metrics = summary(np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([0, 1]), ["a", "b"])
    assert headline(metrics, [50, 50]) == ["accuracy"]
    assert headline(metrics, [80, 20]) == ["accuracy"], "a prevalence of 20 % is the limit"
    assert headline(metrics, [81, 19]) == ["accuracy", "balanced_accuracy", "f1_macro", "average_precision"]
    assert headline(metrics, [100] * 10) == ["accuracy"], "ten equal classes are not uneven"
    assert headline(metrics, [100, 100, 10]) == ["accuracy", "balanced_accuracy", "f1_macro"]
    assert headline({"accuracy": metrics["accuracy"]}, [99, 1]) == ["accuracy"]


def test_wrong_input_is_refused() -> None:
    p, y = np.full((3, 2), 0.5), np.array([0, 1, 1])
    for bad_p, bad_y, classes in (
        (p, y, ["a"]),
        (p, y[:2], ["a", "b"]),
        (p, np.array([0, 1, 2]), ["a", "b"]),
        (np.full((3, 2), np.nan), y, ["a", "b"]),
        (p[:0], y[:0], ["a", "b"]),
    ):
        with pytest.raises(ValueError):
            summary(bad_p, bad_y, classes)


def test_confusion_in_words() -> None:
    counts = np.array([[91, 7, 0], [2, 100, 3], [0, 3, 20]])
    assert confusion_in_words(counts, ["9", "4", "7"]) == [
        "most often takes 9 for 4 (7 of 98)",
        "then 7 for 4 (3 of 23)",
        "then 4 for 7 (3 of 105)",
    ]
    assert confusion_in_words(counts, ["9", "4", "7"], most=1) == ["most often takes 9 for 4 (7 of 98)"]
    assert confusion_in_words(np.diag([1000, 234]), ["a", "b"]) == ["makes no mistake in 1,234"]
    assert confusion_in_words(np.zeros((2, 2)), ["a", "b"]) == []
    assert doctest.testmod(words).failed == 0


def test_bootstrap_intervals_cover_about_as_often_as_they_say() -> None:
    def draw(rng: np.random.Generator, n: int) -> Case:
        y = rng.integers(0, 3, n)
        z = np.exp(1.5 * (rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[y]))
        return z / z.sum(1, keepdims=True), y

    rng = np.random.default_rng(0)
    truth = scores(*draw(rng, 300_000), names(3))
    covered = dict.fromkeys(truth, 0)
    for _ in range(200):
        for name, metric in summary(*draw(rng, 200), names(3)).items():
            covered[name] += metric["low"] <= truth[name] <= metric["high"]
    # 95 % of 200 is 190, give or take 9 (3 deviations); the percentile bootstrap is known to fall a little short
    assert all(174 <= count <= 199 for count in covered.values()), covered
