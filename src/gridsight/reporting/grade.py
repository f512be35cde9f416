"""The report of ordered grades: agreement and distance first; matrix, thresholds, calibration, mistakes by distance."""

from dataclasses import replace

import numpy as np

from gridsight.reporting import classify
from gridsight.reporting.contents import Contents
from gridsight.reporting.gallery import gallery
from gridsight.reporting.markup import esc, paragraph, percent, some, table
from gridsight.reporting.stating import Quantity, headline, readings, unfinished

METRICS = {
    "quadratic_kappa": Quantity("kappa with quadratic weights", digits=".3f"),
    "mae": Quantity("mean distance in grades (lower is better)", digits=".3f"),
    **classify.METRICS,
}


def top(of: Contents) -> str:
    """Kappa with its interval, the mean distance and the accuracy, beside what one grade for all would give."""
    found = of.result.get("metrics") or {}
    if "quadratic_kappa" not in found:
        return unfinished(of)
    words = f"agreement (quadratic kappa) over {some(of.result['n'], 'held-back item')}"
    meaning = "1 is no mistake and 0 what chance would give; a mistake counts by the square of its distance."
    lines = headline(found["quadratic_kappa"], METRICS["quadratic_kappa"], words, meaning, (-1.0, 1.0))
    parts = []
    if "mae" in found:
        parts.append(f"Answers are off by {METRICS['mae'].stated(found['mae'])} grades in the mean")
    if "accuracy" in found:
        parts.append(f"{METRICS['accuracy'].stated(found['accuracy'])} of them are exactly right")
    lines.append(paragraph("; ".join(parts) + ".", "lead"))
    confusion = of.confusion
    if confusion is not None and confusion.sum():
        counts = confusion.sum(1)
        middle = int(np.searchsorted(np.cumsum(counts), (counts.sum() + 1) // 2))
        distance = float(np.abs(np.arange(len(counts)) - middle) @ counts / counts.sum())
        share = percent(counts[middle] / counts.sum())
        lines.append(
            paragraph(
                f"Always answering {of.classes[middle]}, the middle grade of these items, would be off by "
                f"{distance:.3f} and exactly right in {share}, with a kappa of 0."
            )
        )
    return "".join([*lines, readings(of)])


def confusion(of: Contents) -> str:
    """The matrix in the order of the grades, and how far answers are off."""
    counts = of.confusion
    if counts is None or not counts.sum():
        return classify.confusion(of)
    rows = []
    for distance in range(len(counts)):
        above, below = int(np.trace(counts, distance)), int(np.trace(counts, -distance))
        total = above + below if distance else above
        if total:
            cells = (f"{above:,}", f"{below:,}") if distance else ("–", "–")
            name = "right" if distance == 0 else some(distance, "grade")
            rows.append((esc(name), f"{total:,}", percent(total / int(counts.sum()), 1), *cells))
    far = table(("off by", "items", "share", "too high", "too low"), rows)
    return classify.confusion(of) + far


def thresholds(of: Contents) -> str:
    """Ranking by each of the questions that the grades are made of: is the grade above this one?"""
    found = of.choices
    if found is None:
        return paragraph("predictions.npz is missing, so there are no curves to draw.")
    names = tuple(f"above {name}" for name in found.classes[:-1])
    p = 1 - found.probabilities.cumsum(1)[:, :-1]
    above = found.target[:, None] > np.arange(len(names))
    words = (
        "Is the grade above this one? Over every threshold on the probability of that. AP: average precision; AUC: "
        "area under the curve."
    )
    nothing = "The held-back items are all of one grade: such curves need two."
    return classify.rankings(p, above, names, words, nothing)


def mistakes(of: Contents) -> str:
    """The answers that are farthest off, the surest first."""
    found = of.choices
    if found is None or len(found.worst_index) == 0:
        return classify.mistakes(of)
    wrong = int((found.predicted != found.target).sum())

    def words(shown: int) -> str:
        return (
            f"The {some(shown, 'mistake')} that are farthest off, among {wrong:,}; of equal distance first the surest. "
            "Look for a wrong grade, an item that cannot be graded, and something that they have in common. The "
            "percentage is the probability of the answer."
        )

    def caption(index: int) -> tuple[str, str]:
        true, said = found.classes[found.target[index]], found.classes[found.predicted[index]]
        chance = percent(float(found.confidence[index]), 1)
        return f"grade <b>{esc(true)}</b> taken for <b>{esc(said)}</b>, {chance}", f"grade {true} taken for {said}"

    return gallery(of, found, words, caption)


def limits(of: Contents) -> list[str]:
    """What distances between grades leave out."""
    said = classify.limits(of)
    if of.confusion is not None:
        said.append(
            "Kappa and distance count neighbouring grades as equally far apart everywhere, and kappa depends on how "
            "many items each grade has: compare it only between models on the same items."
        )
    return said


def about(of: Contents) -> str:
    """How many items of how many grades."""
    return classify.about(of).replace(" classes", " ordered grades")


VIEW = replace(
    classify.VIEW,
    headline=top,
    sections=(
        ("confusion", "What is taken for what", confusion),
        ("classes", "Grade by grade", lambda of: classify.classes(of, "grade")),
        ("curves", "Ranking", thresholds),
        ("probabilities", "Can the probabilities be believed?", classify.calibration),
        ("mistakes", "The worst mistakes", mistakes),
    ),
    limits=limits,
    about=about,
    metrics=lambda of: METRICS,
    note="Small letters: the name in result.json.",
)
