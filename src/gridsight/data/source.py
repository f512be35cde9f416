"""What DATA on the command line means, before anything is decoded: which files, read by what, labelled how.

A path comes first, then a named set, then `$GRIDSIGHT_DATA/<name>`. Nothing is opened that its name explains, so that
60,000 files take about a second; a file whose content is not what its name says fails when it is read, with its path.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gridsight.core.errors import ReadError, UsageError, nearest
from gridsight.data.files import File
from gridsight.data.names import check_column, natural_order
from gridsight.data.readers import Reader

GROUP = "group"
"""A column of this name is one whose items belong together, without `--group`."""


@dataclass(frozen=True)
class Item:
    """One file with what its folder or name says: `label`, `split` ("train", "val", "test") and further `fields`.

    A file without a label holds many items (IDX, npz, .ts), whose own label and split win; so may one of a format that
    puts a class of items into a file (`many`: FASTA). `file` may be a folder, of the slices or frames of one item.
    """

    file: File
    reader: str
    label: str | None = None
    split: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    many: bool = False


@dataclass(frozen=True)
class Source:
    """The files of one data set. `bad` are files that cannot be used, `ignored` what is no data; both are named.

    `target` names the column that the labels come from, "" where they are folders or parts of names; `place` is that
    column of a table without a header ("column 3"), whose number says nothing of what the labels mean.

    `split` says in words where the split comes from, "" when there is none; `fields` are the columns that exist and
    `group` the one in use; `companions` are files that a reader takes besides the items' own, such as labels; `empty`
    are class folders that hold nothing; `clips`: items are frames in time.
    """

    name: str
    items: tuple[Item, ...]
    readers: Mapping[str, Reader]
    bad: tuple[ReadError, ...] = ()
    ignored: tuple[str, ...] = ()
    split: str = ""
    group: str | None = None
    fields: tuple[str, ...] = ()
    axes: str | None = None
    pattern: str | None = None
    notes: tuple[str, ...] = ()
    companions: tuple[File, ...] = ()
    empty: tuple[str, ...] = ()
    target: str = ""
    place: str = ""
    clips: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that folders and names give, in natural order; those inside files are not known yet."""
        return tuple(natural_order({item.label for item in self.items if item.label is not None}))

    def fingerprint(self, whole: bool = False) -> str:
        """A key (32 hex digits) that changes with any file, reader version, label, split, axes or pattern.

        Files on disk count by path, size, mtime and both ends, `whole`: by all bytes; an archive counts once.
        """
        digest = hashlib.blake2b(digest_size=16)
        for name, used in sorted(self.readers.items()):
            options = {key: value for key, value in vars(used).items() if isinstance(value, str | bool) and value}
            digest.update(f"{name} {used.version} {sorted(options.items()) or ''}\n".encode())
        digest.update(f"{self.axes} {self.pattern}\n".encode())
        archives: set[Path] = set()
        for item in self.items:
            labels = "\x1f".join((item.reader, str(item.label), str(item.split), *map(str, item.fields.items())))
            reader = self.readers.get(item.reader)
            for file in (item.file, *(reader.beside(item.file) if reader is not None else ())):
                if file.member is None:
                    digest.update(f"{file.fingerprint(whole=whole)} {labels}\n".encode("utf-8", "surrogateescape"))
                else:
                    archives.add(file.path)
                    digest.update(f"{file.member} {labels}\n".encode("utf-8", "surrogateescape"))
        for file in (*map(File, sorted(archives)), *self.companions):
            digest.update(f"{file.fingerprint(whole=whole)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def find(
    data: str,
    *,
    pattern: str | None = None,
    group: str | None = None,
    axes: str | None = None,
    target: str | None = None,
    frames: bool = False,
    usual: str = "",
    clips: bool = False,
    grouped: str | None = None,
    resplit: bool = True,
) -> Source:
    """The source that `data` names. `pattern` says what file names hold, `group` which column must not be split.

    `target` is the column of a table that holds the labels (`usual` is taken without it where there is such a column);
    `grouped` is that of the groups where `group` is None and a table has it; without `resplit` a group leaves the split
    of a named set as published; with `frames` each folder of pictures is one clip, with `clips` where there are no
    other clips.
    Raises `UsageError` when there is no such data, or when it cannot be understood: what was found, and what to give.
    """
    given = {"pattern": pattern, "axes": axes, "target": target, "frames": frames or None}
    source = (
        _named(data, [name for name, value in given.items() if value is not None]) if _on_disk(data) is None else None
    )
    if source is None:
        path = _on_disk(data) or _in_data_folder(data)
        if path is None:
            raise _unknown(data)
        from gridsight.data.layout import understand
        from gridsight.data.tabular import Choice

        source = replace(understand(path, pattern, Choice(target, group, frames, usual, clips, grouped)), axes=axes)
        if group is None and GROUP in source.fields and not source.split:
            return replace(source, group=GROUP, notes=(*source.notes, f"the column {GROUP} keeps its items together"))
    elif group is not None and source.split and resplit:
        # the publisher's rule would put one group on both sides
        note = f"split by {group} instead of the publisher's rule ({source.split})"
        items = tuple(replace(item, split=None) for item in source.items)
        source = replace(source, items=items, split="", notes=(*source.notes, note))
    if group is not None:
        check_column(group, source.fields, source.name)
        return replace(source, group=group)
    if source.fields and source.split and source.group is None:
        note = (
            f"columns {', '.join(source.fields)} exist and are not used; --group NAME keeps a column's items together"
        )
        source = replace(source, notes=(*source.notes, note))
    elif "patient" in source.fields and source.group is None:
        note = "the patient of each item is known; --group patient keeps a patient on one side of the split"
        source = replace(source, notes=(*source.notes, note))
    return source


def asked(settings: Any) -> dict[str, Any]:
    """What the settings of a verb tell `find` of the data."""
    return {name: getattr(settings, name) for name in ("pattern", "group", "axes", "target", "frames")}


def data_folder() -> Path | None:
    """`$GRIDSIGHT_DATA`: the folder that holds named sets under their names."""
    given = os.environ.get("GRIDSIGHT_DATA")
    return Path(given).expanduser() if given else None


def short_name(path: Path) -> str:
    """A name fit for a run folder: the last part of the path, without suffixes and unusual characters."""
    name = path.name or path.resolve().name
    if not path.is_dir():
        suffixes = (
            "gz|bz2|xz|tar|tgz|tbz2?|txz|zip|csv|tsv|tab|data|parquet|pq|npz|npy|ts|bin|fasta|fas?|fna|ffn|frn|faa"
        )
        name = re.sub(rf"(\.({suffixes}))+$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"


def _on_disk(data: str) -> Path | None:
    """The path that `data` names: a file, a folder, or the first part of the names of one set's files."""
    path = Path(data).expanduser()
    if os.path.lexists(path):
        return path
    from gridsight.data.layout import starts_a_set

    return path if starts_a_set(path) else None


def _in_data_folder(data: str) -> Path | None:
    folder = data_folder()
    return _on_disk(str(folder / data)) if folder is not None else None


def _named(data: str, given: list[str]) -> Source | None:
    from gridsight.data.sets import SETS

    if data.lower() not in SETS.names_in_source():
        return None
    if given:
        raise UsageError(f"{data} is a named set, which needs no --{given[0]}; leave it out")
    return SETS.create(data.lower())


def _unknown(data: str) -> UsageError:
    from gridsight.data.sets import SETS

    known = set(SETS.names_in_source())
    path, folder = Path(data).expanduser(), data_folder()
    if folder is not None and folder.is_dir():
        known |= {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    if len(path.parts) > 1:
        if not path.parent.is_dir():
            missing = next(p for p in [*reversed(path.parents), path] if not p.exists())
            return UsageError(f"there is no data at {data}: the folder {missing} does not exist")
        known = {str(path.parent / entry.name) for entry in path.parent.iterdir() if not entry.name.startswith(".")}
        if not known:
            return UsageError(f"there is no data at {data}: the folder {path.parent} is empty")
    return UsageError(f"there is no file, folder or named set {data!r}; {nearest(data, known)}")
