"""What layers share and have found: CKA against its definition, concepts with a planted truth, mutations of a motif."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridsight.core.errors import UsageError
from gridsight.inside.concepts import concept_maps, find_concepts
from gridsight.inside.mutagenesis import mutagenesis
from gridsight.inside.similarity import cka, similarity
from gridsight.models import create

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SPATIAL = {1: (30,), 2: (12, 12), 3: (8, 8, 8)}


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _by_definition(x: Tensor, y: Tensor, unbiased: bool) -> float:
    """Kornblith et al., equations 3 and 4; Song et al., equation 5, term by term."""
    n, one = len(x), torch.ones(len(x), dtype=torch.float64)
    grams = [each.double() @ each.double().T for each in (x, y)]

    def hsic(k: Tensor, m: Tensor) -> float:
        if not unbiased:
            centre = torch.eye(n, dtype=torch.float64) - 1 / n
            return float((k @ centre @ m @ centre).trace() / (n - 1) ** 2)
        k, m = (each - torch.diag(each.diag()) for each in (k, m))
        sums = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float(((k @ m).trace() + sums - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))

    return hsic(*grams) / (hsic(grams[0], grams[0]) * hsic(grams[1], grams[1])) ** 0.5


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(("n", "d", "e"), [(50, 7, 9), (20, 100, 50), (30, 10, 60)])
def test_cka_is_its_definition_in_both_forms(n: int, d: int, e: int, unbiased: bool) -> None:
    x = _randn(n, d) + 3
    y = _randn(n, e, seed=1) + 2 * x[:, :1]
    assert cka(x, y, unbiased) == pytest.approx(_by_definition(x, y, unbiased), abs=1e-9)
    turn = torch.linalg.qr(_randn(d, d, seed=2))[0]
    assert cka(x, 0.1 * x @ turn, unbiased) == pytest.approx(1, abs=1e-6)
    assert cka(x, x @ _randn(d, d, seed=3), unbiased) < 0.999  # any other map is not the same


def test_only_the_unbiased_one_knows_noise_when_items_are_few() -> None:
    pairs = [(_randn(16, 400, seed=2 * i), _randn(16, 400, seed=2 * i + 1)) for i in range(40)]
    biased = np.mean([cka(x, y, unbiased=False) for x, y in pairs])
    unbiased = np.array([cka(x, y) for x, y in pairs])
    assert biased > 0.9
    assert abs(unbiased.mean()) < 2.5 * unbiased.std() / 40**0.5


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_similarity_of_layers_is_that_of_what_they_wrote(ndim: int) -> None:
    net = create("gridnet", ndim=ndim, in_channels=2, num_classes=4, widths=(6, 8), blocks=(0, 1), pools=(2, 1)).eval()
    x = _randn(40, 2, *SPATIAL[ndim])
    names = ["stage 1", "stage 2", next(name for name, m in net.named_modules() if isinstance(m, nn.Linear))]
    found = similarity(net, x.split(7), names)
    with torch.no_grad():
        written = [*(stage.flatten(1) for stage in net.forward_stages(x)), net(x)]
    expected = [[_by_definition(a, b, True) for b in written] for a in written]
    assert np.allclose(found.values, expected, atol=1e-5) and np.allclose(np.diag(found.values), 1)
    assert (found.n, found.groups, found.unbiased) == (40, 1, True)
    plain = similarity(net, x.split(7), names, unbiased=False)
    assert np.allclose(plain.values, [[_by_definition(a, b, False) for b in written] for a in written], atol=1e-5)
    # groups stream: the estimate is of the same thing
    pieces = similarity(net, x.split(7), names, group=19)
    assert (pieces.n, pieces.groups) == (38, 2) and np.allclose(pieces.values, found.values, atol=0.2)
    other = create("gridnet", ndim=ndim, in_channels=2, num_classes=4, widths=(5,), blocks=(1,), pools=(2,))
    across = similarity(net, x, names, other, ["stage 1"])
    assert across.values.shape == (3, 1) and across.columns == ("stage 1",)
    with pytest.raises(UsageError, match="not"):
        cka(x.flatten(1), x.flatten(1)[1:])


class Planted(nn.Module):
    """Each of 32 channels sees its own; the answers are the first two together, the third, and nothing."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        self.see = CONV[ndim](32, 32, 1)
        nn.init.eye_(self.see.weight.data.view(32, 32))
        nn.init.zeros_(self.see.bias)
        self.act, self.fc = nn.ReLU(inplace=True), nn.Linear(32, 3, bias=False)
        nn.init.zeros_(self.fc.weight)
        self.fc.weight.data[0, 0] = self.fc.weight.data[0, 1] = self.fc.weight.data[1, 2] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.see(x)).flatten(2).mean(2))


def _planted(ndim: int, count: int = 48) -> Tensor:
    """Items whose cells hold concept A (channels 0, 1), B (channel 2) or C (channels 3 to 31) in boxes of their own."""
    x = torch.zeros(count, 32, *SPATIAL[ndim])
    directions = torch.zeros(3, 32)
    directions[0, :2], directions[1, 2], directions[2, 3:] = 1, 1.5, 0.3
    amounts = _randn(count, 3).abs() + 0.5
    edge = SPATIAL[ndim][0] // 4
    for i, concept in itertools.product(range(count), range(3)):
        if (i + concept) % 3:
            start = concept * edge
            where: Any = (i, slice(None), *[slice(start, start + edge)] * ndim)
            x[where] = (directions[concept] * amounts[i, concept]).view(-1, *[1] * ndim)
    return x


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_planted_concepts_are_found_and_move_their_own_answer_alone(ndim: int) -> None:
    net, x = Planted(ndim), _planted(ndim)
    found = find_concepts(net, x.split(10), "act", 3, items=48, seed=1)
    assert found.explained > 0.999 and found.below == 0 and found.n == 48
    truth = torch.zeros(3, 32)
    truth[0, :2], truth[1, 2], truth[2, 3:] = 0.5**0.5, 1, 29**-0.5
    alike = found.basis @ truth.T
    which = alike.argmax(1).tolist()
    assert sorted(which) == [0, 1, 2] and float(alike.amax(1).min()) > 0.999
    a, b, c = (which.index(i) for i in range(3))
    mean = x.flatten(2).mean(2).mean(0)
    assert found.effect[a, 0] == pytest.approx(float(mean[0] + mean[1]), rel=1e-3)
    assert found.effect[b, 1] == pytest.approx(float(mean[2]), rel=1e-3)
    rest = found.effect.copy()
    rest[a, 0] = rest[b, 1] = 0
    assert np.abs(rest).max() < 1e-3 * found.effect.max()
    assert found.beyond[a].tolist() == [True, False, False] and found.beyond[b].tolist() == [False, True, False]
    assert not found.beyond[c].any()
    assert bool((found.low[a, 0] < found.effect[a, 0] < found.high[a, 0]) and found.low[a, 0] > 0)
    # where it is: the map is the box, and the patches are items that hold it
    maps = concept_maps(net, x[:6], found)
    assert torch.equal(maps[:, a] > 0.01, x[:6, 0] > 0)
    for concept, row in zip(which, found.top.items, strict=True):
        assert all((i + concept) % 3 for i in row)


def test_what_a_cell_holds_is_the_nearest_mixture() -> None:
    from scipy.optimize import nnls

    from gridsight.inside.concepts import _held

    basis = _randn(5, 12).abs()
    basis = (basis / basis.norm(dim=1, keepdim=True)).double()
    grids = (_randn(2, 12, 3, 4, seed=1).double() + 0.3).abs()
    held = _held(grids, basis)
    for n, i, j in itertools.product(range(2), range(3), range(4)):
        expected = nnls(basis.T.numpy(), grids[n, :, i, j].numpy())[0]
        assert np.allclose(held[n, :, i, j], expected, atol=2e-4)


def test_taking_a_direction_away_in_the_middle_of_a_network_is_taking_it_from_the_tensor() -> None:
    from gridsight.inside._reading import answer
    from gridsight.nn.undisturbed import undisturbed

    net = create("gridnet", ndim=2, in_channels=2, num_classes=3, widths=(6, 8), blocks=(0, 1), pools=(2, 1)).eval()
    x = _randn(4, 2, 12, 12)
    with undisturbed(net), torch.no_grad():
        stages = list(net.forward_stages(x))
        assert torch.equal(answer(net, x, "stage 2", lambda grid: -grid / 2), net.forward_head(stages[-1] / 2))
        plain = net(x)
        for name in ("stage 1", "stage 2", *(n for n, m in net.named_modules() if isinstance(m, nn.Conv2d))):
            assert torch.equal(answer(net, x, name, torch.zeros_like), plain)
            assert not torch.allclose(answer(net, x, name, torch.ones_like), plain)
    # tokens: each cell goes back to its token
    net, x = create("swin_t", num_classes=3).eval(), _randn(1, 3, 32, 32)
    with undisturbed(net), torch.no_grad():
        *_, last = net.forward_stages(x)
        assert torch.allclose(answer(net, x, "stage 4", torch.ones_like), net.forward_head(last + 1), atol=1e-5)


def test_of_a_layer_that_runs_twice_the_last_run_is_changed() -> None:
    from gridsight.inside._reading import answer
    from gridsight.nn.undisturbed import undisturbed

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.conv = nn.ReLU(inplace=True), nn.Conv1d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.conv(self.act(x.clone()))).mean(2)

    torch.manual_seed(0)
    net, x = Twice(), _randn(4, 3, 9)
    with undisturbed(net), torch.no_grad():
        assert torch.allclose(answer(net, x, "act", torch.ones_like), net(x) + 1)


MOTIF = (0, 3, 0, 3, 2, 1, 1, 0)


class Scanner(nn.Module):
    """Finds the motif: the largest match along the sequence above a threshold, against a second answer of 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 1, len(MOTIF))
        self.conv.weight.data = 2 * F.one_hot(torch.tensor(MOTIF), 4).T[None].float() - 0.5
        self.conv.bias.data.fill_(-4.0)

    def forward(self, x: Tensor) -> Tensor:
        top = self.conv(x).relu().amax(2)
        return torch.cat([torch.zeros_like(top), top], 1)


def _sequences(count: int, length: int, seed: int = 0) -> tuple[Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    letters = torch.randint(4, (count, length), generator=generator)
    starts = torch.randint(length - len(MOTIF), (count,), generator=generator).tolist()
    for row, start in zip(letters, starts, strict=True):
        row[start : start + len(MOTIF)] = torch.tensor(MOTIF)
    return F.one_hot(letters, 4).mT.float(), starts


def test_every_substitution_is_what_the_network_says_of_it() -> None:
    x, _ = _sequences(3, 20)
    x[0, :, 4] = 0  # not known
    x[1, :, 7] = 0.25
    net = Scanner()
    found = mutagenesis(net, x, torch.tensor([1, 1, 0]))
    assert found.change.shape == (3, 4, 20) and found.passes == 3 + 3 * 20 * 3 + 2
    assert int(found.letters[0, 4]) == int(found.letters[1, 7]) == -1
    with torch.no_grad():
        plain = net(x)
        for i, a, p in itertools.product(range(3), range(4), range(20)):
            mutant = x[i : i + 1].clone()
            mutant[0, :, p] = F.one_hot(torch.tensor(a), 4).float()
            expected = float((net(mutant) - plain[i])[0, found.target[i]])
            assert float(found.change[i, a, p]) == pytest.approx(expected, abs=1e-5)


def test_a_planted_motif_is_recovered() -> None:
    x, starts = _sequences(20, 60)
    found = mutagenesis(Scanner(), x)
    assert found.target.tolist() == [1] * 20
    for spans, start in zip(found.spans(), starts, strict=True):
        assert _overlap(spans[0], (start, start + len(MOTIF))) >= 0.8
    assert mutagenesis(Scanner(), x[:, :, :30] * 0 + 0.25, 0).spans() == [[] for _ in range(20)]


def test_a_planted_motif_is_recovered_from_a_trained_network() -> None:
    torch.manual_seed(0)
    positive, starts = _sequences(400, 50, seed=1)
    letters = torch.randint(4, (400, 50), generator=torch.Generator().manual_seed(2))
    x = torch.cat([positive, F.one_hot(letters, 4).mT.float()])
    y = torch.arange(800) < 400
    net = nn.Sequential(
        nn.Conv1d(4, 16, 11, padding=5), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(12):
        for rows in torch.randperm(800).split(64):
            loss = F.cross_entropy(net(x[rows]), y[rows].long())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    held, starts = _sequences(40, 50, seed=3)
    found = mutagenesis(net, held, 1)
    overlaps = [_overlap(spans[0], (s, s + len(MOTIF))) for spans, s in zip(found.spans(), starts, strict=True)]
    assert np.mean(overlaps) >= 0.8


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Intersection over union of two stretches."""
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)
