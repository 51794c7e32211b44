"""Classes and targets: planted truths, what shuffled labels give, bounds, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from torch import Tensor, nn

from nodelens import Lens
from nodelens.errors import InvalidValueError, MissingTargetsError, ShapeError
from nodelens.metrics import get_metric
from nodelens.metrics.formulas import partial_moments, pooled_classes, scatter
from tests.oracles import classes as oracles

DOUBLE = torch.float64
COPIES = 1500
"""Independent channels: the mean of their scores is that of as many seeds."""


def score(lens: str, outputs: Tensor, targets: Tensor, **options: Any) -> Tensor:
    return get_metric(lens, **options).compute(outputs=outputs, targets=targets)


def noise(rows: int, channels: int = COPIES) -> Tensor:
    return torch.randn(rows, channels, dtype=DOUBLE)


def assert_about(found: Tensor, expected: float) -> None:
    """The mean over channels is the expected value to within four standard errors."""
    error = float(found.std()) / len(found) ** 0.5
    assert abs(float(found.mean()) - expected) < 4 * error + 1e-12, (float(found.mean()), error)


MANY = torch.arange(400) // 4
"""A hundred classes of four rows."""
UNEVEN = torch.cat([torch.arange(60), torch.arange(60, 80).repeat(2), torch.arange(150) % 3 + 80])
"""Sixty classes of one row, twenty of two, three of fifty."""
LABELS = {
    "many small": MANY,
    "three": torch.arange(60) % 3,
    "uneven": UNEVEN,
    "one row each, but two": torch.tensor([0, 0, *range(1, 30)]),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_channels_independent_of_the_class_have_no_information_on_average(labels: Tensor):
    assert_about(score("mi_class", noise(len(labels)), labels), 0.0)


def test_without_the_correction_small_classes_look_informative():
    assert float(score("mi_class", noise(400), MANY, corrected=False).mean()) > 0.15


def test_a_class_that_moves_the_mean_or_the_spread_has_its_information():
    labels = torch.arange(40_000) % 2
    y = noise(40_000, 2)
    sign, spread = 2.0 * labels - 1, torch.where(labels == 1, 3.0, 1.0)
    found = score("mi_about_class", torch.stack([y[:, 0] + sign, y[:, 1] * spread], 1), labels)
    expected = torch.tensor([0.5 * np.log(2), 0.5 * np.log(5) - 0.5 * np.log(3)])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.015)


def test_classes_of_one_row_are_pooled_and_not_dropped():
    labels = torch.tensor([*range(20), *[20] * 50])
    y = noise(70, 1)
    y[:20] += 30  # only those classes differ from the large one
    assert float(score("mi_class", y, labels)) > 1
    assert float(score("mi_class", y, torch.arange(70))) == 0


def test_as_many_of_the_smallest_classes_are_pooled_as_it_takes():
    counts = torch.tensor([5, 1, 0, 3, 1, 2])
    group, freedom = pooled_classes(counts)
    assert freedom[group].tolist() == [4, 1, 1, 2, 1, 1] and int(freedom.sum()) == 7
    group, freedom = pooled_classes(counts, 2)
    assert freedom[group][[0, 1, 3, 4, 5]].tolist() == [4, 3, 3, 3, 3]
    assert pooled_classes(torch.tensor([1, 1]))[1].tolist() == [0]


def test_equal_means_leave_nothing_between_classes_to_the_last_bit():
    mean = torch.full((3, 1), 0.1, dtype=DOUBLE)
    assert scatter(torch.tensor([1, 2, 3]), mean, 0 * mean)[0].tolist() == [0.0]


def test_pairs_of_rows_together_show_what_none_shows_alone():
    labels, signal = torch.arange(100) // 2, noise(100, 1)[:, 0]
    y = (signal + 7.0 * labels)[:, None]
    found = score("cond_mi", y, with_reference(labels, signal), reference="targets")
    assert float(found) > 3


def with_reference(labels: Tensor, *numbers: Tensor) -> Tensor:
    return torch.stack([labels.double(), *numbers], 1)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_shuffled_references_tell_nothing_within_classes(labels: Tensor, count: int):
    numbers = noise(len(labels), count).unbind(1)
    found = score(
        "cond_mi", noise(len(labels)), with_reference(labels, *numbers), reference="targets"
    )
    assert_about(found, 0.0)


def test_what_the_class_explains_is_no_information_within_it():
    labels = torch.arange(4000) % 4
    signal, other = noise(4000, 2).unbind(1)
    y = torch.stack([10.0 * labels + other, 10.0 * labels + 0.6 * signal + 0.8 * other], 1)
    targets = with_reference(labels, 5.0 * labels + signal)
    found = score("conditional_mi", y, targets, reference="targets")
    expected = torch.tensor([0.0, -0.5 * np.log(1 - 0.36)])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.04)


@pytest.mark.parametrize("corrected", [True, False])
def test_numbers_beside_the_class_agree_with_the_oracle(corrected: bool):
    labels, numbers, y = torch.arange(90) % 4, noise(90, 2), noise(90, 5)
    y += numbers[:, :1] * labels[:, None]
    targets = torch.cat([numbers, labels[:, None].double()], 1)
    found = score("cond_mi", y, targets, reference="targets", label=-1, corrected=corrected)
    expected = oracles.information_within_classes(
        y.numpy(), labels.numpy(), numbers.numpy(), corrected
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_chain_of_causes_tells_nothing_beyond_its_middle():
    cause, *steps = noise(20_000, 3).unbind(1)
    middle = cause + steps[0]
    y = torch.stack([middle + steps[1], middle + steps[1] + cause], 1)
    given = score("conditional_mutual_information", y, torch.stack([cause, middle], 1), given=1)
    plain = score("mi_gaussian", y, cause)
    assert float(plain[0]) > 0.15
    torch.testing.assert_close(
        given, torch.tensor([0.0, 0.5 * np.log(1.5)]).double(), rtol=0, atol=0.02
    )


def test_information_follows_the_chain_rule():
    targets, y = noise(200, 3), noise(200, 4)
    y += targets @ noise(3, 4)
    both = score("mi_gaussian", y, targets)
    first = score("mi_gaussian", y, targets[:, :1])
    rest = score("conditional_mutual_information", y, targets, given=[0])
    torch.testing.assert_close(first + rest, both, rtol=1e-8, atol=1e-10)


def test_shuffled_targets_tell_nothing_beyond_what_is_given():
    targets = noise(30, 4)
    y = noise(30) + targets[:, :1]
    options: dict[str, Any] = {"given": (0, 1), "corrected": True}
    assert_about(score("conditional_mutual_information", y, targets, **options), 0.0)


def test_what_is_given_leaves_nothing_of_its_copies():
    targets = noise(50, 2)
    copies = torch.stack([3 * targets[:, 0] - 1, targets[:, 1], torch.ones(50)], 1)
    found = score("conditional_mutual_information", copies, targets, given=0)
    assert found[[0, 2]].tolist() == [0, 0] and float(found[1]) > 3
    beside = torch.cat([targets, 3 * targets[:, :1] + 0.1 * targets[:, 1:] * 1e-9], 1)
    torch.testing.assert_close(
        score("conditional_mutual_information", copies, beside, given=0), found
    )
    twice = torch.cat([targets, targets[:, :1]], 1)
    told = score("conditional_mutual_information", noise(50, 3), twice[:, [0, 2]], given=0)
    assert told.tolist() == [0, 0, 0]


def test_what_rounding_leaves_of_a_copy_is_no_column_of_its_own():
    sums = torch.tensor([[4, 4, 1], [4, 4 + 1e-12, 1 + 1e-9], [1, 1 + 1e-9, 2]], dtype=DOUBLE)
    given = torch.tensor([True, False, False])
    cross, m2 = torch.ones(1, 3, dtype=DOUBLE), torch.full((1,), 5.0, dtype=DOUBLE)
    cross, _, left = partial_moments(cross, m2, sums, given)
    assert left[0].tolist() == [0, 0] and left[:, 0].tolist() == [0, 0] and float(cross[0, 0]) == 0
    assert float(left[1, 1]) == pytest.approx(1.75)


def test_binning_sees_what_no_correlation_does():
    a, b = noise(8000, 2).unbind(1)
    xor = ((a > 0) ^ (b > 0)).long()
    y = torch.stack([a * b, a, a.abs()], 1)
    found = score("mi_binning", y, xor, bins=8)
    torch.testing.assert_close(found, torch.tensor([np.log(2), 0, 0]), rtol=0, atol=0.01)
    square = score("mi_binning", a[:, None], a.square())
    assert float(square) > 1.1 and float(score("mi_gaussian", a[:, None], a.square())) < 0.01


@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
def test_binning_of_independent_targets_is_about_zero(strategy: str):
    y = noise(1500, 300)
    for targets in (torch.arange(1500) % 5, torch.randn(1500)):
        found = score("mi_binning", y, targets, bins=6, strategy=strategy)
        plain = score("mi_binning", y, targets, bins=6, strategy=strategy, corrected=False)
        assert abs(float(found.mean())) < 2e-3 < 4e-3 < float(plain.mean())


def test_binning_does_not_depend_on_where_a_channel_lies():
    labels = torch.arange(2000) % 2
    y = noise(2000, 1) + labels[:, None]
    # Powers of two: the same float64 values but for their exponent and offset.
    moved = torch.cat([y, y + 1024, 2.0**-30 * y, -y], 1)
    found = score("mi_binning", moved, labels)
    torch.testing.assert_close(found, found[:1].expand(4), rtol=0.05, atol=0)
    assert float(found[0]) > 0.07


def test_binning_counts_outliers_and_says_when_bins_are_too_coarse():
    labels = torch.arange(600) % 2
    y = torch.randn(600, 3)
    y[:, 0] = 1e6 + 0.25 * labels
    y[0, 1], y[:, 2] = 1e5, y[:, 2] + labels
    layer = nn.Linear(3, 3, bias=False)
    layer.weight = nn.Parameter(torch.eye(3))
    found = Lens.from_name("mi_binning").analyse(layer, (y, labels))
    scores = found["model"]["mutual_information_binning"]
    assert scores[0] == 0 and float(scores[2]) > 0.05
    assert len(found.notes) == 2
    assert "1 channel varies less than a millionth of their size" in found.notes[0]
    assert "the 256 fine bins fill less than half of 10 bins" in found.notes[1]


def test_one_class_alone_is_full_selectivity_and_equal_classes_are_none():
    labels = torch.arange(40) % 4
    alone, equal = (labels == 2).double(), torch.ones(40)
    y = torch.stack([alone, equal, torch.zeros(40), -alone], 1)
    for mode in ("index", "variance", "entropy", "gini"):
        found = score("class_selectivity", y, labels, mode=mode)
        expected = [1.0, 0.0, 0.0]
        assert found[:3].tolist() == pytest.approx(expected, abs=1e-12), mode
        assert 0 <= float(found[3]) < 1 or mode == "index"
    low = score("class_selectivity", noise(40, 50) * 1e-9, labels, mode="entropy")
    assert float(low.min()) >= 0 and float(low.max()) <= 1


def test_shuffled_labels_leave_a_response_unselective():
    y, labels = 5 + noise(400, 200), torch.arange(400) % 4
    for mode in ("index", "variance", "entropy", "gini"):
        assert float(score("class_selectivity", y, labels, mode=mode).max()) < 0.05


def test_norms_of_classes_are_relative_to_that_of_all_rows():
    labels = torch.arange(6) % 2
    y = torch.tensor([[3.0, 1.0, 0.0, 2.0]]).repeat(6, 1)
    y[labels == 0] *= torch.tensor([1.0, 0.0, 0.0, -1.0])
    y[:, 0] = torch.where(labels == 0, 1.0, 7.0)
    found = {
        how: score("cond_act_norm", y.double(), labels, aggregate=how).tolist()
        for how in ("mean", "max", "variance", "ratio")
    }
    half = 2**0.5
    assert found["mean"] == pytest.approx([4 / 5, half / 2, 0, 1])
    assert found["max"] == pytest.approx([7 / 5, half, 0, 1])
    assert found["variance"] == pytest.approx([18 / 25, 1, 0, 0])
    assert found["ratio"] == pytest.approx([7, half * 1e6, 0, 1])


def test_shuffled_labels_separate_nothing():
    labels = torch.arange(60) % 3
    assert_about(score("classification_alignment", noise(60), labels), 2 / 55)
    small = score("classification_alignment", noise(4000, 50), torch.arange(4000) % 3)
    assert float(small.max()) < 0.01


def test_two_classes_are_half_of_d_prime_from_their_boundary():
    labels = torch.arange(20_000) % 2
    y = 0.5 * noise(20_000, 1) + labels[:, None]
    found = score("classification_alignment", y, labels, mode="boundary_distance")
    assert float(found) == pytest.approx(1.0, abs=0.03)
    assert float(score("classification_alignment", y, labels)) == pytest.approx(1.0, abs=0.1)


def test_the_left_out_quality_is_that_of_leaving_out_rows_one_by_one():
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4])
    y = (noise(12, 3) + labels[:, None]).numpy()
    hot = torch.nn.functional.one_hot(labels).double().numpy()
    guessed = cross_val_predict(Ridge(alpha=0.7), hot, y, cv=LeaveOneOut())
    plain = cross_val_predict(LinearRegression(), np.zeros((12, 1)), y, cv=LeaveOneOut())
    expected = 1 - ((y - guessed) ** 2).sum(0) / ((y - plain) ** 2).sum(0)
    found = score("representation_quality", torch.from_numpy(y), labels, penalty=0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_quality_of_a_probe_is_what_it_explains_and_no_more_for_noise():
    labels, number = torch.arange(3000) % 3, noise(3000, 1)
    y = noise(3000, 200)
    y[:, 0] += 2.0 * labels
    y[:, 1] += number[:, 0]
    told = score("representation_quality", y, labels)
    assert float(told[0]) == pytest.approx(8 / 11, abs=0.03) and float(told[1:].mean()) < 0
    probe = get_metric("representation_quality", targets="numbers")
    counted = probe.compute(outputs=y, targets=number)
    assert (
        float(counted[1]) == pytest.approx(0.5, abs=0.05) and abs(float(counted[2:].mean())) < 1e-3
    )


CLASS_LENSES = (
    "mi_about_class",
    "conditional_activation_norm",
    "class_selectivity",
    "classification_alignment",
    "representation_quality",
    "mutual_information_binning",
)


@pytest.mark.parametrize("lens", CLASS_LENSES)
def test_constant_channels_score_what_is_documented(lens: str):
    y = torch.stack([torch.full((20,), 0.3), torch.zeros(20)], 1)
    expected = [1.0, 0.0] if lens == "conditional_activation_norm" else [0.0, 0.0]
    for labels in (torch.arange(20) % 3, torch.zeros(20, dtype=torch.int64)):
        assert score(lens, y, labels).tolist() == pytest.approx(expected)
        cut = Lens.from_name(lens)
        layer = nn.Linear(1, 2)
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor([0.3, 0.0]))
        parts = [(torch.randn(5, 1), part) for part in labels.split(5)]
        found = cut.run(layer, parts, progress=False)["model"][lens]
        assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("lens", CLASS_LENSES)
def test_a_class_without_rows_changes_nothing(lens: str):
    y, labels = noise(30, 4), torch.arange(30) % 3
    torch.testing.assert_close(score(lens, y, labels * 3 + 2), score(lens, y, labels))


@pytest.mark.parametrize("lens", [name for name in CLASS_LENSES if "binning" not in name])
def test_labels_are_never_made_up(lens: str):
    with pytest.raises(MissingTargetsError, match="class numbers are needed"):
        score(lens, noise(30, 4), torch.randn(30))


def test_targets_that_do_not_fit_are_named():
    y = noise(30, 4)
    with pytest.raises(MissingTargetsError, match=r"class number and numbers are needed.*\(30,\)"):
        score("cond_mi", y, torch.arange(30), reference="targets")
    with pytest.raises(InvalidValueError, match="column 0 of the targets is to hold class numbers"):
        score("cond_mi", y, noise(30, 2), reference="targets")
    with pytest.raises(ShapeError, match=r"given=2 names columns of the targets, which are 2 num"):
        score("conditional_mutual_information", y, noise(30, 2), given=2)
    with pytest.raises(ShapeError, match="which are class numbers"):
        score("conditional_mutual_information", y, torch.arange(30), given=0)


@pytest.mark.parametrize(
    ("lens", "options", "said"),
    [
        ("class_selectivity", {"mode": "ginni"}, "did you mean 'gini'"),
        ("cond_act_norm", {"aggregate": "sum"}, "expected one of mean, max, variance, ratio"),
        ("conditional_mi", {"reference": "pc2"}, "did you mean 'pc1'"),
        ("conditional_mutual_information", {"given": "x"}, "expected 'pc1' or numbers"),
        ("mi_binning", {"strategy": "width"}, "expected one of quantile, uniform"),
        ("mi_binning", {"resolution": 100}, "expected a power of two"),
        ("mi_binning", {"bins": 1}, "expected 2 to resolution=256"),
        ("representation_quality", {"penalty": 0}, "expected more than 0"),
    ],
)
def test_a_wrong_option_says_what_was_expected(lens: str, options: dict[str, Any], said: str):
    with pytest.raises(InvalidValueError, match=said):
        get_metric(lens, **options)
