"""Tiles with halos against the untiled network, windows against a loop, and what neither may pretend to run."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import create
from gridsight.nn import tiled
from gridsight.nn.frontend import FrontEnd, FrontEndSettings, MelSettings
from gridsight.nn.net import Net
from gridsight.nn.reach import Box, Reach, Read, reach_of, reader, require_equal
from gridsight.nn.tiled import averages, tiled_logits
from gridsight.nn.windows import windowed_logits, windows


class Stages(Net):
    """Modules one after the other, each a stage; the head is a global mean."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        for part in self.parts:
            yield (x := part(x))

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x.flatten(2).mean(2)


class Apply(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def live(net: nn.Module, *, positive: bool = False) -> nn.Module:
    """In eval mode and float64, with norms that do something; positive weights let every cell that is read count."""
    noise = torch.Generator().manual_seed(1)
    for name, tensor in net.state_dict().items():
        if tensor.dtype.is_floating_point:
            values = torch.rand(tensor.shape, generator=noise) + 0.5
            if positive:
                tensor.copy_(values / max(1, tensor[0].numel() if tensor.dim() > 1 else 1))
            elif tensor.dim() == 1:
                tensor.copy_(values - (0.5 if name.endswith(("bias", "running_mean")) else 0))
    return net.double().eval()


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=dtype)


@torch.no_grad()
def difference(net: Net, x: Tensor, **options) -> float:
    """Largest difference between tiled and untiled logits, relative to the largest."""
    whole = net(x)
    logits = tiled_logits(net, reader(x[0]), x.shape[2:], **options)
    assert logits.shape == whole.shape and logits.dtype == whole.dtype
    return float((logits - whole).abs().max() / whole.abs().max().clamp(min=1))


NETS = [
    ("gridnet", {"widths": (4, 6, 8, 8), "grid": 2}),
    ("gridnet", {"widths": (4, 6), "strides": (3, 2), "kernels": (5, 3), "pools": 1, "blocks": 1}),
    ("resnet18", {"width": 4}),
    ("resnet50", {"width": 2, "depths": (1, 1, 1, 1), "dilations": (1, 1, 1, 2)}),
    ("resnet20", {"width": 4}),
    ("preact_resnet20", {"width": 4}),
]


@pytest.mark.parametrize("size", [{1: 301, 2: 61, 3: 23}, {1: 640, 2: 64, 3: 16}], ids=["odd", "even"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("name", "arguments"), NETS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(NETS)])
def test_tiles_equal_the_whole(name: str, arguments: dict, ndim: int, size: dict[int, int]) -> None:
    torch.manual_seed(0)
    net = live(create(name, ndim=ndim, in_channels=2, num_classes=5, **arguments))
    spatial = tuple(size[ndim] - 3 * axis for axis in range(ndim))
    x = noise(1, 2, *spatial)
    # below one cell of the last stage, well below the halo, not a divisor of anything, above the input
    for tile in (1, 13, 10_000) if ndim < 3 else (7, 10_000):
        assert difference(net, x, tile=tile, check=tile == 13) < 1e-10
    assert difference(net, x, tile=tuple(9 + 8 * axis for axis in range(ndim))) < 1e-10


def test_small_tiles_run_on_less_than_the_whole() -> None:
    net, x, seen = live(create("resnet20", ndim=1, width=4)), noise(1, 3, 1000), []

    def read(box: Box) -> Tensor:
        seen.append(box[0])
        return reader(x[0])(box)

    tiled_logits(net, read, (1000,), tile=40)
    (reach,) = reach_of(net, 3, (1000,)).size
    tiles = seen[1:]  # the first look is for the channels
    assert len(tiles) == 25 and max(box.stop - box.start for box in tiles) <= 36 + reach + 3
    assert all(box.start % 4 == 0 for box in tiles)
    assert tiles[0].start == 0 and tiles[-1].stop == 1000


def test_float32_at_the_size_of_a_photograph() -> None:
    torch.manual_seed(0)
    net = create("resnet18", num_classes=10).eval()
    assert difference(net, noise(1, 3, 501, 622, dtype=torch.float32), tile=160) < 1e-5


shapes = st.fixed_dictionaries(
    {
        "kernels": st.lists(st.sampled_from((1, 3, 5)), min_size=2, max_size=2).map(tuple),
        "strides": st.lists(st.integers(1, 3), min_size=2, max_size=2).map(tuple),
    }
)


@settings(max_examples=40, deadline=None)
@given(
    shapes,
    st.sampled_from(("gridnet", "resnet")),
    st.lists(st.integers(1, 3), min_size=2, max_size=2),
    st.sampled_from((1, 2, 3)),
    st.integers(1, 30),
    st.integers(0, 6),
)
def test_any_small_network(shape: dict, name: str, more: list[int], ndim: int, tile: int, extra: int) -> None:
    torch.manual_seed(tile)
    if name == "gridnet":
        net = create(name, ndim=ndim, widths=(3, 4), pools=tuple(more), blocks=(0, 1), **shape)
    else:
        net = create("resnet18", ndim=ndim, width=2, depths=(1, 1), dilations=tuple(more), stem_kernel=5, **shape)
    x = noise(1, 3, *((120,), (37, 31), (17, 14, 11))[ndim - 1][:-1], 11 + extra)
    assert difference(live(net), x, tile=tile if ndim < 3 else 6 + tile) < 1e-10


def test_networks_without_padding() -> None:
    net = Stages(nn.Conv2d(1, 3, 4, 2), nn.MaxPool2d(3, 2), nn.Conv2d(3, 2, (1, 3), (1, 2)))
    for spatial in ((40, 61), (57, 40), (33, 90)):
        assert difference(net.double().eval(), noise(1, 1, *spatial), tile=8) < 1e-12


# ---- the comparison itself can fail


def shortened(halo, axis: int, before: int, after: int):
    """`Reach.halo` that leaves out input cells on one axis."""

    def wrong(self: Reach, block: Box, spatial: tuple[int, ...]) -> tuple[Box, Box]:
        around, within = halo(self, block, spatial)
        around, within = list(around), list(within)
        side = around[axis]
        if before and side.start > 0:  # by a whole jump, so that strides still fall alike
            jump = self.jump[axis]
            around[axis] = side = slice(side.start + jump, side.stop)
            within[axis] = slice(within[axis].start - 1, within[axis].stop - 1)
        if after and side.stop < spatial[axis]:
            around[axis] = slice(side.start, side.stop - 1)
        return tuple(around), tuple(within)

    return wrong


@pytest.mark.parametrize(("axis", "before", "after"), [(0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1)])
def test_a_halo_that_is_one_cell_too_small_is_noticed(monkeypatch, axis: int, before: int, after: int) -> None:
    net = live(create("resnet18", width=2, depths=(1, 1), strides=(1, 1), stem_pool=1, stem_stride=1), positive=True)
    x = noise(1, 3, 50, 50).abs()
    reach = reach_of(net, 3, (50, 50))
    require_equal(net, 3, reach)
    assert difference(net, x, tile=10, check=False) < 1e-10
    monkeypatch.setattr(Reach, "halo", shortened(Reach.halo, axis, before, after))
    assert difference(net, x, tile=10, check=False) > 1e-8
    with pytest.raises(UsageError, match="tiles differ from the whole"):
        require_equal(net, 3, reach)


def test_misplaced_strides_are_noticed(monkeypatch) -> None:
    halo = Reach.halo

    def off_by_one(self: Reach, block: Box, spatial: tuple[int, ...]) -> tuple[Box, Box]:
        around, within = halo(self, block, spatial)
        return tuple(slice(max(0, side.start - 1), side.stop) for side in around), within

    net, x = live(create("gridnet", ndim=1, widths=(4, 4), pools=(1, 2), blocks=1)), noise(1, 3, 200)
    monkeypatch.setattr(Reach, "halo", off_by_one)
    assert difference(net, x, tile=10, check=False) > 1e-4


# ---- what may not be tiled


class Positions(nn.Module):
    """Adds a table of positions to an input of any size by cutting it: local to a trace, and yet not."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.table = nn.Parameter(noise(1, 1, cells, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[..., : x.shape[2]]


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (create("gridnet", in_channels=2, standardise=True), r"what comes before stages\.0\.conv \(Conv2d\)"),
        (create("gridnet", in_channels=2, widths=(8, 8), pools=1, blocks=0, norm="layer"), r"stages\.0\.norm"),
        (create("crnn", ndim=1, in_channels=2), r"rnn \(GRU\)"),
        (Stages(nn.Conv2d(2, 2, 3), Apply(lambda x: x * x.mean((2, 3), keepdim=True))), r"parts\.1 \(Apply\)"),
        (Stages(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.Conv1d(4, 2, 1)), r"parts\.1 \(GroupNorm\) looks at"),
    ],
    ids=["standardise", "layer norm", "recurrent", "gate", "group norm"],
)
def test_what_looks_at_the_whole_item_is_named(net: Net, reason: str) -> None:
    ndim = 1 if any(isinstance(layer, nn.Conv1d) for layer in net.modules()) else 2
    spatial = (64,) * ndim
    with pytest.raises(UsageError, match=f"cannot be tiled: .*{reason}.*use windows"):
        tiled_logits(net.eval(), reader(noise(2, *spatial, dtype=torch.float32)), spatial)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Positions(5000), "reads its own position"),
        (Apply(lambda x: x * torch.linspace(0, 1, x.shape[2], dtype=x.dtype, device=x.device)), "own position"),
        (Apply(lambda x: x / x.shape[2]), "the size of its input"),
        (Apply(lambda x: x[:, :, 2:-2]), "its tiles differ|which cells it has"),
    ],
    ids=["table", "coordinates", "size", "crop"],
)
def test_what_a_trace_cannot_see_is_found_by_comparing(part: nn.Module, reason: str) -> None:
    net = Stages(nn.Conv1d(1, 1, 3, padding=1), part, nn.Conv1d(1, 1, 3, padding=1)).eval()
    with pytest.raises(UsageError, match=reason):
        tiled_logits(net, reader(noise(1, 300, dtype=torch.float32)), (300,), tile=30)


def test_a_table_of_one_size_is_refused() -> None:
    class Fixed(Positions):
        def forward(self, x: Tensor) -> Tensor:
            return x + self.table

    with pytest.raises(UsageError, match="does not take an input of"):
        tiled_logits(Stages(nn.Conv1d(1, 1, 3, padding=1), Fixed(300)).eval(), reader(noise(1, 300)), (300,))


def test_fixed_sizes_training_mode_sound_and_wrong_tiles_are_refused() -> None:
    read, lenet = reader(noise(1, 64, 64, dtype=torch.float32)), create("lenet5")
    with pytest.raises(UsageError, match="takes 32 x 32 cells and no other size: use windows"):
        tiled_logits(lenet.eval(), read, (64, 64))
    net = create("gridnet", in_channels=1, widths=(4,), pools=1, blocks=0)
    with pytest.raises(UsageError, match="eval mode"):
        tiled_logits(net.train(), read, (64, 64))
    with pytest.raises(UsageError, match="eval mode"):
        windowed_logits(lenet.train(), read, (64, 64), (32, 32))
    mel = FrontEnd(FrontEndSettings(1.0, (0.0,), (1.0,), MelSettings(8000.0, 16, 0.032, 0.016, 60.0)), 1)
    with pytest.raises(UsageError, match="sound cannot be tiled"):
        tiled_logits(net.eval(), read, (64, 64), front=mel)
    with pytest.raises(UsageError, match="at least 1 cell an axis, not 0 x 0"):
        tiled_logits(net, read, (64, 64), tile=0)


# ---- memory


def test_memory_bounds_tiles_and_names_what_is_missing() -> None:
    net, x, seen = live(create("resnet20", width=4)), noise(1, 3, 200, 160), []

    def read(box: Box) -> Tensor:
        seen.append((box[0].stop - box[0].start) * (box[1].stop - box[1].start))
        return reader(x[0])(box)

    with torch.no_grad():
        whole = net(x)
    # the sum of a block of the first stage reads two float64 maps of 4 channels and writes one
    largest = 3 * 4 * 200 * 160 * 8
    assert tiled._largest_step(net, 3, (200, 160)) == pytest.approx(largest, rel=0.01)
    logits = tiled_logits(net, read, (200, 160), memory=largest // 2)
    assert float((logits - whole).abs().max()) < 1e-10
    assert 200 * 160 / 4 < max(seen) <= 200 * 160 / 2
    with pytest.raises(UsageError, match=r"one cell of the last stage of ResNet reads .* give more memory"):
        tiled_logits(net, read, (200, 160), memory=200_000)


def test_a_last_stage_that_is_too_large_is_averaged_or_refused() -> None:
    x = noise(1, 3, 50, 41)
    arguments = {"widths": (4, 8), "pools": 1, "blocks": 0}
    needed = 8 * 50 * 41 * 8
    for net in (
        create("gridnet", **arguments),
        create("resnet20", width=2, strides=1, depths=(1, 1, 1)),
        create("preact_resnet20", width=2, strides=1, depths=(1, 1, 1)),
    ):
        assert averages(live(net), 8, 2)
        assert difference(net, x, tile=9, memory=needed - 1) < 1e-10
    net = live(create("gridnet", grid=2, **arguments))
    assert not averages(net, 8, 2)
    assert difference(net, x, tile=9, memory=needed) < 1e-10
    with pytest.raises(UsageError, match=r"last stage of GridNet on 50 x 41 cells takes .* no mean over cells"):
        tiled_logits(net, reader(x[0]), (50, 41), tile=9, memory=needed - 1)


def test_maps_on_disk_of_integers_go_through_the_front_end(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 90, 70), dtype=np.uint8)
    np.save(tmp_path / "x.npy", array)
    net, front = create("resnet20").eval(), FrontEnd(FrontEndSettings(255.0, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2)), 2)
    with torch.no_grad():
        whole = net(front(torch.from_numpy(array)[None]))
    logits = tiled_logits(net, reader(np.load(tmp_path / "x.npy", mmap_mode="r")), (90, 70), front=front, tile=30)
    assert float((logits - whole).abs().max()) < 1e-5


def test_the_network_is_left_alone() -> None:
    net = create("gridnet").eval()
    before = copy.deepcopy(net.state_dict())
    tiled_logits(net, reader(noise(3, 70, 70, dtype=torch.float32)), (70, 70), tile=8)
    assert not net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in net.parameters())


# ---- windows


def test_windows_cover_evenly() -> None:
    starts = [box[0].start for box in windows((100,), (32,), 0.5)]
    assert starts == [0, 13, 27, 40, 54, 68]
    assert [box[0].start for box in windows((96,), (32,), 0.0)] == [0, 32, 64]
    assert list(windows((32, 32), (32, 32), 0.9)) == [(slice(0, 32), slice(0, 32))]
    assert len(list(windows((64, 96, 40), (32, 32, 32), 0.0))) == 2 * 3 * 2
    for wrong in (1.0, -0.1):
        with pytest.raises(UsageError, match="overlap"):
            list(windows((64,), (32,), wrong))
    with pytest.raises(UsageError, match="31 x 64 cells is smaller than one window of 32 x 32"):
        list(windows((31, 64), (32, 32), 0.5))


@pytest.mark.parametrize("batch", [1, 4, 100])
@pytest.mark.parametrize("name", ["lenet5", "simple_cnn"])
def test_windows_equal_a_loop(name: str, batch: int) -> None:
    torch.manual_seed(0)
    net = live(create(name, in_channels=2, num_classes=4, spatial=(32, 28)))
    x = noise(1, 2, 64, 70)
    with torch.no_grad():
        loop = [net(x[:, :, i : i + 32, j : j + 28]) for i in (0, 16, 32) for j in (0, 14, 28, 42)]
        logits = windowed_logits(net, reader(x[0]), (64, 70), (32, 28), overlap=0.5, batch=batch)
    assert torch.allclose(logits, torch.stack(loop).mean(0), atol=1e-12, rtol=0)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_linear_network_says_of_patches_what_it_says_of_the_whole(ndim: int) -> None:
    """Windows for one that is linear in each cell, tiles whatever its kernels are."""
    torch.manual_seed(0)
    conv, spatial = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1], (48, 32, 16)[:ndim]
    x, window = noise(1, 2, *spatial, dtype=torch.float32), (16, 8, 8)[:ndim]
    each = Stages(conv(2, 3, 1), conv(3, 5, 1)).eval()
    wide = Stages(conv(2, 3, 5, padding=2), conv(3, 5, 3, 2, padding=1)).eval()
    with torch.no_grad():
        patches = windowed_logits(each, reader(x[0]), spatial, window, overlap=0.0)
        assert float((patches - each(x)).abs().max()) < 1e-5
        assert difference(each, x, tile=8) < 1e-5 and difference(wide, x, tile=8) < 1e-5
        # and windows of a network that reads neighbours are not exact: what the tiles are for
        patches = windowed_logits(wide, reader(x[0]), spatial, window, overlap=0.0)
        assert float((patches - wide(x)).abs().max()) > 1e-4


def test_windows_take_what_tiles_refuse() -> None:
    net = create("gridnet", in_channels=1, standardise=True).eval()
    x = noise(1, 1, 64, 64, dtype=torch.float32)
    read: Read = reader(x[0])
    with torch.no_grad():
        corners = [net(x[:, :, i : i + 32, j : j + 32]) for i in (0, 32) for j in (0, 32)]
    logits = windowed_logits(net, read, (64, 64), (32, 32), overlap=0.0)
    assert torch.allclose(logits, torch.stack(corners).mean(0), atol=1e-6)
