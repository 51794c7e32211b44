"""Running a user's model without changing anything of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch
from torch import nn

from nodelens.errors import IncompatibleModelError

__all__ = ["alone", "drawn_apart", "full_precision", "shapes_alone", "untouched"]

T = TypeVar("T")

_LOCK = threading.RLock()


def alone() -> AbstractContextManager[object]:
    """Return a context in which no other thread runs a model; others wait.

    One lock for all models: the random generators, warning filters and torch's switches that a pass
    sets and puts back belong to the whole process.
    """
    return _LOCK


@contextmanager
def untouched(module: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Hold the model in evaluation mode, then leave it as it was, also after an error.

    Restores every module's `training` flag, every parameter's `requires_grad` and the generators'
    states. With `gradients=True` autograd is on, also inside the caller's `no_grad`, and the
    parameters are frozen, so that no parameter gradient is computed or stored. One thread at a
    time may run a model.
    """
    with (
        alone(),
        _generators(),
        _evaluating(module),
        _frozen(module, gradients),
        _module_by_module(),
        torch.inference_mode(torch.is_inference_mode_enabled() and not gradients),
        torch.set_grad_enabled(gradients),
    ):
        yield


def drawn_apart(batches: Iterable[T]) -> Iterator[T]:
    """Yield the batches, torch's generator as the caller left it before and after each.

    A shuffled loader draws from it; its draws go on where those for the batch before ended.
    """
    iterator, state = None, torch.get_rng_state()
    while True:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            iterator = iter(batches) if iterator is None else iterator
            try:
                batch = next(iterator)
            except StopIteration:
                return
            state = torch.get_rng_state()
        yield batch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Hold off the caller's autocast, which would multiply statistics in half precision."""
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    with torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Run a pass without numbers, as nnsight's `scan` does: what it shows are calls and shapes."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    shapes = ShapeEnv(assume_static_by_default=True)
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=shapes):
        yield


@contextmanager
def _generators() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        yield


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    # The flags themselves, not module.train(): some models fold weights when train() is called.
    training = [m for m in module.modules() if m.training]
    try:
        for m in training:
            m.training = False
        yield
    finally:
        for m in training:
            m.training = True


@contextmanager
def _frozen(module: nn.Module, gradients: bool) -> Iterator[None]:
    if gradients and any(p.is_inference() for p in module.parameters()):
        raise IncompatibleModelError(
            "the weights were made in inference mode, so no gradient can be taken: "
            "make or load the model outside torch.inference_mode()"
        )
    trained = [p for p in module.parameters() if p.requires_grad] if gradients else []
    try:
        for p in trained:
            p.requires_grad_(False)
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


@contextmanager
def _module_by_module() -> Iterator[None]:
    # torch's fused transformer encoder never calls its linear layers, so nothing could be read.
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
