"""How files lie in a folder or archive, and what that says: class folders, splits, names, containers.

Understood: `class/*` and `train/class/*`, on disk, in a zip, or in one zip a split; files whose labels lie in their
names (a pattern); arrays with their labels (IDX, npz, npy, CIFAR binary, .ts), alone or beside their test part; files
of many sequences (FASTA), with their labels or one a class; folders of slices or frames, each one volume or clip
(`data/series.py`); animated pictures, each a clip where all of them are; tables (`data/tabular.py`).
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from gridsight.core.errors import ReadError, UsageError
from gridsight.data.clips import all_animated
from gridsight.data.files import File, members
from gridsight.data.listing import Entry, Listing, all_many, known_suffixes, list_files, sort_in
from gridsight.data.names import Pattern, holds_labels, natural_order, split_in, split_of, split_said
from gridsight.data.readers import READERS, Reader, is_archive
from gridsight.data.series import join_frames, join_series
from gridsight.data.source import Item, Source, short_name
from gridsight.data.tabular import Choice, by_tables, note_of_items, of_tables
from gridsight.data.unclear import flat, not_sets_in_folders, nothing, one_kind, shown_name, some

ANIMATED = (".gif", ".webp", ".png", ".apng")
"""Suffixes of pictures that may be animated."""


def understand(path: Path, pattern: str | None = None, choice: Choice = Choice()) -> Source:  # noqa: B008 - frozen
    """The source at an existing path, or at the first part of the names of one set's files."""
    source = _understand(path, pattern, choice)
    files = [item.file for item in source.items]
    if choice.frames:
        return replace(source, clips=True)
    if set(source.readers) != {"image"}:
        return source
    if choice.clips and all(file.is_folder for file in files):
        return replace(source, clips=True)
    clips, words = _animated(files)
    if clips:
        return replace(source, clips=True, readers={"image": READERS.create("image", clips=True)})
    return replace(source, notes=(*source.notes, words)) if words else source


def _animated(files: Sequence[File]) -> tuple[bool, str]:
    """Whether every picture is animated; if only the first ones are, the words to say so."""
    if not all(file.name.lower().endswith(ANIMATED) for file in files):
        return False, ""
    return all_animated(files, READERS.create("image").animated)


def _understand(path: Path, pattern: str | None, choice: Choice) -> Source:
    compiled = Pattern(pattern) if pattern is not None else None
    if path.is_dir() or is_archive(path):
        listing = list_files(path)
        tables_alone = not listing.entries and not listing.archives
        if tables_alone:
            listing.entries, listing.tables = listing.tables, []
        if not listing.entries and listing.archives:
            if compiled is None and (source := by_tables(path, listing, choice)) is not None:
                return source
            listing = _list_archives(path, listing)
        else:
            listing.ignored += map(str, listing.archives)
            listing.split = _split_by_folder(path, listing)
        if tables_alone and listing.entries and compiled is None:
            if all(len(entry.parts) == 1 for entry in listing.entries):
                return of_tables(path, listing.entries, listing, choice)
            listing.notes.append(note_of_items(listing.entries[0].file))
        elif compiled is None and (source := by_tables(path, listing, choice)) is not None:
            return source
        listing.ignored += [str(entry.file) for entry in listing.tables]
    else:
        listing = _one_file(path)
        if listing.tables:
            if compiled is not None:
                raise UsageError(f"--pattern is for the names of files; {path} is a table, whose columns say it")
            return of_tables(path, listing.tables, listing, choice)
    if not listing.entries:
        raise nothing(path, listing)
    if choice.target is not None:
        raise UsageError(f"--target names a column of a table, and {path} is none")
    one_kind(path, [entry.reader for entry in listing.entries])
    pictures = [entry.file for entry in listing.entries if entry.reader == "image"]
    if choice.frames or (choice.clips and len(pictures) == len(listing.entries) and not _animated(pictures)[0]):
        listing.entries = join_frames(listing.entries, path)
    else:
        listing.entries = join_series(listing.entries, None if pattern is None else pattern.count("/"))
    if compiled is not None:
        return _by_pattern(path, listing, compiled)
    if all(len(entry.parts) == 1 for entry in listing.entries):
        if all_many(listing.entries):
            return _containers(path, listing)
        raise flat(path, listing.entries)
    not_sets_in_folders(path, listing.entries)
    return _by_folder(path, listing)


def starts_a_set(path: Path) -> bool:
    """Whether files such as `<path>_TRAIN.ts` exist, where `path` itself does not."""
    return bool(path.name) and path.parent.is_dir() and bool(_parts_of_set(path))


def _parts_of_set(path: Path) -> list[Path]:
    """Files beside `path` that are named as it is but for a word that says the split: `GunPoint` and its two .ts."""
    wanted, found = path.name.lower(), []
    for entry in sorted(path.parent.iterdir()):
        split, rest = split_in(entry.name)
        if split is not None and rest.partition("*")[0].rstrip("_-. ") == wanted and entry.is_file():
            found.append(entry)
    return found


def _list_archives(path: Path, outer: Listing) -> Listing:
    """One archive of everything, or one a split whose name or top folder says which."""
    joined = Listing(bad=outer.bad, ignored=outer.ignored, tables=outer.tables)
    splits = set()
    for archive in outer.archives:
        inner = list_files(archive)
        words = _split_by_folder(archive, inner)
        if not words and len(outer.archives) > 1:
            split, _ = split_in(archive.name)
            if split is None:
                names = ", ".join(a.name for a in outer.archives)
                raise UsageError(f"{path} holds several archives ({names}); name one of them")
            for entry in inner.entries:
                entry.split = split
        splits |= {entry.split for entry in inner.entries}
        joined.entries += inner.entries
        joined.bad += inner.bad
        joined.tables += inner.tables
        joined.ignored += [*inner.ignored, *map(str, inner.archives)]
        joined.notes += inner.notes
        joined.split = words
    if len(outer.archives) > 1:
        joined.split = "archives " + ", ".join(archive.name for archive in outer.archives)
    return joined


def _one_file(path: Path) -> Listing:
    """A file of arrays, with the other part of the same set that lies beside it (train and test)."""
    listing = Listing()
    paths = [path]
    if not path.exists():
        paths = _parts_of_set(path)
    elif split_in(path.name)[0] is not None:
        twin = split_in(path.name)[1]
        paths = [p for p in sorted(path.parent.iterdir()) if split_in(p.name)[1] == twin and p.is_file()]
    for part in paths or [path]:
        sort_in(listing, File(part, None, part.parent), (part.name,), known_suffixes())
    if not listing.entries and listing.bad:
        raise UsageError(str(listing.bad[0]))
    if any(not READERS.get(entry.reader).tags["many"] for entry in listing.entries):
        raise UsageError(f"{path} is one item; a data set is a folder of them, one folder a class")
    _add_labels(listing, path.parent)
    return listing


def _add_labels(listing: Listing, folder: Path) -> None:
    """Files of labels beside arrays: their readers look for them, the fingerprint counts them."""
    have = {entry.file.path for entry in listing.entries}
    readers = {entry.reader for entry in listing.entries}
    for path in sorted(folder.iterdir()):
        if path not in have and path.is_file() and holds_labels(path.name):
            other = Listing()
            sort_in(other, File(path, None, folder), (path.name,), known_suffixes())
            listing.entries += [e for e in other.entries if e.reader in readers and not _class_a_file(e)]


# ---- splits


def _split_by_folder(root: Path, listing: Listing) -> str:
    """Strip folders that hold everything, then take top folders named train, test, ... as splits; the words for it."""
    entries = listing.entries
    while entries:
        tops = {entry.parts[0] if len(entry.parts) > 1 else "" for entry in entries}
        top = next(iter(tops))
        if len(tops) > 1 or not top or split_of(top):
            break
        if all(len(entry.parts) == 2 for entry in entries) and not all_many(entries):
            break  # that is the one class
        if len(_folders(root, entries[0].above)) > 1:
            break  # other class folders lie beside it, empty
        for entry in entries:
            entry.descend()
    found = {entry.parts[0]: split_of(entry.parts[0]) for entry in entries if len(entry.parts) > 1}
    named = {name: split for name, split in found.items() if split}
    loose = any(len(entry.parts) == 1 for entry in entries)
    whole = len(named) == len(found) == 1 and not loose
    if not whole and not ("train" in named.values() and len(set(named.values())) > 1):
        return ""  # classes may be called "test" too
    kept, extra = [], Counter[str]()
    for entry in entries:
        if entry.parts[0] in named and len(entry.parts) > 1:
            entry.split = named[entry.parts[0]]
            entry.descend()
            kept.append(entry)
        else:
            extra[entry.parts[0] if len(entry.parts) > 1 else "."] += 1
            listing.ignored.append(str(entry.file))
    listing.entries = kept
    for name, count in extra.items():
        place = "the top folder" if name == "." else f"{name}/"
        listing.notes.append(f"{count:,} files in {place} beside {'/, '.join(named)}/ are not used")
    return f"{'folders' if len(named) > 1 else 'folder'} {'/'.join(natural_order(named))}"


def _folders(root: Path, prefix: Sequence[str]) -> list[str]:
    """Names of the folders at `prefix` below a folder or archive, empty ones too."""
    if root.is_dir():
        with os.scandir(root.joinpath(*prefix)) as entries:
            return [e.name for e in entries if e.is_dir() and not e.name.startswith(".") and e.name != "__MACOSX"]
    depth, wanted = len(prefix), tuple(prefix)
    names = (tuple(name.replace("\\", "/").split("/")) for name in members(root))
    found = {parts[depth] for parts in names if len(parts) > depth + 1 and parts[:depth] == wanted}
    return [name for name in found if not name.startswith(".") and name != "__MACOSX"]


# ---- labels


def _by_folder(path: Path, listing: Listing) -> Source:
    """The class is the first folder, below the split's if there is one."""
    items, loose, deeper = [], [], 0
    for entry in listing.entries:
        if len(entry.parts) == 1:
            loose.append(ReadError(entry.file, "lies outside of the class folders, so it has no label"))
            continue
        deeper += len(entry.parts) > 2
        items.append(Item(entry.file, entry.reader, entry.parts[0], entry.split, many=_class_a_file(entry)))
    listing.bad += loose
    if deeper:
        listing.notes.append(
            f"{deeper:,} files lie deeper than their class folder; the class is the first folder "
            '(a pattern such as "{label}/{patient}/{_name}" names the others)'
        )
    return _source(path, listing, items)


def _by_pattern(path: Path, listing: Listing, pattern: Pattern) -> Source:
    """Fields from names; the label is the field `label`, else the class folder."""
    items, misfits = [], []
    for entry in listing.entries:
        try:
            try:
                found = pattern.match("/".join((*entry.above, *entry.parts)), entry.folder)
            except ValueError:
                found = pattern.match("/".join(entry.parts), entry.folder)  # below the split's folder
            split = split_said(found.pop("split", "")) or entry.split
        except ValueError as error:
            misfits.append(ReadError(entry.file, str(error)))
            continue
        label = found.pop("label", None) or (entry.parts[0] if len(entry.parts) > 1 else None)
        items.append(Item(entry.file, entry.reader, label, split, found, _class_a_file(entry)))
    if not items:
        seen = "/".join(listing.entries[0].parts)
        raise UsageError(
            f"no file of {path} fits --pattern {pattern.text!r}; the first is {seen} ({misfits[0].reason})"
        )
    if not any(item.label for item in items):
        raise UsageError(f"--pattern {pattern.text!r} has no {{label}}, and {path} has no class folders")
    listing.bad += misfits
    if "split" in pattern.fields:
        listing.split = "the field split of the names"
    fields = tuple(name for name in pattern.fields if name not in ("label", "split"))
    return _source(path, listing, items, fields=fields, pattern=pattern.text)


def _source(
    path: Path, listing: Listing, items: list[Item], fields: tuple[str, ...] = (), pattern: str | None = None
) -> Source:
    counts = Counter(item.label for item in items if not item.many)
    single = [str(label) for label, count in counts.items() if count == 1]
    if single:
        listing.notes.append(f"classes with one item only: {some(natural_order(single))}")
    empty = _empty_classes(items, listing) if pattern is None else []
    if empty:
        listing.notes.append(f"class folders without any item, left out: {some(natural_order(empty))}")
    readers = _readers(item.reader for item in items)
    said = {column: None for name in readers for column in READERS.get(name).tags.get("columns", ())}
    said |= dict.fromkeys(_columns(items, readers))
    return Source(
        name=short_name(path),
        items=tuple(items),
        readers=readers,
        bad=tuple(listing.bad),
        ignored=tuple(listing.ignored),
        split=listing.split,
        fields=tuple({**dict.fromkeys(fields), **said}),  # of names, and of what files say themselves
        pattern=pattern,
        notes=tuple(listing.notes),
        empty=tuple(natural_order(empty)),
    )


def _empty_classes(items: list[Item], listing: Listing) -> list[str]:
    """Class folders that exist and hold no data, with the split's folder where there is one."""
    used: dict[tuple[Path, tuple[str, ...]], set[str]] = {}
    for entry in listing.entries:
        if len(entry.parts) > 1:
            root = entry.file.root or entry.file.path
            used.setdefault((root, entry.above), set()).add(entry.parts[0])
    return [
        "/".join((*prefix, name))
        for (root, prefix), names in used.items()
        for name in _folders(root, prefix)
        if name not in names
    ]


def _containers(path: Path, listing: Listing) -> Source:
    """Files that hold many items with their labels: one set, in one file or in several that differ by their split."""
    readers = _readers(entry.reader for entry in listing.entries)
    labels = [entry.file for entry in listing.entries if _is_sidecar(readers[entry.reader], entry.file)]
    entries = [entry for entry in listing.entries if entry.file not in labels]
    if not entries:
        raise UsageError(f"{path} holds labels ({labels[0].name}) but not the arrays that they belong to")
    words = [split_in(entry.file.name) for entry in entries]
    sets = {rest if entry.reader != "cifar" else "cifar" for entry, (_, rest) in zip(entries, words, strict=True)}
    if len(sets) > 1 and all(map(_class_a_file, entries)):
        return _class_files(path, listing)
    if len(sets) > 1:
        names = natural_order({shown_name(entry.file.name) for entry in entries})
        raise UsageError(
            f"{path} holds several data sets: {some(names, 12)}; name one, such as {path / names[0]} "
            '(or, when each file is one item, give --pattern "{label}_...")'
        )
    items = [Item(e.file, e.reader, None, e.split or split) for e, (split, _) in zip(entries, words, strict=True)]
    by_name = any(split for split, _ in words)
    return Source(
        name=short_name(path),
        items=tuple(items),
        readers={name: readers[name] for name in sorted({item.reader for item in items})},
        fields=_columns(items, readers),
        # beside arrays, a file of another kind is not an item that failed
        bad=tuple(error for error in listing.bad if error.reason.startswith("this folder")),
        ignored=(*listing.ignored, *(e.path for e in listing.bad if not e.reason.startswith("this folder"))),
        split=listing.split or ("published by file names" if by_name else ""),
        notes=tuple(listing.notes),
        companions=(*labels, *_class_names(entries)),
    )


def _class_files(path: Path, listing: Listing) -> Source:
    """Each file is a class: `exons.fasta` and `introns.fasta`, or `exons_train.fasta`, `exons_test.fasta`, ..."""
    names = [re.sub(r"\.gz$", "", entry.file.name, flags=re.IGNORECASE) for entry in listing.entries]
    stems = [name.rpartition(".")[0] or name for name in names]
    words = [split_in(stem) for stem in stems]
    items = []
    for entry, stem, (split, rest) in zip(listing.entries, stems, words, strict=True):
        if all(word and other != "*" for word, other in words):  # else "test" is a class like the others
            before, _, after = rest.partition("*")
            stem = f"{stem[: len(before)]}{stem[len(stem) - len(after) :]}".strip("_-. ")
            entry.split = entry.split or split
            listing.split = listing.split or "published by file names"
        items.append(Item(entry.file, entry.reader, stem, entry.split, many=True))
    return _source(path, listing, items)


def _columns(items: list[Item], readers: dict[str, Reader]) -> tuple[str, ...]:
    """The columns of items within files, as the first files have them."""
    return tuple(dict.fromkeys(c for item in items[:20] for c in readers[item.reader].columns(item.file)))


def _class_a_file(entry: Entry) -> bool:
    """Whether files of this format hold many items that may all be of the class that a folder or name says."""
    return bool(READERS.get(entry.reader).tags.get("class_a_file"))


def _class_names(entries: list[Entry]) -> list[File]:
    """Files of class names that CIFAR's reader takes."""
    names = ("batches.meta.txt", "fine_label_names.txt") if any(entry.reader == "cifar" for entry in entries) else ()
    return [found for name in names if (found := entries[0].file.sibling(name))]


def _is_sidecar(reader: Reader, file: File) -> bool:
    """Whether the file holds the labels of another, by its reader's own rule or by its name."""
    own_rule = getattr(reader, "sidecar", None)
    try:
        return bool(own_rule(file)) if own_rule else holds_labels(file.name)
    except ReadError:
        return False  # reading it will say what is wrong


def _readers(names: Iterable[str]) -> dict[str, Reader]:
    return {name: READERS.create(name) for name in sorted(set(names))}
