"""The loss that gradient lenses and ablations measure, summed over what is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from nodelens.data.batches import Batch, Loss
from nodelens.errors import MissingLossError, MissingTargetsError, NonFiniteError, nearest
from nodelens.model.layers import at_least_float32, check_finite, first_tensor

__all__ = [
    "IGNORED",
    "LOSSES",
    "Prediction",
    "aligned_targets",
    "check_classes",
    "finite_prediction",
    "logits_in",
    "pools_tokens",
    "predict",
    "statistic_targets",
]

LOSSES = ("cross_entropy", "mse")
IGNORED = -100
"""Marks what has no target, as torch has it."""


@dataclass(frozen=True)
class Prediction:
    """Summed loss `()`, how many predictions it sums, and which were right (None: no classes).

    `logits` are `(rows, classes, ...)` and `targets` their classes, with -100 where there is none.
    """

    loss: Tensor
    terms: int
    correct: Tensor | None = None
    logits: Tensor | None = None
    targets: Tensor | None = None

    def among_first(self, k: int) -> int | None:
        """Return for how many predictions the target is one of the `k` most likely classes.

        None without classes, or where there are not more than `k`. Of equally likely classes the
        lower number goes first.
        """
        if self.logits is None or self.targets is None or self.logits.shape[1] <= k:
            return None
        scores = self.logits.movedim(1, -1).flatten(0, -2)
        targets = self.targets.flatten().long()
        predicted, own = targets != IGNORED, targets.clamp(min=0).unsqueeze(-1)
        mine, last = scores.gather(-1, own), scores.topk(k).values[:, -1:]
        sure = int((predicted & (mine > last)[:, 0]).sum())
        # Only where the target ties with the last of the k does the order of equals matter.
        edge = predicted & (mine == last)[:, 0]
        some, mine, own = scores[edge], mine[edge], own[edge]
        numbers = torch.arange(scores.shape[-1], device=scores.device)
        before = (some > mine).sum(-1) + ((some == mine) & (numbers < own)).sum(-1)
        return sure + int((before < k).sum())


def predict(outputs: Any, batch: Batch, module: nn.Module, loss: Loss | str | None) -> Prediction:
    """Return the loss of a batch's outputs, summed over samples or tokens.

    Class numbers give cross-entropy in nats, other numbers squared error. Labels inside a
    tokenizer's dict, or without any the tokens themselves, are predicted one step ahead by a causal
    language model. A loss of your own is called with (outputs, targets) and must sum.

    Raises MissingTargetsError, MissingLossError, NonFiniteError.
    """
    found = _summed(outputs, batch, module, loss)
    if not bool(torch.isfinite(found.loss)):
        raise NonFiniteError(
            f"the loss of {found.terms} predictions is {found.loss.detach().item()}"
        )
    return found


def _summed(outputs: Any, batch: Batch, module: nn.Module, loss: Loss | str | None) -> Prediction:
    loss = batch.loss or loss
    targets = aligned_targets(batch, module)
    if targets is not None and targets.is_inference():
        # Autograd cannot save what was made in inference mode, such as answers taken as labels.
        targets = targets.clone()
    if getattr(loss, "reduction", "sum") == "mean":
        raise MissingLossError(
            f"{loss} takes the mean of each batch, so scores would depend on the batch size: "
            'expected a loss that sums, reduction="sum"'
        )
    if callable(loss):
        return _own(loss(outputs, targets), targets)  # type: ignore[arg-type]
    if loss is not None and loss not in LOSSES:
        raise MissingLossError(
            f"unknown loss {loss!r}{nearest(str(loss), LOSSES)}; "
            f"expected {', '.join(LOSSES)} or a function of (outputs, targets)"
        )
    logits = logits_in(outputs)
    if targets is None:
        raise MissingTargetsError(
            "a loss needs targets and the batch has none: give (inputs, targets), "
            "a tokenizer's dict with labels, or a loss of your own"
        )
    if logits is None:
        raise MissingLossError(f"a {type(outputs).__name__} holds no tensor to compute a loss from")
    if targets.is_floating_point() or loss == "mse":
        return _squared(logits, targets)
    return _classes(logits, targets)


def logits_in(outputs: Any) -> Tensor | None:
    """Return the logits among what a model gives out, else its first tensor."""
    logits = getattr(outputs, "logits", None)
    return logits if isinstance(logits, Tensor) else first_tensor(outputs)


def finite_prediction(outputs: Any, batch: Batch, module: nn.Module, loss: Any) -> Prediction:
    """Return what `predict` does; raises NonFiniteError where the outputs are not finite."""
    tensor = logits_in(outputs)
    if tensor is not None:
        check_finite(tensor.detach(), "model", "output")
    return predict(outputs, batch, module, loss)


def aligned_targets(batch: Batch, module: nn.Module) -> Tensor | None:
    """Return the targets where the outputs predict them; -100 marks what is not predicted.

    None when the batch has none: the tokens themselves are targets of a language model only.
    """
    if batch.targets is not None:
        return batch.targets
    labels, mask = batch.labels, batch.mask
    causal = is_causal(module)
    if labels is None and causal:
        labels = batch.kwargs.get("input_ids", batch.args[0] if batch.args else None)
    if not isinstance(labels, Tensor) or labels.ndim != 2:
        return labels
    padding = ~mask if mask is not None and mask.shape == labels.shape else None
    if padding is not None:
        labels = labels.masked_fill(padding, IGNORED)
    if not causal:
        return labels
    end = torch.full_like(labels[:, :1], IGNORED)
    following = torch.cat([labels[:, 1:], end], dim=1)
    # Padding on the left would otherwise predict the first token.
    return following if padding is None else following.masked_fill(padding, IGNORED)


def statistic_targets(batch: Batch, module: nn.Module) -> Tensor | None:
    """Return the targets as statistics of classes see them: of next tokens, a few hundred classes.

    A token's class is the remainder of its number by `batch.token_classes`, which spreads the
    tokens of any vocabulary; what a channel says of it, it says of the token at least. Targets that
    were given stay as they are.
    """
    targets = aligned_targets(batch, module)
    if targets is None or not pools_tokens(batch, module):
        return targets
    return torch.where(targets < 0, targets, targets % batch.token_classes)


def pools_tokens(batch: Batch, module: nn.Module) -> bool:
    """Return whether the targets are next tokens, and not such as a user gave."""
    return batch.targets is None and is_causal(module)


def is_causal(module: nn.Module) -> bool:
    """Return whether this is a language model that predicts each next token."""
    return type(module).__name__.endswith(("ForCausalLM", "LMHeadModel"))


def _own(value: Any, targets: Tensor | None) -> Prediction:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise MissingLossError(f"the loss returned {type(value).__name__}, expected a float tensor")
    terms = value.numel() if value.ndim else (len(targets) if targets is not None else 1)
    return Prediction(value.sum(), terms)


def _squared(logits: Tensor, targets: Tensor) -> Prediction:
    if logits.shape != targets.shape and logits.shape == (*targets.shape, 1):
        targets = targets.unsqueeze(-1)
    if logits.shape != targets.shape:
        raise MissingLossError(
            f"no loss for outputs of shape {tuple(logits.shape)} and numeric targets "
            f"of shape {tuple(targets.shape)}: integers are class numbers (targets.long()), "
            "floats are numbers to come close to"
        )
    total = mse_loss(logits, targets.to(logits.dtype), reduction="sum")
    return Prediction(total, targets.numel())


def _classes(logits: Tensor, targets: Tensor) -> Prediction:
    if logits.shape[:-1] == targets.shape:
        logits, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    elif logits.shape[:1] + logits.shape[2:] != targets.shape:
        raise MissingLossError(
            f"no loss for outputs of shape {tuple(logits.shape)} and class targets "
            f"of shape {tuple(targets.shape)}"
        )
    predicted = targets != IGNORED
    check_classes(targets[predicted], logits.shape[1])
    total = cross_entropy(
        at_least_float32(logits), targets.long(), reduction="sum", ignore_index=IGNORED
    )
    correct = (logits.detach().argmax(1) == targets) & predicted
    return Prediction(
        total, int(predicted.sum()), correct[predicted], logits.detach(), targets.detach()
    )


def check_classes(classes: Tensor, outputs: int) -> None:
    """Raise MissingTargetsError for a class number that is none of the model's outputs."""
    if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < outputs:
        wrong = int(classes.max()) if int(classes.max()) >= outputs else int(classes.min())
        raise MissingTargetsError(
            f"class number {wrong} for {outputs} outputs, expected 0 to {outputs - 1}"
        )
