"""What is said of data that cannot be understood: what was found there, and what to give instead."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from gridsight.core.errors import UsageError
from gridsight.data.listing import Entry, Listing, all_many
from gridsight.data.names import holds_labels, natural_order, propose, split_in
from gridsight.data.readers import READERS


def one_kind(path: Path, readers: Iterable[str]) -> None:
    """Refuse a data set of pictures and sounds."""
    kinds = Counter(READERS.get(name).tags.get("kind", name) for name in readers)
    if len(kinds) > 1:
        listed = " and ".join(f"{count:,} {kind} files" for kind, count in kinds.most_common())
        raise UsageError(f"{path} mixes {listed}; keep one kind in a data set")


def not_sets_in_folders(path: Path, entries: list[Entry]) -> None:
    """Refuse folders that are data sets of their own: a class folder of arrays has one item a file and no split."""
    if not all_many(entries):
        return
    sets = {entry.parts[0] for entry in entries if split_in(entry.file.name)[0] or holds_labels(entry.file.name)}
    if sets == {entry.parts[0] for entry in entries}:
        names = natural_order(sets)
        raise UsageError(f"{path} holds several data sets: {some(names, 12)}; name one, such as {path / names[0]}")


def flat(path: Path, entries: list[Entry]) -> UsageError:
    """Files without class folders."""
    names = [entry.file.name for entry in entries]
    if entries[0].folder:
        return UsageError(
            f"{path} has {len(names):,} folders of frames and no class folders above them; put each class into a "
            f'folder, or say how their names hold it: --pattern "{propose(names) or "{label}_{index}"}" ({names[0]})'
        )
    start = f"{path} is a flat folder of {len(names):,} files without class folders; "
    proposed = propose(names)
    if proposed is not None:
        return UsageError(f'{start}when their names hold the label, say how: --pattern "{proposed}" ({names[0]})')
    return UsageError(
        f'{start}put each class into a folder, or say how names hold it: --pattern "{{label}}_{{index}}.png"'
    )


def nothing(path: Path, listing: Listing) -> UsageError:
    """No file of data."""
    if listing.bad:
        more = f" (and {len(listing.bad) - 1:,} more)" if len(listing.bad) > 1 else ""
        return UsageError(f"{path} holds nothing that can be read; {listing.bad[0]}{more}")
    if listing.ignored:
        seen = some([Path(name).name for name in listing.ignored])
        return UsageError(f"{path} holds no pictures, sounds, arrays or series; it has {seen}")
    return UsageError(f"{path} is empty")


def some(names: Sequence[str], count: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - count:,} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def shown_name(name: str) -> str:
    """A file's name without its split and what follows: "GunPoint_TRAIN.ts" is "GunPoint"."""
    split, rest = split_in(name)
    return name if split is None else name[: rest.index("*")].rstrip("_-. ") or name
