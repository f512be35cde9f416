"""check: what is wrong with data before a network learns it: corrupt, equal, leaking, odd items and unbalanced classes.

Exit code 1 when training on it would not be honest or not possible: more than 1 % of the items cannot be read, more
than 1 % of the test items are in the training data too, a group is on two sides of the split, a class is never trained
on, or there is one class only. All else is a warning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gridsight.core.console import Console
from gridsight.core.settings import argument, option
from gridsight.verbs import VERBS

if TYPE_CHECKING:
    from gridsight.data.audit import Audit, Finding
    from gridsight.data.source import Source

SHOWN = 3  # paths a problem on the console; --json and --out have all


@dataclass(frozen=True)
class CheckSettings:
    """Look for corrupt, duplicate, leaking and odd items in data, and for unbalanced classes.

    Items are decoded at their own size and compared with each other. Exit code 1: do not train on this as it is.

    examples:
      gridsight check photos/
      gridsight check photos/ --out checked            check.json and contact.png with pictures of what was found
      gridsight check sounds/ --pattern "{label}_{speaker}_{index}.wav" --group speaker
      gridsight check photos/ --labels --out checked   trains a few networks to find wrong labels
      gridsight check mnist --json
    """

    data: str = argument("a folder, archive or file of data, or the name of a set")
    pattern: str | None = option(None, 'what file names hold, such as "{label}_{speaker}_{index}.wav"')
    group: str | None = option(None, "column whose items belong together (patient, speaker)", metavar="NAME")
    target: str | None = option(
        None, "column of a table that holds the labels (default label, class, ...)", metavar="NAME"
    )
    frames: bool = option(False, "each folder of pictures is one clip, its pictures the frames in natural order")
    task: Literal["auto", "classify", "multilabel", "regress", "grade"] = option(
        "auto", "what a label is: one class, several, a number or an ordered grade; auto decides by the labels' column"
    )
    axes: str | None = option(None, "order of array axes, such as NHWC or NCL")
    labels: bool = option(False, "look for wrong labels too: trains a few networks, which takes minutes")
    out: str | None = option(None, "folder for check.json and contact.png", metavar="DIR")
    json: bool = option(False, "print one JSON object a finding, and the summary last")


@dataclass(frozen=True)
class CheckResult:
    """What was found: `findings` as plain values, `stops` what training must not go on with.

    `labels` says how --labels came to its findings; None without it, empty where labels could not be checked.
    """

    data: str
    n: int
    bad: int
    classes: dict[str, int]
    splits: dict[str, int]
    problems: dict[str, int]
    stops: tuple[str, ...]
    findings: tuple[dict[str, Any], ...]
    contact_sheet: str | None = None
    labels: dict[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """1 when training must not go on."""
        return 1 if self.stops else 0

    def summary(self) -> dict[str, Any]:
        """All but the findings."""
        keys = ("data", "n", "bad", "classes", "splits", "problems", "stops", "contact_sheet", "labels")
        return {key: getattr(self, key) for key in keys}


@VERBS.register("check", settings=CheckSettings)
def check(settings: CheckSettings, console: Console | None = None) -> CheckResult:
    """Audit the data, print what was found, write it where asked."""
    console = console or Console(quiet=True)
    from gridsight.data.audit import audit
    from gridsight.data.source import asked, find

    source = find(settings.data, **asked(settings))
    found, labels = audit(source, console, settings.task), None
    if settings.labels:
        from gridsight.verbs._labels import check_labels

        labels = check_labels(settings, source, found.facts, console)
        found.findings.extend(labels.findings)
        found.notes.append(labels.words)
    sheet = _write_sheet(Path(settings.out), source, found) if settings.out is not None else None
    result = CheckResult(
        data=settings.data,
        n=len(found.facts),
        bad=found.bad,
        classes=found.classes,
        splits=found.splits,
        problems=found.problems,
        stops=tuple(found.stops),
        findings=tuple(
            {"problem": finding.problem, "paths": list(finding.paths), "detail": finding.detail, **finding.more}
            for finding in found.findings
        ),
        contact_sheet=str(sheet) if sheet is not None else None,
        labels=dict(labels.figures) if labels is not None else None,
    )
    if settings.out is not None:
        _write_json(Path(settings.out), result)
    _say(console, source, found, settings.out, sheet)
    for finding in result.findings:
        console.emit(finding)
    console.emit(result.summary())
    return result


def _say(console: Console, source: "Source", found: "Audit", out: str | None, sheet: Path | None) -> None:
    classes = found.classes
    numbers = "numbers" + (f" ({source.target})" if source.target else "")
    what = numbers if found.task == "regress" else f"{len(classes):,} classes ({_counts(classes)})"
    console.say(f"{source.name}: {len(found.facts):,} items {'with' if found.task == 'regress' else 'in'} {what}")
    if found.splits:
        console.say(f"split: {_counts(found.splits)}" + (f" ({source.split})" if source.split else ""))
    if source.ignored:
        console.say(f"not data, left alone: {len(source.ignored):,} files, such as {source.ignored[0]}")
    for note in found.notes:
        console.say(f"note: {note}")
    if not found.findings and not found.stops:
        console.say("nothing wrong was found")
        return
    console.say()
    if found.findings:
        _say_findings(console, found, out, sheet)
    for stop in found.stops:
        console.say(f"do not train on this as it is: {stop}")


def _say_findings(console: Console, found: "Audit", out: str | None, sheet: Path | None) -> None:
    console.table([{"problem": name, "count": count} for name, count in found.problems.items()], ["problem", "count"])
    rest = "--out DIR writes all to check.json" if out is None else "check.json has all"
    for name in found.problems:
        some = [finding for finding in found.findings if finding.problem == name]
        console.say(f"\n{name}:")
        for finding in some[:SHOWN]:
            console.say("  " + _line(finding))
        if len(some) > SHOWN:
            console.say(f"  and {len(some) - SHOWN:,} more ({rest})")
    console.say()
    if out is not None:
        console.say(f"all of it: {Path(out) / 'check.json'}" + (f"; pictures: {sheet}" if sheet is not None else ""))


def _line(finding: "Finding") -> str:
    if not finding.paths:
        return finding.detail
    more = f" and {len(finding.paths) - 3:,} more" if len(finding.paths) > 3 else ""
    return f"{' = '.join(finding.paths[:3])}{more}: {finding.detail}"


def _counts(counts: dict[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:12]]
    return ", ".join(shown) + (f" and {len(counts) - 12:,} more" if len(counts) > 12 else "")


def _make(out: Path) -> None:
    from gridsight.core.errors import UsageError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {out}: {error.strerror}; give another --out DIR") from None


def _write_json(out: Path, result: CheckResult) -> None:
    from gridsight.core.console import dumps
    from gridsight.core.run import atomic_write

    _make(out)
    atomic_write(out / "check.json", dumps({**result.summary(), "findings": list(result.findings)}, indent=1) + "\n")


def _write_sheet(out: Path, source: "Source", found: "Audit") -> Path | None:
    """`contact.png`, a row a problem; None when no finding has a picture."""
    from gridsight.data.audit import decode_some
    from gridsight.reporting.contact import COLUMNS, Row, contact_sheet

    chosen: dict[str, list[int]] = {}
    suggested: dict[int, str] = {}
    for finding in found.findings:
        row = chosen.setdefault(finding.problem, [])
        if len(row) + min(len(finding.items), 2) <= COLUMNS:
            row += finding.items[:2]
        if "suggested" in finding.more:
            suggested |= dict.fromkeys(finding.items, finding.more["suggested"])
    samples = decode_some(source, found.facts, {number for row in chosen.values() for number in row})
    rows = []
    for problem, numbers in chosen.items():
        likelier = suggested if problem == "label" else {}
        cells = [
            (_caption(found, number, likelier.get(number)), samples[number]) for number in numbers if number in samples
        ]
        if cells:
            rows.append(Row(f"{problem} ({found.problems[problem]:,})", cells))
    if not rows:
        return None
    _make(out)
    contact_sheet(rows, out / "contact.png")
    return out / "contact.png"


def _caption(found: "Audit", number: int, likelier: str | None = None) -> str:
    fact = found.facts[number]
    said: Sequence[str] = [word for word in (fact.label, fact.split, fact.group) if word]
    if likelier is not None:
        said = [f"{fact.label}, or {likelier}?"]
    name = fact.path.replace("!", "/").rpartition("/")[2]
    return (name if len(name) <= 26 else f"...{name[-23:]}") + "\n" + ", ".join(said)
