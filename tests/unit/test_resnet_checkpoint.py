"""ResNet-20 with akamaster's published weights answers as a plain network written here does."""

import os
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, linear, pad, relu

from gridsight.models import create

CHECKPOINT = "ckpt_resnet_cifar10/resnet20-12fca82f.th"


@pytest.fixture
def published() -> dict[str, Tensor]:
    path = Path(os.environ.get("GRIDSIGHT_DATA", "")) / CHECKPOINT
    if "GRIDSIGHT_DATA" not in os.environ or not path.exists():
        pytest.skip(f"$GRIDSIGHT_DATA has no {CHECKPOINT}")
    return torch.load(path, weights_only=True, map_location="cpu")["state_dict"]


def plain_resnet20(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """He et al. 2015, section 4.2, with option-A shortcuts, straight from the tensors."""

    def norm(x: Tensor, key: str) -> Tensor:
        mean, var, weight, bias = (weights[f"{key}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return batch_norm(x, mean, var, weight, bias, eps=1e-5)

    x = relu(norm(conv2d(x, weights["module.conv1.weight"], padding=1), "module.bn1"))
    for stage in (1, 2, 3):
        for block in range(3):
            key = f"module.layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = relu(norm(conv2d(x, weights[f"{key}.conv1.weight"], stride=stride, padding=1), f"{key}.bn1"))
            y = norm(conv2d(y, weights[f"{key}.conv2.weight"], padding=1), f"{key}.bn2")
            if stride == 2:
                new = y.shape[1] - x.shape[1]
                x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new // 2, new // 2))
            x = relu(x + y)
    pooled = adaptive_avg_pool2d(x, 1).flatten(1)
    return linear(pooled, weights["module.linear.weight"], weights["module.linear.bias"])


def test_published_weights_give_equal_logits(published: dict[str, Tensor]) -> None:
    net = create("resnet20").eval()
    renamed = published
    for pattern, replacement in net.renames:
        renamed = {re.sub(pattern, replacement, key): value for key, value in renamed.items()}
    loaded = net.load_state_dict(renamed, strict=False)
    assert loaded.unexpected_keys == []
    assert all(key.endswith("num_batches_tracked") for key in loaded.missing_keys)
    x = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = net(x), plain_resnet20(published, x)
    assert (ours - theirs).abs().max() < 1e-4
    assert theirs.std() > 1  # the logits that agree are not all alike
