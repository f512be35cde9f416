"""What a table among the data means: it lists files (`data/manifest.py`), or its rows are the items.

Taken are: a table that DATA names, with its other part (`train.csv` and `test.csv`); in a folder or archive without
class folders the one table that lists files; a folder of tables alone. Where there are class folders they say what the
labels are, and tables beside them are not used, which is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gridsight.core.errors import ReadError, UsageError
from gridsight.data.columns import Roles, has_column
from gridsight.data.files import File
from gridsight.data.listing import Entry, Listing
from gridsight.data.manifest import lists_files, read_manifest
from gridsight.data.names import natural_order, split_in
from gridsight.data.readers import READERS
from gridsight.data.source import GROUP, Item, Source, short_name
from gridsight.data.table import Table
from gridsight.data.unclear import one_kind

MOST = 50  # tables of a folder that are looked into for one that lists files
NONE_OF_THESE = "has no column of paths, none of sequences, and not eight numeric columns or more that make a series"


@dataclass(frozen=True)
class Choice:
    """How data are to be understood: the columns of the label and the group, whether folders are clips.

    `usual` and `grouped` are the columns of the label and the group where none is named and they exist. With `clips`
    these are wanted, so still pictures are frames without being told.
    """

    target: str | None = None
    group: str | None = None
    frames: bool = False
    usual: str = ""
    clips: bool = False
    grouped: str | None = None

    def label(self, table: Table) -> str | None:
        """The column of the label, None where the table's own names decide."""
        if self.target is None and has_column(self.usual, table.names):
            return self.usual
        return self.target

    def column(self, table: Table) -> str | None:
        """The column of the group, None where there is none."""
        if self.group is None and self.grouped is not None and has_column(self.grouped, table.names):
            return self.grouped
        return self.group


def by_tables(path: Path, listing: Listing, choice: Choice) -> Source | None:
    """The source that tables among other files say, None where they say nothing."""
    if not listing.tables:
        return None
    classes = {entry.parts[0] for entry in listing.entries if len(entry.parts) > 1}
    beside = [entry for entry in listing.tables if len(entry.parts) <= 1 + len(entry.above)]
    if len(classes) > 1:
        if beside and choice.target is None:
            names = ", ".join(entry.file.name for entry in beside[:3])
            listing.notes.append(f"class folders give the labels; {names} is not used (name it as DATA to use it)")
        elif choice.target is not None:
            raise UsageError(f"--target names a column of a table; {path} has class folders (name its table as DATA)")
        return None
    shallow = sorted(listing.tables, key=lambda entry: len(entry.parts))[:MOST]
    found = []
    for entry in shallow:
        try:
            table = Table(entry.file)
            what = lists_files(table, None, None, labelled=False)
        except (ReadError, UsageError):
            continue
        if what.kind == "files":
            found.append((entry, table))
    if not found:
        return None
    _one_set(path, [entry for entry, _ in found])
    source = _manifest(path, found, choice, listing)
    names = ", ".join(entry.file.name for entry, _ in found)
    count = len(listing.entries) - len(source.items)
    rest = f"; {count:,} files that it does not list are left alone" if count > 0 else ""
    return _noted(source, f"{names} lists the files and their labels{rest}")


def of_tables(path: Path, entries: Sequence[Entry], listing: Listing, choice: Choice) -> Source:
    """The source of tables alone."""
    opened, reasons = [], []
    for entry in entries[:MOST]:
        try:
            opened.append((entry, Table(entry.file)))
        except ReadError as error:
            reasons.append(error)
    if reasons:
        if path.is_dir():
            raise _nothing(path, entries[0], reasons[0].reason)
        raise UsageError(str(reasons[0]))
    _one_set(path, entries)
    kinds = {lists_files(table, choice.label(table), choice.column(table), labelled=False).kind for _, table in opened}
    if kinds == {"files"}:
        return _manifest(path, opened, choice, listing)
    if len(kinds) > 1 or kinds == {"other"}:
        if path.is_dir():
            raise _nothing(path, opened[0][0], NONE_OF_THESE)
        names = ", ".join(opened[0][1].names[:8])
        raise UsageError(f"{path} {NONE_OF_THESE} (it has {names}); a manifest has path,label")
    return _rows(path, opened, choice, listing)


def note_of_items(file: File) -> str:
    """What is said of tables that are one item each."""
    try:
        return f"each table is one item: {READERS.create('table').describe(file)}"
    except ReadError:
        return "each table is one item"


def _manifest(path: Path, opened: Sequence[tuple[Entry, Table]], choice: Choice, listing: Listing) -> Source:
    tables = []
    for entry, table in opened:
        what = _roles(table, choice)
        if what.label is None:
            listing.notes.append(f"{entry.file.name} has no column of labels and is not used")
            continue
        tables.append((table, what, entry.split or (split_in(entry.file.name)[0] if len(opened) > 1 else None)))
    if not tables:
        raise UsageError(f"{path} has no column of labels; a manifest has path,label")
    splits = any(what.split is not None or split for _, what, split in tables)
    # a column of this name is taken by itself where no split is published
    found = read_manifest(tables, choice.frames or choice.clips, choice.group or (None if splits else GROUP))
    one_kind(path, [item.reader for item in found.items])
    return Source(
        name=short_name(path),
        items=tuple(found.items),
        readers={name: READERS.create(name) for name in sorted({item.reader for item in found.items})},
        bad=tuple(found.bad),
        ignored=tuple(listing.ignored),
        split=found.split,
        fields=found.fields,
        notes=(*listing.notes, *found.notes),
        target=found.target,
    )


def _roles(table: Table, choice: Choice) -> Roles:
    try:
        return lists_files(table, choice.label(table), choice.column(table))
    except UsageError as error:
        without = lists_files(table, None, choice.column(table), labelled=False)
        if without.kind == "files" and not without.fields(table.names):
            return without  # paths alone, as of test data whose labels are secret
        raise UsageError(f"{table.file}: {error}") from None


def _rows(path: Path, opened: Sequence[tuple[Entry, Table]], choice: Choice, listing: Listing) -> Source:
    table, notes = opened[0][1], list(listing.notes)
    if choice.frames:
        raise UsageError(f"--frames takes folders of pictures, and {path} is a table of numbers or letters")
    roles = [_roles(one, choice) for _, one in opened]
    what = roles[0]
    assert what.label is not None
    names = table.names
    if what.kind == "series":
        steps = f"{names[what.series[0]]} to {names[what.series[-1]]}"
        notes.append(f"each row is one series of {len(what.series):,} steps ({steps}), its label {names[what.label]}")
    else:
        notes.append(f"each row is one sequence ({names[what.sequence]}), its label {names[what.label]}")
    words = [split_in(entry.file.name)[0] for entry, _ in opened]
    by_column = any(one.split is not None for one in roles)
    by_name = "published by file names" if any(words) else ""
    fields = tuple(what.fields(names).values())
    published = "the column split" if by_column else by_name
    # a column of this name is taken by itself where no split is published
    group = choice.column(table) or (GROUP if GROUP in fields and not published else None)
    return Source(
        name=short_name(path),
        items=tuple(Item(entry.file, "table", None, word) for (entry, _), word in zip(opened, words, strict=True)),
        readers={"table": READERS.create("table", target=choice.label(table), group=group)},
        bad=tuple(listing.bad),
        ignored=tuple(listing.ignored),
        split=published,
        fields=fields,
        notes=tuple(notes),
        target=names[what.label] if table.named else "",
        place="" if table.named else names[what.label],
    )


def _one_set(path: Path, entries: Sequence[Entry]) -> None:
    """Refuse several tables unless they are the parts of one set."""
    words = [split_in(entry.file.name) for entry in entries]
    if len(entries) > 1 and (len({rest for _, rest in words}) > 1 or not all(split for split, _ in words)):
        names = natural_order(entry.file.name for entry in entries)
        raise UsageError(f"{path} holds several tables ({', '.join(names[:12])}); name one of them")


def _nothing(path: Path, entry: Entry, reason: str) -> UsageError:
    return UsageError(f"{path} holds no pictures, sounds, arrays or series; it has {entry.file.name}, which {reason}")


def _noted(source: Source, note: str) -> Source:
    return replace(source, notes=(note, *source.notes))
