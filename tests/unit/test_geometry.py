"""Receptive fields against closed forms, published figures and gradients."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gridsight.models import create
from gridsight.nn.geometry import Field, Tracer, measured_fields, meta_copy, stage_fields, stage_shapes
from gridsight.nn.nd import Nd
from gridsight.nn.net import Net


class Stages(Net):
    """Modules one after the other, each a stage."""

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


@pytest.mark.parametrize(
    ("name", "published"),
    [("resnet18", 435), ("resnet34", 899), ("resnet50", 427), ("resnet101", 971), ("resnet152", 1451)],
)
def test_published_figures(name: str, published: int) -> None:
    field = stage_fields(create(name), 3, (64, 64))[-1]
    assert field == Field((published, published), (32, 32), (0.0, 0.0))


def test_lenet_by_hand() -> None:
    # C1 5; S2 5 + 1; C3 6 + 4 * 2; S4 14 + 2: jump 2 then 4; without padding the first field starts at cell 0
    fields = stage_fields(create("lenet5", ndim=1), 1, (32,))
    assert fields == [Field((6,), (2,), (2.5,)), Field((16,), (4,), (7.5,))]


@pytest.mark.parametrize(("name", "ndim"), [("resnet18", 1), ("preact_resnet50", 1), ("resnet110", 1), ("resnet18", 2)])
def test_analytic_equals_measured_at_full_size(name: str, ndim: int) -> None:
    net = create(name, ndim=ndim, width=4)
    spatial = (1,) * (ndim - 1) + (1100,)
    known = [(f.size[-1], f.jump[-1], f.start[-1]) for f in stage_fields(net, 3, (64,) * ndim)]
    measured = [(f.size[-1], f.jump[-1], f.start[-1]) for f in measured_fields(net, 3, spatial)]
    assert measured == known


layers = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3), st.booleans())


@settings(max_examples=40, deadline=None)
@given(st.lists(layers, min_size=1, max_size=4), st.sampled_from((1, 2, 3)))
def test_chains_equal_the_recursion(chain: list[tuple[int, int, int, int, bool]], ndim: int) -> None:
    """r = 1 + sum (k - 1) d j, j = product of strides, start = sum ((k - 1) d / 2 - p) j (Araujo et al. 2019)."""
    nd, modules, expected = Nd(ndim), [], []
    size, jump, start = 1, 1, 0.0
    for kernel, stride, padding, dilation, pool in chain:
        padding = min(padding, kernel // 2)
        layer = nd.MaxPool(kernel, stride, padding, dilation) if pool else None
        modules.append(layer or nd.Conv(1, 1, kernel, stride, padding, dilation))
        size += (kernel - 1) * dilation * jump
        start += ((kernel - 1) * dilation / 2 - padding) * jump
        jump *= stride
        expected.append(Field((size,) * ndim, (jump,) * ndim, (start,) * ndim))
    net, cells = Stages(*modules), size + 2 * jump
    assert stage_fields(net, 1, (cells,) * ndim) == expected
    if ndim == 1 and not any(layer[4] for layer in chain):
        measured = measured_fields(net, 1, (size + 8 * jump,))[-1]
        # a stride wider than the kernel leaves holes, but the hull is the same
        assert measured == expected[-1]


def test_axes_are_told_apart() -> None:
    net = create(
        "resnet18", ndim=3, strides=((1, 2, 2), 2, 2, 2), stem_kernel=(1, 7, 7), stem_stride=(1, 2, 2), width=4
    )
    known = stage_fields(net, 3, (16, 32, 32))
    assert known[0] == Field((1, 7, 7), (1, 2, 2), (0.0, 0.0, 0.0))
    assert known[-1].jump == (16, 64, 64)


def test_the_longest_path_counts() -> None:
    wide, narrow = nn.Conv1d(2, 2, 9, padding=4), nn.Conv1d(2, 2, 3, padding=1)
    ahead = nn.Conv1d(2, 2, 3, padding=(0))  # sees cells 0, 1, 2: one to the right of the others
    for parts in ((narrow, wide), (wide, narrow)):
        net = Stages(Apply(lambda x, parts=parts: parts[0](x) + parts[1](x)))
        assert stage_fields(net, 2, (30,)) == [Field((9,), (1,), (0.0,))]
    joined = Stages(Apply(lambda x: torch.cat([narrow(x)[:, :, :-2], ahead(x)[:, :, :]], 1)))
    # -1..1 and 0..2 together are -1..2
    assert stage_fields(joined, 2, (30,)) == [Field((4,), (1,), (0.5,))]


def test_steps_shifts_and_padding() -> None:
    fields = stage_fields(Stages(Apply(lambda x: x[:, :, 3::2])), 1, (20,))
    assert fields == [Field((1,), (2,), (3.0,))]
    fields = stage_fields(Stages(Apply(lambda x: nn.functional.pad(x, (2, 1, 0, 0, 1, 0)))), 1, (8, 8))
    assert fields == [Field((1, 1), (1, 1), (0.0, -2.0))]


def test_channels_last_norm_and_channel_shuffle_stay_local() -> None:
    norm, conv = nn.LayerNorm(4), nn.Conv2d(4, 4, 3, padding=1)

    def channels_last(x: Tensor) -> Tensor:
        return norm(conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def shuffle(x: Tensor) -> Tensor:
        return x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)

    net = Stages(Apply(channels_last), Apply(shuffle))
    net.norm, net.conv = norm, conv
    assert [field.size for field in stage_fields(net.to("meta"), 4, (9, 9))] == [(3, 3), (3, 3)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x.mean((2, 3), keepdim=True),
        lambda x: x * nn.functional.adaptive_avg_pool2d(x, 1),
        lambda x: x.softmax(-1) + x.transpose(2, 3).softmax(-1),
        lambda x: torch.fft.fft2(x).real,
        lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2) @ x.flatten(2)).unflatten(2, x.shape[2:]),
        lambda x: nn.functional.group_norm(x, 2),
        lambda x: nn.functional.pad(x, (1, 1, 1, 1), mode="circular"),
    ],
    ids=["gate", "pooled gate", "softmax", "fft", "attention", "group norm", "circular padding"],
)
def test_what_sees_everything_says_so(function) -> None:
    (field,) = stage_fields(Stages(Apply(function)), 4, (8, 8))
    assert field.size == (None, None) and field.start == (None, None)


def test_one_axis_can_see_everything() -> None:
    (field,) = stage_fields(Stages(Apply(lambda x: x + x.mean(3, keepdim=True))), 2, (8, 8))
    assert field == Field((1, None), (1, 1), (0.0, None))


def test_measured_is_none_at_the_ends() -> None:
    assert measured_fields(Stages(nn.Conv1d(1, 1, 9, padding=4)), 1, (9,)) == [Field((None,), (None,), (None,))]


def test_measuring_leaves_the_network_alone() -> None:
    net = create("simple_cnn").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    measured_fields(net, 3, (32, 32))
    stage_fields(net, 3, (32, 32))
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert isinstance(net.pool1, nn.MaxPool2d)


def test_shapes_and_meta_copy() -> None:
    net = create("resnet20")
    assert stage_shapes(net, 3, (33, 32)) == [(16, 33, 32), (16, 33, 32), (32, 17, 16), (64, 9, 8)]
    empty = meta_copy(net)
    assert all(p.is_meta for p in empty.parameters()) and not empty.training
    assert not any(p.is_meta for p in net.parameters()) and net.training


def test_untraced_tensors_see_everything() -> None:
    with Tracer() as tracer:
        assert tracer.field(torch.zeros(1, 2, 5)) == Field((None,), (None,), (None,))
