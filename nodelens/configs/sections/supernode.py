"""Supernodes of the feed-forward blocks of a language model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nodelens.configs.sections.base import Fraction, Section

__all__ = ["SupernodeSection"]


class SupernodeSection(Section):
    """Which units are supernodes, and who goes with them."""

    score: str = "scar_loss_proxy"
    """The score, of a lens of this file, that the core is chosen by."""
    core: Fraction = 0.01
    """Share of a block's units that is the core."""
    halo: Fraction = 0.1
    """Share of the other units that is the halo: those that write most where the core does."""
    dimensions: Fraction = 0.1
    """Share of the residual stream that counts as where the core writes."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Protection of the unit that repeats the core most."""
    redundancy: bool = False
    """Whether a second pass measures redundancy to the core, for SCAR-Prot and SCAR-Conn."""
