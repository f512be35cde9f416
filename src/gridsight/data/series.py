"""Folders whose files are one item together: the slices of a volume, the frames of a clip. Their entries become one.

Without a pattern that is so for folders below a class folder (`class/patient/*.dcm`); files that lie in the class
folder itself are items of their own. A pattern says it by its depth: "{label}/{patient}" names the folders. A few files
of each folder are opened to see whether they are slices; where every folder has one only, they are pictures. Frames
are pictures like others, so the user says that folders are clips.
"""

from gridsight.core.errors import UsageError
from gridsight.data.files import File
from gridsight.data.listing import Entry
from gridsight.data.readers import READERS, Reader


def join_series(entries: list[Entry], slashes: int | None) -> list[Entry]:
    """The entries in their order, those of a series as one; `slashes` are those of the pattern, None without one."""
    able = {name for name in {entry.reader for entry in entries} if _can_join(name)}
    groups: dict[tuple[str, tuple[str, ...]], list[Entry]] = {}
    for entry in entries:
        deep = len(entry.parts) > 2 if slashes is None else len(entry.parts) == slashes + 2
        if entry.reader in able and deep:
            groups.setdefault(_key(entry), []).append(entry)
    joined = {key: found for key, found in groups.items() if _is_series(found)}
    if not any(len(found) > 1 for found in joined.values()):
        return entries
    out, done = [], set()
    for entry in entries:
        if (key := _key(entry)) not in joined or entry.reader not in able:
            out.append(entry)
        elif key not in done:
            done.add(key)
            out.append(
                Entry(folder_of(entry.file), entry.parts[:-1], entry.reader, entry.split, entry.above, folder=True)
            )
    return out


def join_frames(entries: list[Entry], data: object) -> list[Entry]:
    """One entry for each folder that holds pictures."""
    other = next((entry for entry in entries if entry.reader != "image"), None)
    if other is not None:
        raise UsageError(f"--frames takes folders of pictures, and {other.file} is none")
    out: dict[tuple[object, ...], Entry] = {}
    for entry in entries:
        if len(entry.parts) < 2:
            raise UsageError(f"with --frames each folder is a clip, and {entry.file} lies in no folder of {data}")
        folder = folder_of(entry.file)
        key = (folder.path, folder.member)
        if key not in out:
            out[key] = Entry(folder, entry.parts[:-1], "image", entry.split, entry.above, folder=True)
    return list(out.values())


def _is_series(entries: list[Entry]) -> bool:
    # not of the first file alone: a broken one must not make pictures of the others
    reader: Reader = READERS.create(entries[0].reader)
    return any(reader.in_series(entry.file) for entry in entries[:3])


def _can_join(reader: str) -> bool:
    return READERS.get(reader).item.in_series is not Reader.in_series


def _key(entry: Entry) -> tuple[str, tuple[str, ...]]:
    return str(entry.file.path if entry.file.member is not None else entry.file.root), (*entry.above, *entry.parts[:-1])


def folder_of(file: File) -> File:
    """The folder that a file lies in."""
    if file.member is None:
        return File(file.path.parent, None, file.root)
    return File(file.path, file.member.rpartition("/")[0] + "/", file.root)
