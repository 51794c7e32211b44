"""The caller's mixed precision reaches the model, never what is measured of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nodelens.testing import lens_names
from nodelens.testing.subjects import SUBJECTS, AwkwardNetwork, Subject, TokenNetwork
from nodelens.testing.trial import Trial, assert_close, assert_finite


class WideNetwork(AwkwardNetwork):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x)


class WideTokenNetwork(TokenNetwork):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(input_ids, attention_mask)


WIDE = dict(zip(SUBJECTS, (WideNetwork, WideTokenNetwork), strict=True))


@pytest.mark.parametrize("name", lens_names())
def test_statistics_are_not_multiplied_in_the_callers_half_precision(name: str):
    plain = Trial(name)
    subject = Subject("wide", WIDE[plain.subject], plain.subject.inputs)
    trial = Trial(name, subject)
    expected = trial.run(trial.parts(7, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(trial.run(trial.parts(7, 5)), expected, 1e-6)
        assert_finite(plain.run(plain.parts(7, 5)))
