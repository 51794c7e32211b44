"""What every section of a configuration is, and the kinds of value that several have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict

__all__ = ["Amount", "Count", "Fraction", "Names", "Section", "Seed", "SmallSeed"]

# Lists become tuples, so that a configuration cannot change under a running experiment.
Names = Annotated[tuple[str, ...], Strict(False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Amount = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
# What scikit-learn takes.
SmallSeed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a configuration: unknown keys are errors, types are not guessed, values stay."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
