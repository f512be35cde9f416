"""The drawing of a network: what ran, brought to boxes, placed without overlaps, written as plain SVG."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gridsight.__main__ import main
from gridsight.measure.cost import cost
from gridsight.measure.graph import Graph, graph
from gridsight.models import create, published_input
from gridsight.nn.blocks import channel_shuffle
from gridsight.nn.net import Net
from gridsight.reporting.diagram import draw
from gridsight.reporting.layout import Item, Link, arrange
from gridsight.reporting.sketch import Box, sketch

SVG = "{http://www.w3.org/2000/svg}"


def built(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    ndim, channels, spatial = published_input(name)
    with torch.device("meta"):
        return create(name, ndim=ndim), (channels, *spatial)


def traced(name: str) -> tuple[Graph, tuple[int, ...]]:
    net, shape = built(name)
    return graph(net, shape), shape


def drawn(name: str) -> str:
    net, shape = built(name)
    total = cost(net, shape)
    return draw(graph(net, shape), name, shape, {"parameters": total.parameters, "macs": total.macs})


def shown(box: Box) -> object:
    """A box as nested text: `words`, or (class, repetitions, boxes)."""
    if box.kind != "frame":
        return " · ".join(box.words) + (f" x {len(box.alike)}" if box.others else "")
    return (box.call.kind if box.call else None, len(box.alike), [shown(inner) for inner in box.inner])


class Branches(nn.Module):
    """A shortcut, a number, a buffer, a parameter of its own, a result that nobody reads, and a split."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * self.gain + 1
        y.exp()
        first, second = y.chunk(2, 1)
        return x + torch.cat([second, first], 1)


def test_graph_follows_tensors_through_views_and_parameters() -> None:
    net = Branches()
    steps = {step.op: step for step in graph(net, (4, 9)).steps}
    assert list(steps) == ["convolution", "mul", "add", "cat"]  # the number and the sum are both `add`; exp is not read
    assert steps["cat"].shape == (4, 9) and {shape for _, shape in steps["cat"].reads} == {(2, 9)}
    assert [source and source.op for source, _ in steps["add"].reads] == [None, "cat"]
    assert sorted(steps["convolution"].parameters.values()) == [4, 48] and steps["convolution"].macs == 9 * 48
    assert list(steps["mul"].parameters.values()) == [4]


def test_graph_keeps_tokens_apart_from_channels() -> None:
    found = graph(nn.Sequential(nn.Linear(6, 8), nn.GELU()), (5, 6))
    assert [step.shape for step in found.steps] == [(5, 8), (5, 8)]


def test_graph_splits_and_shuffles_channels() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.inner = nn.Conv1d(4, 6, 1), nn.Conv1d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            tokens = x.transpose(1, 2).contiguous().transpose(1, 2)  # another order in memory, but no shuffle
            return channel_shuffle(torch.cat([tokens[:, :3], self.inner(tokens[:, 3:])], 1), 2)

    conv, split, half, cat, shuffle = graph(Halves(), (4, 9)).steps
    assert [step.op for step in (conv, split, half, cat)] == ["convolution", "split", "convolution", "cat"]
    assert split.reads == ((conv, (6, 9)),) and half.reads == ((split, (3, 9)),)
    assert cat.reads == ((split, (3, 9)), (half, (3, 9)))
    assert (shuffle.op, shuffle.reads, shuffle.shape) == ("channel_shuffle", ((cat, (6, 9)),), (6, 9))


def test_sketch_of_a_block_that_splits_and_shuffles_channels() -> None:
    found, shape = traced("shufflenet_v2_x1_0")
    drawing = sketch(found, shape)
    block = drawing.boxes[2].inner[-1]
    assert shown(block) == (
        "Block",
        3,
        [
            "split",
            "conv 1 × 1, 58 · norm · relu",
            "depthwise conv 3 × 3, 58 · norm",
            "conv 1 × 1, 58 · norm · relu",
            "concatenate",
            "channel shuffle",
        ],
    )
    split, first, _, last, join, _ = block.inner
    assert {edge.target: edge.shape for edge in drawing.edges if edge.source is split} == {
        first: (58, 28, 28),
        join: (58, 28, 28),
    }
    assert {edge.source for edge in drawing.edges if edge.target is join} == {split, last}


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "crnn", "strandnet", "gridnet", "mobilenet_v2", "vit_b_32"])
def test_graph_has_all_parameters_and_macs(name: str) -> None:
    net, shape = built(name)
    found, total = graph(net, shape), cost(net, shape)
    assert sum(step.macs for step in found.steps) == total.macs
    whole = Box(None, own=list(found.steps))
    assert (whole.parameters, whole.macs) == (total.parameters, total.macs)
    assert [field for _, field in found.stages] == list(total.stages)
    # stages and blocks, with their repetitions, have all of it too
    boxes = sketch(found, shape).boxes
    assert sum(each.macs for box in boxes for each in box.alike) == total.macs
    assert sum(each.parameters for box in boxes for each in box.alike) == total.parameters


def test_sketch_of_lenet() -> None:
    found, shape = traced("lenet5")
    assert [shown(box) for box in sketch(found, shape).boxes] == [
        "input",
        (None, 1, ["conv 5 × 5, 6 · tanh", "mean pool 2 × 2, stride 2"]),
        (None, 1, ["conv 5 × 5, 16 · tanh", "mean pool 2 × 2, stride 2"]),
        (None, 1, ["linear, 120 · tanh", "linear, 84 · tanh", "linear, 10"]),
        "answer",
    ]


def test_sketch_folds_equal_blocks_and_keeps_shortcuts() -> None:
    found, shape = traced("resnet50")
    drawing = sketch(found, shape)
    stages = drawing.boxes[1:-1]
    assert [[len(box.alike) for box in stage.inner] for stage in stages] == [
        [1],
        [1, 1, 2],
        [1, 3],
        [1, 5],
        [1, 2],
        [1, 1],
    ]
    projecting, plain = stages[2].inner
    assert shown(projecting) == (
        "Block",
        1,
        [
            "conv 1 × 1, 128 · norm · relu",
            "conv 3 × 3, 128, stride 2 · norm · relu",
            "conv 1 × 1, 512 · norm",
            "conv 1 × 1, 512, stride 2 · norm",
            "add · relu",
        ],
    )
    into = {edge.source: edge.shape for edge in drawing.edges if edge.target is plain.inner[-1]}
    assert into == {plain.inner[-2]: (512, 28, 28), projecting.inner[-1]: (512, 28, 28)}
    # the three others cost the same
    assert len({each.parameters for each in plain.alike}) == 1


def test_sketch_of_parallel_branches_repeats_nothing() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)

    (stage,) = sketch(graph(Twins(), (4, 9)), (4, 9)).boxes[1:-1]
    assert [shown(box) for box in stage.inner] == ["conv 1, 4", "conv 1, 4", "add"]


def test_layout_keeps_the_main_path_straight_and_shortcuts_beside_it() -> None:
    items = [Item(0, 0, 0), *[Item(50, 50, 20) for _ in range(3)], Item(20, 20, 10), Item(0, 0, 0)]
    chain = [Link(i, i + 1) for i in range(5)]
    places = arrange(items, [*chain, Link(0, 4)])
    assert max(places.x) - min(places.x) < 1
    assert all(a < b for a, b in pairwise(places.y))
    shortcut = places.routes[-1]
    assert all(x - places.x[1] > 50 for x, _ in shortcut[2:-1])
    assert all(a[1] <= b[1] for route in places.routes for a, b in pairwise(route))
    assert min(x for route in places.routes for x, _ in route) >= 0 and places.width >= max(x for x, _ in shortcut)


def test_layout_uncrosses_links() -> None:
    # 1 and 2 read 0; 3 reads 2 and 4 reads 1
    items = [Item(10, 10, 10) for _ in range(5)]
    places = arrange(items, [Link(0, 1), Link(0, 2), Link(2, 3), Link(1, 4)])
    assert (places.x[1] < places.x[2]) == (places.x[4] < places.x[3])


def test_links_that_meet_bend_below_the_labels() -> None:
    # three boxes side by side, the outer ones a row higher, in one join: labels are 15 units high below a box
    items = [Item(0, 0, 0), *[Item(40, 80, 20) for _ in range(4)], Item(20, 20, 10)]
    pairs = [(0, 1), (0, 2), (0, 3), (2, 4), (1, 5), (4, 5), (3, 5)]
    places = arrange(items, [Link(a, b, labelled=b == 5) for a, b in pairs])
    for (_, b), route in zip(pairs, places.routes, strict=True):
        if b == 5:
            assert route[-2][1] >= places.y[4] + 20 + 15 and route[-2][1] + 15 < route[-1][1]


def rectangles(element: ET.Element, x: float = 0.0, y: float = 0.0) -> list[tuple[str, float, float, float, float]]:
    """(class, left, top, right, bottom) of every rectangle."""
    if moved := re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", "")):
        x, y = x + float(moved[1]), y + float(moved[2])
    found = []
    if element.tag == f"{SVG}rect":
        left, top = x + float(element.get("x", 0)), y + float(element.get("y", 0))
        size = float(element.get("width", 0)), float(element.get("height", 0))
        found.append((element.get("class", ""), left, top, left + size[0], top + size[1]))
    return found + [each for child in element for each in rectangles(child, x, y)]


@pytest.mark.parametrize(
    "name", ["lenet5", "resnet18", "resnet152", "gridnet", "crnn", "googlenet", "densenet121", "swin_t"]
)
def test_drawing_is_plain_xml_without_overlaps(name: str) -> None:
    text = drawn(name)
    root = ET.fromstring(text)
    _, _, width, height = map(float, root.get("viewBox", "").split())
    kinds = {"conv", "linear", "pool", "mix", "join", "other"}
    boxes = [box for box in rectangles(root) if box[4] > 90]  # without the legend
    assert all(left >= 0 and right <= width and top >= 0 and bottom <= height for _, left, top, right, bottom in boxes)
    leaves = [box for box in boxes if box[0] in kinds]
    shadows = [(a, b) for a in leaves for b in leaves if abs(a[1] - b[1]) < 3.1 and abs(a[2] - b[2]) < 3.1]
    for a in leaves:
        for b in leaves:
            apart = a[3] <= b[1] or b[3] <= a[1] or a[4] <= b[2] or b[4] <= a[2]
            assert apart or (a, b) in shadows, (a, b)
    assert len(text) < 70_000
    # nothing runs and nothing is loaded; text is text
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "desc", "style", "g", "rect", "path", "text",
    }  # fmt: skip
    assert text.count("http") == 1 and not re.search(r"url\(|@import|href|\bid=|\bon\w+=|var\(", text)
    # every colour is there for light and for dark viewers
    light, dark = root.find(f"{SVG}style").text.split("@media (prefers-color-scheme:dark)")  # type: ignore[union-attr]
    used = {kind for element in root.iter() for kind in element.get("class", "").split()} - {
        "b",
        "frame",
        "halo",
        "line",
    }
    assert all(f".{kind}{{fill:#" in sheet for kind in used for sheet in (light, dark))


def test_drawing_says_what_the_table_says() -> None:
    text = " | ".join(element.text or "" for element in ET.fromstring(drawn("resnet152")).iter(f"{SVG}text"))
    for words in (
        "resnet152: 3 × 224 × 224 to 1,000",
        "60.2 M parameters, 11.5 G multiply-accumulates (MACs)",
        # 7 cells of the stem, 4 of its pool, 3 blocks x 8, 8 + 7 x 16, 16 + 35 x 32
        "Stage 4 | 1,024 × 14 × 14 | receptive field 1,291 | jump 16",
        "Block × 35 | layer3.1 to layer3.35 | 1.12 M parameters each | 218 M MACs each",
        "Head | 2.05 M parameters, 3.4 % | 2.05 M MACs, 0.018 %",
    ):
        assert words in text, words
    assert text.count("Block") == 8


def test_stages_that_hand_on_other_shapes_are_drawn_apart() -> None:
    text = " | ".join(element.text or "" for element in ET.fromstring(drawn("crnn")).iter(f"{SVG}text"))
    for words in ("Stage 1 | 64 × 16", "Stage 2 | 64 × 8", "2.43 k parameters, 73.7 k MACs", "37 k parameters, 590 k"):
        assert words in text, words


def test_figures_in_stages_that_are_drawn_once_are_of_all_of_them() -> None:
    text = " | ".join(element.text or "" for element in ET.fromstring(drawn("vit_b_32")).iter(f"{SVG}text"))
    for words in (
        "Stages 2 to 12 (× 11) | 768 × 7 × 7",
        "Block | blocks.1 to blocks.11 | 7.09 M parameters each | 358 M MACs each",
    ):
        assert words in text, words


def test_figures_of_layers_in_stages_that_are_drawn_once() -> None:
    class Twice(Net):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)

        def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
            yield (x := self.first(x))
            yield self.second(x)

        def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x.mean(2)

    text = draw(graph(Twice(), (2, 9)), "twice", (2, 9), {"parameters": 80, "macs": 648})
    # 4 x (2 x 3 + 1) + 4 x (4 x 3 + 1) parameters; 9 x (24 + 48) MACs
    for words in ("Stages 1 to 2 (× 2)", "80 parameters together", "648 MACs together", "first to second: 80 "):
        assert words in text, words


def test_drawing_is_the_same_each_time() -> None:
    assert drawn("resnet20") == drawn("resnet20")


@pytest.mark.parametrize("name", ["lenet5", "resnet50"])
def test_drawings_of_the_pages_are_those_of_the_command(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / f"{name}.svg"
    texts = [
        [element.text for element in root.iter(f"{SVG}text")]
        for root in map(ET.fromstring, (page.read_text("utf-8"), drawn(name)))
    ]
    assert texts[0] == texts[1]


def test_parameters_that_only_training_reads_are_named() -> None:
    net, shape = built("googlenet")
    found = graph(net, shape)
    text = draw(found, "a<b", shape, {"parameters": cost(net, shape).parameters, "macs": 1})
    used = Box(None, own=list(found.steps)).parameters
    assert used == 6_624_904  # torchvision's googlenet without its auxiliary heads
    assert "6.38 M of the parameters in training alone" in text and "a&lt;b: 3" in text


def test_describe_writes_the_drawing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lenet.svg"
    assert main(["describe", "lenet5", "--svg", str(path)]) == 0
    assert f"drawing: {path}" in capsys.readouterr().out
    assert ET.parse(path).getroot().tag == f"{SVG}svg"
    assert path.read_text(encoding="utf-8") == drawn("lenet5")
    assert main(["describe", "lenet5", "--svg", str(tmp_path / "no" / "lenet.svg")]) == 2
    assert "No such file" in capsys.readouterr().err
