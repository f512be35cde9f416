"""1,000 JPEG photographs of 0.15 to 0.3 megapixels, made once: what the questions about input are measured on.

Half are windows of the blood smears of `bccd` (`$GRIDSIGHT_DATA`), half of the colour photographs that come within the
wheels of scikit-learn and scikit-image; a folder a source. A window, at least as large as wanted, is shrunk to a random
size; quality 90, 4:2:0. Seeded: the same files everywhere, for one version of Pillow.

Needs, beside Gridsight: `pip install -c constraints.txt scikit-image`.

    python benchmarks/photos.py     # makes them, says where they are and how large
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from gridsight.data.cache import cache_folder

COUNT, QUALITY = 1000, 90
SMALLEST, LARGEST = 0.15e6, 0.3e6  # pixels
BCCD = Path(os.environ.get("GRIDSIGHT_DATA", Path(__file__).parents[2] / "shared" / "data")) / "bccd" / "JPEGImages"


def bundled() -> dict[str, Image.Image]:
    """The colour photographs in the wheels of scikit-learn and scikit-image, by name."""
    import skimage
    import sklearn

    pictures = Path(sklearn.__file__).parent / "datasets" / "images"
    data = Path(skimage.__file__).parent / "data"
    paths = [pictures / "china.jpg", pictures / "flower.jpg", data / "hubble_deep_field.jpg", data / "rocket.jpg"]
    paths += [data / f"{name}.png" for name in ("astronaut", "coffee", "ihc", "motorcycle_left")]
    return {path.stem: Image.open(path).convert("RGB") for path in paths}


def photos() -> Path:
    """The folder of photographs, `source/NNNN.jpg`; made when it is not there."""
    folder = cache_folder() / "benchmarks" / "photos-1"
    if folder.exists():
        return folder
    smears, others = sorted(BCCD.glob("*.jpg")), bundled()
    if not smears:
        raise SystemExit(f"{BCCD} has no pictures: set GRIDSIGHT_DATA to the folder that holds bccd")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        if number % 2:
            source, picture = "smear", Image.open(smears[number // 2 % len(smears)]).convert("RGB")
        else:
            source = sorted(others)[number // 2 % len(others)]
            picture = others[source]
        target = made / source / f"{number:04}.jpg"
        target.parent.mkdir(exist_ok=True)
        window(picture, rng).save(target, quality=QUALITY)
    made.rename(folder)  # whole or not at all
    return folder


def window(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random window of a picture, shrunk to a random number of pixels: enlarged, it would have too little detail."""
    whole = picture.width * picture.height
    pixels = rng.uniform(SMALLEST, min(LARGEST, whole))
    share = rng.uniform((pixels / whole) ** 0.5, 1.0)
    width, height = (round(share * side) for side in picture.size)
    left, top = int(rng.integers(0, picture.width - width + 1)), int(rng.integers(0, picture.height - height + 1))
    scale = (pixels / (width * height)) ** 0.5
    size = round(width * scale), round(height * scale)
    return picture.resize(size, Image.Resampling.LANCZOS, (left, top, left + width, top + height))


if __name__ == "__main__":
    files = sorted(photos().glob("*/*.jpg"))
    sizes = [path.stat().st_size for path in files]
    pixels = [np.prod(Image.open(path).size) for path in files]
    print(f"{photos()}: {len(files):,} files")
    print(f"mean {np.mean(pixels) / 1e6:.2f} megapixels and {np.mean(sizes) / 1e3:.0f} kB")
