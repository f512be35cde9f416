"""Engines: ways to run one network on this machine, from plain PyTorch to compilers, all in float32.

`make(net, x)` readies an engine for inputs of the shape of x (N, in_channels, *spatial) and returns a function without
arguments that answers about x: logits (N, num_classes). `net` is in eval mode and is left as it is. What cannot run
here raises `Unavailable` with the reason. TorchScript is not among them: PyTorch 2.13 warns at each of its functions
that they are deprecated, and what its freezing did `compiled` does.
"""

import copy
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from gridsight.nn.fold import fold
from gridsight.nn.nd import channels_last

Answer = Callable[[], Tensor]


class Unavailable(Exception):
    """An engine that cannot run here, with the reason."""


@dataclass(frozen=True)
class Engine:
    """`make` as above; `use` is how to have it; answers may differ from eager's by `tolerance` of the largest logit."""

    make: Callable[[nn.Module, Tensor], Answer]
    use: str
    tolerance: float = 1e-5


def _eager(net: nn.Module, x: Tensor) -> Answer:
    x = x.contiguous()
    return lambda: net(x)


def _channels_last(net: nn.Module, x: Tensor) -> Answer:
    net, x = channels_last(copy.deepcopy(net)), _lying(x)
    return lambda: net(x)


def _folded(net: nn.Module, x: Tensor) -> Answer:
    return _eager(fold(net, x[:1]).net, x)


def _folded_channels_last(net: nn.Module, x: Tensor) -> Answer:
    return _channels_last(fold(net, x[:1]).net, x)


def _compiled(net: nn.Module, x: Tensor) -> Answer:
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if x.device.type == "cpu" and (compiler is None or shutil.which(compiler) is None):
        raise Unavailable("needs a C++ compiler, such as g++")
    net = fold(net, x[:1]).net
    if x.dim() > 3:
        net, x = channels_last(copy.deepcopy(net)), _lying(x)
    torch.compiler.reset()  # after some networks PyTorch would stop to compile, and say so in its log alone
    compiled = torch.compile(net, dynamic=False, options={"freezing": True})
    compiled(x)
    return lambda: compiled(x)


def _onnxruntime(net: nn.Module, x: Tensor) -> Answer:
    _require(x, "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # threads that wait for the next call by spinning would take the cores from the engine after it
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(_onnx(net, x), options, providers=["CPUExecutionProvider"])
    given = {"x": x.contiguous().numpy()}
    return lambda: torch.from_numpy(session.run(None, given)[0])


def _openvino(net: nn.Module, x: Tensor) -> Answer:
    _require(x, "openvino")
    # importing OpenVINO tells its makers so, unless the package that does it is missing
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    core = openvino.Core()
    wanted = {
        "PERFORMANCE_HINT": "LATENCY",  # one call at a time; the other hint would give it one thread of all
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(core.read_model(_onnx(net, x)), "CPU", wanted).create_infer_request()
    given = {0: x.contiguous().numpy()}
    return lambda: torch.from_numpy(request.infer(given, share_inputs=True)[0])


ENGINES = {
    "eager": Engine(_eager, "what plain PyTorch does with gridsight.load(RUN).model.net"),
    "channels_last": Engine(_channels_last, "gridsight.nn.nd.channels_last(net), and x in the same memory format"),
    "folded": Engine(_folded, "gridsight.nn.fold.fold(net, x).net"),
    "folded_channels_last": Engine(_folded_channels_last, "channels_last(fold(net, x).net); predict does so in 2-D"),
    "compiled": Engine(_compiled, 'torch.compile(fold(net, x).net, options={"freezing": True})', 1e-4),
    "onnxruntime": Engine(_onnxruntime, "torch.onnx.export(fold(net, x).net, (x,), FILE), then ONNX Runtime", 1e-4),
    "openvino": Engine(_openvino, "torch.onnx.export(fold(net, x).net, (x,), FILE), then OpenVINO", 1e-4),
}
"""By name, the simplest first."""


def make(name: str, net: nn.Module, x: Tensor) -> Answer:
    """The engine `name`, ready and run once; whatever goes wrong in it is `Unavailable`, as each fails in its own way.

    >>> make("folded", nn.Linear(2, 3).eval(), torch.zeros(1, 2))().shape
    torch.Size([1, 3])
    """
    with _quiet():
        try:
            answer = ENGINES[name].make(net, x)
            answer()
        except Unavailable:
            raise
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise Unavailable(f"failed: {type(error).__name__}{': ' if first else ''}{first[:200]}") from error
    return answer


def _lying(x: Tensor) -> Tensor:
    """x in channels-last memory."""
    if x.dim() not in (4, 5):
        raise Unavailable("one axis has no channels-last memory")
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def _require(x: Tensor, package: str) -> None:
    if x.device.type != "cpu":
        raise Unavailable("is measured on the CPU alone")
    missing = [name for name in (package, "onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise Unavailable(f'{" and ".join(missing)} not installed; pip install "gridsight[export]"')


def _onnx(net: nn.Module, x: Tensor) -> bytes:
    """The folded network as an ONNX file for inputs `x` of this shape."""
    net = fold(net, x[:1]).net
    program: Any = torch.onnx.export(net, (x.contiguous(),), input_names=["x"], dynamo=True, verbose=False)
    return program.model_proto.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch and the exporters log and warn about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
