"""Wrong labels: the statistics against loops and simulated mistakes; `check --labels` finds swapped pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gridsight.core.console import Console
from gridsight.measure.labels import confident_joint, margins, suspects, thresholds, wrong_labels
from gridsight.verbs.check import CheckSettings, check

HAND = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.3, 0.7], [0.45, 0.55], [0.95, 0.05]])
HAND_GIVEN = np.array([0, 0, 0, 1, 1, 1])


def simulated(seed: int, n: int = 4000, k: int = 5, noise: float = 1.0, wrong: float = 0.04):
    """Probabilities of a judge (right about 98, 88, 73 % with noise 1, 1.5, 2), given labels, and which are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, n)
    given, flipped = true.copy(), rng.random(n) < wrong
    given[flipped] = (true[flipped] + rng.integers(1, k, flipped.sum())) % k
    logits = noise * rng.normal(size=(n, k)) + 4 * np.eye(k)[true]
    p = np.exp(logits)
    return p / p.sum(1, keepdims=True), given, flipped


def test_by_hand():
    # thresholds: (0.9 + 0.8 + 0.2) / 3 and (0.7 + 0.55 + 0.05) / 3; the fifth item counts as of class 1
    assert thresholds(HAND, HAND_GIVEN) == pytest.approx([1.9 / 3, 1.3 / 3])
    assert confident_joint(HAND, HAND_GIVEN).tolist() == [[2, 1], [1, 2]]
    assert wrong_labels(np.array([[2, 1], [1, 2]]), HAND_GIVEN) == pytest.approx(2)
    margin, other = margins(HAND, HAND_GIVEN)
    assert margin == pytest.approx([0.8, 0.6, -0.6, 0.4, 0.1, -0.9]) and other.tolist() == [1, 1, 1, 0, 0, 0]
    found = suspects(HAND, HAND_GIVEN, most=1)
    assert found.items.tolist() == [5, 2] and found.suggested.tolist() == [0, 1]
    assert (found.threshold, found.expected, found.capped) == (pytest.approx(-0.6), pytest.approx(2), False)
    assert suspects(HAND, HAND_GIVEN, most=0.2).items.tolist() == [5] and suspects(HAND, HAND_GIVEN, most=0.2).capped


def test_the_confident_joint_equals_a_loop():
    p, given, _ = simulated(0, n=300, noise=2.5)
    bound = [np.mean([p[i, k] for i in range(300) if given[i] == k]) for k in range(5)]
    joint = np.zeros((5, 5), int)
    for i in range(300):
        reached = {k: p[i, k] for k in range(5) if p[i, k] >= bound[k]}
        if reached:
            joint[given[i], max(reached, key=reached.get)] += 1
    assert confident_joint(p, given).tolist() == joint.tolist() and joint.sum() < 300
    scaled = sum(
        np.sum(given == i) * joint[i, j] / joint[i].sum() for i in range(5) for j in range(5) if i != j
    )  # fmt: skip
    assert wrong_labels(joint, given) == pytest.approx(scaled)


def test_a_class_without_items_or_without_a_confident_one():
    p, given = HAND[:, [0, 1, 1]].copy(), HAND_GIVEN
    p[:, 2] = 0
    assert thresholds(p, given)[2] == 1
    assert confident_joint(p, given)[2].tolist() == [0, 0, 0]
    assert wrong_labels(np.array([[3, 0], [0, 0]]), np.array([0, 0, 0, 1])) == 0


@pytest.mark.parametrize("noise", [1.0, 1.5])
def test_simulated_mistakes_are_found_and_counted(noise):
    p, given, flipped = simulated(1, noise=noise)
    found = suspects(p, given)
    assert flipped[found.items].sum() >= 0.8 * flipped.sum()
    assert (~flipped[found.items]).sum() <= 0.05 * (~flipped).sum()
    assert (np.diff(found.margins) >= 0).all() and (found.margins < 0).all()
    if noise == 1:
        assert found.expected == pytest.approx(flipped.sum(), rel=0.25) and not found.capped


def test_controls():
    p, given, _ = simulated(2, noise=1, wrong=0)
    assert len(suspects(p, given).items) <= 0.02 * len(given)
    shuffled = np.random.default_rng(3).permutation(given)
    found = suspects(p, shuffled)
    assert found.capped and len(found.items) == int(0.07 * len(given))
    # a judge that knows nothing is right about what it names as often as chance
    rng = np.random.default_rng(4)
    blind, wrong = rng.dirichlet(np.ones(5), len(given)), rng.random(len(given)) < 0.1
    assert wrong[suspects(blind, given).items].mean() == pytest.approx(0.1, abs=0.06)


# ---- the verb


@pytest.fixture
def swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stripes one way or the other, 120 pictures a class; three lie in the wrong folder."""
    from gridsight.verbs import _labels

    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_labels, "SHORT", 8)  # far fewer epochs leave networks that are wrong about every fifth
    monkeypatch.setattr(_labels, "FOLDS", 2)
    rng = np.random.default_rng(0)
    for i in range(240):
        stripes = np.sin(np.arange(12)[:, None] * rng.uniform(1.2, 1.8) + rng.uniform(0, 6)) * np.ones((12, 12))
        picture = np.clip(128 + 70 * (stripes if i % 2 else stripes.T) + rng.normal(0, 20, (12, 12)), 0, 255)
        label = ("across", "down")[1 - i % 2 if i in (10, 11, 50) else i % 2]
        path = tmp_path / "data" / label / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(path)
    return tmp_path / "data"


def test_swapped_pictures_are_named_with_the_other_class(swapped, tmp_path, capsys):
    result = check(CheckSettings(str(swapped), labels=True, out=str(tmp_path / "out")), Console())
    named = [finding for finding in result.findings if finding["problem"] == "label"]
    assert {Path(finding["paths"][0]).name for finding in named} >= {"010.png", "011.png", "050.png"}
    assert len(named) <= 12 and result.exit_code == 0
    worst = next(finding for finding in named if finding["paths"][0].endswith("011.png"))
    assert (worst["given"], worst["suggested"]) == ("across", "down")
    assert worst["probability"] > 0.5 > worst["probability_given"]
    text = capsys.readouterr().out
    assert "labels: 2 networks (gridnet) are trained for" in text and "are suspicious, no more than that" in text
    figures = result.labels
    assert figures["items"] == 240 and figures["networks"] == 2 and figures["suspicious"] == len(named)
    assert figures["agreement"] > 0.9 and not figures["capped"] and -1 < figures["threshold"] < 0
    written = json.loads((tmp_path / "out" / "check.json").read_text())
    assert written["labels"] == pytest.approx(figures) and written["problems"]["label"] == len(named)
    assert (tmp_path / "out" / "contact.png").is_file()


def test_what_has_no_classes_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSIGHT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "few.npz", x=rng.integers(0, 255, (7, 1, 8, 8), dtype=np.uint8), y=[0, 0, 0, 0, 0, 1, 2])
    result = check(CheckSettings(str(tmp_path / "few.npz"), labels=True), Console())
    assert result.labels == {} and not any(finding["problem"] == "label" for finding in result.findings)
    pictures = rng.integers(0, 255, (9, 8, 8), dtype=np.uint8)
    rows = [f"{i}.png,{i * 1.5}" for i in range(9)]
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    (tmp_path / "table.csv").write_text("\n".join(["path,age", *rows]))
    lines: list[str] = []
    console = Console()
    monkeypatch.setattr(console, "say", lines.append)
    assert check(CheckSettings(str(tmp_path / "table.csv"), target="age", labels=True), console).labels == {}
    assert any("labels were not checked: they are numbers" in line for line in lines)
