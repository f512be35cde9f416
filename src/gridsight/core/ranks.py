"""Several processes that work as one, as `torchrun` starts them; without it one process, which costs nothing.

    torchrun --nproc-per-node 2 -m gridsight train DATA

The processes find each other by the environment: WORLD_SIZE of them, each with its RANK. All do the same in the same
order, each on its share of the items; rank 0 alone prints and writes, and what it finds or decides is handed to all.
Sums over processes are one call on one flat vector a step: PyTorch's DistributedDataParallel would average what each
process finds, which is not the gradient of the whole batch where shares are of unequal weight, and would exchange the
parts of an accumulated gradient one by one.

A process that ends takes its connections with it: whoever waits for it is told within moments, and ends too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from gridsight.core.errors import GridsightError, TrainingError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PATIENCE = 24.0
"""Hours that processes wait for rank 0 to decode the data or to judge a network; death is noticed without it."""


class Ended(TrainingError):
    """Another of the processes is gone, so this one cannot go on."""


class Ranks:
    """One process, rank 0 of 1; `join` gives this or one of several that has the same methods."""

    rank, world = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, the same bits in all; in the first one's precision."""

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank."""
        return [value]

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives on rank 0, where alone it is called; if it fails there, all fail."""
        return make()

    def first_then_all(self, make: Callable[[], T]) -> T:
        """`make()` on rank 0, then on the others at once, which find what it has left (files, a cache)."""
        return make()


class Several(Ranks):
    """One of `world` processes that have joined."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def add(self, tensors: Sequence[Tensor]) -> None:
        import torch
        from torch import distributed

        flat = torch.cat([tensor.detach().reshape(-1).to(tensors[0].dtype) for tensor in tensors])
        with self._together():
            distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def gather(self, value: T) -> list[T]:
        from torch import distributed

        found: list[T | None] = [None] * self.world
        with self._together():
            distributed.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def from_first(self, make: Callable[[], T]) -> T:
        if not self.first:
            value, message, code = self._broadcast(None)
            if message is not None:
                raise UsageError(message) if code == UsageError.exit_code else GridsightError(message)
            return value
        try:
            value = make()
        except BaseException as error:  # the others wait, whatever it was
            with suppress(Ended):
                self._broadcast((None, str(error) or type(error).__name__, getattr(error, "exit_code", 1)))
            raise
        self._broadcast((value, None, 0))
        return value

    def first_then_all(self, make: Callable[[], T]) -> T:
        made: list[T] = []
        self.from_first(lambda: made.append(make()))
        return made[0] if made else make()

    def _broadcast(self, value: Any) -> Any:
        """Rank 0's value."""
        from torch import distributed

        said = [value]
        with self._together():
            distributed.broadcast_object_list(said)
        return said[0]

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # a connection that closed
            why = (str(error).splitlines() or [""])[0].rpartition("] ")[2]
            raise Ended(f"another of the {self.world} processes has ended, so this run cannot go on ({why})") from error


def join() -> Ranks:
    """What `torchrun` has made of this process; without it the one process that there is."""
    world = world_size()
    if world == 1:
        return Ranks()
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {world}, but {' and '.join(missing)} is not set: start gridsight with torchrun, "
            "or unset WORLD_SIZE for one process"
        )
    import atexit
    from datetime import timedelta

    import torch
    from torch import distributed

    if not distributed.is_initialized():
        nccl = torch.cuda.is_available() and distributed.is_nccl_available()
        # small things go from CPU to CPU; gradients on a GPU never leave the GPUs
        backend, patience = "cpu:gloo,cuda:nccl" if nccl else "gloo", timedelta(hours=PATIENCE)
        try:
            distributed.init_process_group(backend, timeout=patience)
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise UsageError(f"the {world} processes do not find each other at {where} ({error})") from None
        atexit.register(_leave)
    return Several(distributed.get_rank(), distributed.get_world_size())


def _leave() -> None:
    from torch import distributed

    # gloo's threads let go of the last tensors, for which they need the interpreter: without it they abort the process
    time.sleep(0.05)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def world_size() -> int:
    """How many processes work as one, by the environment."""
    return max(1, _number("WORLD_SIZE", 1))


def local_rank() -> int:
    """Which of its machine's processes this is, by the environment: the number of its GPU."""
    return _number("LOCAL_RANK", 0) if world_size() > 1 else 0


def says(message: str) -> bool:
    """Whether this process is to say it: of several that meet with the same failure the first alone does."""
    if world_size() == 1:
        return True
    from datetime import timedelta

    try:
        from torch.distributed import TCPStore

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return bool(store.add(f"gridsight said {attempt} {message}", 1) == 1)
    except Exception:  # better twice than never
        return True


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal():
        raise UsageError(f"the environment variable {name} is {text!r}, not a number; torchrun sets it")
    return int(text)
