"""Attention, ViT and Swin against explicit loops, PyTorch's own layer, and what must not depend on what."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models.swin import Merge, Swin
from gridsight.models.vit import ViT, resized
from gridsight.nn import attention
from gridsight.nn.attention import CrossAttention, SelfAttention, WindowAttention, grid, matrices, tokens
from gridsight.nn.masked import mask_of
from gridsight.nn.nd import Nd
from gridsight.nn.weights import matched

SMALL: dict[str, Any] = {"width": 12, "depth": 2, "heads": 3, "in_channels": 2, "num_classes": 5}


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wide(net: Any) -> Any:
    """The module in float64 and eval mode, with weights so large that attention is far from an even mean."""
    for i, parameter in enumerate(net.parameters()):
        parameter.data = noise(*parameter.shape, seed=i) * (1.0 if parameter.dim() == 1 else 0.5)
    return net.double().eval()


def by_loops(layer: SelfAttention, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of scaled dot products, head by head and query by query, from the layer's matrices alone."""
    if isinstance(layer, CrossAttention):
        q, (k, v) = layer.q(x), layer.kv(source).chunk(2, -1)
    else:
        q, k, v = layer.qkv(x).chunk(3, -1)
    depth = x.shape[-1] // layer.heads
    weights = torch.zeros(len(x), layer.heads, x.shape[1], source.shape[1], dtype=x.dtype)
    said = torch.zeros_like(q)
    for n, head, i in product(range(len(x)), range(layer.heads), range(x.shape[1])):
        part = slice(head * depth, (head + 1) * depth)
        scores = np.array([float(q[n, i, part] @ k[n, j, part]) / depth**0.5 for j in range(source.shape[1])])
        shares = np.exp(scores) / np.exp(scores).sum()
        for j, share in enumerate(shares):
            weights[n, head, i, j] = share
            said[n, i, part] += float(share) * v[n, j, part]
    return layer.out(said), weights


def heads_of_torch(layer: Any, source_width: int | None = None) -> nn.MultiheadAttention:
    """PyTorch's own layer with the same weights."""
    width = layer.out.in_features
    theirs = nn.MultiheadAttention(width, layer.heads, kdim=source_width, vdim=source_width, batch_first=True).double()
    state = {"out_proj.weight": layer.out.weight, "out_proj.bias": layer.out.bias}
    if source_width is None:
        state |= {"in_proj_weight": layer.qkv.weight, "in_proj_bias": layer.qkv.bias}
    else:
        k, v = layer.kv.weight.chunk(2)
        state |= {"q_proj_weight": layer.q.weight, "k_proj_weight": k, "v_proj_weight": v}
        state["in_proj_bias"] = torch.cat([layer.q.bias, layer.kv.bias])
    theirs.load_state_dict(state)
    return theirs


@torch.no_grad()
def test_self_attention_is_the_explicit_softmax_and_pytorchs_layer() -> None:
    layer, x = wide(SelfAttention(12, 3)), noise(2, 7, 12)
    said, weights = by_loops(layer, x, x)
    torch.testing.assert_close(layer(x), said)
    torch.testing.assert_close(layer.matrix(x), weights)
    assert weights.std() > 0.05, "an even mean would prove little"
    torch.testing.assert_close(layer.matrix(x).sum(-1), torch.ones(2, 3, 7, dtype=x.dtype))

    real = mask_of(torch.tensor([[7], [4]]), (7,))
    theirs, their_weights = heads_of_torch(layer)(x, x, x, key_padding_mask=~real, average_attn_weights=False)
    torch.testing.assert_close(layer(x, real), theirs)
    torch.testing.assert_close(layer.matrix(x, real), their_weights)
    assert (layer.matrix(x, real)[1, :, :, 4:] == 0).all()


@torch.no_grad()
def test_cross_attention_is_the_explicit_softmax_and_pytorchs_layer() -> None:
    layer, x, source = wide(CrossAttention(12, 5, 3)), noise(2, 4, 12), noise(2, 6, 5, seed=2)
    said, weights = by_loops(layer, x, source)
    torch.testing.assert_close(layer(x, source), said)
    torch.testing.assert_close(layer.matrix(x, source), weights)
    theirs, _ = heads_of_torch(layer, 5)(x, source, source)
    torch.testing.assert_close(layer(x, source), theirs)


def test_a_masked_source_has_no_influence() -> None:
    """A picture (2-D) asks a signal (1-D): what is masked moves nothing, and nothing at all is what zeros say."""
    layer = wide(CrossAttention(12, 5, 3))
    picture, signal = tokens(noise(3, 12, 4, 3)), tokens(noise(3, 5, 6, seed=2)).requires_grad_()
    mask = mask_of(torch.tensor([[6], [4], [0]]), (6,))
    said = layer(picture, signal, mask)
    (moved,) = torch.autograd.grad((said * noise(*said.shape, seed=3)).sum(), signal)
    assert ((moved.abs().amax(-1) > 0) == mask).all()
    assert torch.equal(said[2], layer.out.bias.expand_as(said[2]))
    other = torch.where(mask[..., None], signal, 9.0)
    assert torch.equal(layer(picture, other, mask), said)
    assert (layer(picture, other) - said).abs().amax((1, 2))[1:].min() > 1e-3, "the control: without the mask they do"


def test_one_layer_sees_everything_and_a_window_does_not() -> None:
    x = noise(1, 12, 4, 6)
    layer = wide(SelfAttention(12, 3))

    def influence(module: Any) -> Tensor:
        """(24, 24): whether cell j moves cell i."""
        return torch.autograd.functional.jacobian(module, x).abs().amax((0, 1, 4, 5)).reshape(24, 24) > 0

    assert influence(lambda x: grid(layer(tokens(x)), (4, 6))).all()
    window = wide(WindowAttention(Nd(2), 12, 3, (2, 3)))
    row, column = torch.arange(24) // 6 // 2, torch.arange(24) % 6 // 3
    same = (row[:, None] == row) & (column[:, None] == column)
    assert torch.equal(influence(lambda x: window(x.movedim(1, -1)).movedim(-1, 1)), same)


def plain(layer: WindowAttention) -> SelfAttention:
    """Attention without windows that has the same weights."""
    found = SelfAttention(layer.out.in_features, layer.heads).double()
    found.qkv, found.out = layer.qkv, layer.out
    return found


@torch.no_grad()
@pytest.mark.parametrize("shifted", (False, True))
@pytest.mark.parametrize("spatial", ((12,), (8, 12), (4, 8, 4)))
def test_windows_are_attention_within_pieces(spatial: tuple[int, ...], shifted: bool) -> None:
    """With no bias: each piece by itself, cut at every 4th cell, or at 2, 6, 10, ... where an axis has two windows."""
    layer = wide(WindowAttention(Nd(len(spatial)), 12, 3, 4, shifted))
    layer.bias.zero_()
    x = noise(2, *spatial, 12)
    expected = torch.empty_like(x)
    axes = []
    for n in spatial:
        ends = [0, *range(2, n, 4), n] if shifted and n > 4 else [*range(0, n + 1, 4)]
        axes.append([slice(a, b) for a, b in pairwise(ends)])
    for piece in product(*axes):
        part = x[(slice(None), *piece)]
        expected[(slice(None), *piece)] = plain(layer)(part.flatten(1, -2)).view(part.shape)
    torch.testing.assert_close(layer(x), expected)
    weights = layer.matrix(x)
    assert weights.shape == (2, np.prod(spatial) // 4 ** len(spatial), 3, 4 ** len(spatial), 4 ** len(spatial))
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1], dtype=x.dtype))


def test_nothing_leaks_across_a_border_unless_the_mask_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rolling the grid brings the first rows beside the last; between them, gradients must be exactly 0."""
    layer = wide(WindowAttention(Nd(2), 12, 3, 4, shifted=True))

    def leak() -> Tensor:
        x = noise(1, 8, 8, 12).requires_grad_()
        said = layer(x)
        (moved,) = torch.autograd.grad((said[:, :2] * noise(1, 2, 8, 12, seed=2)).sum(), x)
        return moved.abs().amax(-1)[0]

    moved = leak()
    assert (moved[:2] > 0).all() and (moved[2:] == 0).all()
    monkeypatch.setattr(attention, "borders", lambda *given: torch.zeros(4, 16, 16, dtype=torch.bool))
    assert (leak()[6:] > 0).all()


@torch.no_grad()
def test_the_table_of_offsets_by_hand() -> None:
    layer = wide(WindowAttention(Nd(2), 12, 3, (2, 3)))
    index = layer.index.view(6, 6)
    for (i, (y, x)), (j, (v, u)) in product(enumerate(product(range(2), range(3))), repeat=2):
        assert index[i, j] == (y - v + 1) * 5 + x - u + 2
    x = noise(1, 2, 3, 12)
    q, k, _ = layer.qkv(x.flatten(1, 2)).chunk(3, -1)
    scores = q[0, 1, 4:8] @ k[0, :, 4:8].T / 2 + layer.bias[index[1], 1]  # the second place's, of the second head
    torch.testing.assert_close(layer.matrix(x)[0, 0, 1, 1], scores.softmax(0))


@torch.no_grad()
def test_sizes_that_windows_do_not_divide_are_filled_up_with_zeros() -> None:
    layer, x = wide(WindowAttention(Nd(2), 12, 3, (2, 3))), noise(1, 3, 4, 12)
    filled = torch.zeros(1, 4, 6, 12, dtype=x.dtype)
    filled[:, :3, :4] = x
    torch.testing.assert_close(layer(x), layer(filled)[:, :3, :4])


@torch.no_grad()
def test_merging_by_hand() -> None:
    merge, x = wide(Merge(2, 3)), noise(1, 4, 3, 3)
    found = merge(x)
    assert found.shape == (1, 2, 2, 6)
    zeros = torch.zeros(3, dtype=x.dtype)
    corners = torch.cat([x[0, 2, 2], x[0, 3, 2], zeros, zeros])
    torch.testing.assert_close(found[0, 1, 1], merge.reduction(merge.norm(corners)))


@pytest.mark.parametrize(("spatial", "patch"), [((10,), (3,)), ((8, 7), (4, 3)), ((4, 5, 4), (2, 3, 2))])
@torch.no_grad()
def test_patches_are_a_strided_convolution_by_hand(spatial: tuple[int, ...], patch: tuple[int, ...]) -> None:
    net = wide(ViT(**SMALL, ndim=len(spatial), spatial=spatial, patch=patch))
    net.positions.zero_()
    x, taken = noise(2, 2, *spatial), []
    net.blocks[0].register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    net(x)
    cells = [-(-n // p) for n, p in zip(spatial, patch, strict=True)]
    filled = torch.zeros(2, 2, *(c * p for c, p in zip(cells, patch, strict=True)), dtype=x.dtype)
    filled[(slice(None), slice(None), *map(slice, spatial))] = x
    assert torch.equal(taken[0][:, 0], net.class_token[0].expand(2, -1))
    for number, cell in enumerate(product(*map(range, cells))):
        place = tuple(slice(c * p, (c + 1) * p) for c, p in zip(cell, patch, strict=True))
        numbers = filled[(slice(None), slice(None), *place)].flatten(1)
        token = numbers @ net.embed.weight.flatten(1).T + net.embed.bias
        torch.testing.assert_close(taken[0][:, 1 + number], token, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_without_positions_the_order_of_patches_does_not_matter() -> None:
    net = wide(ViT(**SMALL, spatial=12, patch=4)).float()
    x = noise(2, 2, 12, 12).float()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    patches = x.unflatten(3, (3, 4)).unflatten(2, (3, 4)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)[:, order]
    mixed = patches.unflatten(1, (3, 3)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    assert (net(mixed) - net(x)).abs().max() > 1e-2, "the control: with positions it does"
    net.positions.zero_()
    torch.testing.assert_close(net(mixed), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ndim", (1, 2, 3))
def test_positions_of_another_size(ndim: int) -> None:
    """The class token's stays, equal sizes keep the table, and along each axis a ramp stays a ramp."""
    old, new = (6, 5, 4)[:ndim], (12, 10, 8)[:ndim]
    axes = [torch.arange(n, dtype=torch.float64) for n in old]
    ramps = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # channel a counts along axis a
    table = torch.cat([torch.full((1, 1, ndim), 7.0, dtype=torch.float64), tokens(ramps[None])], 1)
    assert resized(table, old, old) is table
    found = resized(table, old, new)
    assert torch.equal(found[:, 0], table[:, 0])
    wider = grid(found[:, 1:], new)[0]
    for axis in range(ndim):
        # cell i of the new grid has its centre at (i + 1/2) / 2 - 1/2; the ends know no cell beyond them
        along = (torch.arange(1, new[axis] - 1, dtype=torch.float64) + 0.5) / 2 - 0.5
        inner = wider[axis].movedim(axis, -1)[..., 1:-1]
        torch.testing.assert_close(inner, along.expand_as(inner))


@torch.no_grad()
def test_positions_fit_another_size_when_loaded_and_when_run() -> None:
    small, large = (wide(ViT(**SMALL, spatial=size, patch=4)) for size in (16, 24))
    state = small.state_dict()
    large.load_state_dict(large.fit_state(state))
    x = noise(2, 2, 24, 24)
    torch.testing.assert_close(large(x), small(x))
    assert torch.equal(small.fit_state(state)["positions"], state["positions"])
    oblong = ViT(**SMALL, spatial=(16, 8), patch=4).state_dict()
    assert large.fit_state(oblong)["positions"].shape == (1, 9, 12), "no square: its grid is not known"
    slim = wide(ViT(**SMALL, spatial=(16, 8), patch=4))
    slim.load_state_dict(slim.fit_state(state))
    torch.testing.assert_close(slim(x[:, :, :16, :8]), small(x[:, :, :16, :8]))


def test_a_stage_is_a_grid_and_the_way_to_the_logits() -> None:
    net, x = wide(ViT(**SMALL, spatial=(8, 12), patch=4)), noise(2, 2, 8, 12)
    stages = list(net.forward_stages(x))
    assert [tuple(stage.shape) for stage in stages] == [(2, 12, 3, 3)] * 2
    rows = stages[0][:, :, 0]
    assert torch.equal(rows, rows[:, :, :1].expand_as(rows)), "the class token, repeated"
    (gradient,) = torch.autograd.grad(net.forward_head(stages[-1])[0, 1], stages[0])
    assert (net.to_grid(gradient)[0].abs().amax(0) > 0).all() and (gradient[1] == 0).all()


@torch.no_grad()
def test_matrices_of_a_network_leave_nothing_behind() -> None:
    net, x = wide(ViT(**SMALL, spatial=8, patch=4)), noise(2, 2, 8, 8)
    with matrices(net) as found:
        logits = net(x)
    assert torch.equal(logits, net(x))
    assert {name: tuple(matrix.shape) for name, matrix in found.items()} == {
        f"blocks.{i}.attention": (2, 3, 5, 5) for i in range(2)
    }
    assert all(torch.allclose(matrix.sum(-1), torch.ones(1, dtype=x.dtype)) for matrix in found.values())
    with pytest.raises(RuntimeError), matrices(net):
        net(x[:, :1])
    assert not any(module._forward_pre_hooks for module in net.modules())
    swin = wide(Swin((2,), (3,), width=12, in_channels=2, patch=2, window=2))
    with matrices(swin) as found:
        swin(x)
    assert [tuple(matrix.shape) for matrix in found.values()] == [(2, 4, 3, 4, 4)] * 2


def test_the_authors_keys_of_deit_are_ours() -> None:
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    layers = ["patch_embed.proj", *(f"blocks.{i}.{part}" for i in range(2) for part in parts), "norm", "head"]
    keys = ["cls_token", "pos_embed", *(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))]
    found = matched({key: torch.empty(0) for key in keys}, ViT.renames)
    assert found.keys() == ViT(**SMALL, spatial=8, patch=4).state_dict().keys()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UsageError, match="12 channels do not part into 5 heads"):
        SelfAttention(12, 5)
