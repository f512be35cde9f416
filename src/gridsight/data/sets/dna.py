"""DNA from the UCI repository: primate splice junctions (60 letters) and E. coli promoters (57 letters).

Format of both: one item a line, `class, name, letters`, blanks around each.
`splice`: 30 letters on either side of a donor (EI), an acceptor (IE) or neither (N). Only 3,005 of its 3,190 items
differ in their letters; equal ones are kept in one fold, or the network would be asked what it was told.
`promoters`: positions -50 to +7 of 53 promoters (+), and 53 pieces of other DNA (-).
Neither has a published split: papers cross-validate splice ten-fold and leave one promoter out at a time.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gridsight.core.errors import DataError, ReadError
from gridsight.data.alphabet import one_hot
from gridsight.data.files import File
from gridsight.data.readers import Reader
from gridsight.data.sample import Sample
from gridsight.data.sets import SETS
from gridsight.data.source import Item, Source, data_folder

MAX_BYTES = 8 << 20
_LINE = re.compile(r"\s*([^,]+?)\s*,\s*([^,]*?)\s*,\s*([^,]+?)\s*")


@dataclass(frozen=True)
class UciReader(Reader):
    """Lines `class, name, letters`; `classes` and `count` are what the publisher's file has."""

    classes: tuple[str, ...]
    count: int

    def read(self, file: File, axes: str | None = None) -> Iterator[Sample | ReadError]:
        """Every item (4, length) with its class; its group is its letters."""
        lines = file.read(MAX_BYTES).decode("utf-8", "replace").splitlines()
        filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        if len(filled) != self.count:
            raise ReadError(file, f"has {len(filled):,} items where UCI's file has {self.count:,}; download it again")
        for number, line in filled:
            found = _LINE.fullmatch(line)
            if found is None or found[1] not in self.classes:
                yield ReadError(
                    f"{file}[{number}]", f"is not a line of class ({', '.join(self.classes)}), name, letters"
                )
                continue
            label, name, letters = found.groups()
            try:
                array = one_hot(letters, "dna")
            except ValueError as error:
                yield ReadError(f"{file}[{number} {name}]", f"line {number}: {error}")
                continue
            yield Sample(array, f"{file}[{number} {name}]", label, group=letters.upper(), alphabet="dna")


def _source(name: str, number: int, slug: str, reader: UciReader, group: str | None) -> Source:
    given = data_folder()
    folders = [given / name, given / f"dna_{name}"] if given is not None else []
    path = next((folder / f"{name}.data" for folder in folders if (folder / f"{name}.data").is_file()), None)
    if path is None:
        where = folders[0] if folders else f"a folder {name}/ and set GRIDSIGHT_DATA to the folder above it"
        raise DataError(
            f"{name} is not here: put {name}.data of https://archive.ics.uci.edu/dataset/{number}/{slug} into {where}"
        )
    item = Item(File(path, None, path.parent), "uci")
    fields = (group,) if group else ()
    return Source(name, (item,), {"uci": reader}, group=group, fields=fields)


@SETS.register("splice", licence="CC BY 4.0", paper="Noordewier, Towell and Shavlik, NIPS 1990", items=3190)
def splice() -> Source:
    """3,190 windows around EI, IE and other places; items of equal letters are one group."""
    reader = UciReader(("EI", "IE", "N"), 3190)
    slug = "molecular+biology+splice+junction+gene+sequences"
    return _source("splice", 69, slug, reader, "letters")


@SETS.register("promoters", licence="CC BY 4.0", paper="Towell, Shavlik and Noordewier, AAAI 1990", items=106)
def promoters() -> Source:
    """106 windows, half of them promoters."""
    slug = "molecular+biology+promoter+gene+sequences"
    return _source("promoters", 67, slug, UciReader(("+", "-"), 106), None)
