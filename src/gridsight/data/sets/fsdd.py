"""FSDD: spoken digits, 8 kHz mono wav, named `{digit}_{speaker}_{index}.wav` (Jackson and others, 2016 on).

The publisher's rule: the first tenth of each speaker's recordings of a digit, indices 0 to 4, are the test set. Copies
exist that lack those; so the five lowest indices present are test. Every speaker is then on both sides: `--group
speaker` gives the figure for a voice never heard.
"""

from dataclasses import replace

from gridsight.core.errors import DataError
from gridsight.data.cache import cache_folder
from gridsight.data.layout import understand
from gridsight.data.sets import SETS
from gridsight.data.source import Source, data_folder

PATTERN = "{label}_{speaker}_{index}.wav"
TEST_INDICES = 5


@SETS.register(
    "fsdd",
    licence="CC BY-SA 4.0",
    paper="https://github.com/Jakobovski/free-spoken-digit-dataset",
    items=3000,
)
def fsdd() -> Source:
    """FSDD from `$GRIDSIGHT_DATA/fsdd` or the user's cache: the wav files, or a zip of them."""
    given = data_folder()
    folders = [folder / "fsdd" for folder in (given, cache_folder() / "sets") if folder is not None]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise DataError(
            "fsdd is not here: download https://github.com/Jakobovski/free-spoken-digit-dataset, put its recordings "
            f"(wav files or a zip of them) into {folders[0]}" + ("" if given else ", or set GRIDSIGHT_DATA")
        )
    source = understand(folder, PATTERN)
    indices = sorted({int(item.fields["index"]) for item in source.items if item.fields["index"].isdecimal()})
    lowest = set(map(str, indices[:TEST_INDICES]))
    items = tuple(replace(item, split="test" if item.fields["index"] in lowest else "train") for item in source.items)
    words = f"recording indices {', '.join(map(str, indices[:TEST_INDICES]))} are test (publisher: the lowest five)"
    return replace(source, name="fsdd", items=items, split=words)
