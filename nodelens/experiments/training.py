"""Training a small classifier: seeded, on its own generator, the same weights every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nodelens.configs import TrainingConfig
from nodelens.errors import NonFiniteError
from nodelens.model.logits import logits_of

__all__ = ["Epoch", "accuracy", "train"]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows: mean loss, in nats, and accuracy on the validation rows."""

    epoch: int
    loss: float
    validation_accuracy: float


def train(
    model: nn.Module,
    rows: TensorDataset,
    validation: TensorDataset,
    config: TrainingConfig,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Epoch]:
    """Return what each epoch gave, the model trained in place and left in evaluation mode.

    Raises NonFiniteError when the loss is no longer a number.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps = config.epochs * -(-len(rows) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    history = []
    for epoch in range(1, config.epochs + 1):
        model.train()
        total = 0.0
        for chosen in torch.randperm(len(rows), generator=generator).split(config.batch_size):
            loss = _step(model, rows, chosen, optimiser)
            schedule.step()
            total += loss * len(chosen)
        if not torch.isfinite(torch.tensor(total)):
            raise NonFiniteError(
                f"the training loss is {total} in epoch {epoch}; expected a finite number:"
                f" the learning rate {config.learning_rate} may be too high"
            )
        history.append(Epoch(epoch, total / len(rows), accuracy(model, validation)))
        progress(epoch, config.epochs)
    return history


def accuracy(model: nn.Module, rows: TensorDataset, batch_size: int = 1024) -> float:
    """Return the fraction of rows whose highest logit is their class; no gradient, no dropout."""
    model.eval()
    device = next(model.parameters()).device
    right = 0
    inputs, classes = rows.tensors
    with torch.inference_mode():
        for x, y in zip(inputs.split(batch_size), classes.split(batch_size), strict=True):
            right += int((logits_of(model(x.to(device))).argmax(-1).cpu() == y).sum())
    return right / len(rows)


def _step(
    model: nn.Module, rows: TensorDataset, chosen: Tensor, optimiser: torch.optim.Optimizer
) -> float:
    device = next(model.parameters()).device
    inputs, classes = (tensor[chosen].to(device) for tensor in rows.tensors)
    optimiser.zero_grad(set_to_none=True)
    loss = nn.functional.cross_entropy(logits_of(model(inputs)), classes)
    loss.backward()
    optimiser.step()
    return float(loss.detach())
