"""The report of a classifier: the headline, what is taken for what, class by class, ranking, calibration, mistakes."""

import numpy as np

from gridsight.measure.metrics import headline as first_metrics
from gridsight.reporting import believing, curves
from gridsight.reporting.contents import Contents
from gridsight.reporting.figures import confusion_figure, line_figure, svg
from gridsight.reporting.gallery import gallery
from gridsight.reporting.markup import bullets, esc, figure, paragraph, percent, some
from gridsight.reporting.stating import Quantity, class_table, headline, readings, unfinished
from gridsight.reporting.view import View

MOST_CLASSES = 100
SMALL_CLASS = 30  # items; below it the interval of a class' recall is about 0.3 wide
METRICS = {
    "accuracy": Quantity("accuracy", share=True),
    "balanced_accuracy": Quantity("balanced accuracy (mean recall)", share=True),
    "f1_macro": Quantity("F1, mean over classes", share=True),
    "roc_auc": Quantity("area under ROC"),
    "average_precision": Quantity("average precision"),
    "log_loss": Quantity("log loss (nats; lower is better)"),
    "brier_score_loss": Quantity("Brier score (lower is better)"),
    "top_5_accuracy": Quantity("right among the first five", share=True),
}


def top(of: Contents) -> str:
    """The accuracy with n and its interval, drawn and in words, beside what it must be compared to."""
    accuracy = (of.result.get("metrics") or {}).get("accuracy")
    if accuracy is None:
        return unfinished(of)
    n = of.result["n"]
    wrong = n - round(accuracy["value"] * n)
    words = f"of {some(n, 'held-back item')} labelled rightly: {some(wrong, 'mistake')}"
    meaning = "On new items like these, the accuracy lies in that range as far as the number of items can tell."
    lines = headline(accuracy, METRICS["accuracy"], words, meaning, (0.0, 1.0))
    confusion = of.confusion
    if confusion is not None and confusion.sum():
        counts = confusion.sum(1)
        most = int(counts.argmax())
        others = first_metrics(of.result["metrics"], counts.tolist())[1:]
        if others:
            beside = (f"{METRICS[name].title} {METRICS[name].stated(of.result['metrics'][name])}" for name in others)
            lines.append(paragraph(f"Classes have uneven numbers of items, so read also: {'; '.join(beside)}.", "lead"))
        share = percent(counts[most] / counts.sum())
        lines.append(paragraph(f"Always answering “{of.classes[most]}”, the most frequent class, would give {share}."))
    return "".join([*lines, readings(of)])


def confusion(of: Contents) -> str:
    """The matrix, and in words what is most often taken for what."""
    counts = of.confusion
    if counts is None:
        return paragraph("There are no held-back predictions, so nothing is known about what is taken for what.")
    words = of.confused
    said = bullets(f"It {text}." if i == 0 else f"{text[0].upper()}{text[1:]}." for i, text in enumerate(words))
    shown = np.arange(len(of.classes))
    if len(shown) > MOST_CLASSES:
        wrong = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
        shown = np.sort(np.argsort(-wrong, kind="stable")[: MOST_CLASSES // 2])
    names = [of.classes[i] for i in shown]
    drawing, tips = confusion_figure(counts[np.ix_(shown, shown)], names, counts.sum(1)[shown])
    scale = "".join(
        f'<span><i class="scale" style="background:var(--c{colour});opacity:{share**0.5:.3f}"></i>{text}</span>'
        for colour, share, text in ((1, 0.9, "right"), (2, 0.01, "1 % wrong"), (2, 0.1, "10 %"), (2, 0.5, "50 %"))
    )
    caption = "Rows are true classes, columns predicted ones; empty cells are zero. "
    caption += "Cells have the count and the share of the row." if len(names) <= 12 else ""
    caption += "Point at a cell for its names and numbers." if len(names) > 12 else ""
    if len(names) < len(of.classes):
        caption += f" Shown are the {len(names)} of {len(of.classes):,} classes with the most mistakes."
    kind = "wide" if len(names) <= 40 else "wide broad"
    matrix = figure(svg(drawing, "Confusion matrix", tips), "", caption, kind=kind)
    words_too = f'<div>{said}<div class="legend">{scale}</div></div>'
    # a small matrix stands beside its words, a large one below them
    return f'<div class="pair">{matrix}{words_too}</div>' if len(of.classes) <= 12 else words_too + matrix


def classes(of: Contents, what: str = "class") -> str:
    """Precision, recall, specificity and F1 of each class, with intervals."""
    columns = {"precision": "precision", "recall": "recall", "specificity": "specificity", "f1": "F1"}
    return class_table(
        of,
        columns,
        "Precision: of the items given this label, the share that has it. Recall: of the items that have it, the "
        "share given it. Specificity: of all others, the share not given it. With 95 % intervals; where n is small "
        "they are wide, and a difference inside them is not evidence.",
        what,
    )


def ranking(of: Contents) -> str:
    """Precision-recall and ROC curves of each class against the rest."""
    found = of.choices
    if found is None:
        return paragraph("predictions.npz is missing, so there are no curves to draw.")
    words = (
        "Each class against all others, over every threshold on its probability. AP: average precision; AUC: area "
        "under the curve."
    )
    nothing = "The held-back items are all of one class: such curves need two."
    return rankings(found.probabilities, found.target, found.classes, words, nothing)


def rankings(p: np.ndarray, target: np.ndarray, names: tuple[str, ...], words: str, nothing: str) -> str:
    """Both curves of questions `names` (K,) with probabilities p (n, K), or their mean beyond ten questions."""
    drawn = []
    for kind, area, title, x, y in (
        (curves.precision_recall, "AP", "Precision and recall", "recall", "precision"),
        (curves.roc, "AUC", "ROC", "false positive rate", "true positive rate (recall)"),
    ):
        lines, band = curves.by_class(p, target, names, kind, area)
        if not lines:
            return paragraph(nothing)
        drawing = line_figure(lines, x, y, band=band, diagonal=kind is curves.roc, unit_square=True)
        caption = "Line: mean over classes. Band: the middle 80 % of classes." if band else ""
        drawn.append(figure(svg(drawing, f"{title} curve"), title, caption, lines))
    return paragraph(words) + f'<div class="figures">{"".join(drawn)}</div>'


def calibration(of: Contents) -> str:
    """Whether 90 % means 90 %, and what accuracy is to be had when the least certain items are left to a person."""
    found = of.choices
    if found is None:
        return paragraph("predictions.npz is missing, so probabilities cannot be compared with what came true.")
    right = found.predicted == found.target
    return believing.calibration(of, believing.Stated(found.probabilities, found.target, found.confidence, right))


def mistakes(of: Contents) -> str:
    """The surest wrong answers as pictures, traces, spectrograms or slices."""
    found = of.choices
    if found is None:
        return paragraph("predictions.npz is missing, so mistakes cannot be shown.")
    if len(found.worst_index) == 0:
        return paragraph("There is no mistake to show.")
    wrong = int((found.predicted != found.target).sum())

    def words(shown: int) -> str:
        return (
            f"The {some(shown, 'mistake')} the model was surest of, among {wrong:,}. Look for a wrong label, an item "
            "that belongs to neither class, and something that they have in common. The percentage is the probability "
            "it gave."
        )

    def caption(index: int) -> tuple[str, str]:
        true, said = found.classes[found.target[index]], found.classes[found.predicted[index]]
        chance = percent(float(found.confidence[index]), 1)
        return f"<b>{esc(true)}</b> taken for <b>{esc(said)}</b>, {chance}", f"{true} taken for {said}"

    return gallery(of, found, words, caption)


def limits(of: Contents) -> list[str]:
    """Few items of some classes, and many of one."""
    confusion, said = of.confusion, list[str]()
    if confusion is None:
        return said
    counts = confusion.sum(1)
    if few := few_items(list(zip(of.classes, counts.tolist(), strict=True))):
        said.append(few)
    shares = counts / max(1, confusion.sum())
    if shares.max() > 1.5 / len(shares) and shares.max() > 0.5:
        said.append(
            f"{percent(float(shares.max()))} of the held-back items are of one class; read the balanced "
            "accuracy and the recall of each class, not the accuracy alone."
        )
    return said


def few_items(counts: list[tuple[str, int]]) -> str:
    """A sentence about the classes whose figures are rough; nothing where there are none."""
    few = [(name, count) for name, count in counts if count < SMALL_CLASS]
    if not few:
        return ""
    listed = ", ".join(f"{name} ({count})" for name, count in few[:8]) + (", ..." if len(few) > 8 else "")
    return (
        f"{some(len(few), 'class', 'classes')} of {len(counts)} have fewer than {SMALL_CLASS} held-back "
        f"items: {listed}. Their own figures are rough."
    )


def about(of: Contents) -> str:
    """How many items of how many classes."""
    if of.spec is None:
        return ""
    total = sum(sum(column) for column in (of.spec.counts or {}).values())
    return f"{total:,} items of {of.spec.num_classes} classes" if total else f"{of.spec.num_classes} classes"


VIEW = View(
    top,
    (
        ("confusion", "What is taken for what", confusion),
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
