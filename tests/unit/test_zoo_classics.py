"""AlexNet, VGG, GoogLeNet, Inception v3, SqueezeNet, Tiny VGG, DenseNet: what their contract does not say."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import MODELS, create
from gridsight.models.densenet import DenseNet
from gridsight.models.googlenet import ROWS, GoogLeNet
from gridsight.nn.geometry import stage_fields
from gridsight.nn.inflate import inflate
from gridsight.nn.net import Net


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def meta(name: str, **arguments: Any) -> Any:
    with torch.device("meta"):
        return create(name, **arguments)


def small(name: str, **arguments: Any) -> Net:
    torch.manual_seed(0)
    entry = MODELS.get(name)
    return entry.item(**{**entry.arguments, **entry.item.small, "in_channels": 2, "num_classes": 3, **arguments})


@pytest.mark.parametrize(
    ("name", "size", "jump"),
    # Araujo, Norris and Sim 2019 (google-research/receptive_field) for the first two; squeezenet1_0: 7, then 3/2 pools
    [("alexnet", 195, 32), ("vgg16", 212, 32), ("vgg16_bn", 212, 32), ("vgg19", 268, 32), ("squeezenet1_0", 155, 16)],
)
def test_receptive_fields_of_the_last_stage(name: str, size: int, jump: int) -> None:
    field = stage_fields(meta(name), 3, (224, 224))[-1]
    assert (field.size, field.jump) == ((size, size), (jump, jump))


@pytest.mark.parametrize(
    ("name", "grids"),
    [
        ("alexnet", [27, 13, 6]),
        ("vgg11", [112, 56, 28, 14, 7]),
        ("googlenet", [112, 56, 28, 14, 7]),
        ("squeezenet1_0", [109, 54, 27, 13]),
        ("squeezenet1_1", [111, 55, 27, 13]),
        ("densenet121", [112, 56, 28, 14, 7]),
    ],
)
def test_cells_of_the_stages_at_224(name: str, grids: list[int]) -> None:
    stages = list(meta(name).forward_stages(torch.empty(1, 3, 224, 224, device="meta")))
    assert [stage.shape[2] for stage in stages] == grids


def test_cells_of_inception_v3_at_299() -> None:
    stages = list(meta("inception_v3").forward_stages(torch.empty(1, 3, 299, 299, device="meta")))
    assert [stage.shape[2] for stage in stages] == [147, 71, 35, 17, 8]
    assert [stage.shape[1] for stage in stages] == [64, 192, 288, 768, 2048]


@pytest.mark.parametrize(("name", "least"), [("alexnet", 63), ("vgg16", 32), ("googlenet", 15), ("inception_v3", 75)])
def test_smallest_sizes_are_torchvisions(name: str, least: int) -> None:
    net = meta(name).eval()
    assert net(torch.empty(1, 3, least, least, device="meta")).shape == (1, 1000)
    with pytest.raises(UsageError, match=f"needs at least {least} x {least}"):
        net(torch.empty(1, 3, least, least - 1, device="meta"))


def test_any_size_goes_through_a_fixed_grid() -> None:
    """Of a constant picture without padding, the means over the grid and so the answer are the same at any size."""
    net = small("vgg11", grid=1).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding = (0, 0)
    x = noise(1, 2, 1, 1).expand(1, 2, 40, 40)
    torch.testing.assert_close(net(x), net(x[..., :30, :36]))


@pytest.mark.parametrize(("name", "without", "heads"), [("googlenet", 6_624_904, 2), ("inception_v3", 23_834_568, 1)])
def test_auxiliary_heads_are_for_training_only(name: str, without: int, heads: int) -> None:
    """The parameters without them are torchvision's with `aux_logits=False`; its table has 6,624,904 for GoogLeNet."""
    bare = meta(name, auxiliary=None if name == "googlenet" else False)
    assert sum(p.numel() for p in bare.parameters()) == without
    net, x = small(name), noise(4, 2, 24, 24)
    torch.manual_seed(1)
    assert [logits.shape for logits in net.train().forward_train(x)] == [(4, 3)] * (1 + heads)
    (logits,) = net.eval().forward_train(x)
    assert torch.equal(logits, net(x))

    reads = [name for name, _ in net.named_children() if name.startswith("aux")]
    assert len(reads) == heads
    for name in reads:  # what they would say changes no answer
        for parameter in net.get_submodule(name).parameters():
            parameter.data.fill_(float("nan"))
    assert torch.equal(logits, net(x))


def test_auxiliary_heads_give_the_middle_a_gradient_of_its_own() -> None:
    net, x = small("googlenet").train(), noise(4, 2, 24, 24)
    _, first, second = net.forward_train(x)
    before = net.get_parameter("inception4a.branch1.0.weight")
    between = net.get_parameter("inception4b.branch1.0.weight")
    after = net.get_parameter("inception4c.branch1.0.weight")

    def reached(logits: Tensor) -> list[bool]:
        found = torch.autograd.grad(
            logits.square().sum(), (before, between, after), allow_unused=True, retain_graph=True
        )
        return [gradient is not None and bool(gradient.abs().max() > 0) for gradient in found]

    assert reached(first) == [True, False, False]
    assert reached(second) == [True, True, False]


def test_heads_of_a_fixed_grid_are_inflated_too() -> None:
    flat, volume = small("googlenet").eval(), small("googlenet", ndim=3).eval()
    inflate(flat, volume)
    x = noise(2, 14, 6, 6)
    for name in ("aux1", "aux2"):
        of_flat = flat.get_submodule(name)(x)
        torch.testing.assert_close(volume.get_submodule(name)(x[:, :, None].expand(-1, -1, 5, -1, -1)), of_flat)
        assert of_flat.std() > 1e-2


def test_every_inception_module_has_its_four_branches() -> None:
    """Table 1 of the paper: the channels of a module are the sum of its branches', reductions come before 3 and 5."""
    net = meta("googlenet")
    assert isinstance(net, GoogLeNet)
    c = 192
    for stage, rows in zip("345", ROWS, strict=True):
        for letter, (one, reduce3, three, reduce5, five, pooled) in zip("abcde", rows, strict=False):
            module: Any = net.get_submodule(f"inception{stage}{letter}")
            shapes = {name: tuple(p.shape) for name, p in module.named_parameters() if p.dim() > 1}
            assert shapes == {
                "branch1.0.weight": (one, c, 1, 1),
                "branch2.0.0.weight": (reduce3, c, 1, 1),
                "branch2.1.0.weight": (three, reduce3, 3, 3),
                "branch3.0.0.weight": (reduce5, c, 1, 1),
                "branch3.1.0.weight": (five, reduce5, 3, 3),
                "branch4.1.0.weight": (pooled, c, 1, 1),
            }
            assert isinstance(module.branch4[0], nn.MaxPool2d)
            x = torch.empty(1, c, 9, 9, device="meta")
            assert module(x).shape == (1, one + three + five + pooled, 9, 9)
            c = one + three + five + pooled
    assert c == 1024
    assert [sum(row[i] for i in (0, 2, 4, 5)) for rows in ROWS for row in rows] == [
        *(256, 480),
        *(512, 512, 512, 528, 832),
        *(832, 1024),
    ]
    paper = meta("googlenet", large_kernel=5)
    assert paper.get_parameter("inception3a.branch3.1.0.weight").shape == (32, 16, 5, 5)


def test_a_factorised_kernel_has_one_convolution_an_axis() -> None:
    shapes = {}
    for ndim in (1, 2, 3):
        net = meta("inception_v3", ndim=ndim)
        path = net.get_submodule("mixed6b.branch7x7")
        shapes[ndim] = [tuple(p.shape[2:]) for p in path.parameters() if p.dim() > 1]
        assert sum(1 for p in net.get_submodule("mixed7b.branch3x3").parameters() if p.dim() > 1) == 1 + ndim
        assert net.fc.in_features == 512 + 768 * ndim
    assert shapes == {
        1: [(1,), (7,)],
        2: [(1, 1), (1, 7), (7, 1)],
        3: [(1, 1, 1), (1, 1, 7), (1, 7, 1), (7, 1, 1)],
    }


def test_the_heads_padding_of_caffes_squeezenet_counts_biases_in_the_mean() -> None:
    net = small("squeezenet1_0").eval()
    padded = small("squeezenet1_0", head_padding=1).eval()
    last: Any = net.get_submodule("classifier.1")
    last.bias.data.copy_(torch.tensor([0.5, -0.5, 0.1]))
    padded.load_state_dict(net.state_dict())
    x = noise(1, 2, 24, 24)
    stage = [*net.forward_stages(x)][-1]
    cells = stage[0, 0].numel()
    rows, columns = stage.shape[2:]
    around = (rows + 2) * (columns + 2) - cells
    torch.testing.assert_close(padded(x), (net(x) * cells + last.bias.relu() * around) / (cells + around))


def densenets(**arguments: Any) -> tuple[DenseNet, DenseNet]:
    plain, frugal = small("densenet121", **arguments), small("densenet121", memory_efficient=True, **arguments)
    assert isinstance(plain, DenseNet) and isinstance(frugal, DenseNet)
    frugal.load_state_dict(plain.state_dict())
    return plain, frugal


@pytest.mark.parametrize("ndim", (1, 2, 3))
@pytest.mark.parametrize("dropout", (0.0, 0.3))
def test_a_frugal_densenet_learns_the_same(ndim: int, dropout: float) -> None:
    """Logits, gradients and running statistics after two batches are equal to the bit."""
    plain, frugal = densenets(ndim=ndim, dropout=dropout)
    for seed in (1, 2):
        x = noise(4, 2, *(12,) * ndim, seed=seed)
        answers = []
        for net in (plain, frugal):
            torch.manual_seed(seed)
            answers.append(net.train()(x))
            answers[-1].square().sum().backward()
        assert torch.equal(*answers)
    for (name, one), (_, other) in zip(plain.named_parameters(), frugal.named_parameters(), strict=True):
        assert one.grad is not None and other.grad is not None and torch.equal(one.grad, other.grad), name
        assert one.grad.abs().max() > 0
    for (name, one), (_, other) in zip(plain.named_buffers(), frugal.named_buffers(), strict=True):
        assert torch.equal(one, other), name
    assert all(int(value) == 2 for name, value in frugal.named_buffers() if name.endswith("tracked"))


def test_a_frugal_densenet_keeps_less() -> None:
    """Bytes that autograd keeps for the backward pass."""

    def kept(net: DenseNet) -> int:
        sizes = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = net.train()(noise(2, 2, 32, 32))
        assert logits.requires_grad
        return sum(sizes.values())

    plain, frugal = densenets(depths=(8, 8), growth=8)
    assert kept(frugal) < 0.6 * kept(plain)


def test_keys_of_the_published_densenet_files() -> None:
    """The files have `norm.1` where torchvision's network has `norm1`."""
    from gridsight.nn.weights import matched

    net = meta("densenet121")
    given = {
        "features.conv0.weight": "conv0.weight",
        "features.denseblock2.denselayer12.norm.1.running_mean": "block2.layer12.norm1.running_mean",
        "features.denseblock4.denselayer16.conv2.weight": "block4.layer16.conv2.weight",
        "features.transition3.norm.weight": "transition3.norm.weight",
        "features.norm5.bias": "norm.bias",
        "classifier.weight": "classifier.weight",
    }
    found = matched({key: torch.zeros(()) for key in given}, net.renames)
    assert list(found) == list(given.values())
    assert set(found) <= net.state_dict().keys()


def test_wrong_arguments_are_refused() -> None:
    for name, arguments, message in (
        ("vgg11", {"widths": (4, 8)}, "widths has 2 entries for 5 stages"),
        ("vgg11", {"pools": (2, 2)}, "pools has 2 entries for 5 stages"),
        ("alexnet", {"pools": (2, 2)}, "pools has 2 entries for 3 stages"),
        ("googlenet", {"rows": ROWS[:2]}, "rows of three stages"),
    ):
        with pytest.raises(UsageError, match=message):
            meta(name, **arguments)
