"""What nnsight puts on a user's modules: there while the model is traced, and gone behind it.

Left there, its `forward` would slow the user's own passes, and torch.export and TorchScript would
not take the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

__all__ = ["Instruments", "tracing_of"]

Instrument = tuple[nn.Module, Any, dict[str, Any]]
"""A module, the `forward` of its own (None: its class's), and nnsight's attributes by name."""


@dataclass(frozen=True)
class Instruments:
    """The attributes by which nnsight sees a model, taken off its modules."""

    kept: list[Instrument] = field(default_factory=list)

    @classmethod
    def taken_off(cls, forwards: dict[nn.Module, Any]) -> Instruments:
        """Return what nnsight put on modules since `forwards`, their own, were looked up."""
        kept = [(m, own, tracing_of(m)) for m, own in forwards.items()]
        for instrument in kept:
            _take_off(*instrument)
        return cls(kept)

    @contextmanager
    def put_on(self) -> Iterator[None]:
        """Hold the attributes on the modules; one whose `forward` was exchanged is left alone."""
        fitting = [i for i in self.kept if vars(i[0]).get("forward") is i[1]]
        try:
            for module, _, traced in fitting:
                vars(module).update(traced)
            yield
        finally:
            for instrument in fitting:
                _take_off(*instrument)


def tracing_of(module: nn.Module) -> dict[str, Any]:
    """Return what nnsight keeps on a module, told by its home: nnsight need not be imported."""
    own = vars(module).items()
    return {name: v for name, v in own if type(v).__module__.partition(".")[0] == "nnsight"}


def _take_off(module: nn.Module, forward: Any, traced: dict[str, Any]) -> None:
    for name in traced:
        vars(module).pop(name, None)
    if forward is not None:
        vars(module)["forward"] = forward
