"""Targets that come from the model's own outputs: the correct logit, its margin, all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodelens.data import Batch
from nodelens.errors import InvalidValueError, MissingTargetsError, ShapeError
from nodelens.memory import shown_bytes
from nodelens.model.layers import at_least_float32
from nodelens.model.loss import IGNORED, aligned_targets, check_classes, logits_in

__all__ = ["MOST_LOGITS", "Logits", "check_few", "logits_of"]

MOST_LOGITS = 2048
"""Outputs of which all products are kept at most: 32 MiB a layer."""


class Logits:
    """What a pass gave out, as targets: worked out once a batch for all layers."""

    def __init__(self, outputs: Any, batch: Batch, module: nn.Module) -> None:
        self.outputs, self.batch, self.module = outputs, batch, module
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    def of(self, kind: str) -> tuple[Tensor, Tensor]:
        """Return which prediction belongs to what, and the target of every prediction.

        The numbers of predictions are shaped like class targets, `(batch,)` or `(batch, tokens)`,
        with -100 where nothing is predicted; targets are `(predictions,)`, or for "logits"
        `(predictions, outputs)`.
        """
        if kind not in self._known:
            logits = logits_of(self.outputs).detach()
            classes = aligned_targets(self.batch, self.module)
            classes = None if classes is None else classes.to(logits.device)
            # Of maps of predictions, (batch, outputs, *space), the outputs are in front.
            if classes is not None and logits.shape[:1] + logits.shape[2:] == classes.shape:
                logits = logits.movedim(1, -1)
            made = _all(logits) if kind == "logits" else _correct(logits, classes, kind)
            self._known[kind] = made
        return self._known[kind]


def logits_of(outputs: Any) -> Tensor:
    """Return the logits among what a model gives out, `(batch, ..., outputs)`."""
    found = logits_in(outputs)
    if found is None:
        raise MissingTargetsError(f"a {type(outputs).__name__} holds no tensor of logits")
    return found.unsqueeze(-1) if found.ndim < 2 else found


def _correct(logits: Tensor, classes: Tensor | None, kind: str) -> tuple[Tensor, Tensor]:
    if classes is None or classes.is_floating_point():
        raise MissingTargetsError(
            f"target {kind!r} is a logit of the correct class: give class numbers as targets"
        )
    if logits.shape[:-1] != classes.shape:
        raise ShapeError(
            f"no target {kind!r} from outputs of shape {tuple(logits.shape)} and class targets "
            f"of shape {tuple(classes.shape)}"
        )
    outputs = logits.shape[-1]
    if outputs < 2 and kind == "logit_margin":
        raise MissingTargetsError(f"target {kind!r} needs two outputs, the model has {outputs}")
    check_classes(classes[classes != IGNORED], outputs)
    number = _numbered(classes.shape, logits.device).masked_fill(classes == IGNORED, IGNORED)
    rows, chosen = logits.flatten(0, -2), classes.flatten().clamp(min=0).long()
    # Not all logits at once where few are wanted: they are a model's largest tensor.
    correct = at_least_float32(rows.gather(1, chosen[:, None]).squeeze(1))
    return number, correct if kind == "correct_logit" else correct - _best_other(rows, chosen)


def _best_other(rows: Tensor, chosen: Tensor) -> Tensor:
    """The largest logit but for the chosen one: the second where that is the largest."""
    values, places = rows.topk(2, dim=1)
    other = torch.where(places[:, 0] == chosen, values[:, 1], values[:, 0])
    return at_least_float32(other)


def check_few(size: int) -> None:
    """Raise InvalidValueError where the products of so many logits are too many to be kept."""
    if size > MOST_LOGITS:
        raise InvalidValueError(
            f"the products of {size} logits are {shown_bytes(8 * size**2)} a layer, at most "
            f"{MOST_LOGITS} logits are kept: take 'correct_logit' or 'logit_margin' as the target"
        )


def _all(logits: Tensor) -> tuple[Tensor, Tensor]:
    check_few(logits.shape[-1])
    numbers = _numbered(logits.shape[:-1], logits.device)
    return numbers, at_least_float32(logits.flatten(0, -2))


def _numbered(shape: torch.Size, device: torch.device) -> Tensor:
    return torch.arange(shape.numel(), device=device).view(shape)
