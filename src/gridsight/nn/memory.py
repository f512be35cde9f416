"""Memory that runs out: known before a run where it can be, answered by smaller parts of the batch where it cannot.

A step computed in parts has the gradient of the whole batch (`training/methods/`), so halving the parts keeps the
effective batch and the course of the loss; only batch norms then see the statistics of a part.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")

SHARE = 0.8
"""Of the memory that is free, what a run may plan to take."""
GROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows control groups: version 2 here, version 1 in a folder for each resource."""
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "could not create a memory", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in PyTorch's and oneDNN's words for the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def in_parts(ask: Callable[[Sequence[T]], R], items: Sequence[T]) -> list[R]:
    """What `ask` says of all items, part by part in order: one part, cut in halves for as long as memory runs out."""
    try:
        return [ask(items)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(items) == 1:
            raise
    half = len(items) // 2  # outside of the handler, which would keep what the failed pass holds
    return [*in_parts(ask, items[:half]), *in_parts(ask, items[half:])]


def parts_that_fit(bytes_an_item: int, batch: int, free: int | None, least: int = 1) -> int:
    """How many parts a batch must be computed in: `least`, doubled until a part's activations fit into what is free.

    `bytes_an_item` are an item's activations as `measure.cost` counts them; their gradients take about as much again
    as the largest of them, which `SHARE` leaves room for. `free` None: not known, so nothing is changed.
    """
    parts = least
    while free is not None and parts < batch and bytes_an_item * -(-batch // parts) > SHARE * free:
        parts = min(batch, 2 * parts)
    return parts


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device, None where that is not known.

    On the CPU the least of what the kernel says is available, what a control group leaves and what `ulimit -v` leaves.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = [value for value in (_available(), _left_in_group(), _left_of_limit()) if value is not None]
    return min(known) if known else None


def _available() -> int | None:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_group() -> int | None:
    """What the limits of this process's control groups leave; in a container its own is the root of what is seen."""
    left = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root = GROUPS / "memory" if kinds else GROUPS
        inner = root / path.lstrip("/")
        groups = [group for group in (inner, *inner.parents) if group.is_relative_to(root)]
        left += [_left_in(group, version=1 if kinds else 2) for group in groups]
    return min((value for value in left if value is not None), default=None)


def _left_in(group: Path, version: int) -> int | None:
    """What the limit of one group leaves: its usage counts pages of files, which the kernel gives up first."""
    limit, usage = ("limit_in_bytes", "usage_in_bytes") if version == 1 else ("max", "current")
    most, now = (_read(group / f"memory.{name}").strip() for name in (limit, usage))
    if not (most.isdecimal() and now.isdecimal()):
        return None
    # read lately or not, as /proc/meminfo counts them for what is available
    wanted = {f"{'total_' if version == 1 else ''}{kind}_file" for kind in ("inactive", "active")}
    rows = (line.split() for line in _read(group / "memory.stat").splitlines())
    files = sum(int(row[1]) for row in rows if row[0] in wanted)
    return max(0, int(most) - max(0, int(now) - files))


def _left_of_limit() -> int | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _read(Path("/proc/self/statm")).split()
    if soft == resource.RLIM_INFINITY or not pages:
        return None
    return max(0, soft - int(pages[0]) * resource.getpagesize())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


class Buffers:
    """Running statistics as they were before a step, to be put back when it failed half-way and is tried again."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._now = [tensor.detach() for tensor in tensors]
        self._kept = [tensor.clone() for tensor in self._now]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember them as they are."""
        if self._now:
            torch._foreach_copy_(self._kept, self._now)

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back."""
        if self._now:
            torch._foreach_copy_(self._now, self._kept)
