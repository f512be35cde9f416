"""The sections of the report that state results: from the headline to the worst mistakes, each a function to HTML."""

from collections.abc import Mapping

import numpy as np

from gridsight.measure.calibration import expected_calibration_error, reliability, risk_coverage
from gridsight.measure.metrics import headline as first_metrics
from gridsight.reporting import curves
from gridsight.reporting.contents import Contents, Predictions
from gridsight.reporting.curves import Line
from gridsight.reporting.figures import (
    Mark,
    confusion_figure,
    line_figure,
    reliability_figure,
    svg,
)
from gridsight.reporting.markup import (
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
from gridsight.reporting.pictures import show

MOST_PICTURES, MOST_CLASSES = 24, 100
NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy (mean recall)",
    "f1_macro": "F1, mean over classes",
    "roc_auc": "area under ROC",
    "average_precision": "average precision",
    "log_loss": "log loss (nats; lower is better)",
    "brier_score_loss": "Brier score (lower is better)",
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
        f'<div class="big"><b>{percent(value)}</b>'
        f"<span>of {some(n, 'held-back item')} labelled rightly: {esc(some(wrong, 'mistake'))}</span></div>"
    ]
    low, high = accuracy.get("low"), accuracy.get("high")
    if low is not None and high is not None:
        lines.append(_range(low, value, high))
        lines.append(
            paragraph(
                f"95 % interval: {percent(low)} to {percent(high)}. On new items like these, the accuracy lies "
                "in that range as far as the number of items can tell.",
                "lead",
            )
        )
    confusion = of.confusion
    if confusion is not None and confusion.sum():
        counts = confusion.sum(1)
        most = int(counts.argmax())
        share = percent(counts[most] / counts.sum())
        others = first_metrics(of.result["metrics"], counts.tolist())[1:]
        if others:
            beside = (
                f"{NAMES.get(name, name)} {_stated(of.result['metrics'][name], name in SHARES)}" for name in others
            )
            lines.append(paragraph(f"Classes have uneven numbers of items, so read also: {'; '.join(beside)}.", "lead"))
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
    found = of.result.get("metrics") or {}
    for name in sorted(found, key=lambda name: list(NAMES).index(name) if name in NAMES else len(NAMES)):
        entry = found[name]
        share = name in SHARES
        title = f"{esc(NAMES.get(name, name))}<small>{esc(name)}</small>"
        rows.append((title, _valued(entry, share), _between(entry, share)))
    if not rows:
        return ""
    second = f" With two classes, areas are those of “{of.classes[1]}”." if len(of.classes) == 2 else ""
    calls = paragraph("Small letters: the name in result.json, which is scikit-learn’s." + second, "soft")
    return table(("metric", "value", "95 % interval"), rows) + calls


def training(of: Contents) -> str:
    """Loss, accuracy and learning rate of every epoch as they were, with resumptions marked."""
    if not of.epochs:
        return paragraph("metrics.jsonl has no finished epoch: there are no curves to draw.")
    marks = [
        Mark(curves.epoch_of(e["step"], of.epochs), None, e["event"]) for e in of.events if e.get("step") is not None
    ]
    drawn = []
    for keys, title, unit, share in (
        (("loss", "val_loss"), "Loss", "loss (nats)", False),
        (("accuracy", "val_accuracy"), "Accuracy", "share right", True),
        (("lr",), "Learning rate", "learning rate", False),
    ):
        named = zip(keys, ("training", "validation") if len(keys) > 1 else ("learning rate",), strict=True)
        lines = [line for key, label in named if (line := curves.series(of.epochs, key, label)) is not None]
        if lines:
            drawing = line_figure(lines, "epoch", unit, marks=marks, percent_y=share, whole_x=True)
            legend = lines if len(keys) > 1 else ()
            drawn.append(figure(svg(drawing, f"{title} against epoch"), title, lines=legend))
    words = "Values of each epoch as they were measured, not smoothed. "
    if any(row.get("val_loss") is not None for row in of.epochs):
        smoothing = (of.plan.get("recipe") or {}).get("label_smoothing")
        extra = f" and its loss counts labels smoothed by {smoothing:g}" if smoothing else ""
        words += f"Training is of augmented items while the weights move{extra}: validation may well be better."
    else:
        words += (
            "There is no validation set: nothing here shows whether the network learned by heart; the held-back result "
            "does."
        )
    happened = [f"step {e.get('step', '?')}: {e.get('text') or e['event']}" for e in of.events]
    dotted = f"<div><h3>Dotted lines</h3>{bullets(happened, 12)}</div>" if happened else ""
    return paragraph(words) + f'<div class="figures">{"".join(drawn)}{dotted}</div>'


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


def classes(of: Contents) -> str:
    """Precision, recall, specificity and F1 of each class, with intervals."""
    rows = of.per_class
    if not rows:
        return paragraph("There are no held-back predictions, so there are no figures a class.")
    digits = 1 if of.result.get("n", 0) < 2000 else 2
    cells = [
        (
            esc(row["class"]),
            plain(row["n"]),
            *(_both(row.get(k), digits) for k in ("precision", "recall", "specificity", "f1")),
        )
        for row in rows
    ]
    words = (
        "Precision: of the items given this label, the share that has it. Recall: of the items that have it, the "
        "share given it. Specificity: of all others, the share not given it. With 95 % intervals; where n is small "
        "they are wide, and a difference inside them is not evidence."
    )
    head = ("class", "n", "precision", "recall", "specificity", "F1")
    return paragraph(words) + table(head, cells, "tall" if len(cells) > 24 else "")


def ranking(of: Contents) -> str:
    """Precision-recall and ROC curves: a class each, or their mean beyond ten classes."""
    found = of.predictions
    if found is None:
        return paragraph("predictions.npz is missing, so there are no curves to draw.")
    drawn = []
    for kind, area, title, x, y in (
        (curves.precision_recall, "AP", "Precision and recall", "recall", "precision"),
        (curves.roc, "AUC", "ROC", "false positive rate", "true positive rate (recall)"),
    ):
        lines, band = curves.by_class(found.probabilities, found.target, found.classes, kind, area)
        if not lines:
            return paragraph("The held-back items are all of one class: such curves need two.")
        drawing = line_figure(lines, x, y, band=band, diagonal=kind is curves.roc, unit_square=True)
        caption = "Line: mean over classes. Band: the middle 80 % of classes." if band else ""
        drawn.append(figure(svg(drawing, f"{title} curve"), title, caption, lines))
    words = (
        "Each class against all others, over every threshold on its probability. AP: average precision; AUC: area "
        "under the curve."
    )
    return paragraph(words) + f'<div class="figures">{"".join(drawn)}</div>'


def calibration(of: Contents) -> str:
    """Whether 90 % means 90 %, and what accuracy is to be had when the least certain items are left to a person."""
    found, stated = of.predictions, of.calibration
    if found is None:
        return paragraph("predictions.npz is missing, so probabilities cannot be compared with what came true.")
    right, none = found.predicted == found.target, np.empty(0)
    temperature = stated.get("temperature")
    after, before = reliability(found.probabilities, found.target), None
    ece, ece_before = stated.get("ece"), stated.get("ece_before")
    if ece is None:
        ece = expected_calibration_error(found.probabilities, found.target)
    if stated.get("calibrated") and temperature:
        earlier = curves.before_temperature(found.probabilities, temperature)
        before = reliability(earlier, found.target)
        if ece_before is None:
            ece_before = expected_calibration_error(earlier, found.target)
        # with folds there is nothing left over: the pooled answers serve for both
        where = "these same answers, a little flattering" if of.settings.get("folds") else "data other than these"
        words = f"Probabilities are calibrated by a temperature of {temperature:.3g}, fitted on {where}."
        change = f", before the temperature {percent(ece_before)}"
    else:
        words, change = "The probabilities are not calibrated: read them as scores, not as chances.", ""
    words += f" Expected calibration error (ECE), the mean gap between stated and true: {percent(ece)}{change}."
    keys = [Line("after the temperature", none, none), Line("before", none, none)] if before else []
    caption = (
        "On the dotted line a stated 90 % is right nine times in ten. Bars are 95 % intervals; below: items a bin."
    )
    one = figure(svg(reliability_figure(after, before), "Reliability diagram"), "Reliability", caption, keys)
    return paragraph(words) + f'<div class="figures">{one}{_coverage(found, right, stated.get("threshold"))}</div>'


def _coverage(found: Predictions, right: np.ndarray, threshold: float | None) -> str:
    share, risk, _ = risk_coverage(found.probabilities, found.target)
    curve, marks = Line("accuracy", share, 1 - risk), []
    if threshold is None:
        caption = "No threshold for “unsure” was chosen: the model answers every item."
    else:
        answered = found.confidence >= threshold
        accuracy = float(right[answered].mean()) if answered.any() else None
        caption = (
            f"Below a probability of {threshold:.3g} the model says “unsure”: it answers "
            f"{percent(float(answered.mean()))} of these items, and {percent(accuracy)} of its answers are "
            "right."
        )
        if accuracy is not None:
            marks = [Mark(float(answered.mean()), accuracy, f"unsure below {threshold:.3g}")]
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
        chance = percent(float(found.confidence[index]), 1)
        drawing = show(x, of.spec, f"{true} taken for {said}")
        content = f'<div class="slices">{drawing}</div>' if x.ndim > 3 else drawing
        cards.append(
            f"<figure>{content}<figcaption><b>{esc(true)}</b> taken for <b>{esc(said)}</b>, {chance}"
            f'<span class="soft">{esc(found.paths[index])}</span></figcaption></figure>'
        )
    worst = found.worst_x
    size, least = ("small", 140) if worst.ndim == 4 else ("large", 280)
    wrong = int((found.predicted != found.target).sum())
    words = (
        f"The {some(len(shown), 'mistake')} the model was surest of, among {wrong:,}. Look for a wrong label, an item "
        "that belongs to neither class, and something that they have in common. The percentage is the probability it "
        f"gave. {_how(worst, of)}"
    )
    return paragraph(words) + f'<div class="mistakes {size}" style="--least:{least}px">{"".join(cards)}</div>'


def _how(worst: np.ndarray, of: Contents) -> str:
    if worst.ndim == 3:
        if of.spec is not None and of.spec.kind == "sound":
            return "Spectrograms: brighter is louder, over 80 dB down from the loudest; windows of 32 ms."
        lines = "one line a channel" if worst.shape[1] > 1 else "values as they are in the data"
        return f"Traces: {lines}."
    stretched = "" if worst.dtype == np.uint8 else "Brightness is stretched over each one’s own range of values."
    channels = worst.shape[1]
    some_of = f" Shown: {'three' if channels > 3 else 'one'} of {channels} channels." if channels not in (1, 3) else ""
    return f"{stretched}{some_of}".strip()


def _stated(entry: Mapping[str, float], share: bool) -> str:
    return f"{_valued(entry, share)} ({_between(entry, share)})"


def _valued(entry: Mapping[str, float], share: bool) -> str:
    value = entry.get("value")
    return percent(value) if share else ("–" if value is None else f"{value:.4f}")


def _between(entry: Mapping[str, float], share: bool) -> str:
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None:
        return "–"
    return f"{percent(low)} to {percent(high)}" if share else f"{low:.4f} to {high:.4f}"


def _both(entry: Mapping[str, float] | None, digits: int) -> str:
    """`98.2 %` with its interval in small."""
    if entry is None or entry.get("value") is None:
        return "–"
    low, high = entry.get("low"), entry.get("high")
    around = "" if low is None or high is None else f"<small>{100 * low:.{digits}f}–{100 * high:.{digits}f}</small>"
    return f"{percent(entry['value'], digits)}{around}"
