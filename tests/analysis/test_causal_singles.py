"""Single channels that share a pass cost what they cost alone, batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nodelens.analysis.causal import lesion, measured_damage, singles
from nodelens.errors import InvalidValueError, NonFiniteError
from nodelens.interventions import channel_predictions
from tests.interventions.plainly import batches, network
from tests.interventions.test_damage import Coupled, drawing, passes

LESIONS = [
    *(lesion({"hidden": [c]}) for c in range(7)),
    *(lesion({"plain": [c]}) for c in (3, 0, 1)),
    lesion({"plain": [0, 1], "hidden": [2]}),
]


def in_float64() -> tuple[nn.Module, list[Any]]:
    return network().double(), [(x.double(), y) for x, y in batches()]


@pytest.mark.parametrize("value", ["zero", "mean", "resample"])
def test_they_equal_one_at_a_time_in_every_batch(value: str):
    model, parts = in_float64()
    options: dict[str, Any] = {"value": value, "progress": False}
    alone = measured_damage(model, parts, LESIONS, at_once=1, **options)
    found = measured_damage(model, parts, LESIONS, at_once=3, **options)
    assert alone.right is not None and found.right is not None
    for which in LESIONS:
        np.testing.assert_allclose(found.losses[which], alone.losses[which], rtol=0, atol=1e-10)
        np.testing.assert_array_equal(found.right[which], alone.right[which])
    assert (np.abs(found.changes(LESIONS)) > 1e-4).sum() > 6, "the case shows nothing"


def test_they_share_passes_and_the_intact_one_is_kept():
    model = network()
    measured_damage(model, batches()[:1], LESIONS[:2], progress=False)
    sizes = passes(model)
    measured_damage(model, batches()[:1], LESIONS[:7], progress=False, at_once=4)
    # Measured as it is, kept to compare the copies with, then four and three channels.
    assert sizes == [17, 17, 5 * 17, 4 * 17]


def test_outputs_that_would_not_fit_are_not_multiplied(monkeypatch: pytest.MonkeyPatch):
    # Seventeen rows of outputs twice, not three times.
    outputs = network()(batches()[0][0])
    monkeypatch.setattr(singles, "_MOST_BYTES", int(2.5 * outputs.numel() * 4))
    model = network()
    sizes = passes(model)
    measured_damage(model, batches()[:1], LESIONS[:4], progress=False)
    assert max(sizes) == 17


@pytest.mark.parametrize("kind", ["norm", "mean"])
def test_rows_that_see_one_another_get_a_pass_a_channel(kind: str):
    model = Coupled(kind)
    parts = [(torch.randn(9, 4), torch.randint(0, 3, (9,)))]
    lesions = [lesion({"layer": [c]}) for c in range(5)]
    alone = measured_damage(model, parts, lesions, progress=False, at_once=1)
    found = measured_damage(model, parts, lesions, progress=False)
    np.testing.assert_allclose(found.changes(lesions), alone.changes(lesions), atol=1e-7)


def test_a_run_goes_on_from_the_last_whole_chunk(tmp_path: Path, monkeypatch: Any):
    path, model = tmp_path / "damage.jsonl", network()
    asked: list[int] = []

    def counted(wrapper: Any, batch: Any, dense: Any, condition: Any, **options: Any) -> Any:
        asked.append(len(condition.channels["hidden"]))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return channel_predictions(wrapper, batch, dense, condition, **options)

    monkeypatch.setattr(singles, "channel_predictions", counted)
    options: dict[str, Any] = {"path": path, "progress": False, "at_once": 3}
    with pytest.raises(KeyboardInterrupt):
        measured_damage(model, batches(), LESIONS[:7], **options)
    assert asked == [3, 3, 3] and len(path.read_text().splitlines()) == 1 + 3
    told: list[int] = []
    options["progress"] = lambda done, rows: told.append(done)
    again = measured_damage(model, batches(), LESIONS[:7], **options)
    # Of the four that are left one is alone, and evaluated as ever.
    assert asked[3:] == [3, 3] and told == [5, 6, 7, 8]
    straight = measured_damage(network(), batches(), LESIONS[:7], progress=False)
    np.testing.assert_allclose(again.changes(LESIONS[:7]), straight.changes(LESIONS[:7]), atol=1e-6)


def test_a_loss_of_ones_own_counts_and_what_it_draws_is_put_back():
    model, parts = in_float64()
    plain = measured_damage(model, parts, LESIONS[:7], progress=False)
    before = torch.get_rng_state()
    found = measured_damage(model, parts, LESIONS[:7], progress=False, loss=drawing)
    for which in LESIONS[:7]:
        np.testing.assert_allclose(found.losses[which], 3 * plain.losses[which], rtol=1e-12)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_in_a_later_batch_names_that_batch():
    calls: list[int] = []

    def failing(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        # The intact model on two batches, two channels on the first, and then on the second.
        loss = nn.functional.cross_entropy(outputs, targets, reduction="sum")
        return loss * float("nan") if len(calls) == 5 else loss

    with pytest.raises(NonFiniteError, match=r"^batch 1: "):
        measured_damage(network(), batches(), LESIONS[:2], progress=False, loss=failing)


def test_errors_name_the_batch_as_they_do_alone():
    model, parts = network(), batches()
    wrong = [lesion({"hidden": [c]}) for c in (1, 99)]
    with pytest.raises(InvalidValueError, match=r"^batch 0: .*no channel 99"):
        measured_damage(model, parts, wrong, progress=False)
    with pytest.raises(InvalidValueError, match="at_once is 0, expected a whole number from 1"):
        measured_damage(model, parts, LESIONS, at_once=0)
    values = {"hidden": torch.full((7,), float("nan"))}
    with pytest.raises(NonFiniteError, match=r"^batch 0: the loss of 17 predictions is nan"):
        measured_damage(model, parts, LESIONS[:7], value=values, progress=False)
    assert not any(m._forward_hooks for m in model.modules())


def test_how_many_evaluations_there_will_be_is_said_first(caplog: pytest.LogCaptureFixture):
    said: list[int] = []
    with caplog.at_level("INFO", logger="nodelens.progress"):
        model = network()
        model.register_forward_hook(lambda *_: said.append(len(caplog.messages)))
        measured_damage(model, batches(), LESIONS[:2], at_once=1)
    assert caplog.messages == ["2 evaluations of 30 rows, 1 known already"]
    # Behind the intact model, before the two.
    assert said.count(0) == len(batches()) and said.count(1) >= 2 * len(batches())
