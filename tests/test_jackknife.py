"""Standard errors: checked against repeated sampling, closed forms and leaving out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodelens import CompositeLens, Lens, LensResult, Settled
from nodelens.errors import InvalidValueError
from nodelens.jackknife import Jackknife, jackknife_error, leave_one_out
from nodelens.testing.trial import assert_close, assert_equal

NAMES = ["activation_mean", "activation_variance", "rayleigh_quotient", "average_redundancy"]


def model() -> nn.Module:
    """A layer with correlated channels of different sizes."""
    layer = nn.Linear(4, 4, bias=False)
    weight = torch.tensor(
        [[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 1, 2, 0], [0, 0, 0.5, 3]], dtype=torch.float64
    )
    layer.weight = nn.Parameter(weight)
    return layer


def batches(number: int = 10, rows: int = 20, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(
        torch.randn(number, rows, 4, generator=generator, dtype=torch.float64).mul(2).add(1)
    )


def lens() -> Lens:
    return CompositeLens([Lens.from_name(name) for name in NAMES])


def run(given: list[Tensor], **options: Any) -> LensResult:
    return lens().run(model(), given, progress=False, **{"standard_errors": True, **options})


def labelled(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Unequal batches of two classes that shift every input."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 2, (200,), generator=generator)
    inputs = torch.randn(200, 4, generator=generator, dtype=torch.float64).mul(2).add(1)
    sizes = [12, 28, 20, 16, 24] * 2
    shifted = inputs + 2 * classes[:, None]
    return list(zip(shifted.split(sizes), classes.split(sizes), strict=True))


KINDS = [*NAMES, "mutual_information_gaussian", "class_selectivity", "taylor_saliency"]
"""Means, variances, ratios, correlations, information, classes, gradients."""


@pytest.fixture(scope="module")
def repeats() -> list[LensResult]:
    kinds = CompositeLens([Lens.from_name(name) for name in KINDS])
    options: Any = {"progress": False, "standard_errors": True, "groups": 10}
    return [kinds.run(model(), labelled(seed), **options) for seed in range(150)]


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_mean_error_is_the_spread_over_independent_repeats(
    repeats: list[LensResult], name: str
):
    spread = torch.stack([r["model"][name] for r in repeats]).std(0)
    errors = torch.stack([r.standard_errors["model"][name] for r in repeats]).mean(0)
    ratio = errors / spread
    assert abs(float(ratio.mean()) - 1) < 0.1
    assert bool(((ratio - 1).abs() < 0.15).all()), ratio


def test_the_error_of_a_mean_of_equal_groups_is_the_textbook_one():
    given = batches(10, 7)
    means = torch.stack([model()(b).detach().abs().mean(0) for b in given])
    expected = means.std(0) / 10**0.5
    found = run(given, groups=10).standard_errors["model"]["activation_mean"]
    assert torch.allclose(found, expected, rtol=1e-10)


def test_the_errors_are_those_of_leaving_out_by_hand():
    given = batches(7)
    found = run(given, groups=3).standard_errors["model"]
    by_hand = [
        lens().run(model(), [b for i, b in enumerate(given) if i % 3 != group], progress=False)
        for group in range(3)
    ]
    for name in NAMES:
        scores = torch.stack([r["model"][name] for r in by_hand])
        expected = (2 / 3 * (scores - scores.mean(0)).square().sum(0)).sqrt()
        assert torch.allclose(found[name], expected, rtol=1e-9, atol=1e-14), name


def test_the_merges_grow_with_the_groups_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch):
    from nodelens import Aggregator

    jackknife = Jackknife(lens(), 20)
    for statistics in lens().analyse_batched(model(), batches(40, 5)):
        jackknife.update(jackknife.groups[0], statistics)
    merged: list[int] = []
    plain = Aggregator.merge

    def counted(self: Aggregator, other: Aggregator) -> None:
        merged.append(other.batches)
        plain(self, other)

    monkeypatch.setattr(Aggregator, "merge", counted)
    assert [rest.batches for rest in leave_one_out(jackknife.groups)] == [38] * 20
    assert len(merged) <= 5 * 20  # every pair would be 380


def test_the_groups_are_as_they_were_after_the_merges():
    jackknife = Jackknife(lens(), 3)
    for statistics in lens().analyse_batched(model(), batches(3)):
        jackknife.update(jackknife.groups[0], statistics)
    before = [group.result() for group in jackknife.groups]
    assert len(list(leave_one_out(jackknife.groups))) == 3
    for group, result in zip(jackknife.groups, before, strict=True):
        assert_equal(group.result(), result)


def test_the_scores_are_the_same_to_the_bit_without_errors():
    assert_equal(run(batches()), run(batches(), standard_errors=False))
    assert run(batches(), standard_errors=False).standard_errors == {}


def test_groups_without_standard_errors_are_refused():
    message = r"'composite_lens' was given groups=5 without standard errors.*standard_errors=True"
    with pytest.raises(InvalidValueError, match=message):
        run(batches(), groups=5, standard_errors=False)


def test_a_settled_stream_has_the_errors_of_what_it_read():
    until = Settled(top=0.25, patience=3)
    settled = run(batches(30), until=until)
    seen = settled.rows["model"] // 20
    assert 4 <= seen < 30
    assert_equal(settled, run(batches(30)[:seen]))
    found, expected = settled.standard_errors, run(batches(30)[:seen]).standard_errors
    assert all(torch.equal(found["model"][name], expected["model"][name]) for name in NAMES)


def test_weights_have_no_error():
    result = Lens.from_name("weight_magnitude").run(
        model(), batches(4), progress=False, standard_errors=True
    )
    assert result.standard_errors["model"]["weight_magnitude"].tolist() == [0.0] * 4


def test_the_result_says_how_many_groups_there_were():
    assert run(batches(5), groups=20).notes[-1] == (
        "standard errors: jackknife over 5 groups of 5 batches"
    )
    assert (
        run(batches(30, 5)).notes[-1] == "standard errors: jackknife over 20 groups of 30 batches"
    )


def test_one_batch_has_no_error_and_a_note_says_why():
    result = run(batches(1))
    errors = result.standard_errors["model"]
    assert set(errors) == set(NAMES) and all(e.isnan().all() for e in errors.values())
    assert result.notes[-1] == "no standard errors: 1 batch, expected at least 2"


def test_groups_too_small_to_score_leave_the_scores_and_a_note():
    result = Lens.from_name("activation_variance").run(
        model(), batches(2, 1), progress=False, standard_errors=True
    )
    assert result["model"]["activation_variance"].isfinite().all()
    assert result.standard_errors["model"]["activation_variance"].isnan().all()
    assert "without one group of 2 batches" in result.notes[-1]
    assert "one row seen, expected at least 2" in result.notes[-1]


def test_a_layer_of_one_group_alone_has_no_error():
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.always, self.rare = model(), model()

        def forward(self, x: Tensor) -> Tensor:
            x = self.always(x)
            return self.rare(x) if len(x) == 3 else x

    made = Lens.from_name("activation_mean")
    jackknife = Jackknife(made, 5)
    whole = made.aggregator()
    for rows in [2, 2, 3, 2, 2]:
        (part,) = made.analyse_batched(Sometimes(), batches(1, rows))
        whole.update(part)
        jackknife.update(whole, part)
    result = whole.result()
    jackknife.conclude(result)
    assert result.standard_errors["always"]["activation_mean"].isfinite().all()
    assert result.standard_errors["rare"]["activation_mean"].isnan().all()
    assert "no standard errors of layer 'rare'" in result.notes[-1]


def test_errors_are_saved_loaded_and_in_the_table(tmp_path: Path):
    result = run(batches())
    result.save(tmp_path)
    loaded = LensResult.load(tmp_path)
    assert_close(loaded.standard_errors, result.standard_errors, 0.0)
    table = loaded.to_pandas()
    assert list(table) == ["layer", "channel", "score", "value", "standard_error", "unit"]
    mine = table[table.score == "activation_mean"].standard_error.tolist()
    assert mine == result.standard_errors["model"]["activation_mean"].tolist()


def test_a_result_without_errors_has_no_column_and_loads_none(tmp_path: Path):
    run(batches()).save(tmp_path)
    run(batches(), standard_errors=False).save(tmp_path)
    loaded = LensResult.load(tmp_path)
    assert loaded.standard_errors == {}
    assert "standard_error" not in loaded.to_pandas()


def test_errors_and_resume_together_are_refused_before_any_batch(tmp_path: Path):
    with pytest.raises(InvalidValueError, match=r"standard_errors=True does not go with resume="):
        run(batches(), resume=tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("groups", [1, 0, 2.0, True])
def test_fewer_than_two_groups_are_refused(groups: Any):
    with pytest.raises(InvalidValueError, match=f"groups is {groups}, expected a whole number"):
        run(batches(), groups=groups)


def test_the_formula_of_two_replicates():
    # sqrt(1/2 * 2 * 1^2)
    assert float(jackknife_error(torch.tensor([[1.0], [3.0]]))) == 1.0
