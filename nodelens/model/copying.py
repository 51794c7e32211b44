"""A copy of a model that shares nothing with it and knows nothing of tracing."""

from __future__ import annotations

import copy

from torch import nn

from nodelens.model.instruments import tracing_of
from nodelens.model.session import alone

__all__ = ["independent_copy"]


def independent_copy(module: nn.Module) -> nn.Module:
    """Return a deep copy of a model without what tracing keeps on the original's modules.

    nnsight puts a `forward` of its own on every module; copied, it would run the original's.
    """
    with alone():
        tracing = {id(value): value for m in module.modules() for value in tracing_of(m).values()}
        copied = copy.deepcopy(module, tracing)
    for m in copied.modules():
        for name in tracing_of(m):
            del vars(m)[name]
    return copied
