"""Saying a smaller model by its Hugging Face configuration, where that has words for it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from nodelens.errors import SurgeryError
from nodelens.model.attention import HEAD_COUNTS
from nodelens.model.layers import Layer, named
from nodelens.pruning.heads import KEY_VALUE_COUNTS, replace_numbers
from nodelens.pruning.requests import Request

__all__ = ["configured", "has_configuration"]

_FFN = ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "dim_feedforward")


def has_configuration(model: nn.Module) -> bool:
    """Return whether a Hugging Face configuration describes the model."""
    config = getattr(model, "config", None)
    return hasattr(config, "to_dict") and hasattr(type(model), "from_pretrained")


def configured(
    model: Any,
    before: Mapping[str, Layer],
    down_projections: Iterable[str],
    heads: Mapping[str, Request],
    *,
    uniform: bool,
) -> bool:
    """Bring the configuration of a narrowed model up to date; return whether that says it all.

    Then `save_pretrained` and `from_pretrained` work. Where they would not, `uniform` makes it a
    SurgeryError that names the layers; without it the configuration stays as it was.
    """
    kept = copy.deepcopy(vars(model.config))
    try:
        _set_ffn_width(model, before, down_projections)
        _set_head_counts(model, before, heads)
        _check_rebuilt(model)
    except SurgeryError as reason:
        vars(model.config).clear()
        vars(model.config).update(kept)
        if uniform:
            raise SurgeryError(
                f"{reason.message}; with uniform=False the model is made all the same, and "
                "save_shrunk and load_shrunk keep it"
            ) from reason
        return False
    return True


def _set_ffn_width(model: Any, before: Mapping[str, Layer], downs: Iterable[str]) -> None:
    modules = named(model)
    widths = {name: _inputs(modules[name]) for name in downs}
    changed = [name for name, width in widths.items() if width != before[name].inputs]
    if not changed:
        return
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name!r} {width}" for name, width in list(widths.items())[:12])
        raise SurgeryError(
            f"the FFNs would keep different numbers of units ({listed}), and a configuration has "
            "one for all: keep equally many in each"
        )
    old, new = before[changed[0]].inputs, widths[changed[0]]
    config = _text(model.config)
    if not replace_numbers(config, _FFN, old, new) and hasattr(config, "n_inner"):
        config.n_inner = new  # GPT-2's None means four times as wide as the model
    for module in model.modules():
        replace_numbers(module, _FFN, old, new)


def _set_head_counts(model: Any, before: Mapping[str, Layer], heads: Mapping[str, Request]) -> None:
    removed = {name: len(request.removed) for name, request in heads.items()}
    if not any(removed.values()):
        return
    every = {name: layer for name, layer in before.items() if layer.heads}
    left = {name: layer.key_value_heads - removed.get(name, 0) for name, layer in every.items()}
    if len(set(left.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in list(left.items())[:12])
        raise SurgeryError(
            f"attention would keep different numbers of key-value groups ({listed}), and a "
            "configuration has one for all: keep equally many in each"
        )
    name, layer = next(iter(every.items()))
    config, together = _text(model.config), layer.heads // layer.key_value_heads
    # Where it says nothing of their size, it is worked out from their number.
    config.head_dim = layer.inputs // layer.heads
    replace_numbers(config, KEY_VALUE_COUNTS, layer.key_value_heads, left[name])
    replace_numbers(config, HEAD_COUNTS, layer.heads, left[name] * together)


def _check_rebuilt(model: Any) -> None:
    """Build the model anew from what its configuration is when saved, without numbers."""
    from huggingface_hub.errors import StrictDataclassError

    kind, config = type(model), model.config
    try:
        with torch.device("meta"):
            fresh = kind(type(config).from_dict(config.to_dict()))
    except (LookupError, RuntimeError, TypeError, ValueError, StrictDataclassError) as reason:
        said = " ".join(str(reason).split())[:200]
        raise SurgeryError(f"no configuration of {kind.__name__} says this model: {said}") from None
    mine, its = _shapes(model), _shapes(fresh)
    wrong = next((name for name in mine if its.get(name) != mine[name]), None)
    if wrong is not None or mine.keys() != its.keys():
        raise SurgeryError(
            f"no configuration of {kind.__name__} says this model: {wrong!r} is {mine.get(wrong)}, "
            f"and {its.get(wrong)} when it is loaded"
        )


def _shapes(model: nn.Module) -> dict[str | None, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def _text(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _inputs(module: Any) -> int:
    return int(module.in_features if hasattr(module, "in_features") else module.nx)
