"""The processes of one launch, by torchrun or `accelerate launch`: whose batches are whose, and sums over all of them.

    for number, batch in share(batches): ...     # this process's part of a pass: every so many-th batch
    total(tensor), gathered(item)                # then what all parts come to, the same in every process

Inside `sharing` only: a library that one process of somebody's own training calls must not wait for the others there.
Elsewhere, and where there is one process, every function gives back what it was given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import KdnaError

if TYPE_CHECKING:  # a command asks whether it was launched as several before it loads torch
    import torch
    from torch import Tensor

T = TypeVar("T")
# Where launchers say how many processes they started: torchrun and Accelerate, then three kinds of MPI.
_LAUNCHERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SHARED: ContextVar[bool] = ContextVar("kdna.shared", default=False)


def launched() -> int:
    """How many processes the launcher says it started; 1 where there was none."""
    said = [os.environ.get(name, "") for name in _LAUNCHERS]
    return max([1, *(int(size) for size in said if size.isdecimal())])


def is_first() -> bool:
    """Whether the launcher says that this is the process of rank 0; True where there was none."""
    ranks = [os.environ.get(name, "") for name in _RANKS]
    return launched() == 1 or next((int(rank) for rank in ranks if rank.isdecimal()), 0) == 0


@contextmanager
def together(device: torch.device) -> Iterator[bool]:
    """Meet the other processes of a launch, share work with them inside, and part from them after.

    Gives whether this process is the one that writes and prints. Processes of a GPU machine take a GPU each.
    """
    if launched() == 1:
        yield True
        return
    from accelerate.state import PartialState

    state = PartialState(cpu=device.type == "cpu")
    try:
        with sharing():
            yield bool(state.is_main_process)
    finally:
        state.destroy_process_group()


@contextmanager
def sharing() -> Iterator[None]:
    """Passes inside are shared by all processes of torch's default group, where there is one: each must come here."""
    token = _SHARED.set(True)
    try:
        yield
    finally:
        _SHARED.reset(token)


def first_goes_on() -> None:
    """End every process but the first, with exit code 0; that one shares its work no more."""
    if number() > 0:
        raise SystemExit(0)
    _SHARED.set(False)


def count() -> int:
    """How many processes share the work."""
    if not _SHARED.get():
        return 1
    from torch import distributed

    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def number() -> int:
    """Which of them this one is, from 0."""
    if count() == 1:
        return 0
    from torch import distributed

    return distributed.get_rank()


def share(batches: Iterable[T]) -> Iterator[tuple[int, T]]:
    """This process's batches of a pass, each with its number in the whole; the others' are not read where possible.

    An iterable that can leave out batches says so by a method `dealt(first, step)`; of others all are read.
    """
    first, step = number(), count()
    dealt = getattr(batches, "dealt", None)
    return islice(enumerate(batches), first, None, step) if dealt is None else dealt(first, step)


def total(tensor: Tensor) -> Tensor:
    """The sum of the processes' tensors, taken in float64, of the dtype and on the device of this one's."""
    if count() == 1:
        return tensor
    import torch
    from torch import distributed

    speaks = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
    whole = tensor.to(speaks, torch.float64, copy=True)
    distributed.all_reduce(whole)
    return whole.to(tensor)


def gathered(item: T) -> list[T]:
    """What every process has, in their order; anything that can be pickled."""
    if count() == 1:
        return [item]
    from torch import distributed

    items: list[Any] = [None] * count()
    distributed.all_gather_object(items, item)
    return items


class agreed:  # noqa: N801 - reads as the statement that it is
    """What one process raises in this block, all raise at its end, so that none goes on to wait for it.

    Nothing in the block may itself wait for the other processes.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if count() == 1 or not isinstance(error, Exception | None):  # Ctrl-C: the launcher tells the others
            return
        known = (
            error if error is None or isinstance(error, KdnaError) else RuntimeError(f"process {number()}: {error!r}")
        )
        failed = [one for one in gathered(known) if one is not None]
        if error is None and failed:
            raise failed[0]
