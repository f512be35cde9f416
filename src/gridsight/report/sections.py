"""The sections of the report that state results: from the headline to the worst mistakes, each a function to HTML."""

import numpy as np

from gridsight.report import contents as c
from gridsight.report.contents import Contents, Predictions
from gridsight.report.figures import (
    Mark,
    confusion_figure,
    line_figure,
    reliability_figure,
    svg,
)
from gridsight.report.markup import (
    bullets,
    esc,
    figure,
    paragraph,
    percent,
    plain,
    some,
    table,
    times,
)
from gridsight.report.pictures import show

MOST_PICTURES = 24
NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy (mean recall)",
    "f1_macro": "F1, mean over classes",
    "roc_auc": "area under ROC",
    "average_precision": "average precision",
    "log_loss": "log loss (nats)",
    "top_5_accuracy": "right among the first five",
}
SHARES = ("accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "recall_macro", "top_5_accuracy")


def headline(of: Contents) -> str:
    """The accuracy with n and its interval, drawn and in words, beside what it must be compared to."""
    accuracy = (of.result.get("metrics") or {}).get("accuracy")
    if accuracy is None:
        state = "Training has not reached its end" if of.epochs else "Nothing is trained yet"
        return paragraph(f"{state}: there is no result on held-back data. gridsight resume {of.name} goes on.", "lead")
    n, value = of.result["n"], accuracy["value"]
    wrong = n - round(value * n)
    lines = [
        f'<div class="big"><b>{percent(value, n)}</b>'
        f"<span>of {some(n, 'held-back item')} labelled rightly: {esc(some(wrong, 'mistake'))}</span></div>"
    ]
    low, high = accuracy.get("low"), accuracy.get("high")
    if low is not None and high is not None:
        lines.append(_range(low, value, high))
        lines.append(
            paragraph(
                f"95 % interval: {percent(low, n)} to {percent(high, n)}. On new items like these, the accuracy lies in "
                "that range as far as the number of items can tell.",
                "lead",
            )
        )
    confusion = of.confusion
    if confusion is not None and confusion.sum():
        counts = confusion.sum(1)
        most = int(counts.argmax())
        share = percent(counts[most] / counts.sum(), n)
        lines.append(paragraph(f"Always answering “{of.classes[most]}”, the most frequent class, would give {share}."))
    reads = of.result.get("test_reads")
    if reads is not None:
        lines.append(paragraph(f"The test items were read {times(reads)}." + (_READS if reads > 1 else "")))
    return "".join(lines)


_READS = " A choice made after an earlier reading makes this figure too good."


def _range(low: float, value: float, high: float) -> str:
    """The interval as a bar on the stretch of the percentage axis around it."""
    span = max(high - low, 0.002)
    left, right = max(0.0, low - 1.2 * span), min(1.0, high + 1.2 * span)

    def at(share: float) -> float:
        return 500 * (share - left) / (right - left)

    ends = (
        f'<text x="0" y="38">{100 * left:.4g} %</text><text x="500" y="38" text-anchor="end">{100 * right:.4g} %</text>'
    )
    return (
        '<div class="range"><svg viewBox="0 0 500 44" preserveAspectRatio="xMinYMid" aria-hidden="true" '
        'style="font-size:13px;fill:var(--soft)"><path d="M0 14H500" style="stroke:var(--rule);stroke-width:2"/>'
        f'<path d="M{at(low):.1f} 14H{at(high):.1f}" style="stroke:var(--c1);stroke-width:8;opacity:.45"/>'
        f'<circle cx="{at(value):.1f}" cy="14" r="7" style="fill:var(--c1)"/>{ends}</svg></div>'
    )


def metrics(of: Contents) -> str:
    """Every metric with its interval."""
    rows = []
    for name, entry in (of.result.get("metrics") or {}).items():
        n = of.result["n"] if name in SHARES else -1
        rows.append((f"{esc(NAMES.get(name, name))}<small>{esc(name)}</small>", _valued(entry, n), _between(entry, n)))
    if not rows:
        return ""
    calls = paragraph("Small letters: the name in result.json, which is scikit-learn’s.", "soft")
    return table(("metric", "value", "95 % interval"), rows) + calls


def training(of: Contents) -> str:
    """Loss, accuracy and learning rate of every epoch as they were, with resumptions marked."""
    if not of.epochs:
        return paragraph("metrics.jsonl has no finished epoch: there are no curves to draw.")
    marks = [Mark(c.epoch_of(e["step"], of.epochs), None, e["event"]) for e in of.events if e.get("step") is not None]
    drawn = []
    for keys, title, unit, share in (
        (("loss", "val_loss"), "Loss", "loss (nats)", False),
        (("accuracy", "val_accuracy"), "Accuracy", "share right", True),
        (("lr",), "Learning rate", "learning rate", False),
    ):
        named = zip(keys, ("training", "validation") if len(keys) > 1 else ("learning rate",), strict=True)
        lines = [line for key, label in named if (line := c.series(of.epochs, key, label)) is not None]
        if lines:
            drawing = line_figure(lines, "epoch", unit, marks=marks, percent_y=share, whole_x=True)
            legend = lines if len(keys) > 1 else ()
            drawn.append(figure(svg(drawing, f"{title} against epoch"), title, lines=legend))
    words = ["Values of each epoch as they were measured, not smoothed. Training loss and accuracy are of augmented items "
             "while the weights move, so that validation may well be better."]  # fmt: skip
    if not any(row.get("val_loss") is not None for row in of.epochs):
        words = ["Values of each epoch as they were measured, not smoothed. There is no validation set: nothing here shows "
                 "whether the network learned by heart; the held-back result does."]  # fmt: skip
    happened = [f"step {e.get('step', '?')}: {e.get('text') or e['event']}" for e in of.events]
    dotted = f"<div><h3>Dotted lines</h3>{bullets(happened, 12)}</div>" if happened else ""
    return paragraph(" ".join(words)) + f'<div class="figures">{"".join(drawn)}{dotted}</div>'


def confusion(of: Contents) -> str:
    """The matrix, and in words what is most often taken for what."""
    counts = of.confusion
    if counts is None:
        return paragraph("There are no held-back predictions, so nothing is known about what is taken for what.")
    words = c.confused(of)
    said = bullets(f"It {text}." for text in words) if words else paragraph("No item was taken for another class.")
    drawing, tips = confusion_figure(counts, of.classes)
    scale = "".join(
        f'<span><i class="scale" style="background:var(--c{colour});opacity:{share**0.5:.3f}"></i>{text}</span>'
        for colour, share, text in ((1, 0.9, "right"), (2, 0.01, "1 % wrong"), (2, 0.1, "10 %"), (2, 0.5, "50 %"))
    )
    caption = "Rows are true classes, columns predicted ones; empty cells are zero. "
    caption += "Cells have the count and the share of the row." if len(of.classes) <= 12 else ""
    caption += " Point at a cell for its names and numbers." if len(of.classes) > 12 else ""
    matrix = figure(svg(drawing, "Confusion matrix", tips), "", caption, kind="wide")
    words_too = f'<div>{said}<div class="legend">{scale}</div></div>'
    # a small matrix stands beside its words, a large one below them
    return f'<div class="pair">{matrix}{words_too}</div>' if len(of.classes) <= 12 else words_too + matrix


def classes(of: Contents) -> str:
    """Precision, recall, specificity and F1 of each class, with intervals."""
    rows = c.per_class(of)
    if not rows:
        return paragraph("There are no held-back predictions, so there are no figures a class.")
    n = 0 if of.result.get("n", 0) < 2000 else 2000
    cells = [
        (
            esc(row["class"]),
            plain(row["n"]),
            *(_both(row.get(k), n) for k in ("precision", "recall", "specificity", "f1")),
        )
        for row in rows
    ]
    words = ("Precision: of the items given this label, the share that has it. Recall: of the items that have it, the share "
             "given it. Specificity: of all others, the share not given it. With 95 % intervals; where n is small they are "
             "wide, and a difference inside them is not evidence.")  # fmt: skip
    head = ("class", "n", "precision", "recall", "specificity", "F1")
    return paragraph(words) + table(head, cells, "tall" if len(cells) > 24 else "")


def ranking(of: Contents) -> str:
    """Precision-recall and ROC curves: a class each, or their mean beyond ten classes."""
    if of.predictions is None:
        return paragraph("predictions.npz is missing, so there are no curves to draw.")
    drawn = []
    for kind, area, title, x, y in (
        (c.precision_recall, "AP", "Precision and recall", "recall", "precision"),
        (c.roc, "AUC", "ROC", "false positive rate", "true positive rate (recall)"),
    ):
        lines, band = c.curves(of.predictions, kind, area)
        if not lines:
            return paragraph("The held-back items are all of one class: such curves need two.")
        drawing = line_figure(lines, x, y, band=band, diagonal=kind is c.roc, unit_square=True)
        caption = "Line: mean over classes. Band: the middle 80 % of classes." if band else ""
        drawn.append(figure(svg(drawing, f"{title} curve"), title, caption, lines))
    words = "Each class against all others, over every threshold on its probability. AP: average precision; AUC: area under."
    return paragraph(words) + f'<div class="figures">{"".join(drawn)}</div>'


def calibration(of: Contents) -> str:
    """Whether 90 % means 90 %, and what accuracy is to be had when the least certain items are left to a person."""
    found, stated = of.predictions, of.calibration
    if found is None:
        return paragraph("predictions.npz is missing, so probabilities cannot be compared with what came true.")
    right = found.predicted == found.target
    temperature = stated.get("temperature")
    after, before = c.reliability(found.confidence, right), None
    if stated.get("calibrated") and temperature:
        earlier = c.before_temperature(found.probabilities, temperature)
        before = c.reliability(earlier.max(1), right)
        words = (f"Probabilities are calibrated by a temperature of {temperature:.3g}, fitted on data other than these. Expected "
                 f"calibration error (ECE), the mean gap between stated and true: {_ece(stated.get('ece'), after.ece)}, before "
                 f"the temperature {_ece(stated.get('ece_before'), before.ece)}.")  # fmt: skip
    else:
        words = (f"The probabilities are not calibrated: read them as scores, not as chances. Expected calibration error "
                 f"(ECE), the mean gap between stated and true: {_ece(stated.get('ece'), after.ece)}.")  # fmt: skip
    keys = [c.Line("after the temperature", after.confidence, after.accuracy)] if before else []
    keys += [c.Line("before", before.confidence, before.accuracy)] if before else []
    caption = (
        "On the dotted line a stated 90 % is right nine times in ten. Bars are 95 % intervals; below: items a bin."
    )
    one = figure(svg(reliability_figure(after, before), "Reliability diagram"), "Reliability", caption, keys)
    return paragraph(words) + f'<div class="figures">{one}{_coverage(found, right, stated.get("threshold"))}</div>'


def _coverage(found: Predictions, right: np.ndarray, threshold: float | None) -> str:
    curve = c.risk_coverage(found.confidence, right)
    marks, n = [], len(right)
    if threshold is None:
        caption = "No threshold for “unsure” was chosen: the model answers every item."
    else:
        share, accuracy = c.at_threshold(found.confidence, right, threshold)
        caption = (f"Below a probability of {threshold:.3g} the model says “unsure”: it answers {percent(share, n)} of these "
                   f"items, and {percent(accuracy, n)} of its answers are right.")  # fmt: skip
        if accuracy is not None:
            marks = [Mark(share, accuracy, f"unsure below {threshold:.3g}")]
    words = "Accuracy when only the most certain items are answered. At the right end all are."
    drawing = line_figure(
        [curve], "share answered", "accuracy of the answers", marks=marks, percent_x=True, percent_y=True
    )
    return figure(svg(drawing, "Accuracy against share answered"), "Answering less, erring less", f"{words} {caption}")


def mistakes(of: Contents) -> str:
    """The surest wrong answers as pictures, traces, spectrograms or slices."""
    found = of.predictions
    if found is None:
        return paragraph("predictions.npz is missing, so mistakes cannot be shown.")
    if len(found.worst_index) == 0:
        return paragraph("There is no mistake to show.")
    shown = list(zip(found.worst_index, found.worst_x, strict=True))[:MOST_PICTURES]
    cards = []
    for index, x in shown:
        true, said = found.classes[found.target[index]], found.classes[found.predicted[index]]
        chance = percent(float(found.confidence[index]))
        drawing = show(x, of.spec, f"{true} taken for {said}")
        content = f'<div class="slices">{drawing}</div>' if x.ndim > 3 else drawing
        cards.append(
            f"<figure>{content}<figcaption><b>{esc(true)}</b> taken for <b>{esc(said)}</b>, {chance}"
            f'<span class="soft">{esc(found.paths[index])}</span></figcaption></figure>'
        )
    worst = found.worst_x
    least = 140 if worst.ndim == 4 else 280
    wrong = int((found.predicted != found.target).sum())
    words = (f"The {some(len(shown), 'mistake')} the model was surest of, among {wrong:,}. Look for a wrong label, an item that "
             f"belongs to neither class, and something that they have in common. The percentage is the probability it gave. {_how(worst, of)}")  # fmt: skip
    return paragraph(words) + f'<div class="mistakes" style="--least:{least}px">{"".join(cards)}</div>'


def _how(worst: np.ndarray, of: Contents) -> str:
    if worst.ndim == 3:
        if of.spec is not None and of.spec.kind == "sound":
            return "Spectrograms: brighter is louder, over 80 dB down from the loudest; windows of 32 ms."
        lines = "one line a channel" if worst.shape[1] > 1 else "values as they are in the data"
        return f"Traces: {lines}."
    stretched = "" if worst.dtype == np.uint8 else " Brightness is stretched over each one’s own range of values."
    channels = worst.shape[1]
    some_of = f" Shown: {'three' if channels > 3 else 'one'} of {channels} channels." if channels not in (1, 3) else ""
    return f"{stretched}{some_of}".strip()


def _ece(stated: float | None, measured: float) -> str:
    return percent(measured if stated is None else stated, 2000)


def _valued(entry: dict[str, float], n: int) -> str:
    value = entry.get("value")
    return percent(value, n) if n >= 0 else ("–" if value is None else f"{value:.4f}")


def _between(entry: dict[str, float], n: int) -> str:
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None:
        return "–"
    return f"{percent(low, n)} to {percent(high, n)}" if n >= 0 else f"{low:.4f} to {high:.4f}"


def _both(entry: dict[str, float] | None, n: int) -> str:
    """`98.2 %` with its interval in small."""
    if entry is None or entry.get("value") is None:
        return "–"
    low, high = entry.get("low"), entry.get("high")
    digits = 2 if n >= 2000 else 1
    around = "" if low is None or high is None else f"<small>{100 * low:.{digits}f}–{100 * high:.{digits}f}</small>"
    return f"{percent(entry['value'], n)}{around}"
