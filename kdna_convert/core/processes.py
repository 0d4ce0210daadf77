"""The processes of one launch, by torchrun or `accelerate launch`: how they share batches and sum results.

    for number, batch in share(batches): ...     # this process's batches of a pass
    all_sum(tensor), gather(item)                # then the results of all processes, the same in each of them

They work only inside `sharing`: where a training program calls this library in one of its processes, the library must
not wait for the others. Elsewhere, and with one process, every function returns its argument.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import joining
from .errors import KdnaError

if TYPE_CHECKING:  # the CLI checks the number of processes before it imports torch
    import torch
    from torch import Tensor

T = TypeVar("T")
# Environment variables with the number of processes: torchrun and Accelerate, then three kinds of MPI.
_LAUNCHERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_joined = False  # whether this process reached the others
_SHARED: ContextVar[bool] = ContextVar("kdna.shared", default=False)


def launched() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    sizes = [os.environ.get(name, "") for name in _LAUNCHERS]
    return max([1, *(int(size) for size in sizes if size.isdecimal())])


def is_first() -> bool:
    """Whether this is the process of rank 0; True without a launcher."""
    return launched() == 1 or _rank() == 0


def _rank() -> int:
    """The number that the launcher gave this process."""
    ranks = [os.environ.get(name, "") for name in _RANKS]
    return next((int(rank) for rank in ranks if rank.isdecimal()), 0)


@contextmanager
def process_group(device: torch.device) -> Iterator[bool]:
    """Form a group with the other processes of the launch and share work inside the block.

    Yields whether this process is the one that writes and prints. On a GPU machine each process uses one GPU. A
    KdnaError of one process becomes that of all.

    Raises:
        DataError: KD421 if the processes do not find each other, or one is lost.
    """
    if launched() == 1:
        yield True
        return
    from accelerate.state import PartialState

    with _told() as meeting:
        if meeting is not None:
            meeting.wait(joining.JOIN)
        state = PartialState(cpu=device.type == "cpu")
        try:
            with sharing():
                yield bool(state.is_main_process)
        finally:
            state.destroy_process_group()


@contextmanager
def _told() -> Iterator[joining.Meeting | None]:
    """Tell the other processes of a KdnaError in the block; raise theirs where the connection to them is lost."""
    global _joined
    meeting = joining.meet(joining.JOIN)
    _joined = True
    try:
        yield meeting
    except KdnaError as error:
        if meeting is not None:
            with suppress(Exception):  # the store may be lost already
                meeting.tell(error, _rank())
        raise
    except Exception as error:
        reason = None if meeting is None else meeting.instead_of(error)
        if reason is None:
            raise
        raise reason from error


def tell_before_joining(error: KdnaError) -> None:
    """Let the other processes of the launch, which wait for this one in process_group, raise its error."""
    if launched() > 1 and not _joined:
        joining.tell_others(error, _rank())


@contextmanager
def sharing() -> Iterator[None]:
    """Share the passes inside among all processes of torch's default group. Each of them must enter this block."""
    token = _SHARED.set(True)
    try:
        yield
    finally:
        _SHARED.reset(token)


def end_other_processes() -> None:
    """End every process except the first, with exit code 0. The first shares its work no longer."""
    if number() > 0:
        raise SystemExit(0)
    _SHARED.set(False)


def count() -> int:
    """The number of processes that share the work."""
    if not _SHARED.get():
        return 1
    from torch import distributed

    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def number() -> int:
    """The number of this process, from 0."""
    if count() == 1:
        return 0
    from torch import distributed

    return distributed.get_rank()


def share(batches: Iterable[T]) -> Iterator[tuple[int, T]]:
    """This process's batches of a pass, each with its number in the whole pass.

    An iterable with a method `dealt(first, step)` reads only these batches; of any other all batches are read.
    """
    first, step = number(), count()
    dealt = getattr(batches, "dealt", None)
    return islice(enumerate(batches), first, None, step) if dealt is None else dealt(first, step)


def all_sum(tensor: Tensor) -> Tensor:
    """The sum of the tensors of all processes, computed in float64, with the dtype and device of this one's."""
    if count() == 1:
        return tensor
    import torch
    from torch import distributed

    device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
    summed = tensor.to(device, torch.float64, copy=True)
    distributed.all_reduce(summed)
    return summed.to(tensor)


def gather(item: T) -> list[T]:
    """The items of all processes, in the order of their numbers. An item must be picklable."""
    if count() == 1:
        return [item]
    from torch import distributed

    items: list[Any] = [None] * count()
    distributed.all_gather_object(items, item)
    return items


class raise_together:  # noqa: N801 - used as a statement
    """Raise in all processes, at the end of the block, what one of them raised inside: none waits for it forever.

    Code in the block must not wait for the other processes.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if count() == 1 or not isinstance(error, Exception | None):  # on Ctrl-C the launcher stops the others
            return
        picklable = error is None or isinstance(error, KdnaError)
        own = error if picklable else RuntimeError(f"process {number()}: {error!r}")
        errors = [each for each in gather(own) if each is not None]
        if error is None and errors:
            raise errors[0]
