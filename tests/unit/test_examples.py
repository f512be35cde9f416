"""The scripts in examples/: foreign files of weights, decoded, answer as the networks that wrote them do."""

import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType

import matplotlib
import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torch.nn.functional import conv2d, max_pool2d

import gridsight
from gridsight.core.errors import DataError, UsageError

EXAMPLES = Path(__file__).parents[2] / "examples"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published(name: str) -> Path:
    path = Path(os.environ.get("GRIDSIGHT_DATA", "")) / name
    if "GRIDSIGHT_DATA" not in os.environ or not path.exists():
        pytest.skip(f"$GRIDSIGHT_DATA has no {name}")
    return path


def tfjs(folder: Path) -> dict[str, np.ndarray]:
    """A TensorFlow.js model of random weights in `folder`, in two files."""
    shapes = {"conv_1_1": (3, 3, 3, 10), "conv_1_2": (3, 3, 10, 10), "conv_2_1": (3, 3, 10, 10)}
    shapes |= {"conv_2_2": (3, 3, 10, 10), "output": (1690, 10)}
    random = np.random.default_rng(0)
    arrays = {}
    for name, shape in shapes.items():
        arrays[f"{name}/kernel"] = random.normal(0, np.prod(shape[:-1]) ** -0.5, shape).astype("<f4")
        arrays[f"{name}/bias"] = random.normal(0, 0.1, shape[-1:]).astype("<f4")
    names = list(arrays)
    manifest = []
    for i, part in enumerate((names[:4], names[4:])):
        (folder / f"{i}.bin").write_bytes(b"".join(arrays[name].tobytes() for name in part))
        weights = [{"name": name, "shape": list(arrays[name].shape), "dtype": "float32"} for name in part]
        manifest.append({"paths": [f"{i}.bin"], "weights": weights})
    (folder / "model.json").write_text(json.dumps({"weightsManifest": manifest}))
    return arrays


def keras(arrays: dict[str, np.ndarray], x: torch.Tensor) -> torch.Tensor:
    """What Keras computes with them of (N, 3, 64, 64): the last layer reads (height, width, channel)."""
    weights = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    for stage in (1, 2):
        for layer in (1, 2):
            kernel, bias = weights[f"conv_{stage}_{layer}/kernel"], weights[f"conv_{stage}_{layer}/bias"]
            x = conv2d(x, kernel.permute(3, 2, 0, 1), bias).relu()
        x = max_pool2d(x, 2)
    return x.permute(0, 2, 3, 1).flatten(1) @ weights["output/kernel"] + weights["output/bias"]


def test_tiny_vgg_answers_as_keras_does(tmp_path: Path) -> None:
    arrays = tfjs(tmp_path)
    net = gridsight.create("tiny_vgg").eval()
    net.load_state_dict(script("tiny_vgg_tfjs").decode(tmp_path / "model.json"))
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = keras(arrays, x)
    assert expected.std() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected)


def test_a_short_file_of_tiny_vgg_is_refused(tmp_path: Path) -> None:
    tfjs(tmp_path)
    path = tmp_path / "1.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="output/bias is not float32, or its file is cut short"):
        script("tiny_vgg_tfjs").decode(tmp_path / "model.json")


@pytest.mark.parametrize("text", ("[1]", "{}", "no JSON", '{"weightsManifest": [{"paths": []}]}'))
def test_another_file_is_no_tiny_vgg(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(DataError, match=r"other\.json is no model\.json of TensorFlow\.js"):
        script("tiny_vgg_tfjs").decode(tmp_path / "other.json")


def test_tiny_vgg_names_fourteen_of_the_pages_twenty_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = published("ckpt_tinyvgg")
    pictures = sorted(path for path in (folder / "img").glob("*_*.jpeg"))
    out = tmp_path / "tiny_vgg.safetensors"
    script("tiny_vgg_tfjs").main([str(folder / "data/model.json"), str(out), *map(str, pictures)])
    called = {"boat": "lifeboat", "bug": "ladybug", "pepper": "bell pepper", "bus": "school bus"}
    called |= {"panda": "red panda", "car": "sport car"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(out)
    right = 0
    for path, line in zip(pictures, lines[1:], strict=True):
        kind = path.stem.partition("_")[0]
        right += bool(re.fullmatch(rf"{re.escape(str(path))} {called.get(kind, kind)} [\d.]+%", line))
    assert (right, len(pictures)) == (14, 20)


def compressed(state: dict[str, torch.Tensor], codebook: np.ndarray) -> bytes:
    """A file in the form of "Deep compression", of weights that are all in the codebook."""
    counts, parts = [], []
    for name, weight in state.items():
        if not name.endswith("weight"):
            continue
        flat = weight.flatten().numpy()
        codes, gaps, next_place = [], [], 0
        for place in np.flatnonzero(flat):
            while place - next_place > 15:
                codes.append(0)
                gaps.append(15)
                next_place += 16
            codes.append(int(np.flatnonzero(codebook == flat[place])[0]))
            gaps.append(int(place - next_place))
            next_place = int(place) + 1
        counts.append(len(codes))
        nibbles = np.array(gaps + [0] * (len(gaps) % 2), np.uint8).reshape(-1, 2)
        bias = state[name.replace("weight", "bias")].numpy()
        halves = nibbles[:, 0] | nibbles[:, 1] << 4
        parts += [codebook.tobytes(), bias.tobytes(), bytes(codes), halves.astype(np.uint8).tobytes()]
    return np.array(counts, "<u4").tobytes() + b"".join(parts)


@pytest.fixture(scope="module")
def sparse() -> tuple[dict[str, torch.Tensor], bytes]:
    """Random weights of which few are not zero, as RGB has them, and their file, as Caffe's BGR has them."""
    random = np.random.default_rng(0)
    codebook = random.standard_normal(256).astype("<f4")
    codebook[0] = 0
    state = {}
    for name, value in gridsight.create("squeezenet1_0_caffe").state_dict().items():
        array = random.standard_normal(value.shape).astype("<f4")
        if value.dim() > 1:
            array = np.zeros(value.shape, "<f4")
            places = random.choice(array.size, 40, replace=False)
            array.flat[places] = codebook[random.integers(1, 256, 40)]
        state[name] = torch.from_numpy(array)
    content = compressed(state | {"features.0.weight": state["features.0.weight"].flip(1)}, codebook)
    return state, content


def test_deep_compression_is_undone(sparse: tuple[dict[str, torch.Tensor], bytes]) -> None:
    state, content = sparse
    decoded = script("squeezenet_deep_compression").decode(content, Path("x.net"))
    assert decoded.keys() == state.keys()
    assert all(torch.equal(decoded[name], state[name]) for name in state)


def test_a_damaged_file_of_squeezenet_is_refused(sparse: tuple[dict[str, torch.Tensor], bytes]) -> None:
    decode, (_, content) = script("squeezenet_deep_compression").decode, sparse
    for damaged, message in (
        (content[:-1], "x.net is cut short"),
        (content + b"\0", "1 bytes are left over"),
        (content[:50], "is cut short: 50 bytes, and at least 104 are declared"),
        (b"\xff" * 104 + content[104:], "is cut short"),
    ):
        with pytest.raises(DataError, match=message):
            decode(damaged, Path("x.net"))
    with pytest.raises(DataError, match=r"features\.3\.squeeze has 1,536 weights, not"):
        decode(content[:104] + b"\xff" * (len(content) - 104), Path("x.net"))


def test_squeezenet_names_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it says of a woman with a tie, of a tower with many roofs and of a round flower that has no class."""
    source = published("ckpt_squeezenet_imagenet") / "compressed_SqueezeNet.net"
    photographs = Path(sklearn.datasets.__file__).parent / "images"
    pictures = [Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"]
    pictures += [photographs / "china.jpg", photographs / "flower.jpg", tmp_path / "gray.png"]
    Image.open(pictures[0]).convert("L").save(tmp_path / "gray.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "squeezenet.safetensors"
    asked = [pictures[0], tmp_path / "broken.png", *pictures[1:]]
    with pytest.raises(SystemExit, match="1 of the pictures could not be read"):
        script("squeezenet_deep_compression").main([str(source), str(out), *map(str, asked)])
    lines = capsys.readouterr().out.splitlines()[1:]
    refused = lines.pop(6)
    assert "broken.png" in refused
    assert [line for line in lines if not line.startswith("  ")] == [str(path) for path in pictures]
    best = [re.sub(r"^ +[\d.]+% ", "", line).partition(",")[0] for line in lines if line.startswith("  ")]
    found = {path.stem: best[5 * i : 5 * i + 5] for i, path in enumerate(pictures)}
    assert len(best) == 20
    assert "bow tie" in found["gray"]
    assert found["grace_hopper"][:2] == ["bow tie", "suit"] and "Windsor tie" in found["grace_hopper"]
    assert found["china"][0] == "bell cote" and "monastery" in found["china"]
    assert {"sea urchin", "honeycomb"} <= set(found["flower"])
    assert sum(p.numel() for p in gridsight.load(out).net.parameters()) == 1_248_424


def test_names_of_classes_that_occur_twice_are_refused(
    sparse: tuple[dict[str, torch.Tensor], bytes], tmp_path: Path
) -> None:
    module, (_, content) = script("squeezenet_deep_compression"), sparse
    names = (Path(gridsight.__file__).parent / "data/imagenet_classes.txt").read_text().splitlines()
    assert (len(names), len(set(names)), names[0]) == (1000, 1000, "tench, Tinca tinca")
    (tmp_path / "x.net").write_bytes(content)
    (tmp_path / "names.txt").write_text(
        "\n".join(name.replace(" (bird)", "").replace(" (machine)", "") for name in names)
    )
    with pytest.raises(UsageError, match="names a class twice"):
        module.convert(tmp_path / "x.net", tmp_path / "out.safetensors", tmp_path / "names.txt")
