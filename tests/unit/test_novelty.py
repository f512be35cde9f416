"""Inputs unlike the training data are found, those like it are not; an answer says why it is unsure."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import gridsight
from gridsight.artifact.predictor import load
from gridsight.data.loader import Loader
from gridsight.measure.novelty import fit_novelty, novelty
from gridsight.models import create
from gridsight.nn.features import Features
from gridsight.nn.frontend import FrontEndSettings
from gridsight.nn.masked import mask_of


def test_the_score_is_the_mahalanobis_distance_in_deviations_of_the_held_back() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((3, 3))
    known, held, new = (rng.standard_normal((n, 3)) @ mixing + 5 for n in (20_000, 5_000, 100))
    fitted = fit_novelty([known], [held])
    covariance = 0.9 * np.cov(known.T, ddof=0)
    covariance += np.diag(0.1 * np.diag(np.cov(known.T, ddof=0)))
    inverse = np.linalg.inv(covariance)

    def distance(f: np.ndarray) -> np.ndarray:
        centred = f - known.mean(0)
        return np.sqrt(np.einsum("ni,ij,nj->n", centred, inverse, centred))

    expected = (distance(new) - distance(held).mean()) / distance(held).std()
    assert novelty(fitted, [new]) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert (novelty(fitted, [held]) > fitted.threshold).mean() == pytest.approx(0.01, abs=0.001)


def test_the_strangest_stage_counts_and_nothing_finite_is_infinitely_strange() -> None:
    rng = np.random.default_rng(0)
    known, held = ([rng.standard_normal((500, 4)), rng.standard_normal((500, 2))] for _ in range(2))
    fitted = fit_novelty(known, held)
    plain = np.zeros((1, 4)), np.zeros((1, 2))
    assert novelty(fitted, plain)[0] < fitted.threshold
    assert novelty(fitted, (plain[0], np.full((1, 2), 30.0)))[0] > fitted.threshold
    assert novelty(fitted, (plain[0], np.full((1, 2), np.nan)))[0] == np.inf


def test_dead_channels_and_few_items_have_finite_distances() -> None:
    rng = np.random.default_rng(0)
    known = np.concatenate([rng.standard_normal((12, 30)), np.zeros((12, 5))], 1)
    fitted = fit_novelty([known], [known[:6] + 0.1])
    assert np.isfinite(novelty(fitted, [known])).all()


def test_features_are_means_and_deviations_of_the_real_cells() -> None:
    torch.manual_seed(0)
    net = create("gridnet", ndim=1, in_channels=2, num_classes=3, widths=(4, 6), blocks=0, pools=(1, 2)).eval()
    item = torch.randn(1, 2, 11)
    padded = torch.nn.functional.pad(item, (0, 6), value=3.0)
    with torch.no_grad():
        features = Features(net, 2, 1)
        logits, alone = features(item)
        masked, under = features(padded, mask_of(torch.tensor([[11]]), (17,)))
        stages = list(net.forward_stages(item))
    torch.testing.assert_close(masked, logits)
    for stage, a, b in zip(stages, alone, under, strict=True):
        torch.testing.assert_close(a, torch.cat([stage.mean(2), stage.std(2, correction=0)], 1))
        torch.testing.assert_close(b, a)


def test_features_do_not_depend_on_the_padding() -> None:
    torch.manual_seed(0)
    shape = {"widths": (8, 8, 8), "kernels": (9, 5, 3), "strides": (4, 1, 1), "pools": (1, 2, 2), "blocks": 0}
    net = create("gridnet", ndim=1, in_channels=2, num_classes=3, **shape).eval()
    item = torch.randn(1, 2, 40)
    with torch.no_grad():
        features = Features(net, 2, 1)
        alone = features(item)[1]
        for extra in range(1, 40):
            padded = torch.nn.functional.pad(item, (0, extra), value=3.0)
            under = features(padded, mask_of(torch.tensor([[40]]), (40 + extra,)))[1]
            torch.testing.assert_close(under, alone)


@pytest.mark.parametrize("strides", [(4, 3, 2, 4), (2, 3, 5, 2, 1), (64, 64), (7, 9)])
@pytest.mark.parametrize("ndim", [1, 2])
def test_strides_of_any_product_are_known(strides: tuple[int, ...], ndim: int) -> None:
    if math.prod(strides) > 100 and ndim == 2:
        strides = strides[:1]
    shape = {"widths": (2,) * len(strides), "strides": strides, "kernels": 5, "pools": 1, "blocks": 0}
    net = create("gridnet", ndim=ndim, in_channels=1, num_classes=2, **shape).eval()
    assert Features(net, 1, ndim).strides == [(n,) * ndim for n in np.cumprod(strides).tolist()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("novelty")
    return gridsight.train("digits", out=str(folder / "run"), epochs=4, report=False).path


def test_unrelated_inputs_are_told_from_digits(run: Path) -> None:
    predictor = load(run)
    known = predictor.model.novelty
    assert known is not None and not known.from_training
    rng = np.random.default_rng(0)
    from sklearn.datasets import load_digits

    digits = np.rint(load_digits().images * 255 / 16).astype(np.uint8)[:, None]
    unrelated = {
        "noise": rng.integers(0, 256, (300, 1, 8, 8)),
        "flat": np.broadcast_to(rng.integers(0, 256, (300, 1, 1, 1)), (300, 1, 8, 8)),
        "ramps": np.broadcast_to(rng.integers(1, 30, (300, 1, 1, 1)) * np.arange(8), (300, 1, 8, 8)),
        "shuffled": rng.permuted(digits[:300].reshape(300, 1, -1), axis=2).reshape(300, 1, 8, 8),
    }
    _, usual = predictor.outputs_and_novelty(list(digits[:1200:2]))
    assert (usual > known.threshold).mean() < 0.05
    for name, items in unrelated.items():
        _, strange = predictor.outputs_and_novelty(list(items.astype(np.uint8)))
        scores = np.minimum(np.concatenate([usual, strange]), 1e6)
        assert roc_auc_score(np.repeat([0, 1], [600, 300]), scores) > 0.97, name
    # the control: other digits are not told from digits
    scores = predictor.outputs_and_novelty(list(digits[1:1200:2]))[1]
    assert abs(roc_auc_score(np.repeat([0, 1], 600), np.concatenate([usual, scores])) - 0.5) < 0.06


def test_features_in_smaller_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out while the features of a network are taken does not end a run."""
    from gridsight.verbs import _phases

    plain, asked = Features.__call__, []

    def tight(self, x, mask=None):
        asked.append(len(x))
        if len(x) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return plain(self, x, mask)

    torch.manual_seed(0)
    net, x = create("gridnet", ndim=1, in_channels=1, num_classes=2), np.random.default_rng(0).random((20, 1, 30))
    run = SimpleNamespace(
        data=SimpleNamespace(spec=SimpleNamespace(ndim=1)),
        device=torch.device("cpu"),
        evaluation=lambda plan: 20,
        network=lambda plan, state: net,
    )
    plan = SimpleNamespace(
        front=FrontEndSettings(1.0, (0.5,), (0.3,)),
        in_channels=1,
        loader=lambda data, index, size: Loader(x.astype(np.float32), np.zeros(20, np.int64), index, size),
    )
    whole = _phases.Phases.features(run, plan, {}, np.arange(20))
    monkeypatch.setattr(Features, "__call__", tight)
    parts = _phases.Phases.features(run, plan, {}, np.arange(20))
    assert asked == [20, 10, 5, 5, 5, 5]
    for stage, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(other, stage, rtol=1e-5, atol=1e-6)


def test_answers_in_smaller_batches_are_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = load(run)
    items = list(np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8)).astype(np.uint8))
    plain, outputs, strange, asked = predictor.net.forward_stages, *predictor.outputs_and_novelty(items), []

    def tight(x: torch.Tensor, mask: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
        asked.append(len(x))
        if len(x) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return plain(x, mask)

    monkeypatch.setattr(predictor.net, "forward_stages", tight)
    np.testing.assert_allclose(predictor.outputs(items), outputs, rtol=1e-4, atol=1e-5)
    again, strange_again = predictor.outputs_and_novelty(items)
    assert asked == [20, 10, 5, 5, 10, 5, 5] * 2
    np.testing.assert_allclose(again, outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(strange_again, strange, rtol=1e-3)
    monkeypatch.setattr(predictor.net, "forward_stages", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predictor.outputs(items)


def test_an_answer_says_which_reason_holds(run: Path) -> None:
    predictor = load(run)
    noise = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    answer = predictor.predict(noise)[0]
    assert answer["unsure"] is True and answer["reason"] == "unlike the training data"
    assert answer["novelty"] > predictor.model.novelty.threshold
    from sklearn.datasets import load_digits

    digits = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    answers = predictor.predict(digits[:, None])
    low = [a for a in answers if a["reason"] == "low probability"]
    sure = [a for a in answers if a["reason"] is None]
    threshold = predictor.model.calibration.threshold
    assert low and all(a["unsure"] and a["probability"] < threshold for a in low)
    assert all(a["unsure"] is False and a["probability"] >= threshold for a in sure)
