"""The caller's mixed precision reaches the model, never what is measured of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nodelens.testing.subjects import SUBJECTS, AwkwardNetwork, Subject, TokenNetwork, rows_of
from nodelens.testing.trial import assert_close, assert_finite
from tests.contract.conftest import every_lens, wrapped


class WideNetwork(AwkwardNetwork):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x)


class WideTokenNetwork(TokenNetwork):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(input_ids, attention_mask)


WIDE = dict(zip(SUBJECTS, (WideNetwork, WideTokenNetwork), strict=True))


@pytest.mark.parametrize(
    "plain",
    [SUBJECTS[0], *(pytest.param(subject, marks=pytest.mark.slow) for subject in SUBJECTS[1:])],
    ids=lambda subject: subject.name,
)
def test_statistics_are_not_multiplied_in_the_callers_half_precision(plain: Subject):
    wide = wrapped(Subject("wide", WIDE[plain], plain.inputs))
    lens, options = every_lens(wide)
    batches = [rows_of(plain.batch(), rows) for rows in (slice(0, 7), slice(7, 12))]
    expected = lens.run(wide, batches, progress=False, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(lens.run(wide, batches, progress=False, **options), expected, 1e-6)
        assert_finite(lens.run(wrapped(plain), batches, progress=False, **options))
