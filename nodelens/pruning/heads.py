"""Key-value groups of attention: what goes with one, and the numbers that modules keep of heads.

Heads lie side by side in one axis, which a graph of operations cannot see; so they are found by
the names and widths of an attention's layers, and the outputs of the result are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from nodelens.errors import IncompatibleModelError
from nodelens.model.attention import HEAD_COUNTS, attention_parts
from nodelens.model.layers import Layer
from nodelens.pruning.groups import Cuts
from nodelens.pruning.requests import Request

__all__ = ["KEY_VALUE_COUNTS", "head_cuts", "recount_heads", "replace_numbers"]

KEY_VALUE_COUNTS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
_WIDTHS = ("split_size", "all_head_size", "inner_dim")


def head_cuts(layers: Mapping[str, Layer], request: Request) -> Cuts:
    """Return what goes with key-value groups: rows of queries, keys, values, columns of the output.

    Raises IncompatibleModelError where the layers are not laid out in a known way.
    """
    output = request.layer
    parts = attention_parts(layers, output.name)
    size, shared = output.inputs // output.heads, output.key_value_heads
    together = output.heads // shared
    queries = _rows(request.removed, together * size)
    keys = _rows(request.removed, size)
    found = Cuts(inputs={output.name: queries})
    if parts is None:
        raise IncompatibleModelError(
            f"layer {output.name!r}: the layers that make its queries, keys and values are unknown"
        )
    if parts.fused:
        first, second = output.heads * size, (output.heads + shared) * size
        rows = {*queries, *(first + i for i in keys), *(second + i for i in keys)}
        found.outputs[parts.fused] = rows
        _check_width(layers[parts.fused], second + shared * size)
        return found
    for name, rows, heads in (
        (parts.queries, queries, output.heads),
        (parts.keys, keys, shared),
        (parts.values, keys, shared),
    ):
        _check_width(layers[name], heads * size)
        found.outputs[name] = rows
    return found


def recount_heads(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> None:
    """Bring the numbers of heads that the attention module keeps up to date."""
    parts = attention_parts(layers, request.layer.name)
    assert parts is not None
    module, before = model.get_submodule(parts.module), request.layer
    shared = before.key_value_heads - len(request.removed)
    heads = shared * (before.heads // before.key_value_heads)
    size = before.inputs // before.heads
    replace_numbers(module, HEAD_COUNTS, before.heads, heads)
    replace_numbers(module, KEY_VALUE_COUNTS, before.key_value_heads, shared)
    replace_numbers(module, _WIDTHS, before.heads * size, heads * size)


def replace_numbers(owner: Any, names: Iterable[str], old: int, new: int) -> bool:
    """Set those attributes among `names` that are `old` to `new`; return whether there was one."""
    found = [name for name in names if getattr(owner, name, None) == old]
    for name in found:
        setattr(owner, name, new)
    return bool(found)


def _rows(groups: Iterable[int], size: int) -> set[int]:
    return {i for g in groups for i in range(g * size, (g + 1) * size)}


def _check_width(layer: Layer, width: int) -> None:
    if layer.channels != width:
        raise IncompatibleModelError(
            f"layer {layer.name!r} has {layer.channels} channels, expected {width} for its heads: "
            "this attention cannot be shrunk"
        )
