"""Series of the UCR (Dau and others 2019, arXiv:1810.07758) and UEA archives (Bagnall and others 2018, 1811.00075).

Each problem is a pair of .ts files, `GunPoint_TRAIN.ts` and `GunPoint_TEST.ts`, with the archive's own split.
"""

from dataclasses import replace

from gridsight.core.errors import DataError
from gridsight.data.layout import starts_a_set, understand
from gridsight.data.sets import SETS
from gridsight.data.source import Source, data_folder

PROBLEMS = {
    "gunpoint": {"problem": "GunPoint"},
    "italypowerdemand": {"problem": "ItalyPowerDemand"},
    "japanesevowels": {"problem": "JapaneseVowels"},
}


@SETS.register(
    PROBLEMS,
    licence="free for research, cite the archive",
    paper="https://www.timeseriesclassification.com",
    items={"GunPoint": 200, "ItalyPowerDemand": 1096, "JapaneseVowels": 640},
)
def ucr(problem: str) -> Source:
    """One problem from `$GRIDSIGHT_DATA/ucr`: its .ts files there, or in a folder of the problem's name."""
    given = data_folder()
    for path in (given / "ucr" / problem, given / "ucr" / problem / problem) if given is not None else ():
        if starts_a_set(path):
            return replace(understand(path), name=problem)
    where = f"{given / 'ucr'}" if given is not None else "a folder ucr/ and set GRIDSIGHT_DATA to the folder above it"
    raise DataError(
        f"{problem} is not here: put {problem}_TRAIN.ts and {problem}_TEST.ts of "
        f"https://www.timeseriesclassification.com into {where}"
    )
