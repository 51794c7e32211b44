"""What a report says follows from the numbers."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from nodelens.report import Findings, channel_data, find
from nodelens.report.channels import wilson

spec = importlib.util.spec_from_file_location("made_up", Path(__file__).parent / "conftest.py")
assert spec is not None and spec.loader is not None
made_up = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made_up)


def test_the_headline_compares_the_best_order_with_chance():
    assert find(made_up.evidence()).headline == (
        "Silencing half of every hidden layer costs 8.0 points of accuracy when `mag` picks the"
        " channels, 58 points when chance does"
    )


def test_the_best_order_is_picked_on_validation_rows_and_told_on_test_rows():
    table = made_up.sensitivity()
    swapped = table.copy()
    test = (swapped["split"] == "test") & (swapped["amount"] == 0.5)
    swapped.loc[test & (swapped["score"] == "mag") & (swapped["mode"] == "low"), "accuracy"] = 0.7
    swapped.loc[test & (swapped["score"] == "red") & (swapped["mode"] == "high"), "accuracy"] = 0.95
    found = find(made_up.evidence(sensitivity=swapped))
    assert "costs 28.0 points of accuracy when `mag` picks" in found.headline


def test_chance_is_that_of_the_amount_nearest_to_a_half():
    table = made_up.sensitivity()
    more = table[table["amount"] == 0.5].assign(amount=0.9, accuracy=0.1)
    found = find(made_up.evidence(sensitivity=pd.concat([table, more])))
    assert found.headline == find(made_up.evidence()).headline


def test_a_channel_without_a_label_has_none():
    channels = made_up.evidence().channels.assign(role=["core", None, "halo", "core"])
    (role,) = channel_data(channels, {}, [])["labels"]
    assert role == {"name": "role", "names": ["core", "halo"], "values": [0, None, 1, 0]}


def test_a_score_that_does_not_beat_chance_is_not_praised():
    worse = dict.fromkeys(made_up.AT_HALF, 0.45)
    found = find(made_up.evidence(sensitivity=made_up.sensitivity(worse)))
    assert found.headline == (
        "No score tested beats chance: with half of every hidden layer silenced, `mag` leaves 45%"
        " accuracy, random channels 40%"
    )


def test_silencing_that_costs_nothing_is_said_to():
    found = find(made_up.evidence(sensitivity=made_up.sensitivity({("mag", "low"): 0.98})))
    assert "costs no accuracy when `mag` picks the channels, 58 points" in found.headline


def test_without_random_orders_nothing_is_said_of_chance():
    table = made_up.sensitivity()
    found = find(made_up.evidence(sensitivity=table[table["score"] != "random"]))
    assert found.headline.endswith("when `mag` picks the channels")
    assert not any("random" in sentence for sentence in found.sentences)


def test_without_sensitivity_the_headline_counts():
    found = find(made_up.evidence(sensitivity=None))
    assert found.headline == "4 channels in 2 layers, measured by 3 scores"


def test_the_sentences_say_what_the_tables_hold():
    found = find(made_up.evidence())
    assert found.sentences == [
        "With half of every hidden layer silenced, the best order on the validation rows is `mag`,"
        " lowest first: it leaves 90.0% of 98.0%; random orders leave 40.0% (30.0% to 50.0%).",
        f"`mag`, the order that costs least, keeps longest `fc1[1]` and `{made_up.HOSTILE}[1]`, the"
        " first of each layer.",
        "The most damaging order is `mag`, highest first: it leaves 20.0% with half of every hidden"
        " layer silenced.",
        f"The most redundant channels are `fc1[1]` (0.4), `{made_up.HOSTILE}[1]` (0.3) and"
        f" `{made_up.HOSTILE}[0]` (0.2), in nat of `average_redundancy`; the median channel has"
        " 0.25.",
        f"Dead (0 on every row measured): `fc1[0]` and `{made_up.HOSTILE}[1]`.",
        "Silencing first what a score calls dispensable costs less than the reverse for 2 of 2"
        " scores.",
        "`activation_sparsity` and `mag` rank channels most alike (0.75); `average_redundancy` and"
        " `mag` most oppositely (−0.50).",
    ]


def test_a_channel_that_the_loss_never_depends_on_is_dead_too():
    channels = made_up.evidence().channels.assign(taylor_saliency=[0.0, 0.0, 0.1, 0.1])
    found = find(made_up.evidence(channels=channels))
    assert (
        "Dead (on no row measured does the loss depend on them): `fc1[0]`, `fc1[1]` and"
        f" `{made_up.HOSTILE}[1]`." in found.sentences
    )
    many = pd.concat([channels] * 3, ignore_index=True)
    found = find(made_up.evidence(channels=many))
    assert any("6 of 6 in `fc1` and 3 of 6 in" in sentence for sentence in found.sentences)
    alive = channels.assign(taylor_saliency=0.1, activation_sparsity=0.0)
    assert "No channel is dead." in find(made_up.evidence(channels=alive)).sentences


def test_a_score_that_points_the_wrong_way_is_named():
    table = made_up.sensitivity({("red", "high"): 0.1})
    sentences = find(made_up.evidence(sensitivity=table)).sentences
    assert any(text.endswith("for 1 of 2 scores; not for `red`.") for text in sentences)


def test_every_figure_has_a_reading():
    readings = find(made_up.evidence()).readings
    assert readings["sensitivity_low"] == (
        "Lowest first: with half of every hidden layer silenced, `mag` leaves 90% and `red` 30%;"
        " chance leaves 40%."
    )
    assert readings["layer_heatmap"].startswith("`mag` differs most between layers: channels of")
    assert readings["histograms"] == (
        "`average_redundancy` is the most concentrated: a tenth of all channels holds 40% of its"
        " total."
    ) or readings["histograms"].startswith("`")
    assert set(readings) == {
        "sensitivity",
        "sensitivity_low",
        "sensitivity_high",
        "rank_correlation",
        "layer_heatmap",
        "histograms",
    }


def test_scores_that_are_all_constant_are_not_compared():
    correlation = pd.DataFrame(float("nan"), index=["a", "b"], columns=["a", "b"])
    found = find(made_up.evidence(correlation=correlation))
    assert "rank_correlation" not in found.readings


@pytest.mark.parametrize(("right", "rows"), [(0, 50), (7, 50), (444, 450), (50, 50)])
def test_the_interval_is_wilson_s(right, rows):
    # Its ends are the chances p from which the fraction is 1.96 standard errors of p away.
    n, z = rows, norm.ppf(0.975)
    ends = np.roots([1 + z**2 / n, -2 * right / n - z**2 / n, (right / n) ** 2])
    assert wilson(right / n, n) == pytest.approx(sorted(ends), abs=1e-9)


def test_findings_survive_being_written_down():
    found = find(made_up.evidence())
    assert Findings.from_plain(asdict(found)) == found


def test_each_question_has_its_number():
    found = find(made_up.evidence())
    numbers = {(number.answers, number.value) for number in found.numbers}
    # Sorted, mag is 4, 3, 2, 1: the first two are the fewest that hold at least half of 10.
    assert {("matter", "2 of 4"), ("redundant", "2 of 4"), ("without", "90.0%")} <= numbers


def test_without_a_tested_order_channels_are_named_by_the_most_telling_score():
    channels = made_up.evidence().channels.assign(taylor_saliency=[0.0, 0.3, 0.1, 0.2])
    importance = {"mag": 1, "taylor_saliency": 1}
    found = find(made_up.evidence(channels=channels, sensitivity=None, importance=importance))
    assert found.answers["matter"] == [
        f"`taylor_saliency` is highest in `fc1[1]` and `{made_up.HOSTILE}[1]`, the first of"
        " each layer."
    ]
    low = find(made_up.evidence(sensitivity=None, importance={"mag": -1}))
    assert low.answers["matter"] == [
        f"`mag` argues by low values for `fc1[0]` and `{made_up.HOSTILE}[0]`, the first of each"
        " layer."
    ]
    assert find(made_up.evidence(sensitivity=None, importance={})).answers["matter"] == []
