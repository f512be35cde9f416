"""The report of sets of classes: average precision first; classes, ranking, calibration of entries, the worst sets."""

from collections import Counter

import numpy as np

from gridsight.reporting import believing, classify
from gridsight.reporting.contents import Choices, Contents
from gridsight.reporting.gallery import gallery
from gridsight.reporting.markup import esc, paragraph, percent, some
from gridsight.reporting.stating import Quantity, class_table, headline, readings, unfinished
from gridsight.reporting.view import View

METRICS = {
    "average_precision": Quantity("average precision, mean over classes", share=True),
    "f1_macro": Quantity("F1, mean over classes", share=True),
    "f1_micro": Quantity("F1 of all entries", share=True),
    "accuracy": Quantity("items whose whole set is right", share=True),
    "hamming_loss": Quantity("wrong entries (lower is better)", share=True),
    "roc_auc": Quantity("area under ROC, mean over classes", share=True),
}


def top(of: Contents) -> str:
    """Average precision with its interval, F1 and exact sets, beside what chance and the commonest set would give."""
    found = of.result.get("metrics") or {}
    if "accuracy" not in found:
        return unfinished(of)
    n, k = of.result["n"], len(of.per_class) or len(of.classes)
    where = f"on {some(n, 'held-back item')}"
    # without a class that some items have and some have not there is no ranking to speak of
    name = "average_precision" if "average_precision" in found else "accuracy"
    words = f"average precision, the mean over {some(k, 'class', 'classes')}, {where}"
    if name == "accuracy":
        words = f"of the sets are exactly right, {where}"
    meaning = "How well items that have a class are ranked before those that have not; 100 % is a perfect order."
    lines = headline(found[name], METRICS[name], words, meaning if name != "accuracy" else "", (0.0, 1.0))
    parts = []
    if "f1_macro" in found:
        parts.append(f"F1, the mean over classes, is {METRICS['f1_macro'].stated(found['f1_macro'])}")
    parts.append(f"{METRICS['accuracy'].stated(found['accuracy'])} of the items have exactly the right set")
    lines.append(paragraph(f"Taking classes from a probability of 50 % on: {'; '.join(parts)}.", "lead"))
    if of.choices is not None:
        truth = of.choices.target > 0
        mixed = truth.any(0) & ~truth.all(0)
        chance = f"A random order would give {percent(float(truth[:, mixed].mean()))}; " if mixed.any() else ""
        (usual, count), *_ = Counter(map(tuple, truth.tolist())).most_common(1)
        lines.append(
            paragraph(
                f"{chance}always answering “{_names(of.choices, np.array(usual))}”, the most frequent set, would be "
                f"exactly right in {percent(count / len(truth))}."
            )
        )
    return "".join([*lines, readings(of)])


def classes(of: Contents) -> str:
    """Precision, recall, F1 and average precision of each class, with intervals."""
    columns = {"precision": "precision", "recall": "recall", "f1": "F1", "average_precision": "average precision"}
    return class_table(
        of,
        columns,
        "n: the held-back items that have the class. Precision: of the items said to have it, the share that has it. "
        "Recall: of the items that have it, the share said to. Average precision: the same over all thresholds; of a "
        "random order it is the share of items that have the class. With 95 % intervals; where n is small they are "
        "wide, and a difference inside them is not evidence.",
    )


def ranking(of: Contents) -> str:
    """Precision-recall and ROC curves of each class."""
    found = of.choices
    if found is None:
        return paragraph("predictions.npz is missing, so there are no curves to draw.")
    words = (
        "Each class by itself: who has it, who has not, over every threshold on its probability. AP: average "
        "precision; AUC: area under the curve."
    )
    nothing = "No class is there in some held-back items and not in others: such curves need that."
    return classify.rankings(found.probabilities, found.target, found.classes, words, nothing)


def calibration(of: Contents) -> str:
    """Whether 90 % means 90 % over all entries, and what is gained where the least certain items are left out."""
    found = of.choices
    if found is None:
        return paragraph("predictions.npz is missing, so probabilities cannot be compared with what came true.")
    p, truth = found.probabilities, found.target > 0
    entries = np.stack([1 - p.ravel(), p.ravel()], 1)
    what = believing.Stated(
        entries,
        truth.ravel().astype(np.int64),
        np.maximum(p, 1 - p).min(1),
        ((p >= 0.5) == truth).all(1),
        "entries",
        "probability of the likelier answer",
        "share of exact sets",
        "share of sets exactly right",
        "The probability is that of the item’s least certain class.",
    )
    words = (
        "Every class of every item is an entry: a question whose answer is yes or no. The diagram is of the likelier "
        "answer to each, so it starts at one half."
    )
    return paragraph(words) + believing.calibration(of, what)


def mistakes(of: Contents) -> str:
    """The sets with the surest wrong entry."""
    found = of.choices
    if found is None:
        return paragraph("predictions.npz is missing, so mistakes cannot be shown.")
    if len(found.worst_index) == 0:
        return paragraph("There is no mistake to show.")
    said, truth = found.probabilities >= 0.5, found.target > 0
    wrong = int((said != truth).any(1).sum())

    def words(shown: int) -> str:
        return (
            f"The {some(shown, 'item')} with the surest wrong entries, among {wrong:,} whose set is not right. Look "
            "for labels that were forgotten, and for what these items have in common. The percentage is the "
            "probability that it gave the class."
        )

    def caption(index: int) -> tuple[str, str]:
        p = found.probabilities[index]
        missed, added = np.flatnonzero(truth[index] & ~said[index]), np.flatnonzero(said[index] & ~truth[index])
        given, answered = _names(found, truth[index]), _names(found, said[index])
        parts = [
            f"{what} {', '.join(f'{found.classes[c]} ({percent(float(p[c]), 1)})' for c in these)}"
            for what, these in (("missed", missed), ("wrongly said", added))
            if len(these)
        ]
        html = f"has <b>{esc(given)}</b>, answered <b>{esc(answered)}</b>: {esc('; '.join(parts))}"
        return html, f"has {given}, answered {answered}"

    return gallery(of, found, words, caption)


def _names(found: Choices, there: np.ndarray) -> str:
    """The classes of a set as text."""
    return ", ".join(name for name, yes in zip(found.classes, there, strict=True) if yes) or "nothing"


def limits(of: Contents) -> list[str]:
    """Rare classes, and what a class that is not given means."""
    said = []
    if few := classify.few_items([(row["class"], row["n"]) for row in of.per_class]):
        said.append(few)
    if of.result:
        said.append(
            "A class that an item was not given counts as absent. Where labels were forgotten, right answers count as "
            "mistakes, and the figures are too low."
        )
    return said


def about(of: Contents) -> str:
    """How many labels of how many classes."""
    if of.spec is None:
        return ""
    total = sum(sum(column) for column in (of.spec.counts or {}).values())
    return f"{total:,} labels of {of.spec.num_classes} classes, any number an item" if total else ""


VIEW = View(
    top,
    (
        ("classes", "Class by class", classes),
        ("curves", "Ranking", ranking),
        ("probabilities", "Can the probabilities be believed?", calibration),
        ("mistakes", "The worst mistakes", mistakes),
    ),
    limits,
    about,
    lambda of: METRICS,
    "Small letters: the name in result.json, which is scikit-learn’s.",
)
