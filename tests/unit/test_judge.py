"""Verdicts: each check green on what is right and red on what is wrong; planted evidence; the axioms as figures."""

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from gridsight.attribution import EXPLAINERS, Explainer, Map, attribute
from gridsight.attribution.judge import Check, Verdict, judge
from gridsight.attribution.judge.axioms import Exchanged, axioms, blind_to
from gridsight.attribution.judge.compare import compare
from gridsight.attribution.judge.completeness import completeness
from gridsight.attribution.judge.evidence import evidence
from gridsight.attribution.judge.planted import CLASSES, planted
from gridsight.attribution.judge.randomised import alike, randomised, shuffled
from gridsight.attribution.judge.stability import stability
from gridsight.core.errors import UsageError
from gridsight.measure.layers import layers
from gridsight.models import create

SPATIAL = {1: (96,), 2: (20, 20), 3: (8, 8, 8)}
CHEAP: dict[str, dict[str, int]] = {
    "lime": {"samples": 128},
    "shapley": {"count": 8},
    "smooth_grad": {"samples": 8},
    "integrated_gradients": {"steps": 8, "most": 64},
}
SIGNED = ("cam", "deeplift", "grad_cam", "input_x_gradient", "integrated_gradients", "occlusion", "shapley")


@functools.cache
def _trained(ndim: int, seed: int = 0) -> nn.Module:
    """A small network that has learned the planted patterns, each class against all else."""
    x, y, _ = planted(ndim, 512, 1000 + seed, SPATIAL[ndim])
    wanted, numbers = one_hot(y, len(CLASSES)).float(), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"widths": (8, 16), "blocks": (0, 1), "pools": (2, 2) if ndim < 3 else (2, 1)}
    net = create("gridnet", ndim=ndim, in_channels=1, num_classes=len(CLASSES), **shape)
    steps = 60
    optimiser = torch.optim.AdamW(net.parameters(), 0.03, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.03, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,), generator=numbers)
        optimiser.zero_grad()
        binary_cross_entropy_with_logits(net(x[rows]), wanted[rows]).backward()
        optimiser.step()
        schedule.step()
    for p in net.parameters():
        p.grad = None
    return net.eval()


def _linear(weight: Tensor) -> nn.Module:
    """The answer is the sum of weight times x; the other output its negative."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 2, bias=False))
    net[1].weight.data = torch.stack([weight.flatten(), -weight.flatten()])
    return net


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ONE = torch.zeros(1, dtype=torch.int64)


# ---- planted evidence


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_planted_patterns_are_the_evidence_and_lie_anywhere(ndim: int) -> None:
    x, y, truth = planted(ndim, 300, 5)
    assert x.shape == (300, 1, *truth.shape[1:]) and truth.dtype == torch.bool
    again = planted(ndim, 300, 5)
    assert all(torch.equal(a, b) for a, b in zip(again, (x, y, truth), strict=True))
    assert not torch.equal(planted(ndim, 300, 6)[0], x)
    assert y.bincount().min() > 60
    # every item has a pattern of one size; the middle is in it no more often than its share of the place says
    sizes = truth.flatten(1).sum(1)
    assert sizes.unique().numel() == 1 and float(sizes[0]) / truth[0].numel() < 0.2
    assert float(truth[(slice(None), *(n // 2 for n in truth.shape[1:]))].float().mean()) < 0.4
    # blocks are of one sign within, and half of what stands out lies outside of the pattern
    block = x[y == 0][:, 0][truth[y == 0]]
    assert float(block.mean()) == pytest.approx(1, abs=0.02) and float(block.std()) == pytest.approx(0.1, abs=0.02)
    assert float((x[:, 0].abs() * ~truth).sum()) > float((x[:, 0].abs() * truth).sum())


@pytest.mark.parametrize(("ndim", "seed"), [(1, 0), (1, 1), (2, 0), (3, 0)])
def test_small_networks_learn_them(ndim: int, seed: int) -> None:
    net, (x, y, _) = _trained(ndim, seed), planted(ndim, 200, 77, SPATIAL[ndim])
    with torch.no_grad():
        assert float((net(x).argmax(1) == y).float().mean()) > 0.97


@pytest.mark.parametrize("name", [*SIGNED, "layer_cam", "lime"])
@pytest.mark.parametrize(("ndim", "seed"), [(1, 0), (1, 1), (2, 0), (3, 0)])
def test_sound_methods_are_not_red(name: str, ndim: int, seed: int) -> None:
    assert EXPLAINERS.get(name).tags["sound"]
    net, (x, y, _) = _trained(ndim, seed), planted(ndim, 2, 50 + seed, SPATIAL[ndim])
    explainer = EXPLAINERS.create(name, **CHEAP.get(name, {}))
    colours = [verdict.colour for verdict in judge(net, x, y, explainer, explainer(net, x, y))]
    assert "red" not in colours


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_most_three_of_two_hundred_maps_are_red() -> None:
    names = [entry.name for entry in EXPLAINERS.entries() if entry.tags["sound"] and entry.tags["needs"] != "passes"]
    red = dict.fromkeys([*names, "occlusion"], 0)
    for seed in range(20):
        net, (x, y, _) = _trained(1, seed), planted(1, 10, 3000 + seed, SPATIAL[1])
        for name in red:
            own = EXPLAINERS.create(name)
            red[name] += sum(verdict.colour == "red" for verdict in judge(net, x, y, own, own(net, x, y), seed=seed))
    assert max(red.values()) <= 3, red


@pytest.mark.parametrize(("ndim", "seed"), [(1, 0), (1, 1), (2, 0), (3, 0)])
def test_evidence_is_found_where_it_was_planted(ndim: int, seed: int) -> None:
    net, (x, y, truth) = _trained(ndim, seed), planted(ndim, 10, 50 + seed, SPATIAL[ndim])
    hits = {}
    for name in SIGNED:
        found = EXPLAINERS.create(name, **CHEAP.get(name, {}))(net, x, y).values
        # the highest cell; many where regions are judged
        hits[name] = sum(bool(own[v == v.max()].any()) for v, own in zip(found, truth, strict=True)) / len(x)
    middle = float(truth[(slice(None), *(n // 2 for n in x.shape[2:]))].float().mean())
    assert min(hits.values()) >= 0.8 and sum(hits.values()) / len(hits) >= 0.9 > middle, hits


# ---- broken explainers


@dataclass(frozen=True)
class Broken:
    """Input times gradient made wrong, and maps that ask nobody."""

    how: str

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        if self.how == "other class":
            return attribute(net, x, "input_x_gradient", (target + 1) % len(CLASSES))
        if self.how == "edges":
            return Map(values=torch.gradient(x[:, 0], dim=-1)[0].abs())
        if self.how == "constant":
            return Map(values=torch.ones_like(x[:, 0]))
        if self.how == "input":
            return Map(values=x[:, 0].abs())
        if self.how == "guided, shuffled weights":
            return attribute(shuffled(_trained(x.dim() - 2), 3), x, "guided_backprop", target)
        values = attribute(net, x, "input_x_gradient", target).values
        if self.how == "dealt out anew":
            numbers = torch.Generator().manual_seed(4)
            orders = torch.stack([torch.randperm(values[0].numel(), generator=numbers) for _ in x])
            return Map(values=values.flatten(1).gather(1, orders).view(values.shape))
        assert self.how == "moved"
        return Map(values=values.roll([n // 2 for n in values.shape[1:]], tuple(range(1, values.dim()))))


@pytest.mark.parametrize("how", ["other class", "edges", "constant", "input", "guided, shuffled weights", "moved"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_broken_explainers_are_red(how: str, ndim: int) -> None:
    net, (x, y, _) = _trained(ndim), planted(ndim, 4, 60, SPATIAL[ndim])
    own = Broken(how)
    assert [verdict.colour for verdict in judge(net, x, y, own, own(net, x, y))] == ["red"] * 4


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_maps_that_are_dealt_out_anew_are_red_but_for_luck(ndim: int) -> None:
    net, (x, y, _) = _trained(ndim), planted(ndim, 10, 60, SPATIAL[ndim])
    colours = [check.colour for check in evidence(net, x, y, Broken("dealt out anew")(net, x, y))]
    assert colours.count("red") >= 7, colours


def test_a_map_of_another_network_is_not_green() -> None:
    net, (x, y, _) = _trained(2), planted(2, 4, 60, SPATIAL[2])
    own = EXPLAINERS.create("guided_backprop")
    colours = [verdict.colour for verdict in judge(net, x, y, own, own(shuffled(net, 3), x, y))]
    assert "green" not in colours


# ---- each check


def test_completeness_reads_the_residual() -> None:
    def said(parts: list[float], gap: float) -> Check:
        return completeness(
            Map(values=torch.zeros(1, 2), parts=torch.tensor([parts]).double(), gap=torch.tensor([gap]).double())
        )[0]

    assert (said([0.5, 0.5], 1.0).colour, said([0.5, 0.49], 1.0).colour, said([0.5, 0.4], 1.0).colour) == (
        "green",
        "amber",
        "red",
    )
    assert said([1.0, 0.5], 1.0).value == pytest.approx(0.5)
    none = completeness(Map(values=torch.zeros(2, 3)))
    assert [check.value for check in none] == [None, None] and none[0].colour == "green"


def test_evidence_against_a_loop_and_its_controls() -> None:
    weight = torch.zeros(1, 16)
    weight[0, 3:7] = torch.tensor([1.0, 2.0, 4.0, 1.5])
    net, x = _linear(weight), torch.ones(1, 1, 16)
    terms = weight * x[:, 0]
    (check,) = evidence(net, x, ONE, Map(values=terms))
    # by hand: the answer is the sum of the terms that are shown, in the order of the mean of each and its neighbours
    near = [float(terms[0, max(0, i - 1) : i + 2].mean()) for i in range(16)]
    order = sorted(range(16), key=lambda i: -near[i])
    best, shares = [float(terms[0, i]) for i in order], [round((k + 0.5) / 8 * 16) for k in range(8)]
    expected = sum(sum(best[:n]) - sum(best[16 - n :]) for n in shares) / 8 / 8.5
    assert check.value == pytest.approx(expected, abs=1e-6)
    assert check.colour == "green" and check.p == pytest.approx(1 / 40)
    (check,) = evidence(net, x, ONE, Map(values=-terms))
    assert check.colour == "red" and check.value == pytest.approx(-expected, abs=1e-6)
    for flat in (torch.zeros(1, 16), torch.ones(1, 16)):
        (check,) = evidence(net, x, ONE, Map(values=flat))
        assert check.colour == "red" and check.value is None and "flat" in check.sentence
    # of a gradient the sizes count: less of this cell is more of the answer, and it is less than nothing
    x[0, 0, 4], weight[0, 4] = -1, -2.0
    (check,) = evidence(_linear(weight), x, ONE, Map(values=weight), sizes=True)
    assert check.colour == "green"


def test_luck_has_any_p_alike() -> None:
    net, x = _linear(_random(1, 64)), _random(1, 1, 64, seed=1)
    p = [evidence(net, x, ONE, Map(values=_random(1, 64, seed=2 + i)))[0].p or 0.0 for i in range(40)]
    assert 0.35 < sum(p) / len(p) < 0.65
    assert sum(each <= 0.1 for each in p) <= 10


def test_alike_is_the_correlation_of_ranks_with_ties() -> None:
    a, b = _random(3, 5, 4).mul(2).round(), _random(3, 5, 4, seed=1).mul(2).round()
    expected = [spearmanr(p.flatten(), q.flatten()).statistic for p, q in zip(a, b, strict=True)]
    assert alike(a, b).tolist() == pytest.approx(expected, abs=1e-12)
    assert alike(a, 3 * a + 1).tolist() == pytest.approx([1, 1, 1])
    assert alike(a, torch.zeros_like(b)).tolist() == [0, 0, 0]


def test_shuffled_weights_are_the_same_numbers_elsewhere() -> None:
    net = _trained(1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    twin = shuffled(net, 1)
    for name, weight in twin.named_parameters():
        own = before[name]
        assert torch.equal(weight.flatten().sort().values, own.flatten().sort().values)
        assert torch.equal(weight, own) == (weight.dim() < 2 or bool((own == own.flatten()[0]).all()))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_randomised_tells_a_method_that_ignores_the_weights() -> None:
    net, x = _linear(_random(1, 64)), _random(2, 1, 64, seed=1)
    target = torch.zeros(2, dtype=torch.int64)
    own = EXPLAINERS.create("gradient")
    said = randomised(net, x, target, own, own(net, x, target))
    assert [check.colour for check in said] == ["green", "green"] and abs(said[0].value or 1) < 0.4
    own = Broken("input")
    said = randomised(net, x, target, own, own(net, x, target))
    assert [check.colour for check in said] == ["red", "red"] and said[0].value == pytest.approx(1)
    assert "the input, not the network" in said[0].sentence


def test_stability_tells_a_method_that_draws_at_random() -> None:
    net, x = _linear(_random(1, 64)), _random(2, 1, 64, seed=1)
    target = torch.zeros(2, dtype=torch.int64)
    own = EXPLAINERS.create("input_x_gradient")
    assert [c.colour for c in stability(net, x, target, own, own(net, x, target))] == ["green", "green"]
    calls = iter(range(100))

    def draws(net: nn.Module, x: Tensor, target: Tensor) -> Map:
        return Map(values=_random(2, 64, seed=next(calls)))

    said = stability(net, x, target, draws, draws(net, x, target))
    assert [c.colour for c in said] == ["red", "red"] and said[0].value == pytest.approx(1, abs=0.4)


def test_a_verdict_is_its_worst_check() -> None:
    good, none = Check("a", 0.1, "green", "it adds up"), Check("b", None, "green", "it claims no sum")
    amber, red, other = (Check(n, 0.1, c, f"says {n}") for n, c in (("c", "amber"), ("d", "red"), ("e", "red")))
    assert Verdict((good, none)).colour == "green" and Verdict((good, none)).sentence == "it adds up"
    assert Verdict((good, amber)).colour == "amber" and Verdict((good, amber)).sentence == "says c"
    assert Verdict((amber, red, other)).worst is red and Verdict((amber, red, other)).sentence == "says d"


def test_judging_leaves_the_network_as_it_was() -> None:
    net, (x, y, _) = _trained(1).train(), planted(1, 2, 8, SPATIAL[1])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    drawn = torch.get_rng_state()
    try:
        rows = compare(net, x, y, ["cam", "deeplift"])
        assert net.training and all(module.training for module in net.modules())
    finally:
        net.eval()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn) and [row.colour for row in rows] == ["green", "green"]


# ---- axioms


def test_a_linear_network_keeps_all_axioms_and_raw_input_none() -> None:
    net, x = _linear(_random(1, 8, 8)), _random(2, 1, 8, 8, seed=1)
    target = torch.tensor([0, 1])
    for name in ("integrated_gradients", "shapley", "deeplift", "occlusion", "lime"):
        own = EXPLAINERS.create(name)
        for said in axioms(net, x, target, own, own(net, x, target)):
            assert said.why == ""
            assert [said.efficiency, said.dummy, said.symmetry] == pytest.approx([0, 0, 0], abs=1e-4)

    def raw(net: nn.Module, x: Tensor, target: Tensor) -> Map:
        return Map(values=x.sum(1) * torch.arange(64).view(8, 8))

    for said in axioms(net, x, target, raw, raw(net, x, target)):
        assert min(said.efficiency or 0, said.dummy or 0, said.symmetry or 0) > 1e-3


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_shapley_keeps_the_axioms_and_cam_does_not(ndim: int) -> None:
    net, (x, y, _) = _trained(ndim), planted(ndim, 1, 9, SPATIAL[ndim])
    own = EXPLAINERS.create("shapley", count=8)
    (said,) = axioms(net, x, y, own, own(net, x, y))
    assert [said.efficiency, said.dummy, said.symmetry] == pytest.approx([0, 0, 0], abs=1e-5)
    for name in ("cam", "grad_cam"):
        own = EXPLAINERS.create(name)
        found = own(net, x, y)
        (said,) = axioms(net, x, y, own, found)
        assert (said.dummy or 0) + (said.symmetry or 0) > 0.02 and said.why == ""
        assert found.grid is not None
        with torch.no_grad():
            gap = float((net(x) - net(torch.zeros_like(x)))[0, y[0]])
        assert said.efficiency == pytest.approx(abs(float(found.grid.sum()) - gap) / abs(gap), rel=1e-4)


def test_the_networks_of_the_axioms_are_what_they_say() -> None:
    net, x = _trained(2), _random(2, 1, *SPATIAL[2])
    box, other = (..., slice(0, 5), slice(5, 10)), (..., slice(5, 10), slice(10, 15))
    base = torch.full((1, *SPATIAL[2]), 0.5)
    twin = blind_to(net, base, box)
    shown, changed = x.clone(), x.clone()
    shown[box], changed[box] = 0.5, 7.0
    with torch.no_grad():
        assert torch.equal(twin(x), twin(changed)) and torch.allclose(twin(x), net(shown), atol=1e-6)
        swapped = x.clone()
        swapped[box], swapped[other] = x[other], x[box]
        both = Exchanged(net, box, other)
        assert torch.allclose(both(x), both(swapped), atol=1e-5)
        assert torch.allclose(both(x), net(x) + net(swapped), atol=1e-5)
    assert [layer.name for layer in layers(twin, x.shape[1:])] == [layer.name for layer in layers(net, x.shape[1:])]
    plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    blind = blind_to(plain, base, box)
    assert torch.allclose(blind(x), plain(shown), atol=1e-6)
    assert attribute(blind, x, "cam", 0).values.shape == (2, *SPATIAL[2])


def test_the_table_of_methods() -> None:
    net, (x, y, _) = _trained(1), planted(1, 2, 8, SPATIAL[1])
    rows = compare(net, x, y, ["gradient", "cam", "integrated_gradients"], settings={"gradient": {"reduce": "largest"}})
    assert {row.name for row in rows} == {"gradient", "cam", "integrated_gradients"}
    by_name = {row.name: row for row in rows}
    whole = by_name["integrated_gradients"]
    assert whole.colour == "green" and whole.p == pytest.approx(0.025) and (whole.efficiency or 0) < 1e-2
    assert whole.dummy == 0 and (whole.symmetry or 0) < 1e-4 and (whole.seconds or 0) > 0
    assert (by_name["cam"].dummy or 0) > 0.01 and by_name["cam"].layer is not None
    assert by_name["gradient"].residual is None and by_name["gradient"].passes == 1
    colours = [("green", "amber", "red").index(row.colour or "red") for row in rows]
    assert colours == sorted(colours)


def test_a_method_that_cannot_explain_a_network_says_why() -> None:
    net, x = _linear(_random(1, 16)), _random(2, 1, 16, seed=1)
    rows = compare(net, x, None, ["grad_cam", "gradient"])
    assert [row.name for row in rows] == ["gradient", "grad_cam"]
    assert rows[1].colour is None and rows[1].faithful is None and rows[1].says.startswith("not for this network: ")
    with pytest.raises(UsageError, match="outputs are 0 to 1"):
        compare(net, x, 5, ["gradient"])

    def refuses(net: nn.Module, x: Tensor, target: Tensor) -> Map:
        raise UsageError("not today")

    own: Explainer = refuses
    (said,) = axioms(net, x[:1], ONE, own, Map(values=x[:1, 0]))
    assert said.dummy is None and said.why == "not today" and said.efficiency is not None


def test_evidence_for_an_answer_that_falls_is_judged_like_one_that_rises() -> None:
    class Signed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x[:, 0, 4:9].sum(1)
            return torch.stack([total, -total], 1)

    x = torch.zeros(1, 1, 40)
    x[0, 0, 4:9] = 1.0
    colours = []
    for target in (0, 1):
        explainer = EXPLAINERS.create("integrated_gradients")
        wanted = torch.tensor([target])
        (verdict,) = judge(Signed(), x, wanted, explainer, explainer(Signed(), x, wanted))
        (evidence,) = [check for check in verdict.checks if check.name == "evidence"]
        assert evidence.value is not None and evidence.value > 0
        colours.append(evidence.colour)
    assert colours == ["green", "green"]
