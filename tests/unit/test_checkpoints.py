"""Files of weights of other programs: what is taken off their keys, and what is refused in which words."""

import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gridsight.core.errors import UsageError
from gridsight.models import create
from gridsight.nn.weights import load_state, matched, refuse_others
from gridsight.verbs import _start


def test_wrappers_are_taken_off_where_every_key_has_them() -> None:
    own = {"conv1.weight": torch.ones(1), "linear.bias": torch.zeros(1)}
    for wrapper in ("module.", "model.", "_orig_mod.", "model._orig_mod.module."):
        assert matched({wrapper + key: value for key, value in own.items()}, ()) == own
    some = {"model.conv1.weight": torch.ones(1), "linear.bias": torch.zeros(1)}
    assert matched(some, ()) == some


@pytest.mark.parametrize("value", (float("nan"), float("-inf")))
@pytest.mark.parametrize("safe", (False, True))
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float, safe: bool) -> None:
    path, state = tmp_path / "w.pth", {"a.weight": torch.ones(3), "b.bias": torch.tensor([0.0, value])}
    if safe:
        save_file(state, path)
    else:
        torch.save(state, path)
    with pytest.raises(UsageError, match=r"NaN or infinite values in 1 tensor \(first: b\.bias\)"):
        load_state(path)


def test_damaged_checkpoints_are_called_so_in_a_line(tmp_path: Path) -> None:
    path, state = tmp_path / "w.pth", create("resnet20", width=4).state_dict()
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(state, new)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    content, legacy = new.getvalue(), old.getvalue()
    cut = "is cut short or damaged"
    files = [(b"", "is an empty file"), (b"<html>" * 40, "is no checkpoint: it starts neither")]
    files += [(content[:-10], cut), (content[: len(content) // 2], cut)]
    files += [(legacy[:size], cut) for size in (20, 60, 400, len(legacy) // 2, len(legacy) - 10)]
    for given, message in files:
        path.write_bytes(given)
        with pytest.raises(UsageError, match=message) as caught:
            load_state(path)
        assert len(str(caught.value)) < len(str(path)) + 90


def test_a_refusal_shows_the_keys_of_the_file(tmp_path: Path) -> None:
    state = {"x.weight": torch.ones(1), "x.bias": torch.ones(1)}
    with pytest.raises(UsageError, match=r"it has none of conv1\.weight, but x\.weight, x\.bias"):
        _start.sizes_of("resnet20", 2, state, tmp_path / "w.pth")
    net = create("resnet20", width=4)
    own = net.state_dict()
    del own["conv1.weight"]
    with pytest.raises(UsageError, match=r"1 key is missing \(first: conv1\.weight\); its first keys are bn1\.weight"):
        refuse_others(net, own, "resnet20", tmp_path / "w.pth")
