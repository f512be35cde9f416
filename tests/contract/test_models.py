"""What every network promises, for every one that is registered: a new file in `models/` is found by itself.

Shapes and parameter counts are checked of every name, on the meta device. Everything else is checked with the file's
`small` arguments put over those of the variant: the plainest variant of a file in every number of axes that it
declares, each other one that then still differs in one number of axes.
"""

import copy
import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gridsight.core.errors import UsageError
from gridsight.core.registry import Entry
from gridsight.models import MODELS, create, published_input
from gridsight.nn.geometry import Field, measured_fields, stage_fields
from gridsight.nn.inflate import inflate, sum_axis
from gridsight.nn.net import Net
from published import ours, recorded

SIZE = {1: 18, 2: 18, 3: 13}
CHANNELS, CLASSES = 2, 3


class Small:
    """A variant with small arguments: `build` makes it, `x` an input that it takes."""

    def __init__(self, entry: Entry) -> None:
        self.entry, self.item = entry, entry.item
        given = {**entry.arguments, **entry.item.small}
        self.arguments = {name: value for name, value in given.items() if name not in ("in_channels", "num_classes")}
        self.sized = "spatial" in inspect.signature(entry.item).parameters

    def size(self, ndim: int) -> tuple[int, ...]:
        return (self.arguments["spatial"] if self.sized else SIZE[ndim],) * ndim

    def build(self, ndim: int, seed: int = 0, **changes: Any) -> Net:
        torch.manual_seed(seed)
        arguments = {"in_channels": CHANNELS, "num_classes": CLASSES, **self.arguments, **changes}
        return self.item(ndim=ndim, **arguments)

    def build_for(self, spatial: tuple[int, ...], seed: int = 0, **changes: Any) -> Net:
        sized = {"spatial": spatial} if self.sized else {}
        return self.build(len(spatial), seed, **sized, **changes)

    def x(self, ndim: int, count: int = 4, channels: int = CHANNELS, **kind: Any) -> Tensor:
        return noise(count, channels, *self.size(ndim), **kind)


def noise(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def families() -> list[list[Small]]:
    """Distinct small variants of each file, the one with the fewest arguments first."""
    found = []
    for entries in MODELS.families():
        variants = [Small(entry) for entry in sorted(entries, key=lambda entry: len(entry.arguments))]
        found.append(list({str(sorted(small.arguments.items())): small for small in reversed(variants)}.values())[::-1])
    return found


def variants_and_ndims() -> list[Any]:
    pairs = []
    for plainest, *others in families():
        ndims = plainest.entry.tags["ndims"]
        pairs += [(plainest, ndim) for ndim in ndims]
        pairs += [(small, 2 if 2 in ndims else ndims[0]) for small in others]
    return [pytest.param(small, ndim, id=f"{small.entry.name}-{ndim}d") for small, ndim in pairs]


def variants_from_2d_to(ndim: int) -> Any:
    """Those tagged `not_inflated`, with the reason (for some numbers of axes: by number), must fail."""
    smalls = [small for family in families() for small in family if {2, ndim} <= set(small.entry.tags["ndims"])]
    params = []
    for small in smalls:
        reason = small.entry.tags.get("not_inflated")
        reason = reason.get(ndim) if isinstance(reason, dict) else reason
        marks = [pytest.mark.xfail(reason=reason, raises=(UsageError, AssertionError), strict=True)] if reason else []
        params.append(pytest.param(small, id=small.entry.name, marks=marks))
    return pytest.mark.parametrize("small", params)


def trained(net: Net, x: Tensor) -> Net:
    """The network in eval mode after a few passes in train mode: norms with statistics and weights of their own."""
    with torch.no_grad():
        for _ in range(3):
            uneven(net).train()(x)
    return net.eval()


def uneven(net: Net) -> Net:
    """The network with norms and biases off their initial ones and zeros, at which relu has its kink."""
    for name, parameter in net.named_parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * noise(*parameter.shape, seed=len(name), dtype=parameter.dtype)
    return net


small_and_ndim = pytest.mark.parametrize(("small", "ndim"), variants_and_ndims())


@pytest.mark.parametrize("ndim", (1, 2, 3))
@pytest.mark.parametrize("name", MODELS.names())
def test_shapes_and_published_parameters(name: str, ndim: int) -> None:
    tags = MODELS.get(name).tags
    if ndim not in tags["ndims"]:
        with pytest.raises(UsageError, match=f"not {ndim}"):
            create(name, ndim=ndim)
        return
    _, channels, spatial = published_input(name, ndim)
    as_published = ndim == published_input(name)[0]
    shape = {} if as_published else {"in_channels": 5, "num_classes": 7}
    with torch.device("meta"), torch.no_grad():
        net = create(name, ndim=ndim, **shape)
        stages = list(net.forward_stages(torch.empty(2, shape.get("in_channels", channels), *spatial)))
        logits = net.forward_head(stages[-1])
    if as_published and tags["parameters_published"] is not None:
        assert sum(p.numel() for p in net.parameters()) == tags["parameters_published"]
    if shape:
        assert logits.shape == (2, 7)
    grids = [net.to_grid(stage).shape for stage in stages]
    assert all(len(grid) == ndim + 2 and grid[0] == 2 for grid in grids)
    assert [grid[2:] for grid in grids] == sorted((grid[2:] for grid in grids), reverse=True)


@pytest.mark.parametrize("name", MODELS.names())
def test_tags(name: str) -> None:
    entry = MODELS.get(name)
    missing = {"ndims", "paper", "published", "parameters_published", "spatial", "masked"} - entry.tags.keys()
    assert not missing
    assert entry.tags["ndims"] == (1, 2, 3) or entry.tags.get("ndims_reason"), "why it does not work for others"
    if entry.tags["masked"] is False:
        assert entry.tags["unmasked"], "the reason why it takes no mask"
        small = Small(entry)
        ndim = entry.tags["ndims"][0]
        with pytest.raises(UsageError, match="mask"):
            small.build(ndim)(small.x(ndim), torch.ones(4, *small.size(ndim)))


@small_and_ndim
def test_small_is_small(small: Small, ndim: int) -> None:
    assert 0 < sum(p.numel() for p in small.build(ndim).parameters()) < 200_000


@small_and_ndim
def test_every_parameter_gets_a_gradient(small: Small, ndim: int) -> None:
    net, x = uneven(small.build(ndim)), small.x(ndim)  # a norm that starts at zero hides what is before it
    (sum(net.forward_train(x)) * noise(len(x), CLASSES, seed=2)).sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


@small_and_ndim
def test_autograd_equals_finite_difference(small: Small, ndim: int) -> None:
    net, x = uneven(small.build(ndim).double()), small.x(ndim, dtype=torch.float64).requires_grad_()
    weights = noise(len(x), CLASSES, seed=2, dtype=torch.float64)
    variables = [x, *net.parameters()]
    directions = [noise(*v.shape, seed=i, dtype=torch.float64) for i, v in enumerate(variables)]

    def value() -> Tensor:
        torch.manual_seed(0)  # dropout
        return (sum(net.forward_train(x)) * weights).sum()

    gradients = torch.autograd.grad(value(), variables)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)).item()

    def value_after(step: float) -> float:
        with torch.no_grad():
            for variable, direction in zip(variables, directions, strict=True):
                variable += step * direction
            return value().item()

    step = 1e-8  # so small that hardly any relu or maximum switches
    difference = value_after(step) - value_after(-2 * step)
    assert difference / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-5)


def second_value(small: Small, name: str, now: Any, default: Any) -> Any:
    """Another legal value of an argument: the file's own in `others`, else a guess from the type."""
    if name in small.item.others:
        other = small.item.others[name]
        return default if other == now else other
    if isinstance(now, bool):
        return not now
    if isinstance(now, int):
        return now + 2
    if isinstance(now, float):
        return now / 2 or 0.5
    if isinstance(now, tuple):
        return (second_value(small, "", now[0], None), *now[1:])
    raise AssertionError(f"give {small.item.__name__}.others a second value of {name!r}: {now!r} suggests none")


@small_and_ndim
def test_every_argument_has_an_effect(small: Small, ndim: int) -> None:
    parameters = dict(inspect.signature(small.item).parameters)
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values()), "**kwargs swallows typing errors"
    usual = {"in_channels": CHANNELS, "num_classes": CLASSES, **small.arguments}

    def outcome(**changes: Any) -> tuple[Any, Tensor]:
        net = small.build(ndim, **changes)
        if small.sized:
            size = changes.get("spatial", small.arguments["spatial"])
            x = noise(4, changes.get("in_channels", CHANNELS), *(size,) * ndim)
        else:
            x = small.x(ndim, channels=changes.get("in_channels", CHANNELS))
        torch.manual_seed(0)
        logits = torch.cat(net.forward_train(x)).detach()  # with those of auxiliary heads
        return {key: value.shape for key, value in net.state_dict().items()}, logits

    shapes, logits = outcome()
    dead = []
    costs = small.entry.tags.get("cost_only", {})  # time and memory for each other: no effect, with the reason
    for name in parameters.keys() - {"ndim"}:
        now = usual.get(name, parameters[name].default)
        other = second_value(small, name, now, parameters[name].default)
        changed_shapes, changed = outcome(**{name: other})
        if changed_shapes == shapes and changed.shape == logits.shape and torch.equal(changed, logits):
            dead.append(name)
    assert sorted(dead) == sorted(costs)


@variants_from_2d_to(3)
def test_inflation(small: Small) -> None:
    x = small.x(2)
    flat = trained(small.build(2), x)
    depth = small.size(3)[0]
    volume = inflate(flat, small.build(3, seed=9).eval())
    torch.testing.assert_close(
        volume(x.unsqueeze(2).expand(-1, -1, depth, -1, -1)), flat(x), rtol=1e-5, atol=1e-5 * scale(flat(x))
    )


@variants_from_2d_to(1)
def test_summing_an_axis(small: Small) -> None:
    x = small.x(1)
    picture = x.unsqueeze(2).expand(-1, -1, *small.size(1), -1)
    flat = wrap_first_axis(trained(small.build(2), small.x(2)))
    line = sum_axis(flat, small.build(1, seed=9).eval())
    torch.testing.assert_close(line(x), flat(picture), rtol=1e-5, atol=1e-5 * scale(line(x)))


def scale(logits: Tensor) -> float:
    return float(logits.detach().abs().max())


def wrap_first_axis(net: Net) -> Net:
    """The same network with circular padding on its first axis."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            rows, columns = module.padding
            module.padding = (0, columns)
            module.register_forward_pre_hook(
                lambda _, x, rows=rows: pad(x[0], (0, 0, rows, rows), mode="circular") if rows else None
            )
    return net


@small_and_ndim
def test_odd_sizes(small: Small, ndim: int) -> None:
    spatial = (21, 17, 19)[:ndim]
    net = trained(small.build_for(spatial), noise(4, CHANNELS, *spatial))
    logits = net(noise(3, CHANNELS, *spatial))
    assert logits.shape == (3, CLASSES)
    differs = logits.std(0) > 0
    # tagged `rectified`, with the reason: a class may be silent
    assert logits.isfinite().all() and (differs.any() if small.entry.tags.get("rectified") else differs.all())


@small_and_ndim
def test_too_small_a_size_states_the_minimum(small: Small, ndim: int) -> None:
    messages = []
    for size in range(1, 40):
        try:
            small.build_for((size,) * ndim).eval()(noise(1, CHANNELS, *(size,) * ndim))
        except UsageError as error:
            messages.append(str(error))
        else:
            break
    assert all(re.search(rf"\b{size}\b", message) for message in messages)
    assert len(messages) == size - 1 < 39


@pytest.mark.parametrize(("small", "ndim"), [p for p in variants_and_ndims() if p.values[0].sized])
def test_another_size_than_it_was_built_for(small: Small, ndim: int) -> None:
    net, x = small.build(ndim).eval(), noise(2, CHANNELS, *[n + 4 for n in small.size(ndim)])
    if net.spatial is None:  # `spatial` is the size of a table that other sizes interpolate
        logits = net(x)
        assert logits.isfinite().all() and logits.std(0).min() > 0
        return
    with pytest.raises(UsageError, match="built for spatial"):
        net(x)


@small_and_ndim
def test_items_of_a_batch_are_independent(small: Small, ndim: int) -> None:
    x = small.x(ndim)
    net = trained(small.build(ndim), x)
    alone = torch.cat([net(item[None]) for item in x])
    torch.testing.assert_close(net(x), alone, rtol=1e-4, atol=1e-5 * scale(alone))
    assert (alone[0] - alone[1]).abs().max() > 0


@small_and_ndim
def test_state_dict_round_trip(small: Small, ndim: int) -> None:
    x = small.x(ndim)
    net = trained(small.build(ndim), x)
    other = small.build(ndim, seed=5).eval()
    assert not torch.equal(other(x), net(x))
    other.load_state_dict(copy.deepcopy(net.state_dict()))
    assert torch.equal(other(x), net(x))


@small_and_ndim
def test_same_seed_same_network(small: Small, ndim: int) -> None:
    def run(seed: int) -> Tensor:
        net = small.build(ndim, seed)
        return net(small.x(ndim))

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


@small_and_ndim
def test_stages_are_not_overwritten(small: Small, ndim: int) -> None:
    net, x = small.build(ndim).eval(), small.x(ndim)
    before, stages, copies = x.clone(), [], []
    for stage in net.forward_stages(x):
        stages.append(stage)
        copies.append(stage.clone())
    logits = net.forward_head(stages[-1])
    assert torch.equal(x, before)
    assert all(torch.equal(stage, kept) for stage, kept in zip(stages, copies, strict=True))
    assert torch.equal(logits, net(x)) and torch.equal(logits, net.forward_train(x)[0])


@small_and_ndim
def test_receptive_field_is_the_measured_one(small: Small, ndim: int) -> None:
    """Tagged `field_bounded`, with the reason: "everything" is an upper bound there, and no cell sees more."""
    known = stage_fields(small.build(ndim), CHANNELS, small.size(ndim))
    bounded = small.entry.tags.get("field_bounded")
    for axis in range(ndim):
        # long along one axis only: a large volume would take minutes
        spatial = [shortest(small)] * ndim
        local = [field for field in known if field.size[axis] is not None]  # a recurrent layer sees everything
        spatial[axis] = enough(local[-1], axis) if local else small.size(ndim)[axis]
        measured = measured_fields(small.build_for(tuple(spatial)), CHANNELS, spatial)
        for stage, field in enumerate(measured):
            everything = known[stage].size[axis] is None
            if bounded and everything:
                continue
            for part in ("size",) if everything else ("size", "jump", "start"):  # no edges, no step between them
                assert getattr(field, part)[axis] == getattr(known[stage], part)[axis], (stage, part)


def enough(field: Field, axis: int) -> int:
    """Cells of which those that the middle of the map sees are not the outermost; causal networks see to one side."""
    return field.size[axis] + math.ceil(2 * abs(field.start[axis])) + 8 * field.jump[axis]


def shortest(small: Small) -> int:
    """Cells that are enough for the network and for the windows of its pools."""
    ndim = small.entry.tags["ndims"][0]
    for size in range(7, 40):
        try:
            small.build_for((size,) * ndim).eval()(noise(1, CHANNELS, *(size,) * ndim))
        except UsageError:
            continue
        return size
    raise AssertionError("no size below 40 is enough")


@pytest.mark.filterwarnings("ignore:The tensor attributes self.rnn._flat_weights")  # of PyTorch's own GRU
@pytest.mark.parametrize("small", [pytest.param(family[0], id=family[0].entry.name) for family in families()])
def test_export_equals_eager(small: Small) -> None:
    ndim = small.entry.tags["ndims"][0]
    x = small.x(ndim)
    net = trained(small.build(ndim), x)
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x), rtol=1e-5, atol=1e-5 * scale(net(x)))


def test_a_cut_shortcut_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: with a shortcut that passes values but no gradient the finite difference must disagree."""
    from gridsight.nn import residual

    forward: Callable[..., Tensor] = residual.Pad.forward
    monkeypatch.setattr(residual.Pad, "forward", lambda self, x: forward(self, x.detach()))
    with pytest.raises(AssertionError):
        test_autograd_equals_finite_difference(Small(MODELS.get("resnet20")), 2)


def test_a_dropped_argument_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a network that takes `norm` and builds batch norms whatever it says must be caught."""
    from gridsight.models import gridnet

    make: Callable[..., nn.Module] = gridnet.make_norm
    monkeypatch.setattr(gridnet, "make_norm", lambda nd, kind, width: make(nd, "batch", width))
    with pytest.raises(AssertionError, match=r"\['norm'\] == \[\]"):
        test_every_argument_has_an_effect(Small(MODELS.get("gridnet")), 2)


def test_a_shuffle_of_one_group_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: it moves no channel, keeps every shape and gradient, and is not what was published."""
    from gridsight.models import shufflenet_v2

    name = "shufflenet_v2_x0_5"
    expected = torch.tensor(recorded()[name])

    def error() -> float:
        logits, _ = ours(MODELS.get(name))
        return float((logits[0, :8] - expected).abs().max()) / scale(expected)

    assert error() < 1e-4
    shuffle: Callable[..., Tensor] = shufflenet_v2.channel_shuffle
    monkeypatch.setattr(shufflenet_v2, "channel_shuffle", lambda x, groups: shuffle(x, 1))
    assert error() > 0.1


masked_and_ndim = pytest.mark.parametrize(
    ("small", "ndim"), [p for p in variants_and_ndims() if p.values[0].entry.tags["masked"]]
)


def padded(items: list[Tensor], extra: int) -> tuple[Tensor, Tensor]:
    """The items in one batch with `extra` cells of padding beyond the largest, filled with nonsense, and the mask."""
    spatial = [max(item.shape[1 + axis] for item in items) + extra for axis in range(items[0].dim() - 1)]
    x = torch.full((len(items), len(items[0]), *spatial), 7.0, dtype=items[0].dtype)
    mask = torch.zeros(len(items), *spatial, dtype=torch.bool)
    for i, item in enumerate(items):
        place = tuple(slice(size) for size in item.shape[1:])
        x[(i, slice(None), *place)] = item
        mask[(i, *place)] = True
    return x, mask


def unequal(ndim: int, count: int = 3) -> list[Tensor]:
    sizes = [tuple(11 + (3 * i + 2 * axis) % 8 for axis in range(ndim)) for i in range(count)]
    return [noise(CHANNELS, *size, seed=i, dtype=torch.float64) for i, size in enumerate(sizes)]


@masked_and_ndim
def test_padding_changes_no_answer(small: Small, ndim: int) -> None:
    items = unequal(ndim)
    net = trained(small.build(ndim).double(), noise(4, CHANNELS, *(16,) * ndim, dtype=torch.float64))
    alone = torch.cat([net(item[None]) for item in items])
    for extra in (0, 1, 6):
        torch.testing.assert_close(net(*padded(items, extra)), alone, rtol=1e-10, atol=1e-10)
    x, mask = padded(items, 3)
    torch.testing.assert_close(net.float()(x.float(), mask), alone.float(), rtol=1e-4, atol=1e-5 * scale(alone))
    with torch.no_grad():  # the control: without the mask, padding is read
        assert (net.double()(x) - alone).abs().max() > 1e-4


@masked_and_ndim
def test_padding_changes_no_step_of_training(small: Small, ndim: int) -> None:
    """Logits, gradients and running statistics, in training mode; norms take the real cells of the batch."""
    items = unequal(ndim)

    def step(extra: int) -> tuple[Tensor, dict[str, Tensor]]:
        net = uneven(small.build(ndim).double()).train()
        x, mask = padded(items, extra)
        torch.manual_seed(0)  # dropout acts after the cells are pooled
        logits = net(x, mask)
        logits.square().sum().backward()
        found = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        assert all(bool(g.isfinite().all()) for g in found.values())
        return logits, found | dict(net.named_buffers())

    (few, few_tensors), (many, many_tensors) = step(0), step(5)
    torch.testing.assert_close(many, few, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(many_tensors, few_tensors, rtol=1e-9, atol=1e-9)


@masked_and_ndim
def test_a_full_mask_is_no_mask(small: Small, ndim: int) -> None:
    x = small.x(ndim, dtype=torch.float64)
    torch.manual_seed(0)
    plain = small.build(ndim).double().train()(x)
    torch.manual_seed(0)
    net = small.build(ndim).double().train()
    torch.testing.assert_close(net(x, torch.ones(len(x), *x.shape[2:], dtype=torch.bool)), plain)
