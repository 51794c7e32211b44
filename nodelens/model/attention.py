"""Which linear layers are attention's output projections, and how many heads each takes in.

Told by names and by what modules and configurations say of themselves; a pass would show no more,
since heads are laid side by side in one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from nodelens.model.layers import Layer

__all__ = [
    "HEAD_COUNTS",
    "AttentionParts",
    "attention_parts",
    "functional_projections",
    "with_heads",
]

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
_VALUES = frozenset({
    "v_proj", "value", "v", "to_v", "v_lin", "v_linear", "wv", "w_v", "linear_v", "value_proj",
    "values",
})  # fmt: skip
_OUTPUTS = frozenset({
    "o_proj", "out_proj", "c_proj", "dense", "wo", "w_o", "o", "out", "proj", "projection",
    "to_out", "out_lin", "output", "output_proj", "output_projection", "out_projection",
    "linear_out", "fc_out",
})  # fmt: skip
HEAD_COUNTS = (
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
    found, inside = dict(layers), _by_parent(layers)
    closed = set(functional_projections(modules))
    for attention, parts in inside.items():
        if not parts.keys() & (_QUERIES | _FUSED):
            continue
        layer = _projection(attention, inside)
        if layer is None or layer.name in closed:
            continue
        scopes = [modules.get(scope, root) for scope in (attention, _parent(attention))]
        heads = _heads([*scopes, root], layer.inputs)
        if heads:
            shared = _key_value_heads(parts, layer.inputs // heads, heads)
            found[layer.name] = replace(layer, heads=heads, key_value_heads=shared)
    return found


@dataclass(frozen=True)
class AttentionParts:
    """The linear layers of one attention, by name: three, or one fused for queries, keys, values.

    `module` holds them.
    """

    module: str
    queries: str = ""
    keys: str = ""
    values: str = ""
    fused: str = ""

    @property
    def names(self) -> list[str]:
        """Return the names of the layers there are."""
        return [name for name in (self.queries, self.keys, self.values, self.fused) if name]


def attention_parts(layers: Mapping[str, Layer], output: str) -> AttentionParts | None:
    """Return what makes queries, keys and values for the output projection `output`, or None."""
    inside, parent = _by_parent(layers), _parent(output)
    above = _parent(parent)
    for scope in (parent, above, _join(above, "self")):
        here = inside.get(scope, {})
        kinds = {"queries": _QUERIES, "keys": _KEYS, "values": _VALUES}
        found = {kind: [here[n].name for n in here if n in known] for kind, known in kinds.items()}
        if all(len(names) == 1 for names in found.values()):
            return AttentionParts(scope, **{kind: names[0] for kind, names in found.items()})
        fused = [layer.name for leaf, layer in here.items() if leaf in _FUSED]
        if len(fused) == 1:
            return AttentionParts(scope, fused=fused[0])
    return None


def functional_projections(modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the output projections of `nn.MultiheadAttention`, which are never called.

    torch hands their weights to a function, so no pass shows what they take in.
    """
    names = [name for name, m in modules.items() if isinstance(m, nn.MultiheadAttention)]
    return [f"{name}.out_proj" for name in names]


def _by_parent(layers: Mapping[str, Layer]) -> dict[str, dict[str, Layer]]:
    """The linear layers of every module that holds some, by their own names in lower case."""
    found: dict[str, dict[str, Layer]] = {}
    for name, layer in layers.items():
        if not layer.is_convolution:
            parent, _, leaf = name.rpartition(".")
            found.setdefault(parent, {})[leaf.lower()] = layer
    return found


def _projection(attention: str, inside: Mapping[str, Mapping[str, Layer]]) -> Layer | None:
    """The one linear layer of an attention that is called as output projections are."""
    here = [layer for leaf, layer in inside[attention].items() if leaf in _OUTPUTS]
    # diffusers and vit-pytorch: attention.to_out.0, with the dropout that follows.
    first = list(inside.get(_join(attention, "to_out"), {}).values())
    # BERT and its kin: attention.self.query, attention.output.dense.
    beside = inside.get(_join(_parent(attention), "output"), {})
    there = [layer for leaf, layer in beside.items() if leaf in _OUTPUTS]
    found = here or first or there
    return found[0] if len(found) == 1 else None


def _heads(scopes: Iterable[nn.Module], inputs: int) -> int:
    """The number of heads as the nearest that knows has it; 0 where none fits the width."""
    for scope in scopes:
        size = _number(scope, _SIZES)
        config = getattr(scope, "config", None)
        # What the module says of itself may differ from layer to layer, and goes first.
        told = (
            _number(scope, HEAD_COUNTS),
            inputs // size if size else 0,
            _number(config, HEAD_COUNTS),
        )
        for heads in filter(None, told):
            if inputs % heads == 0:
                return heads
    return 0


def _key_value_heads(parts: Mapping[str, Layer], size: int, heads: int) -> int:
    """The number of key-value heads, by the width of what makes keys; that of heads otherwise."""
    keys = [layer.channels for leaf, layer in parts.items() if leaf in _KEYS]
    if not parts.keys() & _QUERIES:
        fused = (layer.channels for leaf, layer in parts.items() if leaf in _FUSED)
        keys += [(width - heads * size) // 2 for width in fused]
    shared = keys[0] // size if len(keys) == 1 and keys[0] % size == 0 else 0
    return shared if shared and heads % shared == 0 else heads


def _number(owner: Any, names: Iterable[str]) -> int:
    for name in names:
        value = getattr(owner, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def _join(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
