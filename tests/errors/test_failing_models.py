"""Errors that a model raises: told as ours where the input is at fault, else left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens
from nodelens.errors import InvalidValueError
from tests.errors.attempts import network, select, x, y


def test_an_error_of_the_model_itself_stays_what_it_is():
    class Refusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("not today")

    with pytest.raises(RuntimeError, match="not today"):
        select()(Refusing())


def test_an_error_of_the_model_that_is_no_fault_of_the_call_stays_what_it_is():
    class Mistaken(Tokens):
        def forward(self, ids: Tensor) -> Tensor:
            return len(3)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="has no len"):
        select()(Mistaken())


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.words(ids))


UNFIT: list[tuple[Callable[[], nn.Module], list[Any], str]] = [
    (
        network,
        [x().double()],
        "batch 0: the input of layer '0' is torch.float64, expected torch.float32",
    ),
    (
        network,
        [x(), x().double().numpy()],
        "batch 1: the input of layer '0' is torch.float64, expected torch.float32",
    ),
    (lambda: network().double(), [x()], "is torch.float32, expected torch.float64"),
    (
        Tokens,
        [torch.zeros(2, 3).long(), torch.full((2, 3), 7)],
        r"batch 1: layer 'words' .Embedding. cannot take an input of shape .2, 3. and torch.int",
    ),
    (Tokens, [torch.zeros(2, 3)], "layer 'words' .Embedding. cannot take an input of .*float32"),
    (
        Tokens,
        [{"input_ids": torch.zeros(2, 3).long()}],
        "batch 0: Tokens takes .ids., and the batch does not fit: missing a required argument",
    ),
    (
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)),
        [x()],
        r"batch 0: layer '0' .BatchNorm2d. cannot take an input of shape \(20, 4\)",
    ),
    (
        lambda: nn.Conv2d(4, 3, 1),
        [x()],
        r"shape \(20, 4\), expected 4 axes: batch, channels and 2 of space",
    ),
    (
        network,
        [((x(), y()), {})],
        "too many positional arguments; several arguments are all inputs of the model, targets go",
    ),
]


@pytest.mark.parametrize(("model", "batches", "message"), UNFIT)
def test_an_input_that_a_layer_cannot_take_is_told_with_lens_batch_and_layer(
    model: Callable[[], nn.Module], batches: list[Any], message: str
):
    made = model()
    with pytest.raises(InvalidValueError, match=f"^lens 'activation_mean', .*{message}"):
        Lens.from_name("activation_mean").run(made, batches, progress=False)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in made.modules())


def test_what_fails_for_want_of_memory_is_not_tried_again():
    calls = []

    class Full(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(x)
            raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        select()(Full(4, 3))
    assert len(calls) == 1
