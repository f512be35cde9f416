"""What do gates and attention look at, and does anything depend on it? Three questions on scikit-learn's 8x8 digits.

1. Gates. A small residual network without gates, with squeeze and excitation, and with CBAM, on a digit somewhere in
   18x18 cells among fragments of other digits: test accuracy over seeds, paired gains with their interval, parameters.
   No bar: so small a network may not need them, and the answer says whether it did.
2. Where. The same network without gates, its last stage read by one learned query (`CrossAttention`), on the same
   scenes: the share of the attention matrix that lies in the digit's box, which is a fifth of the area. Bar: above 0.6.
   Controls: before training, and the boxes of other scenes. For CBAM the share of its last cell gate is printed too: a
   gate from 0 to 1 a cell is no distribution, and nothing asks it to be small anywhere.
3. Two inputs. A picture of four digits, two odd and two even, and a tone whose frequency names one of them: is that one
   odd? The tone asks, the picture answers. Masking either must bring accuracy to chance (45 to 55 %), as neither knows
   anything of the answer alone. Control: where all four digits are alike, the picture is a shortcut, and masking the
   tone must cost less than 5 points.

    python benchmarks/bench_attention.py [--seeds 5] [--epochs 15]     # about five minutes of one core
"""

import argparse
import sys

import torch
from small import accuracy, digits, fit, machine, said
from torch import Tensor, nn

from gridsight.models import create
from gridsight.nn.attention import CrossAttention, tokens
from gridsight.nn.blocks import conv_norm_act
from gridsight.nn.gates import Cbam
from gridsight.nn.nd import Nd

SCENE, BOX, FRAGMENTS, FRAGMENT = 18, 8, 10, 4
TEST = 1000


def scenes(x: Tensor, part: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scenes (N, 1, 18, 18) of the digits `part` of x among fragments of others, and corners of their boxes, even."""
    floor = float(x.min())
    canvas = torch.full((len(part), 1, SCENE, SCENE), floor)
    corners = 2 * torch.randint(0, (SCENE - BOX) // 2 + 1, (len(part), 2), generator=draw)
    others = torch.randint(0, len(x), (len(part), FRAGMENTS), generator=draw)
    cut = torch.randint(0, BOX - FRAGMENT + 1, (len(part), FRAGMENTS, 2), generator=draw).tolist()
    put = torch.randint(0, SCENE - FRAGMENT + 1, (len(part), FRAGMENTS, 2), generator=draw).tolist()
    for i, (row, column) in enumerate(corners.tolist()):
        for other, (a, b), (r, c) in zip(others[i], cut[i], put[i], strict=True):
            canvas[i, :, r : r + FRAGMENT, c : c + FRAGMENT] = x[other, :, a : a + FRAGMENT, b : b + FRAGMENT]
        canvas[i, :, row : row + BOX, column : column + BOX] = x[part[i]]
    return canvas, corners


def backbone(gate: str | None) -> nn.Module:
    """Stages of 18x18 and 9x9 cells, each of which sees 13x13."""
    return create("resnet20", depths=(1, 1), width=8, strides=(1, 2), in_channels=1, gate=gate)


class Looker(nn.Module):
    """The backbone's last stage, read by one learned query: (N, 1, *spatial) -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = backbone(None)
        self.query = nn.Parameter(torch.zeros(1, 1, 16))
        self.attention, self.head = CrossAttention(16, 16, 1), nn.Linear(16, 10)

    def cells(self, x: Tensor) -> Tensor:
        *_, last = self.net.forward_stages(x)
        return tokens(last)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(self.query.expand(len(x), -1, -1), self.cells(x))[:, 0])

    def weights(self, x: Tensor) -> Tensor:
        """(N, 9, 9), which sum to 1."""
        return self.attention.matrix(self.query.expand(len(x), -1, -1), self.cells(x))[:, 0, 0].view(-1, 9, 9)


def share(weights: Tensor, corners: Tensor) -> float:
    """Mean over scenes of what lies in the box, of maps (N, 9, 9) of two cells each."""
    side, half = torch.arange(9), BOX // 2
    rows, columns = ((side >= c[:, None]) & (side < c[:, None] + half) for c in (corners // 2).T)
    inside = rows[:, :, None] & columns[:, None, :]
    return float((weights * inside).sum((1, 2)).div(weights.sum((1, 2))).mean())


@torch.no_grad()
def cell_gates(net: nn.Module, x: Tensor) -> Tensor:
    """(N, 9, 9): what the cell gate of the last block says."""
    *_, last = (module for module in net.modules() if isinstance(module, Cbam))
    found: list[Tensor] = []
    hook = last.cell_gate.register_forward_hook(lambda _, __, out: found.append(out[:, 0]))
    net.eval()(x)
    hook.remove()
    return found[0]


def where(seeds: int, epochs: int) -> bool:
    """The first two questions; whether the bar of the second is met."""
    right: dict[str | None, list[float]] = {None: [], "se": [], "cbam": []}
    looked: dict[str, list[float]] = {"attention": [], "untrained": [], "other boxes": [], "cell gate": [], "right": []}
    for seed in range(seeds):
        x, y, tx, ty = digits(seed)
        part = torch.arange(TEST) % len(tx)
        test, corners = scenes(tx, part, torch.Generator().manual_seed(1000 + seed))
        answers = ty[part]

        def batch(part: Tensor, draw: torch.Generator, x: Tensor = x, y: Tensor = y) -> tuple[tuple[Tensor], Tensor]:
            return (scenes(x, part, draw)[0],), y[part]

        for gate, found in right.items():
            torch.manual_seed(seed)
            net = backbone(gate)
            fit(net, batch, len(x), epochs, seed, 1e-2)
            found.append(accuracy(net, (test,), answers))
            if gate == "cbam":
                looked["cell gate"].append(share(cell_gates(net, test), corners))
        torch.manual_seed(seed)
        looker = Looker()
        looked["untrained"].append(share(looker.eval().weights(test), corners))
        fit(looker, batch, len(x), epochs, seed, 1e-2)
        looked["right"].append(accuracy(looker, (test,), answers))
        looked["attention"].append(share(looker.weights(test), corners))
        looked["other boxes"].append(share(looker.weights(test), corners.roll(1, 0)))
    gains = {gate: [b - a for a, b in zip(right[None], right[gate], strict=True)] for gate in ("se", "cbam")}
    for gate, found in right.items():
        size = sum(p.numel() for p in backbone(gate).parameters())
        gain = f", gain {said(gains[gate])}" if gate else ""
        print(f"gate {gate or 'none':5} {said(found)} % right of {TEST} scenes a seed{gain}, {size:,} parameters")
    print(f"one query: {said(looked['right'])} % right; share in the box, {(BOX / SCENE) ** 2:.3f} of the area:")
    for name in ("attention", "untrained", "other boxes", "cell gate"):
        print(f"  {name:12} {said(looked[name], 3)}", flush=True)
    return min(looked["attention"]) > 0.6


class Asker(nn.Module):
    """A tone asks a picture: (N, 1, 16, 16) and (N, 1, 32) -> logits (N, 2). `hidden` names what it may not see."""

    hidden = ""

    def __init__(self) -> None:
        super().__init__()
        flat, line = Nd(2), Nd(1)
        self.picture = nn.Sequential(
            conv_norm_act(flat, 1, 16), conv_norm_act(flat, 16, 32, 3, 2), conv_norm_act(flat, 32, 32, 3, 2)
        )
        self.places = nn.Parameter(0.1 * torch.randn(1, 16, 32))
        self.tone = nn.Sequential(
            conv_norm_act(line, 1, 16, 9), conv_norm_act(line, 16, 32, 5), nn.AdaptiveAvgPool1d(1)
        )
        self.attention, self.head = CrossAttention(32, 32, 2), nn.Linear(32, 2)

    def parts(self, picture: Tensor, tone: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        source = tokens(self.picture(picture)) + self.places
        seen = torch.full(source.shape[:2], self.hidden != "picture")
        return tokens(self.tone(torch.zeros_like(tone) if self.hidden == "tone" else tone)), source, seen

    def forward(self, picture: Tensor, tone: Tensor) -> Tensor:
        return self.head(self.attention(*self.parts(picture, tone))[:, 0])


def questions(
    x: Tensor, y: Tensor, count: int, draw: torch.Generator, shortcut: bool
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Pictures and tones, whether the digit asked for is odd, and which of the four it is."""
    of = [(y % 2 == parity).nonzero()[:, 0] for parity in (0, 1)]
    odd = torch.rand(count, 4, generator=draw).argsort(1) % 2
    if shortcut:
        odd = odd[:, :1].expand(-1, 4)
    chosen = [own[torch.randint(0, len(own), (count, 4), generator=draw)] for own in of]
    four = x[torch.where(odd == 1, chosen[1], chosen[0])][:, :, 0]
    picture = torch.cat([torch.cat([four[:, 0], four[:, 1]], 2), torch.cat([four[:, 2], four[:, 3]], 2)], 1)[:, None]
    place = torch.randint(0, 4, (count,), generator=draw)
    turn = 2 * torch.pi * (torch.arange(32) / 32 * (2 + 2 * place[:, None]) + torch.rand(count, 1, generator=draw))
    tone = turn.sin() + 0.2 * torch.randn(count, 32, generator=draw)
    return (picture, tone[:, None]), odd.gather(1, place[:, None])[:, 0], place


def two_inputs(seeds: int, epochs: int) -> bool:
    """The third question; whether its bars are met."""
    rows: dict[bool, list[tuple[float, float, float, float]]] = {False: [], True: []}
    for shortcut, found in rows.items():
        for seed in range(seeds):
            x, y, tx, ty = digits(seed)
            torch.manual_seed(seed)
            net = Asker()

            def batch(
                part: Tensor, draw: torch.Generator, x: Tensor = x, y: Tensor = y, shortcut: bool = shortcut
            ) -> tuple[tuple[Tensor, ...], Tensor]:
                return questions(x, y, len(part), draw, shortcut)[:2]

            fit(net, batch, 3000, epochs, seed, 3e-3)
            inputs, answers, place = questions(tx, ty, TEST, torch.Generator().manual_seed(1000 + seed), shortcut)
            row = []
            for net.hidden in ("", "picture", "tone"):
                row.append(accuracy(net, inputs, answers))
            net.hidden = ""
            with torch.no_grad():
                weights = net.attention.matrix(*net.parts(*inputs)).mean(1)[:, 0].view(-1, 2, 2, 2, 2)
            quarters = weights.sum((2, 4)).flatten(1)  # rows and columns of cells within each quarter
            found.append((*row, float(quarters.gather(1, place[:, None]).mean())))
        both, blind, deaf, asked = zip(*found, strict=True)
        print(
            f"{'shortcut in the picture' if shortcut else 'both are needed'}: {said(both)} % right, picture masked "
            f"{said(blind)}, tone masked {said(deaf)}; attention in the quarter asked for {said(asked, 3)}",
            flush=True,
        )
    means = {shortcut: [sum(column) / seeds for column in zip(*found, strict=True)] for shortcut, found in rows.items()}
    return (
        all(45 < value < 55 for value in (*means[False][1:3], means[True][1]))
        and min(row[0] for row in rows[False]) > 85
        and all(row[0] - row[2] < 5 for row in rows[True])
    )


def main() -> int:
    """Ask all three; 1 when a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    looks, asks = where(given.seeds, given.epochs), two_inputs(given.seeds, given.epochs // 2 + 1)
    missed = [name for name, ok in (("where", looks), ("two inputs", asks)) if not ok]
    print(f"bars missed: {', '.join(missed) or 'none'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
