"""Planted truth is found, and chance is not taken for it."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import torch
from scipy.stats import spearmanr

from nodelens import Lens
from nodelens.analysis.causal import (
    AblationValidation,
    ClassProfile,
    HitRateSweep,
    ablation_validation,
    cascade,
    class_selectivity_profile,
    halo_ablation,
    halo_receivers,
    hit_rate_sweep,
    measured_damage,
    pair_lesion,
)
from nodelens.analysis.causal.estimates import rank_correlations, top_recalls
from nodelens.analysis.causal.sampling import matched, stratified
from nodelens.errors import InvalidValueError, ShapeError, UnknownOptionError
from tests.analysis.planted import conjunction, linear

QUIET = {"progress": False, "resamples": 300}


def test_rank_correlation_is_scipys_and_a_constant_gives_0():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 5, 12)).round(1)
    wanted = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlations(a, b), wanted)
    assert rank_correlations(np.ones((1, 12)), b[:1])[0] == 0


def test_recall_shares_places_among_ties():
    damage = np.array([[5.0, 4, 3, 2, 1, 0]])
    assert top_recalls(np.array([[0.0, 9, 8, 0, 0, 0]]), damage, 2)[0] == 0.5
    assert top_recalls(damage, damage, 2)[0] == 1
    # Drawing 2 of 6 by lot hits each of the two with probability 1/3.
    assert top_recalls(np.ones((1, 6)), damage, 2)[0] == pytest.approx(1 / 3)


def test_strata_give_evenly_and_small_layers_all():
    values = np.arange(100.0)
    drawn = stratified(values, 20, 5, np.random.default_rng(1))
    assert (
        sorted(c // 20 for c in drawn)
        == sorted(drawn.values())
        == 4 * [0] + 4 * [1] + 4 * [2] + 4 * [3] + 4 * [4]
    )
    assert list(stratified(values[:7], 20, 5, np.random.default_rng(1))) == list(range(7))


def test_controls_are_near_in_score_and_never_twice():
    scores = {"a": np.arange(40.0)}
    targets = [("a", 10), ("a", 20), ("a", 21)]
    pool = [("a", c) for c in range(40)]
    found = matched(targets, pool, scores, np.random.default_rng(2))
    assert len(set(found)) == 3 and not set(found) & set(targets)
    assert all(min(abs(c - t) for _, t in targets) <= 4 for _, c in found)
    with pytest.raises(InvalidValueError, match="'a' has too few channels"):
        matched(targets, pool[:2], None, np.random.default_rng(2))


def test_a_score_that_is_the_truth_is_validated_and_its_reverse_refuted():
    model, parts, truth = linear()
    check = AblationValidation({"units": truth}, resamples=300)
    damage = measured_damage(model, parts, check.lesions, progress=False)
    found = check.conclude(damage)
    assert found["spearman"].value == pytest.approx(1) and found["top_recall"].value == 1
    assert len(found.rows) == 24
    turned = AblationValidation({"units": -truth}, resamples=300).conclude(damage)
    assert turned["spearman"].value == pytest.approx(-1) and turned["top_recall"].value == 0
    kept = AblationValidation({"units": -truth}, importance=-1, resamples=300).conclude(damage)
    assert kept["spearman"].value == pytest.approx(1)


def test_channels_that_help_when_silenced_count():
    model, parts, truth = linear()
    harmful = np.argsort(truth)[-6:]
    with torch.no_grad():
        # Their sign is wrong: without them the answer is nearer.
        model.readout.weight[0, harmful] *= -1
    found = ablation_validation(model, parts, {"units": truth}, per_layer=24, **QUIET)
    cost = found.to_pandas().set_index("channel")["loss_change"]
    assert (cost[harmful] < 0).all() and len(cost) == 24
    wanted = spearmanr(truth, cost.sort_index()).statistic
    assert found["spearman"].value == pytest.approx(wanted) and wanted < 0.5


@pytest.mark.parametrize("kind", ["random", "constant"])
def test_scores_that_know_nothing_have_intervals_that_hold_0(kind: str):
    model, parts, _ = linear(60)
    lots = np.random.default_rng(7).random(60) if kind == "random" else np.ones(60)
    found = ablation_validation(model, parts, {"units": lots}, per_layer=60, **QUIET)
    assert 0 in found["spearman"] and abs(found["spearman"].value) < 0.25


def test_intervals_hold_0_for_nearly_all_random_scores():
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(100):
        a, b = generator.random((2, 30))
        picks = generator.integers(0, 30, (300, 30))
        low, high = np.quantile(rank_correlations(a[picks], b[picks]), [0.025, 0.975])
        held += low <= 0 <= high
    assert held >= 88


def test_a_planted_conjunction_is_found_by_pair_lesion():
    model, parts = conjunction()
    generator = np.random.default_rng(0)
    synergy = generator.random((8, 8)) * 0.1
    synergy += synergy.T
    synergy[2, 5] = synergy[5, 2] = 3
    found = pair_lesion(model, parts, {"units": synergy}, pairs=1, **QUIET)
    # Either lost loses the product: 4 E[h2^2 h5^2] = 4, together no more than that.
    assert found["joint"].value == pytest.approx(4, rel=0.1)
    assert found["excess"].value == pytest.approx(-4, rel=0.1)
    assert found["interaction_gap"].value > 3.5


def test_pairs_that_only_look_synergistic_show_no_interaction():
    model, parts = conjunction()
    synergy = np.zeros((8, 8))
    for i, j in ((0, 1), (3, 4), (6, 7)):
        synergy[i, j] = synergy[j, i] = 1
    found = pair_lesion(model, parts, {"units": synergy}, pairs=3, **QUIET)
    # Additive units interact by sampling noise of their products alone.
    assert found["interaction"].value < 0.2 and found["p"].value > 0.05


def test_a_planted_core_has_a_slope_and_a_false_one_none():
    model, parts, truth = linear()
    order = np.argsort(-truth)
    core, rest = {"units": order[:4]}, {"units": order[4:]}
    found = hit_rate_sweep(model, parts, core, rest, draws=4, **QUIET)
    assert found["slope"].low > 0
    full = found["loss_change.1"].value
    assert full == pytest.approx(truth[order[:4]].sum(), rel=0.25)
    mixed = np.random.default_rng(1).permutation(24)
    chance = hit_rate_sweep(
        model, parts, {"units": mixed[:4]}, {"units": mixed[4:]}, draws=12, **QUIET
    )
    assert chance["slope"].value < found["slope"].value / 3


def test_every_dose_silences_as_many_channels():
    check = HitRateSweep({"a": range(4), "b": [0, 1]}, {"a": range(4, 20), "b": range(2, 9)})
    for fraction, _, which in check.doses:
        gone = dict(which)
        assert len(gone["a"]) == 4 and len(gone["b"]) == 2
        assert sum(c < 4 for c in gone["a"]) == round(4 * fraction)
    assert check.evaluations <= 26


def test_a_planted_halo_costs_more_than_controls_and_chance_does_not():
    model, parts, truth = linear()
    order = np.argsort(-truth)
    halo, core, rest = ({"units": order[a:b]} for a, b in ((2, 5), (0, 2), (5, 24)))
    found = halo_ablation(model, parts, halo, core, rest, draws=19, progress=False)
    assert found["gap"].low > 0 and found["p"].value == pytest.approx(1 / 20)
    alike = {"units": order[6:20:5]}
    none = halo_ablation(
        model, parts, alike, core, rest, scores={"units": truth}, draws=19, progress=False
    )
    assert 0 in none["gap"] and none["p"].value > 0.05


def test_halo_and_core_that_need_each_other_interact():
    model, parts = conjunction()
    args = ({"units": [5]}, {"units": [2]}, {"units": [0, 1, 3, 4, 6, 7]})
    found = halo_ablation(model, parts, *args, draws=12, progress=False)
    assert found["interaction"].value == pytest.approx(-4, rel=0.1)
    assert found["interaction_gap"].high < -3


def test_a_cascade_tells_types_apart():
    model, parts, truth = linear()
    order = np.argsort(-truth)
    types = {"critical": {"units": order[:8]}, "background": {"units": order[16:]}}
    found = cascade(model, parts, types, counts=(2, 99), **QUIET)
    assert found["excess.critical.2"].low > 0 > found["excess.background.2"].high
    assert not any(name.endswith(".99") for name in found.estimates)


def test_receivers_that_read_the_source_are_disrupted():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 20))
    x = torch.randn(200, 6)
    influence = model[1].weight.detach()[:, 2].abs()
    with torch.no_grad():
        hidden, y = model[0](x), model(x)
        wanted = hidden[:, 2].square().mean().sqrt() * influence / y.std(0, correction=0)
    found = halo_receivers(
        model, list(x.split(80)), {"0": [2]}, "1", influence, others={"0": [0, 1, 3, 4, 5]},
        draws=4, **QUIET,
    )  # fmt: skip
    got = found.to_pandas()["disruption"].to_numpy()
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4)
    assert found["spearman"].low > 0.3 and found["gap"].value > 0.3
    with pytest.raises(ShapeError, match="influence on 6 of 20 channels"):
        halo_receivers(model, [x], {"0": [2]}, "1", influence[:6])


def test_a_channel_of_one_class_is_selective():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
        model[1].weight.copy_(4 * torch.eye(4))
        model[1].bias.zero_()
    y = torch.arange(4).repeat(10)
    x = torch.eye(4)[y]
    found = class_selectivity_profile(model, [(x, y)], {"0": range(4)}, **QUIET)
    assert [row["most"] for row in found.rows] == [0, 1, 2, 3]
    # Its own class loses log(1 + 3 e^-4) to log 4; for the others a 0 was silenced.
    rise = np.log(4) - np.log1p(3 * np.exp(-4))
    assert found.rows[1]["class_1"] == pytest.approx(rise, rel=1e-4)
    assert found["selectivity"].value == pytest.approx(1)
    assert found["control"].value < found["selectivity"].value


def test_mistakes_are_named():
    model, parts, truth = linear()
    with pytest.raises(UnknownOptionError, match=r"'per_layr' \(did you mean 'per_layer'"):
        ablation_validation(model, parts, {"units": truth}, per_layr=3)
    with pytest.raises(InvalidValueError, match="24 of 24 values of the score of layer 'units'"):
        ablation_validation(model, parts, {"units": truth * np.nan})
    with pytest.raises(ShapeError, match=r"shape \(4, 6\), expected \(channels,\)"):
        ablation_validation(model, parts, {"units": truth.reshape(4, 6)})
    with pytest.raises(InvalidValueError, match="3 other channels for a core of 5"):
        hit_rate_sweep(model, parts, {"units": range(5)}, {"units": range(4, 8)})
    with pytest.raises(InvalidValueError, match="is in the halo and in the core"):
        halo_ablation(model, parts, {"units": [1]}, {"units": [1]}, {"units": [2]})
    with pytest.raises(ShapeError, match=r"synergy of shape \(2, 2\)"):
        pair_lesion(model, parts, {"units": np.eye(2)})


def test_the_lens_of_receivers_streams_to_the_same_and_leaves_padding_out():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.ReLU(), torch.nn.Linear(6, 20))
    model.double()
    x = torch.randn(30, 4, 6, dtype=torch.float64)
    influence = model[2].weight.detach()[:, 2].abs()
    given = {"others": {"0": [0, 1, 3, 4, 5]}, "draws": 4, "resamples": 300}
    wanted = halo_receivers(
        model, [x.flatten(0, 1)], {"0": [2]}, "2", influence, **given, progress=False
    )
    lens = Lens.from_name(
        "halo_receivers", source={"0": [2]}, receiver="2", influence=influence, **given
    )
    aggregator = lens.aggregator()
    mask = torch.ones(30, 6, dtype=torch.bool)
    mask[:, 4:] = False
    padded = torch.cat([x, torch.randn(30, 2, 6, dtype=torch.float64)], 1)
    parts = [(padded[rows], {"mask": mask[rows]}) for rows in (slice(0, 7), slice(7, 30))]
    for measured in lens.analyse_batched(model, parts):
        aggregator.update(measured)
    found = lens.concluded(aggregator.statistics)
    for name in ("spearman", "control", "gap"):
        assert vars(found[name]) == pytest.approx(vars(wanted[name]), rel=1e-9)
    pandas.testing.assert_frame_equal(found.to_pandas(), wanted.to_pandas(), rtol=1e-9)
    assert float(aggregator.result()["model"]["gap"]) == pytest.approx(wanted["gap"].value)


def test_the_lens_of_classes_streams_to_the_same():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.ReLU(), torch.nn.Linear(7, 4))
    model.double()
    x = torch.randn(60, 6, dtype=torch.float64)
    y = model(x).argmax(1).roll(1)
    wanted = class_selectivity_profile(model, [(x, y)], {"0": range(7)}, **QUIET)
    lens = Lens.from_name("class_selectivity_profile", {"0": range(7)})
    # The first part has not met every class.
    order = y.argsort()
    parts = [(x[rows], y[rows]) for rows in (order[:15], order[15:])]
    aggregator = lens.aggregator()
    for measured in lens.analyse_batched(model, parts):
        aggregator.update(measured)
    found = lens.concluded(aggregator.statistics)
    assert found.evaluations == wanted.evaluations == 8
    pandas.testing.assert_frame_equal(found.to_pandas(), wanted.to_pandas(), atol=1e-6)
    result = aggregator.result()
    assert float(result["model"]["gap"]) == pytest.approx(wanted["gap"].value, abs=1e-6)
    assert result.units["selectivity"] == result.units["gap_low"] == "1"


def test_what_rounding_leaves_is_not_selective():
    check = ClassProfile({"a": [0, 1]}, draws=2)
    found = check.conclude({0: np.array([1, 1 + 1e-9, 2]), 1: np.array([1.0, 1.0, 1.0])})
    assert [row["selectivity"] for row in found.rows] == [0, 1]
