"""Intervals: Wilson's formula and its coverage, the effective number of items, the bootstrap."""

import math

import numpy as np
import pytest
from scipy import stats

from gridsight.measure.intervals import bootstrap, effective_count, group_numbers, percentile, wilson
from gridsight.measure.metrics import summary
from gridsight.tasks import make_task
from gridsight.verbs._judge import like_chance


def test_wilson_equals_scipy_for_every_count() -> None:
    for n in (1, 2, 7, 30, 98, 1000):
        for k in {0, 1, n // 3, n // 2, n - 1, n}:
            for confidence in (0.8, 0.95, 0.99):
                low, high = wilson(k, n, confidence)
                expected = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
                assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_by_hand_in_bulk_and_at_nothing() -> None:
    # 81 of 263, the example of Newcombe (Stat. Med. 17, 1998, table I): 0.2553 to 0.3662
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    low, high = wilson(np.array([0, 10, 0]), np.array([10, 10, 0]))
    assert low[0] == 0 and high[1] == 1 and 0 < high[0] < 0.3
    assert math.isnan(low[2]) and math.isnan(high[2])
    with pytest.raises(ValueError):
        wilson(3, 2)


def test_wilson_covers_on_average_as_often_as_it_says() -> None:
    share = np.linspace(0.02, 0.98, 49)[:, None]
    covered = np.zeros((3, 49))
    for i, n in enumerate((30, 100, 400)):
        k = np.arange(n + 1)
        low, high = wilson(k, n)
        covered[i] = (stats.binom.pmf(k, n, share) * ((low <= share) & (share <= high))).sum(1)
    assert covered.mean() == pytest.approx(0.95, abs=0.005)
    assert covered.min() > 0.83  # Wilson's known dips, near 0 and 1


def test_effective_count() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(300) < 0.8
    assert effective_count(hits, np.arange(300)) == pytest.approx(299, abs=1.5)
    repeated = effective_count(np.repeat(hits, 10), np.repeat(np.arange(300), 10))
    assert repeated == pytest.approx(300, rel=0.01), "ten copies tell nothing new"
    unrelated = effective_count(rng.random(3000) < 0.8, np.arange(3000) % 300)
    assert 2300 < unrelated <= 3000
    assert effective_count(np.ones(50, bool), np.arange(50) % 5) == 5


def test_wilson_with_the_effective_count_covers_clustered_shares() -> None:
    rng = np.random.default_rng(1)
    covered = plain = 0
    for _ in range(400):
        groups = np.repeat(np.arange(40), 10)
        hits = rng.random(400) < rng.beta(4, 1, 40)[groups]  # every group has its own share, 0.8 on average
        low, high = wilson(hits.mean() * (n := effective_count(hits, groups)), n)
        covered += low <= 0.8 <= high
        low, high = wilson(hits.sum(), 400)
        plain += low <= 0.8 <= high
    assert 0.92 <= covered / 400 <= 0.98
    assert plain / 400 < 0.9, "the negative control: independent items would have been too sure"


def test_bootstrap_of_a_mean_has_its_standard_error_and_draws_whole_groups() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=500)

    def mean(weights: np.ndarray) -> np.ndarray:
        return values @ weights / weights.sum(0)

    alone = bootstrap(mean, group_numbers(None, 500), 4000, seed=3)
    assert alone.shape == (4000,)
    assert alone.std() == pytest.approx(values.std() / 500**0.5, rel=0.05)
    assert np.array_equal(alone, bootstrap(mean, group_numbers(None, 500), 4000, seed=3))
    assert not np.array_equal(alone, bootstrap(mean, group_numbers(None, 500), 4000, seed=4))
    units = group_numbers(np.array(["b", "a", "c", "a"] * 125))
    assert units[:4].tolist() == [1, 0, 2, 0]
    drawn = bootstrap(lambda w: w.T, units, 50)
    assert all(len(np.unique(row[units == g])) == 1 for row in drawn for g in range(3))
    assert (drawn[:, 0] + drawn[:, 1] + drawn[:, 2] == 3).all(), "as many groups are drawn as there are"


def test_one_unit_says_nothing_of_others() -> None:
    units = group_numbers(["x"] * 5, 5)
    drawn = bootstrap(lambda weights: np.stack([np.ones(weights.shape[1])] * 2, 1), units)
    assert drawn.shape == (1, 2) and np.isnan(drawn).all()
    p = np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    found = summary(p, np.array([0, 1, 1, 1, 0]), ("a", "b"), groups=["x"] * 5)
    assert found["balanced_accuracy"]["value"] == pytest.approx(5 / 6)
    assert np.isnan([found["f1_macro"]["low"], found["log_loss"]["high"]]).all()
    assert 0 < found["balanced_accuracy"]["low"] < 0.5 < found["balanced_accuracy"]["high"] < 1.01
    assert 0 < found["accuracy"]["low"] < 0.8 < found["accuracy"]["high"] < 1
    words = make_task("classify", ("a", "b")).words("f1_macro", found["f1_macro"])
    assert words == "80.00 % (no interval: too few items)"
    assert "better than chance" in like_chance(make_task("classify", ("a", "b")), found, "these data")


def test_percentile_leaves_out_what_is_undefined() -> None:
    values = np.arange(101.0)[:, None].repeat(2, 1)
    values[:, 1] = np.nan
    low, high = percentile(values, 0.9)
    assert (low[0], high[0]) == pytest.approx((5, 95)) and math.isnan(low[1]) and math.isnan(high[1])
    values[40, 0] = np.nan
    assert percentile(values)[0][0] == pytest.approx(2.475)
