"""Which linear layers are attention's output projections, and how many heads each takes in.

Told by names and by what modules and configurations say of themselves; a pass would show no more,
since heads are laid side by side in one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from nodelens.model.layers import Layer

__all__ = ["functional_projections", "with_heads"]

_FUSED = frozenset({
    "qkv", "qkv_proj", "to_qkv", "wqkv", "w_qkv", "query_key_value", "c_attn", "attn_qkv",
})  # fmt: skip
_QUERIES = frozenset({
    "q_proj", "query", "q", "to_q", "q_lin", "q_linear", "q_b_proj", "wq", "w_q", "q_attn",
    "linear_q", "query_proj", "queries",
})  # fmt: skip
_KEYS = frozenset({
    "k_proj", "key", "k", "to_k", "k_lin", "k_linear", "wk", "w_k", "linear_k", "key_proj",
    "keys",
})  # fmt: skip
_OUTPUTS = frozenset({
    "o_proj", "out_proj", "c_proj", "dense", "wo", "w_o", "o", "out", "proj", "projection",
    "to_out", "out_lin", "output", "output_proj", "output_projection", "out_projection",
    "linear_out", "fc_out",
})  # fmt: skip
_COUNTS = (
    "num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead", "num_q_heads",
    "num_query_heads",
)  # fmt: skip
_SIZES = ("head_dim", "attention_head_size", "head_size", "d_head", "key_value_proj_dim")


def with_heads(
    layers: Mapping[str, Layer], modules: Mapping[str, nn.Module], root: nn.Module
) -> dict[str, Layer]:
    """Return the layers, output projections with the number of heads that they take in.

    Layers whose number of heads nothing tells stay as they are.
    """
    found = dict(layers)
    closed = set(functional_projections(modules))
    queries = (name for name in layers if _leaf(name) in _QUERIES | _FUSED)
    for attention in dict.fromkeys(map(_parent, queries)):
        name = _projection(attention, layers)
        if name is None or name in closed:
            continue
        scopes = [modules.get(scope, root) for scope in (attention, _parent(attention))]
        heads = _heads([*scopes, root], layers[name].inputs)
        if heads:
            shared = _key_value_heads(attention, layers, layers[name].inputs // heads, heads)
            found[name] = replace(layers[name], heads=heads, key_value_heads=shared)
    return found


def functional_projections(modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the output projections of `nn.MultiheadAttention`, which are never called.

    torch hands their weights to a function, so no pass shows what they take in.
    """
    names = [name for name, m in modules.items() if isinstance(m, nn.MultiheadAttention)]
    return [f"{name}.out_proj" for name in names]


def _projection(attention: str, layers: Mapping[str, Layer]) -> str | None:
    """The one linear layer of an attention that is called as output projections are."""
    here = [n for n, path in _below(attention, layers) if _is_output(path)]
    # BERT and its kin: attention.self.query, attention.output.dense.
    beside = [
        n
        for n, path in _below(_parent(attention), layers)
        if len(path) == 2 and path[0] == "output" and path[1] in _OUTPUTS
    ]
    found = here or beside
    return found[0] if len(found) == 1 else None


def _is_output(path: list[str]) -> bool:
    numbered = len(path) == 2 and path[1].isdigit()
    return path[0] in _OUTPUTS and (len(path) == 1 or numbered)


def _below(scope: str, layers: Mapping[str, Layer]) -> Iterator[tuple[str, list[str]]]:
    """Names of linear layers inside a module, each with its path from there in lower case."""
    start = f"{scope}." if scope else ""
    for name, layer in layers.items():
        if name.startswith(start) and not layer.is_convolution:
            yield name, name[len(start) :].lower().split(".")


def _heads(scopes: Iterable[nn.Module], inputs: int) -> int:
    """The number of heads as the nearest that knows has it; 0 where none fits the width."""
    for scope in scopes:
        size = _number(scope, _SIZES)
        config = getattr(scope, "config", None)
        # What the module says of itself may differ from layer to layer, and goes first.
        told = (_number(scope, _COUNTS), inputs // size if size else 0, _number(config, _COUNTS))
        for heads in filter(None, told):
            if inputs % heads == 0:
                return heads
    return 0


def _key_value_heads(attention: str, layers: Mapping[str, Layer], size: int, heads: int) -> int:
    """The number of key-value heads, by the width of what makes keys; that of heads otherwise."""
    widths = {
        _leaf(name): layer.channels for name, layer in layers.items() if _parent(name) == attention
    }
    keys = [width for name, width in widths.items() if name in _KEYS]
    if not widths.keys() & _QUERIES:
        keys += [(width - heads * size) // 2 for name, width in widths.items() if name in _FUSED]
    shared = keys[0] // size if len(keys) == 1 and keys[0] % size == 0 else 0
    return shared if shared and heads % shared == 0 else heads


def _number(owner: Any, names: Iterable[str]) -> int:
    for name in names:
        value = getattr(owner, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def _leaf(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
