"""The grammar of faces against its own rules, and the unit search against planted detectors and plain loops."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.core.seed import permutation
from gridsight.data.decoding import decode
from gridsight.data.sample import Sample
from gridsight.data.sets import SETS
from gridsight.data.sets.faces import CLASSES, CONCEPTS, Stroke, scene, scenes
from gridsight.measure.intervals import wilson
from gridsight.measure.units import best, find_windows, histograms, responses, search, untrained
from gridsight.models import create
from gridsight.nn.geometry import stage_fields
from gridsight.nn.net import Net

Made = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def made() -> Made:
    return scenes(240, 3)


def plane(truth: np.ndarray, concept: str) -> np.ndarray:
    return truth[..., CONCEPTS.index(concept), :, :]


# ---- the grammar


@pytest.mark.parametrize("turn", [0.0, 0.4, 2.0, np.pi, 5.0])
def test_distances_to_strokes(turn: float) -> None:
    at, half, rise = (3.0, -2.0), 4.0, 2.5
    points = np.random.default_rng(0).uniform(-9, 9, (300, 2)) + at
    cos, sin = np.cos(turn), np.sin(turn)
    axis = np.array([[cos, sin], [-sin, cos]])  # rows: where "down" and "right" of the stroke point to
    t = np.linspace(-1, 1, 20_001)
    radius = (half**2 + rise**2) / (2 * rise)
    angle = t * np.arcsin(half / radius)
    lines = {
        "bar": np.stack([0 * t, half * t], 1),
        "arc": np.stack([radius - rise - radius * np.cos(angle), radius * np.sin(angle)], 1),
    }
    for kind, line in lines.items():
        nearest = np.linalg.norm(points[:, None] - (line @ axis + at)[None, ::20], axis=2).min(1)
        found = Stroke(kind, at, half, turn, rise).distance(points)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, nearest, atol=0.01)
    inside = np.linalg.norm(points - at, axis=1) - half
    np.testing.assert_allclose(Stroke("spot", at, half, turn).distance(points), inside, atol=1e-12)


def test_a_scene_is_a_function_of_its_number_and_seed(made: Made) -> None:
    again, other = scene(7, 3), scene(7, 4)
    np.testing.assert_array_equal(again.picture, made[0][7])
    np.testing.assert_array_equal(again.truth, made[2][7])
    assert again.label == CLASSES[made[1][7]] and not np.array_equal(again.picture, other.picture)
    source = SETS.create("faces", train=3, test=2)
    items = [sample for item in source.items for sample in decode(source, item)]
    assert [type(sample) for sample in items] == [Sample] * 5
    for i, sample in enumerate(items):
        np.testing.assert_array_equal(sample.array, scene(i).picture)  # type: ignore[union-attr]
        assert sample.label == scene(i).label  # type: ignore[union-attr]


def test_labels_are_balanced_and_no_count_of_strokes_tells_them(made: Made) -> None:
    pictures, classes, truth = made
    counts = np.bincount(classes, minlength=4)
    assert np.abs(counts - 60).max() < 4 * np.sqrt(240 * 3 / 16)
    numbers = {c: plane(truth, c).reshape(240, -1).max(1) for c in ("arc", "bar", "spot")}
    numbers["darkness"] = pictures.reshape(240, -1).mean(1) / 20
    for name, values in numbers.items():
        means = np.array([values[classes == k].mean() for k in range(4)])
        error = values.std() / np.sqrt(counts.min())
        assert np.ptp(means) < 5 * error, name


def test_parts_are_where_the_truth_says(made: Made) -> None:
    pictures, classes, truth = made
    for picture, k, planes in zip(pictures, classes, truth, strict=True):
        label, most = CLASSES[k], {c: int(plane(planes, c).max()) for c in CONCEPTS}
        real = label in ("face", "scrambled")
        assert (most["eye"], most["false eye"]) == ((2, 0) if real else (0, 2))
        assert (most["nose"], most["mouth"], most["face"]) == (1, 1, label == "face")
        assert most["arc"] >= 5 and most["bar"] >= 3 and most["spot"] >= 2
        ink = np.any([plane(planes, c) > 0 for c in ("arc", "bar", "spot")], 0)
        assert picture[0][ink].mean() < picture[0][~ink].mean() - 30
        # an eye is what closes around its spot: filling what arcs enclose reaches the spot, or does not
        filled = ndimage.binary_fill_holes(plane(planes, "arc") > 0)
        assert filled is not None
        spots, eyes = plane(planes, "spot"), plane(planes, "eye") + plane(planes, "false eye")
        for i in (1, 2):
            # strokes of parts are numbered first, in the order of their parts
            assert (eyes[spots == i] > 0).all() and len(set(plane(planes, "arc")[eyes == i]) - {0}) >= 2
            assert filled[spots == i].all() == real, label  # arcs may touch a spot outside them
        if label == "face":
            box = plane(planes, "face") > 0
            assert all((box | (plane(planes, c) == 0)).all() for c in ("eye", "nose", "mouth"))


def test_only_faces_and_false_eyes_are_in_order(made: Made) -> None:
    _, classes, truth = made
    orders = set()
    for k, planes in zip(classes, truth, strict=True):
        eyes = plane(planes, "eye") + plane(planes, "false eye")
        rows = [ndimage.center_of_mass(each)[0] for each in (eyes == 1, eyes == 2, plane(planes, "nose") > 0)]
        mouth = ndimage.center_of_mass(plane(planes, "mouth") > 0)
        in_order = max(rows[:2]) < rows[2] < mouth[0]
        assert in_order == (CLASSES[k] in ("face", "false eyes"))
        if not in_order:
            orders.add(tuple(np.argsort([*rows, mouth[0]]) // 2))
    assert len(orders) > 4


# ---- windows and what units say of them


def test_windows_hold_the_concept_or_none_of_it(made: Made) -> None:
    truth = made[2][:40]
    for concept, rivals in itertools.product((0, 3, 7), (None, range(len(CONCEPTS)))):
        found = find_windows(truth, concept, rivals)
        assert found.holds.sum() == sum(len(np.unique(each)) - 1 for each in truth[:, concept])
        assert (found.low >= 0).all() and (found.low + found.side <= 48).all()
        empty = ~found.holds
        assert empty.sum() > 40
        for i, low, holds in zip(found.picture, found.low, found.holds, strict=True):
            box = tuple(map(slice, low, low + found.side))
            assert truth[i, concept][box].any() == holds
            if rivals is not None and not holds:
                middle = tuple(map(slice, low + found.side // 4, low + found.side - found.side // 4))
                assert truth[i][(slice(None), *middle)].any() or concept == 7


@pytest.mark.parametrize("shape", [(37,), (23, 30), (11, 14, 12)])
def test_a_window_takes_the_extremes_of_the_cells_with_their_centres_in_it(shape: tuple[int, ...]) -> None:
    ndim, rng = len(shape), np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(70, 2, *shape)).astype(np.float32))  # more than a batch
    truth = np.zeros((70, 2, *shape), np.uint8)
    for i, c in itertools.product(range(70), range(2)):
        low = rng.integers(0, np.array(shape) - 4)
        truth[(i, c, *map(slice, low, low + 3 + c))] = 1
    arguments = {"widths": (4, 6), "kernels": (5, 3), "strides": (2, 1), "pools": (1, 2), "blocks": 0}
    net = create("gridnet", ndim=ndim, in_channels=2, **arguments)
    fields = stage_fields(net.eval(), 2, shape)
    windows = [find_windows(truth, c, None) for c in range(2)]
    where, said = responses(net.train(), x, windows)
    assert net.training
    assert where == [(0, 0), (0, 1), *((1, c) for c in range(4)), *((2, c) for c in range(6))]
    with torch.no_grad():
        stages = [x.numpy(), *(stage.numpy() for stage in net.eval().forward_stages(x))]
    for found, values in zip(windows, said, strict=True):
        for w in range(0, len(found.picture), 17):
            place: list[tuple[int, ...]] = []
            for stage in range(3):
                cells = []
                for axis in range(ndim):
                    start = fields[stage - 1].start[axis] if stage else 0.0
                    jump = fields[stage - 1].jump[axis] if stage else 1
                    assert start is not None and jump is not None
                    centres = start + jump * np.arange(stages[stage].shape[2 + axis])
                    low, high = found.low[w, axis], found.low[w, axis] + found.side[axis] - 1
                    inside = np.flatnonzero((centres >= low) & (centres <= high))
                    cells.append(inside if len(inside) else [np.abs(centres - (low + high) / 2).argmin()])
                box = stages[stage][found.picture[w]][np.ix_(range(stages[stage].shape[1]), *cells)]
                flat = box.reshape(len(box), -1)
                place += zip(flat.max(1), -flat.min(1), strict=True)
            np.testing.assert_allclose(values[w], place, atol=1e-6)


def test_any_network_can_be_searched(made: Made) -> None:
    x, truth = torch.from_numpy(made[0][:40] / np.float32(255)), made[2][:40, :1]
    for name, arguments in {"resnet20": {}, "gridnet": {"standardise": True}, "lenet5": {"spatial": (48, 48)}}.items():
        net = create(name, in_channels=1, num_classes=4, **arguments)
        shapes = [stage.shape[1] for stage in net.eval().forward_stages(x[:2])]
        table = search(net, x, truth, ("arc",), resamples=0)
        assert [unit.stage for unit in table] == [0, *(s + 1 for s, width in enumerate(shapes) for _ in range(width))]


# ---- the search


class Filters(Net):
    """One convolution, unchanged: (N, 1, *spatial) to (N, filters, *spatial)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, len(weight), weight.shape[-1], padding=weight.shape[-1] // 2, bias=False)
        self.conv.weight.data = weight

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        yield self.conv(x)


def planted(pictures: int, visible: float, seed: int = 0) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Noise with two crosses and two rings of equal ink in each picture; truth, and the two patterns (5, 5)."""
    rng = np.random.default_rng(seed)
    cross = (np.eye(5) + np.eye(5)[::-1]).clip(max=1)
    ring = ((np.indices((5, 5)) - 2).__abs__().max(0) == 2) * 9 / 16
    x, truth = 0.3 * rng.normal(size=(pictures, 1, 32, 32)), np.zeros((pictures, 2, 32, 32), np.uint8)
    for i in range(pictures):
        corners = [(8 * a + 1, 8 * b + 1) for a, b in itertools.product(range(4), repeat=2)]
        for number, spot in enumerate(rng.permutation(len(corners))[:4]):
            box = tuple(slice(c + o, c + o + 5) for c, o in zip(corners[spot], rng.integers(0, 3, 2), strict=True))
            truth[(i, number % 2, *box)] = 1 + number // 2
            x[(i, 0, *box)] += visible * (cross, ring)[number % 2]
    return torch.from_numpy(x.astype(np.float32)), truth, np.stack([cross, ring])


def test_planted_detectors_are_found() -> None:
    x, truth, patterns = planted(60, 1.3)
    noise = np.random.default_rng(1).normal(size=(6, 5, 5))
    templates = patterns - patterns.mean((1, 2), keepdims=True)
    weight = np.concatenate([noise, templates[:1], -templates[1:]])
    net = Filters(torch.from_numpy(weight[:, None].astype(np.float32)))
    names = ("cross", "ring")
    for against in (None, names):
        table = search(net, x, truth, names, against)
        found = best(table)
        for concept, channel, sign in (("cross", 6, 1), ("ring", 7, -1)):
            unit = found[1, concept]
            assert (unit.channel, unit.sign, unit.positives) == (channel, sign, 60)
            assert unit.auc > 0.99 and unit.low > 0.88 and unit.low <= unit.auc <= unit.high
        assert len(table) == 2 * 9 and {unit.n > unit.positives for unit in table} == {True}
        shuffled = search(net, x, truth, names, against, resamples=0, shuffled=True)
        values = np.array([unit.auc for unit in shuffled])
        assert abs(values.mean() - 0.5) < 0.05 and values.max() < 0.65 and np.isnan(shuffled[0].low)
    counts = histograms(table, 10)
    wanted = {(0, c): 1 for c in names} | {(1, c): 8 for c in names}
    assert {place: row.sum() for place, row in counts.items()} == wanted and counts[1, "cross"][9] >= 1


def test_the_area_is_scikit_learns() -> None:
    x, truth, _ = planted(40, 0.3)
    net = Filters(torch.randn(3, 1, 3, 3, generator=torch.Generator().manual_seed(0)))
    table = search(net, x, truth, ("cross", "ring"), resamples=50)
    found = find_windows(truth, 0)
    _, (said,) = responses(net, x, [found])
    searched = np.isin(found.picture, permutation(0, 0, 40)[:20])
    for i, unit in enumerate(table[:4]):
        areas = [roc_auc_score(found.holds[searched], said[searched, i, sign]) for sign in (0, 1)]
        assert (unit.searched, unit.sign) == (pytest.approx(max(areas)), 1 if areas[0] >= areas[1] else -1)
        holds, values = found.holds[~searched], said[~searched, i, int(unit.sign < 0)]
        assert unit.auc == pytest.approx(roc_auc_score(holds, values))
        assert unit.low < unit.auc < unit.high and (unit.n, unit.positives) == (len(holds), holds.sum())


def test_halves_remove_the_luck_of_the_best() -> None:
    lucky, honest = [], []
    for seed in range(5):
        x, truth, _ = planted(30, 0.0, seed)  # nothing to see
        net = Filters(torch.randn(60, 1, 5, 5, generator=torch.Generator().manual_seed(seed)))
        unit = best(search(net, x, truth, ("cross", "ring"), resamples=0, seed=seed))[1, "cross"]
        lucky.append(unit.searched)
        honest.append(unit.auc)
    assert np.mean(lucky) > 0.6
    assert abs(np.mean(honest) - 0.5) < 0.06


def test_a_perfect_area_keeps_an_interval() -> None:
    x, truth, patterns = planted(20, 30.0)
    template = (patterns[0] - patterns[0].mean())[None, None]
    net = Filters(torch.from_numpy(template.astype(np.float32)))
    table = search(net, x, truth, ("cross", "ring"))
    unit = best(table)[1, "cross"]
    assert (unit.auc, unit.high) == (1, 1) and unit.low == pytest.approx(wilson(10, 10)[0])


def test_untrained_networks_are_others_with_sane_norms(made: Made) -> None:
    x = torch.from_numpy(made[0][:40] / np.float32(255))
    net = create("gridnet", in_channels=1, num_classes=4, widths=(8, 8), blocks=0, pools=(1, 2)).eval()
    before = [tensor.clone() for tensor in net.state_dict().values()]
    state = torch.get_rng_state()
    twins = [untrained(net, x, seed) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, net.state_dict().values(), strict=True))
    weights = [twin.stages[0].conv.weight for twin in twins]  # type: ignore[union-attr,index]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], net.stages[0].conv.weight) and not twins[0].training
    normed: list[Tensor] = []
    twins[0].stages[0].norm.register_forward_hook(lambda module, args, out: normed.append(out))  # type: ignore[union-attr,index]
    list(twins[0].forward_stages(x))
    assert normed[0].mean((0, 2, 3)).abs().max() < 1e-4 and (normed[0].std((0, 2, 3)) - 1).abs().max() < 0.01

    class Odd(Filters):
        def __init__(self) -> None:
            super().__init__(torch.ones(1, 1, 3, 3))
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(UsageError, match="Odd has weights and no way"):
        untrained(Odd(), x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.zeros((4, 1, 32, 32), int)}, "truth is .* need"),
        ({"truth": np.zeros((4, 2, 32, 32))}, "must number the instances"),
        ({"truth": np.zeros((4, 2, 32, 32), int)}, "no window with 'cross'"),
        ({"against": ("crss",)}, "against 'crss': concepts are cross, ring"),
        ({"against": ("ring",)}, "'ring' needs another concept"),
    ],
)
def test_wrong_questions(change: dict[str, Any], message: str) -> None:
    x, truth, _ = planted(4, 1.0)
    given: dict[str, Any] = {"truth": truth, "against": None} | change
    with pytest.raises(UsageError, match=message):
        search(Filters(torch.ones(1, 1, 3, 3)), x, given["truth"], ("cross", "ring"), given["against"])
