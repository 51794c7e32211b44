"""Supernodes of the feed-forward blocks of a language model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nodelens.configs.sections.base import Count, Fraction, Section, Seed

__all__ = ["SupernodeSection"]


class SupernodeCausalConfig(Section):
    """What it costs to lose supernodes and halos, measured on validation blocks."""

    draws: Count = 5
    """Sets of other units drawn at every dose."""
    halo_draws: Count = 20
    """Controls of the halos."""
    rows: Count | None = None
    """Validation blocks that checks look at; all of them when left out."""
    seed: Seed = 0
    """Seed of the draws."""


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
    causal: SupernodeCausalConfig | None = None
    """a section of causal checks; nothing is silenced without"""
