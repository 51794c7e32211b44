"""Supernodes: planted ones are found, formulas agree with loops, scales do not count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nodelens.analysis import supernodes as sn
from nodelens.errors import InvalidValueError, ShapeError, TooFewRowsError
from nodelens.metrics import formulas as f

CORE = [3, 40]


def down_weight() -> torch.Tensor:
    """A projection `(20, 60)` whose units 3, 40 and 11, 12 write to dimensions 0 and 1."""
    weight = torch.randn(20, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[:2, [3, 40, 11, 12]] *= 30
    return weight


def scores() -> torch.Tensor:
    values = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values[[17, 90]] = torch.tensor([500.0, 400.0], dtype=torch.float64)
    return values


def test_a_planted_supernode_is_selected_and_stands_out():
    assert sn.select_supernodes({"down": scores()})["down"].tolist() == [17, 90]
    assert sn.select_supernodes({"down": scores()[:50]})["down"].tolist() == [17]
    z = sn.outlier_z(scores())
    assert set(z.topk(2).indices.tolist()) == {17, 90} and z.topk(2).values.min() > 100
    assert z.abs().sort().values[-3] < 5
    held = sn.concentration(scores(), shares=(0.01, 1.0))
    assert held[0.01] == pytest.approx(float(900 / scores().sum())) and held[1.0] == 1


def test_even_scores_concentrate_nothing():
    assert sn.concentration(torch.ones(100))[0.05] == pytest.approx(0.05)
    assert sn.concentration(torch.zeros(100))[0.05] == 0
    torch.testing.assert_close(sn.lorenz(torch.ones(4)), torch.linspace(0, 1, 5).double())
    assert sn.lorenz([1.0, 3.0]).tolist() == [0, 0.75, 1]


@pytest.mark.parametrize("scale", [1e-5, 1e5, 1e-200])
def test_scales_do_not_count(scale):
    torch.testing.assert_close(sn.outlier_z(scale * scores()), sn.outlier_z(scores()))
    assert sn.concentration(scale * scores()) == pytest.approx(sn.concentration(scores()))
    weight = down_weight()
    torch.testing.assert_close(
        sn.write_halo(scale * weight, CORE), sn.write_halo(weight, CORE), rtol=1e-9, atol=1e-12
    )
    signals = np.random.default_rng(0).standard_normal((50, 4))
    signals[:, 1] += signals[:, 0]
    torch.testing.assert_close(
        sn.signal_redundancy(scale * signals, [0]), sn.signal_redundancy(signals, [0])
    )


def test_outliers_where_most_units_are_alike():
    few = torch.tensor([0.0] * 9 + [10.0])
    assert sn.outlier_z(few)[-1] == pytest.approx(10 / (np.sqrt(np.pi / 2) * 1.0))
    assert sn.outlier_z(torch.ones(5)).tolist() == [0] * 5
    assert sn.outlier_z([1.0, 2.0, 3.0])[2] == pytest.approx(1 / 1.482602, rel=1e-6)


def test_connectivity_is_a_share_of_the_column():
    weight = down_weight().numpy()
    pattern = sum(np.abs(weight[:, j]) / np.abs(weight[:, j]).sum() for j in CORE)
    top = sorted(np.argsort(-pattern)[:2])
    expected = [np.abs(weight[top, j]).sum() / np.abs(weight[:, j]).sum() for j in range(60)]
    found = f.connectivity(down_weight(), torch.tensor(CORE))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert top == [0, 1]
    mask = torch.zeros(60, dtype=torch.bool)
    mask[CORE] = True
    torch.testing.assert_close(f.connectivity(down_weight(), mask), found)


def test_a_planted_write_halo_and_read_halo_are_found():
    halo, conn = sn.write_halo(down_weight(), CORE, share=2 / 58)
    assert halo.tolist() == [11, 12] and conn[halo].min() > 0.7
    reads = torch.rand(30, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    reads[[5, 8, 9], :2] *= 50
    receivers, read = sn.read_halo(reads, down_weight(), CORE)
    assert receivers.tolist() == [5, 8, 9]
    np.testing.assert_allclose(read, (reads[:, :2].sum(1) / reads.sum(1)))


def test_redundancy_to_the_core_is_the_information_of_gaussians():
    random = np.random.default_rng(0)
    signals = random.standard_normal((400, 5))
    signals[:, 2] += 2 * signals[:, 0]
    signals[:, 4] = 3.0
    rho = np.corrcoef(signals[:, :4].T)
    expected = [np.mean([-0.5 * np.log(1 - rho[j, c] ** 2) for c in (0, 1)]) for j in (2, 3)]
    found = sn.signal_redundancy(1e-10 * signals, [0, 1])
    np.testing.assert_allclose(found[2:4], expected, rtol=1e-9)
    # A unit of the core is compared with the others of it, a constant shares nothing.
    assert found[0] == pytest.approx(-0.5 * np.log(1 - rho[0, 1] ** 2)) and found[4] == 0


def test_protection_and_scar_scores_on_paper():
    ranks = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(
        f.protection(ranks), torch.tensor([1, 1 - 0.8 / 256, 0.2], dtype=torch.float64)
    )
    proxy = torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64)
    redundancy = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    torch.testing.assert_close(f.scar_prot(proxy, redundancy), proxy * f.protection(ranks))
    conn = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    expected = [2.0, 4 * (0.5 + 0.5 * (1 - 0.8 / 256)), 8 * (0.75 + 0.25 * 0.2)]
    torch.testing.assert_close(
        f.scar_conn(proxy, conn, redundancy), torch.tensor(expected, dtype=torch.float64)
    )
    torch.testing.assert_close(f.scar_prot(proxy, redundancy, floor=1.0), proxy)


def test_write_concentration_is_an_effective_number_of_dimensions():
    weight = torch.zeros(8, 3)
    weight[2, 0] = -5.0
    weight[:, 1] = 0.1
    torch.testing.assert_close(
        sn.write_concentration(weight), torch.tensor([1.0, 8.0, 0.0], dtype=torch.float64)
    )


def test_overlap_of_definitions():
    one = np.arange(100.0)
    found = sn.overlap({"a": one, "b": one**3, "c": -one}, share=0.1)
    assert found.jaccard.loc["a", "b"] == 1 and found.jaccard.loc["a", "c"] == 0
    assert found.spearman.loc["a", "b"] == pytest.approx(1)
    assert found.spearman.loc["a", "c"] == pytest.approx(-1)


def test_robustness_tells_planted_supernodes_from_luck():
    random = np.random.default_rng(0)
    batches = random.random((10, 100))
    luck, first = sn.robustness(batches, share=0.05, samples=50), batches.copy()
    batches[:, [4, 8, 15, 16, 23]] += 5
    planted = sn.robustness(batches, share=0.05, samples=50)
    assert planted.selected.tolist() == [4, 8, 15, 16, 23] and planted.jaccard == 1
    assert planted.frequency.sum() == pytest.approx(5) and planted.frequency[4] == pytest.approx(1)
    assert torch.equal(luck.frequency, sn.robustness(10 * first, 0.05, samples=50).frequency)
    assert luck.jaccard < 0.9 and planted.chance == pytest.approx(0.25 / 9.75)


def test_controls_avoid_the_core_and_match_scores():
    cores = sn.random_cores(20, 3, count=50, exclude=[0, 1, 2], seed=1)
    assert cores.shape == (50, 3) and cores.min() > 2 and len(cores.unique()) == 17
    assert all(len(set(core.tolist())) == 3 for core in cores)
    assert torch.equal(cores, sn.random_cores(20, 3, count=50, exclude=[0, 1, 2], seed=1))
    values = torch.tensor([9.0, 5.0, 1.0, 5.1, 0.9, 8.0, 100.0])
    assert sn.matched_others(values, [1, 2], [6]).tolist() == [3, 4]
    # The highest of the halo, 8, takes 9; 10 would have it if it came last.
    contested = torch.tensor([8.0, 10.0, 9.1, 1.0, 100.0])
    assert sn.matched_others(contested, [0, 1], [4]).tolist() == [3, 2]


def test_a_halo_is_contrasted_with_its_matches():
    values = np.concatenate([np.full(10, 2.0), np.full(10, 1.0)]) + 0.01 * np.arange(20)
    found = sn.halo_contrast(values, np.arange(10), np.arange(10, 20), permutations=199)
    assert found.observed == pytest.approx(0.9) and found.p_greater == 1 / 200
    random = np.random.default_rng(3).standard_normal(20)
    other = sn.halo_contrast(random, np.arange(10), np.arange(10, 20), permutations=199)
    assert other.p_value > 0.05


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: sn.select_supernodes({"d": [1.0]}, 0.0), InvalidValueError, "share is 0"),
        (lambda: sn.concentration([-1.0]), InvalidValueError, "a score is -1"),
        (lambda: sn.robustness([[1.0]]), TooFewRowsError, "1 batches"),
        (lambda: sn.random_cores(5, 5, exclude=[1]), InvalidValueError, "from 1 to 4"),
        (lambda: sn.matched_others([1.0, 2.0], [0], [1]), InvalidValueError, "0 units are outside"),
        (lambda: sn.write_halo(torch.ones(2, 3), []), InvalidValueError, "core has no unit"),
        (lambda: sn.write_halo(torch.ones(2, 1), [0]), InvalidValueError, "none left"),
        (
            lambda: f.read_connectivity(torch.ones(4, 3), torch.ones(2, 5), torch.tensor([0])),
            ShapeError,
            "expected 2",
        ),
        (lambda: f.protection(torch.ones(2), floor=2), InvalidValueError, "floor is 2"),
        (lambda: f.scar_prot(torch.ones(2), torch.ones(3)), ShapeError, "redundancy has shape"),
        (lambda: sn.halo_contrast([1.0, 2.0], [0], []), ShapeError, r"others of shape \(0,\)"),
    ],
)
def test_what_makes_no_sense_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
