"""What a lens about targets is about: those of the batch, or the model's own logits.

A lens takes it up in two lines: `about(self.target, CrossMoments)` among its reads, and
`chosen(statistics["targets"], self.target)` where it scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, nearest
from nodelens.statistics import ClassCrossMoments, CrossMoments, Read, Statistic
from nodelens.statistics.read import BESIDE_CLASS

__all__ = [
    "LOGIT_TARGETS",
    "TARGETS",
    "about",
    "about_within",
    "checked",
    "chosen",
    "chosen_within",
]

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
    target: str,
    statistic: type[Statistic],
    site: str = "output",
    view: str = "rows",
    *,
    before: str = "",
) -> Read:
    """Return the read of a statistic with this target; of its principal component, all logits."""
    shown = "logits" if target == "logit_pc1" else target
    return Read(site, statistic, view=view, target=before + shown)


def chosen(seen: CrossMoments, target: str) -> CrossMoments:
    """Return the moments with the target itself: of all logits, with their first component.

    That is the leading eigenvector of the logits' products over the whole stream, so it does not
    depend on how the stream was cut. Its sign, which nothing settles, is that of its largest entry.
    """
    if target != "logit_pc1":
        return seen
    spread, first = _leading(seen.target_m2)
    return replace(
        seen,
        target_mean=seen.target_mean @ first,
        target_m2=spread[:, None].clamp(min=0),
        cross=seen.cross @ first,
        categorical=False,
    )


def about_within(target: str) -> Read:
    """Return the read of moments within classes with this target of the model's own."""
    return about(target, ClassCrossMoments, before=BESIDE_CLASS)


def chosen_within(seen: ClassCrossMoments, target: str) -> ClassCrossMoments:
    """Return the moments within classes with the target itself, `chosen` once for all classes."""
    if target != "logit_pc1":
        return seen
    weight = seen.counts.to(seen.mean.dtype)[:, None]
    gap = seen.target_mean - (weight * seen.target_mean).sum(0) / seen.rows
    _, first = _leading(seen.target_m2.sum(0) + (weight * gap).mT @ gap)
    return replace(
        seen,
        target_mean=seen.target_mean @ first,
        target_m2=first.mT @ seen.target_m2 @ first,
        cross=first.mT @ seen.cross,
    )


def _leading(products: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue `(1,)`, and its vector `(targets, 1)`, its largest entry positive."""
    spread, vectors = torch.linalg.eigh((products + products.mT) / 2)
    first = vectors[:, -1:]
    return spread[-1:], first * first[first.abs().argmax()].sign()
