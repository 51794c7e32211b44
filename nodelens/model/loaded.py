"""Weights that cannot be worked with layer by layer: absent, tied, or of fused experts."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from nodelens.errors import IncompatibleModelError

__all__ = ["check_loaded", "check_not_fused", "check_untied", "fused_experts", "tied_layers"]


def check_loaded(module: nn.Module) -> None:
    """Raise IncompatibleModelError when weights are on the meta device, without numbers."""
    meta = [name for name, p in module.named_parameters() if p.is_meta]
    if meta:
        raise IncompatibleModelError(
            f"{len(meta)} parameters are on the meta device ({meta[0]!r} is the first), where they "
            "have shapes and no numbers: load the weights first"
        )


def fused_experts(module: nn.Module) -> dict[str, str]:
    """Return the module of every parameter that holds several matrices, by its own name."""
    return {
        (f"{owner}.{name}" if owner else name): owner
        for owner, part in module.named_modules()
        if not isinstance(part, nn.modules.conv._ConvNd)
        for name, p in part.named_parameters(recurse=False)
        if p.ndim == 3 and len(p) > 1
    }


def check_not_fused(module: nn.Module, name: str) -> None:
    """Raise IncompatibleModelError for a name that holds the weights of all experts in one."""
    fused = fused_experts(module)
    if name in fused or name in fused.values():
        raise IncompatibleModelError(
            f"{name!r} holds the weights of all experts in one tensor of three axes; fused experts "
            "can be neither pruned nor silenced channel by channel"
        )


def tied_layers(module: nn.Module) -> list[list[str]]:
    """Return the names of the modules that share a parameter, a list a parameter."""
    owners: dict[int, list[str]] = {}
    for name, part in module.named_modules():
        for p in part.parameters(recurse=False):
            owners.setdefault(id(p), []).append(name)
    return [names for names in owners.values() if len(names) > 1]


def check_untied(module: nn.Module, names: Collection[str], least: int = 1) -> None:
    """Raise IncompatibleModelError when `least` of `names` share a parameter, with any module."""
    for sharing in tied_layers(module):
        chosen = [name for name in sharing if name in names]
        if len(chosen) >= least:
            others = ", ".join(repr(name) for name in sharing if name != chosen[0])
            raise IncompatibleModelError(
                f"layer {chosen[0]!r} shares its weight with {others or 'itself'}: tied weights "
                "cannot be pruned in one place and kept in the other"
            )
