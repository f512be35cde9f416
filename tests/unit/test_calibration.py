"""Temperature, calibration error, reliability and abstention."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize

from gridsight.measure.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
    softmax,
    unsure_threshold,
)


def planted(n: int, k: int, temperature: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits that are right about their targets' probabilities once divided by `temperature`."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, k))
    y = (softmax(z).cumsum(1) > rng.random((n, 1))).argmax(1)
    return z * temperature, y


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("k", [2, 10])
def test_a_planted_temperature_is_found(temperature: float, k: int) -> None:
    z, y = planted(20_000, k, temperature)
    found = fit_temperature(z, y)
    assert found == pytest.approx(temperature, rel=0.04)
    before, after = expected_calibration_error(softmax(z), y), expected_calibration_error(softmax(z, found), y)
    assert after < 0.012
    assert temperature == 1 or before > 3 * after


def test_it_is_the_minimum_that_a_general_optimiser_finds() -> None:
    for seed in range(20):
        z, y = planted(200, 4, 1.7, seed)
        target = np.full(z.shape, 1 / 202 / 3)
        target[np.arange(200), y] = 1 - 1 / 202

        def loss(log_t: float, z=z, target=target) -> float:  # type: ignore[no-untyped-def]
            prior = math.exp(-log_t) + log_t  # of one item: beta - log(beta), beta = 1 / t
            return float(-(target * np.log(softmax(z, math.exp(log_t)))).sum()) + prior

        best = optimize.minimize_scalar(loss, bounds=(-4.6, 4.6), method="bounded", options={"xatol": 1e-9})
        assert fit_temperature(z, y) == pytest.approx(math.exp(best.x), rel=1e-5)
        assert fit_temperature(z + 100, y) == pytest.approx(fit_temperature(z, y), rel=1e-9)


def test_temperature_stays_finite_at_the_extremes() -> None:
    y = np.arange(60) % 3
    right = fit_temperature(10 * np.eye(3)[y], y)
    assert right > 0.01
    assert 0.9 < softmax(10 * np.eye(3)[y], right).max() < 1, "no mistake in 60 is not certainty"
    wrong = 10 * np.eye(3)[(y + 1) % 3]
    assert fit_temperature(wrong, y) == pytest.approx(100, rel=1e-3), "always wrong: say nothing"
    assert fit_temperature(np.zeros((5, 3)), np.zeros(5, int)) == pytest.approx(1), "nothing said: as it is"


def test_few_answers_of_a_hardly_trained_network_do_not_decide() -> None:
    """Its weak logits ask for 0.01 or 100, which would ruin the confidence of the network that is kept."""
    y = np.arange(12) % 2
    weak = 0.05 * np.eye(2)[y]
    assert 0.7 < fit_temperature(weak, y) < 1 < fit_temperature(weak, 1 - y) < 1.5
    many = np.tile(weak, (1000, 1))
    assert fit_temperature(many, np.tile(y, 1000)) < 0.02, "what thousands say does"


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6]])
    y = np.array([0, 1, 1, 1])
    # bins of width 0.2: (0.4, 0.6] has one (0.6, right), (0.6, 0.8] one (0.7, right), (0.8, 1] two (0.9, half right)
    assert expected_calibration_error(p, y, 5) == pytest.approx((0.4 + 0.3 + 2 * 0.4) / 4)
    assert expected_calibration_error(p, y, 2, adaptive=True) == pytest.approx((2 * 0.35 + 2 * 0.4) / 4)
    table = reliability(p, y, 5)
    assert [row.n for row in table] == [0, 0, 1, 1, 2]
    assert (table[-1].low, table[-1].high, table[-1].confidence, table[-1].accuracy) == pytest.approx(
        (0.8, 1, 0.9, 0.5)
    )
    assert table[-1].accuracy_low < 0.5 < table[-1].accuracy_high and math.isnan(table[0].accuracy)


def test_adaptive_bins_hold_equal_numbers_and_certainty_has_a_bin() -> None:
    z, y = planted(1003, 5, 2.0)
    table = reliability(softmax(z), y, adaptive=True)
    assert len(table) == 15 and {row.n for row in table} <= {66, 67} and sum(row.n for row in table) == 1003
    assert reliability(np.array([[0.0, 1.0]]), np.array([1]))[-1].n == 1
    assert len(reliability(np.array([[0.0, 1.0]]), np.array([1]), adaptive=True)) == 1


def test_unsure_threshold_answers_the_chosen_share() -> None:
    p = softmax(planted(1000, 4, 1.0)[0])
    for coverage in (0.1, 0.5, 0.9, 0.95, 1.0):
        assert (p.max(1) >= unsure_threshold(p, coverage)).mean() == pytest.approx(coverage)
    assert not (p.max(1) >= unsure_threshold(p, 0.0)).any()
    equal = np.tile([0.7, 0.3], (10, 1))
    assert (equal.max(1) >= unsure_threshold(equal, 0.5)).all(), "at least that share: equals stay together"
    with pytest.raises(ValueError):
        unsure_threshold(p, 1.5)


def test_risk_coverage_by_hand_and_for_useless_confidence() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    p = np.stack([confidence, 1 - confidence], 1)
    coverage, risk, area = risk_coverage(p, np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    same = np.tile([0.7, 0.3], (10, 1))
    coverage, risk, area = risk_coverage(same, np.array([0] * 6 + [1] * 4))
    assert coverage.tolist() == [1] and risk == pytest.approx([0.4]) and area == pytest.approx(0.4)
    z, y = planted(5000, 4, 1.0)
    _, risk, area = risk_coverage(softmax(z), y)
    assert area < 0.6 * risk[-1], "confidence that means something beats none"
