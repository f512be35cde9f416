"""MNIST: 60,000 training and 10,000 test pictures of handwritten digits, 28x28 (LeCun, Cortes and Burges 1998).

The four files in IDX format under their publisher's names; the mirror is the one that torchvision uses. Test pictures
are by writers who are not among the training ones.
"""

from pathlib import Path

from gridsight.data.cache import cache_folder
from gridsight.data.download import Remote, fetch
from gridsight.data.files import File
from gridsight.data.readers import READERS
from gridsight.data.sets import SETS
from gridsight.data.source import Item, Source, data_folder

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = (
    Remote(
        MIRROR + "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    Remote(
        MIRROR + "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    Remote(
        MIRROR + "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    Remote(
        MIRROR + "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)


@SETS.register("mnist", licence="CC BY-SA 3.0", paper="http://yann.lecun.com/exdb/mnist/", items=70_000)
def mnist() -> Source:
    """MNIST from `$GRIDSIGHT_DATA/mnist` (files packed or not), the user's cache, or its mirror."""
    folder = data_folder()
    here = [_present(folder / "mnist", remote) for remote in FILES] if folder is not None else [None]
    cache = cache_folder() / "sets" / "mnist"
    paths = [path for path in here if path is not None]
    if len(paths) < len(FILES):
        paths = [fetch(remote, cache) for remote in FILES]
    images, labels = paths[::2], paths[1::2]
    return Source(
        name="mnist",
        items=tuple(
            Item(File(path, None, path.parent), "idx", None, split)
            for path, split in zip(images, ("train", "test"), strict=True)
        ),
        readers={"idx": READERS.create("idx")},
        split="published by file names",
        companions=tuple(File(path) for path in labels),
    )


def _present(folder: Path, remote: Remote) -> Path | None:
    names = (remote.name, remote.name.removesuffix(".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)
