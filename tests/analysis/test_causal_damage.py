"""Damage is what a plain loop measures, is known beforehand, saved as it comes and taken up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nodelens.analysis.causal import AblationValidation, lesion, measured_damage
from nodelens.errors import InvalidValueError, MergeError, OutputError
from nodelens.interventions import evaluate
from tests.analysis.planted import linear
from tests.interventions.plainly import batches, hooked, network, plainly, zero_outputs

LESIONS = [lesion({"hidden": [2]}), lesion({"plain": [0, 3], "hidden": [1]})]


def test_damage_is_that_of_hooks_and_a_loop_of_ones_own():
    model = network()
    before = plainly(model, batches())
    hooks = {"plain": zero_outputs([0, 3], 1), "hidden": zero_outputs([1], -1)}
    with hooked(model, hooks):
        after = plainly(model, batches())
    found = measured_damage(model, batches(), LESIONS, progress=False)
    assert found.base == pytest.approx(before.loss, rel=1e-6)
    assert found.change(LESIONS[1]) == pytest.approx(after.loss - before.loss, abs=1e-6)
    assert found.accuracy(LESIONS[1]) == pytest.approx(after.accuracy)
    assert found.rows.tolist() == [17, 13]


def test_the_damage_of_linear_units_is_known():
    model, parts, truth = linear()
    lesions = [lesion({"units": [i]}) for i in range(len(truth))]
    found = measured_damage(model, parts, lesions, progress=False)
    np.testing.assert_allclose(found.changes(lesions), truth, rtol=1e-4)


def test_the_model_is_as_it_was_also_after_an_error():
    model = network().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InvalidValueError, match=r"batch 0: .*no channel 99"):
        measured_damage(model, batches(), [lesion({"hidden": [99]})], progress=False)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training and not any(m._forward_hooks for m in model.modules())


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, model = tmp_path / "damage.jsonl", network()
    straight = measured_damage(model, batches(), LESIONS, progress=False)

    def interrupt(done: int, rows: int) -> None:
        # The intact model is known before the first lesion.
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured_damage(model, batches(), LESIONS, path=path, progress=interrupt)
    assert len(path.read_text().splitlines()) == 2
    with path.open("a") as file:
        file.write('{"channels": {"pl')
    calls: list[dict[str, list[int]]] = []

    def counted(wrapper, parts, channels, **options):
        calls.append(channels)
        return evaluate(wrapper, parts, channels, **options)

    monkeypatch.setattr("nodelens.analysis.causal.damage.evaluate", counted)
    again = measured_damage(model, batches(), LESIONS, path=path, progress=False)
    assert [c for c in calls if c] == 2 * [{"hidden": [1], "plain": [0, 3]}]
    for which in LESIONS:
        np.testing.assert_array_equal(again.losses[which], straight.losses[which])
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 3


def test_a_record_of_something_else_is_refused(tmp_path: Path):
    path, model = tmp_path / "damage.jsonl", network()
    measured_damage(model, batches(), LESIONS[:1], path=path, progress=False)
    with pytest.raises(MergeError, match="site 'output', not 'input'"):
        measured_damage(model, batches(), LESIONS, site="input", path=path, progress=False)
    with pytest.raises(MergeError, match="another model or other batches"):
        measured_damage(model, batches()[::-1], LESIONS, path=path, progress=False)
    path.write_text("no json\n")
    with pytest.raises(OutputError, match="is no record of lesions"):
        measured_damage(model, batches(), LESIONS, path=path, progress=False)


def test_evaluations_are_known_beforehand_and_told_as_they_go():
    model, parts, truth = linear()
    check = AblationValidation({"units": truth}, per_layer=6, strata=3)
    told: list[int] = []
    result = check.run(model, parts, progress=lambda done, rows: told.append(done))
    assert check.evaluations == result.evaluations == 7
    assert told == list(range(2, 8))


def test_no_batch_is_an_error():
    with pytest.raises(InvalidValueError, match="no batch to measure damage on"):
        measured_damage(network(), [], LESIONS)
