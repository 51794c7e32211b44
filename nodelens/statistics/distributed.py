"""The processes of one run and what they tell each other; all that knows of torch.distributed."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed

from nodelens.errors import InvalidValueError, NodeLensError, RankError

__all__ = ["Ranks", "gathered", "joined"]

T = TypeVar("T")

_MEETING = timedelta(minutes=10)
_PATIENCE = timedelta(days=7)
"""How long ranks wait for the training or for the slowest share; a lost rank is seen at once."""
_TOLD_EVERY = 0.5
_MEETINGS = itertools.count()


def gathered(state: T) -> Iterator[T]:
    """Yield the states of all ranks in rank order, one at a time; without ranks just this one."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        yield state
        return
    for rank in range(distributed.get_world_size()):
        box = [state if rank == distributed.get_rank() else None]
        distributed.broadcast_object_list(box, src=rank)
        assert box[0] is not None
        yield box[0]


class Ranks:
    """The processes that share one run: number `index` of `count`, told apart by `torchrun`.

    `store` is where a rank leaves what the others look up while they work.
    """

    def __init__(self, index: int = 0, count: int = 1, store: Any = None) -> None:
        self.index = index
        self.count = count
        self._store = store if count > 1 else None
        self._told, self._total, self._when = 0, 0, 0.0

    def __str__(self) -> str:
        return f"rank {self.index} of {self.count}"

    @property
    def device(self) -> int:
        """Return this process's number on its machine: which GPU is its own."""
        return int(os.environ.get("LOCAL_RANK", self.index)) if self.count > 1 else 0

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what `make` gives on rank 0, which alone calls it; every rank has to ask."""
        if self.count == 1:
            return make()
        box: list[Any] = [make() if self.index == 0 else None]
        with self.together():
            torch.distributed.broadcast_object_list(box, src=0)
        found: T = box[0]
        return found

    def wait(self) -> None:
        """Return once every rank has come here."""
        if self.count > 1:
            with self.together():
                list(gathered(True))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise RankError where ranks wait for each other within and one of them is gone."""
        try:
            yield
        except NodeLensError:
            raise
        except RuntimeError as failure:
            if self.count == 1:
                raise
            raise RankError(self._reason(failure)) from failure

    def tell(self, batches: int, *, now: bool = False) -> int:
        """Return how many batches all ranks have done, this one `batches`; raise RankError if one
        of them failed. Asks the others twice a second at most.
        """
        if self._store is None:
            return batches
        if now or time.monotonic() - self._when >= _TOLD_EVERY:
            with self.together():
                self._total = self._store.add("batches", batches - self._told)
                failed = self._store.check(["failure"])
            if failed:
                raise RankError(self._reason(None))
            self._told, self._when = batches, time.monotonic()
        return self._total + batches - self._told

    def fail(self, problem: BaseException) -> None:
        """Let the other ranks know why this one stops."""
        if isinstance(problem, RankError) or self._store is None:
            return
        text = str(problem) if isinstance(problem, NodeLensError) else _shown(problem)
        try:
            self._store.set("failure", text if text.startswith(str(self)) else f"{self}: {text}")
        except RuntimeError:
            # The process that keeps the store is gone: nobody is left to be told.
            return

    def _reason(self, failure: RuntimeError | None) -> str:
        try:
            if self._store is not None and self._store.check(["failure"]):
                return str(self._store.get("failure").decode())
        except RuntimeError:
            pass  # the store went with the rank that kept it
        seen = str(failure).partition("\n")[0]
        return f"{self}: another process of the run went away while this one waited for it: {seen}"


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started together, and leave them at the end.

    A process group that the caller has made is used as it is. One process alone is rank 0 of 1.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    ranks = _meet()
    try:
        yield ranks
    except BaseException as problem:
        if isinstance(problem, NodeLensError) and not isinstance(problem, RankError):
            problem.within(str(ranks))
        ranks.fail(problem)
        raise
    finally:
        distributed.destroy_process_group()


def _meet() -> Ranks:
    distributed: Any = torch.distributed  # not all of its public names are declared as such
    if not distributed.is_available():
        raise InvalidValueError("this build of torch has no torch.distributed: run one process")
    store, rank, count = next(distributed.rendezvous("env://", timeout=_MEETING))
    meeting = next(_MEETINGS)  # the store outlives a run: a second one has names of its own
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(
        backend,
        store=distributed.PrefixStore(f"group {meeting}", store),
        rank=rank,
        world_size=count,
        timeout=_PATIENCE,
    )
    return Ranks(rank, count, distributed.PrefixStore(f"run {meeting}", store))


def _shown(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}".removesuffix(": ")
