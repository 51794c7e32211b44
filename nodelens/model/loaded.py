"""Whether a model's weights are here, or only their shapes."""

from __future__ import annotations

from torch import nn

from nodelens.errors import IncompatibleModelError

__all__ = ["check_loaded"]


def check_loaded(module: nn.Module) -> None:
    """Raise IncompatibleModelError when weights are on the meta device, without numbers."""
    meta = [name for name, p in module.named_parameters() if p.is_meta]
    if meta:
        raise IncompatibleModelError(
            f"{len(meta)} parameters are on the meta device ({meta[0]!r} is the first), where they "
            "have shapes and no numbers: load the weights first"
        )
