"""A network as it answers, for whoever looks inside; afterwards nothing about it has changed, also after an error.

Within `undisturbed(net)` every module is in eval mode, no parameter asks for a gradient, and no activation writes over
its input (`nn.ReLU(inplace=True)` would change what was captured before it). Modes, `requires_grad`, `inplace`, hooks
and random state are then what they were; `.grad` is never touched.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Within it `net` answers as in `net.eval()`, and gradients of its input can be taken, whatever the caller set."""
    modules = [net]
    seen = {id(net)}
    for module in modules:  # as `net.modules()`, in a third of its time
        fresh = [m for m in module._modules.values() if m is not None and id(m) not in seen]
        seen.update(map(id, fresh))
        modules += fresh
    parameters = [p for module in modules for p in module._parameters.values() if p is not None]
    modes = [module.training for module in modules]
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    writers = [module for module in modules if vars(module).get("inplace") is True]
    hooks = [getattr(module, name) for module in modules for name in _HOOKS]
    kept = [tuple(each) for each in hooks]
    gpus = sorted({p.device.index or 0 for p in parameters if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=gpus))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if any(isinstance(module, nn.RNNBase) for module in modules):
            # its recurrent layers have no gradient in eval mode
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        try:
            for module in modules:
                if module.training:
                    module.training = False
            for parameter in wanted:
                parameter.requires_grad_(False)
            for module in writers:
                module.inplace = False  # type: ignore[assignment]
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                if module.training != mode:
                    module.training = mode
            for now, before in zip(hooks, kept, strict=True):
                if tuple(now) != before:
                    for key in [key for key in now if key not in before]:
                        del now[key]
            for parameter in wanted:
                parameter.requires_grad_()
            for module in writers:
                module.inplace = True  # type: ignore[assignment]
