"""What a lens about targets is about: those of the batch, or the model's own logits.

A lens takes it up in two lines: `about(self.target, CrossMoments)` among its reads, and
`chosen(statistics["targets"], self.target)` where it scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from nodelens.errors import InvalidValueError, nearest
from nodelens.statistics import CrossMoments, Read, Statistic

__all__ = ["LOGIT_TARGETS", "TARGETS", "about", "checked", "chosen"]

LOGIT_TARGETS = ("logit_margin", "correct_logit", "logit_pc1")
TARGETS = ("targets", *LOGIT_TARGETS)


def checked(target: str, valid: Sequence[str] = TARGETS) -> str:
    """Return the option `target`; InvalidValueError for one there is not."""
    if target not in valid:
        raise InvalidValueError(
            f"target is {target!r}{nearest(target, valid)}, expected one of {', '.join(valid)}"
        )
    return target


def about(
    target: str, statistic: type[Statistic], site: str = "output", view: str = "rows"
) -> Read:
    """Return the read of a statistic with this target; of its principal component, all logits."""
    return Read(site, statistic, view=view, target="logits" if target == "logit_pc1" else target)


def chosen(seen: CrossMoments, target: str) -> CrossMoments:
    """Return the moments with the target itself: of all logits, with their first component.

    That is the leading eigenvector of the logits' products over the whole stream, so it does not
    depend on how the stream was cut. Its sign, which nothing settles, is that of its largest entry.
    """
    if target != "logit_pc1":
        return seen
    products = seen.target_m2
    spread, vectors = torch.linalg.eigh((products + products.mT) / 2)
    first = vectors[:, -1:]
    first = first * first[first.abs().argmax()].sign()
    return replace(
        seen,
        target_mean=seen.target_mean @ first,
        target_m2=spread[-1:, None].clamp(min=0),
        cross=seen.cross @ first,
        categorical=False,
    )
