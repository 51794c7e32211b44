"""Data made so that the score is known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodelens import Lens
from nodelens.metrics import get_metric
from nodelens.metrics.formulas.information import explained_variance, left_out_quality

ROWS = 400
CLAMPED = -0.5 * np.log(1 - (1 - 1e-4) ** 2)
"""The information of a copy: rho counts as 1 - 1e-4."""


def white(columns: int, rows: int = ROWS) -> Tensor:
    """Columns of mean 0 and variance 1 whose sample correlations are exactly 0."""
    drawn = torch.randn(rows, columns, dtype=torch.float64)
    orthogonal = torch.linalg.qr(drawn - drawn.mean(0)).Q
    return orthogonal * (rows - 1) ** 0.5


def nats(rho: Tensor | float) -> Tensor:
    return -0.5 * torch.log1p(-torch.as_tensor(rho, dtype=torch.float64).square())


def assert_equal(found: Tensor, expected: Tensor | float) -> None:
    wanted = torch.as_tensor(expected, dtype=torch.float64).expand_as(found)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rho", [0.0, 0.1, -0.5, 0.9, 0.999])
def test_a_planted_correlation_gives_its_gaussian_information(rho: float):
    target, noise = white(2).unbind(1)
    y = rho * target + (1 - rho**2) ** 0.5 * noise
    scores = get_metric("mutual_information_gaussian").compute(
        outputs=3 * y[:, None] - 7, targets=5 * target + 2
    )
    assert_equal(scores, nats(rho))


def test_independent_targets_add_their_explained_variance():
    a, b, noise = white(3).unbind(1)
    y = 0.6 * a - 0.3 * b + (1 - 0.45) ** 0.5 * noise
    scores = get_metric("mi_gaussian").compute(
        outputs=y[:, None], targets=torch.stack([a, b, a + b], 1)
    )
    assert_equal(scores, nats(0.45**0.5))


def test_classes_that_no_row_is_of_are_not_decomposed(monkeypatch: pytest.MonkeyPatch):
    # Of a thousand classes with a dozen present, LAPACK's decomposition at times fails to converge.
    sizes, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: sizes.append(len(m)) or eigh(m))
    counts = torch.zeros(977, dtype=torch.float64)
    seen = torch.arange(5, 977, 80)
    counts[seen] = 10.0 + torch.arange(len(seen), dtype=torch.float64)
    sums = torch.diag(counts) - torch.outer(counts, counts) / counts.sum()
    means = torch.randn(4, 977, dtype=torch.float64)
    cross, between = means @ sums, (means @ sums * means).sum(1)
    told = explained_variance(cross, 2 * between, sums)
    assert torch.allclose(told, torch.full_like(told, 0.5))
    given = 2 * between, sums, int(counts.sum()), 1.0
    few = left_out_quality(cross[:, seen], given[0], sums[seen][:, seen], *given[2:])
    assert torch.allclose(left_out_quality(cross, *given), few)
    assert sizes == [len(seen)] * 3
    nothing = explained_variance(torch.zeros(4, 2), torch.ones(4), torch.zeros(2, 2))
    assert not nothing.any()


def test_a_class_that_explains_a_share_of_the_variance():
    labels = torch.arange(ROWS) % 4
    within = white(5)
    member = torch.nn.functional.one_hot(labels).double()
    within = within - member @ torch.linalg.lstsq(member, within).solution
    y = 2.0 * labels.double() + within[:, 0]
    between = (2.0 * labels.double()).var(correction=0)
    inner = within[:, 0].var(correction=0)
    scores = get_metric("mi_gaussian").compute(outputs=y[:, None], targets=labels)
    assert_equal(scores, 0.5 * torch.log(1 + between / inner))


def test_a_target_that_is_shuffled_tells_nothing():
    labels = torch.randint(0, 5, (8000,))
    outputs = torch.randn(8000, 4) + labels[:, None]
    metric = get_metric("mi_gaussian")
    shuffled = labels[torch.randperm(8000)]
    # Of independent rows, 2 n I is chi-squared with 4 degrees of freedom: 20 is past the 0.999th.
    assert (metric.compute(outputs=outputs, targets=shuffled) < 20 / 16000).all()
    assert (metric.compute(outputs=outputs, targets=labels) > 0.3).all()
    synergy = get_metric("synergy_gaussian_mmi")
    assert (synergy.compute(outputs=outputs, targets=shuffled) < 20 / 16000).all()


def planted_correlations() -> tuple[Tensor, Tensor]:
    """A correlation matrix, and rows that have exactly it."""
    half = torch.tensor([[1.0, 0.8, 0.1, -0.4], [0, 0.6, 0.3, 0.2], [0, 0, 0.9, 0.5]]).double()
    rho = half.T @ half + 0.2 * torch.eye(4, dtype=torch.float64)
    rho = rho / torch.outer(rho.diagonal().sqrt(), rho.diagonal().sqrt())
    return rho, white(4) @ torch.linalg.cholesky(rho).T


def test_redundancy_is_the_mean_information_with_the_others():
    rho, outputs = planted_correlations()
    pairs = nats(rho.clone().fill_diagonal_(0))
    assert_equal(get_metric("average_redundancy").compute(outputs=outputs), pairs.sum(1) / 3)
    nearest = get_metric("pairwise_redundancy_gaussian", partners="nearest", k=1)
    assert_equal(nearest.compute(outputs=outputs), pairs.amax(1))


def test_the_matrix_of_pairs_is_symmetric_and_its_rows_give_the_score():
    rho, outputs = planted_correlations()
    model = nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.eye(4))
    lens = Lens.from_name("pairwise_redundancy_gaussian", matrix=True)
    scores = lens.analyse(model, outputs)["model"]
    pairs = scores["pairwise_redundancy_gaussian.matrix"]
    assert_equal(pairs, nats(rho.clone().fill_diagonal_(0)))
    assert_equal(scores["pairwise_redundancy_gaussian"], pairs.sum(1) / 3)


def test_identical_units_count_as_almost_perfectly_correlated_and_the_result_says_so():
    model = nn.Linear(3, 3)
    with torch.no_grad():
        model.weight[1:] = model.weight[0]
    result = Lens.from_name("average_redundancy").analyse(model, torch.randn(50, 3))
    scores = result["model"]["average_redundancy"]
    torch.testing.assert_close(scores, torch.full((3,), CLAMPED, dtype=torch.float64))
    assert any("3 pairs" in note for note in result.notes)


def test_a_single_channel_has_no_partner():
    outputs = torch.randn(50, 1)
    for name in ("average_redundancy", "pairwise_redundancy_gaussian"):
        assert get_metric(name).compute(outputs=outputs).tolist() == [0.0]
    synergy = get_metric("gaussian_pid_synergy_mmi")
    assert synergy.compute(outputs=outputs, targets=torch.randn(50)).tolist() == [0.0]


def test_random_partners_are_seeded_and_never_the_channel_itself():
    rho, outputs = planted_correlations()
    pairs = nats(rho.clone().fill_diagonal_(0))

    def scores(**options) -> Tensor:
        metric = get_metric("pairwise_redundancy_gaussian", partners="random", **options)
        return metric.compute(outputs=outputs)

    drawn = [scores(k=1, seed=seed) for seed in range(40)]
    assert torch.equal(drawn[0], scores(k=1, seed=0))
    assert len({tuple(d.tolist()) for d in drawn}) > 1
    for channel in range(4):
        partners = set(range(4)) - {channel}
        met = {min(partners, key=lambda j: abs(pairs[channel, j] - d[channel])) for d in drawn}
        assert met == partners
    for k in (3, 10):
        assert_equal(scores(k=k), pairs.sum(1) / 3)


def test_noise_that_only_a_partner_knows_is_synergy():
    """T hides in y0 = T + N, and y1 = N alone tells nothing: together they tell T up to noise."""
    target, hidden, noise = white(3).unbind(1)
    outputs = torch.stack([target + hidden + 0.1 * noise, hidden], 1)
    alone = 1 / (2 + 0.01)
    together = 1 / (1 + 0.01)
    expected = nats(together**0.5) - nats(alone**0.5)
    scores = get_metric("gaussian_pid_synergy_mmi").compute(outputs=outputs, targets=target)
    assert_equal(scores, expected)
    assert float(expected) > 1.5


def test_a_common_cause_is_mostly_redundant():
    """y_i = T + noise_i: two noisy copies give R^2 = 2 / (2 + s), one alone 1 / (1 + s)."""
    target, a, b = white(3).unbind(1)
    outputs = torch.stack([target + 0.5 * a, target + 0.5 * b], 1)
    both, alone = nats((2 / 2.25) ** 0.5), nats((1 / 1.25) ** 0.5)
    scores = get_metric("gaussian_pid_synergy_mmi").compute(outputs=outputs, targets=target)
    assert_equal(scores, both - alone)


def test_several_targets_are_averaged():
    target, hidden, noise, other = white(4).unbind(1)
    outputs = torch.stack([target + hidden + 0.1 * noise, hidden], 1)
    metric = get_metric("gaussian_pid_synergy_mmi")
    first = metric.compute(outputs=outputs, targets=target)
    both = metric.compute(outputs=outputs, targets=torch.stack([target, other], 1))
    assert_equal(both, first / 2)


def test_noise_that_only_a_partner_knows_is_synergy_about_a_class_too():
    labels = torch.arange(ROWS) % 2
    member = torch.nn.functional.one_hot(labels).double()
    drawn = torch.randn(ROWS, 2, dtype=torch.float64)
    drawn = drawn - member @ torch.linalg.lstsq(member, drawn).solution
    hidden, noise = (torch.linalg.qr(drawn).Q * ROWS**0.5).unbind(1)
    signal = 2.0 * labels - 1
    outputs = torch.stack([signal + hidden + 0.1 * noise, hidden], 1)
    # Variances by hand: signal 1, hidden 1, noise 0.01, all uncorrelated.
    alone, together = 0.5 * np.log(2.01 / 1.01), 0.5 * np.log(1.01 / 0.01)
    scores = get_metric("synergy_gaussian_mmi").compute(outputs=outputs, targets=labels)
    assert_equal(scores, together - alone)


@pytest.mark.parametrize("seed", range(5))
def test_synergy_is_never_negative(seed: int):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn((30, 6), generator=generator)
    outputs[:, 4] = outputs[:, 0] * 2 + 1
    outputs[:, 5] = 3.0
    labels = torch.randint(0, 7, (30,), generator=generator)
    numbers = torch.randn((30, 2), generator=generator)
    for name in ("synergy_gaussian_mmi", "gaussian_pid_synergy_mmi"):
        for targets in (labels, numbers) if name.startswith("gaussian") else (labels,):
            assert (get_metric(name).compute(outputs=outputs, targets=targets) >= 0).all()


def test_copies_of_one_channel_have_no_synergy():
    target, noise = white(2).unbind(1)
    y = target + noise
    outputs = torch.stack([y, -2 * y, y + 5], 1)
    numeric = get_metric("gaussian_pid_synergy_mmi").compute(outputs=outputs, targets=target)
    classes = get_metric("synergy_gaussian_mmi").compute(
        outputs=outputs, targets=(target > 0).long()
    )
    assert numeric.abs().max() < 1e-9 and classes.abs().max() < 1e-9


def test_information_does_not_depend_on_the_units_of_a_target():
    a, b, noise = white(3).unbind(1)
    outputs = torch.stack([a + b + noise, a - 2 * noise], 1)
    targets = torch.stack([a, b, a + b], 1)
    for name in ("mi_gaussian", "gaussian_pid_synergy_mmi"):
        expected = get_metric(name).compute(outputs=outputs, targets=targets)
        moved = targets * torch.tensor([1e-9, 1.0, 1e9]) + torch.tensor([0.0, -3.0, 1e9])
        found = get_metric(name).compute(outputs=outputs, targets=moved)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_information_does_not_depend_on_the_units_of_a_channel():
    _, outputs = planted_correlations()
    targets = torch.randint(0, 3, (ROWS,))
    moved = outputs * torch.tensor([1e-3, 2.0, -50.0, 1e4]) + torch.tensor([5.0, -1.0, 0.0, 3e4])
    for name in ("average_redundancy", "mi_gaussian", "synergy_gaussian_mmi"):
        given = {} if name == "average_redundancy" else {"targets": targets}
        torch.testing.assert_close(
            get_metric(name).compute(outputs=moved, **given),
            get_metric(name).compute(outputs=outputs, **given),
            rtol=1e-7,
            atol=1e-9,
        )
