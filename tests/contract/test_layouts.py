"""Scores do not depend on the order in which a model lays out its axes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import LensResult
from nodelens.testing.subjects import TOKENS, Subject, TokenNetwork, padded
from nodelens.testing.trial import assert_close
from tests.contract.conftest import every_lens, wrapped


class TokensFirst(nn.Module):
    """Runs a module on `(tokens, batch, width)`, as PyTorch's own transformers do by default."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.module(x.transpose(0, 1))
        return made.transpose(0, 1)


class TokensFirstNetwork(TokenNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.feed_forward = TokensFirst(self.feed_forward)  # type: ignore[assignment]


class Flattened(TokensFirst):
    """Runs a module on `(batch * tokens, width)`, as some language models do."""

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.module(x.flatten(0, 1))
        return made.unflatten(0, x.shape[:2])


class FlattenedNetwork(TokenNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.feed_forward = Flattened(self.feed_forward)  # type: ignore[assignment]


def scores(subject: Subject, batch: Any) -> LensResult:
    """The scores of every lens that can score the network, measured together."""
    model = wrapped(subject, torch.float64)
    lens, options = every_lens(model)
    found = lens.run(model, [batch], progress=False, **options)
    return LensResult({layer.replace(".module", ""): named for layer, named in found.items()})


@pytest.mark.parametrize(
    "network",
    [TokensFirstNetwork, pytest.param(FlattenedNetwork, marks=pytest.mark.slow)],
)
def test_the_order_of_axes_inside_a_model_changes_no_score(network: type[nn.Module]):
    other = Subject(network.__name__, network, TOKENS.inputs)
    batch = TOKENS.batch(5)
    for given in (batch, padded(batch, (3, 6, 2, 5, 4), "left")):
        expected = scores(TOKENS, given)
        assert len(expected.score_names) > 70
        assert_close(scores(other, given), expected, 1e-9)
