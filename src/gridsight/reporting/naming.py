"""Operations in words: `conv 3 × 3, 64, stride 2`, `norm`, `max pool 2 × 2`."""

import re
from collections.abc import Sequence
from typing import Any

from gridsight.measure.graph import Call, Step

MINOR = {
    "native_batch_norm": "norm",
    "_native_batch_norm_legit_no_training": "norm",
    "native_layer_norm": "layer norm",
    "native_group_norm": "group norm",
    "hardtanh": "relu6",
    "relu": "relu",
    "gelu": "gelu",
    "silu": "silu",
    "elu": "elu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "leaky_relu": "leaky relu",
    "_prelu_kernel": "prelu",
    "softplus": "softplus",
    "constant_pad_nd": "pad",
    "_log_softmax": "log softmax",
}
OTHERS = {"amax": "maximum", "bmm": "product", "baddbmm": "product", "_safe_softmax": "softmax", "roll": "roll cells"}
JOINS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "cat": "concatenate",
    "maximum": "maximum",
}
PRODUCTS = {"addmm", "mm", "linear"}
MIXES = {
    "bmm",
    "baddbmm",
    "_softmax",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_attention_math",
}


def kind_of(steps: Sequence[Step]) -> str:
    """What a layer of these steps is: see `sketch.Box`."""
    ops = {step.op for step in steps}
    many_products = sum(step.op in PRODUCTS for step in steps) > 2
    if ops & MIXES or many_products:
        return "mix"
    if "convolution" in ops:
        return "conv"
    if ops & PRODUCTS:
        return "linear"
    if any("pool" in op for op in ops) or ops <= {"mean", "amax"}:
        return "pool"
    if len(steps) > 1:
        return "other"
    (step,) = steps
    if step.op in JOINS:
        return "join" if len({id(source) for source, _ in step.reads}) > 1 else "minor"
    return "minor" if step.op in MINOR else "other"


def words_of(call: Call | None, steps: Sequence[Step]) -> list[str]:
    """What these steps of one layer do, [] where it is not worth a word."""
    if len(steps) > 1:
        return [class_words(call)]
    word = _word(steps[0])
    return [word] if word else []


def is_minor(line: str) -> bool:
    """Whether words joined by dots are all of what is done cell by cell."""
    return all(word in MINOR.values() for word in line.split(" · "))


def class_words(call: Call | None) -> str:
    """`SqueezeExcite` as `squeeze excite`; what is written in capitals (GRU) stays."""
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", call.kind if call else "")
    return " ".join(word if word.isupper() else word.lower() for word in kind.split())


def _word(step: Step) -> str:
    if step.op == "convolution":
        return _convolution(step)
    if step.op in PRODUCTS:
        return f"linear, {step.shape[-1]:,}"
    if "pool" in step.op:
        return _pool(step)
    if step.op in JOINS:
        # with a number alone it is a matter of units; with a parameter, a scale or a table that is learned
        if len({id(source) for source, _ in step.reads}) > 1:
            return JOINS[step.op]
        if step.op == "cat":
            return "prepend" if step.parameters else ""
        return "" if not step.parameters else "scale" if step.op in ("mul", "div") else "shift"
    return {**MINOR, **OTHERS}.get(step.op) or step.op.strip("_").replace("_", " ")


def _convolution(step: Step) -> str:
    given = step.given
    channels, kernel = step.shape[0], given["weight"][2:]
    groups = given["groups"]
    depthwise = groups > 1 and given["weight"][1] == 1
    words = "depthwise conv" if depthwise else "transposed conv" if given["transposed"] else "conv"
    words += f" {times(kernel)}, {channels:,}"
    words += f", {groups} groups" if groups > 1 and not depthwise else ""
    words += f", stride {_one(given['stride'])}" if max(given["stride"]) > 1 else ""
    return words + (f", dilation {_one(given['dilation'])}" if max(given["dilation"]) > 1 else "")


def _pool(step: Step) -> str:
    what = "max pool" if "max" in step.op else "mean pool"
    if "adaptive" in step.op:
        return f"{what} to {times(step.shape[1:])}"
    kernel = step.given["kernel_size"]
    stride = step.given["stride"] or kernel
    # PyTorch pools a line as a plane with an axis of one cell
    cells = step.reads[0][1][-len(kernel) :]
    axes = [i for i, (k, n) in enumerate(zip(kernel, cells, strict=True)) if k > 1 or n > 1] or [len(kernel) - 1]
    return f"{what} {times([kernel[i] for i in axes])}, stride {_one([stride[i] for i in axes])}"


def times(sizes: Sequence[Any]) -> str:
    """Sizes of several axes: `3 × 3`."""
    return " × ".join(f"{size:,}" for size in sizes)


def _one(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else times(sizes)
