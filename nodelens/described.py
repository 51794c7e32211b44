"""What a lens says of itself: for tables, pages and reports; a stranger's lens may leave it out."""

from __future__ import annotations

from typing import ClassVar

__all__ = ["Described"]


class Described:
    """Facts of a lens class as plain text. None of them changes what is measured."""

    family: ClassVar[str] = ""
    unit: ClassVar[str] = ""
    """Of the score: activation, activation^2, nat, loss, fraction of rows, or 1."""
    importance: ClassVar[int] = 0
    """+1: a high score argues for keeping the channel, -1: against it, 0: neither."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What a run needs that `reads` does not show, such as "targets"."""
    state: ClassVar[str] = ""
    """How the state grows with channels C, inputs D, targets T, classes K."""
    cost: ClassVar[str] = ""
    """Of a row, beside the forward pass, in multiplications: C, C^2, C D; "" for none but sums."""
    formula: ClassVar[str] = ""
    """The score of channel i in LaTeX, and in `where` what its symbols mean."""
    where: ClassVar[str] = ""
    degenerate: ClassVar[str] = ""
    """What constant, dead and duplicated channels score, in one or two sentences."""
    paper: ClassVar[str] = ""
    """Author (year), title, where it appeared; "" where there is no paper to name."""
