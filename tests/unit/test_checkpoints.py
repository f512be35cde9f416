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


@pytest.mark.parametrize("safe", (False, True))
def test_a_negative_variance_is_refused(tmp_path: Path, safe: bool) -> None:
    path, state = tmp_path / "w.pth", create("resnet20", width=4).state_dict()
    state["bn1.running_mean"] -= 1  # means may be
    save_file(state, path) if safe else torch.save(state, path)
    assert load_state(path).keys() == state.keys()
    state["layer1.0.bn2.running_var"][1] = -1
    save_file(state, path) if safe else torch.save(state, path)
    with pytest.raises(UsageError, match=r"negative variances in 1 tensor \(first: layer1\.0\.bn2\.running_var\)"):
        load_state(path)


@pytest.mark.parametrize("dtype", (torch.int64, torch.uint8, torch.bool, torch.complex64))
def test_weights_of_other_types_than_real_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    net, path = create("resnet20", width=4), tmp_path / "w.pth"
    for some in (torch.half, torch.bfloat16, torch.double):
        refuse_others(net, {key: value.to(some) for key, value in net.state_dict().items()}, "resnet20", path)
    kind = str(dtype).removeprefix("torch.")
    for key in ("linear.weight", "bn1.running_var"):
        state = net.state_dict() | {key: net.state_dict()[key].to(dtype)}
        torch.save(state, path)
        with pytest.raises(UsageError, match=f"holds {key} as {kind}; weights are real numbers"):
            refuse_others(net, load_state(path), "resnet20", path)


def test_a_file_of_torch_that_is_called_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for zipped in (True, False):
        torch.save({"a.weight": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(UsageError, match=r"is no safetensors file; is it a PyTorch file\? rename it to \.pth"):
            load_state(path)
    path.write_bytes(b"<html>" * 40)
    with pytest.raises(UsageError, match=r"is no safetensors file$"):
        load_state(path)


def test_tensors_that_are_not_dense_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for other in (torch.eye(3).to_sparse(), torch.eye(3, device="meta")):
        torch.save({"a.bias": torch.ones(3), "b.weight": other}, path)
        with pytest.raises(UsageError, match=r"has 1 tensor without an entry for every cell .*first: b\.weight\)"):
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
